"""What all engines are alike in: settings, copies, and checks of pictures, layers, and what a graph would compute.

The last is worked out by OpenVINO for every engine, before one is given the graph: a graph may come from a stranger,
and one node of it could ask for more memory than there is.
"""

import contextlib
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.graph_check import check_activations, check_graph
from totalrecall.backbones.spec import Backbone
from totalrecall.engines import PRECISION, THREADS
from totalrecall.engines.runtime import core, openvino_package
from totalrecall.errors import BackboneError, SettingError
from totalrecall.system.threads import renew_in_child
from totalrecall.types import FeatureMap

__all__ = [
    "BackboneEngine",
    "check_pictures",
    "checked_layers",
    "checked_model",
    "not_there",
    "refused",
    "stacked",
]


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


def checked_layers(backbone: Backbone, layers: tuple[str, ...]) -> tuple[str, ...]:
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


def check_pictures(pictures: npt.NDArray[np.generic], axes: int) -> None:
    """Raise SettingError unless the array is uint8 RGB, none of its axes empty.

    Args:
        pictures: one, (height, width, 3), or several, (n, height, width, 3).
        axes: 3 or 4.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != axes or pictures.shape[-1] != 3 or 0 in pictures.shape:
        shape = "height, width, 3" if axes == 3 else "n, height, width, 3"
        raise SettingError(
            f"An engine takes pictures as uint8 RGB ({shape}), got {pictures.dtype} {pictures.shape}. "
            "Prepare them with totalrecall.pictures.loading first."
        )


def not_there(engine: str, device: str, there: Sequence[str], hint: str) -> SettingError:
    """Return the error of a device that the machine has not.

    Args:
        engine: its name.
        device: that was asked for.
        there: the devices that there are.
        hint: what to do to get it.
    """
    return SettingError(
        f"device must be one of {', '.join(there)} for engine {engine} on this machine, got {device}. {hint}",
        "device",
        "engine",
    )


def stacked(singles: Iterable[tuple[int, dict[str, FeatureMap]]], count: int) -> dict[str, FeatureMap]:
    """Return layer -> (count, h, w, c) of so many pictures that come with their numbers, one by one."""
    maps: dict[str, FeatureMap] = {}
    for at, single in singles:
        for layer, features in single.items():
            if layer not in maps:
                maps[layer] = np.empty((count, *features.shape[1:]), np.float32)
            maps[layer][at] = features[0]
    return maps


def checked_model(backbone: Backbone, layers: tuple[str, ...], height: int, width: int) -> Any:
    """Return OpenVINO's model of a backbone for pictures of a size, with only the layers asked for as outputs.

    What only other layers need is gone. Call it inside `refused`.

    Raises:
        BackboneError: the graph holds what is not allowed, or lacks a layer.
        ValueError, RuntimeError: it cannot be computed, computes too much, or gives other shapes than it should.
    """
    check_graph(backbone.graph, f"Backbone {backbone.name}")
    model = _cut(core().read_model(backbone.graph), backbone, layers)
    model.reshape([1, height, width, 3])
    check_activations(_activations(model), height * width)
    _check_outputs(model, backbone, layers, (height, width))
    return model


@contextlib.contextmanager
def refused(
    backbone: Backbone, what: str, *, device: str = "", others: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn what an engine says of a graph that it cannot run into an error of ours.

    Args:
        backbone: whose graph it is.
        what: it is run on, or by, as the message continues.
        device: that refuses it, where that is not the processor, which runs every sound graph.
        others: exceptions of the engine's own.
    """
    refusals: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError, MemoryError, *others)
    try:
        yield
    except refusals as error:
        if isinstance(error, SettingError):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        said = f"Backbone {backbone.name} cannot be run {what}"
        if device:
            raise SettingError(
                f"{said}, device {device} ({lines[-1][:300]}). Leave device out: the processor can.", "device"
            ) from None
        raise BackboneError(f"{said} ({lines[-1][:300]}). Its graph is damaged: add the backbone again.") from None


def _cut(model: Any, backbone: Backbone, layers: tuple[str, ...]) -> Any:
    results = {name: output.get_node() for output in model.outputs for name in output.get_names()}
    lacking = [layer for layer in layers if layer not in results]
    if lacking:
        raise BackboneError(
            f"Backbone {backbone.name} lists {lacking[0]} but its graph has no such output. "
            "Its file is damaged: add the backbone again."
        )
    return openvino_package().Model([results[layer] for layer in layers], model.get_parameters(), "backbone")


def _activations(model: Any) -> Iterator[tuple[str, int]]:
    """Yield of each node of a model whose shapes are known its name, and how many numbers it computes."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant":  # the file's own
            yield node.get_friendly_name(), sum(math.prod(output.get_shape()) for output in node.outputs())


def _check_outputs(model: Any, backbone: Backbone, layers: tuple[str, ...], size: tuple[int, int]) -> None:
    """Raise ValueError unless each layer gives what the backbone's facts say: float32 (1, h, w, channels)."""
    known = {layer.name: layer for layer in backbone.layers}
    for name, output in zip(layers, model.outputs, strict=True):
        layer, shape = known[name], [int(side) for side in output.get_shape()]
        # a map may end with the last whole cell, or with one that stands over the edge
        sides = [{side // layer.stride, -(-side // layer.stride)} for side in size]
        fits = len(shape) == 4 and shape[0] == 1 and shape[3] == layer.channels
        if not fits or shape[1] not in sides[0] or shape[2] not in sides[1]:
            raise ValueError(f"{name} is of shape {shape}, not of {layer.channels} channels, stride {layer.stride}")
        if output.get_element_type() != openvino_package().Type.f32:
            raise ValueError(f"{name} is not float32")
