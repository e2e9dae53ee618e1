"""Patterns of paths such as `parts/*.png` and `parts/**/good` -> the files and folders that they match.

As the shell does: a pattern matches folders too, and `**` stands for folders to any depth. Unlike `glob`, each folder
is entered once however many links lead to it: with a link to a folder above it, `glob` gives each file forty times,
and with two such links it does not end.
"""

import fnmatch
import glob
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["fixed_part", "matching_paths", "walk"]


def matching_paths(pattern: str) -> list[Path]:
    """Return the files and folders that a pattern matches, sorted; hidden ones only where the pattern names them."""
    parts = Path(pattern).parts
    if "**" not in parts:
        names = sorted(glob.glob(pattern))  # noqa: PTH207  Path.glob takes no absolute pattern
        return [Path(name) for name in names]
    first = parts.index("**")
    folders = matching_paths(str(Path(*parts[:first]))) if first else [Path()]
    rest = tuple(
        name for name, before in zip(parts[first:], ("", *parts[first:]), strict=False) if (name, before) != _TWICE
    )
    seen: set[tuple[int, int]] = set()
    return sorted(path for folder in folders for path, names in _below(folder, seen) if _fits(names, rest))


_TWICE = ("**", "**")


def fixed_part(pattern: str) -> Path:
    """Return the folder before the first sign of a pattern: of `set/*/good/*.png` it is `set`."""
    parts = Path(pattern).parts
    fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])


def walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, list[os.DirEntry[str]] | OSError]]:
    """Yield each folder in a folder, itself the first, with what is in it by name, hidden ones left out.

    A folder is yielded once, by its own path rather than a link's; the error in its place where it cannot be read.

    Args:
        folder: to search.
        seen: device and inode of the folders that are not entered again; those that are entered join it.
    """
    links = [folder]
    while links:  # the folders themselves before those that links lead to
        waiting, links = links, []
        while waiting:
            here = waiting.pop()
            if not _first_visit(here, seen):
                continue
            try:
                with os.scandir(here) as entries:  # it knows folders from files without a question to the disk for each
                    listed = sorted(
                        (item for item in entries if not item.name.startswith(".")), key=lambda item: item.name
                    )
            except OSError as error:
                yield here, error
                continue
            for entry in listed:
                if _is_folder(entry):
                    (links if entry.is_symlink() else waiting).append(here / entry.name)
            yield here, listed


def _below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield what is in a folder at any depth, each path with its names below the folder."""
    for here, listed in walk(folder, seen):
        if not isinstance(listed, OSError):
            inside = here.relative_to(folder).parts
            yield from ((here / entry.name, (*inside, entry.name)) for entry in listed)


def _fits(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Tell whether the names of a path fit the parts of a pattern; a last `**` fits anything."""
    if not parts:
        return not names
    if parts[0] == "**":
        return len(parts) == 1 or any(_fits(names[place:], parts[1:]) for place in range(len(names)))
    return bool(names) and fnmatch.fnmatch(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _first_visit(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = folder.stat()
    except (OSError, ValueError):
        return True  # listing it says what is wrong
    key = (status.st_dev, status.st_ino)
    if status.st_ino and key in seen:  # some file systems number nothing
        return False
    seen.add(key)
    return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
