"""Few good pictures: the bank learns tilted copies of each, which set no threshold and belong to their picture."""

import cv2
import numpy as np
import pytest

from tests.parts import make, stripes
from totalrecall import PatchCore
from totalrecall.evaluation.metrics import auroc
from totalrecall.patchcore.tilted import ANGLES, cells_before, tilted


def dots(angle=0.0, defect=False):
    """Draw a plate of dots that lies at an angle."""
    picture = np.full((96, 96, 3), 200, np.uint8)
    for row in range(16, 96, 16):
        for column in range(16, 96, 16):
            cv2.circle(picture, (column, row), 4, (60, 60, 60), -1)
    if defect:
        cv2.line(picture, (40, 52), (60, 55), (120, 120, 120), 2)
    turn = cv2.getRotationMatrix2D((47.5, 47.5), angle, 1.0)
    return cv2.warpAffine(picture, turn, (96, 96), borderMode=cv2.BORDER_REFLECT)


def test_a_copy_is_the_picture_turned_about_its_middle_and_the_way_back_is_known():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[20:24, 40:44] = 255
    for copy, back in tilted(picture):
        rows, columns = np.nonzero(copy[..., 0] > 128)
        x, y = back @ [columns.mean(), rows.mean(), 1.0]
        assert (x, y) == (pytest.approx(41.5, abs=0.6), pytest.approx(21.5, abs=0.6))


def test_patches_are_traced_back_to_their_cell_and_corners_that_were_filled_are_left_out():
    picture = np.zeros((64, 64, 3), np.uint8)
    cells = np.indices((32, 32)).reshape(2, -1).T
    for _, back in tilted(picture):
        before, count = cells_before(cells, back, np.ones((32, 32), bool), (64, 64))
        middle = np.abs(cells - 15.5).max(axis=1) < 3
        assert count[middle].all()
        assert (np.abs(before[middle] - cells[middle]) <= 1).all()
        assert not count[[0, 31, 992, 1023]].any()  # the corners
        assert count.mean() > 0.8
    half = np.zeros((32, 32), bool)
    half[:, :16] = True
    before, count = cells_before(cells, back, half, (64, 64))
    assert (before[count, 1] < 16).all()


@pytest.mark.parametrize("count", [1, 4])
def test_few_pictures_bring_their_tilted_copies_and_more_do_not(tiny_backbone, count):
    pictures = [stripes(seed) for seed in range(count)]
    alone = make(tiny_backbone, tilt_up_to=0).fit(pictures)
    few = make(tiny_backbone).fit(pictures)
    assert alone.report_.patches < few.report_.patches <= (1 + len(ANGLES)) * alone.report_.patches
    assert few.report_.plan["patches"] >= few.report_.patches
    assert len(few.pictures_) == few.report_.pictures == count
    assert set(few.bank_.origin[:, 0]) <= set(range(count))
    enough = [stripes(seed) for seed in range(5)]
    assert (
        make(tiny_backbone).fit(enough).report_.patches == make(tiny_backbone, tilt_up_to=0).fit(enough).report_.patches
    )


def test_the_copies_set_no_threshold_and_a_bank_without_a_picture_is_without_its_copies(tiny_backbone):
    pictures = [stripes(seed) for seed in range(3)] + [255 - stripes(9)]
    detector = make(tiny_backbone, coreset=1.0, scoring="max").fit(pictures)
    assert len(detector.calibration_.scores) == 4
    others = make(tiny_backbone, coreset=1.0, scoring="max").fit(pictures[:3])
    assert detector.calibration_.scores[3] == pytest.approx(others.predict(pictures[3]).score, rel=1e-4)


def test_a_part_that_lies_askew_is_known_and_a_defect_on_it_is_not(tiny_backbone):
    askew = [dots(angle) for angle in (-8, -6, -4, 4, 6, 8)]
    bad = [dots(angle, defect=True) for angle in (-8, -6, -4, 4, 6, 8)]
    labels = [0] * 6 + [1] * 6
    alone = make(tiny_backbone, tilt_up_to=0, size=96).fit([dots()])
    few = make(tiny_backbone, size=96).fit([dots()])
    assert few.score(askew).mean() < 0.8 * alone.score(askew).mean()
    assert auroc(labels, few.score([*askew, *bad])) > auroc(labels, alone.score([*askew, *bad]))


def test_nearest_points_into_the_good_picture(tiny_backbone):
    few = make(tiny_backbone, size=96).fit([dots()])
    nearest = few.predict(dots(7, defect=True)).nearest
    assert 0 <= nearest.x < 96
    assert 0 <= nearest.y < 96


def test_the_region_of_interest_holds_for_the_copies(tiny_backbone):
    roi = np.zeros((96, 96), bool)
    roi[:, :48] = True
    few, alone = (make(tiny_backbone, size=96, roi=roi, coreset=1.0, tilt_up_to=most).fit([dots()]) for most in (4, 0))
    judged = set(map(tuple, alone.bank_.origin[:, 1:]))
    assert set(map(tuple, few.bank_.origin[:, 1:])) == judged
    assert len(few.bank_) > 3 * len(alone.bank_)


def test_a_model_of_before_learnt_no_copies():
    assert PatchCore.former_settings["tilt_up_to"] == 0
