"""Reads files into which another program may still write: whole, or not at all.

Nothing tells for sure that a writer has ended. So several signs must agree: size and time rest for a while, no program
of this computer has the file open for writing, it is the same after reading, and the picture's end is there.
"""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator

from totalrecall.errors import PictureError
from totalrecall.pictures.decode import decode_pixels, open_picture
from totalrecall.station.links.ledger import WatchedFile

__all__ = ["UnreadyError", "UnwantedError", "find_files", "look_at", "read_whole", "seems_whole"]

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_JPEG_TAIL = 1024  # bytes in which a JPEG's end is looked for: some cameras write a little behind it


class UnreadyError(Exception):
    """Somebody still writes into the file, or it is gone: look again later."""


class UnwantedError(Exception):
    """The file is not to be read, whatever comes; the message says why."""


def find_files(folder: str, leave_out: frozenset[str] = frozenset()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files in a folder and in those inside it, with their state; links are yielded and never followed.

    Args:
        folder: absolute.
        leave_out: names of folders directly in it that are not entered.

    Raises:
        OSError: the folder itself cannot be read; those inside it are left out then.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                listed = list(entries)
        except OSError:
            if here == folder:
                raise
            continue
        for entry in listed:
            with contextlib.suppress(OSError):  # it went meanwhile
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.path, entry.stat(follow_symlinks=False)
                elif here != folder or entry.name not in leave_out:
                    waiting.append(entry.path)


def look_at(path: str, status: os.stat_result) -> WatchedFile:
    """Return a file as it is now.

    Raises:
        UnwantedError: it is a link, a pipe or a device.
    """
    if stat.S_ISLNK(status.st_mode):
        raise UnwantedError("is a link, and links are not followed")
    if not stat.S_ISREG(status.st_mode):
        raise UnwantedError("is no regular file")
    return WatchedFile(path, status.st_size, status.st_mtime_ns, status.st_ino)


def read_whole(file: WatchedFile, limit: int) -> bytes:
    """Return the content of a file that nobody writes.

    Args:
        file: as it was seen.
        limit: the most bytes.

    Raises:
        UnreadyError: it has changed since, or changes while it is read, or a program has it open for writing.
        UnwantedError: it is larger than the limit, may not be read, or lies behind a link.
    """
    parent = os.path.dirname(file.path)  # noqa: PTH120
    if os.path.realpath(parent) != parent:
        raise UnwantedError("lies behind a link, and links are not followed")
    try:
        handle = os.open(file.path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnwantedError("is a link, and links are not followed") from None
        if isinstance(error, PermissionError) and sys.platform != "win32":
            raise UnwantedError("may not be read by this user") from None
        raise UnreadyError from None  # gone; or, on Windows, in use
    with os.fdopen(handle, "rb") as opened:
        _check_same(file, os.fstat(handle))
        if file.size > limit:
            raise UnwantedError(f"holds {file.size:,} bytes, allowed are {limit:,} (--max-body)")
        if _is_being_written(handle):
            raise UnreadyError
        try:
            content = opened.read(file.size + 1)
        except OSError:
            raise UnreadyError from None
        _check_same(file, os.fstat(handle))
    if len(content) != file.size:
        raise UnreadyError
    return content


def seems_whole(content: bytes) -> bool:
    """Tell whether the end of a picture is there; it is decoded only where nothing cheaper tells."""
    try:
        open_picture(content, "picture")
        no_end = content.startswith(_JPEG_START) and _JPEG_END not in content[-_JPEG_TAIL:]
        if no_end or content.startswith(b"BM"):  # to decode a BMP is cheap, and nothing else tells of its end
            decode_pixels(content, "picture")
    except PictureError:
        return False
    return True


def _check_same(file: WatchedFile, status: os.stat_result) -> None:
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns) or not stat.S_ISREG(status.st_mode):
        raise UnreadyError


def _is_being_written(handle: int) -> bool:
    """Tell whether any program of this computer has the file open for writing; False where the system cannot tell."""
    if sys.platform != "linux":
        return False
    import fcntl
    import signal

    # subtle: who opens the file in this moment makes the kernel send a signal. The usual one would end the process.
    fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # is refused while somebody may write
    except OSError as error:
        return error.errno == errno.EAGAIN
    with contextlib.suppress(OSError):
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
