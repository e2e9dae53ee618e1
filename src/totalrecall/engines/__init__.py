"""Run a backbone on pictures: what an engine is, and how one is opened.

In reading order: `runtime` (the process's OpenVINO), `checks` (what all engines are alike in),
`openvino` (the default), `batched` (what the other two share), `onnxruntime`, `torch` and `torch_operators` (each
operator as calls of torch).

Nothing heavy is imported before an engine is opened: the settings need the names alone.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from totalrecall.system.settings import Rule, minimum, one_of

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # the test run checks the types of all values
    import numpy as np
    import numpy.typing as npt

    from totalrecall.backbones.spec import Backbone
    from totalrecall.types import FeatureMap

__all__ = [
    "DEVICE",
    "ENGINE",
    "KINDS",
    "PRECISION",
    "PRECISIONS",
    "THREADS",
    "Engine",
    "Running",
    "Token",
    "open_engine",
]

KINDS = ("openvino", "onnxruntime", "torch")
ENGINE = one_of(KINDS)
DEVICE = Rule(
    "a name such as cpu, GPU or cuda:1",
    lambda value: re.fullmatch(r"[A-Za-z][A-Za-z0-9.:]{0,39}", value) is not None,
    "Leave it out to use the processor.",
)
PRECISIONS = ("auto", "f32", "bf16")
PRECISION = one_of(PRECISIONS)
THREADS = minimum(1, hint="Leave it out to use all cores.")

Token = TypeVar("Token")


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a fitted model's backbone is run here; None leaves what the model or the default says. See `open_engine`.

    Raises:
        SettingError: a value is not allowed: here, or the caller's mistake would be taken for a damaged model.
    """

    engine: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check each value that was given."""
        rules = {"engine": ENGINE, "device": DEVICE, "precision": PRECISION, "threads": THREADS}
        for name, value in self.chosen().items():
            rules[name].check(name, value)

    def chosen(self) -> dict[str, Any]:
        """Return the settings that were given."""
        values = {"engine": self.engine, "device": self.device, "precision": self.precision, "threads": self.threads}
        return {name: value for name, value in values.items() if value is not None}


@runtime_checkable  # the checks of the test run need it
class Engine(Protocol):
    """Runs a backbone. The layers are chosen when it is made; it computes nothing behind the deepest one."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it returns, in the given order."""

    @property
    def precision(self) -> str:
        """The number format it computes in: "f32" or "bf16"; "f16" on an NPU, which has no other."""

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
    engine: str = "openvino",
    device: str | None = None,
    precision: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Return an engine for the layers of a backbone, such as ("layer2", "layer3").

    Args:
        backbone: the graph.
        layers: names of the layers to return.
        engine: one of `KINDS`.
        device: what it computes on, by the engine's own name; the processor if not given.
        precision: "auto", "f32" or "bf16".
        threads: to compute with; all cores if not given.

    Raises:
        SettingError: the engine, a layer, the device or the precision does not exist, or this machine lacks it.
        MissingExtraError: the engine's package is not installed.
    """
    ENGINE.check("engine", engine)
    if device is not None:
        DEVICE.check("device", device)
    if engine == "onnxruntime":
        from totalrecall.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(backbone, layers, device=device, precision=precision, threads=threads)
    if engine == "torch":
        from totalrecall.engines.torch import TorchEngine

        return TorchEngine(backbone, layers, device=device, precision=precision, threads=threads)
    from totalrecall.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(backbone, layers, device=device, precision=precision, threads=threads)
