"""What every data set is: a list of samples, found by their file names; no picture is decoded here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from totalrecall.errors import DataError, SettingError
from totalrecall.pictures.files import PICTURE_SUFFIXES, plain_stem
from totalrecall.system.files import open_regular

__all__ = [
    "CategoryFolders",
    "DataSet",
    "FrameMask",
    "MaskSource",
    "Sample",
    "mask_warnings",
    "masks_by_stem",
    "name_some",
    "open_array",
    "optional_pictures",
    "picture_paths",
    "seeded_split",
    "subfolders",
    "test_warnings",
]

_NAMED = 3  # files that a warning names; the rest it counts


@dataclass(frozen=True)
class FrameMask:
    """One frame of a .npy file of masks, (frames, h, w), as ShanghaiTech Campus has a file for each video."""

    path: Path
    frame: int


# Where a mask is: a picture; several pictures that together are the mask (MVTec LOCO); a frame of an array (mSTC).
MaskSource: TypeAlias = Path | tuple[Path, ...] | FrameMask


@dataclass(frozen=True)
class Sample:
    """One labelled picture. `label` is 0 good, 1 anomalous; `mask` marks the defect.

    `split` is "train", "test", or "validation" for the good pictures that MVTec LOCO and AD 2 keep aside.

    Examples:
        >>> from totalrecall.datasets import open_dataset
        >>> sample = open_dataset("mvtec", "mvtec_ad").test[0]
        >>> sample.defect, sample.label
        ('crack', 1)
    """

    path: Path
    label: int
    defect: str
    mask: MaskSource | None
    split: str
    category: str


@dataclass(frozen=True)
class DataSet:
    """The samples found under a root, and what else is there.

    `warnings` has a line for each thing that is not as it should be, `passed_over` one for each kind of files that look
    like pictures and are not used.

    Examples:
        >>> from totalrecall.datasets import open_dataset
        >>> data = open_dataset("mvtec", "mvtec_ad")
        >>> data.name, data.category
        ('mvtec', 'bottle')
    """

    name: str
    root: Path
    category: str
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def train(self) -> list[Path]:
        """The good pictures to fit on."""
        return [sample.path for sample in self.samples if sample.split == "train" and sample.label == 0]

    @property
    def validation(self) -> list[Path]:
        """Good pictures that the set keeps aside, to set a threshold on; most sets have none."""
        return [sample.path for sample in self.samples if sample.split == "validation"]

    @property
    def test(self) -> list[Sample]:
        """The labelled pictures to evaluate on."""
        return [sample for sample in self.samples if sample.split == "test"]


def open_array(path: Path) -> npt.NDArray[np.generic]:
    """Return the array of a .npy file, mapped: nothing but the header is read until an element is looked at.

    Raises:
        OSError: it is not there, or no file.
        ValueError: it is not an array, or cut short.
    """
    with open_regular(path):  # numpy would wait for a pipe
        pass
    return open_memmap(path, mode="r")


def picture_paths(folder: Path) -> list[Path]:
    """Return the pictures of a folder by name; other files, hidden files and subfolders are passed over.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    return [p for p in _entries(folder) if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()]


def optional_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder by name; none where there is no such folder."""
    return picture_paths(folder) if folder.is_dir() else []


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder by name, without hidden ones.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    return [p for p in _entries(folder) if p.is_dir()]


def _entries(folder: Path) -> list[Path]:
    try:
        # hidden: .DS_Store, .ipynb_checkpoints, and the ._000.png that macOS writes next to 000.png on other disks.
        # By name, not by path: Path compares without case on Windows, and the seeded splits must agree everywhere.
        return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)
    except FileNotFoundError:
        raise DataError(f"There is no folder {folder}. Check the name.") from None
    except NotADirectoryError:
        raise DataError(f"{folder} is a file, not a folder. Name the folder that holds the data set.") from None
    except OSError as error:
        raise DataError(f"Cannot read the folder {folder}: {error.strerror or error}. Check its permissions.") from None


@dataclass(frozen=True)
class CategoryFolders:
    """How the categories of a layout are found: a folder that contains one of `markers`, such as "train/good".

    `official` are the published names, in their order; other categories come after them, by name. If the root has a
    folder named `inner`, the categories are in that folder.
    """

    layout: str
    markers: tuple[str, ...]
    official: tuple[str, ...]
    inner: str = ""

    def is_category(self, folder: Path) -> bool:
        """Return whether a folder is a category."""
        return any((folder / marker).is_dir() for marker in self.markers)

    def names(self, root: Path) -> list[str]:
        """Return the categories in `root`; if `root` is a category itself, its name alone.

        Raises:
            DataError: there is none, or `root` is no folder.
        """
        if self.is_category(root):
            return [root.resolve().name]
        return self._inside(root)[1]

    def locate(self, root: Path, category: str | None) -> tuple[Path, str]:
        """Return the folder and the name of the category that is meant; None: the one at `root`, or the only one in it.

        Raises:
            DataError: it is not there, or several are and none is named; the message lists those that are.
        """
        if self.is_category(root):
            name = root.resolve().name
            if category in (None, name):
                return root, name
            raise DataError(f"{root} is the category {name}, not {category}. Name the folder above it.")
        top, names = self._inside(root)
        if category is None and len(names) > 1:
            raise DataError(
                f"{root} holds several categories: {', '.join(names)}. Name one of them, as in {top / names[0]}."
            )
        if category is not None and category not in names:
            raise DataError(f"There is no category {category} in {root}. Those there are: {', '.join(names)}.")
        name = names[0] if category is None else category
        return top / name, name

    def _inside(self, root: Path) -> tuple[Path, list[str]]:
        """Return the folder that holds the categories, and their names.

        An archive often unpacks into a folder of its own (`VisA_20220922`, `BTech_Dataset_transformed`), so where
        `root` holds no category but its only subfolder that holds some does, that one is meant.
        """
        root = root / self.inner if (root / self.inner).is_dir() else root
        tops = [(root, self._in(root))]
        if not tops[0][1]:
            tops = [(folder, self._in(folder)) for folder in subfolders(root)]
            tops = [(folder, names) for folder, names in tops if names]
        if len(tops) != 1:
            wanted = " or ".join(str(Path(marker)) for marker in self.markers)
            raise DataError(
                f"{root} is not of the {self.layout} layout: it has no {wanted}. "
                "Name the folder of the set, or of one category."
            )
        return tops[0]

    def _in(self, folder: Path) -> list[str]:
        there = [p.name for p in subfolders(folder) if self.is_category(p)]
        return [n for n in self.official if n in there] + [n for n in there if n not in self.official]


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
    masks = optional_pictures(folder)
    plain = {mask.stem: mask for mask in masks}
    return plain | {plain_stem(mask): mask for mask in masks if plain_stem(mask) != mask.stem}


def mask_warnings(samples: Iterable[Sample]) -> tuple[str, ...]:
    """Return one line where anomalous pictures have no mask, naming the first few."""
    anomalous = [sample for sample in samples if sample.label == 1]
    missing = [f"{sample.path.parent.name}/{sample.path.name}" for sample in anomalous if sample.mask is None]
    if not missing:
        return ()
    if len(missing) == len(anomalous):
        return (f"None of the {len(missing)} anomalous pictures has a mask: pixel metrics will be nan.",)
    return (
        f"{len(missing)} of {len(anomalous)} anomalous pictures have no mask and count for image metrics only: "
        f"{name_some(missing)}",
    )


def test_warnings(samples: Iterable[Sample], folder: Path) -> tuple[str, ...]:
    """Return one line where there is nothing to test on in a folder."""
    if any(sample.split == "test" for sample in samples):
        return ()
    return (f"There are no pictures to test on in {folder}.",)


def name_some(names: Sequence[str]) -> str:
    """Return the first few names for a message, with dots where there are more."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
