"""The paper's ablations: PatchCore with one setting changed at a time. `ablation_tables` makes a table of them.

`variants` says what is changed, around whatever settings are the default of the run. Each variant is measured in cells
of the benchmark, so a run that was stopped can be continued, and variants that differ only in how scores are made of
distances share one fit.
"""

import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalrecall.backbones import Backbone, load
from totalrecall.benchmark.cell import Cell, Progress
from totalrecall.benchmark.run import (
    BadCell,
    Benchmark,
    Way,
    as_advised,
    check_settings,
    detector_settings,
    open_sets,
    run_families,
)
from totalrecall.benchmark.tables import AVERAGE, METRICS, Figure, Table, figures
from totalrecall.errors import SettingError
from totalrecall.patchcore.settings import SCORINGS, SUBSAMPLINGS, Settings
from totalrecall.system.settings import declared
from totalrecall.system.text import counted, csv_line

__all__ = ["FACTORS", "Ablation", "Variant", "ablation_csv", "ablation_tables", "narrow", "run_ablation", "variants"]

_SIZES = (192, 256, 320, 384, 512)
_SHARES = (0.1, 0.01, 0.001)
_LAYERS = ((1, 2), (2, 3), (1, 2, 3))
_JUDGED = ("scoring", "neighbours")  # read when a picture is judged, not in the fit
Changes = tuple[str, dict[str, Any]]  # words for a person, and the settings that make it


def _sizes() -> list[Changes]:
    ways = (("squash", "squashed"), ("letterbox", "letterboxed"))
    return [
        (f"{size} px {words}", {"size": size, "resize": resize, "crop": None})
        for resize, words in ways
        for size in _SIZES
    ]


# What is changed, factor by factor. A change that the backbone or the detector does not know is left out.
FACTORS: dict[str, list[Changes]] = {
    "scoring": [(name, {"scoring": name}) for name in SCORINGS],
    "patch-size": [(f"{size} x {size}", {"patch_size": size}) for size in (1, 3, 5)],
    "layers": [(" ".join(map(str, layers)), {"layers": layers}) for layers in _LAYERS],
    "projection": [("none", {"projection": None}), ("to 128", {"projection": 128})],
    "at-least": [(str(count), {"at_least": count}) for count in (1, 1000, 2000, 4000)],
    "size": _sizes(),
    "subsampling": [
        (f"{method}, {100 * share:g} %", {"subsampling": method, "coreset": share, "at_least": 1})
        for share in _SHARES
        for method in SUBSAMPLINGS
    ],
}


@dataclass(frozen=True, eq=False)
class Variant:
    """One row of the table: which factor is changed and to what; the first, of factor `default`, changes nothing.

    Attributes:
        factor: of `FACTORS`, or `default`.
        label: the change, for a person.
        settings: every setting of the detector.
        is_default: they are those of the first row.
    """

    factor: str
    label: str
    settings: Mapping[str, Any]
    is_default: bool

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.factor.replace('-', ' ')}: {self.label}" if self.label else self.factor


@dataclass(frozen=True, eq=False)
class Ablation:
    """What came out.

    Attributes:
        variants: the rows.
        lines: of each variant, those of its cells that could be measured.
        bad: cells that could not.
    """

    variants: Sequence[Variant]
    lines: Sequence[Sequence[dict[str, Any]]]
    bad: Sequence[BadCell]


def variants(defaults: Mapping[str, Any], backbone: Backbone, factors: Iterable[str] = tuple(FACTORS)) -> list[Variant]:
    """Return the rows: the default, then every change of every factor, as far as backbone and detector know it.

    Args:
        defaults: every setting of the detector.
        backbone: whose layers there are.
        factors: of `FACTORS`.

    Raises:
        SettingError: a factor is unknown.
    """
    known = declared(Settings)
    defaults = as_advised("patchcore", defaults, backbone)
    has = {int(layer.name.removeprefix("layer")) for layer in backbone.layers}
    rows = [Variant("default", "", dict(defaults), is_default=True)]
    for factor in factors:
        if factor not in FACTORS:
            raise SettingError(f"ablate must be among {', '.join(FACTORS)}, got {factor!r}.", "ablate")
        for label, changes in FACTORS[factor]:
            if set(changes) <= set(known) and set(changes.get("layers", ())) <= has:
                settings = {**defaults, **changes}
                rows.append(Variant(factor, label, settings, is_default=_same(settings, defaults)))
    return rows


def _same(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    return json.dumps(dict(settings), sort_keys=True) == json.dumps(dict(defaults), sort_keys=True)


def run_ablation(
    benchmark: Benchmark,
    folder: Path,
    *,
    factors: Iterable[str] = tuple(FACTORS),
    progress: Progress | None = None,
    tell: Callable[[str], object] | None = None,
    way: Way | None = None,
) -> Ablation:
    """Measure what is not done yet.

    Args:
        benchmark: categories, seeds, numbers of good pictures, and the settings that every row starts from; its only
            method is PatchCore.
        folder: folder of `cells.jsonl`; a run that was stopped is continued there.
        factors: of `FACTORS`.
        progress: called with (step, done, total); the step `cells` is the whole run.
        tell: called with lines of text: how much there is to do, then a line for each cell.
        way: where cells are measured; in this process if not given.

    Raises:
        SettingError: a factor or a setting is not known, or a setting is outside what is allowed.
        BackboneError: the backbone is not there.
        DataError: the folder cannot be written.
    """
    check_settings(["patchcore"], benchmark.settings or {})
    backbone = load(benchmark.backbone)
    rows = variants(detector_settings("patchcore", benchmark.settings or {}, benchmark.preset), backbone, factors)
    by_variant, bad = _cells(benchmark, backbone, rows)
    unique = {cell.key: cell for cells in by_variant for cell in cells}
    families = _families(list(unique.values()))
    for family in families:  # a setting that is not allowed is found out before any work
        family[0].detector()
    if tell is not None:
        tell(f"{len(rows)} rows, {len(unique)} cells from {len(families)} fits")
    lines, failed = run_families(families, folder, pictures=False, progress=progress, tell=tell, way=way)
    by_key = {line["key"]: line for line in lines}
    by_row = [[by_key[cell.key] for cell in cells if cell.key in by_key] for cells in by_variant]
    return Ablation(rows, by_row, [*bad, *failed])


def _cells(benchmark: Benchmark, backbone: Backbone, rows: Sequence[Variant]) -> tuple[list[list[Cell]], list[BadCell]]:
    """Return the cells of each variant, and those of categories that cannot be opened."""
    given: Mapping[str, Any] = benchmark.settings or {}
    sets, bad = open_sets(benchmark)
    cells = [
        [
            Cell(
                "patchcore",
                data,
                seed,
                backbone,
                row.settings,
                shots=shots,
                roi=Path(given["roi"]) if given.get("roi") else None,
                threads=given.get("threads"),
                seen_only=benchmark.seen_only and row.settings["resize"] == "crop",
                label="default" if row.is_default else row.name,
            )
            for seed, data in sets
            for shots in benchmark.shots
        ]
        for row in rows
    ]
    return cells, bad


def _families(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Put together the cells that share a fit."""
    families: dict[str, list[Cell]] = {}
    for cell in cells:
        settings = {name: value for name, value in cell.setup["settings"].items() if name not in _JUDGED}
        families.setdefault(json.dumps({**cell.setup, "settings": settings}, sort_keys=True), []).append(cell)
    return list(families.values())


_SHOWN = ("image_auroc", "image_f1", "pixel_auroc", "pixel_aupro")
_COMPARED = ("image_auroc", "pixel_auroc", "pixel_aupro")
_NARROW = {
    "setting": "setting",
    "image AUROC": "image",
    "points": "points",
    "pixel AUPRO 0.3": "AUPRO",
    "ms a picture": "ms",
}
Measured = Mapping[tuple[str, int | None, str, str], Figure]  # by row, number of good pictures, category and metric


def ablation_tables(ablation: Ablation) -> list[Table]:
    """Return a table for each number of good pictures, and one of categories where there are several.

    Metrics are in percent, averages over categories and seeds; differences are in points, from the default.
    """
    measured = _figures(ablation)
    shots = list(dict.fromkeys(figure.group[1] for figure in measured.values()))
    tables = [_averages(ablation, measured, count) for count in shots]
    categories = [name for name in dict.fromkeys(key[2] for key in measured) if name != AVERAGE]
    if len(categories) > 1:
        tables += [_by_category(ablation, measured, count, categories) for count in shots]
    return tables


def _figures(ablation: Ablation) -> Measured:
    lines = [
        {**line, "setup": {**line["setup"], "method": row.name}}
        for row, mine in zip(ablation.variants, ablation.lines, strict=True)
        for line in mine
    ]
    return {(*figure.group, figure.category, figure.metric): figure for figure in figures(lines)}


def _averages(ablation: Ablation, measured: Measured, shots: int | None) -> Table:
    heads = ["setting"]
    for metric in _SHOWN:
        heads += [METRICS[metric], *(["points"] if metric in _COMPARED else [])]
    heads += ["ms a picture", "vectors", "fit s"]
    rows = []
    for row, mine in zip(ablation.variants, ablation.lines, strict=True):
        cells = [f"{row.name} (default)" if row.is_default and row.label else row.name]
        for metric in _SHOWN:
            cells.append(_percent(measured.get((row.name, shots, AVERAGE, metric))))
            if metric in _COMPARED:
                cells.append(_points(measured, row, shots, AVERAGE, metric))
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
    spread = {metric: measured.get(("default", shots, AVERAGE, metric)) for metric in _COMPARED}
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


def _by_category(ablation: Ablation, measured: Measured, shots: int | None, categories: Sequence[str]) -> Table:
    rows = []
    for row in ablation.variants:
        figures_of = [measured.get((row.name, shots, category, "image_auroc")) for category in categories]
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
    measured = _figures(ablation)
    rows = {row.name: row for row in ablation.variants}
    for (name, shots, category, metric), figure in measured.items():
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
                    _exact(_difference(measured, row, shots, category, metric)),
                ]
            )
        )
    return target.getvalue()


def _difference(measured: Measured, row: Variant, shots: int | None, category: str, metric: str) -> float:
    """Return the points above the default; nan where either is not known."""
    mine, default = (
        measured.get((row.name, shots, category, metric)),
        measured.get(("default", shots, category, metric)),
    )
    return math.nan if mine is None or default is None else mine.mean - default.mean


def _points(measured: Measured, row: Variant, shots: int | None, category: str, metric: str) -> str:
    difference = _difference(measured, row, shots, category, metric)
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
