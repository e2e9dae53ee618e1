"""scoring: eq. 6 and 7 against the oracle, maps and regions against hand-derived values."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests import reference
from totalrecall.errors import SettingError
from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.judge import picture_score, reweight
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import LearntPicture
from totalrecall.scoring import anomaly_map, find_regions, region_level, smooth_distances, smoothing_sigma


def a_bank(m=60, d=12, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((m, d)).astype(np.float32)
    return Bank(vectors, np.zeros((m, 3), np.int32), [LearntPicture("a.png", "", 10, 10)])


def score_of(patches, bank, scoring, neighbours=9):
    distances, indices = bank.nearest(patches)
    return picture_score(distances[:, 0], indices[:, 0], patches, bank, scoring=scoring, neighbours=neighbours)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    scoring=st.sampled_from(["max", "paper", "top1pct"]),
    neighbours=st.integers(2, 12),
    count=st.sampled_from([5, 150, 400]),
)
def test_every_score_equals_the_oracle(seed, scoring, neighbours, count):
    bank = a_bank(seed=seed)
    patches = (np.random.default_rng(seed + 1).standard_normal((count, 12)) * 1.5).astype(np.float32)
    expected = reference.score(patches, bank.vectors.astype(np.float64), scoring, neighbours)
    assert score_of(patches, bank, scoring, neighbours) == pytest.approx(expected, rel=1e-5)


def test_the_weight_by_hand():
    # s* = 1 and neighbours at 1 and 2: 1 - e / (e + e^2) = 1 - 1 / (1 + e)
    assert reweight(1.0, np.array([1.0, 2.0])) == pytest.approx(1 - 1 / (1 + np.e))


def test_the_weight_does_not_overflow_at_large_distances():
    assert reweight(5000.0, np.array([5000.0, 5000.0, 5000.0])) == pytest.approx(5000 * 2 / 3)


def test_without_neighbours_the_distance_stands_alone():
    assert reweight(3.0, np.array([3.0])) == 3.0
    bank = a_bank(m=1)
    patches = np.ones((4, 12), np.float32)
    assert score_of(patches, bank, "paper") == pytest.approx(score_of(patches, bank, "max"))


def test_a_member_of_the_bank_scores_zero():
    bank = a_bank()
    for scoring in ("max", "paper", "top1pct"):
        assert score_of(bank.vectors[:7].copy(), bank, scoring) == 0


def test_an_unknown_scoring_is_named():
    with pytest.raises(SettingError) as caught:
        score_of(np.ones((4, 12), np.float32), a_bank(), "mean")
    assert str(caught.value) == "scoring must be one of extent, map1pct, top1pct, max, paper, got 'mean'."


def test_a_flat_grid_gives_a_flat_map_of_the_pictures_size():
    geometry = Recipe(size=64).geometry(37, 91)
    values = anomaly_map(np.full((8, 8), 2.5, np.float32), geometry)
    assert values.shape == (37, 91)
    assert values.dtype == np.float32
    assert np.allclose(values, 2.5, atol=1e-5)


@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
def test_the_maps_peak_lies_over_the_hot_patch(resize):
    geometry = Recipe(size=256, resize=resize).geometry(400, 600)
    grid = np.zeros((32, 32), np.float32)
    grid[20, 8] = 1
    values = anomaly_map(grid, geometry)
    row, column = np.unravel_index(values.argmax(), values.shape)
    expected = geometry.point_to_original(20.5 * 8 - 0.5, 8.5 * 8 - 0.5)
    assert abs(row - expected[0]) <= 2
    assert abs(column - expected[1]) <= 2


def test_smoothing_equals_a_plain_gaussian():
    from scipy.ndimage import gaussian_filter

    grid = np.random.default_rng(0).random((256, 256), dtype=np.float32)
    smoothed = anomaly_map(grid, Recipe(size=256).geometry(256, 256))
    assert np.allclose(smoothed, gaussian_filter(grid, 4.0, mode="reflect"), atol=1e-4)


def test_sigma_is_the_papers_and_grows_with_the_picture():
    assert smoothing_sigma(224) == smoothing_sigma(255) == smoothing_sigma(256) == 4
    assert smoothing_sigma(512) == 8
    assert smoothing_sigma(112) == 2


def test_at_the_border_of_the_region_of_interest_nothing_is_lost():
    roi = np.zeros((64, 64), bool)
    roi[:, 32:] = True
    grid = np.zeros((8, 8), np.float32)
    grid[:, 4:] = 3
    values = anomaly_map(grid, Recipe(size=64).geometry(64, 64), roi=roi)
    assert np.allclose(values[:, 36:], 3, atol=0.4)
    assert (values[:, :32] == 0).all()


def whole_picture_regions(values, threshold):
    """Regions of the whole picture at once, each as (x, y, width, height, area, peak)."""
    above = (values > threshold).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    found = [(*stats[label].tolist(), float(values[labels == label].max())) for label in range(1, len(stats))]
    return sorted(found, key=lambda one: -one[-1])


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    share=st.floats(0.02, 0.5),
    levels=st.integers(1, 5),
    corner=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    seed=st.integers(0, 9999),
)
@settings(max_examples=200, deadline=None)
def test_regions_are_those_of_the_whole_picture_wherever_they_lie_and_whatever_ties(shape, share, levels, corner, seed):
    rng = np.random.default_rng(seed)
    values = np.zeros((80, 70), np.float32)
    marked = rng.integers(1, levels + 1, shape) * (rng.random(shape) < share)
    values[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]] = marked[
        : 80 - corner[0], : 70 - corner[1]
    ]
    expected = whole_picture_regions(values, 0.5)
    got = find_regions(values, 0.5)
    assert [(one.x, one.y, one.width, one.height, one.area, one.peak) for one in got] == expected


def test_regions_are_connected_areas_the_highest_first():
    values = np.zeros((20, 30), np.float32)
    values[2:4, 3:8] = 2
    values[10:15, 20:22] = 5
    values[15, 22] = 9  # touches by a corner
    first, second = find_regions(values, 1.0)
    assert (first.x, first.y, first.width, first.height, first.area, first.peak) == (20, 10, 3, 6, 11, 9.0)
    assert (second.x, second.y, second.width, second.height, second.area, second.peak) == (3, 2, 5, 2, 10, 2.0)


def test_small_regions_can_be_left_out():
    values = np.zeros((9, 9), np.float32)
    values[1, 1] = values[5:8, 5:8] = 1
    assert [region.area for region in find_regions(values, 0.5, min_area=2)] == [9]


def test_without_a_threshold_there_are_no_regions():
    assert find_regions(np.ones((5, 5), np.float32), float("nan")) == []


def test_a_value_at_the_threshold_is_no_region():
    assert find_regions(np.ones((5, 5), np.float32), 1.0) == []


# ---------------------------------------------------------------------- beyond the paper


def every_cell(rows, columns):
    return np.indices((rows, columns)).reshape(2, -1).T


def test_smoothed_distances_are_a_plain_gaussians():
    from scipy.ndimage import gaussian_filter

    grid = np.random.default_rng(0).random((12, 20), dtype=np.float32)
    smoothed = smooth_distances(grid, every_cell(12, 20), 1.0)
    assert np.allclose(smoothed.reshape(12, 20), gaussian_filter(grid, 1.0, mode="reflect", truncate=4), atol=1e-5)


def test_cells_outside_the_region_pull_nothing_down():
    grid = np.full((8, 8), 9.0, np.float32)
    grid[:, :4] = 0  # outside, where a detector writes 0
    cells = every_cell(8, 8)
    cells = cells[cells[:, 1] >= 4]
    assert np.allclose(smooth_distances(grid, cells, 1.0), 9, atol=1e-4)


def test_a_smoothed_spot_counts_for_more_than_a_smoothed_speck():
    bank, patches = a_bank(), np.zeros((400, 12), np.float32)
    indices = np.zeros(400, np.int64)
    scores = []
    for side in (1, 3):  # the speck is higher, the spot is wider
        grid = np.zeros((20, 20), np.float32)
        grid[5 : 5 + side, 5 : 5 + side] = 5 - side
        smoothed = smooth_distances(grid, every_cell(20, 20), 0.75)
        scores.append(picture_score(smoothed, indices, patches, bank, scoring="map1pct"))
    assert scores[0] < scores[1]


def test_map1pct_is_the_mean_of_the_largest_hundredth_of_what_it_is_given():
    values = np.random.default_rng(0).random(700)
    indices, patches = np.zeros(700, np.int64), np.zeros((700, 12), np.float32)
    score = picture_score(values, indices, patches, a_bank(), scoring="map1pct")
    assert score == pytest.approx(np.sort(values)[-7:].mean())


@given(
    values=arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5)),
    area=st.integers(1, 12),
)
def test_the_region_level_is_the_threshold_at_which_regions_of_that_area_end(values, area):
    level = region_level(values, area)
    if values.size < area:
        assert level == -math.inf
        return
    assert not find_regions(values, level, min_area=area)
    assert find_regions(values, float(np.nextafter(np.float32(level), np.float32(-1e9))), min_area=area)
