"""audit: planted pictures come first, the same picture twice and odd sizes are named, and the sheet shows them."""

import json
import re
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest

from tests.commands import run
from totalrecall.audit.audit import SamePicture, audit
from totalrecall.audit.checks import describe, find_duplicates, looks, odd_looks
from totalrecall.audit.sheet import VERDICT, draw_tile, write_page_of, write_picture_of
from totalrecall.demo.pictures import defective, good, make_dataset
from totalrecall.detectors.settings import ComparedSettings
from totalrecall.errors import DataError
from totalrecall.pictures.loading import LearntPicture, read_image
from totalrecall.pictures.overlay import draw_overlay
from totalrecall.pictures.unlike import OddSize, odd_sizes

SIZE = (96, 96)
GOOD = 24
PLANTED = ("missing", "crack", "fibre")


def washers(count):
    return [good("washer", np.random.default_rng([3, i]), SIZE) for i in range(count)]


def damaged(number, what):
    return defective("washer", what, np.random.default_rng([4, number]), SIZE)


def planted():
    return [damaged(number, what)[0] for number, what in enumerate(PLANTED)]


@pytest.fixture(scope="module")
def dirty():
    """An audit of 24 good washers and, at 24 to 26, three damaged ones."""
    return audit([*washers(GOOD), *planted()], ComparedSettings(size=128, precision="f32"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in files, with a damaged one, a copy, one saved again, one of another size, and one that is none."""
    root = tmp_path_factory.mktemp("audit")
    make_dataset(root / "set", kind="washer", good=16, test_good=0, defective=0, seed=1, size=(128, 128))
    good_ones = root / "set" / "train" / "good"
    bad = defective("washer", "missing", np.random.default_rng([4, 0]), (128, 128))[0]
    cv2.imwrite(str(good_ones / "damaged.png"), bad[..., ::-1])
    shutil.copy(good_ones / "003.png", good_ones / "003_copy.png")
    picture = cv2.imread(str(good_ones / "005.png"))
    cv2.imwrite(str(good_ones / "005_again.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 98])
    cv2.imwrite(str(good_ones / "odd.png"), cv2.imread(str(good_ones / "007.png"))[:100])
    (good_ones / "torn.png").write_bytes((good_ones / "001.png").read_bytes()[:300])
    return good_ones


# ---------------------------------------------------------------------- the ranking


def test_the_planted_pictures_are_the_worst_and_stand_out(dirty):
    assert {entry.number for entry in dirty.entries[:3]} == {24, 25, 26}
    assert {24, 26} <= {entry.number for entry in dirty.outliers} <= {24, 25, 26}
    assert [entry.level for entry in dirty.entries] == sorted((entry.level for entry in dirty.entries), reverse=True)
    assert dirty.limit > dirty.usual > 0


def test_a_clean_set_has_hardly_an_outlier():
    clean = audit(washers(GOOD), ComparedSettings(size=128, precision="f32"))
    assert len(clean.outliers) <= 1
    assert clean.duplicates == []
    assert clean.sizes == []


def test_each_picture_says_which_other_explains_it_best(dirty):
    assert all(entry.like != entry.path for entry in dirty.entries)
    assert all(re.fullmatch(r"array\[\d+\]", entry.like) for entry in dirty.entries)


def test_the_box_lies_over_the_damage():
    part, mask = damaged(0, "missing")
    found = audit([*washers(GOOD), part], ComparedSettings(size=128, precision="f32"))
    (shown,) = found.show(1)
    assert shown.entry.number == GOOD
    left, top, width, height = shown.spot
    assert mask[top : top + height, left : left + width].sum() > 0.5 * mask.sum()
    assert width * height < mask.size / 2
    assert shown.anomaly_map.shape == shown.image.shape[:2] == SIZE
    assert re.search(r"a spot unlike the others, .+, at x \d+ to \d+, y \d+ to \d+", shown.reason)


def test_a_dark_picture_is_told_in_words():
    odd = (washers(GOOD + 1)[-1] * 0.3).astype(np.uint8)
    found = audit([*washers(GOOD), odd], ComparedSettings(size=128, precision="f32"))
    (shown,) = found.show(1)
    assert shown.entry.number == GOOD
    assert "darker (" in shown.reason
    assert "unlike the others as a whole" in shown.reason


def test_few_pictures_are_ranked_and_none_is_said_to_stand_out():
    found = audit([*washers(4), planted()[0]], ComparedSettings(size=64, precision="f32"))
    assert len(found.entries) == 5
    assert found.outliers == []
    assert np.isinf(found.limit)


def test_fewer_than_three_pictures_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"An audit needs at least 3 good pictures that can be read, got 2\.$"):
        audit(washers(2), ComparedSettings(size=64))
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match="None of the 1 pictures could be read"):
        audit(tmp_path, ComparedSettings(size=64))


def test_little_memory_gives_the_same_outliers(monkeypatch, dirty):
    from totalrecall.patchcore import plan as planning

    monkeypatch.setattr(planning, "_whole", lambda _: None)
    monkeypatch.setattr(planning, "_cut", lambda pictures, _: np.array_split(pictures, 3) if len(pictures) else [])
    chunked = audit([*washers(GOOD), *planted()], ComparedSettings(size=128, precision="f32"))
    assert chunked.report.chunks == 3
    assert {entry.number for entry in chunked.entries[:3]} == {24, 25, 26}
    assert next(chunked.show(1)).entry.number in {24, 25, 26}


def test_a_region_of_interest_hides_what_lies_outside():
    mask = np.zeros(SIZE, bool)
    part, damage = damaged(0, "missing")
    rows = np.flatnonzero(damage.any(axis=1))
    mask[: rows[0] - 10] = True
    found = audit([*washers(GOOD), part], ComparedSettings(size=128, precision="f32", roi=mask))
    assert GOOD not in {entry.number for entry in found.outliers}


# ---------------------------------------------------------------------- the same twice, sizes, looks


def test_the_same_file_and_the_nearly_same_picture_are_named_apart(folder):
    found = audit(folder, ComparedSettings(size=128, precision="f32"))
    named = [(group.exact, {path.rsplit("/")[-1] for path in group.paths}) for group in found.duplicates]
    assert (True, {"003.png", "003_copy.png"}) in named
    assert (False, {"005.png", "005_again.jpg"}) in named
    assert len(named) == 2


def test_groups_of_the_same_join_and_strangers_stay_apart():
    rng = np.random.default_rng(0)
    described = rng.normal(size=(20, 16)).astype(np.float32)
    described[7] = described[3] + 0.01
    described[12] = described[7] + 0.01
    assert find_duplicates(described) == [(3, 7, 12)]
    assert find_duplicates(described[:5]) == []  # of so few nothing is usual


def test_many_copies_do_not_hide_each_other():
    rng = np.random.default_rng(0)
    once = rng.normal(size=(20, 16)).astype(np.float32)
    described = np.concatenate([once, once + 0.01])
    assert find_duplicates(described) == [(i, i + 20) for i in range(20)]


def test_of_a_large_group_some_are_named_and_the_others_counted(dirty):
    crowd = SamePicture(tuple(f"array[{at}]" for at in range(9)), exact=False)
    assert dirty.names_of(crowd) == ", ".join(f"array[{at}]" for at in range(6)) + " and 3 more"
    assert dirty.names_of(SamePicture(("array[1]", "array[4]"), exact=True)) == "array[1], array[4]"


def test_a_description_is_the_means_of_sixteenths():
    cells = np.indices((8, 8)).reshape(2, -1).T
    patches = (cells[:, :1] // 2 * 4 + cells[:, 1:] // 2).astype(np.float32)
    assert (describe(patches, cells, (8, 8)) == np.arange(16)).all()
    assert (describe(patches[:8], cells[:8], (8, 8))[4:] == 0).all()  # only the first row was seen


def sized(*sizes):
    return [LearntPicture(f"{i}.png", "", height, width) for i, (width, height) in enumerate(sizes)]


def test_sizes_that_most_have_not_are_odd():
    pictures = sized((100, 80), (100, 80), (80, 100), (100, 80), (101, 80))
    assert odd_sizes(pictures) == [OddSize(2, "100 x 80"), OddSize(4, "100 x 80")]
    assert odd_sizes([]) == []


def test_where_all_sizes_differ_an_unusual_shape_is_odd():
    pictures = sized(*((100 + i, 80 + i) for i in range(10)), (400, 100))
    assert odd_sizes(pictures) == [OddSize(10, "1.2 times as wide as high")]


def test_light_contrast_and_sharpness_are_put_into_words():
    usual = np.array([looks(image) for image in washers(12)])
    assert odd_looks(looks(washers(13)[-1]), usual) == []
    (brighter,) = odd_looks((usual[0, 0] + 80, usual[0, 1], usual[0, 2]), usual)
    assert brighter.startswith("brighter (")
    flat = np.tile([[100.0, 50.0, 10.0]], (9, 1))
    assert odd_looks((100.0, 30.0, 5.0), flat) == ["of less contrast (30, others 50)", "blurred (5, others 10)"]
    assert odd_looks((60.0, 70.0, 20.0), flat) == [
        "darker (60, others 100)",
        "of more contrast (70, others 50)",
        "sharper (20, others 10)",
    ]


def test_a_blurred_picture_is_less_sharp_and_a_dark_one_darker():
    image = washers(1)[0]
    grey, contrast, sharp = looks(image)
    blurred = looks(cv2.GaussianBlur(image, (0, 0), 3))
    assert blurred[2] < 0.3 * sharp
    assert blurred[0] == pytest.approx(grey, abs=1)
    dark = looks(image // 2)
    assert dark[0] == pytest.approx(grey / 2, abs=1)
    assert dark[1] == pytest.approx(contrast / 2, rel=0.05)


# ---------------------------------------------------------------------- the sheet


def test_the_tile_is_the_overlay_without_the_head_that_holds_the_verdict(dirty):
    image, heights = washers(1)[0], np.ones(SIZE, np.float32)
    one, two = (
        draw_overlay(image, heights, threshold=2.0, score=score, score_threshold=None, is_anomalous=None)
        for score in (1.0, 9.0)
    )
    assert (one[VERDICT:] == two[VERDICT:]).all()
    assert (one[:VERDICT] != two[:VERDICT]).any()
    shown = next(dirty.show(1))
    assert draw_tile(dirty, shown).shape[1] <= 968


def test_the_page_names_pictures_reasons_and_numbers_and_stays_small(dirty, tmp_path):
    shown = list(dirty.show(5))
    page = write_page_of(tmp_path / "sheet.html", dirty, shown, notes=["A note & more."]).read_text(encoding="utf-8")
    assert page.count("<figure>") == 5
    assert "A note &amp; more." in page
    for one in shown:
        assert one.entry.path in page
    assert page.count("stands out</span>") == sum(one.entry.stands_out for one in shown)
    assert "<script" not in page
    assert len(page) < 5_000_000


def test_the_picture_holds_three_tiles_a_row(dirty, tmp_path):
    four, one = (read_image(write_picture_of(tmp_path / f"{top}.png", dirty, list(dirty.show(top)))) for top in (4, 1))
    assert four.shape[1] == one.shape[1] > 3 * 400
    assert four.shape[0] > 1.8 * one.shape[0]
    heat = cv2.cvtColor(four, cv2.COLOR_RGB2HSV)[..., 1]
    assert (heat > 120).mean() > 0.01  # the hot colours of the damage


def test_hostile_names_stay_text_and_a_picture_that_has_gone_is_left_out(tmp_path):
    names = [f"{i:02}<b>&.png" for i in range(9)]
    for name, image in zip(names, washers(9), strict=True):
        cv2.imwrite(str(tmp_path / name), image)
    found = audit(tmp_path, ComparedSettings(size=64, precision="f32"))
    gone = found.entries[1]
    (tmp_path / gone.path.rsplit("/")[-1]).unlink()
    shown = list(found.show(3))
    assert [one.entry.number for one in shown] == [found.entries[0].number, found.entries[2].number]
    page = write_page_of(tmp_path / "sheet.html", found, shown).read_text(encoding="utf-8")
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page


# ---------------------------------------------------------------------- the command


def test_the_command_names_all_and_writes_both_sheets(capsys, folder, tmp_path):
    sheets, facts = tmp_path / "sheets", tmp_path / "facts.json"
    options = ["--size", "128", "--precision", "f32", "--top", "3"]
    code, out, err = run(capsys, "audit", folder, "-o", sheets, "--json", facts, *options)
    text = "\n".join(out)
    assert code == 1
    assert err == [f"totalrecall: {folder / 'torn.png'} is truncated: its end is missing. Copy it again."]
    assert "The same file: " in text
    assert "Nearly the same: " in text
    assert f"Unusual size: {folder / 'odd.png'} is 128 x 100, usual is 128 x 128" in text
    assert out[-1] == f"Contact sheet: {sheets / 'audit.html'} and {sheets / 'audit.png'}"
    assert sorted(path.name for path in sheets.iterdir()) == ["audit.html", "audit.png"]
    told = json.loads(facts.read_text())
    assert told["pictures"] == len(told["entries"]) == 18
    assert {one["same"] for one in told["repeats"]} == {"bytes", "nearly"}
    ranked = [entry["path"].rsplit("/")[-1] for entry in told["entries"]]
    assert "damaged.png" in ranked[:2]
    assert Counter("reason" in entry for entry in told["entries"]) == {True: 3, False: 15}
    assert len(told["skipped"]) == 1


def test_a_clean_folder_exits_with_0_and_json_alone_goes_to_stdout(capsys, parts):
    options = ["--size", "64", "--precision", "f32"]
    code, out, err = run(capsys, "audit", parts / "train", *options, "--json", "-")
    assert code == 0
    assert json.loads("\n".join(out))["pictures"] == 10
    assert not any(line.startswith("totalrecall:") for line in err)


def test_a_folder_that_is_there_already_is_written_into_again(capsys, parts, tmp_path):
    options = ["-o", tmp_path, "--size", "64", "--precision", "f32", "--top", "1", "--quiet"]
    for _ in range(2):
        assert run(capsys, "audit", parts / "train", *options)[::2] == (0, [])
        assert {"audit.html", "audit.png"} <= {path.name for path in tmp_path.iterdir()}


def test_one_page_alone_is_written_where_a_file_is_named(capsys, parts, tmp_path):
    page = tmp_path / "deep" / "sheet.html"
    code, out, _ = run(capsys, "audit", parts / "train", "--size", "64", "--precision", "f32", "-o", page)
    assert code == 0
    assert out[-1] == f"Contact sheet: {page}"
    assert [path.name for path in page.parent.iterdir()] == ["sheet.html"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top", "0"], "--top must be at least 1, got 0."),
        (["--size", "8"], "--size must be from 32 to 4096 pixels, got 8. Usual: 224 to 512."),
        (["--layers", "9"], "--layers: backbone compact has no layer 9. It has: 2 3."),
        (
            ["-o", "sheet.png"],
            "--output sheet.png is named like a picture, and one of yours could be lost. Name it otherwise.",
        ),
        (["-o", __file__], f"{__file__} is a file. Name a folder, or a file that ends in .html."),
    ],
)
def test_what_cannot_be_is_said_before_the_work(capsys, parts, options, message):
    code, out, err = run(capsys, "audit", parts / "train", *options)
    assert code in (1, 2)
    assert out == []
    assert err == [f"totalrecall: {message}"]


def test_an_empty_folder_and_one_picture_are_refused_in_a_line(capsys, parts, tmp_path):
    code, _, (line,) = run(capsys, "audit", tmp_path)
    assert (code, "holds no picture" in line) == (1, True)
    code, _, (line,) = run(capsys, "audit", parts / "train" / "good" / "000.png", "--size", "64")
    assert (code, "at least 3 good pictures" in line) == (1, True)
