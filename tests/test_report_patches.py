"""The worst patch beside the nearest good one."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.report_pages import HOSTILE, Reader, page
from totalrecall import PatchCore
from totalrecall.pictures.geometry import Geometry
from totalrecall.pictures.loading import read_image
from totalrecall.reports.gallery import ReportEntry, cut_patch
from totalrecall.scoring import NearestPatch, Result

RED, BLUE = (200, 30, 30), (30, 30, 200)
GREY = np.full((40, 60, 3), 128, np.uint8)


def picture(path, colour, at, size=(320, 480)):
    """Write a grey picture with a square of a colour, 60 pixels wide, around a point (x, y)."""
    image = np.full((*size, 3), 128, np.uint8)
    cv2.rectangle(image, (at[0] - 30, at[1] - 30), (at[0] + 30, at[1] + 30), colour, -1)
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture
def defect(tmp_path) -> ReportEntry:
    own = picture(tmp_path / "crack" / "one.png", RED, (400, 100))
    good = picture(tmp_path / "good" / "two.png", BLUE, (60, 250))
    entry = ReportEntry(own, 3.0, 2.0, True, overlay=GREY, nearest=str(good))
    return replace(entry, worst=(400, 100), nearest_at=(60, 250), nearest_file=good)


def shown(text: str) -> dict[str, np.ndarray]:
    """Return the pictures in the page, RGB, by their words for those who cannot see them."""
    found = re.findall(r'<img loading="lazy" alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)"', text)
    return {
        words: cv2.cvtColor(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1), cv2.COLOR_BGR2RGB)
        for words, data in found
    }


def test_both_patches_are_cut_around_their_points(tmp_path, defect):
    text = page(tmp_path, [defect])
    pictures = shown(text)
    assert list(pictures) == [
        "Overlay of crack/one.png",
        "Worst patch of crack/one.png",
        "Nearest good patch, of good/two.png",
    ]
    for words, colour in (("Worst patch of crack/one.png", RED), ("Nearest good patch, of good/two.png", BLUE)):
        patch = pictures[words]
        assert patch.shape == (200, 200, 3)
        assert np.abs(patch.astype(int) - colour).max() < 40  # an eighth of 320 lies wholly in the square
    assert {"worst patch", "nearest good patch, of", "good/two.png"} <= set(Reader(text).words)


@pytest.mark.parametrize("unknown", ["worst", "nearest", "nearest_at"])
def test_what_is_not_known_shows_no_patches(tmp_path, defect, unknown):
    assert list(shown(page(tmp_path, [replace(defect, **{unknown: None})]))) == ["Overlay of crack/one.png"]


def test_without_its_file_the_good_picture_is_named_and_how_to_see_it(tmp_path, defect):
    text = page(tmp_path, [replace(defect, nearest_file=None, good_named=False)])
    assert list(shown(text)) == ["Overlay of crack/one.png"]
    assert "--good-pictures DIR" in text
    assert "was not found where pictures were looked for, or has been changed since" in page(
        tmp_path, [replace(defect, nearest_file=None)]
    )


@pytest.mark.parametrize("gone", ["path", "nearest_file"])
@pytest.mark.parametrize("name", ["nowhere.png", HOSTILE, "a\0b.png", "array[3]"])
def test_a_file_that_cannot_be_read_any_more_shows_no_patches(tmp_path, defect, gone, name):
    pictures = shown(page(tmp_path, [replace(defect, **{gone: name})]))
    assert len(pictures) == 1
    assert next(iter(pictures)).startswith("Overlay of")


def test_only_pictures_shown_in_full_have_patches(tmp_path, defect):
    text = page(tmp_path, [replace(defect, score=50.0 - i) for i in range(26)])
    assert text.count('alt="Overlay of ') == 26
    assert text.count('alt="Worst patch of ') == 24


def test_patches_of_noise_leave_the_page_under_five_megabytes(tmp_path, defect):
    noise = np.random.default_rng(0).integers(0, 256, (700, 968, 3), np.uint8)
    cv2.imwrite(str(defect.path), noise)
    page(tmp_path, [replace(defect, overlay=noise) for _ in range(60)])
    assert (tmp_path / "report.html").stat().st_size < 5_000_000


@pytest.mark.parametrize(
    ("at", "corner"),
    [((0, 0), (0, 0)), ((399, 239), (370, 210)), ((200, 120), (185, 105)), ((5000, -5), (370, 0))],
)
def test_a_patch_is_an_eighth_of_the_shorter_side_and_inside_the_picture(at, corner):
    rows, columns = np.indices((240, 400))
    image = np.stack([rows, columns % 256, columns // 256], axis=2).astype(np.uint8)
    patch = cut_patch(image, at)
    assert patch.shape == (30, 30, 3)
    assert (int(patch[0, 0, 1]) + 256 * int(patch[0, 0, 2]), int(patch[0, 0, 0])) == corner


def test_a_tiny_picture_gives_what_it_has():
    assert cut_patch(np.zeros((9, 80, 3), np.uint8), (79, 0)).shape == (9, 9, 3)
    assert cut_patch(np.zeros((50, 80, 3), np.uint8), (0, 0)).shape == (24, 24, 3)


def result(**changes) -> Result:
    values = np.zeros((30, 50), np.float32)
    values[7, 41] = 3
    geometry = Geometry((30, 50), (64, 64), (0, 0), (64, 64))
    nearest = NearestPatch("g.png", 3, 4)
    made = Result("a/b.png", 2.5, 2.0, True, 0.02, values, [], nearest, 1.0, geometry, worst=(41, 7))
    return replace(made, **changes)


def test_a_row_is_made_of_a_result():
    row = ReportEntry.of(result(), overlay=GREY, label=1)
    assert (row.path, row.score, row.threshold, row.is_anomalous, row.p_value) == ("a/b.png", 2.5, 2.0, True, 0.02)
    assert (row.worst, row.nearest, row.nearest_at, row.label) == ((41, 7), "g.png", (3, 4), 1)
    assert row.overlay is GREY


def test_without_neighbours_no_place_is_claimed():
    assert ReportEntry.of(result(worst=None)).worst is None
    row = ReportEntry.of(result(nearest=None))
    assert (row.nearest, row.nearest_at) == (None, None)


def test_without_a_threshold_a_result_has_no_verdict():
    row = ReportEntry.of(result(threshold=float("nan"), is_anomalous=None))
    assert (row.threshold, row.is_anomalous) == (None, None)


def test_what_a_fitted_model_says_leads_to_both_files(model, parts, tmp_path):
    detector = PatchCore.load(model)
    judged = detector.predict(sorted((parts / "test").rglob("*.png"))[0])
    row = ReportEntry.of(replace(judged, is_anomalous=True), overlay=GREY)
    assert row.nearest_file is None  # what a model says opens no file by itself
    row = replace(row, nearest_file=judged.nearest.path)
    pictures = shown(page(tmp_path, [row], promise=detector.promise_))
    good = "/".join(Path(judged.nearest.path).parts[-2:])
    assert list(pictures)[2] == f"Nearest good patch, of {good}"
    cut = cut_patch(read_image(judged.nearest.path), (judged.nearest.x, judged.nearest.y))
    assert np.abs(pictures[list(pictures)[2]].mean(axis=(0, 1)) - cut.mean(axis=(0, 1))).max() < 4
