"""TIFF files, read by their own structure: every strip and tile is there, decodes, and has the size that it must have.

OpenCV and libtiff show black where a strip does not decode, blend a fourth band that is no transparency, and guess
where a tag is missing. Here such a file is refused, in words. What is read: grey, RGB and palette of 1 to 16 bits, in
strips or tiles, together or in planes, plain or packed by PackBits, LZW, Deflate or JPEG; classic TIFF and BigTIFF.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from totalrecall.errors import PictureError
from totalrecall.pictures.formats.header import Header, check_size, damaged, truncated
from totalrecall.pictures.formats.jpeg import decode_jpeg, jpeg_header

__all__ = ["Tiff", "decode_lzw", "decode_tiff", "tiff_header"]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}  # types of whole numbers
_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
_COMPRESSIONS = {
    2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "old JPEG", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA",
    50000: "ZSTD", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_PHOTOMETRICS = {4: "a mask", 5: "CMYK", 6: "YCbCr", 8: "CIE Lab", 9: "ICC Lab", 32803: "a raw sensor", 34892: "raw"}
_MOST_PAGES, _MOST_ENTRIES = 65536, 4096
_ROWS = 1 << 22  # bytes of packed rows that are unpacked at once


@dataclass(frozen=True)
class Tiff:
    """One page of a TIFF: how its samples are laid out."""

    header: Header
    order: str  # < or >, as of struct
    compression: int
    photometric: int
    samples: int
    planar: bool  # each sample in a plane of its own
    predictor: bool
    segment: tuple[int, int]  # height and width of a strip or tile
    tiled: bool
    offsets: np.ndarray
    counts: np.ndarray
    alpha: int | None  # place of the sample that is transparency
    associated: bool  # colours are already multiplied by it
    palette: np.ndarray | None  # uint16 (3, n)
    tables: bytes  # of JPEG


class _Directories:
    """The pages' directories of tags."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = data[2:4] in (b"+\0", b"\0+")
        if len(data) < (16 if self.big else 8):
            raise truncated(name)
        if self.big and struct.unpack_from(f"{self.order}HH", data, 4) != (8, 0):
            raise damaged(name, "TIFF")

    def pages(self) -> Iterator[dict[int, tuple[int, int, int]]]:
        """Yield each page's tags: type, count and place of the values of each."""
        position = self._number(8, "Q") if self.big else self._number(4, "I")
        seen: set[int] = set()
        while position and position not in seen and len(seen) < _MOST_PAGES:
            seen.add(position)
            count = self._number(position, "Q" if self.big else "H")
            if not 0 < count <= _MOST_ENTRIES:
                raise damaged(self.name, "TIFF")
            first, each = (position + 8, 20) if self.big else (position + 2, 12)
            yield dict(self._tag(first + each * at) for at in range(count))
            position = self._number(first + each * count, "Q" if self.big else "I")

    def _number(self, at: int, kind: str) -> int:
        try:
            return int(struct.unpack_from(self.order + kind, self.data, at)[0])
        except struct.error:
            raise damaged(self.name, "TIFF") from None

    def _tag(self, at: int) -> tuple[int, tuple[int, int, int]]:
        tag, kind = self._number(at, "H"), self._number(at + 2, "H")
        count = self._number(at + 4, "Q" if self.big else "I")
        at += 12 if self.big else 8
        size = _SIZES.get(kind, 1) * count
        if size > (8 if self.big else 4):
            at = self._number(at, "Q" if self.big else "I")
            if at + size > len(self.data):
                raise damaged(self.name, "TIFF")
        return tag, (kind, count, at)

    def numbers(self, tags: dict[int, tuple[int, int, int]], tag: int, default: list[int] | None = None) -> np.ndarray:
        """Return the whole numbers of a tag, int64."""
        if tag not in tags:
            if default is None:
                raise damaged(self.name, "TIFF")
            return np.array(default, np.int64)
        kind, count, at = tags[tag]
        if kind not in _WHOLE or not count or at + count * _SIZES[kind] > len(self.data):
            raise damaged(self.name, "TIFF")
        values = np.frombuffer(self.data, self.order + _WHOLE[kind], count, at)
        if kind in (16, 18) and (values >> np.uint64(62)).any():
            raise damaged(self.name, "TIFF")
        return values.astype(np.int64)

    def number(self, tags: dict[int, tuple[int, int, int]], tag: int, default: int | None = None) -> int:
        """Return the one whole number of a tag."""
        values = self.numbers(tags, tag, None if default is None else [default])
        return int(values[0])


def tiff_header(data: bytes, name: str, pixels: int | None = None) -> Tiff:
    """Return what the first page of a TIFF states, thumbnails aside.

    Raises:
        PictureError: it is damaged, too large, or of a kind that is not read.
    """
    directories = _Directories(data, name)
    pictures, first = 0, None
    for tags in directories.pages():
        thumbnail = directories.number(tags, 254, 0) & 5  # a smaller copy, or a mask
        if not thumbnail:
            pictures += 1
            first = first if first is not None else tags
    if first is None:
        raise damaged(name, "TIFF")
    return _page(directories, first, pictures, pixels)


def _page(directories: _Directories, tags: dict[int, tuple[int, int, int]], pictures: int, pixels: int | None) -> Tiff:
    name, number, numbers = directories.name, directories.number, directories.numbers
    width, height = number(tags, 256), number(tags, 257)
    check_size(name, height, width, pixels)
    samples, bits = number(tags, 277, 1), _bits(directories, tags)
    photometric, compression = number(tags, 262, -1), number(tags, 259, 1)
    _check_kind(name, samples, bits, photometric, compression, number(tags, 266, 1))
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    alpha, associated = _alpha(numbers(tags, 338, [0] * 0), colours, samples)
    predictor = number(tags, 317, 1)
    if compression not in (_LZW, _DEFLATE, _OLD_DEFLATE):
        predictor = 1
    if predictor not in (1, 2) or (predictor == 2 and bits not in (8, 16)):
        raise _unread(name, f"predictor {predictor} of {bits} bits")
    palette = None
    if photometric == _PALETTE:
        palette = numbers(tags, 320)
        if len(palette) != 3 << bits or samples != 1:
            raise damaged(name, "TIFF", "its palette is not whole")
        palette = palette.reshape(3, -1)
    planar = number(tags, 284, 1)
    if planar not in (1, 2):
        raise damaged(name, "TIFF")
    orientation = number(tags, 274, 1)
    header = Header("TIFF", height, width, samples, bits, orientation if 1 <= orientation <= 8 else 1, pictures)
    segment, tiled, offsets, counts = _segments(directories, tags, header, planar == 2 and samples > 1)
    tables = b""
    if compression == _JPEG:
        _check_jpeg(name, header, photometric, planar == 2)
        if 347 in tags:
            _, count, at = tags[347]
            tables = _between(directories.data, at, count, name)
    return Tiff(
        header=header, order=directories.order, compression=compression, photometric=photometric, samples=samples,
        planar=planar == 2 and samples > 1, predictor=predictor == 2, segment=segment, tiled=tiled, offsets=offsets,
        counts=counts, alpha=alpha, associated=associated, palette=palette, tables=tables,
    )  # fmt: skip


def _unread(name: str, what: str) -> PictureError:
    return PictureError(f"{name} is a TIFF of {what}, which is not read. Save it as PNG, or as plain 8 or 16-bit TIFF.")


def _bits(directories: _Directories, tags: dict[int, tuple[int, int, int]]) -> int:
    """Return the bits of a sample, the same for all samples, of unsigned whole numbers."""
    name = directories.name
    all_bits, kinds = directories.numbers(tags, 258, [1]), directories.numbers(tags, 339, [1])
    bits, kind = int(all_bits[0]), int(kinds[0])
    if (all_bits != bits).any() or (kinds != kind).any():
        raise _unread(name, "samples of different depth")
    if kind not in (1, 4) or not 1 <= bits <= 16:
        type_ = {1: "uint", 2: "int", 3: "float", 4: "uint"}.get(kind, "complex")
        raise PictureError(
            f"{name} holds {type_}{bits} pixels; 8 or 16 bits are allowed. Save it as 16-bit PNG or TIFF."
        )
    return bits


def _check_kind(name: str, samples: int, bits: int, photometric: int, compression: int, fill_order: int) -> None:
    """Refuse what is read wrongly elsewhere, or not at all."""
    if compression not in (_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS):
        raise _unread(name, f"{_COMPRESSIONS.get(compression, 'unknown')} compression ({compression})")
    jpeg_colour = photometric == _YCBCR and compression == _JPEG
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE) and not jpeg_colour:
        stated = photometric >= 0
        kind = f"{_PHOTOMETRICS.get(photometric, 'unknown')} colours ({photometric})" if stated else "unstated colours"
        raise _unread(name, kind)
    if fill_order != 1:
        raise _unread(name, f"fill order {fill_order}")
    if not 1 <= samples <= 64 or (photometric in (_RGB, _YCBCR) and samples < 3):
        raise damaged(name, "TIFF")
    if (photometric == _RGB and bits < 8) or (photometric == _PALETTE and bits not in (1, 2, 4, 8)):
        raise _unread(name, f"{bits} bits a sample")


def _alpha(extra: np.ndarray, colours: int, samples: int) -> tuple[int | None, bool]:
    """Return which sample is transparency, and whether it is multiplied in; a band without a meaning is none."""
    for at, meaning in enumerate(extra.tolist()):
        if meaning in (1, 2) and colours + at < samples:
            return colours + at, meaning == 1
    return None, False


def _check_jpeg(name: str, header: Header, photometric: int, planar: bool) -> None:
    colours = {_BLACK_IS_ZERO: 1, _RGB: 3, _YCBCR: 3}.get(photometric)
    if header.bits != 8 or header.channels != colours or planar:
        raise _unread(name, f"JPEG of {header.channels} samples of {header.bits} bits")


def _segments(
    directories: _Directories, tags: dict[int, tuple[int, int, int]], header: Header, planes: bool
) -> tuple[tuple[int, int], bool, np.ndarray, np.ndarray]:
    """Return height and width of strips or tiles, whether they are tiles, and where each of them is."""
    name, tiled = directories.name, 322 in tags
    if tiled:
        across, down = directories.number(tags, 322), directories.number(tags, 323)
        # a tile may reach over the edge, but not by so much that a small picture takes much memory
        if across < 1 or down < 1 or across > header.width + 4096 or down > header.height + 4096:
            raise damaged(name, "TIFF")
    else:
        across, down = header.width, min(directories.number(tags, 278, header.height), header.height)
        if down < 1:
            raise damaged(name, "TIFF")
    expected = -(-header.width // across) * -(-header.height // down) * (header.channels if planes else 1)
    offsets = directories.numbers(tags, 324 if tiled else 273)
    plain = directories.number(tags, 259, 1) == _NONE and expected == 1
    counts = directories.numbers(tags, 325 if tiled else 279, [len(directories.data)] if plain else None)
    if len(offsets) != expected or len(counts) != expected:
        raise damaged(name, "TIFF", f"it states {len(offsets)} strips or tiles, {expected} are needed")
    return (down, across), tiled, offsets, counts


def _between(data: bytes, at: int, count: int, name: str) -> bytes:
    """Return some bytes of a file, all of them.

    Raises:
        PictureError: it ends before.
    """
    if at + count > len(data):
        raise truncated(name)
    return data[at : at + count]


# ---------------------------------------------------------------------- pixels


def decode_tiff(data: bytes, name: str, tiff: Tiff) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the pixels of a page, uint8 or uint16 RGB (h, w, 3), and its transparency (h, w) where it has any.

    Colours that are multiplied by their transparency come divided by nothing: see `Tiff.associated`.

    Raises:
        PictureError: a strip or tile is missing or does not decode.
    """
    samples, bits = _samples(data, name, tiff), tiff.header.bits
    if tiff.palette is not None:
        palette = tiff.palette if tiff.palette.max() < 256 else tiff.palette >> 8  # some write 8 bits there
        return palette.astype(np.uint8).T[samples[:, :, 0]], None
    if bits not in (8, 16):  # by its full range, to the next depth that NumPy has
        full, wide = (1 << bits) - 1, 255 if bits < 8 else 65535
        samples = ((samples.astype(np.uint32) * wide + full // 2) // full).astype(np.uint8 if bits < 8 else np.uint16)
    alpha = None if tiff.alpha is None else samples[:, :, tiff.alpha]
    if tiff.photometric in (_RGB, _YCBCR):
        return np.ascontiguousarray(samples[:, :, :3]), alpha
    grey = samples[:, :, 0]
    if tiff.photometric == _WHITE_IS_ZERO:
        grey = np.iinfo(grey.dtype).max - grey
    return np.repeat(grey[:, :, None], 3, axis=2), alpha


def _samples(data: bytes, name: str, tiff: Tiff) -> np.ndarray:
    """Return all samples (h, w, n) as stored, of as many bits as they have."""
    height, width = tiff.header.height, tiff.header.width
    type_ = np.uint8 if tiff.header.bits <= 8 else np.uint16
    down, across = tiff.segment
    planes, together = (tiff.samples, 1) if tiff.planar else (1, tiff.samples)
    segments = zip(tiff.offsets.tolist(), tiff.counts.tolist(), strict=True)
    out = np.empty((height, width, tiff.samples), type_)
    for plane in range(planes):
        for top in range(0, height, down):
            for left in range(0, width, across):
                offset, count = next(segments)
                if not tiff.tiled:
                    rows = min(down, height - top)
                    count = min(count, len(data) - offset) if tiff.compression == _NONE else count
                else:
                    rows = down
                block = _segment(data, name, tiff, (offset, count), (rows, across, together))
                part = out[top : top + down, left : left + across, plane : plane + together]
                part[...] = block[: part.shape[0], : part.shape[1]]
    return out


def _segment(data: bytes, name: str, tiff: Tiff, place: tuple[int, int], shape: tuple[int, int, int]) -> np.ndarray:
    """Return the samples (rows, columns, n) of one strip or tile."""
    if place[1] < 1 and place[0] > len(data):
        raise truncated(name)
    if place[1] < 1 or place[0] < 1:
        raise damaged(name, "TIFF", "a strip or tile of it is missing")
    packed = _between(data, *place, name)
    rows, columns, samples = shape
    if tiff.compression == _JPEG:
        return _jpeg(packed, name, tiff, shape)
    stride = (columns * samples * tiff.header.bits + 7) // 8
    # the last strip may hold rows below the picture
    plain = _unpack(packed, name, tiff.compression, stride * rows, stride * max(rows, tiff.segment[0]))
    block: np.ndarray = np.frombuffer(plain, np.uint8, stride * rows).reshape(rows, stride)
    bits = tiff.header.bits
    if bits == 16:
        block = block.view(tiff.order + "u2").astype(np.uint16)
    elif bits != 8:
        block = _unpacked(block, bits)[:, : columns * samples]
    cube = block.reshape(rows, columns, samples)
    return np.cumsum(cube, axis=1, dtype=cube.dtype) if tiff.predictor else cube


def _unpack(packed: bytes, name: str, compression: int, needed: int, most: int) -> bytes:
    """Return what a strip or tile holds: at least `needed` bytes, and packed ones at most `most`."""
    plain, whole = packed, True
    if compression == _LZW:
        try:
            plain = decode_lzw(packed, needed)
        except ValueError:
            whole = False
    elif compression in (_DEFLATE, _OLD_DEFLATE):
        try:
            stream = zlib.decompressobj()
            plain = stream.decompress(packed, most + 1)
            if not stream.eof and len(plain) <= most:  # its checksum is still to come
                whole = not stream.decompress(stream.unconsumed_tail, 1) and stream.eof
        except zlib.error:
            whole = False
    elif compression == _PACKBITS:
        plain, whole = _packbits(packed, most)
    if compression == _NONE and len(plain) < needed:
        raise truncated(name)
    if not whole or len(plain) < needed or (compression != _NONE and len(plain) > most):
        raise damaged(name, "TIFF", "a strip or tile of it does not decode")
    return plain


def _packbits(packed: bytes, most: int) -> tuple[bytes, bool]:
    """Return what runs of bytes hold, up to more than `most`, and whether the last of them is whole."""
    out, at = bytearray(), 0
    while len(out) <= most and at < len(packed):
        code = packed[at]
        if at + 1 == len(packed) and code != 128:
            return bytes(out), code == 0  # some writers fill up to an even number of bytes
        if code < 128:
            out += packed[at + 1 : at + 2 + code]
            at += 2 + code
        elif code > 128:
            out += packed[at + 1 : at + 2] * (257 - code)
            at += 2
        else:
            at += 1
    return bytes(out), at <= len(packed)


def _unpacked(rows: np.ndarray, bits: int) -> np.ndarray:
    """Return the samples of packed rows, the highest bit first, of at most 16 bits each."""
    if bits in (1, 2, 4):
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        return ((rows[:, :, None] >> shifts) & ((1 << bits) - 1)).reshape(len(rows), -1)
    count = rows.shape[1] * 8 // bits
    starts = np.arange(count) * bits
    at, shift = starts >> 3, (24 - (starts & 7) - bits).astype(np.uint32)
    out = np.empty((len(rows), count), np.uint8 if bits < 8 else np.uint16)
    step = max(_ROWS // rows.shape[1], 1)
    for top in range(0, len(rows), step):
        wide = np.pad(rows[top : top + step], ((0, 0), (0, 2))).astype(np.uint32)
        three = (wide[:, at] << 16) | (wide[:, at + 1] << 8) | wide[:, at + 2]
        out[top : top + step] = (three >> shift) & ((1 << bits) - 1)
    return out


def _jpeg(packed: bytes, name: str, tiff: Tiff, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the samples of a strip or tile that is a JPEG, its tables apart."""
    if packed[:3] != b"\xff\xd8\xff" or (tiff.tables and tiff.tables[:2] != b"\xff\xd8"):
        raise damaged(name, "TIFF", "a strip or tile of it does not decode")
    tables = tiff.tables[2:-2] if tiff.tables.endswith(b"\xff\xd9") else tiff.tables[2:]
    # tells the decoder in so many words whether the three components are YCbCr; it would guess by their names
    adobe = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([tiff.photometric == _YCBCR])
    whole = packed[:2] + adobe + tables + packed[2:]
    jpeg = jpeg_header(whole, name)
    header = jpeg.header
    if header.width != shape[1] or header.channels != shape[2] or not shape[0] <= header.height <= tiff.segment[0]:
        raise damaged(name, "TIFF", "a strip or tile of it has another size than stated")
    pixels = decode_jpeg(whole, name, jpeg, grey=shape[2] == 1)
    return pixels[: shape[0], :, None] if shape[2] == 1 else pixels[: shape[0], :, ::-1]


# ---------------------------------------------------------------------- LZW
# The codes between two clear codes are worked out together. subtle: an entry of the table is a string that was already
# written, one byte longer: entry j is what code j wrote and the byte behind it. So a code's bytes are a copy of earlier
# output, and pointers into it are followed by doubling.

_CLEAR, _END, _FIRST = 256, 257, 258
_CODES = 4096 - _FIRST + 1  # at most, between two clear codes
# TIFF widens a code one entry before it must: before code i is read, the table has 257 + i entries
_TABLE = _FIRST - 1 + np.arange(_CODES)
_WIDTHS: np.ndarray = 9 + (_TABLE >= 511).astype(np.int64) + (_TABLE >= 1023) + (_TABLE >= 2047)
_OFFSETS = np.cumsum(_WIDTHS) - _WIDTHS
_LONG = 16  # bytes a code: above it, copying slices one by one is faster than following pointers


def decode_lzw(data: bytes | memoryview, limit: int) -> bytes:
    """Return what LZW data holds, at most `limit` bytes and one block of codes more.

    Raises:
        ValueError: a code names an entry that is not there yet, or no clear code comes when the table is full.
    """
    # subtle: three zero bytes more, so that every code may be cut out of three bytes
    stream = np.frombuffer(bytes(data) + b"\0\0\0", np.uint8)
    end, position, length, parts = 8 * len(data), 0, 0, []
    while length < limit:
        offsets = position + _OFFSETS
        count = int(np.searchsorted(offsets + _WIDTHS, end, side="right"))
        if not count:
            break
        codes = _codes(stream, offsets[:count], _WIDTHS[:count])
        special = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        if not len(special) and count == _CODES:
            raise ValueError("no clear code where the table is full")
        used = int(special[0]) if len(special) else count
        if used:
            parts.append(_strings(codes[:used]))
            length += len(parts[-1])
        if not len(special) or codes[used] == _END:
            break
        position = int(offsets[used] + _WIDTHS[used])
    return b"".join(parts)


def _codes(stream: np.ndarray, offsets: np.ndarray, widths: np.ndarray) -> np.ndarray:
    at = offsets >> 3
    three = (stream[at].astype(np.int64) << 16) | (stream[at + 1].astype(np.int64) << 8) | stream[at + 2]
    return np.asarray((three >> (24 - (offsets & 7) - widths)) & ((1 << widths) - 1))


def _strings(codes: np.ndarray) -> bytes:
    """Return the bytes of the codes between two clear codes."""
    places = np.arange(len(codes))
    if codes[0] >= _CLEAR or (codes >= _FIRST + places).any():
        raise ValueError("a code of no entry")
    literal = codes < _CLEAR
    origin = np.where(literal, places, codes - _FIRST)
    ancestors, longer = origin, (~literal).astype(np.int64)
    while longer[ancestors].any():
        longer = longer + longer[ancestors]
        ancestors = ancestors[ancestors]
    lengths = longer + 1
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    out = np.zeros(total, np.uint8)
    out[starts[literal]] = codes[literal]
    if total > _LONG * len(codes):
        copies = zip(starts.tolist(), starts[origin].tolist(), lengths.tolist(), literal.tolist(), strict=True)
        for start, source, size, done in copies:
            if not done:
                # subtle: a string may end in its own first byte, which stands just before
                out[start : start + size - 1] = out[source : source + size - 1]
                out[start + size - 1] = out[source + size - 1]
        return out.tobytes()
    sources = np.arange(total) - np.repeat(starts - starts[origin], lengths)
    while True:
        further = sources[sources]
        if np.array_equal(further, sources):
            return out[sources].tobytes()
        sources = further
