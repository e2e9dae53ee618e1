"""Measure a picture against a memory bank: distances, the score (eq. 6 and 7), where the nearest patch is.

The judge knows settings and recipe, and no detector: a fit and an update measure pictures by it as well.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from totalrecall.detectors.extents import Extents
from totalrecall.errors import SettingError
from totalrecall.features.patches import cells_inside
from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.settings import SCORING, Settings
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import LearntPicture
from totalrecall.scoring import PatchDistances, cell_sigma, region_level, smooth_distances
from totalrecall.types import Patches

__all__ = ["Judge", "PatchSet", "picture_score", "reweight"]

_SMOOTHED = ("map1pct", "extent")  # scorings of distances that are smoothed like the anomaly map


@dataclass(frozen=True, eq=False)
class PatchSet:
    """A picture's patches inside the region of interest, (n, d), their (row, column), (n, 2), and the grid's shape."""

    patches: Patches
    cells: np.ndarray
    grid: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures pictures against memory banks.

    Attributes:
        settings: the scoring, its neighbours, and the smallest region that counts.
        recipe: how the pictures are prepared.
        extents: what was learnt of the good pictures' distances, for the scoring `extent`; None while a fit measures
            them, and where there were too few.
    """

    settings: Settings
    recipe: Recipe
    extents: Extents | None = None

    @property
    def scoring(self) -> str:
        """The scoring in use: `extent` is `map1pct` where nothing could be learnt of the good pictures' distances."""
        wanted = self.settings.scoring
        return "map1pct" if wanted == "extent" and self.extents is None else wanted

    def measure(self, bank: Bank, picture: PatchSet) -> PatchDistances:
        """Return the distances of a picture's patches to a bank, and its score.

        Raises:
            PictureError: one of them is no finite number.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # `PatchDistances` finds it, and says so
            found, nearest = bank.search.nearest(picture.patches)
            distances, indices = found[:, 0], nearest[:, 0]
            grid = np.zeros(picture.grid, np.float32)
            grid[picture.cells[:, 0], picture.cells[:, 1]] = distances
            score = self._score(grid, picture, indices, bank)
        at, row, column = bank.origin[indices[distances.argmax()]].tolist()
        return PatchDistances(grid, score, (at, row, column))

    def _score(self, grid: np.ndarray, picture: PatchSet, indices: np.ndarray, bank: Bank) -> float:
        """Return a picture's score from its distances (rows, columns) and its nearest bank vectors (p,)."""
        if self.extents is not None and self.scoring == "extent":
            return self.extents.score(grid, picture.cells, self.sigma(grid.shape[0]))
        distances, neighbours = self.scored(grid, picture.cells), self.settings.neighbours
        return _picture_score(distances, indices, picture.patches, bank, scoring=self.scoring, neighbours=neighbours)

    def scored(self, grid: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Return the distances (p,) of the cells (p, 2) that count for the score: corrected, smoothed, as it asks."""
        if self.scoring not in _SMOOTHED:
            return np.asarray(grid[cells[:, 0], cells[:, 1]])
        if self.extents is not None and self.scoring == "extent":
            grid = self.extents.corrected(grid)
        return smooth_distances(grid, cells, self.sigma(grid.shape[0]))

    def sigma(self, rows: int) -> float:
        """Return the sigma of the anomaly map's Gaussian in cells of a grid of so many rows."""
        return cell_sigma(self.recipe, rows)

    def weight(self, grid: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Return by what the patches (p,) bear upon the score: those around a cell that is smoothed, as it does."""
        scored = self.scored(grid, cells)
        if self.scoring not in _SMOOTHED:
            return scored
        around = np.zeros_like(grid)
        around[cells[:, 0], cells[:, 1]] = scored
        return np.asarray(cv2.dilate(around, np.ones((3, 3), np.uint8))[cells[:, 0], cells[:, 1]])

    def score_of_grid(self, grid: np.ndarray, picture: LearntPicture) -> float:
        """Return a picture's score from its grid of distances; without the weight of eq. 7, which needs patches."""
        cells = np.indices(grid.shape).reshape(2, -1).T  # (rows*columns, 2)
        if self.recipe.roi is not None:
            roi = self.recipe.prepared_roi(self.recipe.geometry(picture.height, picture.width))
            inside = cells_inside(roi, (grid.shape[0], grid.shape[1]))
            assert inside is not None
            cells = np.argwhere(inside)
        if self.extents is not None and self.scoring == "extent":
            return self.extents.score(grid, cells, self.sigma(grid.shape[0]))
        return _largest(self.scored(grid, cells), "max" if self.scoring == "paper" else self.scoring)

    def level_of_grid(self, grid: np.ndarray, picture: LearntPicture) -> float:
        """Return the level below which a picture's map shows a region, from its grid of distances."""
        frame = self.recipe.frame(self.recipe.geometry(picture.height, picture.width))
        return region_level(PatchDistances(grid, 0.0).score_and_map(frame)[1], self.settings.min_area)


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
            `map1pct` too, of distances that the caller has smoothed (see `smooth_distances`). `extent` needs what was
            learnt of good pictures: see `extents.Extents`.
        neighbours: b of eq. 7.

    Raises:
        SettingError: unknown scoring, or `extent`.
    """
    SCORING.check("scoring", scoring)
    if scoring == "extent":
        raise SettingError("scoring extent needs good pictures that were measured. Use PatchCore, or Extents.score.")
    return _picture_score(distances, indices, patches, bank, scoring=scoring, neighbours=neighbours)


def _picture_score(
    distances: np.ndarray, indices: np.ndarray, patches: Patches, bank: Bank, *, scoring: str, neighbours: int
) -> float:
    if scoring != "paper":
        return _largest(distances, scoring)
    worst = int(distances.argmax())  # m_test*, eq. 6
    around = bank.neighbours(int(indices[worst]), neighbours)[0]  # N_b(m*), m* itself among them
    difference = bank.vectors[around].astype(np.float64) - patches[worst]
    to_neighbours = np.sqrt(np.einsum("bd,bd->b", difference, difference))
    return reweight(float(distances[worst]), to_neighbours)


def _largest(distances: np.ndarray, scoring: str) -> float:
    """Return the largest distance, or the mean of the largest hundredth."""
    if scoring == "max":
        return float(distances.max())
    count = max(len(distances) // 100, 1)
    return float(np.partition(distances, len(distances) - count)[-count:].mean(dtype=np.float64))


def reweight(score: float, to_neighbours: np.ndarray) -> float:
    """Return s = (1 - exp(s*) / sum of exp(distances to N_b(m*))) s*, eq. 7.

    Where m* has no neighbour but itself the weight would be 0 for every picture; s* is returned then.
    """
    if len(to_neighbours) < 2:
        return score
    largest = to_neighbours.max()  # subtle: exp(100) overflows float32; a common factor cancels
    return float((1 - np.exp(score - largest) / np.exp(to_neighbours - largest).sum()) * score)
