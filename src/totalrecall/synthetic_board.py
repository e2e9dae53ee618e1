"""The artwork of the demo's circuit board: drawn once per size, at three times the resolution, and kept."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Artwork", "artwork"]

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
