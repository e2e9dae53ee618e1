"""graph_check: what an ONNX graph from a stranger may hold, and what is refused before OpenVINO sees it."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.old_models import FACTS, tiny_graph
from totalrecall import backbones
from totalrecall.backbones import Backbone
from totalrecall.backbones.graph_check import OPERATORS, check_activations, check_graph
from totalrecall.cli import main
from totalrecall.engines.openvino import OpenVinoEngine
from totalrecall.errors import BackboneError

GRAPH = tiny_graph()


def model():
    return onnx.load_from_string(GRAPH)


def refused(changed, reason):
    with pytest.raises(BackboneError, match=reason) as caught:
        check_graph(changed if isinstance(changed, bytes) else changed.SerializeToString(), "It")
    assert caught.value.exit_code == 3
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def with_node(kind, inputs=("r2",), at=None, **options):
    changed = model()
    node = helper.make_node(kind, list(inputs), ["extra"], **options)
    changed.graph.node.insert(len(changed.graph.node) if at is None else at, node)
    return changed


def with_weights(name, values):
    changed = model()
    changed.graph.initializer.append(numpy_helper.from_array(values, name))
    return changed


def test_what_the_builders_write_is_taken(tiny_backbone):
    for graph in (GRAPH, backbones.load("compact").graph, tiny_backbone.graph):
        check_graph(graph, "It")


@pytest.mark.parametrize(
    "kind",
    ["ScatterND", "ScatterElements", "Gather", "GatherND", "Loop", "If", "Scan", "Tile", "Expand", "Range", "Pad"],
)
def test_operators_that_take_indices_or_graphs_or_make_any_size_are_refused(kind):
    refused(with_node(kind), f"the operator '{kind}' is not among those that are allowed")


def test_what_takes_indices_or_graphs_is_not_listed():
    assert {"ScatterND", "Gather", "If", "Loop", "Scan", "Constant", "Resize", "Slice"} & OPERATORS.keys() == set()


def test_the_operators_are_those_that_the_documentation_lists():
    text = (Path(__file__).parents[1] / "docs" / "reference" / "backbones.md").read_text(encoding="utf-8")
    listed = text.partition("Shapes are weights, never computed.")[2]
    assert re.findall(r"`(\w+)`", listed) == list(OPERATORS)


def test_another_domain_is_refused():
    refused(with_node("Relu", domain="com.microsoft"), "'Relu' of 'com.microsoft' is not among")
    changed = model()
    changed.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    refused(changed, "operators of 'com.microsoft', version 1, are not known")
    changed = model()
    changed.opset_import[0].version = 99
    refused(changed, "version 99, are not known")


def test_a_subgraph_in_an_operator_that_is_allowed_is_refused():
    changed = with_node("Relu")
    changed.graph.node[-1].attribute.append(helper.make_attribute("body", changed.graph))
    refused(changed, "an attribute has a subgraph")


def test_functions_and_training_and_sparse_weights_are_refused():
    changed = model()
    changed.functions.append(helper.make_function("own", "F", ["x"], ["y"], [], [helper.make_opsetid("", 17)]))
    refused(changed, "the file has functions")
    changed = model()
    changed.training_info.add()
    refused(changed, "the file has training information")
    changed = model()
    changed.graph.sparse_initializer.add()
    refused(changed, "the graph has sparse weights")


def test_external_data_is_refused():
    changed = model()
    weights = changed.graph.initializer[1]
    weights.external_data.add(key="location", value="/etc/passwd")
    refused(changed, "weights has external data")
    changed = model()
    changed.graph.initializer[1].data_location = TensorProto.EXTERNAL
    refused(changed, "another type than")


def test_weights_must_be_as_long_as_their_shape_says():
    for shape in ([4, 3, 4, 5], [1 << 40], [-1], [0], [1] * 9, [1 << 23, 1 << 23]):
        changed = model()
        changed.graph.initializer[1].dims[:] = shape
        refused(changed, "the weights 'k1'")
    changed = model()
    changed.graph.initializer[1].data_type = TensorProto.DOUBLE
    refused(changed, "another type than float")
    changed = model()
    changed.graph.initializer[1].float_data.append(1.0)
    refused(changed, "weights that are not raw_data")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("MaxPool", {"kernel_shape": [4000, 4000]}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [0, 1]}),
        ("MaxPool", {"kernel_shape": [3, 3], "pads": [1 << 30] * 4}),
        ("MaxPool", {"kernel_shape": [3, 3], "pads": [-1] * 4}),
        ("Relu", {"alpha": 1.0}),
        ("LeakyRelu", {"alpha": float("nan")}),
        ("Cast", {"to": TensorProto.STRING}),
        ("Transpose", {"perm": [0, 1, 2, 99]}),
        ("Softmax", {"axis": 1 << 40}),
    ],
)
def test_settings_of_operators_out_of_range_are_refused(kind, options):
    refused(with_node(kind, **options), f"{kind} has an attribute")


def test_a_name_must_be_given_before_it_is_taken_and_once():
    refused(with_node("Relu", ("c2",), at=0), "takes 'c2', which nothing before it gives")
    changed = with_node("Relu")
    changed.graph.node[-1].output[0] = "r1"
    refused(changed, "gives 'r1', which is there already")
    refused(with_node("Add", ("r1",)), "Add has 1 inputs and 1 outputs")


def test_what_is_computed_from_weights_alone_is_refused():
    refused(with_node("MatMul", ("k1", "k1")), "MatMul has no input that depends on the picture")
    refused(with_node("Reshape", ("r1", "r2")), "Reshape takes a shape or a scale that is computed")


@pytest.mark.parametrize("change", ["name", "type", "sides", "second"])
def test_the_input_is_the_one_that_is_documented(change):
    changed = model()
    images = changed.graph.input[0]
    if change == "name":
        images.name = "pictures"
    elif change == "type":
        images.type.tensor_type.elem_type = TensorProto.FLOAT
    elif change == "sides":
        images.type.tensor_type.shape.dim[1].dim_value = 9
    else:
        changed.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    refused(changed, "its input is not images, uint8")


def test_more_nodes_than_any_network_has_are_refused():
    changed = model()
    for at in range(10_000):
        changed.graph.node.append(helper.make_node("Relu", ["r2"], [f"x{at}"]))
    refused(changed, "nodes, allowed are 10000")


def test_what_protobuf_would_merge_or_skip_is_refused():
    refused(GRAPH + b"\x3a\x00", "the file has field 7 twice")
    refused(GRAPH + b"\xfa\x07\x00", "the file has an unknown field 127")
    refused(GRAPH + b"\x0b", "not a protobuf message")


def test_a_graph_that_computes_too_much_is_refused_before_it_is_compiled():
    """A sum of a row and a column is as large as their product; 600 layers of it would fill any memory."""
    changed = model()
    changed.graph.node.append(helper.make_node("Reshape", ["r1", "row"], ["flat"]))
    changed.graph.node.append(helper.make_node("Reshape", ["r1", "column"], ["tall"]))
    changed.graph.node.append(helper.make_node("Add", ["flat", "tall"], ["product"]))
    changed.graph.node.append(helper.make_node("ReduceMean", ["product"], ["mean"], axes=[1, 2], keepdims=1))
    changed.graph.node.append(helper.make_node("Reshape", ["mean", "four"], ["one"]))
    changed.graph.node.append(helper.make_node("Add", ["c2", "one"], ["again"]))
    changed.graph.node[-3].output[0] = "mean"
    last = next(node for node in changed.graph.node if node.output[0] == "layer2")
    changed.graph.node.remove(last)
    changed.graph.node.append(helper.make_node("Transpose", ["again"], ["layer2"], perm=[0, 2, 3, 1]))
    for name, shape in (("row", [1, 1, -1]), ("column", [1, -1, 1]), ("four", [1, 1, 1, 1])):
        changed.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    backbone = Backbone.from_onnx(changed.SerializeToString())
    with pytest.raises(BackboneError, match=r"computes [\d,]+ numbers, .*more than any backbone"):
        OpenVinoEngine(backbone, ("layer2",), cache=None).run(np.zeros((1, 512, 512, 3), np.uint8))
    assert OpenVinoEngine(backbone, ("layer2",), cache=None).run(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_few_layers_of_each_size_are_within_what_a_backbone_computes():
    check_activations([("a", 64 * 128 * 128)] * 100, 256 * 256)
    with pytest.raises(ValueError, match="a computes"):
        check_activations([("a", 64 * 128 * 128)] * 2000, 256 * 256)


def test_a_layer_of_other_channels_or_stride_than_the_facts_say_is_refused():
    for entry in ({"channels": 7, "stride": 4}, {"channels": 4, "stride": 16}):
        changed = model()
        facts = {**FACTS, "layers": [{"name": "layer1", **entry}]}
        changed.metadata_props[0].value = json.dumps(facts)
        backbone = Backbone.from_onnx(changed.SerializeToString())
        with pytest.raises(BackboneError, match=r"layer1 is of shape \[1, 8, 8, 4\], not of"):
            OpenVinoEngine(backbone, ("layer1",), cache=None).run(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_graph_in_the_persons_folder_that_is_not_allowed_ends_a_command_in_one_line(session_home, tmp_path, capsys):
    folder = session_home / "backbones"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "hostile.onnx"
    path.write_bytes(with_node("ScatterND", ("r2", "r1", "r1")).SerializeToString())
    try:
        assert main(["fit", str(tmp_path), "-o", str(tmp_path / "m.trecall"), "--backbone", "hostile"]) == 3
    finally:
        path.unlink()
    assert "the operator 'ScatterND' is not among those that are allowed" in capsys.readouterr().err


@settings(max_examples=3 * settings.default.max_examples)  # 300, and fewer among the quick tests
@given(st.lists(st.tuples(st.integers(0, len(GRAPH) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_graph_is_taken_or_refused_in_one_line_and_never_fails_otherwise(changes):
    data = bytearray(GRAPH)
    for at, value in changes:
        data[at] = value
    try:
        check_graph(bytes(data), "It")
        said = "taken"
    except BackboneError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


@example(1641)  # in the type of an output
@given(st.integers(0, len(GRAPH) - 1))
def test_what_is_taken_the_onnx_package_reads_too(at):
    data = bytearray(GRAPH)
    data[at] ^= 4
    try:
        check_graph(bytes(data), "It")
    except BackboneError:
        return
    onnx.load_from_string(bytes(data))
