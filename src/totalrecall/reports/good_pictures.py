"""The files of learnt pictures, for a report to show: only those in folders that a person named.

A model tells the paths of the pictures that it learnt. It may come from a stranger, who would choose which files of
this machine a report shows. So a path from a model opens nothing: the picture is looked for in the folders that were
named, under its own name and those of the folders that it lay in, and must have the bytes that were learnt.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.system.files import LARGEST, file_sha256

if TYPE_CHECKING:
    from totalrecall.registry import AnyDetector

__all__ = ["GoodPictures"]

_DEEPEST = 8  # folders above a picture that are looked for


class GoodPictures:
    """Finds the files of the pictures that a detector learnt.

    Args:
        detector: fitted here, it was given its pictures by the person: their paths are taken as they are.
        folders: that a person named.
    """

    def __init__(self, detector: "AnyDetector", folders: Sequence[str | Path]) -> None:
        self._fitted_here = detector.report_ is not None
        self._learnt = {picture.path: picture.sha256 for picture in detector.pictures_}
        self._folders = [Path(folder) for folder in folders]
        self._found: dict[str, Path | None] = {}

    @property
    def named(self) -> bool:
        """Whether there is anywhere to look."""
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
