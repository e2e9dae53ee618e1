"""The settings of PatchCore, each checked once."""

import math
from dataclasses import dataclass

from totalrecall.detectors.settings import CommonSettings, check_choice
from totalrecall.errors import SettingError
from totalrecall.features.patches import DESCRIPTORS
from totalrecall.patchcore.coreset import SUBSAMPLINGS
from totalrecall.scoring import SCORINGS

__all__ = ["Settings", "walked_dimensions"]


@dataclass(frozen=True)
class Settings(CommonSettings):
    """What `PatchCore` was told."""

    coreset: float
    at_least: int
    subsampling: str
    patch_size: int
    stride: int
    descriptor: str
    scoring: str
    neighbours: int
    projection: int | None
    folds: int | None = None
    ignore_outliers: bool = False
    coreset_radius: float = 0.0
    new_parts: bool = False

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingError: says which, what was got, what is allowed.
        """
        super().__post_init__()
        if not 0 < self.coreset <= 1:
            hint = f" For {self.coreset:g} percent write {self.coreset / 100:g}." if 1 < self.coreset <= 100 else ""
            raise SettingError(f"coreset must be over 0 and at most 1, got {self.coreset:g}.{hint}")
        if self.at_least < 1:
            raise SettingError(
                f"at_least must be at least 1 vector, got {self.at_least}. Usual: 2000; 1: the share alone."
            )
        check_choice("subsampling", self.subsampling, SUBSAMPLINGS)
        if not 0 <= self.coreset_radius < math.inf:
            raise SettingError(
                f"coreset_radius must be at least 0, got {self.coreset_radius:g}. 0: the share alone; else a distance "
                "such as the radius that a fit reports."
            )
        if self.coreset_radius and self.subsampling != "greedy":
            raise SettingError(
                f"coreset_radius needs subsampling greedy, got {self.subsampling!r}: a random choice knows no radius."
            )
        if self.patch_size < 1 or self.patch_size % 2 == 0:
            raise SettingError(f"patch_size must be odd and at least 1, got {self.patch_size}. The paper uses 3.")
        if self.stride < 1:
            raise SettingError(f"stride must be at least 1, got {self.stride}.")
        check_choice("descriptor", self.descriptor, DESCRIPTORS)
        check_choice("scoring", self.scoring, SCORINGS)
        if self.neighbours < 1:
            raise SettingError(f"neighbours must be at least 1, got {self.neighbours}. Usual: 3 to 9.")
        if self.folds is not None and self.folds < 1:
            raise SettingError(
                f"folds must be at least 1, got {self.folds}. Usual: 5 to 20; 1 holds some pictures out."
            )
        if self.projection is not None and self.projection < 1:
            raise SettingError(f"projection must be at least 1 dimension, got {self.projection}. Usual: 128.")


# A projection to 128 dimensions, the paper's, errs by some percent in every distance. On 384 numbers it saves two
# thirds of the coreset's time and costs 0.2 to 0.4 points of image AUROC on magnetic tiles (mean of several seeds,
# ResNet-18 and compact); on 1536 it saves eleven twelfths.
_WALKED_AS_THEY_ARE = 512


def walked_dimensions(dimensions: int, settings: Settings) -> int:
    """Return how many numbers of each patch the coreset is chosen in."""
    wanted = settings.projection or (dimensions if dimensions <= _WALKED_AS_THEY_ARE else 128)
    return min(wanted, dimensions)
