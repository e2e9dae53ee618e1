"""What a benchmark keeps of scores and maps to draw: curves of at most 200 points, and a histogram of the scores.

The curves are only drawn. The metrics next to them come from `metrics`, which is exact.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from totalrecall.types import AnomalyMap, Mask

__all__ = ["MAX_FPR", "OverlapCurve", "histogram", "roc_points"]

MAX_FPR = 0.3  # where the PRO curve ends, as in AUPRO 0.3
_MOST_POINTS = 200
_OVERLAP_POINTS = 151  # a point for every 0.002 of false positives
_BINS = 24
_SHIFT = 12  # of a float32's bits: a bin is at most 2^-11 of its score wide
_SIZE = 2**31 >> _SHIFT


class OverlapCurve:
    """The PRO curve of any number of maps, counted in bins of the score.

    Distances are not below 0, so their float32 patterns, taken as integers, are in their order.
    """

    def __init__(self) -> None:
        self._good = np.zeros(_SIZE, np.int64)  # pixels without defect, by bin
        self._mass = np.zeros(_SIZE, np.float64)  # pixels of defects, each 1 / area of its region
        self._regions = 0

    def add(self, anomaly_map: AnomalyMap, mask: Mask) -> None:
        """Take in one picture's map; `mask` is true on its defects."""
        import cv2

        key = np.maximum(anomaly_map, np.float32(0)).view(np.int32) >> _SHIFT
        _count(self._good, key[~mask])
        if mask.any():
            count, label, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
            weight = 1 / np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
            _count(self._mass, key[mask], weight[label[mask]])
            self._regions += count - 1

    def points(self) -> list[list[float]]:
        """Return (false-positive rate, mean overlap of regions) from 0 to `MAX_FPR`; none without defects or good."""
        if not self._regions or not self._good.any():
            return []
        used = np.flatnonzero((self._good > 0) | (self._mass > 0))[::-1]  # from the highest score down
        rate = np.concatenate([[0.0], np.cumsum(self._good[used]) / self._good.sum()])
        overlap = np.concatenate([[0.0], np.cumsum(self._mass[used]) / self._regions])
        # of several overlaps at one rate the highest counts: the curve rises there, straight up
        last = np.flatnonzero(np.append(rate[1:] != rate[:-1], True))
        at = np.linspace(0, MAX_FPR, _OVERLAP_POINTS)
        return _pairs(at, np.interp(at, rate[last], overlap[last]))


def roc_points(labels: Sequence[int], scores: Sequence[float]) -> list[list[float]]:
    """Return (false-positive rate, share of defects found) for each threshold; none where one kind is missing."""
    label, score = np.asarray(labels, bool), np.asarray(scores, np.float64)
    if label.all() or not label.any():
        return []
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # ties are called together
    found, alarms = np.cumsum(label[order])[last], np.cumsum(~label[order])[last]
    rate = np.concatenate([[0.0], alarms / alarms[-1]])
    share = np.concatenate([[0.0], found / found[-1]])
    corner = np.ones(len(rate), bool)  # on a straight line only its ends matter
    corner[1:-1] = (np.diff(rate)[:-1] != np.diff(rate)[1:]) | (np.diff(share)[:-1] != np.diff(share)[1:])
    at = np.flatnonzero(corner)
    at = at[np.unique(np.linspace(0, len(at) - 1, min(len(at), _MOST_POINTS)).astype(int))]
    return _pairs(rate[at], share[at])


def histogram(labels: Sequence[int], scores: Sequence[float]) -> dict[str, Any]:
    """Return the ends of the scores and, for 24 equal bins between them, how many good and how many bad there are."""
    kept = [(label, score) for label, score in zip(labels, scores, strict=True) if np.isfinite(score)]
    if not kept:
        return {"low": 0.0, "high": 1.0, "good": [], "bad": []}
    low, high = min(score for _, score in kept), max(score for _, score in kept)
    ends = (low, high if high > low else low + 1)
    counts = [np.histogram([score for label, score in kept if label == kind], _BINS, ends)[0] for kind in (0, 1)]
    return {"low": ends[0], "high": ends[1], "good": counts[0].tolist(), "bad": counts[1].tolist()}


def _count(bins: np.ndarray, key: np.ndarray, weight: np.ndarray | None = None) -> None:
    """Add 1, or the weight, to the bin of each key."""
    if key.size:
        first = int(key.min())
        counts = np.bincount(key - first, weight)
        bins[first : first + counts.size] += counts


def _pairs(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    return [[round(float(a), 5), round(float(b), 5)] for a, b in zip(x, y, strict=True)]
