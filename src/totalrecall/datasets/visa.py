"""VisA, the Visual Anomaly set (Zou et al. 2022), in both of its forms.

As published, where a table says which pictures are for what:

    ROOT/split_csv/1cls.csv                          object,split,label,image,mask: the paths are relative to ROOT
    ROOT/<category>/Data/Images/Normal/0000.JPG      good
    ROOT/<category>/Data/Images/Anomaly/000.JPG      anomalous
    ROOT/<category>/Data/Masks/Anomaly/000.png       its mask; the values are class numbers, 1 and up
    ROOT/<category>/image_anno.csv                   image,label,mask: the kinds of defect, such as "burnt,small holes"

As the authors' prepare_data.py --split-type 1cls sorts it into folders, the same pictures in each:

    ROOT/<category>/train/good/0000.JPG
    ROOT/<category>/test/{good,bad}/000.JPG
    ROOT/<category>/ground_truth/bad/000.png         values 0 and 255

ROOT may be one category too, and of the second form the folder that holds 1cls. In the first form the defect is what
image_anno.csv says, "combined" where that is more than one kind and "anomaly" without that file; in the second form it
is "bad".
"""

import csv
import io
from pathlib import Path

from totalrecall.datasets.base import (
    CategoryFolders,
    DataSet,
    Sample,
    mask_warnings,
    name_some,
    optional_pictures,
    test_warnings,
)
from totalrecall.datasets.mvtec import split_samples
from totalrecall.datasets.official import Counts, SetInfo, count_warnings
from totalrecall.errors import DataError
from totalrecall.system.files import LARGEST, read_regular

__all__ = ["VISA", "VISA_FOLDERS", "open_visa"]

VISA = SetInfo(
    layout="visa",
    title="VisA",
    page="https://github.com/amazon-science/spot-diff",
    licence="CC BY 4.0",
    counts={
        "candle": Counts(900, 100, 100),
        "capsules": Counts(542, 60, 100),
        "cashew": Counts(450, 50, 100),
        "chewinggum": Counts(453, 50, 100),
        "fryum": Counts(450, 50, 100),
        "macaroni1": Counts(900, 100, 100),
        "macaroni2": Counts(900, 100, 100),
        "pcb1": Counts(904, 100, 100),
        "pcb2": Counts(901, 100, 100),
        "pcb3": Counts(905, 101, 100),
        "pcb4": Counts(904, 101, 100),
        "pipe_fryum": Counts(450, 50, 100),
    },
    note="download: https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
)
# inner: next to 1cls are 2cls_highshot and 2cls_fewshot, where all splits were prepared
VISA_FOLDERS = CategoryFolders("visa", ("Data/Images", "train/good"), tuple(VISA.counts), inner="1cls")

_COLUMNS = ("object", "split", "label", "image", "mask")
_LABELS = {"normal": 0, "anomaly": 1}


def open_visa(root: Path, *, category: str | None) -> DataSet:
    """Return the samples of the category at `root`, or of one in it.

    Raises:
        DataError: no category is there, or several and none is named; or split_csv/1cls.csv is missing or damaged.
    """
    folder, name = VISA_FOLDERS.locate(root, category)
    if (folder / "Data" / "Images").is_dir():
        samples, missing = _listed(folder, name)
    else:
        samples, missing = split_samples(folder, category=name), []
    warnings = (*count_warnings(VISA, name, samples), *mask_warnings(samples), *test_warnings(samples, folder))
    if missing:
        lost = f"{len(missing)} pictures of split_csv/1cls.csv are not here: {name_some(missing)}. Download them again."
        warnings = (lost, *warnings)
    return DataSet("visa", folder, name, tuple(samples), warnings)


def _listed(folder: Path, name: str) -> tuple[list[Sample], list[str]]:
    """Return the samples that 1cls.csv lists for a category, and the pictures that it lists and that are not there."""
    table = folder.resolve().parent / "split_csv" / "1cls.csv"  # resolved: the folder may be "."
    images, masks = folder / "Data" / "Images", folder / "Data" / "Masks"
    # Membership in a listing, not a question to the disk for each of a thousand files.
    here = {path for kind in ("Normal", "Anomaly") for path in optional_pictures(images / kind)}
    marked = set(optional_pictures(masks / "Anomaly"))
    defects = _defects(folder)
    samples, missing = [], []
    for line, row in enumerate(_rows(table, _COLUMNS), start=2):
        if row["object"] != name:
            continue
        if row["label"] not in _LABELS or row["split"] not in ("train", "test"):
            raise DataError(
                f"Line {line} of {table} says split {row['split']!r} and label {row['label']!r}; allowed are train or "
                "test, normal or anomaly. Restore the published file."
            )
        label = _LABELS[row["label"]]
        path, mask = (folder / row[column].removeprefix(f"{name}/") for column in ("image", "mask"))
        if path not in here:
            missing.append(row["image"])
            continue
        defect = defects.get(row["image"], "anomaly") if label else "good"
        samples.append(Sample(path, label, defect, mask if label and mask in marked else None, row["split"], name))
    if not any(sample.split == "train" for sample in samples):
        raise DataError(f"{table} lists no picture of {name} to fit on that is here. Restore the published file.")
    return samples, missing


def _defects(folder: Path) -> dict[str, str]:
    """Return the kind of defect of each anomalous picture, by its path relative to ROOT."""
    table = folder / "image_anno.csv"
    if not table.is_file():
        return {}
    kinds = {}
    for row in _rows(table, ("image", "label")):
        named = [kind.strip() for kind in row["label"].split(",") if kind.strip()]
        if named and named != ["normal"]:
            kinds[row["image"]] = named[0] if len(named) == 1 else "combined"
    return kinds


def _rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with io.StringIO(read_regular(table, limit=LARGEST["table"]).decode("utf-8-sig"), newline="") as file:
            reader = csv.DictReader(file, restval="")
            absent = [column for column in columns if column not in (reader.fieldnames or ())]
            if absent:
                raise DataError(f"{table} has no column {', '.join(absent)}. Restore the published file.")
            return list(reader)
    except FileNotFoundError:
        raise DataError(
            f"There is no {table}, which says what to fit on. It is part of the archive, and of {VISA.page}."
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {table}: {error}. Restore the published file.") from None
