"""The stated false-alarm rate on parts that were not there: magnetic tiles were photographed six times each.

    python -m benchmarks.new_parts --fit 300 --splits 6 --out FOLDER

Which photographs show the same tile is told by `same_part` (142 of the 156 that it finds have exactly six). Random
tiles with all their photographs are fitted on, so many pictures or a few more, once with folds of pictures and once
with folds of tiles (`new_parts`); all other tiles are judged. Each split is a line of a JSON file, so a run that was
stopped goes on. The answer that is asserted: with folds of tiles the mean is within twice its standard error of what
was stated, or under it; with folds of pictures it is over twice what was stated.
"""

import argparse
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.calibration import pictures_of
from benchmarks.common import record
from totalrecall import PatchCore
from totalrecall.features.patches import flatten_grid
from totalrecall.outliers.same_part import part_numbers, same_part, surface

_RATES = (0.01, 0.05, 0.1)


def main() -> None:
    """Run the splits that are not done yet, then print and record the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=int, default=300, help="good pictures to fit on, at least")
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("/tmp/totalrecall-new-parts"))
    args = parser.parse_args()
    good, bad = pictures_of("mtd")
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"{args.fit}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    parts = _parts(good)
    for split in range(len(lines), args.splits):
        lines.append(_split(good, parts, bad[::4], args.fit, split))
        with file.open("a") as out:
            out.write(json.dumps(lines[-1]) + "\n")
        print(f"split {len(lines)} of {args.splits}", flush=True)
    rows = [_row(args.fit, lines, by, rate) for by in ("pictures", "parts") for rate in _RATES]
    record("new_parts", rows)
    for row in rows:
        if row["folds_of"] == "parts":
            assert row["realised"] <= row["stated"] + 2 * row["standard_error"], row
        else:
            assert row["realised"] > 2 * row["stated"], row


def _parts(pictures: list[Path]) -> np.ndarray:
    """Return the number of the tile that each picture shows."""
    surfaces = []
    for _, grid in PatchCore(holdout=0.0).extractor.stream(pictures):
        assert grid is not None
        patches, cells = flatten_grid(grid, None)
        surfaces.append(surface(patches, cells, grid.shape[1:3]))
    return part_numbers(same_part(np.stack(surfaces)))


def _split(good: list[Path], parts: np.ndarray, bad: list[Path], count: int, split: int) -> dict[str, dict[str, float]]:
    """Fit on random tiles and judge the others, in both ways; return what was realised and found by way and rate."""
    order = np.random.default_rng(split).permutation(parts.max() + 1)
    taken = order[: int(np.searchsorted(np.cumsum(np.bincount(parts)[order]), count)) + 1]
    fitted = np.isin(parts, taken)
    found: dict[str, dict[str, float]] = {"counts": {"pictures": int(fitted.sum()), "parts": len(taken)}}
    for by in ("pictures", "parts"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of repeated parts, which are the subject here
            detector = PatchCore(seed=split, new_parts=by == "parts").fit([good[at] for at in np.flatnonzero(fitted)])
        if by == "pictures":  # the bank is the same, only the threshold differs
            fine, broken = detector.score([good[at] for at in np.flatnonzero(~fitted)]), detector.score(bad)
        for rate in _RATES:
            threshold = replace(detector.calibration_, rate=rate).threshold
            found[f"{by} {rate:g}"] = {
                "realised": float((fine > threshold).mean()),
                "found": float((broken > threshold).mean()),
            }
    return found


def _row(count: int, lines: list[dict[str, dict[str, float]]], by: str, rate: float) -> dict[str, object]:
    """Return a stated rate's line of the table."""
    realised = np.array([line[f"{by} {rate:g}"]["realised"] for line in lines])
    spread = float(realised.std(ddof=1))
    return {
        "set": "mtd",
        "fitted_on": count,
        "parts": float(np.mean([line["counts"]["parts"] for line in lines])),
        "folds_of": by,
        "splits": len(lines),
        "stated": rate,
        "realised": float(realised.mean()),
        "spread": spread,
        "standard_error": spread / math.sqrt(len(lines)),
        "found": float(np.mean([line[f"{by} {rate:g}"]["found"] for line in lines])),
    }


if __name__ == "__main__":
    main()
