"""search.levels: the dimensions that are chosen take the least work, and any of them gives brute force's answer."""

import numpy as np
import pytest

from tests.patch_vectors import brute_force, patch_like
from totalrecall.search import levels as search_plan
from totalrecall.search.exact import ExactSearch
from totalrecall.search.levels import choose_levels


def test_short_vectors_are_searched_whole():
    bank, queries = patch_like(d=64)
    assert choose_levels(bank, queries) == ()


def test_vectors_without_structure_are_searched_whole():
    rng = np.random.default_rng(0)
    bank = rng.standard_normal((3000, 384), dtype=np.float32)
    assert choose_levels(bank, rng.standard_normal((40, 384), dtype=np.float32)) == ()


@pytest.mark.parametrize(("m", "d"), [(500, 384), (3000, 384), pytest.param(3000, 1024, marks=pytest.mark.slow)])
def test_features_are_pruned_and_the_answer_is_brute_forces(m, d):
    bank, queries = patch_like(m=m, d=d)
    levels = choose_levels(bank, queries)
    assert levels
    assert np.array_equal(ExactSearch(bank, levels=levels).nearest(queries)[1], brute_force(queries, bank, 1)[1])


def test_larger_banks_are_bounded_in_fewer_dimensions():
    small, queries = patch_like(m=100, d=512)
    large, _ = patch_like(m=20_000, d=512)
    assert choose_levels(small, queries) == ()
    assert len(choose_levels(large, queries)) == 1


def test_the_same_bank_gives_the_same_levels():
    bank, queries = patch_like(m=2000, d=384)
    assert choose_levels(bank, queries) == choose_levels(bank.copy(), queries.copy())


def test_no_queries_and_a_bank_of_one_are_no_trouble():
    bank, queries = patch_like(m=300, d=384)
    assert choose_levels(bank, queries[:0]) == ()
    assert choose_levels(bank[:1], queries) == ()


def test_counts_of_pairs_are_those_of_the_bound():
    bank, queries = patch_like(m=300, q=20, d=384)
    left = search_plan._left_by_bounds(bank, queries, [16, 96])
    assert (left[96] >= 1).all()  # the nearest itself is always left
    assert (left[16] >= left[96]).all()
    assert left[16].mean() > left[96].mean()
