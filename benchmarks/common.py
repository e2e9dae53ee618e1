"""What the benchmarks share: where results go, what machine this is, paired timings."""

import csv
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from totalrecall.datasets import DataSet

SHARED = Path(__file__).resolve().parents[2] / "shared"
RESULTS = Path(__file__).resolve().parent / "results"
REAL_SETS = {  # real pictures in ../shared: the layout, and where below ../shared/data
    "mtd": ("mtd", "mtd"),
    "bottle": ("mvtec", "mvtec_ad/bottle"),
    "tire": ("mvtec", "mvtec_3d_ad/tire"),
    "cookie": ("mvtec", "cookie/cookie"),
    "metal_plate": ("mvtec", "mpdd/metal_plate"),
}


def open_real_set(name: str, *, seed: int = 42) -> "DataSet":
    """Return a set of `REAL_SETS`; the seed splits one that has no split of its own."""
    from totalrecall.datasets import open_dataset  # here: importing this file takes no time

    layout, place = REAL_SETS[name]
    return open_dataset(layout, SHARED / "data" / place, seed=seed)


def machine() -> str:
    """Return a short name of this processor with its count of cores."""
    import os

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores"


def versions() -> str:
    """Return the versions that a timing depends on."""
    names = ("totalrecall", "numpy", "openvino", "opencv-python-headless")
    return " ".join(f"{name}={version(name)}" for name in names)


def paired(a: Callable[[], object], b: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Run two things in turn; return the median seconds of each and the median ratio a / b.

    Turns, because the machine's speed drifts: a slow moment strikes both of a pair.
    """
    a(), b()
    times = [(seconds_of(a), seconds_of(b)) for _ in range(rounds)]
    first, second = np.array(times).T
    return float(np.median(first)), float(np.median(second)), float(np.median(first / second))


def seconds_of(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def record(benchmark: str, rows: Sequence[dict[str, object]]) -> None:
    """Print rows and add them to results/BENCHMARK.csv with date, machine and versions."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{benchmark}.csv"
    fresh = not path.exists()
    # an older file may have columns that are no longer measured: they stay empty
    columns = (
        ["date", "machine", "versions", *rows[0]] if fresh else next(csv.reader([path.read_text().split("\n")[0]]))
    )
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if fresh:
            writer.writeheader()
        for row in rows:
            writer.writerow({"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(), **row})
            print(f"{benchmark}: " + ", ".join(f"{key} {_shown(value)}" for key, value in row.items()), flush=True)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
