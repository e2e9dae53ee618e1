"""What a picture file says of itself: size, depth, orientation, how many pictures it holds.

Everything here is read from the file's own structure, before a decoder sees a byte and before memory is taken. A file
that is no JPEG, PNG, BMP, TIFF or WebP, that is cut short, or that states more pixels than allowed goes no further.
"""

import struct
import zlib
from dataclasses import dataclass

from totalrecall.errors import PictureError, SettingError

__all__ = [
    "MAX_PIXELS",
    "Header",
    "check_size",
    "damaged",
    "exif_orientation",
    "file_limit",
    "max_pixels",
    "png_chunks",
    "png_header",
    "set_max_pixels",
    "truncated",
    "webp_header",
]

MAX_PIXELS = 100_000_000  # unless a person says otherwise
_limit = MAX_PIXELS

_PNG_START = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
_MOST_CHUNKS = 200_000  # far above what any camera writes, far below what takes minutes


@dataclass(frozen=True)
class Header:
    """What a picture file states.

    Attributes:
        format: JPEG, PNG, BMP, TIFF or WebP.
        height, width: in pixels, as stored.
        channels: samples a pixel, as stored; 4 where colour and transparency.
        bits: of a sample.
        orientation: 1 to 8, as EXIF has it: how the stored picture must be turned.
        pictures: that the file holds: pages of a TIFF (its thumbnails and masks are none), frames of an animation.
    """

    format: str
    height: int
    width: int
    channels: int
    bits: int
    orientation: int = 1
    pictures: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width of the picture as a person sees it."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the RGB pixels."""
        return self.height * self.width * 3 * (2 if self.bits > 8 else 1)


def set_max_pixels(pixels: int) -> None:
    """Set how many pixels a picture may have, for every reader of this process; MAX_PIXELS unless set.

    Raises:
        SettingError: it is not at least 1.

    Examples:
        >>> from totalrecall import set_max_pixels
        >>> set_max_pixels(20_000_000)  # a camera of 12 megapixels gives no larger ones
    """
    global _limit
    if pixels < 1:
        raise SettingError(f"max_pixels must be at least 1, got {pixels}. Usual: {MAX_PIXELS}.", "max_pixels")
    _limit = pixels


def max_pixels() -> int:
    """Return how many pixels a picture may have."""
    return _limit


def file_limit(pixels: int | None = None) -> int:
    """Return the most bytes of a picture file that are read: 16-bit RGBA uncompressed, and 64 MB of whatever else."""
    return 8 * (pixels or _limit) + (64 << 20)


def truncated(name: str) -> PictureError:
    """Return the error of a file that ends too early."""
    return PictureError(f"{name} is truncated: its end is missing. Copy it again.")


def damaged(name: str, format_: str, what: str = "") -> PictureError:
    """Return the error of a file whose structure is not that of its format."""
    reason = what or f"it begins as a {format_} and cannot be decoded"
    return PictureError(f"{name} is damaged: {reason}. Copy or save it again.")


def check_size(name: str, height: int, width: int, pixels: int | None = None) -> None:
    """Refuse a picture by the size that its header states.

    Raises:
        PictureError: it has no pixels, or more than allowed.
    """
    limit = pixels or _limit
    if height < 1 or width < 1:
        raise PictureError(f"{name} is damaged: it states a size of {width} x {height} pixels. Save it again.")
    if height * width > limit:
        raise PictureError(
            f"{name} is too large: {width} x {height} pixels, allowed are {limit:,} (--max-pixels). "
            "Save it smaller, or cut it into tiles."
        )


def exif_orientation(tiff: bytes) -> int:
    """Return the orientation, 1 to 8, that an Exif block states; 1 where it states none that exists."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        position = struct.unpack_from(f"{order}I", tiff, 4)[0]
        for entry in range(struct.unpack_from(f"{order}H", tiff, position)[0]):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, position + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # its block is cut short
        return 1
    return 1


# ---------------------------------------------------------------------- PNG


def png_chunks(data: bytes, name: str) -> list[tuple[bytes, int, int]]:
    """Return kind, start and end of each chunk of a PNG, to IEND; those that make the pixels have their checksums.

    Raises:
        PictureError: it ends too early, or a checksum is wrong.
    """
    view, position = memoryview(data), len(_PNG_START)
    chunks: list[tuple[bytes, int, int]] = []
    while position + 12 <= len(data) and len(chunks) < _MOST_CHUNKS:
        length = int.from_bytes(view[position : position + 4], "big")
        kind, end = bytes(view[position + 4 : position + 8]), position + 12 + length
        if end > len(data):
            break
        needed = kind in (b"IHDR", b"PLTE", b"IDAT", b"tRNS")
        if needed and zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise PictureError(f"{name} is damaged: a checksum inside it is wrong. Copy it again.")
        if not kind.isalpha() or (kind[:1].isupper() and not needed and kind != b"IEND"):
            # a name in capitals: whoever does not know it cannot show the picture
            raise damaged(name, "PNG", "a part of it is of no known kind")
        chunks.append((kind, position, end))
        if kind == b"IEND":
            return chunks
        position = end
    raise truncated(name) if len(chunks) < _MOST_CHUNKS else damaged(name, "PNG", "it has too many chunks")


def png_header(data: bytes, name: str, chunks: list[tuple[bytes, int, int]]) -> Header:
    """Return what a PNG states.

    Raises:
        PictureError: its header is not that of a PNG.
    """
    kind, start, end = chunks[0]
    if kind != b"IHDR" or end - start != 25 or [chunk[0] for chunk in chunks].count(b"IHDR") != 1:
        raise damaged(name, "PNG")
    width, height, bits, colour, *rest = struct.unpack_from(">IIBBBBB", data, start + 8)
    allowed = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    if bits not in allowed.get(colour, ()) or rest[0] or rest[1] or rest[2] > 1:
        raise damaged(name, "PNG")
    if colour == 3 and not any(kind == b"PLTE" for kind, *_ in chunks):
        raise damaged(name, "PNG", "its palette is missing")
    orientation, pictures, pixels = 1, 1, False
    for kind, start, end in chunks:
        pixels = pixels or kind == b"IDAT"
        if kind == b"eXIf":
            orientation = exif_orientation(data[start + 8 : end - 4])
        if kind == b"acTL" and end - start >= 20 and not pixels:  # behind them, it says nothing
            pictures = max(int.from_bytes(data[start + 8 : start + 12], "big"), 1)
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[colour]
    return Header("PNG", height, width, channels, bits, orientation, pictures)


# ---------------------------------------------------------------------- WebP


def webp_header(data: bytes, name: str) -> Header:
    """Return what a WebP states.

    Raises:
        PictureError: it is cut short, or its chunks disagree.
    """
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise truncated(name)
    end, position = int.from_bytes(data[4:8], "little") + 8, 12
    canvas, orientation, frames, bitstream, chunks = None, 1, 0, None, 0
    while position + 8 <= end and chunks < _MOST_CHUNKS:
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        body, chunks = position + 8, chunks + 1
        if body + length > end:
            raise truncated(name)
        if kind == b"VP8X" and length >= 10:
            canvas = _three(data, body + 4) + 1, _three(data, body + 7) + 1  # width, height
        elif kind == b"ANMF":
            if length < 16:
                raise damaged(name, "WebP")
            area = (_three(data, body + 6) + 1, _three(data, body + 9) + 1)
            frames, bitstream = frames + 1, bitstream or area
        elif kind in (b"VP8 ", b"VP8L") and bitstream is None:
            bitstream = _webp_bitstream(kind, data[body : body + min(length, 10)], name)
        elif kind == b"EXIF":
            block = data[body : body + length]
            orientation = exif_orientation(block[6:] if block.startswith(b"Exif\0\0") else block)
        position = body + length + length % 2
    if bitstream is None or (canvas is not None and canvas != bitstream):
        raise damaged(name, "WebP")
    width, height = bitstream
    return Header("WebP", height, width, 4, 8, orientation, max(frames, 1))


def _webp_bitstream(kind: bytes, start: bytes, name: str) -> tuple[int, int]:
    """Return width and height that the compressed data themselves state."""
    if kind == b"VP8L" and len(start) >= 5 and start[0] == 0x2F:
        packed = int.from_bytes(start[1:5], "little")
        return (packed & 0x3FFF) + 1, ((packed >> 14) & 0x3FFF) + 1
    if kind == b"VP8 " and len(start) >= 10 and start[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", start, 6)
        return width & 0x3FFF, height & 0x3FFF
    raise damaged(name, "WebP")


def _three(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")
