"""A plain folder of one's own pictures, sorted into good and the rest.

    ROOT/good/*.png                                  good
    ROOT/<any other name>/*.png                      anomalous; the folder's name is the defect
    ROOT/ground_truth/ or ROOT/masks/                optional masks

The mask of `scratch/007.png` is the first there of scratch/007_mask.png, scratch/007.png, 007_mask.png and 007.png in
the folder of masks, of any picture type.

Of the good pictures the seed takes 80 % to fit on and leaves 20 % for the test, as in `mtd`, so that `fit` and
`evaluate` agree. Where there is ROOT/train/good and ROOT/test the split is already made, and is kept as in `mvtec`.
"""

from collections import Counter
from pathlib import Path

from totalrecall.datasets.base import (
    DataSet,
    Sample,
    mask_warnings,
    masks_by_stem,
    picture_paths,
    seeded_split,
    subfolders,
)
from totalrecall.datasets.mvtec import split_samples
from totalrecall.datasets.official import SetInfo
from totalrecall.errors import DataError

__all__ = ["FOLDER", "open_folder"]

FOLDER = SetInfo(
    layout="folder",
    title="a folder of your own",
    page="",
    licence="",
    note="good/ and any other folders; split by the seed: 80 % of the good pictures to fit on",
)

_MASK_FOLDERS = ("ground_truth", "masks")


def open_folder(root: Path, *, seed: int) -> DataSet:
    """Return the pictures under `root`; those to fit on in the order of the seeded permutation.

    Raises:
        DataError: there is no folder `good`, too few pictures in it, or a mask that could be of two pictures.
        SettingError: the seed is negative.
    """
    category = root.resolve().name
    folders = subfolders(root)
    if (root / "train" / "good").is_dir() and (root / "test").is_dir():
        split = split_samples(root, category=category, mask_folders=_MASK_FOLDERS)
        return DataSet("folder", root, category, tuple(split), mask_warnings(split))
    if not (root / "good").is_dir():
        there = ", ".join(p.name for p in folders) or "none"
        raise DataError(
            f"{root} has no folder named good; folders there: {there}. Put the good pictures in {root / 'good'}."
        )
    good = picture_paths(root / "good")
    if not good:
        raise DataError(f"There are no pictures in {root / 'good'}. Put the good ones there.")
    train, held_out = seeded_split(good, seed=seed)
    samples = [Sample(path, 0, "good", None, "train", category) for path in train]
    samples += [Sample(path, 0, "good", None, "test", category) for path in held_out]
    defects = [path for p in folders if p.name not in ("good", *_MASK_FOLDERS) for path in picture_paths(p)]
    masks = _masks(root, defects)
    samples += [Sample(path, 1, path.parent.name, masks.get(path), "test", category) for path in defects]
    return DataSet("folder", root, category, tuple(samples), mask_warnings(samples))


def _masks(root: Path, defects: list[Path]) -> dict[Path, Path]:
    """Return the mask of each defective picture that has one."""
    mask_root = next((root / name for name in _MASK_FOLDERS if (root / name).is_dir()), None)
    if mask_root is None:
        return {}
    by_defect = {name: masks_by_stem(mask_root / name) for name in {path.parent.name for path in defects}}
    found = {p: by_defect[p.parent.name][p.stem] for p in defects if p.stem in by_defect[p.parent.name]}
    flat = masks_by_stem(mask_root)
    rest = [path for path in defects if path not in found and path.stem in flat]
    shared = [stem for stem, count in Counter(path.stem for path in rest).items() if count > 1]
    if shared:
        owners = ", ".join(f"{p.parent.name}/{p.name}" for p in rest if p.stem == shared[0])
        raise DataError(
            f"The mask {flat[shared[0]]} could be of {owners}. Sort the masks into folders named as the defects."
        )
    return found | {path: flat[path.stem] for path in rest}
