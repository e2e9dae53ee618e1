"""A coreset without some pictures: what is left of it, and the greedy continued where that no longer covers the rest.

A good picture that sets the threshold is scored by a bank that does not know it. To choose such a bank anew among all
patches but a fold's would cost one more coreset a fold. Most of the work was done already: a centre that is not of the
fold covers what it covered before, all patches within the coreset's radius R of it. Only those whose coverer has gone
may be uncovered, and of these most have another centre within R. The greedy goes on among what then remains, until
all of it is within R again, and further until as many were added as have gone, but no finer than 0.97 R.

Only to R, good pictures would score 1 to 2 percent too high: where a centre was, it leaves a hole wider than those
between the greedy's choices. Added one for one they score as new ones do (magnetic tiles) or as with banks chosen anew
(bottle). To know what is within 0.97 R, few centres need to be looked at: a patch is within R of its lost coverer,
so these are within 1.97 R of that.
"""

from functools import partial

import numpy as np

from totalrecall.coreset import Coreset
from totalrecall.threads import one_blas_thread, workers
from totalrecall.types import Matrix, Patches

__all__ = ["AT_ONCE", "refill"]

_NEAREST = 64  # centres that an uncovered patch meets first: most need no more
_MEETING = 512  # at a time then
_LOST = 256  # lost centres whose distances to the others are held at once
AT_ONCE = 8192  # points, at most, that are copied at a time
_FINEST = 0.97  # of the radius; on tiles and bottle as many as have gone are added before


def refill(points: Patches, coreset: Coreset, gone: np.ndarray, never: np.ndarray | None = None) -> np.ndarray:
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


def _uncovered(
    points: Patches, orphans: np.ndarray, coreset: Coreset, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
    points: Patches,
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


def _greedy(points: Patches, left: np.ndarray, bound: np.ndarray, radius: float, count: int) -> np.ndarray:
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
    points: Patches, left: np.ndarray, bound: np.ndarray, radius: float, count: int
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
            apart = points[left[first : first + AT_ONCE]] - points[chosen[-1]]
            part = bound[first : first + AT_ONCE]
            np.minimum(part, np.einsum("nd,nd->n", apart, apart), out=part)
        bound[at] = 0
        rest = bound > finest
        left, bound = left[rest], bound[rest]
    return chosen, left, bound
