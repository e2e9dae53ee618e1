"""Distances of a picture's patches -> its score, its anomaly map in original pixels, and the regions that stand out.

All distances are Euclidean, bigger is more anomalous. (The authors' code reports squared distances.)
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np

from totalrecall.drift.conditions import Conditions
from totalrecall.errors import PictureError
from totalrecall.pictures.geometry import Frame, Geometry, Recipe
from totalrecall.pictures.loading import read_image
from totalrecall.system.text import counted
from totalrecall.types import AnomalyMap, Image, Mask, PreparedMap, PreparedMask

__all__ = [
    "Measurement",
    "NearestPatch",
    "PatchDistances",
    "Region",
    "Result",
    "anomaly_map",
    "cell_sigma",
    "find_regions",
    "judged",
    "marked_regions",
    "region_level",
    "regions_of",
    "smooth",
    "smooth_distances",
    "smoothing_sigma",
    "verdict_in_words",
]


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
    smoothed = smooth(grid.astype(np.float32) * inside, sigma) / np.maximum(smooth(inside, sigma), 1e-6)
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
        return geometry.map_to_original(smooth(prepared, sigma))
    # Averages over the inside only, or the zeros outside would hide a defect at the region's border.
    weight = roi.astype(np.float32)
    inside = smooth(prepared * weight, sigma) / np.maximum(smooth(weight, sigma), 1e-6)
    return geometry.map_to_original(inside * weight)


def smoothing_sigma(side: int) -> float:
    """Return the Gaussian's sigma in prepared pixels: 4 from 224 to 256 (the paper's), in proportion beyond."""
    return 4.0 * min(side / 224, 1.0) if side < 256 else 4.0 * side / 256


def cell_sigma(recipe: Recipe, rows: int) -> float:
    """Return the sigma of the anomaly map's Gaussian in cells of a grid of so many rows."""
    side = recipe.piece * recipe.tile  # of a prepared picture
    return smoothing_sigma(side) * rows / side


def smooth(values: PreparedMap, sigma: float) -> PreparedMap:
    """Return a map after the Gaussian of the anomaly map; sigma in its own cells."""
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


def regions_of(
    values: AnomalyMap, frame: Frame, threshold: float, is_anomalous: bool | None, *, min_area: int = 1
) -> list[Region]:
    """Return what is marked on the map of a picture: of an anomalous one always its worst place."""
    if is_anomalous is not True:
        return find_regions(values, threshold, min_area=min_area)
    inside = np.zeros(values.shape, bool)
    inside[frame.geometry.seen] = True
    if frame.original_roi is not None:
        inside &= frame.original_roi
    return marked_regions(values, threshold, min_area=min_area, inside=inside)


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
    left, top, columns, rows = cv2.boundingRect(above)
    if not rows:
        return []
    # in their common box alone: most of a picture is good. It begins at even places, because OpenCV numbers areas by
    # blocks of 2 x 2, and of areas with the same peak the first comes first
    around = slice(top & ~1, top + rows), slice(left & ~1, left + columns)
    values, (top, left) = values[around], (around[0].start, around[1].start)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above[around], connectivity=8)
    regions = []
    for label, (x, y, width, height, area) in enumerate(stats.tolist()[1:], start=1):
        if area < min_area:
            continue
        box = (slice(y, y + height), slice(x, x + width))
        peak = float(values[box][labels[box] == label].max())
        regions.append(Region(left + x, top + y, width, height, area, peak))
    return sorted(regions, key=lambda region: -region.peak)


@dataclass(frozen=True, eq=False)
class PatchDistances:
    """What a model says of one picture; every score of a picture, at a fit too, comes from here.

    Attributes:
        grid: float32 (rows, columns), the distance at each position, 0 outside the region of interest.
        score: of the picture; None where it is the largest value of its anomaly map.
        nearest: picture, row and column of the good patch nearest to the worst one; None where there is no such patch.

    Raises:
        PictureError: the score or one of the distances is no finite number, of which no verdict can be given.
    """

    grid: np.ndarray
    score: float | None = None
    nearest: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        score = 0.0 if self.score is None else self.score
        if not math.isfinite(score) or not np.isfinite(self.grid).all():
            raise PictureError(
                f"its score is not a finite number (got {score if not math.isfinite(score) else math.nan:g}), so there "
                "is no verdict. Look at the picture; if others fail too, at the backbone and --precision f32."
            )

    @property
    def worst_cell(self) -> tuple[int, int]:
        """Row and column of the largest distance."""
        row, column = divmod(int(self.grid.argmax()), self.grid.shape[1])
        return row, column

    def score_and_map(self, frame: Frame) -> tuple[float, AnomalyMap]:
        """Return the picture's score and its map in original pixels, 0 outside the region of interest."""
        full_map = anomaly_map(self.grid, frame.geometry, roi=frame.prepared_roi)
        if frame.original_roi is not None:
            full_map = full_map * frame.original_roi
        return float(full_map.max()) if self.score is None else self.score, full_map


@dataclass(frozen=True)
class NearestPatch:
    """The good patch that the picture's worst patch was nearest to: its picture, and its centre in original pixels."""

    path: str
    x: int
    y: int


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a detector measures of one picture, before any verdict.

    Attributes:
        score: bigger is more anomalous.
        anomaly_map: float32 (h, w), original pixels, 0 outside the region of interest.
        mean_distance: of its patches.
        largest_distance: of a patch; `worst` is that patch's centre, x and y in original pixels.
        nearest: the good patch nearest to the worst one; None where there is no such patch.
        frame: of the picture, as the detector prepares it.
    """

    score: float
    anomaly_map: AnomalyMap
    mean_distance: float
    largest_distance: float
    worst: tuple[int, int]
    nearest: NearestPatch | None
    frame: Frame


def judged(score: float, threshold: float) -> bool | None:
    """Return the verdict on a score; None where there is no threshold, or no score, to compare."""
    return bool(score > threshold) if math.isfinite(threshold) and math.isfinite(score) else None


def verdict_in_words(is_anomalous: bool | None) -> str:
    """Return a verdict as a word: `defect`, `good` or `no verdict`."""
    if is_anomalous is None:
        return "no verdict"
    return "defect" if is_anomalous else "good"


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Three layers of judgement, kept apart: the raw score, what good pictures score, the verdict.

    Examples:
        >>> from totalrecall import PatchCore
        >>> result = PatchCore.load("part.trecall").predict("part.png")
        >>> result
        <Result part.png: defect, score ..., threshold ..., p-value ..., 1 region>
        >>> result.anomaly_map.shape
        (96, 96)

    Attributes:
        path: of the picture, or `array[i]`.
        score: Euclidean distance units, bigger is more anomalous. (PaDiM: Mahalanobis, standard deviations; of several
            banks: standard deviations of the good pictures' scores.)
        threshold: of the detector; nan if it is not calibrated.
        is_anomalous: score > threshold; None where there is no threshold, which is no verdict. Ask `is True` or
            `is False`: None is neither.
        p_value: share of good pictures expected to score at least this high; nan if not calibrated.
        anomaly_map: float32 (h, w), original pixels, in the units of such distances.
        regions: connected areas of the map above the pixel threshold, highest peak first, original pixels. Of an
            anomalous picture one of them always holds the map's largest value (see `scoring.marked_regions`). A good
            picture may have some: the verdict depends on the score alone.
        nearest: where in the good pictures the worst patch's nearest neighbour lies; None for PaDiM, which has none.
        milliseconds: wall time; in a stream, since the result before it.
        geometry: how the picture was prepared.
        conditions: how it was taken, for `Monitor`; None unless asked for.
        pixel_threshold: map value above which regions are marked; nan if there is none.
        recipe: of the detector, for its region of interest.
        picture: original pixels of a picture that was given in memory; a file is read again where it is drawn.
        worst: x and y of the worst patch's centre, original pixels: the one that `nearest` is nearest to.
    """

    path: str
    score: float
    threshold: float
    is_anomalous: bool | None
    p_value: float
    anomaly_map: AnomalyMap = field(repr=False)
    regions: list[Region]
    nearest: NearestPatch | None
    milliseconds: float
    geometry: Geometry = field(repr=False)
    conditions: Conditions | None = field(default=None, repr=False)
    worst: tuple[int, int] | None = None
    pixel_threshold: float = math.nan
    recipe: Recipe | None = field(default=None, repr=False)
    picture: Image | None = field(default=None, repr=False)

    @property
    def verdict(self) -> str:
        """The verdict in words: `defect`, `good` or `no verdict`."""
        return verdict_in_words(self.is_anomalous)

    def __repr__(self) -> str:
        limit = f"threshold {self.threshold:.4g}" if math.isfinite(self.threshold) else "no threshold"
        p_value = f", p-value {self.p_value:.2g}" if math.isfinite(self.p_value) else ""
        marked = counted(len(self.regions), "region")
        return f"<Result {self.path}: {self.verdict}, score {self.score:.4g}, {limit}{p_value}, {marked}>"

    def overlay(
        self, picture: Image | None = None, *, title: str | None = None, truth: Mask | None = None
    ) -> np.ndarray:  # subtle: not `Image`, whose height and width are those of the picture
        """Return the picture with its heat map, regions, score and verdict drawn, uint8 RGB (height, width, 3).

        Args:
            picture: original pixels; read again from its file, or kept from memory, if not given.
            title: a line under the verdict; the file's name if not given.
            truth: where a person marked the defect, in the picture's pixels.

        Raises:
            PictureError: the file cannot be read any more, or is another picture now.

        Examples:
            >>> from totalrecall import PatchCore
            >>> picture = PatchCore.load("part.trecall").predict("part.png").overlay(title="the worst part of today")
            >>> picture.dtype, picture.ndim
            (dtype('uint8'), 3)
        """
        from totalrecall.pictures.overlay import draw_overlay

        image = self.picture if picture is None else picture
        depth = None if self.recipe is None else self.recipe.depth
        image = read_image(self.path, depth) if image is None else image
        if image.shape[:2] != self.anomaly_map.shape:
            raise PictureError(f"{self.path} was replaced by another picture after it was scored. Score it again.")
        return draw_overlay(
            image,
            self.anomaly_map,
            threshold=self.pixel_threshold,
            score=self.score,
            score_threshold=self.threshold,
            is_anomalous=self.is_anomalous,
            regions=self.regions,
            roi=None if self.recipe is None else self.recipe.original_roi(image.shape[0], image.shape[1]),
            title=self.path.replace("\\", "/").rpartition("/")[2] if title is None else title,
            truth=truth,
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything but the map as JSON types; nan becomes None.

        Examples:
            >>> from totalrecall import PatchCore
            >>> list(PatchCore.load("part.trecall").predict("part.png").to_json())
            ['path', 'score', 'threshold', 'is_anomalous', 'p_value', 'regions', 'nearest', 'milliseconds']
        """
        return {
            "path": self.path,
            "score": self.score,
            "threshold": _finite(self.threshold),
            "is_anomalous": self.is_anomalous,
            "p_value": _finite(self.p_value),
            "regions": [asdict(region) for region in self.regions],
            "nearest": None if self.nearest is None else asdict(self.nearest),
            "milliseconds": round(self.milliseconds, 3),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
