"""BMP files, read in NumPy: what their header says, in every plain form; run lengths and the like are refused."""

import struct
from dataclasses import dataclass

import numpy as np

from totalrecall.errors import PictureError
from totalrecall.pictures.formats.header import Header, damaged, truncated

__all__ = ["Bmp", "bmp_header", "decode_bmp"]

_FIELDS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}  # of red, green, blue, alpha, unless stated


@dataclass(frozen=True)
class Bmp:
    """What a BMP states: where its rows begin, how wide they are in bytes, its palette or the masks of its colours."""

    header: Header
    start: int
    stride: int
    top_down: bool
    palette: np.ndarray | None  # uint8 RGB (n, 3)
    fields: tuple[int, int, int, int]


def bmp_header(data: bytes, name: str) -> Bmp:
    """Return what a BMP states; all its rows are there.

    Raises:
        PictureError: it is cut short, damaged, or of a kind that is not read.
    """
    if len(data) < 26:
        raise truncated(name)
    start, size = struct.unpack_from("<II", data, 10)
    old = size == 12
    if len(data) < 14 + size:
        raise truncated(name) if size <= 1 << 16 else damaged(name, "BMP")
    if not old and size < 40:
        raise damaged(name, "BMP")
    if old:
        width, height, planes, bits = struct.unpack_from("<HHHH", data, 18)
        kind, colours = 0, 0
    else:
        width, height, planes, bits, kind, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", data, 18)
    if planes != 1 or bits not in (1, 4, 8, 16, 24, 32):
        raise damaged(name, "BMP")
    if kind not in (0, 3, 6) or (kind and bits not in (16, 32)):
        raise PictureError(f"{name} is a compressed BMP (kind {kind}), which is not read. Save it as PNG.")
    table = 14 + size
    fields = _FIELDS.get(bits, (0, 0, 0, 0))
    if kind:
        count = 4 if kind == 6 or size >= 56 else 3
        if len(data) < 54 + 4 * count:
            raise truncated(name)
        fields = (*struct.unpack_from(f"<{count}I", data, 54), 0)[:4]
        table = max(table, 54 + 4 * count)
    palette = _palette(data, name, table, start, bits, colours, 3 if old else 4) if bits <= 8 else None
    top_down, height = height < 0, abs(height)
    stride = (width * bits + 31) // 32 * 4
    stored = Header("BMP", height, width, 4 if fields[3] else 3, 8)
    if width > 0 and start < 14 + size:
        raise damaged(name, "BMP")
    return Bmp(stored, start, stride, top_down, palette, fields)


def _palette(data: bytes, name: str, table: int, start: int, bits: int, colours: int, each: int) -> np.ndarray:
    count = min(colours or 1 << bits, max(start - table, 0) // each)
    if colours > 1 << bits or count < 1 or table + count * each > len(data):
        raise damaged(name, "BMP", "its palette is missing")
    entries = np.frombuffer(data, np.uint8, count * each, table).reshape(count, each)
    return entries[:, 2::-1]  # BGR -> RGB


def decode_bmp(data: bytes, name: str, bmp: Bmp) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the pixels of a BMP, uint8 (h, w, 3), and its transparency (h, w) where it has any.

    Raises:
        PictureError: rows are missing, or a pixel names a colour that the palette has not.
    """
    height, width, bits = bmp.header.height, bmp.header.width, _bits(data)
    if bmp.start + height * bmp.stride > len(data):
        raise truncated(name)
    rows = np.frombuffer(data, np.uint8, height * bmp.stride, bmp.start).reshape(height, bmp.stride)
    rows = rows if bmp.top_down else rows[::-1]
    if bmp.palette is not None:
        places = _unpacked(rows, bits)[:, :width]
        if int(places.max()) >= len(bmp.palette):
            raise damaged(name, "BMP", "a pixel names a colour that its palette has not")
        return bmp.palette[places], None
    if bits == 24:
        return np.ascontiguousarray(rows[:, : 3 * width].reshape(height, width, 3)[:, :, ::-1]), None
    if bits == 32 and bmp.fields[:3] == _FIELDS[32][:3] and bmp.fields[3] in (0, 0xFF000000):
        four = rows.reshape(height, width, 4)
        return np.ascontiguousarray(four[:, :, 2::-1]), (four[:, :, 3] if bmp.fields[3] else None)
    values = np.ascontiguousarray(rows[:, : width * bits // 8]).view(f"<u{bits // 8}")
    bands = [_field(values, mask, name) for mask in bmp.fields[:3]]
    return np.dstack(bands), (_field(values, bmp.fields[3], name) if bmp.fields[3] else None)


def _bits(data: bytes) -> int:
    return int.from_bytes(data[24:26] if data[14:18] == b"\x0c\0\0\0" else data[28:30], "little")


def _unpacked(rows: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return rows
    if bits == 1:
        return np.unpackbits(rows, axis=1)
    return np.stack([rows >> 4, rows & 15], axis=2).reshape(len(rows), -1)


def _field(values: np.ndarray, mask: int, name: str) -> np.ndarray:
    """Return one colour out of packed pixels, scaled to 8 bits by its own full range."""
    low = (mask & -mask).bit_length() - 1
    full = mask >> max(low, 0)
    if not mask or full & (full + 1):
        raise damaged(name, "BMP", "the masks of its colours are not those of bits side by side")
    field = (values.astype(np.uint64) >> np.uint64(low)) & np.uint64(full)
    return ((field * 255 + full // 2) // full).astype(np.uint8)
