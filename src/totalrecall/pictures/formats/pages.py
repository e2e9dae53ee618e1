"""How many pages or frames the bytes of a picture hold, by the format's own structure; nothing is decoded.

Only the first is read anywhere, so whoever reads a picture says so where there are more. Reduced copies and masks that
a TIFF holds beside a page (its thumbnails, the levels of a pyramid) are no pages.
"""

import struct

__all__ = ["page_count"]

_MOST = 100_000  # pages that are counted; a hostile file may claim any number
_SUBFILE, _REDUCED_OR_MASK = 254, 0b101
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def page_count(data: bytes | memoryview) -> int:
    """Return how many pages or frames of their own a TIFF, WebP, PNG or GIF holds; 1 of any other, or of a damaged one.

    Args:
        data: of the file, whole.
    """
    start = bytes(data[:16])
    try:
        if start.startswith(_TIFF_STARTS):
            return max(_tiff_pages(data), 1)
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return max(_webp_frames(data), 1)
        if start.startswith(b"\x89PNG"):
            return max(_png_frames(data), 1)
        if start.startswith(b"GIF8"):
            return max(_gif_frames(data), 1)
    except (struct.error, IndexError):  # it ends early
        return 1
    return 1


def _tiff_pages(data: bytes | memoryview) -> int:
    order = "<" if data[0] == 0x49 else ">"
    big = 43 in (data[2], data[3])
    offset_form, count_form, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    position = struct.unpack_from(f"{order}{offset_form}", data, 8 if big else 4)[0]
    pages, seen = 0, set[int]()
    while position and position not in seen and len(seen) < _MOST:  # seen: the chain of a hostile file may be a circle
        seen.add(position)
        entries = struct.unpack_from(f"{order}{count_form}", data, position)[0]
        first = position + struct.calcsize(f"={count_form}")
        after = first + entries * entry
        if after > len(data):
            break
        pages += not _is_reduced(data, order, big, first, min(entries, 16))  # tags ascend: 254 is among the first
        position = struct.unpack_from(f"{order}{offset_form}", data, after)[0]
    return pages


def _is_reduced(data: bytes | memoryview, order: str, big: bool, first: int, entries: int) -> bool:
    for at in range(entries):
        tag = struct.unpack_from(f"{order}H", data, first + at * (20 if big else 12))[0]
        if tag == _SUBFILE:
            value = struct.unpack_from(f"{order}I", data, first + at * (20 if big else 12) + (12 if big else 8))[0]
            return bool(value & _REDUCED_OR_MASK)
    return False


def _webp_frames(data: bytes | memoryview) -> int:
    frames, position = 0, 12
    while position + 8 <= len(data) and frames < _MOST:
        kind, length = bytes(data[position : position + 4]), struct.unpack_from("<I", data, position + 4)[0]
        if kind in (b"VP8 ", b"VP8L"):
            return 1  # one still picture
        frames += kind == b"ANMF"
        position += 8 + length + length % 2
    return frames


def _png_frames(data: bytes | memoryview) -> int:
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"acTL":
            return min(int(struct.unpack_from(">I", data, position + 8)[0]), _MOST)
        if kind == b"IDAT":  # what says that it is animated comes before
            return 1
        position += 12 + length
    return 1


def _gif_frames(data: bytes | memoryview) -> int:
    position = 13 + _colours(data[10])
    frames = 0
    while frames < _MOST:
        kind = data[position]
        if kind == 0x2C:  # a picture: place, size, its own colours, then blocks of pixels
            frames += 1
            position = _after_blocks(data, position + 11 + _colours(data[position + 9]))
        elif kind == 0x21:  # an extension
            position = _after_blocks(data, position + 2)
        else:
            break
    return frames


def _colours(flags: int) -> int:
    """Return the bytes of a table of colours that flags tell of."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(data: bytes | memoryview, position: int) -> int:
    while data[position]:
        position += data[position] + 1
    return position + 1
