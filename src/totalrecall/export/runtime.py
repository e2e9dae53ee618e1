"""Run an exported graph by ONNX Runtime or by OpenVINO, as any program would."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from totalrecall.engines.runtime import core
from totalrecall.errors import MissingExtraError, ModelFileError
from totalrecall.system.threads import undivided
from totalrecall.types import AnomalyMap, Image

__all__ = ["OUTPUTS", "GraphResult", "Run", "compile_openvino", "open_onnxruntime", "open_openvino"]

OUTPUTS = ("score", "is_anomalous", "p_value", "nearest", "worst", "map")
_VERDICTS = {1: True, 0: False, -1: None}


@dataclass(frozen=True, eq=False)
class GraphResult:
    """What a graph says of a picture.

    Attributes:
        score: nan where it gives no verdict.
        is_anomalous: None where there is no verdict.
        p_value: nan where there is none.
        nearest: number of the bank vector nearest to the worst patch, and of its picture, row and column there; -1
            without a bank.
        worst: row and column of the worst patch.
        anomaly_map: float32 (h, w).
    """

    score: float
    is_anomalous: bool | None
    p_value: float
    nearest: tuple[int, int, int, int]
    worst: tuple[int, int]
    anomaly_map: AnomalyMap

    @classmethod
    def of(
        cls, outputs: dict[str, np.ndarray], height: int, width: int, *, at: int = 0, batch: int = 1
    ) -> "GraphResult":
        """Return what the outputs say of the picture at a place of its batch.

        Raises:
            ValueError: they are not of the shapes that an exported graph gives.
        """
        several = (batch,) if batch > 1 else ()
        of_each = (*[(batch,)] * 3, (*several, 4), (*several, 2), (*several, height, width))
        for name, shape in zip(OUTPUTS, of_each, strict=True):
            if outputs[name].shape != shape:
                raise ValueError(f"its {name} is of shape {outputs[name].shape}, not {shape}")
        if batch > 1:
            outputs = {name: np.atleast_1d(values[at]) for name, values in outputs.items()}
        verdict = int(outputs["is_anomalous"][0])
        if verdict not in _VERDICTS:
            raise ValueError(f"its is_anomalous is {verdict}, allowed are 1, 0 and -1")
        vector, picture, row, column = (int(number) for number in outputs["nearest"])
        worst_row, worst_column = (int(number) for number in outputs["worst"])
        anomaly_map = np.asarray(outputs["map"], np.float32)
        return cls(
            float(outputs["score"][0]),
            _VERDICTS[verdict],
            float(outputs["p_value"][0]),
            (vector, picture, row, column),
            (worst_row, worst_column),
            anomaly_map,
        )

    @property
    def sound(self) -> bool:
        """Whether it gives a score."""
        return math.isfinite(self.score) and bool(np.isfinite(self.anomaly_map).all())


Run = Callable[[Image], GraphResult]


class _Batches:
    """Puts one picture after the other into a batch, each at the next place; the others are blank.

    A graph that mixes up the pictures of a batch shows it in a comparison.
    """

    def __init__(self, size: int) -> None:
        self._size, self._next = size, 0

    def around(self, picture: Image) -> tuple[int, np.ndarray]:
        """Return the place of a picture, and the batch, uint8 (n, h, w, 3)."""
        if self._size == 1:
            return 0, np.ascontiguousarray(picture)[np.newaxis]
        at, self._next = self._next, (self._next + 1) % self._size
        batch = np.zeros((self._size, *picture.shape), np.uint8)
        batch[at] = picture
        return at, batch

    def result(self, outputs: dict[str, np.ndarray], at: int, picture: Image) -> GraphResult:
        """Return what a graph says of the picture at a place."""
        return GraphResult.of(outputs, *picture.shape[:2], at=at, batch=self._size)


def open_onnxruntime(graph: bytes, origin: str, *, batch: int = 1, threads: int | None = None) -> Run:
    """Return what runs a serialized ONNX graph by ONNX Runtime.

    Args:
        graph: serialized.
        origin: what to call it in an error.
        batch: number of pictures that it takes at once.
        threads: to compute with; all cores if not given.

    Raises:
        MissingExtraError: the package onnxruntime is not installed.
        ModelFileError: it refuses the graph.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError(
            "Checking an exported ONNX graph needs onnxruntime, which is not installed. "
            'Run: pip install "totalrecall[export]"'
        ) from None
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, RuntimeException

    refused = (Fail, InvalidArgument, InvalidGraph, RuntimeException, RuntimeError)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: its notes are for those who wrote the graph
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except refused as error:
        raise _refused(origin, "ONNX Runtime", error) from None

    batches = _Batches(batch)

    def run(picture: Image) -> GraphResult:
        at, pictures = batches.around(picture)
        try:
            values = session.run(list(OUTPUTS), {"picture": pictures})
            return batches.result(dict(zip(OUTPUTS, values, strict=True)), at, picture)
        except (*refused, ValueError) as error:
            raise _refused(origin, "ONNX Runtime", error) from None

    return run


def compile_openvino(source: bytes | str, origin: str, *, threads: int | None = None) -> Any:
    """Return a graph compiled by OpenVINO for pictures of any size that it takes.

    Args:
        source: a serialized ONNX graph, or the path of an .xml file.
        origin: what to call it in an error.
        threads: to compute with; all cores if not given.

    Raises:
        ModelFileError: OpenVINO refuses it.
    """
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        with undivided():
            return core().compile_model(core().read_model(source), "CPU", settings)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise _refused(origin, "OpenVINO", error) from None


def open_openvino(source: bytes | str, origin: str, *, batch: int = 1, threads: int | None = None) -> Run:
    """Return what runs a graph, which takes so many pictures at once, by OpenVINO; see `compile_openvino`."""
    compiled = compile_openvino(source, origin, threads=threads)
    request, batches = compiled.create_infer_request(), _Batches(batch)

    def run(picture: Image) -> GraphResult:
        at, pictures = batches.around(picture)
        try:
            with undivided():
                request.infer([pictures])
            # subtle: views of buffers that the next picture overwrites
            outputs = {name: request.get_tensor(name).data.copy() for name in OUTPUTS}
            return batches.result(outputs, at, picture)
        except (RuntimeError, ValueError, TypeError) as error:
            raise _refused(origin, "OpenVINO", error) from None

    return run


def _refused(origin: str, runtime: str, error: Exception) -> ModelFileError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return ModelFileError(f"{origin} cannot be run by {runtime} ({lines[-1][:300]}). Export the model again.")
