"""Teacher and students: one residual network class, described by a small table of layers.

The same modules are walked by `export.py`, so that the ONNX graph cannot drift from what was trained. There is no batch
norm: the teacher's is folded into its convolutions, and a student starts from such folded weights.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB in 0..1: the teacher's own preprocessing
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Conv:
    """A convolution with a ReLU."""

    kernel: int
    channels: int
    stride: int = 1


@dataclass(frozen=True)
class Pool:
    """The 3x3 maximum pooling of ResNet's stem, stride 2."""

    stride: int = 2


@dataclass(frozen=True)
class Block:
    """ReLU(shortcut + conv3x3(ReLU(conv3x3))), with `middle` channels between the two."""

    middle: int
    channels: int
    stride: int = 1


@dataclass(frozen=True)
class Architecture:
    """A network up to layer3: `stem` ends at stride 4 in place of ResNet's conv1, pooling and layer1."""

    stem: tuple[Conv | Pool | Block, ...]
    layer2: tuple[Block, ...]
    layer3: tuple[Block, ...]


RESNET18 = Architecture(
    stem=(Conv(7, 64, 2), Pool(), Block(64, 64), Block(64, 64)),
    layer2=(Block(128, 128, 2), Block(128, 128)),
    layer3=(Block(256, 256, 2), Block(256, 256)),
)


class ResidualBlock(nn.Module):
    """The module of a `Block`."""

    def __init__(self, channels_in: int, block: Block):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, block.middle, 3, block.stride, 1)
        self.conv2 = nn.Conv2d(block.middle, block.channels, 3, 1, 1)
        same = channels_in == block.channels and block.stride == 1
        self.downsample = None if same else nn.Conv2d(channels_in, block.channels, 1, block.stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, after the ReLU."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + shortcut)


class ConvRelu(nn.Module):
    """The module of a `Conv`."""

    def __init__(self, channels_in: int, conv: Conv):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, conv.channels, conv.kernel, conv.stride, conv.kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution, after the ReLU."""
        return torch.relu(self.conv(x))


class Network(nn.Module):
    """A network of the given architecture with He-initialised weights."""

    def __init__(self, architecture: Architecture, seed: int):
        super().__init__()
        self.architecture = architecture
        channels = 3
        for name in ("stem", "layer2", "layer3"):
            modules = []
            for part in getattr(architecture, name):
                modules.append(_module(channels, part))
                channels = getattr(part, "channels", channels)
            setattr(self, name, nn.Sequential(*modules))
        _initialise(self, torch.Generator().manual_seed(seed))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The maps at stride 4 (hint only), 8 and 16 of normalised pictures, (n, 3, h, w) -> (n, c, h/s, w/s)."""
        stem = self.stem(images)
        layer2 = self.layer2(stem)
        return stem, layer2, self.layer3(layer2)


def _module(channels_in: int, part: Conv | Pool | Block) -> nn.Module:
    if isinstance(part, Pool):
        return nn.MaxPool2d(3, part.stride, 1)
    return ResidualBlock(channels_in, part) if isinstance(part, Block) else ConvRelu(channels_in, part)


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            # Without batch norm the variance would double with each block; a small branch keeps it.
            module.conv2.weight.data.mul_(0.3)


def load_resnet18(weights: Path) -> Network:
    """The teacher from a file with torchvision's key names; batch norms are folded into the convolutions."""
    tensors = load_file(weights)
    network = Network(RESNET18, seed=0)
    _fold(tensors, "conv1", "bn1", network.stem[0].conv, eps=1e-5)
    stages = {"layer1": network.stem[2:], "layer2": network.layer2, "layer3": network.layer3}
    for stage, blocks in stages.items():
        for index, block in enumerate(blocks):
            prefix = f"{stage}.{index}"
            _fold(tensors, f"{prefix}.conv1", f"{prefix}.bn1", block.conv1, eps=1e-5)
            _fold(tensors, f"{prefix}.conv2", f"{prefix}.bn2", block.conv2, eps=1e-5)
            if block.downsample is not None:
                _fold(tensors, f"{prefix}.downsample.0", f"{prefix}.downsample.1", block.downsample, eps=1e-5)
    return network.eval().requires_grad_(False)


def _fold(tensors: dict[str, Tensor], conv: str, norm: str, into: nn.Conv2d, eps: float) -> None:
    weight, scale = tensors[f"{conv}.weight"].float(), tensors[f"{norm}.weight"].float()
    scale = scale / torch.sqrt(tensors[f"{norm}.running_var"].float() + eps)
    into.weight.data = weight * scale[:, None, None, None]
    into.bias.data = tensors[f"{norm}.bias"].float() - tensors[f"{norm}.running_mean"].float() * scale


def inherit(student: Network, teacher: Network, stem: bool) -> list[nn.Parameter]:
    """Start layer2 and layer3, and on wish the stem, from the teacher's weights; the parameters that were set.

    A stem that inherits must be a convolution, a pooling, and blocks like layer1's.
    """
    pairs = [*zip(student.layer2, teacher.layer2, strict=True), *zip(student.layer3, teacher.layer3, strict=True)]
    if stem:
        _inherit_filters(student.stem[0].conv, teacher.stem[0].conv)
        pairs += zip(student.stem[2:], teacher.stem[2:], strict=False)
    for block, source in pairs:
        _inherit_block(block, source)
    modules = [block for block, _ in pairs] + ([student.stem[0]] if stem else [])
    return [parameter for module in modules for parameter in module.parameters()]


def _inherit_block(block: ResidualBlock, source: ResidualBlock) -> None:
    """Copy a block; where the new one is thinner inside, keep the strongest channels."""
    # A middle channel counts by what it can pass on: the gain into it times the gain out of it.
    gain = source.conv1.weight.flatten(1).norm(dim=1) * source.conv2.weight.transpose(0, 1).flatten(1).norm(dim=1)
    keep = gain.argsort(descending=True)[: block.conv1.out_channels].sort().values
    block.conv1.weight.data = source.conv1.weight[keep].clone()
    block.conv1.bias.data = source.conv1.bias[keep].clone()
    block.conv2.weight.data = source.conv2.weight[:, keep].clone()
    block.conv2.bias.data = source.conv2.bias.clone()
    if block.downsample is not None:
        block.downsample.load_state_dict(source.downsample.state_dict())


def _inherit_filters(first: nn.Conv2d, source: nn.Conv2d) -> None:
    """Copy the first convolution; a smaller one gets the middle of each filter."""
    cut = (source.kernel_size[0] - first.kernel_size[0]) // 2
    first.weight.data = source.weight[..., cut : 7 - cut, cut : 7 - cut].clone()
    first.bias.data = source.bias.clone()


def normalise(images: Tensor) -> Tensor:
    """Bytes (n, h, w, 3) RGB -> the networks' input (n, 3, h, w), channels last in memory."""
    mean, std = torch.tensor(MEAN) * 255, torch.tensor(STD) * 255
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)  # (n, h, w, c) -> (n, c, h, w)
