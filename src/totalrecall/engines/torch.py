"""Run a backbone with torch, on the processor or on a graphics card with CUDA.

The graph is read here and its operators are called one by one (`torch_operators`); the weights are moved to the device
once. torch keeps threads of its own for whichever thread calls it, and after a fork those of the old threads are gone:
so one thread of the engine's own calls it, which a forked child makes anew.
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.graph_reader import GraphNode, NetworkGraph, read_graph
from totalrecall.engines.batched import BatchedEngine, checked_precision
from totalrecall.engines.checks import not_there, refused
from totalrecall.engines.runtime import capabilities
from totalrecall.errors import MissingExtraError, SettingError
from totalrecall.system.threads import abandon, undivided
from totalrecall.types import FeatureMap

__all__ = ["Network", "TorchEngine"]

_IMAGES = "images"  # the input of every backbone's graph


class TorchEngine(BatchedEngine):
    """Runs a backbone with torch.

    Args:
        backbone: the graph.
        layers: names of the layers to return, such as ("layer2", "layer3").
        device: "cpu", "cuda" or "cuda:1"; the processor if not given.
        precision: "f32"; "bf16", in which convolutions and products are computed; "auto" is f32.
        threads: threads to compute with; as many as torch takes by itself if not given.

    Raises:
        MissingExtraError: the package torch is not installed.
        SettingError: a layer, device or precision does not exist, or this machine lacks it.
    """

    def _chosen(self, device: str | None, precision: str) -> tuple[str, str]:
        torch = _torch()
        self._network: Network | None = None
        self._thread: ThreadPoolExecutor | None = None
        name = (device or "cpu").lower()
        there = _devices(torch)
        if name not in there:
            hint = "Install a torch that is built for CUDA and the driver of the card, or leave it out."
            raise not_there("torch", str(device), there, hint)
        native = "BF16" in capabilities() if name == "cpu" else torch.cuda.is_bf16_supported(including_emulation=False)
        offered = ("f32", "bf16") if native else ("f32",)
        return name, checked_precision(precision, offered, "torch", name)

    def renew(self) -> None:
        """Forget the network in a forked child, whose threads are gone. It is opened again when used."""
        super().renew()
        abandon((self._network, self._thread))
        self._network = self._thread = None

    def _compute(self, images: npt.NDArray[np.uint8], *, alone: bool) -> dict[str, FeatureMap]:  # noqa: ARG002
        with undivided(), refused(self._backbone, "by torch", device=self._device.removeprefix("cpu")):
            with self._lock:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "totalrecall-torch", self._begin)
                thread = self._thread
            return thread.submit(self._maps, images).result()

    def _begin(self) -> None:
        if self._threads is not None:
            _torch().set_num_threads(self._threads)

    def _maps(self, images: npt.NDArray[np.uint8]) -> dict[str, FeatureMap]:
        torch = _torch()
        try:
            with torch.inference_mode(), _exact(torch):
                if self._network is None:
                    graph = read_graph(self._backbone.graph, self._layers)
                    self._network = Network(torch, graph, self._layers, self._device, self._precision)
                maps = self._network(torch.from_numpy(images))
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None
        except RuntimeError as error:
            if "forked" in str(error):
                raise SettingError(
                    "CUDA cannot be used in a forked child of a process that used it. Start the child by spawn.",
                    "device",
                ) from None
            raise
        return {layer: maps[layer].float().cpu().contiguous().numpy() for layer in self._layers}


@dataclass(frozen=True)
class _Step:
    """A node, and the names that no later node takes."""

    node: GraphNode
    done: tuple[str, ...]


class Network:
    """The graph on a device: images (n, height, width, 3) -> layer -> (n, h, w, c). Call it in inference mode."""

    def __init__(self, torch: Any, graph: NetworkGraph, layers: Sequence[str], device: str, precision: str) -> None:
        from totalrecall.engines.torch_operators import CALLS, HEAVY

        self._calls, self._heavy, self._layers = CALLS, HEAVY, layers
        self._torch, self._device = torch, device
        self._fast = torch.bfloat16 if precision == "bf16" else None
        values = {name: self._weights(array) for name, array in graph.weights.items()}
        nodes = []
        for given in graph.nodes:
            node = replace(given, attributes={**given.attributes, "opset": graph.opset})
            if all(name in values for name in node.inputs):  # shapes and casts of weights, once for all pictures
                values[node.output] = CALLS[node.kind]([values[name] for name in node.inputs], node.attributes)
            else:
                nodes.append(node)
        # a factor that other nodes take as well keeps its digits
        light = {name for node in nodes if node.kind not in HEAVY for name in node.inputs}
        self._kept = {name: self._placed(value, fast=name not in light) for name, value in values.items()}
        self._steps = list(_steps(nodes, {*layers, *self._kept}))

    def __call__(self, images: Any) -> dict[str, Any]:
        values = {"": None, _IMAGES: images.to(self._device), **self._kept}
        for step in self._steps:
            node = step.node
            inputs = [values[name] for name in node.inputs]
            if self._fast is not None and node.kind in self._heavy:
                inputs = [x.to(self._fast) for x in inputs]
            values[node.output] = self._calls[node.kind](inputs, node.attributes)
            for name in step.done:
                del values[name]
        return {layer: values[layer] for layer in self._layers}

    def _weights(self, array: npt.NDArray[np.generic]) -> Any:
        if array.dtype.itemsize > 1:  # bytes say by their type how far a zero point may go
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return self._torch.from_numpy(array.copy())

    def _placed(self, value: Any, *, fast: bool) -> Any:
        """Return weights where they are computed with; shapes stay on the processor, which reads them."""
        if not value.is_floating_point():
            return value
        if fast and self._fast is not None:
            value = value.to(self._fast)
        if value.ndim == 4:  # as pictures come: channels last, without a copy of each map
            value = value.contiguous(memory_format=self._torch.channels_last)
        return value.to(self._device)


def _steps(nodes: Sequence[GraphNode], kept: set[str]) -> Iterator[_Step]:
    last = {name: at for at, node in enumerate(nodes) for name in node.inputs}
    for at, node in enumerate(nodes):
        done = tuple({name for name in node.inputs if name and name not in kept and last[name] == at})
        yield _Step(node, done)


@contextlib.contextmanager
def _exact(torch: Any) -> Iterator[None]:
    """Compute float32 in float32: on a graphics card torch takes 10 of its 23 bits for convolutions by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            f"Engine torch needs the package torch, which cannot be imported ({error}). "
            'Run: pip install "totalrecall[torch]"'
        ) from None
    return torch


def _devices(torch: Any) -> list[str]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]
