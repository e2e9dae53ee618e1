"""The one-file model format `.trecall`: safetensors with a JSON header. Never pickle: a model file cannot run code.

    metadata["totalrecall"]   JSON: format, kind, library, settings, recipe, backbone, calibration, pictures
    tensors                   see `docs/reference/model-file.md`

The same detector gives the same bytes: no date, no timing, keys in order.

Whatever a file says is a claim. `tensors` in the JSON holds the SHA-256 of each tensor, and `sha256` that of the JSON
with the tensors' types and shapes: a bit that flipped anywhere is found. Neither proves who wrote a file: whoever means
harm writes new hashes. So lengths, types and shapes are checked against the file before memory is taken, and
`model_schema` checks what they say.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np

from totalrecall.errors import DataError, ModelFileError
from totalrecall.system.files import sha256, write_atomically
from totalrecall.system.memory import available_memory
from totalrecall.system.text import format_size

__all__ = [
    "FORMAT",
    "Contents",
    "Layout",
    "is_protected",
    "missing_model",
    "read_artifact",
    "read_header",
    "write_artifact",
]

Contents = tuple[dict[str, Any], dict[str, np.ndarray]]  # header and tensors
Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]  # name of each tensor: its type and shape
Check = Callable[[dict[str, Any], Layout], object]  # raises ValueError where header and tensors do not fit together

FORMAT = 1  # raised when an older version of the library could no longer read the file
_KEY = "totalrecall"
_HASH = "sha256"  # in the header, of all else in it and of the layout
_TYPES = ("float64", "float32", "int32", "float16", "uint8")  # that a model is made of, as safetensors orders them
_LONGEST_HEAD = 64 << 20  # bytes: a quarter of a million pictures
_MOST_TENSORS = 10_000
_MOST_AXES = 8
# What a header could hold before it had a hash. A header without one that holds anything else is no older one: a bit
# that flipped in the name of the hash would be that.
_BEFORE = {"format", "kind", "library", "settings", "recipe", "backbone", "tensors", "search", "calibration"}
_BEFORE |= {"pictures", "coreset", "taught", "history"}


def write_artifact(
    path: str | Path, header: dict[str, Any], tensors: dict[str, np.ndarray], *, replacing: str | None = None
) -> Path:
    """Write a model file whole or not at all.

    Args:
        path: of the file.
        header, tensors: what it is to hold.
        replacing: SHA-256 of the file that is expected there.

    Raises:
        DataError: the place cannot be written, or holds another file than expected; or there are too many pictures.
    """
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    digests = {name: sha256(tensor.data) for name, tensor in arrays.items()}
    facts = {name: value for name, value in header.items() if name != _HASH}
    whole = {"format": FORMAT, **facts, "tensors": digests}
    layout = {name: (tensor.dtype, tensor.shape) for name, tensor in arrays.items()}
    text = json.dumps({**whole, _HASH: _hash(whole, layout)}, sort_keys=True)
    return write_atomically(path, lambda file: _write(file, text, arrays), replacing=replacing)


def _write(file: BinaryIO, text: str, tensors: dict[str, np.ndarray]) -> None:
    """Write what `safetensors.numpy.save` gives, to the byte, without the two copies of all tensors that it makes."""
    names = sorted(tensors, key=lambda name: (_TYPES.index(tensors[name].dtype.name), name))
    listed: dict[str, Any] = {"__metadata__": {_KEY: text}}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        kind, shape = _type_name(tensors[name].dtype), list(tensors[name].shape)
        listed[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    head = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)  # the tensors begin at a multiple of eight bytes
    if len(head) > _LONGEST_HEAD:
        raise DataError(
            f"The model's header would hold {format_size(len(head))}, {format_size(_LONGEST_HEAD)} are read. "
            "Fit on fewer pictures."
        )
    file.write(len(head).to_bytes(8, "little") + head)
    for name in names:
        file.write(tensors[name].data)


def _type_name(kind: np.dtype[Any]) -> str:
    return f"{kind.kind.upper()}{8 * kind.itemsize}"


def _hash(header: Mapping[str, Any], layout: Layout) -> str:
    """Return the SHA-256 of a header without its hash, which holds the tensors' own, and of their types and shapes."""
    listed = {name: [_type_name(kind), list(shape)] for name, (kind, shape) in layout.items()}
    digest = hashlib.sha256()
    for part in (header, listed):
        digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


# ---------------------------------------------------------------------- reading


@dataclass(frozen=True)
class _Head:
    """What a file says of itself before its tensors: where each lies is its offset in the file, in bytes."""

    header: dict[str, Any]
    layout: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
    begins: dict[str, int]


def read_header(path: str | Path) -> dict[str, Any]:
    """Read the header alone, however large the model is.

    Raises:
        ModelFileError: missing, damaged, not a model of ours, or from a newer version.
    """
    with _opened(Path(path)) as file:
        return _read_head(Path(path), file).header


def is_protected(header: Mapping[str, Any]) -> bool:
    """Tell whether a hash protects a header that was read; files written before November 2026 have none."""
    return _HASH in header


def read_artifact(path: str | Path, check: Check | None = None) -> Contents:
    """Read header and tensors; each must match the SHA-256 that was written with it.

    Args:
        path: of the file.
        check: called with the header and the tensors' types and shapes, before any of them is read.

    Raises:
        ModelFileError: as for `read_header`, or the tensors do not fit into memory, or `check` raised ValueError.
    """
    path = Path(path)
    with _opened(path) as file:
        head = _read_head(path, file)
        try:
            if check is not None:
                check(head.header, head.layout)
        except ValueError as error:
            raise ModelFileError(f"{path} is damaged: {error}. Copy or fit it again.") from None
        size = sum(kind.itemsize * math.prod(shape) for kind, shape in head.layout.values())
        if size > available_memory():
            raise ModelFileError(
                f"{path} holds {format_size(size)}, {format_size(available_memory())} of memory are free. "
                "Close other programs, or take a smaller model."
            )
        try:
            tensors = {name: _read_tensor(path, file, head, name) for name in sorted(head.layout)}
        except MemoryError:
            raise ModelFileError(f"{path} holds {format_size(size)}, more than memory. Take a smaller model.") from None
        except OSError as error:
            raise ModelFileError(f"{path} cannot be read: {error.strerror}. Copy or fit it again.") from None
    return head.header, tensors


def _opened(path: Path) -> BinaryIO:
    if path.suffix in (".onnx", ".xml"):
        raise ModelFileError(
            f"{path} is an exported graph, which cannot learn or change. Give the model that it was exported from; "
            "predict, evaluate and info take an .onnx file, too."
        )
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for whoever writes to it
            raise ModelFileError(f"{path} is no file. Give a model file that `fit` wrote.")
        return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{path} cannot be read: {reason}. Give a model file that `fit` wrote.") from None
    raise missing_model(path)


def missing_model(path: Path) -> ModelFileError:
    """Return the refusal of a model whose file is not there."""
    return ModelFileError(f"{path} does not exist. Make a model with: totalrecall fit GOOD... -o {path.name}")


def _read_head(path: Path, file: BinaryIO) -> _Head:
    try:
        total = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(total - 8, _LONGEST_HEAD):
            raise ValueError("its length is not that of a header")
        listed = _parsed(file.read(length))
        metadata = listed.pop("__metadata__", {})
        layout, begins = _listed_tensors(listed, total - 8 - length, 8 + length)
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        reason = str(error) if type(error) is ValueError else "no safetensors header"  # a decoder's says too much
        raise ModelFileError(f"{path} is damaged or not a model file: {reason}. Copy or fit it again.") from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_KEY), str):
        raise ModelFileError(
            f"{path} is a safetensors file but not a Total Recall model. Give a file that `fit` wrote."
        )
    return _Head(_checked_header(path, metadata[_KEY], layout), layout, begins)


def _parsed(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object, each of whose keys stands once."""
    value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("a key of its JSON stands twice")
    return parsed


def _refuse(name: str) -> float:
    raise ValueError(f"{name} in its JSON")


def _listed_tensors(
    listed: Mapping[str, Any], size: int, first: int
) -> tuple[dict[str, tuple[np.dtype[Any], tuple[int, ...]]], dict[str, int]]:
    """Return type, shape and place of each tensor; together they must fill the rest of the file.

    Raises:
        ValueError: they do not, or one is not described.
    """
    kinds = {_type_name(np.dtype(name)): np.dtype(name) for name in _TYPES}
    layout: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    spans: list[tuple[int, int, str]] = []
    if len(listed) > _MOST_TENSORS:
        raise ValueError(f"{len(listed)} tensors, allowed are {_MOST_TENSORS}")
    for name, entry in listed.items():
        said = entry if isinstance(entry, dict) else {}
        kind, shape, span = said.get("dtype"), said.get("shape"), said.get("data_offsets")
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"tensor {name[:80]!r} is of type {str(kind)[:20]!r}")
        if not _is_counts(shape) or not _is_counts(span) or len(shape) > _MOST_AXES or len(span) != 2:
            raise ValueError(f"tensor {name[:80]!r} has no shape or place")
        if span[1] - span[0] != kinds[kind].itemsize * math.prod(shape):
            raise ValueError(f"tensor {name[:80]!r} has another length than its shape says")
        layout[name] = kinds[kind], tuple(shape)
        spans.append((span[0], span[1], name))
    end = 0
    for begins, ends, _ in sorted(spans):
        if begins != end:
            raise ValueError("its tensors do not lie one after the other")
        end = ends
    if end != size:
        raise ValueError(f"it holds {size} bytes of tensors, its header says {end}")
    return layout, {name: first + begins for begins, _, name in spans}


def _is_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _checked_header(path: Path, text: str, layout: Layout) -> dict[str, Any]:
    """Return the header, which must match its hash if it has one."""
    try:
        header = _parsed(text)
        version = header["format"]
        if type(version) is not int or version < 1:
            raise ValueError
    except (ValueError, KeyError, RecursionError, MemoryError):
        raise ModelFileError(f"{path} is damaged: its header is not readable. Copy or fit it again.") from None
    if version > FORMAT:
        raise ModelFileError(
            f"{path} has model format {str(version)[:20]}, this version reads up to {FORMAT}. "
            "Install the newer Total Recall that wrote the file."
        )
    if _HASH in header:
        whole = header[_HASH] == _hash({key: value for key, value in header.items() if key != _HASH}, layout)
    else:
        whole = header.keys() <= _BEFORE
    if not whole:
        raise ModelFileError(f"{path} is damaged: its header is not what was written. Copy or fit it again.")
    digests = header.get("tensors")
    if not isinstance(digests, dict) or digests.keys() != layout.keys():
        raise ModelFileError(f"{path} is damaged: its tensors are not those that were written. Copy or fit it again.")
    return header


def _read_tensor(path: Path, file: BinaryIO, head: _Head, name: str) -> np.ndarray:
    kind, shape = head.layout[name]
    tensor = np.empty(shape, kind.newbyteorder("<"))
    into = tensor.reshape(-1).view(np.uint8).data
    file.seek(head.begins[name])
    read = file.readinto(into) if len(into) else 0  # type: ignore[attr-defined]
    if read != len(into) or head.header["tensors"][name] != hashlib.sha256(into).hexdigest():
        raise ModelFileError(f"{path} is damaged: {name} is not what was written. Copy or fit it again.")
    return tensor
