"""The curve of the probability of detection: against scikit-learn, SciPy and values by hand, and what it cannot say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression

from totalrecall.capability.detection import fit_curve

SIZES = [4, 8, 16, 32]
TWENTY = [20] * 4


def penalised(line, sizes, planted, hits, middle):
    """Return Firth's penalised log-likelihood, written out: half the logarithm of the information is the penalty."""
    terms = np.stack([np.ones(len(sizes)), np.log(sizes) - middle], axis=1)
    p = 1 / (1 + np.exp(-(terms @ line)))
    information = (terms * (np.array(planted) * p * (1 - p))[:, None]).T @ terms
    likelihood = (np.array(hits) * np.log(p) + (np.array(planted) - hits) * np.log(1 - p)).sum()
    return likelihood + 0.5 * np.linalg.slogdet(information)[1]


# ---------------------------------------------------------------------- against others


@pytest.mark.parametrize("hits", [[1, 9, 18, 20], [0, 0, 20, 20], [3, 2, 15, 11], [20, 20, 20, 20], [0, 0, 0, 1]])
def test_the_line_is_where_scipy_finds_the_greatest_penalised_likelihood(hits):
    curve = fit_curve(SIZES, TWENTY, hits)
    best = minimize(
        lambda line: -penalised(line, SIZES, TWENTY, hits, curve.middle), [0.0, 1.0], method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000},
    )  # fmt: skip
    assert curve.line == pytest.approx(best.x, abs=1e-4)


def test_with_many_trials_it_is_the_logistic_regression_of_scikit_learn():
    rng = np.random.default_rng(0)
    sizes = np.geomspace(2, 60, 12)
    chance = 1 / (1 + np.exp(-(2.5 * np.log(sizes) - 6)))
    hits = rng.binomial(4000, chance)
    rows = np.concatenate([[[np.log(size)]] * 4000 for size in sizes])
    labels = np.concatenate([[1] * hit + [0] * (4000 - hit) for hit in hits])
    usual = LogisticRegression(C=1e9, tol=1e-10).fit(rows, labels)
    curve = fit_curve(sizes, [4000] * 12, hits)
    assert curve.line[1] == pytest.approx(usual.coef_[0, 0], rel=2e-3)
    assert curve.probability(sizes) == pytest.approx(usual.predict_proba(np.log(sizes)[:, None])[:, 1], abs=1e-3)


def test_of_two_sizes_each_gets_half_a_hit_and_half_a_miss():
    """Two sizes and two numbers: Jeffreys' prior adds one half to each cell, so p = (y + 1/2) / (n + 1)."""
    curve = fit_curve([5, 20], [10, 30], [2, 30])
    assert curve.probability([5, 20]) == pytest.approx([2.5 / 11, 30.5 / 31])


def test_the_bounds_are_those_of_the_likelihood_ratio_profiled_by_scipy():
    hits = [1, 9, 18, 20]
    curve = fit_curve(SIZES, TWENTY, hits)
    limit = penalised(curve.line, SIZES, TWENTY, hits, curve.middle) - chi2.ppf(0.9, 1) / 2
    for size, low, high in zip([6, 20], *curve.band([6, 20]), strict=True):
        along = np.log(size) - curve.middle
        for bound in (low, high):
            odds = np.log(bound / (1 - bound))
            best = minimize(
                lambda slope, odds=odds, along=along: -penalised(
                    np.array([odds - slope[0] * along, slope[0]]), SIZES, TWENTY, hits, curve.middle
                ),
                [3.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12},
            )  # fmt: skip
            assert -best.fun == pytest.approx(limit, abs=2e-3)  # at the edge of the region, to the polygon's corners


def test_the_bound_of_a90_holds_19_times_in_20():
    """Drawn from a curve that is known, a90/95 lies above the true a90 in about 95 % of the studies."""
    rng = np.random.default_rng(5)
    sizes = np.geomspace(2, 64, 6)
    chance = 1 / (1 + np.exp(-(2.2 * np.log(sizes / 10))))
    true = 10 * np.exp(np.log(9) / 2.2)
    above = 0
    for _ in range(300):
        limit = fit_curve(sizes, [20] * 6, rng.binomial(20, chance)).a90_95
        above += limit.relation == ">" or (limit.relation == "=" and limit.size >= true)
    assert 0.91 <= above / 300 <= 0.99


# ---------------------------------------------------------------------- a90 and its bound


def test_a90_is_where_the_curve_is_at_nine_tenths():
    curve = fit_curve(SIZES, TWENTY, [1, 9, 18, 20])
    assert curve.a90.relation == "="
    assert curve.probability([curve.a90.size]) == pytest.approx([0.9])
    assert curve.band([curve.a90_95.size])[0] == pytest.approx([0.9], abs=1e-3)
    assert curve.a90.size < curve.a90_95.size


@given(st.lists(st.integers(0, 20), min_size=4, max_size=4), st.integers(0, 3))
def test_one_more_hit_never_makes_a90_larger(hits, at):
    """Only hits of the larger half: more small ones make the curve flatter, and so may move a90 either way."""
    hits = sorted(hits)
    better = list(hits)
    better[max(at, 2)] = min(better[max(at, 2)] + 1, 20)
    rank = {"<=": 0, "=": 1, ">": 2, "none": 3}
    before, after = (fit_curve(SIZES, TWENTY, one).a90 for one in (hits, sorted(better)))
    if "none" not in (before.relation, after.relation):
        assert rank[after.relation] <= rank[before.relation] or after.size <= before.size + 1e-6


@given(st.lists(st.integers(0, 20), min_size=4, max_size=4))
def test_the_bounds_lie_around_the_curve_and_no_size_outside_the_planted_ones_is_named(hits):
    curve = fit_curve(SIZES, TWENTY, hits)
    fine = np.geomspace(4, 32, 20)
    low, high = curve.band(fine)
    assert (low <= curve.probability(fine) + 1e-9).all()
    assert (curve.probability(fine) <= high + 1e-9).all()
    for limit in (curve.a90, curve.a90_95):
        assert limit.relation in ("=", "<=", ">", "none")
        assert limit.relation == "none" or 4 <= limit.size <= 32
    if curve.a90_95.relation == "=" and curve.a90.relation == "=":
        assert curve.a90_95.size >= curve.a90.size - 0.05


def test_more_trials_bring_the_bound_nearer_to_a90():
    few, many = (fit_curve(SIZES, [n] * 4, [n // 20, n // 2, 9 * n // 10, n]) for n in (20, 400))
    assert many.a90_95.size - many.a90.size < 0.5 * (few.a90_95.size - few.a90.size)


# ---------------------------------------------------------------------- where little can be said


def test_all_found_is_at_or_below_the_smallest_size():
    curve = fit_curve(SIZES, TWENTY, TWENTY)
    assert curve.a90.in_words() == "<= 4 px"
    assert curve.a90_95.in_words() == "<= 4 px"


def test_all_found_in_few_trials_is_not_known_for_certain():
    assert fit_curve(SIZES, [2] * 4, [2] * 4).a90_95.in_words() == "> 32 px"


def test_all_missed_is_not_reached_at_the_largest_size():
    curve = fit_curve(SIZES, TWENTY, [0] * 4)
    assert (curve.a90.in_words(), curve.a90_95.in_words()) == ("> 32 px", "> 32 px")


def test_complete_separation_gives_a_size_between_the_two():
    """The usual fit runs to an infinite slope here."""
    curve = fit_curve(SIZES, TWENTY, [0, 0, 20, 20])
    assert np.isfinite(curve.line).all()
    assert 8 < curve.a90.size < 16
    assert curve.a90.size < curve.a90_95.size < 32


def test_half_found_at_every_size_has_no_slope_and_no_size():
    curve = fit_curve(SIZES, TWENTY, [10] * 4)
    assert curve.line[1] == pytest.approx(0, abs=1e-8)
    assert curve.a90.in_words() == "> 32 px"


def test_where_larger_defects_are_found_less_often_no_size_is_named():
    curve = fit_curve(SIZES, TWENTY, [20, 18, 8, 2])
    assert (curve.a90.in_words(), curve.a90_95.in_words()) == ("-", "-")
    assert curve.a90.to_json() == {"size": None, "relation": "none"}


def test_one_size_is_no_curve_and_a_size_without_trials_does_not_count():
    assert fit_curve([4], [20], [10]) is None
    assert fit_curve([4, 8], [20, 0], [10, 0]) is None
    assert fit_curve([], [], []) is None
    with_empty, without = fit_curve([4, 8, 16], [20, 0, 20], [2, 0, 19]), fit_curve([4, 16], [20, 20], [2, 19])
    assert with_empty.line == pytest.approx(without.line)


def test_the_order_of_the_sizes_makes_no_difference():
    first, second = fit_curve(SIZES, TWENTY, [1, 9, 18, 20]), fit_curve(SIZES[::-1], TWENTY, [20, 18, 9, 1])
    assert first.a90 == second.a90


def test_a_curve_that_does_not_fit_says_so():
    assert fit_curve(SIZES, TWENTY, [1, 9, 18, 20]).fits
    assert not fit_curve([2, 4, 8, 16, 32, 64], [40] * 6, [0, 36, 2, 38, 1, 40]).fits
    assert not fit_curve([2, 4, 8, 16, 32, 64], [40] * 6, [0, 0, 28, 28, 28, 28]).fits  # seven in ten at every size
