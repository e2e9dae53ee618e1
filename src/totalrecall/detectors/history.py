"""What was done to a model since its fit, and what it takes to undo that to the byte.

A model file is a JSON header and tensors. A step stores the difference: the former length of each list and tensor that
grew, the lost entries and their places of each that shrank, and the former value of everything else that changed. So
undoing gives the same header and tensors, and the same file, whatever the step did and whatever kind the model is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from totalrecall.detectors.model_file import Contents
from totalrecall.errors import ModelFileError, SettingError
from totalrecall.system.files import sha256

__all__ = ["Step", "last_step", "past_of", "steps_of", "undone", "with_step"]

_KEY = "history"
_ALWAYS_NEW = {"format", "sha256", "tensors", _KEY}  # of the header: what writing it puts there


@dataclass(frozen=True)
class Step:
    """One change of a model.

    Attributes:
        what: `add`, `remove`, `teach` or `threshold` (set at another rate, or by hand).
        when: in UTC, ISO 8601.
        library: version of Total Recall that did it.
        pictures: that joined or left: the path as given, the SHA-256, and how many vectors entered or left.
        vectors: number in the bank before and after; the number of pictures in a model without a bank.
        threshold: before and after; None where there was none.
    """

    what: str
    when: str
    library: str
    pictures: Sequence[dict[str, Any]]
    vectors: tuple[int, int]
    threshold: tuple[float | None, float | None]

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON types."""
        return {
            "what": self.what,
            "when": self.when,
            "library": self.library,
            "pictures": list(self.pictures),
            "vectors": list(self.vectors),
            "threshold": list(self.threshold),
        }


def steps_of(header: dict[str, Any]) -> list[Step]:
    """Return the steps of a model since its fit, the oldest first.

    Raises:
        KeyError, TypeError, ValueError: the header is not as `with_step` made it.
    """
    steps = []
    for entry in header.get(_KEY, []):
        (m, n), (low, high) = entry["vectors"], entry["threshold"]
        if entry["what"] not in ("add", "remove", "teach", "threshold") or not isinstance(entry["pictures"], list):
            raise ValueError(_KEY)
        steps.append(Step(entry["what"], entry["when"], entry["library"], entry["pictures"], (m, n), (low, high)))
    return steps


def last_step(contents: Contents) -> Step:
    """Return the last step of a model that has one, which `undone` takes back."""
    return steps_of(contents[0])[-1]


def past_of(contents: Contents) -> Contents:
    """Return the part of a model's contents that stores its history."""
    header, tensors = contents
    return (
        {_KEY: header[_KEY]} if _KEY in header else {},
        {name: tensor for name, tensor in tensors.items() if name.startswith(f"{_KEY}.")},
    )


def with_step(before: Contents, after: Contents, step: Step) -> Contents:
    """Return a model's new contents together with the step that led there, which `undone` takes back.

    Args:
        before: the contents, with the steps so far.
        after: the new contents; steps in them are ignored.
        step: a description of the change.
    """
    header, tensors = _own(after)
    history = [*before[0].get(_KEY, [])]
    kept = {name: tensor for name, tensor in before[1].items() if name.startswith(f"{_KEY}.")}
    former, parts = _difference(_own(before), (header, tensors))
    kept.update({f"{_KEY}.{len(history)}.{name}": part for name, part in parts.items()})
    return {**header, _KEY: [*history, {**step.to_json(), "former": former}]}, {**tensors, **kept}


def undone(contents: Contents) -> Contents:
    """Return a model's contents without its last step.

    Raises:
        SettingError: there is none.
        ModelFileError: what the step kept does not fit the model.
    """
    history = contents[0].get(_KEY, [])
    if not history:
        raise SettingError("There is nothing to undo: the model is as it was fitted.")
    prefix = f"{_KEY}.{len(history) - 1}."
    parts = {name.removeprefix(prefix): tensor for name, tensor in contents[1].items() if name.startswith(prefix)}
    older = {
        name: tensor
        for name, tensor in contents[1].items()
        if name.startswith(f"{_KEY}.") and not name.startswith(prefix)
    }
    try:
        header, tensors = _restored(_own(contents), history[-1]["former"], parts)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise ModelFileError("The model's history is damaged. Copy or fit it again.") from None
    if len(history) > 1:
        header[_KEY] = history[:-1]
    return header, {**tensors, **older}


def _own(contents: Contents) -> Contents:
    """Return the contents without the history."""
    header, tensors = contents
    return (
        {key: value for key, value in header.items() if key not in _ALWAYS_NEW},
        {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{_KEY}.")},
    )


def _difference(before: Contents, after: Contents) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what makes `before` of `after`: of JSON types, and tensors."""
    former: dict[str, Any] = {
        "drop": sorted(after[0].keys() - before[0].keys()),
        "put": {},
        "cut": {},
        "insert": {},
        "drop_tensors": sorted(after[1].keys() - before[1].keys()),
        "cut_tensors": {},
    }
    for key, old in before[0].items():
        new = after[0].get(key)
        if key in after[0] and old == new:
            continue
        if isinstance(old, list) and isinstance(new, list) and new[: len(old)] == old:
            former["cut"][key] = len(old)
        elif isinstance(old, list) and isinstance(new, list) and (gone := _gone(old, new)) is not None:
            former["insert"][key] = [[at, old[at]] for at in gone]
        else:
            former["put"][key] = old
    parts: dict[str, np.ndarray] = {}
    for name, array in before[1].items():
        changed = after[1].get(name)
        if changed is None or changed.shape[1:] != array.shape[1:] or changed.dtype != array.dtype:
            parts[f"whole.{name}"] = array
        elif _same(array, changed):
            continue
        elif len(changed) > len(array) and _same(array, changed[: len(array)]):
            former["cut_tensors"][name] = len(array)
        elif (gone := _gone_rows(array, changed)) is not None:
            parts[f"rows.{name}"], parts[f"at.{name}"] = array[gone], np.array(gone, np.int32)
        else:
            parts[f"whole.{name}"] = array
    return former, parts


def _restored(after: Contents, former: Any, parts: dict[str, np.ndarray]) -> Contents:
    # what planted defects said after the step was not said of the model before it
    header = {key: value for key, value in after[0].items() if key not in (*former["drop"], "capability")}
    header.update(former["put"])
    for key, length in former["cut"].items():
        header[key] = header[key][:length]
    for key, items in former["insert"].items():
        header[key] = list(header[key])
        for at, item in items:  # ascending, so each comes to stand where it stood
            header[key].insert(at, item)
    tensors = {name: tensor for name, tensor in after[1].items() if name not in former["drop_tensors"]}
    for name, length in former["cut_tensors"].items():
        tensors[name] = tensors[name][:length]
    for part, array in parts.items():
        what, name = part.split(".", 1)
        if what == "whole":
            tensors[name] = array
        elif what == "rows":
            at, kept = parts[f"at.{name}"], tensors[name]
            whole = np.empty((len(kept) + len(at), *kept.shape[1:]), kept.dtype)
            stays = np.ones(len(whole), bool)
            stays[at] = False
            whole[at], whole[stays] = array, kept
            tensors[name] = whole
    return header, tensors


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether two arrays hold the same bytes; nan is like itself."""
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(_bytes(a), _bytes(b))))


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _gone(before: Sequence[Any], after: Sequence[Any]) -> list[int] | None:
    """Return which entries `after` lacks of `before`, ascending; None where it is not `before` less some."""
    gone: list[int] = []
    met = 0
    for at, entry in enumerate(before):
        if met < len(after) and entry == after[met]:
            met += 1
        else:
            gone.append(at)
    return gone if met == len(after) else None


def _gone_rows(before: np.ndarray, after: np.ndarray) -> list[int] | None:
    if len(after) >= len(before):
        return None
    # by their hashes: a row may be a picture's features, and a copy of them all gigabytes
    return _gone(*([sha256(row.tobytes()) for row in array] for array in (before, after)))
