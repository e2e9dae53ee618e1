"""JPEG: what its segments say, and its pixels by OpenCV, refused where the decoder would fill in what is missing."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from totalrecall.errors import PictureError
from totalrecall.pictures.formats.header import Header, damaged, exif_orientation, truncated

__all__ = ["Jpeg", "decode_jpeg", "jpeg_header"]

_MOST_SEGMENTS, _MOST_SCANS = 200_000, 200  # far above what any camera writes, far below what takes minutes
_FILLER = bytes(range(1, 65))  # entropy-coded data that a whole JPEG never comes to
_GREY = 128  # in each channel: what the decoder fills in


@dataclass(frozen=True)
class Jpeg:
    """What a JPEG states.

    Attributes:
        header: its size and orientation.
        progressive: its coefficients come in several scans.
        restarts: it has restart markers.
        ends: where its entropy-coded data end, at restart markers too.
    """

    header: Header
    progressive: bool
    restarts: bool
    ends: list[int]


@dataclass
class _Jpeg:
    """What the segments of a JPEG say, as they come."""

    frame: tuple[int, int, list[tuple[int, int, int]]] | None = None  # height, width, (id, across, down)
    progressive: bool = False
    restarts: int = 0
    orientation: int = 1
    scans: int = 0
    ends: list[int] = field(default_factory=list)  # of entropy-coded data: where a marker follows


def jpeg_header(data: bytes, name: str) -> Jpeg:
    """Return what a JPEG states; every scan is there, to its end.

    A decoder fills what is missing with grey and says nothing: so the scans are counted here, their restart markers,
    and in a progressive file the bits of every coefficient.

    Raises:
        PictureError: it is cut short, lacks a part, or is of a kind that is not read.
    """
    said = _Jpeg()
    seen: dict[int, dict[int, set[int]]] = {}  # component -> bits still to come -> coefficients
    marks = _jpeg_marks(np.frombuffer(data, np.uint8))
    for marker, body, end in _segments(data, marks, name):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if said.frame is not None:
                raise damaged(name, "JPEG")
            said.frame, said.progressive = _frame(marker, body, name), marker == 0xC2
        elif marker == 0xDD and len(body) >= 2:
            said.restarts = int.from_bytes(body[:2], "big")
        elif marker == 0xE1 and body.startswith(b"Exif\0\0") and said.orientation == 1:
            said.orientation = exif_orientation(body[6:])
        elif marker == 0xDA:
            _scan(data, body, end, said, seen, marks, name)
    if said.frame is None or not said.scans:
        raise damaged(name, "JPEG")
    height, width, parts = said.frame
    complete = [set(seen.get(part[0], {}).get(0, ())) for part in parts]
    if any(levels != set(range(64)) for levels in complete):
        raise truncated(name)
    header = Header("JPEG", height, width, len(parts), 8, said.orientation)
    return Jpeg(header, said.progressive, said.restarts > 0, said.ends)


def _jpeg_marks(stream: np.ndarray) -> np.ndarray:
    """Return where markers stand, restart markers among them: 0xFF and a byte that is neither 0 nor 0xFF."""
    at = np.flatnonzero(stream[:-1] == 0xFF)
    return at[(stream[at + 1] != 0) & (stream[at + 1] != 0xFF)]


def _segments(data: bytes, marks: np.ndarray, name: str) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, body and end of each segment of a JPEG, up to the end mark."""
    position = 2
    for _ in range(_MOST_SEGMENTS):
        while data[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
        if position + 2 > len(data):
            raise truncated(name)
        if data[position] != 0xFF:
            raise damaged(name, "JPEG")
        marker = data[position + 1]
        if marker == 0xD9:
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD8 or marker == 0:
            raise damaged(name, "JPEG")
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if end > len(data) or position + 4 > len(data):
            raise truncated(name)
        if length < 2:
            raise damaged(name, "JPEG")
        yield marker, data[position + 4 : end], end
        position = end
        if marker == 0xDA:  # entropy-coded data, to the next marker that is no restart
            following = marks[np.searchsorted(marks, end) :]
            kinds = np.frombuffer(data, np.uint8)[following + 1]
            others = np.flatnonzero((kinds < 0xD0) | (kinds > 0xD7))
            if not len(others):
                raise truncated(name)
            position = int(following[others[0]])
    raise damaged(name, "JPEG", "it has too many segments")


def _frame(marker: int, body: bytes, name: str) -> tuple[int, int, list[tuple[int, int, int]]]:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise damaged(name, "JPEG")
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    if marker not in (0xC0, 0xC1, 0xC2) or bits != 8:
        what = "lossless or arithmetic coding" if bits == 8 else f"{bits} bits a sample"
        raise PictureError(f"{name} is a JPEG of {what}, which is not read. Save it as PNG.")
    if count not in (1, 3, 4):
        raise damaged(name, "JPEG")
    parts = [(body[6 + 3 * n], body[7 + 3 * n] >> 4, body[7 + 3 * n] & 15) for n in range(count)]
    if any(not (1 <= across <= 4 and 1 <= down <= 4) for _, across, down in parts):
        raise damaged(name, "JPEG")
    return height, width, parts


def _scan(
    data: bytes,
    body: bytes,
    start: int,
    said: _Jpeg,
    seen: dict[int, dict[int, set[int]]],
    marks: np.ndarray,
    name: str,
) -> None:
    """Note the coefficients that a scan brings to their last bit, and check that it has its restart markers."""
    said.scans += 1
    if said.frame is None or said.scans > _MOST_SCANS or not body or len(body) < 4 + 2 * body[0]:
        raise damaged(name, "JPEG")
    ids = [body[1 + 2 * n] for n in range(body[0])]
    first, last, levels = body[1 + 2 * body[0] :][:3]
    if not said.progressive:
        first, last, levels = 0, 63, 0
    for component in ids:
        seen.setdefault(component, {}).setdefault(levels & 15, set()).update(range(first, min(last, 63) + 1))
    following = marks[np.searchsorted(marks, start) :]
    kinds = np.frombuffer(data, np.uint8)[following + 1]
    others = np.flatnonzero((kinds < 0xD0) | (kinds > 0xD7))
    restarts = kinds[: others[0]] if len(others) else kinds
    said.ends += following[: len(restarts) + 1].tolist()
    if not said.restarts:
        return
    expected = -(-_units(said.frame, ids) // said.restarts) - 1
    in_turn = np.array_equal(restarts, 0xD0 + np.arange(len(restarts)) % 8)
    if not in_turn or len(restarts) not in (expected, expected + 1):  # some write one more behind the last
        raise damaged(name, "JPEG", "parts of it are missing")


def _units(frame: tuple[int, int, list[tuple[int, int, int]]], ids: list[int]) -> int:
    """Return how many units (MCU) a scan has: blocks of its one component, or groups of blocks of all of them."""
    height, width, parts = frame
    across, down = max(part[1] for part in parts), max(part[2] for part in parts)
    if len(ids) > 1:
        return math.ceil(width / (8 * across)) * math.ceil(height / (8 * down))
    sampling = next((part for part in parts if part[0] == ids[0]), (0, 1, 1))
    return math.ceil(math.ceil(width * sampling[1] / across) / 8) * math.ceil(
        math.ceil(height * sampling[2] / down) / 8
    )


def decode_jpeg(data: bytes, name: str, jpeg: Jpeg, *, grey: bool = False) -> np.ndarray:
    """Return the pixels as OpenCV gives them, BGR (h, w, 3) or grey (h, w), as stored.

    Raises:
        PictureError: it cannot be decoded, or ends before its last pixel.
    """
    pixels = _decoded(data, name, jpeg, grey)
    if not jpeg.progressive and _holds_filling(pixels, jpeg):
        # Blocks of mid-grey are what the decoder fills in where the data end too early, and what few pictures hold. If
        # they did end too early, data that stand behind them are taken for the missing ones, and the blocks change.
        parts = [data[start:end] for start, end in zip([0, *jpeg.ends], [*jpeg.ends, len(data)], strict=True)]
        if not np.array_equal(pixels, _decoded(_FILLER.join(parts), name, jpeg, grey)):
            raise truncated(name)
    return pixels


def _decoded(data: bytes, name: str, jpeg: Jpeg, grey: bool) -> np.ndarray:
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.shape[:2] != (jpeg.header.height, jpeg.header.width) or pixels.dtype != np.uint8:
        raise damaged(name, "JPEG")
    return pixels


def _holds_filling(pixels: np.ndarray, jpeg: Jpeg) -> bool:
    """Tell whether the last block of 8 x 8 is all mid-grey; with restart markers, whether any block is."""
    height, width = pixels.shape[:2]
    # subtle: the middle of a block, since coarser colours are blended into its border from the blocks beside it
    top, left = ((side - 1) // 8 * 8 for side in (height, width))
    top, left = min(top + 2, height - 1), min(left + 2, width - 1)
    if (pixels[top:, left:] == _GREY).all():
        return True
    if not jpeg.restarts:
        return False
    seen = pixels[3::8, 3::8]
    tops, lefts = np.nonzero(seen == _GREY if seen.ndim == 2 else (seen == _GREY).all(axis=2))
    return any(
        (pixels[8 * top + 2 : 8 * top + 6, 8 * left + 2 : 8 * left + 6] == _GREY).all()
        for top, left in zip(tops.tolist(), lefts.tolist(), strict=True)
    )
