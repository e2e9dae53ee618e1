"""What fits and predictions on a cluster cost by picture and patch: the constants of `totalrecall.cluster.cost`.

    python -m benchmarks.cluster_cost [--folder DIR] [--busy]      measure what is not measured yet, check, record
    python -m benchmarks.cluster_cost --page                       only write the tables of docs/why/scale.md anew

Small runs with one worker, on magnetic tiles, give the constants: fits of 50 to 200 tiles with banks of 500 to 2,000
vectors, predictions of 100 to 1,000 pictures. Then a fit of 400 tiles and a prediction of 2,000 pictures, with two
workers and a bank of 4,096 vectors, are foretold and made: neither was part of what the constants are from. The clock
and the processor seconds must be within 25 percent of what was foretold, and so must the memory of each process.
Each run is a command of its own under a meter, and is kept in a folder of DIR (the temporary one) until all are made,
so that the same command goes on where it ended.
A virtual machine may get half as much done in one second as in the next. So the meter also does the same small piece of
work five times a second, and notes the processor seconds that it takes: the pace. Prices are those at the median pace
of the runs they are from, and what is foretold of a run counts for the pace that the machine had during it.
--busy notes that other programs ran at the time: then only the processor seconds and the memory are held to.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import machine, open_real_set, record, versions
from benchmarks.scale_page import CONSTANTS, write_page
from totalrecall.cluster.cost import ROLES, Constants, Cost, Job, Run, cost_of, fit_job, learned, predict_job
from totalrecall.system.files import atomic_write

WITHIN = 0.25
_EVERY = 0.2  # seconds between two looks at the processes
_TURNS = 20_000  # of the piece of work that tells the pace: some 2 ms
_TINY = 1e-6  # share of a coreset, so that --at-least alone says how many vectors there are


@dataclass(frozen=True)
class Trial:
    """One run to make.

    Attributes:
        name: of the file that keeps it.
        kind: `fit` or `predict`.
        pictures: of it.
        vectors: of the bank; a prediction takes the model of the fit that `model` names.
        workers: that do it.
        model: name of a trial.
    """

    name: str
    kind: str
    pictures: int
    vectors: int
    workers: int = 1
    model: str = ""

    @property
    def job(self) -> Job:
        """What it is, counted."""
        if self.kind == "fit":
            return fit_job(self.pictures, coreset=_TINY, at_least=self.vectors)
        return predict_job(self.pictures, self.vectors)


@dataclass(frozen=True)
class Metered:
    """What a run took.

    Attributes:
        run: its seconds and bytes, as they were counted.
        pace: processor seconds that the same small piece of work took, the mean over the run.
    """

    run: Run
    pace: float


LEARNED = (  # in an order that a drift of the machine's speed does not take for the size of the job
    Trial("fit-200-500", "fit", 200, 500),
    Trial("fit-50-2000", "fit", 50, 2000),
    Trial("predict-1000-500", "predict", 1000, 500, model="fit-200-500"),
    Trial("fit-200-2000", "fit", 200, 2000),
    Trial("predict-400-2000", "predict", 400, 2000, model="fit-200-2000"),
    Trial("fit-50-500", "fit", 50, 500),
    Trial("predict-100-500", "predict", 100, 500, model="fit-200-500"),
    Trial("fit-100-1000", "fit", 100, 1000),
)
CHECKED = (
    Trial("fit-400-4096", "fit", 400, 4096, workers=2),
    Trial("predict-2000-4096", "predict", 2000, 4096, workers=2, model="fit-400-4096"),
)


def main(arguments: Sequence[str]) -> None:
    """Measure, check, record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        sys.exit(_metered(Path(args.child[0]), args.child[1:]))
    if not args.page:
        _measure(args.folder / "totalrecall-cluster-cost", busy=args.busy)
    print(f"wrote {write_page()}")


def _measure(folder: Path, *, busy: bool) -> None:
    """Make the runs that are left; learn, foretell, compare, record."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [_made(trial, folder) for trial in LEARNED]
    usual = statistics.median(metered.pace for metered in made)
    constants = learned([_as_if(metered.run, usual / metered.pace) for metered in made])
    rows = [
        _row(trial, metered, _foretold(trial, constants), usual, busy=busy, checked=False)
        for trial, metered in zip(LEARNED, made, strict=True)
    ]
    for trial in CHECKED:
        foretold = _foretold(trial, constants)  # before it is made
        rows.append(_row(trial, _made(trial, folder), foretold, usual, busy=busy, checked=True))
    record("cluster_cost", rows)
    stored = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(), "busy": busy}
    stored |= {"constants": constants.to_json(), "checks": rows[-len(CHECKED) :]}
    atomic_write(CONSTANTS, (json.dumps(stored, indent=1) + "\n").encode())
    shutil.rmtree(folder)  # the next time all is measured anew
    for row in rows[-len(CHECKED) :]:
        for name in ("processor_s", "worker_mb", "driver_mb", *(() if busy else ("clock_s",))):
            error = row[f"{name}_foretold"] / row[name] - 1  # type: ignore[operator]
            assert abs(error) <= WITHIN, f"{row['trial']}: {name} is off by {100 * error:.0f} %"


def _foretold(trial: Trial, constants: Constants) -> Cost:
    return cost_of(trial.job, constants, trial.workers, _cores())


def _as_if(run: Run, times: float) -> Run:
    """Return a run as if all of it had taken so many times as long."""
    processor = {
        step: {role: times * spent for role, spent in by_role.items()} for step, by_role in run.processor.items()
    }
    return replace(run, clock={step: times * spent for step, spent in run.clock.items()}, processor=processor)


def _row(trial: Trial, metered: Metered, cost: Cost, usual: float, *, busy: bool, checked: bool) -> dict[str, object]:
    run, slower = metered.run, metered.pace / usual
    spent = sum(sum(by_role.values()) for by_role in run.processor.values())
    row: dict[str, object] = {
        "trial": trial.name,
        "checked": checked,
        "busy": busy,
        "pictures": trial.pictures,
        "vectors": trial.vectors,
        "workers": trial.workers,
        "slower": slower,
        "clock_s": run.seconds,
        "clock_s_foretold": slower * cost.seconds,
        "processor_s": spent,
        "processor_s_foretold": slower * cost.processor_seconds,
    }
    for role in ("worker", "driver"):
        row[f"{role}_mb"] = run.memory[role] / 1e6
        row[f"{role}_mb_foretold"] = cost.memory[role] / 1e6
    for step in ("features", "coreset", "calibration", "scoring", "rest"):
        row[f"{step}_s"], row[f"{step}_s_foretold"] = run.clock.get(step, 0.0), slower * cost.clock.get(step, 0.0)
    return row


def _cores() -> int:
    return len(os.sched_getaffinity(0))


# ---------------------------------------------------------------------- a run


def _made(trial: Trial, folder: Path) -> Metered:
    """Return what a run took: as it was kept, or made now."""
    kept = folder / f"{trial.name}.json"
    if not kept.exists():
        model = folder / f"{trial.model or trial.name}.trecall"
        files = _pictures(trial.pictures, folder)
        options = ["--ray", "local", "--workers", str(trial.workers), "--quiet"]
        if trial.kind == "fit":
            words = ["fit", *files, "-o", str(model), "--coreset", str(_TINY), "--at-least", str(trial.vectors)]
        else:
            (folder / "results.parquet").unlink(missing_ok=True)
            shutil.rmtree(folder / "results.parquet.parts", ignore_errors=True)  # of a run that was ended
            words = ["predict", str(model), *files, "-o", str(folder / "results.parquet")]
        began = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.cluster_cost", "--child", str(folder / "meter.json")]
        subprocess.run([*command, *words, *options], check=True, env={**os.environ, "RAY_worker_niceness": "0"})
        seconds = time.perf_counter() - began
        facts = json.loads((folder / "meter.json").read_bytes())
        _check(trial, model, folder)
        atomic_write(kept, json.dumps({**facts, "seconds": seconds}).encode())
    facts = json.loads(kept.read_bytes())
    return Metered(_run_of(trial, facts), facts["pace"])


def _run_of(trial: Trial, facts: Mapping[str, Any]) -> Run:
    clock, processor = dict(facts["clock"]), dict(facts["processor"])
    if trial.kind == "predict":  # its processor seconds cannot be told from those of its start
        processor = {"scoring": {role: sum(step.get(role, 0.0) for step in processor.values()) for role in ROLES}}
    clock["rest"] = facts["seconds"] - sum(clock.values())
    return Run(trial.job, trial.workers, _cores(), clock, processor, facts["memory"])


def _pictures(count: int, folder: Path) -> list[str]:
    """Return so many tiles; more than there are as links to them, which are pictures of their own to a prediction."""
    tiles = open_real_set("mtd").train
    if count <= len(tiles):
        return [str(path) for path in tiles[:count]]
    many = folder / f"many-{count}"
    many.mkdir(exist_ok=True)
    for at in range(count):
        link = many / f"{at:06}{tiles[at % len(tiles)].suffix}"
        if not link.exists():
            link.symlink_to(tiles[at % len(tiles)].resolve())
    return [str(many)]


def _check(trial: Trial, model: Path, folder: Path) -> None:
    """Fail unless the run did what it says."""
    from totalrecall import load_detector

    if trial.kind == "fit":
        vectors = len(load_detector(model).bank_.vectors)
        assert vectors == trial.vectors, vectors
        return
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(folder / "results.parquet")
    assert table.num_rows == trial.pictures
    assert table["error"].null_count == trial.pictures


# ---------------------------------------------------------------------- the meter, in the command's own process


class Meter(threading.Thread):
    """Counts the processor seconds and the memory of this process, of its workers and of Ray; takes the pace."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._own = psutil.Process()
        self._spent: dict[int, tuple[str, float]] = {}  # of each process that was seen, gone or not
        self._looking = 0.0  # seconds of this process that are the meter's
        self.paces: list[float] = []
        self.memory: dict[str, int] = dict.fromkeys(ROLES, 0)
        self._lock, self.ended = threading.Lock(), threading.Event()

    def run(self) -> None:
        """Look again and again: a process that ends is counted as it was last seen."""
        while not self.ended.wait(_EVERY):
            self.read()
            self._take_pace()

    def _take_pace(self) -> None:
        """Do the piece of work; waiting for a core or for the interpreter does not count."""
        began = time.thread_time()
        sum(turn * turn % 7 for turn in range(_TURNS))
        self.paces.append(time.thread_time() - began)
        with self._lock:
            self._looking += self.paces[-1]

    def read(self) -> dict[str, float]:
        """Return the processor seconds so far by role."""
        with self._lock:
            began = time.thread_time()
            for process in [self._own, *self._own.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):  # it has just ended
                    role = "driver" if process.pid == self._own.pid else _role(process.cmdline())
                    times, memory = process.cpu_times(), process.memory_info().rss
                    self._spent[process.pid] = (role, times.user + times.system)
                    self.memory[role] = max(self.memory[role], memory)
            seconds = {role: sum(spent for of, spent in self._spent.values() if of == role) for role in ROLES}
            seconds["driver"] -= self._looking
            self._looking += time.thread_time() - began
            return seconds


def _role(words: Sequence[str]) -> str:
    name = words[0] if words else ""
    return "worker" if name.startswith(("ray::Worker", "ray::_Worker")) else "ray"


def _metered(target: Path, words: Sequence[str]) -> int:
    """Run a command in this process; write what its steps took."""
    from totalrecall.cli import main as command
    from totalrecall.cluster import predicting
    from totalrecall.detectors.fit_report import FitReport

    meter = Meter()
    clock: dict[str, float] = {}
    processor: dict[str, dict[str, float]] = {}
    timing, judge = FitReport.timing, predicting.judge_parts

    @contextlib.contextmanager
    def step(name: str) -> Iterator[None]:
        before, began = meter.read(), time.perf_counter()
        yield
        clock[name] = clock.get(name, 0.0) + time.perf_counter() - began
        spent = processor.setdefault(name, dict.fromkeys(ROLES, 0.0))
        for role, seconds in meter.read().items():
            spent[role] += seconds - before[role]

    @contextlib.contextmanager
    def timed(report: FitReport, name: str) -> Iterator[None]:
        with timing(report, name), step(name):
            yield

    def judged(*given: Any, **named: Any) -> int:
        with step("scoring"):
            return judge(*given, **named)

    FitReport.timing, predicting.judge_parts = timed, judged  # type: ignore[method-assign,assignment]
    meter.start()
    code = command(list(words))
    meter.ended.set()
    processor["rest"] = {
        role: seconds - sum(spent[role] for spent in processor.values()) for role, seconds in meter.read().items()
    }
    facts = {"clock": clock, "processor": processor, "memory": meter.memory, "pace": statistics.fmean(meter.paces)}
    atomic_write(target, json.dumps(facts).encode())
    return code


if __name__ == "__main__":
    main(sys.argv[1:])
