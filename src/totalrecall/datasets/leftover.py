"""What the layouts for own data sets share: nested folders, masks under any usual name, and files that are not used.

A class is a folder with everything in it: `defects/scratch/007.png` belongs to the class `defects`. A folder with a
usual name for masks (`pictures.files.MASK_FOLDERS`: ground_truth, masks, gt, label, annotations and the like) holds
masks and is never taken for a defect. A mask may also be next to its picture, as `007_mask.png`, `007_gt.png` or
`007_label.png`; then it is neither learnt nor scored. Files that look like pictures and are not used are counted in a
warning.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from totalrecall.datasets.base import MaskSource, Sample, subfolders
from totalrecall.pictures.files import (
    is_mask_folder,
    masks_beside,
    passed_over_note,
    plain_stem,
    some_names,
    unread_in,
    walk_pictures,
)

__all__ = ["class_pictures", "left_over", "mask_folders", "masks_of_class", "unread_beside"]


def class_pictures(folder: Path) -> tuple[list[Path], dict[Path, Path]]:
    """Return the pictures of a class at any depth, sorted, and the masks among them by their picture."""
    every = walk_pictures(folder).paths
    apart = [path for path in every if _in_masks(path, folder)]
    inside = [path for path in every if path not in set(apart)]
    beside = masks_beside(inside)
    pictures = sorted((path for path in inside if path not in beside), key=lambda path: path.relative_to(folder).parts)
    masks = _by_stem(pictures, apart) | {picture: mask for mask, picture in beside.items()}
    return pictures, masks


def mask_folders(*folders: Path) -> list[Path]:
    """Return the folders of masks in some folders, `ground_truth` first."""
    found = [
        inner for folder in folders if folder.is_dir() for inner in subfolders(folder) if is_mask_folder(inner.name)
    ]
    return sorted(found, key=lambda path: path.name != "ground_truth")


def masks_of_class(folders: Sequence[Path], folder: Path, pictures: Sequence[Path]) -> dict[Path, Path]:
    """Return the masks of a class's pictures, from the folder of the class's name in the folders of masks.

    The mask of `scratch/deep/007.png` is the first of scratch/deep/007_mask.png, scratch/deep/007.png, and, where no
    other picture has its stem, scratch/007_mask.png and scratch/007.png.
    """
    found: dict[Path, Path] = {}
    for masks in folders:
        inner = masks / folder.name
        every = walk_pictures(inner).paths if inner.is_dir() else []
        # masks with an ending last: they win over a plain name
        named = sorted(every, key=lambda path: plain_stem(path) != path.stem)
        at = {path.relative_to(inner).with_name(plain_stem(path)): path for path in named}
        exact = {one: at.get(one.relative_to(folder).with_name(one.stem)) for one in pictures}
        whole = {one: mask for one, mask in exact.items() if mask is not None}
        flat = [mask for mask in every if mask.parent == inner]  # a folder for each picture is of another layout
        found = _by_stem([one for one in pictures if one not in whole], flat) | whole | found
    return found


def left_over(root: Path, samples: Iterable[Sample], taken: str) -> tuple[str, ...]:
    """Say what under a root looks like a picture and is not used, a line for each kind.

    Args:
        root: of the set.
        samples: that are used.
        taken: which folders the layout takes, for the advice.
    """
    samples = list(samples)
    used = {sample.path for sample in samples}
    masks = {path for sample in samples for path in _files(sample.mask)}
    stems = {path.stem for path in used}
    found = walk_pictures(root)
    apart = [path for path in found.paths if _in_masks(path, root) and path not in used]
    inside = [path for path in found.paths if path not in set(apart)]
    beside = [path for path in masks_beside(inside) if path not in used]
    real = {path.resolve() for path in used} if any(path not in used for path in inside) else set()
    rest = [path for path in inside if path not in used | masks and path not in beside and path.resolve() not in real]
    lonely = [path for path in apart if path not in masks and not {path.stem, plain_stem(path)} & stems]
    lines = []
    if beside:
        what = f"{_count(len(beside), 'mask lies beside its picture', 'masks lie beside their pictures')}"
        lines.append(f"{what} and {_is(beside)} not learnt or scored: {some_names(beside)}.")
    if lonely:
        what = f"{_count(len(lonely), 'picture', 'pictures')} in folders of masks"
        lines.append(
            f"{what} {'belongs' if len(lonely) == 1 else 'belong'} to no picture and {_is(lonely)} not used: "
            f"{some_names(lonely)}. Name the folder otherwise if it shows parts, not masks."
        )
    if rest:
        where = Counter(path.parent.relative_to(root).as_posix() for path in rest)
        places = ", ".join(
            f"{count} in {name if name != '.' else 'the folder itself'}" for name, count in where.items()
        )
        lines.append(f"{_count(len(rest), 'picture', 'pictures')} {_is(rest)} not used: {places}. {taken}")
    note = passed_over_note(found.passed_over)
    return (*lines, note) if note else tuple(lines)


def unread_beside(samples: Iterable[Sample]) -> tuple[str, ...]:
    """Say which files in the folders of samples are in formats that are not read."""
    note = passed_over_note(unread_in(sorted({sample.path.parent for sample in samples})))
    return (note,) if note else ()


def _by_stem(pictures: Sequence[Path], masks: Iterable[Path]) -> dict[Path, Path]:
    """Return the masks of the pictures whose stem no other picture has, and but one mask; one with an ending wins."""
    stems = Counter(path.stem for path in pictures)
    masks = list(masks)
    names = Counter(path.stem for path in masks)
    masks = sorted((path for path in masks if names[path.stem] == 1), key=lambda path: plain_stem(path) != path.stem)
    by_stem = {path.stem: path for path in masks} | {plain_stem(path): path for path in masks}
    return {one: by_stem[one.stem] for one in pictures if stems[one.stem] == 1 and one.stem in by_stem}


def _in_masks(path: Path, folder: Path) -> bool:
    return any(map(is_mask_folder, path.relative_to(folder).parts[:-1]))


def _files(mask: MaskSource | None) -> tuple[Path, ...]:
    if isinstance(mask, tuple):
        return mask
    return (mask,) if isinstance(mask, Path) else ()


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _is(paths: Sequence[Path]) -> str:
    return "is" if len(paths) == 1 else "are"
