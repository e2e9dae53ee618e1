"""Exact nearest neighbours in the memory bank, pruned.

A lower bound of each distance comes cheap: with an orthonormal basis of r of the d dimensions, chosen to hold most of
the bank's variance, and rho the length of what the basis leaves over,

    |q - b|^2  >=  |q_r - b_r|^2 + (rho_q - rho_b)^2  =  |q|^2 + |b|^2 - 2 (q_r . b_r + rho_q rho_b)

since the left-over parts can at best point the same way (Cauchy-Schwarz). It is one matrix product, of r + 2 columns.
Only bank vectors whose bound does not exceed a distance already found are then measured in full, so the answer is brute
force's answer; where the bound prunes badly, the product is simply done with all d columns.

Rounding: a product of length d in float32 errs by less than 16 sqrt(d) u |q| |b| with probability above 1 - exp(-100)
(Higham and Mary 2019, u = 2^-24); that is added to every bound. Survivors are compared in float64, ties go to the lower
index.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from totalrecall.errors import SettingError
from totalrecall.threads import one_blas_thread
from totalrecall.types import Distances, Indices, Matrix, Patches

__all__ = ["ExactSearch", "principal_basis", "pruned_dimensions"]

_TILE_FLOATS = 1 << 21  # floats in one tile of bounds (8 MB): the largest query x bank matrix that is ever held
_GATHER_FLOATS = 1 << 21  # floats gathered at once to measure survivors
_SAMPLE = 4096  # bank vectors that the basis is fitted to
_UNIT = 2.0**-24  # unit roundoff of float32


def principal_basis(vectors: Patches, dimensions: int, *, seed: int = 0) -> Matrix:
    """Return an orthonormal basis, (d, dimensions) float32, of nearly the directions of largest variance.

    Any orthonormal basis gives a valid bound, a better one prunes more; two rounds of subspace iteration (Halko et al.
    2011) on a sample come close to the true principal axes at a fraction of their cost.
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
class _Bounds:
    """Bank vectors as the columns of one product, and what is needed to bring queries alongside."""

    basis: Matrix | None  # (d, r), or None for all dimensions
    columns: Matrix  # (r + 2, m), or (d + 1, m): -2 times the coordinates, and |b|^2 in the last row


class ExactSearch:
    """Nearest neighbours of queries among fixed vectors.

    Args:
        vectors: (m, d) float32, m at least 1. Kept by reference, not copied.
        basis: from `principal_basis`; made here if not given and d is large enough for pruning to pay.
    """

    def __init__(self, vectors: Patches, basis: Matrix | None = None) -> None:
        self.vectors = vectors
        self.slack = 16 * np.sqrt(vectors.shape[1]) * _UNIT
        self.mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)  # near the origin rounding is smallest
        centred = vectors - self.mean
        self.norms = np.einsum("md,md->m", centred, centred)
        self.longest = float(np.sqrt(self.norms.max()))
        if basis is None and pruned_dimensions(vectors.shape[1]):
            basis = principal_basis(vectors, pruned_dimensions(vectors.shape[1]))
        self.basis = basis
        self._pruned = None
        if basis is not None:
            self._pruned = self._bounds(basis, self._reduce(centred, self.norms, basis))

    @cached_property
    def _whole(self) -> _Bounds:
        """All d dimensions: a second copy of the vectors, so made only where pruning does not serve."""
        return self._bounds(None, np.column_stack([self.vectors - self.mean, np.ones(len(self.vectors), np.float32)]))

    def _bounds(self, basis: Matrix | None, coordinates: Matrix) -> _Bounds:
        """Return the columns whose product with queries [coordinates, 1] is |b|^2 - 2 q.b, with no pass after it."""
        columns = np.ascontiguousarray(coordinates.T)
        columns *= -2
        columns[-1] = self.norms
        return _Bounds(basis, columns)

    def nearest(self, queries: Patches, k: int = 1) -> tuple[Distances, Indices]:
        """Return Euclidean distances (q, k), ascending, and the indices (q, k) of the neighbours.

        Raises:
            SettingError: k is not from 1 to the number of vectors.
        """
        if not 1 <= k <= len(self.vectors):
            raise SettingError(f"k must be from 1 to the number of vectors ({len(self.vectors)}), got {k}.")
        distances = np.empty((len(queries), k), np.float32)
        indices = np.empty((len(queries), k), np.int64)
        rows = max(_TILE_FLOATS // len(self.vectors), 1)
        for first in range(0, len(queries), rows):
            tile = slice(first, first + rows)
            distances[tile], indices[tile] = self._nearest_of_tile(queries[tile], k)
        return distances, indices

    def _nearest_of_tile(self, queries: Patches, k: int) -> tuple[Distances, Indices]:
        centred = queries - self.mean
        norms = np.einsum("qd,qd->q", centred, centred)
        margin = self.slack * (np.sqrt(norms) + self.longest) ** 2
        few = max(len(self.vectors) // 64, 4 * k) * len(queries)
        if self._pruned is not None:
            pairs = self._survivors(self._pruned, queries, centred, norms, margin, k)
            if len(pairs[0]) <= few:
                return self._best_of_pairs(queries, *pairs, k)
        pairs = self._survivors(self._whole, queries, centred, norms, margin, k)
        return self._best_of_pairs(queries, *pairs, k)

    def _survivors(
        self, bounds: _Bounds, queries: Patches, centred: Patches, norms: np.ndarray, margin: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs (query, vector), in order, that may be among the k nearest."""
        if bounds.basis is None:
            left = np.column_stack([centred, np.ones(len(centred), np.float32)])
        else:
            left = self._reduce(centred, norms, bounds.basis)
        lower = left @ bounds.columns  # (q, r+2) @ (r+2, m) -> (q, m)
        if k == 1:
            guess = lower.argmin(axis=1)[:, None]
        else:
            guess = np.argpartition(lower, k - 1, axis=1)[:, :k]
        who = np.repeat(np.arange(len(queries)), k)
        found = self._squared(queries, who, guess.ravel(), np.float64).reshape(-1, k).max(axis=1)  # k-th best at most
        # |q|^2 was left out of `lower`; the guess itself survives, since its bound is under its distance
        limit = found - norms + 2 * margin
        # flat: over two dimensions nonzero takes five times as long
        flat = np.flatnonzero((lower <= limit[:, None].astype(np.float32)).ravel())
        return np.divmod(flat, len(self.vectors))

    def _reduce(self, centred: Patches, norms: np.ndarray, basis: Matrix) -> Matrix:
        """Return coordinates in the basis, the length of the rest, and a one: (n, r + 2)."""
        reduced = np.empty((len(centred), basis.shape[1] + 2), np.float32)
        np.matmul(centred, basis, out=reduced[:, :-2])
        kept = np.einsum("nr,nr->n", reduced[:, :-2], reduced[:, :-2])
        # subtle: the rest must never be underestimated, or the bound could exceed the distance; hence the slack
        reduced[:, -2] = np.sqrt(np.maximum(norms - kept, 0) + self.slack * norms)
        reduced[:, -1] = 1
        return reduced

    def _squared(self, queries: Patches, who: np.ndarray, which: np.ndarray, dtype: type) -> np.ndarray:
        """Return squared distances of pairs by their difference, which is exact near zero, in the given precision."""
        out: np.ndarray = np.empty(len(who), dtype)
        step = max(_GATHER_FLOATS // queries.shape[1], 1)
        for first in range(0, len(who), step):
            part = slice(first, first + step)
            difference = queries[who[part]].astype(dtype, copy=False) - self.vectors[which[part]]
            np.einsum("pd,pd->p", difference, difference, out=out[part])
        return out

    def _best_of_pairs(self, queries: Patches, who: np.ndarray, which: np.ndarray, k: int) -> tuple[Distances, Indices]:
        """Measure the pairs and return each query's k best, ties to the lower index."""
        squared = self._squared(queries, who, which, np.float32)
        best = _first_of_each(who, squared, which, k)
        kth = np.maximum.reduceat(squared[best], np.arange(0, len(best), k))
        close = squared <= (kth * np.float32(1 + 4 * self.slack))[who]  # float32 cannot order these; float64 can
        who, which = who[close], which[close]
        exact = self._squared(queries, who, which, np.float64)
        best = _first_of_each(who, exact, which, k)
        return np.sqrt(exact[best]).astype(np.float32).reshape(-1, k), which[best].reshape(-1, k)


def pruned_dimensions(dimensions: int) -> int:
    """Return r of the bound for vectors of d dimensions, or 0 where the whole product costs no more."""
    if dimensions < 192:
        return 0
    return 128 if dimensions <= 512 else 256


def _first_of_each(who: np.ndarray, squared: np.ndarray, which: np.ndarray, k: int) -> np.ndarray:
    """Return positions of the k smallest pairs of each query, ordered by distance then index; `who` is ascending."""
    order = np.lexsort((which, squared, who))
    starts = np.searchsorted(who, np.arange(who[-1] + 1))
    return order[(starts[:, None] + np.arange(k)).ravel()]
