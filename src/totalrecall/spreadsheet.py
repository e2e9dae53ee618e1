"""CSV for people who open it in a spreadsheet: no cell is run as a formula, and a program reads back what was meant.

A text that a spreadsheet would run begins with one of `= + - @`, a tab or a line break; it gets an apostrophe in front,
as does one with apostrophes before such a letter, so that taking one away gives the text back (`plain`). Numbers stay.
"""

import re
from collections.abc import Iterable

__all__ = ["csv_line", "plain"]

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
