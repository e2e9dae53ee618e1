"""The promise of a threshold is one, wherever it is stated; the rate is in the user's hand."""

import csv
import json
import math
import shutil

import cv2
import numpy as np
import pytest

from tests.commands import run
from tests.parts import damaged, make, stripes
from totalrecall import SPADE, PaDiM, PatchCore, load_detector
from totalrecall.calibration import Calibration
from totalrecall.datasets import open_dataset
from totalrecall.detectors.promise import Promise, percent
from totalrecall.errors import NotFittedError, SettingError
from totalrecall.evaluation.evaluate import Evaluation, evaluate

HUNDRED = np.arange(1, 101) / 10  # 0.1 to 10


def calibration(rate, scores=HUNDRED, folds=1):
    scores = np.asarray(scores, np.float64)
    return Calibration(scores, scores, rate, folds)


def promise(*given, **options):
    set_by_good = calibration(*given, **options)
    return Promise(set_by_good, set_by_good.threshold)


@pytest.fixture
def own(model, tmp_path):
    return shutil.copy(model, tmp_path / "own.trecall")


# ---------------------------------------------------------------------- in words


def test_the_sentence_says_what_set_the_threshold_and_what_false_alarms_it_gives():
    assert promise(0.05, folds=20).in_words() == (
        "Threshold 9.594, set by 20-fold cross-validation on 100 good pictures. "
        "False alarms: 5 % expected, at most 5.94 % on average."
    )
    few = promise(0.01, np.arange(1.0, 11.0), folds=10)
    assert few.in_words() == (
        "Threshold 10, set by 10-fold cross-validation on 10 good pictures. False alarms: at most 9.09 % on average."
    )
    assert few.note() == (
        "10 good pictures are too few for a false-alarm rate of 1 % (the lowest possible is 9.09 %). The threshold is "
        "their highest score. Use at least 99 good pictures."
    )
    assert "an estimate, 90 % interval" in promise(0.001, np.random.default_rng(0).normal(2, 0.2, 60)).in_words()
    assert promise(0.05).note() is None


def test_a_threshold_that_was_taught_or_set_states_its_own_rate():
    taught = Promise(calibration(0.05), 2.0, "taught")
    assert taught.expected_rate == pytest.approx(81 / 101, abs=0.01)
    assert taught.in_words() == (
        "Threshold 2, taught by known defects (the good pictures alone would set 9.594). False alarms: about 80.2 % of "
        "good pictures, so this model cannot tell such pictures from good ones."
    )
    assert Promise(calibration(0.05), 9.0, "given").in_words().startswith("Threshold 9, set by hand (the good")
    assert taught.guaranteed_rate is None
    beyond = Promise(calibration(0.05), 12.0, "given")
    assert beyond.interval is not None
    assert "an estimate" in beyond.in_words()


def test_without_scores_nothing_is_promised():
    nothing = promise(0.01, [])
    assert nothing.in_words().startswith("The model has no threshold and gives no verdicts")
    assert nothing.levels() == []
    assert nothing.levels_in_words() is None
    assert "not known" in Promise(calibration(0.01, []), 2.0, "taught").in_words()


def test_thresholds_at_other_rates_say_which_are_supported():
    levels = promise(0.01, np.arange(1.0, 31.0)).levels()
    assert [level.false_alarm_rate for level in levels] == [0.01, 0.02, 0.05, 0.1]
    assert [level.by_rank for level in levels] == [False, False, True, True]
    assert [level.estimated for level in levels] == [True, True, False, False]
    assert [level.threshold for level in levels] == sorted((level.threshold for level in levels), reverse=True)
    assert levels[2].threshold == calibration(0.05, np.arange(1.0, 31.0)).threshold
    assert "2 % 36.46 (estimate), 5 % 29.29, 10 %" in promise(0.01, np.arange(1.0, 31.0)).levels_in_words()


# ---------------------------------------------------------------------- every place that states it


def test_info_after_teach_states_the_rate_of_the_taught_threshold(capsys, own, parts, tmp_path):
    good = sorted((parts / "test" / "good").iterdir())
    lowest = min(good, key=lambda path: load_detector(own).predict(path).score)
    assert run(capsys, "teach", own, "--defect", lowest, "--apply")[0] == 0
    detector = load_detector(own)
    expected = detector.calibration_.expected_rate(detector.threshold_)
    assert expected > 0.2
    _, out, _ = run(capsys, "info", own, "--json", "-", "--parts-per-day", 100)
    facts = json.loads("\n".join(out))
    assert facts["threshold_is"] == "taught"
    assert facts["expected_rate"] == pytest.approx(expected)
    assert facts["false_alarms_per_day"] == pytest.approx(100 * expected)
    assert facts["guaranteed_rate"] is None
    assert facts["supported_by_ranks"] is False
    _, out, _ = run(capsys, "info", own)
    words = detector.promise_.in_words()
    assert words.replace(" ", "") in "".join(out).replace(" ", "")  # it may be folded


def test_fit_says_the_thresholds_at_four_rates_and_so_does_info(capsys, own, parts, added, tmp_path):
    facts_of = tmp_path / "fit.json"
    _, out, _ = run(
        capsys, "fit", parts / "train" / "good", "-o", own, "--backbone", added, "--size", 64, "--json", facts_of
    )
    detector = load_detector(own)
    assert detector.promise_.in_words() in out
    assert any(line.startswith("Thresholds by false-alarm rate: 1 % ") for line in out)
    facts = json.loads(facts_of.read_text())
    assert [level["by_rank"] for level in facts["thresholds"]] == [False, False, False, True]  # ten pictures
    _, out, _ = run(capsys, "info", own, "--json", "-")
    assert json.loads("\n".join(out))["thresholds"] == facts["thresholds"]


# ---------------------------------------------------------------------- the rate in the user's hand


@pytest.mark.parametrize("kind", [PatchCore, PaDiM, SPADE])
def test_a_detector_judges_at_another_rate_and_stays_as_it_is(tiny_backbone, kind):
    good = [stripes(i) for i in range(12)]
    options = {} if kind is PatchCore else {"holdout": 0.8}
    detector = (make(tiny_backbone) if kind is PatchCore else kind(backbone=tiny_backbone, size=64, **options)).fit(
        good
    )
    before = detector.threshold_, detector.pixel_threshold_, detector.settings
    other = detector.judging(false_alarm_rate=0.5)
    assert other.threshold_ < before[0]
    assert other.pixel_threshold_ < before[1]
    result = other.predict(stripes(30))
    assert result.threshold == other.threshold_
    assert result.is_anomalous is (result.score > other.threshold_)
    by_hand = detector.judging(threshold=0.001)
    assert by_hand.predict(stripes(30)).is_anomalous is True
    assert by_hand.promise_.origin == "given"
    assert (detector.threshold_, detector.pixel_threshold_, detector.settings) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"false_alarm_rate": 0.0}, "false_alarm_rate must be between 0 and 1"),
        ({"false_alarm_rate": 1.0}, "false_alarm_rate must be between 0 and 1"),
        ({"false_alarm_rate": math.nan}, "false_alarm_rate must be between 0 and 1"),
        ({"threshold": math.nan}, "threshold must be a finite score, got nan"),
        ({"threshold": math.inf}, "threshold must be a finite score, got inf"),
    ],
)
def test_a_rate_or_threshold_outside_what_is_allowed_is_refused(tiny_backbone, options, message):
    detector = make(tiny_backbone).fit([stripes(i) for i in range(6)])
    for change in (detector.judging, detector.update):
        with pytest.raises(SettingError, match=message):
            change(**options)
    assert detector.history_ == []


def test_judging_takes_one_of_the_two(tiny_backbone):
    detector = make(tiny_backbone).fit([stripes(i) for i in range(6)])
    for options in ({}, {"false_alarm_rate": 0.1, "threshold": 1.0}):
        with pytest.raises(SettingError, match="judging needs false_alarm_rate or threshold"):
            detector.judging(**options)
    with pytest.raises(SettingError, match="update takes one of"):
        detector.update(add=[stripes(9)], threshold=1.0)
    with pytest.raises(NotFittedError):
        make(tiny_backbone).judging(threshold=1.0)
    unjudged = make(tiny_backbone, holdout=0).fit([stripes(i) for i in range(6)])
    with pytest.raises(SettingError, match="needs scores of good pictures"):
        unjudged.judging(false_alarm_rate=0.1)
    assert unjudged.judging(threshold=0.001).predict(damaged(1)).is_anomalous is True


def test_predict_judges_at_a_rate_or_threshold_for_this_run_alone(capsys, own, parts, tmp_path):
    bytes_before = own.read_bytes()
    picture = parts / "test" / "good" / "000.png"
    detector = load_detector(own)
    for options, wanted in (
        (["--false-alarm-rate", "0.5"], detector.judging(false_alarm_rate=0.5).threshold_),
        (["--threshold", "0.01"], 0.01),
    ):
        code, out, err = run(capsys, "predict", own, picture, *options, "--report", tmp_path / "r.html")
        assert (code, err) == (0, [])
        assert out[0].startswith(f"For this run: Threshold {wanted:.4g}, ")
        assert f"{wanted:.4g}" in (tmp_path / "r.html").read_text(encoding="utf-8")
        _, out, _ = run(capsys, "predict", own, picture, *options, "--json", "-", "-q")
        assert json.loads(out[0])["threshold"] == pytest.approx(wanted)
    assert own.read_bytes() == bytes_before
    code, _, err = run(capsys, "predict", own, picture, "--false-alarm-rate", "1.5")
    assert (code, err) == (
        2,
        ["totalrecall: --false-alarm-rate must be between 0 and 1, got 1.5. Usual: 0.01."],
    )
    code, _, err = run(capsys, "predict", own, picture, "--threshold", "nan")
    assert code == 2
    assert err[0].startswith("totalrecall: --threshold must be a finite score, got nan.")


def test_update_keeps_the_rate_with_history_and_undo_gives_the_bytes_back(capsys, own):
    bytes_before = own.read_bytes()
    fitted = load_detector(own).threshold_
    code, out, _ = run(capsys, "update", own, "--false-alarm-rate", "0.3")
    assert code == 0
    detector = load_detector(own)
    assert detector.settings.false_alarm_rate == detector.calibration_.rate == 0.3
    assert detector.threshold_ < fitted
    assert out == [f"Threshold: score {detector.threshold_:.4g}, was {fitted:.4g}", detector.promise_.in_words()]
    assert [step.what for step in detector.history_] == ["threshold"]
    assert run(capsys, "update", own, "--threshold", "2.5")[0] == 0
    by_hand = load_detector(own)
    assert (by_hand.threshold_, by_hand.promise_.origin) == (2.5, "given")
    assert "threshold was taught" not in "\n".join(run(capsys, "info", own)[1])
    code, out, _ = run(capsys, "update", own, "--undo")
    assert out[0].startswith("Undid the change of the threshold of ")
    assert load_detector(own).threshold_ == detector.threshold_
    assert run(capsys, "update", own, "--undo")[0] == 0
    assert own.read_bytes() == bytes_before


def test_undo_in_python_gives_rate_and_threshold_back(tiny_backbone):
    detector = make(tiny_backbone).fit([stripes(i) for i in range(12)])
    before = detector.threshold_, detector.pixel_threshold_
    detector.update(false_alarm_rate=0.4)
    detector.update(threshold=0.5)
    assert detector.threshold_ == 0.5
    detector.undo()
    assert detector.promise_.calibrated
    assert detector.undo().what == "threshold"
    assert (detector.threshold_, detector.pixel_threshold_, detector.settings.false_alarm_rate) == (*before, 0.01)


def test_a_dry_run_changes_no_rate(capsys, own):
    bytes_before = own.read_bytes()
    code, out, _ = run(capsys, "update", own, "--false-alarm-rate", "0.3", "--dry-run")
    assert code == 0
    assert out[-1].startswith("Dry run")
    assert own.read_bytes() == bytes_before


# ---------------------------------------------------------------------- found and missed


def test_evaluate_counts_defects_found_and_false_alarms_at_the_models_threshold(capsys, model, parts):
    samples = open_dataset("mvtec", parts).test
    detector = load_detector(model)
    results = [detector.predict(sample.path) for sample in samples]
    found = sum(one.is_anomalous is True for one, sample in zip(results, samples, strict=True) if sample.label == 1)
    alarms = sum(one.is_anomalous is True for one, sample in zip(results, samples, strict=True) if sample.label == 0)
    _, out, _ = run(capsys, "evaluate", model, parts, "--layout", "mvtec", "-q")
    plural = "" if alarms == 1 else "s"
    assert (
        f"found {found} of 3 defects, {alarms} false alarm{plural} among 3 good pictures (at the model's threshold)"
        in out
    )
    _, out, _ = run(capsys, "evaluate", model, parts, "--layout", "mvtec", "--json", "-", "--threshold", "0.0001")
    facts = json.loads("\n".join(out))
    assert {name: facts[name] for name in ("found", "defects", "false_alarms", "good", "no_verdict")} == {
        "found": 3,
        "defects": 3,
        "false_alarms": 3,
        "good": 3,
        "no_verdict": 0,
    }


def test_evaluate_at_another_threshold_names_that_one_and_not_the_models(capsys, model, parts, tmp_path):
    at = ["evaluate", model, parts, "--layout", "mvtec", "--json", tmp_path / "e.json"]
    _, out, _ = run(capsys, *at, "--threshold", "0.0001")
    assert "found 3 of 3 defects, 3 false alarms among 3 good pictures (at threshold 0.0001)" in out
    facts = json.loads((tmp_path / "e.json").read_text())
    assert (facts["threshold"], facts["threshold_is"]) == (0.0001, "given")
    run(capsys, *at)
    facts = json.loads((tmp_path / "e.json").read_text())
    assert (facts["threshold"], facts["threshold_is"]) == (load_detector(model).threshold_, "calibrated")


@pytest.mark.parametrize(
    ("found", "defects", "alarms", "words"),
    [
        (1, 1, 1, "found 1 of 1 defect, 1 false alarm among 9 good pictures (at the model's threshold)"),
        (0, 2, 0, "found 0 of 2 defects, 0 false alarms among 9 good pictures (at the model's threshold)"),
        (None, 1, None, "no verdicts (1 defect, 9 good pictures): the model has no threshold"),
    ],
)
def test_one_false_alarm_is_said_as_one(found, defects, alarms, words):
    nothing = math.nan
    measured = Evaluation(
        nothing, nothing, nothing, nothing, 0, 0.0, found=found, defects=defects, false_alarms=alarms, good=9
    )
    assert measured.verdicts_in_words() == words


def test_without_a_threshold_evaluate_counts_nothing(tiny_backbone, parts):
    detector = make(tiny_backbone, holdout=0).fit(parts / "train" / "good")
    measured = evaluate(detector, open_dataset("mvtec", parts).test)
    assert (measured.found, measured.false_alarms, measured.no_verdict) == (None, None, 6)
    assert (measured.defects, measured.good) == (3, 3)
    assert "no verdicts (3 defects, 3 good pictures)" in measured.verdicts_in_words()


def test_benchmark_counts_them_too(capsys, added, parts, tmp_path):
    out = tmp_path / "b"
    options = ["--backbone", added, "--size", 64, "--methods", "patchcore", "--out", out]
    assert run(capsys, "benchmark", "mvtec", parts, *options)[0] == 0
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "## Verdicts" in report
    with (out / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["found"]]
    assert rows
    assert (rows[0]["defects"], rows[0]["good"]) == ("3", "3")
    assert f"{rows[0]['found']} / 3" in report


# ---------------------------------------------------------------------- a result to look at


def test_a_result_draws_itself_from_memory_and_from_its_file(tiny_backbone, tmp_path):
    detector = make(tiny_backbone).fit([stripes(i) for i in range(6)])
    picture = damaged(4)
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1])
    from_memory, from_file = detector.predict(picture), detector.predict(tmp_path / "a.png")
    assert from_file.picture is None  # a stream of files keeps no pixels
    drawn = from_memory.overlay(title="one")
    assert drawn.dtype == np.uint8
    assert drawn.ndim == 3
    assert np.array_equal(drawn, from_file.overlay(title="one"))
    assert np.array_equal(drawn, from_file.overlay(picture, title="one"))


def test_a_result_says_in_a_line_what_it_is(tiny_backbone):
    detector = make(tiny_backbone).fit([stripes(i) for i in range(6)])
    words = repr(detector.predict(damaged(4)))
    assert words.startswith("<Result array[0]: defect, score ")
    assert "\n" not in words
    assert "p-value 0.14, " in words
    assert words.endswith((" region>", " regions>"))
    unjudged = make(tiny_backbone, holdout=0).fit([stripes(i) for i in range(6)])
    assert "no verdict, score" in repr(unjudged.predict(damaged(4)))


def test_a_share_that_nobody_can_tell_from_none_is_no_row_of_digits():
    assert [percent(rate) for rate in (0.0909, 0.01, 1e-6, 1.5e-12, 0.0)] == [
        "9.09 %", "1 %", "0.0001 %", "under 0.0001 %", "0 %",
    ]  # fmt: skip
