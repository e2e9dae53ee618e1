"""Build an EfficientNet-Lite as an ONNX graph from its weights, without torch.

EfficientNet-Lite (Liu 2020, tensorflow/tpu) is EfficientNet without squeeze and excitation, with ReLU6 instead of
swish, and with stem and head of one width: made for processors that are fast at whole-number arithmetic. Layer N is
the output of block N, counted from 0 as in the keys of the package `efficientnet_lite_pytorch` (`_blocks.N`).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from totalrecall.backbones.graph import Graph, check_onnx
from totalrecall.backbones.spec import Advice, Backbone, Layer
from totalrecall.backbones.weights import Array, Weights, read_weights
from totalrecall.errors import BackboneError, SettingError

__all__ = ["LITES", "LiteBlock", "build_efficientnet_lite", "lite_blocks"]

# kernel, stride, expansion, output channels, blocks of each stage of B0: table 1 of Tan and Le 2019
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
LITES = {  # times as wide and as deep as B0
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
    "efficientnet_lite3": (1.2, 1.4),
    "efficientnet_lite4": (1.4, 1.8),
}
_STEM = 32
_EPSILON = 1e-3  # of batch norm, as TensorFlow trained it
_MEAN, _DIVISOR = 127.0, 128.0
_INPUT = "RGB, (x - 127) / 128"
_IGNORED = re.compile(r"_fc\.(weight|bias)|_conv_head\.weight|_bn1\..*|.*\.num_batches_tracked")


@dataclass(frozen=True)
class LiteBlock:
    """An inverted residual block: widen (if `expanded` differs), filter each channel alone, narrow."""

    number: int
    kernel: int
    stride: int
    into: int
    expanded: int
    out: int
    total_stride: int  # of its output, in prepared pixels
    ends_stage: bool

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every key of a kernel, with its shape."""
        widen = {"_expand_conv": (self.expanded, self.into, 1, 1)} if self.expanded != self.into else {}
        return {
            f"_blocks.{self.number}.{key}.weight": shape
            for key, shape in {
                **widen,
                "_depthwise_conv": (self.expanded, 1, self.kernel, self.kernel),
                "_project_conv": (self.out, self.expanded, 1, 1),
            }.items()
        }


def lite_blocks(architecture: str) -> list[LiteBlock]:
    """Return the blocks of a member of the family in order."""
    wide, deep = LITES[architecture]
    blocks: list[LiteBlock] = []
    into, total = _STEM, 2
    for stage, (kernel, first_stride, expansion, width, count) in enumerate(_STAGES):
        out = _rounded(width * wide)
        # first and last stage are as deep as B0's
        depth = count if stage in (0, len(_STAGES) - 1) else math.ceil(count * deep)
        for index in range(depth):
            stride = first_stride if index == 0 else 1
            total *= stride
            last = index == depth - 1
            blocks.append(LiteBlock(len(blocks), kernel, stride, into, into * expansion, out, total, last))
            into = out
    return blocks


def _rounded(width: float) -> int:
    """Return a number of channels as a multiple of 8, not below nine tenths of what is asked for."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def build_efficientnet_lite(
    architecture: str,
    weights: str | Path,
    *,
    name: str | None = None,
    source: str = "",
    licence: str = "",
    last: int | None = None,
    half: bool = False,
) -> Backbone:
    """Return the backbone of an EfficientNet-Lite.

    Args:
        architecture: one of `LITES`.
        weights: safetensors file or torch checkpoint with the keys of the package `efficientnet_lite_pytorch`, or of
            timm's `tf_efficientnet_lite`.
        name: what the backbone is called; the architecture if not given.
        source: where the weights come from; the file's name if not given.
        licence: the licence of the weights.
        last: the last block to build; all if not given.
        half: store the kernels in float16.

    Raises:
        SettingError: the architecture does not exist.
        MissingExtraError: the package onnx is not installed.
        BackboneError: the weights are missing, damaged, or of another architecture.
    """
    if architecture not in LITES:
        raise SettingError(f"No architecture is called {architecture!r}. Choose one of {', '.join(LITES)}.")
    check_onnx()
    read = read_weights(weights)
    blocks = lite_blocks(architecture)
    if "blocks.0.0.conv_dw.weight" in read.shapes:
        read = read.renamed(_names_of_timm(architecture))
    _check(read, architecture, blocks)
    blocks = blocks if last is None else blocks[: last + 1]
    network = _Network(read, half=half)
    x = network.stem()
    for block in blocks:
        x = network.block(x, block)
        if block.number:
            network.graph.planes_out(x, Layer(f"layer{block.number}", block.out, block.total_stride))
    advised = [block.number for block in blocks if block.ends_stage and block.total_stride in (8, 16)]
    facts = {
        "name": name or architecture,
        "source": source or f"weights file {read.path.name}",
        "licence": licence or "not stated",
        "preprocessing": _INPUT,
        "architecture": architecture if last is None else f"{architecture} up to block {last}",
        "advice": Advice(tuple(advised)).to_json(),
    }
    return network.graph.backbone("efficientnet_lite", facts, f"The backbone built from {read.path}")


def _names_of_timm(architecture: str) -> Callable[[str], str]:
    """Return what turns timm's key names, which count the blocks of each stage, into those of the package."""
    starts = [0, *(block.number + 1 for block in lite_blocks(architecture) if block.ends_stage)]
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    others = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    others |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}

    def rename(key: str) -> str:
        match = re.fullmatch(r"blocks\.([0-6])\.(\d{1,3})\.(\w+)\.(\w+)", key)
        if match is None:
            module, _, part = key.rpartition(".")
            return f"{outside.get(module, module)}.{part}"
        stage, index, module, part = int(match[1]), int(match[2]), match[3], match[4]
        name = (first if stage == 0 else others).get(module, module)
        inside = starts[stage] + index < starts[stage + 1]  # else it is a deeper member's, and stays as it is
        return f"_blocks.{starts[stage] + index}.{name}.{part}" if inside else key

    return rename


def _check(weights: Weights, architecture: str, blocks: list[LiteBlock]) -> None:
    """Refuse weights of another architecture: each key, and each shape of a kernel, must be known."""
    expected = {"_conv_stem.weight": (_STEM, 3, 3, 3)} | {k: v for block in blocks for k, v in block.shapes.items()}
    if any(weights.shapes.get(key) != shape for key, shape in expected.items()):
        for other in LITES:
            planned = {key: shape for block in lite_blocks(other) for key, shape in block.shapes.items()}
            if other != architecture and all(weights.shapes.get(key) == shape for key, shape in planned.items()):
                # subtle: the blocks of a deep member begin like those of a flat one of the same width
                raise BackboneError(
                    f"Weights {weights.path} are not of {architecture}: they look like {other}. "
                    f"Name that architecture, or take weights of {architecture}."
                )
    for key, shape in expected.items():
        weights.require(key, shape)
    norm = re.compile(r"_bn0\.\w+|_blocks\.\d+\._bn[012]\.\w+")
    for key in weights.shapes:
        in_range = int(match[1]) < len(blocks) if (match := re.match(r"_blocks\.(\d+)\.", key)) else True
        if not in_range or (key not in expected and not norm.fullmatch(key) and not _IGNORED.fullmatch(key)):
            raise BackboneError(
                f"Weights {weights.path} have the key {key}, which {architecture} has not. "
                "They are of a variant that cannot be built yet."
            )


class _Network:
    """The network in the making; each method returns the name of what it adds to the graph."""

    def __init__(self, weights: Weights, *, half: bool) -> None:
        self.graph = Graph(half=half)
        self._weights = weights

    def stem(self) -> str:
        graph = self.graph
        graph.constant("zero", 0)
        graph.constant("six", 6)
        graph.constant("mean", _MEAN)
        x = graph.node("Sub", [graph.pixels(), "mean"], "centred")
        kernel, bias = self._weights.folded(self._weights.take("_conv_stem.weight", (_STEM, 3, 3, 3)), "_bn0", _EPSILON)
        # the division moves into the kernel; the subtraction cannot, since zero padding comes after it
        return self._clipped(self._conv(x, "stem", kernel / _DIVISOR, bias, stride=2))

    def block(self, x: str, block: LiteBlock) -> str:
        before = x
        norms = iter(range(1 if len(block.shapes) == 2 else 0, 3))
        for key, shape in block.shapes.items():
            kernel = self._weights.take(key, shape)
            kernel, bias = self._weights.folded(kernel, f"_blocks.{block.number}._bn{next(norms)}", _EPSILON)
            name = key.removeprefix("_").removesuffix(".weight")
            filters = "depthwise" in key
            stride, groups = (block.stride, block.expanded) if filters else (1, 1)
            x = self._conv(x, name, kernel, bias, stride=stride, groups=groups)
            if "project" not in key:
                x = self._clipped(x)
        if block.stride == 1 and block.into == block.out:
            return self.graph.node("Add", [x, before], f"block{block.number}")
        return x

    def _clipped(self, x: str) -> str:
        return self.graph.node("Clip", [x, "zero", "six"], f"{x}_relu6")

    def _conv(self, x: str, name: str, kernel: Array, bias: Array, *, stride: int = 1, groups: int = 1) -> str:
        size = kernel.shape[-1]
        inputs = [x, self.graph.weights(f"{name}_kernel", kernel), self.graph.constant(f"{name}_bias", bias)]
        # TensorFlow's "same": of an odd number of zeros the one more stands at the right and at the bottom
        attributes = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "auto_pad": "SAME_UPPER", "group": groups}
        return self.graph.node("Conv", inputs, name, attributes)
