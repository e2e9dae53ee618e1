"""benchmark --ablate: the rows, cells that share a fit, going on after a stop, the table; and the command."""

import csv
import json
from pathlib import Path

import pytest

from tests.commands import SMALL, run
from totalrecall.backbones import load
from totalrecall.benchmark import cell as benchmark_cell
from totalrecall.benchmark.ablation import FACTORS, ablation_csv, ablation_tables, run_ablation, variants
from totalrecall.benchmark.run import Benchmark, detector_settings, run_benchmark
from totalrecall.cli.benchmark import _FACTORS
from totalrecall.datasets import open_dataset
from totalrecall.errors import SettingError
from totalrecall.evaluation.evaluate import evaluate
from totalrecall.patchcore.detector import PatchCore

OPTIONS = ["--size", "64", "--coreset", "0.1", "--precision", "f32", "--threads", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two categories of a few tiny pictures in the MVTec layout."""
    from totalrecall.demo.pictures import make_dataset

    folder = tmp_path_factory.mktemp("two")
    for seed, kind in enumerate(("washer", "wood")):
        make_dataset(folder / kind, kind=kind, good=5, test_good=3, defective=3, seed=seed, size=(64, 64))
    return folder


@pytest.fixture(scope="module")
def done(root, added, tmp_path_factory):
    """What an ablation of two factors gives on two categories, with its folder."""
    out = tmp_path_factory.mktemp("out")
    told = []
    ablation = run_ablation(wanted(root, added), out, factors=["scoring", "patch-size"], tell=told.append)
    return ablation, out, told


def wanted(root, added, categories=("washer", "wood"), **changes):
    settings = {**SMALL, "backbone": added}
    return Benchmark("mvtec", root, categories, methods=["patchcore"], settings=settings, **changes)


def rows(factors=tuple(FACTORS), backbone="compact", **changes):
    return variants(detector_settings("patchcore", changes), load(backbone), factors)


# ---------------------------------------------------------------------- the rows


def test_one_setting_is_changed_at_a_time_and_the_default_is_marked():
    found = rows(["patch-size"])
    assert [(row.name, row.settings["patch_size"], row.is_default) for row in found] == [
        ("default", 3, True),
        ("patch size: 1 x 1", 1, False),
        ("patch size: 3 x 3", 3, True),
        ("patch size: 5 x 5", 5, False),
    ]
    for row in found:
        others = {name: value for name, value in row.settings.items() if name != "patch_size"}
        assert others == {name: value for name, value in found[0].settings.items() if name != "patch_size"}


def test_the_rows_stand_around_what_was_given():
    found = rows(["scoring", "layers"], scoring="max", layers=(2, 3))
    assert [row.label for row in found if row.is_default] == ["", "max", "2 3"]


def test_layers_that_the_backbone_has_not_are_left_out(added):
    assert [row.label for row in rows(["layers"])] == ["", "2 3"]  # compact begins at layer 2
    has = {layer.name for layer in load(added).layers}
    assert ("1 2 3" in [row.label for row in rows(["layers"], added)]) == ({"layer1", "layer2", "layer3"} <= has)


def test_sizes_come_with_the_aspect_kept_and_given_up_and_without_the_presets_crop():
    found = variants(detector_settings("patchcore", {}, "paper"), load("compact"), ["size"])[1:]
    assert {row.settings["resize"] for row in found} == {"squash", "letterbox"}
    assert {row.settings["crop"] for row in found} == {None}
    assert min(row.settings["size"] for row in found) == 192
    assert max(row.settings["size"] for row in found) == 512


def test_every_row_is_a_detector_that_is_allowed():
    for row in rows():
        PatchCore(backbone="compact", **row.settings)


def test_an_unknown_factor_is_named():
    with pytest.raises(SettingError, match=r"ablate must be among scoring, .* got 'colour'"):
        rows(["colour"])


def test_the_command_offers_every_factor():
    assert set(_FACTORS) == set(FACTORS)


# ---------------------------------------------------------------------- the cells


def test_scorings_share_a_fit_and_give_what_fits_of_their_own_give(done, root, added, monkeypatch):
    ablation, _, _ = done
    at = next(at for at, row in enumerate(ablation.variants) if row.name == "scoring: max")
    (line,) = [line for line in ablation.lines[at] if line["setup"]["category"] == "wood"]
    data = open_dataset("mvtec", root, category="wood", seed=42)
    alone = evaluate(PatchCore(backbone=added, **SMALL, scoring="max", seed=42).fit(data.train), data.test)
    assert line["metrics"]["image_auroc"] == alone.image_auroc
    assert line["metrics"]["image_average_precision"] == alone.image_average_precision
    assert line["metrics"]["pixel_aupro"] == pytest.approx(alone.pixel_aupro, abs=1e-9)
    assert line["setup"]["settings"]["scoring"] == "max"


def test_a_fit_is_made_once_for_all_scorings(root, added, tmp_path, monkeypatch):
    families, real = [], benchmark_cell.measure_family

    def counted(family, folder, progress=None):
        families.append([cell.settings["scoring"] for cell in family])
        return real(family, folder, progress)

    monkeypatch.setattr("totalrecall.benchmark.run.measure_family", counted)
    run_ablation(wanted(root, added, ["wood"]), tmp_path, factors=["scoring"])
    assert len(families) == 1
    assert sorted(families[0]) == sorted(label for label, _ in FACTORS["scoring"])


def test_the_default_is_measured_once_for_all_rows_that_are_it(done):
    ablation, out, _ = done
    keys = [json.loads(line)["key"] for line in (out / "cells.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys))
    defaults = [lines for row, lines in zip(ablation.variants, ablation.lines, strict=True) if row.is_default]
    assert len(defaults) == 3
    assert all([line["key"] for line in lines] == [line["key"] for line in defaults[0]] for lines in defaults)


def test_a_second_run_measures_nothing_again(done, root, added, monkeypatch):
    _, out, _ = done
    monkeypatch.setattr("totalrecall.benchmark.run.measure_family", None)  # a call would be an error
    again = run_ablation(wanted(root, added), out, factors=["scoring", "patch-size"])
    assert ablation_csv(again) == ablation_csv(done[0])


def test_cells_are_those_of_the_benchmark(done, root, added, monkeypatch):
    _, out, _ = done
    monkeypatch.setattr("totalrecall.benchmark.run.measure_family", None)
    lines, bad = run_benchmark(wanted(root, added), out)
    assert (len(lines), bad) == (2, [])


def test_how_many_cells_there_are_is_said_before_the_work(done):
    _, out, told = done
    cells = len((out / "cells.jsonl").read_text().splitlines())
    scorings = len(FACTORS["scoring"])
    assert told[0] == f"{1 + scorings + 3} rows, {cells} cells from {2 * 3} fits"
    assert told[1].startswith(f"[1/{cells}] patchcore washer seed 42, ")
    assert " left" in told[1]


def test_a_category_that_cannot_be_opened_does_not_stop_the_others(root, added, tmp_path):
    ablation = run_ablation(wanted(root, added, ["washer", "bolt"]), tmp_path, factors=["patch-size"])
    assert [one.title for one in ablation.bad] == ["bolt seed 42"]
    assert len(ablation.lines[0]) == 1


# ---------------------------------------------------------------------- the table


def test_differences_are_from_the_default_row(done):
    ablation, _, _ = done
    found = list(csv.DictReader(ablation_csv(ablation).splitlines()))
    means = {
        (row["factor"], row["setting"]): float(row["mean"])
        for row in found
        if (row["category"], row["metric"]) == ("average", "pixel_auroc")
    }
    for row in found:
        if (row["category"], row["metric"]) == ("average", "pixel_auroc"):
            expected = means[row["factor"], row["setting"]] - means["default", ""]
            assert float(row["difference"]) == pytest.approx(expected, abs=1e-3)
    assert len({round(value, 4) for value in means.values()}) > 2  # the patch sizes do differ
    first, *_ = ablation_tables(ablation)
    assert first.rows[0][0] == "default"
    (five,) = [row for row in first.rows if row[0] == "patch size: 5 x 5"]
    points = five[first.heads.index("pixel AUROC") + 1]
    assert float(points) == pytest.approx(means["patch-size", "5 x 5"] - means["default", ""], abs=0.006)


def test_an_average_is_over_categories_and_each_has_a_column(done):
    ablation, _, _ = done
    found = list(csv.DictReader(ablation_csv(ablation).splitlines()))
    of = {
        row["category"]: float(row["mean"])
        for row in found
        if (row["factor"], row["metric"]) == ("default", "image_auroc")
    }
    assert of["average"] == pytest.approx((of["washer"] + of["wood"]) / 2, abs=1e-3)
    _, by_category = ablation_tables(ablation)
    assert by_category.heads == ["setting", "washer", "wood"]
    assert len(by_category.rows) == len(ablation.variants)


def test_several_seeds_and_few_pictures_have_tables_of_their_own(root, added, tmp_path):
    benchmark = wanted(root, added, ["wood"], seeds=[1, 2], shots=[2, None])
    ablation = run_ablation(benchmark, tmp_path, factors=["patch-size"])
    few, every = ablation_tables(ablation)
    assert few.title == "One setting changed at a time, 2 good pictures"
    assert every.title == "One setting changed at a time"
    assert "Standard deviation of the default over seeds: image AUROC" in every.note
    found = list(csv.DictReader(ablation_csv(ablation).splitlines()))
    assert {(row["shots"], row["seeds"]) for row in found} == {("2", "2"), ("all", "2")}


# ---------------------------------------------------------------------- the command


def test_the_command_writes_the_three_files(capsys, root, added, tmp_path):
    out = tmp_path / "out"
    options = ["--ablate", "patch-size", "--categories", "wood", "--backbone", added, "--out", out, *OPTIONS]
    code, printed, err = run(capsys, "benchmark", "mvtec", root, *options)
    assert (code, err) == (0, [])
    assert "4 rows, 3 cells from 3 fits" in printed[0]
    (row,) = [line for line in printed if line.startswith("  patch size: 5 x 5 ")]  # printed whole, in 80 letters
    assert len(row.split()) == len(["patch", "size:", "5", "x", "5", "image", "points", "AUPRO", "ms"])
    text = (out / "report.md").read_text()
    assert "# Ablation: mvtec, " in text
    assert "| patch size: 3 x 3 (default) |" in text
    assert "Default: layers 2 3, " in text
    assert "patch size: 5 x 5" in (out / "report.html").read_text()
    assert {row["setting"] for row in csv.DictReader((out / "results.csv").read_text().splitlines())} == {
        "", "1 x 1", "3 x 3", "5 x 5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "padim"], "--ablate is only for patchcore, got --methods padim. Leave it out."),
        (["--dimensions", "50"], "--dimensions is only for padim, got --methods patchcore. Leave it out."),
        (["--size", "8"], "--size must be from 32 to 4096 pixels, got 8."),
    ],
)
def test_wrong_usage_is_one_line_before_any_work(capsys, root, added, tmp_path, options, message):
    out = tmp_path / "out"
    code, _, err = run(
        capsys, "benchmark", "mvtec", root, "--ablate", "scoring", "--backbone", added, "--out", out, *options
    )
    assert code == 2
    assert len(err) == 1
    assert message in err[0]
    assert not (out / "cells.jsonl").exists()


def test_a_factor_that_there_is_not_is_refused(capsys, root):
    with pytest.raises(SystemExit):
        run(capsys, "benchmark", "mvtec", root, "--ablate", "colour")
    assert "invalid choice: 'colour'" in capsys.readouterr().err
