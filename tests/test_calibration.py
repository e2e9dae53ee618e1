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
