"""A backbone keeps its facts with its graph, and is found again by the name it was kept under."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.resnet_forward import random_weights
from totalrecall import backbones
from totalrecall.backbones import Backbone, Layer, store
from totalrecall.backbones.spec import read_metadata
from totalrecall.errors import BackboneError, SettingError

FACTS = {
    "name": "tiny",
    "layers": [{"name": "layer1", "channels": 8, "stride": 4}, {"name": "layer2", "channels": 16, "stride": 8}],
    "source": "made here",
    "licence": "Apache-2.0",
    "preprocessing": "none",
    "architecture": "none",
}


def graph_with(*properties, name="graph"):
    helper = onnx.helper
    images = helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["n", "height", "width", 3])
    layers = [helper.make_tensor_value_info(f"layer{at}", onnx.TensorProto.FLOAT, None) for at in (1, 2)]
    nodes = [helper.make_node("Cast", ["images"], [one.name], to=1) for one in layers]
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph(nodes, name, [images], layers), opset_imports=opset)
    for key, value in properties:
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


GRAPH = graph_with(("author", "someone"), ("totalrecall", json.dumps(FACTS)), ("licence", "none"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A per-user folder and a folder of built-in backbones, both empty."""
    (tmp_path / "built-in").mkdir()
    monkeypatch.setenv("TOTALRECALL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "_BUILT_IN", tmp_path / "built-in")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(random_weights("resnet18", stages=1), path)
    return path


def test_the_facts_are_read_from_the_onnx_file():
    backbone = Backbone.from_onnx(GRAPH)
    assert backbone.layers == (Layer("layer1", 8, 4), Layer("layer2", 16, 8))
    assert (backbone.name, backbone.source, backbone.licence) == ("tiny", "made here", "Apache-2.0")
    assert backbone.graph == GRAPH
    assert len(backbone.sha256) == 64
    assert len(repr(backbone)) < 500  # the graph is not in it


@settings(max_examples=30)
@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=50))
def test_the_short_reader_of_onnx_agrees_with_the_onnx_package(text, other, name):
    graph = graph_with(("other", other), ("totalrecall", json.dumps({"text": text})), name=name)
    package = {entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props}
    assert read_metadata(graph, "It") == {"text": text} == json.loads(package["totalrecall"])


@given(st.integers(0, GRAPH.index(b"totalrecall") + len(json.dumps(FACTS))))
def test_a_graph_cut_short_is_refused_wherever_it_is_cut(length):
    with pytest.raises(BackboneError, match=r"^It is (damaged or no ONNX file|an ONNX graph without)[^\n]*$"):
        Backbone.from_onnx(GRAPH[:length], "It")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_backbone_are_refused(data):
    with pytest.raises(BackboneError, match=r"^It is (damaged or no ONNX file|an ONNX graph without)"):
        Backbone.from_onnx(data, "It")


def test_a_foreign_graph_is_refused_with_what_to_do():
    with pytest.raises(BackboneError) as caught:
        Backbone.from_onnx(graph_with(("author", "someone")), "The backbone x.onnx")
    assert str(caught.value) == (
        "The backbone x.onnx is an ONNX graph without the metadata 'totalrecall', so its layers are unknown. "
        "Build it from weights instead: totalrecall backbones add NAME --weights FILE"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": 3}, "It does not say its licence."),
        ({"layers": []}, "It does not list its layers, each once."),
        ({"layers": FACTS["layers"][:1] * 2}, "It does not list its layers, each once."),
        ({"layers": [{"name": "layer1", "channels": 0, "stride": 4}]}, "It describes a layer as {'name': 'layer1'"),
        ({"layers": [7]}, "It describes a layer as 7; a layer has name, channels and stride."),
    ],
)
def test_malformed_facts_are_refused(change, message):
    with pytest.raises(BackboneError) as caught:
        Backbone.from_onnx(graph_with(("totalrecall", json.dumps(FACTS | change))), "It")
    assert str(caught.value).startswith(message)


def test_header_and_graph_give_the_backbone_back():
    backbone = Backbone.from_onnx(GRAPH)
    header = json.loads(json.dumps(backbone.to_header()))
    assert Backbone.from_header(header, GRAPH) == backbone


def test_a_graph_that_changed_since_its_header_was_written_is_refused():
    header = Backbone.from_onnx(GRAPH).to_header()
    with pytest.raises(
        BackboneError, match=r"^It is damaged: its graph has SHA-256 [0-9a-f]{12}, expected [0-9a-f]{12}\."
    ):
        Backbone.from_header(header, GRAPH[:-1] + b"\0", "It")


def test_an_added_backbone_is_found_again_under_its_name(weights, home):
    added = backbones.add("resnet18", weights, source="our line", licence="ours")
    assert backbones.load("resnet18") == added
    assert backbones.load(home / "backbones" / "resnet18.onnx") == added
    (info,) = backbones.available()
    assert (info.name, info.source, info.licence, info.built_in) == ("resnet18", "our line", "ours", False)
    assert (info.layers, info.size, info.problem) == (added.layers, len(added.graph), "")
    assert [path.name for path in (home / "backbones").iterdir()] == ["resnet18.onnx"]  # no temporary file is left


def test_a_backbone_can_be_kept_under_another_name(weights):
    assert backbones.add("resnet18", weights, save_as="line-3.v2").name == "line-3.v2"
    assert backbones.load("line-3.v2").architecture == "resnet18, torchvision form"


def test_weights_that_cannot_be_used_leave_the_backbone_of_that_name_as_it_was(weights, tmp_path):
    added = backbones.add("resnet18", weights)
    save_file({"conv1.weight": np.ones(1, np.float32)}, tmp_path / "bad.safetensors")
    with pytest.raises(BackboneError):
        backbones.add("resnet18", tmp_path / "bad.safetensors")
    assert backbones.load("resnet18") == added


def test_a_built_in_backbone_comes_first_and_its_name_is_taken(weights, tmp_path):
    (tmp_path / "built-in" / "tiny.onnx").write_bytes(GRAPH)
    backbones.add("resnet18", weights)
    assert backbones.load("tiny") == Backbone.from_onnx(GRAPH)
    assert [(info.name, info.built_in) for info in backbones.available()] == [("tiny", True), ("resnet18", False)]
    with pytest.raises(SettingError, match=r"^The name 'tiny' belongs to a backbone that is built in\. Choose another"):
        backbones.add("resnet18", weights, save_as="tiny")


def test_an_unknown_name_is_answered_with_what_there_is(weights):
    with pytest.raises(BackboneError) as caught:
        backbones.load("resnet20")
    published = f"Fetched when named: {', '.join(backbones.PUBLISHED)}."
    command = "Add one with: totalrecall backbones add resnet20 --weights FILE"
    assert str(caught.value) == f"No backbone is called 'resnet20'. There are: none yet. {published} {command}"
    backbones.add("resnet18", weights)
    with pytest.raises(BackboneError, match=r"There are: resnet18\. Fetched when named: "):
        backbones.load("resnet20")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a\\b", "a b", "x" * 65, "ü"])
def test_a_name_that_could_leave_the_folder_is_refused(name, weights):
    for attempt in (lambda: backbones.load(name), lambda: backbones.add("resnet18", weights, save_as=name)):
        with pytest.raises(SettingError, match=r"^A backbone's name has letters, digits"):
            attempt()


def test_a_damaged_backbone_is_listed_with_its_problem_beside_the_others(weights, home):
    backbones.add("resnet18", weights)
    (home / "backbones" / "empty.onnx").write_bytes(b"")
    (home / "backbones" / "text.onnx").write_bytes(b"not a graph")
    problems = {info.name: info.problem for info in backbones.available()}
    assert problems["resnet18"] == ""
    assert "empty.onnx cannot be read" in problems["empty"]
    assert "text.onnx is damaged or no ONNX file" in problems["text"]


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BackboneError, match=r"none\.onnx: No such file or directory\. Name an \.onnx file\.$"):
        backbones.load(tmp_path / "none.onnx")


def test_loading_a_backbone_imports_neither_onnx_nor_safetensors_nor_openvino(weights):
    backbones.add("resnet18", weights)
    check = (
        "import sys; from totalrecall import backbones, engines; backbones.load('resnet18'); backbones.available(); "
        "heavy = ('onnx', 'safetensors', 'openvino', 'torch', 'huggingface_hub'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
