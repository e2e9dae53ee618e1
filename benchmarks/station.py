"""The station under load: pictures per second beside `predict` on the same folder, delays, refusals, memory.

    python -m benchmarks.station MODEL PICTURES [--seconds 60] [--clients 8 64] [--queue 64] [--size 256]

The pictures are saved as JPEGs of 256 pixels. A station is started, and so many clients, each on a connection of its
own, send one picture after the other; after every ten seconds of that they rest, and `predict` judges a folder of the
same pictures for five, so that both meet the machine as it is at the time. Asserted: every answer is 200 or 503, the
score of each picture is that of `predict`, and every answer that was given is in the history. The clients are one
process of their own, which shares the cores with the station: what they take is in the ratio.
"""

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from benchmarks.common import record

_BOUNDARY = "station-benchmark"
_ROUND = 10.0  # seconds of load, before the folder has its turn

Answer = tuple[int, float, dict[str, Any]]  # status, seconds, body


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rate", type=float, help="pictures per second in all; as many as possible if not given")
    parser.add_argument("--queue", type=int, default=64, help="pictures that may wait; one more is refused with 503")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary:
        folder = Path(temporary)
        pictures = small(args.pictures, folder / "pictures", args.size)
        folder_of_pictures = Folder(args.model, pictures)
        rows = []
        for clients in args.clients:
            facts = _station(args, folder / f"station-{clients}", pictures, folder_of_pictures, clients)
            rows.append({"clients": clients, "queue": args.queue, **facts})
            print(rows[-1], flush=True)
        record("station", rows)


def small(pictures: Path, folder: Path, size: int) -> list[Path]:
    folder.mkdir()
    small = []
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        image = cv2.resize(cv2.imread(str(path)), (size, size), interpolation=cv2.INTER_AREA)
        small.append(folder / f"{number:04}.jpg")
        cv2.imwrite(str(small[-1]), image)
    return small


class Folder:
    """`predict` of the same pictures as a folder."""

    def __init__(self, model: Path, pictures: list[Path]) -> None:
        from totalrecall import load_detector

        self._detector, self._pictures = load_detector(model), pictures
        self.scores = {Path(result.path).name: result.score for result in self._detector.predict_stream(pictures)}
        self.count, self.seconds, self.cpu = 0, 0.0, 0.0

    def judge(self, seconds: float) -> None:
        """Judge them over and over for so long, and count."""
        began, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - began < seconds:
            self.count += sum(1 for _ in self._detector.predict_stream(self._pictures))
        self.seconds += time.perf_counter() - began
        self.cpu += time.process_time() - cpu


def _station(
    args: argparse.Namespace, folder: Path, pictures: list[Path], beside: Folder, clients: int
) -> dict[str, Any]:
    command = [sys.executable, "-m", "totalrecall", "serve", str(args.model), "--port", "0", "--folder", str(folder)]
    command += ["--queue", str(args.queue)]
    began = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        start = time.perf_counter() - began
        port = int(line.split("http://127.0.0.1:")[1].split()[0])
        process = psutil.Process(server.pid)
        requests = [request(args.model.stem, path) for path in pictures]
        asyncio.run(_load(port, requests, clients, min(args.seconds, 3), None))  # the first pictures of a size
        answers: list[Answer] = []
        memory: list[float] = []
        cpu = 0.0
        beside.count, beside.seconds, beside.cpu = 0, 0.0, 0.0
        rounds = 1 if args.rate else max(round(args.seconds / _ROUND), 1)
        for _ in range(rounds):
            before = sum(process.cpu_times()[:2])
            seconds = args.seconds / rounds
            came, seen = asyncio.run(_watched(process, port, requests, clients, seconds, args.rate))
            answers += came
            memory += seen
            cpu += sum(process.cpu_times()[:2]) - before
            beside.judge(seconds / 2 if not args.rate else 0)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    assert code == 0, code
    statuses = Counter(status for status, _, _ in answers)
    assert set(statuses) <= {200, 503}, statuses
    accepted = [(seconds, body) for status, seconds, body in answers if status == 200]
    for _, body in accepted:
        assert abs(body["score"] - beside.scores[body["path"]]) <= 1e-6 * beside.scores[body["path"]], body
    kept = {key for (key,) in sqlite3.connect(folder / "history.db").execute("select key from inspections")}
    assert {body["id"] for _, body in accepted} <= kept
    quarter = len(memory) // 4
    delays = 1000 * np.array([seconds for seconds, _ in accepted])
    rate, folder_rate = len(accepted) / args.seconds, beside.count / max(beside.seconds, 1e-9)
    return {
        "folder_per_s": round(folder_rate, 1),
        "folder_cpu_ms": round(1000 * beside.cpu / max(beside.count, 1), 1),
        "per_s": round(rate, 1),
        "p50_ms": round(float(np.percentile(delays, 50)), 1),
        "p99_ms": round(float(np.percentile(delays, 99)), 1),
        "worst_ms": round(float(delays.max()), 1),
        "cpu_ms": round(1000 * cpu / len(accepted), 1),
        "answered": statuses[200],
        "refused": statuses[503],
        "memory_first_quarter_mb": round(float(np.median(memory[: quarter + 1]))),
        "memory_last_quarter_mb": round(float(np.median(memory[-quarter - 1 :]))),
        "memory_most_mb": round(max(memory)),
        "start_s": round(start, 2),
        "of_folder": round(rate / folder_rate, 3) if beside.count else None,
    }


def request(model: str, path: Path) -> bytes:
    body = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    body += path.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()
    head = (
        f"POST /v1/models/{model}/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n\r\n"
    )
    return head.encode() + body


async def _watched(
    process: psutil.Process, port: int, requests: list[bytes], clients: int, seconds: float, rate: float | None
) -> tuple[list[Answer], list[float]]:
    """Return the answers, and the process's memory in MB at sixty moments of the time."""
    memory: list[float] = []

    async def watch() -> None:
        while True:
            memory.append(process.memory_info().rss / (1 << 20))
            await asyncio.sleep(seconds / 60)

    watching = asyncio.ensure_future(watch())
    answers = await _load(port, requests, clients, seconds, rate)
    watching.cancel()
    return answers, memory


async def _load(port: int, requests: list[bytes], clients: int, seconds: float, rate: float | None) -> list[Answer]:
    """Return the status, the seconds and the body of each answer that came before the time was over."""
    answers: list[Answer] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at, due = number, time.perf_counter()
        while time.perf_counter() < end:
            began = time.perf_counter()
            writer.write(requests[at % len(requests)])
            status, body = await answer(reader)
            now = time.perf_counter()
            if now <= end:
                answers.append((status, now - began, body))
            at += clients
            due += clients / rate if rate else 0
            if status == 503:
                await asyncio.sleep(0.05)
            elif rate:
                await asyncio.sleep(max(due - now, 0))
        writer.close()

    await asyncio.gather(*map(client, range(clients)))
    return answers


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


if __name__ == "__main__":
    main()
