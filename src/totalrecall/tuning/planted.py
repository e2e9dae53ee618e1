"""The defects that all settings are tried on: the same places, shapes and contrasts for each of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from totalrecall.errors import DataError, PictureError
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import Source
from totalrecall.planting import KINDS, ground, plant
from totalrecall.types import Image, Mask

__all__ = ["HELD_AT_MOST", "PlantedDefects", "plant_defects"]

_STREAM = 2  # of the seed's numbers: `capability` draws its defects from another, so it does not test on these
_PER_KIND = 20
_SMALLEST, _LARGEST = 0.02, 0.25  # of the square root of the part's area
_FAINTEST, _PLAINEST = 0.1, 0.4  # share of white
HELD_AT_MOST, _AT_LEAST = 512 << 20, 3  # bytes of good pictures in memory, but so many pictures


@dataclass(frozen=True, eq=False)
class _Change:
    """What a planted defect changes: its corner on the picture, and the new pixels (h, w, 3)."""

    picture: int
    left: int
    top: int
    pixels: Image


@dataclass(frozen=True, eq=False)
class PlantedDefects:
    """Good pictures and the defects that are planted on them.

    Attributes:
        goods: the pictures, uint8 RGB (h, w, 3).
        kinds: of each planted defect, a name of `planting.KINDS`.
    """

    goods: Sequence[Image]
    kinds: Sequence[str]
    _changes: Sequence[_Change] = field(repr=False)

    def __len__(self) -> int:
        return len(self._changes)

    def pictures(self) -> Iterator[Image]:
        """Yield the planted pictures; only what changed is kept in memory."""
        for change in self._changes:
            copy = self.goods[change.picture].copy()
            h, w = change.pixels.shape[:2]
            copy[change.top : change.top + h, change.left : change.left + w] = change.pixels
            yield copy


def plant_defects(
    sources: Sequence[Source], recipe: Recipe, seed: int, *, most: int = HELD_AT_MOST, per_kind: int = _PER_KIND
) -> PlantedDefects:
    """Plant defects of every kind, of many sizes and contrasts, on good pictures.

    Args:
        sources: the good pictures; those that cannot be read are left out.
        recipe: where the region of interest is, and what a crop hides; the size in it does not matter.
        seed: the same one plants the same defects.
        most: bytes of good pictures in memory, but at least three pictures.
        per_kind: defects of each kind.

    Raises:
        DataError: no defect could be planted.
    """
    goods, where = _read(sources, recipe, most)
    kinds: list[str] = []
    changes: list[_Change] = []
    for place, kind in enumerate(KINDS):
        for number in range(per_kind if goods else 0):
            rng = np.random.default_rng([seed, _STREAM, place, number])
            picture = int(rng.integers(len(goods)))
            part, region = where[picture]
            side = float(np.sqrt(np.count_nonzero(part if region is None else part & region)))
            size = max(side * _SMALLEST * (_LARGEST / _SMALLEST) ** rng.random(), 2.0)
            contrast = float(rng.uniform(_FAINTEST, _PLAINEST))
            defect = plant(goods[picture], kind, size, rng, contrast=contrast, part=part, region=region)
            if defect is not None:
                left, top, width, height = defect.box
                pixels = defect.picture[top : top + height, left : left + width].copy()
                kinds.append(kind)
                changes.append(_Change(picture, left, top, pixels))
    if not changes:
        raise DataError("No defect could be planted on the good pictures. Look at them, and at the region of interest.")
    return PlantedDefects(goods, kinds, changes)


def _read(sources: Sequence[Source], recipe: Recipe, most: int) -> tuple[list[Image], list[tuple[Mask, Mask | None]]]:
    """Return pictures that can be read, as many as `most` bytes hold, and of each where it is the part, and judged."""
    goods: list[Image] = []
    where: list[tuple[Mask, Mask | None]] = []
    for source in sources:
        try:
            image, part, region = ground(source, recipe)
        except PictureError:  # the fit on all pictures names it
            continue
        if len(goods) >= _AT_LEAST and sum(good.nbytes for good in goods) + image.nbytes > most:
            break
        goods.append(image)
        where.append((part, region))
    return goods, where
