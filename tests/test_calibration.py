"""calibration: the conformal quantile by hand, and its promise by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalrecall.calibration import Calibration, conformal_threshold

SCORES = st.lists(st.floats(0, 100), min_size=1, max_size=60)


def test_the_threshold_by_hand():
    scores = list(range(1, 20))  # n = 19: one twentieth each
    assert conformal_threshold(scores, 0.05) == 19
    assert conformal_threshold(scores, 0.10) == 18
    assert conformal_threshold(scores, 0.075) == pytest.approx(18 + 1 / 3)  # r = 1.5, weight 0.5 * 1 / 1.5
    assert conformal_threshold(scores, 0.0999) == pytest.approx(18 + 0.002 / 1.998)
    assert conformal_threshold([3.0, 1.0, 9.0], 0.3) == pytest.approx((2 * 9 + 3) / 3)  # r = 1.2, weight 0.8 / 1.2
    assert conformal_threshold([3.0, 1.0, 9.0], 0.99) == 1


@given(scores=SCORES, place=st.floats(0, 1))
def test_at_whole_ranks_it_is_the_score_of_that_rank(scores, place):
    rank = 1 + round(place * (len(scores) - 1))
    assert conformal_threshold(scores, rank / (len(scores) + 1)) == sorted(scores)[-rank]


@given(scores=SCORES, rates=st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999)))
def test_a_higher_rate_has_no_higher_threshold(scores, rates):
    lower, higher = (conformal_threshold(scores, rate) for rate in sorted(rates))
    assert lower >= higher - 1e-12 * abs(higher)


@given(scores=SCORES, rate=st.floats(0.001, 0.999), seed=st.integers(0, 9))
def test_it_rises_with_every_score(scores, rate, seed):
    """So bounds of scores give bounds of the threshold; see `calibration_patches.Recalibration`."""
    raised = scores + np.random.default_rng(seed).gamma(0.3, 5, len(scores))
    assert conformal_threshold(raised, rate) >= conformal_threshold(scores, rate)


@given(scores=SCORES, rate=st.floats(0.001, 0.999))
def test_it_lies_between_the_two_ranks_around_the_rate(scores, rate):
    low, high = Calibration(np.array(scores), np.array(scores), rate).rank_rates
    assert low <= rate + 1e-9
    assert high >= rate - 1e-9
    upper = conformal_threshold(scores, low) if low else math.inf
    assert conformal_threshold(scores, high) <= conformal_threshold(scores, rate) <= upper


def test_among_equal_scores_none_is_above_the_threshold():
    for score in (0.1, 0.3, 1e-30, 7.7):
        assert conformal_threshold([score] * 30, 0.05) == score


def test_a_map_that_shows_no_region_at_any_level_does_no_harm():
    assert conformal_threshold([-math.inf] * 30, 0.05) == -math.inf
    assert conformal_threshold([5.0, *[-math.inf] * 18], 0.05) == 5
    assert conformal_threshold([5.0, *[-math.inf] * 18], 0.06) == -math.inf


def test_too_few_pictures_give_the_largest_score_and_say_their_floor():
    calibration = Calibration(np.array([1.0, 3.0, 2.0]), np.array([1.0, 3.0, 2.0]), 0.01)
    assert calibration.threshold == 3
    assert calibration.floor == calibration.guaranteed_rate == 0.25


def test_no_pictures_give_no_threshold_and_no_p_value():
    calibration = Calibration(np.array([]), np.array([]), 0.01)
    assert math.isnan(calibration.threshold)
    assert math.isnan(calibration.pixel_threshold)
    assert math.isnan(calibration.p_value(1.0))


def test_p_values_by_hand():
    calibration = Calibration(np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4), 0.1)
    assert calibration.p_value(2.5) == pytest.approx(3 / 5)
    assert calibration.p_value(4.0) == pytest.approx(2 / 5)
    assert calibration.p_value(9.0) == pytest.approx(1 / 5)
    assert calibration.p_value(0.0) == 1


@given(scores=SCORES, score=st.floats(0, 100), rate=st.floats(0.01, 0.99))
def test_verdict_and_p_value_agree_to_a_rank(scores, score, rate):
    calibration = Calibration(np.array(scores), np.array(scores), rate)
    low, high = calibration.rank_rates
    if low > 0 and high < 1:
        assert calibration.p_value(score) > low + 1e-12 or score > calibration.threshold
        assert score <= calibration.threshold or calibration.p_value(score) <= high + 1e-12


def test_between_two_ranks_verdict_and_p_value_differ_by_one():
    calibration = Calibration(np.arange(1.0, 20.0), np.arange(1.0, 20.0), 0.075)  # 18.33, between p 1 and 2 of 20
    assert calibration.rank_rates == (0.05, 0.1)
    assert calibration.guaranteed_rate == 0.1
    assert calibration.threshold < 18.7
    assert calibration.p_value(18.7) == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [0.05, 0.075, 0.1, 0.21])
@pytest.mark.parametrize("n", [30, 59])
def test_the_false_alarm_rate_is_met_on_average(rate, n):
    rng = np.random.default_rng(0)
    draws = rng.gamma(2.0, 1.0, (6000, n))  # each row: n calibration scores; the share above is known exactly
    thresholds = np.array([conformal_threshold(row, rate) for row in draws])
    shares = (1 + thresholds) * np.exp(-thresholds)
    assert shares.mean() == pytest.approx(rate, abs=3 * shares.std() / math.sqrt(6000) + 0.0005)


def test_below_the_floor_the_threshold_is_an_estimate_with_its_interval():
    scores = np.random.default_rng(0).gamma(8, 1, 40)
    calibration = Calibration(scores, scores / 2, 0.005)
    assert calibration.below_floor
    assert calibration.estimated
    assert calibration.threshold > scores.max()
    assert calibration.pixel_threshold == pytest.approx(calibration.threshold / 2)
    low, high = calibration.interval
    assert 0 <= low < high < 1
    assert calibration.expected_rate(calibration.threshold) == pytest.approx(0.005, rel=0.01)


def test_at_the_floor_and_above_nothing_is_estimated():
    scores = np.arange(1.0, 20.0)  # n = 19
    calibration = Calibration(scores, scores, 0.05)
    assert not calibration.below_floor
    assert not calibration.estimated
    assert calibration.interval is None
    assert calibration.threshold == 19


def test_a_rarer_alarm_never_has_a_lower_threshold():
    rng = np.random.default_rng(2)
    for _ in range(30):
        scores = np.append(rng.gamma(8, 1, 30), 40.0)  # one dirty picture among them
        thresholds = [Calibration(scores, scores, rate).threshold for rate in (0.2, 0.1, 0.05, 0.0313, 0.02, 0.001)]
        assert thresholds == sorted(thresholds)


def test_the_expected_rate_of_any_threshold_by_hand():
    calibration = Calibration(np.arange(1.0, 20.0), np.zeros(19), 0.05)
    assert calibration.expected_rate(10.0) == pytest.approx(10 / 20)
    assert calibration.expected_rate(18.5) == pytest.approx(1 * 2 / 1.5 / 20)
    assert calibration.expected_rate(1.0) == pytest.approx(19 / 20)
    assert calibration.expected_rate(0.5) == 1
    assert 0 < calibration.expected_rate(30.0) < calibration.floor
    assert math.isnan(Calibration(np.array([]), np.array([]), 0.05).expected_rate(1.0))


@given(scores=st.lists(st.floats(1, 100), min_size=5, max_size=60, unique=True), rate=st.floats(0.02, 0.98))
def test_the_expected_rate_of_the_threshold_is_the_stated_one(scores, rate):
    calibration = Calibration(np.array(scores), np.array(scores), rate)
    if calibration.rank_rates[0] > 0 and calibration.rank_rates[1] < 1 and np.diff(np.sort(scores)).min() > 1e-3:
        assert calibration.expected_rate(calibration.threshold) == pytest.approx(rate, rel=1e-6)


@given(SCORES, st.floats(0.001, 0.999))
def test_a_calibration_takes_the_thresholds_that_it_would_work_out(scores, rate):
    calibration = Calibration(np.array(scores), np.array(scores) / 2, rate)
    stored = calibration.with_stored(calibration.threshold, calibration.pixel_threshold)
    assert (stored.threshold, stored.pixel_threshold) == (calibration.threshold, calibration.pixel_threshold)


@pytest.mark.parametrize(("rate", "wrong"), [(0.1, 16.9), (0.1, 18.1), (0.01, 18.9), (0.1, math.nan)])
def test_a_stored_threshold_that_contradicts_the_scores_is_refused(rate, wrong):
    scores = np.arange(1.0, 20.0)
    calibration = Calibration(scores, scores, rate)
    for stored in ((wrong, calibration.threshold), (calibration.threshold, wrong)):
        with pytest.raises(ValueError, match="threshold contradicts the scores of the good pictures"):
            calibration.with_stored(*stored)


def test_without_scores_there_is_no_threshold_to_store():
    nothing = Calibration(np.empty(0), np.empty(0), 0.1)
    assert math.isnan(nothing.with_stored(math.nan, math.nan).threshold)
    with pytest.raises(ValueError, match="contradicts"):
        nothing.with_stored(1.0, math.nan)
