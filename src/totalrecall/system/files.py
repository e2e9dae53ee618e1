"""Files written whole or not at all, and the folder where Total Recall keeps what it needs between runs."""

import contextlib
import errno
import hashlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from totalrecall.errors import DataError, SettingError

__all__ = [
    "LARGEST",
    "atomic_write",
    "check_writable",
    "exclusive",
    "file_sha256",
    "home",
    "is_special",
    "open_regular",
    "read_regular",
    "refuse_overwriting",
    "sha256",
    "write_atomically",
]

LARGEST = {  # bytes of a file of each kind, far above what one of ours has; a larger one is refused before it is read
    "backbone": 2 << 30,  # that a graph's own format allows
    "weights": 8 << 30,
    "compiled graph": 1 << 30,
    "monitor": 64 << 20,
    "table": 256 << 20,
    "journal": 1 << 30,
    "list of heat maps": 64 << 20,
    "picture": 4 << 30,  # where its bytes are only compared; `--max-pixels` guards those that are decoded
}
_ABANDONED = 600  # seconds: whoever writes a file for longer than that is writing to it now and then


def home() -> Path:
    """Return the per-user folder for added backbones and compiled graphs; `TOTALRECALL_HOME` overrides it.

    Raises:
        DataError: nobody says which it is: a container's user, for example, may have no home folder.
    """
    try:
        return _home()
    except RuntimeError:  # neither HOME nor an entry in the list of users
        raise DataError(
            "This user has no home folder. Set TOTALRECALL_HOME to a folder for added backbones and compiled graphs."
        ) from None


def _home() -> Path:
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


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object], *, replacing: str | None = None) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it over `path`; on any failure nothing changes.

    A link stays a link: the file that it names is written. What is no file (a pipe, /dev/null) is written to directly.

    Args:
        path: of the file.
        write: called with the open file.
        replacing: SHA-256 of the file that is expected at `path`.

    Raises:
        DataError: the folder cannot be made or written, or `path` holds another file than expected.
    """
    path = Path(path)
    if is_special(path):  # asked before links are followed by name: /dev/stdout leads to a pipe that has none
        return _write_special(path, write)
    target = Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114  is_symlink may raise
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # of a name as long as the system allows, only the beginning
        handle, temporary = tempfile.mkstemp(prefix=_part(target), suffix=".part", dir=target.parent)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise _cannot_write(path, error, "Name a folder that can be written.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # a rename before the bytes are on disk could survive a power cut as an empty file
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101  mkstemp makes it private; a shared folder expects the usual
        if replacing is not None and sha256(target.read_bytes()) != replacing:
            raise DataError(
                f"{path} was written by another program meanwhile; it is left as it is. Run the command again."
            )
        os.replace(temporary, target)  # noqa: PTH105
    except OSError as error:
        _remove(temporary)
        raise _cannot_write(path, error, "Free some space or name another place.") from None
    except BaseException:
        _remove(temporary)
        raise
    return path


@contextlib.contextmanager
def exclusive(path: str | Path) -> Iterator[str]:
    """Hold a file against other programs that change it in this way, and give its SHA-256.

    The system lets go of it when the program ends, however it ends; nothing is left behind. Where it has no such lock
    (Windows), only `replacing` of `write_atomically` is between two of them. What a killed program left half-written
    beside the file is removed once it is ten minutes old.

    Raises:
        DataError: another program holds it, or it cannot be read.
    """
    path = Path(path)
    try:
        file = open_regular(path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from None
    with file:
        _lock(file, path)
        _remove_abandoned(Path(os.path.realpath(path)))
        digest = sha256(file.read())
        if sys.platform == "win32":
            file.close()  # an open file could not be replaced there
        yield digest


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


def refuse_overwriting(path: str | Path, inputs: Iterable[str | Path], what: str) -> None:
    """Refuse to write a file over one of those that it is made from, by whatever name, links included.

    Args:
        path: of the file that is to be written.
        inputs: that must stay.
        what: they are, for the message.

    Raises:
        SettingError: it is one of them.
    """
    try:
        target = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # not there: nothing is lost
        return
    for one in inputs:
        try:
            same = os.path.samestat(target, os.stat(one))  # noqa: PTH116
        except (OSError, ValueError):  # gone
            continue
        if same:
            raise SettingError(f"{path} must name a file of its own, got {one}, {what}. Name another file.")


def is_special(path: Path) -> bool:
    """Tell whether a path is there and is neither file nor folder: a pipe, a terminal, /dev/null."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def read_regular(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """Read a file whole, and nothing but a file: a pipe would hang, /dev/zero would fill the memory.

    Whatever comes from a person or a stranger is read here: pictures, masks, models, weights, monitors, caches. Every
    reason why it cannot be read is an OSError whose `strerror` is fit to stand behind "... cannot be read: ".

    Args:
        path: of the file, or of a link to one.
        limit: the most bytes that are read; a larger file is refused before any memory is taken.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it is no regular file, larger than the limit, or not readable.
    """
    with open_regular(path, limit=limit) as file:
        size = os.fstat(file.fileno()).st_size
        parts = [file.read(size + 1)]
        while parts[-1] and sum(map(len, parts)) > size:  # it grew meanwhile, or the system does not know its size
            _check_size(sum(map(len, parts)), limit)
            parts.append(file.read(1 << 20))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def open_regular(path: str | os.PathLike[str], *, limit: int | None = None) -> BinaryIO:
    """Open a file to read from it in pieces, with the checks and errors of `read_regular`."""
    try:
        _check_regular(os.stat(path), limit)  # noqa: PTH116  before it is opened: to open a device may do something
        # subtle: between the two another file may have taken the name; opened so, even a pipe does not wait
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:
        raise OSError(errno.EINVAL, "its name holds a NUL byte") from None
    file = os.fdopen(handle, "rb")
    try:
        _check_regular(os.fstat(handle), limit)
    except OSError:
        file.close()
        raise
    return file


def file_sha256(path: str | os.PathLike[str], *, limit: int | None = None) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, without holding it in memory.

    Raises:
        OSError: as for `read_regular`.
    """
    digest = hashlib.sha256()
    with open_regular(path, limit=limit) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _check_regular(status: os.stat_result, limit: int | None) -> int:
    """Return the size of a file by its status; raise if it is not a file or too large."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"it is {_special_kind(status.st_mode)}, not a file")
    return _check_size(status.st_size, limit)


def _check_size(size: int, limit: int | None) -> int:
    if limit is not None and size > limit:
        raise OSError(errno.EFBIG, f"it holds {size:,} bytes, allowed are {limit:,}")
    return size


def _special_kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


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


def _part(target: Path) -> str:
    """Return how the temporary names of a file begin."""
    return f".{target.name[:40]}."


def _lock(file: BinaryIO, path: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    with contextlib.suppress(OSError):  # a share without locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{path} is being updated by another program. Run the command again when it is done."
            ) from None
    if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        raise DataError(f"{path} was just updated by another program. Run the command again.")


def _remove_abandoned(target: Path) -> None:
    with contextlib.suppress(OSError):
        for one in target.parent.iterdir():
            if one.name.startswith(_part(target)) and one.name.endswith(".part"):
                with contextlib.suppress(OSError):
                    if time.time() - one.stat().st_mtime > _ABANDONED:
                        one.unlink()


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
