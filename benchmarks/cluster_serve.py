"""`serve --ray local` with two replicas, one of which is killed under load: is every acknowledged inspection there?

    python -m benchmarks.cluster_serve [PICTURES]     200 if not given

It needs the extras [cluster] and [station], PostgreSQL and ../shared.

Bottles of MVTec AD as JPEG of 256 pixels, sent by four clients, each with one picture at a time. When a third is
answered, one replica is killed (SIGKILL). Asserted: every picture is answered with 200, each answer is in PostgreSQL
once and nothing else is, the audit trail is whole, every score is that of plain `predict` to the bit, the killed
replica is replaced, and SIGTERM ends the station with exit code 0.

Then the same pictures over and over for some seconds, without a kill, and the same with a station of one process.
Recorded: pictures per second of both, what the process that leads takes of a core for each picture, which bounds how
many replicas it can feed, and how long the kill delayed the slowest answer.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import cv2
import psutil
from tests.cluster_served import ClusterServed
from tests.databases import running_postgresql

from benchmarks.common import SHARED, record

PICTURES = 200
_CLIENTS = 4
_SIDE = 256
_SECONDS = 30.0  # of steady load


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="?", type=int, default=PICTURES, help="in all (default %(default)s)")
    count = parser.parse_args().pictures
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary, running_postgresql() as server:
        place = Path(temporary)
        plain = _prepare(place)
        row = {"pictures": count, "clients": _CLIENTS, "replicas": 2}
        began = time.perf_counter()
        with ClusterServed(place / "station", server.address(), place / "bottle.trecall", "--replicas", 2) as station:
            row["start_s"] = round(time.perf_counter() - began, 1)
            row |= _killed(station, plain, count)
            row |= _steady(station, plain, "")
            code, _, complaints = station.stop()
            assert code == 0, complaints
        with _Plain(place / "alone", server.address(), place / "bottle.trecall") as station:
            row |= _steady(station, plain, "one_process_")
            assert station.stop()[0] == 0
    record("cluster_serve", [row])


class _Plain(ClusterServed):
    """The same station without a cluster."""

    cluster = ()


def _prepare(place: Path) -> dict[bytes, float]:
    """Write the pictures and the model; return the score that plain `predict` gives to each picture."""
    bottle = SHARED / "data" / "mvtec_ad" / "bottle"
    for source, target in (("train/good", "good"), ("test", "test")):
        (place / target).mkdir()
        for at, path in enumerate(sorted((bottle / source).rglob("*.*"))):
            small = cv2.resize(cv2.imread(str(path)), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(place / target / f"{at:03}.jpg"), small)
    program = [sys.executable, "-m", "totalrecall"]
    subprocess.run([*program, "fit", "good", "-o", "bottle.trecall", "--quiet"], cwd=place, check=True)
    words = ["predict", "bottle.trecall", "test", "--json", "plain.json", "--quiet"]
    subprocess.run([*program, *words], cwd=place, check=True)
    shutil.rmtree(place / "good")
    results = [json.loads(line) for line in (place / "plain.json").read_text().splitlines()]
    return {(place / result["path"]).read_bytes(): result["score"] for result in results}


class _Load:
    """Clients that send pictures in turn, each the next one when it has its answer."""

    def __init__(self, station: ClusterServed, plain: dict[bytes, float], count: int) -> None:
        self._station, self._pictures, self._count = station, list(plain), count
        self.answers: list[tuple[bytes, int, dict[str, object], float]] = []
        self._next, self._lock = 0, threading.Lock()
        self.stopped = threading.Event()
        self._clients = [threading.Thread(target=self._send) for _ in range(_CLIENTS)]
        for client in self._clients:
            client.start()

    def _send(self) -> None:
        while not self.stopped.is_set():
            with self._lock:
                at = self._next
                self._next += 1
            if at >= self._count:
                return
            picture = self._pictures[at % len(self._pictures)]
            began = time.perf_counter()
            status, body = self._station.ask("/v1/models/bottle/predict", picture, **{"Content-Type": "image/jpeg"})
            self.answers.append((picture, status, body, time.perf_counter() - began))

    def join(self) -> None:
        """Wait for all clients."""
        for client in self._clients:
            client.join()


def _killed(station: ClusterServed, plain: dict[bytes, float], count: int) -> dict[str, object]:
    """Kill a replica under load, and check what became of every picture."""
    there = set(station.replicas())
    assert len(there) == 2, there
    load = _Load(station, plain, count)
    while len(load.answers) < count // 3:
        time.sleep(0.005)
    victim = min(there)
    psutil.Process(victim).send_signal(signal.SIGKILL)
    began = time.perf_counter()
    load.join()
    station.wait_for_replicas(lambda numbers: len(numbers) == 2 and victim not in numbers)
    replaced = time.perf_counter() - began
    assert Counter(status for _, status, _, _ in load.answers) == {200: count}
    wrong = [body for picture, _, body, _ in load.answers if body["score"] != plain[picture]]
    assert not wrong, wrong[:3]
    rows = Counter((key, score) for key, score, _, _ in station.rows())
    assert rows == Counter((body["id"], body["score"]) for _, _, body, _ in load.answers)
    assert max(rows.values()) == 1
    assert station.trail().is_whole
    worst = max(seconds for *_, seconds in load.answers)
    return {"answered": count, "missing": 0, "twice": 0, "replaced_s": round(replaced, 1), "worst_s": round(worst, 2)}


def _steady(station: ClusterServed, plain: dict[bytes, float], prefix: str) -> dict[str, object]:
    """Measure a station under load for some seconds."""
    warm = _Load(station, plain, len(plain))
    warm.join()
    process = psutil.Process(station.process.pid)
    before = sum(process.cpu_times()[:2])
    began = time.perf_counter()
    load = _Load(station, plain, 1 << 30)
    time.sleep(_SECONDS)
    load.stopped.set()
    load.join()
    seconds, cpu = time.perf_counter() - began, sum(process.cpu_times()[:2]) - before
    assert all(status == 200 and body["score"] == plain[picture] for picture, status, body, _ in load.answers)
    count = len(load.answers)
    facts: dict[str, object] = {
        f"{prefix}pictures_per_second": round(count / seconds, 1),
        f"{prefix}leading_process_cpu_ms": round(1000 * cpu / count, 2),
    }
    print(facts, flush=True)
    return facts


if __name__ == "__main__":
    main()
