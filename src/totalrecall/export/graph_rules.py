"""What an exported graph may hold: a file from a stranger is checked before a runtime sees a byte of it.

The rules are those of a backbone (`backbones.graph_check`), and the operators that the rest of the graph is made of.
Some take indices that the graph computes; OpenVINO fills with zeros what lies outside. There are still no subgraphs, no
functions, no external files, and no operator that writes where an index says.
"""

from typing import Any

from totalrecall.backbones.graph_check import OPERATORS, GraphRules, Rule, check_graph
from totalrecall.errors import BackboneError, ModelFileError

__all__ = ["LARGEST_FILE", "check_exported", "check_sizes"]

LARGEST_FILE = 2_000_000_000  # bytes; ONNX's own limit is 2^31
_MOST_NUMBERS = 1 << 33  # computed for one picture, all nodes together: 32 GB, of which a fraction is held at a time
_NUMBER_TYPES = (1, 2, 6, 7, 9, 10)  # float, uint8, int32, int64, bool, half


def _int(*allowed: int) -> Rule:
    return lambda one: one.kind == 2 and one.whole in allowed


def _text(*allowed: bytes) -> Rule:
    return lambda one: one.kind == 3 and one.text in allowed


_AXIS = _int(*range(-8, 8))
_TWO: tuple[int, int, dict[str, Rule]] = (2, 2, {})
_REDUCE: tuple[int, int, dict[str, Rule]] = (
    1,
    2,
    {
        "axes": lambda one: one.kind == 7 and len(one.wholes) == 1,
        "keepdims": _int(0, 1),
        "noop_with_empty_axes": _int(0),
    },
)
_OPERATORS: dict[str, tuple[int, int, Any]] = {
    **OPERATORS,
    "Cast": (1, 1, {"to": _int(*_NUMBER_TYPES), "saturate": _int(0, 1)}),
    "Shape": (1, 1, {}),
    "Gather": (2, 2, {"axis": _AXIS}),
    "Range": (3, 3, {}),
    "Where": (3, 3, {}),
    **dict.fromkeys(("Greater", "Less", "Equal", "And", "Min", "Max"), _TWO),
    **dict.fromkeys(("Floor", "Round", "Abs"), (1, 1, {})),
    "Slice": (3, 5, {}),
    "Pad": (2, 3, {"mode": _text(b"constant", b"edge")}),
    "Resize": (
        4,
        4,
        {"mode": _text(b"linear"), "coordinate_transformation_mode": _text(b"half_pixel"), "antialias": _int(0)},
    ),
    "TopK": (2, 2, {"axis": _AXIS, "largest": _int(0, 1), "sorted": _int(0, 1)}),
    "ArgMax": (1, 1, {"axis": _AXIS, "keepdims": _int(0, 1), "select_last_index": _int(0)}),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceSum"), _REDUCE),
}
_RULES = GraphRules(
    operators=_OPERATORS,
    image="picture",
    weights={1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 10: 2},
    computed=True,
    outputs={"TopK": 2},
    advice="Export the model again: totalrecall export MODEL --to onnx -o FILE",
)


def check_exported(graph: bytes, origin: str) -> None:
    """Refuse a serialized graph that holds anything but what an export writes.

    Raises:
        ModelFileError: says what.
    """
    try:
        check_graph(graph, origin, _RULES)
    except BackboneError as error:
        raise ModelFileError(str(error)) from None


def check_sizes(model: Any, origin: str, height: int, width: int, *, batch: int = 1) -> None:
    """Refuse a graph that computes more numbers for a picture than any model of ours.

    Args:
        model: as OpenVINO read it; its shape is changed.
        origin: what to call it in an error.
        height, width: of the picture.
        batch: number of pictures at once.

    Raises:
        ModelFileError: it does, or OpenVINO cannot say.
    """
    try:
        model.reshape([batch, height, width, 3])
        total = 0
        for node in model.get_ordered_ops():
            for output in node.outputs():
                shape = output.get_partial_shape()
                size = 1
                for side in shape:
                    size *= side.get_length() if side.is_static else max(height, width)
                total += size
        if total > _MOST_NUMBERS:
            raise ValueError(f"it computes {total:,} numbers for a picture of {width} x {height}")
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"{origin} has a graph that Total Recall refuses to run: {reason}. Export it again."
        ) from None
