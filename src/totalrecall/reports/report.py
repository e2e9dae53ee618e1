"""The report: counts, what the threshold promises, the pictures that are worth a look, and a table of all pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from totalrecall.detectors.promise import Promise
from totalrecall.evaluation.curves import roc_points
from totalrecall.evaluation.evaluate import Evaluation
from totalrecall.reports.gallery import ReportEntry, counts, gallery
from totalrecall.reports.page import number, render, write_page
from totalrecall.reports.plots import Curve, Curves, Histogram, score_histogram

__all__ = ["figures", "write_report"]

_TABLE_BYTES = 600_000  # of HTML; with the pictures under 5 MB
_MOST_KINDS = 60


def write_report(
    path: str | Path,
    *,
    title: str,
    model_info: Mapping[str, str],
    entries: Sequence[ReportEntry],
    bad_files: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    promise: Promise | None = None,
    parts_per_day: int | None = None,
    measured: Evaluation | None = None,
) -> Path:
    """Write the report, under 5 MB whatever the number of entries, and return its path.

    Args:
        path: the HTML file.
        title: the page's heading.
        model_info: what was done, name by name: pictures fitted on, backbone, threshold, false-alarm rate.
        entries: the pictures scored, in any order; the page shows the highest score first.
        bad_files: files that could not be scored, each with the reason.
        notes: sentences to print under the heading, such as "The pictures are synthetic."
        promise: the promise of the threshold in use; it is shown with the scores of the good pictures.
        parts_per_day: good parts per day, for the expected number of false alarms; None assumes a number and says so.
        measured: the metrics, if the pictures are labelled.

    Raises:
        DataError: the folder cannot be made or written.
    """
    ranked = sorted(entries, key=lambda entry: -entry.score if math.isfinite(entry.score) else math.inf)
    shown = gallery(ranked)
    labelled = any(entry.label is not None for entry in ranked)
    known = [entry for entry in ranked if entry.label is not None and math.isfinite(entry.score)]
    truth = ["truth"] if labelled else []
    values = {
        "title": title,
        "notes": notes,
        "numbers": counts(ranked, len(bad_files)) | ({} if measured is None else figures(measured)),
        "bad_files": bad_files,
        "model_info": model_info,
        "promise": None if promise is None else promise.rows(parts_per_day),
        "promise_plot": None if promise is None else _behind(promise),
        "scores": _scores(ranked),
        "kinds": _kinds(known, measured),
        "curve": _curve(known),
        "reasons": {} if measured is None else measured.reasons,
        "gallery": shown,
        "heads": ["picture", "score", "threshold", "verdict", "p-value", "regions", *truth, "nearest good picture"],
        "rows": _rows(ranked, shown.shown, labelled=labelled),
        "pictures": len(ranked),
    }
    return write_page(path, "report.html", values)


def figures(measured: Evaluation) -> dict[str, str]:
    """Return the metrics that could be measured, name by name."""
    values = {
        "image AUROC": measured.image_auroc,
        "image F1 (best)": measured.image_f1,
        "pixel AUROC": measured.pixel_auroc,
        "pixel AUPRO 0.3": measured.pixel_aupro,
    }
    return {name: f"{value:.4f}" for name, value in values.items() if math.isfinite(value)}


def _behind(promise: Promise) -> Histogram | None:
    """Return the histogram of the good pictures that set the threshold, with the threshold in use."""
    scores = promise.calibration.scores
    series = ("held-out good pictures", "good", scores.tolist())
    bins = min(max(len(scores) // 5, 10), 24)
    what = "scores of good pictures"
    return score_histogram([series], [promise.threshold], what=what, width=520, height=150, bins=bins)


def _scores(entries: Sequence[ReportEntry]) -> Histogram | None:
    """Return the histogram of all scores, known good and known defective ones apart, with the threshold."""
    kinds = ((0, "known good", "good"), (1, "known defective", "defect"), (None, "pictures", "plain"))
    series = [(name, kind, [entry.score for entry in entries if entry.label == label]) for label, name, kind in kinds]
    thresholds = [e.threshold for e in entries if e.threshold is not None and math.isfinite(e.score)]
    return score_histogram(series, thresholds)


def _curve(entries: Sequence[ReportEntry]) -> Curves | None:
    """Return the ROC curve of labelled pictures; None where they are of one kind alone."""
    points = roc_points([int(entry.label == 1) for entry in entries], [entry.score for entry in entries])
    if not points:
        return None
    axes = ("share of good pictures called defective", "share of defects found")
    return Curves("ROC curve of pictures", *axes, [Curve("", points)], operating=_operating_point(entries))


def _operating_point(entries: Sequence[ReportEntry]) -> tuple[float, float] | None:
    """Return the shares of false alarms and of defects found at the verdicts' threshold; None without verdicts."""
    if any(entry.is_anomalous is None for entry in entries):
        return None
    good = [entry for entry in entries if entry.label == 0]
    defects = [entry for entry in entries if entry.label == 1]
    alarms, missed = sum(entry.false_alarm for entry in good), sum(entry.missed for entry in defects)
    return alarms / len(good), 1 - missed / len(defects)


def _kinds(entries: Sequence[ReportEntry], measured: Evaluation | None) -> list[list[str]]:
    """Return a table of labelled pictures: its head, a row for each kind of defect, one for the good pictures."""
    if not entries:
        return []
    by_kind: dict[str, list[ReportEntry]] = {}
    for entry in entries:
        if entry.label == 1:
            by_kind.setdefault(entry.truth, []).append(entry)
    rows = [["labelled", "pictures", "judged wrongly", "lowest score", "highest", "image AUROC"]]
    for kind in sorted(by_kind)[:_MOST_KINDS]:
        separate = None if measured is None else measured.defect_auroc.get(kind)
        rows.append(_kind(kind, by_kind[kind], number(separate, 4)))
    good = [entry for entry in entries if entry.label == 0]
    return [*rows, _kind("good", good, "–")] if good else rows


def _kind(name: str, entries: Sequence[ReportEntry], separate: str) -> list[str]:
    scores = [entry.score for entry in entries]
    wrong = sum(entry.missed or entry.false_alarm for entry in entries)
    judged = str(wrong) if entries[0].is_anomalous is not None else "–"
    return [name, str(len(entries)), judged, number(min(scores)), number(max(scores)), separate]


def _rows(entries: Sequence[ReportEntry], shown: set[int], *, labelled: bool) -> list["Markup"]:
    """Return the rows of the table, as far as the room goes."""
    rows: list[Markup] = []
    room = _TABLE_BYTES
    for rank, entry in enumerate(entries):
        row = render("row.html", {"rank": rank, "entry": entry, "labelled": labelled, "linked": rank in shown})
        room -= len(row)
        if room < 0:
            break
        rows.append(row)
    return rows
