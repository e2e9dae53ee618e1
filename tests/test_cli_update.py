"""cli update and teach: as a person types them, and what is left when they are killed."""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tests.commands import run
from totalrecall import load_detector
from totalrecall.cli.common import size_change
from totalrecall.cli.update import _tell
from totalrecall.detectors.changes import Change, Changed
from totalrecall.detectors.model_file import read_header
from totalrecall.errors import DataError
from totalrecall.system.files import exclusive


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture
def own(model, tmp_path):
    """A model to change."""
    return Path(shutil.copy(model, tmp_path / "part.trecall"))


@pytest.fixture
def fresh(parts, tmp_path):
    """Good pictures unlike those that the model has seen: negatives of some, half of each."""
    folder = tmp_path / "fresh"
    folder.mkdir()
    for path in (parts / "test" / "good").iterdir():
        picture = cv2.imread(str(path))
        picture[:40] = 255 - picture[:40]
        cv2.imwrite(str(folder / path.name), picture)
    return folder


@pytest.fixture
def defects(parts):
    return sorted(path for folder in (parts / "test").iterdir() if folder.name != "good" for path in folder.iterdir())


def fitted_by(capsys, method, backbone, pictures, folder):
    """A model of some method, fitted by the command."""
    own = folder / "part.trecall"
    options = ["--method", method, "--backbone", backbone, "--size", "64", "--precision", "f32", "--quiet"]
    run(capsys, "fit", pictures if (pictures / "good").is_dir() else pictures / "train", "-o", own, *options)
    return own


def test_one_vector_is_said_as_one(capsys):
    assert size_change("patchcore", 1, 2) == "bank of 1 vector, now 2"
    assert size_change("padim", 1, 2) == "model of 1 picture, now 2"
    entered = Changed("a.png", "0" * 64, 1, before=1.0, after=0.5)
    change = Change("add", [entered], vectors=(9, 10), threshold=(1.0, 1.0))
    _tell(argparse.Namespace(quiet=False, dry_run=False), change, SimpleNamespace(kind="patchcore"))
    assert "  a.png: score 1, now 0.5; 1 vector" in capsys.readouterr().out.splitlines()


def test_update_says_what_it_did(capsys, own, fresh, model):
    code, out, err = run(capsys, "update", own, "--add", fresh)
    assert (code, err) == (0, [])
    step = load_detector(own).history_[0]
    assert out[0] == f"Added 3 pictures: bank of 64 vectors, now {step.vectors[1]}"
    assert sum(line.startswith(f"  {fresh}/") and "score " in line for line in out) == 3
    assert [line for line in out if line.startswith("Threshold: score ")]
    code, out, _ = run(capsys, "update", own, "--undo")
    assert code == 0
    assert out[0].startswith(f"Undid add of {step.when} (3 pictures): bank of {step.vectors[1]} vectors, now 64; ")
    assert digest(own) == digest(model)


def test_update_tells_a_program_as_json(capsys, own, fresh, tmp_path):
    target = tmp_path / "done.json"
    code, out, _ = run(capsys, "update", own, "--add", fresh, "--json", target, "--quiet")
    assert (code, out) == (0, [])
    told = json.loads(target.read_text())
    assert (told["what"], told["dry_run"], told["skipped"], told["known"]) == ("add", False, [], [])
    assert [one["path"] for one in told["pictures"]] == [str(path) for path in sorted(fresh.iterdir())]
    assert told["vectors"][1] == len(load_detector(own).bank_)
    assert run(capsys, "update", own, "--undo", "--json", target, "--quiet")[0] == 0
    assert json.loads(target.read_text())["undone"] == "add"


def test_a_dry_run_changes_nothing(capsys, own, fresh, model):
    for what in (["--add", fresh], ["--remove", str(load_detector(own).pictures_[0].path)]):
        code, out, _ = run(capsys, "update", own, *what, "--dry-run")
        assert (code, out[-1]) == (0, f"Dry run: {own} was not changed")
        assert digest(own) == digest(model)
    run(capsys, "update", own, "--add", fresh)
    changed = digest(own)
    run(capsys, "update", own, "--undo", "--dry-run")
    assert digest(own) == changed


def test_one_bad_picture_does_not_stop_the_others(capsys, own, fresh, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    known = load_detector(own).pictures_[2].path
    code, out, err = run(capsys, "update", own, "--add", fresh, tmp_path / "text.png", known)
    assert code == 1
    assert len(err) == 1
    assert err[0].startswith(f"totalrecall: {tmp_path / 'text.png'} is not a picture")
    assert out[0] == f"{known}: already in the model, left out"
    assert out[1].startswith("Added 3 pictures")


def test_pictures_are_removed_by_name(capsys, own, fresh, model):
    run(capsys, "update", own, "--add", fresh)
    code, out, err = run(capsys, "update", own, "--remove", *sorted(fresh.iterdir()))
    assert (code, err) == (0, [])
    assert out[0].startswith("Undid the update that added 3 pictures: bank of ")
    assert digest(own) == digest(model)
    gone = load_detector(own).pictures_[4]
    code, out, err = run(capsys, "update", own, "--remove", gone.sha256, "nothing.png")
    assert code == 1
    assert out[0].startswith("Removed 1 picture: bank of 64 vectors, now ")
    assert out[2].startswith("  This threshold is an estimate, because pictures of the fit were removed")
    assert err == [
        "totalrecall: nothing.png: the model learnt no such picture. Give its path at the fit, or its SHA-256."
    ]
    assert gone not in load_detector(own).pictures_


def test_info_shows_the_history_and_a_taught_threshold(capsys, own, fresh, parts):
    run(capsys, "update", own, "--add", fresh)
    run(capsys, "teach", own, "--defect", *sorted((parts / "train" / "good").iterdir())[:2], "--apply")
    detector = load_detector(own)
    _, out, _ = run(capsys, "info", own)
    add, teach = detector.history_
    first = out.index("history since the fit") + 1
    vectors = f"bank of {add.vectors[0]} vectors, then {add.vectors[1]}"
    assert out[first].startswith(f"{add.when} add, 3 pictures, {vectors}, threshold ")
    assert out[first + 1].startswith(f"{teach.when} teach, 2 pictures, threshold ")
    facts = json.loads("\n".join(run(capsys, "info", own, "--json", "-")[1]))
    assert facts["threshold_was_taught"] is True
    assert facts["threshold"] == detector.threshold_
    assert [step["what"] for step in facts["history"]] == ["add", "teach"]
    for step in facts["history"]:
        assert all(len(one["sha256"]) == 64 for one in step["pictures"])


def test_wrong_use_and_wrong_files_are_named(capsys, own, fresh, tmp_path):
    assert run(capsys, "update", tmp_path / "no.trecall", "--undo")[0] == 3
    code, _, err = run(capsys, "update", own, "--undo")
    assert (code, err) == (2, ["totalrecall: There is nothing to undo: the model is as it was fitted."])
    with pytest.raises(SystemExit) as caught:
        run(capsys, "update", own, "--undo", "--add", fresh)
    assert caught.value.code == 2


@pytest.mark.parametrize("method", ["padim", "spade"])
def test_pictures_neither_join_nor_leave_a_model_of_another_kind(capsys, added, parts, fresh, tmp_path, method):
    own = fitted_by(capsys, method, added, parts, tmp_path)
    before = digest(own)
    for what in ("add", "remove"):
        code, out, err = run(capsys, "update", own, f"--{what}", fresh)
        assert (code, out, len(err)) == (2, [], 1)
        assert err[0].startswith(f"totalrecall: --{what} works on PatchCore models only, and this is a ")
        assert "Fit it again" in err[0]
        assert digest(own) == before
    code, out, err = run(capsys, "update", own, "--false-alarm-rate", "0.2")
    assert (code, err) == (0, [])
    assert load_detector(own).calibration_.rate == 0.2
    assert run(capsys, "update", own, "--undo")[0] == 0
    assert digest(own) == before


@pytest.mark.parametrize("method", ["patchcore", "padim", "spade"])
def test_every_kind_is_written_whole_or_not_at_all_and_over_what_was_read_alone(
    capsys, added, parts, fresh, tmp_path, method, monkeypatch
):
    """The one way of writing that the killed updates below are about; here it is killed where the new file is whole."""
    own = fitted_by(capsys, method, added, parts, tmp_path)
    before, given = digest(own), []
    change = ["--add", fresh] if method == "patchcore" else ["--threshold", "3"]

    def killed(path, write, *, replacing):
        given.append((Path(path), replacing))
        with (tmp_path / ".part.trecall.abc.part").open("wb") as file:
            write(file)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("totalrecall.detectors.model_file.write_atomically", killed)
        assert run(capsys, "update", own, *change)[0] != 0
    assert given == [(own, before)]
    assert digest(own) == before
    assert run(capsys, "update", own, *change)[0] == 0
    assert len(load_detector(own).history_) == 1


# ---------------------------------------------------------------------- teach


@pytest.mark.parametrize("method", ["patchcore", "padim", "spade"])
def test_teach_says_what_it_costs_and_applies_it_on_request(capsys, added, parts, tmp_path, method):
    own = fitted_by(capsys, method, added, parts, tmp_path)
    before, detector = digest(own), load_detector(own)
    missed = min((parts / "train" / "good").iterdir(), key=lambda path: detector.predict(path).score)
    threshold = detector.threshold_
    code, out, err = run(capsys, "teach", own, "--defect", missed)
    assert (code, err, digest(own)) == (0, [], before)
    assert out[0].startswith(f"{missed}: score ")
    assert out[0].endswith(", missed")
    assert out[1].startswith("  A threshold of ")
    assert "false alarms" in out[1]
    assert out[-1].endswith("Nothing was changed: --apply sets it.")
    code, out, _ = run(capsys, "teach", own, "--defect", missed, "--apply")
    assert (code, out[-2][:17]) == (0, "Threshold: score ")
    assert ", taught by known defects" in out[-1]
    detector = load_detector(own)
    assert detector.threshold_ < threshold
    assert detector.predict(missed).is_anomalous
    assert run(capsys, "update", own, "--undo")[0] == 0
    assert digest(own) == before


def test_teach_leaves_a_caught_defect_alone(capsys, own, fresh, model):
    code, out, _ = run(capsys, "teach", own, "--defect", fresh, "--apply")
    assert code == 0
    assert out[-1].startswith("Nothing to teach: the threshold ")
    assert digest(own) == digest(model)


def test_teach_tells_a_program_as_json(capsys, own, defects, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    code, out, err = run(capsys, "teach", own, "--defect", *defects, tmp_path / "text.png", "--json", "-")
    told = json.loads("\n".join(out))
    assert (code, len(told["defects"]), len(told["skipped"])) == (1, len(defects), 1)
    assert told["applied"] is False
    assert {"path", "score", "p_value", "caught", "threshold", "false_alarm_rate"} <= told["defects"][0].keys()
    assert any(line.startswith(f"totalrecall: {tmp_path / 'text.png'}") for line in err)


# ---------------------------------------------------------------------- two at once, and killed ones


def test_two_updates_at_once_are_refused(capsys, own, fresh, model):
    with exclusive(own):
        code, _, err = run(capsys, "update", own, "--add", fresh)
    assert (code, err) == (
        1,
        [f"totalrecall: {own} is being updated by another program. Run the command again when it is done."],
    )
    assert digest(own) == digest(model)
    assert run(capsys, "update", own, "--add", fresh)[0] == 0


def test_a_file_that_was_written_meanwhile_is_left_as_it_is(own, fresh):
    detector = load_detector(own)
    found = digest(own)
    detector.update(add=fresh)
    own.write_bytes(own.read_bytes() + b" ")
    other, files = digest(own), sorted(own.parent.iterdir())
    with pytest.raises(DataError, match="was written by another program meanwhile; it is left as it is"):
        detector.save(own, replacing=found)
    assert digest(own) == other
    assert sorted(own.parent.iterdir()) == files


def test_what_a_killed_program_left_is_removed_when_it_is_old(own):
    old, new = own.parent / f".{own.name}.abc.part", own.parent / f".{own.name}.def.part"
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 1000,) * 2)
    with exclusive(own):
        assert (old.exists(), new.exists()) == (False, True)


def test_a_killed_update_leaves_the_old_model_or_the_new(own, fresh, model):
    """A few moments of a real process; `benchmarks/update.py` takes fifty."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "totalrecall", "update", str(own), "--add", str(fresh), "--quiet"]
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True)
    whole = time.perf_counter() - began
    new = np.sort(load_detector(own).score(sorted(fresh.iterdir())))
    for share in (0.2, 0.6, 0.9, 0.97, 1.0):
        shutil.copy(model, own)
        process = subprocess.Popen(command, env=environment)
        time.sleep(share * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if digest(own) != digest(model):
            assert np.allclose(np.sort(load_detector(own).score(sorted(fresh.iterdir()))), new)
            assert len(read_header(own)["history"]) == 1
    shutil.copy(model, own)
    subprocess.run(command, env=environment, check=True)  # whatever the killed ones left is not in the way
    assert load_detector(own).history_
