"""The operators that a backbone's graph may hold (`backbones.graph_check.OPERATORS`), each as calls of torch.

A function takes the tensors that a node takes, None for one that is left out, and the node's attributes. Shapes and
axes are int64 tensors on the processor. What is float16 in a graph is computed in float32, as OpenVINO does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch.nn import functional

from totalrecall.backbones.graph_reader import Attribute

__all__ = ["CALLS", "HEAVY", "Call"]

Tensor: TypeAlias = Any
Attributes: TypeAlias = Mapping[str, Attribute]
Call: TypeAlias = Callable[[Sequence[Tensor], Attributes], Tensor]

HEAVY = ("Conv", "MatMul", "Gemm")  # nearly all of the work: these are computed in bfloat16 where that was asked for

_CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
_MAXIMA = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}
_AVERAGES = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}


def _ints(said: Attributes, name: str, default: Sequence[int]) -> list[int]:
    value = said.get(name, tuple(default))
    assert isinstance(value, tuple)
    return list(value)


def _int(said: Attributes, name: str, default: int) -> int:
    value = said.get(name, default)
    assert isinstance(value, int)
    return value


def _float(said: Attributes, name: str, default: float) -> float:
    value = said.get(name, default)
    assert isinstance(value, (int, float))
    return float(value)


def _wide(x: Tensor) -> Tensor:
    """Return bfloat16 as float32, for sums and ratios, which need more digits."""
    return x.float() if x.dtype == torch.bfloat16 else x


# ---------------------------------------------------------------------- windows


def _pads(x: Tensor, kernel: Sequence[int], said: Attributes) -> list[tuple[int, int]]:
    """Return what is added before and behind each axis that a window moves along."""
    axes = len(kernel)
    way = said.get("auto_pad", "NOTSET")
    if way in ("SAME_UPPER", "SAME_LOWER"):
        strides, dilations = _ints(said, "strides", [1] * axes), _ints(said, "dilations", [1] * axes)
        pads = []
        for side, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max((-(-side // stride) - 1) * stride + (k - 1) * dilation + 1 - side, 0)
            less, more = total // 2, total - total // 2
            pads.append((less, more) if way == "SAME_UPPER" else (more, less))
        return pads
    given = _ints(said, "pads", [0] * 2 * axes) if way == "NOTSET" else [0] * 2 * axes
    return list(zip(given[:axes], given[axes:], strict=True))


def _padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float) -> Tensor:
    return functional.pad(x, [side for pair in reversed(pads) for side in pair], value=value)


def _convolution(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    x, kernel, bias = (*inputs, None)[:3]
    axes = x.ndim - 2
    pads = _pads(x, kernel.shape[2:], said)
    padding = [before for before, _ in pads]
    if any(before != behind for before, behind in pads):
        x, padding = _padded(x, pads, 0.0), [0] * axes
    strides, dilations = _ints(said, "strides", [1] * axes), _ints(said, "dilations", [1] * axes)
    return _CONVOLUTIONS[x.ndim](x, kernel, bias, strides, padding, dilations, _int(said, "group", 1))


def _max_pool(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    (x,) = inputs
    kernel = _ints(said, "kernel_shape", ())
    pads = _pads(x, kernel, said)
    padding = [before for before, _ in pads]
    if not _native(pads, kernel):
        x, padding = _padded(x, pads, -math.inf), [0] * len(kernel)
    strides = _ints(said, "strides", [1] * len(kernel))
    return _MAXIMA[x.ndim](x, kernel, strides, padding, 1, bool(_int(said, "ceil_mode", 0)))


def _average_pool(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    (x,) = inputs
    kernel = _ints(said, "kernel_shape", ())
    pads, strides = _pads(x, kernel, said), _ints(said, "strides", [1] * len(kernel))
    ceil, padding_counts = bool(_int(said, "ceil_mode", 0)), bool(_int(said, "count_include_pad", 0))
    pool = _AVERAGES[x.ndim]
    if _native(pads, kernel):
        return pool(x, kernel, strides, [before for before, _ in pads], ceil, padding_counts)
    means = pool(_padded(x, pads, 0.0), kernel, strides, 0, ceil)
    if padding_counts:
        return means
    return means / pool(_padded(torch.ones_like(x), pads, 0.0), kernel, strides, 0, ceil)  # the share that is picture


def _native(pads: Sequence[tuple[int, int]], kernel: Sequence[int]) -> bool:
    """Tell whether torch's pooling can pad like that: alike on both sides, by at most half a window."""
    return all(before == behind <= k // 2 for (before, behind), k in zip(pads, kernel, strict=True))


# ---------------------------------------------------------------------- sums


def _axes(inputs: Sequence[Tensor], said: Attributes) -> list[int]:
    """Return the axes that an attribute or the second input names; nothing where neither does."""
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(axis) for axis in inputs[1].reshape(-1).tolist()]
    return _ints(said, "axes", ())


def _mean(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    x = _wide(inputs[0])
    return x.mean(_axes(inputs, said) or list(range(x.ndim)), keepdim=bool(_int(said, "keepdims", 1)))


def _layer_norm(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    x, scale, bias = (*inputs, None)[:3]
    x = _wide(x)
    shape = x.shape[_int(said, "axis", -1) :]
    scale, bias = scale.expand(shape), None if bias is None else bias.expand(shape)
    return functional.layer_norm(x, list(shape), scale, bias, _float(said, "epsilon", 1e-5))


def _batch_norm(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    x, scale, bias, mean, variance = inputs
    return functional.batch_norm(_wide(x), mean, variance, scale, bias, eps=_float(said, "epsilon", 1e-5))


def _softmax(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    x = _wide(inputs[0])
    if _int(said, "opset", 13) >= 13:
        return x.softmax(_int(said, "axis", -1))
    axis = _int(said, "axis", 1) % x.ndim  # up to version 12 of the operators: over all axes from this one on
    return x.flatten(axis).softmax(-1).reshape(x.shape) if axis < x.ndim else x


def _gemm(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    left, right, added = (*inputs, None)[:3]
    left = left.mT if _int(said, "transA", 0) else left
    right = right.mT if _int(said, "transB", 0) else right
    product = _float(said, "alpha", 1.0) * (left @ right)
    return product if added is None else product + _float(said, "beta", 1.0) * added


# ---------------------------------------------------------------------- shapes


def _reshape(inputs: Sequence[Tensor], _: Attributes) -> Tensor:
    x, shape = inputs
    return x.reshape([x.shape[at] if side == 0 else side for at, side in enumerate(shape.tolist())])


def _flatten(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    (x,) = inputs
    axis = _int(said, "axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    x, axes = inputs[0], _axes(inputs, said)
    return x.squeeze(tuple(axes)) if axes else x.squeeze()


def _unsqueeze(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    x, axes = inputs[0], _axes(inputs, said)
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    (x,) = inputs
    return x.permute(_ints(said, "perm", range(x.ndim)[::-1]))


def _clip(inputs: Sequence[Tensor], _: Attributes) -> Tensor:
    x, least, most = (*inputs, None, None)[:3]
    return x if least is None and most is None else x.clamp(least, most)


def _elu(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    return functional.elu(inputs[0], _float(said, "alpha", 1.0))


# ---------------------------------------------------------------------- 8 bits


def _along(x: Tensor, values: Tensor, said: Attributes) -> Tensor:
    """Return a scale or zero point, one number or one for each place along an axis, as x can be computed with."""
    values = values.to(x.device)
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.ndim
    shape[_int(said, "axis", 1)] = -1
    return values.reshape(shape)


def _quantize(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    x, scale, zero = inputs
    limits = torch.iinfo(zero.dtype)
    whole = (_wide(x) / _along(x, scale, said)).round() + _along(x, zero, said)
    return whole.clamp(limits.min, limits.max)  # kept as float32, which has room for all of them


def _dequantize(inputs: Sequence[Tensor], said: Attributes) -> Tensor:
    x, scale, zero = inputs
    return (x.float() - _along(x, zero, said).float()) * _along(x, scale, said)


CALLS: dict[str, Call] = {
    "Cast": lambda x, _: x[0].float(),
    "Conv": _convolution,
    "Relu": lambda x, _: x[0].relu(),
    "Add": lambda x, _: x[0] + x[1],
    "Sub": lambda x, _: x[0] - x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "MaxPool": _max_pool,
    "Transpose": _transpose,
    "Clip": _clip,
    "Div": lambda x, _: _wide(x[0]) / x[1],
    "Sqrt": lambda x, _: _wide(x[0]).sqrt(),
    "Erf": lambda x, _: x[0].erf(),
    "Softmax": _softmax,
    "MatMul": lambda x, _: x[0] @ x[1],
    "ReduceMean": _mean,
    "LayerNormalization": _layer_norm,
    "Concat": lambda x, said: torch.cat(list(x), _int(said, "axis", 0)),
    "Reshape": _reshape,
    "Pow": lambda x, _: _wide(x[0]) ** x[1],
    "Exp": lambda x, _: _wide(x[0]).exp(),
    "Tanh": lambda x, _: x[0].tanh(),
    "Sigmoid": lambda x, _: x[0].sigmoid(),
    "HardSigmoid": lambda x, said: (_float(said, "alpha", 0.2) * x[0] + _float(said, "beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda x, _: functional.hardswish(x[0]),
    "LeakyRelu": lambda x, said: functional.leaky_relu(x[0], _float(said, "alpha", 0.01)),
    "PRelu": lambda x, _: torch.where(x[0] < 0, x[0] * x[1], x[0]),
    "Elu": _elu,
    "Gelu": lambda x, said: functional.gelu(x[0], approximate=str(said.get("approximate", "none"))),
    "Identity": lambda x, _: x[0],
    "Gemm": _gemm,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda x, _: _wide(x[0]).mean(list(range(2, x[0].ndim)), keepdim=True),
    "BatchNormalization": _batch_norm,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
