"""The layout of MVTec AD (Bergmann et al. 2019), also used for many sets of one's own; ROOT is one category.

    ROOT/train/good/000.png                           good, to fit on
    ROOT/test/good/000.png                            good, to test on
    ROOT/test/<defect>/000.png                        anomalous
    ROOT/ground_truth/<defect>/000_mask.png           its mask; optional, without masks the pixel metrics are nan

Pictures and masks may be of any picture type, `000.bmp` with `000_mask.png` too.
"""

import os
from pathlib import Path

from totalrecall.datasets.base import DataSet, Sample, mask_warnings, masks_by_stem, picture_paths, subfolders
from totalrecall.errors import DataError

__all__ = ["open_mvtec", "split_samples"]


def open_mvtec(root: Path, *, category: str | None) -> DataSet:
    """Return the samples of the category at `root`, or at `root`/`category` where one is named.

    Raises:
        DataError: no category is there; the message lists those that are.
    """
    folder = root if category is None else root / category
    if not (folder / "train" / "good").is_dir():
        raise DataError(_advice(root, folder))
    name = category or folder.resolve().name
    samples = split_samples(folder, category=name, mask_folders=("ground_truth",))
    warnings = mask_warnings(samples)
    if not any(sample.split == "test" for sample in samples):
        warnings = (*warnings, f"There are no pictures to test on in {folder / 'test'}.")
    return DataSet("mvtec", folder, name, tuple(samples), warnings)


def split_samples(root: Path, *, category: str, mask_folders: tuple[str, ...]) -> list[Sample]:
    """Return the samples of a root with `train/good` and `test/<defect>`, masks from the first of `mask_folders` there.

    Raises:
        DataError: there is no picture to fit on.
    """
    train = picture_paths(root / "train" / "good")
    if not train:
        raise DataError(f"There are no pictures in {root / 'train' / 'good'}. Put the good ones to fit on there.")
    samples = [Sample(path, 0, "good", None, "train", category) for path in train]
    mask_root = next((root / name for name in mask_folders if (root / name).is_dir()), None)
    for folder in subfolders(root / "test") if (root / "test").is_dir() else []:
        good = folder.name == "good"
        masks = {} if good or mask_root is None else masks_by_stem(mask_root / folder.name)
        samples += [
            Sample(path, int(not good), folder.name, masks.get(path.stem), "test", category)
            for path in picture_paths(folder)
        ]
    return samples


def _advice(root: Path, folder: Path) -> str:
    categories = [p.name for p in subfolders(root) if (p / "train" / "good").is_dir()]
    if categories and folder == root:
        return (
            f"{root} holds several categories: {', '.join(categories)}. Name one of them, as in {root / categories[0]}."
        )
    if categories:
        return f"There is no category {folder.name} in {root}. Those there are: {', '.join(categories)}."
    return f"{folder} is not of the mvtec layout: it has no train{os.sep}good. Name the folder of one category."
