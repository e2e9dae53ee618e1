"""EfficientNet-Lite: built graphs equal an independent forward pass; weights that cannot be used are named."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.checkpoint_bytes import checkpoint, legacy
from tests.lite_forward import PARAMETERS, STRIDED, forward, random_weights
from totalrecall import PaDiM, PatchCore, backbones
from totalrecall.backbones.efficientnet_lite import LITES, build_efficientnet_lite, lite_blocks
from totalrecall.engines.openvino import OpenVinoEngine
from totalrecall.errors import BackboneError, SettingError


def shapes(name, blocks=None):
    stem = {"_conv_stem.weight": (32, 3, 3, 3)}
    return stem | {key: shape for block in lite_blocks(name)[:blocks] for key, shape in block.shapes.items()}


def a_picture(height=64, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)


def assert_equal_to_the_forward_pass(backbone, weights, picture, tolerance=1e-4):
    layers = tuple(layer.name for layer in backbone.layers)
    maps = OpenVinoEngine(backbone, layers, precision="f32", cache=None).run(picture)
    architecture = backbone.architecture.split()[0]
    expected = forward(weights, picture[0], STRIDED[architecture][0])
    for layer in backbone.layers:
        true = expected[int(layer.name.removeprefix("layer"))]
        sides = tuple(-(-side // layer.stride) for side in picture.shape[1:3])
        assert maps[layer.name].shape == (1, *sides, layer.channels) == (1, *true.shape)
        assert np.abs(maps[layer.name][0] - true).max() <= tolerance * np.abs(true).max(), layer


@pytest.fixture(scope="module")
def lite0():
    return random_weights(shapes("efficientnet_lite0"))


@pytest.fixture
def file_of(tmp_path):
    def write(tensors):
        save_file(tensors, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"

    return write


@pytest.mark.parametrize("name", LITES)
def test_the_plan_of_every_member_has_the_published_number_of_parameters(name):
    kernels = sum(int(np.prod(shape)) for shape in shapes(name).values())
    norms = 2 * sum(shape[0] for shape in shapes(name).values())
    last = lite_blocks(name)[-1].out
    head = 1280 * last + 2 * 1280 + 1280 * 1000 + 1000
    assert round((kernels + norms + head) / 1e6, 1) == pytest.approx(PARAMETERS[name], abs=0.06)
    assert len(lite_blocks(name)) == STRIDED[name][1]


@pytest.mark.parametrize("name", LITES)
def test_the_graph_of_every_member_equals_the_forward_pass(name, file_of):
    weights = random_weights(shapes(name))
    assert_equal_to_the_forward_pass(build_efficientnet_lite(name, file_of(weights)), weights, a_picture())


@pytest.mark.parametrize(("height", "width"), [(33, 47), (61, 32), (50, 70)])
def test_sizes_that_no_stride_divides_are_padded_like_tensorflow(height, width, file_of, lite0):
    backbone = build_efficientnet_lite("efficientnet_lite0", file_of(lite0))
    assert_equal_to_the_forward_pass(backbone, lite0, a_picture(height, width))


def test_the_real_weights_equal_the_forward_pass(shared):
    path = shared / "backbones" / "efficientnet_lite2.safetensors"
    backbone = build_efficientnet_lite("efficientnet_lite2", path)
    assert_equal_to_the_forward_pass(backbone, load_file(path), a_picture(96, 80))


def test_a_graph_in_half_precision_is_half_as_large_and_nearly_the_same(file_of, lite0):
    path = file_of(lite0)
    whole, half = (build_efficientnet_lite("efficientnet_lite0", path, last=10, half=half) for half in (False, True))
    assert len(half.graph) < 0.6 * len(whole.graph)
    assert [layer.name for layer in half.layers][-1] == "layer10"
    assert_equal_to_the_forward_pass(half, lite0, a_picture(), tolerance=2e-2)


def as_timm_names(weights, name):
    """Return the tensors under timm's names, by timm's own table of modules."""
    renamed, stage, index = {}, 0, 0
    for block in lite_blocks(name):
        before, after = f"_blocks.{block.number}.", f"blocks.{stage}.{index}."
        plain = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        timm = ["conv_dw", "bn1", "conv_pw", "bn2"]
        if stage:
            plain = ["_expand_conv", "_bn0", *plain]
            timm = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
        for key, value in weights.items():
            if key.startswith(before):
                module, part = key.removeprefix(before).split(".")
                renamed[f"{after}{timm[plain.index(module)]}.{part}"] = value
        stage, index = (stage + 1, 0) if block.ends_stage else (stage, index + 1)
    renamed["conv_stem.weight"] = weights["_conv_stem.weight"]
    return renamed | {f"bn1.{key.removeprefix('_bn0.')}": v for key, v in weights.items() if key.startswith("_bn0.")}


def test_timms_key_names_give_the_same_graph(file_of, lite0):
    ours = build_efficientnet_lite("efficientnet_lite0", file_of(lite0), source="s").graph
    theirs = as_timm_names(lite0, "efficientnet_lite0")
    assert build_efficientnet_lite("efficientnet_lite0", file_of(theirs), source="s").graph == ours


@pytest.mark.parametrize("write", [legacy])
def test_a_pth_of_the_package_is_added_by_name_and_used_by_its_advice(write, lite0, tmp_path, monkeypatch, parts):
    monkeypatch.setenv("TOTALRECALL_HOME", str(tmp_path))
    counters = {key.replace("running_var", "num_batches_tracked"): np.array(1) for key in lite0 if "running_var" in key}
    head = {"_conv_head.weight": np.ones((1280, 320, 1, 1), np.float32), "_fc.bias": np.ones(1000, np.float32)}
    (tmp_path / "lite0.pth").write_bytes(checkpoint(lite0 | counters | head, write))
    added = backbones.add("efficientnet_lite0", tmp_path / "lite0.pth", licence="Apache-2.0")
    assert (added.advice.layers, added.advice.size, added.advice.patch_size) == ((4, 7, 10), 256, 3)
    detector = PatchCore(backbone="efficientnet_lite0", size=64).fit(parts / "train" / "good")
    assert detector.settings.layers == (4, 7, 10)
    assert detector.bank_.vectors.shape[1] == sum(
        b.out for b in lite_blocks("efficientnet_lite0") if b.number in (4, 7, 10)
    )
    assert PaDiM(backbone="efficientnet_lite0").settings.layers == (4, 7, 10)
    detector.save(tmp_path / "part.trecall")
    again = PatchCore.load(tmp_path / "part.trecall")
    assert again.backbone == detector.backbone
    assert again.settings.stored() == detector.settings.stored()


def refusal(name, path):
    with pytest.raises((BackboneError, SettingError)) as caught:
        build_efficientnet_lite(name, path)
    return str(caught.value).replace(str(path), "FILE")


def test_weights_of_another_member_are_recognised(file_of, lite0):
    assert refusal("efficientnet_lite2", file_of(lite0)) == (
        "Weights FILE are not of efficientnet_lite2: they look like efficientnet_lite0. "
        "Name that architecture, or take weights of efficientnet_lite2."
    )
    lite1 = random_weights(shapes("efficientnet_lite1"))
    assert "they look like efficientnet_lite1" in refusal("efficientnet_lite0", file_of(lite1))


def test_what_cannot_be_used_is_named(file_of, lite0):
    assert refusal("efficientnet_b0", file_of(lite0)).startswith("No architecture is called 'efficientnet_b0'. Choose")
    squeeze = lite0 | {"_blocks.3._se_reduce.weight": np.ones((4, 144, 1, 1), np.float32)}
    assert "have the key _blocks.3._se_reduce.weight, which efficientnet_lite0 has not" in refusal(
        "efficientnet_lite0", file_of(squeeze)
    )
    assert refusal("efficientnet_lite0", file_of({"x": np.ones(3, np.float32)})).startswith(
        "Weights FILE lack the key _conv_stem.weight."
    )
    broken = lite0 | {"_blocks.2._bn1.running_var": np.full(lite0["_blocks.2._bn1.bias"].shape, -1, np.float32)}
    assert "_blocks.2._bn1.running_var is below 0" in refusal("efficientnet_lite0", file_of(broken))


def test_a_form_is_for_resnets(file_of, lite0):
    with pytest.raises(SettingError, match=r"^form is for ResNets, got form 'caffe' for efficientnet_lite0"):
        backbones.add("efficientnet_lite0", file_of(lite0), form="caffe")


def test_lite2_is_built_in_with_its_notice_and_says_how_it_is_used():
    lite2 = backbones.load("lite2")
    assert len(lite2.graph) < 3_000_000
    assert (lite2.licence, lite2.advice.layers) == ("Apache-2.0, see lite2.NOTICE.txt", (6, 10, 14))
    notice = (Path(backbones.__file__).parent / "lite2.NOTICE.txt").read_text(encoding="utf-8")
    assert "Apache License, Version 2.0" in notice
    assert "Changes made" in notice


def test_lite2_is_the_real_network_up_to_block_14_in_half_precision(shared):
    lite2 = backbones.load("lite2")
    weights = load_file(shared / "backbones" / "efficientnet_lite2.safetensors")  # the same, rounded the same way
    assert_equal_to_the_forward_pass(lite2, weights, a_picture(96, 80), tolerance=2e-2)


@pytest.mark.parametrize("name", LITES)
def test_the_advice_that_the_documentation_lists_is_that_of_the_blocks(name):
    text = (Path(__file__).parents[1] / "docs" / "reference" / "backbones.md").read_text(encoding="utf-8")
    layers = [str(b.number) for b in lite_blocks(name) if b.ends_stage and b.total_stride in (8, 16)]
    short = name.removeprefix("efficientnet_").capitalize()
    (row,) = [line for line in text.splitlines() if line.startswith("|") and short in line and "256" in line]
    assert f"| {' '.join(layers)} |" in row
