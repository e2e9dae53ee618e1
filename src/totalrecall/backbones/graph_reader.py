"""The nodes and weights of a backbone's graph, and a graph without what only other layers need.

For engines that have no reader of their own (torch), or that compute every node of a graph whatever is asked of it
(ONNX Runtime). `graph_check` must have accepted the graph: whatever it lets through is read here, and no more.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.graph_check import Value, fields

__all__ = ["Attribute", "GraphNode", "NetworkGraph", "cut_graph", "field_bytes", "read_graph", "with_graph"]

Attribute: TypeAlias = float | int | str | tuple[int, ...]

# numbers of the fields of ONNX's messages
_OPSETS, _GRAPH = 8, 7
_NODES, _WEIGHTS, _OUTPUTS, _SHAPES = 1, 5, 12, 13
_FLOAT, _INT, _STRING, _INTS = 1, 2, 3, 7  # kinds of attributes
_TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 10: "<f2"}  # of weights


@dataclass(frozen=True)
class GraphNode:
    """One operation: names of what it takes, of what it gives, and its settings."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Attribute]


@dataclass(frozen=True)
class NetworkGraph:
    """The nodes in an order in which they can be computed, the weights by name, and the version of the operators."""

    nodes: tuple[GraphNode, ...]
    weights: dict[str, npt.NDArray[np.generic]]
    opset: int


def read_graph(model: bytes, outputs: Sequence[str]) -> NetworkGraph:
    """Return what a serialized ONNX model needs to compute some of its outputs.

    Raises:
        ValueError: it has no such output.
    """
    opset, nodes, weights = 0, [], {}
    for number, value in _messages(model):
        if number == _OPSETS:
            opset = max((int(part) for at, _, part in fields(value) if at == 2 and isinstance(part, int)), default=1)
        elif number == _GRAPH:
            kept = _needed(value, outputs)
            for at, part in _messages(value):
                if at == _NODES and (node := _node(part)).output in kept:
                    nodes.append(node)
                elif at == _WEIGHTS and (name := _name(part, 8)) in kept:
                    weights[name] = _array(part)
    return NetworkGraph(tuple(nodes), weights, opset)


def cut_graph(model: bytes, outputs: Sequence[str]) -> bytes:
    """Return a serialized ONNX model that computes some of its outputs, and nothing that these do not need.

    Raises:
        ValueError: it has no such output.
    """

    def kept(graph: memoryview) -> Iterator[bytes]:
        needed = _needed(graph, outputs)
        for at, wire, part in fields(graph):
            if at == _SHAPES:  # notes on what lies between, some of it gone
                continue
            if isinstance(part, memoryview) and (
                (at == _NODES and _node(part).output not in needed)
                or (at == _WEIGHTS and _name(part, 8) not in needed)
                or (at == _OUTPUTS and _name(part, 1) not in outputs)
            ):
                continue
            yield field_bytes(at, wire, part)

    return with_graph(model, kept)


def with_graph(model: bytes, change: Callable[[memoryview], Iterable[bytes]]) -> bytes:
    """Return a serialized ONNX model with another graph: `change` gives the fields of the new one from the old one."""
    parts: list[bytes] = []
    for number, kind, value in fields(memoryview(model)):
        if number == _GRAPH:
            assert isinstance(value, memoryview)
            parts.append(field_bytes(number, kind, b"".join(change(value))))
        else:
            parts.append(field_bytes(number, kind, value))
    return b"".join(parts)


def field_bytes(number: int, kind: int, value: int | memoryview | bytes) -> bytes:
    """Return a field of a protobuf message as bytes, from its number, its kind on the wire, and its value."""
    tag = _varint(number << 3 | kind)
    if isinstance(value, int):
        return tag + _varint(value)
    return tag + (_varint(len(value)) if kind == 2 else b"") + bytes(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _needed(graph: memoryview, outputs: Sequence[str]) -> set[str]:
    """Return the names of everything that some outputs of a graph are computed from, and their own."""
    nodes = [_node(part) for at, part in _messages(graph) if at == _NODES]
    lacking = set(outputs) - {node.output for node in nodes}
    if lacking:
        raise ValueError(f"it has no output {min(lacking)}")
    needed = set(outputs)
    for node in reversed(nodes):  # a node takes what stands before it
        if node.output in needed:
            needed.update(node.inputs)
    return needed


def _messages(message: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    for number, _, value in fields(memoryview(message)):
        if isinstance(value, memoryview):
            yield number, value


def _node(message: memoryview) -> GraphNode:
    found: dict[int, list[memoryview]] = {}
    for number, value in _messages(message):
        found.setdefault(number, []).append(value)
    inputs = tuple(str(name, "utf-8") for name in found.get(1, []))
    attributes = dict(map(_attribute, found.get(5, [])))
    return GraphNode(str(found[4][0], "utf-8"), inputs, str(found[2][0], "utf-8"), attributes)


def _attribute(message: memoryview) -> tuple[str, Attribute]:
    found: dict[int, Value] = {}
    wholes: list[int] = []
    for number, _, value in fields(message):
        if number == 8:
            wholes += _wholes(value)
        else:
            found[number] = value
    kind, name = found[20], found[1]
    assert isinstance(name, memoryview)
    said: Attribute = tuple(wholes)
    if kind == _FLOAT:
        four = found.get(2, memoryview(bytes(4)))
        assert isinstance(four, memoryview)
        (said,) = struct.unpack("<f", four)
    elif kind == _INT:
        whole = found.get(3, 0)
        assert isinstance(whole, int)
        said = _signed(whole)
    elif kind == _STRING:
        text = found.get(4, memoryview(b""))
        assert isinstance(text, memoryview)
        said = str(text, "utf-8")
    elif kind != _INTS:
        raise ValueError(f"an attribute of kind {kind}")
    return str(name, "utf-8"), said


def _array(message: memoryview) -> npt.NDArray[np.generic]:
    """Return the weights of a tensor, read-only."""
    shape: list[int] = []
    kind, raw = 0, memoryview(b"")
    for number, _, value in fields(message):
        if number == 1:
            shape += _wholes(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 9 and isinstance(value, memoryview):
            raw = value
    return np.frombuffer(raw, _TYPES[kind]).reshape(shape)


def _wholes(value: Value) -> list[int]:
    """Return whole numbers that stand alone, or packed into one field."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, number, shift = [], 0, 0
    for byte in value:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(_signed(number))
            number, shift = 0, 0
    return numbers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _name(message: memoryview, field: int) -> str:
    return next((str(value, "utf-8") for number, value in _messages(message) if number == field), "")
