"""What each kind of defect does to the few pixels around it.

A defect is a paint and a cover, as the demo's damage is: the new pixels are `pixels + (paint - pixels) * cover`. Light
and dark are multiplied into the pixels as far as that goes, so that grain and noise stay; what is foreign brings grain
of its own. `contrast` is a share of white: 0.2 changes the middle of a defect by about 51 of 255 levels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from totalrecall.planting.shapes import Canvas, Point, cloud, draw_tapered, offsets, ragged_distance

__all__ = ["KINDS", "Kind", "Spot"]

_WHITE = 255.0
_DARK, _LIGHT = 0.32, 0.68  # of white: darker pixels become lighter, lighter ones darker, those between either
_MOST_GAIN = 1.5  # by which grain grows where dark pixels become lighter; the rest of the light is added
_TINT = 0.2  # by which a colour defect's channels differ from grey at most


@dataclass(frozen=True, eq=False)
class Spot:
    """The pixels around the place of a defect.

    Attributes:
        pixels: float32 (h, w, 3), levels of 0..255, RGB.
        inside: 1 where the part is, float32 (h, w).
        middle: of the defect, x and y in these pixels.
        size: longest side of the defect in pixels.
        grey: the picture is grey: its defects are, too.
        ground: what lies behind the part is seen this many pixels away from it; 0 where nothing of it is seen.
    """

    pixels: Canvas
    inside: Canvas
    middle: Point
    size: float
    grey: bool
    ground: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def level(self) -> float:
        """Return the usual brightness under the defect, 0..255."""
        x, y = offsets(self.middle, *self.shape)
        under = np.hypot(x, y) <= max(self.size / 2, 1.0)
        return float(np.median(self.pixels[under].mean(axis=1)))

    def blurred(self, sigma: float) -> Canvas:
        """Return the pixels without detail finer than about twice `sigma` pixels."""
        return np.asarray(cv2.GaussianBlur(self.pixels, (0, 0), max(sigma, 0.5)), np.float32)

    def grain(self, rng: np.random.Generator, where: np.ndarray | None = None) -> Canvas:
        """Return noise as strong as that of the pixels, or of some of them, (h, w, 1)."""
        fine = np.abs(self.pixels - cv2.blur(self.pixels, (3, 3)))
        like = fine if where is None or not where.any() else fine[where]
        strength = 1.4826 * float(np.median(like)) * 1.06  # a blur of 3 x 3 takes a ninth of the variance
        return rng.standard_normal((*self.shape, 1), np.float32) * np.float32(strength)

    def tint(self, rng: np.random.Generator) -> Canvas:
        """Return how strongly each channel changes, (3,) with a mean of 1; all alike in a grey picture."""
        shares = rng.uniform(-_TINT, _TINT, 3)  # drawn for a grey one too, so that the same defect follows
        return np.asarray(np.ones(3) if self.grey else 1 + shares - shares.mean(), np.float32)

    def direction(self, rng: np.random.Generator) -> float:
        """Return 1 for a defect that is lighter than the part, -1 for a darker one: by chance where there is room."""
        drawn, level = float(rng.choice((-1.0, 1.0))), self.level() / _WHITE
        return 1.0 if level < _DARK else -1.0 if level > _LIGHT else drawn

    def shaded(self, change: Canvas) -> Canvas:
        """Return the pixels after a change of light, (h, w, 3), in levels.

        It is multiplied: a shadow darkens the grain with the part. Light on dark pixels is multiplied up to a limit.
        """
        base = np.maximum(self.blurred(max(self.size / 8, 1.0)), 1.0)
        gain = np.clip(1 + change / base, 0.0, _MOST_GAIN)
        return np.asarray(self.pixels * gain + np.maximum(change - (gain - 1) * base, 0), np.float32)


@dataclass(frozen=True)
class Kind:
    """A kind of defect.

    Attributes:
        plural: for a sentence.
        what: it looks like.
        paint: returns the paint (h, w, 3) and the cover (h, w) of one of some contrast at a spot.
        has_contrast: it can be faint; a missing piece is missing.
        on_structure: it is planted where there is something to change: print, edges, holes.
        on_rim: it is planted on the part's edge where that is seen.
    """

    plural: str
    what: str
    paint: Callable[[Spot, float, np.random.Generator], tuple[Canvas, Canvas]]
    has_contrast: bool = True
    on_structure: bool = False
    on_rim: bool = False


def _scratch(spot: Spot, contrast: float, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """Paint a thin line, pressed down and lifted off, with a burr of the other brightness beside it."""
    h, w = spot.shape
    angle, bow = rng.uniform(0, 2 * np.pi), rng.uniform(-0.12, 0.12)
    along, across = np.array((np.cos(angle), np.sin(angle))), np.array((-np.sin(angle), np.cos(angle)))
    t = np.linspace(-0.5, 0.5, 24)
    line = spot.middle + spot.size * (t[:, None] * along + bow * (4 * t**2 - 0.5)[:, None] * across)
    thick = max(1, round(spot.size / 24 * rng.uniform(0.8, 1.4)))
    core, burr = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
    draw_tapered(core, line, thick)
    draw_tapered(burr, line + across * thick, thick)
    core_share, burr_share = (np.float32(1 / 255) * cv2.GaussianBlur(one, (3, 3), 0.45) for one in (core, burr))
    share = core_share - 0.35 * burr_share * (1 - core_share)
    change = np.float32(spot.direction(rng) * contrast * _WHITE) * share[..., None] * spot.tint(rng)
    return spot.shaded(change), np.asarray(np.maximum(core_share, burr_share) > 0, np.float32)


def _dent(spot: Spot, contrast: float, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """Paint a hollow: one side of it lighter, the other darker, and the texture in it enlarged."""
    h, w = spot.shape
    x, y = offsets(spot.middle, h, w)
    turn, squeeze, lamp = rng.uniform(0, np.pi), rng.uniform(1, 1.5), rng.uniform(0, 2 * np.pi)
    sigma = spot.size / 5  # the shading of a Gaussian hollow is seen to about 2.5 times its sigma
    a, b = (x * np.cos(turn) + y * np.sin(turn)) * squeeze / sigma, (y * np.cos(turn) - x * np.sin(turn)) / sigma
    depth = np.exp(-(a * a + b * b) / 2).astype(np.float32)
    slope = (x * np.cos(lamp) + y * np.sin(lamp)) / sigma * depth / np.float32(np.exp(-0.5))  # -1..1
    columns, rows = x + np.float32(spot.middle[0]), y + np.float32(spot.middle[1])
    pull = np.float32(min(2 * contrast, 0.6)) * depth
    bulged = cv2.remap(
        spot.pixels, columns - x * pull, rows - y * pull, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    change = np.repeat(np.float32(contrast * _WHITE) * slope[..., None], 3, axis=2)
    hollow = Spot(np.asarray(bulged, np.float32), spot.inside, spot.middle, spot.size, spot.grey)
    return hollow.shaded(change), np.clip((depth - np.float32(0.03)) * 10, 0, 1)


def _stain(spot: Spot, contrast: float, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """Paint a dried drop: see-through, ragged, stronger at its rim."""
    distance = _blob_of(spot, rng)
    h, w = spot.shape
    inside = np.clip((1 - distance) * max(spot.size / 6, 1.5), 0, 1)
    rim = np.exp(-(((distance - 0.85) / 0.1) ** 2))
    strength = inside * (0.75 + 0.12 * cloud(rng, h, w, 6, 6) + 0.35 * rim)
    change = np.float32(spot.direction(rng) * contrast * _WHITE) * strength[..., None] * spot.tint(rng)
    return spot.shaded(np.asarray(change, np.float32)), inside


def _blob(spot: Spot, contrast: float, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """Paint something that lies on the part and hides it: a crumb, a drop of glue, with light and shade of its own."""
    distance = _blob_of(spot, rng)
    h, w = spot.shape
    inside = np.clip((1 - distance) * max(spot.size / 4, 1.5), 0, 1)
    x, y = offsets(spot.middle, h, w)
    lamp = rng.uniform(0, 2 * np.pi)
    light = 1 + 0.3 * np.clip((x * np.cos(lamp) + y * np.sin(lamp)) / max(spot.size / 2, 1.0), -1, 1)
    change = np.float32(spot.direction(rng) * contrast * _WHITE) * light[..., None] * spot.tint(rng)
    level = np.float32(spot.level())
    usual = spot.blurred(spot.size / 2)
    around = usual * (level / np.maximum(usual.mean(axis=2, keepdims=True), 1.0))  # the part's colour, even in light
    return np.asarray(around + change + spot.grain(rng), np.float32), inside


def _missing(spot: Spot, contrast: float, rng: np.random.Generator) -> tuple[Canvas, Canvas]:  # noqa: ARG001
    """Take a piece away: at the part's edge what lies behind comes to light, elsewhere its surface goes on."""
    distance = _blob_of(spot, rng)
    cover = np.clip((1 - distance) * max(spot.size / 4, 1.5) + 0.5, 0, 1)
    hidden = cover > 0
    if spot.ground:  # of the part's edge some pixels are of both: they must not be drawn on into the bite
        near = cv2.dilate((spot.inside > 0).astype(np.uint8), np.ones((2 * spot.ground + 1,) * 2, np.uint8))
        hidden = hidden | (near > 0)
    return _continued(spot, hidden) + spot.grain(rng, ~hidden), cover


def _shifted(spot: Spot, contrast: float, rng: np.random.Generator) -> tuple[Canvas, Canvas]:  # noqa: ARG001
    """Move a piece out of its place: by an eighth to a quarter of its size, and turned a little."""
    distance = _blob_of(spot, rng)
    cover = np.clip((1 - distance) * max(spot.size / 3, 1.5) + 0.5, 0, 1)
    heading, turn = rng.uniform(0, 2 * np.pi), rng.choice((-1, 1)) * rng.uniform(4, 12)
    step = max(spot.size * rng.uniform(0.12, 0.25), 1.5)
    middle = (float(spot.middle[0]), float(spot.middle[1]))
    matrix = cv2.getRotationMatrix2D(middle, float(turn), 1.0)
    matrix[:, 2] += step * np.array((np.cos(heading), np.sin(heading)))
    h, w = spot.shape
    moved = cv2.warpAffine(spot.pixels, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.float32), cover


def _texture(spot: Spot, contrast: float, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """Put a weave in the place of the part's surface: its light stays, its detail is another."""
    distance = _blob_of(spot, rng)
    inside = np.clip((1 - distance) * max(spot.size / 6, 1.5), 0, 1)
    x, y = offsets(spot.middle, *spot.shape)
    turn, pitch = rng.uniform(0, np.pi), max(spot.size / rng.uniform(4, 8), 2.5)
    a, b = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    weave = np.sin(2 * np.pi * a / pitch) * np.sin(2 * np.pi * b / pitch * rng.uniform(0.4, 1))
    base = Spot(spot.blurred(pitch / 2), spot.inside, spot.middle, spot.size, spot.grey)
    change = np.float32(contrast * _WHITE) * weave[..., None] * spot.tint(rng)
    return base.shaded(np.asarray(change, np.float32)) + spot.grain(rng), inside


def _faded(spot: Spot, contrast: float, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """Rub off print: detail loses up to the contrast, and what is fainter than that is gone."""
    distance = _blob_of(spot, rng)
    inside = np.clip((1 - distance) * max(spot.size / 6, 1.5), 0, 1)
    detail = spot.pixels - spot.blurred(spot.size / 4)
    most = np.float32(contrast * _WHITE)
    noise = spot.grain(rng)
    return np.asarray(spot.pixels - np.clip(detail, -most, most) + 0.7 * noise, np.float32), inside


def _blob_of(spot: Spot, rng: np.random.Generator) -> Canvas:
    """Return a ragged distance, (h, w): below 1 inside an area around the middle whose longest side is the size."""
    h, w = spot.shape
    distance = ragged_distance(rng, spot.middle, max(spot.size / 2, 0.75), h, w)
    rows, columns = np.nonzero(distance < 1)
    if len(rows) < 4:
        return distance
    corners = cv2.minAreaRect(np.stack([columns, rows], axis=1).astype(np.float32))[1]
    longest = max(*corners, 1.0) + 1
    return np.asarray(distance * np.float32(longest / max(spot.size, 1.5)), np.float32)


def _continued(spot: Spot, hidden: np.ndarray) -> Canvas:
    """Return the pixels with what is around a hidden area drawn on into it, without detail, (h, w, 3)."""
    share = min(48 / max(spot.shape), 1.0)
    size = (max(round(spot.shape[1] * share), 3), max(round(spot.shape[0] * share), 3))
    known = cv2.resize((~hidden).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    seen = spot.pixels * (~hidden)[..., None].astype(np.float32)
    small = cv2.resize(seen, size, interpolation=cv2.INTER_AREA) / np.maximum(known, 1e-3)[..., None]
    blank = (known < 0.5).astype(np.uint8)
    if blank.all():
        return spot.pixels.copy()
    filled = cv2.inpaint(np.clip(np.rint(small), 0, 255).astype(np.uint8), blank, 3, cv2.INPAINT_TELEA)
    whole = cv2.resize(filled.astype(np.float32), spot.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(whole, np.float32)


KINDS: dict[str, Kind] = {
    "scratch": Kind("scratches", "a thin line, lighter or darker, a little bowed", _scratch),
    "dent": Kind("dents", "a hollow, one side of it lighter and the other darker", _dent),
    "stain": Kind("stains", "a dried drop, see-through, ragged, stronger at its rim", _stain),
    "blob": Kind("blobs", "something that lies on the part and hides it", _blob),
    "missing": Kind(
        "missing pieces",
        "a bite out of the part's edge, or inside it something that is gone",
        _missing,
        has_contrast=False,
        on_structure=True,
        on_rim=True,
    ),
    "shifted": Kind(
        "shifted pieces", "a piece out of its place, turned a little", _shifted, has_contrast=False, on_structure=True
    ),
    "texture": Kind("foreign textures", "a weave in the place of the surface, as light as it was", _texture),
    "faded": Kind("faded prints", "print or other detail that is rubbed off", _faded, on_structure=True),
}
