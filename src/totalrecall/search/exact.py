"""Exact nearest neighbours in the memory bank, pruned.

1. A lower bound of every distance, and the lowest of each block of 64, come from one product in fewer dimensions, or
   of rounded numbers: `bounds` says how. It runs where the backbone runs, on all cores.
2. The vector with the lowest bound is measured in full. Most often it is the nearest; its distance is the limit.
3. Blocks whose lowest bound is over the limit are out. In the few others each bound is looked at, and what is not over
   the limit is measured too.

So the answer is brute force's answer. Queries for which the bounds leave too many vectors are compared with all of them
in float32; so is everything while a search has not yet done the work that would pay for making its graph.

Rounding: a product of length d in float32 errs by less than 16 sqrt(d) u |q| |b| with probability above 1 - exp(-100)
(Higham and Mary 2019, u = 2^-24); that is added to every bound. Near-ties are settled in float64, ties go to the lower
index.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from totalrecall.errors import SettingError
from totalrecall.search.bounds import BLOCK, BoundsGraph, all_dimensions_pay
from totalrecall.search.levels import default_levels, principal_basis
from totalrecall.system.threads import abandon, cores, in_worker, one_blas_thread, renew_in_child, side_by_side
from totalrecall.types import Distances, Indices, Matrix, Patches

__all__ = ["ExactSearch", "SearchSizes"]

_BOUNDS = 1 << 22  # at a time: 8 MB
_PRODUCT_TILE = 128  # queries at a time without a graph: a product runs on one core, several side by side
_BUFFER_FLOATS = 1 << 18  # at least, in a thread's own buffers
_CENTRED = 1024  # vectors copied at a time
_UNIT = 2.0**-24  # unit roundoff of float32


@dataclass(frozen=True)
class SearchSizes:
    """How a search cuts its work into pieces, as measured; whatever they are, the answer is the same.

    Attributes:
        tile: queries at a time; threads of our own for less than that would only disturb those of the graph.
        products: of queries and vectors in float32 at a time: 8 MB.
        worth_a_graph: multiplications in float32, about as long as it takes to make a graph.
        shared: floats of pairs to measure that are worth the other cores: threads wait for each other, too.
        gathered: floats gathered at once to measure pairs: 1 MB stays in a core's own cache.
        crowded: share of all vectors: with more left, measuring them one by one is no gain over the product,
        worth_products: if such queries have more than this times all vectors left together.
    """

    tile: int = 1024
    products: int = 1 << 21
    worth_a_graph: int = 1 << 32
    shared: int = 1 << 22
    gathered: int = 1 << 18
    crowded: float = 1 / 32
    worth_products: int = 4


_SIZES = SearchSizes()


@dataclass(frozen=True)
class _Bounds:
    """Lower bounds of |q - b|^2 - |q|^2 of some queries.

    Attributes:
        stored: (q, m') by blocks of `BLOCK` vectors; `numbers` makes float32 of them, `infinity` is out of the race.
        lowest: (q, m' / BLOCK) float32, of each block.
        norms: (q,) |q|^2 from the bank's mean.
        above: a limit -> what its bound is no higher than.
    """

    stored: np.ndarray
    lowest: np.ndarray
    norms: np.ndarray
    numbers: Callable[[np.ndarray], np.ndarray]
    above: Callable[[np.ndarray], np.ndarray]
    infinity: float


class ExactSearch:
    """Nearest neighbours of queries among fixed vectors.

    Args:
        vectors: (m, d) float32, m at least 1. Kept by reference, not copied.
        basis: from `principal_basis`; made here if not given.
        levels: dimensions of the bounds, the last one counts; none is all d. As wide as the basis if not given.
        sizes: of the pieces of its work.
    """

    def __init__(
        self,
        vectors: Patches,
        basis: Matrix | None = None,
        levels: Sequence[int] | None = None,
        *,
        sizes: SearchSizes = _SIZES,
    ) -> None:
        self.vectors, self.sizes = vectors, sizes
        self.slack = float(16 * np.sqrt(vectors.shape[1]) * _UNIT)
        self.mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)  # near the origin rounding is smallest
        if levels is None:
            levels = default_levels(vectors.shape[1]) if basis is None else (basis.shape[1],)
        self.levels = tuple(levels)
        self.basis = basis if self.levels else None
        self.norms = np.empty(len(vectors), np.float32)
        for at, centred in self._centred_blocks():
            np.einsum("md,md->m", centred, centred, out=self.norms[at : at + len(centred)])
        self.longest = float(np.sqrt(self.norms.max()))
        self._graphs: dict[bool, BoundsGraph | None] = {}  # by whether each call has one core; None: of no use
        self._work = 0.0  # multiplications done without a graph
        self._lock = threading.Lock()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget the graph, in a forked child: the threads that run it are gone. The next search makes it again."""
        abandon(self._graphs)
        self._graphs = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the graph and the lock: whoever gets the copy makes a graph when it pays there."""
        return {name: value for name, value in vars(self).items() if name not in ("_graphs", "_work", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _graphs={}, _work=0.0, _lock=threading.Lock())
        renew_in_child(self)

    def nearest(self, queries: Patches, k: int = 1) -> tuple[Distances, Indices]:
        """Return Euclidean distances (q, k), ascending, and the indices (q, k) of the neighbours.

        It works on all cores; called by one of `threads.workers`, it leaves the others alone.

        Args:
            queries: (q, d) float32.
            k: how many neighbours.

        Raises:
            SettingError: k is not from 1 to the number of vectors.
        """
        m = len(self.vectors)
        if not 1 <= k <= m:
            raise SettingError(f"k must be from 1 to the number of vectors ({m}), got {k}.")
        if not len(queries):
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        queries = np.asarray(queries, np.float32)
        graph = self._graph_if_it_pays(len(queries))
        look = self._products if graph is None else lambda tile: self._by_graph(graph, tile)
        rows = min(_PRODUCT_TILE, self.sizes.products // m) if graph is None else min(self.sizes.tile, _BOUNDS // m)
        tiles = np.array_split(
            queries, -(-len(queries) // max(rows, 1))
        )  # of equal size, so that no core waits for another
        with one_blas_thread() if graph is None else nullcontext():
            answers = side_by_side(lambda tile: self._nearest_of_tile(tile, k, look), tiles)
        return np.concatenate([answer[0] for answer in answers]), np.concatenate([answer[1] for answer in answers])

    def _graph_if_it_pays(self, queries: int) -> BoundsGraph | None:
        """Return the graph for this caller, made now if all that was asked for so far would have paid for it."""
        one_core = in_worker()
        if one_core not in self._graphs:
            with self._lock:
                self._work += queries * self.vectors.size
                if one_core not in self._graphs and self._work >= self.sizes.worth_a_graph:
                    self._graphs[one_core] = self._make_graph(one_core)
        return self._graphs.get(one_core)

    def _make_graph(self, one_core: bool) -> BoundsGraph | None:
        """Return a graph that computes what it should, or None."""
        try:
            if not self._graphs:
                basis = self._basis_that_pays()
                graph = BoundsGraph(self.vectors, self.mean, self.norms, basis, self.slack, one_core=one_core)
            elif (other := self._graphs[not one_core]) is not None:
                graph = copy(other)
                graph.compile(one_core=one_core)
            else:
                return None
            return graph if graph.agrees(self.vectors, self.mean, self.norms) else None
        except (ImportError, RuntimeError):  # no OpenVINO here, or one that knows less
            return None

    def _basis_that_pays(self) -> Matrix | None:
        """Return the basis of the bounds, made now; None where all dimensions are sooner done."""
        if not self.levels or all_dimensions_pay(self.vectors.shape, self.levels[-1]):
            return None
        if self.basis is None:
            self.basis = principal_basis(self.vectors, self.levels[-1])
        return self.basis

    def _by_graph(self, graph: BoundsGraph, queries: Patches) -> _Bounds:
        stored, lowest, norms = graph.of(queries)
        return _Bounds(stored, graph.numbers(lowest), norms, graph.numbers, graph.above, graph.infinity)

    def _products(self, queries: Patches) -> _Bounds:
        """Return the squared distances themselves, but for rounding, by products in all d dimensions."""
        centred = queries - self.mean
        norms = np.einsum("qd,qd->q", centred, centred)
        blocks = -(-len(self.vectors) // BLOCK)
        lower = _buffer("bounds", len(queries), blocks * BLOCK)
        lower[:, len(self.vectors) :] = np.inf
        with one_blas_thread():
            for at, block in self._centred_blocks():
                block *= -2
                part = lower[:, at : at + len(block)]
                np.matmul(centred, block.T, out=part)  # (q, d) @ (d, m) -> (q, m)
                part += self.norms[at : at + len(block)]
        lowest = lower.reshape(len(queries), blocks, BLOCK).min(axis=2)
        return _Bounds(lower, lowest, norms, _as_it_is, _as_it_is, np.inf)

    def _centred_blocks(self) -> Iterator[tuple[int, Matrix]]:
        """Yield where each block of vectors begins, and it less the mean: a copy of all would double the bank."""
        for first in range(0, len(self.vectors), _CENTRED):
            yield first, self.vectors[first : first + _CENTRED] - self.mean

    def _nearest_of_tile(
        self, queries: Patches, k: int, look: Callable[[Patches], _Bounds]
    ) -> tuple[Distances, Indices]:
        seen = look(queries)
        guessed, squared = self._guess(queries, seen, k)
        margin = self.slack * (np.sqrt(seen.norms) + self.longest) ** 2
        limit = seen.above((squared.max(axis=1) - seen.norms + 2 * margin).astype(np.float32))
        who, which = _not_over(seen, limit)
        crowded = np.empty(0, np.int64)
        worth_products = self.sizes.worth_products * len(self.vectors)
        if look != self._products and len(who) > worth_products:
            counts = np.bincount(who, minlength=len(queries))
            often = counts > self.sizes.crowded * len(self.vectors)
            if counts[often].sum() > worth_products:
                crowded, sparse = np.flatnonzero(often), ~often[who]
                who, which = who[sparse], which[sparse]
        distances, indices = self._settle(queries, guessed, squared, who, which)
        rows = max(self.sizes.products // len(self.vectors), 1)
        for at in range(0, len(crowded), rows):
            block = crowded[at : at + rows]
            distances[block], indices[block] = self._nearest_of_tile(queries[block], k, self._products)
        return distances, indices

    def _guess(self, queries: Patches, seen: _Bounds, k: int) -> tuple[Indices, np.ndarray]:
        """Return the vectors (q, k) with the lowest bounds, or nearly, and how far they are, squared (q, k).

        Any k vectors will do, the near ones do best. Their bounds are taken out.
        """
        rows = np.arange(len(queries))[:, None]
        blocks = seen.lowest.shape[1]
        if k == 1:
            block = seen.lowest.argmin(axis=1)[:, None]
        else:  # the k lowest bounds are in these
            block = np.argpartition(seen.lowest, min(k, blocks) - 1, axis=1)[:, : min(k, blocks)]
        lower = seen.numbers(seen.stored.reshape(-1, BLOCK).take((rows * blocks + block).ravel(), axis=0))
        lower = lower.reshape(len(queries), -1)  # (q*b, BLOCK) -> (q, b*BLOCK)
        at = lower.argmin(axis=1)[:, None] if k == 1 else np.argpartition(lower, k - 1, axis=1)[:, :k]
        guessed = np.take_along_axis(block, at // BLOCK, axis=1) * BLOCK + at % BLOCK
        seen.stored[rows, guessed] = seen.infinity
        squared = self._squared(queries, np.repeat(rows[:, 0], k), guessed.ravel())
        return guessed, squared.reshape(-1, k)

    def _settle(
        self, queries: Patches, guessed: Indices, squared: np.ndarray, who: np.ndarray, which: np.ndarray
    ) -> tuple[Distances, Indices]:
        """Measure the pairs too and return each query's k best, ties to the lower index."""
        distances, indices = np.sqrt(squared), guessed
        measured = self._squared(queries, who, which)
        if guessed.shape[1] == 1 and len(who):
            who, which, measured = _contested(distances, indices, squared, who, which, measured, 1 + 4 * self.slack)
        if len(who) or guessed.shape[1] > 1:
            self._settle_in_order(queries, squared, (distances, indices), who, which, measured)
        return distances, indices

    def _settle_in_order(
        self,
        queries: Patches,
        squared: np.ndarray,
        answer: tuple[Distances, Indices],
        who: np.ndarray,
        which: np.ndarray,
        measured: np.ndarray,
    ) -> None:
        """Put the answer in order, of the queries that the pairs are of; near-ties are measured in float64."""
        distances, indices = answer
        k = indices.shape[1]
        rows = np.arange(len(queries)) if k > 1 else who[np.diff(who, prepend=-1) > 0]
        squared = np.concatenate([squared[rows].ravel(), measured])
        who = np.concatenate([np.repeat(rows, k), who])
        which = np.concatenate([indices[rows].ravel(), which])
        order = np.argsort(who, kind="stable")
        who, which, squared = who[order], which[order], squared[order]
        starts = np.flatnonzero(np.diff(who, prepend=-1))
        if k == 1:
            kth = np.minimum.reduceat(squared, starts)
        else:
            best = _first_of_each(who, squared, which, k)
            kth = np.maximum.reduceat(squared[best], np.arange(0, len(best), k))
        kth *= np.float32(1 + 4 * self.slack)
        close = squared <= np.repeat(kth, np.diff(starts, append=len(who)))
        who, which, squared = who[close], which[close], squared[close]
        unsure = np.flatnonzero(np.bincount(who)[who] > 1)  # float32 cannot order these; float64 can
        exact = squared.astype(np.float64)
        exact[unsure] = self._squared(queries, who[unsure], which[unsure], np.float64)
        best = _first_of_each(who, exact, which, k)
        distances[rows] = np.sqrt(exact[best]).astype(np.float32).reshape(-1, k)
        indices[rows] = which[best].reshape(-1, k)

    def _squared(self, queries: Patches, who: np.ndarray, which: np.ndarray, dtype: type = np.float32) -> np.ndarray:
        """Return squared distances of pairs by their difference, which is exact near zero, in the given precision."""
        out: np.ndarray = np.empty(len(who), dtype)

        def measure(pairs: slice) -> None:
            for part, left, right in _gathered(queries, self.vectors, who[pairs], which[pairs], self.sizes.gathered):
                difference = np.subtract(left, right, dtype=dtype, out=right if dtype is np.float32 else None)
                np.einsum("pd,pd->p", difference, difference, out=out[pairs][part])

        share = -(-len(who) // cores()) if len(who) * queries.shape[1] > self.sizes.shared else len(who)
        side_by_side(measure, [slice(at, at + share) for at in range(0, len(who), max(share, 1))])
        return out


def _as_it_is(numbers: np.ndarray) -> np.ndarray:
    return numbers


def _not_over(seen: _Bounds, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of a query and a vector whose bound is not over the query's limit, the queries ascending."""
    # flat: over two dimensions nonzero takes five times as long
    flat = np.flatnonzero((seen.lowest <= limit[:, None]).ravel())
    row, block = np.divmod(flat, seen.lowest.shape[1])
    lower = seen.numbers(seen.stored.reshape(-1, BLOCK).take(flat, axis=0))
    at, inside = np.divmod(np.flatnonzero((lower <= limit[row, None]).ravel()), BLOCK)
    return row[at], block[at] * BLOCK + inside


_own = threading.local()


def _buffer(name: str, rows: int, columns: int) -> Matrix:
    """Return an array to fill that is this thread's own: fresh memory each time costs a tenth of all."""
    held = getattr(_own, name, None)
    if held is None or len(held) < rows * columns:
        held = np.empty(max(rows * columns, _BUFFER_FLOATS), np.float32)
        setattr(_own, name, held)
    return held[: rows * columns].reshape(rows, columns)


def _gathered(
    left: Matrix, right: Matrix, who: np.ndarray, which: np.ndarray, floats: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield rows left[who] and right[which] side by side, so many floats at a time, in buffers that are reused."""
    step = max(min(floats // left.shape[1], len(who)), 1)
    in_a_row = bool((np.diff(who) == 1).all())  # as they are of the first guesses: no need to copy the left ones
    left_rows, right_rows = _buffer("left", step, left.shape[1]), _buffer("right", step, left.shape[1])
    for first in range(0, len(who), step):
        part = slice(first, min(first + step, len(who)))
        b = right_rows[: part.stop - first]
        if in_a_row:
            a = left[who[first] : who[first] + len(b)]
        else:
            a = left_rows[: len(b)]
            np.take(left, who[part], axis=0, out=a, mode="clip")  # clip: with its checks take() would copy once more
        np.take(right, which[part], axis=0, out=b, mode="clip")
        yield part, a, b


def _contested(
    distances: Distances,
    indices: Indices,
    squared: np.ndarray,
    who: np.ndarray,
    which: np.ndarray,
    candidates: np.ndarray,
    near: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put into the answer each query's nearest so far, where it is clear, and return the pairs of those where not.

    Args:
        distances, indices, squared: (q, 1) of the first guesses; the first two are changed.
        who, which, candidates: pairs, by ascending query, and their squared distances.
        near: times the smallest squared distance, within which float32 cannot order.
    """
    starts = np.flatnonzero(np.diff(who, prepend=-1))
    rows, counts = who[starts], np.diff(starts, append=len(who))
    limit = np.minimum(np.minimum.reduceat(candidates, starts), squared[rows, 0]) * np.float32(near)
    close = candidates <= np.repeat(limit, counts)
    rivals = np.add.reduceat(close.astype(np.int32), starts)
    guessed = squared[rows, 0] <= limit
    won = np.zeros(len(indices), bool)
    won[rows] = (rivals == 1) & ~guessed
    winner = close & won[who]
    distances[who[winner], 0] = np.sqrt(candidates[winner])
    indices[who[winner], 0] = which[winner]
    unclear = np.zeros(len(indices), bool)
    unclear[rows] = rivals + guessed > 1
    left = unclear[who]
    return who[left], which[left], candidates[left]


def _first_of_each(who: np.ndarray, squared: np.ndarray, which: np.ndarray, k: int) -> np.ndarray:
    """Return positions of the k smallest pairs of each query that has any, ordered by distance then index.

    `who` is ascending, and each query in it has k pairs at least.
    """
    order = np.lexsort((which, squared, who))
    starts = np.flatnonzero(np.diff(who, prepend=-1))
    return order[(starts[:, None] + np.arange(k)).ravel()]
