"""DINOv2: built graphs equal an independent forward pass at every size; weights that cannot be used are named."""

import re
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.vit_forward import forward, random_weights
from totalrecall import PatchCore, backbones
from totalrecall.backbones.dinov2 import DINOV2, Transformer, build_dinov2
from totalrecall.backbones.graph_check import check_graph
from totalrecall.backbones.position import at_size, resampling
from totalrecall.cli import main
from totalrecall.engines.openvino import OpenVinoEngine
from totalrecall.errors import BackboneError, RoundedSizeWarning, SettingError

# torch.nn.functional.interpolate(CURVE, size, mode="bicubic", antialias=smooth), torch 2.13
CURVE = np.array([1.0, 4, 9, 16, 25, 36, 49])
TORCH = [
    (4, False, [1.75146, 9.99805, 23.3418, 45.04053]),
    (4, True, [2.02545, 9.58518, 24.28136, 43.62759]),
    (11, False, [0.72615, 1.92411, 4.49962, 7.11345, 11.41924, 16, 21.09616, 28.19835, 34.50414, 44.09391, 50.18669]),
    (11, True, [0.78906, 1.9817, 4.3719, 7.43802, 11.31405, 16, 21.49587, 27.80165, 34.91736, 44.18297, 49.91406]),
]
SMALL = Transformer(width=48, depth=3, heads=4, registers=0, layers=(1, 2), size=112)
SMALL_REGISTERS = Transformer(width=48, depth=3, heads=4, registers=4, layers=(1, 2), size=112)


@pytest.fixture(autouse=True)
def small_members(monkeypatch):
    """Two members that take no time, with and without registers."""
    monkeypatch.setitem(DINOV2, "small", SMALL)
    monkeypatch.setitem(DINOV2, "small_reg", SMALL_REGISTERS)


@pytest.fixture
def file_of(tmp_path):
    def write(tensors):
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, tmp_path / "w.safetensors")
        return tmp_path / "w.safetensors"

    return write


def position_at(weights, rows, smooth):
    """Return the position embeddings (1 + rows*rows, c) of a picture of so many patches a side."""
    whole = weights["pos_embed"][0].astype(np.float64)
    matrix = resampling(37, rows, smooth=smooth)
    grid = np.einsum("ri,ijc,sj->rsc", matrix, whole[1:].reshape(37, 37, -1), matrix)
    return np.concatenate([whole[:1], grid.reshape(rows * rows, -1)])


def assert_equal_to_the_forward_pass(backbone, weights, plan, side, layers, *, count=1):
    pictures = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    engine = OpenVinoEngine(at_size(backbone, side), tuple(f"layer{n}" for n in layers), precision="f32", cache=None)
    maps = engine.run(pictures)
    position = position_at(weights, side // 14, plan.registers > 0)
    for at, picture in enumerate(pictures):
        expected = forward(weights, picture, plan.heads, position)
        for number in layers:
            got, true = maps[f"layer{number}"][at], expected[number]
            assert got.shape == true.shape == (side // 14, side // 14, plan.width)
            assert np.abs(got - true).max() <= 1e-4 * np.abs(true).max()


@pytest.mark.parametrize("name", ["small", "small_reg"])
@pytest.mark.parametrize("side", [56, 112, 518, 546])
def test_the_graph_equals_the_forward_pass_at_every_size(name, side, file_of):
    if side > 500 and name == "small":
        pytest.skip("once is enough at this size")
    weights = random_weights(DINOV2[name].shapes())
    backbone = build_dinov2(name, file_of(weights))
    assert_equal_to_the_forward_pass(backbone, weights, DINOV2[name], side, (0, 2), count=1 if side > 500 else 2)


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
def test_the_published_small_members_equal_the_forward_pass(name, file_of):
    weights = random_weights(DINOV2[name].shapes())
    assert_equal_to_the_forward_pass(build_dinov2(name, file_of(weights)), weights, DINOV2[name], 70, (4, 11))


def test_real_weights_equal_the_forward_pass(shared):
    path = shared / "backbones" / "dinov2_vits14_altered.safetensors"
    plan, weights = DINOV2["dinov2_vits14"], load_file(path)
    assert_equal_to_the_forward_pass(build_dinov2("dinov2_vits14", path), weights, plan, 70, (0, 7, 11))


@pytest.mark.parametrize("name", [name for name in DINOV2 if name.startswith("dinov2")])
def test_the_plan_of_every_member_has_as_many_numbers_as_the_published_file(name):
    plan = DINOV2[name]
    numbers = sum(int(np.prod(shape)) for shape in plan.shapes().values())
    assert 4 * (numbers + 1370 * plan.width + plan.width) == backbones.PUBLISHED[name].size  # and a mask token


def as_hugging_face(weights):
    """Return the tensors under the names that the published files of Hugging Face have."""
    modules = {"attn.proj": "attention.output.dense", "ls1": "layer_scale1", "ls2": "layer_scale2"}
    outside = {
        "cls_token": "embeddings.cls_token",
        "register_tokens": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    renamed = {"embeddings.mask_token": np.zeros_like(weights["cls_token"][0])}
    for key, value in weights.items():
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(\w+)", key)
        if match is None:
            renamed[outside[key]] = value
            continue
        part = match[3].replace("gamma", "lambda1")
        if match[2] == "attn.qkv":
            for name, third in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                renamed[f"encoder.layer.{match[1]}.attention.attention.{name}.{part}"] = third
        else:
            renamed[f"encoder.layer.{match[1]}.{modules.get(match[2], match[2])}.{part}"] = value
    return renamed


def as_timm(weights):
    """Return the tensors under timm's names; with registers it adds the class token's position to the token."""
    renamed = dict(weights)
    if "register_tokens" in renamed:
        renamed["reg_token"] = renamed.pop("register_tokens")
        position = renamed.pop("pos_embed")
        renamed |= {"pos_embed": position[:, 1:], "cls_token": renamed["cls_token"] + position[:, :1]}
    return renamed


@pytest.mark.parametrize("name", ["small", "small_reg"])
@pytest.mark.parametrize("rename", [as_hugging_face, as_timm])
def test_the_names_of_hugging_face_and_timm_give_the_same_graph(name, rename, file_of):
    weights = random_weights(DINOV2[name].shapes())
    graphs = [build_dinov2(name, file_of(named), source="s").graph for named in (weights, rename(weights))]
    assert len(graphs[0]) == len(graphs[1])
    theirs = np.frombuffer(graphs[1], np.uint8)
    assert (np.frombuffer(graphs[0], np.uint8) != theirs).mean() < 1e-3  # the class token's last bits are timm's


def test_what_is_built_passes_the_check_and_a_size_changes_little_of_it(file_of):
    backbone = build_dinov2("small", file_of(random_weights(SMALL.shapes())))
    check_graph(backbone.graph, "It")
    fitted = at_size(backbone, 112)
    check_graph(fitted.graph, "It")
    assert len(backbone.graph) - len(fitted.graph) == pytest.approx(4 * 48 * (37**2 - 8**2), abs=10)
    compact = backbones.load("compact")
    assert at_size(compact, 112) is compact


@pytest.mark.parametrize(("size", "smooth", "expected"), TORCH)
def test_resampling_is_that_of_torch(size, smooth, expected):
    assert resampling(7, size, smooth=smooth) @ CURVE == pytest.approx(expected, abs=2e-5)


def test_resampling_by_hand():
    assert np.array_equal(resampling(7, 7, smooth=False), np.eye(7))
    # a = -0.75, a quarter behind the second of four values
    assert resampling(4, 8, smooth=False)[3] == pytest.approx([-0.10546875, 0.87890625, 0.26171875, -0.03515625])


def refusal(name, path):
    with pytest.raises((BackboneError, SettingError)) as caught:
        build_dinov2(name, path)
    return str(caught.value).replace(str(path), "FILE")


def test_what_cannot_be_used_is_named(file_of):
    weights = random_weights(SMALL.shapes())
    assert refusal("dinov2_vitg14", file_of(weights)).startswith("No architecture is called 'dinov2_vitg14'. Choose")
    assert refusal("dinov2_vits14", file_of(weights)) == (
        "Weights FILE are not of dinov2_vits14: they look like small. "
        "Name that architecture, or take weights of dinov2_vits14."
    )
    for key in ("blocks.0.mlp.w12.weight", "encoder.layer.0.mlp.weights_in.weight"):
        giant = weights | {key: np.ones((2, 2), np.float32)}
        assert "they are of DINOv2 giant, whose SwiGLU cannot be built" in refusal("small", file_of(giant))
    assert "have the key blocks.1.more.weight, which small has not" in refusal(
        "small", file_of(weights | {"blocks.1.more.weight": np.ones(2, np.float32)})
    )
    assert "pos_embed has shape 1x197x48, expected 1x1370x48" in refusal(
        "small", file_of(weights | {"pos_embed": np.ones((1, 197, 48), np.float32)})
    )
    lacking = {key: value for key, value in weights.items() if key != "blocks.2.attn.qkv.bias"}
    assert "lack the key blocks.2.attn.qkv.bias" in refusal("small", file_of(lacking))


def test_a_detector_takes_the_advice_and_rounds_a_size_and_says_so(file_of, parts, tmp_path):
    backbone = build_dinov2("small", file_of(random_weights(SMALL.shapes())), name="small")
    assert backbone.advice.multiple == 14
    advised = PatchCore(backbone=backbone)
    assert (advised.recipe.size, advised.settings.layers, advised.settings.patch_size) == (112, (1, 2), 1)
    with pytest.warns(
        RoundedSizeWarning, match=r"^Pictures are prepared at 98 pixels instead of 100: backbone small takes multiples"
    ):
        detector = PatchCore(backbone=backbone, size=100, layers=(0, 2), precision="f32")
    detector.fit(parts / "train" / "good")
    assert detector.bank_.vectors.shape[1] == 2 * 48
    picture = next((parts / "test" / "good").iterdir())
    detector.save(tmp_path / "part.trecall")
    loaded = PatchCore.load(tmp_path / "part.trecall")
    assert loaded.backbone == backbone  # as it was published, for any size
    assert loaded.predict(picture).score == detector.predict(picture).score
    with pytest.raises(SettingError, match=r"^crop must be a multiple of 14 pixels for backbone small, got 64"):
        PatchCore(backbone=backbone, size=112, resize="crop", crop=64)


def test_a_graph_whose_positions_are_damaged_is_refused(file_of):
    backbone = build_dinov2("small", file_of(random_weights(SMALL.shapes())))
    place = backbone.graph.index(b"position_embeddings")
    with pytest.raises(BackboneError, match="is damaged: its position embeddings cannot be read"):
        at_size(replace(backbone, graph=backbone.graph[: place + 40]), 112)


def test_the_cli_adds_a_transformer_by_name(file_of, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TOTALRECALL_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(backbones.PUBLISHED, "small", backbones.PUBLISHED["dinov2_vits14"])
    path = file_of(random_weights(SMALL.shapes()))
    assert main(["backbones", "add", "small", "--weights", str(path)]) == 0
    assert "Added small: layers 0 1 2, sha256" in capsys.readouterr().out
    assert backbones.load("small").advice == SMALL.advice
