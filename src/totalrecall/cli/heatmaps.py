"""The folder of `predict --heatmaps`: what an earlier run wrote there goes, what anybody else put there stays.

The folder holds a list of the heat maps that we wrote, with the SHA-256 of each. At the next run those that still are
what was written are removed, so that no old heat map lies among the new ones. A file that is not in the list, or was
changed since, is not ours: it is neither removed nor written over.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.common import complain
from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.system.files import LARGEST, atomic_write, file_sha256, read_regular, sha256

if TYPE_CHECKING:
    from totalrecall.cli.paths import CommandFiles
    from totalrecall.scoring import Result

__all__ = ["HeatmapFolder", "HeatmapNames"]

_LIST = ".totalrecall-heatmaps"  # JSON lines; hidden, so that no command takes it for anything


class HeatmapFolder:
    """Writes heat maps, and knows those of earlier runs."""

    def __init__(self, folder: str) -> None:
        """Look at what is there; nothing is changed yet.

        Raises:
            DataError: the list of heat maps is no file.
        """
        self.folder = Path(folder)
        self._list = self.folder / _LIST
        if os.path.lexists(self._list) and (self._list.is_symlink() or not self._list.is_file()):
            raise DataError(f"{self._list} is no file of ours. Remove it, or name another folder for --heatmaps.")
        self.earlier = self._earlier()
        self._paths: Sequence[Path] = []

    def without_earlier(self, pictures: Sequence[Path]) -> list[Path]:
        """Return the pictures that are not heat maps of an earlier run: the folder may lie in one that is scored."""
        ours = {os.path.realpath(path) for path in self.earlier}
        return [picture for picture in pictures if os.path.realpath(picture) not in ours] if ours else list(pictures)

    def plan(self, pictures: Sequence[Path], files: "CommandFiles") -> None:
        """Choose a name for each picture's heat map.

        Raises:
            SettingError: one would be written over a picture that is scored, or over any file that is not ours.
        """
        names = HeatmapNames(self.folder, pictures)
        self._paths = [names.of(picture) for picture in pictures]
        ours = set(self.earlier)
        others = [path for path in self._paths if path not in ours]
        files.refuse("--heatmaps", str(self.folder), others)
        for path in others:
            if os.path.lexists(path):
                raise SettingError(
                    f"--heatmaps {self.folder} would write over {path}, which no earlier run of this version wrote, "
                    "or which was changed since. Name another folder, or remove that file."
                )

    def clear(self) -> None:
        """Remove the heat maps of earlier runs and begin a new list."""
        for path in self.earlier:
            with contextlib.suppress(OSError):
                path.unlink()
        for folder in sorted({path.parent for path in self.earlier} - {self.folder}, reverse=True):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        atomic_write(self._list, b"")

    def write(self, number: int, result: "Result") -> None:
        """Write the heat map of picture `number`; a picture that has gone meanwhile is named, not fatal.

        Raises:
            DataError: it cannot be written.
        """
        from totalrecall.pictures.overlay import encode_overlay

        path = self._paths[number]
        try:
            data = encode_overlay(result.overlay())
        except PictureError as error:
            complain(error)
            return
        line = json.dumps({"file": path.relative_to(self.folder).as_posix(), "sha256": sha256(data)})
        try:
            with self._list.open("ab") as file:  # before the heat map: a killed run leaves none that is not listed
                file.write(line.encode() + b"\n")
        except OSError as error:
            raise DataError(f"Cannot write {self._list}: {error.strerror or error}. Name another folder.") from None
        atomic_write(path, data)

    def _earlier(self) -> list[Path]:
        """Return the heat maps that an earlier run wrote and nobody has changed."""
        try:
            lines = read_regular(self.folder / _LIST, limit=LARGEST["list of heat maps"]).splitlines()
        except OSError:
            return []
        earlier: dict[Path, None] = {}
        for line in lines:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
                entry = json.loads(line)
                name, digest = Path(str(entry["file"])), entry["sha256"]
                path = self.folder / name
                inside = not name.is_absolute() and ".." not in name.parts and name.suffix == ".png"
                if inside and not path.is_symlink() and file_sha256(path, limit=LARGEST["picture"]) == digest:
                    earlier[path] = None
        return list(earlier)


class HeatmapNames:
    """Names for overlays: the pictures' own folders below their common parent, `.png`, no two alike."""

    def __init__(self, folder: Path, pictures: Sequence[Path]) -> None:
        self.folder = folder
        self.taken: set[str] = set()
        absolute = [Path(os.path.abspath(picture)) for picture in pictures]  # noqa: PTH100  resolve() would follow links
        try:
            self.parent = Path(os.path.commonpath([picture.parent for picture in absolute]))
        except ValueError:  # two drives on Windows
            self.parent = Path()

    def of(self, picture: Path) -> Path:
        """Return the overlay's path for a picture."""
        absolute = Path(os.path.abspath(picture))  # noqa: PTH100
        inside = absolute.relative_to(self.parent) if absolute.is_relative_to(self.parent) else Path(absolute.name)
        name, number = inside.with_suffix(".png"), 1
        if str(name).lower() in self.taken:  # a.jpg beside a.png
            name = inside.with_name(inside.name + ".png")
        while str(name).lower() in self.taken:
            number += 1
            name = inside.with_name(f"{inside.name}-{number}.png")
        self.taken.add(str(name).lower())
        return self.folder / name
