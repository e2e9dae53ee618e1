"""BTAD, the beanTech Anomaly Detection set (Mishra et al. 2021), as published.

    ROOT/{01,02,03}/train/ok/0000.bmp           good, to fit on
    ROOT/{01,02,03}/test/ok/0000.bmp            good, to test on
    ROOT/{01,02,03}/test/ko/0000.bmp            anomalous
    ROOT/{01,02,03}/ground_truth/ko/0000.png    its mask

ROOT (the archive calls it BTech_Dataset_transformed) may be one category too. The types are mixed: pictures are .bmp in
01 and 03 and .png in 02; masks are .png in 01 and 02 and .bmp in 03. A mask is found by its stem, of any type.

Eleven masks are all black (one in 02, ten in 03): those pictures stay anomalous, and `evaluate` leaves them out of the
pixel metrics. The set's own README interchanges the counts of 02 and 03; those here are the archive's.
"""

from pathlib import Path

from totalrecall.datasets.base import (
    CategoryFolders,
    DataSet,
    Sample,
    mask_warnings,
    masks_by_stem,
    optional_pictures,
    picture_paths,
    test_warnings,
)
from totalrecall.datasets.official import Counts, SetInfo, count_warnings
from totalrecall.errors import DataError

__all__ = ["BTAD", "BTAD_FOLDERS", "open_btad"]

BTAD = SetInfo(
    layout="btad",
    title="BTAD",
    page="https://github.com/pankajmishra000/VT-ADL",
    licence="CC BY-SA 4.0",
    counts={"01": Counts(400, 21, 49), "02": Counts(399, 30, 200), "03": Counts(1000, 400, 41)},
    note="download: https://avires.dimi.uniud.it/papers/btad/btad.zip",
)
BTAD_FOLDERS = CategoryFolders("btad", ("train/ok",), tuple(BTAD.counts))


def open_btad(root: Path, *, category: str | None) -> DataSet:
    """Return the samples of the category at `root`, or of one in it.

    Raises:
        DataError: no category is there, or several and none is named; the message lists those that are.
    """
    folder, name = BTAD_FOLDERS.locate(root, category)
    train = picture_paths(folder / "train" / "ok")
    if not train:
        raise DataError(f"There are no pictures in {folder / 'train' / 'ok'}. Unpack the published archive again.")
    masks = masks_by_stem(folder / "ground_truth" / "ko")
    samples = [Sample(path, 0, "good", None, "train", name) for path in train]
    samples += [Sample(path, 0, "good", None, "test", name) for path in optional_pictures(folder / "test" / "ok")]
    samples += [
        Sample(path, 1, "ko", masks.get(path.stem), "test", name) for path in optional_pictures(folder / "test" / "ko")
    ]
    warnings = (
        *count_warnings(BTAD, name, samples),
        *mask_warnings(samples),
        *test_warnings(samples, folder / "test"),
    )
    return DataSet("btad", folder, name, tuple(samples), warnings)
