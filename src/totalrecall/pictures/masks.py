"""The one reader of masks: the region of interest, and the masks that mark defects in data sets.

People and programs write masks in many ways. One rule reads them all; `Marking.rule` says which part of it applied.

1. A picture with transparent parts whose opaque parts are of one colour, or are a photograph: what is opaque is marked,
   whatever the colour (white, black or red on transparent). Otherwise what is transparent counts as black.
2. Two values: the higher one is marked, whatever it is (0 and 1, 0 and 3, 0 and 255, of 8 or 16 bits).
3. Class numbers (all values under 32, as in VisA), or flat areas of several grey values: all but the lowest value.
4. Several colours: all but black is marked. On a ground that is not black, colours are refused.
5. Many values, as the smoothed edges of Magnetic Tile's masks or the ringing of JPEG give them: the edge lies in the
   middle between the two values that most pixels have. Where there are no two such values, as in a photograph, the mask
   is refused.
6. One value everywhere: 0 marks nothing, any other everything.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from totalrecall.errors import DataError, SettingError
from totalrecall.pictures.loading import read_layers
from totalrecall.types import Mask, RoiSource

__all__ = ["Marking", "marking_of", "read_mask", "read_roi", "roi_words"]

_CLASSES = 32  # values below that are class numbers
_FEW = 16  # values; more of them are smoothed edges, or JPEG
_FEW_COLOURS = 32
_NEAR = 0.125  # of the way between the two values that most pixels have
_CLEAR = 0.8  # share of the pixels that must be that near to one of them


@dataclass(frozen=True, eq=False)
class Marking:
    """What a mask marks, bool (h, w), and by which rule, in words."""

    mask: Mask
    rule: str


def read_mask(path: str | Path) -> Mask:
    """Read a mask picture: True where it marks something. An all-black one marks nothing.

    Raises:
        PictureError: the file cannot be read.
        DataError: nobody could say what it marks; see above.
    """
    return marking_of(*read_layers(path), name=str(path)).mask


def read_roi(source: RoiSource | None) -> Marking | None:
    """Return the region of interest that a picture or an array (h, w) marks.

    Raises:
        PictureError: the file cannot be read.
        SettingError: it marks nothing, or nobody could say what.
    """
    if source is None:
        return None
    try:
        marking = _marking_of_array(source) if isinstance(source, np.ndarray) else _marking_of_file(source)
    except DataError as error:
        raise SettingError(f"roi: {error}", "roi") from None
    if not marking.mask.any():
        raise SettingError("The region-of-interest mask is empty: white pixels mark what is inspected.")
    return marking


def roi_words(marking: Marking) -> str:
    """Say how much of the picture a region of interest leaves to inspect, and how the mask was understood."""
    share = 100 * float(marking.mask.mean())
    shown = f"{share:.0f}" if 1 <= share < 99.5 or share == 100 else f"{share:.2g}" if share < 1 else f"{share:.1f}"
    return f"Region of interest: {shown} % of the picture is inspected ({marking.rule})"


def marking_of(pixels: np.ndarray, alpha: np.ndarray | None = None, *, name: str = "the mask") -> Marking:
    """Return what a mask marks, by the rule above.

    Args:
        pixels: uint8 or uint16, colours (h, w, 3) or grey (h, w).
        alpha: of the same type, (h, w), 0 is transparent; None where there is no such channel.
        name: for messages.

    Raises:
        DataError: nobody could say.
    """
    full = int(np.iinfo(pixels.dtype).max)
    opaque = None if alpha is None else alpha > full // 2
    if opaque is None or opaque.all():
        return _by_colours(pixels, full, name)
    if not opaque.any():
        raise DataError(f"{name} is transparent everywhere. Paint the region white on black.")
    painted = pixels[opaque]  # (n, 3) or (n,)
    spread = int(painted.max(axis=0).max() - painted.min(axis=0).min()) if painted.ndim == 1 else _spread(painted)
    if spread <= full // 8:
        return Marking(opaque, "what is painted on transparent")
    if not _Levels.of(_brightness(painted)).clear:
        return Marking(opaque, "what is not transparent")
    black = pixels.copy()
    black[~opaque] = 0
    return _by_colours(black, full, name)


def _marking_of_file(path: str | Path) -> Marking:
    pixels, alpha = read_layers(path)
    marking = marking_of(pixels, alpha, name=str(path))
    value = int(pixels.max())
    if marking.mask.all() and value != np.iinfo(pixels.dtype).max:
        raise DataError(
            f"{path} has the value {value} everywhere, so it marks no region. Paint the region white on black."
        )
    return marking


def _marking_of_array(array: np.ndarray) -> Marking:
    """Return what an array marks: a bool one as it is, of numbers the higher one of two."""
    if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
        got = f"{array.dtype} {array.shape}"
        raise SettingError(
            f"roi must be an array (h, w), bool or of two values, got {got}. For example: mask > 127.", "roi"
        )
    if array.dtype == bool:
        return Marking(array, "a bool array")
    if array.dtype in (np.uint8, np.uint16):
        return marking_of(array, name="the array")
    values = np.unique(array)
    if len(values) > 2 or not np.isfinite(values).all():
        many = f"{len(values)} values of {array.dtype}"
        raise SettingError(f"roi must be bool or of two values, got {many}. For example: mask > 0.5.", "roi")
    return Marking(array > (values[0] if len(values) == 2 else 0), "the higher of two values")


def _spread(painted: np.ndarray) -> int:
    """Return the widest range of a channel, of pixels (n, 3)."""
    return int((painted.max(axis=0).astype(int) - painted.min(axis=0)).max())


def _brightness(pixels: np.ndarray) -> np.ndarray:
    """Return the largest channel, which is what tells a colour from black: (..., 3) -> (...)."""
    return pixels if pixels.ndim in (1, 2) and pixels.shape[-1:] != (3,) else pixels.max(axis=-1)


def _by_colours(pixels: np.ndarray, full: int, name: str) -> Marking:
    if pixels.ndim == 2:
        return _by_levels(pixels, name)
    value = pixels.max(axis=2)
    if int((value - pixels.min(axis=2)).max()) <= full // 16:  # grey, stored as colour
        return _by_levels(value, name)
    if int(value.min()) > full // 4:
        raise DataError(f"{name} has colours on a ground that is not black. Paint the region white on black.")
    if _count_colours(pixels) <= _FEW_COLOURS:
        return Marking(value > full // 16, "every colour but black")
    marking, levels = _by_levels(value, name), _Levels.of(value)
    between = ((value > full // 8) & (value <= levels.edge)).astype(np.uint8)
    if cv2.erode(between, np.ones((5, 5), np.uint8)).any():  # an area: neither an edge nor the ringing beside one
        raise DataError(f"{name} has dark and bright colours, blurred. Save it as PNG, or paint white on black.")
    return marking


def _by_levels(value: np.ndarray, name: str) -> Marking:
    """Return what grey values (h, w) mark."""
    levels = _Levels.of(value)
    low, high, count = levels.low, levels.high, levels.count
    if count == 1:
        return Marking(value > 0, f"the value {high} everywhere")
    if count == 2:
        return Marking(value == high, f"the value {high}, not {low}")
    if high < _CLASSES:
        return Marking(value > low, f"{count - 1} classes, not {low}")
    if count <= _FEW and _flat_between(value, levels):
        return Marking(value > low + levels.step, f"every grey value but {low}")
    if not levels.clear:
        raise DataError(
            f"{name} has {count} grey values and no two that stand out, so it could mean anything. "
            "Paint the region white on black."
        )
    return Marking(value > levels.edge, f"brighter than {levels.edge:g}, between {levels.ground} and {levels.mark}")


def _flat_between(value: np.ndarray, levels: "_Levels") -> bool:
    """Tell whether there are areas of values between the lowest and the highest: those of edges are lines."""
    square = np.ones((3, 3), np.uint8)
    flat = value[cv2.erode(value, square) == cv2.dilate(value, square)]
    return bool(((flat > levels.low + levels.step) & (flat < levels.high - levels.step)).any())


def _count_colours(pixels: np.ndarray) -> int:
    packed = np.zeros(pixels.shape[:2], np.uint64)  # (h, w, 3) -> (h, w)
    for channel in range(3):
        packed = (packed << np.uint64(16)) | pixels[..., channel]
    return len(np.unique(packed))


@dataclass(frozen=True)
class _Levels:
    """How the values of a mask lie.

    Attributes:
        low, high: least and largest value.
        count: how many there are.
        ground, mark: those that most pixels have, in the lower and in the upper half.
        clear: the pixels are of these two, but for edges between them.
    """

    low: int
    high: int
    count: int
    ground: int
    mark: int
    clear: bool

    @property
    def edge(self) -> float:
        """The middle between the ground and the mark."""
        return (self.ground + self.mark) / 2

    @property
    def step(self) -> int:
        """What is nearer than this is one value."""
        return (self.high - self.low) // 16

    @classmethod
    def of(cls, value: np.ndarray) -> "_Levels":
        """Look at values of any shape."""
        counts = np.bincount(value.ravel())
        levels = np.flatnonzero(counts)
        low, high = int(levels[0]), int(levels[-1])
        middle = (low + high) // 2 + 1
        ground = low + int(counts[low:middle].argmax())
        mark = high - int(counts[: middle - 1 : -1].argmax()) if middle <= high else high  # of equals the outer ones
        near = np.minimum(abs(levels - ground), abs(levels - mark)) <= _NEAR * (mark - ground)
        clear = len(levels) <= _FEW or counts[levels[near]].sum() >= _CLEAR * value.size
        return cls(low, high, len(levels), ground, mark, bool(clear))
