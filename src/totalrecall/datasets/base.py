"""What every data set is: a list of samples, found by looking at names only; no picture is decoded here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from totalrecall.errors import DataError, SettingError
from totalrecall.images import PICTURE_SUFFIXES

__all__ = [
    "DataSet",
    "Sample",
    "mask_warnings",
    "masks_by_stem",
    "picture_paths",
    "seeded_split",
    "subfolders",
]

_NAMED = 3  # files that a warning names; the rest it counts


@dataclass(frozen=True)
class Sample:
    """One labelled picture. `label` is 0 good, 1 anomalous; `split` is "train" or "test"; `mask` marks the defect."""

    path: Path
    label: int
    defect: str
    mask: Path | None
    split: str
    category: str


@dataclass(frozen=True)
class DataSet:
    """The samples found under a root, and one line for each thing there that is not as it should be."""

    name: str
    root: Path
    category: str
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()

    @property
    def train(self) -> list[Path]:
        """The good pictures to fit on."""
        return [sample.path for sample in self.samples if sample.split == "train" and sample.label == 0]

    @property
    def test(self) -> list[Sample]:
        """The labelled pictures to evaluate on."""
        return [sample for sample in self.samples if sample.split == "test"]


def picture_paths(folder: Path) -> list[Path]:
    """Return the pictures of a folder by name; other files, hidden files and subfolders are passed over.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    return [p for p in _entries(folder) if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()]


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder by name, without hidden ones.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    return [p for p in _entries(folder) if p.is_dir()]


def _entries(folder: Path) -> list[Path]:
    try:
        # hidden: .DS_Store, .ipynb_checkpoints, and the ._000.png that macOS puts beside 000.png on foreign disks.
        # By name, not by path: Path compares without case on Windows, and the seeded splits must agree everywhere.
        return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)
    except FileNotFoundError:
        raise DataError(f"There is no folder {folder}. Check the name.") from None
    except NotADirectoryError:
        raise DataError(f"{folder} is a file, not a folder. Name the folder that holds the data set.") from None
    except OSError as error:
        raise DataError(f"Cannot read the folder {folder}: {error.strerror or error}. Check its permissions.") from None


def seeded_split(good: Sequence[Path], *, seed: int) -> tuple[list[Path], list[Path]]:
    """Return the good pictures to fit on (80 %, rounded down) and those to test on; the same for the same seed.

    Raises:
        SettingError: the seed is negative.
        DataError: there are fewer than two pictures.
    """
    if seed < 0:
        raise SettingError(f"seed must be at least 0, got {seed}. Any whole number will do, 42 is the usual one.")
    if len(good) < 2:
        where = f" in {good[0].parent}" if good else ""
        raise DataError(f"A split needs at least 2 good pictures, got {len(good)}{where}. Add good pictures.")
    shuffled = [good[i] for i in np.random.default_rng(seed).permutation(len(good))]
    n_train = int(0.8 * len(good))
    return shuffled[:n_train], shuffled[n_train:]


def masks_by_stem(folder: Path) -> dict[str, Path]:
    """Return the masks of a folder by the stem of their picture: `000_mask.png` or `000.png` is that of `000`."""
    if not folder.is_dir():
        return {}
    masks = picture_paths(folder)
    plain = {mask.stem: mask for mask in masks}
    return plain | {m.stem.removesuffix("_mask"): m for m in masks if m.stem.endswith("_mask")}


def mask_warnings(samples: Iterable[Sample]) -> tuple[str, ...]:
    """Return one line where anomalous pictures have no mask, naming the first few."""
    anomalous = [sample for sample in samples if sample.label == 1]
    missing = [f"{sample.path.parent.name}/{sample.path.name}" for sample in anomalous if sample.mask is None]
    if not missing:
        return ()
    if len(missing) == len(anomalous):
        return (f"None of the {len(missing)} anomalous pictures has a mask: pixel metrics will be nan.",)
    names = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
    return (
        f"{len(missing)} of {len(anomalous)} anomalous pictures have no mask and count for image metrics only: {names}",
    )
