"""A fit on a Ray cluster of this machine against the plain one: the same model, in what time and memory.

    python -m benchmarks.cluster_fit [PICTURES] [--busy]        all good magnetic tiles if not given

Each fit runs as a process of its own, as a person types it. The plain one is held to one core, with one thread, and
then to two; on the cluster each worker has one core, beside the process that began the fit. The answer that is
asserted: all model files are the same to the bit. `efficiency` is the time of the plain fit on one core over the
product of workers and their time. With --coreset-merge the radius stands beside the exact one, and nothing else is
asserted. --busy notes that other programs ran at the time: then the seconds say nothing.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import open_real_set, record

_FITS = {  # name: cores that it may use, and its options
    "plain, 1 core": ({0}, ["--threads", "1"]),
    "plain, 2 cores": ({0, 1}, ["--threads", "2"]),
    "ray, 1 worker": ({0, 1}, ["--ray", "local", "--workers", "1"]),
    "ray, 2 workers": ({0, 1}, ["--ray", "local", "--workers", "2"]),
    "ray, 2 workers, two rounds": ({0, 1}, ["--ray", "local", "--workers", "2", "--coreset-merge"]),
}


def main(arguments: Sequence[str]) -> None:
    """Print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", nargs="?", type=int)
    parser.add_argument("--busy", action="store_true")
    args = parser.parse_args(arguments)
    pictures = [str(path) for path in open_real_set("mtd").train][: args.pictures]
    rows: list[dict[str, object]] = []
    alone = 0.0
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as folder:
        hashes = {}
        for name, (cores, options) in _FITS.items():
            facts, seconds, hashes[name] = _fit(pictures, Path(folder), cores, options)
            alone = alone or seconds
            workers = [process["peak_memory"] for process in facts["processes"] if process["role"] == "worker"]
            rows.append(
                {
                    "fit": name,
                    "pictures": len(pictures),
                    "busy": args.busy,
                    "vectors": facts["vectors"],
                    "radius": facts["radius"],
                    "seconds": seconds,
                    "efficiency": alone / (len(cores) if not workers else len(workers)) / seconds,
                    "features_s": facts["seconds"]["features"],
                    "coreset_s": facts["seconds"]["coreset"],
                    "calibration_s": facts["seconds"]["calibration"],
                    "peak_mb": facts["peak_memory"] / 1e6,
                    "worker_peak_mb": max(workers, default=0) / 1e6,
                    "same": hashes[name] == hashes["plain, 1 core"],
                }
            )
    record("cluster_fit", rows)
    assert all(row["same"] for row in rows[:-1]), "another model than the plain fit's"


def _fit(pictures: Sequence[str], folder: Path, cores: set[int], options: Sequence[str]) -> tuple[dict, float, str]:
    """Return what a fit reports, its seconds from the first command to the last, and the hash of its model."""
    model = folder / "m.trecall"
    command = [sys.executable, "-m", "totalrecall", "fit", *pictures, "-o", str(model), "--quiet", "--json", "-"]
    began = time.perf_counter()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # what is started has it, too
    try:
        done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
    finally:
        os.sched_setaffinity(0, before)
    seconds = time.perf_counter() - began
    return json.loads(done.stdout), seconds, hashlib.sha256(model.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1:])
