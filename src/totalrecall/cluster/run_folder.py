"""The folder of a long run, beside the file that it makes: one command holds it, and it goes as a whole."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from totalrecall.system.files import atomic_write, exclusive

__all__ = ["held_folder", "remove_folder"]


@contextlib.contextmanager
def held_folder(target: Path) -> Iterator[Path]:
    """Hold the folder of a run, made if it is not there; no other command may have it.

    Args:
        target: the file that the run makes.

    Raises:
        DataError: another command works there, or it cannot be written.
    """
    folder = Path(f"{target}.parts")
    if _old(folder).is_dir():
        shutil.rmtree(_old(folder))
    if not (folder / "lock").exists():
        atomic_write(folder / "lock", b"")
    with exclusive(folder / "lock"):
        yield folder


def remove_folder(folder: Path) -> None:
    """Take the folder away by one rename, so that a command that is ended here leaves no half of it."""
    old = _old(folder)
    folder.rename(old)
    shutil.rmtree(old)


def _old(folder: Path) -> Path:
    """Return the name of a folder that nobody needs any more."""
    return folder.with_name(f"{folder.name}.old")
