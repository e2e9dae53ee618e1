"""What all engines are alike in: their settings, what they tell of themselves, and how they are copied."""

import threading
from abc import ABC, abstractmethod
from typing import Any

from totalrecall.backbones.spec import Backbone
from totalrecall.engines import PRECISION, THREADS
from totalrecall.engines.checks import checked_layers
from totalrecall.errors import SettingError
from totalrecall.system.threads import renew_in_child

__all__ = ["BackboneEngine"]


class BackboneEngine(ABC):
    """An engine for some layers of a backbone. What runs the graph is opened when the first picture comes.

    Args:
        backbone: the graph.
        layers: names of the layers to return, such as ("layer2", "layer3").
        device: what it computes on, by the engine's own name; the processor if not given.
        precision: "auto", "f32" or "bf16".
        threads: to compute with; all cores if not given.

    Raises:
        SettingError: a layer, device or precision does not exist, or this machine lacks it.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: tuple[str, ...],
        *,
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        PRECISION.check("precision", precision)
        if threads is not None:
            THREADS.check("threads", threads)
        self._given: dict[str, Any] = {"device": device, "precision": precision, "threads": threads}
        self._device, self._precision = self._chosen(device, precision)
        if threads is not None and self._device.lower() != "cpu":
            raise SettingError(
                f"threads is for the processor, got {threads} for device {self._device}. Leave it out.",
                "threads",
                "device",
            )
        self._backbone = backbone
        self._layers = checked_layers(backbone, layers)
        self._threads = threads
        self._lock = threading.RLock()
        renew_in_child(self)

    @abstractmethod
    def _chosen(self, device: str | None, precision: str) -> tuple[str, str]:
        """Return the engine's own name of the device that was asked for, and the number format that it computes in.

        Raises:
            MissingExtraError: the engine's package is not installed.
            SettingError: this machine has none of that name, or it lacks the number format.
        """

    def renew(self) -> None:
        """Let go of what runs the graph in a forked child, whose threads are gone. It is opened again when used."""
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments of the constructor: what runs a graph cannot be copied or used by another processor."""
        return {"backbone": self._backbone, "layers": self._layers, **self._given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, **state)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it returns, in the given order."""
        return self._layers

    @property
    def precision(self) -> str:
        """The number format it computes in: "f32" or "bf16"; "f16" on an NPU, which has no other."""
        return self._precision
