"""What is said with a picture: by which model it is judged, and what people want to know of it later."""

import time
from dataclasses import dataclass, replace

from totalrecall.errors import SettingError
from totalrecall.station.store.records import NOT_PRODUCTION

__all__ = ["LONGEST_NAME", "UNSAID", "Caption", "Upload"]

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
        taken: when it was taken, by time.monotonic: the recipe of that moment applies. When it is submitted, if None.
    """

    model: str | None = None
    product: str | None = None
    name: str = ""
    serial: str | None = None
    line: str | None = None
    source: str = "api"
    job: str | None = None
    taken: float | None = None

    @property
    def is_production(self) -> bool:
        """Whether the line sent it, and not the station itself."""
        return self.source not in NOT_PRODUCTION

    def checked(self) -> "Caption":
        """Return it as the station takes it: texts without blanks around them, no picture without a name or a moment.

        Raises:
            SettingError: a text is too long, or holds control characters.
        """
        return replace(
            self,
            name=_checked("name", self.name, LONGEST_NAME) or "picture",
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


def _checked(what: str, text: str | None, longest: int) -> str | None:
    """Return a text that a client said, or None for an empty one.

    Raises:
        SettingError: it is too long, or holds control characters.
    """
    if text is None or not text.strip():
        return None
    text = text.strip()
    if len(text) > longest or not text.isprintable():
        raise SettingError(
            f"{what} must be at most {longest} printable letters, got {len(text)}. Shorten it, or leave it out.", what
        )
    return text
