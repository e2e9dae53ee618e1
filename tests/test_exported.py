"""An exported graph as a detector: it judges as its model, cannot learn, and is believed only once it was checked."""

import json
import math

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.parts import SIZE, damaged, make, stripes
from totalrecall.cli import main
from totalrecall.errors import ModelFileError, PictureError, SettingError
from totalrecall.export.build import build_graph
from totalrecall.export.exported import load_exported, read_exported
from totalrecall.export.metadata import METADATA_KEY
from totalrecall.registry import load_detector, load_judge

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture(scope="module")
def detector(tiny_backbone):
    return make(tiny_backbone, false_alarm_rate=0.1).fit([stripes(seed) for seed in range(12)])


@pytest.fixture(scope="module")
def graph(detector):
    return build_graph(detector, model="0123")


@pytest.fixture
def written(graph, tmp_path):
    return keep(graph, tmp_path / "part.onnx")


def keep(graph, path):
    path.write_bytes(graph.SerializeToString())
    return path


def copy_of(graph):
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    return copied


def with_facts(graph, **changes):
    """Return a graph that says something else of itself; None leaves a fact out."""
    copied = copy_of(graph)
    (entry,) = copied.metadata_props
    facts = {**json.loads(entry.value), **changes}
    entry.value = json.dumps({name: value for name, value in facts.items() if value is not ...})
    return copied


@pytest.mark.parametrize("picture", [stripes(40), damaged(41), stripes(42, 33, 45)], ids=["good", "bad", "small"])
def test_it_judges_as_its_model(detector, written, picture):
    exported = load_judge(written)
    ours, theirs = detector.predict(picture), exported.predict(picture)
    assert theirs.score == pytest.approx(ours.score, rel=1e-3)
    assert theirs.is_anomalous is ours.is_anomalous
    assert theirs.threshold == ours.threshold
    assert theirs.p_value == ours.p_value
    assert theirs.nearest == ours.nearest
    assert theirs.worst == ours.worst
    assert len(theirs.regions) == len(ours.regions)
    assert theirs.anomaly_map == pytest.approx(ours.anomaly_map, abs=float(3e-3 * ours.anomaly_map.max()))
    assert theirs.overlay().shape == ours.overlay().shape
    assert list(theirs.to_json()) == list(ours.to_json())


def test_a_folder_gives_what_single_pictures_give(written, good):
    exported = load_judge(written)
    streamed = list(exported.predict_stream(good))
    files = sorted(good.iterdir())
    assert [result.path for result in streamed] == [str(file) for file in files]
    assert [result.score for result in streamed[:3]] == [exported.predict(file).score for file in files[:3]]


def test_a_picture_that_cannot_be_read_comes_in_its_turn(written, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    outcomes = list(load_judge(written).predict_stream([stripes(1), tmp_path / "broken.png", stripes(2)]))
    assert [isinstance(outcome, PictureError) for outcome in outcomes] == [False, True, False]


def test_another_rate_and_another_threshold_are_judged_by(detector, written):
    exported = load_judge(written)
    assert exported.judging(false_alarm_rate=0.3).threshold_ == detector.judging(false_alarm_rate=0.3).threshold_
    assert exported.judging(threshold=1e6).predict(damaged(1)).is_anomalous is False
    assert exported.predict(damaged(1)).is_anomalous is True  # the graph itself stays as it is
    with pytest.raises(SettingError, match="one of the two"):
        exported.judging()
    with pytest.raises(SettingError, match="finite score"):
        exported.judging(threshold=math.inf)


def test_a_graph_of_one_size_refuses_others(detector, tmp_path):
    exported = load_judge(keep(build_graph(detector, model="", picture_size=(70, 90)), tmp_path / "part.onnx"))
    assert exported.predict(damaged(1)).is_anomalous is True
    with pytest.raises(PictureError, match="takes pictures of 90 x 70 pixels alone, got 45 x 33"):
        exported.predict(stripes(1, 33, 45))


def test_a_graph_of_several_pictures_judges_one_at_a_time(detector, tmp_path):
    exported = load_judge(keep(build_graph(detector, model="", batch=3), tmp_path / "three.onnx"))
    pictures = [stripes(40), damaged(41), stripes(42, 33, 45), stripes(43)]
    for picture in pictures:
        assert exported.predict(picture).score == pytest.approx(detector.predict(picture).score, rel=1e-4)
    one_by_one = [exported.predict(picture).score for picture in pictures]
    assert [result.score for result in exported.predict_stream(pictures)] == pytest.approx(one_by_one, rel=1e-6)


def test_predict_evaluate_and_info_take_it_like_a_model(model, parts, tmp_path, capsys):
    path = tmp_path / "part.onnx"
    assert main(["export", str(model), "-o", str(path), "--quiet"]) == 0
    said = {}
    for judge in (model, path):
        out = tmp_path / "out.jsonl"
        arguments = [str(judge), str(parts / "test"), "--json", str(out), "--report", str(tmp_path / "report.html")]
        assert main(["predict", *arguments, "--heatmaps", str(tmp_path / "maps"), "--quiet"]) == 0
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert main(["evaluate", str(judge), str(parts), "--layout", "mvtec", "--json", str(out), "--quiet"]) == 0
        said[judge] = rows, json.loads(out.read_text())
    (rows, facts), (graph_rows, graph_facts) = said.values()
    for row, other in zip(rows, graph_rows, strict=True):
        assert other["score"] == pytest.approx(row["score"], rel=1e-3)
        assert {name: other[name] for name in ("path", "is_anomalous", "nearest")} == {
            name: row[name] for name in ("path", "is_anomalous", "nearest")
        }
    assert graph_facts["image_auroc"] == facts["image_auroc"]
    assert graph_facts["pixel_auroc"] == pytest.approx(facts["pixel_auroc"], abs=1e-3)
    capsys.readouterr()
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "exported graph" in shown
    assert "bank type" in shown


@pytest.mark.parametrize(
    "command", [["update", "--undo"], ["teach", "--defect", "part.png"], ["capability", "part.png"]], ids=lambda c: c[0]
)
def test_what_changes_a_model_says_that_a_graph_cannot_change(written, capsys, command):
    assert main([command[0], str(written), *command[1:]]) == 3
    assert "is an exported graph, which cannot learn or change" in capsys.readouterr().err
    with pytest.raises(ModelFileError, match="exported graph"):
        load_detector(written)


def test_a_graph_in_openvino_s_own_format_is_named_as_such(written, model, capsys):
    path = written.rename(written.with_suffix(".xml"))
    assert main(["predict", str(path), "part.png"]) == 3
    assert "take an .onnx file, too" in capsys.readouterr().err
    assert main(["export", "--verify", str(path), str(model)]) == 3
    assert "read here as an .onnx file" in capsys.readouterr().err


def test_what_a_graph_does_not_know_is_told(written, parts, tmp_path, capsys):
    arguments = ["predict", str(written), str(parts / "test"), "--monitor", str(tmp_path / "line.monitor")]
    assert main(arguments) == 2
    assert "An exported graph keeps no conditions" in capsys.readouterr().err
    with pytest.raises(SettingError, match="precision must be f32"):
        load_judge(written, precision="bf16")
    with pytest.raises(SettingError, match=r"^engine must be openvino for an exported graph, got torch\. Leave it out"):
        load_judge(written, engine="torch")
    with pytest.raises(SettingError, match=r"^device must be cpu for an exported graph, got cuda\. Leave it out"):
        load_judge(written, engine="openvino", device="cuda")


# ---------------------------------------------------------------------- a stranger's file


def refused(path, message):
    with pytest.raises(ModelFileError, match=message):
        load_exported(path)


def test_a_file_that_is_not_there_or_no_graph_is_refused(tmp_path):
    refused(tmp_path / "absent.onnx", "Cannot read")
    (tmp_path / "part.onnx").write_bytes(b"\xff" * 100)
    refused(tmp_path / "part.onnx", "damaged or no ONNX file")


def test_a_graph_of_another_program_is_refused(graph, tmp_path):
    other = copy_of(graph)
    del other.metadata_props[:]
    refused(keep(other, tmp_path / "part.onnx"), "was not exported by Total Recall")


def test_a_cut_file_is_refused_wherever_it_is_cut(written):
    data = written.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        written.write_bytes(data[: int(share * len(data))])
        refused(written, "damaged|no ONNX|refuses to run|not exported")


def test_an_operator_that_no_export_writes_is_refused(graph, tmp_path):
    other = copy_of(graph)
    other.graph.node.append(helper.make_node("ScatterND", ["score", "nearest", "score"], ["more"]))
    refused(keep(other, tmp_path / "part.onnx"), "operator 'ScatterND' is not among those that are allowed")


def test_weights_in_another_file_are_refused(graph, tmp_path):
    other = copy_of(graph)
    tensor = other.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    refused(keep(other, tmp_path / "part.onnx"), "external data")


def test_a_graph_that_computes_too_much_is_refused(graph, tmp_path):
    other = copy_of(graph)
    other.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1 << 12, 1), np.float32), "tall"))
    other.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 1 << 12), np.float32), "wide"))
    other.graph.node.append(helper.make_node("MatMul", ["tall", "wide"], ["square"]))
    for at in range(600):
        other.graph.node.append(helper.make_node("Add", ["square", "score"], [f"large{at}"]))
        other.graph.output.append(helper.make_tensor_value_info(f"large{at}", 1, None))
    refused(keep(other, tmp_path / "part.onnx"), "it computes")


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": "high"},
        {"threshold_is": "guessed"},
        {"recipe": {"size": -1}},
        {"calibration": {}},
        {"grid": [1]},
        {"pictures": [{"path": "a.png"}]},
        {"backbone": {"name": "x"}},
        {"region_of_interest": {"height": 1, "width": 1, "bits": "?"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_graph_that_says_nonsense_of_itself_is_refused(graph, tmp_path, changes):
    refused(keep(with_facts(graph, **changes), tmp_path / "part.onnx"), "is damaged: its metadata")


def test_a_fact_that_is_absent_and_a_newer_format_are_refused(graph, tmp_path):
    refused(keep(with_facts(graph, grid=...), tmp_path / "part.onnx"), "its metadata has no grid")
    refused(keep(with_facts(graph, format=2), tmp_path / "part.onnx"), "is of format 2, this version reads 1")


def test_every_operator_of_an_export_passes_its_own_check(detector, tmp_path):
    roi = np.zeros((70, 90), bool)
    roi[10:50, 20:70] = True
    for options in ({"roi": roi, "resize": "crop", "scoring": "paper"}, {"descriptor": "paper-code", "tile": 2}):
        other = make(detector.backbone, **options).fit([stripes(seed) for seed in range(6)])
        path = keep(build_graph(other, model=""), tmp_path / "part.onnx")
        assert METADATA_KEY.encode() in read_exported(path)[0]
    assert detector.recipe.size == SIZE
