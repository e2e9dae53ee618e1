"""Pictures to batches. A batch is a pure function of its number and the seed."""

import csv
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator, default_rng
from torch import Tensor

from training.textures import damage, texture

# Whole sources that are never trained on, about a tenth: leather, glass panels, cubes, a street camera.
ASIDE = ("leather", "panel", "cube", "street")

# (crop size, crops in a batch), taken in turn: mostly small crops, which vary more for the same work, and every fourth
# step large ones, since the product's pictures are 224 to 256 px and a border takes less of them.
BATCHES = ((128, 32), (128, 32), (128, 32), (256, 8))
KEPT = 256
PASSES = 3

Answer = tuple[Tensor, ...]  # the teacher's maps


@dataclass(frozen=True)
class Pictures:
    """Decoded RGB pictures: to train on, and kept aside by group."""

    train: list[np.ndarray]
    aside: dict[str, list[np.ndarray]]


def load_pictures(folder: Path) -> Pictures:
    """All pictures that SOURCES.tsv names; the group of each is its file name up to the underscore."""
    train: list[np.ndarray] = []
    aside: dict[str, list[np.ndarray]] = {group: [] for group in ASIDE}
    with (folder / "SOURCES.tsv").open(encoding="utf-8", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file, delimiter="\t")]
    for name in names:
        picture = cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB)
        aside.get(name.split("_")[0], train).append(picture)
    return Pictures(train, aside)


def batch_number(seed: int, step: int) -> int:
    """Which batch a step takes: each stretch of `KEPT` batches comes `PASSES` times, in another order each."""
    stretch, place = divmod(step, KEPT * PASSES)
    turn, place = divmod(place, KEPT)
    order = default_rng([seed, stretch, turn]).permutation(KEPT)
    return stretch * KEPT + int(order[place])


class Supply:
    """Batches with the teacher's answers, both kept while their stretch lasts: making them takes half of a step.

    What is missing is made again from its number, so that a resumed run sees what an unbroken one would.
    """

    def __init__(self, pictures: list[np.ndarray], answer: Callable[[np.ndarray], Answer], seed: int):
        self._pictures, self._answer, self._seed = pictures, answer, seed
        self._kept: dict[int, tuple[np.ndarray, Answer]] = {}

    def run(self, start: int, stop: int, ahead: int = 4) -> Iterator[tuple[np.ndarray, Answer]]:
        """The batches of steps start..stop-1 in turn; a thread makes them a few steps ahead."""
        waiting: dict[int, Future] = {}
        with ThreadPoolExecutor(1) as pool:
            for step in range(start, stop):
                for soon in range(step, min(step + ahead, stop)):
                    number = batch_number(self._seed, soon)
                    if number not in self._kept and number not in waiting:
                        waiting[number] = pool.submit(batch, self._pictures, self._seed, number)
                if step % (KEPT * PASSES) == 0:
                    self._kept.clear()
                number = batch_number(self._seed, step)
                if number not in self._kept:
                    pictures = waiting.pop(number).result()
                    self._kept[number] = pictures, self._answer(pictures)
                yield self._kept[number]


def batch(pictures: list[np.ndarray], seed: int, number: int) -> np.ndarray:
    """A batch, uint8 (n, size, size, 3)."""
    rng = default_rng([seed, number])
    size, count = BATCHES[number % len(BATCHES)]
    crops = [_mixed(rng, pictures, size) for _ in range(count)]
    return np.stack(crops)


def _mixed(rng: Generator, pictures: list[np.ndarray], size: int) -> np.ndarray:
    """One augmented crop; at times two blended, or a piece of a second one pasted in."""
    crop = _crop(rng, pictures, size)
    chance = rng.random()
    if chance < 0.15:
        share = rng.uniform(0.2, 0.8)
        crop = cv2.addWeighted(crop, share, _crop(rng, pictures, size), 1 - share, 0)
    elif chance < 0.30:
        crop = damage(rng, crop, rng.uniform(0.3, 1.0), _crop(rng, pictures, size))
    return _spoil(rng, _recolour(rng, crop))


def _crop(rng: Generator, pictures: list[np.ndarray], size: int) -> np.ndarray:
    """A square crop of a random picture or procedural texture, turned and mirrored at random."""
    if rng.random() < 0.15:
        source = texture(rng, size)
    else:
        source = _cut(rng, pictures[rng.integers(len(pictures))], size)
    source = np.rot90(source, rng.integers(4))
    return np.ascontiguousarray(source[:, ::-1] if rng.random() < 0.5 else source)


def _cut(rng: Generator, picture: np.ndarray, size: int) -> np.ndarray:
    """A crop of log-uniform scale from 48 px (96 for large crops) to the whole, at times squashed, made `size`."""
    height, width = picture.shape[:2]
    short = min(height, width)
    side = np.exp(rng.uniform(np.log(min(short, 48 * size / 128)), np.log(short)))
    if rng.random() < 0.2:
        side = min(short, size)  # the picture's own pixels, not resampled
    stretch = np.exp(rng.normal(0, 0.15)) if rng.random() < 0.5 else 1.0
    h, w = (int(min(side * stretch, height)), int(min(side / stretch, width)))
    if rng.random() < 0.1:
        h, w = height, width  # the whole picture squashed to a square, as `size=256` does
    y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
    crop = picture[y : y + h, x : x + w]
    if crop.shape[:2] == (size, size):
        return crop
    enlarging = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if min(h, w) > size else enlarging)


def _recolour(rng: Generator, crop: np.ndarray) -> np.ndarray:
    """Grey, saturation, hue, contrast and colour offsets as one 3x4 colour matrix."""
    matrix = np.eye(3)
    offset = np.zeros(3)
    if rng.random() < 0.2:
        matrix = _saturation(0.0)
    elif rng.random() < 0.4:
        matrix = _saturation(rng.uniform(0.2, 2.0)) @ _hue(rng.normal(0, 0.5))
    if rng.random() < 0.5:
        # Low contrast on purpose: many products are nearly even surfaces, and their small differences must survive.
        contrast = np.exp(rng.uniform(np.log(0.25), np.log(1.5)))
        matrix, offset = contrast * matrix, offset + 118 * (1 - contrast) + rng.normal(0, 25)
    if rng.random() < 0.4:
        offset = offset + rng.normal(0, 20, 3)
    if rng.random() < 0.05:
        matrix, offset = -matrix, 255 - offset
    if rng.random() < 0.1:
        matrix = matrix[rng.permutation(3)]
    return cv2.transform(crop, np.column_stack([matrix, offset]))  # rounds and saturates to bytes


def _saturation(factor: float) -> np.ndarray:
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    return grey + factor * (np.eye(3) - grey)


def _hue(angle: float) -> np.ndarray:
    """A turn of the colours about the grey axis."""
    cos, sin = np.cos(angle), np.sin(angle) / np.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return cos * np.eye(3) + (1 - cos) / 3 * np.ones((3, 3)) + sin * cross


def _spoil(rng: Generator, crop: np.ndarray) -> np.ndarray:
    """What a camera adds: blur or sharpening, noise, JPEG."""
    chance = rng.random()
    if chance < 0.15:
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.4, 2.0))
    elif chance < 0.25:
        crop = cv2.addWeighted(crop, 2.0, cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.7, 2.0)), -1.0, 0)
    if rng.random() < 0.2:
        noise = rng.standard_normal(crop.shape, dtype=np.float32) * np.exp(rng.uniform(np.log(1), np.log(20)))
        crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        _, code = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 96))])
        crop = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return crop
