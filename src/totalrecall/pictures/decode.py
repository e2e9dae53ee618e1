"""Bytes of a picture file -> its pixels, as a person would see the picture: upright, on white where transparent.

What a file states is read first (the modules of `formats`), and nothing that is not proved by the file's structure is
decoded. TIFF and BMP are read by NumPy. JPEG, PNG and WebP are decoded by OpenCV, which is given the pixels' own chunks
of a PNG alone, and whose answer is compared with what the file states.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from totalrecall.errors import PictureError
from totalrecall.pictures.formats.bmp import bmp_header, decode_bmp
from totalrecall.pictures.formats.header import (
    Header,
    check_size,
    damaged,
    png_chunks,
    png_header,
    webp_header,
)
from totalrecall.pictures.formats.jpeg import Jpeg, decode_jpeg, jpeg_header
from totalrecall.pictures.formats.tiff import decode_tiff, tiff_header
from totalrecall.types import Image

__all__ = [
    "PictureFile",
    "Pixels",
    "blend",
    "decode_image",
    "decode_layers",
    "decode_pixels",
    "open_picture",
    "to_8_bits",
    "upright",
]

Pixels = np.ndarray  # uint8 or uint16, RGB (h, w, 3): what the file holds, upright and without alpha

# keeps 16 bits; the orientation is read here, one reader for all formats
_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_WITH_ALPHA = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
_AT_ONCE = 1 << 20  # pixels that are blended at once: wide numbers of all of them would take gigabytes
_FAILURES = (cv2.error, MemoryError, OverflowError, ValueError, struct.error)

FORMATS = "JPEG, PNG, BMP, TIFF, WebP"
_STARTS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP"}
_STARTS |= {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF"}

_Chunks = list[tuple[bytes, int, int]]
_Layers = tuple[Pixels, np.ndarray | None]


@dataclass(frozen=True)
class PictureFile:
    """A picture file whose header was read and believed; nothing is decoded yet.

    Attributes:
        header: what the file states.
        layers: returns its colours and its alpha channel, see `decode_layers`.
        multiplied: the colours are multiplied by alpha already.
    """

    header: Header
    layers: Callable[[], _Layers]
    multiplied: bool = False

    def decode(self) -> Pixels:
        """Return its pixels, see `decode_pixels`."""
        return blend(*self.layers(), multiplied=self.multiplied)


def decode_image(data: bytes, name: str, *, max_pixels: int | None = None) -> Image:
    """Decode JPEG, PNG, BMP, TIFF or WebP bytes to uint8 RGB (h, w, 3); `name` is for messages.

    Raises:
        PictureError: the bytes are empty, truncated, damaged, not a picture, or of more than `max_pixels`.
    """
    return to_8_bits(decode_pixels(data, name, max_pixels=max_pixels), name)


def decode_pixels(data: bytes, name: str, *, max_pixels: int | None = None) -> Pixels:
    """Decode a picture as deep as it is: uint8 or uint16 RGB (h, w, 3), upright, blended over white where transparent.

    Samples of 1, 2 and 4 bits fill 8, those of 9 to 15 fill 16 by their full range.

    Raises:
        PictureError: the bytes are empty, truncated, damaged, not a picture, or of more than `max_pixels`.
    """
    return open_picture(data, name, max_pixels=max_pixels).decode()


def decode_layers(data: bytes, name: str, *, max_pixels: int | None = None) -> _Layers:
    """Decode colours, as `decode_pixels` but not blended, and alpha (h, w) of their type; None where there is none.

    An alpha channel of nothing but zeros is none: frame grabbers leave there what they will.

    Raises:
        PictureError: as for `decode_pixels`.
    """
    return open_picture(data, name, max_pixels=max_pixels).layers()


def open_picture(data: bytes, name: str, *, max_pixels: int | None = None) -> PictureFile:
    """Read what a picture file states, in no more memory than the file has.

    Args:
        data: the file.
        name: for messages.
        max_pixels: allowed; None is `formats.header.max_pixels()`.

    Raises:
        PictureError: the bytes are empty, truncated, damaged, not a picture, or of more than `max_pixels`.
    """
    format_ = _format_of(data, name)
    try:
        file = _OPENERS[format_](data, name, max_pixels)
    except (struct.error, IndexError, OverflowError, ValueError):  # numbers in it are nonsense
        raise damaged(name, format_) from None
    check_size(name, file.header.height, file.header.width, max_pixels)

    def layers() -> _Layers:
        try:
            pixels, alpha = file.layers()
            turned = upright(pixels, file.header.orientation)
            return turned, None if alpha is None or not alpha.any() else upright(alpha, file.header.orientation)
        except _FAILURES as error:
            if isinstance(error, MemoryError) or getattr(error, "code", 0) == cv2.Error.StsNoMem:
                size = f"{file.header.width} x {file.header.height}"
                raise PictureError(f"{name} is too large to decode: {size} pixels and no memory left.") from None
            raise damaged(name, format_) from None

    return PictureFile(file.header, layers, file.multiplied)


def to_8_bits(pixels: Pixels, name: str) -> Image:
    """Reduce 16 bits to 8 by their full range, rounded (65535 becomes 255); 8 bits stay as they are.

    Raises:
        PictureError: the pixels are of another type.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    raise PictureError(f"{name} holds {pixels.dtype} pixels; 8 or 16 bits are allowed. Save it as 16-bit PNG or TIFF.")


# ---------------------------------------------------------------------- by format


def _format_of(data: bytes, name: str) -> str:
    """Return the format of a file by its first bytes; nothing else reaches a decoder.

    Raises:
        PictureError: it is none that is read.
    """
    if not data:
        raise PictureError(f"{name} is empty (0 bytes).")
    format_ = next((text for start, text in _STARTS.items() if data.startswith(start)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        format_ = "WebP"
    if format_ is None:
        raise PictureError(f"{name} is not a picture that can be decoded. Allowed: {FORMATS}.")
    return format_


def _open_png(data: bytes, name: str, _: int | None) -> PictureFile:
    chunks = png_chunks(data, name)
    header = png_header(data, name, chunks)
    return PictureFile(header, lambda: _decode_png(data, name, header, chunks))


def _open_jpeg(data: bytes, name: str, _: int | None) -> PictureFile:
    jpeg = jpeg_header(data, name)
    return PictureFile(jpeg.header, lambda: _decode_jpeg(data, name, jpeg))


def _open_bmp(data: bytes, name: str, _: int | None) -> PictureFile:
    bmp = bmp_header(data, name)
    return PictureFile(bmp.header, lambda: decode_bmp(data, name, bmp))


def _open_tiff(data: bytes, name: str, max_pixels: int | None) -> PictureFile:
    tiff = tiff_header(data, name, max_pixels)
    return PictureFile(tiff.header, lambda: decode_tiff(data, name, tiff), tiff.associated)


def _open_webp(data: bytes, name: str, _: int | None) -> PictureFile:
    header = webp_header(data, name)
    return PictureFile(header, lambda: _as_layers(_decoded(data, _WITH_ALPHA, name, header)))


_OPENERS = {"PNG": _open_png, "JPEG": _open_jpeg, "BMP": _open_bmp, "TIFF": _open_tiff, "WebP": _open_webp}


def _decoded(data: bytes | bytearray, flags: int, name: str, header: Header) -> np.ndarray:
    """Return what OpenCV decodes, BGR or BGRA, of the size and depth that the file states."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise damaged(name, header.format)
    if pixels.dtype != (np.uint16 if header.bits > 8 else np.uint8):
        raise damaged(name, header.format)
    return pixels


def _decode_png(data: bytes, name: str, header: Header, chunks: _Chunks) -> _Layers:
    """Decode a PNG, of which OpenCV sees only the chunks that make the pixels.

    The others would let it take memory (compressed text), or show black: the first frame of some animations.
    """
    colour = data[25]
    key = next((data[start + 8 : end - 4] for kind, start, end in chunks if kind == b"tRNS"), None)
    needed = {b"IHDR", b"PLTE", b"IDAT", b"IEND"} | ({b"tRNS"} if colour == 3 else set())
    if any(kind not in needed for kind, *_ in chunks):
        view = memoryview(data)
        parts = [view[start:end] for kind, start, end in chunks if kind in needed]
        data = b"".join([data[:8], *parts])
    if colour in (4, 6) or (colour == 3 and key is not None):
        return _as_layers(_decoded(data, _WITH_ALPHA, name, header))
    pixels = np.ascontiguousarray(_decoded(data, _COLOUR, name, header)[:, :, ::-1])
    if key is not None and len(key) == (2 if colour == 0 else 6):
        # one colour, in the bits of the file, is transparent
        levels = np.frombuffer(key, ">u2").astype(np.uint32) & ((1 << header.bits) - 1)
        if header.bits < 8:
            levels = levels * (255 // ((1 << header.bits) - 1))
        seen = (pixels != levels.astype(pixels.dtype)).any(axis=2)
        return pixels, seen.astype(pixels.dtype) * np.iinfo(pixels.dtype).max
    return pixels, None


def _decode_jpeg(data: bytes, name: str, jpeg: Jpeg) -> _Layers:
    return np.ascontiguousarray(decode_jpeg(data, name, jpeg)[:, :, ::-1]), None  # BGR -> RGB


# ---------------------------------------------------------------------- transparency and orientation


def _as_layers(decoded: np.ndarray) -> _Layers:
    """Return RGB and alpha of BGR, BGRA or grey."""
    if decoded.ndim == 2:
        return np.repeat(decoded[:, :, None], 3, axis=2), None
    return np.ascontiguousarray(decoded[:, :, 2::-1]), decoded[:, :, 3] if decoded.shape[2] == 4 else None


def blend(pixels: Pixels, alpha: np.ndarray | None, *, multiplied: bool = False) -> Pixels:
    """Blend a picture over white, as a viewer shows it; `multiplied` by alpha already, or not."""
    if alpha is None:
        return pixels
    out, full = np.empty_like(pixels), np.uint32(np.iinfo(pixels.dtype).max)
    step = max(_AT_ONCE // pixels.shape[1], 1)
    for top in range(0, len(pixels), step):
        # subtle: 65535 x 65535 + 32767 is the largest number here, and just below 2**32
        opacity, part = alpha[top : top + step, :, None].astype(np.uint32), pixels[top : top + step]
        if multiplied:
            out[top : top + step] = np.minimum(part + (full - opacity), full)
        else:
            out[top : top + step] = (part * opacity + full * (full - opacity) + full // 2) // full
    return out


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn a picture as its EXIF orientation, 1 to 8, says."""
    if orientation == 1:
        return pixels
    if orientation >= 5:  # rows and columns are exchanged
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
