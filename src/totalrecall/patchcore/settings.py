"""The settings of PatchCore. Nothing here imports NumPy: `--help` shows them."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from totalrecall.detectors.settings import CommonSettings
from totalrecall.errors import SettingError
from totalrecall.features.settings import PatchSettings
from totalrecall.pictures.settings import SIZE
from totalrecall.system.settings import Rule, declared, minimum, one_of, setting

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # the test run checks the types of all values
    from totalrecall.backbones import Backbone

__all__ = [
    "SCORING",
    "SCORINGS",
    "SUBSAMPLING",
    "SUBSAMPLINGS",
    "JoinedSettings",
    "Settings",
    "coreset_dimensions",
    "refuse_several",
]

SUBSAMPLINGS = ("greedy", "random")
SUBSAMPLING = one_of(SUBSAMPLINGS)
SCORINGS = ("extent", "map1pct", "top1pct", "max", "paper")
SCORING = one_of(SCORINGS)


def _percent(share: float) -> str:
    return f"For {share:g} percent write {share / 100:g}." if 1 < share <= 100 else ""


@dataclass(frozen=True, kw_only=True)
class Settings(PatchSettings, CommonSettings):
    """The settings of `PatchCore`."""

    coreset: float = setting(
        0.01,
        "memory bank",
        "share of the patches to keep in the memory bank, over 0 and at most 1",
        rule=Rule("over 0 and at most 1", lambda value: 0 < value <= 1, _percent),
        metavar="SHARE",
    )
    at_least: int = setting(
        2000,
        "memory bank",
        "keep at least N patches, even if {coreset} asks for fewer",
        details="1: the share alone decides.",
        rule=minimum(1, "vector", "Usual: 2000; 1: the share alone."),
        metavar="N",
    )
    coreset_radius: float = setting(
        0.0,
        "memory bank",
        "stop early once every patch is within this distance of a kept one; 0 = never",
        details="A distance in the space that the coreset is chosen in; `report_.radius` says what a fit reached.",
        rule=Rule(
            "at least 0",
            lambda value: 0 <= value < math.inf,
            "0: the share alone; else a distance such as the radius that a fit reports.",
        ),
        metavar="DISTANCE",
    )
    subsampling: str = setting(
        "greedy",
        "memory bank",
        "how the kept patches are chosen: `greedy` (algorithm 1: the patches that cover the rest best) or `random`",
        rule=SUBSAMPLING,
        option=False,
    )
    projection: int | None = setting(
        None,
        "memory bank",
        "number of dimensions of the random projection in which the coreset is chosen",
        default_means="no projection up to 512 numbers per patch, else 128",
        rule=minimum(1, "dimension", "Usual: 128."),
        option=False,
    )
    ignore_outliers: bool = setting(
        False,
        "memory bank",
        "leave out the bad patches of good pictures that are unlike all others; `totalrecall audit` shows them",
    )
    tilt_up_to: int = setting(
        4,
        "memory bank",
        "with at most N good pictures, learn each of them tilted by 5 and 10 degrees as well; 0 = never",
        details="So few cannot show how differently a part may lie.",
        rule=minimum(0, "picture", "Usual: 4; 0: never."),
        metavar="N",
    )
    scoring: str = setting(
        "extent",
        "score",
        "score of a picture: `extent` (how unusual the largest 0.5, 1, 3 and 10 % of the smoothed distances are, "
        "compared with good pictures), `map1pct` (mean of the largest 1 % of the smoothed distances), `top1pct` (the "
        "same without smoothing), `max` (the largest distance) or `paper` (eq. 7)",
        details="`extent` learns from the good pictures that set the threshold; with fewer than 10 of them the score "
        "is that of `map1pct`.",
        rule=SCORING,
        metavar="NAME",
    )
    neighbours: int = setting(
        9,
        "score",
        "number of neighbours in eq. 7 (b in the paper), for {scoring} `paper`",
        rule=minimum(1, hint="Usual: 3 to 9."),
        metavar="K",
    )
    folds: int | None = setting(
        None,
        "threshold",
        "number of cross-validation folds that set the threshold; 1 = keep the share {holdout} aside instead",
        default_means="20; 1 for more than a thousand pictures",
        rule=minimum(1, hint="Usual: 5 to 20; 1 holds some pictures out."),
        metavar="K",
    )
    new_parts: bool = setting(
        False,
        "threshold",
        "use this if each part was photographed several times and new parts will come: all pictures of a part are put "
        "in the same fold",
    )

    def __post_init__(self) -> None:
        """Check every value, and what they must be together."""
        super().__post_init__()
        if self.coreset_radius and self.subsampling != "greedy":
            raise SettingError(
                f"coreset_radius needs subsampling 'greedy', got {self.subsampling!r}: a random choice has no radius.",
                "coreset_radius",
                "subsampling",
            )


_MOST_MEMBERS = 16


def _are_backbones(backbone: object) -> bool:
    return not isinstance(backbone, (list, tuple)) or 1 <= len(backbone) <= _MOST_MEMBERS


def _are_sizes(sizes: Sequence[int]) -> bool:
    return 1 <= len(sizes) <= _MOST_MEMBERS and all(SIZE.test(size) for size in sizes)


@dataclass(frozen=True, kw_only=True)
class JoinedSettings(Settings):
    """The settings of `JoinedPatchCore`: those of its members, and of which there are several of some."""

    backbone: "str | Backbone | Sequence[str | Backbone]" = setting(  # type: ignore[assignment]  # several here
        "compact",
        "features",
        "name of the network that gives the features; `totalrecall backbones list` shows all",
        details="Several names: one for each member.",
        rule=Rule(f"one name, or from 1 to {_MOST_MEMBERS}", _are_backbones),
        metavar="NAME",
    )
    sizes: Sequence[int] | None = setting(
        None,
        "pictures",
        "several sizes: a memory bank for each, as for each of several names of {backbone}; their scores are joined to "
        "one",
        details="With several names of {backbone} too, each of them has its own size, in the same order.",
        default_means="one bank, of pictures of one {size}",
        rule=Rule(f"from 1 to {_MOST_MEMBERS} numbers from 32 to 4096", _are_sizes, "Usual: 256 384."),
        metavar="PIXELS",
        stored=False,
    )

    def __post_init__(self) -> None:
        """Check every value, and what they must be together."""
        super().__post_init__()
        if self.sizes is None:
            return
        if self.size is not None:
            raise SettingError(
                f"sizes is in place of size, got sizes {_in_words(self.sizes)} and size {self.size}.", "sizes", "size"
            )
        names = self.names
        if len(names) > 1 and len(self.sizes) not in (1, len(names)):
            raise SettingError(
                f"sizes must be one for each backbone, got {len(self.sizes)} for {len(names)} backbones. "
                "The same name may be given several times.",
                "sizes",
                "backbone",
            )

    @property
    def names(self) -> "Sequence[str | Backbone]":
        """The backbones, as a list of one or more."""
        backbone: Any = self.backbone
        return list(backbone) if isinstance(backbone, (list, tuple)) else [backbone]

    def members(self) -> list[Settings]:
        """Return the settings of each member, which may be one alone."""
        names: list[Any] = list(self.names)
        sizes: list[Any] = list(self.sizes) if self.sizes else [self.size]
        count = max(len(names), len(sizes))
        names, sizes = (values * count if len(values) == 1 else values for values in (names, sizes))
        shared = {name: getattr(self, name) for name in declared(Settings)}
        return [Settings(**{**shared, "backbone": name, "size": size}) for name, size in zip(names, sizes, strict=True)]


def _in_words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def refuse_several(keywords: Mapping[str, object]) -> None:
    """Lead a person who wants several backbones or sizes to the class that takes them.

    Raises:
        SettingError: the keywords of a `PatchCore` name several.
    """
    several = [name for name in ("backbone", "size") if isinstance(keywords.get(name), (list, tuple))]
    if "sizes" in keywords or several:
        name = "sizes" if "sizes" in keywords else several[0]
        given = {"backbone": "backbone=('compact', 'lite2')"}.get(name, "sizes=(256, 384)")
        raise SettingError(f"{name}: a PatchCore has one backbone and one size. Use JoinedPatchCore({given}).", name)


# A projection to 128 dimensions, the paper's, errs by some percent in every distance. On 384 numbers it saves two
# thirds of the coreset's time and costs 0.2 to 0.4 points of image AUROC on magnetic tiles (mean of several seeds,
# ResNet-18 and compact); on 1536 it saves eleven twelfths.
_NOT_PROJECTED = 512


def coreset_dimensions(dimensions: int, settings: Settings) -> int:
    """Return in how many dimensions the coreset is chosen, of patches of so many numbers."""
    wanted = settings.projection or (dimensions if dimensions <= _NOT_PROJECTED else 128)
    return min(wanted, dimensions)
