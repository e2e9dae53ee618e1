"""gaussians: against the oracle, and the ways of taking pictures in against each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tests.patch_vectors import gaussians_of, vectors
from totalrecall.detectors.gaussians import EPSILON, Gaussians, choose_channels, default_channels, embed
from totalrecall.errors import BackboneError


@pytest.mark.parametrize("n", [1, 2, 15, 60])  # fewer and more pictures than dimensions
def test_distances_equal_the_oracle(n):
    good, picture = vectors(0, n), vectors(1, 1)[0]
    assert gaussians_of(good).distances(picture) == pytest.approx(reference.padim(good, picture), rel=1e-5)


def test_the_covariance_is_numpys_with_epsilon_on_its_diagonal():
    good = vectors(0, 12)
    covariance = gaussians_of(good, [5]).covariance()
    for position in range(7):
        expected = np.cov(good[:, position].astype(np.float64).T) + EPSILON * np.eye(20)
        assert covariance[position] == pytest.approx(expected, rel=1e-5, abs=1e-6)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 30), max_size=4), st.integers(0, 5))
def test_it_does_not_matter_how_many_pictures_come_at_a_time(cuts, seed):
    good, picture = vectors(seed, 30), vectors(seed + 9, 1)[0]
    whole, parts = gaussians_of(good), gaussians_of(good, sorted(cuts))
    assert parts.count == 30
    assert parts.distances(picture) == pytest.approx(whole.distances(picture), rel=1e-5)


def test_two_merged_are_one_that_saw_all():
    good, picture = vectors(0, 30), vectors(1, 1)[0]
    left, right = gaussians_of(good[:11]), gaussians_of(good[11:])
    before = left.distances(picture)
    left.merge(right)
    left.merge(Gaussians(7, 20))  # of nothing
    assert left.count == 30
    assert left.mean == pytest.approx(good.astype(np.float64).mean(axis=0))
    assert left.distances(picture) == pytest.approx(reference.padim(good, picture), rel=1e-5)
    assert not np.allclose(left.distances(picture), before)


@settings(max_examples=25)
@given(st.integers(1, 28), st.integers(0, 5))
def test_what_is_removed_might_never_have_been_added(count, seed):
    good, picture = vectors(seed, 30), vectors(seed + 9, 1)[0]
    gaussians = gaussians_of(good)
    gaussians.whitening  # noqa: B018  which the removal must make anew
    gaussians.remove(good[:count])
    gaussians.remove(good[:0])
    assert gaussians.count == 30 - count
    assert gaussians.mean == pytest.approx(good[count:].astype(np.float64).mean(axis=0))
    assert gaussians.distances(picture) == pytest.approx(gaussians_of(good[count:]).distances(picture), rel=1e-3)


def test_a_single_picture_leaves_a_sphere_about_it():
    good = vectors(0, 1)
    apart = np.zeros(20, np.float32)
    apart[3] = 0.5
    assert gaussians_of(good).distances(good[0] + apart) == pytest.approx(0.5 / np.sqrt(EPSILON), rel=1e-4)
    assert gaussians_of(good).distances(good[0]) == pytest.approx(0)


def test_far_from_the_origin_nothing_is_lost():
    """Sums of squares minus the square of the sum would lose everything here in float32."""
    good, picture = vectors(0, 40) + np.float32(1000), vectors(1, 1)[0] + np.float32(1000)
    assert gaussians_of(good, [8, 20]).distances(picture) == pytest.approx(reference.padim(good, picture), rel=1e-4)


def test_many_dimensions_and_blocks_of_positions_equal_the_oracle():
    rng = np.random.default_rng(3)
    good, picture = rng.normal(size=(9, 300, 70)).astype(np.float32), rng.normal(size=(300, 70)).astype(np.float32)
    assert gaussians_of(good, [4]).distances(picture) == pytest.approx(reference.padim(good, picture), rel=1e-5)


def test_what_was_kept_comes_back_to_the_bit():
    gaussians = gaussians_of(vectors(0, 12))
    again = Gaussians.of(gaussians.count, gaussians.mean.copy(), gaussians.scatter.copy())
    picture = vectors(1, 1)[0]
    assert np.array_equal(again.distances(picture), gaussians.distances(picture))


@pytest.mark.parametrize(
    ("count", "change", "message"),
    [
        (0, {}, "of no picture"),
        (3, {"mean": np.zeros((7, 20), np.float32)}, r"gaussians\.mean"),
        (3, {"mean": np.full((7, 20), np.nan)}, r"gaussians\.mean"),
        (3, {"scatter": np.zeros((7, 20), np.float32)}, r"gaussians\.scatter"),
        (3, {"scatter": np.full((7, 210), np.inf, np.float32)}, r"gaussians\.scatter"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(count, change, message):
    parts = {"mean": np.zeros((7, 20)), "scatter": np.zeros((7, 210), np.float32), **change}
    with pytest.raises(ValueError, match=message):
        Gaussians.of(count, **parts)


def test_the_size_foretold_is_the_size_that_is_kept():
    gaussians = gaussians_of(vectors(0, 3))
    kept, beside = Gaussians.size(7, 20)
    assert kept == gaussians.mean.nbytes + gaussians.scatter.nbytes
    assert beside == gaussians.whitening.nbytes


def test_channels_are_the_papers_number_ascending_and_by_the_seed():
    assert (default_channels(448), default_channels(1792), default_channels(60)) == (100, 550, 60)
    one, same, other = (choose_channels(448, 100, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(np.unique(one)) == 100
    assert (np.diff(one) > 0).all()
    assert one.max() < 448


def test_embedding_repeats_coarse_cells_and_takes_the_chosen_channels():
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, h, h + 1, c)).astype(np.float32) for h, c in ((8, 5), (4, 6), (3, 4))]
    channels = np.array([0, 4, 5, 9, 10, 11, 14])
    assert np.array_equal(embed(maps, channels), reference.pyramid(maps)[..., channels].astype(np.float32))


def test_features_too_large_for_a_covariance_are_one_line_of_ours():
    good = np.repeat(vectors(0, 12)[:, :, :1] * np.float32(1e14), 20, axis=2)  # of rank 1, epsilon is lost
    with pytest.raises(BackboneError, match=r"features, of up to .*e\+14, leave no covariance"):
        gaussians_of(good).distances(good[0])
