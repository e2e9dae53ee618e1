"""outliers: what a fit does about a dirty picture among the good ones."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.commands import run, small
from tests.parts import damaged, enough_for, make, stripes
from totalrecall.calibration import Calibration
from totalrecall.errors import OutlierWarning
from totalrecall.outliers.explain import limit_of
from totalrecall.outliers.notes import bar_of, outlier_note, unlike_the_others
from totalrecall.pictures.loading import LearntPicture
from totalrecall.tuning import found_above

DIRTY = 7  # which of the pictures


@pytest.fixture(scope="module")
def sources():
    return [damaged(i) if i == DIRTY else stripes(i) for i in range(24)]


def test_a_fit_names_the_picture_that_is_unlike_the_others(tiny_backbone, sources):
    with pytest.warns(OutlierWarning, match=rf"1 of 24 good pictures is unlike the others: array\[{DIRTY}\]\."):
        detector = make(tiny_backbone).fit(sources)
    assert detector.outliers_ == [f"array[{DIRTY}]"]


def test_its_bad_patches_are_left_out_when_asked_and_it_sets_no_threshold(tiny_backbone, sources):
    plain, guarded = make(tiny_backbone).fit(sources), make(tiny_backbone, ignore_outliers=True).fit(sources)
    assert guarded.outliers_[0] == f"array[{DIRTY}]"  # of so few and so small pictures another may stand out, too
    assert len(guarded.outliers_) <= 2
    assert DIRTY not in guarded.calibration_.pictures
    assert len(guarded.calibration_.scores) == 24 - len(guarded.outliers_)
    cells = guarded.bank_.origin[guarded.bank_.origin[:, 0] == DIRTY, 1:]
    spoilt = (
        (cells[:, 0] >= 4) & (cells[:, 0] <= 5) & (cells[:, 1] >= 4) & (cells[:, 1] <= 5)
    )  # the patch is at its middle
    assert not spoilt.any()
    new = damaged(200)
    assert not plain.predict(new).is_anomalous  # it has learnt that such damage is good
    assert guarded.predict(new).is_anomalous


def test_a_clean_set_loses_nothing(tiny_backbone):
    sources = [stripes(i) for i in range(12, 36)]
    plain, guarded = make(tiny_backbone).fit(sources), make(tiny_backbone, ignore_outliers=True).fit(sources)
    if not guarded.outliers_:
        assert (plain.bank_.vectors == guarded.bank_.vectors).all()
    assert len(plain.bank_) - len(guarded.bank_) <= 0.02 * len(plain.bank_)


def test_in_chunks_too(tiny_backbone, monkeypatch):
    monkeypatch.setattr("totalrecall.patchcore.plan._LEAST", 16)
    detector = make(tiny_backbone, ignore_outliers=True)
    many = [damaged(i) if i == DIRTY else stripes(i) for i in range(60)]
    detector.fit(many, memory=enough_for(detector, many, 16))
    assert detector.report_.chunks > 1
    assert detector.outliers_[0] == f"array[{DIRTY}]"  # a merged bank is smaller here, and others may stand out, too
    if detector.calibration_.pictures is not None:
        assert DIRTY not in detector.calibration_.pictures


def test_the_choice_is_kept_in_the_model(tiny_backbone, sources, tmp_path):
    path = make(tiny_backbone, ignore_outliers=True).fit(sources).save(tmp_path / "m.trecall")
    from totalrecall import PatchCore

    assert PatchCore.load(path).settings.ignore_outliers


def test_the_note_counts_and_names():
    assert outlier_note(["a"], 9).startswith("1 of 9 good pictures is unlike the others: a. Look at it with")
    note = outlier_note(list("abcde"), 9)
    assert "5 of 9 good pictures are unlike the others: a, b, c and 2 more." in note
    assert "leaves their bad patches out" in note


def test_where_one_or_two_good_pictures_set_the_threshold_it_is_said():
    pictures = [LearntPicture(f"{at}.png", str(at), 9, 9) for at in range(30)]
    even = np.linspace(1.0, 1.2, 30)

    def bar(*highest, rate=0.05):
        scores = np.concatenate([even[: 30 - len(highest)], highest])
        return bar_of(Calibration(scores, scores, rate, 20, np.arange(30, dtype=np.int32)), pictures)

    assert bar() is None
    one, two = bar(3.0, rate=0.01).in_words(), bar(3.0, 3.1, rate=0.03).in_words([5, 9], 12)
    assert one.startswith("The threshold is set by one good picture: 29.png. Without it it would be 1.")
    assert "planted" not in one
    assert two.startswith("The threshold is set by two good pictures: 29.png, 28.png. Without them it would be 1.")
    assert "Of 12 defects planted on good pictures, 5 are above the threshold and 9 above the other one." in two
    assert bar(3.0, 3.1, 3.2, 3.3, rate=0.03) is None  # four are a kind
    nothing = Calibration(np.empty(0), np.empty(0), 0.01, 1, np.empty(0, np.int32))
    assert bar_of(nothing, []) is None


def test_a_fit_and_an_audit_have_one_limit():
    scores = np.exp(np.random.default_rng(0).normal(0, 0.3, 60))
    scores[5] = 9.0
    scores[5] = limit_of(scores, 4.0)
    assert limit_of(scores) < scores[5] < limit_of(scores, 4.5)  # an audit names it
    pictures = [LearntPicture(f"{at}.png", str(at), 9, 9) for at in range(60)]
    calibration = Calibration(scores, scores, 0.05, 20, np.arange(60, dtype=np.int32))
    assert unlike_the_others(calibration, pictures) == ["5.png"]


def test_fit_says_what_both_thresholds_find_of_planted_defects(capsys, added, tmp_path):
    folder = tmp_path / "good"
    folder.mkdir()
    for seed in range(24):
        cv2.imwrite(str(folder / f"{seed:02}.png"), (damaged if seed == 7 else stripes)(seed))
    code, out, _ = run(
        capsys, "fit", folder, "-o", tmp_path / "m.trecall", "--json", tmp_path / "f.json", *small(added)
    )
    assert code == 0
    set_by = json.loads((tmp_path / "f.json").read_text())["set_by"]
    assert [Path(path).name for path in set_by["pictures"]] == ["07.png"]
    assert set_by["threshold_without"] < json.loads((tmp_path / "f.json").read_text())["threshold"]
    assert 0 <= set_by["found"] < set_by["found_without"] <= set_by["planted"]
    note = next(line for line in out if "is set by one good picture" in line)
    assert f"Of {set_by['planted']} defects planted on good pictures, {set_by['found']} are above" in note


def test_what_is_found_falls_with_the_threshold_and_is_counted_on_the_same_defects(tiny_backbone):
    detector = make(tiny_backbone).fit([stripes(seed) for seed in range(12)])
    goods = [stripes(seed) for seed in range(12)]
    found, planted = found_above(detector, goods, (0.0, detector.threshold_, 1e9))
    assert found[0] == planted
    assert 0 < found[1] < planted
    assert found[2] == 0
    assert (found, planted) == found_above(detector, goods, (0.0, detector.threshold_, 1e9))
