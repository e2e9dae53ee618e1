"""Labelled data sets, one file per layout; each layout's picture is in its file's docstring.

base.py         Sample and DataSet, and what the layouts share: names of pictures, categories, the seeded split, masks
official.py     the published facts of a set: page, licence, counts, and the warning where the counts differ
folder.py       good/ and any other folders, optional masks
mvtec.py        MVTec AD: train/good, test/<defect>, ground_truth/<defect>
mvtec_loco.py   MVTec LOCO AD: several masks for a picture
mvtec_ad2.py    MVTec AD 2: the public test
btad.py         BTAD: ok and ko, .bmp and .png
visa.py         VisA: as its table says, or in folders
mtd.py          Magnetic Tile Defects
mstc.py         ShanghaiTech Campus: every fifth frame, masks in arrays
kolektor.py     KolektorSDD: the masks say which pictures are good
headers.py      the size of a picture, from its first bytes
leftover.py     sets of one's own: folders in folders, masks under any usual name, and what is not used
overlap.py      pictures that are on both sides, learnt and measured on
check.py        a thorough look at a set: sizes, and files that cannot be read
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from totalrecall.datasets.base import DataSet, FrameMask, MaskSource, Sample, picture_paths
from totalrecall.datasets.btad import BTAD, BTAD_FOLDERS, open_btad
from totalrecall.datasets.folder import FOLDER, open_folder
from totalrecall.datasets.kolektor import KOLEKTOR, open_kolektor
from totalrecall.datasets.leftover import unread_beside
from totalrecall.datasets.mstc import MSTC, mstc_categories, open_mstc
from totalrecall.datasets.mtd import MTD, open_mtd
from totalrecall.datasets.mvtec import MVTEC, MVTEC_FOLDERS, open_mvtec
from totalrecall.datasets.mvtec_ad2 import AD2, AD2_FOLDERS, open_ad2
from totalrecall.datasets.mvtec_loco import LOCO, LOCO_FOLDERS, open_loco
from totalrecall.datasets.official import Counts, SetInfo
from totalrecall.datasets.visa import VISA, VISA_FOLDERS, open_visa
from totalrecall.errors import PassedOverWarning, SettingError

__all__ = [
    "LAYOUTS",
    "SETS",
    "Counts",
    "DataSet",
    "FrameMask",
    "MaskSource",
    "Sample",
    "SetInfo",
    "categories",
    "open_dataset",
    "picture_paths",
]

SETS = {info.layout: info for info in (FOLDER, MVTEC, LOCO, AD2, BTAD, VISA, MTD, MSTC, KOLEKTOR)}
LAYOUTS = tuple(SETS)

# Layouts with categories: what opens one, and what lists those that are there.
_WITH_CATEGORIES: dict[str, tuple[Callable[..., DataSet], Callable[[Path], list[str]]]] = {
    "mvtec": (open_mvtec, MVTEC_FOLDERS.names),
    "mvtec-loco": (open_loco, LOCO_FOLDERS.names),
    "mvtec-ad2": (open_ad2, AD2_FOLDERS.names),
    "btad": (open_btad, BTAD_FOLDERS.names),
    "visa": (open_visa, VISA_FOLDERS.names),
    "mstc": (open_mstc, mstc_categories),
}
_OWN = ("folder", "mvtec")  # layouts of people's own sets: they are searched for what is left over
_SEEDED: dict[str, Callable[..., DataSet]] = {"folder": open_folder, "mtd": open_mtd, "kolektor": open_kolektor}


def open_dataset(layout: str, root: str | Path, *, seed: int = 42, category: str | None = None) -> DataSet:
    """Return the samples of a data set, found by name alone; pictures are not opened.

    Args:
        layout: how the files lie, one of `LAYOUTS`.
        root: the folder of the data set, or of one of its categories.
        seed: chooses the good pictures to fit on where the layout has no split of its own.
        category: the category under `root`, as `categories` names it; None for the one at `root`, or the only one.

    Raises:
        SettingError: the layout is unknown, the seed is negative, or the layout has no categories.
        DataError: the folder is missing, or not of that layout.

    Warns:
        PassedOverWarning: files there look like pictures and are not used, with their number.

    Examples:
        >>> from totalrecall.datasets import open_dataset
        >>> data = open_dataset("mvtec", "mvtec_ad", category="bottle")
        >>> len(data.train), len(data.test)
        (8, 9)
    """
    folder = _checked(layout, root)
    if layout in _WITH_CATEGORIES:
        data = _WITH_CATEGORIES[layout][0](folder, category=category)
    else:
        data = _SEEDED[layout](folder, seed=seed)
        if category not in (None, data.category):
            raise SettingError(f"The layout {layout} has no categories, got {category!r}. Leave the category out.")
    if layout not in _OWN:  # of a published set nobody can say what else belongs to it
        data = replace(data, passed_over=unread_beside(data.samples))
    for line in data.passed_over:
        warnings.warn(line, PassedOverWarning, stacklevel=2)
    return data


def categories(layout: str, root: str | Path) -> list[str]:
    """Return the categories at or in a root: the official ones in their order, then others by name.

    Of a layout without categories it is the one that its samples carry, so `open_dataset` takes each of them.

    Raises:
        SettingError: the layout is unknown.
        DataError: the folder is missing, or not of that layout.

    Examples:
        >>> from totalrecall.datasets import categories
        >>> categories("mvtec", "mvtec_ad")
        ['bottle']
    """
    folder = _checked(layout, root)
    if layout in _WITH_CATEGORIES:
        return _WITH_CATEGORIES[layout][1](folder)
    return [_SEEDED[layout](folder, seed=0).category]


def _checked(layout: str, root: str | Path) -> Path:
    if layout not in LAYOUTS:
        raise SettingError(f"There is no layout {layout!r}. Allowed are {', '.join(LAYOUTS)}.")
    return Path(root)
