"""A fit on a Ray cluster of this machine against the plain one: the same model, in what time and memory.

    python -m benchmarks.cluster_fit [PICTURES] [--fits NAME ...] [--busy]     all good magnetic tiles if not given

Each fit runs as a process of its own, as a person types it. The plain one is held to one core, with one thread, and
then to two; on the cluster each worker has one core, beside the process that began the fit. The answer that is
asserted: all model files are the same to the bit. `efficiency` is the time of the plain fit on one core over the
product of workers and their time. Two machines are faked on this one: two nodes of Ray, of a core each, with object
stores of their own. With --coreset-merge the radius stands beside the exact one, and nothing else is asserted. --busy
notes that other programs ran at the time: then the seconds say nothing.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from benchmarks.common import open_real_set, record

_ALONE = "plain, 1 core"
_NODES = "ray, 2 nodes of 1 core"
_MERGED = "ray, 2 workers, two rounds"
_FITS = {  # name: cores that it may use, and its options
    _ALONE: ({0}, ["--threads", "1"]),
    "plain, 2 cores": ({0, 1}, ["--threads", "2"]),
    "ray, 1 worker": ({0, 1}, ["--ray", "local", "--workers", "1"]),
    "ray, 2 workers": ({0, 1}, ["--ray", "local", "--workers", "2"]),
    _NODES: ({0, 1}, ["--workers", "2"]),
    _MERGED: ({0, 1}, ["--ray", "local", "--workers", "2", "--coreset-merge"]),
}


def main(arguments: Sequence[str]) -> None:
    """Print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", nargs="?", type=int)
    parser.add_argument("--fits", nargs="+", choices=[*_FITS], default=[*_FITS], metavar="NAME")
    parser.add_argument("--busy", action="store_true")
    args = parser.parse_args(arguments)
    pictures = [str(path) for path in open_real_set("mtd").train][: args.pictures]
    rows: list[dict[str, object]] = []
    alone = 0.0
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as folder:
        hashes = {}
        for name in [_ALONE, *(name for name in args.fits if name != _ALONE)]:
            cores, options = _FITS[name]
            with _two_nodes() if name == _NODES else nullcontext([]) as more:
                facts, seconds, hashes[name] = _fit(pictures, Path(folder), cores, [*options, *more])
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
                    "same": hashes[name] == hashes[_ALONE],
                }
            )
    record("cluster_fit", rows)
    assert all(row["same"] for row in rows if row["fit"] != _MERGED), "another model than the plain fit's"


@contextmanager
def _two_nodes() -> Iterator[list[str]]:
    """Fake a cluster of two machines of a core each, and give the options that use it."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_AUTH_MODE"] = "disabled"  # of this cluster, which lives for a minute on the loopback
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1, include_dashboard=False)
        cluster.wait_for_nodes()
        yield ["--ray", cluster.address]
    finally:
        cluster.shutdown()
        del os.environ["RAY_AUTH_MODE"]


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
