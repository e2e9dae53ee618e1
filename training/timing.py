"""Time ONNX backbones beside each other: `python -m training.timing resnet18.onnx compact.onnx`."""

import argparse
import time
from pathlib import Path

import numpy as np
import openvino


def milliseconds(models: list[Path], precision: str, rounds: int, size: int = 256) -> list[list[float]]:
    """Times of one picture on two threads, a list a model. They take turns, so that a slow moment strikes all alike."""
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 2, "PERFORMANCE_HINT": "LATENCY"}
    requests = [core.compile_model(str(path), "CPU", hints).create_infer_request() for path in models]
    picture = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    times: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):
        for request, found in zip(requests, times, strict=True):
            request.infer([picture])  # warms the caches that the other model took
            start = time.perf_counter()
            request.infer([picture])
            found.append((time.perf_counter() - start) * 1e3)
    return times


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    for precision in ("f32", "bf16"):
        times = milliseconds(arguments.models, precision, arguments.rounds)
        for path, found in zip(arguments.models, times, strict=True):
            middle, least = np.median(found), min(found)
            ratio = np.median(np.divide(found, times[0]))
            print(f"{precision:4}  {path.stem:12}  median {middle:6.2f} ms  least {least:6.2f} ms  ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
