"""The overlays that a report will show, drawn while pictures pass: few, and small, however many pictures there are.

A picture is drawn only if, of those so far, it is among the few that the report shows: the highest scores; of labelled
pictures also the defects with the lowest scores and the good ones with the highest. What is overtaken is forgotten.
"""

import heapq
import math

from totalrecall.datasets import Sample
from totalrecall.errors import DataError, PictureError
from totalrecall.evaluation import read_defect_mask
from totalrecall.images import read_image
from totalrecall.report_gallery import FULL_WIDTH, MOST_FULL, MOST_TELLING
from totalrecall.report_page import jpeg
from totalrecall.results import Result
from totalrecall.types import Mask

__all__ = ["WorstOverlays"]

_SMALL = 48  # overlays beside those in full


class WorstOverlays:
    """Keeps the overlays of the pictures that are worth a look; at most 88, some 6 MB."""

    def __init__(self) -> None:
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
        depth = None if result.recipe is None else result.recipe.depth
        image = read_image(result.path, depth)
        overlay = result.overlay(image, truth=_truth(sample, image.shape[:2]))
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
