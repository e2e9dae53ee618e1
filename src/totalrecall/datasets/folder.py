"""A plain folder of one's own pictures, sorted into good and the rest.

    ROOT/good/*.png                                  good
    ROOT/<any other name>/*.png                      anomalous; the folder's name is the defect
    ROOT/ground_truth/ or ROOT/masks/                optional masks; other usual names, such as gt or labels, will do

The mask of `scratch/007.png` is the first there of scratch/007_mask.png, scratch/007.png, 007_mask.png and 007.png in
the folder of masks, of any picture type, or 007_mask.png next to it. In place of _mask the ending may be _gt or _label.
Folders inside these are read too: `defects/scratch/007.png` is of the defect `defects`, its first folder.

Of the good pictures the seed takes 80 % to fit on and leaves 20 % for the test, as in `mtd`, so that `fit` and
`evaluate` agree. Where there is ROOT/train/good and ROOT/test the split is already made, and is kept as in `mvtec`.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from totalrecall.datasets.base import DataSet, Sample, mask_warnings, masks_by_stem, seeded_split, subfolders
from totalrecall.datasets.leftover import class_pictures, left_over, mask_folders, masks_of_class
from totalrecall.datasets.mvtec import split_samples
from totalrecall.datasets.official import SetInfo
from totalrecall.errors import DataError
from totalrecall.pictures.files import is_mask_folder

__all__ = ["FOLDER", "open_folder"]

FOLDER = SetInfo(
    layout="folder",
    title="a folder of your own",
    page="",
    licence="",
    note="good/ and any other folders; split by the seed: 80 % of the good pictures to fit on",
)


def open_folder(root: Path, *, seed: int) -> DataSet:
    """Return the pictures under `root`; those to fit on in the order of the seeded permutation.

    Raises:
        DataError: there is no folder `good`, too few pictures in it, or a mask that could be of two pictures.
        SettingError: the seed is negative.
    """
    category = root.resolve().name
    folders = subfolders(root)
    if (root / "train" / "good").is_dir() and (root / "test").is_dir():
        split = split_samples(root, category=category)
        rest = left_over(root, split, "Where there are train/good and test, the layout folder takes these alone.")
        return DataSet("folder", root, category, tuple(split), mask_warnings(split), rest)
    if not (root / "good").is_dir():
        there = ", ".join(p.name for p in folders) or "none"
        raise DataError(
            f"{root} has no folder named good; folders there: {there}. Put the good pictures in {root / 'good'}."
        )
    good, _ = class_pictures(root / "good")
    if not good:
        raise DataError(f"There are no pictures in {root / 'good'}. Put the good ones there.")
    train, held_out = seeded_split(good, seed=seed)
    samples = [Sample(path, 0, "good", None, "train", category) for path in train]
    samples += [Sample(path, 0, "good", None, "test", category) for path in held_out]
    defects = [p for p in folders if p.name != "good" and not is_mask_folder(p.name)]
    pictures = {folder: class_pictures(folder) for folder in defects}
    masks = _masks(root, pictures)
    samples += [
        Sample(path, 1, folder.name, masks.get(path), "test", category)
        for folder, (paths, _) in pictures.items()
        for path in paths
    ]
    rest = left_over(root, samples, "The layout folder takes the pictures in good and in the other folders.")
    return DataSet("folder", root, category, tuple(samples), mask_warnings(samples), rest)


def _masks(root: Path, classes: Mapping[Path, tuple[list[Path], dict[Path, Path]]]) -> dict[Path, Path]:
    """Return the mask of each defective picture that has one.

    Args:
        root: of the set.
        classes: pictures of each folder of defects, and the masks next to them.
    """
    places = mask_folders(root)
    found: dict[Path, Path] = {}
    for folder, (pictures, beside) in classes.items():
        found |= beside | masks_of_class(places, folder, pictures)
    owners = {path: folder.name for folder, (pictures, _) in classes.items() for path in pictures}
    for place in places:
        flat = masks_by_stem(place)
        rest = [path for path in owners if path not in found and path.stem in flat]
        shared = [stem for stem, count in Counter(path.stem for path in rest).items() if count > 1]
        if shared:
            names = ", ".join(f"{owners[path]}/{path.name}" for path in rest if path.stem == shared[0])
            raise DataError(
                f"The mask {flat[shared[0]]} could be of {names}. Sort the masks into folders named as the defects."
            )
        found |= {path: flat[path.stem] for path in rest}
    return found
