"""Every data set layout: small trees open whole, are recognised, and are held against the official facts."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests import dataset_trees as trees
from totalrecall.cli import main
from totalrecall.cli.options import LAYOUTS as LAYOUTS_OF_HELP
from totalrecall.datasets import LAYOUTS, SETS, categories, open_dataset
from totalrecall.datasets.base import mask_warnings
from totalrecall.datasets.check import check_files, mask_files
from totalrecall.errors import DataError
from totalrecall.evaluation.evaluate import read_defect_mask

# --- every layout ---


def test_every_layout_has_a_tree_and_the_help_names_them_all():
    assert set(trees.TREES) == set(LAYOUTS)
    assert LAYOUTS_OF_HELP == LAYOUTS


def test_the_docs_name_every_layout():
    page = (Path(__file__).resolve().parents[1] / "docs" / "reference" / "datasets.md").read_text(encoding="utf-8")
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == list(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_tree_opens_whole_by_each_of_its_categories(layout, tmp_path):
    root = trees.TREES[layout](tmp_path / "set")
    names = categories(layout, root)
    assert names
    assert len(set(names)) == len(names)
    for name in names:
        data = open_dataset(layout, root, category=name)
        assert (data.name, data.category) == (layout, name)
        assert data == open_dataset(layout, root, category=name)
        assert {s.category for s in data.samples} == {name}
        assert {s.split for s in data.samples} <= {"train", "validation", "test"}
        assert all((s.defect == "good") == (s.label == 0) for s in data.samples)
        assert all(s.label == 0 and s.mask is None for s in data.samples if s.split != "test")
        assert all(s.path.is_file() and all(m.is_file() for m in mask_files(s.mask)) for s in data.samples)
        assert data.train
        assert data.test
        assert not {s.path for s in data.test} & set(data.train)
        assert mask_warnings(data.samples) == ()
        assert trees.other_than_counts(data) == []
        assert check_files(data) == check_files(data, decode=True) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_mark_what_the_tree_marks(layout, tmp_path):
    root = trees.TREES[layout](tmp_path / "set")
    marked = np.zeros(trees.SHAPE, bool)
    marked[2:4, 3:5] = True
    data = open_dataset(layout, root, category=categories(layout, root)[-1])
    masks = [read_defect_mask(s.mask, trees.SHAPE) for s in data.test if s.label]
    assert masks
    assert any(np.array_equal(mask, marked) for mask in masks)
    assert all(mask.any() for mask in masks)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("folder", "mvtec")])
def test_a_set_inside_the_folder_that_its_archive_makes_is_found(layout, tmp_path):
    root = trees.TREES[layout](tmp_path / "downloads" / "unpacked")
    assert categories(layout, tmp_path / "downloads") == categories(layout, root)
    name = categories(layout, root)[0]
    outer = open_dataset(layout, tmp_path / "downloads", category=name)
    assert outer.samples == open_dataset(layout, root, category=name).samples


@pytest.mark.parametrize("layout", ["mvtec", "mvtec-loco", "mvtec-ad2", "btad", "visa", "mstc"])
def test_the_path_of_a_category_will_do(layout, tmp_path):
    root = trees.TREES[layout](tmp_path / "set")
    names = categories(layout, root)
    for name in names:
        data = open_dataset(layout, root, category=name)
        assert open_dataset(layout, root / name).samples == data.samples
        assert open_dataset(layout, root / name, category=name).samples == data.samples
        assert categories(layout, root / name) == [name]
    with pytest.raises(DataError, match=rf"is the category {names[0]}, not nothing. Name the folder above it.$"):
        open_dataset(layout, root / names[0], category="nothing")


@pytest.mark.parametrize("layout", ["mvtec", "mvtec-loco", "mvtec-ad2", "btad", "visa", "mstc"])
def test_a_root_of_several_categories_asks_for_one(layout, tmp_path):
    root = trees.TREES[layout](tmp_path / "set")
    names = categories(layout, root)
    with pytest.raises(DataError) as caught:
        open_dataset(layout, root)
    assert str(caught.value) == (
        f"{root} holds several categories: {', '.join(names)}. Name one of them, as in {root / names[0]}."
    )
    with pytest.raises(DataError) as caught:
        open_dataset(layout, root, category="99")
    assert str(caught.value) == f"There is no category 99 in {root}. Those there are: {', '.join(names)}."


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("other", LAYOUTS)
def test_a_set_of_another_layout_is_refused_or_opened_with_a_warning(layout, other, tmp_path):
    root = trees.TREES[other](tmp_path / "set")
    if layout == other or (layout, other) == ("visa", "mvtec"):  # VisA in folders is of the layout of MVTec AD
        return
    try:
        said = open_dataset(layout, root, category=categories(layout, root)[0]).warnings
    except DataError as error:
        said = (str(error),)
    assert said
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize(("layout", "name"), [("mvtec-loco", "pushpins"), ("mstc", "01"), ("visa", "candle")])
def test_a_set_is_fitted_on_and_evaluated_from_the_command_line(layout, name, added, tmp_path, capsys):
    root, model, metrics = trees.TREES[layout](tmp_path / "set"), tmp_path / "m.trecall", tmp_path / "m.json"
    options = ["--layout", layout, "--quiet"]
    small = ["--backbone", added, "--size", "64", "--coreset", "0.2", "--at-least", "1", "--precision", "f32"]
    assert main(["fit", str(root / name), "-o", str(model), *options, *small]) == 0
    assert main(["evaluate", str(model), str(root / name), *options, "--json", str(metrics)]) == 0
    data = open_dataset(layout, root, category=name)
    found = json.loads(metrics.read_text())
    assert found["images"] == found["pixel_images"] == len(data.test)  # every mask could be used
    assert 0 <= found["pixel_auroc"] <= 1
    assert "Traceback" not in capsys.readouterr().err


# --- the official facts ---


@pytest.mark.parametrize(
    ("layout", "number", "train", "validation", "good", "bad"),
    [
        ("mvtec", 15, 3629, 0, 467, 1258),  # Bergmann et al. 2019, table 1
        ("mvtec-loco", 5, 1778, 305, 575, 993),  # the archive of 2022
        ("mvtec-ad2", 8, 2528, 302, 379, 705),  # the archive of 2025
        ("btad", 3, 1799, 0, 451, 290),
        ("visa", 12, 8659, 0, 962, 1200),  # Zou et al. 2022; split_csv/1cls.csv
        ("mtd", 1, 761, 0, 191, 392),  # 952 and 392
        ("kolektor", 1, 277, 0, 70, 52),  # 347 and 52
    ],
)
def test_the_official_counts_add_up_to_the_published_totals(layout, number, train, validation, good, bad):
    info = SETS[layout]
    assert len(info.counts) == number
    total = info.total
    assert (total.train, total.validation, total.good, total.bad) == (train, validation, good, bad)
    assert total.total == train + validation + good + bad


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "folder"])
def test_every_published_set_says_where_it_is_had_and_under_which_licence(layout):
    assert SETS[layout].page.startswith("https://")
    assert SETS[layout].licence


def test_counts_that_are_not_the_official_ones_are_named(tmp_path):
    data = open_dataset("mvtec-loco", trees.loco(tmp_path), category="pushpins")
    assert data.warnings == (
        "The pictures of pushpins are not as many as in the official MVTec LOCO AD: 2 to fit on in place of 372, "
        "1 to validate on in place of 69, 1 good to test on in place of 138, 3 anomalous in place of 172. "
        "Download it again, unless this set is your own.",
    )


def test_a_category_with_the_official_counts_is_not_warned_of(tmp_path):
    for folder, number in (("train/ok", 400), ("test/ok", 21), ("test/ko", 49), ("ground_truth/ko", 49)):
        (tmp_path / "01" / folder).mkdir(parents=True)
        for i in range(number):
            (tmp_path / "01" / folder / f"{i:04}.{'png' if 'truth' in folder else 'bmp'}").write_bytes(b"")
    assert open_dataset("btad", tmp_path).warnings == ()
