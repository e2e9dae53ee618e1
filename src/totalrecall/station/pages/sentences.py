"""The library's own sentences in the reader's language: refusals, findings of an audit, reasons of a failed check.

The library says them in English, with values in them. `texts/sentences/de.toml` and its neighbours say each of them in
another language: on the left the English sentence with {places} for its values, on the right the translation with the
same places. A sentence that is not there stays English, and the page says so.

    "Model {name_model} is not held." = "Das Modell {name_model} ist nicht angehalten."

Values of places whose name begins with `words` are the library's own words, and are looked up in turn; those of places
that begin with `name` come from people and stay as they are; in all others a number gets the language's decimal mark.
"""

import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Sentences"]

_NUMBER = re.compile(r"-?\d{1,3}(?:,\d{3})*(?:\.\d+)?(?: ?%)?|-?\d+(?:\.\d+)?(?: ?%)?")
_LONGEST = 2000  # letters of a sentence that is looked up
_DEEPEST = 4  # sentences within sentences
# between sentences that the library lists: reasons, and pictures with a reason in brackets each
_JOINTS = ((re.compile("; "), "; "), (re.compile(r"(?<=\)), "), ", "))
_MORE = re.compile(r"(.+\)) and (\d+) more")  # the end of such a list that is too long


@dataclass(frozen=True)
class _Pattern:
    """An English sentence with places: `pieces` of fixed text, and between each two of them a place."""

    pieces: tuple[str, ...]
    places: tuple[str, ...]

    @classmethod
    def of(cls, sentence: str) -> "_Pattern":
        pieces, places = [""], []
        for text, place, _, _ in string.Formatter().parse(sentence):
            pieces[-1] += text
            if place is not None:
                places.append(place)
                pieces.append("")
        return cls(tuple(pieces), tuple(places))

    @property
    def fixed(self) -> int:
        """How many letters are fixed: the more, the surer a sentence is of this pattern."""
        return sum(map(len, self.pieces))

    def readings(self, text: str) -> Iterator[dict[str, str]]:
        """Give the value of each place, as read from the left and as read from the right; nothing for another sentence.

        subtle: each piece is looked for once, and no other way is tried. So no text takes longer than its length,
        whoever wrote the names in it.
        """
        first, last = self.pieces[0], self.pieces[-1]
        if len(self.pieces) == 1:
            if text == first:
                yield {}
            return
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return
        for cuts in (self._from_left(text), self._from_right(text)):
            if cuts is not None:
                ends = [*(start for start, _ in cuts), len(text) - len(last)]
                begins = [len(first), *(end for _, end in cuts)]
                values = (text[begin:end] for begin, end in zip(begins, ends, strict=True))
                yield dict(zip(self.places, values, strict=True))

    def _from_left(self, text: str) -> list[tuple[int, int]] | None:
        """Return where the pieces between two places stand; None if one of them is missing."""
        at, limit, cuts = len(self.pieces[0]), len(text) - len(self.pieces[-1]), []
        for piece in self.pieces[1:-1]:
            start = text.find(piece, at, limit)
            if start < 0:
                return None
            at = start + len(piece)
            cuts.append((start, at))
        return cuts

    def _from_right(self, text: str) -> list[tuple[int, int]] | None:
        at, limit, cuts = len(self.pieces[0]), len(text) - len(self.pieces[-1]), []
        for piece in reversed(self.pieces[1:-1]):
            start = text.rfind(piece, at, limit)
            if start < 0:
                return None
            cuts.append((start, start + len(piece)))
            limit = start
        return cuts[::-1]


@dataclass(frozen=True)
class Sentences:
    """What one language says for the library's sentences.

    Attributes:
        entries: from the English sentence to the translation.
        marked: puts the language's decimal mark into a number.
    """

    entries: Mapping[str, str]
    marked: Callable[[str], str]

    @cached_property
    def _patterns(self) -> list[tuple[_Pattern, str]]:
        every = [(_Pattern.of(english), words) for english, words in self.entries.items() if "{" in english]
        return sorted(every, key=lambda one: -one[0].fixed)

    def of(self, text: str, depth: int = 0) -> str | None:
        """Return a sentence of the library in this language; None if it is not known."""
        if not text or len(text) > _LONGEST or depth > _DEEPEST:
            return None
        if text in self.entries:
            return self.entries[text]
        listed = self._listed(text, depth + 1)
        if listed is not None:
            return listed
        for pattern, words in self._patterns:
            for values in pattern.readings(text):
                told = {place: self._value(place, value, depth + 1) for place, value in values.items()}
                if None not in told.values():
                    return words.format_map(told)
        return None

    def _value(self, place: str, value: str, depth: int) -> str | None:
        if place.startswith("name"):
            return value
        if place.startswith("words"):
            return self.of(value, depth)
        return self.marked(value) if _NUMBER.fullmatch(value) else value

    def _listed(self, text: str, depth: int) -> str | None:
        for joint, between in _JOINTS:
            parts = joint.split(text)
            told = [self.of(part, depth) for part in parts] if len(parts) > 1 else [None]
            if None not in told:
                return between.join(str(one) for one in told)
        more = _MORE.fullmatch(text)
        first = None if more is None else self.of(more[1], depth)
        return None if more is None or first is None else f"{first}, +{more[2]}"
