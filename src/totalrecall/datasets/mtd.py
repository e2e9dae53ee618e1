"""Magnetic Tile Defects (Huang et al. 2018), as published.

    ROOT/MT_Free/Imgs/*.jpg                                    good
    ROOT/MT_{Blowhole,Break,Crack,Fray,Uneven}/Imgs/*.jpg      defects, each with its mask next to it as .png

The set comes without a split. As in the PatchCore paper 80 % of the good tiles are fitted on; the rest and all defects
are for the test. Which ones is the seed's choice, so `fit` and `evaluate` agree on it.
"""

from pathlib import Path

from totalrecall.datasets.base import DataSet, Sample, mask_warnings, picture_paths, seeded_split, subfolders
from totalrecall.datasets.official import Counts, SetInfo, count_warnings
from totalrecall.errors import DataError

__all__ = ["MTD", "open_mtd"]

_DEFECTS = ("Blowhole", "Break", "Crack", "Fray", "Uneven")
_CATEGORY = "magnetic_tile"
MTD = SetInfo(
    layout="mtd",
    title="Magnetic Tile Defects",
    page="https://github.com/abin24/Magnetic-tile-defect-datasets.",  # the dot belongs to it
    licence="none stated; cite the authors",
    counts={_CATEGORY: Counts(761, 191, 392)},  # 952 good tiles; the PatchCore paper says 925, which is a misprint
    note="split by the seed: 80 % of the good tiles to fit on, as in the PatchCore paper",
)


def open_mtd(root: Path, *, seed: int) -> DataSet:
    """Return the tiles under `root`; those to fit on in the order of the seeded permutation.

    Raises:
        DataError: the folder is not a Magnetic Tile data set, or holds too few good tiles.
        SettingError: the seed is negative.
    """
    good = _tiles(root, "Free")
    if not good:  # the archive unpacks into a folder of its own
        inner = [folder for folder in subfolders(root) if _tiles(folder, "Free")]
        root = inner[0] if len(inner) == 1 else root
        good = _tiles(root, "Free")
    if not good:
        raise DataError(
            f"{root} is not a Magnetic Tile data set: no .jpg in {root / 'MT_Free' / 'Imgs'}. "
            "Name the folder that holds MT_Free, MT_Blowhole and the others."
        )
    train, held_out = seeded_split(good, seed=seed)
    samples = [Sample(path, 0, "good", None, "train", _CATEGORY) for path in train]
    samples += [Sample(path, 0, "good", None, "test", _CATEGORY) for path in held_out]
    warnings = []
    for defect in _DEFECTS:
        tiles = _tiles(root, defect)
        if not tiles:
            warnings.append(f"There are no pictures in {root / f'MT_{defect}' / 'Imgs'}.")
        # Four masks of MT_Uneven are all black: the tile is defective, but nobody marked where. It stays anomalous;
        # `evaluate` leaves it out of the pixel metrics.
        masks = {p.stem: p for p in picture_paths(tiles[0].parent) if p.suffix.lower() == ".png"} if tiles else {}
        samples += [Sample(path, 1, defect.lower(), masks.get(path.stem), "test", _CATEGORY) for path in tiles]
    warnings = [*warnings, *count_warnings(MTD, _CATEGORY, samples)]
    return DataSet("mtd", root, _CATEGORY, tuple(samples), (*warnings, *mask_warnings(samples)))


def _tiles(root: Path, kind: str) -> list[Path]:
    folder = root / f"MT_{kind}" / "Imgs"
    if not folder.is_dir():
        return []
    return [p for p in picture_paths(folder) if p.suffix.lower() == ".jpg"]  # the .png next to it is its mask
