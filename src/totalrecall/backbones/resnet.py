"""Build a ResNet as an ONNX graph from a safetensors file of weights, without torch; each tensor is checked."""

import re
from pathlib import Path

import numpy as np

from totalrecall.backbones.graph import Graph, check_onnx
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
from totalrecall.backbones.spec import Backbone, Layer
from totalrecall.backbones.weights import Array, Weights, read_weights
from totalrecall.errors import BackboneError, SettingError

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
        MissingExtraError: the package onnx is not installed.
        BackboneError: the weights are missing, damaged, or of another architecture.
    """
    check_architecture(architecture)
    if form not in (None, *_INPUTS):
        raise SettingError(f"form must be 'torchvision' or 'caffe', got {form!r}.")
    check_onnx()
    read = read_weights(weights)
    plan = ARCHITECTURES[architecture]
    known = _form(read, form)
    last = _check(read, architecture, plan)
    network = _Network(read, known)
    x = network.stem()
    for stage in range(1, last + 1):
        for block in blocks(plan, stage, known):
            x = network.block(x, block)
        network.graph.planes_out(x, Layer(f"layer{stage}", plan.channels(stage), 2 ** (stage + 1)))
    facts = {
        "name": name or architecture,
        "source": source or f"weights file {read.path.name}",
        "licence": licence or "not stated",
        "preprocessing": _INPUTS[known],
        "architecture": f"{architecture}, {known} form",
    }
    return network.graph.backbone("resnet", facts, f"The backbone built from {read.path}")


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


class _Network:
    """The network in the making; each method returns the name of what it adds to the graph."""

    def __init__(self, weights: Weights, form: Form) -> None:
        self.graph = Graph()
        self._weights = weights
        self._form = form
        self._epsilon = _epsilon(weights)

    def stem(self) -> str:
        node = self.graph.node
        mean, divisor = _preparation(self._form)
        self.graph.constant("mean", mean.reshape(1, 3, 1, 1))
        x = node("Sub", [self.graph.pixels(), "mean"], "centred")
        kernel, bias = self._folded(stem())
        # the division moves into the kernel; the subtraction cannot, since zero padding comes after it
        kernel = (kernel[:, ::-1] if self._form == "caffe" else kernel) / divisor.reshape(1, 3, 1, 1)
        x = self._conv(x, stem(), kernel, bias)
        x = node("Relu", [x], "conv1_relu")
        # Keras pads with zeros before an unpadded pool, torch with -inf inside it; after a ReLU nothing is below 0, so
        # the two are the same. (Original Caffe pools without the left padding; its Keras port, our file, does not.)
        return node("MaxPool", [x], "pooled", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})

    def block(self, x: str, block: Block) -> str:
        node = self.graph.node
        shortcut = self._conv(x, block.shortcut, *self._folded(block.shortcut)) if block.shortcut else x
        for conv in block.convs:
            x = self._conv(x, conv, *self._folded(conv))
            if conv is not block.convs[-1]:
                x = node("Relu", [x], f"{conv.key}_relu")
        last = block.convs[-1].key
        x = node("Add", [x, shortcut], f"{last}_sum")
        return node("Relu", [x], f"{last}_block")

    def _folded(self, conv: Conv) -> tuple[Array, Array]:
        kernel = self._weights.take(f"{conv.key}.weight", conv.shape)
        return self._weights.folded(kernel, conv.norm, self._epsilon)

    def _conv(self, x: str, conv: Conv, kernel: Array, bias: Array) -> str:
        self.graph.constant(f"{conv.key}_kernel", kernel)
        self.graph.constant(f"{conv.key}_bias", bias)
        size = conv.shape[-1]
        attributes = {
            "kernel_shape": [size, size],
            "strides": [conv.stride, conv.stride],
            "pads": [size // 2] * 4,
            "group": conv.groups,
        }
        return self.graph.node("Conv", [x, f"{conv.key}_kernel", f"{conv.key}_bias"], conv.key, attributes)


def _preparation(form: Form) -> tuple[Array, Array]:
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
