"""Bytes of a picture file -> uint8 RGB, as a person would see the picture."""

import cv2
import numpy as np

from totalrecall.errors import PictureError
from totalrecall.types import Image

__all__ = ["decode_image"]

_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH  # keeps 16 bits, applies the EXIF orientation, drops alpha
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"


def decode_image(data: bytes, name: str) -> Image:
    """Decode JPEG, PNG, BMP, TIFF or WebP bytes to RGB (h, w, 3); `name` is for messages.

    Raises:
        PictureError: the bytes are empty, truncated, or not a picture.
    """
    if not data:
        raise PictureError(f"{name} is empty (0 bytes).")
    if _is_truncated(data):
        raise PictureError(f"{name} is truncated: its end is missing. Copy it again.")
    buffer = np.frombuffer(data, np.uint8)
    pixels = _decode(buffer, _COLOUR, name)
    if pixels is None:
        raise PictureError(f"{name} is not a picture that can be decoded. Allowed: JPEG, PNG, BMP, TIFF, WebP.")
    pixels = _to_8_bits(pixels, name)
    if _may_have_alpha(data):
        pixels = _over_white(pixels, buffer, name)
    return np.ascontiguousarray(pixels[:, :, ::-1])  # BGR -> RGB


def _decode(buffer: np.ndarray, flags: int, name: str) -> np.ndarray | None:
    try:
        return cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise PictureError(f"{name} cannot be decoded: {error.err or error}.") from None
    except MemoryError:
        raise PictureError(f"{name} is too large to decode: not enough memory.") from None


def _is_truncated(data: bytes) -> bool:
    """Tell whether a JPEG or PNG lacks its end mark; older decoders fill the rest with grey and say nothing."""
    if data.startswith(_JPEG_START):
        return data.find(_JPEG_END, _jpeg_scan_start(data)) < 0
    if data.startswith(_PNG_START):
        return data.rfind(b"IEND") < 0
    return False


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


def _to_8_bits(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 -> 255, rounded
    raise PictureError(f"{name} holds {pixels.dtype} pixels; 8 or 16 bits are allowed. Save it as 16-bit PNG or TIFF.")


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
    raw = _to_8_bits(raw, name)
    if not raw[:, :, 3].any():  # 32-bit BMPs leave the fourth byte at zero: that is no transparency
        return bgr
    for turn in range(8):  # of the eight EXIF orientations, the one that makes the colours agree
        upright = np.rot90(raw[:, ::-1] if turn >= 4 else raw, turn % 4)
        if upright.shape[:2] == bgr.shape[:2] and np.array_equal(upright[:, :, :3], bgr):
            alpha = upright[:, :, 3:].astype(np.uint16)
            return ((bgr * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return bgr
