"""Exact nearest neighbours in the memory bank, pruned.

A lower bound of each distance comes cheap: with an orthonormal basis of r of the d dimensions, chosen to hold most of
the bank's variance, and rho the length of what the basis leaves over,

    |q - b|^2  >=  |q_r - b_r|^2 + (rho_q - rho_b)^2  =  |q|^2 + |b|^2 - 2 (q_r . b_r + rho_q rho_b)

since the left-over parts can at best point the same way (Cauchy-Schwarz). A search goes down the levels of its plan:

1. the bound in few dimensions (64), of every query with every bank vector: matrix products in tiles that stay in the
   cache, block after block of the bank. The best bound of a block points at a vector that is measured in full; whatever
   has a bound above the shortest distance measured so far is out;
2. the bound in more dimensions (192) for the pairs that are left, and again the best one measured;
3. the distance itself for the few that are left.

So the answer is brute force's answer. A plan without levels is brute force: the product in all d dimensions. That is
also where a tile ends up in which the bounds leave too many pairs.

Rounding: a product of length d in float32 errs by less than 16 sqrt(d) u |q| |b| with probability above 1 - exp(-100)
(Higham and Mary 2019, u = 2^-24); that is added to every bound. Near-ties are settled in float64, ties go to the lower
index.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from totalrecall.errors import SettingError
from totalrecall.threads import blas_threads_rest, cores, in_worker, one_blas_thread, workers
from totalrecall.types import Distances, Indices, Matrix, Patches

__all__ = ["ExactSearch", "default_levels", "principal_basis"]

_BLOCK = 8192  # bank vectors in one product
_TILE = 256  # queries in one product: 256 x 8192 bounds are 8 MB
_SMALL = 1 << 21  # numbers in a bank whose tiles take so short a time that threads would only wait for each other
_GATHER_FLOATS = 1 << 18  # floats gathered at once to measure pairs: 1 MB stays in a core's own cache
_BUFFER_FLOATS = 1 << 18  # at least, in a thread's own buffers
_CROWDED = 1 / 32  # of all pairs: with more left than this, measuring them one by one is no gain over the product
_SAMPLE = 4096  # bank vectors that the basis is fitted to
_UNIT = 2.0**-24  # unit roundoff of float32


def default_levels(dimensions: int) -> tuple[int, ...]:
    """Return the dimensions of the bounds for vectors of d dimensions where nothing was measured."""
    return (64, 192) if dimensions >= 256 else ()


def principal_basis(vectors: Patches, dimensions: int, *, seed: int = 0) -> Matrix:
    """Return an orthonormal basis, (d, dimensions) float32, of nearly the directions of largest variance.

    The directions come in order: a prefix of the columns is a basis of its own. Any orthonormal basis gives a valid
    bound, a better one prunes more; three rounds of subspace iteration (Halko et al. 2011) on a sample come close to
    the true principal axes at a fraction of their cost.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(len(vectors))
    if len(rows) > _SAMPLE:
        rows = np.sort(rng.choice(len(vectors), _SAMPLE, replace=False))
    sample = vectors[rows].astype(np.float32)
    sample -= sample.mean(axis=0)
    basis = rng.standard_normal((vectors.shape[1], dimensions), dtype=np.float32)
    with one_blas_thread():
        for _ in range(3):
            basis = np.linalg.qr(sample.T @ (sample @ basis))[0]  # (d, n) @ ((n, d) @ (d, r)) -> (d, r)
        return np.linalg.qr(basis.astype(np.float64))[0].astype(np.float32)


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a query and a bank vector, the queries ascending, and the bound of each."""

    who: np.ndarray
    which: np.ndarray
    bound: np.ndarray  # of |q - b|^2 - |q|^2


@dataclass
class _Tile:
    """Some queries and what is known of them.

    Attributes:
        queries: (q, d) as given; `centred`: less the bank's mean; `norms`: their squared lengths.
        margin: (q,) what rounding can do to a bound.
        best: (q, k) the smallest squared distances that were measured, each of another bank vector.
    """

    queries: Patches
    centred: Patches
    norms: np.ndarray
    margin: np.ndarray
    best: np.ndarray

    @property
    def limit(self) -> np.ndarray:
        """The bound (q,) above which a vector is not among the k nearest; |q|^2 is left out of bounds."""
        return (self.best.max(axis=1) - self.norms + 2 * self.margin).astype(np.float32)


class ExactSearch:
    """Nearest neighbours of queries among fixed vectors.

    Args:
        vectors: (m, d) float32, m at least 1. Kept by reference, not copied.
        basis: from `principal_basis`, as wide as the last level; made here if not given.
        levels: dimensions of the bounds, rising, at most two; none is brute force.
    """

    def __init__(self, vectors: Patches, basis: Matrix | None = None, levels: Sequence[int] | None = None) -> None:
        self.vectors = vectors
        self.slack = float(16 * np.sqrt(vectors.shape[1]) * _UNIT)
        self.mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)  # near the origin rounding is smallest
        if levels is None:
            levels = default_levels(vectors.shape[1]) if basis is None else (min(64, basis.shape[1]), basis.shape[1])
        self.levels = tuple(levels)
        if basis is None and self.levels:
            basis = principal_basis(vectors, self.levels[-1])
        self.basis = basis
        self.norms = np.empty(len(vectors), np.float32)
        parts: list[list[Matrix]] = [[] for _ in self.levels]
        for first in range(0, len(vectors), _BLOCK):  # in blocks: a centred copy of a large bank would double it
            centred = vectors[first : first + _BLOCK] - self.mean
            norms = self.norms[first : first + _BLOCK]
            np.einsum("md,md->m", centred, centred, out=norms)
            for part, level in zip(parts, self._reduce(centred, norms, self.levels), strict=True):
                level[:, :-1] *= -2
                level[:, -1] = norms
                part.append(level)
        self.longest = float(np.sqrt(self.norms.max()))
        self._levels: list[list[Matrix]] = []
        if parts:
            self._levels.append([np.ascontiguousarray(part.T) for part in parts[0]])
        if len(parts) > 1:  # by rows, since pairs of it are gathered; a product takes it as it is, transposed
            self._second = np.concatenate(parts[1])
            self._levels.append([self._second[at : at + _BLOCK].T for at in range(0, len(vectors), _BLOCK)])

    @cached_property
    def _whole(self) -> list[Matrix]:
        """All d dimensions: a second copy of the vectors, so made only where pruning does not serve."""
        blocks = []
        for first in range(0, len(self.vectors), _BLOCK):
            centred = self.vectors[first : first + _BLOCK] - self.mean
            centred *= -2
            blocks.append(np.ascontiguousarray(np.column_stack([centred, self.norms[first : first + _BLOCK]]).T))
        return blocks

    def nearest(self, queries: Patches, k: int = 1, *, threads: int | None = None) -> tuple[Distances, Indices]:
        """Return Euclidean distances (q, k), ascending, and the indices (q, k) of the neighbours.

        Args:
            queries: (q, d) float32.
            k: how many neighbours.
            threads: 1 where the caller has threads of its own; all cores if not given, but one in a worker.

        Raises:
            SettingError: k is not from 1 to the number of vectors.
        """
        if not 1 <= k <= len(self.vectors):
            raise SettingError(f"k must be from 1 to the number of vectors ({len(self.vectors)}), got {k}.")
        if not len(queries):
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        if threads is None:
            threads = 1 if in_worker() else cores()
        side_by_side = threads > 1 and self.vectors.size > _SMALL
        tile = min(_TILE, -(-len(queries) // threads)) if side_by_side else 2 * _TILE
        tiles = [queries[first : first + tile] for first in range(0, len(queries), tile)]
        if side_by_side and len(tiles) > 1:  # the passes over a product need all cores as much as the product does
            with one_blas_thread():
                found = list(workers().map(lambda one: self._nearest_of_tile(one, k), tiles))
        else:
            with nullcontext() if threads > 1 and blas_threads_rest() else one_blas_thread():
                found = [self._nearest_of_tile(one, k) for one in tiles]
        return np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found])

    def _nearest_of_tile(self, queries: Patches, k: int) -> tuple[Distances, Indices]:
        extended = np.empty((len(queries), queries.shape[1] + 1), np.float32)
        extended[:, -1] = 1  # for `_whole`
        centred = np.subtract(queries, self.mean, out=extended[:, :-1])
        norms = np.einsum("qd,qd->q", centred, centred)
        margin = self.slack * (np.sqrt(norms) + self.longest) ** 2
        tile = _Tile(queries, centred, norms, margin, np.full((len(queries), k), np.inf, np.float32))
        left = self._reduce(centred, norms, self.levels)
        rows, pairs = np.arange(len(queries)), []
        for level, blocks in enumerate(self._levels):
            found, crowded = self._survivors(tile, rows, left[level], blocks)
            pairs.append(self._second_level(tile, left[1], found) if level == 0 and len(left) > 1 else found)
            rows = rows[crowded]
            if not len(rows):
                break
        else:
            one = np.ones((len(queries), 1), np.float32)
            pairs.append(
                self._survivors(tile, rows, np.concatenate([centred, one], axis=1), self._whole, whole=True)[0]
            )
        return self._best_of_pairs(tile, _joined(pairs))

    def _reduce(self, centred: Patches, norms: np.ndarray, levels: Sequence[int]) -> list[Matrix]:
        """Return for each level the coordinates in the basis, the length of the rest, and a one: (n, r + 2)."""
        if not levels:
            return []
        assert self.basis is not None
        coordinates = centred @ self.basis  # (n, d) @ (d, r) -> (n, r)
        reduced = []
        for r in levels:
            level = np.empty((len(centred), r + 2), np.float32)
            level[:, :r] = coordinates[:, :r]
            kept = np.einsum("nr,nr->n", level[:, :r], level[:, :r])
            # subtle: the rest must never be underestimated, or the bound could exceed the distance; hence the slack
            level[:, r] = np.sqrt(np.maximum(norms - kept, 0) + self.slack * norms)
            level[:, r + 1] = 1
            reduced.append(level)
        return reduced

    def _survivors(
        self, tile: _Tile, rows: np.ndarray, left: Matrix, blocks: Sequence[Matrix], *, whole: bool = False
    ) -> tuple[_Pairs, np.ndarray]:
        """Return the pairs that may be among the k nearest by the bounds left @ block, and which rows are crowded.

        Crowded are those with so many that measuring them one by one is no gain over the next level's product; they
        get none here. In the whole product nothing is crowded.
        """
        allowed = len(self.vectors) if whole else int(_CROWDED * len(self.vectors))
        tile.best[rows] = np.inf  # each vector may count once, and the last level met the same ones
        left = left if len(rows) == len(left) else left[rows]
        found, counts = [], np.zeros(len(rows), np.int64)
        for number, block in enumerate(blocks):
            lower = _buffer("products", len(left), block.shape[1])
            np.matmul(left, block, out=lower)  # (q, r+2) @ (r+2, m) -> (q, m)
            self._bring_limit_down(tile, rows, lower, number * _BLOCK, whole)
            # flat: over two dimensions nonzero takes five times as long
            flat = np.flatnonzero((lower <= tile.limit[rows, None]).ravel())
            row, which = np.divmod(flat, lower.shape[1])
            counts += np.bincount(row, minlength=len(rows))
            found.append(_Pairs(rows[row], which + number * _BLOCK, lower.ravel()[flat]))
        pairs, crowded = _joined(found), counts > allowed
        if len(found) > 1 or crowded.any():
            keep = pairs.bound <= tile.limit[pairs.who]  # later blocks have brought the limit down
            keep &= ~crowded[np.searchsorted(rows, pairs.who)]
            pairs = _Pairs(pairs.who[keep], pairs.which[keep], pairs.bound[keep])
        return pairs, crowded

    def _bring_limit_down(self, tile: _Tile, rows: np.ndarray, lower: Matrix, first: int, whole: bool) -> None:
        """Take note of the distances of the vectors of this block that have the k best bounds of each query."""
        k = min(tile.best.shape[1], lower.shape[1])
        guess = lower.argmin(axis=1)[:, None] if k == 1 else np.argpartition(lower, k - 1, axis=1)[:, :k]
        bounds = np.take_along_axis(lower, guess, axis=1)
        hopeful = np.flatnonzero(bounds.min(axis=1) <= tile.limit[rows])
        who = rows[hopeful]
        if whole:  # all dimensions: but for rounding, the bound is the distance
            squared = bounds[hopeful] + (tile.norms + tile.margin)[who, None]
        else:
            squared = self._squared(tile.queries, np.repeat(who, k), guess[hopeful].ravel() + first).reshape(-1, k)
        best = np.concatenate([tile.best[who], squared], axis=1)
        tile.best[who] = np.sort(best, axis=1)[:, : tile.best.shape[1]]

    def _second_level(self, tile: _Tile, left: Matrix, pairs: _Pairs) -> _Pairs:
        """Return those of the pairs that the bound in more dimensions leaves."""
        bound = np.empty(len(pairs.who), np.float32)
        for part, queries, vectors in _gathered(left, self._second, pairs.who, pairs.which):
            np.einsum("pr,pr->p", queries, vectors, out=bound[part])
        if tile.best.shape[1] == 1 and len(bound):
            first = np.flatnonzero(np.diff(pairs.who, prepend=-1))  # of each query that has pairs
            lowest = np.minimum.reduceat(bound, first)
            at = np.flatnonzero(bound == np.repeat(lowest, np.diff(first, append=len(bound))))
            at = at[np.diff(pairs.who[at], prepend=-1) > 0]
            squared = self._squared(tile.queries, pairs.who[at], pairs.which[at])[:, None]
            tile.best[pairs.who[at]] = np.minimum(tile.best[pairs.who[at]], squared)
        keep = bound <= tile.limit[pairs.who]
        return _Pairs(pairs.who[keep], pairs.which[keep], bound[keep])

    def _squared(self, queries: Patches, who: np.ndarray, which: np.ndarray, dtype: type = np.float32) -> np.ndarray:
        """Return squared distances of pairs by their difference, which is exact near zero, in the given precision."""
        out: np.ndarray = np.empty(len(who), dtype)
        for part, left, right in _gathered(queries, self.vectors, who, which):
            difference = np.subtract(left, right, dtype=dtype, out=right if dtype is np.float32 else None)
            np.einsum("pd,pd->p", difference, difference, out=out[part])
        return out

    def _best_of_pairs(self, tile: _Tile, pairs: _Pairs) -> tuple[Distances, Indices]:
        """Measure the pairs and return each query's k best, ties to the lower index."""
        k, who, which = tile.best.shape[1], pairs.who, pairs.which
        squared = self._squared(tile.queries, who, which)
        if len(who) > len(tile.queries):
            if k == 1:
                kth = np.minimum.reduceat(squared, np.searchsorted(who, np.arange(len(tile.queries))))
            else:
                best = _first_of_each(who, squared, which, k)
                kth = np.maximum.reduceat(squared[best], np.arange(0, len(best), k))
            close = squared <= (kth * np.float32(1 + 4 * self.slack))[who]
            who, which, squared = who[close], which[close], squared[close]
            unsure = np.flatnonzero(np.bincount(who)[who] > 1)  # float32 cannot order these; float64 can
            exact = squared.astype(np.float64)
            exact[unsure] = self._squared(tile.queries, who[unsure], which[unsure], np.float64)
            best = _first_of_each(who, exact, which, k)
            which, squared = which[best], exact[best]
        return np.sqrt(squared).astype(np.float32).reshape(-1, k), which.reshape(-1, k)


_own = threading.local()


def _buffer(name: str, rows: int, columns: int) -> Matrix:
    """Return an array to fill that is this thread's own: fresh memory each time costs a tenth of all."""
    held = getattr(_own, name, None)
    if held is None or len(held) < rows * columns:
        held = np.empty(max(rows * columns, _BUFFER_FLOATS), np.float32)
        setattr(_own, name, held)
    return held[: rows * columns].reshape(rows, columns)


def _joined(parts: Sequence[_Pairs]) -> _Pairs:
    """Return pairs as one, the queries ascending."""
    if len(parts) == 1:
        return parts[0]
    who = np.concatenate([part.who for part in parts])
    order = np.argsort(who, kind="stable")
    which = np.concatenate([part.which for part in parts])
    bound = np.concatenate([part.bound for part in parts])
    return _Pairs(who[order], which[order], bound[order])


def _gathered(
    left: Matrix, right: Matrix, who: np.ndarray, which: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield rows left[who] and right[which] side by side, a part at a time, in buffers that the next part reuses."""
    step = max(min(_GATHER_FLOATS // left.shape[1], len(who)), 1)
    each_once = len(who) == len(left) and bool((np.diff(who) == 1).all())
    left_rows, right_rows = _buffer("left", step, left.shape[1]), _buffer("right", step, left.shape[1])
    for first in range(0, len(who), step):
        part = slice(first, min(first + step, len(who)))
        a, b = left[part] if each_once else left_rows[: part.stop - first], right_rows[: part.stop - first]
        if not each_once:
            np.take(left, who[part], axis=0, out=a, mode="clip")  # clip: with its checks take() would copy once more
        np.take(right, which[part], axis=0, out=b, mode="clip")
        yield part, a, b


def _first_of_each(who: np.ndarray, squared: np.ndarray, which: np.ndarray, k: int) -> np.ndarray:
    """Return positions of the k smallest pairs of each query, ordered by distance then index; `who` is ascending."""
    order = np.lexsort((which, squared, who))
    starts = np.searchsorted(who, np.arange(who[-1] + 1))
    return order[(starts[:, None] + np.arange(k)).ravel()]
