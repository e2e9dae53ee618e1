"""drift.bets: fair while nothing has moved, exactly; rich soon after something has."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalrecall.drift import bets as module
from totalrecall.drift.bets import GOOD_SHARE, SHIFTS, STAKES, Bets, Ranks, majority_chance, rank_bets, share_bets

NONE = (0,) * len(SHIFTS)  # of the last numbers have moved
EVEN = (1.0,) * len(STAKES)


def capital_of(calibration, numbers):
    """The most capital that a run of numbers brought, from nothing, by bets on ranks."""
    ranks, bets, best = Ranks(calibration), Bets([0.0] * (len(SHIFTS) + len(STAKES))), 0.0
    for number in numbers:
        bets.settle(ranks.interval(number), len(ranks.values), EVEN)
        ranks.add(number)
        best = max(best, np.mean(bets.capital[: len(SHIFTS)]))
    return best


def test_the_bounds_of_a_p_value_by_hand():
    ranks = Ranks([1.0, 2.0, 2.0, 5.0])
    assert ranks.interval(9.0) == (0, 1 / 5)  # above all
    assert ranks.interval(0.0) == (4 / 5, 1)  # below all
    assert ranks.interval(2.0) == (1 / 5, 4 / 5)  # one above, two equal, itself
    assert Ranks([]).interval(3.0) == (0, 1)


@given(count=st.integers(1, 60), moved=st.lists(st.integers(0, 80), min_size=3, max_size=3))
def test_over_all_ranks_that_a_number_can_take_each_bet_is_fair(count, moved):
    """Whatever the number of pictures before it: this is what makes ten calibration pictures as safe as 1,000."""
    ranks = Ranks([float(value) for value in range(count)])
    factors = np.array([rank_bets(*ranks.interval(place - 0.5), count, moved) for place in range(count + 1)])
    np.testing.assert_allclose(factors.mean(axis=0), 1, atol=1e-9)


@given(numbers=st.lists(st.integers(0, 3), min_size=2, max_size=30))
def test_equal_numbers_are_fair_too(numbers):
    """The mean over all elements of a set, each against the others."""
    factors = []
    for at, number in enumerate(numbers):
        others = Ranks([float(value) for value in numbers[:at] + numbers[at + 1 :]])
        factors.append(rank_bets(*others.interval(float(number)), len(others.values), NONE))
    np.testing.assert_allclose(np.mean(factors, axis=0), 1, atol=1e-9)


def test_a_number_that_never_changes_wins_and_loses_nothing():
    ranks = Ranks([7.0] * 5)
    for _ in range(5):
        np.testing.assert_allclose(rank_bets(*ranks.interval(7.0), len(ranks.values), NONE), 1, atol=1e-12)
        ranks.add(7.0)


def test_a_bet_pays_more_the_higher_the_number_ranks():
    ranks = Ranks([float(value) for value in range(50)])
    paid = np.array([rank_bets(*ranks.interval(value), 50, NONE) for value in (-1, 10.5, 25.5, 40.5, 60)])
    assert (np.diff(paid, axis=0) > 0).all()
    assert paid[-1].min() > 1 > paid[0].max()


@pytest.mark.parametrize("chance", [0.5, 0.62, 0.9])
def test_the_bets_on_a_share_are_fair_at_that_share(chance):
    won, lost = np.array(share_bets(True, chance)), np.array(share_bets(False, chance))
    np.testing.assert_allclose(chance * won + (1 - chance) * lost, 1)
    assert len(won) == len(STAKES)


def test_the_chance_that_half_the_pictures_are_good_ones_that_lie_within():
    # 0.2 ^ 30 is the chance that each of 30 good pictures lies within where a fifth does
    assert majority_chance(30, 0.2**30) == pytest.approx(GOOD_SHARE + GOOD_SHARE * 0.8)
    assert majority_chance(10, 1e-4) > majority_chance(100, 1e-4) > 0.5


def test_capital_by_hand():
    bets = Bets([9.0, 0.0, 0.0, 5.0, 0.0])
    bets.settle(None, 10, (2.0, 0.5))
    assert bets.capital == [10.0, 1.0, 1.0, 12.0, 0.5]
    assert bets.mean == 24.5 / 5
    bets.settle((0.0, 1.0), 10, (0.0, 0.0))  # a p-value that says nothing
    np.testing.assert_allclose(bets.capital, [11, 2, 2, 0, 0])


def test_a_bet_counts_for_how_long_it_has_been_winning():
    bets = Bets([1000.0, 10.0, 10.5, 0.0, 0.0], [4, 4, 4])
    bets.settle((0.4, 0.6), 100, EVEN)
    assert bets.moved == [5, 1, 5]


@pytest.mark.slow
@pytest.mark.parametrize("calibration", [5, 30])
def test_unmoved_numbers_seldom_bring_capital(calibration):
    """The promise: over C with a chance of at most T / C, here 0.1; of 200 runs at most 20, and 33 by three sigma."""
    rng = np.random.default_rng(7)
    runs = [rng.standard_normal(calibration + 60).tolist() for _ in range(200)]
    assert sum(capital_of(run[:calibration], run[calibration:]) >= 600 for run in runs) <= 20


def test_taking_ranks_among_the_calibration_alone_would_not_keep_the_promise():
    """Why the numbers watched join those of the calibration: five are too few to know the others by."""
    rng, over = np.random.default_rng(7), 0
    for _ in range(60):
        ranks, capital = Ranks(rng.standard_normal(5).tolist()), np.zeros(len(SHIFTS))
        best = 0.0
        for number in rng.standard_normal(200).tolist():
            capital = (capital + 1) * rank_bets(*ranks.interval(number), 5, NONE)
            best = max(best, capital.mean())
        over += best >= 2000
    assert over > 15  # of 60 the promise is 6, and 15 is four sigma more


@pytest.mark.parametrize(("calibration", "shift"), [(10, 5.0), (30, 2.0), (150, 1.0)])
def test_numbers_that_moved_bring_capital_within_fifty(calibration, shift):
    rng = np.random.default_rng(3)
    best = []
    for _ in range(9):
        unmoved, moved = rng.standard_normal(calibration), rng.standard_normal(50) + shift
        best.append(capital_of(unmoved.tolist(), moved.tolist()))
    assert np.median(best) > 1e6


def test_the_bets_reach_to_the_ends():
    assert all(math.isfinite(one) and one > 1 for one in rank_bets(0.0, 0.001, 999, NONE))
    np.testing.assert_allclose(rank_bets(0.0, 1.0, 0, (3, 0, 9)), 1)


def test_so_many_numbers_are_kept_and_those_are_drawn_from_all():
    ranks = Ranks([])
    for value in range(9000):
        ranks.add(float(value))
    assert ranks.seen == 9000
    assert len(ranks.values) == 4000
    assert ranks.values == sorted(ranks.values)
    assert 4000 < np.mean(ranks.values) < 5000  # of 0 to 8999, old and new alike: 4500, give or take 41 a sigma


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("shifted", module._SHIFTED)
def test_a_rank_is_carried_as_numpy_interpolates(share, shifted):
    table = (1 - share) * np.array(module._UNMOVED) + share * np.array(shifted)
    ranks = np.concatenate([[0.0, 1.0, 1e-12, 1 - 1e-12], table, np.random.default_rng(0).random(300)])
    expected = np.interp(ranks, table, shifted)
    assert [module._carried(rank, share, shifted) for rank in ranks.tolist()] == expected.tolist()
