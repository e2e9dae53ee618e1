"""Fixtures shared by the tests; real pictures and weights come from ../shared where it is there."""

from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and weights beside the project, or a skip."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the real pictures and weights of ../shared, which are not here")
    return SHARED


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A per-user folder of the test run's own."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session", autouse=True)
def _own_home(home):
    """No test reads or writes the person's own folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TOTALRECALL_HOME", str(home))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def resnet18(shared, home):
    """The real ResNet-18 of ../shared, as a backbone."""
    from totalrecall.backbones import add

    return add("resnet18", shared / "backbones" / "resnet18_imagenet1k_v1.safetensors")


@pytest.fixture(scope="session")
def real_patches(shared, resnet18):
    """20,000 patch vectors of real good tiles, ResNet-18 layers 2 and 3 in float32: (20000, 384)."""
    from totalrecall import PatchCore
    from totalrecall.datasets import open_dataset

    detector = PatchCore(backbone=resnet18, precision="f32")
    grids = [grid for _, grid in detector.extractor.stream(open_dataset("mtd", shared / "data" / "mtd").train[:20])]
    return np.concatenate(grids).reshape(-1, 384)[:20000].copy()


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """ResNet-18 with random weights: a whole backbone that needs no file of anybody's."""
    from safetensors.numpy import save_file

    from tests.resnet_forward import random_weights
    from totalrecall.backbones.resnet import build_resnet

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(random_weights("resnet18"), str(path))
    return build_resnet("resnet18", path, name="tiny")
