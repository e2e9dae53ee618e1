"""The lines of a benchmark's cells as tables: means and spreads over seeds, published values, Markdown and CSV.

All metrics are in percent here, and differences in points. A spread is the standard deviation over seeds (n - 1).
"""

import io
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from totalrecall.benchmark.cell import VERDICTS
from totalrecall.benchmark.published import MEAN, PROTOCOLS, PublishedValue
from totalrecall.system.text import counted, csv_line, printable

__all__ = [
    "AVERAGE",
    "METRICS",
    "Figure",
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
    "verdict_table",
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
    published: PublishedValue | None = None

    @property
    def difference(self) -> float:
        """Points above the published value; nan without one."""
        return math.nan if self.published is None else self.mean - self.published.value


@dataclass(frozen=True)
class Table:
    """A table as text. The first columns, `names` of them, hold names, the others numbers; `note` stands below."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    names: int = 1


def group_name(group: Group) -> str:
    """Return a column's name: the method, and how many pictures it saw where that was few."""
    method, shots = group
    return method if shots is None else f"{method}, {counted(shots, 'picture')}"


def figures(
    lines: Sequence[Line],
    reference: Sequence[PublishedValue] = (),
    *,
    protocols: Sequence[str] = (),
    whole: bool = False,
) -> list[Figure]:
    """Return every metric of every method by category, then the average; with the nearest published values.

    Args:
        lines: of cells.
        reference: published values, of all pictures and of few.
        protocols: whose values come first among those of one backbone.
        whole: the lines are of all categories that the data set has, so that a published mean is of the same ones.
    """
    measured = []
    for group in _groups(lines):
        mine = [line for line in lines if _group(line) == group]
        categories = _unique(line["setup"]["category"] for line in mine)
        for metric in METRICS:
            known = [row for row in reference if (row.method, row.shots, row.metric) == (*group, metric)]
            setup = mine[0]["setup"]
            backbone = (setup["backbone"], setup["architecture"])
            chosen = choose_reference(known, backbone, categories, protocols=protocols, whole=whole)
            values = {category: _by_seed(mine, category, metric) for category in categories}
            measured += [
                _figure(group, category, metric, list(by_seed.values()), chosen.get(category))
                for category, by_seed in values.items()
            ]
            measured.append(_average(group, metric, values, chosen.get(AVERAGE)))
    return measured


def choose_reference(
    reference: Sequence[PublishedValue],
    backbone: tuple[str, str],
    categories: Sequence[str],
    *,
    protocols: Sequence[str] = (),
    whole: bool = False,
) -> dict[str, PublishedValue]:
    """Return published values of one metric by category, all of one backbone and one protocol, and their average.

    `backbone` is the name and the architecture of ours. The nearest comes first, then the order of the protocols, then
    who has the most of our categories. The average is of the categories that we have: the published mean only if we
    have them all (`whole`).
    """
    sources: dict[tuple[str, str], dict[str, PublishedValue]] = {}
    for row in reference:
        sources.setdefault((row.backbone, row.protocol), {}).setdefault(row.category, row)
    usable = {
        source: mine for source, rows in sources.items() if (mine := _of_categories(rows, categories, whole=whole))
    }
    if not usable:
        return {}
    return min(
        usable.items(), key=lambda item: (_distance(backbone, item[0][0]), _rank(item[1], protocols), -len(item[1]))
    )[1]


def _of_categories(
    rows: Mapping[str, PublishedValue], categories: Sequence[str], *, whole: bool
) -> dict[str, PublishedValue]:
    chosen = {category: rows[category] for category in categories if category in rows}
    if whole and MEAN in rows:
        chosen[AVERAGE] = rows[MEAN]
    elif chosen and len(chosen) == len(categories):
        mean = statistics.fmean(row.value for row in chosen.values())
        chosen[AVERAGE] = replace(rows[categories[0]], category=MEAN, value=mean)
    return chosen


def _rank(rows: Mapping[str, PublishedValue], protocols: Sequence[str]) -> int:
    """Return the place of a source's protocol, lower is better."""
    row = next(iter(rows.values()))
    if row.metric == "pixel_aupro" and row.protocol.startswith("official"):
        return len(protocols) + 1  # its PRO leaves the good pictures out, so it is another metric than ours
    return protocols.index(row.protocol) if row.protocol in protocols else len(protocols)


@dataclass(frozen=True)
class _Column:
    """A column of measured figures, followed by the published values and the differences if any is published.

    Attributes:
        head: name of the column.
        figures: by the name of the row.
        published: one of the published values, which names the source of all; None without any.
    """

    head: str
    figures: Mapping[str, Figure]
    published: PublishedValue | None

    def heads(self) -> list[str]:
        if self.published is None:
            return [self.head]
        return [self.head, f"published ({self.published.backbone}, {self.published.protocol})", "difference"]

    def cells(self, row: str) -> list[str]:
        figure = self.figures.get(row)
        if self.published is None:
            return [_value(figure)]
        published = None if figure is None else figure.published
        difference = math.nan if figure is None else figure.difference
        sign = f"{difference:+.1f}" if math.isfinite(difference) else "–"
        return [_value(figure), _number(None if published is None else published.value, 1), sign]


def _table(title: str, row_head: str, rows: Sequence[str], columns: Sequence[_Column], note: str = "") -> Table:
    heads = [row_head, *(head for column in columns for head in column.heads())]
    return Table(
        title, heads, [[row, *(cell for column in columns for cell in column.cells(row))] for row in rows], note
    )


def _published(figures: Iterable[Figure]) -> PublishedValue | None:
    return next((figure.published for figure in figures if figure.published is not None), None)


def metric_tables(measured: Sequence[Figure]) -> list[Table]:
    """Return a table for each metric: categories down, methods across, each with the published values and differences.

    Of several numbers of good pictures only the most are shown; `shots_table` has the others.
    """
    groups = _unique(figure.group for figure in measured)
    most = max(map(_shots, groups), default=0)
    groups = [group for group in groups if _shots(group) == most]
    shown = [figure for figure in measured if figure.group in groups]
    categories = [name for name in _unique(figure.category for figure in shown) if name != AVERAGE]
    tables = []
    for metric, title in METRICS.items():
        columns = []
        for group in groups:
            figures = {one.category: one for one in shown if (one.group, one.metric) == (group, metric)}
            columns.append(_Column(group_name(group), figures, _published(figures.values())))
        sources = [f"{one.head}: {_source(one.published)}" for one in columns if one.published is not None]
        note = f"Published: {'; '.join(sources)}." if sources else ""
        tables.append(_table(f"{title}, percent", "category", [*categories, AVERAGE], columns, note))
    return tables


def _shots(group: Group) -> float:
    """Return the number of good pictures that a group saw; infinite where it saw all."""
    return math.inf if group[1] is None else group[1]


def _source(published: PublishedValue) -> str:
    return f"{PROTOCOLS.get(published.protocol, published.protocol)} ({published.source})"


def summary_table(measured: Sequence[Figure]) -> Table:
    """Return the averages over categories: methods down, metrics across."""
    averages = {(figure.group, figure.metric): figure for figure in measured if figure.category == AVERAGE}
    rows = [
        [group_name(group), *(_value(averages.get((group, metric))) for metric in METRICS)]
        for group in _unique(group for group, _ in averages)
    ]
    return Table("Average over categories, percent", ["method", *METRICS.values()], rows)


def shots_table(measured: Sequence[Figure]) -> Table | None:
    """Return the average over categories by number of good pictures; None where all cells saw all of them."""
    averages = [figure for figure in measured if figure.category == AVERAGE]
    groups = sorted(_unique(figure.group for figure in averages), key=_shots)
    if all(shots is None for _, shots in groups):
        return None
    columns = []
    for method in _unique(figure.group[0] for figure in averages):
        for metric in ("image_auroc", "pixel_auroc", "pixel_aupro"):
            figures = {_row(one.group): one for one in averages if (one.group[0], one.metric) == (method, metric)}
            few = _published(figure for figure in figures.values() if figure.group[1] is not None)
            columns.append(_Column(f"{method} {METRICS[metric]}", figures, few))
    rows = _unique(map(_row, groups))
    return _table("Low shot: average over categories, percent", "good pictures", rows, columns)


def _row(group: Group) -> str:
    return "all" if group[1] is None else str(group[1])


def verdict_table(lines: Sequence[Line]) -> Table | None:
    """Return what the thresholds found that the detectors set from good pictures alone, summed over seeds."""
    rows = []
    for group in _groups(lines):
        for category in _unique(line["setup"]["category"] for line in lines):
            counts = _verdicts(lines, group, category)
            if counts is not None:
                found, defects, alarms, good = counts
                rows.append([group_name(group), category, f"{found} / {defects}", f"{alarms} / {good}"])
    heads = ["method", "category", "defects found", "false alarms in good"]
    note = "By the threshold that each fit set from its good pictures, at its false-alarm rate. Summed over seeds."
    return Table("Verdicts", heads, rows, note, names=2) if rows else None


def _verdicts(lines: Sequence[Line], group: Group, category: str) -> list[int] | None:
    """Return defects found, defects, false alarms and good pictures of a category; None where no verdict was given."""
    mine = [line for line in lines if _group(line) == group and line["setup"]["category"] == category]
    given = [line["verdicts"] for line in mine if line.get("verdicts")]  # lines of older versions have none
    if not given or any(value is None for one in given for value in one.values()):
        return None
    return [sum(one[name] for one in given) for name in VERDICTS]


def _verdict_cells(lines: Sequence[Line], figure: Figure) -> list[str]:
    counts = _verdicts(lines, figure.group, figure.category)
    return [""] * len(VERDICTS) if counts is None else list(map(str, counts))


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
    note = "Latency: the median of single predicts, file to result. Model: vectors (positions, patches) x their length."
    if any(line["peak_of"] == "process" for line in lines):
        note += " Peak memory is that of the whole process so far: this system does not count it by cell."
    return Table("What it took", heads, rows, note, names=2)


def markdown(title: str, notes: Sequence[str], tables: Sequence[Table]) -> str:
    """Return a Markdown page of notes and tables."""
    parts = [f"# {_plain(title)}", "", *(f"{_plain(note)}\n" for note in notes)]
    for table in tables:
        parts += [f"## {_plain(table.title)}", ""]
        parts.append(f"| {' | '.join(_plain(head) for head in table.heads)} |")
        parts.append(f"|{' --- |' * table.names}{' ---: |' * (len(table.heads) - table.names)}")
        parts += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in table.rows]
        parts += ["", *([f"{_plain(table.note)}\n"] if table.note else [])]
    return "\n".join(parts).rstrip() + "\n"


def csv_text(measured: Sequence[Figure], lines: Sequence[Line] = ()) -> str:
    """Return all figures, a row each, with the verdicts of its category's `lines`; what is not known is empty."""
    target = io.StringIO()
    target.write(
        csv_line(
            [
                "method",
                "shots",
                "category",
                "metric",
                "mean",
                "spread",
                "seeds",
                "published",
                "difference",
                "published_backbone",
                "published_protocol",
                "published_source",
                *VERDICTS,
            ]
        )
    )
    for figure in measured:
        published = figure.published
        target.write(
            csv_line(
                [
                    figure.group[0],
                    "all" if figure.group[1] is None else figure.group[1],
                    figure.category,
                    figure.metric,
                    *(_exact(value) for value in (figure.mean, figure.spread)),
                    figure.seeds,
                    "" if published is None else _exact(published.value),
                    _exact(figure.difference),
                    "" if published is None else published.backbone,
                    "" if published is None else published.protocol,
                    "" if published is None else published.source,
                    *_verdict_cells(lines, figure),
                ]
            )
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


def _figure(
    group: Group, category: str, metric: str, values: Sequence[float], published: PublishedValue | None
) -> Figure:
    mean = statistics.fmean(values) if values else math.nan
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return Figure(group, category, metric, mean, spread, len(values), published)


def _average(
    group: Group, metric: str, values: Mapping[str, Mapping[int, float]], published: PublishedValue | None
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


def _distance(ours: tuple[str, str], theirs: str) -> tuple[int, int]:
    """Return how far a published backbone is from ours: the same weights, architecture, family; then by depth."""
    name, architecture = ours
    if name == theirs:
        return 0, 0
    architecture = "resnet18" if name == "compact" else architecture  # whose feature space it has
    plain = theirs.partition(".")[0]
    if architecture == plain:
        return 1, 0
    families = [re.sub(r"\d.*", "", one) for one in (architecture, plain)]  # wide_resnet50_2 -> wide_resnet
    depths = [int(number[0]) if (number := re.search(r"\d+", one)) else 0 for one in (architecture, plain)]
    return (2 if families[0] == families[1] else 3), abs(depths[0] - depths[1])


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
    """Return words that neither break a Markdown table nor are obeyed by a terminal that shows it."""
    return printable(" ".join(value.split()).replace("|", "/"))
