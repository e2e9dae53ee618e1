"""What a child process does for `teaching`: a proposed version of a model, compared with the version in use.

Both versions judge the same frozen set: the golden pictures and the judged ones that are kept. A picture that the new
version has learnt says nothing of new parts; so it is marked, and the figures are given without such pictures, too.
"""

import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.registry import load_detector
from totalrecall.station.quality.workers import Progress
from totalrecall.station.store.records import finite
from totalrecall.system.files import file_sha256, sha256

if TYPE_CHECKING:
    from totalrecall.registry import AnyDetector

__all__ = ["propose", "tally"]


def propose(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Make the proposed version and compare it with the version before; runs in a child process.

    Args:
        arguments: `base` and `proposal`, model files; `folder`, that holds the pictures; `what`, "learn" or "catch";
            `pictures`, names in the folder; `frozen`, of each its `file`, `truth` and what else is told of it;
            `running`, for `load_detector`.
        progress: told of.

    Returns:
        `sha256` of the proposal, `lines` that say what was changed, and `comparison`.

    Raises:
        SettingError, DataError, PictureError: there is nothing to learn, or a picture cannot be used.
    """
    os.chdir(arguments["folder"])  # so that the model names its pictures as the station does, not by a place on a disk
    base, proposal = arguments["base"], arguments["proposal"]
    before = load_detector(base, **arguments["running"])
    after = load_detector(base, **arguments["running"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # single odd pictures; the comparison shows what comes of them
        lines = _changed(after, arguments["what"], arguments["pictures"], progress)
        after.save(proposal)
        comparison = _compared(before, after, arguments["frozen"], arguments["pictures"], progress)
    return {"sha256": file_sha256(proposal), "lines": lines, "comparison": comparison}


def _changed(detector: "AnyDetector", what: str, pictures: Sequence[str], progress: Progress) -> list[str]:
    """Teach the detector, and return what was done, in words."""
    if what == "learn":
        change = detector.update(add=list(pictures), progress=progress)
        if change.skipped:
            raise PictureError(str(change.skipped[0]))
        if not change.pictures:
            raise SettingError("The model has learnt these pictures already, so there is nothing to propose.")
        return change.lines()
    before = detector.threshold_
    lessons, skipped = detector.teach(list(pictures), apply=True)
    if skipped:
        raise PictureError(str(skipped[0]))
    if detector.threshold_ == before or not lessons:
        raise SettingError(f"The threshold {before:.4g} catches all of these already, so there is nothing to propose.")
    was = "there was none" if math.isnan(before) else f"was {before:.4g}"
    return [f"Threshold: score {detector.threshold_:.4g}, {was}", detector.promise_.in_words()]


def _compared(
    before: "AnyDetector",
    after: "AnyDetector",
    frozen: Sequence[dict[str, Any]],
    learnt: Sequence[str],
    progress: Progress,
) -> dict[str, Any]:
    """Judge the frozen set by both versions."""
    known = {file_sha256(name) for name in learnt}
    known |= {picture.sha256 for picture in after.pictures_}
    rows = []
    files = [one["file"] for one in frozen]
    pairs = zip(before.predict_stream(files), after.predict_stream(files), strict=True) if files else iter(())
    for number, (one, (old, new)) in enumerate(zip(frozen, pairs, strict=True), start=1):
        progress("comparison", number, len(frozen))
        row = {name: value for name, value in one.items() if name != "file"}
        row["learnt"] = one["sha256"] in known
        for version, outcome in (("before", old), ("after", new)):
            if isinstance(outcome, PictureError):
                raise DataError(f"A picture of the frozen set cannot be judged: {outcome}")
            row[version] = {"score": outcome.score, "verdict": outcome.verdict}
        rows.append(row)
    new_rows = [row for row in rows if not row["learnt"]]
    return {
        "threshold": finite({"before": before.threshold_, "after": after.threshold_}),
        "pictures": len(rows),
        "learnt": len(rows) - len(new_rows),
        "set_sha256": sha256("".join(sorted(f"{row['sha256']} {row['truth']}\n" for row in rows)).encode()),
        "before": tally(rows, "before"),
        "after": tally(rows, "after"),
        "not_learnt": {"before": tally(new_rows, "before"), "after": tally(new_rows, "after")},
        "changed": [row for row in rows if row["before"]["verdict"] != row["after"]["verdict"]],
        "rows": rows,
    }


def tally(rows: Sequence[dict[str, Any]], version: str) -> dict[str, int]:
    """Count what a version makes of pictures whose truth is known."""
    verdicts = {
        truth: [row[version]["verdict"] for row in rows if row["truth"] == truth] for truth in ("defect", "good")
    }
    return {
        "found": verdicts["defect"].count("defect"),
        "defects": len(verdicts["defect"]),
        "false_alarms": verdicts["good"].count("defect"),
        "good": len(verdicts["good"]),
    }
