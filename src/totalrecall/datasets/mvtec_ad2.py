"""MVTec AD 2 (Heckler-Kram et al. 2025), as published.

    ROOT/<category>/train/good/000_regular.png                              good, to fit on
    ROOT/<category>/validation/good/000_regular.png                         good, kept aside
    ROOT/<category>/test_public/{good,bad}/000_<lighting>.png               to test on
    ROOT/<category>/test_public/ground_truth/bad/000_<lighting>_mask.png    the mask of bad/000_<lighting>.png
    ROOT/<category>/{test_private,test_private_mixed}/                      without labels; for MVTec's server only

ROOT may be one category too. <lighting> is regular, overexposed, underexposed, shift_1, shift_2 and so on; there is
only regular light to fit on. What is measured here is the public test, so it is not the leaderboard's figure.
"""

from pathlib import Path

from totalrecall.datasets.base import (
    CategoryFolders,
    DataSet,
    Sample,
    mask_warnings,
    masks_by_stem,
    optional_pictures,
    test_warnings,
)
from totalrecall.datasets.official import Counts, SetInfo, count_warnings
from totalrecall.errors import DataError

__all__ = ["AD2", "AD2_FOLDERS", "open_ad2"]

AD2 = SetInfo(
    layout="mvtec-ad2",
    title="MVTec AD 2",
    page="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
    licence="CC BY-NC-SA 4.0",
    counts={
        "can": Counts(412, 72, 90, validation=46),
        "fabric": Counts(387, 66, 90, validation=43),
        "fruit_jelly": Counts(263, 20, 60, validation=37),
        "rice": Counts(313, 42, 90, validation=35),
        "sheet_metal": Counts(137, 24, 90, validation=19),
        "vial": Counts(291, 35, 105, validation=41),
        "wallplugs": Counts(293, 60, 90, validation=33),
        "walnuts": Counts(432, 60, 90, validation=48),
    },
    note="the public test; the 2 x 2045 private pictures have no labels",
)
AD2_FOLDERS = CategoryFolders("mvtec-ad2", ("test_public",), tuple(AD2.counts))


def open_ad2(root: Path, *, category: str | None) -> DataSet:
    """Return the samples of the category at `root`, or of one in it; those to test on are the public ones.

    Raises:
        DataError: no category is there, or several and none is named; the message lists those that are.
    """
    folder, name = AD2_FOLDERS.locate(root, category)
    public = folder / "test_public"
    masks = masks_by_stem(public / "ground_truth" / "bad")
    train = optional_pictures(folder / "train" / "good")
    if not train:
        raise DataError(f"There are no pictures in {folder / 'train' / 'good'}. Unpack the published archive again.")
    aside = optional_pictures(folder / "validation" / "good")
    samples = [Sample(path, 0, "good", None, "train", name) for path in train]
    samples += [Sample(path, 0, "good", None, "validation", name) for path in aside]
    samples += [Sample(path, 0, "good", None, "test", name) for path in optional_pictures(public / "good")]
    bad = optional_pictures(public / "bad")
    samples += [Sample(path, 1, "bad", masks.get(path.stem), "test", name) for path in bad]
    warnings = (*count_warnings(AD2, name, samples), *mask_warnings(samples), *test_warnings(samples, public))
    return DataSet("mvtec-ad2", folder, name, tuple(samples), warnings)
