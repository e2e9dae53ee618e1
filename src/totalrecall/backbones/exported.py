"""A torch program, as `torch.export` gives it, as nodes of an ONNX graph: only operators that `graph_check` allows.

torch's own exporter writes what we refuse to run (shapes that are computed, operators that take indices) and needs
another package. Here each operation of the program (of core ATen) becomes nodes by one short function. What does not
depend on the picture is computed now and stored. What is cut out of a tensor is a product with zeros and ones.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from totalrecall.backbones.graph import Graph

__all__ = ["Program", "UnknownOperationError"]

Value: TypeAlias = Any  # the name of a node's output, a torch tensor that was computed, or a tuple of these


class UnknownOperationError(Exception):
    """An operation of a network that cannot be written with the allowed operators."""


class Program:
    """Writes the operations of an exported program into a graph.

    Args:
        program: of `torch.export.export(...).run_decompositions()`, with one input.
        graph: to write into.
        picture: name of what stands for the input.

    Attributes:
        any_size: whether no node depends on the size at which the program was exported.
    """

    def __init__(self, program: Any, graph: Graph, picture: str) -> None:
        self.any_size = True
        self._program, self._graph, self._picture = program, graph, picture
        self._values: dict[Any, Value] = {}
        self._pads: dict[str, tuple[str, list[int]]] = {}  # a padded tensor: what was padded, and by how much
        self._constants: dict[str, str] = {}
        self._count = 0
        self._steps = self._known()

    def run(self) -> list[str]:
        """Write all nodes, and return the names of the outputs.

        Raises:
            UnknownOperationError: says which operation cannot be written.
        """
        for node in self._program.graph.nodes:
            if node.op == "placeholder":
                self._values[node] = self._placeholder(node.name)
            elif node.op == "output":
                return [self._named(one) for one in self._map(node.args[0])]
            else:
                self._values[node] = self._call(node)
        raise UnknownOperationError("a program without an output")

    def _placeholder(self, name: str) -> Value:
        signature = self._program.graph_signature
        for table in (signature.inputs_to_parameters, signature.inputs_to_buffers):
            if name in table:
                target = table[name]
                held = self._program.state_dict.get(target)
                return (self._program.constants[target] if held is None else held).detach()
        if name in signature.inputs_to_lifted_tensor_constants:
            return self._program.constants[signature.inputs_to_lifted_tensor_constants[name]]
        return self._picture

    def _map(self, value: Any) -> Any:
        """Return an argument with nodes replaced by their values."""
        if isinstance(value, (list, tuple)):
            return type(value)(self._map(one) for one in value)
        return self._values[value] if value in self._values else value  # noqa: SIM401  unhashable ones are lists

    def _call(self, node: Any) -> Value:
        if node.target is operator.getitem:
            return self._values[node.args[0]][node.args[1]]
        arguments = [self._map(one) for one in node.args]
        if not any(isinstance(one, str) for one in _flat(arguments)) or _of_no_picture(node):
            keywords = {name: self._map(one) for name, one in node.kwargs.items()}
            return node.target(*arguments, **keywords)
        name = str(node.target).removeprefix("aten.")
        step = self._steps.get(name.rpartition(".")[0])
        if step is None:
            raise UnknownOperationError(name)
        return step(node, arguments)

    # ------------------------------------------------------------------ helpers

    def _node(self, kind: str, inputs: Sequence[Value], attributes: dict[str, Any] | None = None) -> str:
        self._count += 1
        name = f"{kind.lower()}{self._count}"
        return self._graph.node(kind, [self._named(one) for one in inputs], name, attributes)

    def _named(self, value: Value) -> str:
        """Return the name of a value; one that was computed is stored as a constant."""
        if isinstance(value, str):
            if value in self._pads:
                raise UnknownOperationError("constant_pad_nd, but not before a convolution")
            return value
        array = np.asarray(value.detach().numpy() if hasattr(value, "detach") else value, dtype=np.float32)
        key = f"{array.shape}{hash(array.tobytes())}"
        if key not in self._constants:
            self._constants[key] = self._graph.constant(f"constant{len(self._constants)}", array)
        return self._constants[key]

    def _shape(self, sides: Sequence[int]) -> str:
        key = f"shape {list(sides)}"
        if key not in self._constants:
            name = f"shape{len(self._constants)}"
            self._constants[key] = self._graph.constant(name, list(sides), np.int64)
        return self._constants[key]

    def _reshaped(self, node: Any, arguments: list[Value]) -> str:
        before, after = _sides(node.args[0]), _sides(node)
        if len(after) > 4 or len(before) != len(after) or before != after:
            self.any_size = self.any_size and _is_pooled(before)
        name = self._named(arguments[0])
        self._count += 1
        return self._graph.node("Reshape", [name, self._shape(after)], f"reshape{self._count}")

    def _transposed(self, x: Value, order: Sequence[int]) -> str:
        return self._node("Transpose", [x], {"perm": list(order)})

    def _picked(self, x: Value, sides: Sequence[int], axis: int, places: Sequence[int]) -> str:
        """Return places along an axis of a tensor, as a product with a matrix of zeros and ones."""
        self.any_size = False
        axis %= len(sides)
        matrix = np.zeros((sides[axis], len(places)), np.float32)
        matrix[list(places), np.arange(len(places))] = 1
        order = [*(at for at in range(len(sides)) if at != axis), axis]
        x = x if axis == len(sides) - 1 else self._transposed(x, order)
        x = self._node("MatMul", [x, matrix])
        return x if axis == len(sides) - 1 else self._transposed(x, np.argsort(order).tolist())

    # ------------------------------------------------------------------ operations

    def _known(self) -> dict[str, Callable[[Any, list[Value]], Value]]:
        same: Callable[[Any, list[Value]], Value] = lambda _, a: a[0]  # noqa: E731
        reshape = self._reshaped
        unary = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "sqrt": "Sqrt", "exp": "Exp", "erf": "Erf"}
        steps: dict[str, Callable[[Any, list[Value]], Value]] = {
            **{name: self._unary(kind) for name, kind in unary.items()},
            **dict.fromkeys(("clone", "alias", "contiguous", "dropout", "_to_copy", "detach", "lift_fresh_copy"), same),
            **dict.fromkeys(("_assert_tensor_metadata", "_assert_scalar"), lambda _node, _arguments: None),
            **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten"), reshape),
            "convolution": self._convolution,
            "constant_pad_nd": self._pad,
            "_native_batch_norm_legit_no_training": self._batch_norm,
            "native_layer_norm": self._layer_norm,
            "native_group_norm": self._refused,
            "max_pool2d_with_indices": self._max_pool,
            "avg_pool2d": self._average_pool,
            "hardtanh": lambda node, a: self._clipped(node, a, -1.0, 1.0),
            "clamp": lambda node, a: self._clipped(node, a, None, None),
            "hardswish": lambda _, a: self._node("HardSwish", a[:1]),
            "hardsigmoid": lambda _, a: self._node("HardSigmoid", a[:1], {"alpha": 1 / 6, "beta": 0.5}),
            "silu": lambda _, a: self._node("Mul", [a[0], self._node("Sigmoid", a[:1])]),
            "gelu": self._gelu,
            "add": lambda node, a: self._sum(node, a, "Add"),
            "sub": lambda node, a: self._sum(node, a, "Sub"),
            "mul": lambda _, a: self._node("Mul", a[:2]),
            "div": lambda _, a: self._node("Div", a[:2]),
            "pow": lambda _, a: self._node("Pow", a[:2]),
            "neg": lambda _, a: self._node("Mul", [a[0], -1.0]),
            "rsqrt": lambda _, a: self._node("Div", [1.0, self._node("Sqrt", a[:1])]),
            "mm": lambda _, a: self._node("MatMul", a[:2]),
            "bmm": lambda _, a: self._node("MatMul", a[:2]),
            "matmul": lambda _, a: self._node("MatMul", a[:2]),
            "addmm": lambda _, a: self._node("Add", [self._node("MatMul", a[1:3]), a[0]]),
            "linear": self._linear,
            "_softmax": lambda _, a: self._node("Softmax", a[:1], {"axis": a[1]}),
            "mean": self._mean,
            "permute": lambda _, a: self._transposed(a[0], a[1]),
            "transpose": self._swapped,
            "cat": lambda _, a: self._node("Concat", a[0], {"axis": a[1] if len(a) > 1 else 0}),
            "expand": self._expanded,
            "slice": self._slice,
            "select": self._select,
            "split_with_sizes": self._split,
            "scaled_dot_product_attention": self._attention,
            "_scaled_dot_product_flash_attention_for_cpu": lambda node, a: (self._attention(node, a), None),
        }
        return steps

    def _unary(self, kind: str) -> Callable[[Any, list[Value]], Value]:
        return lambda _, a: self._node(kind, a[:1])

    def _refused(self, node: Any, _: list[Value]) -> Value:
        raise UnknownOperationError(str(node.target))

    def _convolution(self, _: Any, a: list[Value]) -> str:
        x, weight, bias, strides, padding, dilation, transposed, _output, groups = a
        if transposed:
            raise UnknownOperationError("a transposed convolution")
        x, extra = self._pads.get(x, (x, [0, 0, 0, 0]))
        padding = [*padding] * (2 // len(padding))
        attributes = {
            "kernel_shape": list(weight.shape[2:]),
            "strides": list(strides),
            "pads": [both + one for both, one in zip([*padding, *padding], extra, strict=True)],
            "dilations": list(dilation),
            "group": groups,
        }
        return self._node("Conv", [x, weight, *([] if bias is None else [bias])], attributes)

    def _pad(self, _: Any, a: list[Value]) -> str:
        left, right, top, bottom = a[1]
        if (len(a) > 2 and a[2]) or min(a[1]) < 0:
            raise UnknownOperationError("constant_pad_nd with other values than 0")
        self._count += 1
        name = f"padded{self._count}"
        self._pads[name] = (self._named(a[0]), [top, left, bottom, right])
        self.any_size = False  # TensorFlow's padding depends on the size
        return name

    def _batch_norm(self, _: Any, a: list[Value]) -> tuple[str, None, None]:
        x, weight, bias, mean, variance, _momentum, epsilon = a
        return self._node("BatchNormalization", [x, weight, bias, mean, variance], {"epsilon": epsilon}), None, None

    def _layer_norm(self, _: Any, a: list[Value]) -> tuple[str, None, None]:
        x, sides, weight, bias, epsilon = a
        if len(sides) != 1:
            raise UnknownOperationError("a layer norm over several axes")
        weight = np.ones(sides, np.float32) if weight is None else weight
        inputs = [x, weight, *([] if bias is None else [bias])]
        return self._node("LayerNormalization", inputs, {"axis": -1, "epsilon": epsilon}), None, None

    def _max_pool(self, _: Any, a: list[Value]) -> tuple[str, None]:
        defaults: list[Value] = [[], [0, 0], [1, 1], False]
        x, kernel, strides, padding, dilation, ceil = [*a, *defaults[len(a) - 2 :]]
        if any(one != 1 for one in dilation):
            raise UnknownOperationError("a dilated pool")
        attributes = {"kernel_shape": list(kernel), "strides": list(strides or kernel), "pads": [*padding] * 2}
        return self._node("MaxPool", [x], {**attributes, "ceil_mode": int(ceil)}), None

    def _average_pool(self, _: Any, a: list[Value]) -> str:
        defaults: list[Value] = [[], [0, 0], False, True]
        x, kernel, strides, padding, ceil, counted = [*a, *defaults[len(a) - 2 :]][:6]
        attributes = {"kernel_shape": list(kernel), "strides": list(strides or kernel), "pads": [*padding] * 2}
        return self._node("AveragePool", [x], {**attributes, "ceil_mode": int(ceil), "count_include_pad": int(counted)})

    def _clipped(self, _: Any, a: list[Value], low: float | None, high: float | None) -> str:
        bounds = [*a[1:3], *(low, high)[len(a) - 1 :]]
        names = ["" if bound is None else self._named(float(bound)) for bound in bounds]
        self._count += 1
        return self._graph.node("Clip", [self._named(a[0]), *names], f"clip{self._count}")

    def _gelu(self, node: Any, a: list[Value]) -> str:
        if node.kwargs.get("approximate", "none") != "none":
            raise UnknownOperationError("an approximate GELU")
        error = self._node("Erf", [self._node("Mul", [a[0], 0.5**0.5])])
        return self._node("Mul", [self._node("Mul", [a[0], self._node("Add", [error, 1.0])]), 0.5])

    def _sum(self, node: Any, a: list[Value], kind: str) -> str:
        factor = node.kwargs.get("alpha", 1)
        return self._node(kind, [a[0], a[1] if factor == 1 else self._node("Mul", [a[1], float(factor)])])

    def _linear(self, _: Any, a: list[Value]) -> str:
        x = self._node("MatMul", [a[0], a[1].t()])
        return x if len(a) < 3 or a[2] is None else self._node("Add", [x, a[2]])

    def _mean(self, _: Any, a: list[Value]) -> str:
        keep = bool(a[2]) if len(a) > 2 else False
        return self._node("ReduceMean", a[:1], {"axes": list(a[1]), "keepdims": int(keep)})

    def _swapped(self, node: Any, a: list[Value]) -> str:
        order = list(range(len(_sides(node))))
        order[a[1]], order[a[2]] = order[a[2]], order[a[1]]
        return self._transposed(a[0], order)

    def _expanded(self, node: Any, a: list[Value]) -> Value:
        if _sides(node.args[0]) == _sides(node):
            return a[0]
        return self._node("Add", [a[0], np.zeros(_sides(node), np.float32)])

    def _slice(self, node: Any, a: list[Value]) -> Value:
        defaults: list[Value] = [0, None, None, 1]
        axis, first, last, step = [*a[1:], *defaults[len(a) - 1 :]]
        sides = _sides(node.args[0])
        places = range(sides[axis])[slice(first, last, step)]
        return a[0] if len(places) == sides[axis] else self._picked(a[0], sides, axis, places)

    def _select(self, node: Any, a: list[Value]) -> str:
        sides, axis = _sides(node.args[0]), a[1] % len(_sides(node.args[0]))
        x = self._picked(a[0], sides, axis, [a[2] % sides[axis]])
        self._count += 1
        return self._graph.node("Reshape", [x, self._shape(_sides(node))], f"reshape{self._count}")

    def _split(self, node: Any, a: list[Value]) -> tuple[str, ...]:
        axis, ends = a[2] if len(a) > 2 else 0, np.cumsum(a[1]).tolist()
        sides = _sides(node.args[0])
        return tuple(
            self._picked(a[0], sides, axis, range(end - size, end)) for end, size in zip(ends, a[1], strict=True)
        )

    def _attention(self, node: Any, a: list[Value]) -> str:
        query, key, value = a[:3]
        if len(a) > 3 and any(one not in (None, 0.0, False) for one in a[3:6]):
            raise UnknownOperationError("an attention with a mask")
        sides = _sides(node.args[0])
        scale = node.kwargs.get("scale") or sides[-1] ** -0.5
        order = [*range(len(sides) - 2), len(sides) - 1, len(sides) - 2]
        scores = self._node("MatMul", [self._node("Mul", [query, float(scale)]), self._transposed(key, order)])
        return self._node("MatMul", [self._node("Softmax", [scores], {"axis": -1}), value])


def _flat(values: Any) -> list[Any]:
    return [one for value in values for one in (_flat(value) if isinstance(value, (list, tuple)) else [value])]


def _of_no_picture(node: Any) -> bool:
    """Return whether a node makes its values of shapes alone."""
    return str(node.target).removeprefix("aten.").partition(".")[0] in ("full", "full_like", "zeros", "ones", "arange")


def _sides(node: Any) -> list[int]:
    return [int(side) for side in node.meta["val"].shape]


def _is_pooled(sides: Sequence[int]) -> bool:
    """Return whether a tensor has one value a channel: its shape is the same at every size."""
    return len(sides) <= 2 or all(side == 1 for side in sides[2:])
