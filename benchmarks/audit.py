"""Dirty pictures among the good ones: what the audit finds of them, and what leaving them out of the bank brings.

Defective pictures of each kind are planted among the good ones, none, 5 and 10 percent of all; the test is on the good
pictures set aside and the defective ones that were not planted. Given are the share of the planted that the ranking has
in its first tenth, and image AUROC of a bank of all, of one without the bad patches (`ignore_outliers`), and of one
without the planted pictures, which nobody could know. Asserted: a clean set loses at most 0.3 points.

    python -m benchmarks.audit [--data bottle mtd washer] [--seeds 0 1] [--shares 0 0.05 0.1] [--backbone compact]

Rows that results/audit.csv has already are not measured again, so an interrupted run can be taken up.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, SHARED, record
from totalrecall import PatchCore
from totalrecall.demo.pictures import defective, good
from totalrecall.evaluation.metrics import auroc
from totalrecall.outliers.explain import LeaveOneOutIndex, dirty_patches, explain, standing_out
from totalrecall.patchcore.coreset import greedy_k_center
from totalrecall.patchcore.fitting import learn
from totalrecall.patchcore.gathered import InMemoryPatches
from totalrecall.patchcore.judge import picture_score
from totalrecall.patchcore.reading import as_bank
from totalrecall.pictures.loading import Source
from totalrecall.scoring import smooth_distances

DATA = ("bottle", "mtd", "washer", "wood")
_KEYS = ("data", "backbone", "planted_share", "seed")
_SYNTHETIC = (80, 40, 60)  # good pictures to learn from and to test on, defective ones
_SIGMA = 0.5  # cells, as `map1pct` smooths at 256 pixels and stride 8
_DEFECTS = ("scratch", "dent", "missing", "stain", "crack", "fibre")


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=["washer", "wood", "bottle", "mtd"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.05, 0.1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--backbone", default="compact")
    args = parser.parse_args()
    done = _done()
    for name in args.data:
        for seed in args.seeds:
            for share in args.shares:
                if (name, args.backbone, str(share), str(seed)) not in done:
                    row = _measured(name, args.backbone, share, seed)
                    record("audit", [row])  # first, so that a figure that fails is seen
                    lost = row["auroc"] - row["auroc_guarded"]
                    assert share or lost <= 0.3, f"leaving out outliers costs a clean set {lost:.2f} points"


def _done() -> set[tuple[str, ...]]:
    path = RESULTS / "audit.csv"
    if not path.is_file():
        return set()
    with path.open(newline="") as file:
        return {tuple(row[key] for key in _KEYS) for row in csv.DictReader(file)}


def _measured(name: str, backbone: str, share: float, seed: int) -> dict[str, Any]:
    """Return one row."""
    train, test, bad = _pictures(name)
    rng = np.random.default_rng(seed)
    count = round(len(train) * share / (1 - share))
    chosen = set(rng.choice(len(bad), count, replace=False).tolist())
    planted = [picture for at, picture in enumerate(bad) if at in chosen]
    rest = [picture for at, picture in enumerate(bad) if at not in chosen]
    detector = PatchCore(backbone=backbone, holdout=0.0)
    learnt, _ = learn(detector.extractor, detector.settings, [*train, *planted], memory=8 << 30)
    assert isinstance(learnt, InMemoryPatches)
    began = time.perf_counter()
    everything = learnt.choose().rows
    chose = time.perf_counter() - began
    began = time.perf_counter()
    others = LeaveOneOutIndex(learnt.patches.take(everything), learnt.origin[everything, 0])
    explained = explain(others, learnt.reread, len(learnt.pictures), learnt.grid)
    dirty = dirty_patches(explained, learnt.reread, learnt.grid)
    compared = time.perf_counter() - began
    left_out = _rows_of(learnt.origin, dirty)
    banks = {"all": everything}
    banks["guarded"] = everything[~left_out[everything]]  # as `fit --ignore-outliers` has it
    banks["known"] = everything if not count else _chosen(learnt, np.flatnonzero(learnt.origin[:, 0] < len(train)))
    found = _aurocs(detector, learnt, banks, test, rest)
    levels = explained.relative
    order, named = np.argsort(-levels)[: -(-len(levels) // 10)], standing_out(levels)
    return {
        "data": name,
        "backbone": backbone,
        "planted_share": share,
        "seed": seed,
        "pictures": len(learnt.pictures),
        "planted": count,
        "found_in_first_tenth": float((order >= len(train)).sum() / count) if count else float("nan"),
        "stand_out": len(named),
        "of_them_planted": int((named >= len(train)).sum()),
        "patches_left_out": float(left_out.mean()),
        "auroc": found["all"],
        "auroc_guarded": found["guarded"],
        "auroc_without_the_planted": found["known"],
        "coreset_s": chose,
        "comparing_s": compared,
    }


def _rows_of(origin: np.ndarray, dirty: dict[int, np.ndarray]) -> np.ndarray:
    """Return which patches are marked, bool (n,)."""
    marked = np.zeros(len(origin), bool)
    for picture, cells in dirty.items():
        own = np.flatnonzero(origin[:, 0] == picture)
        marked[own] = cells[origin[own, 1], origin[own, 2]]
    return marked


def _chosen(learnt: InMemoryPatches, rows: np.ndarray) -> np.ndarray:
    """Return a coreset of some of the patches, as a fit chooses it."""
    return rows[greedy_k_center(learnt.patches.all(), max(len(rows) // 100, 1), rows=rows).indices]


def _aurocs(
    detector: PatchCore,
    learnt: InMemoryPatches,
    banks: dict[str, np.ndarray],
    test: Sequence[Source],
    bad: Sequence[Source],
) -> dict[str, float]:
    """Return image AUROC in points of a hundred, of each bank."""
    made = {
        name: as_bank(learnt.patches.take(rows), learnt.origin[rows], learnt.pictures) for name, rows in banks.items()
    }
    scores: dict[str, list[float]] = {name: [] for name in banks}
    for _, grid in detector.extractor.stream([*test, *bad]):
        assert grid is not None
        patches = grid.reshape(-1, grid.shape[3])
        cells = np.indices(grid.shape[1:3]).reshape(2, -1).T
        for name, bank in made.items():
            distances, indices = bank.nearest(patches)
            smoothed = smooth_distances(distances[:, 0].reshape(grid.shape[1:3]), cells, _SIGMA)
            scores[name].append(picture_score(smoothed, indices[:, 0], patches, bank, scoring="map1pct"))
    labels = np.repeat([0, 1], [len(test), len(bad)])
    return {name: 100 * auroc(labels, np.array(own)) for name, own in scores.items()}


def _pictures(name: str) -> tuple[list[Source], list[Source], list[Source]]:
    """Return good pictures to learn from, good ones to test on, and defective ones."""
    if name in ("bottle", "mtd"):
        from totalrecall.datasets import open_dataset

        layout, root = (
            ("mtd", SHARED / "data" / "mtd") if name == "mtd" else ("mvtec", SHARED / "data" / "mvtec_ad" / name)
        )
        data = open_dataset(layout, root)
        by_label = [[sample.path for sample in data.test if sample.label == label] for label in (0, 1)]
        return list(data.train), *by_label
    fine = [good(name, np.random.default_rng([5, i])) for i in range(_SYNTHETIC[0] + _SYNTHETIC[1])]
    broken = [
        defective(name, _DEFECTS[i % len(_DEFECTS)], np.random.default_rng([6, i]))[0] for i in range(_SYNTHETIC[2])
    ]
    return fine[: _SYNTHETIC[0]], fine[_SYNTHETIC[0] :], broken


if __name__ == "__main__":
    main()
