"""How many files, functions and switches between files does a command take? The fewer, the easier it is to follow.

    python -m benchmarks.hops

Counts with `sys.setprofile` in the main thread, our own functions only, from the moment that a command's own `run`
begins, while pictures of the size of a bottle's, drawn by the program, go through `predict`, `fit` and `update --add`
at 128 pixels. Left out are class bodies, comprehensions, lambdas, and whatever an import runs: these prepare a module
and are no step of the command. A switch is a call of a function that stands in another file than the function called
before it. Modules are those of ours that are loaded when the command is done. Results go to results/hops.csv; until
28 November 2026 class bodies with more than one capital letter, and what imports run, were counted by mistake.
"""

import inspect
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

TRIPS = ("predict, warm", "predict, cold", "fit", "update --add")
_LEFT_OUT = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<lambda>")


def _prepares_a_module(frame: FrameType, root: str) -> bool:
    """Tell whether a call is the body of a module or a class, or is made while a module of ours is imported."""
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return True
    above = frame.f_back
    while above is not None and not (above.f_code.co_name == "<module>" and above.f_code.co_filename.startswith(root)):
        above = above.f_back
    return above is not None


class Meter:
    """Counts files, functions, calls and switches of our own code while it is on."""

    def __init__(self, root: Path, *, from_run: bool) -> None:
        self.root = str(root)
        self._begun = not from_run
        self._last = ""
        self.functions: set[tuple[str, str]] = set()
        self.calls = self.switches = 0

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(self.root) or _prepares_a_module(frame, self.root):
            return
        self._begun = self._begun or (code.co_name == "run" and Path(code.co_filename).parent.name == "cli")
        if not self._begun:
            return
        name = code.co_qualname if hasattr(code, "co_qualname") else code.co_name
        if code.co_name in _LEFT_OUT:
            return
        self.calls += 1
        self.functions.add((code.co_filename, name))
        self.switches += self._last not in ("", code.co_filename)
        self._last = code.co_filename

    def count(self, work: Callable[[], object]) -> dict[str, int]:
        """Run a piece of work and return what it took."""
        sys.setprofile(self._see)
        try:
            work()
        finally:
            sys.setprofile(None)
        modules = sum(name == "totalrecall" or name.startswith("totalrecall.") for name in sys.modules)
        files = len({file for file, _ in self.functions})
        return {
            "files": files,
            "functions": len(self.functions),
            "calls": self.calls,
            "switches": self.switches,
            "modules": modules,
        }


def _trip(name: str, folder: Path) -> dict[str, int]:
    """Measure one trip in this process, which must be a fresh one."""
    import totalrecall
    from totalrecall.cli import main

    meter = Meter(Path(totalrecall.__file__).parent, from_run=name != "predict, warm")
    model, picture = str(folder / "model.trecall"), str(folder / "new" / "0.png")
    quiet = ["--quiet", "--json", str(folder / "out.json")]
    if name == "predict, warm":
        detector = totalrecall.load_detector(model)
        detector.predict(picture)
        return meter.count(lambda: detector.predict(picture))
    if name == "predict, cold":
        return meter.count(lambda: main(["predict", model, picture, *quiet]))
    if name == "fit":
        fit = ["fit", str(folder / "good"), "-o", str(folder / "other.trecall"), "--size", "128"]
        return meter.count(lambda: main([*fit, *quiet]))
    return meter.count(lambda: main(["update", model, "--add", picture, *quiet]))


def _prepare(folder: Path) -> None:
    """Draw the pictures and fit the model."""
    import cv2
    import numpy as np

    import totalrecall

    rng = np.random.default_rng(0)
    for part, count in (("good", 10), ("new", 1)):
        (folder / part).mkdir()
        for at in range(count):
            picture = cv2.resize(
                rng.integers(60, 200, (32, 32, 3), np.uint8), (288, 288), interpolation=cv2.INTER_CUBIC
            )
            cv2.imwrite(str(folder / part / f"{at}.png"), picture)
    totalrecall.PatchCore(size=128).fit(str(folder / "good")).save(folder / "model.trecall")


def main() -> int:
    """Measure each trip in a process of its own and note the results."""
    if len(sys.argv) == 3:
        print(json.dumps(_trip(sys.argv[1], Path(sys.argv[2]))))
        return 0
    from benchmarks.common import record

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        for trip in TRIPS:  # `update` comes last: it changes the model
            command = [sys.executable, "-m", "benchmarks.hops", trip, name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append({"trip": trip, **json.loads(done.stdout.splitlines()[-1])})
    record("hops", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
