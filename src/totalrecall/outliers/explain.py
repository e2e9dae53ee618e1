"""Rank the good pictures that the others explain badly, and say which of them stand out.

Good pictures differ among themselves, and some kinds differ more than others: tiles in strong light lie farther apart
than dim tiles. So the level of a picture is compared with the levels of the twenty pictures whose mean patch is nearest
to its own; suspects do not count there.

A part that was photographed several times is judged by all of its photographs (see `same_part`): a defect shows in all,
chance in one. A picture that stands out by itself keeps its own place, so a hair on the lens is not lost among five
clean photographs.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np

from totalrecall.outliers.same_part import SKETCH, same_part, surface
from totalrecall.scoring import smooth_distances
from totalrecall.search.levels import principal_basis
from totalrecall.system.threads import in_order, one_blas_thread
from totalrecall.types import Matrix, Patches

__all__ = [
    "LeaveOneOutIndex",
    "LeaveOneOutScores",
    "PicturePatches",
    "dirty_patches",
    "explain",
    "laid_out",
    "level",
    "limit_of",
    "measure",
    "most_like",
    "smoothed",
    "standing_out",
]

_STRICT = 3.5  # robust standard deviations of the logarithm above the median; see `limit_of`
_FOURTH_FIFTH = 0.8416  # standard deviations above the mean, of a normal distribution
_LEAST_SPREAD = 0.01  # a hundredth: identical pictures have none
_LEAST_JUDGED = 8  # pictures: fewer have no reliable spread
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
    """Return for each picture the numbers of the twenty others with the nearest mean patch, no suspects, int (n, 20).

    A batch with the same gross defect would otherwise be measured by itself.

    Of fewer than sixty pictures twenty would be most of the others, and fewer say little: int (n, 0).

    Args:
        means: (n, d).
        suspects: bool (n,).
    """
    if len(means) < 3 * _LIKE:
        return np.empty((len(means), 0), np.int64)
    norms = np.einsum("nd,nd->n", means, means)
    nearest = []
    for first in range(0, len(means), _ROWS):
        apart = norms - 2 * means[first : first + _ROWS] @ means.T  # (rows, n), less what is the same along a row
        places = np.arange(len(apart))
        apart[places, first + places] = np.inf
        apart[:, suspects] = np.inf
        nearest.append(np.argpartition(apart, _LIKE - 1, axis=1)[:, :_LIKE])
    return np.concatenate(nearest)


def measure(levels: np.ndarray, alone: np.ndarray, like: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return by what the levels (n,) are multiplied to rank pictures.

    The rank of a picture is the geometric mean of its level without suspects and its level without its twin, each
    divided by the usual level of the pictures most like it. Photographs of one part share the geometric mean of ranks.

    Args:
        levels, alone: (n,), without suspects, and without its twin.
        like: (n, 20), the pictures most like each; (n, 0) where all are.
        parts: of each picture those of the same part, its own number among them.
    """
    known = (levels > 0) & (alone > 0)
    usual = float(np.median(levels))
    if not known.any() or not usual:
        return np.ones(len(levels))
    levels_alone = np.sqrt(_times_usual(levels, like) * _times_usual(alone, like))
    logs = np.log(np.where(known, levels_alone, 1.0))
    joint = np.exp([logs[part[known[part]]].mean() if known[part].any() else 0.0 for part in parts])
    ranked = np.where(
        levels_alone > limit_of(np.where(known, levels_alone, 0.0)), np.maximum(levels_alone, joint), joint
    )
    return np.where(known, usual * ranked / np.where(known, levels, 1.0), 1.0)


def _times_usual(levels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return levels (n,) over the median of those of the pictures like each, or of all; 1 where that is 0."""
    usual = np.median(levels[like], axis=1) if like.shape[1] else np.full(len(levels), np.median(levels))
    return np.divide(levels, usual, out=np.ones(len(levels)), where=usual > 0)


_CLEARLY = (
    6.0  # robust standard deviations: with 5 a clean set of tiles lost 0.45 points of AUROC, with 6 it loses 0.15
)
SUSPECTS = 0.1  # share of the pictures that explain nobody the second time
_SMOOTH = 1.0  # cells
_DIMENSIONS = 128  # main directions of the bank that distances are taken in: 98 % of its variance, a third of the time
_NOBODY = -1  # explains
_TELLING = 3  # patches that a picture must explain for its absence to be tried


@runtime_checkable  # the test run checks types at every call
class PicturePatches(Protocol):
    """A picture's patches; `fitting.PicturePatches` is one."""

    @property
    def index(self) -> int:
        """Its number."""

    @property
    def patches(self) -> Patches:
        """Its patches (p, d)."""

    @property
    def cells(self) -> np.ndarray:
        """Their row and column (p, 2)."""


class LeaveOneOutIndex:
    """Vectors of many pictures, by which each is explained without its own.

    Args:
        vectors: float32 (m, d), a coreset of the patches of all pictures.
        pictures: (m,) the picture that each came from.
    """

    def __init__(self, vectors: Patches, pictures: np.ndarray) -> None:
        self.mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.basis = None
        if vectors.shape[1] > _DIMENSIONS:
            self.basis = principal_basis(vectors, _DIMENSIONS)
        self.pictures = pictures
        self._vectors = self.shortened(vectors)
        self._norms = np.einsum("md,md->m", self._vectors, self._vectors)

    def shortened(self, patches: Patches) -> Matrix:
        """Return patches (p, d) in the main directions of the vectors, (p, at most 128), from their mean."""
        moved = patches - self.mean
        return moved if self.basis is None else moved @ self.basis

    def without(self, left_out: np.ndarray) -> "LeaveOneOutIndex":
        """Return the vectors of all pictures but those marked in a bool array (pictures,)."""
        rest = object.__new__(LeaveOneOutIndex)
        stays = ~left_out[self.pictures]
        rest.mean, rest.basis = self.mean, self.basis
        rest.pictures, rest._vectors, rest._norms = self.pictures[stays], self._vectors[stays], self._norms[stays]
        return rest

    def nearest(
        self, patches: Patches, picture: int, but: np.ndarray | None = None, *, columns: int = 4096
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return of patches (p, d) the distance (p,) to the nearest vector of another picture, and that picture (p,).

        Where there is no other picture, the distance is infinite and the picture -1.

        Args:
            patches: of a picture.
            picture: its number; its vectors do not count.
            but: (p,), for each patch another that is not to explain it; none if None.
            columns: vectors a product: what comes out stays small whatever the size of the bank.
        """
        short = self.shortened(patches)
        squared = np.full(len(short), np.inf, np.float32)
        owners = np.full(len(short), _NOBODY, np.int32)
        for first in range(0, len(self._vectors), columns):
            part = slice(first, first + columns)
            product = short @ (self._vectors[part].T * np.float32(-2))  # (p, d) @ (d, columns)
            product += self._norms[part]
            product[:, self.pictures[part] == picture] = np.inf
            if but is not None:
                product[self.pictures[part] == but[:, None]] = np.inf
            best = product.argmin(axis=1)
            value = product[np.arange(len(short)), best]
            nearer = value < squared
            squared[nearer] = value[nearer]
            owners[nearer] = self.pictures[part][best[nearer]]
        squared += np.einsum("pd,pd->p", short, short)
        return np.sqrt(np.maximum(squared, 0)), owners


@dataclass(frozen=True, eq=False)
class LeaveOneOutScores:
    """How well each picture's patches are explained by the others.

    Attributes:
        levels: float64 (n,), of pictures, Euclidean; 0 for one without patches.
        distances: of each picture float32 (p,), Euclidean, in the order of its patches.
        by: of each picture int32 (p,), the picture that explains the patch best.
        measure: float64 (n,), by what the levels and distances of each are multiplied to be ranked among the others.
        parts: of each picture those that show the same part, its own number among them.
    """

    levels: np.ndarray
    distances: Sequence[np.ndarray]
    by: Sequence[np.ndarray]
    measure: np.ndarray
    parts: Sequence[np.ndarray]

    @property
    def relative(self) -> np.ndarray:
        """The levels by which pictures are ranked, float64 (n,); as large as `levels` in the middle."""
        return self.levels * self.measure


def explain(
    others: LeaveOneOutIndex,
    again: Callable[[Sequence[int]], Iterable[PicturePatches]],
    count: int,
    grid: tuple[int, int],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> LeaveOneOutScores:
    """Explain each picture by the others, the suspects of the first pass left out in the second.

    Held are 8 bytes a patch and 10 KB a picture, beside the vectors.

    Args:
        others: by which to explain.
        again: yields the pictures of the given numbers, such as `TrainingPatches.reread`.
        count: of pictures.
        grid: rows and columns of the patch grid.
        progress: called with (done, expected in all) now and then.
    """
    distances: list[np.ndarray] = [np.empty(0, np.float32)] * count
    by: list[np.ndarray] = [np.empty(0, np.int32)] * count
    levels, alone = np.zeros(count), np.zeros(count)
    means = np.zeros((count, len(others.mean)), np.float32)
    surfaces = np.zeros((count, SKETCH), np.float32)
    expected = 2 * count

    def first(seen: PicturePatches) -> int:
        nearest, whose = others.nearest(seen.patches, seen.index)
        nearest[whose == _NOBODY] = 0  # all vectors came from this picture: to the greedy the others are its copies
        distances[seen.index], by[seen.index] = nearest, whose
        levels[seen.index] = level(nearest, seen.cells, grid)
        alone[seen.index] = _without_its_twin(others, seen, nearest, whose, grid)
        surfaces[seen.index] = surface(seen.patches, seen.cells, grid)
        if len(whose):
            means[seen.index] = seen.patches.mean(axis=0) - others.mean
        return seen.index

    with one_blas_thread():  # a picture a thread
        for done, _ in enumerate(in_order(first, again(range(count))), start=1):
            if progress:
                progress(done, expected)
        suspects = np.zeros(count, bool)
        suspects[np.argsort(-alone, kind="stable")[: int(SUSPECTS * count)]] = True
        like, parts = most_like(means, suspects), same_part(surfaces)
        if not suspects.any() or suspects.sum() > count - 2:
            return LeaveOneOutScores(levels, distances, by, measure(levels, alone, like, parts), parts)
        rest = others.without(suspects)
        anew = [at for at in range(count) if len(by[at]) and suspects[by[at]].any()]

        def second(seen: PicturePatches, unsure: LeaveOneOutIndex) -> None:
            patches = np.flatnonzero(suspects[by[seen.index]])
            nearest, whose = unsure.nearest(seen.patches[patches], seen.index)
            known = whose != _NOBODY
            distances[seen.index][patches[known]], by[seen.index][patches[known]] = nearest[known], whose[known]
            levels[seen.index] = level(distances[seen.index], seen.cells, grid)

        for done, _ in enumerate(in_order(partial(second, unsure=rest), again(anew)), start=1):
            if progress:
                progress(count + done * count // len(anew), expected)
    return LeaveOneOutScores(levels, distances, by, measure(levels, alone, like, parts), parts)


def _without_its_twin(
    others: LeaveOneOutIndex, seen: PicturePatches, nearest: np.ndarray, whose: np.ndarray, grid: tuple[int, int]
) -> float:
    """Return the level of a picture without the one other picture whose absence raises it most.

    Args:
        others, seen: by which to explain which picture.
        nearest, whose: what `others.nearest` gave for it.
        grid: rows and columns of the patch grid.
    """
    highest = level(nearest, seen.cells, grid)
    if not len(whose) or whose[0] == _NOBODY:
        return highest
    second, owners = others.nearest(seen.patches, seen.index, whose)
    second = np.where(owners == _NOBODY, nearest, second)
    for twin in np.flatnonzero(np.bincount(whose) >= _TELLING):
        alone = np.where(whose == twin, second, nearest)
        highest = max(highest, level(alone, seen.cells, grid))
    return highest


def level(distances: np.ndarray, cells: np.ndarray, grid: tuple[int, int]) -> float:
    """Return the level of a picture: the mean of the worst hundredth of its smoothed distances; 0 without patches.

    Args:
        distances: (p,).
        cells: (p, 2) row and column of each.
        grid: rows and columns of the patch grid.
    """
    if not len(distances):
        return 0.0
    spread_out = smoothed(distances, cells, grid)
    worst = max(len(spread_out) // 100, 1)
    return float(np.partition(spread_out, len(spread_out) - worst)[-worst:].mean(dtype=np.float64))


def smoothed(distances: np.ndarray, cells: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return distances (p,) of patches at cells (p, 2), smoothed by a Gaussian of one cell, float32 (p,)."""
    return smooth_distances(laid_out(distances, cells, grid), cells, _SMOOTH)


def laid_out(distances: np.ndarray, cells: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return distances (p,) at their cells (p, 2) of a grid, float32 (rows, columns), 0 elsewhere."""
    whole = np.zeros(grid, np.float32)
    whole[cells[:, 0], cells[:, 1]] = distances
    return whole


def dirty_patches(
    explained: LeaveOneOutScores, again: Callable[[Sequence[int]], Iterable[PicturePatches]], grid: tuple[int, int]
) -> dict[int, np.ndarray]:
    """Return what to leave out of a bank: of pictures that clearly stand out the bad patches, bool (rows, columns).

    A patch is bad if its smoothed distance, scaled like the picture's level, exceeds the limit. The limit is stricter
    than the one used for warnings: good tiles that look faulty have their like among the good tiles to come. The rest
    of such a picture is as good as any other. If no picture exceeds the limit, nothing is left out.

    Args:
        explained: from `explain`.
        again: yields the pictures of the given numbers, as for `explain`.
        grid: rows and columns of the patch grid.
    """
    limit = limit_of(explained.relative, _CLEARLY)
    dirty = {}
    for seen in again(np.flatnonzero(explained.relative > limit).tolist()):
        ranked = explained.distances[seen.index] * np.float32(explained.measure[seen.index])
        dirty[seen.index] = laid_out(smoothed(ranked, seen.cells, grid) > limit, seen.cells, grid) > 0
    return dirty
