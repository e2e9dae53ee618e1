"""How well verdicts agree, in figures that quality engineers know: shares with intervals, and Cohen's kappa.

Intervals of shares are those of Clopper and Pearson (1934), "The use of confidence or fiducial limits illustrated in
the case of the binomial", Biometrika 26: they cover at least as often as they say, however few the parts.

Kappa is Cohen's (1960), "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20;
its standard error is that of Fleiss, Cohen and Everitt (1969), "Large sample standard errors of kappa and weighted
kappa", Psychological Bulletin 72, equation 13.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CONFIDENCE", "Kappa", "Share", "kappa_of", "kappa_of_table", "percent", "share_of"]

CONFIDENCE = 0.95
_NORMAL = 1.959963984540054  # standard deviations around the mean of a normal variable that hold 95 %
_HALVINGS = 60


@dataclass(frozen=True)
class Share:
    """A share that was counted, with its interval.

    Attributes:
        count, total: what was counted, of how many.
        low, high: between which the true share lies, with 95 % confidence.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share; nan of none."""
        return self.count / self.total if self.total else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return the share as JSON types."""
        value = self.value
        return {
            "count": self.count,
            "total": self.total,
            "share": value if math.isfinite(value) else None,
            "low": self.low,
            "high": self.high,
        }

    def in_words(self) -> str:
        """Say it: `3 of 60, 5.0 % (1.0 % to 13.9 %)`."""
        if not self.total:
            return "none"
        return f"{self.count} of {self.total}, {percent(self.value)} ({percent(self.low)} to {percent(self.high)})"


def share_of(count: int, total: int) -> Share:
    """Return a share with its 95 % interval of Clopper and Pearson.

    Its ends are where the tail of the binomial distribution beyond the count is 2.5 %.
    """
    tail = (1 - CONFIDENCE) / 2
    if not total:
        return Share(0, 0, 0.0, 1.0)
    low = 0.0 if count == 0 else _solve(lambda share: _at_least(count, total, share), tail)
    high = 1.0 if count == total else _solve(lambda share: 1 - _at_least(count + 1, total, share), tail, falling=True)
    return Share(count, total, low, high)


def _at_least(count: int, total: int, share: float) -> float:
    """Return the chance of at least so many of a total."""
    if count <= 0 or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    ks = range(count, total + 1)
    logs = [
        math.lgamma(total + 1)
        - math.lgamma(k + 1)
        - math.lgamma(total - k + 1)
        + k * math.log(share)
        + (total - k) * math.log1p(-share)
        for k in ks
    ]
    return min(math.fsum(map(math.exp, logs)), 1.0)


def _solve(chance: Any, wanted: float, *, falling: bool = False) -> float:
    """Return the share at which a chance, which only rises or only falls with it, is as wanted."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if (chance(middle) < wanted) != falling:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of two judges: 1 is full agreement, 0 that of chance.

    Attributes:
        value: of kappa; nan where both always say the same one thing, of which chance cannot be told.
        error: its standard error.
        low, high: its 95 % interval.
        agreed, total: on how many subjects both agree.
    """

    value: float
    error: float
    low: float
    high: float
    agreed: int
    total: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types; what is not known is None."""
        numbers = {name: getattr(self, name) for name in ("value", "error", "low", "high")}
        known = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return {**known, "agreed": self.agreed, "total": self.total}

    def in_words(self) -> str:
        """Say it: `0.92 (0.83 to 1.00)`."""
        if not math.isfinite(self.value):
            return "not known"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def kappa_of(first: Sequence[str], second: Sequence[str]) -> Kappa:
    """Return the kappa of two judges that named the same subjects, each in the same order."""
    names = sorted({*first, *second})
    table = np.zeros((len(names), len(names)), np.int64)
    for one, other in zip(first, second, strict=True):
        table[names.index(one), names.index(other)] += 1
    return kappa_of_table(table)


def kappa_of_table(table: npt.NDArray[np.int64]) -> Kappa:
    """Return kappa from counts (c, c): rows are what the first judge said, columns the second.

    Where both agree on everything, the standard error is 0, which says nothing of the next parts. Then the lower end
    comes from the interval of the share of agreement, at the same agreement by chance.
    """
    total = int(table.sum())
    agreed = int(np.trace(table))
    nothing = Kappa(math.nan, math.nan, math.nan, math.nan, agreed, total)
    if not total:
        return nothing
    shares = table / total
    rows, columns = shares.sum(1), shares.sum(0)
    observed, expected = float(np.trace(shares)), float(rows @ columns)
    if expected >= 1:
        return nothing
    kappa = (observed - expected) / (1 - expected)
    error = _error(shares, kappa, expected, total)
    if agreed == total:
        low = (share_of(agreed, total).low - expected) / (1 - expected)
        return Kappa(kappa, error, max(low, -1.0), 1.0, agreed, total)
    return Kappa(kappa, error, max(kappa - _NORMAL * error, -1.0), min(kappa + _NORMAL * error, 1.0), agreed, total)


def _error(shares: npt.NDArray[np.float64], kappa: float, expected: float, total: int) -> float:
    """Return the standard error of kappa: Fleiss, Cohen and Everitt, equation 13."""
    rows, columns = shares.sum(1), shares.sum(0)
    diagonal = np.diag(shares)
    first = float((diagonal * (1 - (rows + columns) * (1 - kappa)) ** 2).sum())
    weights = shares * (columns[:, None] + rows[None, :]) ** 2  # p_ij (p_.i + p_j.)^2
    second = (1 - kappa) ** 2 * float(weights.sum() - np.diag(weights).sum())
    third = (kappa - expected * (1 - kappa)) ** 2
    return math.sqrt(max(first + second - third, 0.0) / total) / (1 - expected)


def percent(share: float) -> str:
    """Return a share as percent with one digit after the point."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "not known"
