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
    assert conformal_threshold(scores, 0.0999) == 19


@given(scores=SCORES, rate=st.floats(0.001, 0.999))
def test_it_is_the_smallest_score_that_the_definition_allows(scores, rate):
    n = len(scores)
    allowed = [s for s in scores if (1 + sum(x > s for x in scores)) / (n + 1) <= rate + 1e-12]
    expected = min(allowed) if allowed else max(scores)
    assert conformal_threshold(scores, rate) == expected


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
def test_verdict_and_p_value_agree(scores, score, rate):
    """Above the threshold exactly where the p-value is at most the rate (where the rate can be promised at all)."""
    calibration = Calibration(np.array(scores), np.array(scores), rate)
    if calibration.floor <= rate:
        assert (score > calibration.threshold) == (calibration.p_value(score) <= rate + 1e-12)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_the_false_alarm_rate_is_kept_on_average(rate):
    rng = np.random.default_rng(0)
    draws = rng.gamma(2.0, 1.0, (4000, 60))  # each row: 59 calibration scores and one new good picture
    alarms = np.mean([row[-1] > conformal_threshold(row[:-1], rate) for row in draws])
    assert alarms == pytest.approx(rate, abs=3 * math.sqrt(rate * (1 - rate) / 4000))


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
    assert calibration.expected_rate(18.5) == pytest.approx(2 / 20)
    assert 0 < calibration.expected_rate(30.0) < calibration.floor
    assert math.isnan(Calibration(np.array([]), np.array([]), 0.05).expected_rate(1.0))
