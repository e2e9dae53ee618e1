"""Shapes that damage has: ragged blobs, jagged and tapered lines, smooth noise. Each takes its generator."""

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Canvas", "Point", "cloud", "draw", "draw_tapered", "offsets", "ragged_distance", "walk"]

Canvas: TypeAlias = NDArray[np.floating[Any]]  # (h, w) or (h, w, 3), levels 0..255 or shares 0..1
Point: TypeAlias = NDArray[np.float64]  # x, y in pixels


def cloud(rng: np.random.Generator, h: int, w: int, rows: int, columns: int) -> Canvas:
    """Return smooth noise, (h, w), about -1..1, of `rows` x `columns` independent values."""
    coarse = rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC), np.float32)


def ragged_distance(rng: np.random.Generator, middle: Point, size: float, h: int, w: int) -> Canvas:
    """Return a ragged distance from `middle`, (h, w): below 1 inside a blob of about `size` pixels radius."""
    x, y = offsets(middle, h, w)
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(1, 1.8)
    a = (x * np.cos(turn) + y * np.sin(turn)) * squeeze
    b = y * np.cos(turn) - x * np.sin(turn)
    cells = max(round(min(h, w) / size), 2)
    ragged = 0.28 * cloud(rng, h, w, cells, cells) + 0.07 * cloud(rng, h, w, 3 * cells, 3 * cells)
    distance: Canvas = (np.hypot(a, b) / size + ragged).astype(np.float32)
    return distance


def walk(rng: np.random.Generator, start: Point, heading: float, length: float, stride: float) -> NDArray[np.float64]:
    """Return a jagged walk of points (n, 2) from `start`."""
    steps = max(round(length / max(stride, 1.0)), 3)
    angles = heading + rng.normal(0, 0.5, steps) + np.cumsum(rng.normal(0, 0.12, steps))
    strides = max(stride, 1.0) * rng.uniform(0.5, 1.5, (steps, 1))
    points: NDArray[np.float64] = start + np.cumsum(strides * np.stack((np.cos(angles), np.sin(angles)), 1), axis=0)
    return points


def draw(canvas: NDArray[np.uint8], points: NDArray[np.float64], thick: int) -> None:
    """Draw a line through points (n, 2) in white, its edges smooth."""
    fixed = np.round(points * 16).astype(np.int32)  # 4 binary places below the pixel
    cv2.polylines(canvas, [fixed], False, 255, thick, cv2.LINE_AA, 4)


def draw_tapered(canvas: NDArray[np.uint8], points: NDArray[np.float64], thick: int) -> None:
    """Draw a line through points (n, 2) that is white in its middle and fades towards both ends."""
    fixed = np.round(points * 16).astype(np.int32)
    levels = 255 * np.sin(np.linspace(0, np.pi, len(points) + 1))[1:-1] ** 0.6  # pressed down, then lifted off
    segment = np.zeros_like(canvas)
    for start, end, level in zip(fixed[:-1], fixed[1:], levels, strict=True):
        cv2.line(segment, start.tolist(), end.tolist(), float(level), thick, cv2.LINE_AA, 4)
    np.maximum(canvas, segment, out=canvas)


def offsets(middle: Point, h: int, w: int) -> tuple[Canvas, Canvas]:
    """Return how far each pixel (h, w) lies from a point: to the right, and below."""
    x = np.broadcast_to(np.arange(w, dtype=np.float32), (h, w)) - np.float32(middle[0])
    y = np.broadcast_to(np.arange(h, dtype=np.float32)[:, None], (h, w)) - np.float32(middle[1])
    return x, y
