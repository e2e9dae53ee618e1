"""Which pictures show the same part, photographed again, perhaps in another light.

Each part has a surface of its own: grain, scratches, marks. We compare the patches at the same places of two pictures.
The patches of each picture are scaled to the same mean and spread (this removes light and contrast), and what all
pictures have at a place is subtracted (this removes the shape). Photographs of the same magnetic tile, cut out by hand
under six lights, then have a cosine of 0.5 to 0.95; photographs of two tiles have a cosine of 0 +- 0.1. Parts that are
shifted or turned in front of the camera, such as boards and rings, are alike where they lie alike, so the limit grows
with the spread of the middle: where that is large, no two pictures are said to show the same part. Nor are pictures
that are like a quarter of all others, or like more than 20: these are of one kind, or of one pose.

Patches are compared in a sketch (feature hashing, Weinberger et al., ICML 2009), which errs by 0.02 in the cosine.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from totalrecall.types import Matrix, Patches

__all__ = ["SKETCH", "part_numbers", "same_part", "surface"]

_BINS = 16  # places along each side of the grid
_DIRECTIONS = 64  # drawn at random: no more is needed than that they are the same for all pictures
SKETCH = 2048  # numbers kept a picture
_SEED = 8  # any does
_SIGNS = np.random.default_rng(_SEED).choice(np.array([-1, 1], np.float32), _BINS**2 * _DIRECTIONS)
_LEAST = 8  # pictures: of fewer nothing is usual
_SAMPLED = 1000  # pictures whose pairs say what is usual
_COSINE = 0.55  # of the same part, at least
_DEVIATIONS = 5.0  # above the middle, at least
_TENTH = 1.2816  # standard deviations below the mean, of a normal distribution
_MOST = (20, 0.25)  # photographs of one part, and share of all pictures: more are of a kind, or of a pose
_ROUNDING = 1e-5  # of a patch's length: float32 products err by a tenth of this


def surface(patches: Patches, cells: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return a sketch that distinguishes parts, float32 (2048,); zeros where all patches of a picture are the same.

    Args:
        patches: (p, d).
        cells: (p, 2) row and column of each.
        grid: rows and columns of the patch grid.
    """
    bins = (cells[:, 0] * _BINS // grid[0]) * _BINS + cells[:, 1] * _BINS // grid[1]
    places = np.unique(bins)
    member = (bins == places[:, None]).astype(np.float32)  # (places, p)
    member /= member.sum(axis=1, keepdims=True)
    means = member @ (patches @ _directions(patches.shape[1]))  # (places, p) @ ((p, d) @ (d, 64))
    if len(places):
        means -= means.mean(axis=0)
        spread = means.std(axis=0)
        # some processors round a product's rows differently, so patches that are all the same spread a little
        rounding = _ROUNDING * np.linalg.norm(patches, axis=1).max()
        means = np.divide(means, spread, out=np.zeros_like(means), where=spread > rounding)
    whole = np.zeros((_BINS**2, _DIRECTIONS), np.float32)
    whole[places, : means.shape[1]] = means
    return np.asarray((whole.ravel() * _SIGNS).reshape(-1, SKETCH).sum(axis=0))


@cache
def _directions(dimensions: int) -> Matrix:
    """Return up to 64 orthonormal directions, float32 (d, 64)."""
    drawn = np.random.default_rng(_SEED).normal(size=(dimensions, min(dimensions, _DIRECTIONS)))
    return np.linalg.qr(drawn)[0].astype(np.float32)


def same_part(surfaces: Matrix, *, rows: int = 1024) -> list[np.ndarray]:
    """Return of each picture those that show the same part: their numbers, ascending, its own among them.

    Args:
        surfaces: (n, 2048) from `surface`.
        rows: pictures compared with all at a time.
    """
    count = len(surfaces)
    if count < _LEAST:
        return [np.array([at]) for at in range(count)]
    units = surfaces - surfaces.mean(axis=0)
    lengths = np.linalg.norm(units, axis=1, keepdims=True)
    units = np.divide(units, lengths, out=np.zeros_like(units), where=lengths > 0)
    limit = _limit(units)
    alike_to = []
    for first in range(0, count, rows):
        alike = units[first : first + rows] @ units.T  # (rows, f) @ (f, n)
        places = np.arange(len(alike))
        alike[places, first + places] = np.inf
        alike_to += [np.flatnonzero(row > limit) for row in alike]
    most = min(_MOST[0], _MOST[1] * count)
    return [group if len(group) <= most else np.array([at]) for at, group in enumerate(alike_to)]


def part_numbers(linked: Sequence[np.ndarray]) -> np.ndarray:
    """Return of each picture the number of the part that it shows, int (n,), from 0: the first picture's is 0.

    Photographs that are linked by others of the part show the same, too.

    Args:
        linked: from `same_part`.
    """
    numbers = np.full(len(linked), -1)
    for first in range(len(linked)):
        if numbers[first] >= 0:
            continue
        number, waiting = numbers.max() + 1, [first]
        while waiting:
            at = waiting.pop()
            if numbers[at] < 0:
                numbers[at] = number
                waiting += linked[at].tolist()
    return numbers


def _limit(units: Matrix) -> float:
    """Return the cosine above which two pictures show the same part.

    The width is taken from the middle to the lowest tenth: the same part's pairs are all on the other side.
    """
    sample = units
    if len(units) > _SAMPLED:
        sample = units[np.random.default_rng(_SAMPLED).choice(len(units), _SAMPLED, replace=False)]
    pairs = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
    low, middle = np.quantile(pairs, [0.1, 0.5])
    return max(_COSINE, float(middle + _DEVIATIONS * (middle - low) / _TENTH))
