"""What a detector says of one picture."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from totalrecall.drift_conditions import Conditions
from totalrecall.errors import PictureError
from totalrecall.images import Geometry, Recipe, read_image
from totalrecall.scoring import Region
from totalrecall.types import AnomalyMap, Image, Mask
from totalrecall.wording import counted

__all__ = ["NearestPatch", "Result", "judged", "patch_centre", "verdict_in_words", "worst_patch"]


def patch_centre(geometry: Geometry, grid: tuple[int, ...], row: float, column: float) -> tuple[int, int]:
    """Return x and y, in original pixels, of the centre of a cell of a patch grid (rows, columns)."""
    height, width = geometry.prepared[0] / grid[0], geometry.prepared[1] / grid[1]
    y, x = geometry.point_to_original((row + 0.5) * height - 0.5, (column + 0.5) * width - 0.5)
    return x, y


def worst_patch(geometry: Geometry, distances: np.ndarray) -> tuple[int, int]:
    """Return x and y, in original pixels, of the patch with the largest of the distances (rows, columns)."""
    row, column = divmod(int(distances.argmax()), distances.shape[1])
    return patch_centre(geometry, distances.shape, row, column)


@dataclass(frozen=True)
class NearestPatch:
    """The good patch that the picture's worst patch was nearest to: its picture, and its centre in original pixels."""

    path: str
    x: int
    y: int


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
        score: Euclidean distance units (PaDiM: Mahalanobis, standard deviations), bigger is more anomalous.
        threshold: of the detector; nan if it is not calibrated.
        is_anomalous: score > threshold; None where there is no threshold, which is no verdict. Ask `is True` or
            `is False`: None is neither.
        p_value: share of good pictures expected to score at least this high; nan if not calibrated.
        anomaly_map: float32 (h, w), original pixels, in the units of such distances.
        regions: connected areas of the map above the pixel threshold, highest peak first, original pixels. Of an
            anomalous picture one of them always holds the map's largest value (see `scoring.marked_regions`). A good
            picture may have some: the verdict is of the score alone.
        nearest: where in the good pictures the worst patch's nearest neighbour lies; None for PaDiM, which has none.
        milliseconds: wall time; in a stream, since the result before it.
        geometry: how the picture was prepared.
        conditions: how it was taken, for `drift.Monitor`; None unless asked for.
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
        from totalrecall.overlay import draw_overlay

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
