"""The settings that say which features are looked at. Nothing here imports NumPy: `--help` shows them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from totalrecall.engines import DEVICE, ENGINE, PRECISIONS, THREADS
from totalrecall.system.settings import Checked, Rule, minimum, one_of, setting

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # the test run checks the types of all values
    from totalrecall.backbones import Backbone

__all__ = ["DESCRIPTORS", "LAYERS", "FeatureSettings", "PatchSettings"]

DESCRIPTORS = ("concat", "paper-code")


def _are_layers(layers: Sequence[int]) -> bool:
    return bool(layers) and len(set(layers)) == len(layers) and all(0 <= layer <= 99 for layer in layers)


def _is_backbone(backbone: object) -> bool:
    return isinstance(backbone, str) or hasattr(backbone, "graph")


LAYERS = Rule("different numbers such as 2 3", _are_layers)


@dataclass(frozen=True, kw_only=True)
class FeatureSettings(Checked):
    """The backbone and how it is run."""

    backbone: "str | Backbone" = setting(
        "compact",
        "features",
        "name of the network that gives the features; `totalrecall backbones list` shows all",
        details="In Python also a `Backbone`.",
        rule=Rule("the name of a backbone, or a Backbone", _is_backbone),
        metavar="NAME",
    )
    layers: Sequence[int] | None = setting(
        None,
        "features",
        "numbers of the backbone's layers whose features are used",
        default_means="what suits the backbone: 2 3 for `compact` and ResNets",
        rule=LAYERS,
        metavar="N",
    )
    engine: str = setting(
        "openvino",
        "computing",
        "what runs the backbone: `openvino`, `onnxruntime` or `torch`",
        details="It is not stored in the model.",
        rule=ENGINE,
        metavar="NAME",
        stored=False,
    )
    device: str | None = setting(
        None,
        "computing",
        "what the engine computes on, such as `cpu`, `cuda`, `cuda:1`, `GPU`, `NPU` or `AUTO`",
        details="It is not stored in the model.",
        default_means="the processor",
        rule=DEVICE,
        metavar="NAME",
        stored=False,
    )
    precision: str = setting(
        "auto",
        "computing",
        "number format of the backbone: `auto` (with openvino the processor's bf16 if any), `f32`, `bf16` or `int8`",
        details="For `int8` see `totalrecall.tuning.fit_int8`: the graph itself has 8 bits, and stays so in the model.",
        rule=one_of((*PRECISIONS, "int8")),
        metavar="NAME",
    )
    threads: int | None = setting(
        None,
        "computing",
        "number of threads of the backbone",
        details="It is not stored in the model.",
        default_means="all cores",
        rule=THREADS,
        metavar="N",
        stored=False,
    )


@dataclass(frozen=True, kw_only=True)
class PatchSettings(Checked):
    """How patch vectors are made of feature maps (eq. 1 to 3)."""

    patch_size: int | None = setting(
        None,
        "features",
        "side of the neighbourhood that each patch averages, odd; p in the paper",
        default_means="what suits the backbone: 3, or 1 for vision transformers",
        rule=Rule("odd and at least 1", lambda value: value >= 1 and value % 2 == 1, "The paper uses 3."),
        metavar="P",
    )
    stride: int = setting(1, "features", "step of the patch grid; s in the paper", rule=minimum(1), metavar="S")
    descriptor: str = setting(
        "concat",
        "features",
        "how the layers are joined: `concat` (side by side) or `paper-code` (1024 numbers, as the authors' code does)",
        rule=one_of(DESCRIPTORS),
        metavar="NAME",
    )
