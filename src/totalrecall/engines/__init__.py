"""Run a backbone on pictures: what an engine is, and how one is opened.

`openvino` is the engine for the CPU; `runtime` holds the process's OpenVINO, which others use as well.

Nothing heavy is imported before an engine is opened: the settings need the names alone.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from totalrecall.errors import SettingError
from totalrecall.system.settings import minimum, one_of

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # the test run checks the types of all values
    import numpy as np
    import numpy.typing as npt

    from totalrecall.backbones.spec import Backbone
    from totalrecall.types import FeatureMap

__all__ = ["KINDS", "PRECISION", "THREADS", "Engine", "Token", "open_engine"]

KINDS = ("openvino",)
PRECISION = one_of(("auto", "f32", "bf16"))
THREADS = minimum(1, hint="Leave it out to use all cores.")

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

    def run(self, images: "npt.NDArray[np.generic]") -> "dict[str, FeatureMap]":
        """Return layer -> float32 (n, h, w, c) for uint8 RGB pictures (n, height, width, 3)."""

    def stream(
        self, pictures: "Iterable[tuple[Token, npt.NDArray[np.generic]]]"
    ) -> "Iterator[tuple[Token, dict[str, FeatureMap]]]":
        """Yield each token with layer -> float32 (1, h, w, c), in order, for uint8 RGB pictures (height, width, 3)."""


def open_engine(
    backbone: "Backbone",
    layers: tuple[str, ...],
    *,
    kind: str = "openvino",
    precision: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Return an engine for the layers of a backbone, such as ("layer2", "layer3").

    Raises:
        SettingError: the kind, a layer or the precision does not exist.
    """
    if kind not in KINDS:
        raise SettingError(f"engine must be one of {', '.join(KINDS)}, got {kind!r}.")
    from totalrecall.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(backbone, layers, precision=precision, threads=threads)
