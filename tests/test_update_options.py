"""update: however the model was made, false alarms pass once they are added."""

import math

import numpy as np
import pytest

from tests.parts import SIZE, damaged, made_to_grow, written
from totalrecall import PatchCore
from totalrecall.detectors.model_file import read_header


@pytest.mark.parametrize("scoring", ["extent", "map1pct", "top1pct", "max", "paper"])
def test_all_scorings_let_false_alarms_pass(tiny_backbone, good, alarms, scoring):
    detector = made_to_grow(tiny_backbone, scoring=scoring).fit(good)
    detector.update(add=alarms)
    assert (detector.score(alarms) <= detector.threshold_).all()


def test_a_random_choice_has_no_radius_and_false_alarms_pass_all_the_same(tiny_backbone, good, alarms, tmp_path):
    detector = made_to_grow(tiny_backbone, subsampling="random").fit(good)
    saved = detector.save(tmp_path / "random.trecall")
    assert "coreset" not in read_header(saved)
    detector = PatchCore.load(saved)
    detector.update(add=alarms)
    assert (detector.score(alarms) <= detector.threshold_).all()


def test_without_calibration_only_the_radius_counts(tiny_backbone, good, alarms):
    detector = made_to_grow(tiny_backbone, holdout=0).fit(good)
    change = detector.update(add=alarms)
    assert math.isnan(change.threshold[1])
    assert sum(one.forced for one in change.pictures) == 0
    assert detector.history_[0].threshold == (None, None)


@pytest.mark.parametrize("options", [{"projection": 24}, {"resize": "letterbox"}, {"tile": 2}, {"coreset": 1.0}])
def test_false_alarms_pass_however_the_model_was_made(tiny_backbone, good, alarms, options, tmp_path):
    detector = made_to_grow(tiny_backbone, **options).fit(good)
    state = written(detector, tmp_path)
    detector.update(add=alarms)
    assert (detector.score(alarms) <= detector.threshold_).all()
    assert detector.predict(damaged(300)).is_anomalous
    detector = PatchCore.load(detector.save(tmp_path / "then.trecall"))
    detector.undo()
    assert written(detector, tmp_path) == state


def test_only_patches_inside_the_region_of_interest_enter(tiny_backbone, good, alarms):
    roi = np.zeros((70, 90), bool)
    roi[:, :45] = True
    detector = made_to_grow(tiny_backbone, roi=roi).fit(good)
    change = detector.update(add=alarms)
    assert detector.bank_.origin[change.vectors[0] :, 2].max() <= SIZE // 16
    assert (detector.score(alarms) <= detector.threshold_).all()
