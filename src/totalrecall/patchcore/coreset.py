"""Patch vectors -> the few that cover the rest: greedy k-center (PatchCore, algorithm 1), exact and fast.

The greedy repeats: take the point farthest from all chosen ones. The plain loop reads every point at every step, and
memory speed is its limit. But distances to the chosen set only ever fall, so a distance computed some steps ago is an
upper bound of today's. `greedy_k_center` keeps a pool, small enough for the cache, of the points with the largest
bounds, and chooses inside it while its best exceeds every bound outside; such a choice is the plain loop's choice. Then
it brings the others up to date, many centres at once, with a matrix product, and forms the next pool. Points whose
stale bound is too small to be chosen soon are not brought up to date at all until their turn comes.

`subsample` is what a fit calls: the greedy choice, or the paper's control, a random one.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol, runtime_checkable

import numpy as np

from totalrecall.errors import SettingError
from totalrecall.patchcore.settings import SUBSAMPLING
from totalrecall.system.threads import core_cache, one_blas_thread, workers
from totalrecall.types import Matrix, Patches

__all__ = [
    "AT_ONCE",
    "BLOCK",
    "Coreset",
    "Greedy",
    "Rows",
    "budget",
    "columns",
    "first_choice",
    "greedy_k_center",
    "lower",
    "moved",
    "project",
    "refill",
    "subsample",
]

BLOCK = 1024  # rows a matrix product: block x centres stays in the cache, whatever the number of points
_PRODUCT = 512  # centres a matrix product
_CENTRES = 4096  # centres that meet a block of points while it is at hand
_POOL_AT_MOST = 4 << 20  # bytes; a larger pool makes each selection dearer than the refreshes it saves


@runtime_checkable  # the checks of the test run need it
class Rows(Protocol):
    """Points (n, d) wherever they lie: an array, or what reads like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Their number and that of their dimensions."""

    @property
    def dtype(self) -> Any:
        """Of the numbers."""

    def __len__(self) -> int:
        """Return their number."""

    def __getitem__(self, which: Any, /) -> Any:
        """Return some of them (m, d), by a slice or by indices."""


@dataclass(frozen=True)
class Coreset:
    """Chosen points.

    Attributes:
        indices: int64 (k,), in the order of selection, so that a prefix is itself a coreset.
        radius: covering radius: the largest Euclidean distance from any point to its nearest chosen one. nan for a
            random choice of fewer than all: finding it would cost as much as the greedy does.
        refreshes: how often the points outside the pool were brought up to date.
        products: multiplications of a point with a centre that were done, as a share of n x k.
        coverer: int32 (n,), for each point the place in `indices` of a chosen one within `radius` of it, not always the
            nearest; None where the greedy did not choose.
    """

    indices: np.ndarray
    radius: float
    refreshes: int
    products: float
    coverer: np.ndarray | None = None


def budget(total: int, share: float, least: int = 1) -> int:
    """Return how many of `total` patches are kept: the share, but no fewer than `least` where there are so many.

    A share of one percent leaves 51 vectors of five pictures of 1024 patches each, which cannot stand for them.
    """
    return min(total, max(int(share * total), least, 1))


def project(patches: Patches, *, dimensions: int = 128, seed: int = 42) -> Matrix:
    """Return a seeded Gaussian random projection, (n, dimensions): distances are kept within a few percent.

    Johnson and Lindenstrauss (1984), as the paper uses it before the selection. Vectors that are no longer than
    `dimensions` are returned as they are. Projecting in chunks with one seed gives the same rows.
    """
    if patches.shape[1] <= dimensions:
        return patches
    return patches @ _projection(patches.shape[1], dimensions, seed).astype(patches.dtype, copy=False)


@lru_cache(maxsize=2)  # patches come a picture at a time
def _projection(length: int, dimensions: int, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((length, dimensions), dtype=np.float32) / np.float32(np.sqrt(dimensions))


def subsample(
    points: Rows,
    count: int,
    *,
    method: str = "greedy",
    rows: np.ndarray | None = None,
    seed: int = 42,
    radius: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Coreset:
    """Choose `count` points: the greedy's, or as many at random (the paper's control, section 4.4.2).

    Args:
        points, count, rows, seed, radius, progress: as for `greedy_k_center`; a random choice takes no radius.
        method: one of `settings.SUBSAMPLINGS`.

    Raises:
        SettingError: the method is unknown, or count is not from 1 to n.
    """
    SUBSAMPLING.check("subsampling", method)
    if method == "greedy":
        return greedy_k_center(points, count, rows=rows, seed=seed, radius=radius, progress=progress)
    total = _checked_total(points, count, rows)
    return Coreset(np.random.default_rng(seed).permutation(total)[:count], 0.0 if count == total else math.nan, 0, 0.0)


def greedy_k_center(
    points: Rows,
    count: int,
    *,
    rows: np.ndarray | None = None,
    start: np.ndarray | None = None,
    seed: int = 42,
    radius: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Coreset:
    """Choose `count` points, each the farthest from those chosen before; ties go to the lower index.

    The first point is drawn by the seed, unless there are some to start from. Arithmetic is in the points' own type: in
    float64 the choice is the plain loop's; in float32 rounding may swap near-ties, at the same covering radius. The
    points are neither changed nor copied; memory beyond them is about 64 bytes a point, and blocks of 30 MB.

    Args:
        points: (n, d) float32 or float64, usually from `project`.
        count: k; at most n.
        rows: the points to choose among, as (n',) ascending indices into `points`; all if not given. The indices that
            are returned then count within `rows`, as if `points[rows]` had been given.
        start: indices (s,) of points that are chosen already, s of `count`; they come first in the answer.
        radius: end early once every point is within this distance of a chosen one.
        progress: called with (chosen, count) now and then.

    Raises:
        SettingError: count is not from 1 to n.
    """
    total = _checked_total(points, count, rows)
    run = Greedy(points, rows, count)
    return run.choose_all(first_choice(total, seed) if start is None else start, radius=radius, progress=progress)


def first_choice(total: int, seed: int) -> np.ndarray:
    """Return the index, (1,), of the point that the greedy begins with."""
    return np.array([np.random.default_rng(seed).integers(total)])


def _checked_total(points: Rows, count: int, rows: np.ndarray | None) -> int:
    """Return how many points there are to choose among."""
    total = len(points) if rows is None else len(rows)
    if not 1 <= count <= total:
        raise SettingError(f"coreset count must be from 1 to the number of patches ({total}), got {count}.")
    return total


class Greedy:
    """State of one selection. `bound[i]` is the squared distance of point i to the first `upto[i]` chosen ones.

    What reads all points, or many, are `find_mean`, `find_norms` and `meet_all`: a cluster does these in its own way,
    and to the bit the same.
    """

    def __init__(self, points: Rows, rows: np.ndarray | None, count: int) -> None:
        self.points, self.rows = points, rows
        self.total = len(points) if rows is None else len(rows)
        # |x|^2 + |c|^2 - 2xc loses digits far from the origin, so in float32 the points are moved to their mean, a
        # block at a time as they are needed; float64 has digits to spare, and unmoved whole numbers keep their ties
        # exact.
        self.mean: np.ndarray | None = None
        if points.dtype == np.float32:
            self.mean = self.find_mean()
        self.norms = self.find_norms()
        self.count = count
        # the pool is read whole at every selection, so it must stay in a core's own cache
        self.pool_size = max(min(core_cache(), _POOL_AT_MOST) // (points.shape[1] * points.dtype.itemsize), 64)
        self.bound = np.full(self.total, np.inf, points.dtype)
        self.upto = np.zeros(self.total, np.int32)
        self.coverer = np.zeros(self.total, np.int32)  # which of the chosen ones is `bound` away
        self.chosen: list[int] = []
        self.pool = np.empty(0, np.int64)
        self.outside = (-np.inf, 0)  # largest bound outside the pool, and the lowest index that has it
        self.refreshes = 0
        self.work = 0

    def choose_all(
        self, first: np.ndarray, *, radius: float = 0.0, progress: Callable[[int, int], None] | None = None
    ) -> Coreset:
        """Choose until there are as many as asked for, or every point is within the radius.

        Args:
            first: indices (s,) that are chosen already.
            radius, progress: as for `greedy_k_center`.
        """
        for index in first.tolist():
            self.choose(index)
        with one_blas_thread():  # whole blocks side by side: the passes over a product need all cores, too
            while len(self.chosen) < self.count:
                largest = self.refresh()
                if largest <= radius**2:
                    break
                self.select_in_pool(radius**2)
                if progress:
                    progress(len(self.chosen), self.count)
            return self.result()

    def _blocks(self) -> Iterator[slice]:
        return (slice(first, first + BLOCK) for first in range(0, self.total, BLOCK))

    def find_norms(self) -> np.ndarray:
        """Return the squared lengths (n,) of the points, moved to the mean."""
        norms = np.empty(self.total, self.points.dtype)
        for block in self._blocks():
            some = self._take(block)
            np.einsum("nd,nd->n", some, some, out=norms[block])
        return norms

    def find_mean(self) -> np.ndarray:
        """Return the mean (d,) of float32 points."""
        if self.rows is None:
            return np.asarray(self.points).mean(axis=0, dtype=np.float64).astype(np.float32)
        total = np.zeros(self.points.shape[1])
        for block in self._blocks():
            total += self.points[self.rows[block]].sum(axis=0, dtype=np.float64)
        return (total / self.total).astype(np.float32)

    def _take(self, which: slice | np.ndarray) -> Patches:
        """Return a copy of some of the points, moved to the mean."""
        return moved(self.points, which if self.rows is None else self.rows[which], self.mean)

    def choose(self, index: int) -> None:
        self.coverer[index] = len(self.chosen)
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
        order = indices[np.argsort(self.upto[indices], kind="stable")]  # those that wait for the same centres together
        blocks = [order[row : row + BLOCK] for row in range(0, len(order), BLOCK)]
        starts = [int(self.upto[block[0]]) for block in blocks]
        for first in range(min(starts, default=len(self.chosen)), len(self.chosen), _CENTRES):
            centres = np.array(self.chosen[first : first + _CENTRES])
            last = bisect_left(starts, first + len(centres))
            skipped = [max(start - first, 0) for start in starts[:last]]
            self.meet_all(blocks[:last], skipped, first, centres)
            self.work += sum(
                len(block) * (len(centres) - skip) for block, skip in zip(blocks[:last], skipped, strict=True)
            )
        self.upto[indices] = len(self.chosen)
        self.bound[self.chosen] = 0

    def meet_all(self, blocks: Sequence[np.ndarray], skipped: Sequence[int], first: int, centres: np.ndarray) -> None:
        """Lower the bounds of blocks of points to their distances to the given centres.

        Args:
            blocks: rows of the points of each.
            skipped: how many of the centres each leaves out, the first ones.
            first: place of the first centre among the chosen ones.
            centres: rows (c,) of them.
        """
        meet = partial(
            self._meet, first=first, parts=columns(self.points, self._rows(centres), self.mean), centres=centres
        )
        list(workers().map(meet, blocks, skipped))

    def _rows(self, which: np.ndarray) -> np.ndarray:
        return which if self.rows is None else self.rows[which]

    def _meet(self, rows: np.ndarray, skip: int, first: int, parts: list[Matrix], centres: np.ndarray) -> None:
        """Lower the bounds of one block; see `meet_all` and `lower`."""
        bound, coverer = self.bound[rows], self.coverer[rows]
        points, norms, lengths = self._take(rows), self.norms[rows], self.norms[centres]
        lower(bound, coverer, points, norms, skip=skip, first=first, parts=parts, lengths=lengths)
        self.bound[rows], self.coverer[rows] = bound, coverer

    def select_in_pool(self, radius_squared: float) -> None:
        """Choose inside the pool for as long as its best is the best of all."""
        points, norms, bound = self._take(self.pool), self.norms[self.pool], self.bound[self.pool]
        coverer = self.coverer[self.pool]
        least = _noise(points.dtype) * norms
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
            nearer = squared < bound
            np.copyto(bound, squared, where=nearer)
            coverer[nearer] = len(self.chosen) - 1
            bound[bound < least] = 0
            bound[at] = 0
            coverer[at] = len(self.chosen) - 1
            self.work += len(bound)
        self.bound[self.pool], self.coverer[self.pool] = bound, coverer
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
        share = self.work / (self.total * len(self.chosen))
        return Coreset(np.array(self.chosen, np.int64), farthest, self.refreshes, share, self.coverer)


def _noise(dtype: Any) -> Any:
    """Return what rounding alone can make of the squared distance of two equal points, as a share of the squared
    length; anything smaller counts as zero."""
    return 16 * np.finfo(dtype).eps


def moved(points: Rows, which: slice | np.ndarray, mean: np.ndarray | None) -> Patches:
    """Return a copy of some points, moved to the mean; where that is None, maybe a view of them as they are."""
    some: Patches = points[which]
    if mean is None:
        return some
    # a slice of all points is a view: it must not be moved in place
    return some - mean if some.base is not None else np.subtract(some, mean, out=some)


def columns(points: Rows, centres: np.ndarray, mean: np.ndarray | None) -> list[Matrix]:
    """Return -2 times the points at indices (c,) as the columns of products, (d, up to 512) each."""
    parts = (centres[first : first + _PRODUCT] for first in range(0, len(centres), _PRODUCT))
    return [np.multiply(moved(points, part, mean).T, -2, order="C") for part in parts]


def lower(
    bound: np.ndarray,
    coverer: np.ndarray,
    block: Patches,
    norms: np.ndarray,
    *,
    skip: int,
    first: int,
    parts: Sequence[Matrix],
    lengths: np.ndarray,
) -> None:
    """Lower the bounds of one block of points to their squared distances to some centres, the first few left out.

    Args:
        bound, coverer: (n,) of the points; they are changed.
        block, norms: (n, d) the points, moved to the mean, and their squared lengths (n,).
        skip: how many of the centres are left out.
        first: place of the first centre among the chosen ones.
        parts, lengths: `columns` of the centres, and their squared lengths (c,).
    """
    buffer = np.empty(len(block) * _PRODUCT, block.dtype)  # subtle: fresh memory for each product costs more
    for place, whole in zip(range(0, len(lengths), _PRODUCT), parts, strict=True):
        part = whole[:, max(skip - place, 0) :]
        if not part.shape[1]:
            continue
        last = place + whole.shape[1]
        squared = buffer[: len(block) * part.shape[1]].reshape(len(block), -1)
        np.matmul(block, part, out=squared)  # (block, d) @ (d, centres)
        squared += lengths[last - part.shape[1] : last]
        at = squared.argmin(axis=1)  # NumPy finds the place sooner than the value
        least = squared[np.arange(len(block)), at]
        least += norms
        least[least < _noise(block.dtype) * norms] = 0
        nearer = least < bound
        np.copyto(bound, least, where=nearer)
        np.copyto(coverer, first + last - part.shape[1] + at, where=nearer, casting="same_kind")


_NEAREST = 64  # centres that an uncovered patch meets first: most need no more
_MEETING = 512  # at a time then
_LOST = 256  # lost centres whose distances to the others are held at once
AT_ONCE = 8192  # points, at most, that are copied at a time
_FINEST = 0.97  # of the radius; on tiles and bottle as many as have gone are added before


def refill(points: Rows, coreset: Coreset, gone: np.ndarray, never: np.ndarray | None = None) -> np.ndarray:
    """Return the points that cover those which are left as the coreset covers all: indices, the kept centres first.

    Args:
        points: (n, d), that the coreset was chosen among, and in.
        coreset: of all of them, with its coverers.
        gone: bool (n,), which have gone.
        never: bool (n,), which others are neither centres nor covered; what only they covered stays so.
    """
    assert coreset.coverer is not None
    out = gone if never is None else gone | never
    centres = coreset.indices
    kept = centres[~out[centres]]
    lost = gone[centres]
    orphans = np.flatnonzero(lost[coreset.coverer] & ~out)
    if not len(orphans):
        return kept
    orphans = orphans[np.argsort(coreset.coverer[orphans], kind="stable")]
    left, bound = _uncovered(points, orphans, coreset, kept)
    return np.concatenate([kept, _greedy(points, left, bound, coreset.radius, int(np.count_nonzero(lost)))])


def _uncovered(points: Rows, orphans: np.ndarray, coreset: Coreset, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return those of the orphans that no kept centre is within 0.97 of the radius of, and their squared distances.

    Args:
        points, coreset: as for `refill`.
        orphans: indices (m,), by coverer.
        kept: indices (k,) of the centres.

    Returns:
        Indices (u,), ascending, and the squared distances (u,) to the nearest of the centres that were looked at.
    """
    assert coreset.coverer is not None
    owners, starts = np.unique(coreset.coverer[orphans], return_index=True)
    # subtle: one centre may cover the plain ground of all pictures, not of those that have gone alone
    groups = [
        group[at : at + AT_ONCE] for group in np.split(orphans, starts[1:]) for at in range(0, len(group), AT_ONCE)
    ]
    owners = coreset.coverer[[group[0] for group in groups]]
    centres = points[kept]
    # |x|^2 + |c|^2 - 2xc loses digits far from the origin; see `coreset`
    mean = centres.mean(axis=0) if len(centres) else np.zeros(points.shape[1], points.dtype)
    centres -= mean
    norms = np.einsum("kd,kd->k", centres, centres)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    with one_blas_thread():
        for first in range(0, len(owners), _LOST):
            lost = points[coreset.indices[owners[first : first + _LOST]]] - mean
            apart = norms - 2 * (lost @ centres.T)  # (l, d) @ (d, k) -> (l, k)
            apart += np.einsum("ld,ld->l", lost, lost)[:, None]
            meet = partial(_meet, points, mean, centres, norms, coreset.radius)
            found += workers().map(meet, groups[first : first + _LOST], apart)
    left, bound = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(left)
    return left[order], bound[order]


def _meet(
    points: Rows,
    mean: np.ndarray,
    centres: Matrix,
    norms: np.ndarray,
    radius: float,
    group: np.ndarray,
    apart: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which points of one lost centre's group (g,) no centre (k, d) is that near to, and how far one is.

    Args:
        points: (n, d), from which `mean` is taken, as it was from the centres.
        mean, centres, norms: (d,), (k, d), (k,) squared lengths.
        radius: of the coreset.
        group: indices into the points.
        apart: (k,) squared distances of the centres to the lost one.
    """
    finest = _FINEST * radius
    near = np.flatnonzero(apart <= (1.001 * (radius + finest)) ** 2)  # a little more, for rounding
    near = near[np.argsort(apart[near], kind="stable")]
    some = points[group] - mean
    lengths = np.einsum("gd,gd->g", some, some)
    bound = np.full(len(group), np.inf, some.dtype)
    first, width = 0, _NEAREST
    while first < len(near) and len(group):
        met = near[first : first + width]
        nearest = (norms[met] - 2 * (some @ centres[met].T)).min(axis=1)  # (g, d) @ (d, m) -> (g, m)
        bound = np.minimum(bound, nearest + lengths)
        rest = bound > finest**2
        group, some, lengths, bound = group[rest], some[rest], lengths[rest], bound[rest]
        first, width = first + width, _MEETING
    return group, bound


def _greedy(points: Rows, left: np.ndarray, bound: np.ndarray, radius: float, count: int) -> np.ndarray:
    """Return the few of some points (u,) that cover the others: again and again the farthest, ties to the lower index.

    Args:
        points: (n, d).
        left: indices into them, ascending.
        bound: (u,) squared distances to the nearest centre.
        radius: within which every point is covered in the end.
        count: how many are chosen, more where the radius asks for more, fewer where all are within 0.97 of it.
    """
    chosen, left, bound = _thinned(points, left, bound, radius, count)
    if not len(left):
        return np.array(chosen, np.int64)
    some = points[left]
    some -= some.mean(axis=0)
    norms = np.einsum("ud,ud->u", some, some)
    finest = (_FINEST * radius) ** 2
    while len(left):
        at = int(bound.argmax())
        if bound[at] <= (radius**2 if len(chosen) >= count else finest):
            break
        chosen.append(int(left[at]))
        squared = some @ (some[at] * -2)  # (u, d) @ (d,)
        squared += norms
        squared += norms[at]
        np.minimum(bound, squared, out=bound)
        bound[at] = 0
        rest = bound > finest
        if 2 * np.count_nonzero(rest) < len(left):  # what is covered is done with, but a copy at each step would cost
            left, some, norms, bound = left[rest], some[rest], norms[rest], bound[rest]
    return np.array(chosen, np.int64)


def _thinned(
    points: Rows, left: np.ndarray, bound: np.ndarray, radius: float, count: int
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Do as `_greedy`, without a copy of the points, until few enough are left; returns what is chosen and left."""
    chosen: list[int] = []
    finest = (_FINEST * radius) ** 2
    while len(left) > AT_ONCE:
        at = int(bound.argmax())
        if bound[at] <= (radius**2 if len(chosen) >= count else finest):
            return chosen, left[:0], bound[:0]
        chosen.append(int(left[at]))
        for first in range(0, len(left), AT_ONCE):
            apart = points[left[first : first + AT_ONCE]] - points[np.array(chosen[-1:])]
            part = bound[first : first + AT_ONCE]
            np.minimum(part, np.einsum("nd,nd->n", apart, apart), out=part)
        bound[at] = 0
        rest = bound > finest
        left, bound = left[rest], bound[rest]
    return chosen, left, bound
