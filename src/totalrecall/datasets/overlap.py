"""Pictures that are on both sides, learnt and measured on: by their bytes, so a copy under another name is seen."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from totalrecall.datasets.base import DataSet, Sample
from totalrecall.system.files import read_regular, sha256

__all__ = ["Learnt", "learnt_note", "split_note"]


@runtime_checkable  # the checks of the test run need it
class Learnt(Protocol):
    """A picture that a model learnt."""

    @property
    def path(self) -> str: ...

    @property
    def sha256(self) -> str: ...


def learnt_note(pictures: Iterable[Learnt], samples: Sequence[Sample]) -> str:
    """Say how many samples a model learnt; empty where it learnt none.

    Args:
        pictures: that the model learnt.
        samples: that it is measured on.
    """
    pictures = list(pictures)
    paths, hashes = {Path(one.path).resolve() for one in pictures}, {one.sha256 for one in pictures}
    known = [one.path for one in samples if one.path.resolve() in paths or _hash(one.path) in hashes]
    if not known:
        return ""
    return (
        f"{len(known)} of {len(samples)} test pictures are among those that the model learnt (the first: {known[0]}), "
        "so the figures are too good. Fit and evaluate with the same --seed, on different files."
    )


def split_note(data: DataSet) -> str:
    """Say how many pictures to test on hold the bytes of one to fit on; empty where none does.

    Only files of the same length are read.
    """
    lengths: dict[int, list[Path]] = {}
    for path in data.train:
        lengths.setdefault(_length(path), []).append(path)
    tests = [(path, lengths.get(_length(path), [])) for path in (sample.path for sample in data.test)]
    fitted = {_hash(path) for like in {id(like): like for _, like in tests}.values() for path in like} - {""}
    twice = [path for path, like in tests if like and _hash(path) in fitted]
    if not twice:
        return ""
    return (
        f"{len(twice)} of {len(tests)} pictures to test on are among those to fit on, by their bytes "
        f"(the first: {twice[0]}), so the figures are too good. Take them out of one side."
    )


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file; empty where it cannot be read: whoever reads the picture says why."""
    try:
        return sha256(read_regular(path))
    except OSError:
        return ""
