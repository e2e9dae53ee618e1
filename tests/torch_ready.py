"""What the tests with torch need before they import timm: see `declare_torchvision_operators`."""

import importlib.util
import re
from pathlib import Path

import pytest


def declare_torchvision_operators():
    """Declare torchvision's compiled operators where they are missing, so that it can be imported.

    Its wheel fits one build of torch. Beside another (a CPU build of a mirror) the compiled part is not loaded, and the
    import stops at the first operator that it would register. No backbone uses one of them.
    """
    import torch

    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("torchvision, which timm imports, is not installed")
    text = (Path(found.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    for name in re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"\)', text):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")


def import_timm():
    """Return the package timm, or skip the test."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    declare_torchvision_operators()
    return pytest.importorskip("timm")
