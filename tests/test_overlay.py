"""Overlays: the same colours mean the same on every picture, and the verdict can be read without colour."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from totalrecall.errors import SettingError
from totalrecall.pictures import overlay
from totalrecall.pictures.overlay import draw_overlay, save_overlay


@dataclass(frozen=True)
class Box:
    x: int
    y: int
    width: int
    height: int
    area: int = 1
    peak: float = 1.0


def flat(h: int, w: int, level: int = 128) -> np.ndarray:
    return np.full((h, w, 3), level, np.uint8)


def draw(anomaly_map, image=None, **changes):
    settings = {"threshold": 2.0, "score": 1.0, "score_threshold": 2.0, "is_anomalous": False} | changes
    image = flat(*anomaly_map.shape) if image is None else image
    return draw_overlay(image, anomaly_map, **settings)


def panels(sheet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middles of the left and right panel of a square picture's overlay."""
    middle = slice(overlay._HEADER + overlay._CAPTION + 20, sheet.shape[0] - overlay._FOOTER - 20)
    return sheet[middle, 40:440], sheet[middle, 520:920]


def test_a_good_picture_is_calm_and_a_hot_spot_is_not():
    quiet = np.full((100, 100), 0.9, np.float32)
    hot = quiet.copy()
    hot[40:60, 40:60] = 3.5
    calm, loud = panels(draw(quiet))[1].astype(int), panels(draw(hot))[1].astype(int)
    assert np.ptp(calm, axis=2).max() <= 2
    assert np.ptp(loud, axis=2).max() > 100


def test_a_value_has_the_same_colour_whatever_else_the_map_holds():
    low = np.full((100, 100), 1.7, np.float32)
    high = low.copy()
    high[:50] = 9.0
    np.testing.assert_array_equal(panels(draw(low))[1][-40:], panels(draw(high))[1][-40:])


def test_without_numbers_the_same_shares_of_the_scale_give_the_same_sheet():
    ramp = np.tile(np.linspace(0, 4, 100, dtype=np.float32), (100, 1))
    for one, ten in ((2.0, 20.0), (None, None)):
        for numbers in (True, False):
            sheets = [draw(ramp, threshold=one, numbers=numbers), draw(10 * ramp, threshold=ten, numbers=numbers)]
            assert np.array_equal(*sheets) is not numbers


def test_without_a_threshold_the_scale_is_the_maps_own():
    ramp = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (100, 1))
    for nothing in (None, float("nan"), 0.0):
        one = draw(ramp, threshold=nothing, score_threshold=None, is_anomalous=None)
        ten = draw(ramp * 10, threshold=nothing, score_threshold=None, is_anomalous=None)
        np.testing.assert_array_equal(panels(one)[1], panels(ten)[1])


def test_the_picture_itself_keeps_its_colours_and_the_heat_lies_over_grey():
    green = np.zeros((100, 100, 3), np.uint8)
    green[..., 1] = 150
    left, right = panels(draw(np.zeros((100, 100), np.float32), green))
    assert (left == (0, 150, 0)).all()
    assert np.ptp(right.astype(int), axis=2).max() == 0


def test_verdicts_differ_in_shape_not_only_in_colour():
    still = np.zeros((100, 100), np.float32)
    head = slice(0, 40)
    bad = cv2.cvtColor(draw(still, score=3.0, is_anomalous=True)[head, :48], cv2.COLOR_RGB2GRAY) < 200
    fine = cv2.cvtColor(draw(still)[head, :48], cv2.COLOR_RGB2GRAY) < 200
    unsure = cv2.cvtColor(draw(still, score_threshold=None)[head, :48], cv2.COLOR_RGB2GRAY) < 200
    for one, other in ((bad, fine), (fine, unsure), (unsure, bad)):
        assert (one != other).sum() > 60


@pytest.mark.parametrize(
    ("score", "threshold", "sign", "words"),
    [
        (3.41, 2.9, ">", "3.41 > 2.90"),
        (2.1, 2.9, "<=", "2.10 <= 2.90"),
        (2.9004, 2.9, ">", "2.9004 > 2.9000"),
        (2.9, 2.9, "<=", "2.90 <= 2.90"),
    ],
)
def test_score_and_threshold_are_written_so_that_they_can_be_told_apart(score, threshold, sign, words):
    assert overlay._pair(score, threshold, sign) == words


@pytest.mark.parametrize("size", [(100, 100), (1, 1), (4000, 3000), (30, 2000), (2000, 30), (103, 222), (632, 403)])
def test_every_size_gives_an_overlay_of_readable_size(size):
    sheet = draw(np.ones(size, np.float32), regions=[Box(0, 0, 1, 1)], title="x" * 400 + ".png")
    assert 460 <= sheet.shape[1] <= 968
    assert sheet.shape[0] <= 2 * 640 + 200
    assert sheet.dtype == np.uint8


def test_a_region_is_outlined_on_the_picture_where_it_is():
    still = np.zeros((100, 100), np.float32)
    change = (draw(still) != draw(still, regions=[Box(20, 50, 10, 10)])).any(axis=2)
    rows, columns = np.nonzero(change)
    left, top, scale = 16, overlay._HEADER + overlay._CAPTION, 4.6  # a panel is 460 pixels wide
    assert columns.min() == pytest.approx(left + 20 * scale, abs=8)
    assert columns.max() == pytest.approx(left + 30 * scale, abs=8)
    assert rows.min() == pytest.approx(top + 50 * scale, abs=8)
    assert rows.max() == pytest.approx(top + 60 * scale, abs=8)


def test_outside_the_region_of_interest_the_picture_is_dimmed():
    roi = np.zeros((100, 100), bool)
    roi[:, :50] = True
    heat = panels(draw(np.zeros((100, 100), np.float32), roi=roi))[1]
    assert heat[200, 100].mean() > 2 * heat[200, 300].mean()


def test_values_that_are_no_numbers_are_drawn_as_nothing():
    holes = np.zeros((100, 100), np.float32)
    holes[:30], holes[30:60] = np.nan, np.inf
    np.testing.assert_array_equal(draw(holes), draw(np.zeros((100, 100), np.float32)))


def test_the_inputs_are_left_as_they_were():
    image, heat = flat(60, 60), np.full((60, 60), 5, np.float32)
    draw(heat, image, regions=[Box(1, 1, 9, 9)], is_anomalous=True, score=9.0)
    assert (image == 128).all()
    assert (heat == 5).all()


def test_a_map_of_another_size_is_refused():
    with pytest.raises(SettingError, match="anomaly_map must be of the picture's size 60 x 60, got 50 x 60"):
        draw(np.zeros((50, 60), np.float32), flat(60, 60))
    with pytest.raises(SettingError, match="roi must be of the picture's size 60 x 60, got 60 x 50"):
        draw(np.zeros((60, 60), np.float32), roi=np.ones((60, 50), bool))


def test_a_title_too_long_gives_way_in_the_middle_and_keeps_its_end():
    short = overlay._shorten("/data/" + "x" * 300 + "/part_17.png", 300, 0.5)
    assert short.startswith("/data/")
    assert "..." in short
    assert short.endswith("part_17.png")
    assert overlay._shorten("grün\n.png", 300, 0.5) == "gr?n?.png"


def test_a_saved_overlay_reads_back_the_same(tmp_path):
    sheet = draw(np.eye(80, dtype=np.float32) * 4, is_anomalous=True, score=4.0)
    path = save_overlay(tmp_path / "new" / "part.png", sheet)
    np.testing.assert_array_equal(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), sheet)
