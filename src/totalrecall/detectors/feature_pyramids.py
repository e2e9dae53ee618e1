"""SPADE's model of good pictures: feature pyramids, in which correspondences are looked up (Cohen and Hoshen 2020).

1. The K good pictures most like a picture are found by its pooled features; the mean distance to them is its score
   (section 3.2, eq. 2).
2. Each position is described by the features of all levels there, side by side, the coarser maps repeated on the finest
   grid. Its distance to the nearest of all positions of those K pictures is its anomaly (sections 3.3 and 3.4, eq. 4
   with kappa = 1, the paper's choice).

Vectors side by side are never made. The squared distance of two positions is the sum over the levels of that of their
cells, and cells are shared: on grids of 64, 32 and 16 cells a side a pair of coarse cells serves 16 or 256 pairs of
positions. So the pyramids of ResNet-18 take a sixth of the multiplications, and a quarter of the memory. With E the
finest level and C all others,

    min over pictures, pairs of groups (a, b)   C[a, b] + min over b's positions   E[position, position of b]

where a group is the positions that share their cells in all coarser levels.

Distances are Euclidean here as everywhere in this library; the paper's eq. 2 and 4 write squares.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from totalrecall.features.patches import repeated_cells
from totalrecall.system.threads import cores, in_worker, one_blas_thread, workers
from totalrecall.types import LayerMap, Matrix

__all__ = ["Correspondences", "Gallery", "pooled"]

_ROWS = 1 << 20  # distances worked on at once: 4 MB


def pooled(deepest: LayerMap, inside: np.ndarray | None = None) -> np.ndarray:
    """Return the mean of a map (1, h, w, c) over all cells, or over those inside (h, w), float32 (c,)."""
    cells = deepest[0].reshape(-1, deepest.shape[3])  # (1, h, w, c) -> (h*w, c)
    if inside is not None and inside.any():
        cells = cells[inside.ravel()]
    return np.asarray(cells.mean(axis=0, dtype=np.float64).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Correspondences:
    """The nearest good position of each position of a picture.

    Attributes:
        distances: float32 (h, w).
        pictures: int64 (h, w), which picture of the gallery.
        cells: int64 (h, w), which position of it, row * w + column.
    """

    distances: np.ndarray
    pictures: np.ndarray
    cells: np.ndarray


class Gallery:
    """Feature pyramids of good pictures.

    Args:
        levels: one array a level, float32 (n, h_l, w_l, c_l).
        pooled: float32 (n, c), what pictures are compared by.
        inside: bool (n, h, w), the positions of the finest level that count; all if not given.
        among: the pictures that count; all if not given.
    """

    def __init__(
        self,
        levels: Sequence[np.ndarray],  # not yet known to fit together: see `checked`
        pooled: Matrix,
        inside: np.ndarray | None = None,
        *,
        among: np.ndarray | None = None,
    ) -> None:
        self.among = np.arange(len(pooled)) if among is None else among
        self.levels = list(levels)
        self.pooled = pooled
        self.inside = inside
        self.finest = max(range(len(levels)), key=lambda level: math.prod(levels[level].shape[1:3]))
        self.shape = (levels[self.finest].shape[1], levels[self.finest].shape[2])
        self._cells = [_cells_of(one.shape[1:3], self.shape) for one in levels]
        self._members, self._group_cells = _groups(self._cells, self.finest)

    def __len__(self) -> int:
        return len(self.pooled)

    def checked(self) -> "Gallery":
        """Return the gallery itself once its parts are known to fit together.

        Raises:
            ValueError: they do not; says which.
        """
        for number, level in enumerate(self.levels):
            if not np.isfinite(level).all():
                raise ValueError(f"gallery.level{number} (not finite)")
            if level.ndim != 4 or level.dtype != np.float32 or len(level) != len(self) or not level.size:
                raise ValueError(f"gallery.level{number} (wrong shape or type)")
        if self.inside is not None and self.inside.shape != (len(self), *self.shape):
            raise ValueError("gallery.inside (wrong shape)")
        if self.pooled.ndim != 2 or self.pooled.dtype != np.float32 or not np.isfinite(self.pooled).all():
            raise ValueError("gallery.pooled (wrong shape or type, or not finite)")
        return self

    def counts(self) -> tuple[int, int]:
        """Return how many positions all pictures have, and the dimensions of each."""
        return len(self) * self.shape[0] * self.shape[1], sum(level.shape[3] for level in self.levels)

    @staticmethod
    def size(pictures: int, shapes: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
        """Return the bytes of the pyramids of so many pictures, of levels (h, w, c), and those that looking takes."""
        groups = math.prod(sorted(shape[:2] for shape in shapes)[-2:][0])  # as many as cells of the second finest level
        return 4 * pictures * sum(map(math.prod, shapes)), (cores() + 1) * 4 * (3 * groups**2 + 2 * _ROWS)

    def nearest_pictures(self, features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return Euclidean distances, ascending, and indices of the pictures most like one with these pooled features.

        Args:
            features: (c,), from `pooled`.
            count: K of eq. 2; fewer come where there are fewer.
        """
        apart = self.pooled[self.among].astype(np.float64) - features
        distances = np.sqrt(np.einsum("nc,nc->n", apart, apart))
        order = np.argsort(distances, kind="stable")[:count]
        return distances[order], self.among[order]

    def correspond(self, maps: Sequence[LayerMap], chosen: np.ndarray) -> Correspondences:
        """Return for each position of a picture the nearest among all positions of the chosen pictures.

        Args:
            maps: the picture's pyramid, each (1, h_l, w_l, c_l).
            chosen: indices of pictures of the gallery.
        """
        queries = [one[0].reshape(-1, one.shape[3]) for one in maps]  # (1, h, w, c) -> (h*w, c)
        found = _Nearest(*self._members.shape)

        def look(at: int) -> _Nearest:
            return self._look_through(queries, int(chosen[at]), at)

        with one_blas_thread():
            for part in (map if in_worker() else workers().map)(look, range(len(chosen))):
                found.take(part)
            return self._measured(queries, found, chosen)

    def _look_through(self, queries: Sequence[Matrix], picture: int, at: int) -> "_Nearest":
        """Return the nearest among the positions of one picture, which is number `at` of those chosen."""
        coarse = self._coarse(queries, picture)
        finest = self.levels[self.finest][picture].reshape(-1, queries[self.finest].shape[1])
        own = self._augmented(finest, picture)
        rows, columns = len(self._members), self._members.shape[1]
        found = _Nearest(rows, columns)
        step = max(_ROWS // rows, 1)
        product, best = np.empty((2, min(step, rows), rows), np.float32)
        one = np.ones((rows, 1), np.float32)
        for place in range(columns):
            mine = np.concatenate([queries[self.finest][self._members[:, place]], one], axis=1)
            for first in range(0, rows, step):
                part = slice(first, min(first + step, rows))
                size = part.stop - first
                np.matmul(mine[part], own[0], out=best[:size])  # (q, c + 1) @ (c + 1, groups) -> (q, groups)
                for other in own[1:]:
                    np.matmul(mine[part], other, out=product[:size])
                    np.minimum(best[:size], product[:size], out=best[:size])
                best[:size] += coarse[part]
                group = best[:size].argmin(axis=1)
                found.squared[part, place] = best[np.arange(size), group]
                found.groups[part, place] = group
        found.at[:] = at
        return found

    def _coarse(self, queries: Sequence[Matrix], picture: int) -> Matrix:
        """Return the squared distances of all coarser levels together, of groups (groups, groups).

        The squared lengths of the queries are left out: they are the same whichever group is nearest.
        """
        groups = len(self._members)
        total = np.zeros((groups, groups), np.float32)
        for level, cells in enumerate(self._group_cells):
            if level == self.finest:
                continue
            good = self.levels[level][picture].reshape(-1, queries[level].shape[1])
            squared = -2 * (queries[level] @ good.T)
            squared += np.einsum("pc,pc->p", good, good)
            total += squared if np.array_equal(cells, np.arange(len(good))) else squared[np.ix_(cells, cells)]
        return total

    def _augmented(self, good: Matrix, picture: int) -> list[Matrix]:
        """Return the finest level's vectors so that a product with (q, 1) is |g|^2 - 2 q.g: (c + 1, groups) a place."""
        norms = np.einsum("pc,pc->p", good, good)
        if self.inside is not None:
            norms[~self.inside[picture].ravel()] = np.inf  # such a position is never the nearest
        whole = np.concatenate([-2 * good, norms[:, None]], axis=1)
        return [np.ascontiguousarray(whole[members].T) for members in self._members.T]

    def _measured(self, queries: Sequence[Matrix], found: "_Nearest", chosen: np.ndarray) -> Correspondences:
        """Measure what was found by differences, which is exact near zero, and say which member of the group it is."""
        h, w = self.shape
        positions = self._members.ravel()  # (groups, places) -> of each query
        pictures = chosen[found.at.ravel()]
        members = self._members[found.groups.ravel()]  # (queries, places)
        squared = np.zeros(members.shape, np.float64)
        for level, cells in enumerate(self._cells):
            own = queries[level][cells[positions]]
            good = self.levels[level].reshape(len(self), -1, own.shape[1])
            for place in range(members.shape[1]):
                apart = good[pictures, cells[members[:, place]]] - own
                squared[:, place] += np.einsum("qc,qc->q", apart, apart)
        if self.inside is not None:
            squared[~self.inside.reshape(len(self), -1)[pictures[:, None], members]] = np.inf
        best = squared.argmin(axis=1)
        distances, nearest = np.empty(h * w, np.float32), np.empty((2, h * w), np.int64)
        distances[positions] = np.sqrt(squared[np.arange(len(best)), best])  # a position may be a member twice
        nearest[:, positions] = pictures, members[np.arange(len(best)), best]
        return Correspondences(distances.reshape(h, w), nearest[0].reshape(h, w), nearest[1].reshape(h, w))


class _Nearest:
    """The smallest squared distance of each query (group, place), less its own squared length, and where it was."""

    def __init__(self, groups: int, places: int) -> None:
        self.squared = np.full((groups, places), np.inf, np.float32)
        self.groups = np.zeros((groups, places), np.int64)
        self.at = np.zeros((groups, places), np.int64)  # among the chosen pictures

    def take(self, other: "_Nearest") -> None:
        """Keep what is nearer; of equals, what came first."""
        nearer = other.squared < self.squared
        for mine, theirs in ((self.squared, other.squared), (self.groups, other.groups), (self.at, other.at)):
            mine[nearer] = theirs[nearer]


def _cells_of(shape: tuple[int, ...], finest: tuple[int, int]) -> np.ndarray:
    """Return the cell of a map (h, w) that each position of the finest grid lies in, (positions,)."""
    rows, columns = repeated_cells(shape[0], finest[0]), repeated_cells(shape[1], finest[1])
    return (rows[:, None] * shape[1] + columns).ravel()


def _groups(cells: Sequence[np.ndarray], finest: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return positions by groups that share all their coarser cells, and the cells of each group in each level.

    A row of the first, (groups, places), holds a group's positions; a small group repeats its first one.
    """
    coarser = [own for level, own in enumerate(cells) if level != finest]
    if not coarser:  # a single level: each position is its own group
        return np.arange(len(cells[0]))[:, None], [np.arange(len(cells[0]))]
    _, first, group, sizes = np.unique(
        np.stack(coarser), axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    group = group.ravel()
    members = np.repeat(first[:, None], sizes.max(), axis=1)
    order = np.argsort(group, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    members[group[order], place] = order
    return members, [own[first] for own in cells]
