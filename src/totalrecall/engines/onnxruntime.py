"""Run a backbone with ONNX Runtime: on the processor, and on whatever else its package was built for.

It computes every node of a graph, so it is given one without what only other layers need. Two sessions are opened, each
when it is first needed: one that uses all threads for one picture, and one that computes several pictures at a time,
each on one thread. A session takes pictures of any size.
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.graph_reader import cut_graph
from totalrecall.engines.batched import BatchedEngine, checked_precision
from totalrecall.engines.checks import not_there, refused
from totalrecall.errors import MissingExtraError, SettingError
from totalrecall.system.threads import abandon, cores, undivided
from totalrecall.types import FeatureMap

__all__ = ["OnnxRuntimeEngine"]

_SUFFIX = "ExecutionProvider"
_REMOTE = ("Azure",)  # computes elsewhere: pictures stay on this machine


class OnnxRuntimeEngine(BatchedEngine):
    """Runs a backbone with ONNX Runtime.

    Args:
        backbone: the graph.
        layers: names of the layers to return, such as ("layer2", "layer3").
        device: one of its execution providers, such as "cpu", "cuda" or "cuda:1"; the processor if not given.
        precision: "auto" or "f32": it computes in the numbers of the graph.
        threads: threads to compute with; all cores if not given.

    Raises:
        MissingExtraError: the package onnxruntime is not installed.
        SettingError: a layer, device or precision does not exist, or this machine lacks it.
    """

    def _chosen(self, device: str | None, precision: str) -> tuple[str, str]:
        self._package = _onnxruntime()
        self._provider, number = _provider(self._package, device)
        self._options = {"device_id": number} if number else {}
        self._sessions: dict[bool, Any] = {}  # whether it has all threads
        name = (device or "cpu").lower()
        return name, checked_precision(precision, ("f32",), "onnxruntime", name)

    def renew(self) -> None:
        """Forget the sessions in a forked child, whose threads are gone. They are opened again when used."""
        super().renew()
        abandon(self._sessions)
        self._sessions = {}

    def _compute(self, images: npt.NDArray[np.uint8], *, alone: bool) -> dict[str, FeatureMap]:
        session = self._session(alone or self._device != "cpu")
        with undivided(), refused(self._backbone, "by ONNX Runtime", device=self._refusing, others=_errors()):
            maps = session.run(list(self._layers), {"images": images})
        return dict(zip(self._layers, maps, strict=True))

    @property
    def _refusing(self) -> str:
        return "" if self._device == "cpu" else self._device

    def _session(self, all_threads: bool) -> Any:
        with self._lock:
            if all_threads not in self._sessions:
                with undivided(), refused(self._backbone, "by ONNX Runtime", device=self._refusing, others=_errors()):
                    self._sessions[all_threads] = self._open((self._threads or cores()) if all_threads else 1)
            return self._sessions[all_threads]

    def _open(self, threads: int) -> Any:
        options = self._package.SessionOptions()
        options.log_severity_level = 4  # not even errors, which are raised as well: a person is told once, in one line
        options.intra_op_num_threads = threads
        # between two pictures its threads would keep the cores from what is computed with the maps
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = [(self._provider, self._options)]
        if self._device != "cpu":
            providers.append(f"CPU{_SUFFIX}")  # for operators that the device lacks
        graph = cut_graph(self._backbone.graph, self._layers)
        session = self._package.InferenceSession(graph, options, providers=providers)
        if session.get_providers()[0] != self._provider:  # it says so on stderr, and goes on with the processor
            raise SettingError(
                f"device {self._device} is in the package onnxruntime, but could not be started. "
                "Install its driver and libraries, or leave device out.",
                "device",
            )
        return session


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"Engine onnxruntime needs the package onnxruntime, which cannot be imported ({error}). "
            'Run: pip install "totalrecall[onnxruntime]"'
        ) from None
    disable = getattr(onnxruntime, "disable_telemetry_events", None)
    if disable is not None:  # its package for Windows reports to its maker: a line PC must not phone home
        disable()
    return onnxruntime


def _errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises, which has no base class of its own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "RuntimeException",
        "EPFail",
    )
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def _provider(package: Any, device: str | None) -> tuple[str, int]:
    """Return the execution provider of a device, and which of several devices.

    Raises:
        SettingError: the package has none of that name.
    """
    built = [name.removesuffix(_SUFFIX) for name in package.get_available_providers()]
    there = {name.lower(): f"{name}{_SUFFIX}" for name in built if name not in _REMOTE}
    name, _, number = (device or "cpu").lower().partition(":")
    if name not in there or not re.fullmatch(r"\d{0,3}", number) or (number and name == "cpu"):
        raise not_there(
            "onnxruntime",
            str(device),
            sorted(there),
            "Install the package of onnxruntime that is built for it (onnxruntime-gpu has cuda), or leave it out.",
        )
    return there[name], int(number or 0)
