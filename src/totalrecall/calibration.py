"""The upper tail of good pictures' scores, beyond the highest seen: a generalised Pareto fit, an estimate.

Ranks among n scores say nothing of rates below 1 / (n + 1). For rarer ones the excesses over a high score are taken to
follow a generalised Pareto distribution, the limit law of excesses (Pickands 1975, Balkema and de Haan 1974):

    P(S > start + x) = share (1 + shape x / scale) ^ (-1 / shape)

fitted by the quasi-Bayes estimate of Zhang and Stephens ("A new and efficient estimation method for the generalized
Pareto distribution", Technometrics 2009), which needs no iteration and is steady for the ten to eighty excesses here.
The shape is drawn towards that of a slightly heavy tail by ten excesses' worth, as Vehtari et al. (2024) do. So drawn,
a threshold from 30 scores at a stated 1 percent, never under the highest of them, was exceeded by 0.1 to 1.7 percent of
new ones (average over draws from five distributions and magnetic tiles: 1.4); drawn to nothing, by about 2 percent.

What cannot be known from n scores is in the interval: it comes from fitting resampled scores again (the bootstrap).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from totalrecall.errors import SettingError

__all__ = [
    "CROSSED_AT_MOST",
    "LEAST",
    "OF_PARTS",
    "Calibration",
    "Tail",
    "conformal_threshold",
    "fit_tail",
    "fold_count",
    "held_count",
    "held_out",
    "make_folds",
    "rate_interval",
]

LEAST = 15  # scores: with fewer there are not even five excesses to fit
_PRIOR_SHAPE, _PRIOR_COUNT = 0.1, 10.0
_RESAMPLES = 400


@dataclass(frozen=True)
class Tail:
    """A fitted tail.

    Attributes:
        start: score at which it begins.
        share: of good pictures that score above that.
        scale: of the excesses, in the scores' unit.
        shape: 0 is exponential, above it heavy, below it the scores have an upper end.
    """

    start: float
    share: float
    scale: float
    shape: float

    def rate(self, score: float) -> float:
        """Return the share of good pictures expected above a score; the tail's own at scores below its start."""
        excess = max(score - self.start, 0.0) / self.scale
        if abs(self.shape) < 1e-9:
            return self.share * math.exp(-excess)
        inside = 1 + self.shape * excess
        return self.share * inside ** (-1 / self.shape) if inside > 0 else 0.0

    def score(self, rate: float) -> float:
        """Return the score that a share `rate` of good pictures is expected above; at most the tail's share."""
        beyond = min(rate / self.share, 1.0)
        if abs(self.shape) < 1e-9:
            return self.start - self.scale * math.log(beyond)
        return self.start + self.scale * (beyond**-self.shape - 1) / self.shape


def fit_tail(scores: np.ndarray) -> Tail | None:
    """Fit the tail of scores (n,); None where there are fewer than `LEAST`, or all of the tail is one value.

    It begins so that a third of the scores are above it, at most 3 sqrt(n) of them: the rule of Vehtari et al. for
    many scores, and ten excesses for thirty, which with a fifth would be six.
    """
    n = len(scores)
    if n < LEAST:
        return None
    ordered = np.sort(np.asarray(scores, np.float64))
    count = min(n // 3, int(3 * math.sqrt(n)))
    start = float(ordered[n - count - 1])
    excesses = ordered[n - count :] - start
    if excesses[-1] <= 1e-9 * max(abs(start), 1e-300):
        return None
    shape, scale = _zhang_stephens(excesses)
    shape = (count * shape + _PRIOR_COUNT * _PRIOR_SHAPE) / (count + _PRIOR_COUNT)
    return Tail(start, count / n, scale, shape)


def _zhang_stephens(excesses: np.ndarray) -> tuple[float, float]:
    """Return shape and scale of excesses (m,), ascending, the last above 0."""
    m = len(excesses)
    quartile = excesses[int(m / 4 + 0.5) - 1]
    if quartile <= 0:  # ties at the start: the estimate is scaled by the smallest that is above it
        quartile = excesses[excesses > 0][0]
    count = 20 + int(math.sqrt(m))
    steps = np.arange(1, count + 1) - 0.5
    theta = 1 / excesses[-1] + (1 - np.sqrt(count / steps)) / (3 * quartile)
    theta = np.where(np.abs(theta) < 1e-12, 1e-12, theta)
    shapes = np.log1p(-theta[:, None] * excesses).mean(axis=1)  # (candidates, excesses) -> (candidates,)
    likelihood = m * (np.log(-theta / shapes) - shapes - 1)
    weights = np.exp(likelihood - likelihood.max())
    best = float((weights * theta).sum() / weights.sum())
    shape = float(np.log1p(-best * excesses).mean())
    return shape, -shape / best


def rate_interval(scores: np.ndarray, threshold: float, *, level: float = 0.9) -> tuple[float, float]:
    """Return an interval of the share of good pictures above a threshold beyond the scores, by the bootstrap.

    Args:
        scores: (n,), at least `LEAST`.
        threshold: the score in question.
        level: share of repetitions that the interval is to cover. Seeded: the same scores give the same interval.
    """
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(_RESAMPLES):
        tail = fit_tail(rng.choice(scores, len(scores)))
        rates.append(0.0 if tail is None else tail.rate(threshold))
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


CROSSED_AT_MOST = 1000  # pictures: a part of so many is a calibration set of its own, and few of them need a search
_LEAST = 3  # different pictures, or parts, of which one can be scored by the others
_HELD_AT_MOST = 500  # pictures: a quantile at a rate of 1 percent is settled by then, and each costs a search


def held_count(count: int, share: float) -> int:
    """Return how many pictures set the threshold where they are held out together.

    The share is rounded down, but at least one picture is taken where there are three or more, none where there are
    fewer, and at most 500: with those a rate of 1 percent is known to within half a percent, and more would only cost
    time.
    """
    if share <= 0 or count < _LEAST:
        return 0
    return max(min(int(count * share), _HELD_AT_MOST, count - 1), 1)


def held_out(count: int, share: float, seed: int) -> np.ndarray:
    """Return indices, ascending, of the `held_count` pictures that are held out together to set the threshold."""
    held = held_count(count, share)
    if held == 0:
        return np.empty(0, np.int64)
    return np.sort(np.random.default_rng(seed).permutation(count)[:held])


def fold_count(count: int, share: float, folds: int | None) -> int:
    """Return into how many folds so many pictures are cut; 1 where some are held out together, 0 where none is.

    A bank without a fold lacks the fold's kinds of good parts, so more folds err less; and the banks of 20 take, all
    together, less time than the coreset took (see `refill`).
    """
    if share <= 0 or count < _LEAST:
        return 0
    if folds is None:
        folds = 20 if count <= CROSSED_AT_MOST else 1
    return min(folds, count)


def make_folds(
    count: int, share: float, folds: int | None, seed: int, parts: np.ndarray | None = None
) -> list[np.ndarray]:
    """Return the pictures of each fold, ascending: each is scored by a bank without its whole fold.

    Args:
        count: of good pictures.
        share: of them held out, where there is one fold; 0 for no folds.
        folds: how many; chosen by the number of pictures if None.
        seed: of which pictures.
        parts: (count,) the part that each shows; photographs of one part are in one fold. Each its own if None.
    """
    if parts is not None:
        return _folds_of_parts(parts, share, folds, seed)
    number = fold_count(count, share, folds)
    if number <= 1:
        held = held_out(count, share, seed)
        return [held] if len(held) else []
    order: Sequence[np.ndarray] = np.array_split(np.random.default_rng(seed).permutation(count), number)
    return [np.sort(fold) for fold in order]


def _folds_of_parts(parts: np.ndarray, share: float, folds: int | None, seed: int) -> list[np.ndarray]:
    """Return folds of whole parts, none larger than it must be: the parts in random order, each to the smallest fold.

    Where there is one fold, parts are taken until the share is reached. Of fewer than three parts there is none.
    """
    sizes = np.bincount(parts)
    number = min(fold_count(len(parts), share, folds), len(sizes))
    if number == 0 or len(sizes) < _LEAST:
        return []
    order = np.random.default_rng(seed).permutation(len(sizes))
    fold = np.full(len(sizes), -1)
    if number == 1:
        wanted = max(min(int(len(parts) * share), _HELD_AT_MOST), 1)
        before = np.cumsum(sizes[order]) - sizes[order]
        fold[order[before < wanted][: len(sizes) - 1]] = 0
    else:
        held = np.zeros(number, np.int64)
        for part in order:
            smallest = int(held.argmin())
            fold[part] = smallest
            held[smallest] += sizes[part]
    return [np.flatnonzero(fold[parts] == at) for at in range(number)]


OF_PARTS = ("parts", "shown_by", "new_parts")  # attributes that the model file stores in its header, like `folds`
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
        pictures: (n,) which of the detector's pictures they are; None in models of older versions.
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

    def with_stored(self, threshold: float, pixel_threshold: float) -> "Calibration":
        """Return the calibration with thresholds that were worked out before, at the fit or at its last change.

        Only their ranks are checked: the tail beyond all scores may be rounded otherwise on another processor.

        Raises:
            ValueError: one of them contradicts the scores.
        """
        checked = (("threshold", threshold, self.scores), ("pixel_threshold", pixel_threshold, self.peaks))
        for name, value, scores in checked:
            above, at_least = int(np.count_nonzero(scores > value)), int(np.count_nonzero(scores >= value))
            rank = math.floor(min(max(self.rate * (len(scores) + 1), 1.0), len(scores)) + _ROUNDING)
            fits = above == 0 if self.below_floor else above <= rank <= at_least
            if math.isnan(value) == bool(len(scores)) or not fits:
                raise ValueError(f"calibration.{name} contradicts the scores of the good pictures")
        stored = replace(self)
        vars(stored).update(threshold=threshold, pixel_threshold=pixel_threshold)  # where the properties keep them
        return stored

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
