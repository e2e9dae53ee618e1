"""drift.conditions: each number answers to its own change, by a known amount, and to no other."""

import cv2
import numpy as np
import pytest

from totalrecall.demo.pictures import good
from totalrecall.drift import conditions as drift_conditions
from totalrecall.drift.conditions import MEASURES, Aligner, rounded
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import load_pictures

RECIPE = Recipe(size=128)
LIGHT, RED, BLUE, FOCUS = range(4)


def picture(seed=0, kind="washer"):
    return (good(kind, np.random.default_rng(seed), (160, 200)) * 0.8).astype(np.uint8)  # room above, to be brightened


def look(image, recipe=RECIPE):
    (loaded,) = load_pictures([image], recipe)
    return drift_conditions.look(loaded, recipe)


def test_the_measures_are_those_of_a_glance_and_four_more():
    assert MEASURES[:4] == ("light", "red", "blue", "focus")
    assert len(look(picture()).values) == len(MEASURES) - 4


def test_more_light_is_told_as_its_logarithm_and_changes_nothing_else():
    image = picture()
    brighter = np.clip(np.rint(image * 1.15), 0, 255).astype(np.uint8)
    moved = look(brighter).values - look(image).values
    assert moved[LIGHT] == pytest.approx(np.log(1.15), abs=0.01)
    assert np.abs(moved[[RED, BLUE, FOCUS]]).max() < 0.02


def test_blur_takes_focus_and_neither_light_nor_colour():
    image = picture()
    moved = look(cv2.GaussianBlur(image, (0, 0), 2)).values - look(image).values
    assert moved[FOCUS] < -0.25
    assert np.abs(moved[[LIGHT, RED, BLUE]]).max() < 0.01


def test_the_colour_of_the_light_is_told_apart():
    image = picture()
    warm = image.copy()
    warm[..., 0] = np.rint(image[..., 0] * 1.1)
    moved = look(warm).values - look(image).values
    assert moved[RED] == pytest.approx(np.log(1.1), abs=0.01)
    assert abs(moved[BLUE]) < 1e-6


def test_a_grey_picture_has_no_colour_and_a_flat_one_finite_numbers():
    grey = np.repeat(picture().mean(axis=2).astype(np.uint8)[..., None], 3, axis=2)
    assert look(grey).values[[RED, BLUE]].tolist() == [0, 0]
    for level in (0, 255):
        flat = look(np.full((90, 70, 3), level, np.uint8))
        assert np.isfinite(flat.values).all()
        assert Aligner(flat.small).displacement(flat.small) == (0, 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2)])
@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_the_smallest_pictures_give_finite_numbers(shape, resize):
    found = look(np.full((*shape, 3), 90, np.uint8), Recipe(size=64, resize=resize))
    assert np.isfinite(found.values).all()
    assert np.isfinite(found.small).all()
    assert found.size == shape


def test_the_padding_of_a_letterbox_is_not_looked_at():
    wide = picture()[:80]
    padded = look(wide, Recipe(size=128, resize="letterbox"))
    assert padded.values[LIGHT] == pytest.approx(look(wide).values[LIGHT], abs=0.01)


def test_what_a_crop_hides_does_not_count_for_the_size():
    found = look(picture(), Recipe(size=128, resize="crop", crop=64))
    assert found.size == (80, 80)  # of 160 x 200 the middle half of the short side


def test_what_lies_outside_the_region_of_interest_changes_nothing():
    image, roi = picture(), np.zeros((160, 200), bool)
    roi[40:120, 50:150] = True
    other = np.where(roi[..., None], image, np.uint8(3))
    recipe = Recipe(size=128, roi=roi)
    first, second = look(image, recipe), look(other, recipe)
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.small, second.small)
    inside = np.isfinite(first.small)
    assert 0.15 < inside.mean() < 0.3  # a quarter, less its border
    assert first.values[LIGHT] == pytest.approx(np.log(image[roi].mean() + 1), rel=0.05)


@pytest.mark.parametrize(("right", "below"), [(0.05, 0), (-0.05, 0), (0, 0.04), (0.03, -0.03), (0, 0)])
@pytest.mark.parametrize("gain", [1.0, 1.15])
def test_a_displacement_is_measured_whatever_the_light(right, below, gain):
    """A window that moves over a larger picture: its content moves the other way."""
    large = good("washer", np.random.default_rng(1), (320, 320))
    side, start = 240, 40
    pieces = []
    for across, down in ((0, 0), (right, below)):
        left, top = start - round(across * side), start - round(down * side)
        pieces.append(large[top : top + side, left : left + side])
    moved = np.clip(pieces[1] * gain, 0, 255).astype(np.uint8)
    found = Aligner(look(pieces[0]).small).displacement(look(moved).small)
    np.testing.assert_allclose(found, (right, below), atol=0.012)


def test_a_displacement_inside_a_region_of_interest_is_measured_too():
    large = good("washer", np.random.default_rng(1), (320, 320))
    roi = np.zeros((240, 240), bool)
    roi[30:210, 30:210] = True
    recipe = Recipe(size=128, roi=roi)
    here, there = look(large[40:280, 40:280], recipe), look(large[40:280, 28:268], recipe)
    assert Aligner(here.small).displacement(there.small)[0] == pytest.approx(0.05, abs=0.02)


def test_a_picture_of_something_else_gives_a_bounded_displacement():
    aligner = Aligner(look(picture()).small)
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.integers(0, 256, (160, 200, 3)).astype(np.uint8)
        assert np.abs(aligner.displacement(look(noise).small)).max() <= 0.5


def test_numbers_are_kept_to_six_digits():
    assert rounded(np.array([1 / 3, 123456789.0, 0.0])).tolist() == [0.333333, 123457000.0, 0.0]
