"""benchmark_curves: what is drawn agrees with what `metrics` measures."""

import numpy as np
import pytest

from totalrecall.evaluation.curves import MAX_FPR, OverlapCurve, histogram, roc_points
from totalrecall.evaluation.metrics import PixelMetrics, auroc


def area(points):
    x, y = np.array(points).T
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def test_the_area_under_the_pro_curve_is_the_aupro():
    rng = np.random.default_rng(0)
    curve, exact = OverlapCurve(), PixelMetrics()
    for at in range(6):
        mask = np.zeros((40, 50), bool)
        if at % 2:
            mask[5:9, 10:30], mask[20:30, 40:45] = True, True  # two regions
        anomaly_map = (rng.gamma(2, 1, mask.shape) + 2 * mask).astype(np.float32)
        curve.add(anomaly_map, mask)
        exact.add(anomaly_map, mask)
    points = curve.points()
    assert len(points) <= 200
    assert points[0][0] == 0
    assert points[-1][0] == MAX_FPR
    assert area(points) / MAX_FPR == pytest.approx(exact.aupro(MAX_FPR), abs=0.003)


def test_a_region_weighs_the_same_whatever_its_size():
    mask = np.zeros((10, 10), bool)
    mask[0, 0], mask[5:9, 5:9] = True, True
    anomaly_map = np.ones((10, 10), np.float32)
    anomaly_map[0, 0] = 9  # one of two regions is found before any false alarm, all else ties
    curve = OverlapCurve()
    curve.add(anomaly_map, mask)
    assert curve.points()[0] == [0.0, 0.5]


def test_without_defects_or_without_good_pixels_there_is_no_pro_curve():
    curve = OverlapCurve()
    curve.add(np.ones((4, 4), np.float32), np.zeros((4, 4), bool))
    assert curve.points() == []
    curve = OverlapCurve()
    curve.add(np.ones((4, 4), np.float32), np.ones((4, 4), bool))
    assert curve.points() == []


@pytest.mark.parametrize("count", [7, 2000])
def test_the_area_under_the_roc_curve_is_the_auroc(count):
    rng = np.random.default_rng(count)
    labels = [0, 1, *rng.integers(0, 2, count).tolist()]
    scores = [round(score + label, 1) for score, label in zip(rng.normal(size=count + 2), labels, strict=True)]  # ties
    points = roc_points(labels, scores)
    assert len(points) <= 200
    assert (points[0], points[-1]) == ([0, 0], [1, 1])
    assert area(points) == pytest.approx(auroc(labels, scores), abs=0.001)


def test_many_scores_without_ties_still_give_a_small_curve():
    scores = np.random.default_rng(1).normal(size=5000).tolist()
    labels = [int(score > 0.3) if at % 3 else at % 2 for at, score in enumerate(scores)]
    points = roc_points(labels, scores)
    assert len(points) <= 200
    assert area(points) == pytest.approx(auroc(labels, scores), abs=0.003)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_kind_alone_has_no_roc_curve(labels):
    assert roc_points(labels, [1.0] * len(labels)) == []


def test_the_histogram_counts_every_score_once():
    counts = histogram([0, 0, 1, 1], [1.0, 2.0, 2.0, 3.0])
    assert (counts["low"], counts["high"]) == (1, 3)
    assert (sum(counts["good"]), sum(counts["bad"])) == (2, 2)
    assert (counts["good"][0], counts["bad"][-1]) == (1, 1)


@pytest.mark.parametrize("scores", [[], [4.0, 4.0], [float("nan"), 4.0]])
def test_a_histogram_of_one_score_or_none_is_no_error(scores):
    counts = histogram([0] * len(scores), scores)
    assert sum(counts["good"]) == sum(np.isfinite(scores))
    assert counts["high"] > counts["low"]
