"""One 256 x 256 picture through `compact` against the same through ResNet-18, two threads, layers 2 and 3.

ResNet-18's weights are random where ../shared is absent: its time does not depend on them. The answer that is asserted:
both give maps of the same shapes, finite, and different for different pictures.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import SHARED, paired, record
from totalrecall.backbones import Backbone, load
from totalrecall.backbones.resnet import build_resnet
from totalrecall.engines import open_engine

LAYERS = ("layer2", "layer3")


def main() -> None:
    """Print and record the ratio in each precision that the processor has."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    compact, resnet = load("compact"), _resnet18()
    rows = []
    for precision in ("f32", "auto"):
        ours = open_engine(compact, LAYERS, precision=precision, threads=2)
        theirs = open_engine(resnet, LAYERS, precision=precision, threads=2)
        _assert_same_kind_of_answer(ours.run(picture), theirs.run(picture), ours.run(255 - picture))
        mine, other, ratio = paired(lambda e=ours: e.run(picture), lambda e=theirs: e.run(picture), rounds=60)
        rows.append(
            {
                "precision": ours.precision,
                "compact_ms": 1000 * mine,
                "resnet18_ms": 1000 * other,
                "ratio_to_resnet18": ratio,
                "compact_file_mb": len(compact.graph) / 1e6,
            }
        )
    record("backbone", rows)


def _resnet18() -> Backbone:
    weights = SHARED / "backbones" / "resnet18_imagenet1k_v1.safetensors"
    if weights.is_file():
        return build_resnet("resnet18", weights)
    from safetensors.numpy import save_file
    from tests.resnet_forward import random_weights

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.safetensors"
        save_file(random_weights("resnet18"), str(path))
        return build_resnet("resnet18", path)


def _assert_same_kind_of_answer(ours: dict, theirs: dict, other: dict) -> None:
    for name in LAYERS:
        assert ours[name].shape[:3] == theirs[name].shape[:3], name
        assert np.isfinite(ours[name]).all(), name
        assert not np.allclose(ours[name], other[name]), name


if __name__ == "__main__":
    main()
