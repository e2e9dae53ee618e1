"""Scores of good pictures -> a threshold at a stated false-alarm rate, and p-values.

Split conformal prediction: if a new good picture is exchangeable with the n calibration pictures (same part, line and
light, and none of them in the bank), its score is equally likely to take any rank among the n + 1. Nothing is assumed
of the scores' distribution, and no defect is needed.

`PatchCore` scores the calibration pictures by a bank without them, and judges by a bank that holds them too. So for its
verdicts the rate is expected to hold, since a fuller bank brings good parts nearer, but it is not proved.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """What good pictures outside the bank scored.

    Attributes:
        scores: (n,) picture scores, Euclidean distance.
        peaks: (n,) largest value of each picture's anomaly map.
        rate: the stated false-alarm rate.
    """

    scores: np.ndarray
    peaks: np.ndarray
    rate: float

    @property
    def threshold(self) -> float:
        """Score above which a picture is called anomalous; nan without calibration pictures."""
        return conformal_threshold(self.scores, self.rate)

    @property
    def pixel_threshold(self) -> float:
        """Map value above which a region is marked: at most `rate` of good pictures show any region."""
        return conformal_threshold(self.peaks, self.rate)

    @property
    def floor(self) -> float:
        """The smallest false-alarm rate that this many pictures can guarantee, 1 / (n + 1)."""
        return 1 / (len(self.scores) + 1)

    @property
    def guaranteed_rate(self) -> float:
        """The false-alarm rate that holds: the stated one, or the floor where that is higher."""
        return max(self.rate, self.floor)

    def p_value(self, score: float) -> float:
        """Return (1 + count of scores at least as high) / (n + 1): small means unlike the good pictures."""
        if not len(self.scores):
            return math.nan
        return (1 + int(np.count_nonzero(self.scores >= score))) / (len(self.scores) + 1)
