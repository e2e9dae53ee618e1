"""What the tests of engines share: which of them can run here, pictures, and when maps are the same."""

import importlib.util

import numpy as np
import pytest

ENGINES = ("onnxruntime", "torch")


def has_cuda(engine):
    """Tell whether an engine's package is here and finds a graphics card."""
    if importlib.util.find_spec(engine) is None:
        return False
    if engine == "torch":
        import torch

        return torch.cuda.is_available()
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _here(engine):
    missing = importlib.util.find_spec(engine) is None
    return pytest.param(engine, marks=pytest.mark.skipif(missing, reason=f"{engine} is not installed"))


HERE = [_here(engine) for engine in ENGINES]


def pictures(n=3, height=64, width=48, seed=0):
    """Pictures of noise, uint8 (n, height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), np.uint8)


def assert_maps_close(got, expected, relative):
    """Fail unless two answers have the same layers, whose maps differ by at most a share of the largest value."""
    assert got.keys() == expected.keys()
    for layer in got:
        assert got[layer].dtype == np.float32
        assert got[layer].shape == expected[layer].shape
        assert np.abs(got[layer] - expected[layer]).max() <= relative * np.abs(expected[layer]).max(), layer
