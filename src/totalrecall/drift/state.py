"""The file in which a monitor keeps its state: JSON, checked through and through when it is read."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalrecall.errors import DataError
from totalrecall.system.files import LARGEST, atomic_write, read_regular

__all__ = ["Expected", "read_state", "write_state"]

_KIND = "totalrecall-monitor"
_FORMAT = 1
_AGAIN = "Name another file, or remove it to begin again."
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Expected:
    """What a state must be about, and hold.

    Attributes:
        reference: hash of the model's reference.
        rate: that was promised.
        ranked: names of the measures that ranks are kept of.
        watches: names of the watches.
        bets: of each: how many in all, and how many of them on ranks.
        columns: numbers of a picture.
    """

    reference: str
    rate: float
    ranked: Sequence[str]
    watches: Sequence[str]
    bets: tuple[int, int]
    columns: int


def write_state(path: str | Path, state: dict[str, Any]) -> Path:
    """Write a state whole or not at all.

    Raises:
        DataError: the place cannot be written.
    """
    text = json.dumps({"kind": _KIND, "format": _FORMAT, **state}, allow_nan=False)
    return atomic_write(path, text.encode() + b"\n")


def read_state(path: str | Path, expected: Expected) -> dict[str, Any] | None:
    """Read a state; None where there is no file.

    Raises:
        DataError: it cannot be read, is no monitor's, is damaged, or is about another model or rate.
    """
    path = Path(path)
    try:
        state = _read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(state, dict) or state.get("kind") != _KIND:
        raise DataError(f"{path} is no monitor file. {_AGAIN}")
    if state.get("format") != _FORMAT:
        got = f"{state.get('format')!r}"[:40]
        raise DataError(f"{path} has monitor format {got}, this version reads {_FORMAT}. {_AGAIN}")
    if state.get("reference") != expected.reference:
        raise DataError(f"{path} watches another model, or this one before it was changed. {_AGAIN}")
    if state.get("rate") != expected.rate:
        got = f"{state.get('rate')!r}"[:40]
        raise DataError(f"{path} keeps a false-alarm rate of {got}, not {expected.rate:g}. {_AGAIN}")
    try:
        return _checked(state, expected)
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged: {error}. {_AGAIN}") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_regular(path, limit=LARGEST["monitor"]), parse_constant=_refuse)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}. Name another file.") from None
    except (ValueError, RecursionError):  # ValueError: no JSON, no Unicode, or a NUL byte in the path
        raise DataError(f"{path} is no monitor file, or damaged. {_AGAIN}") from None


def _checked(state: dict[str, Any], expected: Expected) -> dict[str, Any]:
    """Return a state with every number of the type that it should be."""
    pictures, counted = (_count(state[name], name) for name in ("pictures", "counted"))
    if counted > pictures:
        raise ValueError("more pictures counted than watched")
    ranks: dict[str, Any] = {}
    for name in expected.ranked:
        stored = state["ranks"][name]
        seen, values = _count(stored["seen"], "seen"), _numbers(stored["values"], name)
        if seen < len(values):
            raise ValueError(f"more ranks of {name} than pictures")
        ranks[name] = {"seen": seen, "values": values}
    recent = [_numbers(row, "recent", expected.columns + 1) for row in state["recent"]]
    return {
        "pictures": pictures,
        "counted": counted,
        "capital": {
            watch: _numbers(state["capital"][watch], "capital", expected.bets[0], least=0) for watch in expected.watches
        },
        "moved": {watch: _counts(state["moved"][watch], "moved", expected.bets[1]) for watch in expected.watches},
        "quiet": {watch: _count(state["quiet"][watch], "quiet") for watch in expected.watches},
        "limits": {name: _numbers(state["limits"][name], "limits", 3) for name in expected.ranked},
        "ranks": ranks,
        "recent": recent,
        "alarms": [_alarm(alarm, expected.ranked) for alarm in state["alarms"]],
    }


def _alarm(alarm: Any, ranked: Sequence[str]) -> dict[str, Any]:
    if alarm["measure"] not in ranked or alarm["direction"] not in ("+", "-"):
        raise ValueError("an alarm of something else")
    if not isinstance(alarm["path"], str) or not isinstance(alarm["words"], str):
        raise ValueError("an alarm without words")
    (level,) = _numbers([alarm["level"]], "level")
    ended = alarm["ended"]
    return {
        **{name: alarm[name] for name in ("measure", "direction", "path", "words")},
        "picture": _count(alarm["picture"], "picture"),
        "level": level,
        "ended": None if ended is None else _count(ended, "ended"),
    }


def _count(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError(f"{name} is {str(value)[:40]}")
    return value


def _counts(values: object, name: str, count: int) -> list[int]:
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"{name} is no list of {count} counts")
    return [_count(value, name) for value in values]


def _numbers(values: object, name: str, count: int | None = None, *, least: float = -math.inf) -> list[float]:
    if not isinstance(values, list) or (count is not None and len(values) != count):
        raise ValueError(f"{name} is no list of {'numbers' if count is None else f'{count} numbers'}")
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise ValueError(f"{name} holds what is no number")
    numbers = [float(value) for value in values]
    if not all(least <= value and math.isfinite(value) for value in numbers):
        raise ValueError(f"{name} holds a number out of range")
    return numbers


def _refuse(name: str) -> float:
    raise ValueError(name)
