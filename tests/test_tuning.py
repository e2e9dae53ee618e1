"""Tuning: settings that find more of the same planted defects are taken, and only where chance cannot explain it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.commands import complaint, run
from tests.parts import SIZE, stripes
from totalrecall import PatchCore
from totalrecall.calibration import Calibration
from totalrecall.errors import DataError, ModelFileError, SettingError
from totalrecall.patchcore.settings import Settings
from totalrecall.pictures.geometry import Recipe
from totalrecall.planting import KINDS
from totalrecall.tuning import Tried, Tuning, tune
from totalrecall.tuning.planted import plant_defects
from totalrecall.tuning.tuning import Judged, gain_of

RATES = (0.05, 0.1, 0.2)


def start(tiny_backbone, **changed):
    return Settings(backbone=tiny_backbone, size=SIZE, coreset=0.2, at_least=1, precision="f32", **changed)


@pytest.fixture(scope="module")
def goods():
    return [stripes(seed) for seed in range(44)]


# ---------------------------------------------------------------------- what is planted


def test_the_same_seed_plants_the_same_defects_of_every_kind_and_another_seed_others(goods):
    first, again, other = (plant_defects(goods[:5], Recipe(size=SIZE), seed) for seed in (1, 1, 2))
    assert set(first.kinds) == set(KINDS)
    assert len(first) == len(first.kinds) > 100
    same = [np.array_equal(a, b) for a, b in zip(first.pictures(), again.pictures(), strict=True)]
    assert all(same)
    assert not all(np.array_equal(a, b) for a, b in zip(first.pictures(), other.pictures(), strict=False))


def test_a_planted_picture_differs_from_its_good_one_and_the_good_one_stays(goods):
    before = [good.copy() for good in goods[:3]]
    planted = plant_defects(goods[:3], Recipe(size=SIZE), 0)
    for picture in planted.pictures():
        assert min(int((picture != good).any(axis=2).sum()) for good in planted.goods) > 0
    assert all(np.array_equal(a, b) for a, b in zip(before, planted.goods, strict=True))


def test_capability_plants_other_defects_than_tuning(goods, tiny_backbone):
    from totalrecall.capability import CapabilityStudy

    detector = PatchCore(backbone=tiny_backbone, size=SIZE, at_least=1, false_alarm_rate=0.2).fit(goods[:10])
    study = CapabilityStudy(detector, goods[10:14], kinds=["blob"], sizes=[12], per_size=4)
    shown = study.run()
    theirs = [shown.show(outcome)[0].picture for outcome in shown.kinds[0].outcomes]
    ours = list(plant_defects(goods[10:14], Recipe(size=SIZE), 0).pictures())
    assert not any(np.array_equal(a, b) for a in theirs for b in ours)


def test_without_a_readable_picture_nothing_can_be_planted(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match="No defect could be planted"):
        plant_defects([broken], Recipe(size=SIZE), 0)


# ---------------------------------------------------------------------- what is better


def judged(shift, seed=0):
    rng = np.random.default_rng(seed)
    good, planted = np.sort(rng.normal(1, 0.1, 60)), rng.normal(1.2, 0.2, 160) + shift
    return Judged(Calibration(good, good, 0.05, 20), planted, good[:5], 10.0)


def test_the_gain_is_the_mean_of_what_is_found_at_each_rate():
    ours, theirs = judged(0.1), judged(0.0)
    expected = [
        (ours.planted > replace(ours.calibration, rate=rate).threshold).mean()
        - (theirs.planted > replace(theirs.calibration, rate=rate).threshold).mean()
        for rate in RATES
    ]
    gain, error = gain_of(ours, theirs, RATES)
    assert gain == pytest.approx(np.mean(expected))
    assert 0 < error < gain


def test_equal_scores_gain_nothing_for_sure():
    assert gain_of(judged(0.0), judged(0.0), RATES) == (0.0, 0.0)


@pytest.mark.slow
def test_a_difference_by_chance_is_within_its_error_mostly():
    inside = 0
    for seed in range(40):
        gain, error = gain_of(judged(0.0, seed), judged(0.0, 1000 + seed), RATES)
        inside += abs(gain) < 2 * error
    assert inside >= 30


# ---------------------------------------------------------------------- the search


@pytest.fixture(scope="module")
def tuned(goods, tiny_backbone):
    # one more vector than the bank has patches changes nothing; the score is tried as well
    return tune(goods, start(tiny_backbone, false_alarm_rate=0.05), fixed=("size", "layers", "backbone"))


def test_rows_say_what_was_tried_and_the_first_is_the_start(tuned, goods):
    assert tuned.rows[0].changes == {}
    assert {name for row in tuned.rows for name in row.changes} <= {"scoring", "at_least"}
    assert len(tuned.rows) == 3
    assert tuned.rows[0].chosen
    assert all(row.planted == tuned.rows[0].planted and row.good == 11 for row in tuned.rows)
    assert (tuned.fitted, tuned.held) == (33, 11)
    assert tuned.budget == pytest.approx(2 * tuned.rows[0].milliseconds)


def test_the_figures_of_a_row_are_those_of_a_detector_fitted_on_the_same_pictures(tuned, goods, tiny_backbone):
    order = np.random.default_rng(42).permutation(44).tolist()
    detector = PatchCore(
        backbone=tiny_backbone, size=SIZE, coreset=0.2, at_least=1, precision="f32", false_alarm_rate=0.05
    ).fit([goods[at] for at in sorted(order[11:])])
    planted = plant_defects([goods[at] for at in order[:11]], detector.recipe, 42)
    found = sum(detector.predict(picture).is_anomalous for picture in planted.pictures())
    assert (tuned.rows[0].found, tuned.rows[0].planted) == (found, len(planted))


def test_the_settings_are_those_of_the_last_row_that_was_chosen(tuned):
    best = [row for row in tuned.rows if row.chosen][-1]
    assert tuned.changes == dict(best.changes)
    for name, value in best.changes.items():
        assert getattr(tuned.settings, name) == value
    assert tuned.detector().settings.scoring == tuned.settings.scoring


def test_what_takes_too_long_is_not_chosen(goods, tiny_backbone):
    tuning = tune(goods, start(tiny_backbone, scoring="max"), budget_ms=1e-6, fixed=("size", "layers", "backbone"))
    assert tuning.changes == {}
    assert all(not row.chosen for row in tuning.rows[1:])


def test_a_setting_that_a_person_gave_is_not_tried(goods, tiny_backbone):
    fixed = ("size", "layers", "scoring", "at_least", "backbone")
    assert len(tune(goods, start(tiny_backbone), fixed=fixed).rows) == 1


def test_a_budget_of_nothing_is_refused(goods, tiny_backbone):
    with pytest.raises(SettingError, match="budget_ms must be over 0, got 0"):
        tune(goods, start(tiny_backbone), budget_ms=0)


def test_of_few_pictures_the_settings_stay(goods, tiny_backbone):
    tuning = tune(goods[:39], start(tiny_backbone))
    assert (list(tuning.rows), tuning.changes) == ([], {})
    assert tuning.settings == start(tiny_backbone)
    assert tuning.sentence() == (
        "Not tuned: 39 good pictures are too few to tell settings apart, 40 are needed. The settings as given stay."
    )


def test_the_sentence_says_what_was_found_or_that_nothing_was_better():
    row = Tried({}, 40, 100, 50.0, 1, 10, 20.0, chosen=True)
    stays = Tuning(Settings(), [row, replace(row, changes={"size": 320}, chosen=False)], 60, 20, 0.01, 40.0, 3.0)
    assert stays.sentence() == (
        "Tuned (1 other setting, 100 planted defects): the settings as given stay, nothing finds clearly more."
    )
    better = replace(row, changes={"layers": (2,), "size": 320}, found=55, milliseconds=30.0)
    assert Tuning(Settings(size=320), [row, better], 60, 20, 0.01, 40.0, 3.0).sentence() == (
        "Tuned (1 other setting, 100 planted defects): layers 2, size 320 finds 55 instead of 40 at the stated rate of "
        "1 %, in 1.5 times the time. Planted defects are not real ones."
    )


# ---------------------------------------------------------------------- in the model, and by the command


def test_the_model_keeps_what_was_tried_through_changes(tuned, goods, tmp_path):
    detector = tuned.detector().fit(goods)
    assert detector.tuning_ is None
    detector.keep_tuning(tuned.to_json())
    loaded = PatchCore.load(detector.save(tmp_path / "part.trecall"))
    assert loaded.tuning_ == tuned.to_json() == detector.tuning_
    loaded.update(false_alarm_rate=0.1)
    assert PatchCore.load(loaded.save(tmp_path / "changed.trecall")).tuning_ == tuned.to_json()


def test_a_row_that_no_version_wrote_is_refused(tuned, goods, tmp_path):
    detector = tuned.detector().fit(goods)
    detector.keep_tuning([{**tuned.to_json()[0], "found": -1}])
    with pytest.raises(ModelFileError, match=r"tuning\.rows\[0\]\.found"):
        PatchCore.load(detector.save(tmp_path / "part.trecall"))


def test_fit_tune_shows_the_table_and_writes_it(tmp_path, goods, added, capsys):
    import cv2

    folder = tmp_path / "good"
    folder.mkdir()
    for at, good in enumerate(goods):
        cv2.imwrite(str(folder / f"{at:02}.png"), good[:, :, ::-1])
    options = ["--backbone", added, "--size", "64", "--layers", "2", "--scoring", "map1pct", "--precision", "f32"]
    model, facts = tmp_path / "part.trecall", tmp_path / "fit.json"
    code, out, _ = run(capsys, "fit", folder, "-o", model, *options, "--tune", "--json", facts)
    assert code == 0
    assert any(line.startswith("as given") for line in out)
    assert any("Tuned (" in line for line in out), out
    rows = json.loads(facts.read_text())["tuning"]
    assert rows == PatchCore.load(model).tuning_
    assert [row["changes"] for row in rows] == [{}, {"at_least": 4000}]
    _, out, _ = run(capsys, "info", model)
    assert any(line.startswith("as given: ") for line in out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget-ms", "20"], "--budget-ms is for --tune. Add --tune, or leave it out."),
        (["--tune", "--method", "padim"], "--tune is only for method patchcore, got method padim. Leave it out."),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, tmp_path, capsys):
    (tmp_path / "good.png").touch()
    assert complaint(capsys, "fit", tmp_path, "-o", tmp_path / "part.trecall", *options) == (2, message)
