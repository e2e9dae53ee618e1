"""outliers: what a fit does about a dirty picture among the good ones."""

import pytest

from tests.test_detector import damaged, make, stripes
from tests.test_fitting import enough_for
from totalrecall.notices import OutlierWarning
from totalrecall.outliers import outlier_note

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
    monkeypatch.setattr("totalrecall.plan._LEAST", 16)
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
