"""Procedural pictures, and procedural damage to any picture: uint8 (h, w, 3) RGB; all chance comes from `rng`."""

import cv2
import numpy as np
from numpy.random import Generator


def texture(rng: Generator, size: int, kind: str | None = None) -> np.ndarray:
    """A square procedural texture of the given kind, or of a random one."""
    kind = kind or str(rng.choice(list(KINDS)))
    field = KINDS[kind](rng, size)
    if field.ndim == 2:
        field = _colourise(rng, field)
    return _to_bytes(field)


def noise_field(rng: Generator, size: int, exponent: float, stretch: float = 1.0) -> np.ndarray:
    """Noise in 0..1 whose amplitude falls with frequency to the power `exponent`; `stretch` draws it out along x."""
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :] * stretch
    amplitude = (fy**2 + fx**2 + 1.0 / size**2) ** (-exponent / 2)
    spectrum = amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape))
    field = np.fft.irfft2(spectrum, s=(size, size))
    low, high = np.percentile(field, (1, 99))
    return np.clip((field - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)


def _colourise(rng: Generator, field: np.ndarray) -> np.ndarray:
    """Two or three random colours along a scalar field; near-grey half of the time, as most parts are."""
    colours = rng.uniform(0, 255, (3, 3))
    if rng.random() < 0.5:
        colours = colours.mean(axis=1, keepdims=True) + rng.normal(0, 8, (3, 3))
    low, middle, high = colours[:, None, None, :]
    f = field[..., None]
    if rng.random() < 0.3:
        return np.where(f < 0.5, low + (middle - low) * 2 * f, middle + (high - middle) * (2 * f - 1))
    return low + (high - low) * f


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).astype(np.uint8)


def _coordinates(rng: Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates turned by a random angle, wobbling a little."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    u = x * np.cos(angle) + y * np.sin(angle)
    v = -x * np.sin(angle) + y * np.cos(angle)
    wobble = rng.choice([0.0, rng.uniform(0, 12)])
    return u + wobble * noise_field(rng, size, 2.5), v


def _colour_noise(rng: Generator, size: int) -> np.ndarray:
    exponent = rng.uniform(0.5, 2.2)
    planes = np.stack([noise_field(rng, size, exponent) for _ in range(3)], axis=-1)
    return planes * rng.uniform(40, 255) + rng.uniform(0, 120, 3)


def _grey_noise(rng: Generator, size: int) -> np.ndarray:
    return noise_field(rng, size, rng.uniform(0.3, 2.2), rng.choice([1.0, rng.uniform(1, 4)]))


def _brushed(rng: Generator, size: int) -> np.ndarray:
    field = noise_field(rng, size, rng.uniform(0.2, 1.0), rng.uniform(8, 60))
    return 0.5 + (field - 0.5) * rng.uniform(0.1, 0.8) + 0.3 * (noise_field(rng, size, 2.5) - 0.5)


def _stripes(rng: Generator, size: int) -> np.ndarray:
    u, _ = _coordinates(rng, size)
    wave = np.sin(2 * np.pi * u / np.exp(rng.uniform(np.log(3), np.log(64))))
    sharpness = rng.uniform(1, 12)
    return 0.5 + 0.5 * np.tanh(wave * sharpness) / np.tanh(sharpness)


def _checks(rng: Generator, size: int) -> np.ndarray:
    u, v = _coordinates(rng, size)
    period = np.exp(rng.uniform(np.log(4), np.log(64)))
    wave = np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / (period * rng.uniform(0.6, 1.6)))
    return 0.5 + 0.5 * np.tanh(wave * rng.uniform(1, 10))


def _weave(rng: Generator, size: int) -> np.ndarray:
    u, v = _coordinates(rng, size)
    period = np.exp(rng.uniform(np.log(5), np.log(32)))
    a, b = np.abs(np.sin(np.pi * u / period)), np.abs(np.sin(np.pi * v / period))
    over = (np.floor(u / period) + np.floor(v / period)) % 2
    return np.where(over > 0, a, b * 0.8) * 0.8 + 0.2 * noise_field(rng, size, 1.0)


def _dots(rng: Generator, size: int) -> np.ndarray:
    u, v = _coordinates(rng, size)
    period = np.exp(rng.uniform(np.log(8), np.log(64)))
    radius = np.hypot((u % period) - period / 2, (v % period) - period / 2)
    return 1 / (1 + np.exp(radius - period * rng.uniform(0.15, 0.4))) + 0.1 * noise_field(rng, size, 1.0)


def _blobs(rng: Generator, size: int) -> np.ndarray:
    field = noise_field(rng, size, rng.uniform(1.6, 2.6))
    return 0.5 + 0.5 * np.tanh((field - rng.uniform(0.3, 0.7)) * rng.uniform(5, 60))


def _granite(rng: Generator, size: int) -> np.ndarray:
    mix = [
        noise_field(rng, size, e) * w for e, w in ((0.2, rng.uniform(0, 0.4)), (1.0, 0.4), (2.0, rng.uniform(0, 0.4)))
    ]
    return np.sum(mix, axis=0)


def _shapes(rng: Generator, size: int) -> np.ndarray:
    """Flat coloured shapes on a gradient: the edges and even faces of printed or moulded parts."""
    ramp = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    picture = (rng.uniform(0, 255, 3) * ramp + rng.uniform(0, 255, 3) * (1 - ramp)) * np.ones((size, size, 1))
    picture = np.ascontiguousarray(picture, np.float32)
    for _ in range(rng.integers(2, 14)):
        colour = tuple(float(c) for c in rng.uniform(0, 255, 3))
        x, y, w, h = (int(v) for v in (*rng.integers(0, size, 2), *rng.integers(4, size // 2, 2)))
        width = int(rng.choice([-1, -1, rng.integers(1, 6)]))
        if rng.random() < 0.5:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, width)
        else:
            cv2.ellipse(picture, (x, y), (w // 2, h // 2), rng.uniform(0, 180), 0, 360, colour, width, cv2.LINE_AA)
    return picture + rng.normal(0, rng.uniform(0, 6), picture.shape)


KINDS = {
    "colour noise": _colour_noise,
    "grey noise": _grey_noise,
    "brushed": _brushed,
    "stripes": _stripes,
    "checks": _checks,
    "weave": _weave,
    "dots": _dots,
    "blobs": _blobs,
    "granite": _granite,
    "shapes": _shapes,
}


def damage(rng: Generator, picture: np.ndarray, strength: float, other: np.ndarray | None = None) -> np.ndarray:
    """A copy with one defect: scratch, stain, missing piece, blur, colour spot, or a piece of `other` (same size)."""
    kinds = ["scratch", "stain", "missing", "blur", "colour"] + (["swap"] if other is not None else [])
    kind = str(rng.choice(kinds))
    mask = _scratch_mask(rng, picture.shape[:2]) if kind == "scratch" else _blob_mask(rng, picture.shape[:2])
    source = picture.astype(np.float32)
    changed = _changed(rng, kind, source, other)
    return _to_bytes(source + mask[..., None] * strength * (changed - source))


def _changed(rng: Generator, kind: str, source: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """What the whole picture would look like were the defect everywhere."""
    if kind == "blur":
        return cv2.GaussianBlur(source, (0, 0), rng.uniform(1.5, 4))
    if kind == "swap":
        return other.astype(np.float32)
    if kind == "missing":
        return np.broadcast_to(np.float32(rng.choice([0, 20, 235, 255])), source.shape)
    if kind == "colour":
        return source + rng.normal(0, 45, 3).astype(np.float32)
    return source + np.float32(rng.choice([-1, 1]) * rng.uniform(30, 90))  # scratch or stain: lighter or darker


def _scratch_mask(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.float32)
    point, angle = rng.uniform(0.15, 0.85, 2) * shape[::-1], rng.uniform(0, 2 * np.pi)
    step = rng.uniform(0.03, 0.09) * min(shape)
    points = [point]
    for _ in range(int(rng.integers(2, 7))):
        angle += rng.normal(0, 0.25)
        point = point + step * np.array([np.cos(angle), np.sin(angle)])
        points.append(point)
    cv2.polylines(mask, [np.int32(points)], False, 1.0, int(rng.integers(1, 4)), cv2.LINE_AA)
    return mask


def _blob_mask(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    centre = rng.uniform(0.1, 0.9, 2) * shape
    radius = np.exp(rng.uniform(np.log(0.015), np.log(0.12))) * min(shape) + 1.5
    angle = np.arctan2(y - centre[0], x - centre[1])
    edge = radius * (1 + sum(rng.normal(0, 0.15) * np.sin(k * angle + rng.uniform(0, 6.3)) for k in (1, 2, 3)))
    distance = np.hypot((y - centre[0]) * rng.uniform(0.6, 1.6), x - centre[1])
    return np.clip((edge - distance) / rng.uniform(0.7, 3) + 0.5, 0, 1)
