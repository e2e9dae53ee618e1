"""A prepared picture -> the few numbers that move when the light, the lens or the camera does.

    light       mean brightness, as its logarithm
    red, blue   against green, as logarithms: the colour of the light
    focus       detail of one pixel against detail of two, as a logarithm; light and contrast do not change it
    across      displacement to the right against the mean good picture, share of the width
    down        displacement downwards, share of the height
    patches     mean distance of the patches from what the model holds
    score       of the picture

Numbers are kept to six digits, so that what comes back from a file is what went into it.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from totalrecall.images import Geometry, LoadedPicture, Recipe
from totalrecall.types import PreparedImage, PreparedMask

__all__ = ["MEASURES", "Aligner", "Conditions", "Glance", "glance", "look", "rounded"]

MEASURES = ("light", "red", "blue", "focus", "across", "down", "patches", "score")

_SIDE = 32  # of the small picture that displacement is measured on,
_SOFT = 1.5  # blurred with this sigma, so that a shift of a twentieth of the side still lies on the slope of an edge
_MARGIN = 3  # pixels of it left out at the border, where a shift brings in what was not seen before
_LEAST_LIKENESS = 0.1  # share of the mean good picture found in a picture, below which a displacement means nothing
_FLOOR = 0.05  # added to squared grey levels: less than the rounding to 8 bits leaves in a flat picture


@dataclass(frozen=True, eq=False)
class Glance:
    """What a look at one picture gives, before anything is known of the others.

    Attributes:
        values: float64 (4,), light, red, blue and focus.
        small: float32 (32, 32), its brightness, soft; nan outside the region of interest.
        size: height and width in original pixels of what was seen.
    """

    values: np.ndarray
    small: np.ndarray = field(repr=False)
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Conditions:
    """How one picture was taken and how well the model knows it.

    Attributes:
        values: float64 (8,), in the order of `MEASURES`.
        size: height and width in original pixels of what was seen.
    """

    values: np.ndarray
    size: tuple[int, int]


def glance(prepared: PreparedImage, geometry: Geometry, inside: PreparedMask | None = None) -> Glance:
    """Look at a prepared picture; about half a millisecond at 256 x 256.

    Args:
        prepared: uint8 RGB (H, W, 3).
        geometry: how it was prepared; the padding of a letterbox is left out.
        inside: where it shows the region of interest; all of it if not given.
    """
    seen = _content(geometry)
    picture = np.ascontiguousarray(prepared[seen])
    mask = None if inside is None else np.ascontiguousarray(inside[seen]).view(np.uint8)
    if mask is not None and not mask.any():
        mask = None
    red, green, blue = cv2.mean(picture, mask)[:3]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    middle = float(cv2.mean(grey, mask)[0])
    values = np.array(
        [
            np.log(middle + 1),
            np.log((red + 1) / (green + 1)),
            np.log((blue + 1) / (green + 1)),
            _focus(grey, mask),
        ]
    )
    height, width = (
        (part.stop - part.start) * original / resized
        for part, original, resized in zip(seen, geometry.original, geometry.resized, strict=True)
    )
    return Glance(values, _small(grey, mask, middle), (round(height), round(width)))


def look(loaded: LoadedPicture, recipe: Recipe) -> Glance:
    """Look at a picture that was read and prepared."""
    assert loaded.prepared is not None
    assert loaded.geometry is not None
    return glance(loaded.prepared, loaded.geometry, recipe.prepared_roi(loaded.geometry))


def rounded(values: np.ndarray) -> np.ndarray:
    """Return float64 numbers kept to six digits."""
    return np.array([float(f"{value:.6g}") for value in values.ravel().tolist()]).reshape(values.shape)


class Aligner:
    """Measures by how much a picture is displaced against the mean good one.

    The picture is taken for gain x mean + offset - displacement x slope of the mean, and fitted by least squares
    (Lucas and Kanade 1981, one step). Gain and offset take up a change of light; the step is linear up to about a
    tenth of the side, beyond which it only says which way.

    Args:
        mean: float32 (32, 32), the mean small picture; nan where it is not known.
    """

    def __init__(self, mean: np.ndarray) -> None:
        known = np.isfinite(mean)
        filled = np.where(known, mean, np.float32(0))
        down, across = np.gradient(filled)
        inner = np.zeros(mean.shape, np.uint8)
        inner[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = known[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        if not known.all():  # slopes beside an unknown pixel are not slopes of the picture
            inner = cv2.erode(inner, np.ones((3, 3), np.uint8))
        self.pixels = np.flatnonzero(inner)
        self.mean = filled.ravel()[self.pixels]
        terms = (self.mean, np.ones_like(self.mean), across.ravel()[self.pixels], down.ravel()[self.pixels])
        self.solver = np.linalg.pinv(np.stack(terms, 1)) if len(self.pixels) else np.zeros((4, 0))  # (4, p)

    def displacement(self, small: np.ndarray) -> tuple[float, float]:
        """Return (across, down) as shares of width and height, positive to the right and downwards, at most a half."""
        pixels = small.ravel()[self.pixels]
        gain, _, across, down = (self.solver @ np.where(np.isfinite(pixels), pixels, self.mean)).tolist()
        likeness = max(gain, _LEAST_LIKENESS)
        moved = (min(max(-slope / likeness / _SIDE, -0.5), 0.5) for slope in (across, down))
        return next(moved), next(moved)


def _content(geometry: Geometry) -> tuple[slice, slice]:
    """Return rows and columns of the prepared picture that show the original, not padding."""
    spans = []
    for axis in (0, 1):
        start = max(-geometry.offset[axis], 0)
        stop = min(geometry.resized[axis] - geometry.offset[axis], geometry.prepared[axis])
        spans.append(slice(start, stop))
    return spans[0], spans[1]


def _focus(grey: np.ndarray, mask: np.ndarray | None) -> float:
    """Return the logarithm of the detail of one pixel over that of two, as standard deviations.

    A lens out of focus takes the finest detail first. The ratio of two neighbouring scales hardly changes with what
    the picture shows, and not at all with light or contrast.
    """
    if mask is not None:  # the border of the blanked part is as sharp in a blurred picture
        inner = cv2.erode(mask, np.ones((5, 5), np.uint8))
        mask = inner if inner.any() else mask
    half = (max(grey.shape[1] // 2, 1), max(grey.shape[0] // 2, 1))
    coarse = cv2.resize(grey, half, interpolation=cv2.INTER_AREA)
    coarse_mask = None if mask is None else cv2.resize(mask, half, interpolation=cv2.INTER_NEAREST)
    if coarse_mask is not None and not coarse_mask.any():
        coarse_mask = None
    energies = []
    for picture, where in ((grey, mask), (coarse, coarse_mask)):
        detail = picture - cv2.GaussianBlur(picture, (3, 3), 0)
        energies.append(float(cv2.meanStdDev(detail, mask=where)[1][0, 0]) ** 2 + _FLOOR)
    return float(np.log(energies[0] / energies[1]) / 2)


def _small(grey: np.ndarray, mask: np.ndarray | None, middle: float) -> np.ndarray:
    """Return the soft small picture, nan where it shows any of what is not inspected."""
    if mask is None:
        small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(small, (0, 0), _SOFT)
    filled = np.where(mask > 0, grey, np.float32(middle))
    small = cv2.GaussianBlur(cv2.resize(filled, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), (0, 0), _SOFT)
    whole = cv2.resize(mask.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) > 0.999
    return np.where(whole, small, np.float32(np.nan))
