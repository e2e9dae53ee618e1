"""What each idea brings that went into the score `extent`, and what those bring that did not.

    python -m benchmarks.scores --sets metal_plate cookie tire --out FOLDER

An idea is arithmetic on distances, so each set is fitted and searched once: the leave-one-out distances of its good
pictures and the distances of its test pictures to the whole bank, with the five nearest vectors, are kept in FOLDER.
Whatever an idea learns of good pictures, it learns for each fold from the others, as the calibration does. `mtd100`
and `mtd761` are splits of the good tiles by seed 0; `metal_plate25`, `tire40` and `bottle30` fit on so many good ones.

Columns, in percent: defects found and false alarms at a stated 1 and 5 percent, defects above the highest good picture
of the fit, image AUROC. The answer that is asserted: the scores of the row `extent` are `PatchCore`'s own.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.common import open_real_set, record
from totalrecall import PatchCore
from totalrecall.benchmark.cell import few_shots
from totalrecall.calibration import Calibration
from totalrecall.datasets import open_dataset
from totalrecall.demo.pictures import KINDS, make_dataset
from totalrecall.detectors.extents import HUNDREDTH, SHARES, learn_extents, place_of, profile_of
from totalrecall.evaluation.metrics import auroc
from totalrecall.patchcore.fitting import learn
from totalrecall.patchcore.judge import Judge

SETS = ("metal_plate", "cookie", "tire", "bottle", "mtd100", "mtd761", *KINDS, "metal_plate25", "tire40", "bottle30")
_FEW = {"metal_plate25": 25, "tire40": 40, "bottle30": 30, "mtd100": 100, "mtd761": 761}
_TESTED = 300  # good tiles
_NEAREST = 5
_COLUMNS = ("found_1", "alarms_1", "found_5", "alarms_5", "found_above_highest", "image_auroc")

Scores = tuple[np.ndarray, np.ndarray]  # of the good pictures of the fit, of the test pictures
Grids = tuple[np.ndarray, np.ndarray]  # their distances, (n, rows, columns)


@dataclass(frozen=True, eq=False)
class Distances:
    """Of good pictures to banks without their fold, and of test pictures, to the `_NEAREST` vectors.

    Attributes:
        good, test: float32 (n, rows, columns, k).
        good_rows, test_rows: int32, likewise, of those vectors among `vectors`.
        folds: (n,) of the good pictures.
        vectors: (v, d) of all banks; `origin` (v, 3) their picture, row and column.
        labels: (m,) of the test pictures.
        sigma: of the anomaly map's Gaussian, in cells.
        scores, tested: of the detector, of its good pictures and of five test pictures.
    """

    good: np.ndarray
    good_rows: np.ndarray
    folds: np.ndarray
    test: np.ndarray
    test_rows: np.ndarray
    vectors: np.ndarray
    origin: np.ndarray
    labels: np.ndarray
    sigma: float
    scores: np.ndarray
    tested: np.ndarray


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--out", type=Path, default=Path("/tmp/totalrecall-scores"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[list[float]]] = {}
    for name in args.sets:
        distances = _distances(name, args.out)
        table = []
        for idea, scores in ideas(distances):
            figures = _figures(distances, *scores)
            rows.setdefault(idea, []).append(figures)
            table.append({"set": name, "idea": idea, **dict(zip(_COLUMNS, figures, strict=True))})
            if idea == "extent":
                assert np.allclose(scores[0], distances.scores, rtol=1e-3), "the fit scores otherwise"
                assert np.allclose(scores[1][: len(distances.tested)], distances.tested, rtol=1e-3)
        record("scores", table)
    for idea, figures_of_sets in rows.items():
        figures = zip(_COLUMNS, np.mean(figures_of_sets, axis=0), strict=True)
        means = ", ".join(f"{column} {value:.2f}" for column, value in figures)
        print(f"mean over {len(figures_of_sets)} sets: {idea}: {means}")


# ---------------------------------------------------------------------- the distances


def _pictures(name: str, folder: Path) -> tuple[list[Path], list[Path], list[int]]:
    """Return the pictures to fit on, those to test on, and the labels of these."""
    if name in KINDS:
        place = folder / "drawn" / name
        made = place if place.exists() else make_dataset(place, kind=name, good=50, test_good=40, defective=48, seed=7)
        data = open_dataset("mvtec", made)
    else:
        data = open_real_set("mtd" if name.startswith("mtd") else name.rstrip("0123456789"))
    samples = list(data.test)
    train = list(data.train)
    if name.startswith("mtd"):
        good = [*train, *(sample.path for sample in samples if not sample.label)]
        order = np.random.default_rng(0).permutation(len(good))
        train = [good[at] for at in order[: _FEW[name]]]
        tested = [good[at] for at in order[_FEW[name] :][:_TESTED]]
        bad = [sample.path for sample in samples if sample.label]
        return train, [*tested, *bad], [0] * len(tested) + [1] * len(bad)
    if name in _FEW:
        train = few_shots(train, _FEW[name], 0)
    return train, [sample.path for sample in samples], [sample.label for sample in samples]


def _distances(name: str, folder: Path) -> Distances:
    """Return the distances of a set, measured unless they are in the folder."""
    file = folder / f"{name}.npz"
    if not file.exists():
        measured = _measure(*_pictures(name, folder))
        with file.open("wb") as out:
            np.savez(out, **vars(measured))
        print(f"{name}: measured", flush=True)
    with np.load(file) as stored:
        return Distances(**{key: stored[key] for key in stored.files})


def _measure(train: Sequence[Path], test: Sequence[Path], labels: Sequence[int]) -> Distances:
    detector = PatchCore(seed=42).fit(train)
    learnt, _ = learn(detector.extractor, detector.settings, train)
    rows, columns = learnt.grid
    count = len(learnt.pictures)
    good = np.zeros((count, rows, columns, _NEAREST), np.float32)
    chosen, folds = np.zeros(good.shape, np.int64), np.zeros(count, np.int32)
    for number, fold in enumerate(learnt.folds):
        choice = learnt.choose(without=fold)
        bank = learnt.bank(choice)
        for seen in learnt.reread(fold):
            found, at = bank.nearest(seen.patches, _NEAREST)
            good[seen.index] = found.reshape(rows, columns, -1)
            chosen[seen.index], folds[seen.index] = choice.rows[at].reshape(rows, columns, -1), number
    choice = learnt.choose()
    bank = learnt.bank(choice)
    patches = (grid[0].reshape(-1, grid.shape[3]) for _, grid in detector.extractor.stream(test) if grid is not None)
    searched = [bank.nearest(vectors, _NEAREST) for vectors in patches]
    found = np.stack([pair[0] for pair in searched]).reshape(len(test), rows, columns, -1)
    taken = choice.rows[np.stack([pair[1] for pair in searched])].reshape(found.shape)
    every = np.unique(np.concatenate([chosen.ravel(), taken.ravel()]))
    whole = learnt.bank(replace(choice, rows=every))
    return Distances(
        good,
        np.searchsorted(every, chosen).astype(np.int32),
        folds,
        found,
        np.searchsorted(every, taken).astype(np.int32),
        whole.vectors,
        whole.origin,
        np.asarray(labels),
        Judge(detector.settings, detector.recipe).sigma(rows),
        detector.calibration_.scores,
        detector.score(test[:5]),
    )


def _figures(distances: Distances, good: np.ndarray, test: np.ndarray) -> list[float]:
    """Return the columns of an idea's scores."""
    labels, fine, bad = distances.labels, test[distances.labels == 0], test[distances.labels == 1]
    found: list[float] = []
    for rate in (0.01, 0.05):
        threshold = Calibration(good, good, rate, 20).threshold
        found += [100 * float((bad > threshold).mean()), 100 * float((fine > threshold).mean())]
    return [*found, 100 * float((bad > good.max()).mean()), 100 * auroc(labels.tolist(), test.tolist())]


# ---------------------------------------------------------------------- the ideas


def ideas(distances: Distances) -> Iterator[tuple[str, Scores]]:
    """Yield the name of each idea and its scores."""
    plain = distances.good[..., 0], distances.test[..., 0]
    placed = _placed(distances, plain)
    hundredth = [len(SHARES) + 1]
    yield "map1pct", _standardised(distances, plain, hundredth, np.max)
    yield "place", _standardised(distances, placed, hundredth, np.max)
    at_one = list(range(len(SHARES), 2 * len(SHARES)))
    yield "extent, at one smoothing", _standardised(distances, plain, at_one, np.max)
    yield "extent, at one smoothing, their mean", _standardised(distances, plain, at_one, np.mean)
    yield "extent, at three smoothings", _standardised(distances, plain, None, np.max)
    yield "place and extent at one smoothing", _standardised(distances, placed, at_one, np.max)
    inside = np.ones(plain[0].shape, bool)
    learnt = learn_extents(plain[0], inside, distances.folds, sigma=distances.sigma)
    assert learnt is not None
    cells = np.argwhere(inside[0])
    yield "extent", (learnt[1], np.array([learnt[0].score(grid, cells, distances.sigma) for grid in plain[1]]))
    yield "extent, the mean of twelve", _standardised(distances, placed, None, np.mean)
    for power, doubt in ((0.25, 50), (0.5, 20), (0.5, 200)):
        scaled = _scaled(distances, plain, power, doubt)
        yield (
            f"extent, local scale to the {power:g}, {doubt} of doubt",
            _standardised(distances, _placed(distances, scaled), None, np.max),
        )
    soft = _soft(distances, distances.good, distances.good_rows), _soft(distances, distances.test, distances.test_rows)
    yield "soft projection on 5", _standardised(distances, soft, hundredth, np.max)
    yield "extent, soft projection on 5", _standardised(distances, _placed(distances, soft), None, np.max)
    for weight in (0.1, 0.25):
        where = tuple(
            _with_position(distances, found, rows, weight)
            for found, rows in ((distances.good, distances.good_rows), (distances.test, distances.test_rows))
        )
        yield (
            f"extent, position in the vector by {weight:g}",
            _standardised(distances, _placed(distances, (where[0], where[1])), None, np.max),
        )


def _standardised(distances: Distances, grids: Grids, which: list[int] | None, together: np.ufunc) -> Scores:
    """Return scores by some of the twelve means of the largest distances, in the good pictures' standard deviations."""
    cells = np.argwhere(np.ones(grids[0].shape[1:], bool))
    good, test = (np.stack([profile_of(grid, cells, distances.sigma) for grid in part]) for part in grids)
    chosen = slice(None) if which is None else which
    good, test = good[:, chosen], test[:, chosen]
    if good.shape[1] == 1:  # a distance is a score as it is
        return good[:, 0], test[:, 0]
    unit = HUNDREDTH if which is None else which.index(HUNDREDTH)

    def scores(profiles: np.ndarray, usual: np.ndarray) -> np.ndarray:
        means, deviations = usual.mean(axis=0), usual.std(axis=0, ddof=1)
        return np.asarray(means[unit] + deviations[unit] * together((profiles - means) / deviations, axis=1))

    by_others = np.empty(len(good))
    for fold in np.unique(distances.folds):
        members = distances.folds == fold
        by_others[members] = scores(good[members], good[~members])
    return by_others, scores(test, good)


def _placed(distances: Distances, grids: Grids) -> Grids:
    """Return distances divided by what is usual at their place, by the other folds for good pictures."""
    good, test = grids
    corrected = np.empty_like(good)
    counts = np.ones(good.shape[1:])

    def place(which: np.ndarray) -> np.ndarray:
        sums, number = good[which].sum(axis=0, dtype=np.float64), int(which.sum())
        return place_of(sums, number * counts, pictures=number, sigma=distances.sigma)

    for fold in np.unique(distances.folds):
        members = distances.folds == fold
        corrected[members] = good[members] / place(~members)
    return corrected, test / place(np.ones(len(good), bool))


def _scaled(distances: Distances, grids: Grids, power: float, doubt: float) -> Grids:
    """Return distances divided by what is usual of the good patches that chose the same bank vector."""
    good, test = grids
    rows, corrected = distances.good_rows[..., 0], np.empty_like(good)

    def scale(which: np.ndarray) -> np.ndarray:
        mean, count = good[which].mean(dtype=np.float64), len(distances.vectors)
        chose = np.bincount(rows[which].ravel(), minlength=count)
        sums = np.bincount(rows[which].ravel(), good[which].ravel(), minlength=count)
        return np.asarray(((sums / mean + doubt) / (chose + doubt)) ** power, np.float32)

    for fold in np.unique(distances.folds):
        members = distances.folds == fold
        corrected[members] = good[members] / scale(~members)[rows[members]]
    return corrected, test / scale(np.ones(len(good), bool))[distances.test_rows[..., 0]]


def _soft(distances: Distances, found: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return distances to the mean of the nearest vectors, weighted by a softmax of the squared distances."""
    unit = float(np.median(distances.good[..., 0])) ** 2
    projected = np.empty(found.shape[:3], np.float32)
    for at, (picture, chosen) in enumerate(zip(found.astype(np.float64) ** 2, rows, strict=True)):
        squared, vectors = (
            picture.reshape(-1, _NEAREST),
            distances.vectors[chosen].reshape(*chosen.shape[:2], _NEAREST, -1),
        )
        vectors = vectors.reshape(len(squared), _NEAREST, -1)
        weights = np.exp((squared[:, :1] - squared) / unit)
        weights /= weights.sum(axis=1, keepdims=True)
        norms = np.einsum("pkd,pkd->pk", vectors, vectors)
        between = norms[:, :, None] + norms[:, None] - 2 * vectors @ vectors.transpose(0, 2, 1)
        apart = (weights * squared).sum(axis=1) - np.einsum("pk,pkj,pj->p", weights, between, weights) / 2
        projected[at] = np.sqrt(np.maximum(apart, 0)).reshape(chosen.shape[:2])
    return projected


def _with_position(distances: Distances, found: np.ndarray, rows: np.ndarray, weight: float) -> np.ndarray:
    """Return distances to the nearest of five once row and column count; at 1, eight cells are a median distance."""
    unit = weight * float(np.median(distances.good[..., 0])) ** 2 / 64
    here = np.moveaxis(np.indices(found.shape[1:3]), 0, -1)[None, :, :, None]  # (1, rows, columns, 1, 2)
    apart = ((distances.origin[rows][..., 1:] - here) ** 2).sum(axis=-1)
    return np.sqrt((found.astype(np.float64) ** 2 + unit * apart).min(axis=-1)).astype(np.float32)


if __name__ == "__main__":
    main()
