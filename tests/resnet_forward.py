"""A ResNet forward pass in plain NumPy, the oracle of every built graph.

It shares nothing with the package: it reads the weights by torchvision's key names, keeps batch norm a step of its own,
normalises the picture first, works in float64 channels-first, and finds stages, blocks and groups from the keys.
"""

import numpy as np


def forward(weights, picture, *, caffe=False, epsilon=1e-5):
    """Return layer name -> (h, w, c) for a uint8 RGB picture (height, width, 3) and a dict of torchvision's tensors."""
    x = picture.astype(np.float64)
    if caffe:
        x = x[:, :, ::-1] - [103.939, 116.779, 123.68]
    else:
        x = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = np.maximum(_conv_norm(weights, x.transpose(2, 0, 1), "conv1", "bn1", 2, epsilon), 0)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    x = _windows(x, 3, 2).max(axis=(3, 4))
    maps = {}
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in weights:
            x = _block(weights, x, f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1, caffe, epsilon)
            block += 1
        if block:
            maps[f"layer{stage}"] = x.transpose(1, 2, 0)
    return maps


def _block(weights, x, name, stride, caffe, epsilon):
    bottleneck = f"{name}.conv3.weight" in weights
    strides = ([stride, 1, 1] if caffe else [1, stride, 1]) if bottleneck else [stride, 1]
    y = x
    for i, s in enumerate(strides, start=1):
        y = _conv_norm(weights, y, f"{name}.conv{i}", f"{name}.bn{i}", s, epsilon)
        y = np.maximum(y, 0) if i < len(strides) else y
    if f"{name}.downsample.0.weight" in weights:
        x = _conv_norm(weights, x, f"{name}.downsample.0", f"{name}.downsample.1", stride, epsilon)
    return np.maximum(x + y, 0)


def _conv_norm(weights, x, conv, norm, stride, epsilon):
    kernel = weights[f"{conv}.weight"].astype(np.float64)
    out, per_group, size, _ = kernel.shape
    groups = x.shape[0] // per_group
    pad = size // 2
    windows = _windows(np.pad(x, ((0, 0), (pad, pad), (pad, pad))), size, stride)
    windows = windows.reshape(groups, per_group, *windows.shape[1:])
    kernel = kernel.reshape(groups, out // groups, -1)
    y = [
        k @ w.transpose(0, 3, 4, 1, 2).reshape(k.shape[1], -1) for k, w in zip(kernel, windows, strict=True)
    ]  # a group: (out, c*k*k) @ (c*k*k, h*w)
    y = np.concatenate(y).reshape(out, *windows.shape[2:4])
    gamma, beta, mean, variance = (
        weights[f"{norm}.{part}"].astype(np.float64).reshape(-1, 1, 1)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return gamma * (y - mean) / np.sqrt(variance + epsilon) + beta


def _windows(x, size, stride):
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]


PUBLISHED = {
    # name: (blocks a stage, bottleneck, groups, width a group, parameters as torchvision's documentation prints them)
    "resnet18": ((2, 2, 2, 2), False, 1, 64, 11_689_512),
    "resnet34": ((3, 4, 6, 3), False, 1, 64, 21_797_672),
    "resnet50": ((3, 4, 6, 3), True, 1, 64, 25_557_032),
    "resnet101": ((3, 4, 23, 3), True, 1, 64, 44_549_160),
    "resnet152": ((3, 8, 36, 3), True, 1, 64, 60_192_808),
    "wide_resnet50_2": ((3, 4, 6, 3), True, 1, 128, 68_883_240),
    "wide_resnet101_2": ((3, 4, 23, 3), True, 1, 128, 126_886_696),
    "resnext50_32x4d": ((3, 4, 6, 3), True, 32, 4, 25_028_904),
    "resnext101_32x8d": ((3, 4, 23, 3), True, 32, 8, 88_791_336),
    "resnext101_64x4d": ((3, 4, 23, 3), True, 64, 4, 83_455_272),
}


def random_weights(name, *, stages=3, seed=0, dtype=np.float16):
    """Return torchvision's tensors of a member of the family up to a stage, seeded, and too small to overflow."""
    depths, bottleneck, groups, base, _ = PUBLISHED[name]
    pool = np.random.default_rng(seed).standard_normal(1 << 20, np.float32)
    weights = {}

    def conv(key, norm, out, into, size):
        shape = (out, into, size, size)
        weights[f"{key}.weight"] = (np.resize(pool, shape) * (2 / (into * size**2)) ** 0.5).astype(dtype)
        for i, part in enumerate(("weight", "bias", "running_mean", "running_var")):
            values = np.roll(pool, -i * 1000 - out)[:out]
            values = 0.1 * values if part in ("bias", "running_mean") else 0.7 + 0.3 * np.tanh(values)
            weights[f"{norm}.{part}"] = values.astype(dtype)

    conv("conv1", "bn1", 64, 3, 7)
    into = 64
    for stage in range(1, stages + 1):
        planes = 64 * 2 ** (stage - 1)
        width, out = (planes * base // 64 * groups, 4 * planes) if bottleneck else (planes, planes)
        for block in range(depths[stage - 1]):
            name = f"layer{stage}.{block}"
            if bottleneck:
                conv(f"{name}.conv1", f"{name}.bn1", width, into, 1)
                conv(f"{name}.conv2", f"{name}.bn2", width, width // groups, 3)
                conv(f"{name}.conv3", f"{name}.bn3", out, width, 1)
            else:
                conv(f"{name}.conv1", f"{name}.bn1", width, into, 3)
                conv(f"{name}.conv2", f"{name}.bn2", out, width, 3)
            if block == 0 and (stage > 1 or into != out):
                conv(f"{name}.downsample.0", f"{name}.downsample.1", out, into, 1)
            into = out
    return weights
