"""An EfficientNet-Lite forward pass in plain NumPy, the oracle of every built graph.

It shares nothing with the package: it reads the weights by the keys of `efficientnet_lite_pytorch`, keeps batch norm a
step of its own, works in float64 channels-first, finds kernels and channels from the shapes, and is told the strides.
"""

import numpy as np

# first block of each stage with stride 2, and the number of blocks, as the package's own model prints them
STRIDED = {
    "efficientnet_lite0": ({1, 3, 5, 11}, 16),
    "efficientnet_lite1": ({1, 4, 7, 15}, 21),
    "efficientnet_lite2": ({1, 4, 7, 15}, 21),
    "efficientnet_lite3": ({1, 4, 7, 17}, 24),
    "efficientnet_lite4": ({1, 5, 9, 21}, 30),
}
PARAMETERS = {  # millions, of the table in tensorflow/tpu's README
    "efficientnet_lite0": 4.7,
    "efficientnet_lite1": 5.4,
    "efficientnet_lite2": 6.1,
    "efficientnet_lite3": 8.2,
    "efficientnet_lite4": 13.0,
}


def forward(weights, picture, strided):
    """Return block number -> (h, w, c) for a uint8 RGB picture (height, width, 3)."""
    x = ((picture.astype(np.float64) - 127) / 128).transpose(2, 0, 1)
    x = _relu6(_norm(weights, _conv(x, weights["_conv_stem.weight"], 2), "_bn0"))
    maps = {}
    number = 0
    while f"_blocks.{number}._project_conv.weight" in weights:
        name, before = f"_blocks.{number}", x
        if f"{name}._expand_conv.weight" in weights:
            x = _relu6(_norm(weights, _conv(x, weights[f"{name}._expand_conv.weight"], 1), f"{name}._bn0"))
        stride = 2 if number in strided else 1
        x = _relu6(_norm(weights, _depthwise(x, weights[f"{name}._depthwise_conv.weight"], stride), f"{name}._bn1"))
        x = _norm(weights, _conv(x, weights[f"{name}._project_conv.weight"], 1), f"{name}._bn2")
        if x.shape == before.shape:
            x = x + before
        maps[number] = x.transpose(1, 2, 0)
        number += 1
    return maps


def random_weights(shapes, seed=0):
    """Return tensors of these shapes, seeded, scaled so that the values keep their size from block to block."""
    rng = np.random.default_rng(seed)
    weights = {}
    for key, shape in shapes.items():
        values = rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        weights[key] = values.astype(np.float32)
        out = shape[0]
        block, _, kind = key.removesuffix(".weight").rpartition(".")
        norm = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2", "_conv_stem": "_bn0"}[kind]
        name = f"{block}.{norm}" if block else norm
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, out).astype(np.float32)
        weights[f"{name}.running_var"] = rng.uniform(0.5, 1.5, out).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, out).astype(np.float32)
        weights[f"{name}.running_mean"] = rng.normal(0, 0.1, out).astype(np.float32)
    return weights


def _relu6(x):
    return np.clip(x, 0, 6)


def _norm(weights, x, name):
    gamma, beta, mean, variance = (
        weights[f"{name}.{part}"].astype(np.float64).reshape(-1, 1, 1)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def _windows(x, size, stride):
    """Cut x (c, h, w) into windows, padded like TensorFlow's SAME: ceil(side / stride) of them along each side."""
    pads = [(0, 0)]
    for side in x.shape[1:]:
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        pads.append((total // 2, total - total // 2))
    return np.lib.stride_tricks.sliding_window_view(np.pad(x, pads), (size, size), axis=(1, 2))[:, ::stride, ::stride]


def _conv(x, kernel, stride):
    return np.einsum("chwij,ocij->ohw", _windows(x, kernel.shape[-1], stride), kernel.astype(np.float64), optimize=True)


def _depthwise(x, kernel, stride):
    return np.einsum("chwij,cij->chw", _windows(x, kernel.shape[-1], stride), kernel[:, 0].astype(np.float64))
