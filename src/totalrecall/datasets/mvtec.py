"""The layout of MVTec AD (Bergmann et al. 2019), also used for many sets of one's own.

    ROOT/<category>/train/good/000.png                      good, to fit on
    ROOT/<category>/test/good/000.png                       good, to test on
    ROOT/<category>/test/<defect>/000.png                   anomalous
    ROOT/<category>/ground_truth/<defect>/000_mask.png      its mask; optional, without masks the pixel metrics are nan

ROOT may be one category too. Pictures and masks may be of any picture type, `000.bmp` with `000_mask.png` too. Folders
inside these are read too: `test/scratch/deep/000.png` is a scratch. Masks may lie in a folder of another usual name,
such as masks or gt, here or in test, or next to their pictures as `000_mask.png`.
"""

from pathlib import Path

from totalrecall.datasets.base import CategoryFolders, DataSet, Sample, mask_warnings, subfolders, test_warnings
from totalrecall.datasets.leftover import class_pictures, left_over, mask_folders, masks_of_class
from totalrecall.datasets.official import Counts, SetInfo, count_warnings
from totalrecall.errors import DataError
from totalrecall.pictures.files import is_mask_folder

__all__ = ["MVTEC", "MVTEC_FOLDERS", "open_mvtec", "split_samples"]

MVTEC = SetInfo(
    layout="mvtec",
    title="MVTec AD",
    page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    licence="CC BY-NC-SA 4.0",
    counts={
        "bottle": Counts(209, 20, 63),
        "cable": Counts(224, 58, 92),
        "capsule": Counts(219, 23, 109),
        "carpet": Counts(280, 28, 89),
        "grid": Counts(264, 21, 57),
        "hazelnut": Counts(391, 40, 70),
        "leather": Counts(245, 32, 92),
        "metal_nut": Counts(220, 22, 93),
        "pill": Counts(267, 26, 141),
        "screw": Counts(320, 41, 119),
        "tile": Counts(230, 33, 84),
        "toothbrush": Counts(60, 12, 30),
        "transistor": Counts(213, 60, 40),
        "wood": Counts(247, 19, 60),
        "zipper": Counts(240, 32, 119),
    },
)
MVTEC_FOLDERS = CategoryFolders("mvtec", ("train/good",), tuple(MVTEC.counts))


def open_mvtec(root: Path, *, category: str | None) -> DataSet:
    """Return the samples of the category at `root`, or of one in it.

    Raises:
        DataError: no category is there, or several and none is named; the message lists those that are.
    """
    folder, name = MVTEC_FOLDERS.locate(root, category)
    _check_kin(folder)
    samples = split_samples(folder, category=name)
    warnings = (
        *count_warnings(MVTEC, name, samples),
        *mask_warnings(samples),
        *test_warnings(samples, folder / "test"),
    )
    taken = "The layout mvtec takes train/good and test/<defect>."
    return DataSet("mvtec", folder, name, tuple(samples), warnings, left_over(folder, samples, taken))


def _check_kin(folder: Path) -> None:
    """Refuse MVTec's later sets: they look alike, but their test pictures or their masks would not be found."""
    logical = folder / "ground_truth" / "logical_anomalies"
    if (folder / "test_public").is_dir():
        raise DataError(f"{folder} has a folder test_public, as MVTec AD 2 has. Open it with the layout mvtec-ad2.")
    if logical.is_dir() and subfolders(logical):
        raise DataError(f"{folder} has a folder of masks for each picture, as MVTec LOCO. Use the layout mvtec-loco.")


def split_samples(root: Path, *, category: str, masks: bool = True) -> list[Sample]:
    """Return the samples of a root with `train/good` and `test/<defect>`, at any depth of these folders.

    Args:
        root: of the category.
        category: its name.
        masks: look for masks, in the folders of masks in `root` and in `test`, and next to the pictures.

    Raises:
        DataError: there is no picture to fit on.
    """
    train, _ = class_pictures(root / "train" / "good")
    if not train:
        raise DataError(f"There are no pictures in {root / 'train' / 'good'}. Put the good ones to fit on there.")
    samples = [Sample(path, 0, "good", None, "train", category) for path in train]
    places = mask_folders(root, root / "test") if masks else []
    for folder in subfolders(root / "test") if (root / "test").is_dir() else []:
        if is_mask_folder(folder.name):
            continue
        pictures, beside = class_pictures(folder)
        good = folder.name == "good"
        found = {} if good or not masks else beside | masks_of_class(places, folder, pictures)
        samples += [Sample(path, int(not good), folder.name, found.get(path), "test", category) for path in pictures]
    return samples
