"""What a fit on a cluster has done so far, in a folder beside the model: given again, the command goes on from there.

    part.trecall.parts/
      lock                 held while a command works here; says that it is a fit's
      plan.json            what was asked for, how many pictures a shard has, and a word that no other fit has
      pictures.jsonl       every picture, a line each: its name, size and time of change; of a store, the SHA-256
      features-1-00000     the patches of the first shard, and so on; 2: read again without repeats
      coreset              which patches were chosen
      fold-00000           how the pictures of the first fold measure, and so on

Each file appears whole, under its name or not at all, and one that is damaged is made again. Workers write the features
themselves: those of another machine, if it sees the folder under the same path. Nothing that another command made
enters a model: if a setting, a version or a picture is another than it was, all is made anew.
"""

import contextlib
import importlib.metadata
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from totalrecall._version import __version__
from totalrecall.cluster.packing import packed, unpacked
from totalrecall.cluster.run_folder import RunKind, clear_folder, held_folder, read_plan, remove_folder, write_plan
from totalrecall.errors import DataError
from totalrecall.features.patches import PatchExtractor
from totalrecall.patchcore.settings import Settings
from totalrecall.pictures.formats.header import max_pixels
from totalrecall.pictures.in_memory import RemotePicture, source_name
from totalrecall.pictures.loading import Source
from totalrecall.system.files import atomic_write, read_regular, sha256
from totalrecall.system.text import format_size

__all__ = ["KeptFit", "KeptValue", "asked_of", "opened_fit"]

_KIND = RunKind("fit", r"coreset|features-\d-\d+|fold-\d+", numbers=("size",), words=("word",))
_PACKAGES = ("numpy", "opencv-python-headless", "openvino", "onnxruntime", "torch")  # that compute


@dataclass(frozen=True)
class KeptValue:
    """A file of the folder, for whoever works at it: also a process of a machine that may not see the folder.

    Attributes:
        folder: of the fit.
        word: that stands in its plan.
        name: of the file.
    """

    folder: str
    word: str
    name: str

    def read(self) -> Any:
        """Return the value; None if it is not there, or is damaged."""
        if not self._is_fits():
            return None
        try:
            return unpacked(read_regular(Path(self.folder, self.name)))
        except (OSError, ValueError):
            return None

    def write(self, value: Any) -> None:
        """Keep the value, if this process sees the folder and its disk has room."""
        if self._is_fits():
            with contextlib.suppress(DataError):
                atomic_write(Path(self.folder, self.name), packed(value))

    def _is_fits(self) -> bool:
        """Tell whether the folder is there, and is the one of this fit."""
        plan = _read_plan(Path(self.folder))
        return plan is not None and plan["word"] == self.word


class KeptFit:
    """The folder of one fit; see `opened_fit`.

    Attributes:
        size: pictures of a shard; known once `begin` was called.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._word = ""
        self.size = 0

    def begin(self, asked: Mapping[str, Any], sources: Sequence[Source], size: int, needed: int) -> str:
        """Go on with what is there, or begin anew if that was another fit.

        Args:
            asked: what decides the model, as JSON types.
            sources: the pictures.
            size: pictures of a shard; those of an earlier fit stay.
            needed: bytes that all patches take.

        Returns:
            What a person is told; empty if there is nothing to tell.
        """
        pictures = [json.dumps(_picture(source)) for source in sources]
        plan, said = _read_plan(self._folder), ""
        if plan is not None:
            other = _difference(plan["asked"], asked, self._folder, pictures)
            if not other:
                self._word, self.size = plan["word"], plan["size"]
                return self._told(len(pictures))
            said = f"Begins anew, what an earlier fit kept is of no use: {other}"
        self.clear()
        free = shutil.disk_usage(self._folder).free
        if free < 2 * needed:
            few = f"that takes {format_size(needed)}, and {format_size(free)} are free"
            return f"{said}. " * bool(said) + f"Nothing is kept of this fit until it is done: {few}"
        self._word, self.size = uuid.uuid4().hex, size
        atomic_write(self._folder / "pictures.jsonl", "".join(f"{line}\n" for line in pictures).encode())
        write_plan(self._folder, _KIND, {"asked": asked, "size": size, "word": self._word})
        return said

    def value(self, name: str) -> KeptValue | None:
        """Return a file of the folder; None where nothing is kept."""
        return KeptValue(str(self._folder.absolute()), self._word, name) if self._word else None

    def clear(self) -> None:
        """Remove what the fit knows by name except the lock: nothing is gone on with."""
        clear_folder(self._folder, _KIND)

    def remove(self) -> None:
        """Remove all that the fit knows by name, and the folder if it is empty then: the model is written."""
        remove_folder(self._folder, _KIND)

    def _told(self, total: int) -> str:
        names = [path.name for path in self._folder.iterdir()]
        features = sum(name.startswith("features-1-") for name in names)
        folds = sum(name.startswith("fold-") for name in names)
        coreset = "the coreset, " if "coreset" in names else ""
        return (
            f"Went on where an earlier fit ended: {features} of {-(-total // self.size)} shards of features, "
            f"{coreset}{folds} folds"
        )


@contextlib.contextmanager
def opened_fit(target: Path) -> Iterator[KeptFit]:
    """Hold the folder beside a model file where an earlier fit was ended, or a new one; no other command may have it.

    Raises:
        DataError: another command works there, or it is another's, or it cannot be written.
    """
    with held_folder(target, _KIND) as folder:
        kept = KeptFit(folder)
        try:
            yield kept
        finally:
            if folder.is_dir() and not (folder / "plan.json").exists():  # nothing to go on with
                remove_folder(folder, _KIND)


def asked_of(extractor: PatchExtractor, settings: Settings, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the model besides the pictures, as JSON types; `more` is what the way of working adds."""
    recipe = extractor.recipe
    region = None if recipe.roi is None else sha256(repr(recipe.roi.shape).encode() + recipe.roi.tobytes())
    versions = {"totalrecall": __version__}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    named = {one.name: repr(getattr(settings, one.name)) for one in fields(settings) if one.name != "roi"}
    return {
        **named,
        "roi": region,
        "bit depth found": repr(recipe.depth),
        "backbone's SHA-256": extractor.backbone.sha256,
        "max_pixels": max_pixels(),
        "versions": versions,
        **more,
    }


def _picture(source: Source) -> list[Any]:
    """Return a picture's name, and what changes when it does; what is in memory is never the same again."""
    if isinstance(source, RemotePicture):
        return [source.address, None if source.digest is None else source.digest.hex()]
    if not isinstance(source, (str, os.PathLike)):
        return [source_name(source, 0), uuid.uuid4().hex]
    try:
        status = os.stat(source)  # noqa: PTH116  a name may hold a NUL byte
    except (OSError, ValueError):
        return [str(source), None]
    return [str(source), status.st_size, status.st_mtime_ns]


def _read_plan(folder: Path) -> dict[str, Any] | None:
    try:
        return read_plan(folder, _KIND)
    except (OSError, ValueError):
        return None


def _difference(before: Mapping[str, Any], asked: Mapping[str, Any], folder: Path, pictures: Sequence[str]) -> str:
    """Say what is another than in the fit before; empty if nothing is."""
    now = json.loads(json.dumps(asked))
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            return f"{name} was {str(before.get(name))[:100]}, now {str(now.get(name))[:100]}"
    try:
        lines = (folder / "pictures.jsonl").read_text().splitlines()
    except (OSError, ValueError):
        return "its list of pictures is damaged"
    for line, picture in zip(lines, pictures, strict=False):
        if line != picture:
            return f"picture {json.loads(picture)[0]} is another, or was changed"
    return "" if len(lines) == len(pictures) else f"there were {len(lines)} pictures, now there are {len(pictures)}"
