"""What an engine is: it runs a backbone on pictures and returns feature maps by the name of their layer."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.spec import Backbone
from totalrecall.errors import SettingError
from totalrecall.types import FeatureMap

__all__ = ["Engine", "Token", "check_layers", "check_picture", "check_pictures"]

Token = TypeVar("Token")


@runtime_checkable  # the checks of the test run need it
class Engine(Protocol):
    """Runs a backbone. The layers are chosen when it is made; it computes nothing behind the deepest one."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it returns, in the given order."""

    @property
    def precision(self) -> str:
        """The number format it computes in: "f32" or "bf16"."""

    def run(self, images: npt.NDArray[np.generic]) -> dict[str, FeatureMap]:
        """Return layer -> float32 (n, h, w, c) for uint8 RGB pictures (n, height, width, 3)."""

    def stream(
        self, pictures: Iterable[tuple[Token, npt.NDArray[np.generic]]]
    ) -> Iterator[tuple[Token, dict[str, FeatureMap]]]:
        """Yield each token with layer -> float32 (1, h, w, c), in order, for uint8 RGB pictures (height, width, 3)."""


def check_layers(backbone: Backbone, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return `layers` after checking that the backbone has them and that none is repeated.

    Raises:
        SettingError: there is none, one is asked for twice, or the backbone has no such layer.
    """
    known = [layer.name for layer in backbone.layers]
    for layer in layers:
        if layer not in known:
            raise SettingError(f"Backbone {backbone.name} has no {layer}. Choose among {', '.join(known)}.")
    if not layers or len(set(layers)) < len(layers):
        raise SettingError(
            f"layers must be one or more different names, got {layers!r}. Choose among {', '.join(known)}."
        )
    return tuple(layers)


def check_picture(picture: npt.NDArray[np.generic]) -> None:
    """Raise SettingError unless the array is one uint8 RGB picture (height, width, 3)."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise SettingError(
            f"An engine takes a picture as uint8 RGB (height, width, 3), got {picture.dtype} {picture.shape}. "
            "Prepare it with totalrecall.pictures.loading first."
        )


def check_pictures(images: npt.NDArray[np.generic]) -> None:
    """Raise SettingError unless the array is a stack of uint8 RGB pictures (n, height, width, 3)."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise SettingError(
            f"An engine runs pictures as uint8 RGB (n, height, width, 3), got {images.dtype} {images.shape}. "
            "Prepare them with totalrecall.pictures.loading first."
        )
