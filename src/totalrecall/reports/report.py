"""What stands behind the threshold, for the report: how good pictures scored, and what follows from it, in words."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from totalrecall.detectors.promise import Promise
from totalrecall.evaluation.curves import roc_points
from totalrecall.evaluation.evaluate import Evaluation
from totalrecall.reports.gallery import ReportEntry, counts, gallery, short_name, truth, verdict
from totalrecall.reports.page import LONGEST_NOTE, number, text, write_page
from totalrecall.reports.plots import Series, histogram, roc

__all__ = ["calibration_section", "figures", "measured_section", "write_report"]


def calibration_section(
    promise: Promise,
    *,
    parts_a_day: int | None = None,
) -> str:
    """Return the histogram of the good pictures' scores with the threshold, beside the promise.

    Args:
        promise: of the threshold that the detector judged by.
        parts_a_day: good parts that pass, for the expected false alarms a day; None assumes a number and says so.
    """
    calibration, used, facts = promise.calibration, promise.threshold, promise.rows(parts_a_day)
    rows = "".join(
        f"<tr><th scope=row>{text(name)}</th><td>{text(words, LONGEST_NOTE)}</td></tr>" for name, words in facts.items()
    )
    count = len(calibration.scores)
    series = Series("good pictures, none learnt when it was scored", "good", calibration.scores.tolist())
    bins = min(max(count // 5, 10), 24)
    drawn = histogram([series], [used], what="scores of good pictures", width=520, height=150, bins=bins)
    plot = f"<div>{drawn}</div>" if drawn else ""
    return (
        f'<section><h2>What the threshold promises</h2><div class="promise">{plot}'
        f'<table class="facts">{rows}</table></div></section>'
    )


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
        rows.append(_measured_row(text(kind), own, sum(entry.missed for entry in own), number(separate, 4)))
    good = [entry for entry in entries if entry.label == 0]
    if good:
        rows.append(_measured_row("good", good, sum(entry.false_alarm for entry in good), "–"))
    heads = ("labelled", "pictures", "judged wrongly", "lowest score", "highest", "image AUROC")
    head = "".join(f'<th scope="col"{_numeric(at)}>{name}</th>' for at, name in enumerate(heads))
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="kinds">{body}</table></div>'


def _measured_row(name: str, entries: Sequence[ReportEntry], wrong: int, separate: str) -> str:
    scores = [entry.score for entry in entries]
    judged = str(wrong) if entries[0].is_anomalous is not None else "–"
    cells = (str(len(entries)), judged, number(min(scores)), number(max(scores)), separate)
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td{_numeric(1)}>{cell}</td>" for cell in cells)}</tr>'


def _numeric(at: int) -> str:
    return ' class="num"' if at else ""


_TABLE_BYTES = 600_000  # of HTML; with the pictures under 5 MB
_MOST_NAMED = 60


def write_report(
    path: str | Path,
    *,
    title: str,
    model_info: Mapping[str, str],
    entries: Sequence[ReportEntry],
    summary: Mapping[str, str] | None = None,
    bad_files: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    promise: Promise | None = None,
    parts_a_day: int | None = None,
    measured: Evaluation | None = None,
) -> Path:
    """Write the report, under 5 MB whatever the number of entries, and return its path.

    Args:
        path: the HTML file.
        title: the page's heading.
        model_info: what was done, name by name: pictures fitted on, backbone, threshold, false-alarm rate.
        entries: the pictures scored, in any order; the page shows the highest score first.
        summary: the few numbers to see first, name by name; counts of pictures and verdicts are put before them.
        bad_files: files that could not be scored, each with the reason.
        notes: sentences to print under the heading, such as "The pictures are synthetic."
        promise: of the threshold that the detector judged by; it is shown with the scores behind it.
        parts_a_day: good parts that pass, for the expected false alarms a day; None assumes a number and says so.
        measured: the metrics, where the pictures are labelled.

    Raises:
        DataError: the folder cannot be made or written.
    """
    ranked = sorted(entries, key=lambda entry: -entry.score if math.isfinite(entry.score) else math.inf)
    pictures, shown = gallery(ranked)
    body = [
        f"<h1>{text(title)}</h1>",
        *(f'<p class="note">{text(note)}</p>' for note in notes),
        _tiles(counts(ranked, len(bad_files)) | ({} if measured is None else figures(measured)) | dict(summary or {})),
        _bad_files(bad_files),
        _facts(model_info),
        "" if promise is None else calibration_section(promise, parts_a_day=parts_a_day),
        _histogram(ranked),
        measured_section(ranked, measured),
        pictures,
        _table(ranked, shown),
    ]
    return write_page(path, title, body)


def _tiles(numbers: Mapping[str, str]) -> str:
    tiles = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in numbers.items())
    return f'<dl class="tiles">{tiles}</dl>'


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th scope=row>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in facts.items())
    return f'<section><h2>What was done</h2><table class="facts">{rows}</table></section>' if rows else ""


def _bad_files(bad_files: Sequence[tuple[str, str]]) -> str:
    if not bad_files:
        return ""
    items = "".join(
        f"<li><bdi><code>{text(name)}</code></bdi> {text(reason)}</li>" for name, reason in bad_files[:_MOST_NAMED]
    )
    more = len(bad_files) - _MOST_NAMED
    rest = f"<p>and {more} more</p>" if more > 0 else ""
    return f'<section class="alert"><h2>Files that could not be used</h2><ul>{items}</ul>{rest}</section>'


def _histogram(entries: Sequence[ReportEntry]) -> str:
    """Return the scores, known good and known defective apart, with the threshold marked."""
    kinds = ((0, "known good", "good"), (1, "known defective", "defect"), (None, "pictures", "plain"))
    series = [
        Series(name, kind, [entry.score for entry in entries if entry.label == label]) for label, name, kind in kinds
    ]
    thresholds = [e.threshold for e in entries if e.threshold is not None and math.isfinite(e.score)]
    drawn = histogram(series, thresholds)
    return f"<section><h2>Scores</h2>{drawn}</section>" if drawn else ""


def _table(entries: Sequence[ReportEntry], shown: set[int]) -> str:
    if not entries:
        return ""
    labelled = any(entry.label is not None for entry in entries)
    known = ["truth"] if labelled else []
    heads = ["picture", "score", "threshold", "verdict", "p-value", "regions", *known, "nearest good picture"]
    rows: list[str] = []
    room = _TABLE_BYTES
    for rank, entry in enumerate(entries):
        row = _row(rank, entry, labelled=labelled, linked=rank in shown)
        room -= len(row)
        if room < 0:
            break
        rows.append(row)
    more = len(rows) < len(entries)
    rest = f'<p class="note">The {len(rows)} highest of {len(entries)} are listed.</p>' if more else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<section><h2>All pictures</h2>{rest}<div class="scroll"><table class="rows">'
        "<caption>Highest score first. The p-value is the share of good pictures expected to score at least as high"
        "</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _row(rank: int, entry: ReportEntry, *, labelled: bool, linked: bool) -> str:
    name = f'<bdi title="{text(entry.path)}">{text(short_name(entry.path))}</bdi>'
    if linked:
        name = f'<a href="#p{rank}">{name}</a>'
    nearest = f'<bdi title="{text(entry.nearest)}">{text(short_name(entry.nearest))}</bdi>' if entry.nearest else "–"
    known = f"<td>{truth(entry)}</td>" if labelled else ""
    return (
        f'<tr><th scope="row"><span class="rank">{rank + 1}</span> {name}</th>'
        f'<td class="num">{number(entry.score)}</td><td class="num">{number(entry.threshold)}</td>'
        f'<td>{verdict(entry)}</td><td class="num">{number(entry.p_value, 4)}</td>'
        f'<td class="num">{entry.regions_count}</td>{known}<td>{nearest}</td></tr>\n'
    )
