"""A station that is killed under load, again and again: is every acknowledged inspection in the history?

    python -m benchmarks.station_kills MODEL PICTURES [--kills 20] [--database postgresql+psycopg://...]

Eight clients send pictures as fast as they are answered; the process is killed (SIGKILL) at a seeded moment, and
started again on the same folder and database. Asserted after each kill: every id that a client was given is in the
database, and the audit trail is whole. At the end: each picture that a row says is kept is there; the station judges.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import record
from benchmarks.station import answer, request, small
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.records import Filter
from totalrecall.station.store.trail import Trail


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--database", metavar="URL")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary:
        place = Path(temporary)
        folder = place / "station"
        url = args.database or f"sqlite:///{folder / 'history.db'}"
        requests = [request(args.model.stem, path) for path in small(args.pictures, place / "pictures", 256)]
        acknowledged: set[str] = set()
        for number in range(args.kills):
            fresh = asyncio.run(_until_killed(args, folder, requests, float(rng.uniform(0.3, 2.5))))
            acknowledged |= fresh
            missing, broken = _check(url, acknowledged)
            print(f"kill {number + 1}: {len(fresh)} acknowledged, {len(missing)} missing", flush=True)
            assert not missing, sorted(missing)[:5]
            assert not broken, broken
        last = asyncio.run(_until_killed(args, folder, requests, 2.0, kill=False))
        assert last
        kept = _kept(url, folder)
        database = url.partition(":")[0].partition("+")[0]
        row = {"database": database, "kills": args.kills, "acknowledged": len(acknowledged), "missing": 0, "kept": kept}
        record("station_kills", [row])


async def _until_killed(
    args: argparse.Namespace, folder: Path, requests: list[bytes], seconds: float, *, kill: bool = True
) -> set[str]:
    """Start a station, load it, end it; returns the ids that clients were given."""
    words = [sys.executable, "-m", "totalrecall", "serve", str(args.model), "--port", "0", "--folder", str(folder)]
    words += ["--database", args.database] if args.database else []
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert server.stdout is not None
    found = re.search(r":(\d+) ", server.stdout.readline())
    assert found is not None
    given: set[str] = set()

    async def client(number: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
            for at in range(number, 1 << 30, 8):
                writer.write(requests[at % len(requests)])
                status, body = await answer(reader)
                if status == 200:
                    given.add(str(body["id"]))
        except (OSError, asyncio.IncompleteReadError):
            return

    clients = [asyncio.ensure_future(client(number)) for number in range(8)]
    await asyncio.sleep(seconds)
    server.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    await asyncio.to_thread(server.wait, 90)
    await asyncio.gather(*clients)
    assert server.returncode == (-signal.SIGKILL if kill else 0), server.returncode
    return given


def _check(url: str, acknowledged: set[str]) -> tuple[set[str], list[object]]:
    """Return which acknowledged inspections are missing, and what is wrong with the trail."""
    database = Database(url)
    try:
        history = History(database)
        missing = {key for key in acknowledged if history.get(key) is None}
        return missing, list(Trail(database).verify().broken)
    finally:
        database.close()


def _kept(url: str, folder: Path) -> int:
    database = Database(url)
    try:
        rows = [one for one in History(database).find(Filter(), limit=1_000_000) if one.kept]
    finally:
        database.close()
    lost = [one.key for one in rows if not (folder / "pictures" / one.key[:2] / f"{one.key}.picture").is_file()]
    assert not lost, lost[:5]
    return len(rows)


if __name__ == "__main__":
    main()
