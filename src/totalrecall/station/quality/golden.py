"""The golden check: known good and defective pictures that must be judged today as they were recorded.

It tells whether the station still judges as it did: the model's file, the engine, the processor, the settings. The
camera and the light are the drift monitor's subject. The pictures go the way of every picture, recipe included.

A picture must get the verdict that is expected of it. While the model's file is the one by which its score was
recorded, the score must be the same, too, within a thousandth. After a change of the model the scores are others by
right: then the verdict alone counts, and the scores are recorded anew.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert, select, update

from totalrecall.errors import BusyError, ConflictError, DataError, NotFoundError, SettingError, TotalRecallError
from totalrecall.pictures.loading import FAILURES
from totalrecall.station.judging.caption import LONGEST_NAME, Caption
from totalrecall.station.store.disk import writing
from totalrecall.station.store.records import STATION, Actor, Inspection, iso
from totalrecall.station.store.tables import golden, golden_runs
from totalrecall.system.files import atomic_write, sha256
from totalrecall.system.text import counted, listed, unexpected

if TYPE_CHECKING:
    from totalrecall.station.judging.models import Loaded
    from totalrecall.station.quality.services import Services

__all__ = ["EXPECTED", "PICTURES", "SOURCE", "TOLERANCE", "Golden"]

_LOG = logging.getLogger("totalrecall.station")
EXPECTED = ("defect", "good")
PICTURES = "golden"  # folder of the pictures, in the station's
SOURCE = "golden"  # of the inspections
TOLERANCE = 1e-3  # of a score, relative: another processor rounds otherwise, and no more than that
_MOST = 200  # pictures of a model
_PAUSE = 0.05  # seconds between two tries while the queue is full
_NAMED = 3  # pictures in a sentence
_SHORTEST_REASON, _LONGEST_REASON = 3, 500


class Golden:
    """The golden pictures of a station's models, and their checks. Any thread may call it.

    Args:
        station: whose models are checked.
        every: seconds between two checks of all models; 0 checks at the start and when asked alone.
        hold: hold a model that fails, until it passes or an engineer releases it.
    """

    def __init__(self, station: "Services", *, every: float = 0.0, hold: bool = False) -> None:
        self._station = station
        self._every, self._hold = every, hold
        self._folder = station.settings.folder / PICTURES
        self._folder.mkdir(parents=True, exist_ok=True)
        self._checking = threading.Lock()  # one check at a time
        self._held: set[str] = set()  # by a check, and by nothing else
        self._soon: set[str] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._sweep()

    # ------------------------------------------------------------------ the pictures

    def add(self, model: str, picture: bytes, *, expected: str, name: str, actor: Actor) -> dict[str, Any]:
        """Add a picture whose truth is known, and return what is told of it.

        Args:
            model: its name.
            picture: the bytes of its file.
            expected: "defect" or "good".
            name: of the picture, for people.
            actor: who adds it.

        Raises:
            SettingError: `expected` is neither, or the model has enough pictures.
            NotFoundError: there is no such model.
            PictureError: it cannot be read.
            ConflictError: the model judges it otherwise, or it is there already.
            HistoryError: it cannot be written.
        """
        if expected not in EXPECTED:
            raise SettingError(f"expected must be defect or good, got {expected[:40]!r}.", "expected")
        loaded = self._station.shelf.get(model)
        digest = sha256(picture)
        there = self._rows(loaded.name)
        if len(there) >= _MOST:
            raise SettingError(f"A model has at most {_MOST} golden pictures. Remove one first.")
        if any(row["picture_sha256"] == digest for row in there):
            raise ConflictError("This picture is golden already.")
        inspection = self._judged(loaded.name, picture, name)
        if inspection.verdict != expected:
            raise ConflictError(
                f"Expected is {expected}, and model {loaded.name} says {inspection.verdict}. A golden picture must be "
                "judged right when it is added. Teach the model first."
            )
        key = secrets.token_hex(16)
        with writing(self._folder):
            atomic_write(self._folder / f"{key}.picture", picture)
        row = {
            "model": loaded.name,
            "key": key,
            "name": inspection.name[:LONGEST_NAME],
            "picture_sha256": digest,
            "expected": expected,
            "score": inspection.score,
            "model_sha256": inspection.model_sha256,
            "added_at": datetime.now(timezone.utc),
            "added_by": actor.name,
        }
        details = {"golden": key, "name": row["name"], "expected": expected, "picture_sha256": digest}

        def write(connection: Connection) -> None:
            connection.execute(insert(golden), row)
            self._station.trail.append_in(connection, actor, "golden add", loaded.name, details)

        self._station.database.write(write).result()
        return _told(row)

    def add_inspected(self, key: str, actor: Actor) -> dict[str, Any]:
        """Add the picture of an inspection that a person judged; otherwise as `add`.

        Raises:
            NotFoundError: there is no such inspection, or its picture is not kept.
            ConflictError: nobody has judged it.
        """
        inspection = self._station.history.inspection(key)
        if inspection.judgement is None:
            raise ConflictError(f"Inspection {key} must be judged by a person before its picture can be golden.")
        picture = self._station.kept.picture(key)
        if picture is None:
            raise NotFoundError(f"The picture of inspection {key} is not kept.")
        expected = "good" if inspection.judgement == "fine" else "defect"
        return self.add(inspection.model, picture, expected=expected, name=inspection.name, actor=actor)

    def remove(self, key: str, actor: Actor) -> None:
        """Remove a picture.

        Raises:
            NotFoundError: there is none of that key.
        """

        def write(connection: Connection) -> None:
            row = connection.execute(select(golden).where(golden.c.key == key)).mappings().one_or_none()
            if row is None:
                raise NotFoundError(f"There is no golden picture {key}.")
            connection.execute(delete(golden).where(golden.c.key == key))
            details = {"golden": key, "name": row["name"], "expected": row["expected"]}
            self._station.trail.append_in(connection, actor, "golden remove", row["model"], details)

        self._station.database.write(write).result()
        with contextlib.suppress(OSError):
            (self._folder / f"{key}.picture").unlink()

    def all(self, model: str) -> list[dict[str, Any]]:
        """Return what is told of a model's golden pictures, in the order in which they were added."""
        return [_told(row) for row in self._rows(model)]

    def picture(self, key: str) -> bytes:
        """Return the bytes of a golden picture.

        Raises:
            NotFoundError: there is none of that key, or its file is gone.
        """
        with self._station.database.read() as connection:
            known = connection.execute(select(golden.c.id).where(golden.c.key == key)).one_or_none()
        if known is not None:
            with contextlib.suppress(OSError):
                return (self._folder / f"{key}.picture").read_bytes()
        raise NotFoundError(f"There is no golden picture {key}.")

    # ------------------------------------------------------------------ the check

    def check(self, model: str, actor: Actor = STATION) -> dict[str, Any]:
        """Judge a model's golden pictures again, and return what is told of the run.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: it has no golden pictures.
            BusyError: the station is stopping.
        """
        loaded = self._station.shelf.get(model)
        with self._checking:
            rows = self._rows(loaded.name)
            if not rows:
                raise ConflictError(f"Model {loaded.name} has no golden pictures. Add some first.")
            waited = [self._submitted(loaded.name, row) for row in rows]
            outcomes = [_outcome(row, one) for row, one in zip(rows, waited, strict=True)]
            return self._concluded(loaded, rows, outcomes, actor)

    def check_all(self) -> None:
        """Check every model that has golden pictures."""
        for loaded in self._station.shelf.all():
            self._check_unasked(loaded.name)

    def check_soon(self, model: str) -> None:
        """Check a model in the background, if it has golden pictures."""
        with self._changed:
            self._soon.add(model)
            self._changed.notify()

    def runs(self, model: str, limit: int = 50) -> list[dict[str, Any]]:
        """Return what is told of a model's checks, the newest first."""
        query = select(golden_runs).where(golden_runs.c.model == model)
        query = query.order_by(golden_runs.c.id.desc()).limit(limit)
        with self._station.database.read() as connection:
            return [_run_told(row) for row in connection.execute(query).mappings()]

    def release(self, model: str, reason: str, actor: Actor) -> None:
        """Let a model that is held judge again.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: it is not held.
            SettingError: the reason is missing or too long.
        """
        loaded = self._station.shelf.get(model)
        reason = " ".join(reason.split())
        if not _SHORTEST_REASON <= len(reason) <= _LONGEST_REASON:
            raise SettingError(
                f"reason must have {_SHORTEST_REASON} to {_LONGEST_REASON} letters, got {len(reason)}. Say why.",
                "reason",
            )
        held = self._station.holds.get(loaded.name)
        if held is None:
            raise ConflictError(f"Model {loaded.name} is not held.")
        self._station.trail.append(actor, "release", loaded.name, {"reason": reason, "held": held}).result()
        self._held.discard(loaded.name)
        self._station.holds.pop(loaded.name, None)

    def start(self) -> None:
        """Check every model now, and from time to time if asked to."""
        self.check_all()
        self._thread = threading.Thread(target=self._run, name="station-golden", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Check no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + self._every
        while True:
            with self._changed:
                left = due - time.monotonic() if self._every > 0 else None
                if not self._soon and not self._closed and (left is None or left > 0):
                    self._changed.wait(left)
                if self._closed:
                    return
                soon, self._soon = sorted(self._soon), set()
            for model in soon:
                self._check_unasked(model)
            if self._every > 0 and time.monotonic() >= due:
                due = time.monotonic() + self._every
                self.check_all()

    def _check_unasked(self, model: str) -> None:
        """Check a model that has golden pictures; nobody waits for it, so the log says if that cannot be done."""
        try:
            if self._rows(model):
                self.check(model)
        except Exception as error:  # whatever it is, the next model is checked
            if not self._closed:
                reason = error if isinstance(error, TotalRecallError) else unexpected(error)
                _LOG.warning("The golden check of model %s could not be done: %s", model, reason)

    def _judged(self, model: str, picture: bytes, name: str) -> Inspection:
        return self._station.submit(picture, Caption(model=model, name=name[:LONGEST_NAME], source=SOURCE)).result()

    def _submitted(self, model: str, row: Any) -> "Future[Inspection]":
        """Let a golden picture wait to be judged, as soon as there is room."""
        failed: Future[Inspection] = Future()
        try:
            picture = (self._folder / f"{row['key']}.picture").read_bytes()
            if sha256(picture) != row["picture_sha256"]:
                raise DataError("its file was changed since it was added")
        except OSError as error:
            failed.set_exception(DataError(f"its file cannot be read: {error.strerror or error}"))
            return failed
        except DataError as error:
            failed.set_exception(error)
            return failed
        while not self._closed:
            with contextlib.suppress(BusyError):
                return self._station.submit(picture, Caption(model=model, name=row["name"], source=SOURCE))
            time.sleep(_PAUSE)
        raise BusyError("The station is stopping.")

    def _concluded(
        self, loaded: "Loaded", rows: Sequence[Any], outcomes: Sequence[dict[str, Any]], actor: Actor
    ) -> dict[str, Any]:
        """Write a run down, record new scores after a change of the model, and hold or release the model."""
        failed = [outcome for outcome in outcomes if not outcome["passed"]]
        passed = not failed
        renewed = [
            (row["id"], outcome)
            for row, outcome in zip(rows, outcomes, strict=True)
            if passed and outcome["model_sha256"] != row["model_sha256"]
        ]
        words = _words(loaded.name, outcomes, len(renewed))
        judged_by = next((one["model_sha256"] for one in outcomes if one["model_sha256"]), loaded.sha256)
        run = {
            "at": datetime.now(timezone.utc),
            "model": loaded.name,
            "model_sha256": judged_by,
            "passed": passed,
            "details": {"words": words, "recorded": len(renewed), "pictures": list(outcomes)},
            "actor": actor.name,
        }
        holds = self._hold and not passed
        summary = {"pictures": len(outcomes), "failed": [one["name"] for one in failed][:20], "held": holds}

        def write(connection: Connection) -> int:
            number = connection.execute(insert(golden_runs), run).inserted_primary_key
            for row_id, outcome in renewed:
                new = {"score": outcome["score"], "model_sha256": outcome["model_sha256"]}
                connection.execute(update(golden).where(golden.c.id == row_id).values(new))
            action = "golden check passed" if passed else "golden check failed"
            self._station.trail.append_in(connection, actor, action, loaded.name, summary)
            assert number is not None
            return int(number[0])

        if holds:  # first of all: whatever becomes of the row, no part may pass
            self._held.add(loaded.name)
            self._station.holds[loaded.name] = words
        number = self._station.database.write(write).result()
        if passed and loaded.name in self._held:
            self._held.discard(loaded.name)
            self._station.holds.pop(loaded.name, None)
        return _run_told({"id": number, **run})

    def _rows(self, model: str) -> Sequence[Any]:
        query = select(golden).where(golden.c.model == model).order_by(golden.c.id)
        with self._station.database.read() as connection:
            return connection.execute(query).mappings().all()

    def _sweep(self) -> None:
        """Remove the files of pictures that were not written down before the station was killed."""
        with self._station.database.read() as connection:
            known = set(connection.execute(select(golden.c.key)).scalars())
        for path in self._folder.glob("*.picture"):
            if path.stem not in known:
                with contextlib.suppress(OSError):
                    path.unlink()


def _outcome(row: Any, waited: "Future[Inspection]") -> dict[str, Any]:
    """Compare what became of a golden picture with what is recorded of it."""
    facts = {"id": row["key"], "name": row["name"], "expected": row["expected"], "recorded": row["score"]}
    try:
        inspection = waited.result()
    except (TotalRecallError, *FAILURES) as error:
        nothing = {"verdict": None, "score": None, "model_sha256": None, "passed": False}
        return {**facts, **nothing, "why": f"it was not judged: {error}"}
    why = ""
    score, recorded = inspection.score, row["score"]
    if inspection.verdict != row["expected"]:
        why = f"expected was {row['expected']}, and it is judged {inspection.verdict}"
    elif inspection.model_sha256 == row["model_sha256"] and not _same(score, recorded):
        why = f"its score was {_number(recorded)}, and is {_number(score)} by the same model"
    seen = {"verdict": inspection.verdict, "score": score, "model_sha256": inspection.model_sha256}
    return {**facts, **seen, "passed": not why, "why": why or None}


def _same(score: float | None, recorded: float | None) -> bool:
    if score is None or recorded is None:
        return score is recorded
    return abs(score - recorded) <= TOLERANCE * max(abs(score), abs(recorded))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _words(model: str, outcomes: Sequence[dict[str, Any]], renewed: int) -> str:
    """Say in a line how a check went."""
    failed = [one for one in outcomes if not one["passed"]]
    count = counted(len(outcomes), "golden picture")
    if not failed:
        text = f"The golden check of model {model} passed: {count} came out as recorded."
        return text + (f" The scores of {renewed} were recorded anew, since the model has changed." if renewed else "")
    named = listed([f"{one['name']} ({one['why']})" for one in failed], _NAMED)
    return f"The golden check of model {model} failed for {len(failed)} of {count}: {named}."


def _told(row: Any) -> dict[str, Any]:
    names = ("model", "name", "picture_sha256", "expected", "score", "model_sha256", "added_by")
    return {"id": row["key"], **{name: row[name] for name in names}, "added_at": iso(row["added_at"])}


def _run_told(row: Any) -> dict[str, Any]:
    names = ("id", "model", "model_sha256", "passed", "actor")
    return {**{name: row[name] for name in names}, "at": iso(row["at"]), **row["details"]}
