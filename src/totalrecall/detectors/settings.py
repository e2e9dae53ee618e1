"""The settings that all detectors share, each checked once."""

from dataclasses import asdict, dataclass
from typing import Any

from totalrecall.errors import SettingError

__all__ = ["PRECISIONS", "CommonSettings", "check_choice", "check_precision"]

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


def check_precision(precision: str) -> None:
    """Raise SettingError unless the precision is one of `PRECISIONS`."""
    check_choice("precision", precision, PRECISIONS)


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")


def _words(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values)) or "none"
