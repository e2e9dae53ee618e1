"""Metrics against hand-derived values, scikit-learn, and a brute-force PRO curve over every threshold."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from totalrecall.errors import SettingError
from totalrecall.evaluation.metrics import PixelMetrics, auroc, average_precision, f1_max, reason

# --- pictures ---


def test_by_hand():
    labels, scores = [0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0]  # of the four pairs one is the wrong way round
    assert auroc(labels, scores) == 0.75
    assert average_precision(labels, scores) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert f1_max(labels, scores) == (pytest.approx(0.8), 1.5)  # 2 found, 1 false alarm: 2*2 / (2*2 + 1)


def test_a_tie_counts_half():
    assert auroc([0, 1], [1.0, 1.0 + 1e-12]) == 1.0
    assert auroc([0, 0, 1], [1.0, 2.0, 2.0]) == 0.75


def test_perfect_separation_is_exactly_one():
    labels, scores = [0] * 7 + [1] * 3, list(range(10))
    assert auroc(labels, scores) == average_precision(labels, scores) == f1_max(labels, scores)[0] == 1.0


@pytest.mark.parametrize(
    ("labels", "scores", "why"),
    [
        ([], [], "there are no scores"),
        ([0, 0], [1.0, 2.0], "all 2 labels are good, there is nothing to find"),
        ([1, 1], [1.0, 2.0], "all 2 labels are anomalous, there is nothing to tell them from"),
        ([0, 1], [1.0, math.nan], "1 of 2 scores are not finite"),
        ([0, 1, 1], [1.0, math.inf, -math.inf], "2 of 3 scores are not finite"),
        ([0, 1], [3.5, 3.5], "all 2 scores are equal (3.5), so nothing can be ranked"),
    ],
)
def test_what_cannot_be_measured_is_nan_with_a_reason(labels, scores, why):
    assert math.isnan(auroc(labels, scores))
    assert math.isnan(average_precision(labels, scores))
    assert all(math.isnan(value) for value in f1_max(labels, scores))
    assert reason(labels, scores) == why


def test_labels_and_scores_must_be_as_many():
    with pytest.raises(SettingError, match=r"^Give one label for each score, got 2 labels and 3 scores.$"):
        auroc([0, 1], [1.0, 2.0, 3.0])


FEW_VALUES = st.integers(0, 12).map(float)


@st.composite
def labelled(draw, values=FEW_VALUES):
    """Labels and scores with many ties, of both classes, not all equal."""
    n = draw(st.integers(2, 60))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    scores = draw(st.lists(values, min_size=n, max_size=n))
    assume(0 < sum(labels) < n and len(set(scores)) > 1)
    return np.array(labels), np.array(scores)


@given(labelled())
def test_equal_to_scikit_learn(case):
    labels, scores = case
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
    assert f1_max(labels, scores)[0] == pytest.approx(best, abs=1e-12)


@given(labelled(values=st.floats(-1e300, 1e300) | st.floats(1.0, 1.0 + 1e-15)))
def test_the_threshold_of_f1_max_gives_that_f1(case):
    labels, scores = case
    f1, threshold = f1_max(labels, scores)
    verdict = scores > threshold
    assert 2 * (verdict & (labels == 1)).sum() / (verdict.sum() + labels.sum()) == pytest.approx(f1, abs=1e-12)


@given(labelled())
def test_a_monotone_map_or_another_order_changes_nothing(case):
    labels, scores = case
    order = np.random.default_rng(0).permutation(len(labels))
    for other_labels, other_scores in ((labels, np.exp(scores / 3) - 5), (labels[order], scores[order])):
        assert auroc(other_labels, other_scores) == auroc(labels, scores)
        assert average_precision(other_labels, other_scores) == pytest.approx(average_precision(labels, scores))
        assert f1_max(other_labels, other_scores)[0] == f1_max(labels, scores)[0]


@given(labelled())
def test_swapping_the_classes_mirrors_the_auroc(case):
    labels, scores = case
    assert auroc(1 - labels, scores) == pytest.approx(1 - auroc(labels, scores))


# --- pixels ---


def regions_of(mask):
    """The 8-connected parts of a mask, by flood fill."""
    left, regions = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        front, region = [left.pop()], []
        while front:
            y, x = front.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front += near
        regions.append(tuple(np.array(region).T))
    return regions


def brute_force_aupro(maps, masks, max_fpr):
    """Mean overlap of the regions against the false-positive rate at every threshold, integrated by trapezoids."""
    good = np.concatenate([m[~mask] for m, mask in zip(maps, masks, strict=True)])
    overlaps = [m[r] for m, mask in zip(maps, masks, strict=True) for r in regions_of(mask)]
    thresholds = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    points = [((good >= t).mean(), np.mean([(scores >= t).mean() for scores in overlaps])) for t in thresholds]
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise([(0.0, 0.0), *points]):
        if x1 > max_fpr:
            y1 = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
            return (area + (max_fpr - x0) * (y0 + y1) / 2) / max_fpr
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


def measured(maps, masks, **settings):
    pixels = PixelMetrics(**settings)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        pixels.add(anomaly_map, mask)
    return pixels


@st.composite
def pictures(draw):
    """A few small maps of any size, with ties, negative scores, zeros of both signs, and good pictures among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([3, 20, 1000]))
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4))
    maps = [(rng.integers(-levels // 3, levels, shape) / 7).astype(np.float32) for shape in shapes]
    maps = [np.where(rng.random(m.shape) < 0.05, np.float32(-0.0), m) for m in maps]
    masks = [rng.random(shape) < draw(st.sampled_from([0.0, 0.2, 0.6])) for shape in shapes]
    pixels = np.concatenate([m.ravel() for m in maps])
    marked = np.concatenate([mask.ravel() for mask in masks])
    assume(0 < marked.sum() < marked.size and pixels.min() < pixels.max())
    return maps, masks, marked, pixels


@pytest.mark.slow
@settings(max_examples=40)
@given(pictures(), st.sampled_from([0.05, 0.3, 1.0]), st.sampled_from([2**20, 0]))
def test_pixels_equal_to_scikit_learn_and_brute_force(case, max_fpr, exact_pixels):
    maps, masks, marked, scores = case  # multiples of 1/7 up to 143: none share a bin, so binned is exact here too
    pixels = measured(maps, masks, exact_pixels=exact_pixels)
    assert pixels.exact == (exact_pixels > 0)
    assert pixels.auroc() == pytest.approx(roc_auc_score(marked, scores), abs=1e-9)
    assert pixels.average_precision() == pytest.approx(average_precision_score(marked, scores), abs=1e-9)
    assert pixels.aupro(max_fpr) == pytest.approx(brute_force_aupro(maps, masks, max_fpr), abs=1e-9)


def test_aupro_by_hand():
    # A region of two pixels (9, 5) and one of one pixel (7); good pixels 8, 6, 4, 2, 0. From the highest score down:
    # 9: overlap (1/2 + 0)/2 = 1/4; 8: rate 1/5; 7: overlap 3/4; 6: rate 2/5; 5: overlap 1; 4, 2, 0: rate up to 1.
    anomaly_map = np.array([[9, 5, 4, 7], [8, 6, 2, 0]], np.float32)
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0]], bool)
    pixels = measured([anomaly_map], [mask])
    assert pixels.aupro(0.2) == pytest.approx(0.25)
    assert pixels.aupro(0.3) == pytest.approx((0.2 * 0.25 + 0.1 * 0.75) / 0.3)
    assert pixels.aupro(1.0) == pytest.approx((0.25 + 0.75 + 3 * 1) / 5)


def test_a_small_region_weighs_as_much_as_a_big_one():
    anomaly_map, mask = np.zeros((20, 20), np.float32), np.zeros((20, 20), bool)
    mask[:10, :10] = mask[15, 15] = True
    anomaly_map[:10, :10] = 1  # only the big region is found; the small one ties with all good pixels
    pixels = measured([anomaly_map], [mask])
    assert pixels.aupro(0.3) == pytest.approx((1 + 0.15) / 2)  # the small one: a straight rise, cut at 0.3


def test_parts_that_touch_at_a_corner_are_one_region():
    mask, anomaly_map = np.zeros((4, 4), bool), np.full((4, 4), 5, np.float32)
    mask[:2, :2] = mask[2, 2] = True
    anomaly_map[:2, :2], anomaly_map[2, 2] = 1, 9  # a fifth of the region is found before any good pixel
    assert measured([anomaly_map], [mask]).aupro(1.0) == pytest.approx(0.2)  # of two regions it would be a half


def test_good_pictures_count_for_the_rate_only():
    rng = np.random.default_rng(1)
    defect, mask = rng.random((9, 9), np.float32), np.zeros((9, 9), bool)
    mask[2:5, 2:5] = True
    good = rng.random((30, 30), np.float32) * np.float32(0.01)
    alone = measured([defect], [mask])
    beside = measured([defect, good], [mask, np.zeros((30, 30), bool)])
    assert beside.aupro() > alone.aupro()  # the same alarms among more good pixels are a lower rate


def realistic(seed, n=6):
    """Smooth maps around 1 to 3 as distances are, a defect somewhat above the rest."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        anomaly_map = np.repeat(np.repeat(rng.gamma(9, 0.1, (30, 40)), 8, 0), 8, 1) + rng.random((240, 320)) / 9
        mask = np.zeros(anomaly_map.shape, bool)
        if i % 3:
            mask[50:120, 60:150] = mask[200:210, 10:30] = True
        yield (anomaly_map + 0.6 * mask).astype(np.float32), mask


def test_binned_stays_within_its_own_bounds_and_close():
    exact, binned = PixelMetrics(), PixelMetrics(exact_pixels=0)
    for anomaly_map, mask in realistic(0):
        exact.add(anomaly_map, mask)
        binned.add(anomaly_map, mask)
    assert exact.exact
    assert not binned.exact
    assert set(exact.error_bounds().values()) == {0.0}
    bounds = binned.error_bounds()
    for name in ("auroc", "average_precision", "aupro"):
        error = abs(getattr(binned, name)() - getattr(exact, name)())
        assert 0 < bounds[name] < 1e-3
        assert error <= bounds[name]
    assert abs(binned.aupro() - exact.aupro()) < 1e-6


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 1.0]))
def test_the_bounds_hold_where_scores_crowd_into_few_bins(seed, max_fpr):
    rng = np.random.default_rng(seed)
    maps = [(1 + rng.random((12, 12)) * 2.0**-13).astype(np.float32) for _ in range(2)]  # about five bins for them all
    masks = [rng.random((12, 12)) < 0.2 for _ in range(2)]
    exact, binned = measured(maps, masks), measured(maps, masks, exact_pixels=0)
    bounds = binned.error_bounds(max_fpr)
    assert abs(binned.auroc() - exact.auroc()) <= bounds["auroc"] + 1e-12
    assert abs(binned.average_precision() - exact.average_precision()) <= bounds["average_precision"] + 1e-12
    assert abs(binned.aupro(max_fpr) - exact.aupro(max_fpr)) <= bounds["aupro"] + 1e-12


def test_going_over_to_bins_midway_is_the_same_as_bins_from_the_start():
    midway, start = PixelMetrics(exact_pixels=200_000), PixelMetrics(exact_pixels=0)
    for anomaly_map, mask in realistic(3):
        midway.add(anomaly_map, mask)
        start.add(anomaly_map, mask)
        midway.auroc()  # asking in between changes nothing
    assert not midway.exact
    assert midway.auroc() == start.auroc()
    assert midway.aupro() == pytest.approx(start.aupro(), abs=1e-12)


def test_the_map_may_be_overwritten_after_it_is_added():
    anomaly_map, mask = next(realistic(1))
    pixels, buffer = PixelMetrics(), anomaly_map.copy()
    pixels.add(buffer, mask)
    buffer[:] = 0
    pixels.add(*list(realistic(1))[1])
    assert pixels.auroc() == measured(*zip(*list(realistic(1))[:2], strict=True)).auroc()


ONE = np.ones((2, 2), np.float32)
RAMP = np.arange(4, dtype=np.float32).reshape(2, 2)


@pytest.mark.parametrize(
    ("maps", "masks", "why"),
    [
        ([], [], "there are no pixels"),
        ([RAMP], [RAMP > 9], "no mask marks a defect, there is nothing to find"),
        ([RAMP], [RAMP >= 0], "the masks mark every pixel as defect, there is nothing to tell them from"),
        ([ONE], [RAMP > 1], "all pixels score the same (1), so nothing can be ranked"),
        ([RAMP, RAMP * np.float32(np.nan)], [RAMP > 1, RAMP > 1], "4 pixels of the anomaly maps are not finite"),
        ([np.full((2, 2), np.inf, np.float32)], [RAMP > 1], "4 pixels of the anomaly maps are not finite"),
    ],
)
@pytest.mark.parametrize("exact_pixels", [2**20, 0])
def test_pixels_that_cannot_be_measured_are_nan_with_a_reason(maps, masks, why, exact_pixels):
    pixels = measured(maps, masks, exact_pixels=exact_pixels)
    assert all(math.isnan(v) for v in (pixels.auroc(), pixels.average_precision(), pixels.aupro()))
    assert all(math.isnan(v) for v in pixels.error_bounds().values())
    assert pixels.reason == why


@pytest.mark.parametrize("max_fpr", [0.0, -0.1, 1.5, math.nan])
def test_the_rate_must_be_a_share(max_fpr):
    with pytest.raises(SettingError, match=r"^max_fpr must be over 0 and at most 1, got .*. The usual one is 0.3.$"):
        PixelMetrics().aupro(max_fpr)


def test_exact_pixels_cannot_be_negative():
    with pytest.raises(SettingError, match=r"^exact_pixels must be at least 0, got -1. For counting in bins at once"):
        PixelMetrics(exact_pixels=-1)
