"""Each layout against the real sets where they are there, and against small folders with what can be wrong in them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from totalrecall.datasets import LAYOUTS, categories, open_dataset, picture_paths
from totalrecall.errors import DataError, SettingError


def fill(root: Path, *names: str) -> Path:
    """Make files that are no pictures at all: opening a data set looks at names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def numbered(folder: str, n: int, suffix: str = ".png") -> list[str]:
    return [f"{folder}/{i:03}{suffix}" for i in range(n)]


def relative(root, paths):
    return [p.relative_to(root).as_posix() for p in paths]


# --- the real sets ---


def test_magnetic_tiles_are_split_as_the_issue_says(shared):
    root = shared / "data" / "mtd"
    data = open_dataset("mtd", root, seed=42)
    paths = sorted((root / "MT_Free" / "Imgs").glob("*.jpg"))
    order = np.random.default_rng(42).permutation(len(paths))
    assert len(paths) == 952
    assert data.train == [paths[i] for i in order[:761]]
    assert [s.path for s in data.test if s.label == 0] == [paths[i] for i in order[761:]]
    found = Counter(s.defect for s in data.test if s.label == 1)
    assert found == {"blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
    assert all(s.mask == s.path.with_suffix(".png") and s.mask.is_file() for s in data.test if s.label == 1)
    assert data.warnings == ()


def test_magnetic_tiles_of_another_seed_are_split_otherwise(shared):
    root = shared / "data" / "mtd"
    assert open_dataset("mtd", root, seed=1).train != open_dataset("mtd", root, seed=42).train
    assert open_dataset("mtd", root).train == open_dataset("mtd", root, seed=42).train


def test_the_real_bottle(shared):
    data = open_dataset("mvtec", shared / "data" / "mvtec_ad" / "bottle")
    assert (data.name, data.category) == ("mvtec", "bottle")
    assert len(data.train) == 209
    assert Counter(s.defect for s in data.test) == {
        "good": 20, "broken_large": 20, "broken_small": 22, "contamination": 21,
    }  # fmt: skip
    assert sum(s.mask is not None for s in data.test) == 63
    assert all(s.mask.stem == f"{s.path.stem}_mask" for s in data.test if s.label)
    assert data.warnings == ()


def test_the_real_bottle_by_its_category(shared):
    root = shared / "data" / "mvtec_ad"
    assert open_dataset("mvtec", root, category="bottle").samples == open_dataset("mvtec", root / "bottle").samples
    assert open_dataset("mvtec", root).samples == open_dataset("mvtec", root / "bottle").samples  # the only one there
    assert categories("mvtec", root) == ["bottle"]


# --- magnetic tiles ---


def tiles(root: Path) -> Path:
    kinds = ("Blowhole", "Break", "Crack", "Fray", "Uneven")
    fill(root, *numbered("MT_Free/Imgs", 10, ".jpg"), *numbered("MT_Free/Imgs", 10, ".png"))
    return fill(root, *[n for k in kinds for s in (".jpg", ".png") for n in numbered(f"MT_{k}/Imgs", 2, s)])


def test_tiles_without_a_mask_and_missing_kinds_are_named(tmp_path):
    root = tiles(tmp_path)
    (root / "MT_Crack/Imgs/001.png").unlink()
    for path in (root / "MT_Fray/Imgs").iterdir():
        path.unlink()
    data = open_dataset("mtd", root)
    assert len(data.train) == 8
    assert len(data.test) == 2 + 8
    assert data.warnings == (
        f"There are no pictures in {root / 'MT_Fray' / 'Imgs'}.",
        "The pictures of magnetic_tile are not as many as in the official Magnetic Tile Defects: "
        "8 to fit on in place of 761, 2 good to test on in place of 191, 8 anomalous in place of 392. "
        "Download it again, unless this set is your own.",
        "1 of 8 anomalous pictures have no mask and count for image metrics only: Imgs/001.jpg",
    )


def test_a_folder_that_holds_no_tiles_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is not a Magnetic Tile data set: no .jpg in .*MT_Free.Imgs. Name the folder"):
        open_dataset("mtd", fill(tmp_path, "good/000.png"))


# --- mvtec ---


def part(root: Path) -> Path:
    return fill(
        root,
        *("train/good/000.png", "train/good/001.JPG", "train/good/Thumbs.db", "train/good/.DS_Store"),
        *("train/good/._000.png", "train/good/notes.txt", "readme.txt", "test/.ipynb_checkpoints/000.png"),
        *("test/good/000.bmp", "test/broken/000.png", "test/broken/001.TIFF", "test/broken/license.txt"),
        *("ground_truth/broken/000_mask.png", "ground_truth/broken/001_mask.bmp"),
    )


def test_mvtec_takes_any_picture_type_and_passes_over_the_rest(tmp_path):
    root = part(tmp_path / "part")
    data = open_dataset("mvtec", root)
    assert relative(root, data.train) == ["train/good/000.png", "train/good/001.JPG"]
    assert [(s.path.name, s.label, s.defect, s.mask and s.mask.name, s.split) for s in data.test] == [
        ("000.png", 1, "broken", "000_mask.png", "test"),
        ("001.TIFF", 1, "broken", "001_mask.bmp", "test"),
        ("000.bmp", 0, "good", None, "test"),
    ]
    assert data.warnings == ()


def test_mvtec_works_without_masks(tmp_path):
    fill(tmp_path, "train/good/0.png", "test/good/0.png", "test/a/0.png", "test/b/0.png")
    data = open_dataset("mvtec", tmp_path)
    assert [s.mask for s in data.test] == [None, None, None]
    assert data.warnings == ("None of the 2 anomalous pictures has a mask: pixel metrics will be nan.",)


def test_mvtec_names_the_first_pictures_without_a_mask(tmp_path):
    fill(tmp_path, "train/good/0.png", *numbered("test/hole", 6), *numbered("ground_truth/hole", 1, "_mask.png"))
    assert open_dataset("mvtec", tmp_path).warnings == (
        "5 of 6 anomalous pictures have no mask and count for image metrics only: "
        "hole/001.png, hole/002.png, hole/003.png, ...",
    )


def test_mvtec_without_a_test_folder_can_be_fitted_on(tmp_path):
    data = open_dataset("mvtec", fill(tmp_path, "train/good/0.png"))
    assert len(data.train) == 1
    assert data.test == []
    assert data.warnings == (f"There are no pictures to test on in {tmp_path / 'test'}.",)


def test_mvtec_names_the_categories_that_are_there(tmp_path):
    fill(tmp_path, "cable/train/good/0.png", "bottle/train/good/0.png", "license.txt", "other/0.png")
    with pytest.raises(DataError, match=r"holds several categories: bottle, cable. Name one of them, as in .*bottle"):
        open_dataset("mvtec", tmp_path)
    with pytest.raises(DataError, match=r"There is no category screw in .*. Those there are: bottle, cable.$"):
        open_dataset("mvtec", tmp_path, category="screw")
    assert open_dataset("mvtec", tmp_path, category="cable").category == "cable"


def test_mvtec_refuses_what_is_not_mvtec(tmp_path):
    with pytest.raises(DataError, match=r"is not of the mvtec layout: it has no train.good. Name the folder of the"):
        open_dataset("mvtec", fill(tmp_path, "good/0.png"))
    with pytest.raises(DataError, match=r"There are no pictures in .*train.good. Put the good ones to fit on there.$"):
        open_dataset("mvtec", fill(tmp_path, "train/good/Thumbs.db"))


# --- a plain folder ---


def test_a_plain_folder_is_split_by_the_seed(tmp_path):
    root = fill(tmp_path, *numbered("good", 10), "scratch/a.png", "dent/b.jpeg", "dent/Thumbs.db", "list.csv")
    data = open_dataset("folder", root, seed=3)
    order = np.random.default_rng(3).permutation(10)
    assert relative(root, data.train) == [f"good/{i:03}.png" for i in order[:8]]
    assert [s.path.name for s in data.test if s.label == 0] == [f"{i:03}.png" for i in order[8:]]
    assert [(s.defect, s.path.name) for s in data.test if s.label == 1] == [("dent", "b.jpeg"), ("scratch", "a.png")]
    assert data.category == root.name


@pytest.mark.parametrize("folder", ["masks", "ground_truth"])
@pytest.mark.parametrize("mask", ["scratch/a.png", "scratch/a_mask.BMP", "a.png", "a_mask.png"])
def test_a_mask_is_found_by_its_stem(tmp_path, folder, mask):
    root = fill(tmp_path, *numbered("good", 5), "scratch/a.jpg", "scratch/b.jpg", f"{folder}/{mask}")
    data = open_dataset("folder", root)
    assert [s.mask for s in data.test if s.label == 1] == [root / folder / mask, None]
    assert data.warnings == ("1 of 2 anomalous pictures have no mask and count for image metrics only: scratch/b.jpg",)


def test_a_mask_that_could_be_of_two_pictures_is_refused(tmp_path):
    root = fill(tmp_path, *numbered("good", 5), "dent/7.png", "scratch/7.png", "masks/7.png")
    with pytest.raises(DataError, match=r"could be of dent/7.png, scratch/7.png. Sort the masks into folders named as"):
        open_dataset("folder", root)
    fill(root, "masks/scratch/7.png")  # now the one is known, so the other is too
    masks = {s.defect: s.mask for s in open_dataset("folder", root).test if s.label}
    assert masks == {"dent": root / "masks/7.png", "scratch": root / "masks/scratch/7.png"}


def test_a_split_that_is_already_made_is_kept(tmp_path):
    root = fill(tmp_path, *numbered("train/good", 3), "test/good/9.png", "test/dent/1.png", "masks/dent/1.png")
    data = open_dataset("folder", root)
    assert relative(root, data.train) == numbered("train/good", 3)
    assert [(s.label, s.mask) for s in data.test] == [(1, root / "masks/dent/1.png"), (0, None)]


def test_a_plain_folder_needs_good_pictures(tmp_path):
    fill(tmp_path, "ok/0.png", "dent/0.png", ".hidden/0.png")
    with pytest.raises(DataError, match=r"has no folder named good; folders there: dent, ok. Put the good pictures in"):
        open_dataset("folder", tmp_path)
    fill(tmp_path, "good/readme.txt")
    with pytest.raises(DataError, match=r"^There are no pictures in .*good. Put the good ones there.$"):
        open_dataset("folder", tmp_path)
    fill(tmp_path, "good/0.png")
    with pytest.raises(
        DataError, match=r"^A split needs at least 2 good pictures, got 1 in .*good. Add good pictures.$"
    ):
        open_dataset("folder", tmp_path)


# --- all layouts ---


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_folder_is_one_clear_line(layout, tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*\.$") as caught:
        open_dataset(layout, tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_in_place_of_a_folder_is_one_clear_line(layout, tmp_path):
    with pytest.raises(DataError, match=r"file.png"):
        open_dataset(layout, fill(tmp_path, "file.png") / "file.png")


def test_an_unknown_layout_is_told_the_known_ones(tmp_path):
    with pytest.raises(SettingError, match=r"^There is no layout 'visaa'. Allowed are folder, mvtec, .*, kolektor.$"):
        open_dataset("visaa", tmp_path)
    with pytest.raises(SettingError, match=r"^There is no layout ''. Allowed are"):
        categories("", tmp_path)


@pytest.mark.parametrize("layout", ["mtd", "folder"])
def test_settings_that_do_not_fit_the_layout_are_refused(layout, tmp_path):
    root = fill(tiles(tmp_path), *numbered("good", 4))
    with pytest.raises(
        SettingError, match=f"^The layout {layout} has no categories, got 'x'. Leave the category out.$"
    ):
        open_dataset(layout, root, category="x")
    with pytest.raises(SettingError, match=r"^seed must be at least 0, got -1. Any whole number"):
        open_dataset(layout, root, seed=-1)


def test_pictures_are_listed_by_name_without_folders_that_look_like_them(tmp_path):
    fill(tmp_path, "b.webp", "B.PNG", "a.tif", "sub.png/c.png", "c.gif")
    assert [p.name for p in picture_paths(tmp_path)] == ["B.PNG", "a.tif", "b.webp"]
