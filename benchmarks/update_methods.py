"""Thirty high-scoring good pictures added to PaDiM and SPADE: how many pass, and what becomes of the rest.

    python -m benchmarks.update_methods [FOLDER]     fitted models are kept in FOLDER, so that a run can go on
    python -m benchmarks.update_methods --docs       the last results as the table of docs/why/updating.md

On bottle, and on magnetic tiles of which a hundred are fitted and some test pictures taken (SPADE is slow), split as
for `benchmarks.update`. The 30 are the highest-scoring of the good pictures held out; figures of the rest are of the
others. At 1 percent few of them are called anomalous, so they are judged at 25 percent, too. Asserted: the scores that
the update tells are those that the saved model gives, and undoing gives the same bytes.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import SHARED, record
from benchmarks.update import ALARMS, RATES, _arguments, _auroc, _last_rows, _put_between, _sha, _split, _table
from totalrecall import SPADE, PaDiM, load_detector
from totalrecall.pictures.loading import Source

_FITTED = 100  # of the magnetic tiles
_EVERY = {"good": 2, "defects": 8}  # of their test pictures
_METHODS: dict[str, Callable[[], PaDiM | SPADE]] = {
    "padim": PaDiM,
    "spade": SPADE,
    "spade, 5 neighbours": lambda: SPADE(neighbours=5),
}
_SHOWN = (  # in the docs: what, columns, and how a number is written
    ("at 1 %: of the 30 called anomalous before / after", ("called_1_before", "called_1_after"), "{:.0f}"),
    ("at 25 %: of the 30 called anomalous before / after", ("called_25_before", "called_25_after"), "{:.0f}"),
    ("false alarms of the rest at 25 %, before / after", ("rest_25_before", "rest_25_after"), "{:.0f}"),
    ("threshold at 1 %, before / after", ("threshold_1_before", "threshold_1_after"), "{:.4g}"),
    ("threshold at 25 %, before / after", ("threshold_25_before", "threshold_25_after"), "{:.4g}"),
    ("defects found at 1 %, before / after", ("found_1_before", "found_1_after"), "{:.3f}"),
    ("defects found at 25 %, before / after", ("found_25_before", "found_25_after"), "{:.3f}"),
    ("image AUROC on the rest, before / after", ("auroc_before", "auroc_after"), "{:.2f}"),
    ("scores after over before: the 30 / the rest / the rest at most", ("alarms", "rest", "rest_at_most"), "{:.3f}"),
    ("file in MB before / after", ("mb_before", "mb_after"), "{:.0f}"),
)


def main() -> None:
    """Print and record."""
    args = _arguments(__doc__)
    if args.docs:
        _write_docs()
        return
    if not (SHARED / "data").is_dir():
        raise SystemExit("needs the real pictures of ../shared, which are not here")
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        for name in ("bottle", "mtd"):
            for method in _METHODS:
                record("update_methods", [_measure(name, method, folder)])


def _pictures(name: str) -> tuple[list[Source], list[Source], list[Source]]:
    """Return pictures to fit on, good ones held out, and defects."""
    train, good, defects = _split(name)
    if name == "bottle":
        return train, good, defects
    some = np.sort(np.random.default_rng(42).permutation(len(train))[:_FITTED])
    return [train[at] for at in some], good[:: _EVERY["good"]], defects[:: _EVERY["defects"]]


def _measure(name: str, method: str, folder: Path) -> dict[str, object]:
    train, good, defects = _pictures(name)
    path = folder / f"{name}-{method.replace(', ', '-').replace(' ', '-')}.trecall"
    if not path.exists():
        _METHODS[method]().fit(train).save(path)
    detector = load_detector(path)
    before, calibration = (detector.score(good), detector.score(defects)), detector.calibration_
    order = np.argsort(-before[0], kind="stable")
    worst, rest = order[:ALARMS], order[ALARMS:]
    change = detector.update(add=[good[at] for at in worst])
    updated = detector.save(folder / "updated.trecall")
    detector = load_detector(updated)
    after, followed = (detector.score(good), detector.score(defects)), detector.calibration_
    assert np.allclose(after[0][worst], [one.after for one in change.pictures], rtol=1e-3)
    detector.undo()
    assert _sha(detector.save(folder / "undone.trecall")) == _sha(path), "undo is not exact"
    ratio = after[0] / before[0]
    row: dict[str, object] = {
        "set": name,
        "method": method,
        "fitted": len(train),
        "set_threshold": len(calibration.scores),
        "rest_good": len(rest),
        "defects": len(defects),
        "auroc_before": _auroc(before[0][rest], before[1]),
        "auroc_after": _auroc(after[0][rest], after[1]),
        "alarms": float(ratio[worst].mean()),
        "rest": float(ratio[rest].mean()),
        "rest_at_most": float(ratio[rest].max()),
        "mb_before": path.stat().st_size / 1e6,
        "mb_after": updated.stat().st_size / 1e6,
    }
    for rate in RATES:
        for when, kept, scores in (("before", calibration, before), ("after", followed, after)):
            threshold, label = replace(kept, rate=rate).threshold, f"{100 * rate:g}_{when}"
            row[f"threshold_{label}"] = threshold
            row[f"called_{label}"] = int((scores[0][worst] > threshold).sum())
            row[f"rest_{label}"] = int((scores[0][rest] > threshold).sum())
            row[f"found_{label}"] = float((scores[1] > threshold).mean())
    return row


def _write_docs() -> None:
    """Put the last results between the marks of docs/why/updating.md."""
    rows = _last_rows("update_methods", 2 * len(_METHODS))
    table = _table(rows, [f"{row['set']}, {row['method']}" for row in rows], _SHOWN)
    first = [next(row for row in rows if row["set"] == name) for name in ("bottle", "mtd")]
    counts = ". ".join(
        f"{row['set']}: {row['fitted']} pictures fitted, of which {row['set_threshold']} set the threshold; the rest "
        f"are {row['rest_good']} good ones and {row['defects']} defects"
        for row in first
    )
    _put_between(
        "update-methods", f"{rows[-1]['date']}, {rows[-1]['machine']}, beside much other work. {counts}.\n\n{table}"
    )


if __name__ == "__main__":
    main()
