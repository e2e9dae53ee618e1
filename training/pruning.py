"""Thin a teacher into a student by least squares, so that training starts from a network that almost agrees already.

Layer by layer: keep the middle channels that pass the most on, then refit each convolution so that what the *student*
feeds it comes out as what the teacher has there (He et al., "Channel pruning", ICCV 2017). Errors of earlier layers are
mended by later ones as far as a linear map can.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks import Network, ResidualBlock

ROWS = 8192  # positions per batch that enter a fit: neighbours say nearly the same


def thin(student: Network, teacher: Network, images: list[Tensor], seed: int) -> None:
    """Set the student's weights from the teacher's. Its stem must be a convolution, a pooling and blocks like layer1's.

    Where the student has fewer blocks in the stem, its last one stands for all that remain of the teacher's.
    """
    with torch.no_grad():
        kept = _thin_first(student.stem[0].conv, teacher, images, seed)
        inputs = [student.stem[:2](x) for x in images]
        wanted = [teacher.stem[:2](x) for x in images]
        blocks = [*student.stem[2:], *student.layer2, *student.layer3]
        sources = [*teacher.stem[2:], *teacher.layer2, *teacher.layer3]
        skipped = len(sources) - len(blocks)
        for block in blocks:
            source = sources.pop(0)
            goal, wanted_in = source, wanted
            if block is student.stem[-1]:
                for _ in range(skipped):  # the teacher's further blocks belong to this one
                    wanted = [goal(x) for x in wanted]
                    goal = sources.pop(0)
            sums = [_before_relu(goal, x) for x in wanted]
            _thin_block(block, source, kept, inputs, wanted_in, sums, seed)
            kept = torch.arange(block.conv2.out_channels)
            inputs = [block(x) for x in inputs]
            wanted = [torch.relu(x) for x in sums]


def _before_relu(block: ResidualBlock, x: Tensor) -> Tensor:
    return block.conv2(torch.relu(block.conv1(x))) + (x if block.downsample is None else block.downsample(x))


def _thin_first(first: nn.Conv2d, teacher: Network, images: list[Tensor], seed: int) -> Tensor:
    """The strongest filters, smaller, yet with nearly the responses of the larger; which filters were kept."""
    source, reader = teacher.stem[0].conv, teacher.stem[2].conv1
    gain = _strength([teacher.stem[:2](x) for x in images]) * (1 + reader.weight.transpose(0, 1).flatten(1).norm(dim=1))
    keep = gain.argsort(descending=True)[: first.out_channels].sort().values
    cut = (source.kernel_size[0] - first.kernel_size[0]) // 2
    first.weight.data = source.weight[keep, :, cut : 7 - cut, cut : 7 - cut].clone()
    first.bias.data = source.bias[keep].clone()
    _refit([first], lambda x: [x], images, [source(x)[:, keep] for x in images], seed)
    return keep


def _strength(maps: list[Tensor]) -> Tensor:
    """The root mean square of each channel."""
    return torch.stack([m.square().mean((0, 2, 3)) for m in maps]).mean(0).sqrt()


def _thin_block(
    block: ResidualBlock,
    source: ResidualBlock,
    kept: Tensor,
    inputs: list[Tensor],
    wanted: list[Tensor],
    sums: list[Tensor],
    seed: int,
) -> None:
    """Fit a block: `kept` of the channels of `wanted` reach it as `inputs`, and `sums` are due before the ReLU."""
    middles = [source.conv1(x) for x in wanted]
    # What a channel passes on: how strong it is, times the gain out of it.
    gain = _strength([torch.relu(m) for m in middles]) * source.conv2.weight.transpose(0, 1).flatten(1).norm(dim=1)
    keep = gain.argsort(descending=True)[: block.conv1.out_channels].sort().values
    block.conv1.weight.data = source.conv1.weight[keep][:, kept].clone()
    block.conv1.bias.data = source.conv1.bias[keep].clone()
    _refit([block.conv1], lambda x: [x], inputs, [m[:, keep] for m in middles], seed)
    block.conv2.weight.data = source.conv2.weight[:, keep].clone()
    block.conv2.bias.data = source.conv2.bias.clone()
    if block.downsample is None:
        targets = [total - x for total, x in zip(sums, inputs, strict=True)]
        _refit([block.conv2], lambda x: [torch.relu(block.conv1(x))], inputs, targets, seed)
        return
    if (
        source.downsample is None
    ):  # narrower input: the identity becomes a 1x1 convolution that puts each channel in its place
        block.downsample.weight.data = torch.eye(block.conv2.out_channels)[:, kept, None, None].contiguous()
        block.downsample.bias.data.zero_()
    else:
        block.downsample.load_state_dict(source.downsample.state_dict())
    _refit([block.conv2, block.downsample], lambda x: [torch.relu(block.conv1(x)), x], inputs, sums, seed)


def _refit(
    convolutions: list[nn.Conv2d],
    feed: Callable[[Tensor], list[Tensor]],
    inputs: list[Tensor],
    targets: list[Tensor],
    seed: int,
) -> None:
    """Ridge regression: move the weights so that the convolutions' outputs, added, come near the targets."""
    generator = torch.Generator().manual_seed(seed)
    gram, cross = 0.0, 0.0
    weights = torch.cat(
        [conv.weight.flatten(1) for conv in convolutions] + [sum(c.bias for c in convolutions)[:, None]], 1
    )
    for x, target in zip(inputs, targets, strict=True):
        goal = target.transpose(0, 1).flatten(1).T  # (n, c, h, w) -> (n*h*w, c)
        rows = torch.randperm(len(goal), generator=generator)[:ROWS]
        columns = [_columns(conv, f, rows) for conv, f in zip(convolutions, feed(x), strict=True)]
        design = torch.cat([*columns, torch.ones(len(rows), 1)], 1)
        gram = gram + design.T @ design
        cross = cross + design.T @ (goal[rows] - design @ weights.T)
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram))
    weights = weights + torch.linalg.solve(gram + ridge, cross).T
    start = 0
    for conv in convolutions:
        stop = start + conv.weight[0].numel()
        conv.weight.data = weights[:, start:stop].reshape(conv.weight.shape).contiguous()
        conv.bias.data = torch.zeros_like(conv.bias)
        start = stop
    convolutions[0].bias.data = weights[:, -1].contiguous()


def _columns(conv: nn.Conv2d, x: Tensor, rows: Tensor) -> Tensor:
    """The input patches of a convolution at the chosen output positions, (rows, c_in*k*k)."""
    patches = F.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)  # (n, c*k*k, h*w)
    return patches.transpose(1, 2).flatten(0, 1)[rows]
