"""The lines of a benchmark's cells as tables: means and spreads over seeds, published values beside, Markdown and CSV.

All metrics are in percent here, and differences in points. A spread is the standard deviation over seeds (n - 1).
"""

import csv
import io
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "AVERAGE",
    "METRICS",
    "Figure",
    "Reference",
    "Table",
    "choose_reference",
    "csv_text",
    "figures",
    "group_name",
    "markdown",
    "metric_tables",
    "resource_table",
    "shots_table",
    "summary_table",
]

METRICS = {
    "image_auroc": "image AUROC",
    "image_average_precision": "image AP",
    "image_f1": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pixel_aupro": "pixel AUPRO 0.3",
}
AVERAGE = "average"

Line = Mapping[str, Any]
Group = tuple[str, int | None]  # method and shots: a column


@dataclass(frozen=True)
class Reference:
    """One published value, in percent."""

    method: str
    backbone: str
    category: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class Figure:
    """One metric of one method on one category, or on the average of all.

    Attributes:
        mean: over seeds, percent; nan where it cannot be measured.
        spread: standard deviation over seeds; nan for fewer than two.
        seeds: how many are in it.
        published: the reference, or None.
    """

    group: Group
    category: str
    metric: str
    mean: float
    spread: float
    seeds: int
    published: Reference | None = None

    @property
    def difference(self) -> float:
        """Points above the published value; nan without one."""
        return math.nan if self.published is None else self.mean - self.published.value


@dataclass(frozen=True)
class Table:
    """A table as text. The first column names the row; numbers are the others. `note` stands below."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def group_name(group: Group) -> str:
    """Return a column's name: the method, and how many pictures it saw where that was few."""
    method, shots = group
    return method if shots is None else f"{method}, {shots} picture{'' if shots == 1 else 's'}"


def figures(lines: Sequence[Line], reference: Iterable[Reference] = ()) -> list[Figure]:
    """Return every metric of every method by category, then the average; with the nearest published values."""
    published = list(reference)
    found = []
    for group in _groups(lines):
        mine = [line for line in lines if _group(line) == group]
        categories = _unique(line["setup"]["category"] for line in mine)
        beside = published if group[1] is None else []  # the published values are of all pictures
        for metric in METRICS:
            chosen = choose_reference(beside, group[0], mine[0]["setup"]["backbone"], metric, categories)
            values = {category: _by_seed(mine, category, metric) for category in categories}
            found += [
                _figure(group, category, metric, list(by_seed.values()), chosen.get(category))
                for category, by_seed in values.items()
            ]
            found.append(_average(group, metric, values, chosen.get(AVERAGE)))
    return found


def choose_reference(
    reference: Iterable[Reference], method: str, backbone: str, metric: str, categories: Sequence[str]
) -> dict[str, Reference]:
    """Return published values by category, all of one source and one backbone: the nearest to ours, then the fullest.

    The average is of the same categories as ours; where it was published alone it serves only if nothing else does.
    """
    sources: dict[tuple[str, str], dict[str, Reference]] = {}
    for row in reference:
        if row.method == method and row.metric == metric:
            sources.setdefault((row.backbone, row.source), {}).setdefault(row.category, row)
    ranked = sorted(
        sources.items(),
        key=lambda item: (_distance(backbone, item[0][0]), -len({*categories, AVERAGE} & item[1].keys())),
    )
    for _, rows in ranked:
        chosen = {category: rows[category] for category in categories if category in rows}
        if categories and len(chosen) == len(categories):
            first = chosen[categories[0]]
            mean = statistics.fmean(row.value for row in chosen.values())
            whole = rows.get(AVERAGE) if len(rows) - (AVERAGE in rows) == len(categories) else None
            chosen[AVERAGE] = whole or Reference(method, first.backbone, AVERAGE, metric, mean, first.source)
        if chosen:
            return chosen
    return {}


def metric_tables(found: Sequence[Figure]) -> list[Table]:
    """Return a table a metric: categories down, methods across, each with the published value and the difference.

    Of several numbers of good pictures only the most are shown; `shots_table` has the others.
    """
    tables = []
    groups = _unique(figure.group for figure in found)
    most = max((math.inf if shots is None else shots for _, shots in groups), default=0)
    groups = [group for group in groups if (math.inf if group[1] is None else group[1]) == most]
    for metric, title in METRICS.items():
        mine = {(one.group, one.category): one for one in found if one.metric == metric and one.group in groups}
        heads, sources = ["category"], []
        compared = [group for group in groups if any(mine[key].published for key in mine if key[0] == group)]
        for group in groups:
            heads.append(group_name(group))
            if group in compared:
                first = next(mine[key].published for key in mine if key[0] == group and mine[key].published)
                assert first is not None
                heads += [f"published ({first.backbone})", "difference"]
                sources.append(f"{group_name(group)}: {first.backbone}, {first.source}")
        rows = []
        categories = [name for name in _unique(key[1] for key in mine) if name != AVERAGE]
        for category in [*categories, AVERAGE]:
            row = [category]
            for group in groups:
                row += _cells(mine.get((group, category)), compared=group in compared)
            rows.append(row)
        note = f"Published: {'; '.join(sources)}." if sources else ""
        tables.append(Table(f"{title}, percent", heads, rows, note))
    return tables


def summary_table(found: Sequence[Figure]) -> Table:
    """Return the averages over categories: methods down, metrics across."""
    averages = {(figure.group, figure.metric): figure for figure in found if figure.category == AVERAGE}
    rows = [
        [group_name(group), *(_value(averages.get((group, metric))) for metric in METRICS)]
        for group in _unique(group for group, _ in averages)
    ]
    return Table("Average over categories, percent", ["method", *METRICS.values()], rows)


def shots_table(found: Sequence[Figure]) -> Table | None:
    """Return the average over categories by number of good pictures; None where all cells saw all of them."""
    averages = {(figure.group, figure.metric): figure for figure in found if figure.category == AVERAGE}
    counts = _unique(group[1] for group, _ in averages)
    if all(count is None for count in counts):
        return None
    methods = _unique(group[0] for group, _ in averages)
    shown = ("image_auroc", "pixel_auroc", "pixel_aupro")
    heads = ["good pictures", *(f"{method} {METRICS[metric]}" for method in methods for metric in shown)]
    rows = [
        [
            "all" if count is None else str(count),
            *(_value(averages.get(((method, count), metric))) for method in methods for metric in shown),
        ]
        for count in sorted(counts, key=lambda count: math.inf if count is None else count)
    ]
    return Table("Low shot: average over categories, percent", heads, rows)


def resource_table(lines: Sequence[Line]) -> Table:
    """Return seconds by stage, latency, peak memory and size of the model, means over seeds."""
    stages = ("features", "coreset", "calibration", "evaluate")
    heads = ["method", "category", *(f"{stage} s" for stage in stages), "latency ms", "peak MB", "model", "model MB"]
    rows = []
    for group in _groups(lines):
        for category in _unique(line["setup"]["category"] for line in lines):
            mine = [line for line in lines if _group(line) == group and line["setup"]["category"] == category]
            if not mine:
                continue
            seconds = [_mean(line["seconds"].get(stage) for line in mine) for stage in stages]
            model = mine[0]["model"]
            rows.append(
                [
                    group_name(group),
                    category,
                    *(_number(value, 1) for value in seconds),
                    _number(_mean(line["latency_ms"] for line in mine), 1),
                    _number(_mean(line["peak_memory"] / 1e6 for line in mine), 0),
                    f"{model['vectors']} x {model['dimensions']}",
                    _number(_mean(line["model"]["bytes"] / 1e6 for line in mine), 1),
                ]
            )
    note = "Latency: the median of single predicts, file to result. Model: vectors (positions, patches) x numbers each."
    if any(line["peak_of"] == "process" for line in lines):
        note += " Peak memory is that of the whole process so far: this system does not count it by cell."
    return Table("What it took", heads, rows, note)


def markdown(title: str, notes: Sequence[str], tables: Sequence[Table]) -> str:
    """Return a Markdown page of notes and tables."""
    parts = [f"# {_plain(title)}", "", *(f"{_plain(note)}\n" for note in notes)]
    for table in tables:
        parts += [f"## {_plain(table.title)}", ""]
        parts.append(f"| {' | '.join(_plain(head) for head in table.heads)} |")
        parts.append(f"| --- |{' ---: |' * (len(table.heads) - 1)}")
        parts += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in table.rows]
        parts += ["", *([f"{_plain(table.note)}\n"] if table.note else [])]
    return "\n".join(parts).rstrip() + "\n"


def csv_text(found: Sequence[Figure]) -> str:
    """Return all figures, a row each; what is not known is empty."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(
        [
            "method", "shots", "category", "metric", "mean", "spread", "seeds", "published", "difference",
            "published_backbone", "published_source",
        ]
    )  # fmt: skip
    for figure in found:
        beside = figure.published
        writer.writerow(
            [
                figure.group[0],
                "all" if figure.group[1] is None else figure.group[1],
                figure.category,
                figure.metric,
                *(_exact(value) for value in (figure.mean, figure.spread)),
                figure.seeds,
                "" if beside is None else _exact(beside.value),
                _exact(figure.difference),
                "" if beside is None else beside.backbone,
                "" if beside is None else beside.source,
            ]
        )
    return target.getvalue()


def _group(line: Line) -> Group:
    return line["setup"]["method"], line["setup"]["shots"]


def _groups(lines: Sequence[Line]) -> list[Group]:
    return _unique(_group(line) for line in lines)


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def _by_seed(lines: Sequence[Line], category: str, metric: str) -> dict[int, float]:
    """Return percent by seed; what could not be measured is left out."""
    return {
        line["setup"]["seed"]: 100 * line["metrics"][metric]
        for line in lines
        if line["setup"]["category"] == category and line["metrics"][metric] is not None
    }


def _figure(group: Group, category: str, metric: str, values: Sequence[float], published: Reference | None) -> Figure:
    mean = statistics.fmean(values) if values else math.nan
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return Figure(group, category, metric, mean, spread, len(values), published)


def _average(
    group: Group, metric: str, values: Mapping[str, Mapping[int, float]], published: Reference | None
) -> Figure:
    """Return the mean over categories of their means; its spread is that of the seeds that every category has."""
    measured = [by_seed for by_seed in values.values() if by_seed]
    if not measured:
        return _figure(group, AVERAGE, metric, [], published)
    complete = set.intersection(*(set(by_seed) for by_seed in measured))
    whole = [statistics.fmean(by_seed[seed] for by_seed in measured) for seed in sorted(complete)]
    mean = statistics.fmean(statistics.fmean(by_seed.values()) for by_seed in measured)
    spread = statistics.stdev(whole) if len(whole) > 1 else math.nan
    same = published if len(measured) == len(values) else None  # else it is of other categories
    return Figure(group, AVERAGE, metric, mean, spread, len(whole), same)


def _distance(ours: str, theirs: str) -> tuple[int, int]:
    """Return how far a published backbone is from ours: the same weights, architecture, family; then by depth."""
    ours, theirs = ours.lower(), theirs.lower()
    if ours == theirs:
        return 0, 0
    ours = "resnet18" if ours == "compact" else ours  # whose feature space it has
    first, second = (name.partition(".")[0] for name in (ours, theirs))
    if first == second:
        return 1, 0
    families = [re.match(r"[a-z_]*", name) for name in (first, second)]
    depths = [int(found[0]) if (found := re.search(r"\d+", name)) else 0 for name in (first, second)]
    same = families[0] is not None and families[1] is not None and families[0][0] == families[1][0]
    return (2 if same else 3), abs(depths[0] - depths[1])


def _cells(figure: Figure | None, *, compared: bool) -> list[str]:
    if not compared:
        return [_value(figure)]
    published = None if figure is None else figure.published
    difference = math.nan if figure is None else figure.difference
    sign = _number(difference, 1) if not math.isfinite(difference) else f"{difference:+.1f}"
    return [_value(figure), _number(None if published is None else published.value, 1), sign]


def _value(figure: Figure | None) -> str:
    if figure is None or not math.isfinite(figure.mean):
        return "–"
    return f"{figure.mean:.2f}" + (f" ± {figure.spread:.2f}" if math.isfinite(figure.spread) else "")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _exact(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _plain(value: str) -> str:
    """Return words that cannot break a Markdown table."""
    return " ".join(value.split()).replace("|", "/")
