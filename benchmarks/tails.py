"""Would another estimate of the tail depend less on one odd good picture, and still keep the stated rate?

    python -m benchmarks.scores --sets mtd761 tire bottle --out FOLDER
    python -m benchmarks.tails --out FOLDER

Of a set's leave-one-out scores (by `map1pct` and by `extent`, from the distances that `benchmarks.scores` has kept) so
many are drawn to set the threshold and the others to test it, 300 times. Columns, in percent: realised false alarms,
their standard deviation over the draws, and defects found. Rules: `program` is the program's own; `tail` is the fitted
tail where the program takes the higher of tail and highest score, `tail to rank 2` also where the rank is under two;
`tail of logarithms` fits the logarithms. The answer that is asserted: the program's mean is not over twice the rate.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.common import record
from benchmarks.scores import Distances, ideas
from totalrecall.calibration import Calibration, conformal_threshold, fit_tail

_SETS, _DRAWN, _DRAWS, _RATES = ("mtd761", "tire", "bottle"), (20, 40, 60, 100, 150), 300, (0.01, 0.05)
Rule = Callable[[np.ndarray, float], float]


def main() -> None:
    """Draw, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("/tmp/totalrecall-scores"))
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    for name in _SETS:
        with np.load(args.out / f"{name}.npz") as stored:
            distances = Distances(**{key: stored[key] for key in stored.files})
        scored = dict(ideas(distances))
        for idea in ("map1pct", "extent"):
            good, test = scored[idea]
            lowest = min(good.min(), test.min())  # logarithms need scores above 0; standard scores begin below it
            shift = 1 - lowest if lowest <= 0 else 0.0
            rows += _rows(name, idea, good + shift, test[distances.labels == 1] + shift)
    record("tails", rows)


def _rows(name: str, idea: str, good: np.ndarray, bad: np.ndarray) -> list[dict[str, object]]:
    rng, rows = np.random.default_rng(0), []
    for count in (drawn for drawn in _DRAWN if drawn <= 0.75 * len(good)):
        draws = [rng.permutation(len(good)) for _ in range(_DRAWS)]
        for rate in _RATES:
            for rule, threshold_of in RULES.items():
                alarms, found = [], []
                for order in draws:
                    threshold = threshold_of(good[order[:count]], rate)
                    alarms.append(float((good[order[count:]] > threshold).mean()))
                    found.append(float((bad > threshold).mean()))
                if rule == "program":
                    assert np.mean(alarms) <= 2 * rate + 2 / count, f"{np.mean(alarms):.3f} of {rate:g}"
                figures = (np.mean(alarms), np.std(alarms), np.mean(found))
                columns = zip(("alarms", "alarms_sd", "found"), figures, strict=True)
                shown = {column: round(100 * float(value), 2) for column, value in columns}
                rows.append({"set": name, "score": idea, "drawn": count, "rate": rate, "rule": rule, **shown})
    return rows


def _program(scores: np.ndarray, rate: float) -> float:
    return Calibration(scores, scores, rate).threshold


def _tail(rank: float) -> Rule:
    """Return the rule that takes the fitted tail where the rank of the rate is under this one."""

    def threshold(scores: np.ndarray, rate: float) -> float:
        tail = fit_tail(scores) if rate * (len(scores) + 1) < rank else None
        return conformal_threshold(scores, rate) if tail is None else tail.score(rate)

    return threshold


def _tail_of_logarithms(scores: np.ndarray, rate: float) -> float:
    return math.exp(_tail(1.0)(np.log(scores), rate))


RULES: dict[str, Rule] = {
    "program": _program,
    "tail": _tail(1.0),
    "tail to rank 2": _tail(2.0),
    "tail of logarithms": _tail_of_logarithms,
}

if __name__ == "__main__":
    main()
