"""What becomes of a picture in a hot folder once it is inspected: moved or deleted, and nothing is ever overwritten."""

import contextlib
import errno
import itertools
import os
from pathlib import Path

from totalrecall.station.links.ledger import WatchedFile
from totalrecall.station.store.records import VERDICTS

__all__ = ["VERDICT_FOLDERS", "put_away"]

VERDICT_FOLDERS = frozenset(verdict.replace(" ", "-") for verdict in VERDICTS)
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


def put_away(file: WatchedFile, folder: str, verdict: str | None) -> bool:
    """Move a file into the folder of a verdict, or delete it if that is None.

    A file that is another by now is left: it was not inspected.

    Args:
        file: as it was inspected.
        folder: that is watched.
        verdict: of the inspection.

    Returns:
        whether it was done.

    Raises:
        OSError: it cannot be done.
    """
    path = Path(file.path)
    try:
        status = path.lstat()
    except FileNotFoundError:
        return True
    if (status.st_size, status.st_mtime_ns, status.st_ino) != (file.size, file.mtime_ns, file.inode):
        return False
    if verdict is None:
        path.unlink(missing_ok=True)
        return True
    target = Path(folder) / verdict.replace(" ", "-") / path.parent.relative_to(folder)
    _make(target, Path(folder))
    for number in itertools.count(1):
        name = path.name if number == 1 else f"{path.stem} ({number}){path.suffix}"
        try:
            _move_into(path, target / name)
        except FileExistsError:
            if not (target / name).samefile(path):
                continue
            path.unlink()  # the process was killed between the two steps of moving it
        return True
    raise AssertionError("unreachable")


def _make(target: Path, folder: Path) -> None:
    """Make a folder inside another, step by step: a link on the way would lead elsewhere.

    Raises:
        OSError: it cannot be made, or something else has the name.
    """
    here = folder
    for part in target.relative_to(folder).parts:
        here = here / part
        with contextlib.suppress(FileExistsError):
            here.mkdir()
        if here.is_symlink() or not here.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{here} is no folder")


def _move_into(path: Path, target: Path) -> None:
    """Give a file another name.

    Raises:
        FileExistsError: there is a file of that name.
    """
    if os.name == "nt":  # there a rename never overwrites
        path.rename(target)
        return
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # a disk without hard links: the empty file keeps the name free of others until ours takes it
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        path.replace(target)
        return
    path.unlink()
