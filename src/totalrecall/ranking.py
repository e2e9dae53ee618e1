"""In which order good pictures stand that the others explain badly, and which of them stand out.

Good pictures differ among themselves, and some kinds more than others: tiles in strong light lie farther apart than dim
ones. So a level counts in the measure of its like, the twenty pictures whose mean patch is nearest, suspects aside.

A part that was photographed several times is judged by all of its photographs (see `same_part`): a defect shows in all,
chance in one. A picture that stands out by itself keeps its own place, so a hair on the lens is not lost among five
clean photographs.
"""

import math
from collections.abc import Sequence

import numpy as np

from totalrecall.types import Matrix

__all__ = ["limit_of", "measure", "most_like", "standing_out"]

_STRICT = 3.5  # robust standard deviations of the logarithm above the median; see `limit_of`
_FOURTH_FIFTH = 0.8416  # standard deviations above the mean, of a normal distribution
_LEAST_SPREAD = 0.01  # a hundredth: identical pictures have none
_LEAST_JUDGED = 8  # pictures: of fewer no spread can be told
_LIKE = 20  # pictures; from 10 to 160 they do the same
_ROWS = 256  # of pictures compared with all at a time


def limit_of(levels: np.ndarray, strict: float = _STRICT) -> float:
    """Return the level above which a picture stands out from the rest; infinite where they are too few to tell.

    Levels are skewed, their logarithm less so. The limit lies so many standard deviations above its median, and the
    standard deviation is taken from the way from the median to the fourth fifth: the tail that dirty pictures make
    does not reach there, and the skew of good ones shows.
    """
    known = levels[levels > 0]
    if len(known) < _LEAST_JUDGED:
        return math.inf
    logs = np.log(known)
    middle, high = float(np.median(logs)), float(np.quantile(logs, 0.8))
    return math.exp(middle + strict * max((high - middle) / _FOURTH_FIFTH, _LEAST_SPREAD))


def standing_out(levels: np.ndarray, strict: float = _STRICT) -> np.ndarray:
    """Return the pictures whose level is above the limit (see `limit_of`), the worst first."""
    order = np.argsort(-levels, kind="stable")
    return order[levels[order] > limit_of(levels, strict)]


def most_like(means: Matrix, suspects: np.ndarray) -> np.ndarray:
    """Return of each picture the numbers of the twenty others with the nearest mean patch, suspects aside, int (n, 20).

    A batch with the same gross defect would otherwise be measured by itself.

    Of fewer than sixty pictures twenty would be most of the others, and fewer say little: int (n, 0).

    Args:
        means: (n, d).
        suspects: bool (n,).
    """
    if len(means) < 3 * _LIKE:
        return np.empty((len(means), 0), np.int64)
    norms = np.einsum("nd,nd->n", means, means)
    found = []
    for first in range(0, len(means), _ROWS):
        apart = norms - 2 * means[first : first + _ROWS] @ means.T  # (rows, n), less what is the same along a row
        own = np.arange(len(apart))
        apart[own, first + own] = np.inf
        apart[:, suspects] = np.inf
        found.append(np.argpartition(apart, _LIKE - 1, axis=1)[:, :_LIKE])
    return np.concatenate(found)


def measure(levels: np.ndarray, alone: np.ndarray, like: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return by what the levels (n,) are multiplied to rank pictures.

    Ranked is by the geometric mean of the level without suspects and the level without the twin, each over what is
    usual among the pictures most like it; and of that, by the geometric mean over the photographs of the part.

    Args:
        levels, alone: (n,), without suspects, and without its twin.
        like: (n, 20), the pictures most like each; (n, 0) where all are.
        parts: of each picture those of the same part, its own number among them.
    """
    known = (levels > 0) & (alone > 0)
    usual = float(np.median(levels))
    if not known.any() or not usual:
        return np.ones(len(levels))
    own = np.sqrt(_times_usual(levels, like) * _times_usual(alone, like))
    logs = np.log(np.where(known, own, 1.0))
    joint = np.exp([logs[part[known[part]]].mean() if known[part].any() else 0.0 for part in parts])
    ranked = np.where(own > limit_of(np.where(known, own, 0.0)), np.maximum(own, joint), joint)
    return np.where(known, usual * ranked / np.where(known, levels, 1.0), 1.0)


def _times_usual(levels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return levels (n,) over the median of those of the pictures like each, or of all; 1 where that is 0."""
    usual = np.median(levels[like], axis=1) if like.shape[1] else np.full(len(levels), np.median(levels))
    return np.divide(levels, usual, out=np.ones(len(levels)), where=usual > 0)
