"""Build the ONNX graph of a ResNet, Wide ResNet or ResNeXt from a safetensors file, without torch."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.resnet_plan import (
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
from totalrecall.backbones.weights import Weights, read_weights
from totalrecall.errors import BackboneError, SettingError

if TYPE_CHECKING:
    import onnx

__all__ = ["build_resnet", "check_architecture"]

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
        BackboneError: the weights are missing, damaged, or of another architecture.
    """
    check_architecture(architecture)
    if form not in (None, *_INPUTS):
        raise SettingError(f"form must be 'torchvision' or 'caffe', got {form!r}.")
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
