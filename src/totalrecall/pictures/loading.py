"""Files and arrays -> prepared pictures.

`read_image` turns any usual picture file into uint8 RGB as a person would see it. `load_pictures` reads and prepares
pictures in threads, ahead of the engine; `geometry.Recipe` says how they are prepared.
"""

import contextlib
import os
import re
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from totalrecall.errors import PictureError, SettingError
from totalrecall.pictures.bit_depth import BitDepth
from totalrecall.pictures.decode import Pixels, decode_layers, decode_pixels, open_picture, to_8_bits
from totalrecall.pictures.files import find_pictures
from totalrecall.pictures.formats.header import file_limit
from totalrecall.pictures.geometry import Geometry, Recipe
from totalrecall.pictures.in_memory import (
    ArrayInterface,
    ArrayLike,
    ReadableFile,
    RemotePicture,
    held,
    is_float,
    is_in_memory,
    pixels_in_memory,
    source_name,
)
from totalrecall.system.files import read_regular, sha256
from totalrecall.system.threads import cores
from totalrecall.types import Image, PreparedImage

__all__ = [
    "FAILURES",
    "READ_AHEAD",
    "LearntPicture",
    "LoadedPicture",
    "ReadAhead",
    "Source",
    "Sources",
    "expand",
    "failure",
    "is_grey",
    "load_picture",
    "load_pictures",
    "picture_size",
    "read_image",
    "read_layers",
    "renumbered",
    "spread",
]


@dataclass(frozen=True)
class LearntPicture:
    """A picture that the bank learnt from: its path as given, SHA-256, original size in pixels, whether it is grey.

    A model of before does not say whether (None).
    """

    path: str
    sha256: str
    height: int
    width: int
    grey: bool | None = None

    @classmethod
    def of(cls, loaded: "LoadedPicture") -> "LearntPicture":
        """Return what is kept of a picture that was read."""
        assert loaded.geometry is not None
        return cls(loaded.path, loaded.sha256, *loaded.geometry.original, loaded.grey)


# a picture: its file by name, its address in a store; or in memory: an array, a tensor, a PIL picture, the bytes of a
# file, an open file
Source = (
    str | os.PathLike[str] | np.ndarray | bytes | bytearray | memoryview | ArrayLike | ArrayInterface | ReadableFile
)
# whatever a picture may cause; one picture's failure never stops the others
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, cv2.error, struct.error, zlib.error,
)  # fmt: skip
READ_AHEAD = 512 << 20  # bytes of files and pixels that wait for the reader
_ALIKE = 4  # levels of 255 between the channels of a grey picture that a lossy format has stored


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
        pages: of the file, of which the first is read.
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

    @property
    def in_memory(self) -> bool:
        """Whether it is no file, by its name."""
        return re.fullmatch(r"\w+\[\d+\]", self.path) is not None


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


def picture_size(source: Source) -> tuple[int, int]:
    """Return height and width of a picture, turned upright. Of a file only the header counts: nothing is decoded.

    Raises:
        PictureError: it is missing, empty, not a picture, or its structure is damaged.
    """
    if isinstance(source, (str, os.PathLike)):
        return open_picture(_read_bytes(source), str(source)).header.upright
    if isinstance(source, (bytes, bytearray, memoryview)):
        return open_picture(bytes(source), "bytes").header.upright
    height, width = pixels_in_memory(source, "picture").shape[:2]
    return height, width


class ReadAhead:
    """Bytes that the pictures of a stream hold until the reader has taken them and asks for the next.

    The picture whose turn it is never waits, so a stream of pictures that are each larger than the limit goes on, one
    at a time.

    Args:
        limit: bytes of all of them.
    """

    def __init__(self, limit: int = READ_AHEAD) -> None:
        self._limit = limit
        self._held: dict[int, int] = {}
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def hold(self, index: int, size: int) -> bool:
        """Wait until a picture may hold `size` bytes in all; False where nobody reads any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or index <= self._turn or self._fits(index, size))
            self._held[index] = size
            self._changed.notify_all()
            return not self._closed

    def taken(self, index: int) -> None:
        """Note that the reader is done with a picture and asks for the next: it is that one's turn."""
        with self._changed:
            self._held.pop(index, None)
            self._turn = index + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let everyone go who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return sum(self._held.values())

    def _fits(self, index: int, size: int) -> bool:
        before = self._held.get(index, 0)
        return size <= before or self.held - before + size <= self._limit


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
        threads: that read; as many as cores, 8 at most, unless given.
        max_pixels: of a picture; None is `formats.header.max_pixels()`.

    Yields:
        A `LoadedPicture` for each source; one that cannot be read carries its error, and the others go on.
    """
    workers = threads or min(cores(), 8)
    count = 2 * workers + 2  # enough to ride out one slow picture; of large ones as many as `ReadAhead` lets in
    pending: deque[Future[LoadedPicture]] = deque()
    pool, ahead, taken = ThreadPoolExecutor(workers, thread_name_prefix="totalrecall-read"), ReadAhead(), 0
    try:
        for index, source in enumerate(sources):
            pending.append(pool.submit(_load, source, index, recipe, hashes, ahead, max_pixels))
            if len(pending) > count:
                yield pending.popleft().result()
                ahead.taken(taken)
                taken += 1
        while pending:
            yield pending.popleft().result()
            ahead.taken(taken)
            taken += 1
    finally:
        ahead.close()
        pool.shutdown(wait=False, cancel_futures=True)


def load_picture(source: Source, recipe: Recipe, *, max_pixels: int | None = None) -> LoadedPicture:
    """Read and prepare one picture here and now: starting a thread for it would cost a tenth of a judgement."""
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):  # noqa: PTH112  is_dir raises at a long name
        hint = "Judge its pictures with predict_stream, or with `totalrecall predict`."
        return LoadedPicture(str(source), error=PictureError(f"{source} is a folder. {hint}"))
    return _load(source, 0, recipe, False, None, max_pixels)


def _load(
    source: Source, index: int, recipe: Recipe, hashes: bool, ahead: ReadAhead | None, max_pixels: int | None
) -> LoadedPicture:
    name = str(source) if isinstance(source, (str, os.PathLike)) else source_name(source, index)
    began = time.perf_counter()
    try:
        image, digest, pages = _pixels(source, name, index, hashes, ahead, max_pixels, recipe.depth)
        prepared, geometry = recipe.prepare(image)
        grey = is_grey(image)
        if ahead is not None:
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
    ahead: ReadAhead | None,
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
    if ahead is not None:
        with contextlib.suppress(OSError, ValueError):  # it will be named when it is read
            ahead.hold(index, min(os.stat(source).st_size, file_limit()))  # noqa: PTH116
    data = _read_bytes(source)
    file = open_picture(data, name, max_pixels=max_pixels)
    # as decoded, and as turned to RGB
    if ahead is not None and not ahead.hold(index, len(data) + 2 * file.header.decoded_bytes):
        raise PictureError(f"{name} was not read: the run was stopped.")
    return _reduced(file.decode(), depth, name), sha256(data) if hashes else "", file.header.pictures


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    if isinstance(path, RemotePicture):
        return path.read_bytes()
    try:
        return read_regular(path, limit=file_limit())
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist.") from None
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}.") from None


Sources = Source | Iterable[Source]
_WANTED = "Give paths, folders, globs, bytes, open files, PIL pictures or arrays (h, w, 3)."


def expand(pictures: Any) -> Sequence[Source]:
    """Turn what `fit` and `predict_stream` take into single pictures that can be read more than once.

    An array or tensor of four axes is so many pictures; of an open file the bytes are read now.

    Raises:
        DataError: a folder or glob holds no picture.
        PictureError: an open file cannot be read.
        SettingError: it is neither a picture nor a collection of them.
    """
    if isinstance(pictures, (str, os.PathLike)):
        return list(find_pictures(_path(pictures)))
    if is_in_memory(pictures):
        if getattr(pictures, "ndim", 0) == 4:
            return list(np.asarray(pictures))
        return [held(pictures)]
    if not isinstance(pictures, Iterable):
        raise SettingError(f"pictures must be a picture or several, got {type(pictures).__name__}. {_WANTED}")
    sources: list[Source] = []
    for picture in pictures:
        if isinstance(picture, RemotePicture):
            sources.append(picture)
        elif isinstance(picture, (str, os.PathLike)):
            sources.extend(find_pictures(_path(picture)))
        elif is_in_memory(picture):
            sources.append(held(picture))
        else:
            raise SettingError(
                f"pictures must be a picture or several, got a {type(picture).__name__} among them. {_WANTED}"
            )
    return sources


def _path(given: str | os.PathLike[str]) -> str | Path:
    return given if isinstance(given, str) else Path(given)


def renumbered(loaded: LoadedPicture, source: Source, at: int) -> LoadedPicture:
    """Return a picture in memory under its own number: the stream counts from its own beginning."""
    name = source_name(source, at)
    if loaded.path == name:
        return loaded
    error = loaded.error and PictureError(str(loaded.error).replace(loaded.path, name, 1))
    return replace(loaded, path=name, error=error)


def spread(sources: Sequence[Source], count: int) -> list[Source]:
    """Return up to `count` of the sources, at even steps."""
    return [sources[at] for at in np.unique(np.linspace(0, len(sources) - 1, min(count, len(sources))).astype(int))]
