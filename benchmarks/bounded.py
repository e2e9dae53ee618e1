"""A fit of many pictures under a limit of memory: what was announced against what it took.

    python -m benchmarks.bounded [PICTURES] [LIMIT]        1000 500MB if not given; the issue's is 20000 2GB
    python -m benchmarks.bounded 260 1.5GB pills           one part on a plain ground, 800 px fitted at 384

The pictures are made here: 256 px JPEGs of 40 synthetic boards, each shifted, lit and grained anew, so that no two
patches are the same; or PNGs of a speckled pill on a plain dark ground, of which few vectors of the bank cover most of
all pictures (what is covered by one that leaves the bank is copied while the threshold is calibrated). The fit runs as
a process of its own, as a person types it; its memory is the operating system's count, its scratch is looked up in the
file that it holds open. The answer that is asserted: the bank has the size asked for, and every patch of a sample of
pictures lies within the radius that the fit states.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import record
from totalrecall import PatchCore
from totalrecall.demo.pictures import good
from totalrecall.pictures.files import find_pictures
from totalrecall.pictures.loading import spread
from totalrecall.system.text import parse_size

PICTURES, LIMIT = 1000, "500MB"
_SIDE, _SHIFT, _BOARDS = 256, 16, 40
_PILL_SIDE, _PILL_SIZE = 800, 384  # pixels of the picture, and prepared


def main(arguments: Sequence[str]) -> None:
    """Print and record."""
    count = int(arguments[0]) if arguments else PICTURES
    limit = arguments[1] if len(arguments) > 1 else LIMIT
    pills = arguments[2:] == ["pills"]
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as folder:
        pictures, model, scratch = Path(folder) / "good", Path(folder) / "m.trecall", Path(folder) / "scratch"
        pictures.mkdir()
        scratch.mkdir()
        (_paint_pills if pills else _paint)(pictures, count)
        options = ["--size", str(_PILL_SIZE)] if pills else []
        facts, seconds, peak, held = _fit(pictures, model, scratch, limit, options)
        assert not list(scratch.iterdir())
        assert facts["pictures"] == count
        assert facts["vectors"] == int(0.01 * facts["patches"])
        farthest = _farthest(model, find_pictures(pictures))
        assert farthest <= facts["radius"] * (1 + 1e-5), (farthest, facts["radius"])
    plan = facts["plan"]
    row = {
        "pictures": count,
        "limit_mb": parse_size(limit) / 1e6,
        "chunks": facts["chunks"],
        "patches": facts["patches"],
        "seconds": seconds,
        "peak_mb": peak / 1e6,
        "peak_announced_mb": plan["memory"] / 1e6,
        "scratch_mb": held / 1e6,
        "scratch_announced_mb": plan["scratch"] / 1e6,
        "features_s": facts["seconds"]["features"],
        "coreset_s": facts["seconds"]["coreset"],
        "calibration_s": facts["seconds"]["calibration"],
        "radius_stated": facts["radius"],
        "farthest_of_sample": farthest,
    }
    record("bounded_pills" if pills else "bounded", [row])
    assert peak <= (1.0 if pills else 1.15) * parse_size(limit), "more memory than allowed"
    assert held == plan["scratch"], "another scratch file than announced"


def _paint(folder: Path, count: int) -> None:
    size = _SIDE + 2 * _SHIFT
    boards = [good("board", np.random.default_rng([0, i]), (size, size)) for i in range(_BOARDS)]
    rng = np.random.default_rng(1)
    grain = rng.normal(0, 4, (8, 2 * _SIDE, 2 * _SIDE, 3)).astype(np.float32)
    for i in range(count):
        y, x = rng.integers(0, 2 * _SHIFT, 2)
        top, left = rng.integers(0, _SIDE, 2)
        picture = boards[i % _BOARDS][y : y + _SIDE, x : x + _SIDE] * rng.uniform(0.9, 1.1, 3).astype(np.float32)
        picture += grain[rng.integers(len(grain)), top : top + _SIDE, left : left + _SIDE]
        cv2.imwrite(str(folder / f"{i:05}.jpg"), np.clip(picture, 0, 255).astype(np.uint8)[:, :, ::-1])


def _paint_pills(folder: Path, count: int) -> None:
    rows, columns = np.mgrid[:_PILL_SIDE, :_PILL_SIDE].astype(np.float32) / _PILL_SIDE - 0.5
    for i in range(count):
        rng = np.random.default_rng([2, i])
        y, x = rng.uniform(-0.02, 0.02, 2)
        inside = ((rows - y) / 0.16) ** 2 + ((columns - x) / 0.36) ** 2 < 1
        speckles = cv2.GaussianBlur(rng.normal(0, 1, inside.shape).astype(np.float32), (0, 0), 3) > 0.2
        picture = np.where(inside, 215 - 70 * speckles, 18.0) + rng.normal(0, 1.5, inside.shape)
        cv2.imwrite(str(folder / f"{i:05}.png"), np.clip(picture, 0, 255).astype(np.uint8))


def _fit(
    pictures: Path, model: Path, scratch: Path, limit: str, options: Sequence[str]
) -> tuple[dict, float, int, int]:
    """Return what the fit reports, its seconds, its peak memory and its scratch file's largest size, both in bytes."""
    command = [sys.executable, "-m", "totalrecall", "fit", str(pictures), "-o", str(model), "--memory", limit, *options]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--json", "-"], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(scratch)}
    )
    sizes: list[int] = [0]
    watch = threading.Thread(target=_watch, args=(process.pid, scratch, sizes), daemon=True)
    watch.start()
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "the fit failed"
    return json.loads(out), seconds, usage.ru_maxrss * 1024, max(sizes)


def _watch(pid: int, scratch: Path, sizes: list[int]) -> None:
    """Note the sizes, together, of the files without a name that a process holds open in a folder."""
    folder = Path(f"/proc/{pid}/fd")
    while folder.exists():
        together = 0
        try:
            for link in folder.iterdir():
                if str(link.readlink()).startswith(str(scratch)):
                    together += link.stat().st_size
        except OSError:  # a file was closed meanwhile, or the process has ended
            pass
        sizes.append(together)
        time.sleep(0.05)


def _farthest(model: Path, pictures: Sequence[Path]) -> float:
    """Return the largest distance of a patch of a few pictures to the bank."""
    detector = PatchCore.load(model)
    patches = [
        grid.reshape(-1, grid.shape[3])
        for _, grid in detector.extractor.stream(spread(pictures, 20))
        if grid is not None
    ]
    return max(float(detector.bank_.nearest(one)[0].max()) for one in patches)


if __name__ == "__main__":
    main(sys.argv[1:])
