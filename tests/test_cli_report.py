"""cli: `predict --report` and `evaluate --report`, and the functions for a Python user."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.commands import complaint, interrupt_after_one_picture, run, small, spoil
from tests.report_pages import Reader
from totalrecall import PatchCore, load_detector
from totalrecall.cli import main
from totalrecall.datasets import open_dataset
from totalrecall.errors import DataError
from totalrecall.evaluation.evaluate import evaluate
from totalrecall.reports import report_pictures
from totalrecall.reports.writer import ReportWriter

HOSTILE = "<img src=x onerror=alert(1)>&'\"\u202e.png"


def read(path):
    """Return the page's text and its words; that it is whole HTML is asserted."""
    text = path.read_text(encoding="utf-8")
    return text, Reader(text).words


@pytest.fixture(scope="module")
def models(added, parts, model, tmp_path_factory):
    """A model of `parts` by each method, and a PatchCore without a threshold."""
    folder = tmp_path_factory.mktemp("models")
    others = {name: ["--method", name, "--precision", "f32"] for name in ("padim", "spade")}
    others["unjudged"] = ["--holdout", "0", "--coreset", "0.1", "--at-least", "1", "--precision", "f32"]
    for name, options in others.items():
        fit = ["fit", str(parts / "train" / "good"), "-o", str(folder / name), "--backbone", added, "--size", "64"]
        assert main([*fit, *options, "-q"]) == 0
    return {"patchcore": model, **{name: folder / name for name in others}}


def test_predict_writes_scores_threshold_overlays_and_patches(capsys, model, parts, tmp_path):
    target = tmp_path / "new" / "report.html"
    options = ["--report", target, "--parts-per-day", "11", "--good-pictures", parts / "train"]
    code, out, err = run(capsys, "predict", model, parts / "test", *options)
    assert (code, err) == (0, [])
    assert re.fullmatch(rf"Wrote the report {re.escape(str(target))} \(\d+ kB\)", out[-1])
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    text, words = read(target)
    assert text.count('alt="Overlay of ') == 6
    assert text.count('alt="Worst patch of ') == text.count('alt="Nearest good patch, of ') == 6
    assert {"What the threshold promises", "Scores", "All pictures", str(model), str(parts / "test")} <= set(words)
    assert any("for 11 good parts per day" in word for word in words)
    assert "labelled" not in text
    assert "known good" not in text


def loaded(code: str, *words: str) -> list[str]:
    """Return which of some modules a new process has imported after some code."""
    script = f"import sys\n{code}\nprint(*sorted(set({words}) & sys.modules.keys()), file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    return done.stderr.splitlines()[-1].split()


def test_predict_and_evaluate_import_the_report_only_to_write_one(model, parts, tmp_path):
    for command in (
        ["predict", str(model), str(parts / "test")],
        ["evaluate", str(model), str(parts), "--layout", "mvtec"],
    ):
        for options, expected in (
            ([], []),
            (["--report", str(tmp_path / "r.html")], ["jinja2", "totalrecall.reports"]),
        ):
            code = f"from totalrecall.cli import main\nassert main({[*command, '-q', *options]}) == 0"
            assert loaded(code, "jinja2", "totalrecall.reports") == expected


def test_a_page_alone_needs_no_detector_and_a_plot_no_template():
    code = "import totalrecall.reports.page, totalrecall.reports.plots"
    assert loaded(code, "jinja2", "openvino", "totalrecall.datasets", "totalrecall.detectors") == []


def test_evaluate_adds_the_metrics_the_curve_and_the_labels(capsys, model, parts, tmp_path):
    target = tmp_path / "report.html"
    code, out, _ = run(capsys, "evaluate", model, parts, "--layout", "mvtec", "--report", target)
    assert code == 0
    assert out[-1].startswith(f"Wrote the report {target} (")
    text, words = read(target)
    figure = next(line.split()[-1] for line in out if line.startswith("image AUROC"))
    assert f"<dt>image AUROC</dt><dd>{figure}</dd>" in text
    headings = re.findall(r"<h2>([^<]*)</h2>", text)
    assert headings.index("Good against defective") < headings.index("Defects with the lowest scores")
    assert {"known good (3)", "known defective (3)", "labelled good"} <= set(words)
    assert any("an assumed number" in word for word in words)
    defects = {sample.defect for sample in open_dataset("mvtec", parts).test if sample.label}
    assert {f"labelled {defect}" for defect in defects} <= set(words)


@pytest.mark.parametrize("kind", ["patchcore", "padim", "spade", "unjudged"])
def test_every_method_has_its_report_and_so_has_a_model_without_threshold(capsys, models, parts, tmp_path, kind):
    for command in (["predict", models[kind], parts / "test"], ["evaluate", models[kind], parts, "--layout", "mvtec"]):
        code, _, err = run(capsys, *command, "--report", tmp_path / "r.html")
        assert (code, [line for line in err if "gives no verdict" not in line]) == (0, [])
        text, words = read(tmp_path / "r.html")
        assert text.count('alt="Overlay of ') == 6
        assert ("no verdict" in words) is (kind == "unjudged")
        assert ("PaDiM compares with statistics of all good pictures, so there is no nearest good picture to show."
                in words) is (kind == "padim")  # fmt: skip


def test_a_loaded_model_opens_no_picture_that_it_names_unless_its_folder_is_named(capsys, model, parts, tmp_path):
    """A stranger's model could name any file of this machine; its bytes would show in the report."""
    options = ["predict", model, parts / "test", "--report", tmp_path / "r.html"]
    assert run(capsys, *options)[0] == 0
    text, words = read(tmp_path / "r.html")
    assert "Nearest good patch" not in text
    # the folder of the test pictures was looked through; those learnt lie where they lay all the same
    assert "is not there any more" not in text
    assert sum("To see it, name its folder: --good-pictures DIR" in word for word in words) == 6
    pictures = sorted((parts / "test").rglob("*.png"))
    assert run(capsys, *options[:2], *pictures, *options[3:])[0] == 0
    assert sum("--good-pictures DIR" in word for word in read(tmp_path / "r.html")[1]) == 6
    moved = shutil.copytree(parts / "train" / "good", tmp_path / "moved" / "elsewhere")
    assert run(capsys, *options, "--good-pictures", moved)[0] == 0
    assert read(tmp_path / "r.html")[0].count('alt="Nearest good patch, of ') == 6


def test_a_detector_that_was_fitted_here_shows_the_pictures_that_it_was_given(added, parts, tmp_path):
    detector = PatchCore(backbone=added, size=64, coreset=0.1, at_least=1, precision="f32")
    detector.fit(parts / "train" / "good")
    text = report_pictures(detector, parts / "test", tmp_path / "p.html").read_text(encoding="utf-8")
    assert text.count('alt="Nearest good patch, of ') == 6
    loaded = PatchCore.load(detector.save(tmp_path / "m.trecall"))
    text = report_pictures(loaded, parts / "test", tmp_path / "p.html").read_text(encoding="utf-8")
    assert text.count('alt="Nearest good patch, of ') == 0
    text = report_pictures(loaded, parts / "test", tmp_path / "p.html", good_pictures=parts).read_text(encoding="utf-8")
    assert text.count('alt="Nearest good patch, of ') == 6


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../../../etc/hostname", "C:\\x\\a.png", "..", "", "a\0b", "//h/s/a.png"]
)
def test_no_path_of_a_model_leads_out_of_the_folder_that_was_named(tmp_path, name):
    from types import SimpleNamespace

    from totalrecall.reports.good_pictures import GoodPictures

    learnt = SimpleNamespace(report_=None, pictures_=[SimpleNamespace(path=name, sha256="0")])
    for place in GoodPictures(learnt, [tmp_path])._places(name):
        assert place.resolve().is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--good-pictures", "."], "--good-pictures is only for --report, got .. Write --report FILE.html."),
        (["--report", "r.html", "--good-pictures", "no"], "--good-pictures must be a folder, got no. Name the folder"),
    ],
)
def test_good_pictures_are_a_folder_and_for_a_report(capsys, model, parts, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "predict", model, parts / "test", *options)
    assert code == 2
    assert message in err[-1]


def test_broken_pictures_are_named_in_the_report_and_the_exit_code_is_1(capsys, model, parts, tmp_path):
    folder = shutil.copytree(parts / "train" / "good", tmp_path / "line")
    spoil(folder)
    assert run(capsys, "predict", model, folder, "--report", tmp_path / "r.html")[0] == 1
    text, words = read(tmp_path / "r.html")
    assert "<dt>unreadable</dt><dd>3</dd>" in text
    assert {str(folder / "005_empty.jpg"), "is empty (0 bytes)."} <= set(words)
    assert text.count('<tr><th scope="row"><span class="rank">') == 10
    (tmp_path / "one.png").touch()
    assert run(capsys, "predict", model, tmp_path / "one.png", "--report", tmp_path / "r.html")[0] == 1
    assert "<dt>unreadable</dt><dd>1</dd>" in read(tmp_path / "r.html")[0]


def test_a_broken_picture_and_a_lost_mask_are_named_once_by_evaluate(capsys, model, parts, tmp_path):
    root = shutil.copytree(parts, tmp_path / "set")
    (root / "test" / "good" / "001.png").write_bytes(b"")
    mask = sorted((root / "ground_truth").rglob("*.png"))[0]
    mask.write_bytes(b"no picture")
    code, _, err = run(capsys, "evaluate", model, root, "--layout", "mvtec", "--report", tmp_path / "r.html")
    assert (code, len(err)) == (1, 2)
    text, words = read(tmp_path / "r.html")
    assert "<dt>unreadable</dt><dd>2</dd>" in text
    assert words.count(str(root / "test" / "good" / "001.png")) == 1
    assert any(str(mask) in word for word in words)


def test_names_that_are_mark_up_stay_text(capsys, model, parts, tmp_path):
    shutil.copy(parts / "test" / "good" / "000.png", tmp_path / HOSTILE)
    assert run(capsys, "predict", model, tmp_path / HOSTILE, "--report", tmp_path / "r.html")[0] == 0
    text, words = read(tmp_path / "r.html")
    assert {tag for tag, attributes in Reader(text).tags if "onerror" in attributes} == set()
    assert "\u202e" not in text
    assert any(word.endswith("<img src=x onerror=alert(1)>&'\"�.png") for word in words)


def test_a_good_picture_that_is_gone_or_another_file_now_is_not_shown_beside(capsys, added, parts, tmp_path):
    good = shutil.copytree(parts / "train" / "good", tmp_path / "good")
    fitted = tmp_path / "m.trecall"
    assert run(capsys, "fit", good, "-o", fitted, *small(added))[0] == 0
    for number, path in enumerate(sorted(good.iterdir())):
        path.unlink()
        if number % 2:
            shutil.copy(parts / "test" / "good" / "000.png", path)
    options = ["--report", tmp_path / "r.html", "--good-pictures", good]
    assert run(capsys, "predict", fitted, parts / "test", *options)[0] == 0
    text, words = read(tmp_path / "r.html")
    assert "Worst patch of" not in text
    assert sum("was not found where pictures were looked for, or has been changed since" in word for word in words) == 6


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--report {folder}", 1, "Cannot write {folder}: it is a folder. Name a file in it."),
        (
            "--report {file}/r.html",
            1,
            "Cannot write {file}/r.html: {file} is a file. Name a folder that can be written.",
        ),
        ("--report -", 2, "--report must name a file, got -. Write --report FILE.html."),
        ("--report {model}", 2, "--report {model} would write over {model}, given as MODEL. Name another file."),
        (
            "--json {file} --report {file}",
            2,
            "--json and --report must be two files, got {file} for both.",
        ),
        (
            "--report x.png",
            2,
            "--report x.png is named like a picture, and one of yours could be lost. Name it otherwise.",
        ),
        ("--parts-per-day 5", 2, "--parts-per-day is only for --report, got 5. Write --report FILE.html."),
        ("--report {folder}/r.html --parts-per-day 0", 2, "--parts-per-day must be at least 1, got 0."),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    capsys, monkeypatch, model, parts, tmp_path, options, code, message
):
    def work(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("totalrecall.registry.load_detector", work)
    (tmp_path / "f").touch()
    names = {"folder": tmp_path, "file": tmp_path / "f", "model": model}
    told = (code, message.format(**names))
    given = options.format(**names).split()
    assert complaint(capsys, "predict", model, parts / "test", *given) == told
    assert complaint(capsys, "evaluate", model, parts, "--layout", "mvtec", *given) == told
    assert model.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_an_interrupted_predict_leaves_the_old_report_and_nothing_half(capsys, monkeypatch, model, parts, tmp_path):
    target = tmp_path / "r.html"
    target.write_text("old")
    interrupt_after_one_picture(monkeypatch)
    assert run(capsys, "predict", model, parts / "test", "--report", target)[0] == 130
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_python_user_has_both_reports(model, parts, tmp_path):
    detector = load_detector(model)
    path = report_pictures(detector, parts / "test", tmp_path / "p.html", title="Mine", parts_per_day=7)
    assert {"Mine", "All pictures"} <= set(read(path)[1])
    report = ReportWriter(tmp_path / "e.html", detector)
    measured = evaluate(detector, open_dataset("mvtec", parts).test, heard=report.add_sample)
    report.write("Measured", measured=measured)
    assert "Good against defective" in read(tmp_path / "e.html")[1]
    with pytest.raises(DataError, match="it is a folder"):
        report_pictures(detector, parts / "test", tmp_path)


def test_nothing_large_is_kept_of_a_result(model, parts, tmp_path):
    detector = load_detector(model)
    writer = ReportWriter(tmp_path / "r.html", detector)
    result = detector.predict(parts / "test" / "good" / "000.png")
    writer.add(result.path, result)
    (entry,) = writer._entries
    assert entry.overlay is None
    assert not [value for value in vars(entry).values() if hasattr(value, "nbytes")]
