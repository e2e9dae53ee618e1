"""tail: a generalised Pareto fit against distributions whose tails are known."""

import math

import numpy as np
import pytest

from totalrecall.calibration import LEAST, Calibration, Tail, fit_tail, rate_interval


@pytest.mark.parametrize("shape", [-0.2, 0.0, 1e-12, 0.3])
def test_rate_and_score_are_inverse(shape):
    tail = Tail(start=2.0, share=0.3, scale=0.5, shape=shape)
    for rate in (0.3, 0.1, 0.01, 1e-5):
        assert tail.rate(tail.score(rate)) == pytest.approx(rate, rel=1e-6)
    assert tail.score(0.3) == pytest.approx(2.0)
    assert tail.rate(1.0) == pytest.approx(0.3)  # below its start it knows nothing more


def test_an_exponential_tail_by_hand():
    tail = Tail(start=0.0, share=1.0, scale=2.0, shape=0.0)
    assert tail.rate(2.0) == pytest.approx(math.exp(-1))
    assert tail.score(math.exp(-3)) == pytest.approx(6.0)


def test_a_tail_with_an_end_gives_nothing_beyond_it():
    tail = Tail(start=0.0, share=0.5, scale=1.0, shape=-0.5)  # ends at 2
    assert tail.rate(1.99) > 0
    assert tail.rate(2.0) == tail.rate(5.0) == 0.0


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.25])
def test_with_many_scores_it_finds_the_pareto_that_they_were_drawn_from(shape):
    rng = np.random.default_rng(1)
    u = rng.random(200_000)
    scores = 5 + (3 * -np.log(u) if shape == 0 else 3 * (u**-shape - 1) / shape)
    tail = fit_tail(scores)
    assert tail.shape == pytest.approx(shape, abs=0.06)
    for rate in (1e-3, 1e-4):
        true = 5 + (3 * -math.log(rate) if shape == 0 else 3 * (rate**-shape - 1) / shape)
        assert tail.score(rate) == pytest.approx(true, rel=0.06)


@pytest.mark.parametrize("draw", [lambda r, n: r.gamma(8, 1, n), lambda r, n: np.exp(0.25 * r.standard_normal(n))])
def test_thirty_scores_give_a_rate_of_the_right_size(draw):
    """One percent is stated; three times as much would be a broken promise, a tenth a useless one."""
    rng = np.random.default_rng(0)
    many = np.sort(draw(rng, 200_000))
    rates = []
    for _ in range(200):
        threshold = fit_tail(draw(rng, 30)).score(0.01)
        rates.append(1 - np.searchsorted(many, threshold) / len(many))
    assert 0.004 < np.mean(rates) < 0.02


@pytest.mark.slow
def test_the_interval_mostly_covers():
    rng = np.random.default_rng(0)
    many = np.sort(rng.gamma(8, 1, 200_000))
    covered = 0
    for _ in range(40):
        scores = rng.gamma(8, 1, 40)
        threshold = fit_tail(scores).score(0.01)
        low, high = rate_interval(scores, threshold)
        covered += low <= 1 - np.searchsorted(many, threshold) / len(many) <= high
    assert covered >= 32


def test_the_same_scores_give_the_same_interval():
    scores = np.random.default_rng(3).gamma(4, 1, 30)
    assert rate_interval(scores, 9.0) == rate_interval(scores, 9.0)


def test_too_few_scores_or_a_tail_of_one_value_have_no_fit():
    assert fit_tail(np.arange(LEAST - 1.0)) is None
    assert fit_tail(np.arange(float(LEAST))) is not None
    assert fit_tail(np.ones(50)) is None
    assert fit_tail(np.concatenate([np.zeros(45), np.ones(5)])) is not None  # ties below, one value above


def test_ties_at_the_start_do_not_break_it():
    tail = fit_tail(np.concatenate([np.full(38, 2.0), [2.5, 3.0]]))
    assert math.isfinite(tail.score(0.001))
    assert tail.scale > 0


@pytest.mark.parametrize(
    "scores",
    [
        [0.0] * 20,
        [1.0] * 40,
        [0.0] * 19 + [1.0],
        [1.0] * 30 + [1.0 + 1e-12] * 3,
        [0.0] * 30 + [2.0] * 10,
        [0.5] * 12 + [1.0] * 12 + [3.0],
        [1e-300] * 20 + [1e-290] * 20,
    ],
    ids=str,
)
@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.5])
def test_ties_break_neither_the_threshold_nor_the_tail(scores, rate):
    calibration = Calibration(np.array(scores), np.array(scores), rate)
    assert min(scores) <= calibration.threshold < math.inf
    above = float((np.array(scores) > calibration.threshold).mean())
    assert above <= calibration.guaranteed_rate
    assert calibration.interval is None or 0 <= calibration.interval[0] <= calibration.interval[1] <= 1
    assert 0 <= calibration.expected_rate(calibration.threshold) <= 1
