"""Measure a picture against a memory bank: distances, the score (eq. 6 and 7), where the nearest patch is."""

from dataclasses import dataclass

import numpy as np

from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.settings import SCORING
from totalrecall.types import Patches

__all__ = ["PatchSet", "picture_score", "reweight"]


@dataclass(frozen=True, eq=False)
class PatchSet:
    """A picture's patches inside the region of interest, (n, d), their (row, column), (n, 2), and the grid's shape."""

    patches: Patches
    cells: np.ndarray
    grid: tuple[int, int]


def picture_score(
    distances: np.ndarray,
    indices: np.ndarray,
    patches: Patches,
    bank: Bank,
    *,
    scoring: str = "max",
    neighbours: int = 9,
) -> float:
    """Return the score of one picture from its patches' distances to the bank.

    Args:
        distances: (p,) from each patch to its nearest bank vector.
        indices: (p,) those bank vectors.
        patches: (p, d) the patches themselves.
        bank: the memory bank, for `paper`.
        scoring: `max` is s* of eq. 6; `paper` weighs it by eq. 7; `top1pct` is the mean of the largest hundredth, and
            `map1pct` too, of distances that the caller has smoothed (see `smooth_distances`).
        neighbours: b of eq. 7.

    Raises:
        SettingError: unknown scoring.
    """
    SCORING.check("scoring", scoring)
    worst = int(distances.argmax())  # m_test*, eq. 6
    if scoring == "max":
        return float(distances[worst])
    if scoring in ("top1pct", "map1pct"):
        count = max(len(distances) // 100, 1)
        return float(np.partition(distances, len(distances) - count)[-count:].mean(dtype=np.float64))
    around = bank.neighbours(int(indices[worst]), neighbours)[0]  # N_b(m*), m* itself among them
    difference = bank.vectors[around].astype(np.float64) - patches[worst]
    to_neighbours = np.sqrt(np.einsum("bd,bd->b", difference, difference))
    return reweight(float(distances[worst]), to_neighbours)


def reweight(score: float, to_neighbours: np.ndarray) -> float:
    """Return s = (1 - exp(s*) / sum of exp(distances to N_b(m*))) s*, eq. 7.

    Where m* has no neighbour but itself the weight would be 0 for every picture; s* is returned then.
    """
    if len(to_neighbours) < 2:
        return score
    largest = to_neighbours.max()  # subtle: exp(100) overflows float32; a common factor cancels
    return float((1 - np.exp(score - largest) / np.exp(to_neighbours - largest).sum()) * score)
