"""pictures.geometry: a picture is prepared, its map carried back to the pixel; regions of interest let no more in."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from totalrecall.errors import PictureError, SettingError
from totalrecall.pictures.geometry import Recipe

SIDES = st.integers(1, 700)
RECIPES = [
    Recipe(size=64),
    Recipe(size=65, resize="letterbox"),
    Recipe(size=64, resize="crop", crop=47),
    pytest.param(Recipe(size=33, resize="crop"), marks=pytest.mark.slow),
    Recipe(size=32, tile=2),
]
BLANK = (124, 116, 104)


def too_long(recipe, height, width):
    return recipe.resize == "crop" and max(height, width) > 32 * min(height, width)


def canvas_positions(geometry, axis):
    """Return where each original pixel's centre lies on the resized canvas (align_corners=False)."""
    centres = np.arange(geometry.original[axis]) + 0.5
    return centres * geometry.resized[axis] / geometry.original[axis]


def all_sizes(test):
    """Run a test of (recipe, height, width) over sizes that are odd, tiny and far from square."""
    for height, width in [(1, 1), (2, 2), (1, 700), (700, 1), (64, 64), (63, 65), (699, 23)]:
        test = example(height=height, width=width)(test)
    return pytest.mark.parametrize("recipe", RECIPES, ids=str)(
        settings(max_examples=25)(given(height=SIDES, width=SIDES)(test))
    )


def geometry_of(recipe, height, width):
    if too_long(recipe, height, width):
        with pytest.raises(PictureError):
            recipe.geometry(height, width)
        return None
    return recipe.geometry(height, width)


@all_sizes
def test_the_prepared_picture_always_has_the_recipes_size(recipe, height, width):
    if geometry_of(recipe, height, width) is None:
        return
    prepared, _ = recipe.prepare(np.full((height, width, 3), 200, np.uint8))
    side = (recipe.crop or recipe.size) * recipe.tile
    assert prepared.shape == (side, side, 3)
    assert prepared.dtype == np.uint8
    colours = {tuple(colour) for colour in np.unique(prepared.reshape(-1, 3), axis=0).tolist()}
    assert (200, 200, 200) in colours
    assert colours <= {(200, 200, 200), BLANK}
    if recipe.resize != "letterbox":
        assert BLANK not in colours  # only a letterbox pads


@all_sizes
def test_a_map_of_ones_comes_back_as_ones_where_the_picture_was_seen(recipe, height, width):
    geometry = geometry_of(recipe, height, width)
    if geometry is None:
        return
    full = geometry.map_to_original(np.ones(geometry.prepared, np.float32))
    assert full.shape == (height, width)
    assert full.dtype == np.float32
    assert set(np.unique(full).tolist()) <= {0.0, 1.0}
    for axis, seen in enumerate((full.any(axis=1), full.any(axis=0))):
        at = canvas_positions(geometry, axis) - geometry.offset[axis]
        clearly_in = (at > 1e-6) & (at < geometry.prepared[axis] - 1e-6)
        clearly_out = (at < -1e-6) | (at > geometry.prepared[axis] + 1e-6)
        assert seen[clearly_in].all()
        # of a picture of a few pixels the crop may show the centre of none; one is kept then
        assert not seen[clearly_out].any() or (seen.sum() == 1 and not clearly_in.any())
        assert seen.any()


@all_sizes
def test_a_ramp_comes_back_as_a_ramp(recipe, height, width):
    geometry = geometry_of(recipe, height, width)
    if geometry is None:
        return
    rows, columns = np.indices(geometry.prepared, dtype=np.float32)
    for axis, ramp in enumerate((rows, columns)):
        full = geometry.map_to_original(ramp)
        offset, prepared, resized = (part[axis] for part in (geometry.offset, geometry.prepared, geometry.resized))
        first, last = max(offset, 0), min(offset + prepared, resized) - 1  # of the canvas, what is there
        expected = np.clip(canvas_positions(geometry, axis) - 0.5, first, last) - offset
        seen = geometry.seen
        got = full[seen].mean(axis=1 - axis)
        assert got == pytest.approx(expected[seen[axis]], abs=2e-3 * prepared)
        assert np.ptp(full[seen], axis=1 - axis).max() < 1e-3 * prepared  # the other axis plays no part


@all_sizes
def test_a_point_of_the_prepared_picture_is_found_in_the_original(recipe, height, width):
    geometry = geometry_of(recipe, height, width)
    if geometry is None:
        return
    for corner in [(0, 0), geometry.prepared, (-50, 1e4)]:
        row, column = geometry.point_to_original(float(corner[0]), float(corner[1]))
        assert 0 <= row < height
        assert 0 <= column < width
    middle = geometry.point_to_original((geometry.prepared[0] - 1) / 2, (geometry.prepared[1] - 1) / 2)
    canvas_pixel = [original / resized for original, resized in zip((height, width), geometry.resized, strict=True)]
    assert abs(middle[0] + 0.5 - height / 2) <= 0.5 + canvas_pixel[0]
    assert abs(middle[1] + 0.5 - width / 2) <= 0.5 + canvas_pixel[1]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize(("height", "width"), [(40, 52), (61, 37), (130, 201), (333, 170)])
def test_a_hot_spot_comes_back_to_its_own_pixels(recipe, height, width):
    step = (height / (recipe.size * recipe.tile), width / (recipe.size * recipe.tile))
    row, column, radius = height // 2 + 3, width // 2 - 5, math.ceil(max(*step, 1))
    picture = np.zeros((height, width, 3), np.uint8)
    picture[row - radius : row + radius + 1, column - radius : column + radius + 1] = 255
    prepared, geometry = recipe.prepare(picture)
    heat = np.where(prepared == BLANK, 0, prepared)[:, :, 0].astype(np.float32)
    full = geometry.map_to_original(heat)
    rows, columns = np.nonzero(full > 127)
    assert abs(rows.mean() - row) <= 0.5 * max(step[0], 1)
    assert abs(columns.mean() - column) <= 0.5 * max(step[1], 1)
    hot_row, hot_column = np.argwhere(heat == heat.max()).mean(axis=0)
    at = geometry.point_to_original(hot_row, hot_column)
    assert abs(at[0] - row) <= radius
    assert abs(at[1] - column) <= radius


def test_an_edge_lands_where_it_should_when_the_scale_is_a_whole_number():
    recipe = Recipe(size=32)
    picture = np.zeros((96, 64, 3), np.uint8)
    picture[30:, 20:] = 255  # 30 / 3 and 20 / 2
    prepared, _ = recipe.prepare(picture)
    expected = np.zeros((32, 32), np.uint8)
    expected[10:, 10:] = 255
    assert np.array_equal(prepared[:, :, 0], expected)


def test_shrinking_averages_the_area_so_that_no_line_is_skipped():
    picture = np.zeros((320, 320, 3), np.uint8)
    picture[:, 101] = 200  # one pixel wide; a tenth of the prepared pixel over it
    assert Recipe(size=32).prepare(picture)[0][:, 10, 0].tolist() == [20] * 32


def test_a_picture_of_the_prepared_size_is_not_touched():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for recipe in (Recipe(size=64), Recipe(size=64, resize="letterbox"), Recipe(size=64, resize="crop")):
        assert np.array_equal(recipe.prepare(picture)[0], picture)
    cropped, geometry = Recipe(size=64, resize="crop", crop=33).prepare(picture)
    assert np.array_equal(cropped, picture[15:48, 15:48])
    assert geometry.seen == (slice(15, 48), slice(15, 48))


def test_a_letterbox_keeps_the_aspect_and_pads_evenly():
    geometry = Recipe(size=64, resize="letterbox").geometry(100, 50)
    assert (geometry.resized, geometry.offset) == ((64, 32), (0, -16))
    prepared = geometry.prepare(np.full((100, 50, 3), 7, np.uint8))
    assert (prepared[:, 16:48] == 7).all()
    assert (prepared[:, :16] == BLANK).all()
    assert (prepared[:, 48:] == BLANK).all()


def test_a_picture_too_long_to_crop_is_told_rather_than_made_a_gigabyte():
    with pytest.raises(PictureError) as caught:
        Recipe(resize="crop").geometry(1, 5000)
    assert str(caught.value) == (
        "A picture of 5000 x 1 pixels is too long to crop, allowed is 32 : 1. Use resize squash or letterbox."
    )


# ---------------------------------------------------------------------- region of interest


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("size", [(40, 52), (61, 37), (200, 301)])
def test_what_lies_outside_the_region_changes_nothing_prepared(recipe, size):
    rng = np.random.default_rng(3)
    roi = np.zeros(size, bool)
    roi[size[0] // 3 : -size[0] // 4, size[1] // 5 : -size[1] // 3] = True
    masked = replace(recipe, roi=roi)
    picture = rng.integers(0, 256, (*size, 3), np.uint8)
    other = np.where(roi[:, :, None], picture, rng.integers(0, 256, picture.shape, np.uint8))
    assert np.array_equal(masked.prepare(picture)[0], masked.prepare(other)[0])
    inside = np.where(roi[:, :, None], 255 - picture, picture)
    assert not np.array_equal(masked.prepare(picture)[0], masked.prepare(inside)[0])  # it can fail


def test_the_callers_picture_is_not_blanked_itself():
    roi = np.zeros((40, 40), bool)
    roi[10:20, 10:20] = True
    picture = np.full((40, 40, 3), 9, np.uint8)
    prepared, _ = Recipe(size=40, roi=roi).prepare(picture)
    assert (picture == 9).all()
    assert (prepared[roi] == 9).all()
    assert (prepared[~roi] == BLANK).all()


def test_a_region_of_another_size_has_the_pictures_framing():
    small = np.zeros((4, 5), bool)
    small[1:3, 2:4] = True
    recipe = Recipe(size=40, roi=small)
    full = recipe.original_roi(80, 50)
    assert np.array_equal(full, np.kron(small, np.ones((20, 10), bool)).astype(bool))
    prepared = recipe.prepared_roi(recipe.geometry(80, 50))
    assert np.array_equal(prepared, np.kron(small, np.ones((10, 8), bool)).astype(bool))


def test_a_thin_region_is_not_lost_when_it_shrinks():
    roi = np.zeros((640, 640), bool)
    roi[:, 333] = True
    recipe = Recipe(size=32, roi=roi)
    assert np.flatnonzero(recipe.prepared_roi(recipe.geometry(640, 640)).any(axis=0)).tolist() == [16]  # 333 // 20


def test_without_a_region_there_is_no_mask():
    recipe = Recipe()
    assert recipe.original_roi(5, 5) is None
    assert recipe.prepared_roi(recipe.geometry(5, 5)) is None


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 31}, "size must be from 32 to 4096 pixels, got 31. Usual: 224 to 512."),
        ({"size": 4097}, "size must be from 32 to 4096 pixels, got 4097. Usual: 224 to 512."),
        ({"size": -1}, "size must be from 32 to 4096 pixels, got -1. Usual: 224 to 512."),
        ({"resize": "stretch"}, "resize must be one of squash, letterbox, crop, got 'stretch'."),
        ({"crop": 200}, "crop is only for resize 'crop', got crop 200 with resize 'squash'."),
        ({"resize": "crop", "crop": 300}, "crop must be from 32 to size (256), got 300."),
        ({"resize": "crop", "crop": 0}, "crop must be from 32 to size (256), got 0."),
        ({"tile": 0}, "tile must be from 1 to 16 pieces a side, got 0. 2 makes four pieces."),
        ({"tile": 17}, "tile must be from 1 to 16 pieces a side, got 17. 2 makes four pieces."),
        ({"tile": 2, "size": 225}, "With tile, size must be a multiple of 32 pixels, got 225. Use 224."),
        ({"tile": 16, "size": 4096}, "size times tile must be at most 16384 pixels, got 65536."),
        (
            {"roi": np.zeros((4, 4), bool)},
            "The region-of-interest mask is empty: white pixels mark what is inspected.",
        ),
    ],
)
def test_a_recipe_out_of_range_says_what_is_allowed(options, message):
    with pytest.raises(SettingError) as caught:
        Recipe(**options)
    assert str(caught.value) == message


def test_a_recipe_tells_its_settings_as_json():
    recipe = Recipe(size=64, resize="crop", crop=48, roi=np.ones((2, 2), bool))
    assert recipe.to_json() == {"size": 64, "resize": "crop", "crop": 48, "tile": 1}
