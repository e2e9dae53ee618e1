"""A station with a hot folder that is killed again and again: is every picture inspected exactly once?

    python -m benchmarks.station_folder_kills MODEL PICTURES [--kills 20] [--done move]

Pictures are renamed into the folder, on the same disk, at any moment, also while no station runs; the process is killed
(SIGKILL) after a seeded number of inspections, and started again. Asserted at the end: of each picture there is one
inspection, and with `move` each lies in the folder of its verdict and nowhere else, with its bytes as they came.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.common import record
from benchmarks.station import small
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.records import Inspection
from totalrecall.system.files import file_sha256

_SECONDS = 300.0  # that the last station may take for what is left


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--done", choices=("leave", "move"), default="move")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary:
        place = Path(temporary)
        watched = place / "watched"
        watched.mkdir()
        feeder = _Feeder(small(args.pictures, place / "pictures", 256), place, watched)
        feeder.start()
        before = 0
        for number in range(args.kills):
            with _Serving(args, place) as server:
                enough = before + int(rng.integers(0, 20))  # 0: while it begins
                while len(_inspections(place)) < enough:
                    feeder.ended.wait(0.05)
                feeder.ended.wait(float(rng.uniform(0.0, 0.3)))
                server.send_signal(signal.SIGKILL)
            fresh, before = len(_inspections(place)) - before, len(_inspections(place))
            print(f"kill {number + 1}: {fresh} inspected since the kill before", flush=True)
        feeder.stop()
        with _Serving(args, place) as server:
            _wait_until_done(place, watched, len(feeder.sent), args.done)
            server.terminate()
        found = _inspections(place)
        _check(found, feeder.sent, watched, args.done)
        row = {"done": args.done, "kills": args.kills, "pictures": len(feeder.sent), "inspected_once": len(found)}
        record("station_folder_kills", [{**row, "missing": 0, "twice": 0}])


class _Feeder(threading.Thread):
    """Renames pictures into the folder, four a second, each with bytes of its own."""

    def __init__(self, pictures: list[Path], place: Path, watched: Path) -> None:
        super().__init__(daemon=True)
        self._pictures, self._place, self._watched = [path.read_bytes() for path in pictures], place, watched
        self.sent: dict[str, str] = {}  # digest of each picture, by its name
        self.ended = threading.Event()

    def run(self) -> None:
        """Send until it is stopped."""
        while not self.ended.wait(0.25):
            number = len(self.sent)
            path = self._place / f"{number:05}.jpg"
            # behind the end of a JPEG may stand anything
            path.write_bytes(self._pictures[number % len(self._pictures)] + number.to_bytes(4, "big") + b"\xff\xd9")
            self.sent[path.name] = file_sha256(path)
            path.rename(self._watched / path.name)

    def stop(self) -> None:
        """Send no more."""
        self.ended.set()
        self.join()


class _Serving:
    """A station in a process of its own, from the moment it serves until it ends."""

    def __init__(self, args: argparse.Namespace, place: Path) -> None:
        words = [sys.executable, "-m", "totalrecall", "serve", str(args.model), "--port", "0"]
        words += ["--folder", str(place / "station"), "--watch", str(place / "watched"), "--watch-done", args.done]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)

    def __enter__(self) -> "subprocess.Popen[str]":
        assert self._server.stdout is not None
        assert "Serving" in self._server.stdout.readline()
        return self._server

    def __exit__(self, *_: object) -> None:
        self._server.wait(90)
        assert self._server.returncode in (0, -signal.SIGKILL), self._server.returncode


def _inspections(place: Path) -> list[Inspection]:
    database = Database(f"sqlite:///{place / 'station' / 'history.db'}", create=False)
    try:
        return History(database).find(limit=1_000_000)
    finally:
        database.close()


def _wait_until_done(place: Path, watched: Path, count: int, done: str) -> None:
    pause = threading.Event()
    for _ in range(int(_SECONDS)):
        if len(_inspections(place)) >= count and not (done == "move" and list(watched.glob("*.jpg"))):
            return
        pause.wait(1.0)
    raise AssertionError(f"Not all {count} pictures were inspected within {_SECONDS:.0f} s.")


def _check(found: list[Inspection], sent: dict[str, str], watched: Path, done: str) -> None:
    """Raise AssertionError if a picture is missing, was inspected twice, or lies elsewhere than it should."""
    assert Counter(one.name for one in found) == Counter(sent.keys())
    assert {one.name: one.picture_sha256 for one in found} == sent
    lie = {path.name: path for path in watched.rglob("*.jpg")}
    assert len(list(watched.rglob("*.jpg"))) == len(sent)
    assert {name: file_sha256(path) for name, path in lie.items()} == sent
    if done == "move":
        verdicts = {one.name: one.verdict.replace(" ", "-") for one in found}
        assert {name: path.parent.name for name, path in lie.items()} == verdicts


if __name__ == "__main__":
    main()
