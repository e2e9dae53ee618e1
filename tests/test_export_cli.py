"""`totalrecall export`: parity or nothing."""

import hashlib
import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.parts import damaged, stripes
from totalrecall import load_detector
from totalrecall.cli import main
from totalrecall.export import patches, preparation
from totalrecall.export.metadata import METADATA_KEY

pytestmark = pytest.mark.slow


@pytest.fixture
def exported(model, tmp_path):
    """A file that the command line exported from `model`."""
    path = tmp_path / "part.onnx"
    assert main(["export", str(model), "-o", str(path), "--quiet"]) == 0
    return path


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_graph_and_what_was_compared_are_written(model, parts, tmp_path, capsys):
    path = tmp_path / "out" / "part.onnx"
    test = parts / "test"
    assert main(["export", str(model), "-o", str(path), "--check", str(test)]) == 0
    assert listed(path.parent) == ["part.onnx", "part.onnx.json"]
    table = json.loads((path.parent / "part.onnx.json").read_text())
    assert table["agrees"] is True
    assert table["verdicts_changed"] == 0
    assert table["largest_difference"] < table["tolerance"] == 1e-3
    names = {row["picture"] for row in table["pictures"]}
    assert {str(file) for file in test.rglob("*.png")} <= names
    assert "noise 96 x 80" in names  # a size of the fit
    assert any("train" in name for name in names)  # a picture of the fit
    assert {row["runtime"] for row in table["pictures"]} == {"onnxruntime", "openvino"}
    said = capsys.readouterr().out
    assert "0 verdicts changed" in said
    assert f"Wrote the graph {path}" in said


def test_openvino_s_format_is_two_files_that_say_the_same(model, tmp_path):
    import openvino

    path = tmp_path / "part.xml"
    assert main(["export", str(model), "--to", "openvino", "-o", str(path), "--quiet"]) == 0
    assert listed(tmp_path) == ["part.bin", "part.xml", "part.xml.json"]
    core = openvino.Core()
    graph = core.read_model(str(path))
    facts = json.loads(graph.get_rt_info(METADATA_KEY).astype(str))
    assert facts["model"] == hashlib.sha256(model.read_bytes()).hexdigest()
    picture = np.repeat(stripes(1)[..., :1], 3, axis=2)
    score = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([picture[None]])["score"][0]
    assert score == pytest.approx(load_detector(model, precision="f32").predict(picture).score, rel=1e-3)


def half_bank(of):
    def halved(vectors, kind):
        return of(vectors[: len(vectors) // 2], kind)

    return halved


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize("damage", ["half the bank", "another interpolation", "another threshold"])
def test_a_graph_that_says_something_else_is_refused_and_nothing_is_left(
    model, tmp_path, monkeypatch, capsys, to, damage
):
    if damage == "half the bank":
        monkeypatch.setattr(patches.Bank, "of", half_bank(patches.Bank.of))
    elif damage == "another interpolation":
        monkeypatch.setattr(preparation, "_LEAST_OVERLAP", 0.5)
    else:
        from totalrecall.export import write

        build = write.build_graph
        monkeypatch.setattr(
            write, "build_graph", lambda detector, **options: build(detector.judging(threshold=1e6), **options)
        )
    path = tmp_path / ("part.onnx" if to == "onnx" else "part.xml")
    assert main(["export", str(model), "--to", to, "-o", str(path)]) == 3
    assert listed(tmp_path) == []
    captured = capsys.readouterr()
    assert f"The graph says something else than {model}, so {path} was not written" in captured.err
    assert "difference" in captured.out  # the table is shown, though


def test_an_older_file_stays_where_the_new_one_is_refused(model, exported, monkeypatch):
    before = exported.read_bytes()
    monkeypatch.setattr(patches.Bank, "of", half_bank(patches.Bank.of))
    assert main(["export", str(model), "-o", str(exported), "--quiet"]) == 3
    assert exported.read_bytes() == before


def test_verify_compares_a_file_with_its_model(model, exported, parts, capsys):
    assert main(["export", "--verify", str(exported), str(model), str(parts / "test")]) == 0
    assert "0 verdicts changed" in capsys.readouterr().out


def test_verify_names_a_file_that_says_something_else(model, exported, capsys):
    import onnx

    graph = onnx.load(exported)
    for tensor in graph.graph.initializer:
        if tensor.name == "bank":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[: len(values) // 2] = values[-1]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "bank"))
    onnx.save(graph, exported)
    assert main(["export", "--verify", str(exported), str(model), "--quiet"]) == 3
    assert f"{exported} says something else than {model}" in capsys.readouterr().err


def test_verify_refuses_another_model(model, exported, tmp_path, capsys):
    other = tmp_path / "other.trecall"
    detector = load_detector(model)
    detector.update(threshold=1.0)
    detector.save(other)
    assert main(["export", "--verify", str(exported), str(other)]) == 3
    assert "was exported from another model" in capsys.readouterr().err


def test_a_fixed_picture_size_is_written_as_width_by_height(model, tmp_path):
    import onnx

    path = tmp_path / "part.onnx"
    assert main(["export", str(model), "-o", str(path), "--picture-size", "96x80", "--quiet"]) == 0
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert [side.dim_value for side in shape.dim] == [1, 80, 96, 3]


@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_a_batch_is_proved_written_and_verified(model, parts, tmp_path, capsys, to, suffix):
    path = tmp_path / f"part{suffix}"
    assert main(["export", str(model), "-o", str(path), "--to", to, "--batch", "2"]) == 0
    assert "0 verdicts changed" in capsys.readouterr().out
    if to == "onnx":
        assert main(["export", "--verify", str(path), str(model), str(parts / "test")]) == 0
        assert main(["info", str(path), "--json", "-"]) == 0
        assert '"batch": 2' in capsys.readouterr().out


@pytest.mark.parametrize("bank", ["float16"])
def test_a_smaller_bank_is_written_if_it_says_the_same(model, tmp_path, bank):
    small, whole = tmp_path / "small.onnx", tmp_path / "whole.onnx"
    assert main(["export", str(model), "-o", str(small), "--bank", bank, "--quiet"]) == 0
    assert main(["export", str(model), "-o", str(whole), "--quiet"]) == 0
    assert small.stat().st_size < whole.stat().st_size


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_compared(model, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "part.png"), damaged(1))
    path = tmp_path / "part.onnx"
    assert main(["export", str(model), "-o", str(path), "--check", str(folder), "--quiet"]) == 1
    assert "broken.png" in capsys.readouterr().err
    names = [row["picture"] for row in json.loads((tmp_path / "part.onnx.json").read_text())["pictures"]]
    assert str(folder / "part.png") in names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "export needs -o FILE to write to, or --verify FILE to compare."),
        (["-o", "-"], "--output must name a file, got -."),
        (["-o", "part.trecall"], "The file of --to onnx must end in .onnx, got part.trecall."),
        (["-o", "part.onnx", "--to", "openvino"], "The file of --to openvino must end in .xml, got part.onnx."),
        (["-o", "part.onnx", "--batch", "0"], "batch must be from 1 to 64 pictures, got 0."),
        (["--verify", "part.onnx", "--batch", "2"], "--batch is not for --verify, which writes nothing."),
        (["-o", "part.onnx", "--picture-size", "96"], "must be WIDTHxHEIGHT in pixels, got '96'."),
        (["picture.png", "-o", "part.onnx"], "PICTURES are only for --verify, got picture.png."),
        (["--verify", "part.onnx", "-o", "other.onnx"], "--output is not for --verify, which writes nothing."),
    ],
)
def test_wrong_usage_is_told(model, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["export", str(model), *arguments])
    except SystemExit as end:  # argparse's
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert listed(tmp_path) == []


def test_the_graph_is_not_written_over_an_input(model, tmp_path, capsys):
    picture = tmp_path / "part.onnx.json"
    cv2.imwrite(str(tmp_path / "part.png"), stripes(1))
    (tmp_path / "part.png").rename(picture)
    arguments = ["export", str(model), "-o", str(tmp_path / "part.onnx"), "--check", str(picture)]
    assert main(arguments) == 2
    assert "would write over" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(model, tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(model), "-o", str(tmp_path / "part.onnx")]) == 2
    assert 'Run: pip install "totalrecall[export]"' in capsys.readouterr().err
    assert listed(tmp_path) == []


def test_a_comparison_that_differs_is_told_by_what(model):
    from totalrecall.export.parity import Comparison, Parity

    row = Comparison("a.png", 4, 3, "openvino", 2.0, 2.001, 0.0005, 0.0, True, True, True, 1.0)
    assert Parity([row]).holds
    for change in ({"difference": 0.002}, {"map_difference": 0.01}, {"graph_is_anomalous": False}):
        assert not Parity([row, replace(row, **change)]).holds
    facts = Parity([row, replace(row, graph_is_anomalous=None, difference=np.inf)]).to_json()
    assert (facts["agrees"], facts["verdicts_changed"]) == (False, 1)
    assert json.loads(json.dumps(facts["pictures"][1], allow_nan=False))["difference"] is None
