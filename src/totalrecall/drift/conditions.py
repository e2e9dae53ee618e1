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

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from totalrecall.pictures.geometry import Geometry, Recipe
from totalrecall.pictures.loading import LoadedPicture
from totalrecall.types import PreparedImage, PreparedMask

__all__ = [
    "FEWEST_PICTURES",
    "MEASURES",
    "Aligner",
    "Conditions",
    "Glance",
    "Reference",
    "change_in_words",
    "glance",
    "look",
    "rounded",
    "spread_in_words",
]

MEASURES = ("light", "red", "blue", "focus", "across", "down", "patches", "score")
_SIDE = 32  # of the small picture that displacement is measured on,
_SOFT = 1.5  # blurred with this sigma, so that a shift of a twentieth of the side still lies on the slope of an edge
_MARGIN = 3  # pixels of it left out at the border, where a shift brings in what was not seen before
_LEAST_LIKENESS = 0.1  # share of the mean good picture found in a picture, below which a displacement means nothing
_FLOOR = 0.05  # added to squared grey levels: less than the rounding to 8 bits leaves in a flat picture
_UNALIGNED = 0.05  # of the side: parts that differ by more in their place lie anywhere


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
        detail = cv2.GaussianBlur(picture, (3, 3), 0)
        cv2.subtract(picture, detail, detail)
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


_ALONE = 1000  # calibration pictures, up to which each is measured against the mean of the others
FEWEST_PICTURES = 5  # of them, even where the change is younger


@dataclass(frozen=True, eq=False)
class Reference:
    """The conditions under which the calibration pictures were taken.

    Attributes:
        values: float64 (n, 8), in the order of `MEASURES`.
        mean: float32 (32, 32), their mean small picture; nan outside the region of interest.
    """

    values: np.ndarray
    mean: np.ndarray

    @classmethod
    def learn(cls, pictures: Sequence[tuple[Glance, float, float]]) -> "Reference":
        """Learn from the pictures that set the threshold.

        Args:
            pictures: of each, a look at it, the mean distance of its patches from a bank without it, and its score.
        """
        if not pictures:
            return cls(np.zeros((0, len(MEASURES))), np.full((32, 32), np.nan, np.float32))
        smalls = np.stack([seen.small for seen, _, _ in pictures]).astype(np.float64)  # (n, 32, 32)
        mean = smalls.mean(0).astype(np.float32)
        aligner = Aligner(mean)
        rows = []
        for (seen, distance, score), small in zip(pictures, smalls, strict=True):
            if 1 < len(smalls) <= _ALONE:  # subtle: against a mean that holds itself, it would seem better aligned
                aligner = Aligner(((smalls.sum(0) - small) / (len(smalls) - 1)).astype(np.float32))
            rows.append([*seen.values.tolist(), *aligner.displacement(seen.small), distance, score])
        return cls(rounded(np.array(rows)), mean)

    def conditions(self, glance: Glance, patches: float, score: float) -> Conditions:
        """Return the conditions of a picture from a look at it, the mean distance of its patches, and its score."""
        values = np.array([*glance.values.tolist(), *self._aligner.displacement(glance.small), patches, score])
        return Conditions(rounded(values), glance.size)

    @cached_property
    def _aligner(self) -> Aligner:
        return Aligner(self.mean)

    @cached_property
    def digest(self) -> str:
        """A hash of what is kept: a monitor's file names it."""
        return hashlib.sha256(self.values.tobytes() + self.mean.tobytes()).hexdigest()

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a model file keeps."""
        return {"drift.values": self.values, "drift.mean": self.mean}

    @classmethod
    def restored(cls, tensors: dict[str, np.ndarray]) -> "Reference | None":
        """Return what a model file kept; None for one that was written before there was anything to keep.

        Raises:
            ValueError: it does not fit.
        """
        if "drift.values" not in tensors:
            return None
        values, mean = tensors["drift.values"], tensors.get("drift.mean", np.zeros(0))
        if values.ndim != 2 or values.shape[1] != len(MEASURES) or not np.isfinite(values).all():
            raise ValueError(f"drift.values of shape {values.shape}")
        if mean.shape != (32, 32) or values.dtype != np.float64 or mean.dtype != np.float32:
            raise ValueError(f"drift.mean of shape {mean.shape}")
        return cls(values, mean)

    def words(self) -> list[str]:
        """Say from which change on each number is noticed within about 50 pictures, and what cannot be watched."""
        count = len(self.values)
        if count < FEWEST_PICTURES:
            return [f"too few good pictures to notice drift ({count} were kept)"]
        spread = self.values.std(axis=0, ddof=1).tolist()
        return spread_in_words(dict(zip(MEASURES, spread, strict=True)), count)


# ---------------------------------------------------------------------- in words, for a person at the line


def change_in_words(measure: str, direction: str, change: float, size: tuple[int, int]) -> str:
    """Say what has moved, which way and how far.

    Args:
        measure: as in `conditions`, or `patches_since`.
        direction: `+` or `-`, the way that the bets found it to have moved.
        change: of the measure's median, in its own unit.
        size: height and width in original pixels, for a displacement.
    """
    up = direction == "+"
    share = _percent(measure, change)
    if measure == "light":
        return f"the pictures are {share} {'brighter' if up else 'darker'} than the good ones that were learnt from"
    if measure in ("red", "blue"):
        return f"the colour of the light has changed: {share} {'more' if up else 'less'} {measure} against green"
    if measure == "focus":
        if up:
            return f"the finest detail is {share} stronger than it was: more noise, or a sharper focus"
        return f"the pictures are blurred: the finest detail is {share} weaker than it was"
    if measure in ("across", "down"):
        side, name = (size[1], "width") if measure == "across" else (size[0], "height")
        way = ("to the right" if up else "to the left") if measure == "across" else ("down" if up else "up")
        return f"the parts have moved {way} by {share} of the {name} ({abs(change) * side:.0f} pixels)"
    if measure == "patches_since":
        how = "less" if up else "more"
        return (
            f"the pictures are {how} like the good ones than when the monitor was started: parts or camera have changed"
        )
    what = "patches lie farther from the good ones" if measure == "patches" else "scores are higher"
    return f"{what} than at the fit: parts or camera have changed"


def spread_in_words(spread: Mapping[str, float], pictures: int) -> list[str]:
    """Say from which change on each measure is noticed soon, by how much the good pictures differ in it.

    Within 50 pictures, nine times in ten, is noticed a change of one standard deviation where there are many
    calibration pictures, of 1.3 with 30 and of 2 with 10 (simulated, normal numbers).

    Args:
        spread: standard deviation of each measure.
        pictures: of the calibration.
    """
    aligned = max(spread["across"], spread["down"]) <= _UNALIGNED
    spread = {name: deviation * (1 + 10 / pictures) for name, deviation in spread.items()}
    lines = [
        f"a change of {_percent('light', spread['light'])} in brightness is noticed within about 50 pictures",
        f"the same for a change of {_percent('focus', -spread['focus'])} in the finest detail",
    ]
    if aligned:
        across, down = _percent("across", spread["across"]), _percent("down", spread["down"])
        return [*lines, f"the same for a shift of {across} of the width or {down} of the height"]
    return [*lines, "a shift cannot be seen: the good parts themselves lie anywhere in their pictures"]


def _percent(measure: str, change: float) -> str:
    """Return how far a measure has moved, in percent; those that are logarithms as the ratio that they stand for."""
    share = change if measure in ("across", "down") else math.expm1(change)
    return f"{abs(share):.1%}".replace("%", " %") if abs(share) < 0.0995 else f"{abs(share):.0%}".replace("%", " %")
