"""An ablation's rows as tables and CSV: means over categories and seeds, and points above the default."""

import io
import math
import statistics
from collections.abc import Mapping, Sequence

from totalrecall.benchmark_ablate import Ablation, Variant
from totalrecall.benchmark_tables import AVERAGE, METRICS, Figure, Table, figures
from totalrecall.spreadsheet import csv_line
from totalrecall.wording import counted

__all__ = ["ablation_csv", "ablation_tables", "narrow"]

_SHOWN = ("image_auroc", "image_f1", "pixel_auroc", "pixel_aupro")
_COMPARED = ("image_auroc", "pixel_auroc", "pixel_aupro")

_NARROW = {
    "setting": "setting",
    "image AUROC": "image",
    "points": "points",
    "pixel AUPRO 0.3": "AUPRO",
    "ms a picture": "ms",
}

Found = Mapping[tuple[str, int | None, str, str], Figure]  # by row, number of good pictures, category and metric


def ablation_tables(ablation: Ablation) -> list[Table]:
    """Return a table for each number of good pictures, and one of categories where there are several.

    Metrics are in percent, averages over categories and seeds; differences are in points, from the default.
    """
    found = _figures(ablation)
    shots = list(dict.fromkeys(figure.group[1] for figure in found.values()))
    tables = [_averages(ablation, found, count) for count in shots]
    categories = [name for name in dict.fromkeys(key[2] for key in found) if name != AVERAGE]
    if len(categories) > 1:
        tables += [_by_category(ablation, found, count, categories) for count in shots]
    return tables


def _figures(ablation: Ablation) -> Found:
    lines = [
        {**line, "setup": {**line["setup"], "method": row.name}}
        for row, mine in zip(ablation.variants, ablation.lines, strict=True)
        for line in mine
    ]
    return {(*figure.group, figure.category, figure.metric): figure for figure in figures(lines)}


def _averages(ablation: Ablation, found: Found, shots: int | None) -> Table:
    heads = ["setting"]
    for metric in _SHOWN:
        heads += [METRICS[metric], *(["points"] if metric in _COMPARED else [])]
    heads += ["ms a picture", "vectors", "fit s"]
    rows = []
    for row, mine in zip(ablation.variants, ablation.lines, strict=True):
        cells = [f"{row.name} (default)" if row.is_default and row.label else row.name]
        for metric in _SHOWN:
            cells.append(_percent(found.get((row.name, shots, AVERAGE, metric))))
            if metric in _COMPARED:
                cells.append(_points(found, row, shots, AVERAGE, metric))
        some = [line for line in mine if line["setup"]["shots"] == shots]
        cells.append(_mean([line["latency_ms"] for line in some], 1))
        cells.append(_mean([line["model"]["vectors"] for line in some], 0))
        fits = [sum(value for step, value in line["seconds"].items() if step != "evaluate") for line in some]
        cells.append(_mean(fits, 1))
        rows.append(cells)
    note = (
        "Percent, averages over categories and seeds; points: the difference from the default. "
        "ms: the median of single predicts, file to result."
    )
    spread = {metric: found.get(("default", shots, AVERAGE, metric)) for metric in _COMPARED}
    words = [
        f"{METRICS[metric]} {figure.spread:.2f}"
        for metric, figure in spread.items()
        if figure is not None and math.isfinite(figure.spread)
    ]
    if words:
        note += f" Standard deviation of the default over seeds: {', '.join(words)}."
    return Table(f"One setting changed at a time{_of(shots)}", heads, rows, note)


def narrow(table: Table) -> Table:
    """Return the columns that a terminal of 80 letters has room for: of the points, those of the image AUROC."""
    at = [list(table.heads).index(head) for head in _NARROW]
    return Table(table.title, list(_NARROW.values()), [[row[column] for column in at] for row in table.rows])


def _by_category(ablation: Ablation, found: Found, shots: int | None, categories: Sequence[str]) -> Table:
    rows = []
    for row in ablation.variants:
        figures_of = [found.get((row.name, shots, category, "image_auroc")) for category in categories]
        rows.append([row.name, *map(_percent, figures_of)])
    return Table(f"{METRICS['image_auroc']} by category, percent{_of(shots)}", ["setting", *categories], rows)


def ablation_csv(ablation: Ablation) -> str:
    """Return every figure, a row each: by row of the table, number of good pictures, category and metric."""
    target = io.StringIO()
    target.write(
        csv_line(
            ["factor", "setting", "default", "shots", "category", "metric", "mean", "spread", "seeds", "difference"]
        )
    )
    found = _figures(ablation)
    rows = {row.name: row for row in ablation.variants}
    for (name, shots, category, metric), figure in found.items():
        row = rows[name]
        target.write(
            csv_line(
                [
                    row.factor,
                    row.label,
                    "yes" if row.is_default else "no",
                    "all" if shots is None else shots,
                    category,
                    metric,
                    _exact(figure.mean),
                    _exact(figure.spread),
                    figure.seeds,
                    _exact(_difference(found, row, shots, category, metric)),
                ]
            )
        )
    return target.getvalue()


def _difference(found: Found, row: Variant, shots: int | None, category: str, metric: str) -> float:
    """Return the points above the default; nan where either is not known."""
    mine, default = found.get((row.name, shots, category, metric)), found.get(("default", shots, category, metric))
    return math.nan if mine is None or default is None else mine.mean - default.mean


def _points(found: Found, row: Variant, shots: int | None, category: str, metric: str) -> str:
    difference = _difference(found, row, shots, category, metric)
    if row.is_default or not math.isfinite(difference):
        return "–"
    return f"{difference:+.2f}"


def _percent(figure: Figure | None) -> str:
    return "–" if figure is None or not math.isfinite(figure.mean) else f"{figure.mean:.2f}"


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.{digits}f}" if known else "–"


def _of(shots: int | None) -> str:
    return "" if shots is None else f", {counted(shots, 'good picture')}"


def _exact(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
