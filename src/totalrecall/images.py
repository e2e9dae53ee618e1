"""Files and arrays -> prepared pictures, and the way back from a prepared picture to original pixels.

Reading (`read_image`) turns any usual picture file into uint8 RGB as a person would see it. A `Recipe` says how a
picture is brought to the size that the backbone sees; `Recipe.geometry` gives the `Geometry` of a picture of some size,
which prepares pixels and carries maps and points back. `load_pictures` does both in threads, ahead of the engine.
"""

import contextlib
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from totalrecall.bit_depth import BitDepth
from totalrecall.decode import Pixels, decode_layers, decode_pixels, open_picture, to_8_bits
from totalrecall.errors import PictureError, SettingError
from totalrecall.files import read_regular, sha256
from totalrecall.formats import file_limit
from totalrecall.in_memory import ArrayInterface, ArrayLike, ReadableFile, is_float, pixels_in_memory, source_name
from totalrecall.pages import page_count
from totalrecall.picture_files import PICTURE_SUFFIXES, find_pictures
from totalrecall.read_ahead import ReadAhead
from totalrecall.types import AnomalyMap, Image, Mask, PreparedImage, PreparedMap, PreparedMask

__all__ = [
    "FAILURES",
    "PICTURE_SUFFIXES",
    "RESIZE_MODES",
    "Geometry",
    "LoadedPicture",
    "Recipe",
    "Source",
    "failure",
    "find_pictures",
    "is_grey",
    "load_picture",
    "load_pictures",
    "read_image",
    "read_layers",
]

# a picture: its file by name; or in memory: an array, a tensor, a PIL picture, the bytes of a file, an open file
Source = (
    str | os.PathLike[str] | np.ndarray | bytes | bytearray | memoryview | ArrayLike | ArrayInterface | ReadableFile
)
# whatever a picture may cause; one picture's failure never stops the others
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, cv2.error, struct.error, zlib.error,
)  # fmt: skip
RESIZE_MODES = ("squash", "letterbox", "crop")

# The ImageNet mean colour: after the backbone's own normalisation it is (nearly) zero, the same as its zero padding.
_BLANK = np.array([124, 116, 104], dtype=np.uint8)
_ALIKE = 4  # levels of 255 between the channels of a grey picture that a lossy format has stored
_LONGEST = 32  # times its short side, for a picture that is cropped


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
        return _window(canvas, self.offset, self.prepared, fill=_BLANK)

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
        canvas = np.pad(inside, ((max(top, 0), after[0]), (max(left, 0), after[1])), mode="edge")
        full = cv2.resize(canvas, self.original[::-1], interpolation=cv2.INTER_LINEAR)
        seen = np.zeros_like(full)
        seen[self.seen] = full[self.seen]
        return seen

    @property
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


@dataclass(frozen=True, eq=False)
class Recipe:
    """How pictures are prepared, the same for fitting and scoring.

    Attributes:
        size: side of the prepared square for `squash` and `letterbox`; the short side before the crop for `crop`.
        resize: `squash` (aspect given up), `letterbox` (aspect kept, padded) or `crop` (aspect kept, middle taken).
        crop: side of the middle square, for `crop` only; `size` if not given.
        tile: the picture is prepared `tile` times as large each way, and the backbone sees tile x tile pieces of it,
            each of the size given: for small defects on large pictures.
        roi: region of interest, a mask of any size with the pictures' framing; outside it nothing is seen or scored.
        depth: what 16-bit pictures are scaled to 8 bits by; None: their full range.
    """

    size: int = 256
    resize: str = "squash"
    crop: int | None = None
    tile: int = 1
    roi: Mask | None = field(default=None, repr=False)
    depth: BitDepth | None = None

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 4096:
            raise SettingError(f"size must be from 32 to 4096 pixels, got {self.size}. Usual: 224 to 512.")
        if self.resize not in RESIZE_MODES:
            raise SettingError(f"resize must be one of {', '.join(RESIZE_MODES)}, got {self.resize!r}.")
        if self.crop is not None and self.resize != "crop":
            raise SettingError(f"crop is for resize='crop' only, got crop={self.crop} with resize={self.resize!r}.")
        if self.crop is not None and not 32 <= self.crop <= self.size:
            raise SettingError(f"crop must be from 32 to size ({self.size}), got {self.crop}.")
        if self.roi is not None and (self.roi.dtype != bool or self.roi.ndim != 2):
            got = f"{self.roi.dtype} {self.roi.shape}"
            raise SettingError(f"roi must be a bool array (h, w), got {got}. For a grey mask write mask > 127.")
        if not 1 <= self.tile <= 16:
            raise SettingError(f"tile must be from 1 to 16 pieces a side, got {self.tile}. 2 makes four pieces.")
        if self.size * self.tile > 16384:
            raise SettingError(f"size times tile must be at most 16384 pixels, got {self.size * self.tile}.")
        if self.tile > 1 and self.piece % 32:
            wanted = max(round(self.piece / 32), 1) * 32
            raise SettingError(f"With tile, a piece must be a multiple of 32 pixels, got {self.piece}. Use {wanted}.")
        if self.roi is not None and not self.roi.any():
            raise SettingError("The region-of-interest mask is empty: white pixels mark what is inspected.")

    @property
    def piece(self) -> int:
        """Side in pixels of what the backbone sees at once; the prepared picture itself unless it is tiled."""
        return self.crop or self.size

    def geometry(self, height: int, width: int) -> Geometry:
        """Return the geometry of a picture of the given original size.

        Raises:
            PictureError: it is too long and narrow to be cropped.
        """
        size, target = self.size * self.tile, self.piece * self.tile
        if self.resize == "squash":
            return Geometry((height, width), (size, size), (0, 0), (size, size))
        if self.resize == "crop" and max(height, width) > _LONGEST * min(height, width):
            # its short side brought to `size`, a line of 1 x 5000 pixels would be a canvas of a gigabyte
            raise PictureError(
                f"A picture of {width} x {height} pixels is too long to crop, allowed is {_LONGEST} : 1. "
                "Use resize squash or letterbox."
            )
        side = max(height, width) if self.resize == "letterbox" else min(height, width)
        resized = (max(round(height * size / side), 1), max(round(width * size / side), 1))
        offset = ((resized[0] - target) // 2, (resized[1] - target) // 2)
        return Geometry((height, width), resized, offset, (target, target))

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
            blank = np.broadcast_to(_BLANK, image.shape).copy()
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

    def prepared_roi(self, geometry: Geometry) -> PreparedMask | None:
        """Return where the prepared picture (H, W) shows the region of interest, or None when all is inspected."""
        if self.roi is None:
            return None
        return _prepared_roi(self, geometry)

    def to_json(self) -> dict[str, Any]:
        """Return the settings without the mask, which a model file keeps as a tensor."""
        depth = {} if self.depth is None else self.depth.to_json()
        return {"size": self.size, "resize": self.resize, "crop": self.crop, "tile": self.tile, **depth}


@lru_cache(maxsize=16)  # pictures of one line share one size; Recipe hashes by identity (eq=False)
def _prepared_roi(recipe: Recipe, geometry: Geometry) -> PreparedMask | None:
    roi = recipe.original_roi(*geometry.original)
    return None if roi is None else geometry.prepare_mask(roi)


@dataclass(frozen=True)
class LoadedPicture:
    """A picture read and prepared, or the reason why it could not be.

    Attributes:
        path: as given, or `array[i]` for the i-th picture given as an array (`bytes[i]`, `file[i]`, `picture[i]`).
        image: original pixels, or None when `error` is set.
        prepared: what the backbone sees, or None when `error` is set.
        geometry: the way back to original pixels, or None when `error` is set.
        sha256: of the file's bytes (of the pixels for an array); empty unless asked for.
        error: why the picture cannot be used, or None.
        seconds: of one thread's time, to read, decode and prepare it.
        pages: of the file, of which the first is read (see `pages`).
        grey: its channels are alike, as those of a grey camera are.
    """

    path: str
    image: Image | None = None
    prepared: PreparedImage | None = None
    geometry: Geometry | None = None
    sha256: str = ""
    error: PictureError | None = None
    seconds: float = 0.0
    pages: int = 1
    grey: bool = False


def read_image(path: str | Path, depth: BitDepth | None = None) -> Image:
    """Read a picture file as uint8 RGB (h, w, 3), turned upright as its EXIF orientation says.

    16-bit pictures are scaled to 8 bits by the depth of their camera, by their full range if it is not given (never by
    their own minimum and maximum, which would make two pictures incomparable); transparent pixels show white.

    Raises:
        PictureError: the file is missing, empty, truncated, or not a picture.
    """
    return _reduced(decode_pixels(_read_bytes(path), str(path)), depth, str(path))


def read_layers(path: str | Path) -> tuple[Pixels, np.ndarray | None]:
    """Read a picture's colours as deep as they are, and its alpha channel (h, w) apart, for `masks`.

    Raises:
        PictureError: as for `read_image`.
    """
    return decode_layers(_read_bytes(path), str(path))


def load_pictures(
    sources: Iterable[Source],
    recipe: Recipe,
    *,
    hashes: bool = False,
    threads: int | None = None,
    max_pixels: int | None = None,
) -> Iterator[LoadedPicture]:
    """Read and prepare pictures in threads, a few ahead of the reader, in the order given.

    Args:
        sources: of the pictures.
        recipe: how they are prepared.
        hashes: note the SHA-256 of each.
        threads: that read; as many as processors, 8 at most, unless given.
        max_pixels: of a picture; None is `formats.max_pixels()`.

    Yields:
        A `LoadedPicture` for each source; one that cannot be read carries its error, and the others go on.
    """
    workers = threads or min(os.cpu_count() or 1, 8)
    count = 2 * workers + 2  # enough to ride out one slow picture; of large ones as many as `ReadAhead` lets in
    pending: deque[Future[LoadedPicture]] = deque()
    pool, ahead, taken = ThreadPoolExecutor(workers, thread_name_prefix="totalrecall-read"), ReadAhead(), 0
    try:
        for index, source in enumerate(sources):
            pending.append(pool.submit(_load, source, index, recipe, hashes, ahead, max_pixels))
            if len(pending) > count:
                loaded = pending.popleft().result()
                ahead.taken(taken)
                taken += 1
                yield loaded
        while pending:
            loaded = pending.popleft().result()
            ahead.taken(taken)
            taken += 1
            yield loaded
    finally:
        ahead.close()
        pool.shutdown(wait=False, cancel_futures=True)


def load_picture(source: Source, recipe: Recipe, *, max_pixels: int | None = None) -> LoadedPicture:
    """Read and prepare one picture here and now: starting a thread for it would cost a tenth of a judgement."""
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):  # noqa: PTH112  is_dir raises at a long name
        hint = "Judge its pictures with predict_stream, or with `totalrecall predict`."
        return LoadedPicture(str(source), error=PictureError(f"{source} is a folder. {hint}"))
    return _load(source, 0, recipe, False, ReadAhead(), max_pixels)


def _load(
    source: Source, index: int, recipe: Recipe, hashes: bool, ahead: ReadAhead, max_pixels: int | None
) -> LoadedPicture:
    name = source_name(source, index)
    began = time.perf_counter()
    try:
        image, digest, pages = _pixels(source, name, index, hashes, ahead, max_pixels, recipe.depth)
        prepared, geometry = recipe.prepare(image)
        grey = is_grey(image)
        ahead.hold(index, image.nbytes + prepared.nbytes)
    except PictureError as error:
        named = str(error).startswith(name)  # the recipe does not know the name
        return LoadedPicture(name, error=error if named else PictureError(f"{name}: {error}"))
    except FAILURES as error:  # a hostile file must not stop the others
        return LoadedPicture(name, error=failure(name, error))
    seconds = time.perf_counter() - began
    return LoadedPicture(name, image, prepared, geometry, digest, None, seconds, pages, grey)


def _reduced(pixels: Pixels, depth: BitDepth | None, name: str) -> Image:
    return to_8_bits(pixels, name) if depth is None else depth.to_8_bits(pixels, name)


def is_grey(image: Image) -> bool:
    """Tell whether the channels of a picture are alike, as of a grey camera: within what a lossy format leaves."""
    few = image[:: image.shape[0] // 16 + 1, :: image.shape[1] // 16 + 1]
    if np.ptp(few, axis=2).max() > _ALIKE:  # a colour picture is known by a few pixels
        return False
    red, green, blue = cv2.split(image)
    return all(cv2.norm(green, other, cv2.NORM_INF) <= _ALIKE for other in (red, blue))


def failure(name: str, error: Exception) -> PictureError:
    """Return what is said of a picture that failed in a way that no one foresaw."""
    if isinstance(error, MemoryError) or getattr(error, "code", 0) == cv2.Error.StsNoMem:
        return PictureError(f"{name} is too large for the memory that is left. Save it smaller, or cut it into tiles.")
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return PictureError(f"{name} cannot be prepared: {reason[-1]}")


def _pixels(
    source: Source,
    name: str,
    index: int,
    hashes: bool,
    ahead: ReadAhead,
    max_pixels: int | None,
    depth: BitDepth | None,
) -> tuple[Image, str, int]:
    """Return a picture's pixels, the SHA-256 of its file (of its pixels where it has none), and its pages."""
    if not isinstance(source, (str, os.PathLike)):
        pixels = pixels_in_memory(source, name, max_pixels=max_pixels)
        # numbers from 0 to 1 are of no camera's depth
        image = pixels if is_float(source) else _reduced(pixels, depth, name)
        of = source if isinstance(source, (bytes, bytearray, memoryview)) else np.ascontiguousarray(image)
        return image, sha256(bytes(of)) if hashes else "", 1
    with contextlib.suppress(OSError, ValueError):  # it will be named when it is read
        ahead.hold(index, min(os.stat(source).st_size, file_limit()))  # noqa: PTH116
    data = _read_bytes(source)
    file = open_picture(data, name, max_pixels=max_pixels)
    if not ahead.hold(index, len(data) + 2 * file.header.decoded_bytes):  # as decoded, and as turned to RGB
        raise PictureError(f"{name} was not read: nobody waits for it any more.")
    return _reduced(file.decode(), depth, name), sha256(data) if hashes else "", page_count(data)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_regular(path, limit=file_limit())
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist.") from None
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}.") from None


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
