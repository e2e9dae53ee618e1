"""`backbones add timm:NAME` where torch is not installed: what to install is said; what it cannot mean is refused."""

import builtins

import pytest

from totalrecall import backbones
from totalrecall.cli import main
from totalrecall.errors import MissingExtraError, SettingError


@pytest.fixture
def without_torch(monkeypatch):
    there = builtins.__import__

    def missing(name, *rest, **named):
        if name.split(".")[0] in ("torch", "timm"):
            raise ImportError(f"No module named {name!r}")
        return there(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)


def test_what_to_install_is_said(without_torch):
    with pytest.raises(MissingExtraError) as caught:
        backbones.add("timm:convnext_tiny")
    assert str(caught.value) == (
        "Networks of timm need torch and timm, which cannot be imported (No module named 'timm'). "
        'Run: pip install "totalrecall[torch]"'
    )


def test_the_command_line_says_the_same(without_torch, capsys):
    assert main(["backbones", "add", "timm:convnext_tiny"]) == 2
    assert 'pip install "totalrecall[torch]"' in capsys.readouterr().err


def test_size_is_for_timm_and_form_is_not():
    with pytest.raises(SettingError, match=r"^size is for networks of timm, got size 448 for resnet18"):
        backbones.add("resnet18", size=448)
    with pytest.raises(SettingError, match=r"^form is for ResNets, got form 'caffe' for timm's resnet18"):
        backbones.add("timm:resnet18", form="caffe")
    with pytest.raises(SettingError, match=r"^size must be from 32 to 4096 pixels, got 8"):
        backbones.add("timm:resnet18", size=8)
    with pytest.raises(SettingError, match=r"^A backbone's name has letters"):
        backbones.add("timm:../x")
