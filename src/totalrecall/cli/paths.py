"""Which arguments name files that a command reads, and which name files that it writes: no output may be an input.

Each argument of the parser that takes a path says so as its type (`type=INPUT`, `type=OUTPUT`, ...), and `cli.main`
compares them once, before any command runs: by device and inode, so that links and other spellings are seen.
"""

import argparse
import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from totalrecall.errors import SettingError
from totalrecall.system.files import is_special

__all__ = [
    "BACKBONE",
    "CHANGED",
    "EXPORTED",
    "INPUT",
    "LINES",
    "OUTPUT",
    "CommandFiles",
    "PathArgument",
    "actions_of",
]

_DATA = (".npy", ".avi")  # of a data set, besides pictures
_TABLES = ("1cls.csv", "image_anno.csv", "defects_config.json")


@dataclass(frozen=True)
class PathArgument:
    """The type of an argument that is a path; for argparse it gives the text back as it is.

    Attributes:
        reads: the command reads the file, or what a folder or glob holds.
        writes: the command writes the file.
        suffixes: of the files that are written for it, beside each other.
        instead: suffixes of files that are written beside it, in place of its own.
        inside: names of the files and folders that are written where it is a folder.
        backbone: it may be the name of a backbone, which is no path.
    """

    reads: bool = False
    writes: bool = False
    suffixes: tuple[str, ...] = ("",)
    instead: tuple[str, ...] = ()
    inside: tuple[str, ...] = field(default=())
    backbone: bool = False

    def __call__(self, text: str) -> str:
        """Return the argument as the person typed it."""
        return text


INPUT = PathArgument(reads=True)
OUTPUT = PathArgument(writes=True)
LINES = PathArgument(writes=True, suffixes=("", ".part"))  # grows under the second name, and is renamed at the end
EXPORTED = PathArgument(writes=True, suffixes=("", ".json"), instead=(".bin",))  # a graph, and what was compared
CHANGED = PathArgument(reads=True, writes=True)  # read, then written again
BACKBONE = PathArgument(reads=True, backbone=True)

_Identity = tuple[int, int]


class CommandFiles:
    """The files that a command, as it was typed, reads and writes."""

    def __init__(self, parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
        """Collect them from the arguments; nothing is looked at on disk yet.

        Args:
            parser: of all commands.
            args: what it has parsed.
        """
        self._inputs: list[tuple[str, str, PathArgument]] = []
        self._outputs: list[tuple[str, str, PathArgument]] = []
        for action in actions_of(parser, args):
            kind = action.type
            if not isinstance(kind, PathArgument):
                continue
            for value in _values(getattr(args, action.dest, None)):
                named = (_label(action), value, kind)
                if kind.reads:
                    self._inputs.append(named)
                if kind.writes:
                    self._outputs.append(named)

    @property
    def writes(self) -> bool:
        """Whether anything is written to a file: then a reader of stdout who goes away does not end the command."""
        return any(value != "-" for _, value, kind in self._outputs if not kind.reads)

    def check(self, *, stdout_is_closed: bool) -> None:
        """Refuse an output that is an input, two outputs that are one file, and stdout where it is closed.

        Raises:
            SettingError: naming both.
        """
        taken: dict[object, tuple[str, str]] = {}
        for label, value, kind in self._outputs:
            if value == "-" and stdout_is_closed:
                raise SettingError(f"{label} - writes to stdout, which is closed. Name a file.")
            written = _written(value, kind)
            for key in _keys(written):
                other = taken.get(key, (label, ""))
                if other[0] != label:
                    got = f"{value} for both" if other[1] == value else f"{other[1]} and {value}"
                    raise SettingError(f"{other[0]} and {label} must be two files, got {got}.")
                taken[key] = (label, value)
            self.refuse(label, value, written)

    def refuse(self, label: str, value: str, written: Sequence[Path]) -> None:
        """Refuse to write files over an input of the command.

        Args:
            label: the option.
            value: what was given for it.
            written: the files that are to be written.

        Raises:
            SettingError: naming the option and the input.
        """
        there = {identity: path for path in written for identity in [_identity(path)] if identity}
        if not there:
            return
        for name, given, kind in self._inputs:
            if name == label:
                continue  # read and written by intent
            for path in _read(given, kind):
                if _identity(path) in there:
                    raise SettingError(
                        f"{label} {value} would write over {path}, given as {name}. Name another {_place(value)}."
                    )


def actions_of(parser: argparse.ArgumentParser, args: argparse.Namespace | None = None) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its commands: of those that were chosen, or without `args` of all."""
    for action in parser._actions:  # noqa: SLF001  argparse gives them under no other name
        if not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            yield action
            continue
        for name, command in action.choices.items():
            if args is None or getattr(args, action.dest) == name:
                yield from actions_of(command, args)


def _label(action: argparse.Action) -> str:
    longest = [name for name in action.option_strings if name.startswith("--")] or action.option_strings
    return longest[0] if longest else str(action.metavar or action.dest)


def _values(value: object) -> list[str]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [text for text in values if isinstance(text, str) and text]


def _place(value: str) -> str:
    return "folder" if os.path.isdir(value) else "file"  # noqa: PTH112  is_dir may raise


def _written(value: str, kind: PathArgument) -> list[Path]:
    """Return the files that an output argument makes, as far as its value says."""
    if value == "-":
        return []
    if is_special(Path(value)):  # a pipe or /dev/null has no other name, and takes what several write
        return []
    if not kind.inside or not os.path.isdir(value):  # noqa: PTH112
        stem = os.path.splitext(value)[0]  # noqa: PTH122  with_suffix raises at an empty name
        return [*(Path(f"{value}{end}") for end in kind.suffixes), *(Path(f"{stem}{end}") for end in kind.instead)]
    inside = [Path(value, name) for name in kind.inside]
    return [file for path in inside for file in ([path] if not path.is_dir() else _walk(path))]


def _keys(written: Iterable[Path]) -> Iterator[object]:
    """Yield what tells files from each other: the inode of those that are there, and the place of all."""
    for path in written:
        identity = _identity(path)
        if identity:
            yield identity
        place = os.path.normcase(os.path.realpath(path))
        yield place.casefold() if sys.platform == "darwin" else place


def _read(value: str, kind: PathArgument) -> Iterator[Path]:
    """Yield the files that an input argument names."""
    if kind.backbone and not value.endswith(".onnx"):
        from totalrecall.backbones.store import places_of

        yield from places_of(value)
        return
    path = Path(value)
    try:
        if path.is_dir():
            yield from (file for file in _walk(path) if _is_data(file))
        elif os.path.lexists(path) or not glob.has_magic(value):
            yield path
        else:
            from totalrecall.pictures.path_patterns import matching_paths

            for match in matching_paths(value):
                yield from filter(_is_data, _walk(match)) if match.is_dir() else [match]
    except (OSError, ValueError):  # too long a name, or a NUL byte: whoever reads it says so
        return


def _is_data(file: Path) -> bool:
    from totalrecall.pictures.files import PICTURE_SUFFIXES

    return file.suffix.lower() in (*PICTURE_SUFFIXES, *_DATA) or file.name in _TABLES


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder to any depth, links to folders followed once."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        try:
            status = os.stat(parent)  # noqa: PTH116
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (Path(parent, name) for name in names)


def _identity(path: Path) -> _Identity | None:
    """Return device and inode of a file that is there, links followed; of pipes, devices and folders None."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
