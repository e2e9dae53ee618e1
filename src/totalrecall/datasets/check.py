"""The size of a picture from its first bytes: a set of ten thousand is looked through in seconds, not minutes.

OpenCV has to decode a whole picture to know its size. PNG, JPEG and BMP files have the size at the beginning. Pictures
of any other format, and files with something unusual, are decoded, which also finds out what is wrong with them.
"""

import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from totalrecall.datasets.base import DataSet, FrameMask, MaskSource, Sample, open_array
from totalrecall.errors import DataError, PictureError
from totalrecall.pictures.loading import read_image
from totalrecall.pictures.masks import read_mask
from totalrecall.system.files import open_regular

__all__ = ["Problem", "check_files", "mask_files", "picture_size"]

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers that stand alone
_FRAME_STARTS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_ORIENTATION = 0x0112


def picture_size(path: Path) -> tuple[int, int]:
    """Return height and width of a picture as `read_image` would give it, turned upright.

    A file that is cut short is found, since its end is looked at; damage in the middle is not.

    Raises:
        PictureError: the file is missing, empty, cut short, or not a picture.
    """
    try:
        with open_regular(path) as file:
            size = _from_header(file)
    except (OSError, struct.error, IndexError, ValueError):  # it ends early, or lengths in it are nonsense
        size = None
    if size is None:
        height, width = read_image(path).shape[:2]
        return height, width
    return size


def _from_header(file: BinaryIO) -> tuple[int, int] | None:
    """Return height and width, or None where the header is not plain."""
    start = file.read(26)
    if start.startswith(_PNG_START):
        return _png(file)
    if start.startswith(_JPEG_START):
        return _jpeg(file)
    if start.startswith(b"BM"):
        length, header = struct.unpack_from("<I", start, 2)[0], struct.unpack_from("<I", start, 14)[0]
        width, height = struct.unpack_from("<ii", start, 18)
        plain = header >= 40 and width > 0 and height != 0 and _length(file) >= length > 0
        return (abs(height), width) if plain else None  # a negative height: the rows go from top to bottom
    return None


def _png(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(len(_PNG_START))
    size = None
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"IHDR":
            width, height = struct.unpack(">II", file.read(8))
            size = (height, width)
            file.seek(-8, 1)
        elif kind == b"eXIf":
            return None  # may turn the picture
        elif kind == b"IDAT":
            return size if size and all(size) and _ends_with(file, _PNG_END) else None
        file.seek(length + 4, 1)


def _jpeg(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(2)
    turned = False
    while True:
        marker = file.read(2)
        if marker[0] != 0xFF:
            return None
        if marker[1] == 0xFF:  # fill byte
            file.seek(-1, 1)
            continue
        if marker[1] in _NO_LENGTH:
            continue
        length = struct.unpack(">H", file.read(2))[0]
        if marker[1] in _FRAME_STARTS:
            height, width = struct.unpack(">xHH", file.read(5))
            if height == 0 or width == 0 or not _ends_with(file, _JPEG_END):
                return None
            return (width, height) if turned else (height, width)
        body = file.read(length - 2)
        if marker[1] == 0xE1 and body.startswith(b"Exif\0\0"):
            turned = _exif_orientation(body[6:]) >= 5  # 5 to 8: lies on its side


def _exif_orientation(tiff: bytes) -> int:
    """Return the orientation, 1 to 8, that an Exif block states; 1 where it states none."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    position = struct.unpack_from(f"{order}I", tiff, 4)[0]
    for entry in range(struct.unpack_from(f"{order}H", tiff, position)[0]):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, position + 2 + 12 * entry)
        if tag == _ORIENTATION:
            return int(value)
    return 1


def _length(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _ends_with(file: BinaryIO, end: bytes) -> bool:
    length = _length(file)
    file.seek(max(0, length - len(end)))
    return file.read() == end


_THREADS = 8
_MOST = 0.6  # of a picture, and of its border, that no defect covers


@dataclass(frozen=True)
class Problem:
    """A picture or mask that cannot be used as it is, and why in one line."""

    path: Path
    message: str


def check_files(
    data: DataSet, *, decode: bool = False, progress: Callable[[int, int], object] | None = None
) -> list[Problem]:
    """Return what is wrong with the files of a data set, in the order of its samples.

    Args:
        data: an opened data set.
        decode: decode every picture and mask instead of reading the first bytes; slow where they are large.
        progress: called as `progress(done, total)` after each sample.
    """
    problems: list[Problem] = []
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        found = pool.map(lambda sample: list(_problems(sample, decode)), data.samples)
        for done, some in enumerate(found, start=1):
            problems += some
            if progress is not None:
                progress(done, len(data.samples))
    return problems


def mask_files(mask: MaskSource | None) -> tuple[Path, ...]:
    """Return the files that a mask is in."""
    if mask is None:
        return ()
    if isinstance(mask, FrameMask):
        return (mask.path,)
    return mask if isinstance(mask, tuple) else (mask,)


def _problems(sample: Sample, decode: bool) -> Iterator[Problem]:
    try:
        size = _decoded_size(sample.path) if decode else picture_size(sample.path)
    except PictureError as error:
        yield Problem(sample.path, str(error))
        return
    for path in mask_files(sample.mask):
        try:
            mask_size = _mask_size(path, sample.mask, decode)
        except (PictureError, DataError) as error:
            yield Problem(path, f"The mask of {sample.path} cannot be used: {error}")
            continue
        if mask_size != size:
            yield Problem(
                path,
                f"The mask {path} is {mask_size[1]} x {mask_size[0]} pixels, its picture {sample.path} "
                f"{size[1]} x {size[0]}. They must be of one size.",
            )


def _decoded_size(path: Path) -> tuple[int, int]:
    height, width = read_image(path).shape[:2]
    return height, width


def _understood_size(path: Path) -> tuple[int, int]:
    """Return the size of a mask of which one can say what it marks, and which does not seem to be inverted."""
    mask = read_mask(path)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if mask.mean() > _MOST and border.mean() > _MOST:
        raise DataError(
            f"{path} marks {mask.mean():.0%} of the picture, its border too, so it seems to be inverted. "
            "Defects are white on black."
        )
    return mask.shape


def _mask_size(path: Path, mask: MaskSource | None, decode: bool) -> tuple[int, int]:
    if not isinstance(mask, FrameMask):
        return _understood_size(path) if decode else picture_size(path)
    try:
        frames = open_array(path)  # the header alone, until a frame is looked at
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not an array of masks ({error}). Restore the file.") from None
    if frames.ndim != 3 or mask.frame >= len(frames):
        raise DataError(f"{path} has the shape {frames.shape} and no frame {mask.frame}. Restore the file.")
    return frames.shape[1], frames.shape[2]
