"""detectors.feature_pyramids: against the oracle, on grids that halve and on grids that do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from totalrecall.detectors.feature_pyramids import Gallery, pooled

GRIDS = {
    "halving": [(8, 8, 5), (4, 4, 7), (2, 2, 3)],
    "odd": [(9, 7, 5), (5, 4, 7), (3, 2, 3)],
    "one": [(6, 6, 4)],
    "two": [(6, 4, 4), (3, 2, 6)],
    "finest last": [(4, 4, 3), (8, 8, 5)],
}


def pyramids(seed, n, shapes):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(n, *shape)) + 1).astype(np.float32) for shape in shapes]


def gallery(maps, inside=None):
    return Gallery(maps, np.stack([pooled(maps[-1][i : i + 1]) for i in range(len(maps[0]))]), inside)


@pytest.mark.parametrize("shapes", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("k", [1, 4, 6])
def test_score_and_distances_equal_the_oracle(shapes, k):
    good, picture = pyramids(0, 6, shapes), pyramids(1, 1, shapes)
    score, expected = reference.spade(good, picture, k)
    full = gallery(good)
    distances, chosen = full.nearest_pictures(pooled(picture[-1]), k)
    assert distances.mean() == pytest.approx(score, rel=1e-6)
    found = full.correspond(picture, chosen)
    assert found.distances == pytest.approx(expected, rel=1e-5)
    assert set(found.pictures.ravel()) <= set(chosen)


@settings(max_examples=20)
@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3),
)
def test_any_grids_equal_the_oracle(seed, shapes):
    good, picture = pyramids(seed, 3, shapes), pyramids(seed + 1, 1, shapes)
    expected = reference.spade(good, picture, 3)[1]
    assert gallery(good).correspond(picture, np.arange(3)).distances == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_where_it_was_found_has_that_distance():
    shapes = GRIDS["odd"]
    good, picture = pyramids(0, 6, shapes), pyramids(1, 1, shapes)
    found = gallery(good).correspond(picture, np.arange(6))
    vectors, own = reference.pyramid(good).reshape(6, 63, -1), reference.pyramid(picture).reshape(63, -1)
    there = vectors[found.pictures.ravel(), found.cells.ravel()]
    assert np.linalg.norm(there - own, axis=1) == pytest.approx(found.distances.ravel(), rel=1e-5)


def test_a_picture_of_the_gallery_is_at_distance_zero_and_found_at_its_own_place():
    """Large features: a product alone would be off by rounding."""
    good = [one + np.float32(100) for one in pyramids(0, 6, GRIDS["halving"])]
    own = [one[2:3] for one in good]
    full = gallery(good)
    distances, chosen = full.nearest_pictures(pooled(own[-1]), 3)
    assert (distances[0], chosen[0]) == (0, 2)
    found = full.correspond(own, chosen)
    assert (found.distances == 0).all()
    assert (found.pictures == 2).all()
    assert np.array_equal(found.cells.ravel(), np.arange(64))


def test_only_chosen_pictures_and_positions_inside_are_looked_at():
    shapes = GRIDS["halving"]
    good, picture = pyramids(0, 6, shapes), pyramids(1, 1, shapes)
    inside = np.zeros((6, 8, 8), bool)
    inside[:, :5, 2:] = True
    found = gallery(good, inside).correspond(picture, np.array([1, 4]))
    assert set(found.pictures.ravel()) <= {1, 4}
    assert inside[0].ravel()[found.cells].all()
    vectors = reference.pyramid(good)[[1, 4], :5, 2:].reshape(-1, 15)
    own = reference.pyramid(picture).reshape(64, 15)
    expected = reference.distances(own, vectors).min(axis=1).reshape(8, 8)
    assert found.distances == pytest.approx(expected, rel=1e-5)


def test_pictures_are_looked_for_among_some():
    full = gallery(pyramids(0, 6, GRIDS["one"]))
    some = Gallery(full.levels, full.pooled, among=np.array([0, 3, 5]))
    _, chosen = some.nearest_pictures(full.pooled[2], 4)
    assert sorted(chosen) == [0, 3, 5]
    distances, _ = full.nearest_pictures(full.pooled[2], 50)
    assert len(distances) == 6
    assert (np.diff(distances) >= 0).all()
