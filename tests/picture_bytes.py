"""Picture files written byte by byte."""

import struct
import zlib


def chunk(kind, data, checksum=0):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ checksum)


def png(width, depth, kind, row, extra=b"", *, height=1, checksum=0):
    """Return a PNG of one row by hand, for the kinds that OpenCV does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(b"\0" + row), checksum)
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def tiff_header(orientation, *, order="<"):
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0
    )


def with_exif(jpeg, orientation, *, order="<"):
    """Return a JPEG with an APP1 segment that holds nothing but the orientation."""
    payload = b"Exif\0\0" + tiff_header(orientation, order=order)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]
