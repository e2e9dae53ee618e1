"""How good pictures that teach the score what is usual are scored themselves: four ways, and their false alarms.

    python -m benchmarks.usual --drawn
    python -m benchmarks.usual --set mtd --fit 30 --out FOLDER

The score `extent` counts twelve means in standard deviations of good pictures, and the same pictures set the threshold.
Ways: `together` scores each by mean and deviation of all; `widened` widens these standard scores by the root of
(n + 1) / (n - 3), the rule until 29 November 2026; `deviations` takes mean and deviation of the others and compares in
deviations; `distances` takes the same and compares in the unit of distances, which is the program's.

`--drawn` draws the twelve means from known distributions. `--set` takes those of real good pictures that no bank knows:
of 20 fits on so many pictures, all other good ones are measured, and of these so many are drawn 40 times as if they set
the threshold; the rest is new. Measurements are kept in FOLDER. `known` takes mean and deviation from all good ones, so
only the draw's chance and the tail are left.

The answer that is asserted: by `distances` the realised rate is not over the stated one by more than chance, wherever
ranks can tell, and nearer to that of `known` than by `widened` on average.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.calibration import pictures_of
from benchmarks.common import record
from totalrecall import PatchCore
from totalrecall.calibration import Calibration
from totalrecall.detectors.extents import HUNDREDTH, SHARES, SMOOTHINGS, place_of, profile_of
from totalrecall.patchcore.fitting import learn
from totalrecall.patchcore.judge import Judge

_RATES = (0.01, 0.05, 0.1)
_MEANS = len(SMOOTHINGS) * len(SHARES)
_SPLITS, _DRAWS, _NEW = 20, 40, 400
_COUNTS = {12: 2000, 30: 2000, 100: 600}  # pictures: draws
Scores = tuple[np.ndarray, np.ndarray, np.ndarray]  # of good pictures, new good ones and defective ones


def main() -> None:
    """Measure what is not measured yet, then print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawn", action="store_true")
    parser.add_argument("--set", choices=("mtd", "bottle", "tire", "metal_plate"))
    parser.add_argument("--fit", type=int, default=30, help="good pictures to fit on, and to draw")
    parser.add_argument("--draw", type=int, help="pictures to draw, if not as many as were fitted on")
    parser.add_argument("--out", type=Path, default=Path("/tmp/totalrecall-usual"))
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    if args.drawn:
        for law, draw in LAWS.items():
            for count, draws in _COUNTS.items():
                rng = np.random.default_rng(0)
                drawn = (np.split(draw(rng, count + _NEW), [count]) for _ in range(draws))
                rows += _rows(law, count, ((good, new, new[:0]) for good, new in drawn))
    if args.set:
        args.out.mkdir(parents=True, exist_ok=True)
        rows += _rows(f"{args.set}{args.fit}", args.draw or args.fit, _drawn_pictures(args))
    record("usual", rows)
    _assert(rows)


def _rows(name: str, count: int, draws: Iterator[Scores]) -> list[dict[str, object]]:
    realised: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for good, new, bad in draws:
        for way, scored in WAYS.items():
            own, fresh, broken = scored(good, new, bad)
            for rate in _RATES:
                threshold = Calibration(own, own, rate).threshold
                found = float((broken > threshold).mean()) if len(broken) else math.nan
                realised.setdefault((way, rate), []).append((float((fresh > threshold).mean()), found))
    rows = []
    for (way, rate), shares in realised.items():
        alarms, found = np.array(shares).T
        error = float(alarms.std(ddof=1)) / math.sqrt(len(alarms))
        figures = {"alarms": float(alarms.mean()), "alarms_error": error, "found": float(found.mean())}
        shown = {column: round(100 * figure, 2) for column, figure in figures.items()}
        rows.append({"of": name, "drawn": count, "draws": len(alarms), "rate": rate, "way": way, **shown})
    return rows


def _assert(rows: list[dict[str, object]]) -> None:
    alarms = {(row["of"], row["drawn"], row["rate"], row["way"]): float(str(row["alarms"])) for row in rows}
    apart: dict[str, list[float]] = {"widened": [], "distances": []}
    for row in rows:
        rate, drawn = float(str(row["rate"])), int(str(row["drawn"]))
        if rate * (drawn + 1) < 1 and drawn >= 15:
            continue  # an estimate
        key = row["of"], row["drawn"], row["rate"]
        if row["way"] == "distances":
            # real pictures are drawn from the same few again and again, so their error is larger than it seems
            most = 105 * max(rate, 1 / (drawn + 1)) + 4 * float(str(row["alarms_error"]))
            assert alarms[(*key, "distances")] <= most, row
        if row["way"] in apart:
            apart[str(row["way"])].append(abs(alarms[(*key, row["way"])] - alarms[(*key, "known")]))
    assert np.mean(apart["distances"]) < np.mean(apart["widened"]), apart


# ---------------------------------------------------------------------- the ways


def _usual(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return profiles.mean(axis=0), profiles.std(axis=0, ddof=1)


def _standard(profiles: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    return np.asarray(((profiles - means) / deviations).max(axis=1))


def _distance(standard: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    return np.asarray(means[HUNDREDTH] + deviations[HUNDREDTH] * standard)


def _together(good: np.ndarray, new: np.ndarray, bad: np.ndarray) -> Scores:
    usual = _usual(good)
    return _standard(good, *usual), _standard(new, *usual), _standard(bad, *usual)


def _widened(good: np.ndarray, new: np.ndarray, bad: np.ndarray) -> Scores:
    own, fresh, broken = _together(good, new, bad)
    return math.sqrt((len(good) + 1) / (len(good) - 3)) * own, fresh, broken


def _known(good: np.ndarray, new: np.ndarray, bad: np.ndarray) -> Scores:
    usual = _usual(np.concatenate([good, new]))
    return _standard(good, *usual), _standard(new, *usual), _standard(bad, *usual)


def _by_others(good: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]]:
    for at in range(len(good)):
        yield good[at : at + 1], _usual(np.delete(good, at, axis=0))


def _in_deviations(good: np.ndarray, new: np.ndarray, bad: np.ndarray) -> Scores:
    own = np.concatenate([_standard(one, *usual) for one, usual in _by_others(good)])
    return own, *_together(good, new, bad)[1:]


def _in_distances(good: np.ndarray, new: np.ndarray, bad: np.ndarray) -> Scores:
    own = np.concatenate([_distance(_standard(one, *usual), *usual) for one, usual in _by_others(good)])
    usual = _usual(good)
    fresh, broken = (_distance(_standard(part, *usual), *usual) for part in (new, bad))
    return own, fresh, broken


WAYS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Scores]] = {
    "together": _together,
    "widened": _widened,
    "deviations": _in_deviations,
    "distances": _in_distances,
    "known": _known,
}


# ---------------------------------------------------------------------- known distributions


def _shared(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return normal values (count, 12) that correlate by 0.7."""
    one, each = rng.standard_normal((count, 1)), rng.standard_normal((count, _MEANS))
    return np.asarray(math.sqrt(0.7) * one + math.sqrt(0.3) * each)


def _with_odd(rng: np.random.Generator, count: int) -> np.ndarray:
    odd = (rng.random((count, 1)) < 0.05) * rng.standard_exponential((count, 1)) * rng.random((count, _MEANS))
    return 5 + 0.5 * _shared(rng, count) + 5 * odd


LAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal, independent": lambda rng, count: 5 + 0.5 * rng.standard_normal((count, _MEANS)),
    "normal, correlation 0.7": lambda rng, count: 5 + 0.5 * _shared(rng, count),
    "exponential, independent": lambda rng, count: 5 + 0.5 * rng.standard_exponential((count, _MEANS)),
    "log-normal, correlation 0.7": lambda rng, count: 5 + 0.5 * np.exp(0.8 * _shared(rng, count)),
    "one in twenty odd": _with_odd,
}


# ---------------------------------------------------------------------- real pictures


def _drawn_pictures(args: argparse.Namespace) -> Iterator[Scores]:
    """Yield draws of the good pictures that a fit does not know: so many, the rest, and the defective ones."""
    rng, count = np.random.default_rng(1), args.draw or args.fit
    for split in range(_SPLITS):
        file = args.out / f"{args.set}-{args.fit}-{split}.npz"
        if not file.exists():
            new, bad = _profiles(args.set, args.fit, split)
            np.savez(file, new=new, bad=bad)
            print(f"split {split + 1} of {_SPLITS}", flush=True)
        with np.load(file) as stored:
            new, bad = stored["new"], stored["bad"]
        for _ in range(_DRAWS):
            order = rng.permutation(len(new))
            yield new[order[:count]], new[order[count:]], bad


def _profiles(name: str, count: int, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the twelve means of the good pictures that are not fitted on, (m, 12), and of the defective ones."""
    good, bad = pictures_of(name)
    order = np.random.default_rng(split).permutation(len(good))
    detector = PatchCore(seed=split)
    learnt, _ = learn(detector.extractor, detector.settings, [good[at] for at in order[:count]])
    sigma = Judge(detector.settings, detector.recipe).sigma(learnt.grid[0])
    sums = np.zeros(learnt.grid)
    for fold in learnt.folds:
        bank = learnt.bank(learnt.choose(without=fold))
        for seen in learnt.reread(fold):
            sums += bank.nearest(seen.patches, 1)[0].reshape(learnt.grid)
    place = place_of(sums, np.full(learnt.grid, count), pictures=count, sigma=sigma)
    bank, cells = learnt.bank(learnt.choose()), np.argwhere(np.ones(learnt.grid, bool))
    sources = [*(good[at] for at in order[count:]), *bad]
    grids = (grid[0].reshape(-1, grid.shape[3]) for _, grid in detector.extractor.stream(sources) if grid is not None)
    searched = (bank.nearest(patches, 1)[0].reshape(learnt.grid) for patches in grids)
    found = np.stack([profile_of(grid / place, cells, sigma) for grid in searched])
    return found[: len(good) - count], found[len(good) - count :]


if __name__ == "__main__":
    main()
