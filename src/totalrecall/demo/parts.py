"""The parts of the demo, drawn by arithmetic: a turned washer, woven cloth, a circuit board, planed wood, a blister.

Each painter returns a `Scene`: the part as it lies under the camera, before light, lens and noise. A scene varies as a
real line's parts do: a small turn and shift, and grain, threads, turning marks and tablets never the same twice.
Lengths are in units of the shorter side, so that any picture size shows the same part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from totalrecall.planting.shapes import Canvas, cloud
from totalrecall.types import Mask

__all__ = ["PAINTERS", "Artwork", "Scene", "artwork"]

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
_FINE = 3  # drawn this much larger, then averaged down: smooth edges at any size
_GREEN, _TRACE, _COPPER, _HOLE = (28, 92, 58), (46, 122, 78), (206, 172, 96), (22, 24, 24)
_PRINT, _TIN, _BLACK, _TAN, _WHITE = (226, 230, 222), (190, 194, 196), (38, 38, 41), (178, 138, 96), (236, 236, 230)
# place (x, y) of the middle and size (width, height), as shares of the picture and of its shorter side
_CHIPS = ((0.36, 0.36, 0.26, 0.26, 7, "TR-22"), (0.79, 0.70, 0.16, 0.22, 5, "A7"))
_RESISTORS = tuple((0.66 + 0.085 * i, 0.24, 0.045, 0.085) for i in range(4))
_CAPACITORS = tuple((0.17 + 0.10 * i, 0.64, 0.07, 0.05) for i in range(5))
_CANS = ((0.80, 0.43, 0.062), (0.64, 0.47, 0.046))


@dataclass(frozen=True)
class Artwork:
    """The board's layers, float32, at the picture's size.

    Attributes:
        bare: the board without its parts, (h, w, 3).
        parts: the parts' colours, (h, w, 3); they count where `cover` is over 0.
        cover: the share of each pixel that a part covers, (h, w).
        pieces: each part as (x, y, half width, half height) in pixels.
    """

    bare: NDArray[np.float32]
    parts: NDArray[np.float32]
    cover: NDArray[np.float32]
    pieces: tuple[tuple[float, float, float, float], ...]


class _Pen:
    """Draws in shares of the picture onto a fine canvas; lengths are shares of the shorter side."""

    def __init__(self, canvas: NDArray[np.uint8]) -> None:
        self.canvas = canvas
        self.h, self.w = canvas.shape[:2]
        self.unit = min(self.h, self.w)

    def at(self, x: float, y: float, dx: float = 0.0, dy: float = 0.0) -> tuple[int, int]:
        return round(x * self.w + dx * self.unit), round(y * self.h + dy * self.unit)

    def line(self, points: list[tuple[int, int]], colour: tuple[int, ...], width: float) -> None:
        thick = max(1, round(width * self.unit))
        cv2.polylines(self.canvas, [np.array(points, np.int32)], False, colour, thick, cv2.LINE_AA)

    def box(self, start: tuple[int, int], end: tuple[int, int], colour: tuple[int, ...]) -> None:
        cv2.rectangle(self.canvas, start, end, colour, -1)

    def disc(self, middle: tuple[int, int], radius: float, colour: tuple[int, ...]) -> None:
        cv2.circle(self.canvas, middle, max(1, round(radius * self.unit)), colour, -1, cv2.LINE_AA)

    def write(self, place: tuple[int, int], text: str, colour: tuple[int, ...], height: float) -> None:
        scale = height * self.unit / 22  # the Hershey capitals are about 22 pixels high at scale 1
        thick = max(1, round(scale * 1.6))
        cv2.putText(self.canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thick, cv2.LINE_AA)


@lru_cache(maxsize=4)
def artwork(h: int, w: int) -> Artwork:
    """Return the board's layers for a picture of h x w pixels; the same for every call."""
    bare = np.full((h * _FINE, w * _FINE, 3), _GREEN, np.uint8)
    parts = np.zeros_like(bare)
    cover = np.zeros_like(bare)
    _draw_traces(_Pen(bare))
    _draw_print(_Pen(bare))
    _draw_pads(_Pen(bare))
    pieces = _draw_parts(_Pen(parts), _Pen(cover))
    size = (w, h)
    layers = [
        cv2.resize(layer, size, interpolation=cv2.INTER_AREA).astype(np.float32) for layer in (bare, parts, cover)
    ]
    share = layers[2][..., :1] / 255
    colours = layers[1] / np.maximum(share, 1e-3)  # averaging mixed the parts' edges with black: undo it
    return Artwork(layers[0], np.clip(colours, 0, 255), share[..., 0], tuple(pieces))


def _draw_traces(pen: _Pen) -> None:
    for x, y, width, height, pins, _ in _CHIPS:
        for i in range(pins):
            offset = (i + 0.5) / pins - 0.5
            side = height * offset
            knee = abs(offset) * 0.16 + 0.04
            start, turn = pen.at(x, y, width / 2, side), pen.at(x, y, width / 2 + knee, side)
            pen.line([start, turn, pen.at(x, y, width / 2 + knee + 0.12, side * 1.9)], _TRACE, 0.009)
            start, turn = pen.at(x, y, -width / 2, side), pen.at(x, y, -width / 2 - knee, side)
            pen.line([start, turn, pen.at(x, y, -width / 2 - knee - 0.09, side * 1.7)], _TRACE, 0.009)
    for i in range(8):  # a bus along the lower edge, up to the connector
        y = 0.735 + 0.017 * i
        bend = 0.40 - 0.017 * i  # the lower turn first, so that none crosses another
        pen.line(
            [pen.at(-0.02, y), pen.at(bend, y), pen.at(bend, y, 0.06, 0.06), pen.at(bend, 1.02, 0.06)], _TRACE, 0.007
        )
    for i in range(4):
        x = 0.66 + 0.085 * i
        pen.line([pen.at(x, 0.2), pen.at(x, -0.02)], _TRACE, 0.01)
        pen.line([pen.at(x, 0.28), pen.at(x, 0.33), pen.at(x, 0.33, 0.03 * (i - 1), 0.05)], _TRACE, 0.01)


def _draw_print(pen: _Pen) -> None:
    pen.write(pen.at(0.06, 0.135), "TOTAL RECALL", _PRINT, 0.034)
    pen.write(pen.at(0.06, 0.185), "DEMO REV C", _PRINT, 0.022)
    for i, (x, y, width, height) in enumerate(_RESISTORS):
        pen.write(pen.at(x, y, -width / 2, -height / 2 - 0.018), f"R{i + 1}", _PRINT, 0.02)
    for i, (x, y, width, height) in enumerate(_CAPACITORS):
        pen.write(pen.at(x, y, -width / 2, height / 2 + 0.034), f"C{i + 1}", _PRINT, 0.02)
    for x, y, radius in _CANS:
        ring = max(1, round(0.005 * pen.unit))
        cv2.circle(pen.canvas, pen.at(x, y), round((radius + 0.014) * pen.unit), _PRINT, ring, cv2.LINE_AA)


def _draw_pads(pen: _Pen) -> None:
    for x, y, width, height, pins, _ in _CHIPS:
        for i in range(pins):
            side = height * ((i + 0.5) / pins - 0.5)
            for sign in (-1, 1):
                pen.box(
                    pen.at(x, y, sign * (width / 2 + 0.022) - 0.018, side - 0.009),
                    pen.at(x, y, sign * (width / 2 + 0.022) + 0.018, side + 0.009),
                    _COPPER,
                )
    for x, y, width, height in (*_RESISTORS, *_CAPACITORS):
        tall = height > width
        for sign in (-1, 1):
            dx, dy = (0.0, sign * height * 0.42) if tall else (sign * width * 0.42, 0.0)
            half = (width * 0.55, height * 0.2) if tall else (width * 0.2, height * 0.6)
            pen.box(pen.at(x, y, dx - half[0], dy - half[1]), pen.at(x, y, dx + half[0], dy + half[1]), _COPPER)
    for x, y, radius in _CANS:
        for sign in (-1, 1):
            pen.disc(pen.at(x, y, sign * radius * 0.5), 0.016, _COPPER)
    for i in range(9):  # the connector's plated holes
        middle = pen.at(0.12 + 0.095 * i, 0.935)
        pen.disc(middle, 0.026, _COPPER)
        pen.disc(middle, 0.013, _HOLE)
    for x, y in ((0.56, 0.2), (0.6, 0.58), (0.13, 0.28), (0.12, 0.46), (0.55, 0.72), (0.93, 0.55), (0.92, 0.86)):
        pen.disc(pen.at(x, y), 0.014, _COPPER)
        pen.disc(pen.at(x, y), 0.006, _HOLE)


def _draw_parts(pen: _Pen, cover: _Pen) -> list[tuple[float, float, float, float]]:
    """Draw the parts, and white where they are into `cover`; return them as pieces."""
    pieces: list[tuple[float, float, float, float]] = []

    def box(x: float, y: float, dx: float, dy: float, half: tuple[float, float], colour: tuple[int, ...]) -> None:
        start, end = pen.at(x, y, dx - half[0], dy - half[1]), pen.at(x, y, dx + half[0], dy + half[1])
        pen.box(start, end, colour)
        cover.box(start, end, (255, 255, 255))

    def note(x: float, y: float, half_w: float, half_h: float) -> None:
        middle, unit = pen.at(x, y), pen.unit / _FINE
        spare = 0.016  # the part's shadow goes with it
        pieces.append((middle[0] / _FINE, middle[1] / _FINE, (half_w + spare) * unit, (half_h + spare) * unit))

    for x, y, width, height, pins, name in _CHIPS:
        for i in range(pins):
            side = height * ((i + 0.5) / pins - 0.5)
            for sign in (-1, 1):
                box(x, y, sign * (width / 2 + 0.008), side, (0.018, 0.0065), _TIN)
        box(x, y, 0.0, 0.0, (width / 2 - 0.004, height / 2), _BLACK)
        pen.line([pen.at(x, y, -width / 2, -height / 2), pen.at(x, y, width / 2, -height / 2)], (82, 82, 86), 0.006)
        pen.disc(pen.at(x, y, -width / 2 + 0.028, -height / 2 + 0.03), 0.012, (70, 70, 74))
        pen.write(pen.at(x, y, -width * 0.33, 0.015), name, (150, 150, 150), 0.026)
        note(x, y, width / 2 + 0.032, height / 2 + 0.008)
    for colour, lid, group in ((_BLACK, _TIN, _RESISTORS), (_TAN, _TIN, _CAPACITORS)):
        for x, y, width, height in group:
            box(x, y, 0.0, 0.0, (width / 2, height / 2), lid)
            tall = height > width
            box(x, y, 0.0, 0.0, (width / 2, height * 0.3) if tall else (width * 0.3, height / 2), colour)
            if tall:
                pen.write(pen.at(x, y, -width * 0.36, 0.008), "10", _WHITE, 0.017)
            note(x, y, width / 2 + 0.01, height / 2 + 0.01)
    for x, y, radius in _CANS:
        cover.disc(cover.at(x, y), radius, (255, 255, 255))
        pen.disc(pen.at(x, y), radius, (150, 154, 160))
        pen.disc(pen.at(x, y), radius * 0.86, (196, 199, 203))
        pen.line([pen.at(x, y, -radius * 0.5), pen.at(x, y, radius * 0.5)], (158, 162, 168), 0.005)
        cv2.ellipse(
            pen.canvas, pen.at(x, y), (round(radius * 0.86 * pen.unit),) * 2, 0, 120, 240, (58, 60, 66), -1, cv2.LINE_AA
        )
        note(x, y, radius + 0.006, radius + 0.006)
    return pieces
