"""outliers: what a fit does about a dirty picture among the good ones."""

import numpy as np
import pytest

from tests.parts import damaged, enough_for, make, stripes
from totalrecall.calibration import Calibration
from totalrecall.errors import OutlierWarning
from totalrecall.outliers.explain import limit_of
from totalrecall.outliers.notes import bar_note, outlier_note, unlike_the_others
from totalrecall.pictures.loading import LearntPicture

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

    def note(*highest, rate=0.05):
        scores = np.concatenate([even[: 30 - len(highest)], highest])
        return bar_note(Calibration(scores, scores, rate, 20, np.arange(30, dtype=np.int32)), pictures)

    assert note() is None
    one, two = note(3.0, rate=0.01), note(3.0, 3.1, rate=0.03)
    assert one.startswith("The threshold is set by one good picture: 29.png. Without it it would be 1.")
    assert two.startswith("The threshold is set by two good pictures: 29.png, 28.png. Without them it would be 1.")
    assert note(3.0, 3.1, 3.2, 3.3, rate=0.03) is None  # four are a kind
    nothing = Calibration(np.empty(0), np.empty(0), 0.01, 1, np.empty(0, np.int32))
    assert bar_note(nothing, []) is None


def test_a_fit_and_an_audit_have_one_limit():
    scores = np.exp(np.random.default_rng(0).normal(0, 0.3, 60))
    scores[5] = 9.0
    scores[5] = limit_of(scores, 4.0)
    assert limit_of(scores) < scores[5] < limit_of(scores, 4.5)  # an audit names it
    pictures = [LearntPicture(f"{at}.png", str(at), 9, 9) for at in range(60)]
    calibration = Calibration(scores, scores, 0.05, 20, np.arange(60, dtype=np.int32))
    assert unlike_the_others(calibration, pictures) == ["5.png"]
