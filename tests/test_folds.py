"""folds: which good pictures set the threshold, and which are left out together."""

import numpy as np
import pytest

from totalrecall.calibration import fold_count, held_count, held_out, make_folds


def test_held_out_pictures_are_a_fifth_and_at_most_500():
    assert [len(held_out(count, 0.2, 0)) for count in (0, 2, 3, 10, 761, 2600, 20_000)] == [0, 0, 1, 2, 152, 500, 500]
    assert len(held_out(20_000, 0.0, 0)) == 0
    held = held_out(100, 0.2, 3)
    assert np.array_equal(held, np.unique(held))
    assert not np.array_equal(held, held_out(100, 0.2, 4))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.999, 1.0])
def test_the_count_of_those_held_out_is_known_without_drawing_them(share):
    for count in (0, 1, 2, 3, 4, 10, 761, 3000):
        assert held_count(count, share) == len(held_out(count, share, 7))
    assert held_count(10**15, 0.2) == 500  # nothing is drawn, or this would not end


@pytest.mark.parametrize("count", [3, 10, 40, 61, 209, 761, 1000])
def test_every_picture_is_in_one_fold_and_the_folds_are_even(count):
    folds = make_folds(count, 0.2, None, 42)
    assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(count))
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert len(folds) == fold_count(count, 0.2, None)
    assert all(np.array_equal(fold, np.sort(fold)) for fold in folds)


def test_up_to_a_thousand_pictures_there_are_twenty_folds_and_never_more_than_pictures():
    counts = [fold_count(count, 0.2, None) for count in (3, 19, 60, 150, 761, 1000)]
    assert counts == [3, 19, 20, 20, 20, 20]
    assert fold_count(5, 0.2, 10) == 5


def test_over_a_thousand_pictures_some_are_held_out_together():
    (fold,) = make_folds(1001, 0.2, None, 42)
    assert np.array_equal(fold, held_out(1001, 0.2, 42))
    assert len(make_folds(1001, 0.2, 7, 42)) == 7  # unless folds were asked for


def test_one_fold_holds_out_the_share_and_no_share_no_picture():
    assert np.array_equal(make_folds(40, 0.3, 1, 7)[0], held_out(40, 0.3, 7))
    assert make_folds(40, 0.0, None, 7) == []
    assert make_folds(2, 0.2, None, 7) == []


def test_the_seed_chooses():
    one, same, other = (make_folds(40, 0.2, None, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------------- photographs of one part


@pytest.mark.parametrize("seed", [0, 1])
def test_photographs_of_a_part_are_in_one_fold_and_the_folds_are_nearly_even(seed):
    parts = np.random.default_rng(seed).permutation(np.repeat(np.arange(40), 6))
    folds = make_folds(240, 0.2, None, 42, parts)
    assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(240))
    assert len(folds) == 20
    assert [len(fold) for fold in folds] == [12] * 20
    assert all(len(set(parts[fold])) == 2 for fold in folds)


def test_there_are_no_more_folds_than_parts_and_under_three_parts_none():
    parts = np.array([0, 0, 1, 1, 2, 3, 3, 3])
    folds = make_folds(8, 0.2, None, 42, parts)
    assert sorted(tuple(fold) for fold in folds) == [(0, 1), (2, 3), (4,), (5, 6, 7)]
    assert make_folds(8, 0.2, None, 42, np.array([0, 0, 0, 0, 1, 1, 1, 1])) == []
    assert make_folds(8, 0.0, None, 42, parts) == []


def test_one_fold_takes_whole_parts_until_the_share_is_reached():
    parts = np.repeat(np.arange(20), 5)
    (fold,) = make_folds(100, 0.22, 1, 42, parts)
    assert len(fold) == 25
    assert len(set(parts[fold])) == 5
    (most,) = make_folds(100, 0.99, 1, 42, parts)
    assert len(set(parts[most])) == 19  # one is left to judge by
