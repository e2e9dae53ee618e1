"""The one-file model format `.trecall`: safetensors with a JSON header. Never pickle: a model file cannot run code.

    metadata["totalrecall"]   JSON: format, kind, library, settings, recipe, backbone, calibration, pictures
    tensors                   see `docs/model-file.md`

The same detector gives the same bytes: no date, no timing, keys in order.
"""

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from totalrecall.errors import ModelFileError
from totalrecall.files import sha256, write_atomically

__all__ = ["FORMAT", "Contents", "read_artifact", "read_header", "write_artifact"]

Contents = tuple[dict[str, Any], dict[str, np.ndarray]]  # header and tensors

FORMAT = 1  # raised when an older version of the library could no longer read the file
_KEY = "totalrecall"
_TYPES = ("float64", "float32", "int32", "float16", "uint8")  # that a model is made of, as safetensors orders them


def write_artifact(
    path: str | Path, header: dict[str, Any], tensors: dict[str, np.ndarray], *, replacing: str | None = None
) -> Path:
    """Write a model file whole or not at all.

    Args:
        path: of the file.
        header, tensors: what it is to hold.
        replacing: SHA-256 of the file that is expected there.

    Raises:
        DataError: the place cannot be written, or holds another file than expected.
    """
    kept = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    digests = {name: sha256(tensor.data) for name, tensor in kept.items()}
    text = json.dumps({"format": FORMAT, **header, "tensors": digests}, sort_keys=True)
    return write_atomically(path, lambda file: _write(file, text, kept), replacing=replacing)


def _write(file: BinaryIO, text: str, tensors: dict[str, np.ndarray]) -> None:
    """Write what `safetensors.numpy.save` gives, to the byte, without the two copies of all tensors that it makes."""
    names = sorted(tensors, key=lambda name: (_TYPES.index(tensors[name].dtype.name), name))
    listed: dict[str, Any] = {"__metadata__": {_KEY: text}}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        kind, shape = tensors[name].dtype, list(tensors[name].shape)
        listed[name] = {
            "dtype": f"{kind.kind.upper()}{8 * kind.itemsize}",
            "shape": shape,
            "data_offsets": [begin, end],
        }
    head = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)  # the tensors begin at a multiple of eight bytes
    file.write(len(head).to_bytes(8, "little") + head)
    for name in names:
        file.write(tensors[name].data)


def read_header(path: str | Path) -> dict[str, Any]:
    """Read the header alone, however large the model is.

    Raises:
        ModelFileError: missing, damaged, not a model of ours, or from a newer version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist. Make a model with: totalrecall fit GOOD... -o {path.name}")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path} is damaged or not a model file: {_first_line(error)}. Copy or fit it again."
        ) from None
    return _checked_header(path, metadata)


def read_artifact(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read header and tensors; each tensor must match the SHA-256 that was written with it.

    Raises:
        ModelFileError: as for `read_header`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    header = read_header(path)
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} is damaged: {_first_line(error)}. Copy or fit it again.") from None
    digests = header.get("tensors")
    for name in sorted(tensors):
        if not isinstance(digests, dict) or digests.get(name) != sha256(tensors[name].tobytes()):
            raise ModelFileError(f"{path} is damaged: {name} is not what was written. Copy or fit it again.")
    return header, tensors


def _checked_header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise ModelFileError(
            f"{path} is a safetensors file but not a Total Recall model. Give a file that `fit` wrote."
        )
    try:
        header = json.loads(metadata[_KEY])
        version = int(header["format"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ModelFileError(f"{path} is damaged: its header is not readable. Copy or fit it again.") from None
    if version > FORMAT:
        raise ModelFileError(
            f"{path} has model format {version}, this version reads up to {FORMAT}. Run: pip install -U totalrecall"
        )
    if not isinstance(header, dict):
        raise ModelFileError(f"{path} is damaged: its header is not readable. Copy or fit it again.")
    return header


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
