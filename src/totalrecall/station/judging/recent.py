"""The last inspections of each model, with their pictures, for the page; in memory, within a limit of bytes."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from totalrecall.pictures.overlay import HOTTEST

if TYPE_CHECKING:
    from totalrecall.scoring import Result
    from totalrecall.station.store.records import Inspection

__all__ = ["Recent", "RecentInspection", "heat_of"]

_EACH = 32  # inspections of a model
_BYTES = 256 << 20
_LONGEST = 192  # pixels of a heat map's longer side


@dataclass(frozen=True, eq=False)
class RecentInspection:
    """An inspection with what the page draws.

    Attributes:
        inspection: as it is in the history.
        picture: the bytes of the picture's file.
        heat: uint8 (h, w), 0 to 255 for 0 to twice the pixel threshold; None where nothing was measured.
    """

    inspection: "Inspection"
    picture: bytes
    heat: npt.NDArray[np.uint8] | None


class Recent:
    """Holds the last inspections of each model, at most 32 each and 256 MB in all. Any thread may call it."""

    def __init__(self, each: int = _EACH, limit: int = _BYTES) -> None:
        self._each, self._limit = each, limit
        self._lock = threading.Lock()
        self._seen: deque[RecentInspection] = deque()
        self._by_key: dict[str, RecentInspection] = {}
        self._bytes = 0

    def add(self, seen: RecentInspection) -> None:
        """Hold one; the oldest go."""
        with self._lock:
            self._seen.append(seen)
            self._by_key[seen.inspection.key] = seen
            self._bytes += _size(seen)
            of_model = [one for one in self._seen if one.inspection.model == seen.inspection.model]
            if len(of_model) > self._each:
                self._drop(of_model[0])
            while self._bytes > self._limit and len(self._seen) > 1:
                self._drop(self._seen[0])

    def get(self, key: str) -> RecentInspection | None:
        """Return an inspection by its key, if it is still held."""
        with self._lock:
            return self._by_key.get(key)

    def latest(self, model: str | None = None) -> RecentInspection | None:
        """Return the last inspection, of a model or of any."""
        with self._lock:
            return next((one for one in reversed(self._seen) if model in (None, one.inspection.model)), None)

    def last(self, count: int, model: str | None = None) -> list[RecentInspection]:
        """Return the last inspections, the newest first, of a model or of any."""
        with self._lock:
            return [one for one in reversed(self._seen) if model in (None, one.inspection.model)][:count]

    def _drop(self, seen: RecentInspection) -> None:
        self._seen.remove(seen)
        del self._by_key[seen.inspection.key]
        self._bytes -= _size(seen)


def heat_of(result: "Result") -> npt.NDArray[np.uint8]:
    """Return a result's map as the page draws it: 0 to 255 for 0 to twice the pixel threshold, at most 192 pixels wide.

    Without a pixel threshold the scale ends at the map's own largest value.
    """
    values = result.anomaly_map
    h, w = values.shape
    share = min(_LONGEST / max(h, w), 1.0)
    if share < 1:
        size = max(round(w * share), 1), max(round(h * share), 1)
        # a map is smooth: where it shrinks by less than half, the mean of what lies between takes six times as long and
        # shows nothing more
        how = cv2.INTER_AREA if share < 0.5 else cv2.INTER_LINEAR
        values = cv2.resize(values, size, interpolation=how)
    end = HOTTEST * result.pixel_threshold
    if not (np.isfinite(end) and end > 0):
        end = max(float(values.max()), 1e-12)
    return np.asarray(cv2.multiply(values, 255 / end, dtype=cv2.CV_8U))


def _size(seen: RecentInspection) -> int:
    return len(seen.picture) + (0 if seen.heat is None else seen.heat.nbytes)
