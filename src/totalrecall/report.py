"""The HTML report: one file that opens anywhere, offline, with the numbers, the scores and the pictures.

Its size is bounded: overlays are shown in full while `_FULL_BYTES` lasts, then small while `_SMALL_BYTES` lasts, and
table rows while `_TABLE_BYTES` lasts; each limit that was met is said in the page.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from totalrecall.calibration import Calibration
from totalrecall.report_calibration import PARTS_A_DAY, calibration_section
from totalrecall.report_page import jpeg_uri, number, text, write_page
from totalrecall.report_patches import patch_pair
from totalrecall.report_plot import Series, histogram
from totalrecall.results import Result
from totalrecall.types import Image

__all__ = ["ReportEntry", "write_report"]

_FULL_BYTES, _SMALL_BYTES, _TABLE_BYTES = 2_300_000, 1_600_000, 600_000  # of HTML; together under 5 MB
_FULL_WIDTH, _SMALL_WIDTH = 860, 300
_MOST_FULL, _MOST_NAMED = 24, 60


@dataclass(frozen=True)
class ReportEntry:
    """One picture's row.

    Attributes:
        path: the picture's file.
        score: bigger is more anomalous.
        threshold: the verdict's threshold; None if there is none.
        is_anomalous: the verdict; None without a threshold.
        p_value: share of good pictures expected to score at least this high; None if unknown.
        regions_count: number of regions above the pixel threshold.
        overlay: the overlay, or the file that `save_overlay` wrote; None shows none.
        label: 0 good, 1 anomalous, None unknown.
        nearest: the good picture that the worst patch was nearest to.
        worst: x and y of the worst patch, in the picture's pixels; None shows no patches.
        nearest_at: x and y of the good patch, in pixels of `nearest`; None shows no patches.
    """

    path: str | Path
    score: float
    threshold: float | None
    is_anomalous: bool | None
    p_value: float | None = None
    regions_count: int = 0
    overlay: Image | Path | None = None
    label: int | None = None
    nearest: str | None = None
    worst: tuple[int, int] | None = None
    nearest_at: tuple[int, int] | None = None

    @classmethod
    def of(cls, result: Result, *, overlay: Image | Path | None = None, label: int | None = None) -> "ReportEntry":
        """Return the row of a result."""
        judged, nearest = math.isfinite(result.threshold), result.nearest
        return cls(
            result.path,
            result.score,
            result.threshold if judged else None,
            result.is_anomalous if judged else None,
            p_value=result.p_value,
            regions_count=len(result.regions),
            overlay=overlay,
            label=label,
            nearest=None if nearest is None else nearest.path,
            worst=result.worst,
            nearest_at=None if nearest is None else (nearest.x, nearest.y),
        )


def write_report(
    path: str | Path,
    *,
    title: str,
    model_info: Mapping[str, str],
    entries: Sequence[ReportEntry],
    summary: Mapping[str, str] | None = None,
    bad_files: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    calibration: Calibration | None = None,
    threshold: float | None = None,
    parts_a_day: int = PARTS_A_DAY,
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
        calibration: of the detector; its scores and what they promise are shown.
        threshold: that the detector judged by, where it is not the calibration's own but was taught.
        parts_a_day: good parts that pass, for the expected false alarms a day.

    Raises:
        DataError: the folder cannot be made or written.
    """
    ranked = sorted(entries, key=lambda entry: -entry.score if math.isfinite(entry.score) else math.inf)
    gallery, shown = _gallery(ranked)
    body = [
        f"<h1>{text(title)}</h1>",
        *(f'<p class="note">{text(note)}</p>' for note in notes),
        _tiles(_counts(ranked, bad_files) | dict(summary or {})),
        _bad_files(bad_files),
        _facts(model_info),
        "" if calibration is None else calibration_section(calibration, threshold=threshold, parts_a_day=parts_a_day),
        _histogram(ranked),
        gallery,
        _table(ranked, shown),
    ]
    return write_page(path, title, body)


def _short_name(path: str | Path) -> str:
    """Return the file's name with its folder, which in many layouts says what the picture is."""
    return "/".join(Path(path).parts[-2:]) or str(path)


def _verdict(entry: ReportEntry) -> str:
    """Return the verdict as a shape, a word and a colour, so that none of them is needed alone."""
    if entry.is_anomalous is None:
        return '<span class="verdict unsure"><span aria-hidden="true">■</span> no verdict</span>'
    kind, shape, word = ("bad", "▲", "DEFECT") if entry.is_anomalous else ("fine", "●", "GOOD")
    wrong = ""
    if entry.label is not None and bool(entry.label) != entry.is_anomalous:
        wrong = f' <span class="wrong">{"false alarm" if entry.is_anomalous else "missed"}</span>'
    return f'<span class="verdict {kind}"><span aria-hidden="true">{shape}</span> {word}</span>{wrong}'


def _counts(entries: Sequence[ReportEntry], bad_files: Sequence[tuple[str, str]]) -> dict[str, str]:
    counts = {"pictures": str(len(entries))}
    if any(entry.is_anomalous is not None for entry in entries):
        counts["judged defective"] = str(sum(entry.is_anomalous is True for entry in entries))
        counts["judged good"] = str(sum(entry.is_anomalous is False for entry in entries))
    judged = [entry for entry in entries if entry.label is not None and entry.is_anomalous is not None]
    if judged:
        counts["missed defects"] = str(sum(entry.label == 1 and not entry.is_anomalous for entry in judged))
        counts["false alarms"] = str(sum(entry.label == 0 and bool(entry.is_anomalous) for entry in judged))
    if bad_files:
        counts["unreadable"] = str(len(bad_files))
    return counts


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
    return f'<section class="alert"><h2>Files that could not be scored</h2><ul>{items}</ul>{rest}</section>'


def _histogram(entries: Sequence[ReportEntry]) -> str:
    """Return the scores, known good and known defective apart, with the threshold marked."""
    kinds = ((0, "known good", "good"), (1, "known defective", "defect"), (None, "pictures", "plain"))
    series = [
        Series(name, kind, [entry.score for entry in entries if entry.label == label]) for label, name, kind in kinds
    ]
    thresholds = [e.threshold for e in entries if e.threshold is not None and math.isfinite(e.score)]
    drawn = histogram(series, thresholds)
    return f"<section><h2>Scores</h2>{drawn}</section>" if drawn else ""


def _gallery(entries: Sequence[ReportEntry]) -> tuple[str, set[int]]:
    """Return the overlays, highest scores in full and the rest small, within the page's budget; and whose are shown."""
    full: list[str] = []
    small: list[str] = []
    shown: set[int] = set()
    left_out = 0
    budget = {_FULL_WIDTH: _FULL_BYTES, _SMALL_WIDTH: _SMALL_BYTES}
    for rank, entry in enumerate(entries):
        if entry.overlay is None:
            continue
        if len(full) == _MOST_FULL:
            budget[_FULL_WIDTH] = 0
        for figures, width in ((full, _FULL_WIDTH), (small, _SMALL_WIDTH)):
            figure = _figure(rank, entry, width) if budget[width] > 0 else ""
            if figure and len(figure) <= budget[width]:
                budget[width] -= len(figure)
                figures.append(figure)
                shown.add(rank)
                break
            budget[width] = min(budget[width], 0) if figure else budget[width]  # no gaps: once full, it stays full
        else:
            left_out += 1
    parts = []
    if full:
        parts.append(
            f'<section><h2>Pictures, highest score first</h2><div class="gallery">{"".join(full)}</div></section>'
        )
    if small:
        parts.append(
            f'<section><h2>The next {len(small)}, small</h2><div class="gallery small">{"".join(small)}</div></section>'
        )
    if left_out:
        parts.append(f'<p class="note">{left_out} more overlays are left out to keep this page small.</p>')
    return "\n".join(parts), shown


def _figure(rank: int, entry: ReportEntry, width: int) -> str:
    """Return one overlay with its caption, or nothing where the overlay's file is gone."""
    source = jpeg_uri(entry.overlay, width) if entry.overlay is not None else None
    if source is None:
        return ""
    name = text(_short_name(entry.path))
    patches = _patches(entry) if width == _FULL_WIDTH else ""
    return (
        f'<figure id="p{rank}"><img loading="lazy" alt="Overlay of {name}" src="{source}">{patches}'
        f"<figcaption>{_verdict(entry)} <b>{number(entry.score)}</b> <bdi>{name}</bdi></figcaption></figure>"
    )


def _patches(entry: ReportEntry) -> str:
    """Return the worst patch beside the good one, or nothing where one is not known or its file is gone."""
    if entry.worst is None or entry.nearest is None or entry.nearest_at is None:
        return ""
    names = (_short_name(entry.path), _short_name(entry.nearest))
    return patch_pair(entry.path, entry.worst, entry.nearest, entry.nearest_at, names)


def _table(entries: Sequence[ReportEntry], shown: set[int]) -> str:
    if not entries:
        return ""
    labelled = any(entry.label is not None for entry in entries)
    truth = ["truth"] if labelled else []
    heads = ["picture", "score", "threshold", "verdict", "p-value", "regions", *truth, "nearest good picture"]
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
    name = f'<bdi title="{text(entry.path)}">{text(_short_name(entry.path))}</bdi>'
    if linked:
        name = f'<a href="#p{rank}">{name}</a>'
    nearest = f'<bdi title="{text(entry.nearest)}">{text(_short_name(entry.nearest))}</bdi>' if entry.nearest else "–"
    truth = {0: "good", 1: "defective", None: "–"}[entry.label]
    return (
        f'<tr><th scope="row"><span class="rank">{rank + 1}</span> {name}</th>'
        f'<td class="num">{number(entry.score)}</td><td class="num">{number(entry.threshold)}</td>'
        f'<td>{_verdict(entry)}</td><td class="num">{number(entry.p_value, 4)}</td>'
        f'<td class="num">{entry.regions_count}</td>{f"<td>{truth}</td>" if labelled else ""}<td>{nearest}</td></tr>\n'
    )
