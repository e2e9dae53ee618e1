"""Hostile files of all kinds, seeded: does each end in a verdict or in an error of ours?

    python -m benchmarks.fuzz --kind pictures --count 3000 --seed 1 --out results.csv

A worker process makes input N from the seed and reads it; its parent watches time and memory, and begins another
worker where one dies. A CSV that is there already is gone on with. `--only N`
repeats one input and shows where it ends.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("pictures", "masks", "monitors", "weights", "models", "graphs", "caches")
_SECONDS = 10.0
_START = 240.0  # of a worker: imports, a fit and compiled graphs
_MEMORY = 2 << 30
_BAD = ("UNEXPECTED", "HANG", "CRASH", "MEMORY", "DISAGREE")
Rng = np.random.Generator


# ---------------------------------------------------------------------- whole files


def _pixels(rng: Rng, *, deep: bool = False, channels: int = 3) -> np.ndarray:
    height, width = rng.integers(8, 48, 2)
    most = 65535 if deep else 255
    ramp = np.linspace(0, most, height * width * channels).reshape(height, width, channels)
    noise = rng.integers(0, most // 8, ramp.shape)
    return np.minimum(ramp + noise, most).astype(np.uint16 if deep else np.uint8)


def _pillow(rng: Rng) -> bytes:
    from PIL import Image

    image = Image.fromarray(_pixels(rng))
    how: list[tuple[str, str, dict[str, Any]]] = [
        ("JPEG", "RGB", {"quality": int(rng.integers(30, 95)), "progressive": bool(rng.integers(2))}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "1", {}),
        ("PNG", "P", {"bits": int(rng.choice([1, 2, 4, 8])), "transparency": 0}),
        ("PNG", "LA", {}),
        ("PNG", "RGBA", {}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("WEBP", "RGB", {"lossless": bool(rng.integers(2))}),
        ("WEBP", "RGBA", {}),
        ("GIF", "P", {}),
        ("PPM", "RGB", {}),
        ("PPM", "L", {}),
    ]
    format_, mode, options = how[rng.integers(len(how))]
    out = io.BytesIO()
    image.convert(mode).save(out, format_, **options)
    return out.getvalue()


def _png_by_hand(rng: Rng) -> bytes:
    """A PNG of any depth and colour type, interlaced or not (its rows then make no sense, its length may)."""
    kind = int(rng.choice([0, 2, 3, 4, 6]))
    depth = int(rng.choice({0: [1, 2, 4, 8, 16], 3: [1, 2, 4, 8]}.get(kind, [8, 16])))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    width, height, interlaced = int(rng.integers(1, 40)), int(rng.integers(1, 40)), int(rng.integers(8) == 0)
    row = (width * channels * depth + 7) // 8
    rows = b"".join(bytes([int(rng.integers(5))]) + rng.bytes(row) for _ in range(height))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))]
    chunks += [(b"PLTE", rng.bytes(3 * 2**depth))] if kind == 3 else []
    chunks += [(b"tRNS", rng.bytes({0: 2, 2: 6, 3: 2}[kind]))] if kind in (0, 2, 3) and rng.integers(2) else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return _png_of(chunks)


def _png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _tiff(rng: Rng) -> bytes:
    import tifffile

    channels = int(rng.choice([1, 3, 4]))
    pixels = _pixels(rng, deep=bool(rng.integers(2)), channels=channels)
    options: dict[str, Any] = {
        "compression": [None, "zlib", "lzw", "packbits", "deflate"][rng.integers(5)],
        "bigtiff": bool(rng.integers(4) == 0),
        "byteorder": "<>"[rng.integers(2)],
        "photometric": "minisblack" if channels == 1 else "rgb",
    }
    if rng.integers(3) == 0:
        options["tile"] = (16, 16)
    elif rng.integers(2):
        options["rowsperstrip"] = int(rng.integers(1, 20))
    if options["compression"] in ("zlib", "lzw", "deflate") and rng.integers(2):
        options["predictor"] = True
    if channels == 1:
        pixels = pixels[:, :, 0]
    elif rng.integers(4) == 0:
        pixels, options["planarconfig"] = np.ascontiguousarray(pixels.transpose(2, 0, 1)), "separate"
    out = io.BytesIO()
    with contextlib.suppress(ValueError, RuntimeError, KeyError):  # some structures do not go together
        tifffile.imwrite(out, pixels, **options)
    return out.getvalue()


def _picture(rng: Rng) -> bytes:
    return (_pillow, _png_by_hand, _tiff)[rng.integers(3)](rng)


# ---------------------------------------------------------------------- mutations


def mutate(data: bytes, rng: Rng) -> bytes:
    """Return a file with one to four things changed; one in twenty is left whole."""
    if rng.integers(20) == 0:
        return data
    for _ in range(rng.integers(1, 5)):
        data = _MUTATIONS[rng.integers(len(_MUTATIONS))](data, rng) if data else rng.bytes(8)
    return data


def _flip(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(0, len(data), rng.integers(1, 9)):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _flip_early(data: bytes, rng: Rng) -> bytes:
    return _flip(data[:128], rng) + data[128:]


def _cut(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(0, len(data) + 1)]


def _insert(data: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(0, len(data) + 1))
    return data[:at] + rng.bytes(rng.integers(1, 32)) + data[at:]


def _remove(data: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(0, len(data)))
    return data[:at] + data[at + int(rng.integers(1, 64)) :]


def _number(data: bytes, rng: Rng) -> bytes:
    """Put an awkward number where a length, an offset or a dimension may stand."""
    size = int(rng.choice([2, 4, 8]))
    value = int(rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 50_000, 200_000])) % 256**size
    at = int(rng.integers(0, min(len(data), 4096)))
    return data[:at] + value.to_bytes(size, ("big", "little")[rng.integers(2)]) + data[at + size :]


def _join(data: bytes, rng: Rng) -> bytes:
    return data + _picture(rng)


def _chunk(data: bytes, rng: Rng) -> bytes:
    """Change a chunk of a PNG and mend its checksum; of another format a number."""
    if not data.startswith(b"\x89PNG"):
        return _number(data, rng)
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return data
    which = int(rng.integers(len(chunks)))
    kind, body = chunks[which]
    change = int(rng.integers(4))
    if change == 0:
        chunks.insert(which, chunks[rng.integers(len(chunks))])
    elif change == 1:
        del chunks[which]
    elif body:
        chunks[which] = (kind, (_number, _flip)[change - 2](body, rng))
    return _png_of(chunks)


def _garbage(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(0, 16)] + rng.bytes(rng.integers(0, 512))


_MUTATIONS: tuple[Callable[[bytes, Rng], bytes], ...] = (
    _flip,
    _flip_early,
    _flip_early,
    _cut,
    _insert,
    _remove,
    _number,
    _number,
    _join,
    _chunk,
    _chunk,
    _garbage,
)


def _in_json(value: Any, rng: Rng) -> Any:
    """Return JSON with one value somewhere replaced by an awkward one, or removed."""
    if isinstance(value, dict) and value and rng.integers(8):
        key = sorted(value)[rng.integers(len(value))]
        if rng.integers(12) == 0:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: _in_json(value[key], rng)}
    if isinstance(value, list) and value and rng.integers(8):
        at = int(rng.integers(len(value)))
        return [*value[:at], _in_json(value[at], rng), *value[at + 1 :]]
    awkward: list[Any] = [None, 0, -1, 1e308, 2**70, "", "x", [], {}, True, [[]], 0.5, "../../etc/passwd", 10**9]
    return awkward[rng.integers(len(awkward))]


# ---------------------------------------------------------------------- what reads them


class Reader:
    """Reads input N of a kind; made once a worker."""

    def __init__(self, kind: str, folder: Path) -> None:
        from totalrecall import Monitor, PatchCore

        self.kind, self.folder = kind, folder
        rng = np.random.default_rng(0)
        self.pictures = [rng.integers(90, 120, (64, 64, 3), dtype=np.uint8) for _ in range(8)]
        self.detector = PatchCore(size=64, coreset=0.1, at_least=1, precision="f32").fit(self.pictures)
        self.detector.predict(self.pictures[0])
        self.model = self.detector.save(folder / "whole.trecall").read_bytes()
        monitor = Monitor(self.detector.drift_, self.detector.threshold_)
        for picture in self.pictures:
            result = self.detector.predict(picture, conditions=True)
            assert result.conditions is not None
            monitor.observe(result.conditions, bool(result.is_anomalous))
        self.state = json.loads(monitor.save(folder / "monitor").read_text())
        self.file = folder / "input"

    def read(self, number: int, seed: int) -> tuple[str, str]:
        """Return the outcome's class and what is to be said of it."""
        from totalrecall.errors import TotalRecallError

        rng = np.random.default_rng([seed, KINDS.index(self.kind), number])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return getattr(self, f"_{self.kind}")(rng)
        except TotalRecallError as error:
            return f"error {error.exit_code}", ""
        except MemoryError:
            return "MEMORY", traceback.format_exc()[-300:]
        except Exception as error:
            if os.environ.get("FUZZ_RAISE"):
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            return "UNEXPECTED", f"{type(error).__name__}: {error} at {where.filename}:{where.lineno}"[:300]

    def _pictures(self, rng: Rng) -> tuple[str, str]:
        data = mutate(_picture(rng), rng)
        self.file.write_bytes(data)
        self.detector.predict(self.file)
        refused = refusals(data)
        return ("DISAGREE", refused) if refused else ("verdict", "")

    def _masks(self, rng: Rng) -> tuple[str, str]:
        from totalrecall.pictures.masks import read_mask

        data = mutate(_picture(rng), rng)
        self.file.write_bytes(data)
        read_mask(self.file)
        return "verdict", ""

    def _monitors(self, rng: Rng) -> tuple[str, str]:
        from totalrecall import Monitor

        state = _in_json(self.state, rng) if rng.integers(4) else self.state
        data = json.dumps(state).encode()
        self.file.write_bytes(data if rng.integers(4) else mutate(data, rng))
        monitor = Monitor.open(self.file, self.detector.drift_, self.detector.threshold_)
        result = self.detector.predict(self.pictures[0], conditions=True)
        assert result.conditions is not None
        monitor.observe(result.conditions, bool(result.is_anomalous))
        monitor.words()
        return "verdict", ""

    def _weights(self, rng: Rng) -> tuple[str, str]:
        from safetensors.numpy import save

        from totalrecall.backbones import add

        arrays = {f"layer1.{at}.conv1.weight": np.zeros((4, 4), np.float32) for at in range(3)}
        arrays |= {
            "conv1.weight": rng.standard_normal((64, 3, 7, 7), dtype=np.float32),
            "bn1.weight": np.ones(64, "f4"),
        }
        data = save(arrays)
        if rng.integers(3) == 0:
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w") as archive:
                archive.writestr("archive/data.pkl", b"\x80\x02}q\x00." + rng.bytes(8))
                archive.writestr("archive/data/0", rng.bytes(64))
            data = out.getvalue()
        elif rng.integers(2):
            length = int.from_bytes(data[:8], "little")
            head = json.dumps(_in_json(json.loads(data[8 : 8 + length]), rng)).encode()
            data = len(head).to_bytes(8, "little") + head + data[8 + length :]
        file = self.folder / ("w.pth" if rng.integers(4) == 0 else "w.safetensors")
        file.write_bytes(mutate(data, rng))
        add("resnet18", file, save_as="fuzzed")
        return "verdict", ""

    def _models(self, rng: Rng) -> tuple[str, str]:
        from totalrecall import load_detector

        data = self.model
        if rng.integers(3):
            length = int.from_bytes(data[:8], "little")
            head = json.loads(data[8 : 8 + length])
            inner = json.loads(head["__metadata__"]["totalrecall"])
            head["__metadata__"]["totalrecall"] = json.dumps(_in_json(inner, rng))
            if rng.integers(4) == 0:
                head = _in_json(head, rng)
            text = json.dumps(head).encode()
            data = len(text).to_bytes(8, "little") + text + data[8 + length :]
        else:
            data = mutate(data, rng)
        self.file.write_bytes(data)
        load_detector(self.file).predict(self.pictures[0])
        return "verdict", ""

    def _graphs(self, rng: Rng) -> tuple[str, str]:
        from totalrecall.backbones import Backbone
        from totalrecall.engines import open_engine

        data = mutate(self.detector.backbone.graph, rng)
        backbone = Backbone.from_onnx(data)
        engine = open_engine(backbone, tuple(layer.name for layer in backbone.layers)[:2], precision="f32")
        engine.run(self.pictures[0][None])
        return "verdict", ""

    def _caches(self, rng: Rng) -> tuple[str, str]:
        from totalrecall.engines import open_engine

        cache = Path(os.environ["TOTALRECALL_HOME"]) / "cache"
        whole = {path: path.read_bytes() for path in cache.iterdir() if path.is_file()} if cache.is_dir() else {}
        for path, data in whole.items():
            path.write_bytes(mutate(data, rng))
        try:
            engine = open_engine(self.detector.backbone, self.detector.extractor.layers, precision="f32")
            engine.run(self.pictures[0][None])
        finally:
            for path, data in whole.items():
                path.write_bytes(data)
        return "verdict", ""


def refusals(data: bytes) -> str:
    """Return why independent decoders refuse a picture; nothing where one of them gives its pixels."""
    import tifffile
    from PIL import Image, ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False
    said = []
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
        return ""
    except Exception as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        said.append(f"Pillow: {error}")
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        try:
            tifffile.imread(io.BytesIO(data), key=0)
            return ""
        except Exception as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            said.append(f"tifffile: {error}")
    return "; ".join(said)[:300]


# ---------------------------------------------------------------------- workers and their parent


def _limit_memory() -> None:
    import resource

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _MEMORY, resource.RLIM_INFINITY))


def work(kind: str, seed: int) -> None:
    """Read numbers on stdin, answer each on stdout."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TOTALRECALL_HOME"] = folder
        reader = Reader(kind, Path(folder))
        _limit_memory()
        print("ready", file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(reader.read(int(line), seed)), file=out, flush=True)


class Worker:
    """A worker process, begun anew after each of its deaths."""

    def __init__(self, kind: str, seed: int) -> None:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--work", "--kind", kind, "--seed", str(seed)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if self._line(_START) != "ready":
            self.process.kill()
            raise SystemExit("The worker does not start. Try: python -m benchmarks.fuzz --only 0")
        self.resident = self._peak()

    def ask(self, number: int) -> tuple[str, str]:
        """Return the outcome of an input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        line = self._line(_SECONDS)
        if line is None:
            self.stop()
            return "HANG", f"more than {_SECONDS:g} s"
        if not line:
            return "CRASH", f"exit {self.process.wait()}"
        grown = self._peak() - self.resident
        if grown > _MEMORY:
            self.stop()
            return "MEMORY", f"{grown >> 20} MB more"
        outcome, detail = json.loads(line)
        return outcome, detail

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def _line(self, seconds: float) -> str | None:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline().strip() if ready else None

    def _peak(self) -> int:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) << 10
        return 0


def fuzz(kind: str, count: int, seed: int, out: Path | None) -> Counter[str]:
    """Read inputs 0 to count - 1 of a kind; return how many ended how. Those in `out` already are not repeated."""
    outcomes: Counter[str] = Counter()
    done = set()
    if out is not None and out.is_file():
        with out.open(newline="") as file:
            for row in csv.DictReader(file):
                if (row["kind"], row["seed"]) == (kind, str(seed)) and int(row["number"]) < count:
                    done.add(int(row["number"]))
                    outcomes[row["outcome"]] += 1
    worker: Worker | None = None
    with contextlib.ExitStack() as stack:
        sheet = None
        if out is not None:
            fresh = not out.is_file()
            file = stack.enter_context(out.open("a", newline=""))
            sheet = csv.writer(file)
            if fresh:
                sheet.writerow(["kind", "seed", "number", "outcome", "detail"])
        for number in range(count):
            if number in done:
                continue
            if worker is None or not worker.alive:
                worker = Worker(kind, seed)
            outcome, detail = worker.ask(number)
            outcomes[outcome] += 1
            if sheet is not None:
                sheet.writerow([kind, seed, number, outcome, detail])
                file.flush()
    if worker is not None:
        worker.stop()
    return outcomes


def main() -> int:
    """Run; returns 1 if any input ended as none may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--count", type=int, default=60, help="inputs of each kind (default 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="CSV, a line an input")
    parser.add_argument("--only", type=int, metavar="N", help="repeat one input here, with its traceback")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.kind[0], args.seed)
        return 0
    if args.only is not None:
        os.environ["FUZZ_RAISE"] = "1"
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TOTALRECALL_HOME"] = folder
            print(Reader(args.kind[0], Path(folder)).read(args.only, args.seed))
        return 0
    bad = 0
    for kind in args.kind:
        outcomes = fuzz(kind, args.count, args.seed, args.out)
        bad += sum(outcomes[name] for name in _BAD)
        print(kind, dict(sorted(outcomes.items())), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
