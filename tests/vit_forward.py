"""A DINOv2 forward pass in plain NumPy, the oracle of every built graph; keys as of torch hub.

It shares nothing with the package: one sequence of tokens, layer scale and position as steps of their own, float64.
"""

import math

import numpy as np

_erf = np.vectorize(math.erf)


def forward(weights, picture, heads, position):
    """Return block number -> (rows, columns, c) for a uint8 RGB picture; `position` is (1 + rows*columns, c)."""
    w = {key: value.astype(np.float64) for key, value in weights.items()}
    x = (picture / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    rows, columns = picture.shape[0] // 14, picture.shape[1] // 14
    patches = x.reshape(rows, 14, columns, 14, 3).transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)
    kernel = w["patch_embed.proj.weight"]
    tokens = patches @ kernel.reshape(len(kernel), -1).T + w["patch_embed.proj.bias"]
    x = np.concatenate([w["cls_token"][0], tokens]) + position
    registers = w.get("register_tokens", np.zeros((1, 0, len(kernel))))[0]
    x = np.concatenate([x[:1], registers, x[1:]])
    maps, number = {}, 0
    while f"blocks.{number}.norm1.weight" in w:
        x = _block(w, x, f"blocks.{number}", heads)
        y = _norm(x, w, "norm")[1 + len(registers) :]
        y = y / np.sqrt((y**2).mean(axis=1, keepdims=True))
        maps[number] = y.reshape(rows, columns, -1)
        number += 1
    return maps


def _block(w, x, name, heads):
    q, k, v = np.split(_linear(_norm(x, w, f"{name}.norm1"), w, f"{name}.attn.qkv"), 3, axis=1)
    d = q.shape[1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * d, head * d + d)
        scores = q[:, part] @ k[:, part].T / math.sqrt(d)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed.append(shares / shares.sum(axis=1, keepdims=True) @ v[:, part])
    x = x + w[f"{name}.ls1.gamma"] * _linear(np.concatenate(mixed, axis=1), w, f"{name}.attn.proj")
    y = _linear(_norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1")
    y = y * 0.5 * (1 + _erf(y / math.sqrt(2)))
    return x + w[f"{name}.ls2.gamma"] * _linear(y, w, f"{name}.mlp.fc2")


def _linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x, w, name):
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def random_weights(shapes, *, seed=0):
    """Return tensors of these shapes, seeded, scaled so that the values keep their size from block to block."""
    rng = np.random.default_rng(seed)
    weights = {}
    for key, shape in {**shapes, "pos_embed": (1, 1370, shapes["norm.bias"][0])}.items():
        values = rng.standard_normal(shape)
        if "norm" in key and key.endswith("weight"):
            values = 1 + 0.1 * values
        elif key.endswith("gamma"):
            values = 0.5 + 0.1 * values
        elif key.endswith(("proj.weight", "qkv.weight", "fc1.weight", "fc2.weight")):
            values = values / math.sqrt(np.prod(shape[1:]))
        else:
            values = 0.1 * values
        weights[key] = values.astype(np.float32)
    return weights
