"""refill: what is left of a coreset once some points have gone covers the rest as it did."""

import tracemalloc

import numpy as np
import pytest

from tests.reference import distances
from totalrecall.patchcore.coreset import Coreset, greedy_k_center, refill


def patches(n=4000, d=24, seed=0, dtype=np.float32):
    """Points in uneven clusters, far from the origin, of twenty pictures."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((30, d)) * 3 + 20
    points = centres[rng.integers(30, size=n)] + rng.standard_normal((n, d)) * rng.gamma(2, 0.4, (n, 1))
    return points.astype(dtype), np.repeat(np.arange(20), n // 20)


def coreset_of(points, count=300):
    """Like `greedy_k_center`, whose answer is known to have its coverers."""
    found = greedy_k_center(points, count)
    assert found.coverer is not None
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fold", [[0], [3, 4, 11], list(range(1, 20))], ids=["one", "three", "all but one"])
def test_what_is_left_is_covered_and_nothing_of_the_fold_is_in_it(fold, dtype):
    points, picture = patches(dtype=dtype)
    coreset = coreset_of(points)
    gone = np.isin(picture, fold)
    rows = refill(points, coreset, gone)
    assert not gone[rows].any()
    assert len(np.unique(rows)) == len(rows) <= len(coreset.indices)
    kept = coreset.indices[~gone[coreset.indices]]
    assert np.array_equal(rows[: len(kept)], kept)
    near = distances(points[~gone].astype(np.float64), points[rows].astype(np.float64)).min(axis=1)
    assert near.max() <= coreset.radius * (1 + 1e-4)


def test_what_is_added_was_not_covered_and_is_as_far_apart_as_the_greedys_choices():
    points, picture = patches()
    coreset, gone = coreset_of(points), picture < 6
    rows = refill(points, coreset, gone)
    kept = np.count_nonzero(~gone[coreset.indices])
    assert kept < len(rows)
    apart = distances(points[rows].astype(np.float64), points[rows].astype(np.float64))
    np.fill_diagonal(apart, np.inf)
    assert apart[kept:].min() >= 0.97 * coreset.radius * (1 - 1e-4)


def test_as_many_are_added_as_have_gone_where_the_greedy_goes_no_finer_than_it_may(monkeypatch):
    points, picture = patches()
    coreset, gone = coreset_of(points), picture < 6
    lengths = []
    for finest in (0.01, 0.97, 1.0):
        monkeypatch.setattr("totalrecall.patchcore.coreset._FINEST", finest)
        lengths.append(len(refill(points, coreset, gone)))
    assert lengths[0] == len(coreset.indices)
    assert lengths[0] >= lengths[1] > lengths[2]


def test_by_hand():
    points = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [14.0]])
    coreset = Coreset(np.array([0, 3]), 2.0, 1, 1.0, np.array([0, 0, 0, 1, 1, 1], np.int32))
    gone = np.array([False, False, False, True, False, False])
    # of the points 11 and 14, which only 10 covered, both are beyond 2 R of it; the first is taken, 14 is 3 from that
    assert refill(points, coreset, gone).tolist() == [0, 4, 5]
    nearer = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    assert refill(nearer, coreset, gone).tolist() == [0, 4]


def test_where_nothing_has_gone_it_is_the_coreset():
    points, picture = patches()
    coreset = coreset_of(points)
    assert np.array_equal(refill(points, coreset, picture < 0), coreset.indices)


def test_where_every_centre_has_gone_the_rest_is_covered_anew():
    points, _ = patches()
    coreset = coreset_of(points, 50)
    gone = np.zeros(len(points), bool)
    gone[coreset.indices] = True
    rows = refill(points, coreset, gone)
    assert (
        distances(points[~gone].astype(float), points[rows].astype(float)).min(axis=1).max() <= 1.0001 * coreset.radius
    )


def test_dirty_patches_are_neither_chosen_nor_covered_and_what_only_they_covered_stays_so():
    points, picture = patches()
    coreset = coreset_of(points)
    gone, never = picture == 3, (picture == 7) & (np.arange(len(points)) % 2 == 0)
    rows = refill(points, coreset, gone, never)
    assert not (gone | never)[rows].any()
    own = coreset.indices[~never[coreset.indices]]  # what the detector keeps
    left = ~gone & ~never
    before = distances(points[left].astype(float), points[own].astype(float)).min(axis=1)
    after = distances(points[left].astype(float), points[rows].astype(float)).min(axis=1)
    assert (after <= np.maximum(before, coreset.radius) * 1.0001).all()
    assert after.max() > coreset.radius  # no more than the detector's own covers it


def test_where_others_cover_all_that_the_lost_ones_did_nothing_is_added():
    points = np.array([[0, 0], [0.5, 0], [0, 0.5], [9, 0], [9.5, 0], [4, 8]], np.float32)
    coreset = Coreset(np.array([0, 1, 3, 5]), 1.0, 1, 1.0, np.array([0, 1, 1, 2, 2, 3], np.int32))
    gone = np.array([False, True, False, False, False, False])
    assert refill(points, coreset, gone).tolist() == [0, 3, 5]


def ground(pictures=30, each=2000, d=48):
    """Patches of parts on one plain ground: nine in ten are ground, much alike, of which few centres cover all."""
    rng = np.random.default_rng(7)
    points = 20 + 0.2 * rng.standard_normal((pictures * each, d))
    part = np.arange(len(points)) % 10 == 0
    points[part] += 4 * rng.standard_normal((int(part.sum()), d))
    return points.astype(np.float32), np.repeat(np.arange(pictures), each)


def gone_with_the_ground(points, picture, coreset):
    """Return which points go: the picture whose centre covers most of all."""
    most = np.bincount(coreset.coverer).argmax()
    return picture == picture[coreset.indices[most]]


@pytest.mark.parametrize("least", [0.97, 0.1], ids=["ground that another centre covers", "ground that none does"])
def test_a_ground_that_one_centre_covers_in_all_pictures_is_not_copied_whole(least, monkeypatch):
    monkeypatch.setattr("totalrecall.patchcore.coreset._FINEST", least)
    points, picture = ground()
    coreset = coreset_of(points, 200)
    gone = gone_with_the_ground(points, picture, coreset)
    monkeypatch.setattr("totalrecall.patchcore.coreset.AT_ONCE", 10**9)
    whole, much = traced(points, coreset, gone)
    monkeypatch.setattr("totalrecall.patchcore.coreset.AT_ONCE", 1000)
    rows, little = traced(points, coreset, gone)
    assert much > points.nbytes / 4  # else there was nothing to save
    assert little < much / 3
    assert np.array_equal(rows, whole)


class Lists:
    """Rows that are read by slices and lists of indices alone, as those on a cluster are."""

    def __init__(self, rows):
        self._rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, which):
        assert isinstance(which, slice) or which.ndim == 1
        return self._rows[which]


def test_rows_wherever_they_lie_are_refilled_alike(monkeypatch):
    monkeypatch.setattr("totalrecall.patchcore.coreset._FINEST", 0.1)
    monkeypatch.setattr("totalrecall.patchcore.coreset.AT_ONCE", 1000)
    points, picture = ground()
    coreset = coreset_of(points, 200)
    gone = gone_with_the_ground(points, picture, coreset)
    assert np.array_equal(refill(Lists(points), coreset, gone), refill(points, coreset, gone))


def traced(points, coreset, gone):
    """Return what `refill` does, and the most bytes that it held at a time."""
    tracemalloc.start()
    rows = refill(points, coreset, gone)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return rows, peak
