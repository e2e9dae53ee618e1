"""Gauge studies from the page: pictures and a table are sent, the station judges them as every picture.

The recipe in use applies, so what is studied is the inspection as it runs. The pictures go behind those of the line.
Studies are remembered until the station stops; their pages are files that a person saves or prints.
"""

import contextlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from totalrecall._version import __version__
from totalrecall.errors import BusyError, ConflictError, DataError, NotFoundError, TotalRecallError
from totalrecall.pictures.loading import FAILURES
from totalrecall.station.judging.caption import LONGEST_NAME, Caption, Upload
from totalrecall.station.quality.labelled import Part, grouped, parse_table
from totalrecall.station.quality.study import Gauge, JudgedPart, study_of
from totalrecall.station.quality.study_page import study_html
from totalrecall.station.store.records import Actor, Inspection, iso
from totalrecall.system.text import listed, unexpected

if TYPE_CHECKING:
    from totalrecall.station.quality.services import Services

__all__ = ["MOST_STUDIED", "Studies"]

MOST_STUDIED = 5000  # pictures of one study
_REMEMBERED = 10
_PAUSE = 0.05  # seconds between two tries while the queue is full
_SOURCE = "study"


@dataclass
class _Run:
    """A study, and how far it is."""

    key: str
    model: str
    actor: str
    total: int
    at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    done: int = 0
    state: str = "running"  # then "done" or "failed"
    error: str | None = None
    gauge: Gauge | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what people are told of it, but the result."""
        names = ("model", "actor", "state", "done", "total", "error")
        return {"id": self.key, "at": iso(self.at), **{name: getattr(self, name) for name in names}}


class Studies:
    """The studies of a station, one at a time. Any thread may call it."""

    def __init__(self, station: "Services") -> None:
        self._station = station
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._closed = False

    def begin(self, model: str, table: str, uploads: Sequence[Upload], actor: Actor) -> str:
        """Begin a study and return its key.

        Args:
            model: its name.
            table: CSV with the columns part, path and truth; a path is the name of a sent picture.
            uploads: the pictures.
            actor: who asks for it.

        Raises:
            NotFoundError: there is no such model.
            DataError: the table is not as described, or a picture is missing.
            ConflictError: another study is running.
        """
        loaded = self._station.shelf.get(model)
        rows = parse_table(table)
        pictures = {one.name: one.picture for one in uploads}
        missing = [name for _, name, _ in rows if name not in pictures]
        if missing:
            raise DataError(f"The table names the picture {missing[0][:200]!r}, which was not sent.")
        parts = grouped(rows)
        run = _Run(secrets.token_hex(16), loaded.name, actor.name, len(rows))
        with self._lock:
            if any(one.state == "running" for one in self._runs.values()):
                raise ConflictError("Another study is running. Wait until it is done.")
            self._runs[run.key] = run
            while len(self._runs) > _REMEMBERED:
                self._runs.popitem(last=False)
            self._thread = threading.Thread(
                target=self._run, args=(run, parts, pictures), name="station-study", daemon=True
            )
            self._thread.start()
        return run.key

    def facts(self, key: str) -> dict[str, Any]:
        """Return how far a study is, with its result.

        Raises:
            NotFoundError: there is none of that key.
        """
        run = self._get(key)
        return {**run.to_json(), "result": None if run.gauge is None else run.gauge.to_json()}

    def all(self) -> list[dict[str, Any]]:
        """Return them without results, the newest first."""
        with self._lock:
            return [{**run.to_json(), "result": None} for run in reversed(self._runs.values())]

    def page(self, key: str) -> str:
        """Return the page of a study that is done, as HTML.

        Raises:
            NotFoundError: there is none of that key.
            ConflictError: it is not done.
        """
        run = self._get(key)
        if run.gauge is None:
            raise ConflictError(f"Study {key} has no result: it is {run.state}.")
        return study_html(run.gauge, facts=run.facts)

    def wait(self, key: str, seconds: float | None = None) -> None:
        """Return when a study is over, or after some seconds."""
        thread = self._thread
        if self._get(key).state == "running" and thread is not None:
            thread.join(seconds)

    def close(self) -> None:
        """Stop after the picture in hand."""
        self._closed = True
        if self._thread is not None:
            self._thread.join()

    def _get(self, key: str) -> _Run:
        run = self._runs.get(key)
        if run is None:
            raise NotFoundError(f"There is no study {key}.")
        return run

    def _run(self, run: _Run, parts: Sequence[Part], pictures: Mapping[str, bytes]) -> None:
        try:
            run.gauge = self._judged(run, parts, pictures)
            run.state = "done"
        except TotalRecallError as error:
            run.error, run.state = str(error), "failed"
        except FAILURES as error:
            run.error, run.state = unexpected(error), "failed"

    def _judged(self, run: _Run, parts: Sequence[Part], pictures: Mapping[str, bytes]) -> Gauge:
        inspections = [
            [self._inspected(run, name, pictures[name]) for name in map(str, part.pictures)] for part in parts
        ]
        every = [one for mine in inspections for one in mine]
        if any(one.score is None for one in every):
            raise DataError("A picture of the study got no score.")
        if len({(one.model_sha256, one.threshold) for one in every}) > 1:
            raise DataError("The model or its recipe was changed during the study. Repeat it.")
        both = list(zip(parts, inspections, strict=True))
        repeated = [part.name for part, mine in both if len({one.picture_sha256 for one in mine}) < len(mine)]
        notes = [f"These parts have the same picture in several runs: {listed(repeated, 5)}."] if repeated else []
        first = every[0]
        run.facts = {
            "model": f"{run.model}, SHA-256 {first.model_sha256}",
            "product": first.product or "no recipe",
            "made": f"{run.at:%Y-%m-%d %H:%M} UTC by totalrecall {__version__}, asked for by {run.actor}",
        }
        judged = [
            JudgedPart(
                part.name,
                part.truth,
                tuple(one.verdict for one in mine),
                tuple(float(one.score) for one in mine if one.score is not None),
            )
            for part, mine in both
        ]
        return study_of(judged, float("nan") if first.threshold is None else first.threshold, notes=notes)

    def _inspected(self, run: _Run, name: str, picture: bytes) -> Inspection:
        caption = Caption(model=run.model, name=name[:LONGEST_NAME], source=_SOURCE)
        while not self._closed:
            if self._station.inspector.waiting == 0:  # the line's pictures go first
                with contextlib.suppress(BusyError):
                    inspection = self._station.submit(picture, caption).result()
                    run.done += 1
                    return inspection
            time.sleep(_PAUSE)
        raise BusyError("The station is stopping.")
