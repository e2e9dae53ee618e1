"""The stated false-alarm rate and the realised one: random splits of real good pictures, fitted and judged anew each.

    python -m benchmarks.calibration --set mtd --fit 30 --splits 20 --out FOLDER [--jobs 1]

Of a set's good pictures so many are fitted on, all others and all defective ones are judged. For each stated rate the
table gives the mean of the realised rates with its spread over splits, the share of defects found, and two 95 %
intervals of the realised rate: the binomial one of a single split's test, and that of the mean over all splits where
calibration, too, is drawn anew (ranks follow a Beta law). Each split is a line of a JSON file, so a run that was
stopped goes on; `--jobs` splits run at once, each in a process with its share of the cores. `allowed` is the stated
rate; in rows of before 25 November 2026 the rank's below it.

The answer that is asserted, for rates that ranks can tell of: the mean is above the stated rate by no more than both
intervals allow. Below it more is allowed, by the wider one, because banks without a fold make the rate a little lower
(see docs/why/thresholds-appendix.md).
"""

import argparse
import json
import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import open_real_set, record
from totalrecall import PatchCore

_RATES = (0.01, 0.05, 0.1)


def main() -> None:
    """Run the splits that are not done yet, then print and record the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("mtd", "bottle", "tire", "metal_plate"), default="mtd")
    parser.add_argument("--fit", type=int, default=30, help="good pictures to fit on")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--folds", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=1, help="splits at once")
    parser.add_argument("--out", type=Path, default=Path("/tmp/totalrecall-calibration"))
    args = parser.parse_args()
    good, bad = pictures_of(args.set)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"{args.set}-{args.fit}-{args.folds or 'auto'}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for line in _lines(args, good, bad, range(len(lines), args.splits)):
        lines.append(line)
        with file.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(f"split {len(lines)} of {args.splits}", flush=True)
    record("calibration", [_row(args, lines, rate) for rate in _RATES])


def _lines(args: argparse.Namespace, good: list[Path], bad: list[Path], splits: range) -> Iterator[dict[str, object]]:
    """Yield the line of each split, in order."""
    if args.jobs == 1:
        for split in splits:
            yield _split(good, bad, args.fit, args.folds, split)
        return
    context = multiprocessing.get_context("spawn")  # a fork would share the engine's threads
    numbers = context.Queue()
    for job in range(args.jobs):
        numbers.put(job)
    with ProcessPoolExecutor(args.jobs, context, _keep_to_its_cores, (numbers, args.jobs)) as pool:
        waiting = [pool.submit(_split, good, bad, args.fit, args.folds, split) for split in splits]
        for one in waiting:
            yield one.result()


def _keep_to_its_cores(numbers: "multiprocessing.Queue[int]", jobs: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[numbers.get() :: jobs])


def pictures_of(name: str) -> tuple[list[Path], list[Path]]:
    """Return the good and the defective pictures of a set, whatever its own split."""
    samples = open_real_set(name).samples
    return [one.path for one in samples if not one.label], [one.path for one in samples if one.label]


def _split(good: list[Path], bad: list[Path], count: int, folds: int | None, split: int) -> dict[str, object]:
    order = np.random.default_rng(split).permutation(len(good))
    detector = PatchCore(folds=folds, seed=split).fit([good[at] for at in order[:count]])
    fine = detector.score([good[at] for at in order[count:]])
    broken = detector.score(bad)
    calibration = detector.calibration_
    found: dict[str, object] = {"n": len(calibration.scores), "test": len(fine)}
    for rate in _RATES:
        one = replace(calibration, rate=rate)
        found[f"{rate:g}"] = {
            "realised": float((fine > one.threshold).mean()),
            "found": float((broken > one.threshold).mean()),
            "estimated": one.estimated,
            "interval": one.interval,
        }
    return found


def _row(args: argparse.Namespace, lines: list[dict], rate: float) -> dict[str, object]:
    """Return a stated rate's line of the table."""
    n, test = lines[0]["n"], lines[0]["test"]
    cells = [line[f"{rate:g}"] for line in lines]
    realised = np.array([cell["realised"] for cell in cells])
    estimated = cells[0]["estimated"]
    one = 1.96 * math.sqrt(rate * (1 - rate) / test)
    between = rate * (1 - rate) * (1 / (n + 2) + 1 / test)  # of Beta(r, n + 1 - r), and of the test's draw
    all_splits = 1.96 * math.sqrt(between / len(lines))
    mean = float(realised.mean())
    if not estimated:
        asserted = rate - max(one, 1.5 * all_splits) <= mean <= rate + min(one, 1.5 * all_splits)
        assert asserted, f"{mean:.4f} of good pictures called anomalous, {rate:.4f} stated"
    return {
        "set": args.set,
        "fitted_on": args.fit,
        "folds": args.folds or "auto",
        "splits": len(lines),
        "tested_good": test,
        "stated": rate,
        "allowed": rate,
        "estimated": estimated,
        "realised_mean": round(mean, 4),
        "realised_sd": round(float(realised.std(ddof=1)), 4) if len(lines) > 1 else math.nan,
        "binomial_95": f"{max(rate - one, 0):.4f} to {rate + one:.4f}",
        "mean_95": f"{max(rate - all_splits, 0):.4f} to {rate + all_splits:.4f}",
        "defects_found": round(float(np.mean([cell["found"] for cell in cells])), 4),
    }


if __name__ == "__main__":
    main()
