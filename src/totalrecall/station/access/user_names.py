"""Names of users and tokens: one spelling each, and no two that look alike."""

import re
import unicodedata

from totalrecall.errors import SettingError

__all__ = ["LONGEST_NAME", "look", "normal_name"]

LONGEST_NAME = 64
_RESERVED = frozenset({"local", "station", "nobody", "anybody", "anonymous", "system", "token", "cli", "root"})
_ALLOWED = re.compile(r"[^\W_](?:[^\W]|[.-])*")  # letters and digits of any script, then also . - _
# Scripts that one language mixes: Japanese and Korean names
_TOGETHER = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "IDEOGRAPHIC"})
# Small Cyrillic, Greek and odd Latin letters that a screen shows as a Latin one or as a digit
_ALIKE = str.maketrans(
    {
        **dict(zip("авекмнорстухіјѕԁԛԝһӏ", "abekmhopctyxijsdqwhl", strict=True)),
        **dict(zip("αβεικνορτυχγϳ", "abeiknoptuxyj", strict=True)),
        "ı": "i",
        "ɑ": "a",
        "ɡ": "g",
        "0": "o",
        "1": "l",
    }
)


def normal_name(name: str, what: str = "user") -> str:
    """Return the one spelling of a name: compatible forms joined (NFKC), small letters.

    Args:
        name: as typed.
        what: whose name it is, for the message.

    Raises:
        SettingError: it is empty, too long, reserved, mixes scripts, or has other letters than are allowed.
    """
    said = name if len(name) <= LONGEST_NAME else f"{name[:20]}..."
    if len(name) > 4 * LONGEST_NAME:  # NFKC of a long text takes long
        raise SettingError(f"The name of a {what} must have 1 to {LONGEST_NAME} letters, got {len(name)}.", "name")
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).lower())
    if not 1 <= len(normal) <= LONGEST_NAME:
        raise SettingError(f"The name of a {what} must have 1 to {LONGEST_NAME} letters, got {len(normal)}.", "name")
    if not _ALLOWED.fullmatch(normal) or any(_is_odd(letter) for letter in normal):
        raise SettingError(
            f"The name of a {what} must begin with a letter or digit, followed by letters, digits, '.', '-' or '_', "
            f"got {said!r}.",
            "name",
        )
    scripts = {_script(letter) for letter in normal if letter.isalpha()}
    if len(scripts - _TOGETHER) + bool(scripts & _TOGETHER) > 1:
        raise SettingError(
            f"The name of a {what} must be in the letters of one script, got {said!r}, which mixes "
            f"{' and '.join(sorted(scripts)).lower()} letters. Such a name can look like another.",
            "name",
        )
    if normal in _RESERVED:
        raise SettingError(f"The name {normal!r} stands for the station itself. Choose another.", "name")
    return normal


def look(normal: str) -> str:
    """Return a text that is the same for two normal names that look alike on a screen."""
    letters = normal.casefold().translate(_ALIKE)
    return letters.replace("rn", "m").replace("vv", "w")


def _is_odd(letter: str) -> bool:
    """Tell whether a letter is none of a plain name: marks, modifiers, digits that are not 0 to 9."""
    return unicodedata.category(letter) not in ("Ll", "Lu", "Lo") and letter not in "0123456789.-_"


def _script(letter: str) -> str:
    """Return the script of a letter, which is the first word of its Unicode name."""
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0].partition("-")[0]
