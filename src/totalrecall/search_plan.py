"""Which levels a search should go down: measured on the bank itself and on patches that it has not seen.

What is measured is work, not time: how many pairs each level leaves on real queries, priced in multiplications. So the
same fit gives the same model file, and a model fitted on one machine serves on another. The prices were measured on an
AMD EPYC (Zen 4); between machines they differ less than the plans do.
"""

from collections.abc import Sequence

import numpy as np

from totalrecall.search import principal_basis
from totalrecall.types import Matrix, Patches

__all__ = ["choose_levels"]

_PLANS: tuple[tuple[int, ...], ...] = ((), (96,), (64, 192), (96, 256))
_QUERIES = 64  # that the levels are tried on
_VECTORS = 1 << 14  # of the bank that they are tried on: in a larger one the same plan wins, by more
_BLOCK = 16  # of them at a time
# Prices in multiplications of a matrix product, 0.023 ns each:
_PASS = 15  # one bound looked at
_GATHERED = 25  # one number of a pair gathered and multiplied
_STEP = 40_000  # what the calls of a level cost a query, whatever they do
_CROWDED = 1 / 32  # as in `search`


def choose_levels(vectors: Matrix, queries: Patches) -> tuple[int, ...]:
    """Return the levels, for `search.ExactSearch`, that find the nearest of `vectors` with the least work.

    Args:
        vectors: (m, d) the bank.
        queries: (q, d) patches like those to come, none of them in the bank; a few dozen, spread evenly, are used.
    """
    if len(vectors) > _VECTORS:
        vectors = vectors[np.linspace(0, len(vectors) - 1, _VECTORS).astype(int)]
    m, d = vectors.shape
    plans = [plan for plan in _PLANS if not plan or plan[-1] < d]
    if len(plans) == 1 or not len(queries):
        return plans[0]
    queries = queries[np.linspace(0, len(queries) - 1, min(_QUERIES, len(queries))).astype(int)]
    widths = sorted({width for plan in plans for width in plan})
    left = _left_by_bounds(vectors, queries, widths)
    prices = {plan: _price(plan, left, m, d) for plan in plans}
    return min(plans, key=lambda plan: prices[plan])


def _left_by_bounds(vectors: Matrix, queries: Patches, widths: Sequence[int]) -> dict[int, np.ndarray]:
    """Return for each width how many vectors its bound leaves of each query (q,)."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    basis = principal_basis(vectors, widths[-1])
    coordinates, norms = _coordinates(vectors, mean, basis)
    found: dict[int, list[np.ndarray]] = {width: [] for width in widths}
    for first in range(0, len(queries), _BLOCK):
        own, lengths = _coordinates(queries[first : first + _BLOCK], mean, basis)
        nearest: np.ndarray | None = None
        for width in reversed(widths):  # the widest first: it points at the nearest best
            rest = np.outer(_rest(own, lengths, width), _rest(coordinates, norms, width))
            bound = norms - 2 * (own[:, :width] @ coordinates[:, :width].T + rest)
            if nearest is None:
                difference = queries[first : first + _BLOCK] - vectors[bound.argmin(axis=1)]
                nearest = np.einsum("qd,qd->q", difference, difference) - lengths
            found[width].append((bound <= nearest[:, None]).sum(axis=1))
    return {width: np.concatenate(counts) for width, counts in found.items()}


def _coordinates(vectors: Matrix, mean: np.ndarray, basis: Matrix) -> tuple[Matrix, np.ndarray]:
    centred = vectors - mean
    return centred @ basis, np.einsum("nd,nd->n", centred, centred)


def _rest(coordinates: Matrix, norms: np.ndarray, width: int) -> np.ndarray:
    kept = np.einsum("nr,nr->n", coordinates[:, :width], coordinates[:, :width])
    return np.sqrt(np.maximum(norms - kept, 0))


def _price(plan: tuple[int, ...], left: dict[int, np.ndarray], m: int, d: int) -> float:
    """Return the mean price of a query."""
    whole = m * (d + 1 + _PASS) + _STEP
    if not plan:
        return whole
    first = left[plan[0]]
    price = _STEP + d * plan[-1] + m * (plan[0] + 2 + _PASS) + d * _GATHERED  # and the best guess measured
    crowded = first > _CROWDED * m
    last = np.where(crowded, 0, first)
    if len(plan) == 1:
        return float(np.mean(price + crowded * whole + last * d * _GATHERED))
    second = left[plan[1]]
    again = m * (plan[1] + 2 + _PASS)
    stuck = second > _CROWDED * m
    pairs = last * (plan[1] + 2) * _GATHERED + _STEP + d * _GATHERED
    return float(np.mean(price + pairs + crowded * again + stuck * whole + ~stuck * second * d * _GATHERED))
