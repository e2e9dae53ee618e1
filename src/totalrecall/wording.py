"""How counts and names are said."""

import re

__all__ = ["counted", "escaped_json", "printable"]

# What a terminal obeys or a reader is misled by: control characters (ESC, CR, BEL, C1), halves of surrogate pairs,
# marks that turn the direction of text or end a line, and invisible letters
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)


def counted(number: int, what: str) -> str:
    """Return a number of things in words: `1 picture`, `2 pictures`."""
    return f"{number} {what if number == 1 else what + 's'}"


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
