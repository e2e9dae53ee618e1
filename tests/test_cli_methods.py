"""cli: fit, predict, evaluate and info with the methods that PatchCore is compared with."""

import csv
import json

import pytest

from tests.commands import EVALUATE_KEYS, PREDICT_KEYS, run

METHODS = ("padim", "spade")


def small(added, method):
    return ["--method", method, "--backbone", added, "--size", "64", "--precision", "f32"]


@pytest.fixture(scope="module")
def models(added, parts, tmp_path_factory):
    """A model of `parts` by each method, fitted by the command line."""
    from totalrecall.cli import main

    folder = tmp_path_factory.mktemp("models")
    for method in METHODS:
        options = [*small(added, method), "--layout", "mvtec", "--quiet"]
        assert main(["fit", str(parts), "-o", str(folder / f"{method}.trecall"), *options]) == 0
    return {method: folder / f"{method}.trecall" for method in METHODS}


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("padim", "Gaussians: 256 positions, 100 of 448 channels each, from 10 pictures"),
        (
            "spade",
            "Gallery: feature pyramids of 10 pictures; each picture is compared with the 10 most like it, "
            "all that there are",
        ),
    ],
)
def test_fit_says_what_it_did(capsys, added, parts, tmp_path, method, line):
    output = tmp_path / "part.trecall"
    code, out, err = run(capsys, "fit", parts / "train" / "good", "-o", output, *small(added, method))
    assert (code, err) == (0, [])
    assert out[0].startswith("Plan: 10 pictures, a model of ")
    assert out[1] == line
    assert "set on 2 good pictures that were kept aside. False alarms: at most 33.3 % on average." in out[2]
    assert out[3].startswith("Thresholds by false-alarm rate: ")
    assert out[4].startswith("Time: features ")
    assert "coreset" not in out[4]
    assert out[-1].startswith(f"Wrote {output}")


@pytest.mark.parametrize("method", METHODS)
def test_fit_writes_its_report_as_json(capsys, added, parts, tmp_path, method):
    code, out, _ = run(
        capsys, "fit", parts / "train" / "good", "-o", tmp_path / "a.trecall", "--json", "-", *small(added, method)
    )
    facts = json.loads("\n".join(out))
    assert code == 0
    assert (facts["pictures"], facts["calibration_pictures"]) == (10, 2)
    assert facts["plan"]["model"] > 0


@pytest.mark.parametrize("method", METHODS)
def test_predict_writes_the_same_lines_for_every_method(capsys, models, parts, tmp_path, method):
    pictures = sorted((parts / "test" / "good").iterdir())
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    code, out, err = run(capsys, "predict", models[method], *pictures, "--json", lines, "--csv", table)
    assert (code, err) == (0, [])
    assert "3 pictures in " in out[-1]
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [list(line) for line in found] == [PREDICT_KEYS] * 3
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [float(row["score"]) for row in rows] == pytest.approx([line["score"] for line in found])
    if method == "padim":
        assert [line["nearest"] for line in found] == [None] * 3
        assert {(row["nearest_path"], row["nearest_x"], row["nearest_y"]) for row in rows} == {("", "", "")}
    else:
        assert {row["nearest_path"] for row in rows} <= {str(path) for path in (parts / "train" / "good").iterdir()}


@pytest.mark.parametrize("method", METHODS)
def test_heat_maps_are_drawn(capsys, models, parts, tmp_path, method):
    code, _, _ = run(capsys, "predict", models[method], parts / "test", "--heatmaps", tmp_path / "maps", "--quiet")
    assert code == 0
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 6


@pytest.mark.parametrize("method", METHODS)
def test_evaluate_measures_any_kind(capsys, models, parts, method):
    code, out, err = run(capsys, "evaluate", models[method], parts, "--layout", "mvtec", "--json", "-")
    facts = json.loads("\n".join(out))
    assert code == 0
    assert set(EVALUATE_KEYS) <= set(facts)
    assert facts["images"] == 6
    assert facts["pixel_auroc"] > 0.8
    assert not any("warning" in line for line in err)


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("padim", {"positions": 256, "dimensions": 100}),
        ("spade", {"neighbours": 10, "positions": 2560, "dimensions": 448}),
    ],
)
def test_info_tells_the_kind_and_what_it_holds(capsys, models, method, own):
    code, out, _ = run(capsys, "info", models[method], "--json", "-")
    facts = json.loads("\n".join(out))
    assert code == 0
    assert facts["kind"] == method
    assert facts["training_pictures"] == 10
    assert {name: facts[name] for name in own} == own
    assert facts["settings"]["layers"] == [1, 2, 3]
    code, out, _ = run(capsys, "info", models[method])
    assert code == 0
    assert any(line.split() == ["kind", method] for line in out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--method", "padim", "--coreset", "0.1"],
            "totalrecall: --coreset is only for --method patchcore, got --method padim. Leave it out.",
        ),
        (
            ["--method", "padim", "--neighbours", "5"],
            "totalrecall: --neighbours is only for --method patchcore or spade, got --method padim. Leave it out.",
        ),
        (
            ["--dimensions", "50"],
            "totalrecall: --dimensions is only for --method padim, got --method patchcore. Leave it out.",
        ),
        (
            ["--method", "padim", "--dimensions", "0"],
            "totalrecall: --dimensions must be at least 1, got 0. The paper uses 100 to 550.",
        ),
    ],
)
def test_an_option_of_another_method_is_refused(capsys, added, parts, tmp_path, options, message):
    code, _, err = run(
        capsys, "fit", parts / "train" / "good", "-o", tmp_path / "a.trecall", "--backbone", added, *options
    )
    assert (code, err) == (2, [message])
    assert not (tmp_path / "a.trecall").exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_memory_does_not_hold_is_refused_with_the_option(capsys, added, parts, tmp_path, method):
    code, _, err = run(
        capsys, "fit", parts / "train" / "good", "-o", tmp_path / "a.trecall", "--memory", "50MB", *small(added, method)
    )
    assert code == 2
    assert err[0].startswith("totalrecall: --memory must be at least ")
