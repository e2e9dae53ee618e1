"""MVTec LOCO AD (Bergmann et al. 2022), as published.

    ROOT/<category>/train/good/000.png                                      good, to fit on
    ROOT/<category>/validation/good/000.png                                 good, kept aside
    ROOT/<category>/test/{good,logical_anomalies,structural_anomalies}/000.png
    ROOT/<category>/ground_truth/<defect>/000/{000,001,...}.png             the masks of test/<defect>/000.png
    ROOT/<category>/defects_config.json                                     pixel values and saturation thresholds

ROOT may be one category too. A picture with several anomalies has a mask for each; together they are its mask here. The
pixel values (255 and below, one for each type of anomaly) and the saturation thresholds matter to sPRO, the measure of
the LOCO paper, which is not computed here: all marked pixels count alike.

The archive has 360 pictures to fit on and 60 to validate on for splicing_connectors, where the paper's table says 354
and 59; the counts here are the archive's.
"""

from pathlib import Path

from totalrecall.datasets.base import (
    CategoryFolders,
    DataSet,
    Sample,
    mask_warnings,
    optional_pictures,
    picture_paths,
    subfolders,
    test_warnings,
)
from totalrecall.datasets.mvtec import split_samples
from totalrecall.datasets.official import Counts, SetInfo, count_warnings

__all__ = ["LOCO", "LOCO_FOLDERS", "open_loco"]

LOCO = SetInfo(
    layout="mvtec-loco",
    title="MVTec LOCO AD",
    page="https://www.mvtec.com/company/research/datasets/mvtec-loco",
    licence="CC BY-NC-SA 4.0",
    counts={
        "breakfast_box": Counts(351, 102, 173, validation=62),  # anomalous: 83 logical and 90 structural
        "juice_bottle": Counts(335, 94, 236, validation=54),  # 142 and 94
        "pushpins": Counts(372, 138, 172, validation=69),  # 91 and 81
        "screw_bag": Counts(360, 122, 219, validation=60),  # 137 and 82
        "splicing_connectors": Counts(360, 119, 193, validation=60),  # 108 and 85
    },
)
LOCO_FOLDERS = CategoryFolders("mvtec-loco", ("train/good",), tuple(LOCO.counts))


def open_loco(root: Path, *, category: str | None) -> DataSet:
    """Return the samples of the category at `root`, or of one in it; `mask` is a tuple of one or more pictures.

    Raises:
        DataError: no category is there, or several and none is named; the message lists those that are.
    """
    folder, name = LOCO_FOLDERS.locate(root, category)
    samples = []
    for sample in split_samples(folder, category=name, masks=False):
        mask = _masks(folder / "ground_truth" / sample.defect / sample.path.stem) if sample.label else None
        samples.append(Sample(sample.path, sample.label, sample.defect, mask, sample.split, name))
    aside = optional_pictures(folder / "validation" / "good")
    samples += [Sample(path, 0, "good", None, "validation", name) for path in aside]
    warnings = (
        *count_warnings(LOCO, name, samples),
        *mask_warnings(samples),
        *_strays(folder, samples),
        *test_warnings(samples, folder / "test"),
    )
    return DataSet("mvtec-loco", folder, name, tuple(samples), warnings)


def _masks(folder: Path) -> tuple[Path, ...] | None:
    return tuple(optional_pictures(folder)) or None


def _strays(folder: Path, samples: list[Sample]) -> tuple[str, ...]:
    """Return one line where the masks lie as in MVTec AD, without a folder for each picture."""
    truth = folder / "ground_truth"
    if not truth.is_dir() or any(sample.mask for sample in samples):
        return ()
    flat = [f"{defect.name}/{mask.name}" for defect in subfolders(truth) for mask in picture_paths(defect)]
    if not flat:
        return ()
    return (f"The masks in {truth} lie as in MVTec AD, such as {flat[0]}. Open it with the layout mvtec.",)
