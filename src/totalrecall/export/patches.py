"""Prepared picture -> patch vectors -> distances inside a graph: what `features` and `search` do with NumPy.

The averages and interpolations between layers are linear, so small constant matrices do both, the same ones as there.
The distances come from one product with the bank in float32, of vectors less the bank's mean: without that, most of the
digits of two large and nearly equal numbers would cancel. The distance to the vector that this finds is then computed
again from the difference itself, which is exact near zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from totalrecall.export.graph import GraphWriter, Value
from totalrecall.features.patches import (
    CODE_DIMENSIONS,
    bilinear_weights,
    bins_of_code,
    locally_aware,
    repeated_cells,
)

__all__ = [
    "BANK_TYPES",
    "Bank",
    "Nearest",
    "mahalanobis",
    "nearest",
    "padim_vectors",
    "patch_vectors",
    "tiles",
    "untiled",
]

BANK_TYPES = ("float32", "float16", "int8")
_PRODUCTS = 16 << 20  # numbers of a block of products: 64 MB


def tiles(image: Value, count: int, side: int) -> Value:
    """Cut a prepared picture into the squares that the backbone sees: uint8 (T*T, s, s, 3), row by row."""
    if count == 1:
        return image
    cut = image.reshape(count, side, count, side, 3).transpose(0, 2, 1, 3, 4)
    return cut.reshape(count * count, side, side, 3)


def untiled(layer_map: Value, count: int, shape: Sequence[int]) -> Value:
    """Join a layer's maps of the squares: (T*T, h, w, c) -> (T*h, T*w, c), which `shape` gives."""
    height, width, channels = shape
    if count == 1:
        return layer_map.reshape(height, width, channels)
    cut = layer_map.reshape(count, count, height // count, width // count, channels)
    return cut.transpose(0, 2, 1, 3, 4).reshape(height, width, channels)


# ---------------------------------------------------------------------- patch vectors


def patch_vectors(
    maps: Sequence[Value], shapes: Sequence[tuple[int, int, int]], *, patch_size: int, stride: int, descriptor: str
) -> tuple[Value, tuple[int, int]]:
    """Return the patch vectors (rows*columns, d) of a picture's layer maps, and the grid's rows and columns.

    Args:
        maps: one a layer, each (h, w, c).
        shapes: of them.
        patch_size, stride, descriptor: as for `features.patches.describe`.
    """
    rows, columns = max((shape[:2] for shape in shapes), key=lambda shape: shape[0] * shape[1])
    graph = maps[0].graph
    if descriptor == "concat":
        layers = [
            _spread(
                layer_map,
                shape,
                locally_aware(shape[0], rows, patch_size),
                locally_aware(shape[1], columns, patch_size),
            )
            for layer_map, shape in zip(maps, shapes, strict=True)
        ]
        joined = graph.join(layers, axis=2)
    else:
        layers = [
            _spread(
                _like_the_code(layer_map, shape, patch_size),
                (*shape[:2], CODE_DIMENSIONS),
                bilinear_weights(shape[0], rows),
                bilinear_weights(shape[1], columns),
            )
            for layer_map, shape in zip(maps, shapes, strict=True)
        ]
        joined = graph.join(layers, axis=2)
        joined = _binned(joined, CODE_DIMENSIONS * len(maps))
    first = (stride - 1) // 2
    if stride > 1:
        joined = joined.slice(first, rows, axis=0, step=stride).slice(first, columns, axis=1, step=stride)
        rows, columns = len(range(first, rows, stride)), len(range(first, columns, stride))
    dimensions = sum(shape[2] for shape in shapes) if descriptor == "concat" else CODE_DIMENSIONS
    return joined.reshape(rows * columns, dimensions), (rows, columns)


def _spread(layer_map: Value, shape: tuple[int, int, int], rows: np.ndarray, columns: np.ndarray) -> Value:
    """Return rows @ map @ columns^T: (h, w, c) -> (H, W, c)."""
    graph, (height, width, channels) = layer_map.graph, shape
    tall = graph.constant(rows).times(layer_map.reshape(height, width * channels))  # (H, h) @ (h, w*c) -> (H, w*c)
    return graph.constant(columns).times(tall.reshape(len(rows), width, channels))  # (W, w) @ (H, w, c) -> (H, W, c)


def _like_the_code(layer_map: Value, shape: tuple[int, int, int], patch_size: int) -> Value:
    """Return (h, w, 1024): the means of the channels and neighbourhood that the authors' code takes together."""
    graph, (height, width, channels) = layer_map.graph, shape
    half = patch_size // 2
    padding = graph.constant(np.array([half, half, 0, half, half, 0], np.int64))
    padded = graph.node("Pad", layer_map, padding, graph.constant(np.array(0, np.float32)))
    windows = [
        padded.slice(y, y + height, axis=0).slice(x, x + width, axis=1).reshape(height, width, channels, 1)
        for y in range(patch_size)
        for x in range(patch_size)
    ]
    flat = graph.join(windows, axis=3).reshape(height, width, channels * patch_size**2)
    return _binned(flat, channels * patch_size**2)


def _binned(flat: Value, length: int) -> Value:
    """Return the means (h, w, 1024) of the bins of the last axis (torch's adaptive_avg_pool1d)."""
    first, last = bins_of_code(length, CODE_DIMENSIONS)
    at = first[:, None] + np.arange((last - first).max())
    weights = np.where(at < last[:, None], 1 / (last - first)[:, None], 0).astype(np.float32)
    taken = flat.take(flat.graph.constant(np.minimum(at, length - 1).astype(np.int64)), axis=2)  # (h, w, 1024, k)
    return (taken * flat.graph.constant(weights)).reduce("ReduceSum", 3, keep=False)


def padim_vectors(maps: Sequence[Value], shapes: Sequence[tuple[int, int, int]], channels: np.ndarray) -> Value:
    """Return the chosen channels of all layers on the finest grid, (positions, d), as `gaussians.embed` does."""
    rows, columns = max((shape[:2] for shape in shapes), key=lambda shape: shape[0] * shape[1])
    graph, layers, first = maps[0].graph, [], 0
    for layer_map, shape in zip(maps, shapes, strict=True):
        chosen = channels[(channels >= first) & (channels < first + shape[2])] - first
        first += shape[2]
        if not len(chosen):
            continue
        cells = [repeated_cells(length, target) for length, target in zip(shape[:2], (rows, columns), strict=True)]
        taken = layer_map
        for axis, indices in enumerate([*cells, chosen]):
            taken = taken.take(graph.constant(np.asarray(indices, np.int64)), axis=axis)
        layers.append(taken)
    return graph.join(layers, axis=2).reshape(rows * columns, len(channels))


# ---------------------------------------------------------------------- distances


@dataclass(frozen=True, eq=False)
class Bank:
    """A memory bank as a graph holds it: vectors (m, d) less their mean, perhaps in fewer bits.

    Attributes:
        vectors: float32 (m, d), centred, as they are once they are read back from their type.
        mean: float32 (d,).
        kind: of `BANK_TYPES`.
        scale: float32 (d,), of a step of int8; None of the others.
    """

    vectors: np.ndarray
    mean: np.ndarray
    kind: str
    scale: np.ndarray | None = None

    @classmethod
    def of(cls, vectors: np.ndarray, kind: str) -> "Bank":
        """Return the vectors (m, d) as such a bank."""
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = vectors - mean
        if kind == "float16":
            centred = centred.astype(np.float16).astype(np.float32)
        if kind != "int8":
            return cls(centred, mean, kind)
        scale = np.maximum(np.abs(centred).max(axis=0) / 127, 1e-30).astype(np.float32)
        return cls(np.rint(centred / scale) * scale, mean, kind, scale)

    def write(self, graph: GraphWriter) -> Value:
        """Return the centred vectors, float32 (m, d)."""
        if self.kind == "int8":
            assert self.scale is not None
            steps = np.rint(self.vectors / self.scale).astype(np.int8)
            return graph.constant(steps, "bank").to("float32") * graph.constant(self.scale, "bank_scale")
        if self.kind == "float16":
            return graph.constant(self.vectors.astype(np.float16), "bank").to("float32")
        return graph.constant(self.vectors, "bank")


@dataclass(frozen=True, eq=False)
class Nearest:
    """What a search in the bank finds.

    Attributes:
        distances: float32 (p,), of each patch to its nearest bank vector.
        indices: int64 (p,), which that is.
        queries: (p, d), the patches less the bank's mean.
        vectors: (m, d), those of the bank less their mean.
    """

    distances: Value
    indices: Value
    queries: Value
    vectors: Value


def nearest(graph: GraphWriter, patches: Value, count: int, bank: Bank) -> Nearest:
    """Search the bank for the nearest vector of each of `count` patches (p, d)."""
    queries = patches - graph.constant(bank.mean, "bank_mean")
    vectors = bank.write(graph)
    half_norms = np.einsum("md,md->m", bank.vectors, bank.vectors, dtype=np.float64) / 2
    flipped, half = vectors.transpose(1, 0), graph.constant(half_norms.astype(np.float32), "bank_half_norms")
    step = max(_PRODUCTS // len(bank.vectors), 1)
    blocks = []
    for first in range(0, count, step):
        block = queries if step >= count else queries.slice(first, min(first + step, count))
        likeness = block.times(flipped) - half  # (q, d) @ (d, m): q.b - b.b / 2 is largest where |q - b| is smallest
        blocks.append(
            graph.node("ArgMax", likeness, kind="int64", attributes={"axis": 1, "keepdims": 0, "select_last_index": 0})
        )
    indices = graph.join(blocks)
    difference = queries - vectors.take(indices)
    squared = (difference * difference).reduce("ReduceSum", 1, keep=False)
    return Nearest(graph.node("Sqrt", squared), indices, queries, vectors)


def mahalanobis(graph: GraphWriter, vectors: Value, mean: np.ndarray, whitening: np.ndarray) -> Value:
    """Return the Mahalanobis distances of vectors (p, d), float32 (p,): eq. 2 of PaDiM.

    Args:
        graph: to write to.
        vectors: of all positions.
        mean: float64 (p, d).
        whitening: float32 (p, d, d).
    """
    positions, dimensions = mean.shape
    # subtle: NumPy subtracts in float64 and then rounds; of numbers that near each other float32 subtracts exactly
    apart = vectors - graph.constant(mean.astype(np.float32), "gaussian_means")
    white = graph.constant(whitening, "gaussian_whitening").times(apart.reshape(positions, dimensions, 1))
    squared = (white * white).reduce("ReduceSum", 1, keep=False)
    return graph.node("Sqrt", squared).reshape(positions)
