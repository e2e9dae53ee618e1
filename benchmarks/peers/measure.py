"""Clocks and counts that both sides use, so that both are measured by one rule. NumPy and the standard library."""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["median_ms", "peak_mb", "rate", "tell"]

WARM_UP = 5


def median_ms(predict: Callable[[np.ndarray], object], pictures: Sequence[np.ndarray], count: int) -> float:
    """Return the median milliseconds of one prediction over `count` of them, taking the pictures in turn."""
    for i in range(WARM_UP):
        predict(pictures[i % len(pictures)])
    times = []
    for i in range(count):
        began = time.perf_counter()
        predict(pictures[i % len(pictures)])
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def rate(run: Callable[[], int]) -> float:
    """Return pictures a second of something that scores many and returns how many they were."""
    began = time.perf_counter()
    count = run()
    return count / (time.perf_counter() - began)


def peak_mb() -> float:
    """Return the most resident memory of this process so far, megabytes by the system's count; workers not included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def tell(values: dict[str, object]) -> None:
    """Print a result as the JSON line that the runner reads, the last line of the output."""
    print(json.dumps(values), flush=True)
