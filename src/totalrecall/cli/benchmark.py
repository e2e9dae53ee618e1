"""`totalrecall benchmark`: methods x categories x seeds on a data set, in tables next to published values.

With --ablate: PatchCore with one setting changed at a time.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.cli.common import add_output_options, complain, print_table, progress_bars, say
from totalrecall.cli.options import LAYOUTS, add_reading_options, add_setting_options, given_settings
from totalrecall.cli.paths import INPUT, PathArgument
from totalrecall.cli.spread_benchmark import add_benchmark_spread, measured_by, set_threads
from totalrecall.errors import SettingError
from totalrecall.registry import SETTINGS

if TYPE_CHECKING:
    from totalrecall.benchmark.ablation import Ablation
    from totalrecall.benchmark.published import PublishedValue
    from totalrecall.benchmark.run import BadCell, Benchmark
    from totalrecall.benchmark.tables import Table

__all__ = ["add_parser"]

_FILES = ("report.md", "report.html", "results.csv", "cells.jsonl")  # that are written into --out
_PRESETS = ("anomalib", "paper")  # as `benchmark.PRESETS`, without importing it to show --help
_FACTORS = (  # as `benchmark.ablation.FACTORS`
    "scoring", "patch-size", "layers", "projection", "at-least", "size", "subsampling",
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "benchmark",
        help="compare methods, categories and seeds with published values",
        description="Fit and measure every method on every category with every seed. Write report.md, report.html and "
        "results.csv, which show published values next to the measured ones. A run that was stopped continues where it "
        "stopped. With --ablate: one table of PatchCore with one setting changed at a time.",
    )
    parser.add_argument(
        "layout", metavar="LAYOUT", choices=LAYOUTS, help=f"layout of the data set: {', '.join(LAYOUTS)}"
    )
    parser.add_argument("root", metavar="ROOT", type=INPUT, help="folder of the data set, or of one of its categories")
    parser.add_argument(
        "--categories", nargs="+", metavar="NAME", help="categories to measure (default: all that are there)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[42],
        metavar="N",
        help="seeds; each one is a separate run (default: 42)",
    )
    parser.add_argument(
        "--shots",
        type=_shots,
        nargs="+",
        default=[None],
        metavar="N",
        help="numbers of good pictures to fit on, such as 1 5 10 16 50 all; for the low-shot table (default: all)",
    )
    parser.add_argument(
        "-o",
        "--out",
        "--output",
        default="totalrecall-benchmark",
        metavar="DIR",
        type=PathArgument(writes=True, inside=_FILES),
        help="folder for the report and the finished cells (default: %(default)s)",
    )
    _add_variants(parser)
    add_benchmark_spread(parser)
    add_reading_options(parser)
    add_output_options(parser)
    add_setting_options(parser, SETTINGS, without=("seed",))
    parser.set_defaults(run=run)


def _add_variants(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which detectors are measured."""
    parser.add_argument(
        "--methods",
        "--method",
        dest="methods",
        nargs="+",
        choices=tuple(SETTINGS),
        help="methods to measure (default: all; with --ablate: patchcore)",
    )
    parser.add_argument(
        "--preset",
        choices=_PRESETS,
        help="paper: settings of the authors' code; anomalib: its defaults. Other options override the preset",
    )
    parser.add_argument(
        "--ablate",
        nargs="*",
        choices=_FACTORS,
        metavar="FACTOR",
        help="change one setting of patchcore at a time and leave the others as given: the named settings, or without "
        f"names all of {', '.join(_FACTORS)}",
    )


def run(args: argparse.Namespace) -> int:
    """Measure what is not done yet, write the tables; returns the exit code."""
    from totalrecall.benchmark.run import Benchmark, weights_note
    from totalrecall.system.files import check_writable

    set_threads(args)
    if args.ablate is not None and args.methods not in (None, ["patchcore"]):
        raise SettingError(f"--ablate is only for patchcore, got --methods {' '.join(args.methods)}. Leave it out.")
    benchmark = Benchmark(
        args.layout,
        Path(args.root),
        categories=_categories(args),
        methods=["patchcore"] if args.ablate is not None else _once(args.methods or tuple(SETTINGS)),
        seeds=_once(args.seeds),
        shots=_once(args.shots),
        settings={name: value for kind in SETTINGS.values() for name, value in given_settings(args, kind).items()},
        preset=args.preset,
    )
    out = Path(args.out)
    for name in _FILES:
        check_writable(out / name)
    note = weights_note(benchmark)
    if note:
        complain(note)
    return _run_benchmark(args, benchmark, out) if args.ablate is None else _run_ablation(args, benchmark, out)


def _run_benchmark(args: argparse.Namespace, benchmark: "Benchmark", out: Path) -> int:
    from totalrecall.benchmark.run import run_benchmark

    with measured_by(args) as way, progress_bars(args) as progress:
        lines, bad = run_benchmark(benchmark, out, progress=progress, tell=lambda text: say(args, text), way=way)
    code = _complain_of(bad, lines)
    if lines:
        _write(args, benchmark, lines, bad, out)
    return code


def _run_ablation(args: argparse.Namespace, benchmark: "Benchmark", out: Path) -> int:
    from totalrecall.benchmark.ablation import run_ablation

    factors = _once(args.ablate or _FACTORS)
    with measured_by(args) as way, progress_bars(args) as progress:
        ablation = run_ablation(
            benchmark, out, factors=factors, progress=progress, tell=lambda text: say(args, text), way=way
        )
    lines = _lines_of(ablation)
    code = _complain_of(ablation.bad, lines)
    if lines:
        _write_ablation(args, benchmark, ablation, out)
    return code


def _lines_of(ablation: "Ablation") -> list[dict[str, Any]]:
    """Return the lines of all rows; rows with the same settings share theirs."""
    return list({line["key"]: line for row in ablation.lines for line in row}.values())


def _complain_of(bad: "Sequence[BadCell]", lines: Sequence[dict[str, Any]]) -> int:
    """Name the cells and the pictures that could not be measured; returns the exit code."""
    for cell in bad:
        complain(f"{cell.title}: {cell.message}")
    messages = _once([message for line in lines for message in line["bad"]])
    for message in messages:
        complain(message)
    return 1 if bad or messages else 0


def _shots(word: str) -> int | None:
    if word == "all":
        return None
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of pictures, at least 1, or all; got {word!r}")
    return int(word)


def _once(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _categories(args: argparse.Namespace) -> list[str]:
    from totalrecall.datasets import categories

    there = categories(args.layout, args.root)
    unknown = [name for name in args.categories or [] if name not in there]
    if unknown:
        raise SettingError(f"--categories must be among {', '.join(there)}, got {unknown[0]!r}. Check {args.root}.")
    return _once(args.categories or there)


def _reference(benchmark: "Benchmark") -> "list[PublishedValue]":
    """Return what is published about a data set, for each number of good pictures that is asked for."""
    from totalrecall.benchmark.published import published

    return [row for shots in _once([None, *benchmark.shots]) for row in published(benchmark.layout, shots=shots)]


def _write(
    args: argparse.Namespace,
    benchmark: "Benchmark",
    lines: list[dict[str, Any]],
    bad: "Sequence[BadCell]",
    out: Path,
) -> None:
    from totalrecall.benchmark import tables as tables_of

    figures = tables_of.figures(
        lines, _reference(benchmark), protocols=benchmark.protocols, whole=benchmark.whole and not bad
    )
    summary, low = tables_of.summary_table(figures), tables_of.shots_table(figures)
    verdicts = tables_of.verdict_table(lines)
    tables = [summary, *tables_of.metric_tables(figures), *(table for table in (low, verdicts) if table is not None)]
    tables.append(tables_of.resource_table(lines))
    title = f"Benchmark: {args.layout}, {benchmark.backbone}"
    page = _Page(title, _notes(benchmark, lines, bad), tables, lines, lines, bad, summary)
    _write_report(args, page, tables_of.csv_text(figures, lines), out)


def _write_ablation(args: argparse.Namespace, benchmark: "Benchmark", ablation: "Ablation", out: Path) -> None:
    from totalrecall.benchmark.ablation import ablation_csv, ablation_tables, narrow
    from totalrecall.benchmark.cell import words_of_settings

    lines = _lines_of(ablation)
    defaults = ablation.lines[0]
    notes = [
        f"{len(lines)} cells; categories: {', '.join(benchmark.categories)}; seeds: "
        f"{', '.join(map(str, benchmark.seeds))}; backbone: {benchmark.backbone}"
        f"{f'; preset {benchmark.preset}' if benchmark.preset else ''}."
    ]
    notes += [f"Default: {words_of_settings(defaults[0])}."] if defaults else []
    notes += _of_preset(benchmark)
    if any(line["model"]["chunks"] > 1 for line in lines):
        notes.append("Memory did not hold the patches of every cell; there the coreset was chosen in chunks.")
    title = f"Ablation: {args.layout}, {benchmark.backbone}"
    tables = ablation_tables(ablation)
    page = _Page(title, notes, tables, lines, defaults, ablation.bad, narrow(tables[0]))
    _write_report(args, page, ablation_csv(ablation), out)


@dataclass(frozen=True, eq=False)
class _Page:
    """What a report shows. `drawn` are the lines whose curves and pictures are in it; `printed` is for the terminal."""

    title: str
    notes: "Sequence[str]"
    tables: "Sequence[Table]"
    lines: Sequence[dict[str, Any]]
    drawn: Sequence[dict[str, Any]]
    bad: "Sequence[BadCell]"
    printed: "Table"


def _write_report(args: argparse.Namespace, page: _Page, table: str, out: Path) -> None:
    """Write report.md, report.html and results.csv; print a table."""
    from totalrecall.benchmark.page import write_benchmark_page
    from totalrecall.benchmark.tables import markdown
    from totalrecall.system.files import atomic_write

    unusable = [(cell.title, cell.message) for cell in page.bad]
    unusable += _once([(line["setup"]["category"], message) for line in page.lines for message in line["bad"]])
    failed = [f"Not measured: {name}: {why}" for name, why in unusable]
    text = markdown(page.title, [*page.notes, *failed], page.tables)
    atomic_write(out / "report.md", text.encode("utf-8", "replace"))
    atomic_write(out / "results.csv", table.encode("utf-8", "replace"))
    write_benchmark_page(
        out / "report.html",
        title=page.title,
        notes=page.notes,
        tables=page.tables,
        lines=page.drawn,
        pictures=out / "pictures",
        bad=unusable,
    )
    _print(page.printed)
    say(args, f"Wrote {out / 'report.md'}, {out / 'report.html'} and {out / 'results.csv'}")


def _notes(benchmark: "Benchmark", lines: list[dict[str, Any]], bad: "Sequence[BadCell]") -> list[str]:
    """Return what a reader must know to read the figures."""
    from totalrecall.benchmark.cell import words_of_settings

    preset = f"; preset {benchmark.preset}" if benchmark.preset else ""
    notes = [
        f"{len(lines)} cells; methods: {', '.join(benchmark.methods)}; categories: {len(benchmark.categories)}; seeds: "
        f"{', '.join(map(str, benchmark.seeds))}; backbone: {benchmark.backbone}{preset}."
    ]
    for method in benchmark.methods:
        mine = [line for line in lines if line["setup"]["method"] == method]
        if mine:
            notes.append(f"{method}: {words_of_settings(mine[0])}.")
    notes += _of_preset(benchmark)
    if len(benchmark.seeds) > 1:
        notes.append("Means over seeds, ± their standard deviation.")
    if bad:
        notes.append(f"{len(bad)} cells could not be measured; averages are of the others.")
    reasons = {reason: None for line in lines for reason in line["reasons"].values()}
    if reasons:
        notes.append(f"A dash was not measured: {'; '.join(reasons)}.")
    if any(line["model"]["chunks"] > 1 for line in lines):
        notes.append("Memory did not hold the patches of every cell; there the coreset was chosen in chunks.")
    return notes


def _of_preset(benchmark: "Benchmark") -> list[str]:
    from totalrecall.benchmark.run import weights_note

    notes = [note] if (note := weights_note(benchmark)) else []
    if benchmark.seen_only:
        notes.append("Pixels are measured inside the crop alone, as in the paper; pictures by their label.")
    return notes


def _print(table: "Table") -> None:
    """Print the averages: a result, so --quiet keeps it."""
    from rich import box
    from rich.table import Table as Drawn

    drawn = Drawn(title=table.title, box=box.SIMPLE_HEAD)
    for at, head in enumerate(table.heads):
        drawn.add_column(head, justify="right" if at else "left", no_wrap=not at)
    for row in table.rows:
        drawn.add_row(*row)
    print_table(drawn)
