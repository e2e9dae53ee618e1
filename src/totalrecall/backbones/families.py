"""Which architectures can be built from weights, each by its family's builder, none of which needs torch."""

from pathlib import Path

from totalrecall.backbones.dinov2 import DINOV2, build_dinov2
from totalrecall.backbones.efficientnet_lite import LITES, build_efficientnet_lite, lite_blocks
from totalrecall.backbones.resnet import build_resnet
from totalrecall.backbones.resnet_layout import ARCHITECTURES
from totalrecall.backbones.spec import Backbone
from totalrecall.errors import SettingError

__all__ = ["build", "channels_of", "check_architecture"]


def check_architecture(name: str) -> None:
    """Refuse a name that is of no family.

    Raises:
        SettingError: it is of none.
    """
    known = (*ARCHITECTURES, *LITES, *DINOV2)
    if name not in known:
        raise SettingError(f"No architecture is called {name!r}. Choose one of {', '.join(known)}.")


def channels_of(name: str) -> dict[int, int]:
    """Return the channels of each layer that a whole member of a family has, by the layer's number."""
    if name in ARCHITECTURES:
        return {stage: ARCHITECTURES[name].channels(stage) for stage in range(1, 5)}
    if name in DINOV2:
        return dict.fromkeys(range(DINOV2[name].depth), DINOV2[name].width)
    return {block.number: block.out for block in lite_blocks(name) if block.number}


def build(
    architecture: str, weights: str | Path, *, name: str, form: str | None = None, source: str = "", licence: str = ""
) -> Backbone:
    """Return the backbone of an architecture, built from its weights.

    Args:
        architecture: one that `check_architecture` takes.
        weights: safetensors file or torch checkpoint; each builder says which key names it knows.
        name: what the backbone is called.
        form: of a ResNet, "torchvision" or "caffe"; as the file says if not given.
        source: where the weights come from; the file's name if not given.
        licence: the licence of the weights.

    Raises:
        SettingError: the architecture does not exist, or has no such form.
        MissingExtraError: the package onnx is not installed.
        BackboneError: the weights are missing, damaged, or of another architecture.
    """
    check_architecture(architecture)
    if architecture in ARCHITECTURES:
        return build_resnet(architecture, weights, name=name, form=form, source=source, licence=licence)
    if form is not None:
        raise SettingError(f"form is for ResNets, got form {form!r} for {architecture}. Leave it out.", "form")
    if architecture in DINOV2:
        return build_dinov2(architecture, weights, name=name, source=source, licence=licence)
    return build_efficientnet_lite(architecture, weights, name=name, source=source, licence=licence)
