"""What is said with a picture: by which model it is judged, and what people want to know of it later."""

import time
from dataclasses import dataclass, replace

from totalrecall.errors import SettingError
from totalrecall.station.store.records import NOT_PRODUCTION

__all__ = ["LONGEST_NAME", "UNSAID", "Caption", "Upload", "shown_name"]

LONGEST_NAME = 300  # letters of a picture's name
_LONGEST_SERIAL = 200


@dataclass(frozen=True)
class Caption:
    """What is said with a picture.

    Attributes:
        model: name of the model that judges; may be missing where there is only one.
        product: that it shows, whose recipe applies; by default the one that is made, if its model is asked for.
        name: of the picture, for people: a file's name as a client gave it. It is never opened.
        serial: of the part.
        line: of the production line, or of the camera.
        source: where it came from: "api", "v2", "page", "folder", "camera", "mqtt", "opcua", "golden", "study".
        job: key of the job that it belongs to.
        key: of its inspection, 32 hexadecimal digits, where whoever sends it orders the inspections by it; else a
            random one is made.
        taken: when it was taken, by time.monotonic: the recipe of that moment applies. When it is submitted, if None.
    """

    model: str | None = None
    product: str | None = None
    name: str = ""
    serial: str | None = None
    line: str | None = None
    source: str = "api"
    job: str | None = None
    key: str | None = None
    taken: float | None = None

    @property
    def is_production(self) -> bool:
        """Whether the line sent it, and not the station itself."""
        return self.source not in NOT_PRODUCTION

    def checked(self) -> "Caption":
        """Return it as the station takes it: texts without blanks around them, no picture without a name or a moment.

        No picture is refused for its name, which people only look at.

        Raises:
            SettingError: serial or line is too long, or holds a letter that cannot be printed.
        """
        return replace(
            self,
            name=shown_name(self.name.strip()) or "picture",
            serial=_checked("serial", self.serial, _LONGEST_SERIAL),
            line=_checked("line", self.line, _LONGEST_SERIAL),
            taken=time.monotonic() if self.taken is None else self.taken,
        )


UNSAID = Caption()


@dataclass(frozen=True)
class Upload:
    """A picture as a client sent it.

    Attributes:
        picture: the bytes of its file.
        caption: what was said with it.
    """

    picture: bytes
    caption: Caption = UNSAID

    @property
    def name(self) -> str:
        """The file's name, as the client gave it."""
        return self.caption.name


def shown_name(name: str) -> str:
    """Return a picture's name as every reader takes it: at most `LONGEST_NAME` printable letters, of them the last."""
    name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return name if len(name) <= LONGEST_NAME else "\N{HORIZONTAL ELLIPSIS}" + name[1 - LONGEST_NAME :]


def _checked(what: str, text: str | None, longest: int) -> str | None:
    """Return a text that a client said, or None for an empty one.

    Raises:
        SettingError: it is too long, or holds a letter that cannot be printed.
    """
    if text is None or not text.strip():
        return None
    text = text.strip()
    if len(text) > longest:
        raise SettingError(
            f"{what} must be at most {longest} printable letters, got {len(text)}. Shorten it, or leave it out.", what
        )
    odd = next((letter for letter in text if not letter.isprintable()), None)
    if odd is not None:
        raise SettingError(
            f"{what} must hold printable letters only, got the character U+{ord(odd):04X}. Leave it out.", what
        )
    return text
