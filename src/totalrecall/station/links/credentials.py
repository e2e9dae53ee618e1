"""Secrets come from a file or an environment variable, and never from the command line, where everybody sees them."""

import os
from pathlib import Path

from totalrecall.errors import SettingError
from totalrecall.system.files import read_regular

__all__ = ["Login", "read_login", "read_secret"]

_LIMIT = 64 << 10  # bytes of such a file

Login = tuple[str, str]  # name and password


def read_secret(file: Path | None, variable: str) -> bytes | None:
    """Return a secret from the first line of a file, or else from an environment variable; None where neither is given.

    Raises:
        SettingError: the file cannot be read, or is empty.
    """
    if file is None:
        return os.environ.get(variable, "").encode() or None
    lines = _lines(file)
    if not lines:
        raise SettingError(f"{file} must hold the secret in its first line, and is empty.")
    return lines[0].encode()


def read_login(file: Path | None, variable: str) -> Login | None:
    """Return name and password: the first two lines of a file, or two variables of the environment; None without both.

    Args:
        file: that holds them.
        variable: the environment's, before `_USER` and `_PASSWORD`.

    Raises:
        SettingError: the file cannot be read, or one of them is missing.
    """
    if file is not None:
        lines = _lines(file)
        if len(lines) < 2:
            raise SettingError(f"{file} must hold a name in its first line and a password in its second.")
        return lines[0], lines[1]
    name, password = os.environ.get(f"{variable}_USER", ""), os.environ.get(f"{variable}_PASSWORD", "")
    if bool(name) != bool(password):
        raise SettingError(f"{variable}_USER and {variable}_PASSWORD go together: set both, or none.")
    return (name, password) if name else None


def _lines(file: Path) -> list[str]:
    """Return the lines of a small file, without those at its end that are empty.

    Raises:
        SettingError: it cannot be read.
    """
    try:
        return read_regular(file, limit=_LIMIT).decode().rstrip().splitlines()
    except OSError as error:
        raise SettingError(f"{file} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise SettingError(f"{file} is no text in UTF-8.") from None
