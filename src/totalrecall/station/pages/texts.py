"""What the page says, in several languages: a dictionary file for each, and which of them a browser asks for.

`texts/en.toml` and its neighbours hold the same keys; a test compares them. Another language is another file. What the
library says is in `texts/sentences`; see `sentences`.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from totalrecall.station.pages.sentences import Sentences

__all__ = ["DEFAULT", "Texts", "languages", "preferred", "texts_of"]

DEFAULT = "en"
_FOLDER = Path(__file__).with_name("texts")
_LEAST_PERCENT = 0.01  # that is told in digits
_MOST_RANGES = 20  # of an Accept-Language header that are looked at
_RANGE = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]{1,64})?\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*")


@dataclass(frozen=True)
class Texts:
    """One language's texts.

    Attributes:
        language: its code, as in the `lang` attribute of HTML.
        entries: from "view.name" to the text, with {places} for values.
        library: from the library's English sentences to this language's.
    """

    language: str
    entries: Mapping[str, str]
    library: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, key: str, values: Mapping[str, object] | None = None) -> str:
        """Return a text with its values filled in; it is escaped where it is printed.

        Raises:
            KeyError: the dictionary lacks the text, or the text a value.
        """
        text = self.entries[key]
        return text if values is None else text.format_map(values)

    def number(self, value: float | None, digits: int = 3) -> str:
        """Return a number in significant digits, with the language's decimal mark; a dash for none."""
        if value is None or value != value or abs(value) == float("inf"):
            return "–"
        if 10**digits <= abs(value) < 1e6:
            return f"{value:.0f}"  # subtle: the format g would write 1000 in two digits as 1e+03
        return self._marked(f"{value:.{digits}g}" if 1e-4 <= abs(value) < 1e6 or value == 0 else f"{value:.2e}")

    def score(self, value: float | None) -> str:
        """Return a score or a threshold in four digits, zeros at its end too: so those of a column can be compared."""
        if value is None or not 1e-3 <= abs(value) < 1e4:
            return self.number(value, 4)
        return self._marked(f"{value:#.4g}".removesuffix("."))

    def percent(self, share: float | None) -> str:
        """Return a share as percent, with as many digits as it needs."""
        if share is None or share != share:
            return "–"
        value = 100 * share
        if 0 < value < _LEAST_PERCENT:
            return "< " + self._marked(f"{_LEAST_PERCENT}") + "\N{NO-BREAK SPACE}%"
        digits = 0 if value >= 10 or value == round(value) else 1 if value >= 1 else 2
        return self._marked(f"{value:.{digits}f}") + "\N{NO-BREAK SPACE}%"

    def sentence(self, text: str) -> str | None:
        """Return a sentence of the library in this language; None where only its English is known."""
        return text if self.language == DEFAULT else self._sentences.of(text)

    @cached_property
    def _sentences(self) -> Sentences:
        return Sentences(self.library, self._marked)

    def _marked(self, number: str) -> str:
        return number.replace(".", self.entries["decimal_mark"])


@cache
def languages() -> dict[str, Texts]:
    """Return every language's texts by its code: English first, then by code."""
    found = {path.stem: _read(path) for path in sorted(_FOLDER.glob("*.toml"))}
    return {DEFAULT: found.pop(DEFAULT), **found}


def texts_of(cookie: str | None, accepted: str | None) -> Texts:
    """Return the texts that a person chose, else those that the browser asks for, else English."""
    known = languages()
    return known[cookie] if cookie in known else known[preferred(accepted or "", tuple(known))]


def preferred(accepted: str, known: tuple[str, ...]) -> str:
    """Return which of the known languages an Accept-Language header likes best; the first of them without any."""
    best, weight = known[0], 0.0
    for part in accepted.split(",")[:_MOST_RANGES]:
        fits = _RANGE.fullmatch(part)
        if fits is None or fits[1].lower() not in known:
            continue
        quality = 1.0 if fits[2] is None else float(fits[2])
        if quality > weight:
            best, weight = fits[1].lower(), quality
    return best


def _read(path: Path) -> Texts:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    library = path.parent / "sentences" / path.name
    sentences = tomllib.loads(library.read_text(encoding="utf-8")) if library.is_file() else {}
    return Texts(path.stem, _flat(tomllib.loads(path.read_text(encoding="utf-8"))), sentences)


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return a table of tables as one, its keys joined by dots."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        flat.update(_flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": str(value)})
    return flat
