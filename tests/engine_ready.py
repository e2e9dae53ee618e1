"""What the tests of ONNX Runtime's and torch's engines share: which of them can run here."""

import importlib.util

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
