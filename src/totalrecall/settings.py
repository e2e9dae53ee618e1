"""The settings of each detector: validated once, kept in the model file."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from totalrecall.coreset import SUBSAMPLINGS
from totalrecall.errors import SettingError
from totalrecall.patches import DESCRIPTORS
from totalrecall.scoring import SCORINGS

__all__ = ["PRECISIONS", "CommonSettings", "PadimSettings", "Settings", "SpadeSettings", "check_precision"]

PRECISIONS = ("auto", "f32", "bf16")


@dataclass(frozen=True)
class CommonSettings:
    """What every detector was told, apart from how pictures are prepared (`images.Recipe`). See `PatchCore`."""

    backbone: str
    layers: tuple[int, ...]
    false_alarm_rate: float
    holdout: float
    min_area: int
    precision: str
    seed: int

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingError: says which, what was got, what is allowed.
        """
        layers = self.layers
        if not layers or len(set(layers)) != len(layers) or not all(1 <= layer <= 9 for layer in layers):
            raise SettingError(f"layers must be different numbers such as 2 3, got {_words(layers)}.")
        check_precision(self.precision)
        if not 0 < self.false_alarm_rate < 1:
            raise SettingError(f"false_alarm_rate must be between 0 and 1, got {self.false_alarm_rate:g}. Usual: 0.01.")
        if not 0 <= self.holdout < 1:
            raise SettingError(f"holdout must be at least 0 and under 1, got {self.holdout:g}. Usual: 0.2.")
        if self.min_area < 1:
            raise SettingError(f"min_area must be at least 1 pixel, got {self.min_area}.")
        if self.seed < 0:
            raise SettingError(f"seed must be at least 0, got {self.seed}.")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return {**asdict(self), "layers": list(self.layers)}


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
        _one_of("subsampling", self.subsampling, SUBSAMPLINGS)
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
        _one_of("descriptor", self.descriptor, DESCRIPTORS)
        _one_of("scoring", self.scoring, SCORINGS)
        if self.neighbours < 1:
            raise SettingError(f"neighbours must be at least 1, got {self.neighbours}. Usual: 3 to 9.")
        if self.folds is not None and self.folds < 1:
            raise SettingError(
                f"folds must be at least 1, got {self.folds}. Usual: 5 to 20; 1 holds some pictures out."
            )
        if self.projection is not None and self.projection < 1:
            raise SettingError(f"projection must be at least 1 dimension, got {self.projection}. Usual: 128.")


@dataclass(frozen=True)
class PadimSettings(CommonSettings):
    """What `PaDiM` was told."""

    dimensions: int | None

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingError: says which, what was got, what is allowed.
        """
        super().__post_init__()
        if self.dimensions is not None and self.dimensions < 1:
            raise SettingError(f"dimensions must be at least 1, got {self.dimensions}. The paper uses 100 to 550.")


@dataclass(frozen=True)
class SpadeSettings(CommonSettings):
    """What `SPADE` was told."""

    neighbours: int

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingError: says which, what was got, what is allowed.
        """
        super().__post_init__()
        if self.neighbours < 1:
            raise SettingError(f"neighbours must be at least 1, got {self.neighbours}. The paper uses 50.")


def check_precision(precision: str) -> None:
    """Raise SettingError unless the precision is one of `PRECISIONS`."""
    _one_of("precision", precision, PRECISIONS)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")


def _words(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values)) or "none"
