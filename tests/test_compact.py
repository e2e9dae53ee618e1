"""The built-in backbone: in the package, small, and close to its teacher."""

import numpy as np
import pytest

from totalrecall import PatchCore
from totalrecall.backbones import available, load
from totalrecall.demo.pictures import defective, good
from totalrecall.engines import open_engine
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import read_image

LAYERS = ("layer2", "layer3")


def test_it_is_built_in_and_small():
    (info,) = [info for info in available() if info.name == "compact"]
    assert info.built_in
    assert not info.problem
    assert info.size < 6_000_000
    assert [(layer.name, layer.channels, layer.stride) for layer in info.layers] == [
        ("layer2", 128, 8),
        ("layer3", 256, 16),
    ]
    assert "BSD" in info.licence


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (224, 224)])
def test_it_takes_pictures_of_any_size(size):
    picture = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    maps = open_engine(load("compact"), LAYERS, precision="f32").run(picture)
    assert maps["layer2"].shape == (1, size[0] // 8, size[1] // 8, 128)
    assert maps["layer3"].shape == (1, size[0] // 16, size[1] // 16, 256)
    assert all(np.isfinite(one).all() for one in maps.values())


def test_it_is_the_default_and_tells_a_missing_piece_from_good_parts():
    parts = [good("washer", np.random.default_rng([0, i]), (192, 192)) for i in range(25)]
    detector = PatchCore(size=192).fit(parts)
    assert detector.backbone.name == "compact"
    fine = [detector.predict(good("washer", np.random.default_rng([1, i]), (192, 192))).score for i in range(3)]
    bad = [
        detector.predict(defective("washer", "missing", np.random.default_rng([2, i]), (192, 192))[0]).score
        for i in range(3)
    ]
    assert min(bad) > max(fine)


def test_its_maps_are_close_to_its_teachers_on_real_pictures(shared, resnet18):
    """On pictures of sources that were kept aside from the training: most of the teacher's variance is explained."""
    paths = sorted((shared / "data" / "natural").glob("leather_*.jpg"))[:4]
    pictures = np.stack([Recipe(size=128).prepare(read_image(path))[0] for path in paths])
    ours = open_engine(load("compact"), LAYERS, precision="f32").run(pictures)
    theirs = open_engine(resnet18, LAYERS, precision="f32").run(pictures)
    for name in LAYERS:
        missed = ((ours[name] - theirs[name]) ** 2).sum() / ((theirs[name] - theirs[name].mean((0, 1, 2))) ** 2).sum()
        assert missed < 0.3, name
