"""Weights files, read without torch: safetensors, and the `.pth` of torch by a reader that takes tensors alone."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.checkpoint import is_checkpoint, read_checkpoint
from totalrecall.errors import BackboneError
from totalrecall.system.files import LARGEST, read_regular

__all__ = ["Array", "Weights", "read_weights"]

Array: TypeAlias = npt.NDArray[np.float64]
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Weights:
    """The tensors of one file, still in the file's own number format.

    `shapes` has every key; `metadata` is the text the file carries about itself.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    _raw: Mapping[str, tuple[str, bytes | bytearray | memoryview]] = field(repr=False)

    def require(self, key: str, shape: tuple[int, ...]) -> None:
        """Check that there is a tensor `key` of this shape, without reading its values.

        Raises:
            BackboneError: the key is missing, has another shape, or holds integers.
        """
        if key not in self.shapes:
            raise BackboneError(f"Weights {self.path} lack the key {key}. Take a complete file of this architecture.")
        if self.shapes[key] != shape:
            got, expected = _by(self.shapes[key]), _by(shape)
            raise BackboneError(
                f"Weights {self.path}: {key} has shape {got}, expected {expected}. "
                "Name the architecture that the file was trained as."
            )
        dtype = self._raw[key][0]
        if dtype not in _DTYPES:
            raise BackboneError(
                f"Weights {self.path}: {key} is stored as {dtype}, allowed are {', '.join(_DTYPES)}. "
                "Save the weights as float32."
            )

    def renamed(self, rename: Callable[[str], str | None]) -> "Weights":
        """Return the same tensors under other names; those that are given none are left out."""
        names = {key: name for key in self.shapes if (name := rename(key)) is not None}
        shapes = {name: self.shapes[key] for key, name in names.items()}
        return replace(self, shapes=shapes, _raw={name: self._raw[key] for key, name in names.items()})

    def take(self, key: str, shape: tuple[int, ...]) -> Array:
        """Return the tensor `key` in float64, which holds the values of every format that is read.

        Raises:
            BackboneError: as `require`, or the tensor holds inf or nan.
        """
        self.require(key, shape)
        dtype, data = self._raw[key]
        stored = np.frombuffer(data, _DTYPES[dtype])
        if dtype == "BF16":  # the upper half of a float32; NumPy has no such type
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        if not np.isfinite(stored).all():
            raise BackboneError(f"Weights {self.path}: {key} holds inf or nan. Take an undamaged file.")
        return stored.astype(np.float64).reshape(shape)

    def folded(self, kernel: Array, norm: str, epsilon: float) -> tuple[Array, Array]:
        """Return kernel and bias of a convolution without bias, with the batch norm after it folded in.

        Args:
            kernel: (out, in/groups, k, k).
            norm: name of the batch norm, before `.weight`, `.bias`, `.running_mean` and `.running_var`.
            epsilon: of the batch norm.

        Raises:
            BackboneError: a tensor is missing or of another shape, or a variance is below 0.
        """
        shape = kernel.shape[:1]
        weight, bias, mean, variance = (
            self.take(f"{norm}.{part}", shape) for part in ("weight", "bias", "running_mean", "running_var")
        )
        if (variance + epsilon).min() <= 0:
            raise BackboneError(
                f"Weights {self.path}: {norm}.running_var is below 0, a variance is not. Take an undamaged file."
            )
        scale = weight / np.sqrt(variance + epsilon)
        return kernel * scale.reshape(-1, 1, 1, 1), bias - mean * scale


def read_weights(path: str | Path) -> Weights:
    """Return the weights of a safetensors file, or of a torch checkpoint that holds tensors alone.

    Raises:
        BackboneError: the file is missing, not whole, or a checkpoint with anything else in it.
    """
    from safetensors import SafetensorError, deserialize

    path = Path(path)
    try:
        data = read_regular(path, limit=LARGEST["weights"])
    except OSError as error:
        raise BackboneError(
            f"Cannot read the weights {path}: {error.strerror or error}. Name a .safetensors or .pth file."
        ) from None
    if is_checkpoint(data):
        return _checkpoint(path, data)
    try:
        tensors = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        cause = str(error).splitlines()[0] if str(error) else "unknown format"
        raise BackboneError(
            f"Weights {path} are not a whole safetensors file ({cause}), nor a torch checkpoint. Take the file again."
        ) from None
    shapes = {key: tuple(int(axis) for axis in tensor["shape"]) for key, tensor in tensors}
    raw = {key: (str(tensor["dtype"]), tensor["data"]) for key, tensor in tensors}
    return Weights(path, shapes, _metadata(data), raw)


def _checkpoint(path: Path, data: bytes) -> Weights:
    try:
        shapes, raw = read_checkpoint(data)
    except ValueError as error:
        raise BackboneError(
            f"Weights {path} are no torch checkpoint of tensors alone: {error}. Take a file of weights from where they "
            "were published, or save it with safetensors.torch.save_file."
        ) from None
    return Weights(path, shapes, {}, raw)


def _metadata(data: bytes) -> dict[str, str]:
    # deserialize has proved the header well-formed, and does not hand out its metadata
    length = int.from_bytes(data[:8], "little")
    found = json.loads(data[8 : 8 + length]).get("__metadata__")
    return {str(key): str(value) for key, value in (found or {}).items()}


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if math.prod(shape) and shape else str(shape)
