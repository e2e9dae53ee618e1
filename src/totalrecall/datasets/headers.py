"""The size of a picture from its first bytes: a set of ten thousand is looked through in seconds, not minutes.

OpenCV can only decode a whole picture to tell its size. PNG, JPEG and BMP say it at the beginning; of any other format,
and wherever a file is not quite as it should be, the picture is decoded, which also finds the words for what is wrong.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from totalrecall.files import open_regular
from totalrecall.images import read_image

__all__ = ["picture_size"]

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
