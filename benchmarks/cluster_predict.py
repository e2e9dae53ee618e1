"""`predict --ray local` over many pictures, its command killed several times: is any picture twice or missing?

    python -m benchmarks.cluster_predict [PICTURES] [--side N] [--busy]    20,000 of 256 pixels if not given

Needs the extra [cluster], and ../shared. Bottles of MVTec AD as JPEG of N pixels a side, a model of that size, each
bottle many times under another name. The command is killed (SIGKILL) each time that a seeded number of parts more is
there, and given again. Asserted: in the end every picture has one row, in order, and its score is that of plain
`predict` to the bit; and no worker, raylet or GCS of a killed command outlives it by a minute (two helpers of Ray
notice some minutes later). --busy notes that other programs ran at the time: then the seconds say nothing.
Recorded: seconds, what a plain `predict` of some of the pictures takes beside, and the peak memory of each process.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil

from benchmarks.common import SHARED, record

PICTURES = 20_000
_KILLS = 4
_SIDE = 256
_GONE = 60.0  # seconds in which a killed command's processes must be gone


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pictures", nargs="?", type=int, default=PICTURES, metavar="PICTURES", help="in all (default %(default)s)"
    )
    parser.add_argument("--side", type=int, default=_SIDE, metavar="N", help="pixels (default %(default)s)")
    parser.add_argument("--busy", action="store_true")
    args = parser.parse_args()
    count = args.pictures
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary:
        os.chdir(temporary)
        originals = _prepare(count, args.side)
        plain = _plain()
        words = ["predict", "bottle.trecall", "many", "--ray", "local", "-o", "results.parquet"]
        rng = np.random.default_rng(0)
        peaks: dict[str, int] = {}
        seconds, kept = 0.0, []
        for _ in range(_KILLS):
            spent, parts = _killed(words, int(rng.integers(1, 1 + count // 100 // (2 * _KILLS))), peaks)
            seconds += spent
            kept.append(parts)
        began = time.perf_counter()
        process = _start(words)
        while process.poll() is None:
            _observe(process.pid, peaks)
            time.sleep(0.2)
        assert process.returncode == 0, process.returncode
        seconds += time.perf_counter() - began
        _check(count, originals, plain)
    row: dict[str, object] = {
        "pictures": count,
        "side": args.side,
        "busy": args.busy,
        "kills": _KILLS,
        "parts_kept": " ".join(map(str, kept)),
        "twice": 0,
        "missing": 0,
        "seconds": round(seconds, 1),
        "pictures_per_second": round(count / seconds, 2),
        "plain_pictures_per_second": round(originals / plain[1], 2),
    }
    row |= {f"peak_mb_{name}": round(peak / 2**20) for name, peak in sorted(peaks.items())}
    record("cluster_predict", [row])


def _prepare(count: int, side: int) -> int:
    """Write the pictures and the model; return how many different pictures there are."""
    bottle = SHARED / "data" / "mvtec_ad" / "bottle"
    for source, target in (("train/good", "good"), ("test", "test")):
        Path(target).mkdir()
        for at, path in enumerate(sorted((bottle / source).rglob("*.*"))):
            small = cv2.resize(cv2.imread(str(path)), (side, side), interpolation=cv2.INTER_AREA)
            cv2.imwrite(f"{target}/{at:03}.jpg", small)
    originals = sorted(Path("test").iterdir())
    Path("many").mkdir()
    for at in range(count):
        shutil.copy(originals[at % len(originals)], f"many/{at:06}.jpg")
    _run(["fit", "good", "-o", "bottle.trecall", "--size", str(side), "--quiet"])
    return len(originals)


def _plain() -> tuple[list[float], float]:
    """Return the scores that plain predict gives, and the seconds that it takes."""
    began = time.perf_counter()
    _run(["predict", "bottle.trecall", "test", "--json", "plain.json", "--quiet"])
    seconds = time.perf_counter() - began
    return [json.loads(line)["score"] for line in Path("plain.json").read_text().splitlines()], seconds


def _run(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "totalrecall", *words], check=True)


def _start(words: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "totalrecall", *words])


def _killed(words: list[str], more: int, peaks: dict[str, int]) -> tuple[float, int]:
    """Start the command, kill it when so many parts more are there; return its seconds, and the parts in all."""
    folder = Path("results.parquet.parts")
    before = len(list(folder.glob("part-*")))
    began = time.perf_counter()
    process = _start(words)
    children: set[psutil.Process] = set()
    while len(list(folder.glob("part-*"))) < before + more:
        assert process.poll() is None, "it ended before it was killed: give it more pictures"
        children |= set(_observe(process.pid, peaks))
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    seconds = time.perf_counter() - began
    _, alive = psutil.wait_procs(children, timeout=_GONE)
    alive = [child for child in alive if child.is_running() and _kind(child.cmdline()) != "other"]
    assert not alive, alive
    return seconds, len(list(folder.glob("part-*")))


def _observe(pid: int, peaks: dict[str, int]) -> list[psutil.Process]:
    """Note the memory of a command's processes, each kind's largest, and return those that it started."""
    try:
        command = psutil.Process(pid)
        children = command.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    for process in [command, *children]:
        with contextlib.suppress(psutil.Error):  # it has just ended
            name = "command" if process.pid == pid else _kind(process.cmdline())
            peaks[name] = max(peaks.get(name, 0), process.memory_info().rss)
    return children


def _kind(words: list[str]) -> str:
    line = " ".join(words)
    kinds = {"_Worker": "worker", "raylet": "raylet", "gcs_server": "gcs"}
    return next((kind for part, kind in kinds.items() if part in line), "other")


def _check(count: int, originals: int, plain: tuple[list[float], float]) -> None:
    """Fail unless every picture has one row, with the score of plain predict."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table("results.parquet")
    assert table["path"].to_pylist() == [f"many/{at:06}.jpg" for at in range(count)]
    assert table["error"].null_count == count
    assert table["score"].to_pylist() == [plain[0][at % originals] for at in range(count)]


if __name__ == "__main__":
    main()
