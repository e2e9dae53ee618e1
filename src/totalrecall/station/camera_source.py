"""Where the frames of a camera come from: what `serve --camera` and a recipe's `camera` say."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from totalrecall.errors import SettingError

__all__ = ["MOST_SECONDS", "CameraSource", "camera_source"]

_SCHEMES = ("rtsp", "rtsps", "http", "https")
MOST_SECONDS = 86_400  # between two frames
_MOST_DEVICE = 99


@dataclass(frozen=True)
class CameraSource:
    """Where frames come from.

    Attributes:
        opened: what OpenCV opens: a number, an address or a file.
        label: for people and the history; it holds no password.
        is_file: a video file, that ends.
    """

    opened: int | str
    label: str
    is_file: bool = False

    @property
    def place(self) -> str:
        """The number, the host or the file's name, as messages say it."""
        return self.label.removeprefix("camera ").removeprefix("at ")


def camera_source(text: str) -> CameraSource:
    """Return what a person means by `0`, `rtsp://...`, `env:NAME` or a file.

    Raises:
        SettingError: it is none of them.
    """
    if text.startswith("env:"):
        value = os.environ.get(text[4:], "")
        if not value:
            raise SettingError(f"The environment variable {text[4:]} of a camera is not set. Put the address into it.")
        text = value
    if text.isdecimal() and int(text) <= _MOST_DEVICE:
        return CameraSource(int(text), f"camera {int(text)}")
    if "://" in text:
        return CameraSource(text, f"camera at {_host(text)}")
    path = Path(text)
    if not path.is_file():
        shown = "something with an @" if "@" in text else repr(text)  # a mistyped address may hold a password
        raise SettingError(f"A camera must be a number, an address or a video file, got {shown}, which is not there.")
    return CameraSource(str(path.absolute()), path.name, is_file=True)


def _host(address: str) -> str:
    """Return the host of a camera's address.

    Raises:
        SettingError: it is no address of a camera; the message does not repeat it, since it may hold a password.
    """
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  a wrong one is refused here
    except ValueError:
        raise SettingError("The address of a camera has a wrong port or host. Write rtsp://host:port/path.") from None
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise SettingError(f"The address of a camera must begin with one of {', '.join(_SCHEMES)} and name a host.")
    return parts.hostname
