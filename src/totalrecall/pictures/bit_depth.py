"""How many bits of 16-bit pictures a camera uses: found over the whole set of a fit, kept in the model.

A camera of 10 or 12 bits writes 16-bit files in one of two ways. Its values stand in the low bits (0 to 4095), so that
the full range of 16 bits would leave 17 grey levels of 256; or in the high ones (value << 4), so that the low bits are
always zero. The largest value and the low bits of all pictures together tell which: no single dark or overexposed
picture changes what the others are scaled by. A hot pixel counts like any other: none lies above the camera's depth.
"""

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from totalrecall.errors import PictureError
from totalrecall.pictures.decode import Pixels, decode_layers
from totalrecall.pictures.formats.header import file_limit
from totalrecall.pictures.in_memory import RemotePicture, pixels_in_memory
from totalrecall.pictures.settings import BIT_DEPTH
from totalrecall.system.files import read_regular
from totalrecall.types import Image

__all__ = ["BitDepth", "bits_used", "checked_bit_depth", "find_bit_depth", "is_deep"]

_CAMERAS = (8, 10, 12, 14, 16)  # bits; 11 used ones are a 12-bit camera's that saw no bright part
_FEW = 0.05  # share of the pictures that should not set the depth alone
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BitDepth:
    """What the pictures of a fit hold.

    Attributes:
        bits: that the 16-bit pictures use; None where there were none.
        shift: low bits that are always zero, because the values stand in the high ones.
        eight_bit: there were 8-bit pictures.
        note: for a person, where a few pictures alone set the depth; not kept.
    """

    KEYS: ClassVar[tuple[str, ...]] = ("bit_depth", "bit_shift", "eight_bit")  # of a model file

    bits: int | None = None
    shift: int = 0
    eight_bit: bool = True
    note: str = ""

    def to_8_bits(self, pixels: Pixels, name: str) -> Image:
        """Scale a picture's pixels to 8 bits by the range that the camera uses.

        Raises:
            PictureError: it does not fit: it has larger values, uses other bits, or is of the other type of file.
        """
        if pixels.dtype == np.uint8:
            if not self.eight_bit:
                raise PictureError(
                    f"{name} holds 8-bit pixels, and the model was fitted on pictures of {self.bits} bits in 16-bit "
                    "files. Give it as the camera writes it, or fit on pictures of both kinds."
                )
            return pixels
        if self.bits is None:
            raise PictureError(
                f"{name} holds 16-bit pixels, and the model was fitted on 8-bit pictures, which say nothing of its "
                "range. Convert it in the same way, or fit with a bit depth (16: the full range)."
            )
        used = int(np.bitwise_or.reduce(pixels, axis=None))
        if used >> (self.bits + self.shift):
            raise PictureError(
                f"{name} has values up to {int(pixels.max())}, above the {self.bits} bits of the model "
                f"(up to {((1 << self.bits) - 1) << self.shift}). If that is no fault of the picture, fit with "
                f"a bit depth of {used.bit_length()}."
            )
        if used & ((1 << self.shift) - 1):
            raise PictureError(
                f"{name} uses its low {self.shift} bits, but the model's pictures use only the high {self.bits} bits. "
                "Give the file as the camera wrote it."
            )
        return _table(self.bits, self.shift)[pixels]

    def words(self) -> str | None:
        """Say what was found; None where all pictures have 8 bits."""
        if self.bits is None:
            return None
        where = ", the high ones" if self.shift else ""
        mixed = "; some pictures have 8" if self.eight_bit else ""
        return f"Bit depth: {self.bits} of 16 bits used{where}{mixed}"

    def to_json(self) -> dict[str, Any]:
        """Return what the model file keeps."""
        facts: dict[str, Any] = {"bit_depth": self.bits}
        if self.bits is not None:
            facts |= {"bit_shift": self.shift, "eight_bit": self.eight_bit}
        return facts

    @classmethod
    def from_json(cls, recipe: dict[str, Any]) -> "BitDepth | None":
        """Return what a model file keeps; None of a model of before, which takes the full range of 16 bits."""
        if "bit_depth" not in recipe:
            return None
        return cls(recipe["bit_depth"], recipe.get("bit_shift", 0), recipe.get("eight_bit", True))


@lru_cache(maxsize=8)
def _table(bits: int, shift: int) -> np.ndarray:
    """Return the 8-bit value of each 16-bit one, uint8 (65536,), rounded."""
    full = (1 << bits) - 1
    values = np.minimum(np.arange(1 << 16) >> shift, full)
    return ((values * 255 + full // 2) // full).astype(np.uint8)


def checked_bit_depth(asked: int | str | None) -> int | None:
    """Return the bits asked for, None for `auto`.

    Raises:
        SettingError: it is neither `auto` nor from 8 to 16.
    """
    if asked is None or asked == "auto":
        return None
    BIT_DEPTH.check("bit_depth", asked)
    return int(asked)


def find_bit_depth(sources: Sequence[Any], asked: int | None = None, *, progress: Progress | None = None) -> BitDepth:
    """Find how many bits pictures use. Only those of 16 bits are read; a few bytes of each file say which these are.

    Args:
        sources: files, and pictures in memory; what cannot be read is left out here and named later.
        asked: bits that the camera has, if a person says so.
        progress: called as progress("depth", done, total) after each 16-bit picture.
    """
    deep = [source for source in sources if is_deep(source)]
    eight_bit = len(deep) < len(sources)
    if not deep:
        return BitDepth(asked, 0, eight_bit=True)
    used: list[tuple[int, str]] = []  # the bits that any pixel has set
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:  # each holds a picture, of whatever size
        for done, (source, bits) in enumerate(zip(deep, pool.map(bits_used, deep), strict=True), start=1):
            if bits is not None:
                used.append((bits, str(source) if isinstance(source, (str, os.PathLike)) else "an array"))
            if progress:
                progress("depth", done, len(deep))
    bits, shift = _bits_and_shift((pattern for pattern, _ in used), asked)
    note = "" if asked else _note(used, bits + shift)
    return BitDepth(bits, shift, eight_bit, note)


def _bits_and_shift(used: Iterable[int], asked: int | None) -> tuple[int, int]:
    """Return the bits that a camera has, and how many of the low ones are always zero."""
    union = 0
    for pattern in used:
        union |= pattern
    zeros = (union & -union).bit_length() - 1 if union else 0
    if asked is not None:
        return asked, 16 - asked if union >> asked and zeros >= 16 - asked else 0
    top = next(bits for bits in _CAMERAS if not union >> bits)
    # subtle: of a few pixels the low bits may be zero by chance; a camera's noise sets all that it has
    whole = union.bit_count() >= top - zeros - 1
    shift = zeros if zeros > 1 and whole and top - zeros >= 8 else 0
    return top - shift, shift


def _note(used: Sequence[tuple[int, str]], top: int) -> str:
    """Say so where a few pictures alone have values that are far above those of all others."""
    order = sorted(used, key=lambda picture: picture[0].bit_length(), reverse=True)
    few = max(int(_FEW * len(order)), 1)
    if len(order) < 5:
        return ""
    rest = order[few][0].bit_length()
    above = [name for bits, name in order[:few] if bits.bit_length() > rest]
    if not above or top - rest < 2:
        return ""
    which = f"Only {above[0]} has" if len(above) == 1 else f"Only {above[0]} and {len(above) - 1} more have"
    return (
        f"{which} values above {(1 << rest) - 1}, and they set the brightness scale of all pictures. If it is from "
        "another camera, take it out, or give the camera's bit depth."
    )


def bits_used(source: Any) -> int | None:
    """Return the bits that any pixel of a 16-bit picture has set; None where it cannot be read."""
    if isinstance(source, RemotePicture):
        return source.bits
    try:
        if not isinstance(source, (str, os.PathLike)):
            pixels = pixels_in_memory(source, "")
        else:
            pixels, _ = decode_layers(read_regular(source, limit=file_limit()), str(source))
    except (PictureError, OSError, ValueError, MemoryError):
        return None
    return int(np.bitwise_or.reduce(pixels, axis=None)) if pixels.dtype == np.uint16 and pixels.size else None


# ---------------------------------------------------------------------- which pictures have 16 bits


def is_deep(source: Any) -> bool:
    """Tell from the first bytes whether a picture has 16 bits."""
    if isinstance(source, RemotePicture):
        return source.deep
    if isinstance(source, np.ndarray):
        return source.dtype.type is np.uint16
    data = isinstance(source, (bytes, bytearray, memoryview))
    try:
        if not data and not isinstance(source, (str, os.PathLike)):  # a PIL picture, a tensor
            return pixels_in_memory(source, "").dtype == np.uint16
        if not data and not Path(source).is_file():
            return False
        with io.BytesIO(source) if data else Path(source).open("rb") as file:
            start = file.read(32)
            if start.startswith(b"\x89PNG\r\n\x1a\n"):
                return len(start) > 24 and start[24] == 16
            order = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}.get(start[:4])
            return order is not None and _tiff_is_deep(file, start, order)
    except (PictureError, OSError, ValueError):
        return False


def _tiff_is_deep(file: Any, start: bytes, order: str) -> bool:
    """Tell whether the first page of a TIFF has more than 8 bits a sample."""
    little = "little" if order == "<" else "big"

    def number(data: bytes) -> int:
        return int.from_bytes(data, little)  # type: ignore[arg-type]

    if number(start[2:4]) == 43:  # a TIFF of over 4 GB: looked at whole
        return True
    file.seek(number(start[4:8]))
    for _ in range(number(file.read(2))):
        entry = file.read(12)
        if len(entry) < 12:
            return False
        if number(entry[:2]) == 258:  # BitsPerSample
            if number(entry[4:8]) > 2:  # three or more stand elsewhere
                file.seek(number(entry[8:12]))
                return number(file.read(2)) > 8
            return number(entry[8:10]) > 8
    return False
