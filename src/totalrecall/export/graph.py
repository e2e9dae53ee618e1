"""An ONNX graph in the making, written as arithmetic: `Value`s are tensors that do not exist yet.

Nothing here knows of detectors. A number in an expression becomes a constant of the other side's type, and a constant
that was written before is used again.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import onnx

__all__ = ["OPSET", "GraphWriter", "Number", "Value"]

OPSET = 17  # of 2022: every runtime since reads it
_IR_VERSION = 8
_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "bool": 9, "float16": 10}  # ONNX's numbers of them


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor that the graph will compute, or a constant of it.

    Attributes:
        graph: that it belongs to.
        name: in the graph.
        kind: NumPy's name of its number type.
    """

    graph: "GraphWriter"
    name: str
    kind: str

    def __add__(self, other: "Number") -> "Value":
        return self._with("Add", other)

    def __sub__(self, other: "Number") -> "Value":
        return self._with("Sub", other)

    def __mul__(self, other: "Number") -> "Value":
        return self._with("Mul", other)

    def __truediv__(self, other: "Number") -> "Value":
        """Divide; whole numbers are divided without their rest, towards zero."""
        return self._with("Div", other)

    def __gt__(self, other: "Number") -> "Value":
        return self._with("Greater", other, "bool")

    def __lt__(self, other: "Number") -> "Value":
        return self._with("Less", other, "bool")

    def __and__(self, other: "Value") -> "Value":
        return self._with("And", other)

    def equals(self, other: "Number") -> "Value":
        """Return where both are the same."""
        return self._with("Equal", other, "bool")

    def at_most(self, other: "Number") -> "Value":
        """Return the smaller of both."""
        return self._with("Min", other)

    def at_least(self, other: "Number") -> "Value":
        """Return the larger of both."""
        return self._with("Max", other)

    def times(self, other: "Value") -> "Value":
        """Return the matrix product."""
        return self._with("MatMul", other)

    def to(self, kind: str) -> "Value":
        """Return the same numbers as another type."""
        if kind == self.kind:
            return self
        return self.graph.node("Cast", self, kind=kind, attributes={"to": _TYPES[kind]})

    def floor(self) -> "Value":
        """Return the largest whole numbers that are not above."""
        return self.graph.node("Floor", self)

    def reshape(self, *shape: "int | Value") -> "Value":
        """Return the same numbers in another shape; a side may be computed, and one may be -1."""
        return self.graph.node("Reshape", self, self.graph.shape(shape))

    def transpose(self, *axes: int) -> "Value":
        """Return the axes in another order."""
        return self.graph.node("Transpose", self, attributes={"perm": list(axes)})

    def take(self, indices: "Value", axis: int = 0) -> "Value":
        """Return what lies at some indices of an axis, which are never out of range."""
        return self.graph.node("Gather", self, indices, attributes={"axis": axis})

    def largest(self) -> "Value":
        """Return the largest of all numbers, shape (1,)."""
        return self.reshape(-1).reduce("ReduceMax")

    def reduce(self, kind: str, axis: int = 0, *, keep: bool = True) -> "Value":
        """Return what `ReduceMax`, `ReduceMin` or `ReduceSum` makes of an axis."""
        axes = [axis]
        if kind == "ReduceSum" or self.graph.opset >= 18:  # since opset 13, the others since 18, have axes as an input
            axis_values = self.graph.constant(np.array(axes, np.int64))
            return self.graph.node(kind, self, axis_values, attributes={"keepdims": int(keep)})
        return self.graph.node(kind, self, attributes={"axes": axes, "keepdims": int(keep)})

    def slice(self, first: "int | Value", end: "int | Value", axis: int = 0, step: int = 1) -> "Value":
        """Return a part of an axis."""
        sides = [self.graph.shape((first,)), self.graph.shape((end,))]
        rest = [self.graph.constant(np.array([number], np.int64)) for number in (axis, step)]
        return self.graph.node("Slice", self, *sides, *rest)

    def _with(self, operator: str, other: "Number", kind: str | None = None) -> "Value":
        if not isinstance(other, Value):
            other = self.graph.constant(np.array(other, self.kind))
        return self.graph.node(operator, self, other, kind=kind)


Number: TypeAlias = float | Value


class GraphWriter:
    """The nodes and constants of a graph of one version of the operators."""

    def __init__(self, opset: int = OPSET) -> None:
        self.opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._written: dict[tuple[str, tuple[int, ...], bytes], Value] = {}  # by type, shape and SHA-256

    def constant(self, values: np.ndarray, name: str | None = None) -> Value:
        """Return a constant; one of the same values is written once."""
        from onnx import numpy_helper

        values = np.asarray(values)
        key = (str(values.dtype), values.shape, hashlib.sha256(np.ascontiguousarray(values).data).digest())
        if key not in self._written:
            name = f"constant_{len(self._constants)}" if name is None else name
            self._constants.append(numpy_helper.from_array(values, name))
            self._written[key] = Value(self, name, str(values.dtype))
        return self._written[key]

    def node(
        self,
        operator: str,
        *inputs: Value,
        kind: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Value:
        """Return what an operator makes of its inputs.

        Args:
            operator: of ONNX.
            inputs: of the node; the first says the type of what it gives.
            kind: of what it gives, if another.
            attributes: of the node.
            name: of what it gives; a number if not given.
        """
        return self.nodes(operator, *inputs, kinds=[kind or inputs[0].kind], attributes=attributes, names=[name])[0]

    def nodes(
        self,
        operator: str,
        *inputs: Value,
        kinds: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        names: Sequence[str | None] | None = None,
    ) -> list[Value]:
        """Return the several tensors that an operator gives, of these types."""
        from onnx import helper

        at = len(self._nodes)
        given = [None] * len(kinds) if names is None else names
        outputs = [name or f"value_{at}_{number}" for number, name in enumerate(given)]
        inputs_named = [value.name for value in inputs]
        self._nodes.append(helper.make_node(operator, inputs_named, outputs, name=outputs[0], **(attributes or {})))
        return [Value(self, name, kind) for name, kind in zip(outputs, kinds, strict=True)]

    def shape(self, sides: Sequence["int | Value"]) -> Value:
        """Return a shape, int64 (n,), of sides that are known or computed."""
        if all(isinstance(side, int) for side in sides):
            return self.constant(np.array(sides, np.int64))
        parts = [
            side.reshape(1) if isinstance(side, Value) else self.constant(np.array([side], np.int64)) for side in sides
        ]
        return parts[0] if len(parts) == 1 else self.join(parts)

    def join(self, parts: Sequence[Value], axis: int = 0) -> Value:
        """Return tensors one after the other."""
        return self.node("Concat", *parts, attributes={"axis": axis}) if len(parts) > 1 else parts[0]

    def where(self, condition: Value, yes: Number, no: Number) -> Value:
        """Return one or the other; at least one of them is a tensor."""
        kind = yes.kind if isinstance(yes, Value) else no.kind if isinstance(no, Value) else "float32"
        chosen = [value if isinstance(value, Value) else self.constant(np.array(value, kind)) for value in (yes, no)]
        return self.node("Where", condition, *chosen, kind=kind)

    def range(self, count: "int | Value") -> Value:
        """Return 0, 1, ... below the count, int64 (count,)."""
        if isinstance(count, int):
            return self.constant(np.arange(count, dtype=np.int64))
        zero, step = (self.constant(np.array(number, np.int64)) for number in (0, 1))
        return self.node("Range", zero, count, step)

    def largest_of(self, values: Value, count: int) -> tuple[Value, Value]:
        """Return the `count` largest numbers of the last axis in falling order, and where they stood."""
        k = self.constant(np.array([count], np.int64))
        attributes = {"axis": -1, "largest": 1, "sorted": 1}
        largest, indices = self.nodes("TopK", values, k, kinds=[values.kind, "int64"], attributes=attributes)
        return largest, indices

    def include(self, model: "onnx.ModelProto", images: Value, prefix: str) -> dict[str, Value]:
        """Take in another graph whose one input is `images`; returns its outputs by name.

        Raises:
            ValueError: it is of another operator set than can be taken over.
        """
        from onnx import NodeProto

        renamed = {"images": images.name, "": ""}
        for tensor in model.graph.initializer:
            renamed[tensor.name] = prefix + tensor.name
            copied = type(tensor)()
            copied.CopyFrom(tensor)
            copied.name = renamed[tensor.name]
            self._constants.append(copied)
        for node in model.graph.node:
            renamed |= {output: prefix + output for output in node.output}
        for node in model.graph.node:
            taken = NodeProto()
            taken.CopyFrom(node)
            taken.name = prefix + (node.name or node.output[0])
            del taken.input[:], taken.output[:]
            taken.input.extend(renamed[name] for name in node.input)
            taken.output.extend(renamed[name] for name in node.output)
            self._nodes.append(taken)
        return {output.name: Value(self, renamed[output.name], "float32") for output in model.graph.output}

    def model(
        self,
        inputs: Mapping[str, tuple[str, Sequence["int | str"]]],
        outputs: Mapping[str, tuple[str, Sequence["int | str"]]],
        metadata: Mapping[str, str],
    ) -> "onnx.ModelProto":
        """Return the whole graph.

        Args:
            inputs, outputs: number type and shape of each by name; a side that is not known has a name.
            metadata: texts of the file by key.
        """
        from onnx import helper

        described = [
            [helper.make_tensor_value_info(name, _TYPES[kind], list(shape)) for name, (kind, shape) in given.items()]
            for given in (inputs, outputs)
        ]
        nodes, taken = _needed(self._nodes, outputs)
        constants = [constant for constant in self._constants if constant.name in taken]  # a runtime warns of others
        body = helper.make_graph(nodes, "totalrecall", *described, constants)
        model = helper.make_model(
            body,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=_IR_VERSION,
            producer_name="totalrecall",
        )
        for key, text in metadata.items():
            model.metadata_props.add(key=key, value=text)
        return model


def _needed(nodes: "Sequence[onnx.NodeProto]", outputs: Iterable[str]) -> tuple[list["onnx.NodeProto"], set[str]]:
    """Return the nodes that the outputs need, in their order, and all names that these take."""
    taken, needed = set(outputs), []
    for node in reversed(nodes):
        if taken.intersection(node.output):
            needed.append(node)
            taken |= _names_taken(node)
    return needed[::-1], taken


def _names_taken(node: "onnx.NodeProto") -> set[str]:
    """Return the names of what a node takes, and of what is taken inside it, as in the branches of a condition."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            names |= {output.name for output in inner.output}.union(*map(_names_taken, inner.node))
    return names
