"""What an ONNX graph may hold, found out before OpenVINO sees a byte of it.

A graph may come from a stranger, inside a model file or as an .onnx file, and is run by native code: an index out of
range in a ScatterND ended the process. So the file is read here, strictly: every field must be one that is known, at
most once where it is one, and only these are taken: the operators that the builders of this library write and their
like, of ONNX's own domain, with sane attributes; weights that lie in the file, as long as their shapes say. There are
no subgraphs, functions, external files, and no operator that takes indices. How large what it computes becomes is told
by OpenVINO's shapes: `check_activations`.

The onnx package reads more than that (it merges what stands twice, and skips what it does not know), takes 0.2 s to
import at every start, and copies the weights.
"""

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from totalrecall.errors import BackboneError

__all__ = ["OPERATORS", "GraphRules", "Rule", "check_activations", "check_graph", "fields"]

Value: TypeAlias = int | memoryview
Message: TypeAlias = dict[int, list[Value]]

_MOST_NODES = 10_000
_OPSETS = range(7, 24)
_LONGEST_NAME = 1000
_WIDEST = 4096  # of kernels, strides, dilations and padding
_WIDEST_POOL = 31  # its work grows with the square of it, and no weights in the file stand for that
_LARGEST_SIDE = 1 << 24  # of a tensor
_PER_PIXEL, _ALL_PER_PIXEL = 512, 16_384  # numbers computed a pixel, by one node and all; ResNet-152 takes 16 and 1,000
_ALWAYS = 1 << 22  # numbers that are no matter how few pixels
_FLOAT, _UINT8, _INT8, _INT32, _INT64, _HALF = 1, 2, 3, 6, 7, 10
_BYTES = {_FLOAT: 4, _UINT8: 1, _INT8: 1, _INT32: 4, _INT64: 8, _HALF: 2}  # of a number in weights

# Fields by number: the kind on the wire (0 whole number, 2 text or message, 5 four bytes); with a `+`, several times.
_Fields: TypeAlias = dict[int, str]
_MODEL: _Fields = {1: "0", 2: "2", 3: "2", 4: "2", 5: "0", 6: "2", 7: "2", 8: "2+", 14: "2+"}
_OPSET: _Fields = {1: "2", 2: "0"}
_GRAPH: _Fields = {1: "2+", 2: "2", 5: "2+", 10: "2", 11: "2+", 12: "2+", 13: "2+", 16: "2+"}
_NODE: _Fields = {1: "2+", 2: "2+", 3: "2", 4: "2", 5: "2+", 6: "2", 7: "2", 9: "2+"}
_ATTRIBUTE: _Fields = {1: "2", 2: "5", 3: "0", 4: "2", 5: "2", 7: "n+", 8: "n+", 13: "2", 20: "0"}
_TENSOR: _Fields = {1: "n+", 2: "0", 8: "2", 9: "2", 12: "2", 14: "0"}
_VALUE_INFO: _Fields = {1: "2", 2: "2", 3: "2"}
_TYPE: _Fields = {1: "2"}
_TENSOR_TYPE: _Fields = {1: "0", 2: "2"}
_SHAPE: _Fields = {1: "2+"}
_NOTE: _Fields = {1: "2", 2: "2"}
_DIMENSION: _Fields = {1: "0", 2: "2", 3: "2"}
# fields that are refused by name, since that says more than a number
_REFUSED = {
    id(_MODEL): {20: "training information", 25: "functions", 26: "a configuration"},
    id(_GRAPH): {14: "quantization annotations", 15: "sparse weights"},
    id(_NODE): {8: "an overload"},
    id(_ATTRIBUTE): {6: "a subgraph", 11: "subgraphs", 10: "tensors", 22: "sparse weights", 21: "a reference"},
    id(_TENSOR): {13: "external data", 4: "weights that are not raw_data", 5: "weights that are not raw_data"}
    | dict.fromkeys((6, 7, 10, 11), "weights that are not raw_data"),
}

Rule: TypeAlias = Callable[["_Attribute"], bool]


@dataclass(frozen=True)
class _Attribute:
    """One setting of a node; `kind` is ONNX's number: 1 float, 2 int, 3 text, 4 tensor, 6 floats, 7 ints."""

    kind: int
    number: float
    whole: int
    text: bytes
    wholes: Sequence[int]


def _int(least: int, most: int) -> Rule:
    return lambda one: one.kind == 2 and least <= one.whole <= most


def _ints(least: int, most: int, longest: int = 8) -> Rule:
    return lambda one: one.kind == 7 and len(one.wholes) <= longest and all(least <= v <= most for v in one.wholes)


def _float(one: _Attribute) -> bool:
    return one.kind == 1 and abs(one.number) < 1e6  # false for nan, too


def _one_of(*texts: bytes) -> Rule:
    return lambda one: one.kind == 3 and one.text in texts


_AXIS, _AXES = _int(-8, 7), _ints(-8, 7)
_PADDING = {"pads": _ints(0, _WIDEST), "auto_pad": _one_of(b"NOTSET", b"SAME_UPPER", b"SAME_LOWER", b"VALID")}
_WINDOW = {name: _ints(1, _WIDEST) for name in ("kernel_shape", "strides", "dilations")} | _PADDING
_POOL = {**_WINDOW, "kernel_shape": _ints(1, _WIDEST_POOL), "ceil_mode": _int(0, 1), "dilations": _ints(1, 1)}
_NONE: dict[str, Rule] = {}

# Each operator with the fewest and the most inputs, and its attributes. `docs/reference/backbones.md` lists them.
OPERATORS: dict[str, tuple[int, int, dict[str, Rule]]] = {
    # what the builders of this library write
    "Cast": (1, 1, {"to": lambda one: one.kind == 2 and one.whole in (_FLOAT, _HALF), "saturate": _int(0, 1)}),
    "Conv": (2, 3, {**_WINDOW, "group": _int(1, 1 << 16)}),
    "Relu": (1, 1, _NONE),
    "Add": (2, 2, _NONE),
    "Sub": (2, 2, _NONE),
    "Mul": (2, 2, _NONE),
    "MaxPool": (1, 1, {**_POOL, "storage_order": _int(0, 0)}),
    "Transpose": (1, 1, {"perm": _ints(0, 7)}),
    "Clip": (1, 3, _NONE),
    "Div": (2, 2, _NONE),
    "Sqrt": (1, 1, _NONE),
    "Erf": (1, 1, _NONE),
    "Softmax": (1, 1, {"axis": _AXIS}),
    "MatMul": (2, 2, _NONE),
    "ReduceMean": (1, 2, {"axes": _AXES, "keepdims": _int(0, 1), "noop_with_empty_axes": _int(0, 0)}),
    "LayerNormalization": (2, 3, {"axis": _AXIS, "epsilon": _float, "stash_type": _int(1, 1)}),
    "Concat": (1, 256, {"axis": _AXIS}),
    "Reshape": (2, 2, {"allowzero": _int(0, 0)}),
    # what other convolutional networks and transformers, as timm has them, are made of besides
    "Pow": (2, 2, _NONE),
    "Exp": (1, 1, _NONE),
    "Tanh": (1, 1, _NONE),
    "Sigmoid": (1, 1, _NONE),
    "HardSigmoid": (1, 1, {"alpha": _float, "beta": _float}),
    "HardSwish": (1, 1, _NONE),
    "LeakyRelu": (1, 1, {"alpha": _float}),
    "PRelu": (2, 2, _NONE),
    "Elu": (1, 1, {"alpha": _float}),
    "Gelu": (1, 1, {"approximate": _one_of(b"none", b"tanh")}),
    "Identity": (1, 1, _NONE),
    "Gemm": (2, 3, {"alpha": _float, "beta": _float, "transA": _int(0, 1), "transB": _int(0, 1)}),
    "AveragePool": (1, 1, {**_POOL, "count_include_pad": _int(0, 1)}),
    "GlobalAveragePool": (1, 1, _NONE),
    "BatchNormalization": (5, 5, {"epsilon": _float, "momentum": _float, "training_mode": _int(0, 0)}),
    "Flatten": (1, 1, {"axis": _AXIS}),
    "Squeeze": (1, 2, {"axes": _AXES}),
    "Unsqueeze": (1, 2, {"axes": _AXES}),
    # what a graph of 8 bits has besides (`backbones.quantize`): each number as a whole one times a scale, and back
    "QuantizeLinear": (3, 3, {"axis": _AXIS}),
    "DequantizeLinear": (3, 3, {"axis": _AXIS}),
}


@dataclass(frozen=True)
class GraphRules:
    """What a graph of some sort may hold.

    Attributes:
        operators: each with the fewest and the most inputs, and its attributes.
        image: name of the one input, uint8 (n, height, width, 3).
        weights: ONNX's number of each type of weights that is allowed, with its bytes.
        computed: whether shapes may be computed, and weights alone go through any operator.
        outputs: of operators that have more than one.
        advice: what to do when a graph is refused.
    """

    operators: Mapping[str, tuple[int, int, Mapping[str, Rule]]]
    image: str
    weights: Mapping[int, int]
    computed: bool
    outputs: Mapping[str, int]
    advice: str


_BACKBONE = GraphRules(
    operators=OPERATORS,
    image="images",
    weights=_BYTES,
    computed=False,
    outputs={},
    advice="Take another file, or build it from weights: totalrecall backbones add NAME --weights FILE",
)
# they make nothing larger than float32
_FROM_WEIGHTS = {"Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "DequantizeLinear"}
# their second input is a shape, or a scale with its zero point behind it
_WEIGHTS_SECOND = {"Reshape", "ReduceMean", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear"}


def check_graph(graph: bytes, origin: str, rules: GraphRules = _BACKBONE) -> None:
    """Refuse a serialized ONNX graph that holds anything but what is allowed: of a backbone, unless other rules say.

    Raises:
        BackboneError: says what.
    """
    try:
        _check_model(memoryview(graph), rules)
    except (ValueError, IndexError, struct.error, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200] or "it is damaged"
        raise BackboneError(
            f"{origin} has a graph that Total Recall refuses to run: {reason}. {rules.advice}"
        ) from None


def check_activations(sizes: Iterable[tuple[str, int]], pixels: int) -> None:
    """Refuse a graph that computes more numbers than any backbone does, once OpenVINO has worked out its shapes.

    Args:
        sizes: of each node, its name and how many numbers it gives.
        pixels: of the picture.

    Raises:
        ValueError: says which node.
    """
    total = 0
    for name, size in sizes:
        total += size
        if size > _PER_PIXEL * pixels + _ALWAYS or total > _ALL_PER_PIXEL * pixels + 8 * _ALWAYS:
            raise ValueError(f"{name[:80]} computes {size:,} numbers, all up to it {total:,}, more than any backbone")


# ---------------------------------------------------------------------- the wire


def fields(message: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yield number, kind on the wire, and value of each outermost field of a protobuf message.

    Raises:
        ValueError, IndexError: it is none.
    """
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        value: Value
        if kind == 0:
            value, position = _varint(message, position)
        elif kind in (1, 2, 5):  # 64 bits, length-delimited, 32 bits
            length = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        else:
            raise ValueError("not a protobuf message")
        if number == 0 or position > len(message):
            raise ValueError("not a protobuf message")
        yield number, kind, value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, position
    raise ValueError("not a protobuf message")


def _read(message: Value, known: _Fields, what: str) -> Message:
    """Return the fields of a message by number, once all of them are known and none stands too often."""
    assert isinstance(message, memoryview)
    found: Message = {}
    for number, kind, value in fields(message):
        rule = known.get(number)
        if rule is None:
            raise ValueError(f"{what} has {_REFUSED.get(id(known), {}).get(number, f'an unknown field {number}')}")
        if kind != int(rule[0]) if rule[0] != "n" else kind not in (0, 2, 5):
            raise ValueError(f"{what} has field {number} in another format")
        if number in found and not rule.endswith("+"):
            raise ValueError(f"{what} has field {number} twice")
        found.setdefault(number, []).append(value)
    return found


def _text(message: Message, number: int) -> str:
    value = message.get(number, [memoryview(b"")])[0]
    return _name(value)


def _name(value: Value) -> str:
    assert isinstance(value, memoryview)
    if len(value) > _LONGEST_NAME:
        raise ValueError(f"a name of {len(value)} letters, allowed are {_LONGEST_NAME}")
    return str(value, "utf-8")


def _number(message: Message, number: int, default: int = 0) -> int:
    value = message.get(number, [default])[0]
    assert isinstance(value, int)
    return _signed(value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _numbers(message: Message, number: int) -> list[int]:
    """Return whole numbers, each a field of its own or packed into one."""
    found: list[int] = []
    for value in message.get(number, []):
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        position = 0
        while position < len(value):
            one, position = _varint(value, position)
            found.append(_signed(one))
            if len(found) > 64:
                raise ValueError("a list of more than 64 numbers")
    return found


# ---------------------------------------------------------------------- what the messages say


def _check_model(data: memoryview, rules: GraphRules) -> None:
    model = _read(data, _MODEL, "the file")
    opsets = [_read(one, _OPSET, "an operator set") for one in model.get(8, [])]
    for opset in opsets:
        domain, version = _text(opset, 1), _number(opset, 2)
        if domain not in ("", "ai.onnx") or version not in _OPSETS:
            raise ValueError(f"operators of {domain or 'ONNX'!r}, version {version}, are not known")
    if len(opsets) != 1 or 7 not in model:
        raise ValueError("it has no operators, or several sets of them")
    _check_notes(model, 14)
    for number in (2, 3, 4):
        _text(model, number)
    _check_body(_read(model[7][0], _GRAPH, "the graph"), rules)


def _check_body(graph: Message, rules: GraphRules) -> None:
    weights: set[str] = set()
    for one in graph.get(5, []):
        name = _check_weights(one, rules)
        if name in weights:
            raise ValueError(f"the weights {name[:80]!r} stand twice")
        weights.add(name)
    if [_check_input(one, rules) for one in graph.get(11, [])] != [rules.image] or rules.image in weights:
        raise ValueError(_other_input(rules))
    nodes = graph.get(1, [])
    if len(nodes) > _MOST_NODES:
        raise ValueError(f"it has {len(nodes)} nodes, allowed are {_MOST_NODES}")
    made = {rules.image}
    for one in nodes:
        _check_node(_read(one, _NODE, "a node"), weights, made, rules)
    outputs = [_described(one)[0] for one in graph.get(12, [])]
    for one in graph.get(13, []):
        _described(one)
    _check_notes(graph, 16)
    given = made | weights if rules.computed else made
    if not outputs or len(set(outputs)) < len(outputs) or not given >= set(outputs):
        raise ValueError("one of its outputs is missing, or listed twice")


def _check_node(node: Message, weights: set[str], made: set[str], rules: GraphRules) -> None:
    """Check one node; what it gives joins the weights, if it is made of such alone, or else what was made."""
    kind, domain = _text(node, 4), _text(node, 7)
    if domain not in ("", "ai.onnx") or kind not in rules.operators:
        where = "" if domain in ("", "ai.onnx") else f" of {domain[:80]!r}"
        raise ValueError(f"the operator {kind[:80]!r}{where} is not among those that are allowed")
    _check_notes(node, 9)
    _text(node, 3)
    fewest, most, attributes = rules.operators[kind]
    inputs, outputs = ([_name(one) for one in node.get(number, [])] for number in (1, 2))
    if not fewest <= len(inputs) <= most or len(outputs) != rules.outputs.get(kind, 1):
        raise ValueError(f"{kind} has {len(inputs)} inputs and {len(outputs)} outputs")
    optional = {""} if kind in ("Clip", "Resize") else set()
    for name in inputs:
        if name not in weights and name not in made and name not in optional:
            raise ValueError(f"{kind} takes {name[:80]!r}, which nothing before it gives")
    if not rules.computed and kind in _WEIGHTS_SECOND and any(name not in weights for name in inputs[1:]):
        raise ValueError(f"{kind} takes a shape or a scale that is computed, not kept")
    for output in outputs:
        if not output or output in weights or output in made or outputs.count(output) > 1:
            raise ValueError(f"{kind} gives {output[:80]!r}, which is there already")
    seen: set[str] = set()
    for one in node.get(5, []):
        name, attribute = _attribute(one)
        if name in seen or name not in attributes or not attributes[name](attribute):
            raise ValueError(f"{kind} has an attribute {name[:40]!r} that is unknown or out of range")
        seen.add(name)
    if weights.issuperset(inputs):
        if not rules.computed and kind not in _FROM_WEIGHTS:
            raise ValueError(f"{kind} has no input that depends on the picture")
        weights.update(outputs)
    else:
        made.update(outputs)


def _attribute(data: Value) -> tuple[str, _Attribute]:
    message = _read(data, _ATTRIBUTE, "an attribute")
    kind = _number(message, 20)
    own = {1: 2, 2: 3, 3: 4, 6: 7, 7: 8}.get(kind)  # the field that such a value lies in
    if own is None or any(number in message for number in {2, 3, 4, 5, 7, 8} - {own}):
        raise ValueError(f"an attribute {_text(message, 1)[:40]!r} of a kind that no operator has")
    four = message.get(2, [memoryview(bytes(4))])[0]
    text = message.get(4, [memoryview(b"")])[0]
    assert isinstance(four, memoryview)
    assert isinstance(text, memoryview)
    (number,) = struct.unpack("<f", four)
    return _text(message, 1), _Attribute(kind, number, _number(message, 3), bytes(text[:100]), _numbers(message, 8))


def _check_weights(data: Value, rules: GraphRules) -> str:
    """Return the name of a tensor of weights once its bytes are as many as its shape says."""
    tensor = _read(data, _TENSOR, "weights")
    name, kind, shape = _text(tensor, 8), _number(tensor, 2), _numbers(tensor, 1)
    raw = tensor.get(9, [memoryview(b"")])[0]
    assert isinstance(raw, memoryview)
    if not name or kind not in rules.weights or len(shape) > 8 or _number(tensor, 14):
        raise ValueError(f"the weights {name[:80]!r} have no name, or another type than float, half, int or byte")
    if not all(1 <= side <= _LARGEST_SIDE for side in shape) or math.prod(shape) * rules.weights[kind] != len(raw):
        raise ValueError(f"the weights {name[:80]!r} hold {len(raw)} bytes, their shape says otherwise")
    return name


def _check_input(data: Value, rules: GraphRules) -> str:
    """Return the name of an input once it is uint8 (n, height, width, 3), the first three of any size."""
    name, kind, sides = _described(data)
    fixed = len(sides) == 4 and all(side == 0 or rules.computed for side in sides[:3])
    if kind != _UINT8 or not fixed or sides[3] != 3:
        raise ValueError(_other_input(rules))
    return name


def _other_input(rules: GraphRules) -> str:
    return f"its input is not {rules.image}, uint8 (n, height, width, 3), alone"


def _described(data: Value) -> tuple[str, int, list[int]]:
    """Return name, type and sides of what a graph says of a tensor; 0 of a side or type that it does not say."""
    nothing = memoryview(b"")
    info = _read(data, _VALUE_INFO, "a description")
    said = _read(info.get(2, [nothing])[0], _TYPE, "a type")
    kind = _read(said.get(1, [nothing])[0], _TENSOR_TYPE, "a type")
    shape = _read(kind.get(2, [nothing])[0], _SHAPE, "a shape")
    sides = [_read(one, _DIMENSION, "a side") for one in shape.get(1, [])]
    for side in sides:
        _text(side, 2)
    return _text(info, 1), _number(kind, 1), [_number(side, 1) for side in sides]


def _check_notes(message: Message, number: int) -> None:
    """Check notes about a message: pairs of texts, which nothing computes with."""
    for one in message.get(number, []):
        for value in (part for parts in _read(one, _NOTE, "a note").values() for part in parts):
            assert isinstance(value, memoryview)
            str(value, "utf-8")
