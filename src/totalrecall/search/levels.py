"""In how many dimensions a search should bound: measured on the bank itself and on patches that it has not seen.

What is measured is work, not time: how many vectors each bound leaves on real queries, priced in multiplications. So
the same fit gives the same model file, and a model fitted on one machine serves on another. The prices were measured on
two cores of an AMD EPYC (Zen 5); between machines they differ less than the plans do.
"""

from collections.abc import Sequence

import numpy as np

from totalrecall.system.threads import one_blas_thread
from totalrecall.types import Matrix, Patches

__all__ = ["choose_levels", "default_levels", "principal_basis"]

_SAMPLE = 4096  # bank vectors that the basis is fitted to


def default_levels(dimensions: int) -> tuple[int, ...]:
    """Return the dimensions of the bounds for vectors of d dimensions where nothing was measured; none is all d."""
    return (192,) if dimensions >= 256 else ()


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


_WIDTHS = (59, 91, 123, 187, 251)  # of a bound, which takes 5 numbers more, and whole steps of 32; or all dimensions
_QUERIES = 64  # that they are tried on
_VECTORS = 1 << 14  # of the bank that they are tried on: in a larger one the same plan wins, by more
_BLOCK = 16  # queries at a time
# Prices in multiplications of the bounds' product, 3 ps each:
_BOUND = 150  # one bound written and looked at
_PROJECTED = 1.6  # one multiplication of a query's coordinates, in float32
_GATHERED = 220  # one number of a pair gathered and measured; rounding leaves a few pairs more than are counted here


def choose_levels(vectors: Matrix, queries: Patches) -> tuple[int, ...]:
    """Return the dimensions, for `exact.ExactSearch`, that find the nearest of `vectors` with the least work.

    Args:
        vectors: (m, d) the bank.
        queries: (q, d) patches like those to come, none of them in the bank; a few dozen, spread evenly, are used.

    Returns:
        one number, or none for all d dimensions.
    """
    if len(vectors) > _VECTORS:
        vectors = vectors[np.linspace(0, len(vectors) - 1, _VECTORS).astype(int)]
    m, d = vectors.shape
    widths = [width for width in _WIDTHS if width < d]
    if not widths or not len(queries):
        return ()
    queries = queries[np.linspace(0, len(queries) - 1, min(_QUERIES, len(queries))).astype(int)]
    left = _left_by_bounds(vectors, queries, widths)
    prices: dict[tuple[int, ...], float] = {(): m * (d + _BOUND)}
    for width in widths:
        pairs = float(np.mean(left[width]))
        prices[(width,)] = m * (width + _BOUND) + d * width * _PROJECTED + pairs * d * _GATHERED
    return min(prices, key=lambda plan: prices[plan])


def _left_by_bounds(vectors: Matrix, queries: Patches, widths: Sequence[int]) -> dict[int, np.ndarray]:
    """Return for each width how many vectors its bound leaves of each query (q,)."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    basis = principal_basis(vectors, widths[-1])
    coordinates, norms = _coordinates(vectors, mean, basis)
    left: dict[int, list[np.ndarray]] = {width: [] for width in widths}
    for first in range(0, len(queries), _BLOCK):
        projected, lengths = _coordinates(queries[first : first + _BLOCK], mean, basis)
        nearest: np.ndarray | None = None
        for width in reversed(widths):  # the widest first: it points at the nearest best
            rest = np.outer(_rest(projected, lengths, width), _rest(coordinates, norms, width))
            bound = norms - 2 * (projected[:, :width] @ coordinates[:, :width].T + rest)
            if nearest is None:
                difference = queries[first : first + _BLOCK] - vectors[bound.argmin(axis=1)]
                nearest = np.einsum("qd,qd->q", difference, difference) - lengths
            left[width].append((bound <= nearest[:, None]).sum(axis=1))
    return {width: np.concatenate(counts) for width, counts in left.items()}


def _coordinates(vectors: Matrix, mean: np.ndarray, basis: Matrix) -> tuple[Matrix, np.ndarray]:
    centred = vectors - mean
    return centred @ basis, np.einsum("nd,nd->n", centred, centred)


def _rest(coordinates: Matrix, norms: np.ndarray, width: int) -> np.ndarray:
    inside = np.einsum("nr,nr->n", coordinates[:, :width], coordinates[:, :width])
    return np.sqrt(np.maximum(norms - inside, 0))
