"""Model files of before: what the code of commit 3942f1e wrote is read, and judges as it did then.

`tests/old_models.py` made the files and wrote down what they said.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.old_models import told
from totalrecall import load_detector
from totalrecall.cli import main
from totalrecall.cli.info import describe
from totalrecall.detectors.model_file import is_protected, read_artifact, read_header, write_artifact
from totalrecall.errors import ModelFileError

DATA = Path(__file__).parent / "data"
SAID = json.loads((DATA / "old_models.json").read_text())

every_kind = pytest.mark.parametrize("kind", sorted(SAID))


def close(found, then):
    assert found["scores"] == pytest.approx(then["scores"], rel=1e-4)
    for name in ("threshold", "pixel_threshold"):
        assert found[name] == pytest.approx(then[name], rel=1e-9)


@every_kind
def test_a_model_of_before_judges_as_it_did(kind):
    close(told(load_detector(DATA / f"old_{kind}.trecall")), SAID[kind]["fitted"])


@every_kind
def test_a_model_of_before_that_was_updated_judges_as_it_did_and_its_last_step_is_undone(kind, tmp_path):
    detector = load_detector(DATA / f"old_{kind}_changed.trecall")
    assert [step.what for step in detector.history_] == SAID[kind]["steps"]
    close(told(detector), SAID[kind]["changed"])
    detector.undo()
    close(told(detector), SAID[kind]["before"])
    saved = detector.save(tmp_path / "now.trecall")
    assert is_protected(read_header(saved))
    close(told(load_detector(saved)), SAID[kind]["before"])


@every_kind
def test_all_steps_of_a_model_of_before_are_undone_in_the_file(kind, tmp_path):
    path = tmp_path / "m.trecall"
    shutil.copy(DATA / f"old_{kind}_changed.trecall", path)
    for _ in SAID[kind]["steps"]:
        assert main(["update", str(path), "--undo", "--quiet"]) == 0
    close(told(load_detector(path)), SAID[kind]["fitted"])


@every_kind
def test_info_says_that_the_header_of_a_model_of_before_is_not_protected(kind, tmp_path, capsys):
    path = DATA / f"old_{kind}.trecall"
    assert describe(str(path))["header_protected_by_hash"] is False
    assert main(["info", str(path)]) == 0
    assert "header protected by hash no, " in " ".join(capsys.readouterr().out.split())
    now = load_detector(path).save(tmp_path / "now.trecall")
    assert describe(str(now))["header_protected_by_hash"] is True


@every_kind
def test_thresholds_are_stored_and_a_stored_one_that_contradicts_the_scores_is_damage(kind, tmp_path):
    old = DATA / f"old_{kind}.trecall"
    detector = load_detector(old)  # it stores none, so they are worked out
    assert "threshold" not in read_header(old)["calibration"]
    header, tensors = read_artifact(detector.save(tmp_path / "now.trecall"))
    stored = header["calibration"]
    assert (stored["threshold"], stored["pixel_threshold"]) == (detector.threshold_, detector.pixel_threshold_)
    # a number that the scores would not give, but that does not contradict their ranks: it is read, not worked out
    stored["threshold"] = float(np.nextafter(detector.threshold_, np.inf))
    moved = load_detector(write_artifact(tmp_path / "moved.trecall", header, tensors))
    assert moved.threshold_ == stored["threshold"] != detector.threshold_
    stored["threshold"] = detector.threshold_ / 2
    with pytest.raises(ModelFileError, match=r"is damaged: calibration\.threshold contradicts the scores"):
        load_detector(write_artifact(tmp_path / "wrong.trecall", header, tensors))
