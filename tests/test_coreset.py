"""coreset: the pool method chooses what the plain loop chooses."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from totalrecall.errors import SettingError
from totalrecall.patchcore import coreset
from totalrecall.patchcore.coreset import budget, greedy_k_center, project, subsample


def clustered(n=3000, d=24, seed=0, dtype=np.float64):
    """Points in uneven clusters, as patches are: many alike, few odd."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, d)) * 4
    return (centres[rng.integers(40, size=n)] + rng.standard_normal((n, d)) * rng.gamma(2, 0.4, (n, 1))).astype(dtype)


def first_of(points, seed):
    return int(np.random.default_rng(seed).integers(len(points)))


@pytest.fixture
def small_pool(monkeypatch):
    """A pool of 64 points, so that small data goes through many refreshes."""
    monkeypatch.setattr(coreset, "_POOL_AT_MOST", 1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_choice_in_float64_is_the_plain_loops(seed, small_pool):
    points = clustered(seed=seed)
    chosen = greedy_k_center(points, 600, seed=seed)
    indices, radius = reference.greedy(points, 600, first_of(points, seed))
    assert np.array_equal(chosen.indices, indices)
    assert chosen.radius == pytest.approx(radius, rel=1e-9)
    assert chosen.refreshes > 3


@pytest.mark.slow
def test_the_pool_of_the_real_size_chooses_the_same():
    points = clustered(6000, 128)
    chosen = greedy_k_center(points, 400, seed=3)
    assert np.array_equal(chosen.indices, reference.greedy(points, 400, first_of(points, 3))[0])


def test_in_float32_the_covering_radius_is_the_same(small_pool):
    points = clustered(dtype=np.float32)
    chosen = greedy_k_center(points, 500, seed=5)
    _, radius = reference.greedy(points.astype(np.float64), 500, first_of(points, 5))
    assert chosen.radius == pytest.approx(radius, rel=1e-5)


def test_points_far_from_the_origin_lose_no_digits(small_pool):
    near = clustered(1000)
    near -= near.mean(axis=0)
    moved = (near + 1000).astype(np.float32)  # products of raw coordinates would leave two or three digits
    chosen = greedy_k_center(moved, 100, seed=1)
    _, radius = reference.greedy(moved.astype(np.float64), 100, first_of(moved, 1))
    assert chosen.radius == pytest.approx(radius, rel=1e-4)


@settings(max_examples=30)
@given(
    points=st.integers(2, 60).flatmap(
        lambda n: st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=n, max_size=n).map(
            lambda rows: np.array(rows, np.float64)
        )
    ),
    seed=st.integers(0, 50),
)
def test_ties_go_to_the_lower_index(points, seed):
    """Small whole numbers tie all the time, and their squared distances are exact."""
    count = max(len(points) // 2, 1)
    chosen = greedy_k_center(points, count, seed=seed)
    indices, radius = reference.greedy(points, count, first_of(points, seed))
    distinct = len(np.unique(points, axis=0))  # beyond these the plain loop goes on with repeats, ours ends
    assert chosen.indices.tolist() == indices[:distinct].tolist()
    assert chosen.radius == pytest.approx(radius)


def test_a_prefix_of_the_choice_is_the_smaller_choice(small_pool):
    points = clustered(1500)
    assert np.array_equal(greedy_k_center(points, 300).indices[:100], greedy_k_center(points, 100).indices)


def test_it_ends_early_at_a_covering_radius(small_pool):
    points = clustered(1500)
    wanted = greedy_k_center(points, 200).radius * 1.000001
    chosen = greedy_k_center(points, 1500, radius=wanted)
    assert chosen.radius <= wanted
    assert len(chosen.indices) == 200


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_among_some_rows_the_choice_is_that_among_their_copy(small_pool, dtype):
    points = clustered(4000, dtype=dtype) + dtype(5)
    rows = np.flatnonzero(np.random.default_rng(2).random(4000) < 0.7)
    some, copied = greedy_k_center(points, 300, rows=rows), greedy_k_center(points[rows], 300)
    assert np.array_equal(some.indices, copied.indices)
    assert some.radius == pytest.approx(copied.radius, rel=1e-6)


@pytest.mark.slow
def test_the_points_are_neither_changed_nor_copied():
    points = clustered(40_000, 384, dtype=np.float32)
    before = points.copy()
    tracemalloc.start()
    greedy_k_center(points, 200, rows=np.arange(1000, 40_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(points, before)
    assert peak < 72 * len(points) + 48 * 2**20  # what `plan` counts with; a copy would be 61 MB more
    assert 4 * points.size > 48 * 2**20


def test_all_points_can_be_chosen():
    points = clustered(300)
    assert sorted(greedy_k_center(points, 300).indices.tolist()) == list(range(300))


def test_equal_points_are_chosen_once():
    points = np.repeat(clustered(5), 20, axis=0)
    chosen = greedy_k_center(points, 50)
    assert len(chosen.indices) == 5
    assert chosen.radius == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_point_is_within_the_radius_of_its_coverer(small_pool, dtype):
    points = clustered(4000, dtype=dtype)
    rows = np.flatnonzero(np.random.default_rng(2).random(4000) < 0.7)
    for chosen, among in (
        (greedy_k_center(points, 400), points),
        (greedy_k_center(points, 300, rows=rows), points[rows]),
    ):
        assert chosen.coverer.dtype == np.int32
        apart = np.linalg.norm(among - among[chosen.indices[chosen.coverer]], axis=1)
        assert apart.max() <= chosen.radius * (1 + 1e-4)
        assert np.array_equal(chosen.coverer[chosen.indices], np.arange(len(chosen.indices)))


def test_equal_points_are_covered_by_the_one_that_was_chosen():
    points = np.repeat(clustered(5), 20, axis=0)
    chosen = greedy_k_center(points, 50)
    assert np.array_equal(points[chosen.indices[chosen.coverer]], points)


def test_progress_ends_at_the_count(small_pool):
    seen = []
    greedy_k_center(clustered(1500), 200, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (200, 200)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("count", [0, 11])
def test_a_count_out_of_range_is_named(count):
    message = rf"coreset count must be from 1 to the number of patches \(10\), got {count}\."
    with pytest.raises(SettingError, match=message):
        greedy_k_center(clustered(10), count)


def test_projection_keeps_distances_within_a_fifth():
    points = clustered(200, 1536, dtype=np.float32)
    small = project(points, seed=1)
    assert small.shape == (200, 128)
    before, after = reference.distances(points[:20], points[20:]), reference.distances(small[:20], small[20:])
    assert np.median(np.abs(after / before - 1)) < 0.1
    assert np.percentile(np.abs(after / before - 1), 90) < 0.2


def test_projection_in_chunks_gives_the_same_rows():
    points = clustered(100, 300, dtype=np.float32)
    halves = np.concatenate([project(points[:50], seed=4), project(points[50:], seed=4)])
    assert np.allclose(project(points, seed=4), halves, rtol=1e-5, atol=1e-4)


def test_short_vectors_are_not_projected():
    points = clustered(10, 24)
    assert project(points) is points


def test_on_real_patches_the_order_is_the_plain_loops(shared, real_patches):
    """20,000 patches of real tiles by ResNet-18, projected to 128: what the issue asks."""
    points = project(real_patches, seed=42).astype(np.float64)
    chosen = greedy_k_center(points, 200, seed=42)
    indices, radius = reference.greedy(points, 200, first_of(points, 42))
    assert np.array_equal(chosen.indices, indices)
    single = greedy_k_center(points.astype(np.float32), 200, seed=42)
    assert single.radius == pytest.approx(radius, rel=1e-5)


# ---------------------------------------------------------------------- greedy or random


def test_subsample_is_the_greedys_choice_unless_told_otherwise():
    points = clustered(400)
    assert np.array_equal(subsample(points, 40, seed=3).indices, greedy_k_center(points, 40, seed=3).indices)


def test_a_random_choice_is_of_different_points_drawn_by_the_seed():
    points = clustered(400)
    chosen = subsample(points, 40, method="random", seed=3)
    assert len(set(chosen.indices.tolist())) == 40
    assert chosen.indices.max() < 400
    assert np.array_equal(chosen.indices, subsample(points, 40, method="random", seed=3).indices)
    assert not np.array_equal(chosen.indices, subsample(points, 40, method="random", seed=4).indices)
    assert np.isnan(chosen.radius)


def test_a_random_choice_covers_worse_than_the_greedy():
    points = clustered(2000)
    greedy = greedy_k_center(points, 100)
    drawn = points[subsample(points, 100, method="random").indices]
    farthest = max(
        np.linalg.norm(points[first : first + 100, None] - drawn, axis=2).min(1).max() for first in range(0, 2000, 100)
    )
    assert farthest > greedy.radius


def test_a_random_choice_among_some_rows_counts_within_them():
    points, rows = clustered(100), np.arange(50, 60)
    assert sorted(subsample(points, 10, method="random", rows=rows).indices) == list(range(10))


def test_subsample_names_what_is_allowed():
    with pytest.raises(SettingError, match="subsampling must be one of greedy, random, got 'uniform'"):
        subsample(clustered(10), 2, method="uniform")
    with pytest.raises(SettingError, match=r"from 1 to the number of patches \(10\), got 11"):
        subsample(clustered(10), 11, method="random")


@pytest.mark.parametrize(
    ("total", "share", "least", "kept"),
    [
        (5120, 0.01, 1, 51),
        (5120, 0.01, 2000, 2000),
        (900, 0.01, 2000, 900),
        (300_000, 0.01, 2000, 3000),
        (50, 0.01, 1, 1),
    ],
)
def test_the_budget_is_the_share_but_no_fewer_than_the_least(total, share, least, kept):
    assert budget(total, share, least) == kept


def test_a_selection_goes_on_from_points_that_are_chosen_already():
    points = np.random.default_rng(3).standard_normal((500, 6))
    whole = greedy_k_center(points, 60, seed=1).indices
    assert np.array_equal(greedy_k_center(points, 60, start=whole[:25]).indices, whole)
    assert np.array_equal(greedy_k_center(points, 25, start=whole[:25]).indices, whole[:25])
