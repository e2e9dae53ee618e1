"""Built graphs equal the networks that they were made from: timm's, transformers' and the package's own forward pass.

These need torch, which the other tests do without: `pip install torch timm transformers efficientnet_lite_pytorch`.
"""

import numpy as np
import pytest

from tests.torch_ready import import_timm
from totalrecall import backbones
from totalrecall.backbones.dinov2 import build_dinov2
from totalrecall.backbones.efficientnet_lite import build_efficientnet_lite
from totalrecall.backbones.position import at_size
from totalrecall.backbones.timm_models import build_timm
from totalrecall.engines.openvino import OpenVinoEngine
from totalrecall.errors import BackboneError, SettingError

torch = pytest.importorskip("torch")
timm = import_timm()
pytestmark = pytest.mark.filterwarnings("ignore")  # those packages warn of each other

TRANSFORMERS = (
    "vit_base_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "eva02_tiny_patch14_224",
)
CONVOLUTIONAL = ("wide_resnet50_2", "convnext_tiny", "efficientnet_b0", "mobilenetv3_large_100", "resnet18")


def a_picture(side):
    return np.random.default_rng(1).integers(0, 256, (1, side, side, 3), np.uint8)


def prepared(picture, mean, deviation):
    return ((torch.from_numpy(picture).float() / 255 - torch.tensor(mean)) / torch.tensor(deviation)).permute(
        0, 3, 1, 2
    )


def unit(tokens):
    return tokens / np.sqrt((tokens**2).mean(axis=-1, keepdims=True))


def with_random_weights(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if "running_var" in key:
            value.uniform_(0.5, 1.5, generator=generator)
        elif "gamma" in key or "lambda" in key:
            value.uniform_(0.3, 0.6, generator=generator)
        elif "running_mean" in key or "pos" in key or "token" in key:
            value.normal_(0, 0.1, generator=generator)
    return network.eval()


def saved(network, path):
    from safetensors.torch import save_file

    save_file({key: value.contiguous().clone() for key, value in network.state_dict().items()}, path)
    return path


def assert_same(backbone, picture, expected):
    """Compare layers with maps (1, h, w, c), by the layer's number."""
    engine = OpenVinoEngine(backbone, tuple(f"layer{at}" for at in expected), precision="f32", cache=None)
    maps = engine.run(picture)
    for at, true in expected.items():
        assert maps[f"layer{at}"].shape == true.shape
        assert np.abs(maps[f"layer{at}"] - true).max() <= 1e-4 * np.abs(true).max()


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_convolutional_network_of_timm_at_two_sizes(name, tmp_path):
    torch.manual_seed(0)
    network = with_random_weights(timm.create_model(name))
    backbone = build_timm(name, saved(network, tmp_path / "w.safetensors"), name="it", size=96)
    assert not backbone.advice.fixed
    facts = network.pretrained_cfg
    for side in (96, 128):
        picture = a_picture(side)
        with torch.no_grad():
            maps = network.forward_intermediates(
                prepared(picture, facts["mean"], facts["std"]), intermediates_only=True
            )
        assert_same(backbone, picture, {at: one.permute(0, 2, 3, 1).numpy() for at, one in enumerate(maps)})


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_of_timm_at_its_size(name, tmp_path):
    torch.manual_seed(0)
    network = with_random_weights(timm.create_model(name, img_size=112))
    backbone = build_timm(name, saved(network, tmp_path / "w.safetensors"), name="it", size=112)
    assert (backbone.advice.fixed, backbone.advice.size, backbone.advice.patch_size) == (True, 112, 1)
    facts, picture = network.pretrained_cfg, a_picture(112)
    with torch.no_grad():
        tokens = network.forward_intermediates(
            prepared(picture, facts["mean"], facts["std"]), intermediates_only=True, norm=True, output_fmt="NLC"
        )
    rows = 112 // backbone.layers[0].stride
    assert_same(backbone, picture, {at: unit(one.numpy()).reshape(1, rows, rows, -1) for at, one in enumerate(tokens)})


@pytest.mark.parametrize(("name", "kind", "registers"), [("", "Dinov2", 0), ("_reg", "Dinov2WithRegisters", 4)])
def test_dinov2_of_transformers_at_sizes_that_resample_its_positions(name, kind, registers, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    options = {"num_register_tokens": registers} if registers else {}
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518, patch_size=14, **options
    )
    network = with_random_weights(getattr(transformers, f"{kind}Model")(config))
    network.save_pretrained(tmp_path)
    backbone = build_dinov2(f"dinov2_vits14{name}", tmp_path / "model.safetensors")
    for side in (518, 126):
        picture = a_picture(side)
        pixels = prepared(picture, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        with torch.no_grad():
            states = network(pixels, output_hidden_states=True).hidden_states
            normed = {at: network.layernorm(states[at + 1])[:, 1 + registers :].numpy() for at in (4, 11)}
        rows = side // 14
        expected = {at: unit(one).reshape(1, rows, rows, -1) for at, one in normed.items()}
        assert_same(at_size(backbone, side), picture, expected)


@pytest.mark.parametrize("size", [0, 2])
def test_efficientnet_lite_of_its_package(size, tmp_path):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    network = package.EfficientNet.from_name(f"efficientnet-lite{size}", image_size=96)
    network = with_random_weights(network)
    torch.save(network.state_dict(), tmp_path / "zip.pth")
    torch.save(network.state_dict(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    built = [
        build_efficientnet_lite(f"efficientnet_lite{size}", tmp_path / f"{form}.pth", source="s", name="it")
        for form in ("zip", "legacy")
    ]
    assert built[0].graph == built[1].graph
    picture, expected = a_picture(96), {}
    with torch.no_grad():
        x = (torch.from_numpy(picture).float().permute(0, 3, 1, 2) - 127) / 128
        x = network._swish(network._bn0(network._conv_stem(x)))
        for number, block in enumerate(network._blocks):
            x = block(x)
            if number:
                expected[number] = x.permute(0, 2, 3, 1).numpy()
    assert_same(built[0], picture, expected)


def test_a_network_of_timm_is_added_by_name_and_its_weights_are_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("TOTALRECALL_HOME", str(tmp_path / "home"))
    path = saved(with_random_weights(timm.create_model("resnet10t")), tmp_path / "w.safetensors")
    added = backbones.add("timm:resnet10t", path, size=64, licence="ours")
    assert backbones.load("resnet10t") == added
    assert (added.licence, added.source, added.advice.layers) == ("ours", "weights file w.safetensors", (2, 3))
    with pytest.raises(BackboneError, match=r"^Weights .* do not fit timm's resnet18: "):
        backbones.add("timm:resnet18", path)
    with pytest.raises(SettingError, match=r"^timm has no network 'resnet1000'\."):
        backbones.add("timm:resnet1000", path)
