"""Finds the files of learnt pictures, for a report to show: only in folders that a person named.

A model file lists the paths of the pictures that it learnt. The file may come from a stranger, who could then choose
which files of this machine a report shows. So a path from a model opens nothing. The picture is looked for in the named
folders, by its name and the names of the folders that it was in, and it must have the bytes that were learnt.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.system.files import LARGEST, file_sha256

if TYPE_CHECKING:
    from totalrecall.registry import AnyJudge

__all__ = ["GoodPictures"]

_DEEPEST = 8  # folders above a picture that are looked for


class GoodPictures:
    """Finds the files of the pictures that a detector learnt.

    Args:
        detector: if it was fitted in this process, the paths of its pictures are used as they are.
        folders: folders that a person named.
    """

    def __init__(self, detector: "AnyJudge", folders: Sequence[str | Path]) -> None:
        self._fitted_here = detector.report_ is not None
        self._learnt = {picture.path: picture.sha256 for picture in detector.pictures_}
        self._folders = [Path(folder) for folder in folders]
        self._found: dict[str, Path | None] = {}

    @property
    def named(self) -> bool:
        """Whether there is a folder to look in."""
        return self._fitted_here or bool(self._folders)

    def file(self, path: str) -> Path | None:
        """Return the file of a learnt picture by its path in the model; None where it is not in the folders."""
        if path not in self._found:
            self._found[path] = next((one for one in self._places(path) if self._is(one, path)), None)
        return self._found[path]

    def _places(self, path: str) -> list[Path]:
        parts = [part for part in re.split(r"[/\\]", path) if part][-_DEEPEST:]
        if any(part in (".", "..") or "\0" in part or ":" in part for part in parts):
            parts = [part for part in parts[-1:] if part not in (".", "..") and "\0" not in part and ":" not in part]
        tails = [parts[at:] for at in range(len(parts))]
        own = [Path(path)] if self._fitted_here else []
        return own + [folder.joinpath(*tail) for folder in self._folders for tail in tails]

    def _is(self, file: Path, path: str) -> bool:
        try:
            return file_sha256(file, limit=LARGEST["picture"]) == self._learnt.get(path)
        except OSError:
            return False
