"""benchmark: cells and their keys, the journal, going on after a stop, bad cells, presets; and the command."""

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.commands import SMALL, complaint, run
from totalrecall.backbones import load
from totalrecall.benchmark import cell as benchmark_cell
from totalrecall.benchmark.cell import Cell, few_shots
from totalrecall.benchmark.page import write_benchmark_page
from totalrecall.benchmark.run import (
    Benchmark,
    Journal,
    check_settings,
    detector_settings,
    run_benchmark,
    weights_note,
)
from totalrecall.benchmark.tables import figures, metric_tables
from totalrecall.datasets import open_dataset
from totalrecall.errors import SettingError
from totalrecall.evaluation.evaluate import evaluate
from totalrecall.registry import KINDS, detector_class

OPTIONS = ["--size", "64", "--coreset", "0.1", "--precision", "f32", "--threads", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two categories of a few tiny pictures in the MVTec layout."""
    from totalrecall.demo.pictures import make_dataset

    folder = tmp_path_factory.mktemp("two")
    for seed, kind in enumerate(("washer", "wood")):
        make_dataset(folder / kind, kind=kind, good=6, test_good=3, defective=3, seed=seed, size=(64, 64))
    return folder


@pytest.fixture(scope="module")
def done(root, added, tmp_path_factory):
    """The folder of a finished run of the command, and what it printed."""
    from totalrecall.cli import main

    out = tmp_path_factory.mktemp("out")
    assert main(["benchmark", "mvtec", str(root), "--backbone", added, "--out", str(out), *OPTIONS, "--quiet"]) == 0
    return out


def small(root, added, **changes):
    wanted = Benchmark("mvtec", root, categories=["washer"], methods=["padim"], settings={**SMALL, "backbone": added})
    wanted = replace(wanted, settings={name: value for name, value in wanted.settings.items() if name != "coreset"})
    return replace(wanted, **changes)


def cell(root, **changes):
    settings = detector_settings("patchcore", {"size": 64})
    made = {"data": open_dataset("mvtec", root, category="washer"), "seed": 1, "settings": settings, **changes}
    return Cell("patchcore", made["data"], made["seed"], load("compact"), made["settings"], shots=made.get("shots"))


# ---------------------------------------------------------------------- the files of a run


def test_every_method_and_category_is_a_line_and_a_row(done):
    lines = [json.loads(line) for line in (done / "cells.jsonl").read_text().splitlines()]
    assert [(line["setup"]["category"], line["setup"]["method"]) for line in lines] == [
        (category, method) for category in ("wood", "washer") for method in KINDS
    ]
    rows = list(csv.DictReader((done / "results.csv").read_text().splitlines()))
    assert {(row["method"], row["category"]) for row in rows} == {
        (method, category) for method in KINDS for category in ("washer", "wood", "average")
    }
    (row,) = [row for row in rows if list(row.values())[:4] == ["padim", "all", "washer", "pixel_auroc"]]
    assert float(row["mean"]) == pytest.approx(100 * lines[4]["metrics"]["pixel_auroc"], rel=1e-4)


def test_a_line_holds_what_evaluate_measures_and_what_it_took(done, root, added):
    line = json.loads((done / "cells.jsonl").read_text().splitlines()[3])
    data = open_dataset("mvtec", root, category="washer")
    detector = detector_class("patchcore")(backbone=added, **SMALL).fit(data.train)
    expected = evaluate(detector, data.test)
    assert line["metrics"]["image_auroc"] == expected.image_auroc
    assert line["metrics"]["pixel_auroc"] == pytest.approx(expected.pixel_auroc, abs=1e-9)
    assert line["metrics"]["pixel_aupro"] == pytest.approx(expected.pixel_aupro, abs=1e-9)
    assert set(line["seconds"]) == {"features", "coreset", "calibration", "evaluate"}
    assert line["latency_ms"] > 0
    assert line["peak_memory"] > 10**7
    assert (line["model"]["vectors"], line["model"]["dimensions"]) == detector.bank_.vectors.shape
    assert line["pictures"] == {"train": 6, "test": 6, "pixels": 6}
    assert sum(line["histogram"]["good"]) == sum(line["histogram"]["bad"]) == 3


def test_the_worst_and_the_best_pictures_are_kept_small(done):
    line = json.loads((done / "cells.jsonl").read_text().splitlines()[0])
    shown = line["shown"]
    assert [one["why"] for one in shown[:2]] == ["defect that scores lowest", "good that scores highest"]
    assert len({one["path"] for one in shown}) == len(shown) == 6
    assert shown[0]["score"] <= shown[2]["score"]
    for one in shown:
        assert cv2.imread(str(done / "pictures" / one["file"])).shape[1] == 400


def test_the_page_is_one_small_file_with_curves_and_pictures(done):
    page = (done / "report.html").read_text()
    assert len(page) < 5_000_000
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<polyline") == 2 * 2 * len(KINDS)
    assert page.count("data:image/jpeg;base64,") == 6 * 2 * len(KINDS)
    assert page.count('aria-label="Scores of') == 2 * len(KINDS)


def test_the_page_of_a_whole_set_stays_small_and_says_what_is_left_out(done, tmp_path):
    line = json.loads((done / "cells.jsonl").read_text().splitlines()[0])
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)  # no picture packs worse
    cv2.imwrite(str(tmp_path / "noise.jpg"), noise)
    curve = [[at / 200, at / 200] for at in range(200)]
    line["curves"] = {"roc": curve, "pro": curve}
    line["shown"] = [{**one, "file": "noise.jpg"} for one in line["shown"]]
    lines = [
        {**line, "setup": {**line["setup"], "category": f"part {category}", "method": method, "shots": shots}}
        for category in range(15)
        for method in KINDS
        for shots in (1, 5, None)
    ]
    tables = metric_tables(figures(lines))
    page = tmp_path / "report.html"
    write_benchmark_page(page, title="all", notes=[], tables=tables, lines=lines, pictures=tmp_path)
    assert 3_000_000 < page.stat().st_size < 5_000_000
    assert "pictures are left out to keep this page small" in page.read_text()


def test_the_markdown_names_the_settings_and_has_a_table_a_metric(done):
    text = (done / "report.md").read_text()
    assert "padim: layers 1 2 3, scoring paper, size 64, resize squash, " in text  # by name, those that it chose itself
    for title in ("image AUROC", "image F1-max", "pixel AUROC", "pixel AUPRO 0.3"):
        assert f"## {title}, percent" in text
    assert "## What it took" in text


# ---------------------------------------------------------------------- going on after a stop


def test_a_second_run_measures_nothing_again(capsys, monkeypatch, done, root, added):
    before = (done / "cells.jsonl").read_bytes()
    monkeypatch.setattr("totalrecall.benchmark.run.measure_family", None)  # a call would be an error
    code, out, err = run(capsys, "benchmark", "mvtec", root, "--backbone", added, "--out", done, *OPTIONS)
    assert (code, err) == (0, [])
    assert out[0] == f"6 of 6 cells are done already, see {done / 'cells.jsonl'}"
    assert (done / "cells.jsonl").read_bytes() == before


def test_a_stopped_run_goes_on_where_it_stopped(root, added, tmp_path, monkeypatch):
    wanted = small(root, added, seeds=[1, 2, 3])
    measured, real = [], benchmark_cell.measure_family

    def measure_two(family, folder, progress=None):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(family[0].seed)
        return real(family, folder, progress)

    monkeypatch.setattr("totalrecall.benchmark.run.measure_family", measure_two)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(wanted, tmp_path)
    file = tmp_path / "cells.jsonl"
    file.write_bytes(file.read_bytes()[:-30])  # and the power went while the second line was written
    measured.clear()
    lines, bad = run_benchmark(wanted, tmp_path)
    assert (measured, bad) == ([2, 3], [])
    assert [line["setup"]["seed"] for line in lines] == [1, 2, 3]
    assert set(Journal(file).lines) == {line["key"] for line in lines}


def test_lines_that_are_torn_or_of_something_else_are_passed_over(tmp_path):
    file = tmp_path / "cells.jsonl"
    file.write_bytes(b'{"key": "a", "x": 1}\n\xff\n[1]\n{"y": 2}\n\n{"key": "b", "x"')
    journal = Journal(file)
    assert set(journal.lines) == {"a"}
    journal.append({"key": "c"})
    assert set(Journal(file).lines) == {"a", "c"}


def test_every_setting_makes_other_cells(root):
    settings = cell(root).settings
    changed = [
        {"seed": 2},
        {"shots": 3},
        *({"settings": {**settings, name: 7}} for name in settings),
        {"data": open_dataset("mvtec", root, category="wood")},
    ]
    keys = {cell(root, **changes).key for changes in [{}, *changed]}
    assert len(keys) == 1 + len(changed)
    assert cell(root).key == cell(root).key


def test_another_picture_in_the_set_makes_other_cells(root):
    data = open_dataset("mvtec", root, category="washer")
    assert cell(root, data=data).key != cell(root, data=replace(data, samples=data.samples[1:])).key


# ---------------------------------------------------------------------- what goes wrong


def test_a_bad_cell_does_not_stop_the_others(root, added, tmp_path, monkeypatch):
    real = benchmark_cell.measure_family

    def fail_once(family, folder, progress=None):
        if family[0].seed == 1:
            raise MemoryError("17 GB")
        return real(family, folder, progress)

    monkeypatch.setattr("totalrecall.benchmark.run.measure_family", fail_once)
    lines, bad = run_benchmark(small(root, added, seeds=[1, 2]), tmp_path)
    assert [(one.title, one.message) for one in bad] == [("padim washer seed 1", "MemoryError: 17 GB")]
    assert [line["setup"]["seed"] for line in lines] == [2]
    lines, bad = run_benchmark(small(root, added, seeds=[2]), tmp_path)
    assert (len(lines), bad) == (1, [])


def test_an_engine_or_a_device_that_is_not_there_is_told_once_and_the_code_is_2(
    capsys, root, added, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for options, message in (
        (["--engine", "onnxruntime"], "Engine onnxruntime needs the package onnxruntime, "),
        (["--device", "TPU"], "--device must be one of "),
    ):
        code, said = complaint(capsys, "benchmark", "mvtec", root, "--backbone", added, "--out", tmp_path, *options)
        assert (code, said.startswith(message)) == (2, True)


def test_a_picture_that_cannot_be_read_is_named_and_the_code_is_1(capsys, added, tmp_path):
    from totalrecall.demo.pictures import make_dataset

    root = make_dataset(tmp_path / "set", kind="wood", good=4, test_good=2, defective=2, size=(64, 64))
    broken = sorted((root / "train" / "good").iterdir())[0]
    broken.write_bytes(b"no picture")
    (root / "ground_truth").rename(root / "aside")
    options = ["--backbone", added, "--methods", "spade", "--size", "64", "--precision", "f32", "--threads", "1"]
    code, _, err = run(capsys, "benchmark", "mvtec", root, "--out", tmp_path / "out", *options)
    assert code == 1
    assert any(str(broken) in line for line in err)
    text = (tmp_path / "out" / "report.md").read_text()
    assert str(broken) in text
    assert "no mask marks a defect" in text  # why there is no pixel metric
    line = json.loads((tmp_path / "out" / "cells.jsonl").read_text())
    assert line["metrics"]["pixel_auroc"] is None
    assert line["curves"]["pro"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--categories", "bolt"], "categories must be among wood, washer, got 'bolt'"),
        (["--coreset", "10"], "--coreset must be over 0 and at most 1, got 10. For 10 percent write 0.1."),
        (
            ["--methods", "padim", "--coreset", "0.1"],
            "--coreset is only for patchcore, got --methods padim. Leave it out.",
        ),
    ],
)
def test_wrong_usage_is_one_line_before_any_work(capsys, root, added, tmp_path, options, message):
    code, _, err = run(capsys, "benchmark", "mvtec", root, "--backbone", added, "--out", tmp_path / "out", *options)
    assert code == 2
    assert len(err) == 1
    assert message in err[0]
    assert not (tmp_path / "out" / "cells.jsonl").exists()


@pytest.mark.parametrize("word", ["0", "-1", "many"])
def test_shots_are_numbers_or_all(capsys, root, tmp_path, word):
    with pytest.raises(SystemExit):
        run(capsys, "benchmark", "mvtec", root, "--out", tmp_path, "--shots", word)
    assert "must be a number of pictures, at least 1, or all" in capsys.readouterr().err


# ---------------------------------------------------------------------- settings, presets, few pictures


def test_low_shot_fits_on_few_pictures_and_gives_a_table(capsys, root, added, tmp_path):
    options = ["--backbone", added, "--methods", "spade", "--categories", "wood", "--size", "64", "--threads", "1"]
    code, out, _ = run(
        capsys, "benchmark", "mvtec", root, "--out", tmp_path, "--shots", "1", "4", "--seeds", "1", "2", *options
    )
    assert code == 0
    lines = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert [line["pictures"]["train"] for line in lines] == [1, 4, 1, 4]
    assert "[1/4] spade wood seed 1, 1 picture: image AUROC " in out[0]
    assert " left" in out[0]
    assert "## Low shot" in (tmp_path / "report.md").read_text()
    assert " ± " in (tmp_path / "report.md").read_text()


def test_more_shots_hold_the_fewer_and_a_seed_makes_others():
    pictures = [Path(str(at)) for at in range(50)]
    assert few_shots(pictures, 10, seed=1)[:5] == few_shots(pictures, 5, seed=1)
    assert few_shots(pictures, 5, seed=1) != few_shots(pictures, 5, seed=2)
    assert len(set(few_shots(pictures, 99, seed=1))) == 50
    assert few_shots(pictures, None, seed=1) == pictures


def test_every_option_of_a_detector_reaches_its_cells(root, added, monkeypatch, tmp_path):
    from totalrecall.cli import main

    seen = []
    monkeypatch.setattr(
        "totalrecall.benchmark.run.run_benchmark", lambda wanted, *_, **__: seen.append(wanted) or ([], [])
    )
    options = ["--stride", "2", "--false-alarm-rate", "0.05", "--neighbours", "3", "--holdout", "0.1"]
    main(["benchmark", "mvtec", str(root), "--backbone", added, "--out", str(tmp_path), *options])
    assert seen[0].settings == {
        "backbone": added, "stride": 2, "false_alarm_rate": 0.05, "neighbours": 3, "holdout": 0.1,
    }  # fmt: skip


def test_a_setting_of_one_method_is_fine_beside_others():
    check_settings(["padim", "patchcore"], {"coreset": 0.1, "dimensions": 50})
    with pytest.raises(SettingError, match="dimensions is only for padim, got methods spade patchcore"):
        check_settings(["spade", "patchcore"], {"dimensions": 50})


def test_a_setting_goes_to_the_methods_that_allow_its_value():
    assert detector_settings("patchcore", {"scoring": "max"})["scoring"] == "max"
    assert detector_settings("padim", {"scoring": "max"})["scoring"] == "paper"
    assert detector_settings("spade", {"scoring": "extent"})["scoring"] == "extent"
    check_settings(["padim", "patchcore"], {"scoring": "max"})
    with pytest.raises(SettingError, match="scoring must be one of paper, extent, got 'max'"):
        check_settings(["padim", "spade"], {"scoring": "max"})


def test_the_peak_is_the_cells_own_where_the_system_counts_it_so(root, added, tmp_path):
    waste = np.ones(40 * 2**20)  # 320 MB, gone before the cell begins
    assert math.isfinite(waste.sum())
    del waste
    (line,), _ = run_benchmark(small(root, added), tmp_path)
    if line["peak_of"] == "process":
        pytest.skip("this system does not let a process reset its peak")
    from totalrecall.system.memory import resident_memory

    assert line["peak_memory"] < resident_memory() + 150e6


def test_official_categories_get_their_published_columns(capsys, root, added, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "bottle").symlink_to(root / "wood", target_is_directory=True)
    options = ["--backbone", added, "--methods", "padim", "--size", "64", "--threads", "1", "--quiet"]
    run(capsys, "benchmark", "mvtec", tmp_path / "set", "--out", tmp_path / "out", *options)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| category | padim | published (resnet18, anomalib) | difference |" in text
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines()))
    for row in rows:
        if row["published"]:
            assert float(row["difference"]) == pytest.approx(float(row["mean"]) - float(row["published"]), abs=0.002)
    assert {row["metric"] for row in rows if row["published"]} >= {"image_auroc", "pixel_auroc", "pixel_aupro"}


# ---------------------------------------------------------------------- what the paper's preset sees


def test_with_the_papers_crop_pixels_are_measured_inside_it(root, added, tmp_path):
    from totalrecall.evaluation.metrics import PixelMetrics

    settings = {"backbone": added, "size": 72, "crop": 48, "coreset": 0.1, "descriptor": "concat", "threads": 1}
    benchmark = Benchmark("mvtec", root, ["wood"], methods=["patchcore"], settings=settings, preset="paper")
    assert benchmark.seen_only
    (line,), _ = run_benchmark(benchmark, tmp_path)
    data = open_dataset("mvtec", root, category="wood", seed=42)
    made = detector_settings("patchcore", settings, "paper")
    detector = detector_class("patchcore")(backbone=added, seed=42, threads=1, **made).fit(data.train)
    pixels = PixelMetrics()
    for sample in data.test:
        result = detector.predict(sample.path)
        mask = np.zeros((64, 64), bool) if sample.mask is None else cv2.imread(str(sample.mask), 0) > 127
        inside = (slice(11, 53), slice(11, 53))  # 48 of 72 in the middle, on 64: from 10.67 to 53.33
        pixels.add(np.ascontiguousarray(result.anomaly_map[inside]), np.ascontiguousarray(mask[inside]))
    assert line["metrics"]["pixel_auroc"] == pytest.approx(pixels.auroc(), abs=1e-9)
    assert line["setup"]["pixels"] == "seen"


def test_without_a_crop_all_pixels_count_under_the_papers_preset_too():
    assert not Benchmark("mvtec", Path(), ["bottle"], preset="paper", settings={"resize": "squash"}).seen_only
    assert not Benchmark("mvtec", Path(), ["bottle"], preset="anomalib").seen_only


def test_a_preset_says_so_when_the_backbone_here_is_of_other_weights(capsys, root, added, tmp_path, monkeypatch):
    from totalrecall import backbones

    (info,) = [info for info in backbones.available() if info.name == added]
    right = "hf://timm/wide_resnet50_2.tv_in1k@abc/model.safetensors, sha256 0"
    for source, said in (("a stick", "comes from a stick. To get those weights"), (right, None)):
        here = replace(info, name="wide_resnet50_2", source=source)
        monkeypatch.setattr("totalrecall.benchmark.run.available", lambda here=here: [here])
        note = weights_note(Benchmark("mvtec", root, ["wood"], preset="paper"))
        assert (note is None) == (said is None)
        assert said is None or said in note
        assert weights_note(Benchmark("mvtec", root, ["wood"])) is None
        assert weights_note(Benchmark("mvtec", root, ["wood"], preset="paper", settings={"backbone": added})) is None


def test_a_long_note_of_the_page_is_not_cut(done, tmp_path):
    from totalrecall.benchmark.tables import Table

    note = "Published: " + ", ".join(f"openvinotoolkit/anomalib of {at}" for at in range(60)) + "."
    table = Table("figures", ["a"], [["b"]], note)
    page = write_benchmark_page(tmp_path / "r.html", title="t", notes=[note], tables=[table], lines=[], pictures=done)
    assert page.read_text().count(note) == 2
