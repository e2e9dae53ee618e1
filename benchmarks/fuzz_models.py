"""Mutated model files, graphs and compiled graphs, and what the program says of them.

    python -m benchmarks.fuzz_models --count 3000 --seed 0

Mutations have new hashes, so that they get past them, as a stranger's would; some have not, as a damaged disk's. Each
file is opened in a child of its own memory (2 GB) and time (10 s): `info`, one picture, and all steps undone. It must
be used, or refused with one line and the exit code of its kind; anything else is a fault and is listed.
"""

import argparse
import collections
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Checker", "Outcome", "base_models", "check", "mutated_caches", "mutated_graphs", "mutated_models"]

MEMORY, SECONDS = 2 << 30, 10.0
_EACH = 150  # files that a child opens before a fresh one takes over
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**31, 2**53, 2**63, 10**400, -(10**400), 0.0, -0.5, 0.5, 1.5, 1e-300,
    1e300, "", "a", "layer1", "x" * 100_000, "\x00", "../../etc/passwd", "/dev/zero",
    [], [0], [1, 2, 3], [[]], {}, {"a": 1},
    float("nan"), float("inf"),
)  # fmt: skip

Mutant = tuple[str, bytes]  # what was done, and the file


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        kind: `used`, `refused` (exit 3 in one line), `told` (another error of ours), `unexpected`, `hang` or `crash`.
        detail: the message, or where the exception arose.
    """

    kind: str
    detail: str = ""

    @property
    def fault(self) -> bool:
        """Whether the program must not have ended so."""
        return self.kind in ("unexpected", "hang", "crash")


# ---------------------------------------------------------------------- files, with hashes that fit whatever they say


def split(data: bytes) -> tuple[dict[str, Any], dict[str, dict[str, Any]], bytes]:
    """Return header, list of the tensors, and their bytes, of a model file."""
    length = int.from_bytes(data[:8], "little")
    listed = json.loads(data[8 : 8 + length])
    header = json.loads(listed.pop("__metadata__")["totalrecall"])
    return header, listed, data[8 + length :]


def joined(header: dict[str, Any], listed: dict[str, Any], body: bytes, *, hashes: bool = True) -> bytes:
    """Return the file of such parts, whatever they are; with hashes that fit, as far as they can."""
    from totalrecall.system.files import sha256

    header = {key: value for key, value in header.items() if not hashes or key != "sha256"}
    if hashes:
        digests: dict[str, str] = {}
        layout: dict[str, Any] = {}
        for name, entry in listed.items():
            with contextlib.suppress(KeyError, TypeError, ValueError):
                begin, end = entry["data_offsets"]
                digests[name] = sha256(body[begin:end])
                layout[name] = [entry["dtype"], entry["shape"]]
        if isinstance(header.get("backbone"), dict) and "backbone.graph" in digests:
            header["backbone"] = {**header["backbone"], "sha256": digests["backbone.graph"]}
        header["tensors"] = digests
        parts = (json.dumps(part, sort_keys=True).encode() for part in (header, layout))
        header["sha256"] = sha256(b"".join(parts))  # as docs/reference/model-file.md says
    text = json.dumps(header, sort_keys=True)
    head = json.dumps({"__metadata__": {"totalrecall": text}, **listed}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + body


def arrays(listed: dict[str, Any], body: bytes) -> dict[str, np.ndarray]:
    """Return the tensors of a file."""
    kinds = {"F64": "<f8", "F32": "<f4", "I32": "<i4", "F16": "<f2", "U8": "u1"}
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], kinds[entry["dtype"]]).reshape(entry["shape"]).copy()
        for name, entry in listed.items()
    }


def packed(tensors: dict[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    """Return list and bytes of tensors."""
    listed: dict[str, Any] = {}
    parts: list[bytes] = []
    end = 0
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor).tobytes()
        kind = f"{tensor.dtype.kind.upper()}{8 * tensor.dtype.itemsize}"
        listed[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [end, end + len(data)]}
        parts.append(data)
        end += len(data)
    return listed, b"".join(parts)


# ---------------------------------------------------------------------- models


def mutated_models(bases: list[bytes], count: int, seed: int) -> Iterator[Mutant]:
    """Yield mutated model files, the same for the same seed."""
    rng = np.random.default_rng(seed)
    ways: tuple[Callable[[np.random.Generator, bytes], Mutant], ...] = (
        _value, _value, _value, _value, _key, _tensor_numbers, _tensor_numbers, _tensor_shape, _tensor_shape,
        _tensor_gone, _listing, _bits, _cut, _graph_inside, _text,
    )  # fmt: skip
    for _ in range(count):
        yield ways[rng.integers(len(ways))](rng, bases[rng.integers(len(bases))])


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, (*path, key))


def _at(rng: np.random.Generator, header: dict[str, Any]) -> tuple[Any, Any, str]:
    """Return a container somewhere in the header, and a key of it; rare keys as often as those of many pictures."""
    first = sorted(key for key in header if key not in ("tensors", "sha256"))[
        rng.integers(len(header) - sum(key in header for key in ("tensors", "sha256")))
    ]
    paths = list(_leaves(header[first], (first,)))
    path = paths[rng.integers(len(paths))]
    holder: Any = header
    for step in path[:-1]:
        holder = holder[step]
    return holder, path[-1], ".".join(map(str, path))


def _near(rng: np.random.Generator, old: Any) -> Any:
    """Return a value that is odd, or near the old one and of its type."""
    if rng.random() < 0.5:
        if type(old) is int:
            return old + int(rng.choice([-100, -2, -1, 1, 2, 100, 1000]))
        if isinstance(old, float):
            return old * float(rng.choice([-1, 0, 1.1, 1e-9, 1e9, 1e200]))
        if isinstance(old, list) and old:
            return [old[:-1], [*old, old[0]], old[::-1]][rng.integers(3)]
        if isinstance(old, str):
            return old[: rng.integers(len(old) + 1)] + str(rng.choice(["", "x", "é", "\n"]))
    return _ODD[rng.integers(len(_ODD))]


def _value(rng: np.random.Generator, data: bytes) -> Mutant:
    header, listed, body = split(data)
    holder, key, where = _at(rng, header)
    holder[key] = _near(rng, holder[key])
    return f"{where} = {str(holder[key])[:30]!r}", joined(header, listed, body)


def _key(rng: np.random.Generator, data: bytes) -> Mutant:
    header, listed, body = split(data)
    holder, key, where = _at(rng, header)
    if rng.random() < 0.5:
        del holder[key]
        return f"{where} gone", joined(header, listed, body)
    if isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    else:
        holder.insert(key, holder[key])
    return f"{where} renamed", joined(header, listed, body)


def _tensor_numbers(rng: np.random.Generator, data: bytes) -> Mutant:
    header, listed, body = split(data)
    tensors = arrays(listed, body)
    name = str(rng.choice(sorted(set(tensors) - {"backbone.graph"})))
    flat = tensors[name].reshape(-1)
    if not flat.size:
        return f"{name} as it was", data
    some = rng.integers(flat.size, size=rng.choice([1, 1, 1, flat.size]))
    if flat.dtype.kind == "f":
        value = rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 1e4, 6e4, 1e14, 1e38])
    else:
        value = (
            rng.choice([-1, 0, 1, 2, 100, 255])
            if flat.dtype.itemsize == 1
            else rng.choice([-(2**31), -1, 0, 9, 2**31 - 1])
        )
    with np.errstate(all="ignore"):
        flat[some] = np.array(value).astype(flat.dtype)
    return f"{name}[{len(some)}] = {value}", joined(header, *packed(tensors))


def _tensor_shape(rng: np.random.Generator, data: bytes) -> Mutant:
    header, listed, body = split(data)
    tensors = arrays(listed, body)
    name = str(rng.choice(sorted(tensors)))
    old = tensors[name]
    way = rng.integers(6)
    with np.errstate(all="ignore"):
        if way == 0:
            new = old[: len(old) // 2]
        elif way == 1:
            new = np.concatenate([old, old])
        elif way == 2:
            new = old.reshape(-1)
        elif way == 3:
            new = old.astype(str(rng.choice(["float64", "float32", "int32", "float16", "uint8"])))
        elif way == 4:
            new = old[..., : old.shape[-1] // 2]
        else:
            new = old.T
    tensors[name] = new
    return f"{name} {old.dtype}{old.shape} as {new.dtype}{new.shape}", joined(header, *packed(tensors))


def _tensor_gone(rng: np.random.Generator, data: bytes) -> Mutant:
    header, listed, body = split(data)
    tensors = arrays(listed, body)
    name, other = (str(one) for one in rng.choice(sorted(tensors), 2, replace=False))
    way = rng.integers(4)
    if way == 0:
        del tensors[name]
    elif way == 1:
        tensors[f"{name}x"] = tensors.pop(name)
    elif way == 2:
        tensors[name], tensors[other] = tensors[other], tensors[name]
    else:
        tensors[f"history.{rng.integers(4)}.whole.{name}"] = tensors[name]
    return f"{name} {('gone', 'renamed', f'swapped with {other}', 'kept by a step')[way]}", joined(
        header, *packed(tensors)
    )


def _listing(rng: np.random.Generator, data: bytes) -> Mutant:
    """Let the list of tensors say something else of the same bytes."""
    header, listed, body = split(data)
    name = str(rng.choice(sorted(listed)))
    key = str(rng.choice(["dtype", "shape", "data_offsets"]))
    odd = {"dtype": ["F32", "I32", "I64", "BF16", "BOOL", 3], "shape": [[1 << 50], [-1], [0], [], 3, [2.0], [1] * 40]}
    ends = [[0, 1 << 60], [-8, 8], [8, 0], [0], "x", [0, 8]]
    choices = {**odd, "data_offsets": ends}[key]
    listed[name] = {**listed[name], key: choices[rng.integers(len(choices))]}
    return f"listed {name}.{key} = {listed[name][key]}", joined(header, listed, body)


def _bits(rng: np.random.Generator, data: bytes) -> Mutant:
    changed = bytearray(data)
    within = len(data) if rng.random() < 0.5 else 8 + int.from_bytes(data[:8], "little")
    for at in rng.integers(within, size=rng.integers(1, 4)):
        changed[at] ^= 1 << rng.integers(8)
    return "bits flipped, hashes as they were", bytes(changed)


def _cut(rng: np.random.Generator, data: bytes) -> Mutant:
    length = int(rng.integers(len(data)))
    return f"cut to {length}", data[:length] + bytes(int(rng.choice([0, 0, 8, 1000])))


def _text(rng: np.random.Generator, data: bytes) -> Mutant:
    """Let the header be JSON of another kind, or none."""
    _, listed, body = split(data)
    texts = [
        "",
        "[]",
        "3",
        "null",
        "{}",
        "[" * 50_000,
        '{"format":' * 20_000,
        '{"format": 1e999}',
        '{"format": 1, "format": 1}',
    ]
    text = texts[rng.integers(len(texts))]
    head = json.dumps({"__metadata__": {"totalrecall": text}, **listed}).encode()
    return f"header {text[:20]}", len(head).to_bytes(8, "little") + head + body


def _graph_inside(rng: np.random.Generator, data: bytes) -> Mutant:
    header, listed, body = split(data)
    tensors = arrays(listed, body)
    what, graph = _mutated_graph(rng, tensors["backbone.graph"].tobytes())
    tensors["backbone.graph"] = np.frombuffer(graph, np.uint8)
    return f"graph: {what}", joined(header, *packed(tensors))


# ---------------------------------------------------------------------- graphs, compiled graphs


def mutated_graphs(base: bytes, count: int, seed: int) -> Iterator[Mutant]:
    """Yield model files with mutated graphs inside, the same for the same seed.

    Args:
        base: a model file with its graph inside.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield _graph_inside(rng, base)


def _mutated_graph(rng: np.random.Generator, data: bytes) -> Mutant:
    if rng.random() < 0.25:
        changed = bytearray(data)
        for at in rng.integers(len(data), size=rng.integers(1, 6)):
            changed[at] = rng.integers(256)
        return "bytes", bytes(changed)
    if rng.random() < 0.05:
        return "cut", data[: rng.integers(1, len(data))]
    import onnx

    model = onnx.load_from_string(data)
    done = [_change_graph(rng, model) for _ in range(rng.integers(1, 4))]
    return ", ".join(done), model.SerializeToString()


def _change_graph(rng: np.random.Generator, model: Any) -> str:
    from onnx import helper

    graph = model.graph
    node, weights = graph.node[rng.integers(len(graph.node))], graph.initializer[rng.integers(len(graph.initializer))]
    numbers = [-1, 0, 1, 2, 3, 5, 17, 31, 4095, 2**20, 2**31, 2**62]
    way = rng.integers(10)
    if way == 0:
        from totalrecall.backbones.graph_check import OPERATORS

        node.op_type = str(rng.choice([*OPERATORS, "ScatterND", "Gather", "Loop", "Tile", "Resize", "NonZero"]))
    elif way == 1 and len(node.attribute):
        one = node.attribute[rng.integers(len(node.attribute))]
        if one.ints:
            one.ints[rng.integers(len(one.ints))] = int(rng.choice(numbers))
        else:
            one.i = int(rng.choice(numbers))
    elif way == 2:
        names = [
            "kernel_shape",
            "strides",
            "pads",
            "dilations",
            "perm",
            "axes",
            "group",
            "axis",
            "auto_pad",
            "ceil_mode",
        ]
        name = str(rng.choice(names))
        values = [int(one) for one in rng.choice(numbers, rng.integers(1, 5))]
        node.attribute.append(helper.make_attribute(name, values if rng.random() < 0.7 else values[0]))
    elif way == 3:
        names = (
            [one.name for one in graph.initializer]
            + [name for one in graph.node for name in one.output]
            + ["images", ""]
        )
        node.input[rng.integers(len(node.input))] = str(rng.choice(names))
    elif way == 4:
        weights.dims[rng.integers(len(weights.dims))] = int(rng.choice(numbers))
    elif way == 5:
        weights.data_type = int(rng.integers(0, 20))
    elif way == 6:
        shape = list(weights.dims)
        weights.dims[:] = [int(one) for one in rng.permutation(shape)] if rng.random() < 0.5 else [int(np.prod(shape))]
    elif way == 7:
        raw = np.frombuffer(weights.raw_data, np.float32).copy()
        raw[rng.integers(raw.size)] = rng.choice([np.nan, np.inf, 1e38, -1e38, 0])
        weights.raw_data = raw.tobytes()
    elif way == 8:
        graph.node.remove(node)
    else:
        graph.node.append(helper.make_node(node.op_type, list(node.input), [f"more{rng.integers(99)}"]))
        graph.node[-1].attribute.extend(node.attribute)
    return f"{node.op_type} {way}"


def mutated_caches(base: bytes, count: int, seed: int) -> Iterator[Mutant]:
    """Yield mutated entries of the cache of compiled graphs, the same for the same seed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        way = rng.integers(3)
        if way == 0:
            yield "cut", base[: rng.integers(len(base))]
        elif way == 1:
            changed = bytearray(base)
            for at in rng.integers(len(base) if rng.random() < 0.5 else min(len(base), 600), size=rng.integers(1, 9)):
                changed[at] ^= 1 << rng.integers(8)
            yield "bits", bytes(changed)
        else:
            at = int(rng.integers(len(base)))
            yield "bytes between", base[:at] + rng.bytes(int(rng.integers(1, 64))) + base[at:]


# ---------------------------------------------------------------------- what the program says


class Checker:
    """Opens files in a child, one after the other; a child that hangs or ends is replaced."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._child: subprocess.Popen[str] | None = None
        self._opened = 0

    def check(self, path: Path, *, limit: float = SECONDS) -> Outcome:
        """Return what becomes of one model file."""
        if self._child is None or self._opened >= _EACH:
            self.close()
            self._child, self._opened = self._started(), 0
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        self._opened += 1
        try:
            child.stdin.write(f"{path}\n")
            child.stdin.flush()
        except BrokenPipeError:
            child.kill()
            self._child = None
            return Outcome("crash", "before it was asked")
        ready, _, _ = select.select([child.stdout], [], [], limit)
        line = child.stdout.readline() if ready else ""
        if not ready:
            child.kill()
        if not line:
            code = self._end(child)
            return Outcome("crash", f"ended with {code}") if ready else Outcome("hang", f"over {limit:g} s")
        said = json.loads(line)
        return Outcome(said["kind"], said["detail"])

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._end(self._child)

    def _end(self, child: "subprocess.Popen[str]") -> int:
        self._child = None
        with child:  # closes both streams and waits
            pass
        return child.returncode

    def _started(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, "TOTALRECALL_HOME": str(self._scratch / "home"), "TOTALRECALL_DEBUG": "1"}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fuzz_models", "--child"]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert child.stdout is not None
        child.stdout.readline()  # once everything is imported
        return child


def check(path: Path) -> Outcome:
    """Return what becomes of one model file, in a child of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        checker = Checker(Path(scratch))
        try:
            return checker.check(Path(path))
        finally:
            checker.close()


def _serve() -> None:
    """Open each file that a line names, and say in a line what became of it."""
    import resource

    from totalrecall import load_detector
    from totalrecall.engines.runtime import core

    core().get_property("CPU", "FULL_DEVICE_NAME")
    answers, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115, PTH123
    load_detector(Path(__file__).parents[1] / "tests" / "data" / "old_patchcore.trecall").predict(_picture())
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_opened(line.rstrip("\n"))), file=answers, flush=True)


def _picture() -> np.ndarray:
    from tests.old_models import picture

    return picture(100, stain=True)


def _opened(path: str) -> dict[str, str]:
    import traceback

    from totalrecall import load_detector
    from totalrecall.cli import main
    from totalrecall.errors import SettingError, TotalRecallError, UnusableFileError

    try:
        detector = load_detector(path)
        detector.predict(_picture())
        if main(["info", path]):
            return {"kind": "unexpected", "detail": "loaded, and info refuses it"}
        for _ in detector.history_:
            detector.undo()
            detector.predict(_picture())
    except UnusableFileError as error:
        message = str(error)
        whole = len(message.splitlines()) == 1 and len(message) < 1200
        return {"kind": "refused" if whole else "unexpected", "detail": message[:300]}
    except TotalRecallError as error:
        known = not isinstance(error, SettingError) or "precision" in str(error)
        return {"kind": "told" if known else "unexpected", "detail": f"{type(error).__name__}: {error}"[:300]}
    except Exception as error:
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if "totalrecall" in frame.filename]
        place = f"{Path(where[-1].filename).name}:{where[-1].lineno}" if where else "?"
        return {"kind": "unexpected", "detail": f"{place} {type(error).__name__}: {error}"[:300]}
    return {"kind": "used", "detail": ""}


# ---------------------------------------------------------------------- the command


def base_models() -> list[bytes]:
    """Return small model files of each kind, some with a history, some with a region of interest."""
    from tests.old_models import SIZE, detectors, picture

    from totalrecall import load_detector

    found = []
    with tempfile.TemporaryDirectory() as scratch:
        roi = np.zeros((48, 40), bool)
        roi[4:40, 6:36] = True
        path = Path(scratch) / "m.trecall"
        old = sorted((Path(__file__).parents[1] / "tests" / "data").glob("*_changed.trecall"))
        found += [load_detector(one).save(path).read_bytes() for one in old]
        for name, detector in detectors():
            settings = {key: value for key, value in detector.settings.stored().items() if key != "backbone"}
            if name == "patchcore":
                settings |= {"descriptor": "paper-code", "scoring": "paper", "stride": 2}
            settings["backbone"] = detector.backbone
            made = type(detector)(**settings, size=SIZE, roi=roi).fit([picture(seed) for seed in range(9)])
            found.append(made.save(path).read_bytes())
        found.append(_joined_model(path))
    return found


def _joined_model(path: Path) -> bytes:
    """Return a model file of two memory banks, with a history."""
    from tests.old_models import SIZE, picture, tiny_graph

    from totalrecall import JoinedPatchCore
    from totalrecall.backbones import Backbone

    backbone = Backbone.from_onnx(tiny_graph())
    made = JoinedPatchCore(backbone=backbone, sizes=(SIZE, 48), layers=(1, 2), coreset=0.2, at_least=1, precision="f32")
    made.fit([picture(seed) for seed in range(12)])
    made.update(add=[picture(13, stain=True)])
    made.update(false_alarm_rate=0.2)
    return made.save(path).read_bytes()


def main() -> int:
    """Make, open and count; list the faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="of models, and of graphs (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", metavar="DIR", help="keep the files that a fault came of there")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _serve()
        return 0
    bases = base_models()
    faults = 0
    for what, mutants in (
        ("models", mutated_models(bases, args.count, args.seed)),
        ("graphs", mutated_graphs(bases[1], args.count, args.seed)),
    ):
        faults += run(what, mutants, args.keep)
    return 1 if faults else 0


def run(what: str, mutants: Iterator[Mutant], keep: str | None = None) -> int:
    """Open mutants, print the count of each outcome and every fault; returns how many faults."""
    began, counts, faults = time.perf_counter(), collections.Counter[str](), 0
    with tempfile.TemporaryDirectory() as scratch:
        checker, path = Checker(Path(scratch)), Path(scratch) / "m.trecall"
        for number, (how, data) in enumerate(mutants):
            path.write_bytes(data)
            outcome = checker.check(path)
            counts[outcome.kind] += 1
            if outcome.fault:
                faults += 1
                print(f"{what} {number} ({how}): {outcome.kind}: {outcome.detail}", flush=True)
                if keep:
                    Path(keep).mkdir(parents=True, exist_ok=True)
                    (Path(keep) / f"{what}-{number}.trecall").write_bytes(data)
            elif outcome.kind == "told":
                print(f"{what} {number} ({how}): told: {outcome.detail}", flush=True)
        checker.close()
    print(f"{what}: {dict(counts)}, {faults} faults, {time.perf_counter() - began:.0f} s", flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(main())
