"""The ResNet family on paper: which convolutions each member has, under which keys, in which shapes and strides.

He et al. 2015 (ResNet), Zagoruyko and Komodakis 2016 (Wide), Xie et al. 2017 (ResNeXt); key names as in torchvision
and timm.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "ARCHITECTURES",
    "NORM_PARTS",
    "Architecture",
    "Block",
    "Conv",
    "Form",
    "blocks",
    "recognise",
    "stages",
    "stem",
    "weights_size",
]

Form = Literal["torchvision", "caffe"]
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Architecture:
    """Blocks of each stage, and the width of their 3x3 convolution: `groups` of `base_width` at 64 planes."""

    depths: tuple[int, int, int, int]
    bottleneck: bool
    groups: int = 1
    base_width: int = 64

    def channels(self, stage: int) -> int:
        """Return the channels that stage 1 to 4 puts out."""
        return (64 << stage - 1) * (4 if self.bottleneck else 1)

    def width(self, stage: int) -> int:
        """Return the channels inside a block of stage 1 to 4."""
        return (64 << stage - 1) * self.base_width // 64 * self.groups


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture((2, 2, 2, 2), bottleneck=False),
    "resnet34": Architecture((3, 4, 6, 3), bottleneck=False),
    "resnet50": Architecture((3, 4, 6, 3), bottleneck=True),
    "resnet101": Architecture((3, 4, 23, 3), bottleneck=True),
    "resnet152": Architecture((3, 8, 36, 3), bottleneck=True),
    "wide_resnet50_2": Architecture((3, 4, 6, 3), bottleneck=True, base_width=128),
    "wide_resnet101_2": Architecture((3, 4, 23, 3), bottleneck=True, base_width=128),
    "resnext50_32x4d": Architecture((3, 4, 6, 3), bottleneck=True, groups=32, base_width=4),
    "resnext101_32x8d": Architecture((3, 4, 23, 3), bottleneck=True, groups=32, base_width=8),
    "resnext101_64x4d": Architecture((3, 4, 23, 3), bottleneck=True, groups=64, base_width=4),
}


@dataclass(frozen=True)
class Conv:
    """A convolution without bias and the batch norm after it; `shape` is (out, in/groups, k, k)."""

    key: str
    norm: str
    shape: tuple[int, int, int, int]
    stride: int = 1
    groups: int = 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every key that it reads, with its shape."""
        return {f"{self.key}.weight": self.shape} | {f"{self.norm}.{part}": self.shape[:1] for part in NORM_PARTS}


@dataclass(frozen=True)
class Block:
    """A residual block: `convs` one after the other, and `shortcut`, which is None for the identity."""

    convs: tuple[Conv, ...]
    shortcut: Conv | None


def stem() -> Conv:
    """Return the 7x7 convolution that all members begin with."""
    return Conv("conv1", "bn1", (64, 3, 7, 7), stride=2)


def blocks(architecture: Architecture, stage: int, form: Form) -> tuple[Block, ...]:
    """Return the blocks of stage 1 to 4 in order."""
    into = 64 if stage == 1 else architecture.channels(stage - 1)
    out = architecture.channels(stage)
    planned = []
    for index in range(architecture.depths[stage - 1]):
        stride = 2 if stage > 1 and index == 0 else 1
        name = f"layer{stage}.{index}"
        convs = _convs(architecture, stage, name, into, stride, form)
        shortcut = None
        if stride > 1 or into != out:
            shortcut = Conv(f"{name}.downsample.0", f"{name}.downsample.1", (out, into, 1, 1), stride)
        planned.append(Block(convs, shortcut))
        into = out
    return tuple(planned)


def weights_size(architecture: Architecture) -> int:
    """Return the bytes of a whole published file: all stages and the classifier of 1,000 classes, in float32."""
    convs = [stem()]
    for stage in range(1, 5):
        for block in blocks(architecture, stage, "torchvision"):
            convs += [conv for conv in (*block.convs, block.shortcut) if conv]
    numbers = sum(math.prod(shape) for conv in convs for shape in conv.shapes().values())
    return 4 * (numbers + 1000 * (architecture.channels(4) + 1))


def _convs(architecture: Architecture, stage: int, name: str, into: int, stride: int, form: Form) -> tuple[Conv, ...]:
    width, out, groups = architecture.width(stage), architecture.channels(stage), architecture.groups
    if not architecture.bottleneck:
        shapes = [((width, into, 3, 3), stride, 1), ((out, width, 3, 3), 1, 1)]
    else:
        # the one difference in shape between the forms: which convolution of the block takes the stride
        first, second = (stride, 1) if form == "caffe" else (1, stride)
        shapes = [
            ((width, into, 1, 1), first, 1),
            ((width, width // groups, 3, 3), second, groups),
            ((out, width, 1, 1), 1, 1),
        ]
    return tuple(Conv(f"{name}.conv{i}", f"{name}.bn{i}", *rest) for i, rest in enumerate(shapes, start=1))


def stages(shapes: Mapping[str, tuple[int, ...]]) -> dict[int, int]:
    """Return stage -> number of blocks for the keys of a file, both as far as the keys go."""
    depths: dict[int, int] = {}
    for key in shapes:
        match = re.match(r"layer([1-4])\.(\d+)\.", key)
        if match:
            stage, block = int(match[1]), int(match[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
    return depths


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the members of the family that a file's keys and shapes look like.

    There can be several: to layer2, resnet50 and resnet101 are the same.
    """
    depths = stages(shapes)
    found = []
    for name, architecture in ARCHITECTURES.items():
        first = blocks(architecture, 1, "torchvision")[0]
        same_blocks = ("layer1.0.conv3.weight" in shapes) == architecture.bottleneck
        same_width = shapes.get("layer1.0.conv2.weight") == first.convs[1].shape
        same_depths = bool(depths) and all(architecture.depths[stage - 1] == depths[stage] for stage in depths)
        if same_blocks and same_width and same_depths:
            found.append(name)
    return found
