"""Graphs built from weights equal an independent forward pass; weights that cannot be used are named in one line."""

import json
import math

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from tests.resnet_forward import PUBLISHED, forward, random_weights
from totalrecall.backbones.resnet import build_resnet
from totalrecall.backbones.resnet_layout import ARCHITECTURES, blocks, stem
from totalrecall.engines.openvino import OpenVinoEngine
from totalrecall.errors import BackboneError, SettingError


def a_picture(height=64, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)


def assert_equal_to_the_forward_pass(backbone, weights, picture, *, caffe=False, epsilon=1e-5):
    layers = tuple(layer.name for layer in backbone.layers)
    maps = OpenVinoEngine(backbone, layers, precision="f32", cache=None).run(picture)
    expected = forward(weights, picture[0], caffe=caffe, epsilon=epsilon)
    assert set(maps) == set(expected)
    for layer in backbone.layers:
        got, true = maps[layer.name][0], expected[layer.name]
        assert got.shape == true.shape
        assert got.shape == (*(math.ceil(side / layer.stride) for side in picture.shape[1:3]), layer.channels)
        assert np.abs(got - true).max() <= 1e-4 * np.abs(true).max()


@pytest.fixture(scope="module")
def weights():
    """A ResNet-18 up to layer2."""
    return random_weights("resnet18", stages=2, dtype=np.float32)


@pytest.fixture
def file_of(tmp_path):
    def write(tensors, metadata=None):
        save_file(tensors, tmp_path / "weights.safetensors", metadata)
        return tmp_path / "weights.safetensors"

    return write


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_plan_of_every_member_has_as_many_parameters_as_torchvision_publishes(name):
    plan = ARCHITECTURES[name]
    shapes = stem().shapes()
    for stage in range(1, 5):
        for block in blocks(plan, stage, "torchvision"):
            for conv in filter(None, (*block.convs, block.shortcut)):
                shapes |= conv.shapes()
    learnt = sum(math.prod(shape) for key, shape in shapes.items() if "running" not in key)
    classifier = plan.channels(4) * 1000 + 1000
    assert learnt + classifier == PUBLISHED[name][4]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_graph_of_every_member_equals_the_forward_pass(name, file_of):
    # the deep stages of the large ones would be nine tenths of this file's time; their shapes are in the test above
    depth = {"resnet18": 4, "resnet50": 4, "resnext50_32x4d": 4, "resnet34": 3, "resnet101": 3, "wide_resnet50_2": 3}
    weights = random_weights(name, stages=depth.get(name, 2))
    assert_equal_to_the_forward_pass(build_resnet(name, file_of(weights)), weights, a_picture(40, 32))


@pytest.mark.parametrize(("height", "width"), [(33, 47), (61, 32), (7, 9)])
def test_sizes_that_no_stride_divides_are_padded_like_the_forward_pass(height, width, file_of, weights):
    assert_equal_to_the_forward_pass(build_resnet("resnet18", file_of(weights)), weights, a_picture(height, width))


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_the_caffe_form_strides_in_the_first_1x1_and_takes_bgr(name, file_of):
    weights = random_weights(name, stages=2)
    backbone = build_resnet(name, file_of(weights), form="caffe")
    assert backbone.preprocessing == "BGR, 0-255, minus 103.939 116.779 123.68, not divided"
    assert_equal_to_the_forward_pass(backbone, weights, a_picture(), caffe=True)
    torchvision = forward(weights, a_picture()[0])["layer2"]
    assert np.abs(torchvision - forward(weights, a_picture()[0], caffe=True)["layer2"]).max() > 0.1  # it can fail


def test_the_epsilon_of_the_file_is_used(file_of, weights):
    backbone = build_resnet("resnet18", file_of(weights, {"batch_norm_eps": "0.5"}))
    assert_equal_to_the_forward_pass(backbone, weights, a_picture(), epsilon=0.5)


@pytest.mark.parametrize(
    ("name", "stem", "caffe", "epsilon"),
    [("resnet18", "imagenet1k_v1", False, 1e-5), ("resnet50", "imagenet1k_caffe", True, 1.001e-5)],
)
def test_the_real_weights_equal_the_forward_pass(shared, name, stem, caffe, epsilon):
    path = shared / "backbones" / f"{name}_{stem}.safetensors"
    backbone = build_resnet(name, path)
    assert [layer.name for layer in backbone.layers] == ["layer1", "layer2", "layer3"]
    assert_equal_to_the_forward_pass(backbone, load_file(path), a_picture(96, 80), caffe=caffe, epsilon=epsilon)


def test_the_graph_is_valid_onnx_that_older_runtimes_read(file_of, weights):
    model = onnx.load_from_string(build_resnet("resnet18", file_of(weights)).graph)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert [axis.dim_value or axis.dim_param for axis in model.graph.input[0].type.tensor_type.shape.dim] == [
        "n",
        "height",
        "width",
        3,
    ]


def as_bfloat16(tensors):
    """Return a safetensors file by hand, since NumPy has no bfloat16: the upper half of each float32."""
    header, data = {}, b""
    for key, value in tensors.items():
        half = (value.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[key] = {"dtype": "BF16", "shape": value.shape, "data_offsets": [len(data), len(data) + len(half)]}
        data += half
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_float16_bfloat16_and_float32_weights_give_the_same_graph(tmp_path, file_of, weights):
    # eight bits of mantissa fit in all three formats
    coarse = {key: np.round(np.clip(value, -1, 1) * 128) / 128 for key, value in weights.items()}
    single = {key: value.astype(np.float32) for key, value in coarse.items()}
    brain = tmp_path / "brain.safetensors"
    brain.write_bytes(as_bfloat16(single))
    half = build_resnet("resnet18", file_of({k: v.astype(np.float16) for k, v in coarse.items()}), source="here")
    assert build_resnet("resnet18", brain, source="here").sha256 == half.sha256
    assert half.sha256 == build_resnet("resnet18", file_of(single), source="here").sha256


def test_the_classifier_and_the_batch_counters_are_ignored(file_of, weights):
    extra = {
        "fc.weight": np.ones((1000, 512), np.float32),
        "fc.bias": np.ones(1000, np.float32),
        "bn1.num_batches_tracked": np.array(7, np.int64),
    }
    built = build_resnet("resnet18", file_of(weights | extra))
    assert built.sha256 == build_resnet("resnet18", file_of(weights)).sha256


def refusal(name, path, **options):
    with pytest.raises((BackboneError, SettingError)) as caught:
        build_resnet(name, path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "FILE")


def test_an_unknown_architecture_is_answered_with_the_known_ones(file_of, weights):
    assert refusal("resnet20", file_of(weights)) == (
        "No architecture is called 'resnet20'. Choose one of resnet18, resnet34, resnet50, resnet101, resnet152, "
        "wide_resnet50_2, wide_resnet101_2, resnext50_32x4d, resnext101_32x8d, resnext101_64x4d."
    )


def test_an_unknown_form_is_answered_with_the_known_ones(file_of, weights):
    assert refusal("resnet18", file_of(weights), form="keras") == "form must be 'torchvision' or 'caffe', got 'keras'."


def test_a_missing_weights_file_is_named(tmp_path):
    assert refusal("resnet18", tmp_path / "none.safetensors") == (
        "Cannot read the weights FILE: No such file or directory. Name a .safetensors or .pth file."
    )


@pytest.mark.parametrize("content", [b"", b"\x80\x02 a pickle", b"\xff" * 100])
def test_a_file_that_is_not_safetensors_is_named(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    message = refusal("resnet18", path)
    assert message.startswith("Weights FILE are not a whole safetensors file (")
    assert message.endswith("), nor a torch checkpoint. Take the file again.")


def test_a_zip_that_is_no_torch_checkpoint_is_named(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x03\x04 a pickle of torch")
    assert refusal("resnet18", path).startswith("Weights FILE are no torch checkpoint of tensors alone: ")


def test_a_truncated_safetensors_file_is_named(file_of, weights):
    path = file_of(weights)
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal("resnet18", path).startswith("Weights FILE are not a whole safetensors file (")


def test_weights_of_another_architecture_are_recognised(file_of, weights):
    assert refusal("resnet50", file_of(weights)) == (
        "Weights FILE are not of resnet50: they look like resnet18. "
        "Name that architecture, or take weights of resnet50."
    )
    to_layer2 = random_weights("resnet50", stages=2)
    assert "they look like resnet50 or resnet101. " in refusal("resnext50_32x4d", file_of(to_layer2))


def test_a_missing_key_is_named(file_of, weights):
    del (weights := dict(weights))["layer2.1.bn1.running_var"]
    assert refusal("resnet18", file_of(weights)) == (
        "Weights FILE lack the key layer2.1.bn1.running_var. Take a complete file of this architecture."
    )


def test_a_file_of_something_else_entirely_lacks_the_first_key(file_of):
    assert refusal("resnet18", file_of({"embedding": np.ones(3, np.float32)})).startswith(
        "Weights FILE lack the key conv1.weight."
    )


def test_a_wrong_shape_is_named_with_both_shapes(file_of, weights):
    weights = weights | {"layer2.0.conv2.weight": np.ones((128, 64, 3, 3), np.float32)}
    assert refusal("resnet18", file_of(weights)) == (
        "Weights FILE: layer2.0.conv2.weight has shape 128x64x3x3, expected 128x128x3x3. "
        "Name the architecture that the file was trained as."
    )


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_weights_that_are_not_finite_are_named(file_of, weights, value):
    weights = weights | {"bn1.bias": np.full(64, value, np.float32)}
    assert refusal("resnet18", file_of(weights)) == ("Weights FILE: bn1.bias holds inf or nan. Take an undamaged file.")


def test_a_negative_variance_is_named(file_of, weights):
    weights = weights | {"bn1.running_var": np.full(64, -1, np.float32)}
    assert refusal("resnet18", file_of(weights)).startswith("Weights FILE: bn1.running_var is below 0")


def test_weights_stored_as_integers_are_named(file_of, weights):
    weights = weights | {"bn1.bias": np.ones(64, np.int32)}
    assert refusal("resnet18", file_of(weights)) == (
        "Weights FILE: bn1.bias is stored as I32, allowed are F64, F32, F16, BF16. Save the weights as float32."
    )


def test_a_variant_with_parts_that_we_would_leave_out_is_refused(file_of, weights):
    weights = weights | {"layer1.0.se.fc1.weight": np.ones((4, 64, 1, 1), np.float32)}
    assert refusal("resnet18", file_of(weights)) == (
        "Weights FILE have the key layer1.0.se.fc1.weight, which resnet18 has not. "
        "They are of a variant that cannot be built yet."
    )


def test_an_input_that_is_not_known_is_not_guessed(file_of, weights):
    path = file_of(weights, {"input": "RGB, x/127.5 - 1"})
    assert refusal("resnet18", path) == (
        "Weights FILE want an input that is not known: 'RGB, x/127.5 - 1'. "
        "If they are prepared like torchvision's or Caffe's, name the form 'torchvision' or 'caffe'."
    )
    assert build_resnet("resnet18", path, form="torchvision").preprocessing.startswith("RGB, x/255")


@pytest.mark.parametrize("text", ["small", "-1", "nan"])
def test_an_epsilon_that_is_none_is_refused(file_of, weights, text):
    assert refusal("resnet18", file_of(weights, {"batch_norm_eps": text})) == (
        f"Weights FILE: batch_norm_eps must be at least 0 and below 1, got {text!r}."
    )
