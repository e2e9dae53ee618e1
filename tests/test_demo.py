"""`totalrecall demo`: pictures, models, overlays, reports and an index, from nothing."""

import os
import re
import subprocess
import sys

import cv2
import pytest
from safetensors.numpy import save_file

from tests.resnet_forward import random_weights
from totalrecall import PatchCore
from totalrecall.backbones import add
from totalrecall.cli import demo, main
from totalrecall.demo.pictures import KINDS

GOOD = demo._GOOD  # before `few` puts another number there


@pytest.fixture(scope="module")
def backbone(session_home, tmp_path_factory):
    """The name of a backbone of random weights: what is tested here is the wiring, not how well it finds."""
    weights = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(random_weights("resnet18", stages=3), weights)
    add("resnet18", weights, save_as="random18")
    yield "random18"
    (session_home / "backbones" / "random18.onnx").unlink()


@pytest.fixture(scope="module")
def few():
    """Few pictures; as many are held out, in proportion, as in the real demo."""
    patch = pytest.MonkeyPatch()
    for name, count in (("_GOOD", 5), ("_TEST_GOOD", 2), ("_DEFECTIVE", 3)):
        patch.setattr(demo, name, count)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def shown(backbone, few, tmp_path_factory):
    """The folder that a demo of the washer wrote."""
    out = tmp_path_factory.mktemp("demo") / "a folder"
    assert main(["demo", "--out", str(out), "--kinds", "washer", "--backbone", backbone, "--quiet"]) == 0
    return out


def test_it_writes_pictures_a_model_overlays_a_report_and_an_index(shown):
    assert {path.name for path in shown.iterdir()} == {".totalrecall-demo", "index.html", "washer"}
    assert {path.name for path in (shown / "washer").iterdir()} == {
        "overlays",
        "pictures",
        "report.html",
        "washer.trecall",
    }
    assert len(list((shown / "washer" / "pictures" / "train" / "good").glob("*.png"))) == 5
    overlays = {path.name for path in (shown / "washer" / "overlays").iterdir()}
    assert overlays == {"good-000.png", "good-001.png", "scratch-000.png", "dent-000.png", "missing-000.png"}
    assert cv2.imread(str(shown / "washer" / "overlays" / "dent-000.png")).shape[1] > 900


def test_the_index_says_that_the_pictures_are_synthetic_and_every_link_in_it_leads_somewhere(shown):
    page = (shown / "index.html").read_text(encoding="utf-8")
    assert "synthetic pictures, made by this program" in page
    links = re.findall(r'href="\./([^"]+)"', page)
    assert set(links) == {"washer/report.html", "washer/washer.trecall"}
    assert all((shown / link).is_file() for link in links)
    assert page.count("<img ") == 2  # one damaged, one good


def test_the_report_says_that_the_pictures_are_synthetic_and_shows_all_that_were_judged(shown):
    page = (shown / "washer" / "report.html").read_text(encoding="utf-8")
    assert "synthetic pictures, made by this program" in page
    assert page.count('alt="Overlay of ') == 5
    assert "5 good pictures, by 5-fold cross-validation" in page


def test_the_model_that_it_saved_scores_as_the_report_says(shown):
    detector = PatchCore.load(shown / "washer" / "washer.trecall")
    picture = shown / "washer" / "pictures" / "test" / "dent" / "000.png"
    score = re.search(r"<b>([\d.]+)</b> <bdi>dent/000.png", (shown / "washer" / "report.html").read_text("utf-8"))
    assert float(score[1]) == pytest.approx(detector.predict(picture).score, rel=2e-3)


def test_a_second_run_into_the_same_folder_works_and_tells_what_it_did(shown, backbone, few, capsys):
    assert main(["demo", "--out", str(shown), "--kinds", "washer", "washer", "--backbone", backbone]) == 0
    told = capsys.readouterr().out
    assert "Making synthetic pictures of 1 kind of part in" in told
    assert re.search(
        r"^washer +found +\d of 3 defects, \d false alarms? in 2 good; image AUROC [01]\.\d{3}", told, re.M
    )
    assert re.search(r"^Done in \d+\.\d s\. Now open .*index\.html$", told, re.M)
    assert "totalrecall fit FOLDER_OF_GOOD_PICTURES -o part.trecall --backbone random18" in told


def test_a_folder_with_other_pictures_is_refused_before_any_fit(backbone, few, tmp_path, capsys):
    stranger = tmp_path / "wood" / "pictures" / "train" / "good" / "mine.png"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"mine")
    (tmp_path / ".totalrecall-demo").write_bytes(b"")  # an earlier demo wrote this folder
    assert main(["demo", "--out", str(tmp_path), "--kinds", "wood", "--backbone", backbone, "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "already holds 1 other pictures, such as" in error
    assert "Name an empty folder, or remove that one." in error
    assert stranger.read_bytes() == b"mine"
    assert not (tmp_path / "index.html").exists()


def test_a_backbone_that_is_not_there_is_named_before_anything_is_written(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--backbone", "absent"]) == 3
    assert "No backbone is called 'absent'" in capsys.readouterr().err
    assert not out.exists()


def test_a_negative_seed_is_wrong_usage(backbone, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--backbone", backbone, "--seed", "-1"]) == 2
    assert "seed must be 0 or more, got -1." in capsys.readouterr().err


def test_the_false_alarm_rate_can_be_promised_from_the_pictures_held_out():
    assert 1 / (GOOD // 5 + 1) <= demo._RATE


def test_the_kinds_offered_are_those_that_can_be_drawn():
    assert demo._KINDS == KINDS


def test_to_show_its_help_it_loads_nothing_heavy():
    code = (
        "import sys; from totalrecall.cli import build_parser; build_parser(); "
        "print([name for name in ('numpy', 'cv2', 'openvino', 'onnx', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_command_that_it_prints_works_as_printed_where_the_shell_does_not_know_the_program(
    shown, backbone, few, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--out", str(shown), "--kinds", "washer", "--backbone", backbone]) == 0
    told = capsys.readouterr().out.splitlines()
    command = told[told.index("Judge the demo's pictures again:") + 1].strip()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(list((shown / "washer" / "heatmaps").glob("*"))) > 0


@pytest.mark.parametrize("name", ["index.html", "washer/washer.trecall", "washer/pictures/train/good/000.png"])
def test_a_demo_is_not_written_among_files_of_somebody_else(tmp_path, name, capsys):
    theirs = tmp_path / "mine" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"a week's work")
    assert main(["demo", "--out", str(tmp_path / "mine"), "--kinds", "washer"]) == 2
    assert f"would write among files that no demo wrote, such as {theirs}. Name another" in capsys.readouterr().err
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [theirs]
    assert theirs.read_bytes() == b"a week's work"


def test_a_demo_is_written_over_an_earlier_one_also_of_a_version_that_left_no_mark(backbone, few, tmp_path):
    out = tmp_path / "demo"
    typed = ["demo", "--out", str(out), "--kinds", "washer", "--backbone", backbone, "--quiet"]
    assert main(typed) == 0
    (out / "index.html").unlink()  # as after a demo that was ended early
    assert main(typed) == 0
    (out / ".totalrecall-demo").unlink()
    assert main(typed) == 0
    assert (out / ".totalrecall-demo").is_file()
