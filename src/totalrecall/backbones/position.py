"""Position embeddings of a vision transformer, resampled to the size at which pictures are prepared.

They were learnt on one grid of patches, and the graph of a backbone keeps them like that. Before it is run at a size
they are resampled. They and the shape of the grid are all that changes in the graph; both are found by their names.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from totalrecall.backbones.graph_check import fields
from totalrecall.backbones.graph_reader import field_bytes, with_graph
from totalrecall.backbones.spec import Backbone
from totalrecall.errors import BackboneError
from totalrecall.system.files import sha256

__all__ = ["GRID", "POSITION", "at_size", "resampling"]

POSITION = {False: "position_embeddings", True: "position_embeddings_smoothed"}  # whether smaller grids are smoothed
GRID = "grid_shape"  # (n, rows, columns, channels)
_INITIALIZER, _DIMENSIONS, _NAME, _RAW = 5, 1, 8, 9  # field numbers of ONNX's messages


def at_size(backbone: Backbone, side: int) -> Backbone:
    """Return a backbone whose graph takes prepared pictures of a side in pixels; one without positions as it is.

    Raises:
        BackboneError: its graph is damaged.
    """
    patch = backbone.advice.multiple
    if patch == 1 or backbone.advice.fixed:
        return backbone
    rows = side // patch
    try:
        graph = _with_grid(backbone.graph, rows)
    except (ValueError, IndexError, AssertionError):
        raise BackboneError(
            f"Backbone {backbone.name} is damaged: its position embeddings cannot be read. Add it again."
        ) from None
    return replace(backbone, graph=graph, sha256=sha256(graph))


def _with_grid(model: bytes, rows: int) -> bytes:
    """Return a serialized ONNX model with position embeddings and grid for so many rows and columns of patches."""

    def resized(graph: memoryview) -> Iterator[bytes]:
        for at, wire, one in fields(graph):
            new = _resized(one, rows) if at == _INITIALIZER and isinstance(one, memoryview) else one
            yield field_bytes(at, wire, new)

    return with_graph(model, resized)


def _resized(tensor: memoryview, rows: int) -> memoryview | bytes:
    """Return an initializer as it is, or resized if it is one of the two that depend on the size."""
    found = list(fields(tensor))
    name = next((bytes(value) for at, _, value in found if at == _NAME and isinstance(value, memoryview)), b"")
    if name not in (GRID.encode(), *(one.encode() for one in POSITION.values())):
        return tensor
    raw = next(value for at, _, value in found if at == _RAW and isinstance(value, memoryview))
    if name == GRID.encode():
        shape, columns = [4], np.frombuffer(raw, "<i8").copy()
        columns[1:3] = rows
        data = columns.tobytes()
    else:
        c = _dimensions(tensor)[-1]
        learnt = math.isqrt(len(raw) // 4 // c)
        values = np.frombuffer(raw, "<f4").reshape(learnt, learnt, c).astype(np.float64)
        matrix = resampling(learnt, rows, smooth=name == POSITION[True].encode())
        values = np.einsum("ri,ijc,sj->rsc", matrix, values, matrix, optimize=True)  # (g, g, c) -> (rows, rows, c)
        shape, data = [1, rows, rows, c], values.astype("<f4").tobytes()
    kept = [field_bytes(at, wire, value) for at, wire, value in found if at not in (_DIMENSIONS, _RAW)]
    return b"".join([*(field_bytes(_DIMENSIONS, 0, side) for side in shape), *kept, field_bytes(_RAW, 2, data)])


def _dimensions(tensor: memoryview) -> list[int]:
    """Return a tensor's shape, whose sides stand one by one or packed into one field."""
    sides: list[int] = []
    for number, _, value in fields(tensor):
        if number != _DIMENSIONS:
            continue
        if isinstance(value, int):
            sides.append(value)
        else:  # packed varints: read as if each had the tag of field 1
            position = 0
            while position < len(value):
                end = position
                while value[end] & 0x80:
                    end += 1
                sides.append(sum((byte & 0x7F) << 7 * at for at, byte in enumerate(value[position : end + 1])))
                position = end + 1
    return sides


@lru_cache(maxsize=32)
def resampling(length: int, target: int, *, smooth: bool) -> np.ndarray:
    """Return the (target, length) matrix that resamples one axis bicubically, as torch's `interpolate` does.

    Args:
        length: of the axis.
        target: its new length.
        smooth: widen the kernel where the axis becomes shorter (`antialias=True`).
    """
    matrix = np.zeros((target, length))
    if length == target:
        return np.eye(length)
    scale = length / target
    for row in range(target):
        centre = (row + 0.5) * scale
        if not smooth:
            first = math.floor(centre - 0.5)
            for tap in range(first - 1, first + 3):
                matrix[row, min(max(tap, 0), length - 1)] += _cubic(centre - 0.5 - tap, -0.75)
            continue
        stretch = max(scale, 1.0)
        low, high = max(int(centre - 2 * stretch + 0.5), 0), min(int(centre + 2 * stretch + 0.5), length)
        taps = [_cubic((tap - centre + 0.5) / stretch, -0.5) for tap in range(low, high)]
        matrix[row, low:high] = np.array(taps) / sum(taps)
    return matrix


def _cubic(x: float, a: float) -> float:
    """Return the cubic convolution kernel of Keys 1981 with parameter a."""
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    if x < 2:
        return a * (((x - 5) * x + 8) * x - 4)
    return 0.0
