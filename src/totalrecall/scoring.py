"""Distances of a picture's patches -> its score, its anomaly map in original pixels, and the regions that stand out.

All distances are Euclidean, bigger is more anomalous. (The authors' code reports squared distances.)
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from totalrecall.bank import Bank
from totalrecall.errors import SettingError
from totalrecall.images import Geometry
from totalrecall.types import AnomalyMap, Mask, Patches, PreparedMap, PreparedMask

__all__ = [
    "SCORINGS",
    "Region",
    "anomaly_map",
    "find_regions",
    "marked_regions",
    "picture_score",
    "region_level",
    "reweight",
    "smooth_distances",
    "smoothing_sigma",
]

SCORINGS = ("max", "paper", "top1pct", "map1pct")


@dataclass(frozen=True)
class Region:
    """A connected area of the anomaly map that is marked, in original pixels: see `marked_regions`.

    Attributes:
        x, y: left and top of its box.
        width, height: size of its box.
        area: number of its pixels.
        peak: its largest value in the map (Euclidean distance).
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float


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
    if scoring not in SCORINGS:
        raise SettingError(f"scoring must be one of {', '.join(SCORINGS)}, got {scoring!r}.")
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


def smooth_distances(grid: np.ndarray, cells: np.ndarray, sigma: float) -> np.ndarray:
    """Return the distances (p,) of patches after the anomaly map's Gaussian, taken on the patch grid.

    A defect is rarely one patch wide, and the noise of single patches averages out; so the picture's score is taken of
    what the map shows.

    Args:
        grid: (rows, columns) distances.
        cells: (p, 2) the row and column of each patch; other cells neither count nor come back.
        sigma: of the Gaussian, in cells.
    """
    inside = np.zeros(grid.shape, np.float32)
    inside[cells[:, 0], cells[:, 1]] = 1
    smoothed = _smooth(grid.astype(np.float32) * inside, sigma) / np.maximum(_smooth(inside, sigma), 1e-6)
    return np.asarray(smoothed[cells[:, 0], cells[:, 1]])


def anomaly_map(grid: np.ndarray, geometry: Geometry, *, roi: PreparedMask | None = None) -> AnomalyMap:
    """Return the anomaly map in original pixels, float32 (h, w), from distances on the patch grid (rows, columns).

    Bilinear to the prepared size, Gaussian, then back through the geometry that prepared the picture.

    Args:
        grid: distances, 0 outside the region of interest.
        geometry: of the picture.
        roi: region of interest on the prepared picture.
    """
    prepared = cv2.resize(grid.astype(np.float32), geometry.prepared[::-1], interpolation=cv2.INTER_LINEAR)
    sigma = smoothing_sigma(min(geometry.prepared))
    if roi is None:
        return geometry.map_to_original(_smooth(prepared, sigma))
    # Averages over the inside only, or the zeros outside would hide a defect at the region's border.
    weight = roi.astype(np.float32)
    inside = _smooth(prepared * weight, sigma) / np.maximum(_smooth(weight, sigma), 1e-6)
    return geometry.map_to_original(inside * weight)


def smoothing_sigma(side: int) -> float:
    """Return the Gaussian's sigma in prepared pixels: 4 from 224 to 256 (the paper's), in proportion beyond."""
    return 4.0 * min(side / 224, 1.0) if side < 256 else 4.0 * side / 256


def _smooth(values: PreparedMap, sigma: float) -> PreparedMap:
    size = 2 * round(4 * sigma) + 1  # cut at 4 sigma, mirrored at the edge: scipy.ndimage.gaussian_filter's defaults
    return cv2.GaussianBlur(values, (size, size), sigma, borderType=cv2.BORDER_REFLECT)


def region_level(values: AnomalyMap, min_area: int = 1) -> float:
    """Return the level below which the map shows a region of at least so many pixels (8 neighbours).

    At a threshold of this level or above `find_regions` finds none, at any below it at least one. With an area of one
    pixel it is the largest value; otherwise it is found by halving, over the values that the map holds. -inf where the
    whole picture is smaller than that area.
    """
    if min_area <= 1:
        return float(values.max())
    levels = np.unique(values)
    low, high = 0, len(levels) - 1  # at `high` nothing is above
    if not _shows(values, -math.inf, min_area):
        return -math.inf
    while low < high:
        middle = (low + high) // 2
        if _shows(values, float(levels[middle]), min_area):
            low = middle + 1
        else:
            high = middle
    return float(levels[low])


def _shows(values: AnomalyMap, threshold: float, min_area: int) -> bool:
    above = (values > threshold).astype(np.uint8)
    if np.count_nonzero(above) < min_area:
        return False
    stats = cv2.connectedComponentsWithStats(above, connectivity=8)[2]
    return bool((stats[1:, cv2.CC_STAT_AREA] >= min_area).any())


def find_regions(values: AnomalyMap, threshold: float, *, min_area: int = 1) -> list[Region]:
    """Return the connected areas (8 neighbours) above the threshold, the highest peak first; none if it is nan."""
    return _areas(values, values > threshold, min_area)


def marked_regions(
    values: AnomalyMap,
    threshold: float,
    *,
    min_area: int = 1,
    inside: Mask | None = None,
) -> list[Region]:
    """Return the regions of a picture that is anomalous: at least one, and one of them holds the map's largest value.

    They are those above the threshold. Where none of these holds the largest value (the picture's threshold and the
    pixels' are two, set by two properties of good pictures), the area around it is marked too: what is connected with
    it above the middle between the map's median and its largest value. It is let grow to the smallest area that counts,
    as far as the picture has so many pixels.

    Args:
        values: the anomaly map, which is finite.
        threshold: above which pixels are marked; nan marks the area around the largest value alone.
        min_area: pixels that a region must have.
        inside: where the picture was judged; all of it if None.
    """
    regions = find_regions(values, threshold, min_area=min_area)
    seen = np.ones(values.shape, bool) if inside is None or not inside.any() else inside
    at = np.unravel_index(int(np.where(seen, values, -np.inf).argmax()), values.shape)
    peak = float(values[at])
    if any(region.peak >= peak for region in regions):
        return regions
    area = _around(values, seen, (int(at[0]), int(at[1])), min_area)
    (worst,) = _areas(values, area, 1)
    return [worst, *_areas(values, (values > threshold) & ~area, min_area)]


def _around(values: AnomalyMap, seen: Mask, at: tuple[int, int], min_area: int) -> Mask:
    """Return the area around the largest value that `marked_regions` marks."""
    within = values[seen]
    middle = (float(np.median(within)) + float(values[at])) / 2
    area = _connected(values >= middle, seen, at)
    if np.count_nonzero(area) >= min_area:
        return area
    levels = np.unique(within[within <= middle])
    low, high = 0, max(len(levels) - 1, 0)  # the highest level that gives the area wanted; the lowest if none does
    if not len(levels):
        return area
    while low < high:
        half = (low + high + 1) // 2
        if np.count_nonzero(_connected(values >= levels[half], seen, at)) >= min_area:
            low = half
        else:
            high = half - 1
    return _connected(values >= levels[low], seen, at)


def _connected(above: Mask, seen: Mask, at: tuple[int, int]) -> Mask:
    """Return what of a marked area is connected (8 neighbours) with one of its pixels."""
    labels = cv2.connectedComponents((above & seen).astype(np.uint8), connectivity=8)[1]
    return np.asarray(labels == labels[at])


def _areas(values: AnomalyMap, marked: Mask, min_area: int) -> list[Region]:
    """Return the connected areas (8 neighbours) of what is marked, the highest peak first."""
    above = marked.astype(np.uint8)
    if not above.any():
        return []
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    regions = []
    for label, (x, y, width, height, area) in enumerate(stats.tolist()[1:], start=1):
        if area < min_area:
            continue
        box = (slice(y, y + height), slice(x, x + width))
        peak = float(values[box][labels[box] == label].max())
        regions.append(Region(x, y, width, height, area, peak))
    return sorted(regions, key=lambda region: -region.peak)
