"""The settings that all detectors share, and those of PaDiM and SPADE. Nothing here imports NumPy: `--help` shows them.

PatchCore's are in `patchcore.settings`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from totalrecall.features.settings import LAYERS, FeatureSettings
from totalrecall.pictures.settings import Preparation
from totalrecall.system.settings import Rule, minimum, one_of, setting

__all__ = ["CommonSettings", "ComparedSettings", "PadimSettings", "PyramidSettings", "SpadeSettings"]


@dataclass(frozen=True, kw_only=True)
class ComparedSettings(Preparation, FeatureSettings):
    """What is needed to compare pictures with each other; an audit takes these."""

    seed: int = setting(42, "computing", "seed of all random choices", rule=minimum(0), metavar="N")


@dataclass(frozen=True, kw_only=True)
class CommonSettings(ComparedSettings):
    """What every detector has."""

    false_alarm_rate: float = setting(
        0.01,
        "threshold",
        "share of good pictures that may be called anomalous",
        rule=Rule("between 0 and 1", lambda value: 0 < value < 1, "Usual: 0.01."),
        metavar="RATE",
    )
    holdout: float = setting(
        0.2,
        "threshold",
        "share of the good pictures kept aside to set the threshold, when folds are not used; 0 = no threshold",
        rule=Rule("at least 0 and under 1", lambda value: 0 <= value < 1, "Usual: 0.2."),
        metavar="SHARE",
    )
    min_area: int = setting(
        1,
        "threshold",
        "area of the smallest region to mark, in pixels of the original picture",
        rule=minimum(1, "pixel"),
        metavar="PIXELS",
    )


@dataclass(frozen=True, kw_only=True)
class PyramidSettings(CommonSettings):
    """What `PaDiM` and `SPADE` share: they take all layers if none are named."""

    layers: Sequence[int] | None = setting(
        None,
        "features",
        "numbers of the backbone's layers whose features are used",
        default_means="all of 1 2 3 that a ResNet has, else what suits the backbone",
        rule=LAYERS,
        metavar="N",
    )
    scoring: str = setting(
        "paper",
        "score",
        "score of a picture: `paper` (PaDiM: the largest value of the anomaly map; SPADE: the mean distance to the "
        "good pictures that it is compared with) or `extent` (how unusual the largest 0.5, 1, 3 and 10 % of the "
        "distances are, compared with good pictures)",
        details="`extent` learns from the good pictures that set the threshold; with fewer than 10 of them the score "
        "is that of `paper`.",
        rule=one_of(("paper", "extent")),
        metavar="NAME",
    )


@dataclass(frozen=True, kw_only=True)
class PadimSettings(PyramidSettings):
    """The settings of `PaDiM`."""

    dimensions: int | None = setting(
        None,
        "features",
        "number of channels to draw at random from those of all layers",
        details="These are the paper's choices for ResNet-18 and WideResNet50-2. Memory and file grow with its square.",
        default_means="100 if there are at most 512 channels, else 550",
        rule=minimum(1, hint="The paper uses 100 to 550."),
        metavar="D",
    )


@dataclass(frozen=True, kw_only=True)
class SpadeSettings(PyramidSettings):
    """The settings of `SPADE`."""

    neighbours: int = setting(
        50,
        "score",
        "number of good pictures that a picture is compared with",
        details="With fewer good pictures than that, it is all of them.",
        rule=minimum(1, hint="The paper uses 50."),
        metavar="K",
    )
