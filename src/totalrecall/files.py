"""Files written whole or not at all, and the folder where Total Recall keeps what it needs between runs."""

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from totalrecall.errors import DataError

__all__ = ["atomic_write", "check_writable", "home", "is_special", "sha256", "write_atomically"]


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

    A link stays a link: the file that it names is written. What is no file (a pipe, /dev/null) is written to directly.

    Raises:
        DataError: the folder cannot be made or written.
    """
    path = Path(path)
    target = Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114  is_symlink may raise
    if is_special(target):
        return _write_special(path, write)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # of a name as long as the system allows, only the beginning
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".part", dir=target.parent)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise _cannot_write(path, error, "Name a folder that can be written.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # a rename before the bytes are on disk could survive a power cut as an empty file
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101  mkstemp makes it private; a shared folder expects the usual
        os.replace(temporary, target)  # noqa: PTH105
    except OSError as error:
        _remove(temporary)
        raise _cannot_write(path, error, "Free some space or name another place.") from None
    except BaseException:
        _remove(temporary)
        raise
    return path


def check_writable(path: str | Path) -> None:
    """Find out that a file cannot be written before the work whose result it is to hold.

    Raises:
        DataError: it is a folder, or its folder cannot be made or written.
    """
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112  is_dir raises at a name that is too long
        raise DataError(f"Cannot write {path}: it is a folder. Name a file in it.")
    if is_special(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error, "Name a folder that can be written.") from None


def is_special(path: Path) -> bool:
    """Tell whether a path is there and is neither file nor folder: a pipe, a terminal, /dev/null."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _write_special(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    try:
        with path.open("wb") as file:
            write(file)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_write(path, error, "Name another place.") from None
    return path


def _cannot_write(path: Path, error: Exception, advice: str) -> DataError:
    reason = getattr(error, "strerror", None) or error
    if isinstance(error, FileExistsError):  # mkdir's way of saying that a file stands where the folder should be
        reason = f"{path.parent} is a file"
    return DataError(f"Cannot write {path}: {reason}. {advice}")


def _remove(name: str) -> None:
    with contextlib.suppress(OSError):
        Path(name).unlink()


def _umask() -> int:
    # subtle: the only way to read the umask is to set it; done once, at import, before threads exist
    return _UMASK


_UMASK = os.umask(0o077)
os.umask(_UMASK)
