"""How counts and names are said."""

import math
import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from totalrecall.errors import SettingError

__all__ = [
    "bytes_of",
    "counted",
    "csv_line",
    "escaped_json",
    "format_size",
    "human_bytes",
    "human_seconds",
    "listed",
    "parse_seconds",
    "parse_size",
    "plain",
    "printable",
    "unexpected",
]

# What a terminal obeys or a reader is misled by: control characters (ESC, CR, BEL, C1), halves of surrogate pairs,
# marks that turn the direction of text or end a line, and invisible letters
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)


def counted(number: int, what: str) -> str:
    """Return a number of things in words: `1 picture`, `2 pictures`."""
    return f"{number} {what if number == 1 else what + 's'}"


def listed(names: Sequence[object], most: int, *, total: int | None = None, separator: str = ", ") -> str:
    """Return the first names of a list and how many more there are: `a, b and 3 more`.

    Args:
        names: at least the first `most` of them.
        most: number of names to write out.
        total: number of all names, where the list holds only the first.
        separator: written between two names.
    """
    more = (len(names) if total is None else total) - min(len(names), most)
    return separator.join(map(str, names[:most])) + (f" and {more} more" if more > 0 else "")


def printable(text: str) -> str:
    r"""Return a line of text for a terminal: what it would obey is written out, such as \x1b or \u202e."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def escaped_json(text: str) -> str:
    r"""Return JSON that means the same and that no terminal obeys: such characters as \u001b; line breaks stay."""
    return _UNPRINTABLE.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    if found[0] == "\n":
        return "\n"
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_size(text: str) -> int:
    """Return the bytes that a person means by 500MB, 2GB or 1.5GiB.

    Raises:
        SettingError: it is no such size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?i?)b?\s*", text.lower())
    if not found or found[2] not in _UNITS:
        raise SettingError(f"memory must be a size such as 500MB, 2GB or 1.5GiB, got {text!r}.")
    return int(float(found[1]) * _UNITS[found[2]])


def bytes_of(memory: int | str | None) -> int | None:
    """Return the bytes that a caller in Python means: a number of them, a size such as 2GB, or None.

    Raises:
        SettingError: it is none of these.
    """
    given: Any = memory
    if given is None:
        return None
    if isinstance(given, str):
        return parse_size(given)
    if isinstance(given, (Integral, float)) and not isinstance(given, bool) and given == given // 1:
        return int(given)
    raise SettingError(f"memory must be a number of bytes, or a size such as 500MB or 2GB, got {memory!r}.", "memory")


_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}


def parse_seconds(text: str) -> float:
    """Return the seconds that a person means by 90, 90s, 15min, 8h or 1d.

    Raises:
        SettingError: it is no such time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", text.lower())
    if not found or found[2] not in _SECONDS:
        raise SettingError(f"A time must be seconds, or such as 15min, 8h or 1d, got {text[:80]!r}.")
    return float(found[1]) * _SECONDS[found[2]]


def format_size(count: float) -> str:
    """Return bytes, rounded up to two digits or three, as `parse_size` reads them: 520MB, 1.4GB, 12.3GB."""
    if count < 10**9:
        return f"{math.ceil(count / 10**7) * 10}MB" if count > 10**8 else f"{math.ceil(count / 10**6)}MB"
    return f"{math.ceil(count / 10**8) / 10:g}GB"


def human_bytes(count: float) -> str:
    """Return bytes as a person reads them: 512 MB, 1.3 GB, 1.6 TB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB" if count < 1000 else f"{count / 1000:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Return a duration as a person reads it: 45 s, 12 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


_RUN = re.compile(
    "'*[=+\\-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
    "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}]"
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_QUOTED = re.compile('[",;\t\r\n]')  # a semicolon too: half of Europe's spreadsheets divide cells at it


def csv_line(cells: Iterable[object]) -> str:
    """Return one line of CSV with its line break; None is an empty cell."""
    return ",".join(map(_cell, cells)) + "\n"


def plain(cell: str) -> str:
    """Return the text that `csv_line` was given for a cell, as a CSV reader reads it."""
    return cell[1:] if cell.startswith("'") and _RUN.match(cell) else cell


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, str) and _RUN.match(text) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def unexpected(error: BaseException) -> str:
    """Return what is said of an error that nobody foresaw, in one short line."""
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
