"""Has a change of the code changed an answer? Scores a frozen set of pictures and compares every number to the bit.

    python -m benchmarks.replay --write before.json      # on the commit before
    python -m benchmarks.replay --compare before.json    # on the commit after, on the same machine

For each of five real sets (bottle, magnetic tiles, tire, cookie, metal plate) it fits on 20 good pictures and judges 20
others, 10 of them defective, in float32: PatchCore with three scorings, PaDiM and SPADE. It notes of each picture the
score, the threshold, the verdict, the sum of the anomaly map and the line that `predict --json` writes (without the
time), and of each model the SHA-256 of its file. Two processors may round differently, so compare on one machine only;
the file says which machine wrote it.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import totalrecall
from benchmarks.common import SHARED, machine, versions
from totalrecall.datasets import open_dataset

SETS = {
    "bottle": ("mvtec", "mvtec_ad/bottle"),
    "mtd": ("mtd", "mtd"),
    "tire": ("mvtec", "mvtec_3d_ad/tire"),
    "cookie": ("mvtec", "cookie/cookie"),
    "metal_plate": ("mvtec", "mpdd/metal_plate"),
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "patchcore": ("PatchCore", {}),
    "patchcore max": ("PatchCore", {"scoring": "max"}),
    "patchcore paper": ("PatchCore", {"scoring": "paper"}),
    "padim": ("PaDiM", {}),
    "spade": ("SPADE", {}),
}
_PICTURES = 20


def _spread(paths: list[Path], count: int) -> list[Path]:
    """Return pictures that lie evenly over a list."""
    return [paths[at] for at in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]


def _pictures(layout: str, folder: str) -> tuple[list[Path], list[Path]]:
    """Return the pictures to fit on and those to judge."""
    data = open_dataset(layout, SHARED / "data" / folder)
    good = [sample.path for sample in data.test if sample.label == 0]
    bad = [sample.path for sample in data.test if sample.label == 1]
    half = _PICTURES // 2
    return _spread(list(data.train), _PICTURES), _spread(good, half) + _spread(bad, half)


def _answers(kind: str, settings: dict[str, Any], train: list[Path], test: list[Path]) -> dict[str, Any]:
    """Fit one detector and return what it says of each picture, as JSON types."""
    detector = getattr(totalrecall, kind)(precision="f32", **settings).fit(train)
    rows = {}
    for path in test:
        result = detector.predict(path)
        line = result.to_json()
        line.pop("milliseconds")
        rows[f"{path.parent.name}/{path.name}"] = {
            "score": result.score.hex(),
            "threshold": float(result.threshold).hex(),
            "is_anomalous": result.is_anomalous,
            "map": float(result.anomaly_map.sum(dtype=np.float64)).hex(),
            "json": hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest(),
        }
    with tempfile.TemporaryDirectory() as folder:
        file = detector.save(Path(folder) / "model.trecall")
        return {"model": hashlib.sha256(file.read_bytes()).hexdigest(), "pictures": rows}


def replay(sets: list[str], methods: list[str]) -> dict[str, Any]:
    """Return all answers, by set and method."""
    answers: dict[str, Any] = {}
    for name in sets:
        train, test = _pictures(*SETS[name])
        for method in methods:
            print(f"{name}: {method}", file=sys.stderr, flush=True)
            kind, settings = METHODS[method]
            answers[f"{name}: {method}"] = _answers(kind, settings, train, test)
    return answers


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return one line for each value that differs, or that only one of the two has."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [f"{before} -> {after}"]
    lines = []
    for key in sorted({*before, *after}):
        if key not in before or key not in after:
            lines.append(f"{key}: only {'before' if key in before else 'after'}")
        else:
            lines += [f"{key}: {line}" for line in differences(before[key], after[key])]
    return lines


def main() -> int:
    """Write the answers, or compare them with those written before."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", metavar="FILE", help="write the answers of this code")
    what.add_argument("--compare", metavar="FILE", help="compare this code with the answers written before")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args = parser.parse_args()
    if args.write:
        answers = replay(args.sets, args.methods)
        text = json.dumps({"machine": machine(), "versions": versions(), "answers": answers}, indent=1)
        Path(args.write).write_text(text + "\n")
        return 0
    before = json.loads(Path(args.compare).read_text())
    if before["machine"] != machine():
        print(f"Written on {before['machine']}, this is {machine()}: roundings may differ.", file=sys.stderr)
    wanted = {f"{name}: {method}" for name in args.sets for method in args.methods}
    lines = differences(
        {key: value for key, value in before["answers"].items() if key in wanted}, replay(args.sets, args.methods)
    )
    print("\n".join(lines) or "Nothing differs.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
