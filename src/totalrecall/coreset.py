"""Patch vectors -> the few that cover the rest: greedy k-center (PatchCore, algorithm 1), exact and fast.

The greedy repeats: take the point farthest from all chosen ones. The plain loop reads every point at every step, and
memory speed is its limit. But distances to the chosen set only ever fall, so a distance computed some steps ago is an
upper bound of today's. `greedy_k_center` keeps a pool, small enough for the cache, of the points with the largest
bounds, and chooses inside it while its best exceeds every bound outside; such a choice is the plain loop's choice. Then
it brings the others up to date, many centres at once, with a matrix product, and forms the next pool. Points whose
stale bound is too small to be chosen soon are not brought up to date at all until their turn comes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from totalrecall.errors import SettingError
from totalrecall.threads import one_blas_thread
from totalrecall.types import Matrix, Patches

__all__ = ["Coreset", "greedy_k_center", "project"]

_BLOCK = 4096  # rows a matrix product: block x centres stays in the cache, whatever the number of points
_PRODUCT = 512  # centres a matrix product
_POOL_BYTES = 1 << 20  # the pool is read whole at every selection: it must stay in a core's own cache


@dataclass(frozen=True)
class Coreset:
    """Chosen points.

    Attributes:
        indices: int64 (k,), in the order of selection, so that a prefix is itself a coreset.
        radius: covering radius: the largest Euclidean distance from any point to its nearest chosen one.
        refreshes: how often the points outside the pool were brought up to date.
        products: multiplications of a point with a centre that were done, as a share of n x k.
    """

    indices: np.ndarray
    radius: float
    refreshes: int
    products: float


def project(patches: Patches, *, dimensions: int = 128, seed: int = 42) -> Matrix:
    """Return a seeded Gaussian random projection, (n, dimensions): distances are kept within a few percent.

    Johnson and Lindenstrauss (1984), as the paper uses it before the selection. Vectors that are no longer than
    `dimensions` are returned as they are. Projecting in chunks with one seed gives the same rows.
    """
    if patches.shape[1] <= dimensions:
        return patches
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((patches.shape[1], dimensions), dtype=np.float32) / np.float32(np.sqrt(dimensions))
    return patches @ matrix.astype(patches.dtype)


def greedy_k_center(
    points: Patches,
    count: int,
    *,
    seed: int = 42,
    radius: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Coreset:
    """Choose `count` points, each the farthest from those chosen before; ties go to the lower index.

    The first point is drawn by the seed. Arithmetic is in the points' own type: in float64 the choice is the plain
    loop's; in float32 rounding may swap near-ties, at the same covering radius. Memory beyond the points: a few
    numbers a point, and one block of products (8 MB).

    Args:
        points: (n, d) float32 or float64, usually from `project`.
        count: k; at most n.
        radius: end early once every point is within this distance of a chosen one.
        progress: called with (chosen, count) now and then.

    Raises:
        SettingError: count is not from 1 to n.
    """
    if not 1 <= count <= len(points):
        raise SettingError(f"coreset count must be from 1 to the number of patches ({len(points)}), got {count}.")
    run = _Greedy(points, count)
    run.choose(int(np.random.default_rng(seed).integers(len(points))))
    while len(run.chosen) < count:
        largest = run.refresh()
        if largest <= radius**2:
            break
        with one_blas_thread():
            run.select_in_pool(radius**2)
        if progress:
            progress(len(run.chosen), count)
    return run.result()


class _Greedy:
    """State of one selection. `bound[i]` is the squared distance of point i to the first `upto[i]` chosen ones."""

    def __init__(self, points: Patches, count: int) -> None:
        # |x|^2 + |c|^2 - 2xc loses digits far from the origin, so in float32 the points are moved to their mean;
        # float64 has digits to spare, and unmoved whole numbers keep their ties exact.
        self.points = points
        if points.dtype == np.float32:
            self.points = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.norms = np.einsum("nd,nd->n", self.points, self.points)
        # what rounding alone can make of the squared distance of two equal points; anything smaller counts as zero
        self.noise = 16 * np.finfo(points.dtype).eps * self.norms
        self.count = count
        self.pool_size = max(_POOL_BYTES // (self.points.shape[1] * self.points.itemsize), 64)
        self.bound = np.full(len(points), np.inf, points.dtype)
        self.upto = np.zeros(len(points), np.int64)
        self.chosen: list[int] = []
        self.pool = np.empty(0, np.int64)
        self.outside = (-np.inf, 0)  # largest bound outside the pool, and the lowest index that has it
        self.refreshes = 0
        self.work = 0

    def choose(self, index: int) -> None:
        self.chosen.append(index)
        self.bound[index] = 0

    def refresh(self) -> float:
        """Make the next pool: the points with the largest distances, all exact. Returns the largest of them."""
        self.refreshes += 1
        stale = np.flatnonzero(self.bound > 0)
        want = 2 * self.pool_size
        while len(stale):
            # The points with the largest bounds, enough of them that the pool will be full after their bounds fell.
            take = self._largest(stale, want)
            self._bring_up_to_date(take)
            rest = self.bound.copy()
            rest[take] = -np.inf
            limit = float(rest.max())
            ready = take[self.bound[take] > limit]
            if len(ready) >= min(self.pool_size, len(stale)) or len(take) == len(stale):
                break
            want *= 4
        else:
            return 0.0
        self.pool = np.sort(self._largest(take, self.pool_size))
        others = self.bound.copy()
        others[self.pool] = -np.inf
        at = int(others.argmax())  # argmax: the lowest index among equals
        self.outside = (float(others[at]), at)
        return float(self.bound[self.pool].max())

    def _largest(self, among: np.ndarray, count: int) -> np.ndarray:
        """Return the `count` of `among` (ascending) with the largest bounds, ties to the lower index."""
        if count >= len(among):
            return among
        values = self.bound[among]
        limit = np.partition(values, len(values) - count)[len(values) - count]
        above = values > limit
        ties = np.flatnonzero(values == limit)[: count - np.count_nonzero(above)]
        above[ties] = True
        return among[above]

    def _bring_up_to_date(self, indices: np.ndarray) -> None:
        """Make the bounds of the given points exact, by blocked products with the centres each has not yet met."""
        for start in np.unique(self.upto[indices]):
            group = indices[self.upto[indices] == start]
            for first in range(int(start), len(self.chosen), _PRODUCT):
                centres = np.array(self.chosen[first : first + _PRODUCT])
                columns, lengths = self.points[centres].T.copy(), self.norms[centres]
                for row in range(0, len(group), _BLOCK):
                    rows = group[row : row + _BLOCK]
                    squared = self.points[rows] @ columns  # (block, d) @ (d, centres)
                    squared *= -2
                    squared += lengths
                    nearest = squared.min(axis=1) + self.norms[rows]
                    nearest[nearest < self.noise[rows]] = 0
                    self.bound[rows] = np.minimum(self.bound[rows], nearest)
                self.work += len(group) * len(centres)
        self.upto[indices] = len(self.chosen)
        self.bound[self.chosen] = 0

    def select_in_pool(self, radius_squared: float) -> None:
        """Choose inside the pool for as long as its best is the best of all."""
        points, norms, bound = self.points[self.pool], self.norms[self.pool], self.bound[self.pool]
        noise = self.noise[self.pool]
        limit, limit_index = self.outside
        while len(self.chosen) < self.count:
            at = int(bound.argmax())
            best, index = bound[at], int(self.pool[at])
            if best < limit or (best == limit and limit_index < index) or best <= radius_squared:
                break
            self.choose(index)
            squared = points @ (points[at] * -2)  # (pool, d) @ (d,)
            squared += norms
            squared += norms[at]
            np.minimum(bound, squared, out=bound)
            bound[bound < noise] = 0
            bound[at] = 0
            self.work += len(bound)
        self.bound[self.pool] = bound
        self.upto[self.pool] = len(self.chosen)

    def result(self) -> Coreset:
        """Bring the last points up to date and return the choice with its covering radius."""
        alive = np.flatnonzero(self.bound > 0)
        if len(alive):
            # Only points whose bound exceeds an exact distance can set the radius.
            self._bring_up_to_date(self._largest(alive, self.pool_size))
            exact = self.bound[self.upto == len(self.chosen)].max(initial=0)
            self._bring_up_to_date(np.flatnonzero(self.bound > exact))
        farthest = float(np.sqrt(self.bound.max(initial=0)))
        share = self.work / (len(self.points) * len(self.chosen))
        return Coreset(np.array(self.chosen, np.int64), farthest, self.refreshes, share)
