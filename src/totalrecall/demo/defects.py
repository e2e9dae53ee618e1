"""Damage for the demo's parts: each kind paints over a `Scene` and says exactly where.

A defect is a paint and a cover: the new picture is `picture + (paint - picture) * cover`, so that not one bit changes
where the cover is 0. Sizes and strengths are drawn from wide ranges: some damage is plain, some asks for a second look.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from totalrecall.demo.parts import Scene
from totalrecall.planting.shapes import Canvas, cloud, draw, draw_tapered, offsets, ragged_distance, walk

__all__ = ["DAMAGE"]


def _scratch(scene: Scene, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """One to three near-parallel bright lines, each with a dark flank where the tool threw up a burr."""
    h, w = scene.body.shape
    unit = min(h, w)
    start, angle = _place(scene, rng), rng.uniform(0, 2 * np.pi)
    length, bow = unit * rng.uniform(0.16, 0.42), rng.uniform(-0.12, 0.12)
    bright, dark = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
    t = np.linspace(-0.5, 0.5, 24)
    along, across = np.array((np.cos(angle), np.sin(angle))), np.array((-np.sin(angle), np.cos(angle)))
    for _ in range(rng.integers(1, 4)):
        own = length * rng.uniform(0.5, 1)
        offset = across * rng.normal(0, unit * 0.012) + along * rng.normal(0, length * 0.15)
        line = start + offset + own * (t[:, None] * along + bow * (t**2)[:, None] * across)
        thick = max(1, round(unit / 320 * rng.uniform(0.8, 2.2)))
        draw_tapered(dark, line + across * (thick * 0.8), thick)
        draw_tapered(bright, line, thick)
    lift = rng.uniform(55, 105)
    change = bright / np.float32(255) * lift - np.maximum(dark, bright) / np.float32(255) * (0.4 * lift) * (
        bright < 128
    )
    strength = np.clip(0.85 + 0.5 * cloud(rng, h, w, 12, 12), 0.3, 1) * scene.body  # pressure varies along the way
    return scene.picture + change[..., None].astype(np.float32), np.maximum(bright, dark) / np.float32(255) * strength


def _dent(scene: Scene, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """A hollow: the side away from the lamp catches light, the near side falls dark, and the texture bulges."""
    h, w = scene.body.shape
    x, y = offsets(_place(scene, rng, margin=0.05), h, w)
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(1, 1.6)
    size = min(h, w) * rng.uniform(0.035, 0.075)
    a = (x * np.cos(turn) + y * np.sin(turn)) / size * squeeze
    b = (y * np.cos(turn) - x * np.sin(turn)) / size
    distance2 = a * a + b * b + 0.25 * cloud(rng, h, w, 10, 10)
    depth = np.exp(-np.square(np.maximum(distance2, 0)) / 2).astype(np.float32)
    slope_y, slope_x = np.gradient(depth)
    shade = (
        slope_x + slope_y
    ) * size  # over 0 on the side near the lamp, which is at the top left: a hollow is dark there
    pull = 0.3 * depth  # look towards the middle: the texture seems enlarged
    bulged = cv2.remap(
        scene.picture,
        _columns(h, w) - x * pull,
        _rows(h, w) - y * pull,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    light = np.maximum(1 - rng.uniform(0.14, 0.36) * shade - 0.10 * depth, 0.35)
    return np.asarray(bulged * light[..., None], np.float32), np.clip(depth * 2.2, 0, 1) * scene.body


def _stain(scene: Scene, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """A dried drop: see-through, ragged, darker at the rim."""
    h, w = scene.body.shape
    distance = ragged_distance(rng, _place(scene, rng, margin=0.03), min(h, w) * rng.uniform(0.05, 0.12), h, w)
    inside = np.clip((1 - distance) * 4, 0, 1)
    rim = np.exp(-(((distance - 0.84) / 0.09) ** 2))
    oils = ((0.62, 0.50, 0.36), (0.55, 0.55, 0.56), (0.72, 0.58, 0.52), (0.60, 0.66, 0.72))
    colour = np.array(oils[rng.integers(len(oils))], np.float32)
    weight = (rng.uniform(0.6, 1.0) * (inside * (0.75 + 0.25 * cloud(rng, h, w, 14, 14)) + 0.35 * rim))[..., None]
    return scene.picture * (1 - weight * (1 - colour)), inside * scene.body


def _missing(scene: Scene, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """A piece that is not there: a whole part where the scene has some, else a bite with a shadowed edge."""
    h, w = scene.body.shape
    if scene.pieces:
        px, py, half_w, half_h = scene.pieces[rng.integers(len(scene.pieces))]
        x, y = offsets(np.array((px, py)), h, w)
        cover = np.clip(np.minimum(half_w - np.abs(x), half_h - np.abs(y)) + 1, 0, 1)
        return scene.beneath, cover * _solid(scene)
    distance = ragged_distance(rng, _rim(scene, rng), min(h, w) * rng.uniform(0.045, 0.10), h, w)
    cover = np.clip((1 - distance) * min(h, w) * 0.05 + 0.5, 0, 1)
    shift = max(1, round(min(h, w) / 90))
    lit = cv2.GaussianBlur(np.roll(cover, (shift, shift), (0, 1)), (0, 0), shift * 0.6)
    floor = (
        scene.beneath * (0.55 + 0.45 * np.minimum(lit, cover))[..., None]
    )  # the edge at the top left throws its shadow in
    return floor, cover * _solid(scene)


def _crack(scene: Scene, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """A dark jagged line that tapers, with a branch or two."""
    h, w = scene.body.shape
    unit = min(h, w)
    drawn = np.zeros((h, w), np.uint8)
    thick = max(1, round(unit / 320 * rng.uniform(1, 2.6)))
    heading = rng.uniform(0, 2 * np.pi)
    stem = walk(rng, _place(scene, rng, margin=0.02), heading, unit * rng.uniform(0.18, 0.45), unit * 0.018)
    third = len(stem) // 3
    draw(drawn, stem[: 2 * third + 1], thick)
    draw(drawn, stem[2 * third :], max(1, thick - 1))
    for _ in range(rng.integers(0, 3)):
        fork = stem[rng.integers(third, len(stem))]
        side = heading + rng.choice((-1, 1)) * rng.uniform(0.5, 1.1)
        draw(drawn, walk(rng, fork, side, unit * rng.uniform(0.04, 0.10), unit * 0.015), max(1, thick - 1))
    cover = drawn / np.float32(255)
    light = np.roll(cover, (thick, thick), (0, 1))[..., None] * 14  # the far lip of the crack catches a little light
    return scene.picture * rng.uniform(0.22, 0.5) + light, cover * scene.body


def _fibre(scene: Scene, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """A curled hair or thread that fell on the part, with its soft shadow, and sometimes a few grains beside it."""
    h, w = scene.body.shape
    unit = min(h, w)
    drawn = np.zeros((h, w), np.uint8)
    start, heading = _place(scene, rng, margin=0.04), rng.uniform(0, 2 * np.pi)
    steps = 60
    turns = np.cumsum(np.cumsum(rng.normal(0, 0.022, steps)) + rng.normal(0, 0.03))
    stride = unit * rng.uniform(0.16, 0.40) / steps
    line = start + np.cumsum(stride * np.stack((np.cos(heading + turns), np.sin(heading + turns)), 1), axis=0)
    thick = max(1, round(unit / 320 * rng.uniform(1, 2)))
    draw(drawn, line, thick)
    for _ in range(rng.integers(0, 5)):
        grain = start + rng.normal(0, unit * 0.05, 2)
        cv2.circle(drawn, (round(grain[0]), round(grain[1])), max(1, round(unit * rng.uniform(0.003, 0.008))), 255, -1)
    threads = ((38, 32, 30), (232, 230, 226), (44, 72, 150), (160, 44, 40))
    colour = np.array(threads[rng.integers(len(threads))], np.float32) * np.float32(rng.uniform(0.85, 1.1))
    cover = drawn / np.float32(255)
    shadow = 0.45 * cv2.GaussianBlur(np.roll(cover, (2 * thick, thick), (0, 1)), (0, 0), thick)
    paint = scene.picture * (1 - shadow[..., None]) * (1 - cover[..., None]) + colour * cover[..., None]
    return paint, np.clip(np.maximum(cover, 2.2 * shadow), 0, 1) * scene.body


def _discolour(scene: Scene, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """A patch of another shade: heat, bleach, a wrong batch; the texture goes on beneath."""
    h, w = scene.body.shape
    size = min(h, w) * rng.uniform(0.09, 0.17)
    if scene.pieces:  # on a part of parts, one piece has the wrong colour
        px, py, half_w, half_h = scene.pieces[rng.integers(len(scene.pieces))]
        x, y = offsets(np.array((px, py)), h, w)
        box: Canvas = np.maximum(np.abs(x) / half_w, np.abs(y) / half_h) + 0.04
        distance = np.hypot(x / half_w, y / half_h) + 0.12 if abs(half_w - half_h) < 1 else box  # round or square
    else:
        distance = ragged_distance(rng, _place(scene, rng, margin=0.04), size, h, w)
    shades = ((1.18, 0.92, 0.66), (0.72, 0.92, 1.16), (1.02, 0.78, 0.78), (0.70, 0.68, 0.72), (1.24, 1.22, 1.2))
    shade = np.array(shades[rng.integers(len(shades))], np.float32)
    gain = 1 + (shade - 1) * np.float32(rng.uniform(0.8, 1.3))
    if scene.grey:  # a grey camera sees a change of hue only as lighter or darker
        gain = np.full(3, 1 + rng.choice((-1, 1)) * rng.uniform(0.16, 0.32), np.float32)
    return scene.picture * gain, np.clip((1.05 - distance) * 4, 0, 1) * scene.body


def _place(scene: Scene, rng: np.random.Generator, margin: float = 0.01) -> NDArray[np.float64]:
    """Draw a place (x, y) on the body, `margin` of the shorter side from its edge and the frame's if it can be."""
    h, w = scene.body.shape
    reach = max(1, round(margin * min(h, w)))
    inner = cv2.erode(
        scene.body.astype(np.uint8),
        np.ones((2 * reach + 1,) * 2, np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    choices = np.flatnonzero(inner if inner.any() else scene.body)
    row, column = divmod(int(choices[rng.integers(len(choices))]), w)
    return np.array((column, row), np.float64)


def _rim(scene: Scene, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a place on the body's edge, where pieces break off; anywhere on a body that fills the frame."""
    body = scene.body.astype(np.uint8)
    if body.all():
        return _place(scene, rng, margin=0.05)
    filled = cv2.morphologyEx(body, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    choices = np.flatnonzero(filled & ~cv2.erode(filled, np.ones((5, 5), np.uint8)) & body)
    row, column = divmod(int(choices[rng.integers(len(choices))]), body.shape[1])
    return np.array((column, row), np.float64)


def _solid(scene: Scene) -> Canvas:
    """Return 1 where taking the part away changes what is seen, (h, w): a bite out of the air would not be damage."""
    changed = np.abs(scene.picture - scene.beneath).max(axis=2) > 6
    closed = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return np.asarray(closed, np.float32)


def _columns(h: int, w: int) -> Canvas:
    return np.broadcast_to(np.arange(w, dtype=np.float32), (h, w))


def _rows(h: int, w: int) -> Canvas:
    return np.broadcast_to(np.arange(h, dtype=np.float32)[:, None], (h, w))


DAMAGE: dict[str, Callable[[Scene, np.random.Generator], tuple[Canvas, Canvas]]] = {
    "scratch": _scratch,
    "dent": _dent,
    "stain": _stain,
    "missing": _missing,
    "crack": _crack,
    "fibre": _fibre,
    "discolour": _discolour,
}
