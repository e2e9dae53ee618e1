"""Probability of detection against size, from hits and misses: a logistic regression, and what it says for certain.

The model is that of MIL-HDBK-1823A for hit/miss data: the log-odds of a hit are a line over the logarithm of the size.
a90 is the size that is found nine times in ten; a90/95 is the size of which that can be said with 95 % confidence. The
line is fitted by Firth's penalised likelihood (Biometrika 80, 1993): it stays finite where every large defect is found
and every small one missed, where the usual fit runs to infinity, and it is less biased with few trials. Confidence
bounds come from the likelihood ratio (Cheng and Iles 1983; with the penalty: Heinze and Schemper 2002). No size outside
those that were planted is ever named.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DetectionCurve", "SizeLimit", "fit_curve"]

_Numbers = NDArray[np.float64]

_WANTED = 0.9  # probability of detection at a90
_DROP = 2.705543454 / 2  # half the 0.90 quantile of chi-squared, 1 degree of freedom: a bound on one side holds to 95 %
_DIRECTIONS = 720  # in which the edge of the confidence region is looked for
_STEPS = 60  # of a bisection
_ROUNDS = 100  # of Newton's method


@dataclass(frozen=True)
class SizeLimit:
    """A size, or what can be said where the planted sizes do not hold it.

    Examples:
        >>> from totalrecall.capability import fit_curve
        >>> fit_curve([4, 8], [20, 20], [20, 20]).a90.in_words()
        '<= 4 px'

    Attributes:
        size: in pixels; nan where nothing can be said.
        relation: `=` at the size; `<=` at or below the smallest planted size; `>` not reached at the largest one;
            `none`: larger defects are found less often.
    """

    size: float
    relation: str

    def in_words(self, *, unit: str = "px", scale: float = 1.0) -> str:
        """Return the size as it stands in a table: `12.3 px`, `<= 3 px`, `> 48 px`, or `-`."""
        if self.relation == "none":
            return "-"
        sign = "" if self.relation == "=" else f"{self.relation} "
        return f"{sign}{self.size * scale:.3g} {unit}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {"size": None if math.isnan(self.size) else self.size, "relation": self.relation}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SizeLimit":
        """Return what `to_json` gave."""
        return cls(math.nan if value["size"] is None else float(value["size"]), value["relation"])


@dataclass(frozen=True, eq=False)
class DetectionCurve:
    """A fitted curve of the probability of detection.

    Examples:
        >>> from totalrecall.capability import fit_curve
        >>> curve = fit_curve([4, 8, 16, 32], [20, 20, 20, 20], [1, 9, 18, 20])
        >>> curve.probability([10]).round(2).tolist()
        [0.63]
        >>> [bound.round(2).tolist() for bound in curve.band([10])]
        [[0.49], [0.77]]

    Attributes:
        sizes: that were planted, ascending, in pixels, (k,).
        planted: trials of each size, (k,).
        hits: of them, those that were found, (k,).
        middle: logarithm of the size that the line is centred on.
        line: log-odds at the middle, and their growth by the logarithm of the size, (2,).
        edge: of the confidence region of the line, (directions, 2).
    """

    sizes: _Numbers
    planted: _Numbers
    hits: _Numbers
    middle: float
    line: _Numbers
    edge: _Numbers = field(repr=False)

    def probability(self, sizes: Sequence[float] | np.ndarray) -> _Numbers:
        """Return the probability of detection of some sizes, (n,)."""
        return _logistic(self._terms(sizes) @ self.line)

    def band(self, sizes: Sequence[float] | np.ndarray) -> tuple[_Numbers, _Numbers]:
        """Return the lower and the upper bound of the probability of some sizes, each (n,), each to 95 % confidence."""
        lines = self._terms(sizes) @ self.edge.T  # (n, 2) @ (2, directions)
        return _logistic(lines.min(axis=1)), _logistic(lines.max(axis=1))

    @cached_property
    def a90(self) -> SizeLimit:
        """The size that is found nine times in ten."""
        small, large = self.probability(self.sizes[[0, -1]])
        if small >= _WANTED:
            falls = large < _WANTED
            return SizeLimit(math.nan, "none") if falls else SizeLimit(float(self.sizes[0]), "<=")
        if large < _WANTED:
            return SizeLimit(float(self.sizes[-1]), ">")
        return SizeLimit(float(math.exp(self.middle + (_logit(_WANTED) - self.line[0]) / self.line[1])), "=")

    @cached_property
    def a90_95(self) -> SizeLimit:
        """The size of which it can be said with 95 % confidence that it is found nine times in ten."""
        if self.a90.relation == "none":
            return self.a90
        fine = np.geomspace(self.sizes[0], self.sizes[-1], 2001)
        # the least of many lines is concave: it is above a level in one stretch, which begins at the first such size
        sure = np.flatnonzero(self.band(fine)[0] >= _WANTED)
        if not len(sure):
            return SizeLimit(float(self.sizes[-1]), ">")
        return SizeLimit(float(fine[sure[0]]), "=") if sure[0] else SizeLimit(float(self.sizes[0]), "<=")

    @cached_property
    def fits(self) -> bool:
        """Whether hits and misses could come from this curve: the deviance is below its 99 % quantile."""
        freedom = len(self.sizes) - 2
        if freedom < 1:
            return True
        expected = np.clip(self.probability(self.sizes), 1e-9, 1 - 1e-9)
        seen = self.hits / self.planted
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [share * np.log(share / fitted) for share, fitted in ((seen, expected), (1 - seen, 1 - expected))]
        deviance = 2 * float((self.planted * np.nansum(parts, axis=0)).sum())
        # Wilson and Hilferty: the cube root of chi-squared over its freedom is nearly normal
        spread = 2 / (9 * freedom)
        return (deviance / freedom) ** (1 / 3) <= 1 - spread + 2.3263 * math.sqrt(spread)

    def _terms(self, sizes: Sequence[float] | np.ndarray) -> _Numbers:
        logarithms = np.log(np.asarray(sizes, np.float64)) - self.middle
        return np.stack([np.ones_like(logarithms), logarithms], axis=1)


def fit_curve(
    sizes: Sequence[float] | np.ndarray, planted: Sequence[int] | np.ndarray, hits: Sequence[int] | np.ndarray
) -> DetectionCurve | None:
    """Fit the curve; None where fewer than two sizes were planted, of which no curve can be told.

    Args:
        sizes: in pixels, (k,).
        planted: trials of each, (k,).
        hits: of them, those that were found, (k,).

    Examples:
        >>> from totalrecall.capability.detection import fit_curve
        >>> curve = fit_curve([4, 8, 16, 32], [20, 20, 20, 20], [1, 9, 18, 20])
        >>> curve.a90.in_words(), curve.a90_95.in_words()
        ('16 px', '22.1 px')
    """
    table = [(a, n, y) for a, n, y in sorted(zip(sizes, planted, hits, strict=True)) if n > 0]
    if len({row[0] for row in table}) < 2:
        return None
    a, n, y = np.array(table, np.float64).T
    middle = float(np.average(np.log(a), weights=n))
    terms = np.stack([np.ones(len(a)), np.log(a) - middle], axis=1)
    line = _maximum(terms, n, y)
    return DetectionCurve(a, n, y, middle, line, _edge(terms, n, y, line))


def _maximum(terms: _Numbers, n: _Numbers, y: _Numbers) -> _Numbers:
    """Return the line of the greatest penalised likelihood, by Newton's method on the modified score (Firth, eq. 3)."""
    line = np.zeros(2)
    height = _likelihood(terms, n, y, line[None])[0]
    for _ in range(_ROUNDS):
        p = _logistic(terms @ line)
        weights = n * p * (1 - p)
        information = (terms * weights[:, None]).T @ terms
        leverage = weights * np.einsum("ki,ij,kj->k", terms, np.linalg.inv(information), terms)
        step = np.linalg.solve(information, terms.T @ (y - n * p + leverage * (0.5 - p)))
        while np.abs(step).max() > 1e-10:  # half the way where the whole one would lead down
            there = _likelihood(terms, n, y, (line + step)[None])[0]
            if there >= height:
                break
            step = step / 2
        line = line + step
        height = _likelihood(terms, n, y, line[None])[0]
        if np.abs(step).max() <= 1e-10:
            break
    return line


def _likelihood(terms: _Numbers, n: _Numbers, y: _Numbers, lines: _Numbers) -> _Numbers:
    """Return the penalised log-likelihood of some lines (m, 2), (m,): Jeffreys' prior is the penalty."""
    odds = lines @ terms.T  # (m, k)
    likelihood = (y * odds - n * np.logaddexp(0, odds)).sum(axis=1)
    with np.errstate(over="ignore"):
        weights = n * np.exp(-np.abs(odds)) / np.square(1 + np.exp(-np.abs(odds)))
    first, mixed, second = (weights @ (terms[:, i] * terms[:, j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    determinant = np.maximum(first * second - mixed**2, 1e-300)  # of the information
    return np.asarray(likelihood + 0.5 * np.log(determinant))


def _edge(terms: _Numbers, n: _Numbers, y: _Numbers, line: _Numbers) -> _Numbers:
    """Return the lines (directions, 2) at the edge of the confidence region: as unlikely as the ratio allows."""
    lowest = _likelihood(terms, n, y, line[None])[0] - _DROP
    turns = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)
    p = _logistic(terms @ line)
    information = (terms * (n * p * (1 - p))[:, None]).T @ terms
    # where the likelihood falls off alike in all directions, the directions are spread evenly along the edge
    away = np.stack([np.cos(turns), np.sin(turns)], axis=1) @ np.linalg.inv(np.linalg.cholesky(information))
    near, far = np.zeros(_DIRECTIONS), np.ones(_DIRECTIONS)
    while (inside := _likelihood(terms, n, y, line + far[:, None] * away) > lowest).any():
        far = np.where(inside, 2 * far, far)
    for _ in range(_STEPS):
        half = (near + far) / 2
        inside = _likelihood(terms, n, y, line + half[:, None] * away) > lowest
        near, far = np.where(inside, half, near), np.where(inside, far, half)
    return line + near[:, None] * away


def _logistic(odds: _Numbers) -> _Numbers:
    return np.asarray(np.exp(-np.logaddexp(0, -odds)))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
