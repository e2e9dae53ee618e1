"""What the good pictures' own distances say about a score: where good parts vary, and over what area they look unusual.

The mean of the largest hundredth of the distances, which the score has been until now, has two blind spots. One good
picture with a glare raises the threshold for all, because the score does not know that glare is usual at that place.
And a part that is rusty from edge to edge scores little more than one with a spot, because most of the rust lies
outside the hundredth. Both are mended from what the calibration measures anyway, the distances of each good picture to
a bank without it (leave-one-out):

- **place**: each distance is divided by the square root of the mean leave-one-out distance at that cell of the grid,
  relative to the mean over all cells;
- **extent**: the mean of the largest 0.5, 1, 3 and 10 percent of the distances, as they are, smoothed like the anomaly
  map, and smoothed twice as much, each counted in standard deviations from its mean over the good pictures; the largest
  of the twelve is taken.

Nothing is trained, and no defect is needed. The pictures that set the threshold are scored as new ones are: what is
learnt about place, and what is usual, comes from the other folds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from totalrecall.scoring import smooth_distances

__all__ = [
    "HUNDREDTH",
    "LEAST",
    "SHARES",
    "SMOOTHINGS",
    "Extents",
    "learn_extents",
    "place_of",
    "profile_of",
    "restored_extents",
]

SHARES = (0.005, 0.01, 0.03, 0.1)  # of the patches, largest distances first
SMOOTHINGS = (0.0, 1.0, 2.0)  # times the sigma of the anomaly map's Gaussian
LEAST = 10  # pictures: eight do not tell how much good ones differ, and found 28 instead of 48 of 71 metal plates

HUNDREDTH = (
    len(SHARES) + 1
)  # whose mean and standard deviation give the score its unit: the hundredth, smoothed like the map
_PLACE_LEAST = 8  # pictures: four gave a map of chance, which cost metal plates four points of image AUROC
_PLACE_PRIOR = 5.0  # pictures at which every place is as usual as any other
_PLACE_POWER = 0.5
_PLACE_AT_MOST = 2.0  # times the mean, and its half at least; the seven sets that this was tried on stay within
_PLACE_SIGMA = 4.0  # times the sigma of the anomaly map: two cells at 256 pixels
_GROUPS = 20
_PARTS = ("place", "means", "deviations")


@dataclass(frozen=True, eq=False)
class Extents:
    """What was learnt of the good pictures' leave-one-out distances; an update of the bank does not change it.

    Attributes:
        place: float32 (rows, columns), what the distance at each cell is divided by; 1 is as everywhere.
        means, deviations: float64 (12,), over the good pictures, of what `profile_of` gives.
    """

    place: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a model file holds of it."""
        return {f"extents.{name}": getattr(self, name) for name in _PARTS}

    def checked(self) -> "Extents":
        """Return the same once its parts are known to be usable.

        Raises:
            ValueError: they are not; says which.
        """
        if self.place.ndim != 2 or not (np.isfinite(self.place).all() and (self.place > 0).all()):
            raise ValueError("extents.place (not all above 0)")
        if self.means.shape != (len(SMOOTHINGS) * len(SHARES),) or not np.isfinite(self.means).all():
            raise ValueError("extents.means (wrong shape, or not finite)")
        if self.deviations.shape != self.means.shape or not (
            np.isfinite(self.deviations).all() and (self.deviations > 0).all()
        ):
            raise ValueError("extents.deviations (wrong shape, or not all above 0)")
        return self

    def corrected(self, grid: np.ndarray) -> np.ndarray:
        """Return distances (rows, columns) divided by what is usual at their place."""
        return np.asarray(grid / self.place)

    def score(self, grid: np.ndarray, cells: np.ndarray, sigma: float) -> float:
        """Return the score of a picture from its distances (rows, columns) at the cells (p, 2) that count.

        It is in the unit of the distances: the mean of the largest hundredth, smoothed like the map, that is as
        unusual, in standard deviations, as the picture is in the extent in which it is most unusual.

        Args:
            grid: distances.
            cells: row and column of each patch inside the region of interest.
            sigma: of the anomaly map's Gaussian, in cells.
        """
        profile = profile_of(self.corrected(grid), cells, sigma)
        return float(_scores(profile[None], self.means, self.deviations)[0])


def restored_extents(tensors: Mapping[str, np.ndarray], *, scored: int, wanted: bool) -> Extents | None:
    """Return what a model file holds of it; None where nothing was learnt.

    Args:
        tensors: of the file.
        scored: number of good pictures that set the threshold.
        wanted: the scoring of the model is `extent`.

    Raises:
        ValueError: a part cannot be used, or the threshold was set by what is missing.
    """
    if "extents.place" in tensors:
        return Extents(*(tensors[f"extents.{name}"] for name in _PARTS)).checked()
    if wanted and scored >= LEAST:
        raise ValueError("extents.place is missing: without it pictures score otherwise than the threshold was set")
    return None


def profile_of(grid: np.ndarray, cells: np.ndarray, sigma: float) -> np.ndarray:
    """Return the mean of the largest distances, (12,): for each of `SMOOTHINGS`, for each of `SHARES`, at least one.

    Args:
        grid: distances (rows, columns).
        cells: (p, 2) row and column of each patch that counts.
        sigma: of the anomaly map's Gaussian, in cells.
    """
    means = []
    for times in SMOOTHINGS:
        distances = smooth_distances(grid, cells, times * sigma) if times else grid[cells[:, 0], cells[:, 1]]
        sums = np.cumsum(np.sort(distances)[::-1], dtype=np.float64)
        counts = [max(int(share * len(sums)), 1) for share in SHARES]
        means += [sums[count - 1] / count for count in counts]
    return np.array(means)


def learn_extents(
    grids: np.ndarray, inside: np.ndarray, folds: Sequence[int] | np.ndarray, *, sigma: float
) -> tuple[Extents, np.ndarray] | None:
    """Learn from leave-one-out distances, and score the pictures that they are of.

    Args:
        grids: float32 (n, rows, columns), the distances of good pictures to banks without their fold, 0 outside.
        inside: bool (n, rows, columns), where each picture is judged.
        folds: (n,) the fold of each picture; where all are in one, they are cut into groups.
        sigma: of the anomaly map's Gaussian, in cells.

    Returns:
        What new pictures are scored by, and the scores (n,) of these, each by what the other folds say.
        None of fewer than `LEAST` pictures.
    """
    count = len(grids)
    if count < LEAST:
        return None
    groups = np.asarray(folds)
    if len(np.unique(groups)) < 2:  # pictures of one part mostly follow each other, and share a group
        groups = np.arange(count) * min(_GROUPS, count) // count
    sums, counts = grids.sum(axis=0, dtype=np.float64), inside.sum(axis=0)
    profiles = np.empty((count, len(SMOOTHINGS) * len(SHARES)))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        others = sums - grids[members].sum(axis=0, dtype=np.float64), counts - inside[members].sum(axis=0)
        place = place_of(*others, pictures=count - len(members), sigma=sigma)
        for at in members:
            profiles[at] = profile_of(grids[at] / place, np.argwhere(inside[at]), sigma)
    learnt = Extents(place_of(sums, counts, pictures=count, sigma=sigma), *_usual(profiles))
    return learnt, _scores_by_others(profiles, groups)


def _usual(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations (12,) over good pictures of what `profile_of` gives, (n, 12)."""
    means = profiles.mean(axis=0)
    return means, np.maximum(profiles.std(axis=0, ddof=1), 1e-3 * means.max() + 1e-12)  # of equal pictures they are 0


def _scores_by_others(profiles: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the score (n,) of each good picture by means and deviations of the other groups: as a new one is scored.

    A picture that counts in the deviation that it is measured by seems less unusual than it would be as a new one: the
    more it stands out in one of the twelve extents alone, the more so. No factor mends that, because it depends on how
    alike the twelve are: were they one, the order of the pictures would need none.

    subtle: what is compared with new pictures is the score in the unit of distances. Standard scores by different means
    and deviations have different units: one odd picture is at fifty of the others' deviations, and so large a deviation
    no longer exists for new pictures once it counts itself. In the unit of distances it is where it was.
    """
    scores = np.empty(len(profiles))
    for group in np.unique(groups):
        members = groups == group
        scores[members] = _scores(profiles[members], *_usual(profiles[~members]))
    return scores


def _scores(profiles: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Return scores (n,) from what `profile_of` gives (n, 12).

    A score is never below the picture's own hundredth, and so never below 0, as no distance is; rounding could be.
    """
    unusual = ((profiles - means) / deviations).max(axis=1)
    return np.maximum(means[HUNDREDTH] + deviations[HUNDREDTH] * unusual, 0.0)


def place_of(sums: np.ndarray, counts: np.ndarray, *, pictures: int, sigma: float) -> np.ndarray:
    """Return what the distance at each cell is divided by, float32 (rows, columns).

    Args:
        sums: (rows, columns) of the distances of good pictures.
        counts: (rows, columns) of the pictures that each cell is inside of.
        pictures: how many there are.
        sigma: of the anomaly map's Gaussian, in cells.
    """
    total = sums.sum()
    if pictures < _PLACE_LEAST or total <= 0:
        return np.ones(sums.shape, np.float32)
    overall = total / counts.sum()
    relative = (sums / overall + _PLACE_PRIOR) / (counts + _PLACE_PRIOR)
    seen = (counts > 0).astype(np.float64)
    wide = _PLACE_SIGMA * sigma
    side = 2 * math.ceil(3 * wide) + 1

    def blurred(values: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.GaussianBlur(values, (side, side), wide, borderType=cv2.BORDER_REFLECT))

    smoothed = blurred(relative * seen) / np.maximum(blurred(seen), 1e-6)  # averages over the inside only
    smoothed = np.clip(np.where(seen > 0, smoothed, 1.0), 1 / _PLACE_AT_MOST, _PLACE_AT_MOST)
    return np.asarray(smoothed**_PLACE_POWER, np.float32)
