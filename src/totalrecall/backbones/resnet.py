"""Build a ResNet as an ONNX graph from a safetensors file of weights, without torch; each tensor is checked."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.resnet_layout import (
    ARCHITECTURES,
    Architecture,
    Block,
    Conv,
    Form,
    blocks,
    recognise,
    stages,
    stem,
)
from totalrecall.backbones.spec import METADATA_KEY, Backbone
from totalrecall.errors import BackboneError, MissingExtraError, SettingError
from totalrecall.system.files import LARGEST, read_regular

if TYPE_CHECKING:
    import onnx

__all__ = ["Weights", "build_resnet", "check_architecture", "read_weights"]

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Weights:
    """The tensors of one file, still in the file's own number format.

    `shapes` has every key; `metadata` is the text the file carries about itself.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    _raw: Mapping[str, tuple[str, bytes | bytearray]] = field(repr=False)

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

    def take(self, key: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
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


def read_weights(path: str | Path) -> Weights:
    """Return the weights of a safetensors file.

    Raises:
        BackboneError: the file is missing, or not a whole safetensors file.
    """
    from safetensors import SafetensorError, deserialize

    path = Path(path)
    try:
        data = read_regular(path, limit=LARGEST["weights"])
    except OSError as error:
        raise BackboneError(
            f"Cannot read the weights {path}: {error.strerror or error}. Name a .safetensors file."
        ) from None
    try:
        tensors = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        cause = str(error).splitlines()[0] if str(error) else "unknown format"
        raise BackboneError(
            f"Weights {path} are not a whole safetensors file ({cause}). Take the file again; a PyTorch .pth is "
            "turned into one with safetensors.torch.save_file."
        ) from None
    shapes = {key: tuple(int(axis) for axis in tensor["shape"]) for key, tensor in tensors}
    raw = {key: (str(tensor["dtype"]), tensor["data"]) for key, tensor in tensors}
    return Weights(path, shapes, _metadata(data), raw)


def _metadata(data: bytes) -> dict[str, str]:
    # deserialize has proved the header well-formed, and does not hand out its metadata
    length = int.from_bytes(data[:8], "little")
    found = json.loads(data[8 : 8 + length]).get("__metadata__")
    return {str(key): str(value) for key, value in (found or {}).items()}


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if math.prod(shape) and shape else str(shape)


_INPUTS: dict[Form, str] = {
    "torchvision": "RGB, x/255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
    "caffe": "BGR, 0-255, minus 103.939 116.779 123.68, not divided",
}
_IGNORED = re.compile(r"fc\.(weight|bias)|.*\.num_batches_tracked")


def build_resnet(
    architecture: str,
    weights: str | Path,
    *,
    name: str | None = None,
    form: str | None = None,
    source: str = "",
    licence: str = "",
) -> Backbone:
    """Return the backbone of a member of the ResNet family, with as many stages as the weights have.

    Args:
        architecture: one of `ARCHITECTURES`.
        weights: safetensors file with torchvision's (also timm's) key names in float16, bfloat16 or float32.
        name: what the backbone is called; the architecture if not given.
        form: "torchvision" or "caffe" (the original: BGR, stride in a block's first 1x1); as the file's own metadata
            says if not given, else "torchvision".
        source: where the weights come from; the file's name if not given.
        licence: the licence of the weights.

    Raises:
        SettingError: the architecture or form does not exist.
        MissingExtraError: the package onnx is not installed.
        BackboneError: the weights are missing, damaged, or of another architecture.
    """
    check_architecture(architecture)
    if form not in (None, *_INPUTS):
        raise SettingError(f"form must be 'torchvision' or 'caffe', got {form!r}.")
    _check_onnx()
    read = read_weights(weights)
    plan = ARCHITECTURES[architecture]
    known = _form(read, form)
    last = _check(read, architecture, plan)
    model = _model(read, plan, known, last)
    facts = {
        "name": name or architecture,
        "layers": [
            {"name": f"layer{s}", "channels": plan.channels(s), "stride": 2 ** (s + 1)} for s in range(1, last + 1)
        ],
        "source": source or f"weights file {read.path.name}",
        "licence": licence or "not stated",
        "preprocessing": _INPUTS[known],
        "architecture": f"{architecture}, {known} form",
    }
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(facts))
    return Backbone.from_onnx(model.SerializeToString(), f"The backbone built from {read.path}")


def check_architecture(name: str) -> None:
    """Refuse a name that is no member of the family.

    Raises:
        SettingError: it is none.
    """
    if name not in ARCHITECTURES:
        raise SettingError(f"No architecture is called {name!r}. Choose one of {', '.join(ARCHITECTURES)}.")


def _form(weights: Weights, asked: str | None) -> Form:
    described = weights.metadata.get("input", "").strip()
    if asked is None and not described:
        asked = "caffe" if "caffe" in weights.metadata.get("architecture", "").lower() else "torchvision"
    for form, text in _INPUTS.items():
        if form == asked or (asked is None and text == described):
            return form
    raise BackboneError(
        f"Weights {weights.path} want an input that is not known: {described!r}. "
        "If they are prepared like torchvision's or Caffe's, name the form 'torchvision' or 'caffe'."
    )


def _check(weights: Weights, architecture: str, plan: Architecture) -> int:
    """Return the last stage that the file has, once its keys and shapes are those of the architecture."""
    lookalikes = recognise(weights.shapes)
    if lookalikes and architecture not in lookalikes:
        raise BackboneError(
            f"Weights {weights.path} are not of {architecture}: they look like {' or '.join(lookalikes)}. "
            f"Name that architecture, or take weights of {architecture}."
        )
    last = max(stages(weights.shapes), default=1)  # with no stage at all, layer1's first key is named as missing
    expected = stem().shapes()
    for stage in range(1, last + 1):
        for block in blocks(plan, stage, "torchvision"):
            for conv in (*block.convs, block.shortcut):
                expected |= conv.shapes() if conv else {}
    for key, shape in expected.items():
        weights.require(key, shape)
    # a key that we would leave out is a part of the network that we would leave out: other features, no warning
    for key in weights.shapes:
        if key not in expected and not _IGNORED.fullmatch(key):
            raise BackboneError(
                f"Weights {weights.path} have the key {key}, which {architecture} has not. "
                "They are of a variant that cannot be built yet."
            )
    return last


def _check_onnx() -> None:
    """Find out that the graph cannot be built before the weights are read.

    Raises:
        MissingExtraError: the package onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            'Building a backbone needs onnx, which is not installed. Run: pip install "onnx>=1.16"'
        ) from None


def _model(weights: Weights, plan: Architecture, form: Form, last: int) -> "onnx.ModelProto":
    from onnx import TensorProto, helper

    graph = _Graph(weights, form)
    x = graph.stem()
    outputs = []
    for stage in range(1, last + 1):
        for block in blocks(plan, stage, form):
            x = graph.block(x, block)
        graph.node("Transpose", [x], f"layer{stage}", {"perm": [0, 2, 3, 1]})  # (n, c, h, w) -> (n, h, w, c)
        axes = ["n", f"height{stage}", f"width{stage}", plan.channels(stage)]
        outputs.append(helper.make_tensor_value_info(f"layer{stage}", TensorProto.FLOAT, axes))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])
    body = helper.make_graph(graph.nodes, "resnet", [images], outputs, graph.constants)
    # version 8 of the file format and opset 17 are of 2022: everything since reads them
    return helper.make_model(
        body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="totalrecall"
    )


class _Graph:
    """Nodes and constants of a graph in the making; each method returns the name of what it computes."""

    def __init__(self, weights: Weights, form: Form) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._weights = weights
        self._form = form
        self._epsilon = _epsilon(weights)

    def node(self, kind: str, inputs: list[str], output: str, attributes: dict[str, Any] | None = None) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **(attributes or {})))
        return output

    def stem(self) -> str:
        mean, divisor = _preparation(self._form)
        self._constant("mean", mean.reshape(1, 3, 1, 1))
        x = self.node("Transpose", ["images"], "planes", {"perm": [0, 3, 1, 2]})  # (n, h, w, 3) -> (n, 3, h, w)
        x = self.node("Cast", [x], "numbers", {"to": 1})  # 1 is FLOAT
        x = self.node("Sub", [x, "mean"], "centred")
        kernel, bias = self._folded(stem())
        # the division moves into the kernel; the subtraction cannot, since zero padding comes after it
        kernel = (kernel[:, ::-1] if self._form == "caffe" else kernel) / divisor.reshape(1, 3, 1, 1)
        x = self._conv(x, stem(), kernel, bias)
        x = self.node("Relu", [x], "conv1_relu")
        # Keras pads with zeros before an unpadded pool, torch with -inf inside it; after a ReLU nothing is below 0, so
        # the two are the same. (Original Caffe pools without the left padding; its Keras port, our file, does not.)
        return self.node("MaxPool", [x], "pooled", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})

    def block(self, x: str, block: Block) -> str:
        shortcut = self._conv(x, block.shortcut, *self._folded(block.shortcut)) if block.shortcut else x
        for conv in block.convs:
            x = self._conv(x, conv, *self._folded(conv))
            if conv is not block.convs[-1]:
                x = self.node("Relu", [x], f"{conv.key}_relu")
        last = block.convs[-1].key
        x = self.node("Add", [x, shortcut], f"{last}_sum")
        return self.node("Relu", [x], f"{last}_block")

    def _folded(self, conv: Conv) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return kernel and bias of a convolution with its batch norm folded in, in float64."""
        values = {key: self._weights.take(key, shape) for key, shape in conv.shapes().items()}
        variance = values[f"{conv.norm}.running_var"] + self._epsilon
        if variance.min() <= 0:
            raise BackboneError(
                f"Weights {self._weights.path}: {conv.norm}.running_var is below 0, a variance is not. "
                "Take an undamaged file."
            )
        scale = values[f"{conv.norm}.weight"] / np.sqrt(variance)
        bias = values[f"{conv.norm}.bias"] - values[f"{conv.norm}.running_mean"] * scale
        return values[f"{conv.key}.weight"] * scale.reshape(-1, 1, 1, 1), bias

    def _conv(self, x: str, conv: Conv, kernel: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> str:
        self._constant(f"{conv.key}_kernel", kernel)
        self._constant(f"{conv.key}_bias", bias)
        size = conv.shape[-1]
        attributes = {
            "kernel_shape": [size, size],
            "strides": [conv.stride, conv.stride],
            "pads": [size // 2] * 4,
            "group": conv.groups,
        }
        return self.node("Conv", [x, f"{conv.key}_kernel", f"{conv.key}_bias"], conv.key, attributes)

    def _constant(self, name: str, values: npt.NDArray[np.float64]) -> None:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name))


def _preparation(form: Form) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and divisor of the channels red, green, blue, on pixel values 0 to 255."""
    if form == "caffe":
        return np.array([123.68, 116.779, 103.939]), np.ones(3)
    return 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])


def _epsilon(weights: Weights) -> float:
    text = weights.metadata.get("batch_norm_eps", "1e-5")
    try:
        epsilon = float(text)
    except ValueError:
        epsilon = -1.0
    if not 0 <= epsilon < 1:
        raise BackboneError(f"Weights {weights.path}: batch_norm_eps must be at least 0 and below 1, got {text!r}.")
    return epsilon
