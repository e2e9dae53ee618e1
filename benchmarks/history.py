"""Inspections added per second, each acknowledged only once it is on the disk: SQLite and PostgreSQL, 1 and 8 threads.

    python -m benchmarks.history [SECONDS]        10 for each case by default

Beside it, as the baseline of the same run: one thread that waits for the disk (`fsync`) after each write of 4 kB, the
best that a database without group commit could do. Asserted: all that was acknowledged is there, the trail is whole.
PostgreSQL is measured where it is installed.
"""

import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from tests.databases import inspection, missing_postgresql, running_postgresql

from benchmarks.common import record
from totalrecall.station.store.addresses import address_of_file
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.trail import Trail


def syncs_per_second(folder: Path, seconds: float) -> float:
    """Return how often a block can be appended to a file and be on the disk, one after the other."""
    count, begin = 0, time.perf_counter()
    with (folder / "blocks").open("wb", buffering=0) as file:
        while time.perf_counter() - begin < seconds:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            count += 1
    return count / seconds


def added_per_second(address: str, threads: int, seconds: float) -> dict[str, float]:
    """Return the rate, and how long an inspection waited for its acknowledgement, in milliseconds."""
    waits: list[list[float]] = [[] for _ in range(threads)]
    with Database(address) as database:
        history, end = History(database), time.perf_counter() + seconds

        def work(thread: int) -> None:
            number = 0
            while (begin := time.perf_counter()) < end:
                added = inspection(key=f"{thread:08x}{number:024x}", at=datetime.now(timezone.utc))
                history.add(added).result()
                waits[thread].append(time.perf_counter() - begin)
                number += 1

        workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        every = np.concatenate(waits)
        assert history.count() == len(every)
        assert Trail(database).verify().is_whole
    p50, p99 = np.percentile(every * 1000, [50, 99])
    return {
        "per_second": round(len(every) / seconds, 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }


def main(seconds: float) -> None:
    """Measure each case, print it, and write the table."""
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = None if missing_postgresql() else stack.enter_context(running_postgresql())
        for threads in (1, 8):
            for name in ("sqlite", "postgresql"):
                if name == "postgresql" and server is None:
                    print(f"postgresql: {missing_postgresql()}")
                    continue
                address = (
                    address_of_file(folder / f"{threads}.db")
                    if server is None or name == "sqlite"
                    else server.address()
                )
                syncs = syncs_per_second(folder, min(seconds, 3))
                facts = added_per_second(address, threads, seconds)
                ratio = facts["per_second"] / syncs
                row = {"database": name, "threads": threads, **facts, "syncs_per_second": round(syncs, 1)}
                rows.append({**row, "ratio": round(ratio, 2), "load": round(os.getloadavg()[0], 1)})
    record("history", rows)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
