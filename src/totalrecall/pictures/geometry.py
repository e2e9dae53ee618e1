"""How a picture becomes the square that the backbone sees, and the exact way back to its own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np

from totalrecall.errors import PictureError, SettingError
from totalrecall.pictures.bit_depth import BitDepth
from totalrecall.pictures.settings import Framing
from totalrecall.system.settings import declared
from totalrecall.types import AnomalyMap, Image, Mask, PreparedImage, PreparedMap, PreparedMask

__all__ = ["BLANK", "LONGEST", "Frame", "Geometry", "Recipe"]

# The ImageNet mean colour: after the backbone's own normalisation it is (nearly) zero, the same as its zero padding.
BLANK = np.array([124, 116, 104], dtype=np.uint8)
LONGEST = 32  # times its short side, for a picture that is cropped


@dataclass(frozen=True)
class Geometry:
    """How one picture's pixels map to the prepared picture.

    The original (h, w) is resized to `resized` (h', w'); the prepared picture (H, W) is a window of that canvas whose
    top left corner stands at `offset`: zero when squashed, positive when cropped, negative when letterboxed.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    prepared: tuple[int, int]

    def prepare(self, image: Image) -> PreparedImage:
        """Return the prepared picture, uint8 (H, W, 3)."""
        canvas = _resize(image, self.resized)
        return _window(canvas, self.offset, self.prepared, fill=BLANK)

    def prepare_mask(self, mask: Mask) -> PreparedMask:
        """Return where the prepared picture shows any of a mask of the original; False where it is padding.

        Any, not most: a thin region would be lost when it shrinks.
        """
        canvas = _resize(mask.astype(np.float32), self.resized)
        return _window(canvas, self.offset, self.prepared, fill=np.float32(0)) > 0

    def map_to_original(self, prepared_map: PreparedMap) -> AnomalyMap:
        """Carry a map (H, W) of the prepared picture to original pixels (h, w); 0 where a crop hid the picture.

        Pixel centres are kept (align_corners=False): this is the exact inverse of `prepare`'s resize.
        """
        (top, left), (rows, columns) = self.offset, self.resized
        inside = prepared_map[max(-top, 0) :, max(-left, 0) :][:rows, :columns]
        after = (rows - max(top, 0) - inside.shape[0], columns - max(left, 0) - inside.shape[1])
        # subtle: pad by the edge before resizing, not by zero, or the seen pixels beside the crop would be pulled down
        if max(top, left, *after) > 0:
            inside = np.pad(inside, ((max(top, 0), after[0]), (max(left, 0), after[1])), mode="edge")
        full = cv2.resize(inside, self.original[::-1], interpolation=cv2.INTER_LINEAR)
        if self.seen == (slice(0, full.shape[0]), slice(0, full.shape[1])):
            return full
        seen = np.zeros_like(full)
        seen[self.seen] = full[self.seen]
        return seen

    @cached_property
    def seen(self) -> tuple[slice, slice]:
        """Rows and columns of the original whose centres the prepared picture shows; all unless it was cropped."""
        bounds = []
        for axis in (0, 1):
            scale = self.original[axis] / self.resized[axis]
            first = max(self.offset[axis], 0)
            last = min(self.offset[axis] + self.prepared[axis], self.resized[axis])
            start = min(round(first * scale), self.original[axis] - 1)
            bounds.append(slice(start, max(round(last * scale), start + 1)))  # of 2 x 2 pixels it may show no centre
        return bounds[0], bounds[1]

    def point_to_original(self, row: float, column: float) -> tuple[int, int]:
        """Return the original pixel (row, column) under a point of the prepared picture, kept inside the picture."""
        point = []
        for axis, value in enumerate((row, column)):
            scale = self.original[axis] / self.resized[axis]
            point.append(min(max(int((value + 0.5 + self.offset[axis]) * scale), 0), self.original[axis] - 1))
        return point[0], point[1]

    def cell_centre(self, grid: tuple[int, ...], row: float, column: float) -> tuple[int, int]:
        """Return x and y, in original pixels, of the centre of a cell of a patch grid (rows, columns)."""
        height, width = self.prepared[0] / grid[0], self.prepared[1] / grid[1]
        y, x = self.point_to_original((row + 0.5) * height - 0.5, (column + 0.5) * width - 0.5)
        return x, y


@dataclass(frozen=True, eq=False)
class Frame:
    """What a map of one picture needs on its way back to original pixels.

    Attributes:
        geometry: of the picture.
        prepared_roi: region of interest on the prepared picture; None where all is inspected.
        original_roi: region of interest at the picture's own size; None where all is inspected.
    """

    geometry: Geometry
    prepared_roi: PreparedMask | None
    original_roi: Mask | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe(Framing):
    """How pictures are prepared, the same for fitting and scoring: the settings of `Framing`, and what was read.

    Attributes:
        roi: region of interest, a mask of any size with the pictures' framing; outside it nothing is seen or scored.
        depth: what 16-bit pictures are scaled to 8 bits by; None: their full range.
    """

    roi: Mask | None = field(default=None, repr=False)
    depth: BitDepth | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        super().__post_init__()
        if self.roi is not None and (self.roi.dtype != bool or self.roi.ndim != 2):
            got = f"{self.roi.dtype} {self.roi.shape}"
            raise SettingError(f"roi must be a bool array (h, w), got {got}. For a grey mask write mask > 127.", "roi")
        if self.roi is not None and not self.roi.any():
            raise SettingError("The region-of-interest mask is empty: white pixels mark what is inspected.")

    @classmethod
    def of(cls, framing: Framing, roi: Mask | None, *, size: int | None = None) -> "Recipe":
        """Return the recipe of some settings, with the region of interest that was read from them.

        Args:
            framing: the settings.
            roi: the region of interest.
            size: of the prepared picture; that of the settings if not given.
        """
        values = {name: getattr(framing, name) for name in declared(Framing)}
        return cls(**values | ({} if size is None else {"size": size}), roi=roi)

    def geometry(self, height: int, width: int) -> Geometry:
        """Return the geometry of a picture of the given original size.

        Raises:
            PictureError: it is too long and narrow to be cropped.
        """
        return _geometry(self.resize, self.size * self.tile, self.piece * self.tile, height, width)

    def prepare(self, image: Image) -> tuple[PreparedImage, Geometry]:
        """Return the prepared picture and its geometry; what lies outside the region of interest is blanked.

        Blanking, rather than only ignoring the patches outside, means that nothing outside can reach a score through
        the backbone's wide receptive field.

        Raises:
            PictureError: it cannot be cropped, or has another shape than the region of interest.
        """
        geometry = self.geometry(image.shape[0], image.shape[1])
        self._check_framing(*geometry.original)
        roi = self.original_roi(*geometry.original)
        if roi is not None:  # subtle: before the resize, which mixes the pixels on either side of the border
            blank = np.broadcast_to(BLANK, image.shape).copy()
            image = cv2.copyTo(image, roi.view(np.uint8), blank)
        return geometry.prepare(image), geometry

    def _check_framing(self, height: int, width: int) -> None:
        """Refuse a picture of another shape than the region of interest, which would mark other places on it.

        Raises:
            PictureError: the sides are in another ratio, by more than rounding to whole pixels explains.
        """
        if self.roi is None:
            return
        rows, columns = self.roi.shape
        if abs(rows * width - columns * height) > max(rows + columns, height + width):
            raise PictureError(
                f"The picture has {width} x {height} pixels, its region of interest {columns} x {rows}, which is "
                "another shape. Draw the region on a picture of this camera, whole and upright."
            )

    def original_roi(self, height: int, width: int) -> Mask | None:
        """Return the region of interest at a picture's own size, or None when the whole picture is inspected."""
        if self.roi is None:
            return None
        if self.roi.shape == (height, width):
            return self.roi
        resized = cv2.resize(self.roi.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return resized.astype(bool)

    def frame(self, geometry: Geometry) -> Frame:
        """Return a picture's geometry together with its region of interest in both sizes."""
        return Frame(geometry, self.prepared_roi(geometry), self.original_roi(*geometry.original))

    def cell_centre(
        self, original: tuple[int, int], grid: tuple[int, ...], row: float, column: float
    ) -> tuple[int, int]:
        """Return x and y of the centre of a grid's cell in a picture of the given original size (h, w)."""
        return self.geometry(*original).cell_centre(grid, row, column)

    def prepared_roi(self, geometry: Geometry) -> PreparedMask | None:
        """Return where the prepared picture (H, W) shows the region of interest, or None when all is inspected."""
        if self.roi is None:
            return None
        return _prepared_roi(self, geometry)

    def to_json(self) -> dict[str, Any]:
        """Return the settings without the mask, which a model file keeps as a tensor."""
        depth = {} if self.depth is None else self.depth.to_json()
        return {**{name: getattr(self, name) for name in declared(Framing)}, **depth}


@lru_cache(maxsize=256)  # of the picture that is judged and of the good one that its worst patch is nearest to
def _geometry(resize: str, size: int, target: int, height: int, width: int) -> Geometry:
    if resize == "squash":
        return Geometry((height, width), (size, size), (0, 0), (size, size))
    if resize == "crop" and max(height, width) > LONGEST * min(height, width):
        # its short side brought to `size`, a line of 1 x 5000 pixels would be a canvas of a gigabyte
        raise PictureError(
            f"A picture of {width} x {height} pixels is too long to crop, allowed is {LONGEST} : 1. "
            "Use resize squash or letterbox."
        )
    side = max(height, width) if resize == "letterbox" else min(height, width)
    resized = (max(round(height * size / side), 1), max(round(width * size / side), 1))
    offset = ((resized[0] - target) // 2, (resized[1] - target) // 2)
    return Geometry((height, width), resized, offset, (target, target))


@lru_cache(maxsize=16)  # pictures of one line share one size; Recipe hashes by identity (eq=False)
def _prepared_roi(recipe: Recipe, geometry: Geometry) -> PreparedMask | None:
    roi = recipe.original_roi(*geometry.original)
    return None if roi is None else geometry.prepare_mask(roi)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize, each axis by what suits it: area average where it shrinks (no aliasing), bilinear where it grows."""
    shrunk = (min(size[0], image.shape[0]), min(size[1], image.shape[1]))
    if shrunk != image.shape[:2]:
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if size != shrunk:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return image


def _window(canvas: np.ndarray, offset: tuple[int, int], size: tuple[int, int], fill: Any) -> np.ndarray:
    """Cut the window of `size` at `offset` out of the canvas; what lies outside the canvas is `fill`."""
    if offset == (0, 0) and size == canvas.shape[:2]:
        return canvas
    out = np.empty((*size, *canvas.shape[2:]), canvas.dtype)
    out[...] = fill
    spans: Sequence[tuple[slice, slice]] = [
        (slice(max(-start, 0), max(-start, 0) + count), slice(max(start, 0), max(start, 0) + count))
        for start, length, limit in zip(offset, size, canvas.shape[:2], strict=True)
        for count in [min(length - max(-start, 0), limit - max(start, 0))]
    ]
    out[spans[0][0], spans[1][0]] = canvas[spans[0][1], spans[1][1]]
    return out
