"""KolektorSDD, the Kolektor Surface-Defect Dataset (Tabernik et al. 2019), as published.

    ROOT/kos01/Part0.jpg              one of eight surfaces of one of fifty items
    ROOT/kos01/Part0_label.bmp        its mask; all black where the surface is good

Whether a picture is good stands in its mask alone, so this is the one layout that reads masks to be opened (a second
or so). The set comes without a split for detectors that see good pictures only. As anomalib does, 80 % of the good ones
are fitted on; the rest and all defects are for the test. Which ones is the seed's choice, so `fit` and `evaluate` agree
on it.

There are two editions, with fine masks and with boxes (KolektorSDD-boxes). KolektorSDD2 is another set.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from totalrecall.datasets.base import DataSet, Sample, name_some, picture_paths, seeded_split, subfolders
from totalrecall.datasets.official import Counts, SetInfo, count_warnings
from totalrecall.errors import DataError, PictureError
from totalrecall.pictures.masks import read_mask

__all__ = ["KOLEKTOR", "open_kolektor"]

_CATEGORY = "commutator"
KOLEKTOR = SetInfo(
    layout="kolektor",
    title="KolektorSDD",
    page="https://www.vicos.si/resources/kolektorsdd/",
    licence="CC BY-NC-SA 4.0",
    counts={_CATEGORY: Counts(277, 70, 52)},
    note="split by the seed: 80 % of the 347 good pictures to fit on",
)


def open_kolektor(root: Path, *, seed: int) -> DataSet:
    """Return the pictures under `root`; those to fit on in the order of the seeded permutation.

    Raises:
        DataError: the folder is not of this set, or holds too few good pictures.
        SettingError: the seed is negative.
    """
    items = _items(root)
    if not items:
        inner = [folder for folder in subfolders(root) if _items(folder)]
        root = inner[0] if len(inner) == 1 else root
        items = _items(root)
    if not items:
        raise DataError(
            f"{root} is not of the kolektor layout: it has no kos01 with a Part0.jpg. "
            "Name the folder that holds kos01 to kos50."
        )
    pairs = [pair for item in items for pair in _pairs(item)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        marked = list(pool.map(_is_marked, [mask for _, mask in pairs]))
    unknown = [f"{p.parent.name}/{p.name}" for (p, _), answer in zip(pairs, marked, strict=True) if answer is None]
    good = [path for (path, _), answer in zip(pairs, marked, strict=True) if answer is False]
    train, held_out = seeded_split(good, seed=seed)
    samples = [Sample(path, 0, "good", None, "train", _CATEGORY) for path in train]
    samples += [Sample(path, 0, "good", None, "test", _CATEGORY) for path in held_out]
    samples += [
        Sample(path, 1, "defect", mask, "test", _CATEGORY)
        for (path, mask), answer in zip(pairs, marked, strict=True)
        if answer
    ]
    warnings = count_warnings(KOLEKTOR, _CATEGORY, samples)
    if unknown:
        left_out = f"{len(unknown)} pictures are left out, because their masks are missing or unreadable"
        warnings = (f"{left_out}: {name_some(unknown)}.", *warnings)
    return DataSet("kolektor", root, _CATEGORY, tuple(samples), warnings)


def _items(root: Path) -> list[Path]:
    return [p for p in subfolders(root) if p.name.startswith("kos") and p.name[3:].isdigit() and _pairs(p)]


def _pairs(item: Path) -> list[tuple[Path, Path | None]]:
    """Return each picture of an item with its mask."""
    pictures = picture_paths(item)
    masks = {p.stem.removesuffix("_label"): p for p in pictures if p.stem.endswith("_label")}
    return [(p, masks.get(p.stem)) for p in pictures if not p.stem.endswith("_label")]


def _is_marked(mask: Path | None) -> bool | None:
    """Tell whether a mask marks anything; None where there is no mask that can be read."""
    if mask is None:
        return None
    try:
        return bool(read_mask(mask).any())
    except (PictureError, DataError):
        return None
