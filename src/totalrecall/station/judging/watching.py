"""Drift at the station: has the light, the focus or the position moved? A monitor for each model that can tell.

The state and the last alarms are written into the station's folder, so that a restart goes on where it ended. A model
that was replaced begins anew: the good pictures that it compares with are others.
"""

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.drift.monitor import Alarm, Monitor
from totalrecall.errors import DataError, SettingError
from totalrecall.registry import is_exported
from totalrecall.station.store.records import iso
from totalrecall.system.files import atomic_write, read_regular

if TYPE_CHECKING:
    from totalrecall.scoring import Result
    from totalrecall.station.judging.models import Loaded

__all__ = ["DriftWatch"]

_EVERY = 100  # pictures between two writes of the state
_ALARMS = 100  # that are remembered
_LONGEST = 1 << 20  # bytes of their file
_TOLD = ("at", "words", "measure", "picture")  # of an alarm
_KEPT = 30 * 86400.0  # seconds that the state of a model which is not in use stays: an undo may bring the model back


@dataclass
class _Watched:
    sha256: str
    monitor: Monitor | None  # None where the model cannot tell
    path: Path
    read_at: datetime  # when the model was read
    since: int = 0  # pictures since the state was written
    alarms: deque[dict[str, str]] = field(default_factory=lambda: deque(maxlen=_ALARMS))


class DriftWatch:
    """A `Monitor` for each model. Any thread may call it.

    Args:
        folder: of the states; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._watched: dict[str, _Watched] = {}

    def watches(self, loaded: "Loaded") -> bool:
        """Tell whether a model can say anything of drift, so that its results need conditions."""
        watched = self._watched.get(loaded.name)
        if watched is None or watched.sha256 != loaded.sha256:  # else who sends pictures would wait for what is saved
            with self._lock:
                watched = self._of(loaded)
        return watched.monitor is not None

    def observe(self, loaded: "Loaded", result: "Result", picture: str) -> list[Alarm]:
        """Take in the result of a picture of some name; returns the alarms that it raises."""
        if result.conditions is None:
            return []
        with self._lock:
            known = self._watched.get(loaded.name)
            if known is not None and known.read_at > loaded.at:
                return []  # by a model that was replaced while the picture waited
            watched = self._of(loaded)
            if watched.monitor is None:
                return []
            alarms = watched.monitor.observe(result.conditions, result.is_anomalous, picture)
            watched.alarms.extend(map(_told, alarms))
            watched.since += 1
            if alarms or watched.since >= _EVERY:
                self._save(watched)
            return alarms

    def facts(self, loaded: "Loaded") -> dict[str, Any]:
        """Return what the page shows of a model: words, whether something has moved, and the last alarms."""
        with self._lock:
            watched = self._of(loaded)
            if watched.monitor is None:
                return {"watched": False, "moved": False, "words": ["This model cannot tell of drift."], "alarms": []}
            return {
                "watched": True,
                "moved": any(alarm.ended is None for alarm in watched.monitor.alarms),
                "words": watched.monitor.words(),
                "pictures": watched.monitor.pictures,
                "alarms": list(reversed(watched.alarms)),
            }

    def reset(self, loaded: "Loaded") -> None:
        """Forget what was seen: the light was set right, or the change is meant to stay."""
        with self._lock:
            watched = self._of(loaded)
            if watched.monitor is not None:
                watched.monitor.reset()
                watched.alarms.clear()
                self._save(watched)

    def sweep(self, in_use: "Iterable[Loaded]") -> None:
        """Remove the states of models that are not in use, once they were not written for 30 days."""
        names = {_file_name(loaded) for loaded in in_use}
        for path in self._folder.glob("*.monitor"):
            with contextlib.suppress(OSError):
                if path.name not in names and time.time() - path.stat().st_mtime > _KEPT:
                    path.unlink()
                    _alarms_file(path).unlink(missing_ok=True)

    def close(self) -> None:
        """Write all states."""
        with self._lock:
            for watched in self._watched.values():
                self._save(watched)

    def _of(self, loaded: "Loaded") -> _Watched:
        watched = self._watched.get(loaded.name)
        if watched is None or watched.sha256 != loaded.sha256:
            path = self._folder / _file_name(loaded)
            watched = self._watched[loaded.name] = _Watched(loaded.sha256, _monitor(loaded, path), path, loaded.at)
            watched.alarms.extend(_alarms(path))
        return watched

    def _save(self, watched: _Watched) -> None:
        watched.since = 0
        if watched.monitor is not None:
            with contextlib.suppress(DataError):  # a full disk must not stop the line
                watched.monitor.save(watched.path)
                atomic_write(_alarms_file(watched.path), json.dumps(list(watched.alarms)).encode())


def _file_name(loaded: "Loaded") -> str:
    return f"{loaded.sha256[:32]}.monitor"


def _alarms_file(monitor: Path) -> Path:
    return monitor.with_suffix(".alarms")


def _told(alarm: Alarm) -> dict[str, str]:
    """Return what the page shows of an alarm that was raised now."""
    values = (iso(datetime.now(timezone.utc)), alarm.words, alarm.measure, alarm.path)
    return dict(zip(_TOLD, values, strict=True))


def _alarms(monitor: Path) -> list[dict[str, str]]:
    """Return the alarms that were written beside a monitor's state; none where they are not there, or are damaged."""
    try:
        stored = json.loads(read_regular(_alarms_file(monitor), limit=_LONGEST))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(stored, list):
        return []
    return [one for one in stored if isinstance(one, dict) and set(one) == set(_TOLD) and _are_words(one.values())]


def _are_words(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _monitor(loaded: "Loaded", path: Path) -> Monitor | None:
    judge = loaded.judge
    if is_exported(loaded.path):  # a graph does not look at conditions
        return None
    try:
        reference, threshold = judge.drift_, judge.threshold_
        try:
            return Monitor.open(path, reference, threshold)
        except DataError:  # damaged, or of another reference: begin anew
            return Monitor(reference, threshold)
    except SettingError:  # an older model, or one without calibration pictures
        return None
