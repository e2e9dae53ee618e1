"""Compiled graphs on disk, so that the second start is fast. Nothing here can fail a run: at worst it compiles again.

Measured against OpenVINO's own CACHE_DIR, reading the blob ourselves is faster, since the ONNX graph is then never
parsed. A blob is read by native code, so it is believed only where nobody else could have written it: the folder and
the entry are the user's own, no link, and nobody else may write to the folder. Within, an entry says what it was
compiled of and for (graph, layers, size, settings, device, versions), and carries the SHA-256 of all of it.
"""

import contextlib
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from totalrecall.errors import TotalRecallError
from totalrecall.files import atomic_write

__all__ = ["CompiledCache"]

_MAGIC = b"TRCOMPILED2\n"
_DIGEST = hashlib.sha256().digest_size
_LONGEST = 1 << 16  # bytes, of what an entry says of itself
_LIMIT = 1 << 30  # bytes; the graphs used longest ago go first
_ANYBODY_ELSE = stat.S_IWGRP | stat.S_IWOTH


class CompiledCache:
    """A folder of compiled graphs, or none: then it finds nothing and keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, key: tuple[str, ...]) -> bytes | None:
        """Return the compiled graph kept under `key`, or None if there is none that can be believed."""
        if self._folder is None:
            return None
        try:
            with _own_folder(self._folder) as folder:
                data = _own_file(self._folder / _name(key), folder)
        except OSError:
            return None
        start = len(_MAGIC) + _DIGEST
        said = _said(key)
        if not data.startswith(_MAGIC) or data[start : start + len(said)] != said:
            return None
        if hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
            return None
        with contextlib.suppress(OSError):
            os.utime(self._folder / _name(key))  # the time of last use, for `_shrink`
        return data[start + len(said) :]

    def write(self, key: tuple[str, ...], blob: bytes) -> None:
        """Keep a compiled graph under `key`; a folder that cannot be written is no error."""
        if self._folder is None or len(_said(key)) > _LONGEST:
            return
        with contextlib.suppress(TotalRecallError, OSError):
            _make_own(self._folder)
            said = _said(key)
            digest = hashlib.sha256(said)
            digest.update(blob)
            atomic_write(self._folder / _name(key), _MAGIC + digest.digest() + said + blob)
            self._shrink(self._folder)

    def _shrink(self, folder: Path) -> None:
        kept = 0
        for path in sorted(folder.glob("*.compiled"), key=lambda path: path.lstat().st_mtime, reverse=True):
            kept += path.lstat().st_size
            if kept > _LIMIT:
                path.unlink(missing_ok=True)


def _name(key: tuple[str, ...]) -> str:
    return f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.compiled"


def _said(key: tuple[str, ...]) -> bytes:
    """Return what an entry says of itself, a line."""
    return json.dumps(list(key)).encode() + b"\n"


def _owner() -> int | None:
    """Return the user's number; None where the system has none (Windows keeps a person's folder for that person)."""
    return None if sys.platform == "win32" else os.geteuid()


@contextlib.contextmanager
def _own_folder(folder: Path) -> Iterator[int | None]:
    """Hold a folder open, so that no other can take its place; None where the system cannot.

    Raises:
        OSError: it is not there, is another user's, or others may write to it.
    """
    if _owner() is None:
        yield None
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        status = os.fstat(handle)
        if status.st_uid != _owner() or status.st_mode & _ANYBODY_ELSE:
            raise PermissionError("another could have written to it")
        yield handle
    finally:
        os.close(handle)


def _own_file(path: Path, folder: int | None) -> bytes:
    """Read an entry of the folder that is held, whole.

    Raises:
        OSError: there is none, or it is no file, a link, or another user's.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags) if folder is None else os.open(path.name, flags, dir_fd=folder)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT or _owner() not in (None, status.st_uid):
            raise PermissionError("it is no file of the user's own")
        return file.read(status.st_size)


def _make_own(folder: Path) -> None:
    """Make the folder, for the user alone; of one that others could write to, what they may have written goes.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if _owner() is None:
        return
    status = folder.stat()
    if status.st_uid != _owner():
        raise PermissionError("it is another user's")
    if status.st_mode & _ANYBODY_ELSE:  # made with a umask of 002, by a version of before
        folder.chmod(0o700)
        for path in folder.glob("*.compiled"):
            path.unlink(missing_ok=True)
