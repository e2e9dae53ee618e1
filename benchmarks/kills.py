"""Commands killed at random moments: is every file whole afterwards, the old one or the new one?

    python -m benchmarks.kills [KILLS]        200 if not given, over fit, predict, update, teach, audit and the report

On 40 small synthetic pictures and a random ResNet-18, so that a command takes seconds. Half of the kills (SIGKILL, at
seeded moments) fall near the end of a command, where it writes. Asserted after each: inputs and strangers' files are as
they were; every output that was there is the old one, byte for byte, or a new whole one; nothing half-written stands
under a final name; and at the end each command still runs.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import record, seconds_of

KILLS = 200
_PICTURES = 40


@dataclass(frozen=True)
class Case:
    """A command that is killed: its words, and how each file that it writes is found to be whole."""

    name: str
    words: Sequence[str]
    outputs: dict[str, Callable[[Path], object]]


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "kills", nargs="?", type=int, default=KILLS, metavar="KILLS", help="in all (default %(default)s)"
    )
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary:
        folder = Path(temporary)
        os.environ["TOTALRECALL_HOME"] = str(folder / "home")
        _prepare(folder)
        cases = _cases()
        rng = np.random.default_rng(0)
        rows = [
            _kill(case, folder, kills // len(cases) + (at < kills % len(cases)), rng) for at, case in enumerate(cases)
        ]
    record("kills", rows)
    assert not any(row["broken"] for row in rows)


def _prepare(folder: Path) -> None:
    """Make pictures, a backbone and a model; what every case begins with."""
    from safetensors.numpy import save_file
    from tests.resnet_forward import random_weights

    from totalrecall.backbones import add
    from totalrecall.cli import main as totalrecall
    from totalrecall.demo.pictures import make_dataset

    save_file(random_weights("resnet18"), str(folder / "tiny.safetensors"))
    add("resnet18", folder / "tiny.safetensors", save_as="tiny")
    start = folder / "start"
    make_dataset(start / "in", kind="washer", good=_PICTURES, test_good=20, defective=20, seed=0, size=(80, 96))
    fit = ["fit", str(start / "in"), "--layout", "mvtec", "-o", str(start / "m.trecall"), *_SMALL, "--quiet"]
    assert totalrecall(fit) == 0
    (start / "out" / "maps").mkdir(parents=True)
    for name in ("r.jsonl", "r.csv", "r.html", "facts.json", "maps/stranger.png"):
        (start / "out" / name).write_text("old")


_SMALL = ("--backbone", "tiny", "--size", "64", "--coreset", "0.1", "--at-least", "1", "--precision", "f32")


def _cases() -> list[Case]:
    maps = {"out/maps": _pictures_whole}
    lines = {"out/r.jsonl": _lines_whole, "out/r.csv": _rows_whole}
    model, facts = {"m.trecall": _model_whole}, {"out/facts.json": _json_whole}
    predict = ("predict", "m.trecall", "in/test")
    told = ("--json", "out/facts.json")
    fit = ("fit", "in", "--layout", "mvtec", "-o", "m.trecall", *_SMALL, *told)
    audit = ("audit", "in/train", "--backbone", "tiny", "--size", "64", "-o", "out", *told)
    sheet = {"out/audit.html": _page_whole, "out/audit.png": _picture_whole}
    return [
        Case("fit", fit, {**model, **facts}),
        Case("predict lines", (*predict, "--json", "out/r.jsonl", "--csv", "out/r.csv"), lines),
        Case("predict heat maps", (*predict, "--heatmaps", "out/maps"), maps),
        Case("predict monitor", (*predict, "--monitor", "line.monitor"), {"line.monitor": _json_whole}),
        Case("predict report", (*predict, "--report", "out/r.html"), {"out/r.html": _page_whole}),
        Case("update", ("update", "m.trecall", "--add", "in/test/good", *told), {**model, **facts}),
        Case("teach", ("teach", "m.trecall", "--defect", "in/test", "--apply", *told), {**model, **facts}),
        Case("audit", audit, {**sheet, **facts}),
    ]


def _kill(case: Case, folder: Path, kills: int, rng: np.random.Generator) -> dict[str, object]:
    start, place = folder / "start", folder / "place"
    command = [sys.executable, "-m", "totalrecall", *case.words, "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    spent = []
    for _ in range(3):
        _fresh(start, place)
        spent.append(seconds_of(lambda: subprocess.run(command, cwd=place, env=environment, check=True, **quiet)))
    whole, before = float(np.median(spent)), _hashes(start)
    count = dict.fromkeys(("had_finished", "left_old", "left_new", "broken", "litter"), 0)
    for turn in range(kills):
        _fresh(start, place)
        process = subprocess.Popen(command, cwd=place, env=environment, **quiet)
        time.sleep(whole * (rng.uniform() if turn % 2 else rng.uniform(0.8, 1.05)))
        count["had_finished"] += process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = _hashes(place)
        bad = _broken(case, place, before, after)
        for line in bad:
            print(f"{case.name}, kill {turn}: {line}", flush=True)
        count["broken"] += bool(bad)
        count["litter"] += any(name.endswith(".part") for name in after)
        new = {name for name in after if after[name] != before.get(name) and not name.endswith(".part")}
        count["left_new" if new else "left_old"] += 1
    subprocess.run(
        command, cwd=place, env=environment, check=False, **quiet
    )  # goes on from whatever the last kill left
    broken = _broken(case, place, before, _hashes(place))
    count["broken"] += bool(broken)
    return {"command": case.name, "kills": kills, "seconds": whole, **count}


def _fresh(start: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(start, place)


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _broken(case: Case, place: Path, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return what is not as it must be."""
    found = [f"{name} has gone" for name in before if name not in after]
    for name, digest in after.items():
        if before.get(name) == digest or name.endswith(".part"):
            continue
        kind = next((kind for kind in case.outputs if name == kind or name.startswith(f"{kind}/")), None)
        if kind is None or name == "out/maps/stranger.png":
            found.append(f"{name} is none of its outputs, and changed")
            continue
        try:
            case.outputs[kind](place / name)
        except (AssertionError, ValueError, OSError, KeyError) as error:
            found.append(f"{name} is not whole: {error}")
    return found


def _model_whole(path: Path) -> None:
    from totalrecall.errors import TotalRecallError
    from totalrecall.registry import load_detector

    try:
        load_detector(str(path))  # refuses a damaged file
    except TotalRecallError as error:
        raise AssertionError(str(error)) from None


def _json_whole(path: Path) -> None:
    json.loads(path.read_bytes())


def _lines_whole(path: Path) -> None:
    assert len([json.loads(line) for line in path.read_bytes().splitlines()]) == 40


def _rows_whole(path: Path) -> None:
    with path.open(newline="") as file:
        assert [len(row) for row in csv.reader(file)] == [10] * 41


def _page_whole(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


def _picture_whole(path: Path) -> None:
    data = path.read_bytes()
    assert data.endswith(b"IEND\xaeB`\x82")
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None


def _pictures_whole(path: Path) -> None:
    if path.suffix == ".png":  # the list beside them grows line by line
        _picture_whole(path)


if __name__ == "__main__":
    main()
