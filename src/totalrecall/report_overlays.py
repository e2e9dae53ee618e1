"""The overlays that a report will show, drawn while pictures pass: few, and small, however many pictures there are.

A picture is drawn only if, of those so far, it is among the few that the report shows: the highest scores; of labelled
pictures also the defects with the lowest scores and the good ones with the highest. What is overtaken is forgotten.
"""

import heapq
import math
from typing import TYPE_CHECKING

from totalrecall.datasets import Sample
from totalrecall.errors import DataError, PictureError
from totalrecall.evaluation import read_defect_mask
from totalrecall.images import read_image
from totalrecall.overlay import Picture, draw_overlay
from totalrecall.report_gallery import FULL_WIDTH, MOST_FULL, MOST_TELLING
from totalrecall.report_page import jpeg
from totalrecall.results import Result
from totalrecall.types import Mask

if TYPE_CHECKING:
    from totalrecall.kinds import AnyDetector

__all__ = ["WorstOverlays", "overlay_of"]

_SMALL = 48  # overlays beside those in full


def overlay_of(
    detector: "AnyDetector",
    result: Result,
    image: Picture | None = None,
    *,
    title: str | None = None,
    truth: Mask | None = None,
) -> Picture:
    """Return the picture with heat map, regions, score and verdict drawn.

    Args:
        detector: that gave the result.
        result: of the picture.
        image: the picture; read again from its file if not given.
        title: a line under the verdict; the file's name if not given.
        truth: where a person marked the defect, in the picture's pixels.

    Raises:
        PictureError: the file cannot be read any more, or is another picture now.
    """
    image = read_image(result.path, detector.recipe.depth) if image is None else image
    if image.shape[:2] != result.anomaly_map.shape:
        raise PictureError(f"{result.path} was replaced by another picture after it was scored. Score it again.")
    return draw_overlay(
        image,
        result.anomaly_map,
        threshold=detector.pixel_threshold_,
        score=result.score,
        score_threshold=result.threshold,
        is_anomalous=result.is_anomalous,
        regions=result.regions,
        roi=detector.recipe.original_roi(image.shape[0], image.shape[1]),
        title=result.path.replace("\\", "/").rpartition("/")[2] if title is None else title,
        truth=truth,
    )


class WorstOverlays:
    """Keeps the overlays of the pictures that are worth a look; at most 88, some 6 MB."""

    def __init__(self, detector: "AnyDetector") -> None:
        self._detector = detector
        self._highest = _Few(MOST_FULL + _SMALL)
        self._lowest_defects = _Few(MOST_TELLING)
        self._highest_good = _Few(MOST_TELLING)

    def offer(self, number: int, result: Result, sample: Sample | None = None) -> None:
        """Draw and keep a picture's overlay if it is among the few; a picture that has gone meanwhile has none.

        Args:
            number: of the picture, to find it again by.
            result: of the picture.
            sample: what is known of it.
        """
        if not math.isfinite(result.score):
            return
        places = [(self._highest, result.score)]
        if sample is not None:
            places.append(
                (self._highest_good, result.score) if sample.label == 0 else (self._lowest_defects, -result.score)
            )
        places = [(few, value) for few, value in places if few.wants(value)]
        if not places:
            return
        try:
            drawn = self._draw(result, sample)
        except PictureError:
            return
        for few, value in places:
            few.put(value, number, drawn)

    def of(self) -> dict[int, bytes]:
        """Return the JPEGs kept, by the number of their picture."""
        kept = (self._highest, self._lowest_defects, self._highest_good)
        return {number: drawn for few in kept for _, number, drawn in few.held}

    def _draw(self, result: Result, sample: Sample | None) -> bytes:
        image = read_image(result.path, self._detector.recipe.depth)
        overlay = overlay_of(self._detector, result, image, truth=_truth(sample, image.shape[:2]))
        drawn = jpeg(overlay, FULL_WIDTH)
        assert drawn is not None  # pixels, not a file that may have gone
        return drawn


class _Few:
    """The few highest of any number of values, each with its picture's number and overlay."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.held: list[tuple[float, int, bytes]] = []  # a heap, the lowest first

    def wants(self, value: float) -> bool:
        """Tell whether a value would be among them."""
        return len(self.held) < self.room or value > self.held[0][0]

    def put(self, value: float, number: int, drawn: bytes) -> None:
        """Take one in, and forget the lowest where there are too many."""
        heapq.heappush(self.held, (value, number, drawn))
        if len(self.held) > self.room:
            heapq.heappop(self.held)


def _truth(sample: Sample | None, shape: tuple[int, int]) -> Mask | None:
    """Return where the defect was marked, in a picture of a shape (h, w); None where nobody did."""
    if sample is None or sample.label == 0 or sample.mask is None:
        return None
    try:
        return read_defect_mask(sample.mask, shape)
    except DataError:  # `evaluate` names it
        return None
