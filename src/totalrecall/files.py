"""Files written whole or not at all, and the folder where Total Recall keeps what it needs between runs."""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from totalrecall.errors import DataError

__all__ = ["atomic_write", "home", "sha256", "write_atomically"]


def home() -> Path:
    """Return the per-user folder for added backbones and compiled graphs; `TOTALRECALL_HOME` overrides it."""
    override = os.environ.get("TOTALRECALL_HOME")
    if override:
        return Path(override).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "totalrecall"


def atomic_write(path: str | Path, data: bytes) -> Path:
    """Write bytes under a temporary name beside `path`, then rename: readers see the old file or the new one.

    Raises:
        DataError: the folder cannot be made or written.
    """
    return write_atomically(path, lambda file: file.write(data))


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it over `path`; on any failure nothing changes.

    Raises:
        DataError: the folder cannot be made or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise DataError(f"Cannot write {path}: {error.strerror or error}. Name a folder that can be written.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # a rename before the bytes are on disk could survive a power cut as an empty file
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101  mkstemp makes it private; a shared folder expects the usual
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        _remove(temporary)
        raise DataError(
            f"Cannot write {path}: {error.strerror or error}. Free some space or name another place."
        ) from None
    except BaseException:
        _remove(temporary)
        raise
    return path


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _remove(name: str) -> None:
    with contextlib.suppress(OSError):
        Path(name).unlink()


def _umask() -> int:
    # subtle: the only way to read the umask is to set it; done once, at import, before threads exist
    return _UMASK


_UMASK = os.umask(0o077)
os.umask(_UMASK)
