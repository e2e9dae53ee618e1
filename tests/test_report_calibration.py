"""What the report says of the threshold."""

import re

import numpy as np
import pytest

from tests.report_pages import Reader, entry, page, section
from totalrecall.calibration import Calibration
from totalrecall.detectors.promise import Promise

HUNDRED = np.arange(1, 101) / 10  # 0.1 to 10


def calibration(rate: float, scores=HUNDRED, folds: int = 1) -> Calibration:
    scores = np.asarray(scores, np.float64)
    return Calibration(scores, scores, rate, folds)


def promised(scores: Calibration, threshold: float | None = None) -> Promise:
    return Promise(scores, scores.threshold) if threshold is None else Promise(scores, threshold, "taught")


def promise(scores: Calibration, threshold: float | None = None, parts_per_day: int | None = None) -> dict[str, str]:
    return promised(scores, threshold).rows(parts_per_day)


def shown(folder, kept: Promise) -> str:
    return section(page(folder, [], promise=kept), "What the threshold promises")


def test_a_rate_that_ranks_can_give_is_guaranteed_and_the_alarms_are_counted():
    facts = promise(calibration(0.05))
    # rank 5.05 of 101: the fifth highest is 9.6, the sixth 9.5, the weight 0.95 * 5 / 5.05
    assert facts["threshold"] == "score 9.594"
    assert facts["set by"] == "100 good pictures, kept aside together"
    assert facts["stated rate"].startswith("5 % of good pictures")
    assert facts["promise"] == (
        "5 % of good pictures on average, guaranteed by rank for any distribution of scores (4.95 % to 5.94 %)"
    )
    assert facts["false alarms"].startswith("about 50 per day (5 %), for 1000 good parts per day")
    assert "never below 0.0099" in facts["p-value"]


def test_the_parts_per_day_may_be_given_and_else_are_said_to_be_assumed():
    given, assumed = promise(calibration(0.05), parts_per_day=202), promise(calibration(0.05))
    assert given["false alarms"] == "about 10.1 per day (5 %), for 202 good parts per day"
    assert assumed["false alarms"].endswith("per day (an assumed number, see --parts-per-day)")


def test_a_rate_that_is_a_whole_rank_is_guaranteed_itself():
    words = promise(calibration(0.05, np.arange(19)))["promise"]
    assert words.endswith("guaranteed by rank for any distribution of scores (5 %)")


def test_folds_are_named_and_that_nothing_is_proved_of_them():
    facts = promise(calibration(0.05, folds=20))
    assert facts["set by"] == "100 good pictures, by 20-fold cross-validation"
    assert facts["promise"].startswith(
        "5 % of good pictures will score above the threshold on average (4.95 % to 5.94 % by rank)."
    )
    assert "not proved" in facts["promise"]
    assert "guaranteed" not in facts["promise"]


def test_a_rate_below_the_floor_is_said_to_be_estimated_with_its_interval():
    scores = np.random.default_rng(0).normal(2, 0.2, 60)
    below = calibration(0.002, scores)
    low, high = below.interval
    facts = promise(below)
    assert facts["promise"].startswith("an estimate, not a guarantee: ")
    assert "60 pictures can guarantee 1.64 % at best" in facts["promise"]
    assert (
        f"{100 * low:.3g} % to {100 * high:.3g} % of good pictures are expected above the threshold" in facts["promise"]
    )
    assert facts["false alarms"].startswith("about ")
    assert f"90 % interval {1000 * low:.2g} to {1000 * high:.2g}," in facts["false alarms"]


def test_where_no_tail_can_be_fitted_the_highest_score_is_said_to_be_the_threshold():
    facts = promise(calibration(0.01, [1.0, 2.0, 3.0]))
    assert facts["threshold"] == "score 3"
    assert facts["promise"].startswith("3 pictures cannot guarantee 1 %. The threshold is their highest score")
    assert facts["false alarms"].startswith("at most 250 per day (25 %)")


def test_a_taught_threshold_promises_nothing_and_its_alarms_are_counted_from_the_same_pictures():
    facts = promise(calibration(0.05), threshold=5.0)
    assert facts["threshold"] == "score 5, taught by known defects; the good pictures alone would set 9.594"
    assert facts["promise"] == "none for a threshold that was taught by known defects"
    assert facts["false alarms"].startswith("about 505 per day (50.5 %)")  # 51 of 101


@pytest.mark.parametrize("threshold", [None, 2.5])
def test_without_scores_nothing_is_promised(tmp_path, threshold):
    nothing = calibration(0.01, [])
    facts = promise(nothing, threshold=threshold)
    assert facts["threshold"] == (
        "none, so there is no verdict" if threshold is None else "score 2.5, taught by known defects"
    )
    assert "nothing is promised" in facts["set by"]
    assert "<svg" not in shown(tmp_path, promised(nothing, threshold))


def test_the_histogram_holds_every_score_and_marks_the_threshold_in_use(tmp_path):
    for threshold, words in ((None, "threshold 9.59"), (5.0, "threshold 5")):
        drawn = shown(tmp_path, promised(calibration(0.05), threshold))
        assert f'aria-label="Histogram of 100 scores of good pictures from 0.1 to 10, {words}"' in drawn
        assert drawn.count('<line class="limit"') == 1
        axis = {float(name): float(x) for x, name in re.findall(r'<text x="([\d.]+)"[^>]*class="mid">([\d.]+)<', drawn)}
        line = float(re.search(r'<line class="limit" x1="([\d.]+)"', drawn)[1])
        assert (line - axis[2]) / (axis[8] - axis[2]) == pytest.approx(((threshold or 9.594) - 2) / 6, abs=0.002)
        heights = [float(tall) for tall in re.findall(r'<rect class="good"[^>]* height="([\d.]+)"', drawn)]
        tallest = int(re.search(r'class="end">(\d+)</text>', drawn)[1])
        assert sum(heights) / 150 * tallest == pytest.approx(100, abs=0.1)


def test_the_page_shows_the_promise_where_a_calibration_is_given(tmp_path):
    text = page(tmp_path, [entry(1, 3.0)], promise=promised(calibration(0.05), 2.0), parts_per_day=500)
    words = Reader(text).words
    assert "What the threshold promises" in words
    assert any("500 good parts per day" in word for word in words)
    assert text.count('role="img"') == 2
    assert "What the threshold promises" not in page(tmp_path, [entry(1, 3.0)])


def test_the_pattern_that_marks_defects_is_defined_once(tmp_path):
    text = page(tmp_path, [entry(1, 3.0, label=1), entry(2, 1.0, label=0)], promise=promised(calibration(0.05)))
    assert text.count('id="hatch"') == 1
