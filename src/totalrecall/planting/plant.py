"""A defect planted on a picture: where, how large, how plain; the picture and the mask of what changed."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from totalrecall.errors import SettingError
from totalrecall.planting.kinds import KINDS, Kind, Spot
from totalrecall.planting.shapes import Canvas, Point
from totalrecall.planting.where import edge_width
from totalrecall.types import Image, Mask

__all__ = ["PlantedDefect", "plant"]

_TRIES = 12  # places that are tried
_MOSTLY = 0.7  # share of a defect that must lie on the part
_SEEN = 5.0  # levels of 255 that the plainest quarter of a defect differs by at least: a fainter one nobody could see
_PLACES = 6  # of which the one with most structure is taken, for kinds that need some
_ALIKE = 4  # levels between the channels of a grey picture


@dataclass(frozen=True, eq=False)
class PlantedDefect:
    """A picture with a defect on it.

    Attributes:
        picture: uint8 RGB (h, w, 3); outside the mask it is the good picture, to the bit.
        mask: which pixels changed, bool (h, w).
        kind: of the defect, a name of `KINDS`.
        size: its longest side in pixels, as asked for; of a scratch its length.
        contrast: share of white that it differs by, as asked for.
        box: around the mask: left, top, width, height.
    """

    picture: Image = field(repr=False)
    mask: Mask = field(repr=False)
    kind: str
    size: float
    contrast: float
    box: tuple[int, int, int, int]


def plant(
    picture: Image,
    kind: str,
    size: float,
    rng: np.random.Generator,
    *,
    contrast: float = 0.1,
    part: Mask | None = None,
    region: Mask | None = None,
) -> PlantedDefect | None:
    """Plant a defect on a good picture; None where the part has no room for it, or no place where it could be seen.

    The same generator state gives the same place and shape at each contrast.

    Args:
        picture: uint8 RGB (h, w, 3).
        kind: a name of `KINDS`.
        size: longest side of the defect, in pixels of the picture; of a scratch its length.
        rng: what place and shape are drawn from.
        contrast: share of white that the defect differs by, over 0 to 1; missing and shifted pieces have none.
        part: where the part is, bool (h, w), as `part_mask` returns it: pieces break off its edge. All if None.
        region: of interest, bool (h, w): the defect lies in it. All if None.

    Raises:
        SettingError: the kind is unknown, or size or contrast are outside what is allowed.

    Examples:
        >>> import numpy as np
        >>> from totalrecall.planting import plant
        >>> grey = np.full((96, 96, 3), 128, np.uint8)
        >>> planted = plant(grey, "stain", 20, np.random.default_rng(0), contrast=0.2)
        >>> bool((planted.mask == (planted.picture != grey).any(axis=2)).all())
        True
    """
    if kind not in KINDS:
        raise SettingError(f"kinds must be of {', '.join(KINDS)}, got {kind!r}.", "kinds")
    if not size >= 1:
        raise SettingError(f"sizes must be at least 1 pixel, got {size:g}.", "sizes")
    if not 0 < contrast <= 1:
        raise SettingError(
            f"contrast must be over 0 and at most 1, got {contrast:g}. For 20 percent of white write 0.2.", "contrast"
        )
    everything = np.ones(picture.shape[:2], bool)
    part, region = everything if part is None else part, everything if region is None else region
    places = _Places(picture, part, region, KINDS[kind], size)
    # a bite takes the part's edge with it, of which the mask of the part lacks some pixels
    area = (_widened(part) if places.on_rim else part) & region
    for _ in range(_TRIES):
        middle = places.draw(rng)
        if middle is None:
            return None
        shape = np.random.default_rng(rng.integers(0, 2**63))  # of its own: each kind draws as much as it likes
        planted = _planted(picture, part & region, area, kind, size, contrast, middle, places.on_rim, shape)
        if planted is not None:
            return planted
    return None


class _Places:
    """Where the middle of a defect may lie."""

    def __init__(self, picture: Image, part: Mask, region: Mask, kind: Kind, size: float) -> None:
        """Find the places: on the part's rim, else half the size away from it, else as deep in it as there is room."""
        h, w = part.shape
        depth = _depth(part & region)
        self._picture, self._size, self._structure = picture, size, kind.on_structure
        self.on_rim = kind.on_rim and not part.all()
        if self.on_rim:
            margin = max(round(size / 2), 2)
            frame = np.zeros((h, w), bool)
            frame[margin:-margin, margin:-margin] = True  # a bite out of the picture's edge would not be one
            near = _depth(part) if not region.all() else depth
            rim = (depth > 0) & (near <= max(size / 4, 1.5)) & frame
            self.on_rim, self._structure = bool(rim.any()), self._structure and not rim.any()
        if self.on_rim:
            choices = rim
        elif (depth >= size / 2).any():
            choices = depth >= size / 2
        else:  # a narrow part: most of a defect may still fit along it
            choices = depth >= max(size / 4, 1.0)
        self._choices, self._width = np.flatnonzero(choices), w

    def draw(self, rng: np.random.Generator) -> Point | None:
        """Draw a place (x, y), of several the one with most structure where the kind needs some; None without any."""
        if not len(self._choices):
            return None
        drawn = self._choices[rng.integers(len(self._choices), size=_PLACES if self._structure else 1)]
        points = [np.array((at % self._width, at // self._width), np.float64) for at in drawn.tolist()]
        return max(points, key=self._detail) if self._structure else points[0]

    def _detail(self, point: Point) -> float:
        rows, columns = _window(point, self._size / 2, self._picture.shape)
        return float(self._picture[rows, columns].astype(np.float32).mean(axis=2).std())


def _widened(part: Mask) -> Mask:
    """Return the part, bool (h, w), with the pixels around it that may show its edge."""
    width = edge_width(*part.shape)
    return cv2.dilate(part.view(np.uint8), np.ones((2 * width + 1, 2 * width + 1), np.uint8)) > 0


def _depth(area: Mask) -> Canvas:
    """Return how far inside an area each pixel (h, w) lies; 0 outside, and the frame's edge is an edge of it."""
    framed = np.zeros((area.shape[0] + 2, area.shape[1] + 2), np.uint8)
    framed[1:-1, 1:-1] = area
    return np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1], np.float32)


def _window(middle: Point, reach: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return rows and columns of a picture within so many pixels of a place."""
    x, y, far = int(middle[0]), int(middle[1]), int(np.ceil(reach))
    return slice(max(y - far, 0), min(y + far + 1, shape[0])), slice(max(x - far, 0), min(x + far + 1, shape[1]))


def _planted(
    picture: Image,
    part: Mask,
    area: Mask,
    kind: str,
    size: float,
    contrast: float,
    middle: Point,
    on_rim: bool,
    rng: np.random.Generator,
) -> PlantedDefect | None:
    """Plant a defect at a place, or return None where it would mostly miss the part or change too little.

    Args:
        part: where the part is and defects may lie.
        area: where pixels may change: the part, or it and its edge.
    """
    ground = edge_width(*part.shape) if on_rim else 0
    rows, columns = _window(middle, size + 6 + 3 * ground, picture.shape)
    good, inside = picture[rows, columns], part[rows, columns].astype(np.float32)
    local = middle - np.array((columns.start, rows.start))
    spot = Spot(good.astype(np.float32), inside, local, float(size), _is_grey(good), ground)
    paint, cover = KINDS[kind].paint(spot, contrast, rng)
    within = _softened(area[rows, columns].astype(np.float32)) * cover
    if within.sum() < (0.3 if on_rim else _MOSTLY) * cover.sum():
        return None
    new = spot.pixels + (paint - spot.pixels) * within[..., None].astype(np.float32)
    changed = np.clip(np.rint(new), 0, 255).astype(np.uint8)
    differs = (changed != good).any(axis=2)
    if not differs.any() or _strength(changed[differs], good[differs]) < min(_SEEN, contrast * 255 / 4):
        return None
    whole, mask = picture.copy(), np.zeros(part.shape, bool)
    whole[rows, columns], mask[rows, columns] = changed, differs
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return PlantedDefect(whole, mask, kind, size, contrast, (left, top, width, height))


def _softened(inside: Canvas) -> Canvas:
    """Return the part, (h, w), fading within a pixel of its edge and 0 outside."""
    return np.asarray(np.minimum(cv2.blur(inside, (3, 3)), inside), np.float32)


def _strength(changed: np.ndarray, good: np.ndarray) -> float:
    """Return by how many levels the plainest quarter of some changed pixels (n, 3) differs, on average."""
    difference = np.sort(np.abs(changed.astype(np.float32) - good).mean(axis=1))  # (n, 3) -> (n,)
    return float(difference[-max(len(difference) // 4, 1) :].mean())


def _is_grey(pixels: Image) -> bool:
    spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    return bool(spread.max() <= _ALIKE)
