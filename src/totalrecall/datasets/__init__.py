"""Labelled data sets, one file per layout; each layout's picture is in its file's docstring.

base.py     Sample and DataSet, and what the layouts share: names of pictures, the seeded split, the search for masks
folder.py   good/ and any other folders, optional masks
mvtec.py    MVTec AD: train/good, test/<defect>, ground_truth/<defect>
mtd.py      Magnetic Tile Defects
"""

from pathlib import Path

from totalrecall.datasets.base import DataSet, Sample, picture_paths
from totalrecall.datasets.folder import open_folder
from totalrecall.datasets.mtd import open_mtd
from totalrecall.datasets.mvtec import open_mvtec
from totalrecall.errors import SettingError

__all__ = ["LAYOUTS", "DataSet", "Sample", "open_dataset", "picture_paths"]

LAYOUTS = ("folder", "mtd", "mvtec")


def open_dataset(layout: str, root: str | Path, *, seed: int = 42, category: str | None = None) -> DataSet:
    """Return the samples of a data set, found by name alone; pictures are not opened.

    Args:
        layout: how the files lie, one of `LAYOUTS`.
        root: the folder of the data set.
        seed: chooses the good pictures to fit on where the layout has no split of its own.
        category: the category under `root`, for `mvtec` alone; without it `root` is the category.

    Raises:
        SettingError: the layout is unknown, the seed is negative, or the layout has no categories.
        DataError: the folder is missing, or not of that layout.
    """
    if layout not in LAYOUTS:
        raise SettingError(f"There is no layout {layout!r}. Allowed are {', '.join(LAYOUTS)}.")
    folder = Path(root)
    if layout == "mvtec":
        return open_mvtec(folder, category=category)
    if category is not None:
        raise SettingError(f"The layout {layout} has no categories, got {category!r}. Leave the category out.")
    if layout == "mtd":
        return open_mtd(folder, seed=seed)
    return open_folder(folder, seed=seed)
