"""How well scores and anomaly maps tell defects from good: AUROC, average precision, F1-max and AUPRO.

All of them rest on one table, the `_Ladder`: for each distinct score of an anomalous item, from the highest down, how
many good items score above it and how many tie with it. A tie counts half, which is what the trapezoid rule does.

Labels are 0 good and 1 anomalous; of scores, bigger is more anomalous. What cannot be measured (one class only, nothing
at all, scores that are all equal or not finite) is `nan`; `reason` and `PixelMetrics.reason` say why in one line.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from totalrecall.errors import SettingError
from totalrecall.types import AnomalyMap, Mask

__all__ = ["PixelMetrics", "auroc", "average_precision", "f1_max", "reason"]

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]

_KEY_BITS = 24  # of a float32: sign, exponent and 15 bits of mantissa, so a bin is at most 2^-15 of its score wide
_SHIFT = 32 - _KEY_BITS
_FOLD_PIXELS = (
    2**22
)  # past the exact stage, pixels that wait to be counted; 16 MB, and one bincount for about four maps


def reason(labels: npt.ArrayLike, scores: npt.ArrayLike) -> str:
    """Return why metrics of these labels and scores are `nan`, in one line; an empty string where they are not."""
    good, anomalous = _split(labels, scores)
    return _reason(good.size, anomalous.size, np.concatenate([good, anomalous]))


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the chance that an anomalous item scores above a good one, a tie counting half; 1 is perfect."""
    ladder = _ladder_of(labels, scores)
    return math.nan if ladder is None else ladder.auroc()


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the mean precision over the anomalous items, each at its own score as threshold (no interpolation)."""
    ladder = _ladder_of(labels, scores)
    return math.nan if ladder is None else ladder.average_precision()


def f1_max(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[float, float]:
    """Return the best F1 over all thresholds, and a threshold that gives it under `score > threshold`.

    The threshold lies halfway between the lowest score called anomalous and the next lower one. Of several best ones it
    is the highest, the one with the fewest alarms.
    """
    ladder = _ladder_of(labels, scores)
    if ladder is None:
        return math.nan, math.nan
    alarms = ladder.found + ladder.above + ladder.tied
    f1 = 2 * ladder.found / (alarms + ladder.anomalous)  # 2 TP / (2 TP + FP + FN)
    best = int(np.argmax(f1))
    lowest_alarm = float(ladder.score[best])
    quiet = [float(s) for part in _split(labels, scores) for s in part if s < lowest_alarm]
    below = max(quiet) if quiet else math.nextafter(lowest_alarm, -math.inf)
    middle = below / 2 + lowest_alarm / 2
    # subtle: between neighbouring floats the middle may round up to the alarm itself, which would then be called good
    return float(f1[best]), middle if below <= middle < lowest_alarm else below


def _split(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    label = np.asarray(labels).ravel().astype(bool)
    score = np.asarray(scores, dtype=np.float64).ravel()
    if label.size != score.size:
        raise SettingError(f"Give one label for each score, got {label.size} labels and {score.size} scores.")
    return score[~label], score[label]


def _ladder_of(labels: npt.ArrayLike, scores: npt.ArrayLike) -> "_Ladder | None":
    good, anomalous = _split(labels, scores)
    if _reason(good.size, anomalous.size, np.concatenate([good, anomalous])):
        return None
    return _ladder(np.sort(good), anomalous, np.ones(anomalous.size))


def _reason(good: int, anomalous: int, scores: Floats) -> str:
    if not good + anomalous:
        return "there are no scores"
    if not np.isfinite(scores).all():
        return f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} scores are not finite"
    if not anomalous:
        return f"all {good} labels are good, there is nothing to find"
    if not good:
        return f"all {anomalous} labels are anomalous, there is nothing to tell them from"
    if scores.min() == scores.max():
        return f"all {scores.size} scores are equal ({scores[0]:g}), so nothing can be ranked"
    return ""


@dataclass(frozen=True)
class _Ladder:
    """One rung per distinct score of an anomalous item, highest first; `good` and `anomalous` are totals."""

    score: Floats
    hits: Counts  # anomalous items at this score
    mass: Floats  # their weights summed: 1 / (pixels of their region) each for PRO
    above: Counts  # good items above this score
    tied: Counts  # good items at this score
    good: int
    anomalous: int

    @property
    def found(self) -> Counts:
        """Anomalous items at or above each rung."""
        return np.cumsum(self.hits)

    def area(self, weight: Counts | Floats, max_fpr: float) -> float:
        """Return the area under the weighted share found, over false-positive rates from 0 to `max_fpr`, normalised."""
        return float((weight * _share(self.above, self.tied, max_fpr * self.good)).sum() / weight.sum())

    def auroc(self) -> float:
        return self.area(self.hits, 1.0)

    def area_error(self, weight: Counts | Floats, max_fpr: float) -> float:
        """Return by how much `area` can be off if those tied on a rung have in truth some order."""
        limit = max_fpr * self.good
        middle = _share(self.above, self.tied, limit)
        highest = np.maximum(limit - self.above, 0) / limit  # every anomalous item of the rung before its good ones
        lowest = np.maximum(limit - self.above - self.tied, 0) / limit  # every good one first
        return float((weight * np.maximum(highest - middle, middle - lowest)).sum() / weight.sum())

    def average_precision(self) -> float:
        precision = self.found / (self.found + self.above + self.tied)
        return float(self.hits @ precision / self.anomalous)

    def average_precision_error(self) -> float:
        middle = self.found / (self.found + self.above + self.tied)
        highest = self.found / (self.found + self.above)
        first = self.found - self.hits + 1
        lowest = first / (first + self.above + self.tied)
        return float(self.hits @ np.maximum(highest - middle, middle - lowest) / self.anomalous)


def _share(above: Counts, tied: Counts, limit: float) -> Floats:
    """Return the share of the area from 0 to `limit` false alarms that lies under one anomalous item's curve.

    The curve is 0 up to `above` false alarms, rises in a straight line over those tied with it, and is 1
    from there on. Summed over all items this is the trapezoid rule, cut at `limit` by linear interpolation, as in the
    evaluation code of MVTec AD.
    """
    whole = limit - above - tied / 2
    cut = np.maximum(limit - above, 0) ** 2 / np.maximum(2 * tied, 1)  # `limit` falls on the rise
    return np.where(above + tied <= limit, whole, cut) / limit


def _ladder(good: Floats, anomalous: Floats, weight: Floats) -> _Ladder:
    """Build the table from sorted good scores, and anomalous scores in any order with a weight each."""
    order = np.argsort(anomalous)
    anomalous, weight = anomalous[order], weight[order]
    start = np.flatnonzero(np.concatenate([[True], anomalous[1:] != anomalous[:-1]]))
    score = anomalous[start]
    above, tied = _rank(good, score)
    return _Ladder(
        score=score[::-1],
        hits=np.diff(start, append=anomalous.size)[::-1],
        mass=np.add.reduceat(weight, start)[::-1],
        above=above[::-1],
        tied=tied[::-1],
        good=good.size,
        anomalous=anomalous.size,
    )


def _rank(good: Floats, score: Floats) -> tuple[Counts, Counts]:
    """Return how many of the sorted good scores lie above each score, and how many tie with it."""
    not_above = np.searchsorted(good, score, side="right")
    return good.size - not_above, not_above - np.searchsorted(good, score, side="left")


class PixelMetrics:
    """Pixel AUROC, average precision and AUPRO of any number of maps of any size, in bounded memory and one pass.

    Up to `exact_pixels` every score is kept and the metrics are exact. Beyond that, scores are counted in bins of the
    upper 24 bits of their float32 pattern, which keeps their order; a bin is at most 2^-15 (3e-5) of the score wide.
    Scores in one bin then tie, and `error_bounds` says by how much at most that moved each metric on these very maps.

    Args:
        exact_pixels: pixels up to which the metrics are exact; each takes 4 bytes, an anomalous one 12.
    """

    def __init__(self, *, exact_pixels: int = 2**25) -> None:
        if exact_pixels < 0:
            raise SettingError(
                f"exact_pixels must be at least 0, got {exact_pixels}. For counting in bins at once write 0."
            )
        self.exact_pixels = exact_pixels
        self.maps = 0
        self._good: list[Floats] = []
        self._anomalous: list[Floats] = []
        self._weight: list[Floats] = []
        self._waiting = 0
        self._bins: tuple[Counts, Counts, Floats] | None = None  # good, anomalous, mass
        self._lowest, self._highest = math.inf, -math.inf
        self._not_finite = self._n_good = self._n_anomalous = 0
        self._table: _Ladder | None = None

    def add(self, anomaly_map: AnomalyMap, mask: Mask) -> None:
        """Take in one picture's map; `mask` is true on its defects and all false on a good picture."""
        self._table = None
        lowest, highest = float(anomaly_map.min(initial=np.inf)), float(anomaly_map.max(initial=-np.inf))
        if anomaly_map.size and not (math.isfinite(lowest) and math.isfinite(highest)):
            self._not_finite += int(np.count_nonzero(~np.isfinite(anomaly_map)))
        else:
            self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)
            if mask.any():
                self._add_regions(anomaly_map, mask)
            else:
                self._good.append(anomaly_map.flatten())  # a copy, the caller may use its buffer again
                self._n_good += anomaly_map.size
            self._waiting += anomaly_map.size
        self.maps += 1
        if self._waiting > (self.exact_pixels if self._bins is None else _FOLD_PIXELS):
            self._fold()

    @property
    def exact(self) -> bool:
        """Whether every score is still kept, so that the metrics carry no error of binning."""
        return self._bins is None

    @property
    def reason(self) -> str:
        """Why the metrics are `nan`, in one line; an empty string where they are not."""
        if self._not_finite:
            return f"{self._not_finite} pixels of the anomaly maps are not finite"
        if not self._n_good + self._n_anomalous:
            return "there are no pixels"
        if not self._n_anomalous:
            return "no mask marks a defect, there is nothing to find"
        if not self._n_good:
            return "the masks mark every pixel as defect, there is nothing to tell them from"
        if self._lowest == self._highest:
            return f"all pixels score the same ({self._lowest:g}), so nothing can be ranked"
        return ""

    def auroc(self) -> float:
        """Return the chance that an anomalous pixel scores above a good one, a tie counting half."""
        return math.nan if self.reason else self._ladder().auroc()

    def average_precision(self) -> float:
        """Return the mean precision over the anomalous pixels, each at its own score as threshold."""
        return math.nan if self.reason else self._ladder().average_precision()

    def aupro(self, max_fpr: float = 0.3) -> float:
        """Return the mean overlap of the defect regions, averaged over pixel false-positive rates from 0 to `max_fpr`.

        A region is an 8-connected part of a mask, and all regions weigh the same (Bergmann et al., IJCV 2021); the rate
        is over all good pixels, those of good pictures and those around the defects.

        Raises:
            SettingError: `max_fpr` is not over 0 and at most 1.
        """
        _check_fpr(max_fpr)
        return math.nan if self.reason else self._ladder().area(self._ladder().mass, max_fpr)

    def error_bounds(self, max_fpr: float = 0.3) -> dict[str, float]:
        """Return by how much binning can have moved `auroc`, `average_precision` and `aupro` at most; 0 while exact."""
        _check_fpr(max_fpr)
        if self.reason or self.exact:
            return dict.fromkeys(("auroc", "average_precision", "aupro"), math.nan if self.reason else 0.0)
        ladder = self._ladder()
        auroc, aupro = ladder.area_error(ladder.hits, 1.0), ladder.area_error(ladder.mass, max_fpr)
        return {"auroc": auroc, "average_precision": ladder.average_precision_error(), "aupro": aupro}

    def _add_regions(self, anomaly_map: AnomalyMap, mask: Mask) -> None:
        import cv2  # here, as the metrics of pictures need none of it

        _, label, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        area = stats[1:, cv2.CC_STAT_AREA].astype(np.int64)  # of each region; the background is number 0
        self._good.append(anomaly_map[~mask])
        self._anomalous.append(anomaly_map[mask])
        self._weight.append((1 / area)[label[mask] - 1])
        marked = int(area.sum())
        self._n_anomalous += marked
        self._n_good += anomaly_map.size - marked

    def _fold(self) -> tuple[int, Counts, Counts, Floats]:
        """Count the waiting scores into the bins and let go of them.

        Returns the number of the first bin in use; good, anomalous and mass of each bin from there to the last in use.
        """
        if self._bins is None:
            # untouched pages of zeros take no memory, so only the range of the scores is paid for
            size = 2**_KEY_BITS
            self._bins = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.float64)
        good, hits, mass = self._bins
        while self._good:
            _count(good, _key(self._good.pop()))
        while self._anomalous:
            key = _key(self._anomalous.pop())
            _count(hits, key)
            _count(mass, key, self._weight.pop())
        self._waiting = 0
        first, last = _key(np.array([self._lowest, self._highest], np.float32)).tolist()
        return first, good[first : last + 1], hits[first : last + 1], mass[first : last + 1]

    def _ladder(self) -> _Ladder:
        if self._table is None and self._bins is None:
            self._good = [np.sort(np.concatenate(self._good))]
            self._table = _ladder(self._good[0], np.concatenate(self._anomalous), np.concatenate(self._weight))
        elif self._table is None:
            _, good, hits, mass = self._fold()
            rung = np.flatnonzero(hits)[::-1]
            self._table = _Ladder(
                score=rung.astype(np.float64),  # bins in place of scores: no metric here looks at the values
                hits=hits[rung],
                mass=mass[rung],
                above=self._n_good - np.cumsum(good)[rung],
                tied=good[rung],
                good=self._n_good,
                anomalous=self._n_anomalous,
            )
        return self._table


def _check_fpr(max_fpr: float) -> None:
    if not 0 < max_fpr <= 1:
        raise SettingError(f"max_fpr must be over 0 and at most 1, got {max_fpr:g}. The usual one is 0.3.")


def _key(score: Floats) -> Counts:
    """Return the bin of each float32 score; a greater score never has a lower bin."""
    bits = (score + np.float32(0)).view(np.int32)  # + 0 turns -0 into 0: they are equal, their patterns are not
    # subtle: as integers, patterns of negative floats run backwards; flipping all but the sign bit puts them in order
    ordered = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    key: Counts = (ordered >> _SHIFT).astype(np.int64) + 2 ** (_KEY_BITS - 1)
    return key


def _count(bins: Counts | Floats, key: Counts, weight: Floats | None = None) -> None:
    """Add 1, or the weight, to the bin of each key."""
    if key.size:
        first = int(key.min())
        counts = np.bincount(key - first, weight)  # as long as the range of the keys, mostly far below 2^24
        bins[first : first + counts.size] += counts
