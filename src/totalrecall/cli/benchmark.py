"""`totalrecall benchmark`: methods x categories x seeds on a data set, as tables with published values beside."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.cli.common import LAYOUTS, add_output_options, complain, print_table, progress_bars, say
from totalrecall.cli.fit import METHODS, add_detector_options
from totalrecall.errors import SettingError

if TYPE_CHECKING:
    from totalrecall.benchmark import BadCell, Benchmark
    from totalrecall.benchmark_tables import Table
    from totalrecall.reference import PublishedValue

__all__ = ["add_parser"]

_PRESETS = ("anomalib", "paper")  # as `benchmark.PRESETS`, without importing it to show --help
_SETTINGS = (
    "backbone", "layers", "coreset", "size", "resize", "crop", "tile", "roi", "patch_size", "stride", "descriptor",
    "scoring", "neighbours", "dimensions", "false_alarm_rate", "holdout", "precision", "threads",
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "benchmark",
        help="tables of methods, categories and seeds, beside published values",
        description="Fit and measure methods x categories x seeds, and write report.md, report.html and results.csv "
        "with published values beside. A run that was stopped goes on where it stopped.",
        conflict_handler="resolve",  # --methods takes the place of the detector's --method
    )
    parser.add_argument("layout", metavar="LAYOUT", choices=LAYOUTS, help=f"one of: {', '.join(LAYOUTS)}")
    parser.add_argument("root", metavar="ROOT", help="folder of the data set, or of one of its categories")
    parser.add_argument("--categories", nargs="+", metavar="NAME", help="of the data set (default: all that are there)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[42], metavar="N", help="each makes a run of its own (default 42)"
    )
    parser.add_argument(
        "--shots",
        type=_shots,
        nargs="+",
        default=[None],
        metavar="N",
        help="good pictures to fit on, such as 1 5 10 16 50 all: the low-shot table (default all)",
    )
    parser.add_argument(
        "--preset",
        choices=_PRESETS,
        help="paper: as the authors' code; anomalib: as its defaults. Options given beside it go first",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the report and of finished cells")
    add_detector_options(parser)
    parser.add_argument(
        "--methods", "--method", dest="methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all"
    )
    add_output_options(parser)
    # None: not given; the preset's value is taken then, or else the method's own
    parser.set_defaults(run=run, **dict.fromkeys(_SETTINGS))


def run(args: argparse.Namespace) -> int:
    """Measure what is not done yet, write the tables; returns the exit code."""
    from totalrecall.benchmark import Benchmark, run_benchmark
    from totalrecall.files import check_writable

    out = Path(args.out)
    benchmark = Benchmark(
        args.layout,
        Path(args.root),
        categories=_categories(args),
        methods=_once(args.methods),
        seeds=_once(args.seeds),
        shots=_once(args.shots),
        settings={name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None},
        preset=args.preset,
    )
    for name in ("report.md", "report.html", "results.csv", "cells.jsonl"):
        check_writable(out / name)
    with progress_bars(args) as progress:
        lines, bad = run_benchmark(benchmark, out, progress=progress, tell=lambda text: say(args, text))
    for cell in bad:
        complain(f"{cell.title}: {cell.message}")
    for line in lines:
        for message in line["bad"]:
            complain(message)
    if lines:
        _write(args, benchmark, lines, bad, out)
    return 1 if bad or any(line["bad"] for line in lines) else 0


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
        raise SettingError(f"categories must be among {', '.join(there)}, got {unknown[0]!r}. Check {args.root}.")
    return _once(args.categories or there)


def _reference(benchmark: "Benchmark") -> "list[PublishedValue]":
    """Return what is published about a data set, for each number of good pictures that is asked for."""
    from totalrecall.reference import published

    return [row for shots in _once([None, *benchmark.shots]) for row in published(benchmark.layout, shots=shots)]


def _write(
    args: argparse.Namespace,
    benchmark: "Benchmark",
    lines: list[dict[str, Any]],
    bad: "list[BadCell]",
    out: Path,
) -> None:
    from totalrecall import benchmark_tables as tables_of
    from totalrecall.benchmark_page import write_benchmark_page
    from totalrecall.files import atomic_write

    found = tables_of.figures(
        lines, _reference(benchmark), protocols=benchmark.protocols, whole=benchmark.whole and not bad
    )
    summary, low = tables_of.summary_table(found), tables_of.shots_table(found)
    tables = [summary, *tables_of.metric_tables(found), *([low] if low else []), tables_of.resource_table(lines)]
    title = f"Benchmark: {args.layout}, {benchmark.backbone}"
    notes = _notes(benchmark, lines, bad)
    unusable = [(cell.title, cell.message) for cell in bad]
    unusable += [(line["setup"]["category"], message) for line in lines for message in line["bad"]]
    failed = [f"Not measured: {name}: {why}" for name, why in unusable]
    atomic_write(out / "report.md", tables_of.markdown(title, [*notes, *failed], tables).encode("utf-8", "replace"))
    atomic_write(out / "results.csv", tables_of.csv_text(found).encode("utf-8", "replace"))
    write_benchmark_page(
        out / "report.html",
        title=title,
        notes=notes,
        tables=tables,
        lines=lines,
        pictures=out / "pictures",
        bad=unusable,
    )
    _print(summary)
    say(args, f"Wrote {out / 'report.md'}, {out / 'report.html'} and {out / 'results.csv'}")


def _notes(benchmark: "Benchmark", lines: list[dict[str, Any]], bad: "list[BadCell]") -> list[str]:
    """Return what a reader must know to read the figures."""
    from totalrecall.benchmark_cell import words_of_settings

    preset = f"; preset {benchmark.preset}" if benchmark.preset else ""
    notes = [
        f"{len(lines)} cells; methods: {', '.join(benchmark.methods)}; categories: {len(benchmark.categories)}; seeds: "
        f"{', '.join(map(str, benchmark.seeds))}; backbone: {benchmark.backbone}{preset}."
    ]
    for method in benchmark.methods:
        mine = [line for line in lines if line["setup"]["method"] == method]
        if mine:
            notes.append(f"{method}: {words_of_settings(mine[0])}.")
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
