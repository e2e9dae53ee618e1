"""The parts of the demo, drawn by arithmetic: a turned washer, woven cloth, a circuit board, planed wood, a blister.

Each painter returns a `Scene`: the part as it lies under the camera, before light, lens and noise. A scene varies as a
real line's parts do: a small turn and shift, and grain, threads, turning marks and tablets never the same twice.
Lengths are in units of the shorter side, so that any picture size shows the same part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from totalrecall.types import Mask

__all__ = ["PAINTERS", "Canvas", "Scene", "cloud"]

Canvas: TypeAlias = NDArray[np.floating[Any]]  # (h, w) or (h, w, 3), levels 0..255 or shares 0..1

_MAT = (47.0, 49.0, 52.0)  # the dark rubber that parts lie on
_FOIL = (0.97, 1.0, 1.03)  # aluminium is a little blue
_POWDER = (238.0, 214.0, 196.0)
_TOP_LEFT = -2.3  # the lamp's direction, radians: every part is lit from the top left


@dataclass(frozen=True)
class Scene:
    """A part under the camera.

    Attributes:
        picture: what is seen, (h, w, 3) levels of 0..255.
        body: where the part is; damage lands here.
        beneath: what is seen where a piece is missing, (h, w, 3).
        pieces: what can be missing as a whole, as (x, y, half width, half height) in pixels; else a bite is taken.
        grey: whether the line's camera is a grey one.
    """

    picture: Canvas
    body: Mask
    beneath: Canvas
    pieces: tuple[tuple[float, float, float, float], ...] = ()
    grey: bool = False


@dataclass(frozen=True)
class _Pose:
    """Where the part lies: a turn in radians about the picture's middle, then a shift in pixels."""

    angle: float
    dx: float
    dy: float

    def part_grid(self, h: int, w: int) -> tuple[Canvas, Canvas]:
        """Return each pixel's place on the part, in pixels from its middle: x, y, each (h, w)."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        x, y = _grid(h, w)
        x, y = x - np.float32(self.dx), y - np.float32(self.dy)
        return cos * x + sin * y, cos * y - sin * x

    def to_picture(self, x: float, y: float, h: int, w: int) -> tuple[float, float]:
        """Return the pixel of a place on the part."""
        cos, sin = float(np.cos(self.angle)), float(np.sin(self.angle))
        return cos * x - sin * y + self.dx + (w - 1) / 2, sin * x + cos * y + self.dy + (h - 1) / 2


def cloud(rng: np.random.Generator, h: int, w: int, rows: int, columns: int) -> Canvas:
    """Return smooth noise, (h, w), about -1..1, of `rows` x `columns` independent values."""
    coarse = rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC), np.float32)


def _washer(rng: np.random.Generator, h: int, w: int) -> Scene:
    """A turned steel disc with a bore and six bolt holes, under a grey camera."""
    unit = 0.46 * min(h, w)
    x, y = _pose(rng, h, w, turn=6.0).part_grid(h, w)
    x, y = x / unit, y / unit
    radius, angle = _length(x, y), np.arctan2(y, x)

    marks = cv2.GaussianBlur(rng.standard_normal((1, 400)).astype(np.float32), (0, 0), 1.1)[
        0
    ]  # turning marks, by radius
    steel = 148 + 15 * marks[np.minimum((radius * 380).astype(np.intp), 399)]
    glint = np.square(np.cos(angle - rng.normal(_TOP_LEFT, 0.06)))
    steel += 42 * (glint * glint * glint) - 8  # turned metal shines in two opposite fans
    steel += 4 * cloud(rng, h, w, 6, 6)
    land = (radius > 0.40) & (radius < 0.44)
    steel -= 26 * land  # the groove around the bore

    sector = np.pi / 3
    nearest = np.round(angle / sector) * sector  # the six holes folded into one
    across, along = radius * np.cos(angle - nearest) - 0.69, radius * np.sin(angle - nearest)
    bolt = _length(across, along)
    bolt_x, bolt_y = (
        across * np.cos(nearest) - along * np.sin(nearest),
        across * np.sin(nearest) + along * np.cos(nearest),
    )
    steel -= 52 * _facing(bolt_x, bolt_y, bolt) * ((bolt > 0.105) & (bolt < 0.14))  # bevels: those of holes face inward
    rim = _facing(x, y, radius)
    steel += rim * (52.0 * (radius > 0.955) - 52.0 * ((radius > 0.30) & (radius < 0.335))).astype(np.float32)

    inside = _edge(1.0 - radius, unit) * _edge(radius - 0.30, unit) * _edge(bolt - 0.105, unit)
    shade = 1 - 0.55 * np.clip((1.03 - _length(x - 0.035, y - 0.045)) * 14, 0, 1)  # the disc's shadow on the mat
    mat = (_MAT[1] + 3.5 * cloud(rng, h, w, h // 3, w // 3)) * shade
    picture = mat + (steel - mat) * inside
    return Scene(_grey(picture), inside > 0.98, _grey(mat), grey=True)


def _textile(rng: np.random.Generator, h: int, w: int) -> Scene:
    """A plain weave of blue warp and ecru weft; no two threads are alike, and the cloth never lies quite flat."""
    pitch = max(min(h, w) / 34, 3.0)
    x, y = _pose(rng, h, w, turn=2.0).part_grid(h, w)
    u = x / pitch + 0.15 * cloud(rng, h, w, 4, 4) + 60
    v = y / pitch + 0.15 * cloud(rng, h, w, 4, 4) + 60
    column, row = u.astype(np.intp), v.astype(np.intp)
    a, b = u - column - 0.5, v - row - 0.5  # place across the warp thread and across the weft thread, -0.5..0.5

    warp_thread = (1 - 2.2 * a * a) * (0.78 + 0.22 * np.cos(np.pi * b))  # round, and dipping under its neighbours
    weft_thread = (1 - 2.2 * b * b) * (0.78 + 0.22 * np.cos(np.pi * a))
    size = int(max(column.max(), row.max())) + 1
    warp_thread *= rng.normal(1, 0.05, size).astype(np.float32)[column]
    weft_thread *= rng.normal(1, 0.05, size).astype(np.float32)[row]
    over = (column + row) % 2 == 0
    light = 1 + 0.06 * cloud(rng, h, w, h // 2, w // 2)  # single fibres
    light += 0.05 * cloud(rng, h, w, 3, 3)  # folds too shallow to see as such
    picture = _colour(light * warp_thread * over, (88.0, 116.0, 156.0)) + _colour(
        light * weft_thread * ~over, (176.0, 176.0, 168.0)
    )
    beneath = _colour(1 + 0.08 * cloud(rng, h, w, h // 4, w // 4), (34.0, 33.0, 36.0))
    return Scene(picture, np.ones((h, w), bool), beneath)


def _wood(rng: np.random.Generator, h: int, w: int) -> Scene:
    """A planed board of pine: wandering growth rings, fine grain along them and short dark pores."""
    unit = min(h, w)
    x, _ = _pose(rng, h, w, turn=3.0).part_grid(h, w)
    bend = 0.75 * cloud(rng, h, w, 3, 2) + 0.25 * cloud(rng, h, w, 7, 5)
    ring = (x / unit) * 9 + bend + 0.05 * cloud(rng, h, w, 12, w // 3) + rng.uniform(0, 1) + 40
    index = ring.astype(np.intp)
    late = np.square(ring - index)  # early wood is wide and pale; late wood ends it, dark and sharp
    late *= np.clip(rng.normal(0.75, 0.18, int(index.max()) + 2), 0.35, 1.1).astype(np.float32)[index]
    soft = cv2.GaussianBlur(late.astype(np.float32), (0, 0), max(unit / 320, 0.5))
    grain = cloud(rng, h, w, max(h // 30, 2), w - 1) + 0.6 * cloud(rng, h, w, max(h // 12, 2), w // 2)
    pores = np.clip(cloud(rng, h, w, max(h // 9, 3), w - 1) - 0.72, 0, 1) * 1.1
    light = 1 + 0.035 * grain - 0.5 * pores + 0.03 * cloud(rng, h, w, 3, 3)
    picture = _colour(light * (1 - soft), (226.0, 189.0, 141.0)) + _colour(light * soft, (172.0, 116.0, 68.0))
    torn = _colour(1 + 0.16 * cloud(rng, h, w, max(h // 16, 2), w // 3), (198.0, 150.0, 98.0))
    return Scene(picture, np.ones((h, w), bool), torn)


def _blister(rng: np.random.Generator, h: int, w: int) -> Scene:
    """A knurled foil card with round scored tablets in clear pockets."""
    cell = min(h, w) / 3.3
    columns, rows = max(int(0.95 * w / cell), 1), max(int(0.95 * h / cell), 1)
    pose = _pose(rng, h, w, turn=2.5)
    x, y = pose.part_grid(h, w)
    half_w, half_h = columns * cell / 2, rows * cell / 2
    column = np.clip(((x + half_w) / cell).astype(np.intp), 0, columns - 1)
    row = np.clip(((y + half_h) / cell).astype(np.intp), 0, rows - 1)
    u = x / cell - (column + 0.5 - columns / 2)  # from the pocket's middle, in cells
    v = y / cell - (row + 0.5 - rows / 2)

    knurl = np.sin(x * (30 / cell)) * np.sin(y * (30 / cell))
    foil = 176 + 11 * knurl + 9 * cloud(rng, h, w, 5, 5)
    foil += 26 * np.exp(-(((x + y) / cell - rng.normal(-0.6, 0.25)) ** 2) * 1.2)  # the lamp's soft streak
    pocket = _length(u, v)
    lit = _facing(u, v, pocket)
    rim = np.exp(-(((pocket - 0.395) / 0.028) ** 2))
    empty = foil - (22 + 10 * lit) * _edge(0.40 - pocket, cell) + 60 * rim * lit

    slack = rng.uniform(-0.022, 0.022, (2, rows, columns)).astype(np.float32)  # tablets lie loose in their pockets
    a, b = u - slack[0, row, column], v - slack[1, row, column]
    score = rng.uniform(0, np.pi, (rows, columns)).astype(np.float32)[row, column]
    tablet = _length(a, b)
    dome = 1 - 0.10 * np.square(np.square(tablet / 0.33)) - 0.07 * (a + b)
    groove = a * np.cos(score) + b * np.sin(score)
    dome -= 0.20 * np.exp(-((groove / 0.018) ** 2)) - 0.07 * np.exp(-(((groove - 0.03) / 0.018) ** 2))
    inside = _edge(0.33 - tablet, cell)
    shadow = 1 - 0.35 * np.clip((0.36 - _length(a - 0.03, b - 0.035)) * 14, 0, 1)
    highlight = 40 * np.exp(-((u + 0.17) ** 2 + (v + 0.19) ** 2) * 500)  # the lamp in the clear dome

    card = _edge(1 - np.maximum(np.abs(x) / (half_w + 0.03 * cell), np.abs(y) / (half_h + 0.03 * cell)), half_w)
    grit = cloud(rng, h, w, h // 3, w // 3)
    mat = _colour((1 + 0.06 * grit) * (1 - card), _MAT)
    picture = mat + _colour((empty * shadow * (1 - inside) + highlight) * card, _FOIL)
    picture += _colour(dome * inside * (1 + 0.02 * grit) * card, _POWDER)
    places = [
        pose.to_picture((i + 0.5 - columns / 2) * cell, (j + 0.5 - rows / 2) * cell, h, w)
        for j in range(rows)
        for i in range(columns)
    ]
    return Scene(
        picture,
        card > 0.98,
        mat + _colour(empty * card, _FOIL),
        tuple((px, py, 0.37 * cell, 0.37 * cell) for px, py in places),
    )


def _board(rng: np.random.Generator, h: int, w: int) -> Scene:
    """A green circuit board with chips, resistors, capacitors, traces and print."""
    from totalrecall.synthetic_board import artwork

    art = artwork(h, w)
    pose = _pose(rng, h, w, turn=1.5)
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), float(np.degrees(-pose.angle)), 1.0)
    matrix[:, 2] += (pose.dx, pose.dy)
    bare = _warp(art.bare, matrix, h, w)
    settled = matrix.copy()
    settled[:, 2] += rng.normal(0, min(h, w) / 900, 2)  # parts float a little on their solder
    parts = _warp(art.parts, settled, h, w)
    cover = _warp(art.cover, settled, h, w)[..., None]
    bare = bare * _colour(1 + 0.025 * cloud(rng, h, w, h // 2, w // 2) + 0.03 * cloud(rng, h, w, 4, 4), (1.0, 1.0, 1.0))
    shadow = _warp(art.cover, settled + np.array([[0, 0, 0.008], [0, 0, 0.01]]) * min(h, w), h, w)[..., None]
    picture = bare * (1 - 0.35 * shadow)
    picture += (parts * (1 + 0.03 * cloud(rng, h, w, 8, 8))[..., None] - picture) * cover
    pieces = tuple(
        (*pose.to_picture(x - (w - 1) / 2, y - (h - 1) / 2, h, w), half_w, half_h)
        for x, y, half_w, half_h in art.pieces
    )
    return Scene(picture.astype(np.float32), np.ones((h, w), bool), bare.astype(np.float32), pieces)


def _pose(rng: np.random.Generator, h: int, w: int, *, turn: float) -> _Pose:
    """Draw a pose: within `turn` degrees and 1.5 % of the shorter side, as a good fixture holds a part."""
    slack = 0.015 * min(h, w)
    angle, dx, dy = rng.uniform(-1, 1, 3)
    return _Pose(float(np.radians(turn) * angle), float(slack * dx), float(slack * dy))


@lru_cache(maxsize=4)
def _grid(h: int, w: int) -> tuple[Canvas, Canvas]:
    y, x = np.mgrid[:h, :w].astype(np.float32)
    return x - np.float32((w - 1) / 2), y - np.float32((h - 1) / 2)


def _edge(distance: Canvas, unit: float) -> Canvas:
    """Return the share of each pixel inside an edge; `distance` is positive inside, in units of `unit` pixels."""
    inside: Canvas = np.clip(distance * np.float32(unit) + np.float32(0.5), 0, 1)
    return inside


def _length(x: Canvas, y: Canvas) -> Canvas:
    length: Canvas = np.sqrt(x * x + y * y)
    return length


def _facing(x: Canvas, y: Canvas, length: Canvas) -> Canvas:
    """Return how far the direction (x, y) points to the lamp, -1..1."""
    lamp_x, lamp_y = float(np.cos(_TOP_LEFT)), float(np.sin(_TOP_LEFT))
    facing: Canvas = (x * lamp_x + y * lamp_y) / np.maximum(length, np.float32(1e-6))
    return facing


def _warp(layer: Canvas, matrix: NDArray[np.float64], h: int, w: int) -> Canvas:
    warped = cv2.warpAffine(layer, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def _grey(levels: Canvas) -> Canvas:
    return _colour(levels, (1.0, 1.0, 1.0))


def _colour(levels: Canvas, colour: tuple[float, float, float]) -> Canvas:
    """Return `levels` times a colour: (h, w) -> (h, w, 3). By channel: broadcasting over a last axis of 3 is slow."""
    return np.asarray(cv2.merge([np.asarray(levels * np.float32(c), np.float32) for c in colour]))


PAINTERS: dict[str, Callable[[np.random.Generator, int, int], Scene]] = {
    "washer": _washer,
    "textile": _textile,
    "board": _board,
    "wood": _wood,
    "blister": _blister,
}
