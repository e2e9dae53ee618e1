"""What is known halfway through a fit, as bytes and back. Never pickle: a file that was read cannot run code.

    32 bytes              SHA-256 of the rest
    8 bytes               length of the head
    head                  JSON: the value, and type and shape of each array
    arrays                one after the other, each at a multiple of 64 bytes

A value is made of the classes that are listed here, of lists, tuples, arrays, numbers and text. Numbers come
back to the bit.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from totalrecall.cluster.coreset import Merged
from totalrecall.cluster.shards import Shard
from totalrecall.drift.conditions import Glance
from totalrecall.errors import PictureError
from totalrecall.patchcore.coreset import Coreset
from totalrecall.patchcore.fitting import FoldMeasure, MeasuredPicture
from totalrecall.patchcore.reading import PicturePatches, ReadPicture
from totalrecall.patchcore.tilted import TiltedPatches
from totalrecall.pictures.geometry import Geometry
from totalrecall.pictures.loading import LearntPicture, LoadedPicture

__all__ = ["packed", "unpacked"]

_CLASSES: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Coreset, FoldMeasure, Geometry, Glance, LearntPicture, LoadedPicture, MeasuredPicture, Merged, PicturePatches,
        ReadPicture, Shard, TiltedPatches,
    )
}  # fmt: skip
_KINDS = "biuf"  # of arrays: truth values and numbers
_STEP = 64  # bytes


def packed(value: Any) -> bytes:
    """Return a value as bytes.

    Raises:
        TypeError: it holds something of another class.
    """
    arrays: list[np.ndarray] = []
    tree = _tree(value, arrays)
    layout = [[array.dtype.str, list(array.shape)] for array in arrays]
    head = json.dumps({"value": tree, "arrays": layout}).encode()
    head += b" " * (-(len(head) + 40) % _STEP)  # JSON may end in blanks
    parts = [len(head).to_bytes(8, "little"), head]
    for array in arrays:
        parts += [array.tobytes(), bytes(-array.nbytes % _STEP)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join([digest.digest(), *parts])


def unpacked(data: bytes) -> Any:
    """Return the value of bytes; its arrays are only read.

    Raises:
        ValueError: they are not what was written.
    """
    view = memoryview(data)
    if len(data) < 40 or hashlib.sha256(view[32:]).digest() != data[:32]:
        raise ValueError("it is damaged")
    try:
        end = 40 + int.from_bytes(view[32:40], "little")
        head = json.loads(bytes(view[40:end]))
        arrays = list(_arrays(view[end:], head["arrays"]))
        return _value(head["value"], arrays)
    except (KeyError, IndexError, TypeError, RecursionError) as error:
        raise ValueError(f"it is not what a fit keeps ({error})") from None


def _arrays(data: memoryview, layout: Any) -> Iterator[np.ndarray]:
    first = 0
    for kind, shape in layout:
        dtype = np.dtype(kind)
        if dtype.kind not in _KINDS:
            raise ValueError(f"an array of {dtype}")
        count = math.prod(shape)
        yield np.frombuffer(data, dtype, count, first).reshape(shape) if count else np.empty(shape, dtype)
        first += count * dtype.itemsize
        first += -first % _STEP


def _tree(value: Any, arrays: list[np.ndarray]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        arrays.append(np.asarray(value, order="C"))
        return {"array" if isinstance(value, np.ndarray) else "number": len(arrays) - 1}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_tree(one, arrays) for one in value]}
    if isinstance(value, PictureError):
        return {"error": str(value)}
    if is_dataclass(value) and _CLASSES.get(type(value).__name__) is type(value):
        return {type(value).__name__: {one.name: _tree(getattr(value, one.name), arrays) for one in fields(value)}}
    raise TypeError(f"A {type(value).__name__} cannot be kept.")


def _value(tree: Any, arrays: list[np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, inner),) = tree.items()
    if kind == "array":
        return arrays[inner]
    if kind == "number":
        return arrays[inner][()]
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "error":
        return PictureError(inner)
    if kind in ("list", "tuple"):
        values = [_value(one, arrays) for one in inner]
        return values if kind == "list" else tuple(values)
    return _CLASSES[kind](**{name: _value(one, arrays) for name, one in inner.items()})
