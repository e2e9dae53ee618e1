"""Pictures that are no files here: arrays, PIL pictures, tensors, the bytes of a file, an open file, one in a store.

Each becomes the same pixels that its file would give: RGB, upright, on white where transparent. What has no clear
meaning is refused in one line that names what was got.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from totalrecall.errors import PictureError
from totalrecall.pictures.decode import Pixels, blend, decode_pixels, upright
from totalrecall.pictures.formats.header import check_size, file_limit

__all__ = [
    "ArrayInterface",
    "ArrayLike",
    "ReadableFile",
    "RemotePicture",
    "array_depth",
    "held",
    "is_float",
    "is_in_memory",
    "pixels_in_memory",
    "source_name",
]

_CHANNELS = (1, 3, 4)
_BYTES = (bytes, bytearray, memoryview)


@runtime_checkable
class ReadableFile(Protocol):
    """An open file, or whatever else has `read`."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the bytes from where it stands."""
        ...


@runtime_checkable
class ArrayLike(Protocol):
    """A tensor, or whatever else NumPy can take as an array."""

    def __array__(self, *args: Any) -> np.ndarray: ...


@runtime_checkable
class ArrayInterface(Protocol):
    """A PIL picture, or whatever else shows its memory as NumPy does."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class RemotePicture(os.PathLike[str]):
    """A picture behind an address, which stands for it wherever a path would; its bytes are fetched when it is read.

    A fit asks of each picture, before it is read, whether another has the same bytes and how many bits it uses. Of a
    file that is a look; of a picture in a store far away it is the whole traffic. So whoever reads it finds that out
    once (see `cluster.survey`), and it carries the answer.

    Attributes:
        address: such as s3://bucket/part.png; its name in results and messages.
        fetch: returns the bytes at an address, or raises PictureError; a function that other processes know, too.
        size: bytes; None where they could not be fetched: then it is named when it is read.
        digest: SHA-256 of them.
        deep: it says that it has 16 bits a sample,
        bits: of which any pixel uses these; None where it has 8 or cannot be decoded.
    """

    address: str
    fetch: Callable[[str], bytes]
    size: int | None = None
    digest: bytes | None = None
    deep: bool = False
    bits: int | None = None

    def __fspath__(self) -> str:
        """Return the address; no file of this machine has that name."""
        return self.address

    def __str__(self) -> str:
        """Return the address."""
        return self.address

    def read_bytes(self) -> bytes:
        """Fetch it.

        Raises:
            PictureError: it is not there, or cannot be read.
        """
        return self.fetch(self.address)


def is_in_memory(source: object) -> bool:
    """Tell whether a source is one picture in memory: no path, and no list of sources."""
    if isinstance(source, (str, os.PathLike)):
        return False
    if isinstance(source, (np.ndarray, *_BYTES)):
        return True
    return any(hasattr(source, name) for name in ("read", "__array__", "__array_interface__"))


def _is_file(source: object) -> TypeGuard[ReadableFile]:
    """Tell whether it can be read; isinstance would collect the attributes of the protocol for every picture."""
    return not isinstance(source, (np.ndarray, *_BYTES)) and hasattr(source, "read")


def held(source: Any) -> Any:
    """Return a source that can be read again and again: of an open file, its bytes.

    Raises:
        PictureError: it cannot be read.
    """
    if _is_file(source):
        return _read(source, "The file")
    return source


def source_name(source: object, index: int) -> str:
    """Return the name of a source for results and messages: its path, or what it is and its place."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source) if isinstance(source, str) else str(source)
    kind = "bytes" if isinstance(source, _BYTES) else "file" if _is_file(source) else "array"
    return f"{'picture' if _is_pil(source) else kind}[{index}]"


def pixels_in_memory(source: Any, name: str, *, max_pixels: int | None = None) -> Pixels:
    """Return the RGB pixels (h, w, 3) of a picture in memory.

    Args:
        source: bytes of a picture file; an open one; a PIL picture; an array or tensor, grey (h, w) or (h, w, 1), RGB
            (h, w, 3), RGBA (h, w, 4), or the same with channels first; bool, or of a depth that `array_depth` takes.
        name: for messages.
        max_pixels: allowed, as for `decode_pixels`.

    Raises:
        PictureError: it is nothing of that, or cannot be decoded.
    """
    if isinstance(source, _BYTES):
        return decode_pixels(bytes(source), name, max_pixels=max_pixels)
    if _is_pil(source):
        return _of_pil(source, name, max_pixels)
    if isinstance(source, np.ndarray):
        return _of_array(source, name)
    if _is_file(source):
        return decode_pixels(_read(source, name), name, max_pixels=max_pixels)
    if isinstance(source, (list, tuple)):
        raise PictureError(
            f"{name} must be one picture, got a {type(source).__name__} of {len(source)}. "
            "For several pictures use predict_stream; of numbers make an array: numpy.array(..., dtype=numpy.uint8)."
        )
    if not is_in_memory(source):
        raise PictureError(
            f"{name} must be a picture, got {type(source).__name__}. "
            "Give a path, bytes, an open file, a PIL picture or an array (h, w, 3)."
        )
    return _of_array(_as_array(source, name), name)


def _read(file: ReadableFile, name: str) -> bytes:
    try:
        data = file.read(file_limit() + 1)
    except (OSError, ValueError, TypeError) as error:  # ValueError: it is closed
        raise PictureError(f"{name} cannot be read: {str(error) or type(error).__name__}.") from None
    if not isinstance(data, _BYTES):
        raise PictureError(f"{name} gives {type(data).__name__} and no bytes. Open it with mode 'rb'.")
    if len(data) > file_limit():
        raise PictureError(f"{name} holds more than {file_limit():,} bytes. Save it smaller, or cut it into tiles.")
    if not data and isinstance(file, io.IOBase) and file.seekable() and file.tell():
        raise PictureError(f"{name} was read to its end before. Call seek(0).")
    return bytes(data)


def _as_array(source: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(source)
    except (TypeError, ValueError, RuntimeError, OSError) as error:  # a tensor on a GPU, or one with gradients
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PictureError(f"{name} cannot be taken as an array: {reason}") from None
    if array.dtype == object:
        raise PictureError(f"{name} must be a picture, got {type(source).__name__}. Give an array (h, w, 3).")
    return array


def _of_array(array: np.ndarray, name: str) -> Pixels:
    got = f"{array.dtype} {array.shape}"
    if array.ndim == 3 and array.shape[0] in _CHANNELS and min(array.shape[1:]) > max(_CHANNELS):
        array = np.moveaxis(array, 0, 2)  # (c, h, w) -> (h, w, c), as tensors have it
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _CHANNELS or 0 in array.shape:
        raise PictureError(
            f"{name} must be a uint8 RGB array (h, w, 3), grey (h, w) or RGBA (h, w, 4), got {got}. Convert it first."
        )
    array = array_depth(array, name, got)
    if array.shape[2] == 4:
        return blend(array[:, :, :3], array[:, :, 3] if array[:, :, 3].any() else None)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array


def array_depth(array: np.ndarray, name: str, got: str) -> Pixels:
    """Return an array as uint8 or uint16; of bool and float from 0 to 1 in uint8.

    Raises:
        PictureError: the range of its type is not known.
    """
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.type is np.uint16:
        return array.astype(np.uint16)  # in the machine's order of bytes
    if array.dtype.kind == "f":
        return _of_float(array, name)
    if array.dtype != np.uint8:
        allowed = "uint8 (0 to 255), uint16, or float from 0 to 1"
        raise PictureError(f"{name} must hold {allowed}, got {got}. Convert it first.")
    return array


def is_float(source: Any) -> bool:
    """Tell whether a picture in memory holds numbers from 0 to 1, which are of no camera's depth."""
    if isinstance(source, _BYTES) or _is_file(source):
        return False
    return source.mode == "F" if _is_pil(source) else np.asarray(source).dtype.kind == "f"


def _of_float(array: np.ndarray, name: str) -> Pixels:
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise PictureError(f"{name} holds values that are nan or infinite. Give numbers from 0 to 1.")
    if low < 0 or high > 1:
        advice = "Divide by the largest value that the camera can give, such as 255 or 4095, or give uint8 or uint16."
        got = f"{array.dtype} values from {low:g} to {high:g}"
        raise PictureError(f"{name} holds {got}; from 0 to 1 are allowed. {advice}")
    return np.rint(array * 255).astype(np.uint8)


# ---------------------------------------------------------------------- PIL


def _is_pil(source: object) -> bool:
    """Tell whether it is a PIL picture, without importing PIL, which need not be installed."""
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(source).__mro__)


def _of_pil(picture: Any, name: str, max_pixels: int | None) -> Pixels:
    width, height = picture.size
    check_size(name, height, width, max_pixels)
    try:
        orientation = picture.getexif().get(0x0112, 1)
        pixels = _of_array(_pil_array(picture, name), name)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # it is read from its file only now
        raise PictureError(f"{name} cannot be decoded: {error}.") from None
    return upright(pixels, orientation if isinstance(orientation, int) else 1)


def _pil_array(picture: Any, name: str) -> np.ndarray:
    """Return a PIL picture as an array of what its mode means."""
    mode = picture.mode
    if "transparency" in picture.info and mode in ("1", "L", "P", "RGB"):
        return np.asarray(picture.convert("RGBA"))
    if mode in ("1", "P", "CMYK", "YCbCr", "RGBX"):
        return np.asarray(picture.convert("RGB"))
    if mode in ("PA", "LA", "La", "RGBa"):
        whole = picture if mode in ("PA", "LA") else picture.convert({"La": "LA", "RGBa": "RGBA"}[mode])
        return np.asarray(whole.convert("RGBA"))
    if mode == "I":  # how PIL gives some 16-bit files
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError(f"{name} is a PIL picture of 32 bits; its values must be from 0 to 65535.")
        return values.astype(np.uint16)
    if mode in ("L", "RGB", "RGBA", "F") or mode.startswith("I;16"):
        return np.asarray(picture)
    raise PictureError(f"{name} is a PIL picture of mode {mode}. Convert it first: picture.convert('RGB').")
