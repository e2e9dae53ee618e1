"""What a model file may hold: keys of the header with their types and ranges, tensors with their types and shapes.

`check_layout` looks at the header and at what the file says of its tensors, before one of them is read; `check_values`
at their numbers. What only a detector can tell, such as the grid that its backbone gives, it checks in `_restored`.

Shapes are written in symbols: each stands for one number in the whole file, p for the pictures that the header lists.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from totalrecall.detectors import members
from totalrecall.detectors.model_file import Layout
from totalrecall.errors import ModelFileError

__all__ = ["DAMAGE", "check_kind", "check_layout", "check_layout_if_known", "check_values", "is_name", "reason_of"]

# what building a detector of a header and tensors may raise where they are damaged; the others are faults of ours
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)

_LARGEST = 1 << 53  # of whole numbers: JSON of other programs has no larger ones
_SIDE, _PIXELS = 1 << 20, 1 << 30  # of a picture
_FARTHEST = 1e15  # of features: squares of them, and their sums, must be finite in float32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # of a backbone: never the path of a file


def reason_of(error: Exception) -> str:
    """Return in words, on one line, what a damaged part made an exception of."""
    if isinstance(error, KeyError):
        return f"{error.args[0] if error.args else 'a part'} is missing"
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


# ---------------------------------------------------------------------- the header

Rule = Callable[[Any], bool]


def _whole(least: int, most: int = _LARGEST) -> Rule:
    return lambda value: type(value) is int and least <= value <= most


def _number(least: float, most: float) -> Rule:
    # a whole number of 400 digits is compared, and never made a float; nan compares with nothing
    return lambda value: type(value) in (int, float) and least <= value <= most


def _or_none(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 1 << 16


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _list_of(rule: Rule, most: int) -> Rule:
    return lambda value: isinstance(value, list) and len(value) <= most and all(map(rule, value))


def is_name(value: Any) -> bool:
    """Tell whether it is the name of a backbone, and no path: a model names no file that would be opened."""
    return isinstance(value, str) and bool(_NAME.fullmatch(value)) and not value.endswith(".onnx")


_POSITIVE = _whole(1)
_OPTIONAL = _or_none(_POSITIVE)
_FINITE = _number(-1e300, 1e300)

# Keys that must be there; where `?` ends one it may be absent. What else is there the detector must refuse.
_HEADER: dict[str, dict[str, Rule]] = {
    "settings": {
        "backbone": is_name,
        "layers": _list_of(_whole(0, 99), 100),
        "false_alarm_rate": _number(0, 1),
        "holdout": _number(0, 1),
        "min_area": _POSITIVE,
        "precision": _text,
        "seed": _whole(0),
        "coreset?": _number(0, 1),
        "at_least?": _POSITIVE,
        "subsampling?": _text,
        "patch_size?": _whole(1, 1 << 12),
        "stride?": _whole(1, 1 << 12),
        "descriptor?": _text,
        "scoring?": _text,
        "neighbours?": _POSITIVE,
        "projection?": _OPTIONAL,
        "folds?": _OPTIONAL,
        "ignore_outliers?": _flag,
        "coreset_radius?": _number(0, 1e300),
        "new_parts?": _flag,
        "dimensions?": _OPTIONAL,
    },
    "recipe": {
        "size": _whole(32, 4096),
        "resize": _text,
        "crop": _OPTIONAL,
        "tile?": _whole(1, 16),
        "bit_depth?": _or_none(_whole(8, 16)),
        "bit_shift?": _whole(0, 8),
        "eight_bit?": _flag,
    },
    "calibration?": {
        "folds?": _POSITIVE,
        "parts?": _or_none(_whole(0)),
        "shown_by?": _whole(0),
        "new_parts?": _flag,
        "threshold?": _FINITE,
        "pixel_threshold?": _FINITE,
    },
    "backbone": {"name": is_name, "sha256": _text},
    "search?": {"levels": _list_of(_whole(1, 1 << 20), 2)},
    "coreset?": {"radius": _number(0, 1e300), "pictures": _whole(0)},
    "capability?": {
        "when": _text,
        "library": _text,
        "threshold": _FINITE,
        "good": _POSITIVE,
        "per_size": _POSITIVE,
        "seed": _whole(0),
        "kinds": _list_of(lambda value: isinstance(value, dict), 1 << 10),
    },
    "tuning?": {"rows": _list_of(lambda value: isinstance(value, dict), 1 << 10)},
    "taught?": {"threshold": _FINITE, "by?": lambda value: value in ("taught", "given")},
}
_PICTURE: dict[str, Rule] = {"path": _text, "sha256": _text, "height": _whole(1, _SIDE), "width": _whole(1, _SIDE)}
_PICTURE |= {"grey?": _flag}
_STEP: dict[str, Rule] = {
    "what": lambda value: value in ("add", "remove", "teach", "threshold"),
    "when": _text,
    "library": _text,
    "pictures": _list_of(lambda value: isinstance(value, dict), _LARGEST),
    "vectors": _list_of(_whole(0), 2),
    "threshold": _list_of(_or_none(_FINITE), 2),
}
_LISTED_PICTURE: dict[str, Rule] = {
    "path": _text,
    "sha256": _text,
    "vectors?": _whole(0),
    "score?": _or_none(_FINITE),
}


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _places(value: Any) -> bool:
    """Tell whether it is, of each list that lost entries, pairs of an ascending place and an entry."""
    return isinstance(value, dict) and all(
        isinstance(pairs, list)
        and all(isinstance(pair, list) and len(pair) == 2 and _whole(0)(pair[0]) for pair in pairs)
        for pairs in value.values()
    )


def _lengths(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_whole(0), value.values()))


_FORMER: dict[str, Rule] = {
    "drop": _names,
    "put": lambda value: isinstance(value, dict),
    "cut": _lengths,
    "insert": _places,
    "drop_tensors": _names,
    "cut_tensors": _lengths,
}


_LIMIT: dict[str, Rule] = {
    "size": _or_none(_number(0, 1e300)),
    "relation": lambda value: value in ("=", "<=", ">", "none"),
}
_PLANTED: dict[str, Rule] = {
    "kind": _text,
    "contrast": _or_none(_number(0, 1)),
    "planted": _whole(0),
    "hits": _whole(0),
    "a90": _or_none(lambda value: isinstance(value, dict)),
    "a90_95": _or_none(lambda value: isinstance(value, dict)),
}


_TRIED: dict[str, Rule] = {
    "changes": lambda value: isinstance(value, dict) and len(value) <= 1 << 6,
    "found": _whole(0),
    "planted": _whole(0),
    "false_alarms": _whole(0),
    "good": _whole(0),
    **dict.fromkeys(("share", "milliseconds", "better", "error"), _FINITE),
    "chosen": _flag,
    "note": _text,
}


def _check_keys(where: str, value: Any, rules: Mapping[str, Rule]) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is missing or no JSON object")
    for key, rule in rules.items():
        name = key.removesuffix("?")
        if name not in value:
            if name is key:
                raise ValueError(f"{where}.{name} is missing")
        elif not rule(value[name]):
            raise ValueError(f"{where}.{name} is {str(value[name])[:40]!r}")


def _check_header(header: Mapping[str, Any]) -> None:
    for key, rules in _HEADER.items():
        name = key.removesuffix("?")
        if name in header or name is key:
            _check_keys(name, header.get(name), rules)
    if not _text(header.get("library")):
        raise ValueError(f"library is {str(header.get('library'))[:40]!r}")
    pictures = header.get("pictures")
    if not isinstance(pictures, list) or not pictures:
        raise ValueError("pictures is missing or no list of any")
    for at, picture in enumerate(pictures):
        _check_keys(f"pictures[{at}]", picture, _PICTURE)
        if picture["height"] * picture["width"] > _PIXELS:
            raise ValueError(f"pictures[{at}] is of {picture['width']} x {picture['height']} pixels")
    for at, planted in enumerate(header.get("capability", {}).get("kinds", [])):
        _check_keys(f"capability.kinds[{at}]", planted, _PLANTED)
        for name in ("a90", "a90_95"):
            if planted[name] is not None:
                _check_keys(f"capability.kinds[{at}].{name}", planted[name], _LIMIT)
    for at, row in enumerate(header.get("tuning", {}).get("rows", [])):
        _check_keys(f"tuning.rows[{at}]", row, _TRIED)
    calibration = header.get("calibration", {})
    if (calibration.get("parts") or 0) > calibration.get("shown_by", 0):
        raise ValueError(f"calibration.parts is {calibration['parts']}, more than pictures")
    if "coreset" in header and header["coreset"]["pictures"] > len(pictures):
        raise ValueError(f"coreset.pictures is {header['coreset']['pictures']}, more than there are")
    _check_history(header.get("history", []))


def _check_history(history: Any) -> None:
    if not isinstance(history, list):
        raise ValueError("history is no list")
    for at, step in enumerate(history):
        where = f"history[{at}]"
        _check_keys(where, step, _STEP)
        if len(step["vectors"]) != 2 or len(step["threshold"]) != 2:
            raise ValueError(f"{where}.vectors or threshold is no pair")
        for number, picture in enumerate(step["pictures"]):
            _check_keys(f"{where}.pictures[{number}]", picture, _LISTED_PICTURE)
        _check_keys(f"{where}.former", step.get("former"), _FORMER)


# ---------------------------------------------------------------------- the tensors

Shape = tuple[str | int, ...]

_COMMON: dict[str, tuple[str, Shape]] = {
    "calibration.scores": ("float64", ("n",)),
    "calibration.peaks": ("float64", ("n",)),
    "calibration.pictures?": ("int32", ("n",)),
    "drift.values?": ("float64", ("watched", 8)),
    "drift.mean?": ("float32", (32, 32)),
    "recipe.roi?": ("uint8", ("roi rows", "roi columns")),
    "backbone.graph?": ("uint8", ("bytes",)),
    "extents.place?": ("float32", ("extent rows", "extent columns")),
    "extents.means?": ("float64", ("shares",)),
    "extents.deviations?": ("float64", ("shares",)),
}
_OWN: dict[str, dict[str, tuple[str, Shape]]] = {
    "patchcore": {
        "bank.vectors": ("float32", ("m", "d")),
        "bank.origin": ("int32", ("m", 3)),
        "bank.basis?": ("float32", ("d", "r")),
        "evidence.pictures?": ("int32", ("e",)),
        "evidence.scores?": ("float64", ("e",)),
        "evidence.peaks?": ("float64", ("e",)),
        "evidence.grids?": ("float16", ("e", "rows", "columns")),
        "evidence.vectors?": ("float16", ("e", "k", "d")),
        "evidence.cells?": ("int32", ("e", "k")),
        "evidence.distances?": ("float32", ("e", "k")),
    },
    "padim": {
        "gaussians.count": ("int32", (1,)),
        "gaussians.channels": ("int32", ("d",)),
        "gaussians.mean": ("float64", ("positions", "d")),
        "gaussians.scatter": ("float32", ("positions", "triangle")),
        "gaussians.joined?": ("float32", ("joined", "positions", "d")),
        "gaussians.left?": ("float32", ("left", "positions", "d")),
    },
    "spade": {
        **{f"gallery.layer{at}?": ("float32", ("p", f"h{at}", f"w{at}", f"c{at}")) for at in range(1, 10)},
        "gallery.pooled": ("float32", ("p", "c")),
        "gallery.inside?": ("uint8", ("p", "rows", "columns")),
    },
    members.KIND: {"joined.scales": ("float64", ("members",))},
}
_TOGETHER = (
    {"drift.values", "drift.mean"},
    {name.removesuffix("?") for name in _OWN["patchcore"] if name.startswith("evidence.")},
    {name.removesuffix("?") for name in _COMMON if name.startswith("extents.")},
)
_MAY_BE_EMPTY = {"n", "watched", "e", "k", "joined", "left", "r"}
_KEPT = re.compile(r"history\.(0|[1-9][0-9]{0,4})\.(whole|rows|at)\.(.+)")


def check_kind(header: Mapping[str, Any], kind: str, other: str) -> None:
    """Refuse a model of another kind.

    Args:
        header: of the file.
        kind: that it should be of.
        other: what is said of another; `{}` stands for its name.

    Raises:
        ModelFileError: it is of another kind.
        ValueError: it says none.
    """
    found = header.get("kind")
    if isinstance(found, str) and found != kind:
        raise ModelFileError(other.format(found[:40]))
    if found != kind:
        raise ValueError("kind is missing or no text")


def check_layout(header: Mapping[str, Any], layout: Layout) -> None:
    """Refuse a header that no version wrote, and tensors that do not fit it or each other, by their types and shapes.

    Args:
        header: of a kind that is known.
        layout: of each tensor, its type and shape.

    Raises:
        ValueError: says which key or tensor, and what is wrong with it.
    """
    _check_header(header)
    expected = {**_COMMON, **_OWN[header["kind"]]}
    sizes: dict[str, int] = {"p": len(header["pictures"])}
    by = {"p": "pictures"}
    if header["kind"] == members.KIND:
        parts, layout = members.apart(header, layout)
        sizes["members"], by["members"] = len(parts), "members"
        expected = {name: what for name, what in expected.items() if not name.startswith("extents.")}  # of a member
        _of_each(parts, check_layout)
    for key, (kind, shape) in expected.items():
        name = key.removesuffix("?")
        if name in layout:
            _check_shape(name, layout[name], kind, shape, sizes, by)
        elif name is key:
            raise ValueError(f"{name} is missing")
    known = {key.removesuffix("?") for key in expected}
    for group in _TOGETHER:
        missing = (group & known) - layout.keys()
        if missing and group & layout.keys():
            raise ValueError(f"{min(missing)} is missing")
    for name in layout:
        if name not in known:
            _check_kept(name, layout, len(header.get("history", [])))
    d = sizes.get("d", 0)
    if "triangle" in sizes and sizes["triangle"] != d * (d + 1) // 2:
        raise ValueError("gaussians.scatter is of another shape than gaussians.mean")


def _of_each(parts: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], check: Callable[..., None]) -> None:
    """Check each member of a model that holds several.

    Raises:
        ValueError: as the check does, with the member's number before it.
    """
    for at, part in enumerate(parts):
        _of_one(f"members[{at}]", part, check)


def _of_one(where: str, part: tuple[Mapping[str, Any], Mapping[str, Any]], check: Callable[..., None]) -> None:
    try:
        check(*part)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def check_layout_if_known(header: Mapping[str, Any], layout: Layout) -> bool:
    """Do as `check_layout` for a kind that this version knows, and tell whether it is one.

    Raises:
        ValueError: as for `check_layout`, or the kind or the history is none at all.
    """
    if not isinstance(header.get("kind"), str):
        raise ValueError("kind is missing or no text")
    if header["kind"] in _OWN:
        check_layout(header, layout)
        return True
    _check_history(header.get("history", []))
    return False


def _check_shape(
    name: str,
    found: tuple[np.dtype[Any], tuple[int, ...]],
    kind: str,
    shape: Shape,
    sizes: dict[str, int],
    by: dict[str, str],
) -> None:
    """Compare one tensor with what it should be; symbols that were not met yet get their size."""
    dtype, got = found
    if dtype.name != kind:
        raise ValueError(f"{name} is of {dtype.name}, not {kind}")
    if len(got) != len(shape):
        raise ValueError(f"{name} has {len(got)} axes, not {len(shape)}")
    for size, symbol in zip(got, shape, strict=True):
        wanted = symbol if isinstance(symbol, int) else sizes.setdefault(symbol, size)
        if size != wanted:
            other = by[symbol] if isinstance(symbol, str) else "it should be"
            raise ValueError(f"{name} is of shape {got}, but {other} has {wanted}".replace("be has", "be"))
        if size < 1 and symbol not in _MAY_BE_EMPTY:
            raise ValueError(f"{name} is empty")
        if isinstance(symbol, str):
            by.setdefault(symbol, name)


def _check_kept(name: str, layout: Layout, steps: int) -> None:
    """Check that a tensor is one that a step of the history keeps, and has the other that it needs."""
    match = _KEPT.fullmatch(name)
    if match is None or int(match[1]) >= steps:
        raise ValueError(f"{name[:80]} is no tensor of such a model")
    dtype, shape = layout[name]
    if match[2] == "whole":
        return
    other = f"history.{match[1]}.{'at' if match[2] == 'rows' else 'rows'}.{match[3]}"
    if other not in layout or not shape or layout[other][1][:1] != shape[:1]:
        raise ValueError(f"{name[:80]} and {other[:80]} do not belong together")
    if match[2] == "at" and (dtype != np.int32 or len(shape) != 1):
        raise ValueError(f"{name[:80]} is no list of places")


def check_values(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Refuse numbers that no fit gives: nan and infinity, distances below zero, places outside.

    Raises:
        ValueError: says in which tensor.
    """
    if header["kind"] == members.KIND:
        parts, tensors = members.apart(header, tensors)
        _of_each(parts, check_values)
    pictures = len(header["pictures"])
    for name, tensor in tensors.items():
        if name.startswith("history.") or tensor.dtype.kind != "f" or not tensor.size:
            continue
        if name == "drift.mean" and np.isnan(tensor).any():  # outside the region of interest
            tensor = tensor[~np.isnan(tensor)]
        low, high = (float(bound(tensor, initial=0)) for bound in (np.min, np.max))  # nan where any is
        if not -_FARTHEST < low <= high < _FARTHEST:
            raise ValueError(f"{name} holds nan, infinity or what is farther than any feature")
        if low < 0 and name in _NEVER_BELOW_0:
            raise ValueError(f"{name} holds a distance below 0")
    which = tensors.get("calibration.pictures")
    if which is not None and len(which) and (np.diff(which) < 1).any():
        raise ValueError("calibration.pictures is not ascending")
    if which is not None and len(which) and not 0 <= which[0] <= which[-1] < pictures:
        raise ValueError("calibration.pictures names a picture that is not listed")
    if len(tensors["calibration.scores"]) > pictures:
        raise ValueError("calibration.scores are more than the pictures")


_NEVER_BELOW_0 = {"calibration.scores", "calibration.peaks"}
_NEVER_BELOW_0 |= {"evidence.scores", "evidence.peaks", "evidence.grids", "evidence.distances"}
