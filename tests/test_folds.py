"""folds: which good pictures set the threshold, and which are left out together."""

import numpy as np
import pytest

from totalrecall.folds import fold_count, held_out, make_folds


def test_held_out_pictures_are_a_fifth_and_at_most_500():
    assert [len(held_out(count, 0.2, 0)) for count in (0, 2, 3, 10, 761, 2600, 20_000)] == [0, 0, 1, 2, 152, 500, 500]
    assert len(held_out(20_000, 0.0, 0)) == 0
    held = held_out(100, 0.2, 3)
    assert np.array_equal(held, np.unique(held))
    assert not np.array_equal(held, held_out(100, 0.2, 4))


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
