"""Thirty false alarms added to a model: do they pass, what becomes of the rest, and what does a refit say?

    python -m benchmarks.update [FOLDER]        fitted models are kept in FOLDER, so that a run can go on
    python -m benchmarks.update --docs          the last results as the table of docs/why/updating.md

On magnetic tiles and on bottle of ../shared (without them there is nothing to measure). The 30 are the highest-scoring
good pictures among those held out; every figure before and after is of the others. At the fitted rate of 1 percent few
or none of them are called anomalous, so it is done again with a stated rate at which most are (25 percent; the evidence
was kept for 1 percent, and does not reach as far down). The refit learns the 30 together with the pictures of the fit.
Asserted: the 30 pass, AUROC on the rest falls by at most 0.2 points, undoing gives the same bytes, and a killed update
leaves the old model or the new.
"""

import argparse
import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, SHARED, record, seconds_of
from totalrecall import PatchCore
from totalrecall.datasets import open_dataset
from totalrecall.detectors.model_file import read_artifact, write_artifact
from totalrecall.evaluation.metrics import auroc
from totalrecall.pictures.loading import Source

ALARMS = 30
RATES = (0.01, 0.25)  # stated; the first is the fit's
KILLS = 50
_HELD_OF_BOTTLE = 60  # of its training pictures: the test has only 20 good ones
_SHOWN = (  # in the docs: what, columns, and how a number is written
    (
        "held-out good pictures called anomalous before; after, of those not added",
        ("called_before", "false_alarms_of_rest_after"),
        "{:.0f}",
    ),
    ("seconds of the update / of the refit", ("seconds", "refit_s"), "{:.3g}"),
    (
        "vectors before / entered / of these for a picture to pass",
        ("vectors_before", "vectors_entered", "forced"),
        "{:.0f}",
    ),
    ("threshold before / after / refit", ("threshold_before", "threshold_after", "threshold_refit"), "{:.3f}"),
    ("the least that the threshold after can be", ("threshold_at_least",), "{:.3f}"),
    ("image AUROC before / after / refit", ("auroc_before", "auroc_after", "auroc_refit"), "{:.2f}"),
    ("defects found before / after / refit", ("detected_before", "detected_after", "detected_refit"), "{:.3f}"),
    (
        "scores over those of the refit: mean / 5 % / 95 %",
        (*(f"scores_over_refit_{n}" for n in ("mean", "5", "95")),),
        "{:+.3f}",
    ),
    ("evidence in MB / as a share of the bank", ("evidence_mb", "evidence_of_bank"), "{:.2f}"),
)


def main() -> None:
    """Print and record."""
    args = _arguments(__doc__)
    if args.docs:
        _write_docs()
        return
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        for name in ("mtd", "bottle"):
            record("update", [_measure(name, folder, rate) for rate in RATES])
        record("update_kills", [_kill(folder / "bottle.trecall", _split("bottle")[1][:3])])


def _arguments(description: str) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="keeps fitted models")
    parser.add_argument("--docs", action="store_true", help="write the last results into docs/why/updating.md")
    return parser.parse_args()


def _write_docs() -> None:
    """Put the last results between the marks of docs/why/updating.md."""
    rows = _last_rows("update", 2 * len(RATES))
    table = _table(rows, [f"{row['set']}, {100 * float(row['stated_rate']):g} %" for row in rows], _SHOWN)
    (kills,) = _last_rows("update_kills", 1)
    text = (
        f"{rows[-1]['date']}, {rows[-1]['machine']}, beside other work (believe ratios of seconds): stated false-alarm "
        f"rate 1 %, the fit's, and 25 %, at which most of the 30 are called anomalous (evidence was kept for 1 %).\n\n"
        f"{table}\n\n"
        f"Of {kills['kills']} updates killed at random moments {kills['left_old']} left the old model, "
        f"{kills['left_new']} the new one ({kills['had_finished']} had ended by themselves) and {kills['broken']} a "
        f"broken one; {kills['litter']} left a `.part` file."
    )
    _put_between("update", text)


def _table(
    rows: Sequence[dict[str, str]], heads: Sequence[str], shown: Sequence[tuple[str, tuple[str, ...], str]]
) -> str:
    """Return results as a table, a column each."""
    lines = ["|  | " + " | ".join(heads) + " |", "| --- |" + " --: |" * len(rows)]
    for label, columns, form in shown:
        cells = [" / ".join(form.format(float(row[column])) for column in columns) for row in rows]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _put_between(mark: str, text: str) -> None:
    """Put a text between two marks of docs/why/updating.md."""
    page = Path(__file__).resolve().parents[1] / "docs" / "why" / "updating.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")
    after = rest.partition(f"<!-- /{mark} -->")[2]
    page.write_text(f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}", encoding="utf-8")


def _last_rows(name: str, count: int) -> list[dict[str, str]]:
    with (RESULTS / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))[-count:]


def _split(name: str) -> tuple[list[Source], list[Source], list[Source]]:
    """Return pictures to fit on, good ones held out, and defects."""
    root = SHARED / "data" / ("mtd" if name == "mtd" else "mvtec_ad/bottle")
    data = open_dataset("mtd" if name == "mtd" else "mvtec", root)
    train: list[Source] = list(data.train)
    good: list[Source] = [sample.path for sample in data.test if not sample.label]
    if name == "bottle":
        order = np.random.default_rng(42).permutation(len(train))
        good += [train[at] for at in order[:_HELD_OF_BOTTLE]]
        train = [train[at] for at in np.sort(order[_HELD_OF_BOTTLE:])]
    return train, good, [sample.path for sample in data.test if sample.label]


def _fitted(path: Path, pictures: Sequence[Source]) -> tuple[PatchCore, float]:
    """Return a model, and the seconds of its fit."""
    kept = path.with_suffix(".seconds")
    if path.exists() and kept.exists():
        return PatchCore.load(path), float(kept.read_text())
    detector = PatchCore()
    seconds = seconds_of(lambda: detector.fit(pictures))
    detector.save(path)
    kept.write_text(str(seconds))
    return detector, seconds


def _at_rate(path: Path, rate: float) -> Path:
    """Return the same model with another stated rate."""
    header, tensors = read_artifact(path)
    header["settings"]["false_alarm_rate"] = rate
    del header["tensors"]
    return write_artifact(path.with_name(f"{path.stem}-{rate}.trecall"), header, tensors)


def _measure(name: str, folder: Path, rate: float) -> dict[str, object]:
    train, good, defects = _split(name)
    path = folder / f"{name}.trecall"
    _, fit_seconds = _fitted(path, train)
    path = _at_rate(path, rate)
    detector, old = PatchCore.load(path), _sha(path)
    before = detector.score(good), detector.score(defects)
    order = np.argsort(-before[0], kind="stable")
    alarms, rest = [good[at] for at in order[:ALARMS]], [good[at] for at in order[ALARMS:]]
    detector = PatchCore.load(path)
    changes = []
    seconds = seconds_of(lambda: changes.append(detector.update(add=alarms)))
    saving = seconds_of(lambda: detector.save(folder / f"{name}-updated.trecall"))
    (change,) = changes
    after = detector.score(alarms), detector.score(rest), detector.score(defects)
    _, refit_seconds = _fitted(folder / f"{name}-refit.trecall", [*train, *alarms])
    refit = PatchCore.load(_at_rate(folder / f"{name}-refit.trecall", rate))
    again = refit.score(alarms), refit.score(rest), refit.score(defects)
    differences = np.concatenate(after[1:]) / np.concatenate(again[1:]) - 1
    detector.undo()
    assert _sha(detector.save(folder / f"{name}-undone.trecall")) == old, "undo is not exact"
    assert (after[0] <= change.threshold[1]).all(), "a false alarm does not pass"
    aurocs = [_auroc(before[0][order[ALARMS:]], before[1]), _auroc(*after[1:]), _auroc(*again[1:])]
    assert aurocs[1] >= aurocs[0] - 0.2, aurocs
    tensors = read_artifact(folder / f"{name}-undone.trecall")[1]
    kept = sum(tensor.nbytes for part, tensor in tensors.items() if part.startswith("evidence."))
    assert kept
    return {
        "set": name,
        "stated_rate": rate,
        "fitted": len(train),
        "added": ALARMS,
        "called_before": int((before[0] > change.threshold[0]).sum()),
        "seconds": seconds,
        "saving_s": saving,
        "fit_s": fit_seconds,
        "refit_s": refit_seconds,
        "vectors_before": change.vectors[0],
        "vectors_entered": change.vectors[1] - change.vectors[0],
        "forced": sum(one.forced for one in change.pictures),
        "threshold_before": change.threshold[0],
        "threshold_after": change.threshold[1],
        "threshold_at_least": change.lowest,
        "threshold_refit": refit.threshold_,
        "auroc_before": aurocs[0],
        "auroc_after": aurocs[1],
        "auroc_refit": aurocs[2],
        "detected_before": float((before[1] > change.threshold[0]).mean()),
        "detected_after": float((after[2] > change.threshold[1]).mean()),
        "detected_refit": float((again[2] > refit.threshold_).mean()),
        "false_alarms_of_rest_after": int((after[1] > change.threshold[1]).sum()),
        "scores_over_refit_mean": float(differences.mean()),
        "scores_over_refit_5": float(np.quantile(differences, 0.05)),
        "scores_over_refit_95": float(np.quantile(differences, 0.95)),
        "evidence_mb": kept / 1e6,
        "evidence_of_bank": kept / refit.bank_.vectors.nbytes,
    }


def _auroc(good: np.ndarray, defects: np.ndarray) -> float:
    """Return the image AUROC in points."""
    return 100 * auroc(np.repeat([0, 1], [len(good), len(defects)]), np.concatenate([good, defects]))


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _kill(model: Path, pictures: Sequence[Source]) -> dict[str, object]:
    """Kill a real update at random moments, half of them near its end, where it writes."""
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary:
        own = Path(shutil.copy(model, Path(temporary) / "part.trecall"))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "totalrecall", "update", str(own), "--add", *map(str, pictures), "--quiet"]
        whole = np.median([_whole_run(command, environment, model, own) for _ in range(3)])
        probe = PatchCore.load(own)
        scores, before = probe.score(pictures), _sha(model)
        rng, old, finished = np.random.default_rng(0), 0, 0
        for turn in range(KILLS):
            shutil.copy(model, own)
            process = subprocess.Popen(command, env=environment)
            time.sleep(whole * (rng.uniform() if turn % 2 else rng.uniform(0.85, 1.05)))
            finished += process.poll() is not None
            process.send_signal(signal.SIGKILL)
            process.wait()
            if _sha(own) == before:
                old += 1
                continue
            found = PatchCore.load(own)  # refuses a damaged file
            assert np.allclose(found.score(pictures), scores)
            assert len(found.history_) == 1
        litter = [path.name for path in own.parent.iterdir() if path != own]
        shutil.copy(model, own)
        subprocess.run(command, env=environment, check=True)
        assert len(PatchCore.load(own).history_) == 1
    return {
        "kills": KILLS,
        "update_s": whole,
        "left_old": old,
        "left_new": KILLS - old,
        "had_finished": finished,
        "broken": 0,
        "litter": len(litter),
    }


def _whole_run(command: Sequence[str], environment: dict[str, str], model: Path, own: Path) -> float:
    shutil.copy(model, own)
    return seconds_of(lambda: subprocess.run(command, env=environment, check=True))


if __name__ == "__main__":
    main()
