"""Scores of good pictures -> a threshold at a stated false-alarm rate, and p-values.

Conformal prediction: if a new good picture is exchangeable with the n calibration pictures (same part, line and light,
and none of them in the bank), its score is equally likely to take any rank among the n + 1. Nothing is assumed of the
scores' distribution, and no defect is needed. So (1 + scores at least as high) / (n + 1) is a p-value, whose floor is
1 / (n + 1), and the threshold is set by counting. What is promised is an average: over calibration sets, good pictures
are called anomalous at most at the stated rate. With one set of n the share varies about it, by the Beta distribution
of ranks: with n = 100 at 5 percent it is mostly within 2 to 9.

`PatchCore` scores its good pictures in folds: each by a bank without its fold (cross-conformal prediction, Vovk 2015),
and judges by a bank of them all. What is then proved is twice the rate, for verdicts by the banks of the folds (Vovk et
al. 2018, Barber et al. 2021), and that is the worst that can be constructed. What is seen is the rate itself, or a
little under it, since the fuller bank brings good parts nearer (`benchmarks/calibration.py` measures it). Where there
are very many pictures, and in PaDiM and SPADE, some are held out together, once: then the promise is exact for the
detector without them, and the judging one, which learnt them too, errs to the safe side, as far as was measured.

A rate below the floor cannot be had from ranks. The tail is extrapolated then (see `tail`): an estimate with an
interval, and said to be one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from totalrecall.tail import fit_tail, rate_interval

__all__ = ["Calibration", "conformal_threshold"]


def conformal_threshold(scores: Sequence[float] | np.ndarray, rate: float) -> float:
    """Return the smallest calibration score s with (1 + count above s) / (n + 1) <= rate.

    A new good picture then scores above s with probability at most `rate`. Where n is too small for any score to do
    (rate < 1 / (n + 1)), returns the largest score, whose rate is 1 / (n + 1); nan where there are no scores.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    if not len(ordered):
        return math.nan
    allowed = math.floor(rate * (len(ordered) + 1) + 1e-9)  # 1 + count above s may be at most this
    return float(ordered[min(max(allowed, 1), len(ordered)) - 1])


@dataclass(frozen=True, eq=False)
class Calibration:
    """What good pictures scored, each by a bank without it.

    Attributes:
        scores: (n,) picture scores, Euclidean distance.
        peaks: (n,) of each picture's anomaly map: the level below which a region of the smallest area that counts shows
            (see `scoring.region_level`; the largest value, if any area counts).
        rate: the stated false-alarm rate.
        folds: into how many the pictures were cut; 1 if they were held out together.
        pictures: (n,) which of the detector's pictures they are; None in models of before.
    """

    scores: np.ndarray
    peaks: np.ndarray
    rate: float
    folds: int = 1
    pictures: np.ndarray | None = None

    @cached_property
    def threshold(self) -> float:
        """Score above which a picture is called anomalous; nan without calibration pictures."""
        return self._threshold(self.scores)

    @cached_property
    def pixel_threshold(self) -> float:
        """Map value above which a region is marked: at most `rate` of good pictures show any region."""
        return self._threshold(self.peaks)

    def _threshold(self, scores: np.ndarray) -> float:
        """Return the level that a share `rate` of good pictures is above: by rank, or beyond all ranks by the tail."""
        by_rank = conformal_threshold(scores, self.rate)
        if not self.below_floor:
            return by_rank
        tail = fit_tail(scores)
        return by_rank if tail is None else max(by_rank, tail.score(self.rate))  # a rarer alarm is no lower a score

    @property
    def floor(self) -> float:
        """The smallest false-alarm rate that this many pictures can guarantee, 1 / (n + 1)."""
        return 1 / (len(self.scores) + 1)

    @property
    def below_floor(self) -> bool:
        """Whether the stated rate is lower than any that ranks can give."""
        return self.rate * (len(self.scores) + 1) + 1e-9 < 1

    @property
    def guaranteed_rate(self) -> float:
        """The false-alarm rate that ranks give: the stated one, or the floor where that is higher."""
        return max(self.rate, self.floor)

    @cached_property
    def estimated(self) -> bool:
        """Whether the threshold is an extrapolation, because the stated rate is below the floor."""
        return self.below_floor and fit_tail(self.scores) is not None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The share of good pictures expected above an estimated threshold: 90 percent interval; None if not estimated.

        Of the bootstrap; it covered the share in 83 to 93 of 100 trials with 30 or 60 scores of magnetic tiles and four
        distributions; of one with a sharp upper end in 52 to 80, and was above it in the others.
        """
        return rate_interval(self.scores, self.threshold) if self.estimated else None

    def p_value(self, score: float) -> float:
        """Return (1 + count of scores at least as high) / (n + 1): small means unlike the good pictures."""
        if not len(self.scores):
            return math.nan
        return (1 + int(np.count_nonzero(self.scores >= score))) / (len(self.scores) + 1)

    def expected_rate(self, threshold: float) -> float:
        """Return the share of good pictures expected above any threshold: by rank, or beyond all of them by the tail.

        By rank it is (1 + count above) / (n + 1), the smallest rate that the threshold keeps to. nan without scores.
        """
        if not len(self.scores):
            return math.nan
        above = int(np.count_nonzero(self.scores > threshold))
        if above == 0 and (tail := fit_tail(self.scores)) is not None:
            return min(tail.rate(threshold), self.floor)
        return (1 + above) / (len(self.scores) + 1)
