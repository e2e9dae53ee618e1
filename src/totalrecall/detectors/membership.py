"""Which pictures join a model after its fit and which leave it, whatever kind of model it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from totalrecall.calibration import Calibration
from totalrecall.detectors.base import Digest
from totalrecall.detectors.changes import Changed
from totalrecall.detectors.changing import Changing
from totalrecall.detectors.fit_report import Progress
from totalrecall.errors import PictureError, SettingError
from totalrecall.pictures.loading import LearntPicture, LoadedPicture, Source, renumbered
from totalrecall.pictures.unlike import PictureTally
from totalrecall.system.files import LARGEST, file_sha256
from totalrecall.system.memory import available_memory
from totalrecall.system.text import format_size
from totalrecall.types import LayerMap

__all__ = ["Newcomer", "is_last_update", "named", "read_newcomers", "read_pictures", "without"]

_SHORTEST_HASH = 8  # digits by which a picture may be named


@dataclass(frozen=True, eq=False)
class Newcomer(Generic[Digest]):
    """A good picture that joins, and what the model compares of it."""

    picture: LearntPicture
    digest: Digest


def read_newcomers(
    detector: Changing[Any, Digest],
    sources: Sequence[Source],
    progress: Progress | None,
    *,
    each: int,
    beside: int = 0,
) -> tuple[list[Newcomer[Digest]], list[str], list[PictureError]]:
    """Return the pictures that are new to a detector, paths of known ones, and why others cannot be used.

    Args:
        detector: that they are to join.
        sources: of the pictures.
        progress: told of each picture read.
        each: bytes that a picture takes.
        beside: bytes that joining takes, however few they are.

    Raises:
        SettingError: memory does not hold so many.
    """
    needed, free = beside + each * len(sources), available_memory()
    if needed > free:
        raise SettingError(
            f"add: {len(sources)} pictures at once need {format_size(needed)} of memory, "
            f"{max(free - beside, 0) // each} fit. Add them in parts.",
            "add",
        )
    in_model = {picture.sha256 for picture in detector.pictures_}
    newcomers: list[Newcomer[Digest]] = []
    known: list[str] = []
    skipped: list[PictureError] = []
    tally = detector._tally()
    for found in read_pictures(detector, sources, progress, tally):
        if isinstance(found, PictureError):
            skipped.append(found)
        elif found.picture.sha256 in in_model:
            known.append(found.picture.path)
        else:
            in_model.add(found.picture.sha256)
            newcomers.append(found)
    tally.warn()
    return newcomers, known, skipped


def read_pictures(
    detector: Changing[Any, Digest],
    sources: Sequence[Source],
    progress: Progress | None,
    tally: PictureTally | None = None,
) -> "list[Newcomer[Digest] | PictureError]":
    """Return what a detector compares of each picture, or why it cannot be used; the tally, if any, takes notice."""

    def look(loaded: LoadedPicture, maps: Sequence[LayerMap] | None) -> tuple[LoadedPicture, Digest | None]:
        if maps is None or loaded.geometry is None:
            return loaded, None
        try:
            return loaded, detector._digest(maps, loaded.geometry)
        except PictureError as error:
            return replace(loaded, error=PictureError(f"{loaded.path}: {error}")), None

    read: list[Newcomer[Digest] | PictureError] = []
    for at, (found, digest) in enumerate(detector.extractor.stream_maps(look, sources, hashes=True)):
        loaded = renumbered(found, sources[at], at)
        if tally is not None:
            tally.observe(loaded)
        if loaded.error is not None:
            read.append(loaded.error)
        else:
            assert loaded.geometry is not None
            assert digest is not None
            read.append(
                Newcomer(LearntPicture(loaded.path, loaded.sha256, *loaded.geometry.original, loaded.grey), digest)
            )
        if progress:
            progress("features", at + 1, len(sources))
    return read


def named(pictures: Sequence[LearntPicture], names: Sequence[str | Path]) -> tuple[dict[int, str], list[PictureError]]:
    """Return which pictures are meant, ascending, each with its name, and which names mean none.

    A picture is named by its path as given at the fit, by its hash or the beginning of that, or by the file itself.
    """
    leaving: dict[int, str] = {}
    skipped = []
    for name in map(str, names):
        found = [at for at, one in enumerate(pictures) if one.path == name]
        if not found and len(name) >= _SHORTEST_HASH:
            found = [at for at, one in enumerate(pictures) if one.sha256.startswith(name.lower())]
        try:
            digest = file_sha256(name, limit=LARGEST["picture"]) if not found else ""
        except (OSError, ValueError):
            digest = ""
        found = found or [at for at, one in enumerate(pictures) if digest and one.sha256 == digest]
        leaving.update(dict.fromkeys(found, name))
        if not found:
            skipped.append(
                PictureError(f"{name}: the model learnt no such picture. Give its path at the fit, or its SHA-256.")
            )
    return dict(sorted(leaving.items())), skipped


def is_last_update(detector: Changing[Any, Any], gone: Sequence[Changed]) -> bool:
    """Tell whether just the pictures leave that the last step let join."""
    last = detector.history_[-1] if detector.history_ else None
    if last is None or last.what != "add":
        return False
    return {one["sha256"] for one in last.pictures} == {one.sha256 for one in gone}


def without(calibration: Calibration, picture: int) -> Calibration:
    """Return a calibration once a picture of the detector's is gone, and those after it have moved up."""
    which = calibration.pictures
    if which is None:
        return calibration
    keep = which != picture
    moved = which[keep] - (which[keep] > picture).astype(which.dtype)
    return replace(calibration, scores=calibration.scores[keep], peaks=calibration.peaks[keep], pictures=moved)
