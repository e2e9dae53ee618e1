"""A verdict is earned or there is none: without a threshold or a score that is a number nothing is called good."""

import ast
import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

import totalrecall
from tests.commands import run, small
from tests.parts import damaged, make, stripes
from totalrecall import SPADE, PaDiM, PatchCore
from totalrecall.backbones.resnet import build_resnet
from totalrecall.calibration import Calibration
from totalrecall.drift.monitor import Monitor
from totalrecall.errors import PictureError, SettingError
from totalrecall.reports.gallery import ReportEntry, counts
from totalrecall.scoring import judged, verdict_in_words

KINDS = pytest.mark.parametrize("kind", [PatchCore, PaDiM, SPADE])


def fitted(kind, backbone, **options):
    if kind is PatchCore:
        return make(backbone, **options).fit([stripes(i) for i in range(6)])
    return kind(backbone=backbone, size=64, precision="f32", **options).fit([stripes(i) for i in range(6)])


@pytest.fixture(scope="module")
def unjudged(added, parts, tmp_path_factory):
    """A model without a threshold, that the command line fitted on two pictures."""
    from totalrecall.cli import main

    path = tmp_path_factory.mktemp("unjudged") / "two.trecall"
    good = [str(parts / "train" / "good" / name) for name in ("000.png", "001.png")]
    assert main(["fit", *good, "-o", str(path), "-q", *small(added)]) == 0
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A good picture, a broken one, and one of noise."""
    made = tmp_path_factory.mktemp("line")
    for name, picture in (("a", stripes(1)), ("b", damaged(1))):
        cv2.imwrite(str(made / f"{name}.png"), picture)
    return made


# ---------------------------------------------------------------------- without a threshold


def test_a_verdict_is_true_false_or_none():
    assert [judged(2.0, 1.0), judged(1.0, 1.0), judged(2.0, math.nan), judged(math.nan, 1.0)] == [
        True,
        False,
        None,
        None,
    ]
    assert [verdict_in_words(one) for one in (True, False, None)] == ["defect", "good", "no verdict"]


@KINDS
def test_without_a_threshold_there_is_no_verdict(tiny_backbone, kind):
    detector = fitted(kind, tiny_backbone, holdout=0)
    result = detector.predict(damaged(3))
    assert result.is_anomalous is None
    assert result.to_json()["is_anomalous"] is None
    assert math.isnan(result.threshold)
    assert [one.is_anomalous for one in detector.predict_stream([stripes(8), damaged(8)])] == [None, None]


@pytest.mark.parametrize("count", [1, 2])
def test_of_one_or_two_pictures_there_is_no_verdict(tiny_backbone, count):
    detector = make(tiny_backbone).fit([stripes(i) for i in range(count)])
    assert detector.predict(damaged(3)).is_anomalous is None


def test_predict_says_no_verdict_everywhere_and_fails_with_11_where_asked(capsys, unjudged, folder, tmp_path):
    code, out, err = run(capsys, "predict", unjudged, folder)
    assert code == 0
    assert [line.split("  ")[0] for line in out[:2]] == ["no verdict"] * 2
    assert "0 anomalous, 0 good, 2 no verdict" in out[2]
    assert "holdout over 0" in err[-1]
    assert run(capsys, "predict", unjudged, folder, "--fail-on-anomaly")[0] == 11
    lines, rows = tmp_path / "r.json", tmp_path / "r.csv"
    report = tmp_path / "r.html"
    run(capsys, "predict", unjudged, folder, "--json", lines, "--csv", rows, "--report", report)
    assert [json.loads(line)["is_anomalous"] for line in lines.read_text().splitlines()] == [None, None]
    with rows.open(newline="") as file:
        assert [row["is_anomalous"] for row in csv.DictReader(file)] == ["", ""]
    assert "<dt>no verdict</dt><dd>2</dd>" in report.read_text(encoding="utf-8")


def test_the_exit_code_tells_a_line_what_to_do(capsys, model, folder, parts, tmp_path):
    noise, empty = tmp_path / "noise.png", tmp_path / "empty.png"
    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8))
    empty.touch()
    fine = parts / "train" / "good" / "000.png"
    assert run(capsys, "predict", model, fine, "--fail-on-anomaly")[0] == 0
    assert run(capsys, "predict", model, fine, noise, "--fail-on-anomaly")[0] == 10
    assert run(capsys, "predict", model, fine, empty, "--fail-on-anomaly")[0] == 11  # not every part was seen
    assert run(capsys, "predict", model, noise, empty, "--fail-on-anomaly")[0] == 10  # what was found outweighs it
    assert run(capsys, "predict", model, fine, empty)[0] == 1


def test_a_report_counts_pictures_without_a_verdict_apart():
    entries = [ReportEntry("a.png", 1.0, 2.0, verdict) for verdict in (True, False, False, None)]
    found = counts(entries, 1)
    assert (found["judged defective"], found["judged good"], found["no verdict"]) == ("1", "2", "1")
    assert "no verdict" not in counts(entries[:3], 0)


def test_a_monitor_learns_nothing_from_a_picture_without_a_verdict(tiny_backbone):
    detector = make(tiny_backbone).fit([stripes(i) for i in range(8)])
    monitor = Monitor(detector.drift_, detector.threshold_)
    conditions = detector.predict(stripes(20), conditions=True).conditions
    monitor.observe(conditions, None)
    assert (monitor.pictures, monitor.counted) == (1, 0)
    monitor.observe(conditions, False)
    assert (monitor.pictures, monitor.counted) == (2, 1)


def test_teaching_a_model_without_a_threshold_says_that_there_is_none(capsys, unjudged, folder, tmp_path):
    copy = tmp_path / "m.trecall"
    copy.write_bytes(unjudged.read_bytes())
    code, out, _ = run(capsys, "teach", copy, "--defect", folder / "b.png", "--json", tmp_path / "t.json")
    assert code == 0
    assert out[0].endswith(", no verdict")
    assert "there is none" in out[-1]
    assert "nan" not in "\n".join(out)
    assert json.loads((tmp_path / "t.json").read_text())["defects"][0]["caught"] is None
    assert copy.read_bytes() == unjudged.read_bytes()


def test_update_of_a_model_without_a_threshold_says_that_there_is_none(capsys, unjudged, folder):
    code, out, _ = run(capsys, "update", unjudged, "--add", folder / "a.png", "--dry-run", "--json", "-")
    assert code == 0
    assert json.loads("\n".join(out))["still_anomalous"] is None
    for quiet in ([], ["-q"]):
        _, _, err = run(capsys, "update", unjudged, "--add", folder / "a.png", "--dry-run", *quiet)
        assert err[-1] == "totalrecall: warning: no threshold: the model gives no verdict"


def test_a_threshold_given_to_a_model_that_had_none_says_so(capsys, unjudged):
    code, out, _ = run(capsys, "update", unjudged, "--threshold", 1, "--dry-run")
    assert code == 0
    assert "Threshold: score 1, there was none" in out
    assert "nan" not in "\n".join(out)


@pytest.mark.parametrize("quiet", [[], ["-q"]])
@pytest.mark.parametrize("count", [1, 2])
def test_a_fit_that_sets_no_threshold_warns_of_it_even_when_quiet(capsys, added, parts, tmp_path, count, quiet):
    good = [parts / "train" / "good" / f"00{at}.png" for at in range(count)]
    code, _, err = run(capsys, "fit", *good, "-o", tmp_path / "m.trecall", *small(added), *quiet)
    assert code == 0
    assert err[-1].startswith("totalrecall: warning: no picture was held out, so there is no threshold and no verdict;")


def test_a_prediction_without_verdict_warns_of_it_even_when_quiet(capsys, unjudged, folder, tmp_path):
    for quiet in ([], ["-q"], ["-q", "--json", tmp_path / "r.jsonl"]):
        code, _, err = run(capsys, "predict", unjudged, folder, *quiet)
        assert code == 0
        assert err[-1].startswith("totalrecall: warning: the model has no threshold, so it gives no verdict. ")


# ---------------------------------------------------------------------- a score that is no number


@pytest.fixture(scope="module")
def tender(tmp_path_factory):
    """A backbone without biases: features in proportion to the picture's contrast, enormous ones of a strong one."""
    from safetensors.numpy import save_file

    from tests.resnet_forward import random_weights

    weights = random_weights("resnet18", dtype=np.float32)
    for name, values in weights.items():
        if name.endswith(("bias", "running_mean")):
            values[:] = 0
    weights["conv1.weight"] *= np.float32(1e14)
    path = tmp_path_factory.mktemp("weights") / "tender.safetensors"
    save_file(weights, str(path))
    return build_resnet("resnet18", path, name="tender")


def grey(seed):
    noise = np.random.default_rng(seed).integers(-3, 4, (64, 64, 3))
    return (np.array([124, 116, 104]) + noise).astype(np.uint8)


def wild(seed=0):
    return np.random.default_rng(seed).integers(0, 2, (64, 64, 3), np.uint8) * 255


@pytest.mark.parametrize("kind", [PatchCore, pytest.param(SPADE, marks=pytest.mark.slow)])
def test_features_that_are_no_numbers_are_an_error_of_that_picture(tender, kind):
    detector = kind(backbone=tender, size=64, precision="f32").fit([grey(i) for i in range(8)])
    assert math.isfinite(detector.predict(grey(50)).score)
    with pytest.raises(PictureError, match=r"array\[0\]: some of its features are not numbers"):
        detector.predict(wild())
    found = list(detector.predict_stream([grey(51), wild(), grey(52)]))
    assert [isinstance(one, PictureError) for one in found] == [False, True, False]
    assert str(found[1]).startswith("array[1]: ")
    if kind is PatchCore:
        change = detector.update(add=[grey(60), wild()])
        assert (len(change.pictures), len(change.skipped)) == (1, 1)


@pytest.mark.filterwarnings("ignore::totalrecall.SkippedPictureWarning")
def test_a_good_picture_without_a_score_is_left_out_of_the_fit(tender):
    detector = make(tender).fit([*(grey(i) for i in range(8)), wild()])
    assert len(detector.skipped_) == 1
    assert np.isfinite(detector.calibration_.scores).all()


@KINDS
def test_a_score_that_is_no_number_is_an_error_of_that_picture(tiny_backbone, kind):
    detector = fitted(kind, tiny_backbone)
    numbers = {PatchCore: "vectors", PaDiM: "mean", SPADE: "pooled"}
    damage = getattr(detector._state.model, numbers[kind])
    damage[:] = np.nan
    with pytest.raises(PictureError, match=r"array\[0\]: its score is not a finite number"):
        detector.predict(stripes(40))
    (found,) = detector.predict_stream([stripes(40)])
    assert "not a finite number" in str(found)


def test_a_nan_among_the_scores_of_good_pictures_is_no_calibration():
    for scores, peaks in (([1.0, math.nan], [1.0, 1.0]), ([1.0, math.inf], [1.0, 1.0]), ([1.0, 1.0], [1.0, math.nan])):
        with pytest.raises(SettingError, match="must be finite numbers, 1 are not"):
            Calibration(np.array(scores), np.array(peaks), 0.1)


# ---------------------------------------------------------------------- the worst place is always marked


@KINDS
@pytest.mark.filterwarnings("ignore::totalrecall.errors.UnlikePictureWarning")
@pytest.mark.parametrize("min_area", [1, 40, 100_000])
def test_whatever_is_anomalous_has_a_region_that_holds_the_maps_largest_value(tiny_backbone, kind, min_area):
    detector = fitted(kind, tiny_backbone, min_area=min_area)
    # whatever comes is anomalous, also where no pixel is above the pixel threshold
    detector = detector.judging(threshold=0.0)
    for picture in [stripes(i) for i in range(20, 26)] + [damaged(9), np.zeros((40, 30, 3), np.uint8)]:
        result = detector.predict(picture)
        assert result.is_anomalous is True
        worst = result.regions[0]
        assert worst.peak == pytest.approx(float(result.anomaly_map.max()), rel=1e-6)
        y, x = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
        assert worst.x <= x < worst.x + worst.width
        assert worst.y <= y < worst.y + worst.height
        assert worst.area >= min(min_area, result.anomaly_map.size)


def test_the_worst_place_lies_inside_the_region_of_interest(tiny_backbone):
    roi = np.zeros((70, 90), bool)
    roi[10:60, 5:40] = True
    detector = make(tiny_backbone, roi=roi, min_area=5000).fit([stripes(i) for i in range(6)])
    detector = detector.judging(threshold=0.0)
    worst = detector.predict(stripes(30)).regions[0]
    assert worst.x >= 5
    assert worst.x + worst.width <= 40
    assert worst.area <= roi.sum()


# ---------------------------------------------------------------------- nobody takes None for good


VERDICTS = ("is_anomalous", "caught")  # the names by which code has them


def conditions_of(node):
    """Yield what a piece of code takes for true or false."""
    for inner in ast.walk(node):
        if isinstance(inner, (ast.If, ast.IfExp, ast.While, ast.Assert)):
            yield inner.test
        elif isinstance(inner, ast.UnaryOp) and isinstance(inner.op, ast.Not):
            yield inner.operand
        elif isinstance(inner, ast.BoolOp):
            yield from inner.values
        elif isinstance(inner, ast.comprehension):
            yield from inner.ifs
        elif isinstance(inner, (ast.BinOp, ast.AugAssign)):
            yield from (inner.left, inner.right) if isinstance(inner, ast.BinOp) else (inner.value,)
        elif isinstance(inner, ast.Call) and getattr(inner.func, "id", "") in ("bool", "int", "sum", "any", "all"):
            yield from (one.elt if isinstance(one, ast.GeneratorExp) else one for one in inner.args)


def careless(code):
    return [
        node.lineno
        for node in conditions_of(ast.parse(code))
        if getattr(node, "attr", getattr(node, "id", "")) in VERDICTS
    ]


def test_no_code_takes_a_verdict_for_true_or_false_without_a_look_at_none():
    source = Path(totalrecall.__file__).parent
    texts = {str(path.relative_to(source)): path.read_text(encoding="utf-8") for path in source.rglob("*.py")}
    found = {path: careless(text) for path, text in texts.items() if any(name in text for name in VERDICTS)}
    assert {path: lines for path, lines in found.items() if lines} == {"scoring.py": found["scoring.py"]}
    assert len(found["scoring.py"]) == 1  # `verdict_in_words`, after None


def test_the_test_above_can_fail():
    assert careless("a = 1 if r.is_anomalous else 2\nb = not is_anomalous\nc = sum(r.is_anomalous for r in x)") == [
        1,
        2,
        3,
    ]
    assert careless("a = 1 if r.is_anomalous is True else 2") == []
