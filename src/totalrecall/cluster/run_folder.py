"""The folder of a long run, beside the file that it makes: one command holds it, and nobody else's files are touched.

The file `lock` says by its content which command the folder belongs to, and so does `plan.json`. A folder of that name
that is another's is refused. What goes is what the command knows by name: the plan first, without it nothing else
counts, the lock last, and the folder only if it is empty then.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalrecall.errors import DataError
from totalrecall.system.files import atomic_write, exclusive, read_regular

__all__ = ["RunKind", "check_folder", "clear_folder", "held_folder", "read_plan", "remove_folder", "write_plan"]


@dataclass(frozen=True)
class RunKind:
    """What the folder of a command looks like.

    Attributes:
        command: that works there.
        names: of its files beside the lock, the plan and the list of pictures, as a regular expression.
        numbers: of its plan, each at least 1.
        words: of its plan.
    """

    command: str
    names: str
    numbers: tuple[str, ...]
    words: tuple[str, ...] = ()

    @property
    def lock(self) -> bytes:
        """What the lock holds."""
        return f"totalrecall {self.command} --ray\n".encode()

    def knows(self, name: str) -> bool:
        """Tell whether a file of that name is one of the folder's, or one that is half written."""
        own = rf"lock|plan\.json|pictures\.jsonl|{self.names}"
        return re.fullmatch(rf"{own}|\.(?:{own})\..*\.part", name, re.DOTALL) is not None


def check_folder(target: Path, kind: RunKind) -> None:
    """Refuse a folder that is not this kind of command's, before anything is written; an empty one is anybody's.

    Args:
        target: the file that the run makes.
        kind: of the command.

    Raises:
        DataError: it is another's, or its plan is damaged.
    """
    folder = _folder(target)
    try:
        fault = _fault(folder, kind)
    except OSError as error:
        fault = f"what cannot be read ({error.strerror or error})"
    if fault:
        raise DataError(
            f"{folder} must be empty or hold what {kind.command} --ray has done so far, got {fault}. "
            "Name another output, or move it away."
        )


@contextlib.contextmanager
def held_folder(target: Path, kind: RunKind) -> Iterator[Path]:
    """Hold the folder of a run, made if it is not there; no other command may have it.

    Args:
        target: the file that the run makes.
        kind: of the command.

    Raises:
        DataError: another command works there, or it is another's, or it cannot be written.
    """
    check_folder(target, kind)
    folder = _folder(target)
    if not (folder / "lock").exists():
        atomic_write(folder / "lock", kind.lock)
    with exclusive(folder / "lock"):
        yield folder


def read_plan(folder: Path, kind: RunKind) -> dict[str, Any] | None:
    """Return the plan in a folder; None if there is none.

    Raises:
        ValueError: it is damaged, or that of another command; the message says how.
        OSError: it cannot be read.
    """
    try:
        plan = json.loads(read_regular(folder / "plan.json"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise ValueError("a damaged plan.json (it is no JSON)") from None
    if not isinstance(plan, dict):
        raise ValueError("a damaged plan.json (it holds no names)")
    for name in ("command", "asked", *kind.numbers, *kind.words):
        if name not in plan:
            raise ValueError(f"a damaged plan.json ({name!r} is missing)")
    if plan["command"] != kind.command:
        raise ValueError(f"a plan.json of {str(plan['command'])[:100]!r}")
    right = isinstance(plan["asked"], dict) and all(isinstance(plan[name], str) for name in kind.words)
    if not right or not all(type(plan[name]) is int and plan[name] >= 1 for name in kind.numbers):
        raise ValueError("a damaged plan.json (its values are not possible)")
    return plan


def write_plan(folder: Path, kind: RunKind, plan: Mapping[str, Any]) -> None:
    """Write the plan of a run, and which command it is of."""
    atomic_write(folder / "plan.json", json.dumps({"command": kind.command, **plan}, indent=2).encode())


def clear_folder(folder: Path, kind: RunKind) -> None:
    """Remove what the command knows by name except the lock, the plan first: without it nothing else counts."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name != "plan.json"):
        if path.name != "lock" and kind.knows(path.name) and (path.is_symlink() or not path.is_dir()):
            path.unlink()


def remove_folder(folder: Path, kind: RunKind) -> None:
    """Remove what the command knows by name, and the folder if it is empty then; else it keeps the lock."""
    clear_folder(folder, kind)
    if [path.name for path in folder.iterdir()] == ["lock"]:
        (folder / "lock").unlink()
        with contextlib.suppress(OSError):  # somebody just put something in, or the folder is a link
            folder.rmdir()


def _folder(target: Path) -> Path:
    return Path(f"{target}.parts")


def _fault(folder: Path, kind: RunKind) -> str:
    """Say what is wrong with a folder; empty if nothing is."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return "a link to nothing" if folder.is_symlink() else ""
    except NotADirectoryError:
        return "a file"
    if "lock" not in names:
        other = [name for name in names if not re.fullmatch(r"\.lock\..*\.part", name, re.DOTALL)]
        return f"files of another origin ({other[0]!r})" if other else ""
    lock = read_regular(folder / "lock")
    if lock != kind.lock:
        return f"files of another command ({lock[:100].decode(errors='replace').strip()!r} in the file lock)"
    try:
        plan = read_plan(folder, kind)
    except ValueError as error:
        return str(error)
    strange = [] if plan is not None else [name for name in names if not kind.knows(name)]  # nothing goes on there
    return f"files of another origin ({strange[0]!r})" if strange else ""
