"""Is a number still where it was? Bets against "nothing has moved", which win only when something has.

**The numbers of pictures judged good.** If nothing has moved, each number takes any rank among all numbers before it,
those of the calibration included, with the same chance, and the ranks are independent of each other: conformal
p-values of the whole sequence (Vovk, Gammerman and Shafer 2005). This holds exactly however few the calibration
pictures are, and whatever the numbers' distribution. A bet multiplies its capital by f(p), whose mean over the p-values
of an unmoved line is 1.

**All numbers, those of rejected pictures too.** When a change is so large that every picture is rejected, none judged
good is left to see it by. So a second bet is laid on every picture: that it lies beyond the limits, the least and the
most of the calibration pictures (later on, of the first ones judged good, too), although at least half of the pictures
show good parts and are judged so. It wins only where more than half lie beyond.

A change may come at any time, so each new picture brings one unit of fresh capital to every bet (Shiryaev and Roberts):
after T pictures of an unmoved line, the expected capital is the initial one plus T, and the chance that it was ever
over C is at most that divided by C (Doob).
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

__all__ = ["Bets", "Ranks", "majority_chance", "rank_bets", "share_bets"]

SHIFTS = (0.5, 1.0, 2.0)  # standard deviations that are bet on; a shift of another size is seen nearly as soon
STAKES = (0.5, 1.0)  # share of the capital laid on "beyond the limits"
GOOD_SHARE = 0.5  # of the pictures, at least, show good parts

_KEPT = 4000  # numbers that ranks are taken among
_LOSING = 10.0  # capital up to which a bet takes none of the last numbers for moved
_GRID = np.linspace(-6, 9, 181)  # standard deviations


def _normal(mean: float) -> np.ndarray:
    """Return the distribution function of a normal number on the grid, from 0 to 1."""
    below = np.array([NormalDist(mean).cdf(point) for point in _GRID.tolist()])
    below[0], below[-1] = 0, 1
    return below


_UNMOVED = _normal(0).tolist()
_SHIFTED = tuple(_normal(shift).tolist() for shift in SHIFTS)


class Ranks:
    """The numbers seen so far, in ascending order, among which a new one takes its rank.

    At most 4,000 are kept; then each new one takes the place of one drawn at random. Ranks among so many hardly differ
    from ranks among all.
    """

    def __init__(self, values: Sequence[float], seen: int | None = None) -> None:
        self.values = sorted(values)
        self.seen = len(self.values) if seen is None else seen  # ever, of which at most _KEPT are kept

    def interval(self, value: float) -> tuple[float, float]:
        """Return between which bounds the p-value of a number lies: the share, itself counted, of those above it.

        The bounds differ by its own share and that of its equals; a randomised p-value would be drawn between them.
        """
        below, upto = bisect_left(self.values, value), bisect_right(self.values, value)
        count = len(self.values)
        return (count - upto) / (count + 1), (count - below + 1) / (count + 1)

    def add(self, value: float) -> None:
        """Count a number in."""
        self.seen += 1
        if len(self.values) >= _KEPT:
            draw = int(np.random.default_rng(self.seen).integers(self.seen))
            if draw >= _KEPT:
                return
            del self.values[draw]
        insort(self.values, value)


def rank_bets(low: float, high: float, count: int, moved: Sequence[int]) -> list[float]:
    """Return the factors of the bets that numbers have risen, by the shifts of `SHIFTS`.

    A bet on a shift expects the new number to be normal around it, the numbers before it around 0, but for the last few
    which have moved already: its factor is the density of the new one over that of the mixture, at the p-value's rank.
    It is averaged over the bounds of the p-value, so its mean over all ranks is 1, whatever the numbers really are.

    Args:
        low, high: bounds of the p-value, from `Ranks.interval`.
        count: how many numbers there were before.
        moved: how many of them, the last ones, each bet takes for moved.
    """
    factors = []
    for shifted, last in zip(_SHIFTED, moved, strict=True):
        share = min(last / max(count, 1), 0.5)  # of more it would see no difference, and neither win nor lose
        factors.append((_carried(1 - low, share, shifted) - _carried(1 - high, share, shifted)) / (high - low))
    return factors


def _carried(rank: float, share: float, shifted: Sequence[float]) -> float:
    """Return the share of moved numbers below the place that a rank has among a mixture of unmoved and moved ones.

    It is `np.interp` from the mixture's table to that of the moved, to the last digit; but that would make a table of
    which two points are wanted, 42 times a picture. A table, not the formulas: between its points the bet is even, so
    it stays fair.

    Args:
        rank: 0 to 1.
        share: of moved numbers in the mixture.
        shifted: distribution function of the moved ones on the grid.
    """
    others = 1 - share
    if share == 0:  # the same bisection without Python's loop: most bets of a quiet line take no number for moved
        at = bisect_right(_UNMOVED, rank)
    else:
        at, end = 0, len(shifted)  # bisection, to the first point of the mixture's table that is over the rank
        while at < end:
            middle = (at + end) // 2
            if rank < others * _UNMOVED[middle] + share * shifted[middle]:
                end = middle
            else:
                at = middle + 1
    if at == len(shifted):
        return shifted[-1]
    low, high = (others * _UNMOVED[place] + share * shifted[place] for place in (at - 1, at))
    return (shifted[at] - shifted[at - 1]) / (high - low) * (rank - low) + shifted[at - 1]


def share_bets(beyond: bool, chance: float) -> list[float]:
    """Return the factors of the bets that more pictures lie beyond the limits than `chance`, by `STAKES`."""
    return [1 - stake + stake * beyond / chance for stake in STAKES]


@lru_cache(maxsize=256)  # asked at each picture, and the answer changes three times in a line's life
def majority_chance(pictures: int, error: float) -> float:
    """Return the chance, at most, that a picture lies beyond the limits of some pictures, where half are good.

    A good one does with a chance that is itself uncertain, Beta(1, n) over the draw of the n pictures that set the
    limits; `error` is the probability that it is more than what is counted here.
    """
    good = 1 - error ** (1 / max(pictures, 1))
    return (1 - GOOD_SHARE) + GOOD_SHARE * good


class Bets:
    """The capital of all bets that one number has moved in one direction.

    Args:
        capital: of each bet, first those by `SHIFTS`, then those by `STAKES`.
        moved: for how many pictures each bet by `SHIFTS` has been winning.
    """

    def __init__(self, capital: Sequence[float], moved: Sequence[int] = (0,) * len(SHIFTS)) -> None:
        self.capital = list(capital)
        self.moved = list(moved)

    def settle(self, bounds: tuple[float, float] | None, count: int, shares: Sequence[float]) -> None:
        """Bring one unit of capital to each bet and settle it.

        Args:
            bounds: of the p-value against a rise; None for a picture that has none.
            count: numbers before it.
            shares: factors of the bets by `STAKES`.
        """
        factors = [1.0] * len(SHIFTS)
        if bounds is not None:  # chosen from the past alone, as a fair bet must be
            self.moved = [0 if now <= _LOSING else last for now, last in zip(self.capital, self.moved, strict=False)]
            factors = rank_bets(*bounds, count, self.moved)
            self.moved = [last + 1 for last in self.moved]
        pairs = zip(self.capital, [*factors, *shares], strict=True)
        self.capital = [(now + 1) * factor for now, factor in pairs]

    @property
    def mean(self) -> float:
        """The capital of an average bet: it exceeds C with a chance of at most (initial capital + pictures) / C."""
        return sum(self.capital) / len(self.capital)
