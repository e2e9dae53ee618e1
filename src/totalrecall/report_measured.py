"""What a report says of labelled pictures: how the scores part good from bad, in a curve and by kind of defect."""

import math
from collections.abc import Sequence

from totalrecall.benchmark_curves import roc_points
from totalrecall.evaluation import Evaluation
from totalrecall.report_entry import ReportEntry
from totalrecall.report_page import LONGEST_NOTE, number, text
from totalrecall.report_plot import roc

__all__ = ["figures", "measured_section"]

_MOST_KINDS = 60


def figures(measured: Evaluation) -> dict[str, str]:
    """Return the metrics that could be measured, name by name."""
    values = {
        "image AUROC": measured.image_auroc,
        "image F1 (best)": measured.image_f1,
        "pixel AUROC": measured.pixel_auroc,
        "pixel AUPRO 0.3": measured.pixel_aupro,
    }
    return {name: f"{value:.4f}" for name, value in values.items() if math.isfinite(value)}


def measured_section(entries: Sequence[ReportEntry], measured: Evaluation | None = None) -> str:
    """Return the ROC curve beside a table of the kinds of defect; nothing where no picture is labelled.

    Args:
        entries: of which those that are labelled count.
        measured: the metrics; those that could not be measured are named with the reason.
    """
    labelled = [(entry.label, entry) for entry in entries if entry.label is not None and math.isfinite(entry.score)]
    if not labelled:
        return ""
    points = roc_points([label for label, _ in labelled], [entry.score for _, entry in labelled])
    reasons = measured.reasons if measured is not None else {}
    notes = "".join(f'<p class="note">{level} metrics: {text(why, LONGEST_NOTE)}</p>' for level, why in reasons.items())
    plot = f"<div>{roc(points, _operating_point([entry for _, entry in labelled]))}</div>" if points else ""
    return (
        f'<section><h2>Good against defective</h2>{notes}<div class="promise">{plot}'
        f"{_kinds([entry for _, entry in labelled], measured)}</div></section>"
    )


def _operating_point(entries: Sequence[ReportEntry]) -> tuple[float, float] | None:
    """Return the shares of false alarms and of defects found at the verdicts' threshold; None without verdicts."""
    if any(entry.is_anomalous is None for entry in entries):
        return None
    good = [entry for entry in entries if entry.label == 0]
    defects = [entry for entry in entries if entry.label == 1]
    alarms, missed = sum(entry.false_alarm for entry in good), sum(entry.missed for entry in defects)
    return alarms / len(good), 1 - missed / len(defects)


def _kinds(entries: Sequence[ReportEntry], measured: Evaluation | None) -> str:
    """Return a row a kind of defect, and one for the good pictures."""
    defects = [entry for entry in entries if entry.label == 1]
    rows = []
    for kind in sorted({entry.defect or "defective" for entry in defects})[:_MOST_KINDS]:
        own = [entry for entry in defects if (entry.defect or "defective") == kind]
        separate = measured.defect_auroc.get(kind) if measured is not None else None
        rows.append(_row(text(kind), own, sum(entry.missed for entry in own), number(separate, 4)))
    good = [entry for entry in entries if entry.label == 0]
    if good:
        rows.append(_row("good", good, sum(entry.false_alarm for entry in good), "–"))
    heads = ("labelled", "pictures", "judged wrongly", "lowest score", "highest", "image AUROC")
    head = "".join(f'<th scope="col"{_numeric(at)}>{name}</th>' for at, name in enumerate(heads))
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="kinds">{body}</table></div>'


def _row(name: str, entries: Sequence[ReportEntry], wrong: int, separate: str) -> str:
    scores = [entry.score for entry in entries]
    judged = str(wrong) if entries[0].is_anomalous is not None else "–"
    cells = (str(len(entries)), judged, number(min(scores)), number(max(scores)), separate)
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td{_numeric(1)}>{cell}</td>" for cell in cells)}</tr>'


def _numeric(at: int) -> str:
    return ' class="num"' if at else ""
