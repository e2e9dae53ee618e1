"""Bytes of a picture file -> uint8 RGB, as a person would see the picture."""

import zlib

import cv2
import numpy as np

from totalrecall.errors import PictureError
from totalrecall.types import Image

__all__ = ["Pixels", "decode_image", "decode_pixels", "to_8_bits"]

Pixels = np.ndarray  # uint8 or uint16, RGB (h, w, 3): what the file holds, upright and without alpha

_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH  # keeps 16 bits, applies the EXIF orientation, drops alpha
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_NO_MEMORY = -4  # cv2.Error.StsNoMem
_PNG_START = b"\x89PNG\r\n\x1a\n"
_STARTS = {_JPEG_START: "JPEG", _PNG_START: "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP"}


def decode_image(data: bytes, name: str) -> Image:
    """Decode JPEG, PNG, BMP, TIFF or WebP bytes to uint8 RGB (h, w, 3); `name` is for messages.

    Raises:
        PictureError: the bytes are empty, truncated, damaged, or not a picture.
    """
    return to_8_bits(decode_pixels(data, name), name)


def decode_pixels(data: bytes, name: str) -> Pixels:
    """Decode a picture as deep as it is: uint8 or uint16 RGB (h, w, 3), upright, blended over white where transparent.

    Raises:
        PictureError: the bytes are empty, truncated, damaged, or not a picture.
    """
    if not data:
        raise PictureError(f"{name} is empty (0 bytes).")
    _check_whole(data, name)
    buffer = np.frombuffer(data, np.uint8)
    pixels = _decode(buffer, _COLOUR, name)
    if pixels is None:
        raise _why_not(data, buffer, name)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise _wrong_depth(pixels, name)
    if _may_have_alpha(data):
        pixels = _over_white(pixels, buffer, name)
    return np.ascontiguousarray(pixels[:, :, ::-1])  # BGR -> RGB


def to_8_bits(pixels: Pixels, name: str) -> Image:
    """Reduce 16 bits to 8 by their full range, rounded (65535 becomes 255); 8 bits stay as they are.

    Raises:
        PictureError: the pixels are of another type.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    raise _wrong_depth(pixels, name)


def _decode(buffer: np.ndarray, flags: int, name: str) -> np.ndarray | None:
    try:
        return cv2.imdecode(buffer, flags)
    except (cv2.error, MemoryError) as error:
        if isinstance(error, cv2.error) and "CV_IO_MAX_IMAGE" not in str(error) and error.code != _NO_MEMORY:
            raise PictureError(f"{name} cannot be decoded: {error.err or error}.") from None
        raise PictureError(f"{name} is too large to decode. Save it smaller, or cut it into tiles.") from None


def _check_whole(data: bytes, name: str) -> None:
    """Raise unless a JPEG or PNG has all its parts; decoders fill what is missing with grey, or write on stderr."""
    if data.startswith(_JPEG_START):
        whole, intact = data.find(_JPEG_END, _jpeg_scan_start(data)) >= 0, True
    elif data.startswith(_PNG_START):
        whole, intact = _png_chunks(data)
    else:
        return
    if not whole:
        raise PictureError(f"{name} is truncated: its end is missing. Copy it again.")
    if not intact:
        raise PictureError(f"{name} is damaged: a checksum inside it is wrong. Copy it again.")


def _png_chunks(data: bytes) -> tuple[bool, bool]:
    """Return whether a PNG reaches its last chunk, and whether the chunks that hold pixels have their checksums."""
    view, position, intact = memoryview(data), len(_PNG_START), True
    while position + 12 <= len(data):
        length = int.from_bytes(view[position : position + 4], "big")
        kind, end = bytes(view[position + 4 : position + 8]), position + 12 + length
        if end > len(data):
            break
        if kind in (b"IHDR", b"PLTE", b"IDAT"):
            expected = int.from_bytes(view[end - 4 : end], "big")
            intact = intact and zlib.crc32(view[position + 4 : end - 4]) == expected
        if kind == b"IEND":
            return True, intact
        position = end
    return False, intact


def _why_not(data: bytes, buffer: np.ndarray, name: str) -> PictureError:
    """Return the error for a picture that the decoder refuses without a word."""
    format_ = next((text for start, text in _STARTS.items() if data.startswith(start)), None)
    if format_ is None or (format_ == "WebP" and data[8:12] != b"WEBP"):
        return PictureError(f"{name} is not a picture that can be decoded. Allowed: JPEG, PNG, BMP, TIFF, WebP.")
    stated = {"WebP": (4, 8), "BMP": (2, 0)}.get(format_)  # where the file's length stands, and what it leaves out
    if stated and int.from_bytes(data[stated[0] : stated[0] + 4], "little") + stated[1] > len(data):
        return PictureError(f"{name} is truncated: its end is missing. Copy it again.")
    raw = _decode(buffer, cv2.IMREAD_UNCHANGED, name) if format_ == "TIFF" else None
    if raw is not None and raw.dtype not in (np.uint8, np.uint16):
        return _wrong_depth(raw, name)
    return PictureError(f"{name} is damaged: it begins as a {format_} and cannot be decoded. Copy or save it again.")


def _jpeg_scan_start(data: bytes) -> int:
    """Return where the first scan of a JPEG begins, so that a thumbnail's end mark in the header is not mistaken."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:  # start of scan
            return position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return min(position, len(data))


def _wrong_depth(pixels: np.ndarray, name: str) -> PictureError:
    return PictureError(f"{name} holds {pixels.dtype} pixels; 8 or 16 bits are allowed. Save it as 16-bit PNG or TIFF.")


def _may_have_alpha(data: bytes) -> bool:
    if data.startswith(_PNG_START):
        return len(data) > 25 and (data[25] in (4, 6) or b"tRNS" in data[:4096])
    if data.startswith(b"BM"):
        return len(data) > 28 and data[28] == 32  # bits a pixel
    return not data.startswith(_JPEG_START)  # TIFF, WebP: decoded a second time to see


def _over_white(bgr: np.ndarray, buffer: np.ndarray, name: str) -> np.ndarray:
    """Blend a picture that has an alpha channel over white, as a viewer shows it."""
    raw = _decode(buffer, cv2.IMREAD_UNCHANGED, name)  # neither turned upright nor reduced to three channels
    if raw is None or raw.ndim != 3 or raw.shape[2] != 4:
        return bgr
    if raw.dtype != bgr.dtype:
        return bgr
    if not raw[:, :, 3].any():  # 32-bit BMPs leave the fourth byte at zero: that is no transparency
        return bgr
    for turn in range(8):  # of the eight EXIF orientations, the one that makes the colours agree
        upright = np.rot90(raw[:, ::-1] if turn >= 4 else raw, turn % 4)
        if upright.shape[:2] == bgr.shape[:2] and np.array_equal(upright[:, :, :3], bgr):
            # subtle: 65535 x 65535 + 32767 is the largest number here, and just below 2**32
            alpha, full = upright[:, :, 3:].astype(np.uint32), np.uint32(np.iinfo(bgr.dtype).max)
            return ((bgr * alpha + full * (full - alpha) + full // 2) // full).astype(bgr.dtype)
    return bgr
