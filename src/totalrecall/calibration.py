"""Scores of good pictures -> a threshold at a stated false-alarm rate, and p-values.

Conformal prediction: if a new good picture is exchangeable with the n calibration pictures (same part, line and light,
and none of them in the bank), its score is equally likely to take any rank among the n + 1. Nothing is assumed of the
scores' distribution, and no defect is needed. So (1 + scores at least as high) / (n + 1) is a p-value, whose floor is
1 / (n + 1), and the r-th highest score is a threshold that a share r / (n + 1) of good pictures is above. A stated rate
mostly asks for an r = rate (n + 1) between two whole numbers f and f + 1; the threshold is then between those two
scores, as in Hutson, "Calculating nonparametric confidence intervals for quantiles using fractional order statistics"
(1999), and Beran and Hall (1993). In proportion, as there, the rate is met for scores spread evenly, but undershot
where they thin out upwards: 4.5 percent at a stated 5 of 30, if exponentially. There the spacings of the highest are
independent (Renyi 1953), that below the f-th highest has mean 1 / f, and the weight of the higher score that meets
the rate is (f + 1 - r) f / r, which is taken here. What is promised is an average over calibration sets:

- whatever the distribution, a share between floor(r) / (n + 1) and ceil(r) / (n + 1) of good pictures is called
  anomalous (at most the latter where scores are equal);
- what is expected is the stated rate.

With one set of n the share varies about it, by the Beta distribution of ranks: with n = 100 at 5 percent it is mostly
within 2 to 9.

`PatchCore` scores its good pictures in folds: each by a bank without its fold (cross-conformal prediction, Vovk 2015),
and judges by a bank of them all. Were each of these banks chosen without a look at its fold, twice the rate would be
proved, for verdicts by the banks of the folds (Vovk et al. 2018, Barber et al. 2021). Those of the greedy are the
detector's own without the fold, refilled (see `refill`): they hold nothing of the fold, but which of the others they
hold was decided with the fold there. So nothing is proved of them; what is seen is the rate itself or a little under it
(`benchmarks/calibration.py` measures it). Where there are very many pictures, and in PaDiM and SPADE, some are held out
together, once: then the promise is exact for the detector without them, and the judging one, which learnt them too,
errs to the safe side, as far as was measured.

Photographs of a part that the bank knows from others are not exchangeable with those of parts to come. With 300 of 50
magnetic tiles, six of each, a stated rate of 5 percent came out as 52 on other tiles (`benchmarks/new_parts.py`). With
`new_parts` the photographs of a part are held out together, and it is the parts that must be exchangeable (Dunn,
Wasserman and Ramdas 2023): 3.5 percent came out, with a spread of 2.9 from split to split, for 50 parts are few.

A rate below the floor cannot be had from ranks. The tail is extrapolated then (see `tail`): an estimate with an
interval, and said to be one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from totalrecall.errors import SettingError
from totalrecall.tail import fit_tail, rate_interval

__all__ = ["OF_PARTS", "Calibration", "conformal_threshold"]

OF_PARTS = ("parts", "shown_by", "new_parts")  # attributes that the model file keeps in its header, beside `folds`

_ROUNDING = 1e-9  # of rate * (n + 1): 0.05 * 20 is meant to be 1


def conformal_threshold(scores: Sequence[float] | np.ndarray, rate: float) -> float:
    """Return the score that a share `rate` of new good pictures is expected above: the r-th highest, r = rate (n + 1).

    Between whole r it is between two neighbouring scores, so that exponential tails meet the rate (see above). A rate
    under 1 / (n + 1) gives the highest score, one over n / (n + 1) the lowest; nan where there are no scores. It rises
    with each score and falls with the rate.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    if not len(ordered):
        return math.nan
    rank = min(max(rate * (len(ordered) + 1), 1.0), float(len(ordered)))
    whole = math.floor(rank + _ROUNDING)
    share = rank - whole
    higher = float(ordered[whole - 1])
    weight = (1 - share) * whole / rank
    if share <= _ROUNDING:
        return higher
    lower = float(ordered[whole])
    # subtle: rounding could leave the two by a bit, and of equal scores the threshold must not be under them
    return min(max(weight * higher + (1 - weight) * lower, lower), higher)


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
        parts: how many parts all pictures of the fit seem to show (see `same_part`); None where that was not looked at.
        shown_by: how many pictures these are.
        new_parts: the photographs of each part were held out together, so the rate is for parts to come.
    """

    scores: np.ndarray
    peaks: np.ndarray
    rate: float
    folds: int = 1
    pictures: np.ndarray | None = None
    parts: int | None = None
    shown_by: int = 0
    new_parts: bool = False

    def __post_init__(self) -> None:
        """Refuse scores among which is none: sorted, it would be the highest, and so the threshold.

        Raises:
            SettingError: a score is not a finite number, or a peak is not a number.
        """
        if not np.isfinite(self.scores).all() or np.isnan(self.peaks).any():
            bad = int(np.count_nonzero(~np.isfinite(self.scores)) + np.count_nonzero(np.isnan(self.peaks)))
            raise SettingError(
                f"scores of good pictures must be finite numbers, {bad} are not. Look at the pictures, or fit again."
            )

    @cached_property
    def threshold(self) -> float:
        """Score above which a picture is called anomalous; nan without calibration pictures."""
        return self._threshold(self.scores)

    @cached_property
    def pixel_threshold(self) -> float:
        """Map value above which a region is marked: a share `rate` of good pictures is expected to show any region."""
        return self._threshold(self.peaks)

    def _threshold(self, scores: np.ndarray) -> float:
        """Return the level that a share `rate` of good pictures is above: between ranks, or beyond all by the tail."""
        by_rank = conformal_threshold(scores, self.rate)
        if not self.below_floor:
            return by_rank
        tail = fit_tail(scores)
        return by_rank if tail is None else max(by_rank, tail.score(self.rate))  # a rarer alarm is no lower a score

    @property
    def floor(self) -> float:
        """The smallest false-alarm rate that this many pictures can tell of, 1 / (n + 1)."""
        return 1 / (len(self.scores) + 1)

    @property
    def below_floor(self) -> bool:
        """Whether the stated rate is lower than any that ranks can give."""
        return self.rate * (len(self.scores) + 1) + _ROUNDING < 1

    @property
    def rank_rates(self) -> tuple[float, float]:
        """The false-alarm rates of the ranks around the stated one: the average is between, whatever the distribution.

        Both are the stated rate where that is a whole rank; 0 and the floor where it is below all of them.
        """
        rank, whole = self.rate * (len(self.scores) + 1), len(self.scores) + 1
        return math.floor(rank + _ROUNDING) / whole, math.ceil(rank - _ROUNDING) / whole

    @property
    def guaranteed_rate(self) -> float:
        """The rate of the next whole rank: false alarms are not above it on average, whatever the distribution."""
        return self.rank_rates[1]

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
        """Return (1 + count of scores at least as high) / (n + 1): small means unlike the good pictures.

        It counts whole ranks, and a threshold between two is above one of them. So a picture that scores between the
        threshold and the higher of the two is called anomalous, and its p-value is above the stated rate, by less
        than 1 / (n + 1).
        """
        if not len(self.scores):
            return math.nan
        return (1 + int(np.count_nonzero(self.scores >= score))) / (len(self.scores) + 1)

    def expected_rate(self, threshold: float) -> float:
        """Return the share of good pictures expected above any threshold: by rank, or beyond all of them by the tail.

        By rank it is the rate that has this threshold; 1 below all scores, nan without any.
        """
        count = len(self.scores)
        if not count:
            return math.nan
        above = int(np.count_nonzero(self.scores > threshold))
        if above == 0:
            tail = fit_tail(self.scores)
            return self.floor if tail is None else min(tail.rate(threshold), self.floor)
        if above == count:
            return 1.0
        higher = float(self.scores[self.scores > threshold].min())
        lower = float(self.scores[self.scores <= threshold].max())
        weight = (threshold - lower) / (higher - lower)
        return above * (above + 1) / (above + weight) / (count + 1)  # `conformal_threshold` the other way round
