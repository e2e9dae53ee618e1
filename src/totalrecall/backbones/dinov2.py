"""Build a DINOv2 vision transformer as an ONNX graph from its weights, without torch.

DINOv2 (Oquab et al. 2023; with registers: Darcet et al. 2024) on patches of 14 pixels. Layer N is the output of block
N, counted from 0 as in the keys of the weights: the patch tokens alone, after the network's final norm, each divided by
the root of its mean square. So the Euclidean distance of two tokens grows with their cosine distance, which AnomalyDINO
(Damm et al. 2025) measures, and blocks that are joined weigh the same.

Prefix tokens (class, registers) and patch tokens go through the network side by side, not one behind the other: then
nothing needs to be cut apart in the end, and the graph has no operator that takes indices.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from totalrecall.backbones.graph import Graph, check_onnx
from totalrecall.backbones.position import GRID, POSITION
from totalrecall.backbones.spec import Advice, Backbone, Layer
from totalrecall.backbones.weights import Array, Weights, read_weights
from totalrecall.errors import BackboneError, SettingError

__all__ = ["DINOV2", "Transformer", "build_dinov2"]

_PATCH, _NATIVE = 14, 37  # pixels; patches a side of the pictures that the position embeddings were learnt at
_EPSILON = 1e-6  # of layer norm
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_INPUT = "RGB, x/255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225; size a multiple of 14"


@dataclass(frozen=True)
class Transformer:
    """The width of a token, blocks, heads of the attention, register tokens, and how it is best used."""

    width: int
    depth: int
    heads: int
    registers: int
    layers: tuple[int, ...]
    size: int

    @property
    def advice(self) -> Advice:
        """How it is best used."""
        return Advice(self.layers, self.size, patch_size=1, multiple=_PATCH)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every key that is read, by torch hub's names, with its shape; position embeddings aside."""
        c = self.width
        shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, c)}
        if self.registers:
            shapes["register_tokens"] = (1, self.registers, c)
        shapes |= {"patch_embed.proj.weight": (c, 3, _PATCH, _PATCH), "patch_embed.proj.bias": (c,)}
        block: dict[str, tuple[int, ...]] = {}
        matrices = {"attn.qkv": (3 * c, c), "attn.proj": (c, c), "mlp.fc1": (4 * c, c), "mlp.fc2": (c, 4 * c)}
        for part, (rows, columns) in matrices.items():
            block |= {f"{part}.weight": (rows, columns), f"{part}.bias": (rows,)}
        for norm in ("norm1", "norm2"):
            block |= {f"{norm}.weight": (c,), f"{norm}.bias": (c,)}
        block |= {"ls1.gamma": (c,), "ls2.gamma": (c,)}
        for number in range(self.depth):
            shapes |= {f"blocks.{number}.{key}": shape for key, shape in block.items()}
        return shapes | {"norm.weight": (c,), "norm.bias": (c,)}


# AnomalyDINO takes the last block at 448 pixels; ProCon takes blocks 4, 5, 7 and 10 of the base model at 392
DINOV2 = {
    "dinov2_vits14": Transformer(384, 12, 6, 0, (11,), 448),
    "dinov2_vitb14": Transformer(768, 12, 12, 0, (4, 5, 7, 10), 392),
    "dinov2_vitl14": Transformer(1024, 24, 16, 0, (23,), 448),
    "dinov2_vits14_reg": Transformer(384, 12, 6, 4, (11,), 448),
    "dinov2_vitb14_reg": Transformer(768, 12, 12, 4, (4, 5, 7, 10), 392),
    "dinov2_vitl14_reg": Transformer(1024, 24, 16, 4, (23,), 448),
}


def build_dinov2(
    architecture: str,
    weights: str | Path,
    *,
    name: str | None = None,
    source: str = "",
    licence: str = "",
) -> Backbone:
    """Return the backbone of a DINOv2 vision transformer.

    Args:
        architecture: one of `DINOV2`.
        weights: safetensors file or torch checkpoint with the key names of torch hub, timm or Hugging Face.
        name: what the backbone is called; the architecture if not given.
        source: where the weights come from; the file's name if not given.
        licence: the licence of the weights.

    Raises:
        SettingError: the architecture does not exist.
        MissingExtraError: the package onnx is not installed.
        BackboneError: the weights are missing, damaged, or of another architecture.
    """
    if architecture not in DINOV2:
        raise SettingError(f"No architecture is called {architecture!r}. Choose one of {', '.join(DINOV2)}.")
    check_onnx()
    plan = DINOV2[architecture]
    given = read_weights(weights)
    read = given.renamed(_hub_name)
    network = _Network(read, plan)
    _check(read, architecture, plan)
    network.embed()
    for number in range(plan.depth):
        network.block(number)
        network.put_out(number)
    facts = {
        "name": name or architecture,
        "source": source or f"weights file {read.path.name}",
        "licence": licence or "not stated",
        "preprocessing": _INPUT,
        "architecture": f"{architecture}, patch tokens after the final norm, of length 1 a channel",
        "advice": plan.advice.to_json(),
    }
    return network.graph.backbone("dinov2", facts, f"The backbone built from {read.path}")


_OF_HUGGING_FACE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_PARTS_OF_HUGGING_FACE = {
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}


def _hub_name(key: str) -> str:
    """Return a key by torch hub's names; of Hugging Face query, key and value stay apart."""
    if key == "reg_token":  # timm's
        return "register_tokens"
    key = key.removeprefix("dinov2.").removeprefix("dinov2_with_registers.")
    match = re.fullmatch(r"encoder\.layer\.(\d{1,3})\.(.+)\.(\w+)", key)
    if match is None:
        return _OF_HUGGING_FACE.get(key, key)
    part = _PARTS_OF_HUGGING_FACE.get(match[2], match[2])
    return f"blocks.{match[1]}.{part}.{match[3].replace('lambda1', 'gamma')}"


def _check(weights: Weights, architecture: str, plan: Transformer) -> None:
    """Refuse weights of another architecture: each key and shape must be known."""
    swiglu = next((key for key in weights.shapes if re.search(r"\.mlp\.(w12|weights_in)\.", key)), None)
    if swiglu is not None:
        raise BackboneError(
            f"Weights {weights.path} have the key {swiglu}: they are of DINOv2 giant, whose SwiGLU cannot be built. "
            f"Choose one of {', '.join(DINOV2)}."
        )
    others = [other for other, one in DINOV2.items() if _looks_like(weights, one)]
    if others and architecture not in others:
        raise BackboneError(
            f"Weights {weights.path} are not of {architecture}: they look like {' or '.join(others)}. "
            f"Name that architecture, or take weights of {architecture}."
        )
    expected = plan.shapes()
    apart = {key: parts for key in expected if (parts := _apart(key)) and parts[0] in weights.shapes}
    wanted: dict[str, tuple[int, ...]] = {}
    for key, shape in expected.items():
        for part in apart.get(key, (key,)):
            wanted[part] = (shape[0] // 3, *shape[1:]) if key in apart else shape
    for key, shape in wanted.items():
        weights.require(key, shape)
    unused = ("pos_embed", "mask_token", "head.", "classifier.")
    for key in weights.shapes:
        if key not in wanted and not key.startswith(unused):
            raise BackboneError(
                f"Weights {weights.path} have the key {key}, which {architecture} has not. "
                "They are of a variant that cannot be built yet."
            )


def _looks_like(weights: Weights, plan: Transformer) -> bool:
    """Return whether width, depth and registers are those of a member."""
    blocks = {int(match[1]) for key in weights.shapes if (match := re.match(r"blocks\.(\d{1,3})\.", key))}
    registers = weights.shapes.get("register_tokens", (1, 0, 0))[1]
    return (weights.shapes.get("norm.weight"), len(blocks), registers) == ((plan.width,), plan.depth, plan.registers)


def _apart(key: str) -> tuple[str, ...]:
    """Return the keys of query, key and value where they are kept apart; nothing for another key."""
    return tuple(key.replace(".qkv.", f".{part}.") for part in "qkv") if ".qkv." in key else ()


class _Network:
    """The network in the making. `_prefix` and `_patches` name the tokens so far, each (n, tokens, width)."""

    def __init__(self, weights: Weights, plan: Transformer) -> None:
        self.graph = Graph()
        self._weights = weights
        self._plan = plan
        self._prefix = self._patches = ""
        self._shapes = plan.shapes()

    def embed(self) -> None:
        graph, c = self.graph, self._plan.width
        position, of_class = self._position()
        kernel = self._take("patch_embed.proj.weight") / (255 * _DEVIATION).reshape(1, 3, 1, 1)
        graph.constant("mean", (255 * _MEAN).reshape(1, 3, 1, 1))
        x = graph.node("Sub", [graph.pixels(), "mean"], "centred")
        graph.constant("patch_kernel", kernel)
        graph.constant("patch_bias", self._take("patch_embed.proj.bias"))
        size = {"kernel_shape": [_PATCH] * 2, "strides": [_PATCH] * 2}
        x = graph.node("Conv", [x, "patch_kernel", "patch_bias"], "patch_embedding", size)
        graph.constant("tokens_shape", [0, c, -1], np.int64)
        x = graph.node("Reshape", [x, "tokens_shape"], "patch_columns")  # (n, c, h, w) -> (n, c, h*w)
        x = graph.node("Transpose", [x], "patch_tokens", {"perm": [0, 2, 1]})
        name = POSITION[bool(self._plan.registers)]
        graph.constant(name, position)
        graph.constant("position_shape", [1, -1, c], np.int64)
        graph.node("Reshape", [name, "position_shape"], "position")  # (1, g, g, c) -> (1, g*g, c)
        self._patches = graph.node("Add", [x, "position"], "placed")
        prefix = [self._take("cls_token") + of_class]
        if self._plan.registers:
            prefix.append(self._take("register_tokens"))
        graph.constant("prefix", np.concatenate(prefix, axis=1))
        # as many copies of the prefix as there are pictures: nothing times a mean of each picture, and the prefix
        graph.constant("nothing", 0)
        mean = graph.node("ReduceMean", [self._patches], "mean_token", {"axes": [1], "keepdims": 1})
        self._prefix = graph.node("Add", [graph.node("Mul", [mean, "nothing"], "blank"), "prefix"], "prefixes")
        graph.constant(GRID, [0, _NATIVE, _NATIVE, c], np.int64)
        d = c // self._plan.heads
        graph.constant("split", [0, -1, self._plan.heads, d], np.int64)
        graph.constant("joined", [0, -1, c], np.int64)
        for name, value in (("root_half", math.sqrt(0.5)), ("one", 1), ("half", 0.5), ("tiny", 1e-12)):
            graph.constant(name, value)
        graph.constant("norm_weight", self._take("norm.weight"))
        graph.constant("norm_bias", self._take("norm.bias"))

    def block(self, number: int) -> None:
        graph, name = self.graph, f"block{number}"

        def take(part: str) -> Array:
            return self._take(f"blocks.{number}.{part}")

        for norm in ("norm1", "norm2"):
            graph.constant(f"{name}_{norm}_weight", take(f"{norm}.weight"))
            graph.constant(f"{name}_{norm}_bias", take(f"{norm}.bias"))
        scale = 1 / math.sqrt(self._plan.width // self._plan.heads)
        factors = {"q": scale, "k": 1.0, "v": 1.0}
        for part, weight, bias in zip("qkv", self._thirds(number, "weight"), self._thirds(number, "bias"), strict=True):
            self._matrix(f"{name}_{part}", factors[part] * weight, factors[part] * bias)
        # the scales of the two branches move into the matrices before them
        for key, gamma in (("attn.proj", take("ls1.gamma")), ("mlp.fc2", take("ls2.gamma"))):
            self._matrix(f"{name}_{key}", gamma[:, None] * take(f"{key}.weight"), gamma * take(f"{key}.bias"))
        self._matrix(f"{name}_mlp.fc1", take("mlp.fc1.weight"), take("mlp.fc1.bias"))
        sides = {"prefix": self._prefix, "patches": self._patches}
        normed = {side: self._norm(x, f"{name}_norm1", f"{name}_{side}_normed1") for side, x in sides.items()}
        keys, values = (self._both(normed, name, part) for part in "kv")
        done = {}
        for side, x in sides.items():
            prefix = f"{name}_{side}"
            query = self._heads(self._linear(normed[side], f"{name}_q", f"{prefix}_q"), [0, 2, 1, 3])
            scores = graph.node("MatMul", [query, keys], f"{prefix}_scores")  # (n, heads, t, d) @ (n, heads, d, all)
            shares = graph.node("Softmax", [scores], f"{prefix}_shares", {"axis": -1})
            mixed = graph.node("MatMul", [shares, values], f"{prefix}_mixed")
            mixed = graph.node("Transpose", [mixed], f"{prefix}_turned", {"perm": [0, 2, 1, 3]})
            mixed = graph.node("Reshape", [mixed, "joined"], f"{prefix}_joined")  # (n, t, heads, d) -> (n, t, c)
            mixed = self._linear(mixed, f"{name}_attn.proj", f"{prefix}_attention")
            x = graph.node("Add", [x, mixed], f"{prefix}_after_attention")
            y = self._norm(x, f"{name}_norm2", f"{prefix}_normed2")
            y = self._gelu(self._linear(y, f"{name}_mlp.fc1", f"{prefix}_wide"))
            y = self._linear(y, f"{name}_mlp.fc2", f"{prefix}_narrow")
            done[side] = graph.node("Add", [x, y], f"{prefix}_out")
        self._prefix, self._patches = done["prefix"], done["patches"]

    def put_out(self, number: int) -> None:
        graph, name = self.graph, f"layer{number}"
        x = self._norm(self._patches, "norm", f"{name}_normed")
        square = graph.node("Mul", [x, x], f"{name}_square")
        mean = graph.node("ReduceMean", [square], f"{name}_mean_square", {"axes": [-1], "keepdims": 1})
        length = graph.node("Sqrt", [graph.node("Add", [mean, "tiny"], f"{name}_over_0")], f"{name}_length")
        x = graph.node("Div", [x, length], f"{name}_unit")
        graph.node("Reshape", [x, GRID], name)  # (n, h*w, c) -> (n, h, w, c)
        graph.output(Layer(name, self._plan.width, _PATCH))

    def _take(self, key: str) -> Array:
        return self._weights.take(key, self._shapes[key])

    def _thirds(self, number: int, part: str) -> list[Array]:
        """Return weights or biases of query, key and value."""
        key = f"blocks.{number}.attn.qkv.{part}"
        if key in self._weights.shapes:
            return list(np.split(self._take(key), 3))
        shape = self._shapes[key]
        return [self._weights.take(one, (shape[0] // 3, *shape[1:])) for one in _apart(key)]

    def _position(self) -> tuple[Array, Array]:
        """Return the position embeddings of the patches (1, g, g, c), and that of the class token (1, 1, c)."""
        count, c = _NATIVE**2, self._plan.width
        if self._weights.shapes.get("pos_embed") == (1, count, c):  # timm adds that of the class token to the token
            return self._weights.take("pos_embed", (1, count, c)).reshape(1, _NATIVE, _NATIVE, c), np.zeros((1, 1, c))
        whole = self._weights.take("pos_embed", (1, 1 + count, c))
        return whole[:, 1:].reshape(1, _NATIVE, _NATIVE, c), whole[:, :1]

    def _matrix(self, name: str, weight: Array, bias: Array) -> None:
        self.graph.weights(f"{name}_weight", weight.T)  # (out, in) -> (in, out)
        self.graph.constant(f"{name}_bias", bias)

    def _linear(self, x: str, weights: str, output: str) -> str:
        product = self.graph.node("MatMul", [x, f"{weights}_weight"], f"{output}_product")
        return self.graph.node("Add", [product, f"{weights}_bias"], output)

    def _norm(self, x: str, weights: str, output: str) -> str:
        attributes = {"axis": -1, "epsilon": _EPSILON}
        return self.graph.node("LayerNormalization", [x, f"{weights}_weight", f"{weights}_bias"], output, attributes)

    def _heads(self, x: str, order: list[int]) -> str:
        """Return tokens (n, t, c) divided among the heads, their axes n, t, heads, d in that order."""
        split = self.graph.node("Reshape", [x, "split"], f"{x}_split")  # (n, t, c) -> (n, t, heads, d)
        return self.graph.node("Transpose", [split], f"{x}_heads", {"perm": order})

    def _both(self, normed: dict[str, str], name: str, part: str) -> str:
        """Return keys (n, heads, d, all) or values (n, heads, all, d) of prefix and patches together."""
        sides = [self._linear(x, f"{name}_{part}", f"{name}_{side}_{part}") for side, x in normed.items()]
        together = self.graph.node("Concat", sides, f"{name}_{part}_all", {"axis": 1})
        return self._heads(together, [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3])

    def _gelu(self, x: str) -> str:
        """Return x/2 (1 + erf(x / sqrt 2)): ONNX has it as one operator since version 20 alone."""
        node = self.graph.node
        error = node("Erf", [node("Mul", [x, "root_half"], f"{x}_scaled")], f"{x}_erf")
        share = node("Mul", [x, node("Add", [error, "one"], f"{x}_above")], f"{x}_share")
        return node("Mul", [share, "half"], f"{x}_gelu")
