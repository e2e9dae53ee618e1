"""`totalrecall audit`: the good pictures that look least like the others, before anything learns from them."""

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.common import (
    add_output_options,
    check_target,
    complain,
    print_table,
    progress_bars,
    say,
    write_json,
)
from totalrecall.cli.options import (
    add_reading_options,
    add_setting_options,
    add_split_options,
    given_settings,
    memory_size,
    tell_region,
    training_pictures,
)
from totalrecall.cli.paths import INPUT, OUTPUT, PathArgument
from totalrecall.detectors.settings import ComparedSettings
from totalrecall.errors import DataError, SettingError
from totalrecall.system.text import counted, human_bytes

if TYPE_CHECKING:
    from totalrecall.audit.audit import Audit, Shown

__all__ = ["add_parser"]

_SHEETS = PathArgument(writes=True, inside=("audit.html", "audit.png"))
_NAMED = 10  # groups, sizes and names that are listed before the rest is counted


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "audit",
        help="find dirty pictures among the good ones",
        description="Rank good pictures by how badly the others explain them, the worst first, and give the reason. "
        "Also name duplicates, unusual sizes and unreadable files. Needs no model and no defect, and changes nothing.",
    )
    parser.add_argument(
        "good", nargs="+", metavar="GOOD", type=INPUT, help="files, folders or globs; with --layout the data set's root"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=_SHEETS,
        help="contact sheet: a FILE.html, or a folder for audit.html and audit.png",
    )
    parser.add_argument(
        "--top", type=int, default=20, metavar="N", help="number of pictures to show (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", type=OUTPUT, help="write everything as JSON ('-' for stdout)")
    add_split_options(parser)
    parser.add_argument(
        "--memory",
        type=memory_size,
        metavar="SIZE",
        help="most memory that the program may use, such as 2GB (default: half of the free memory)",
    )
    add_reading_options(parser)
    add_output_options(parser)
    add_setting_options(parser, {"audit": ComparedSettings})
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Audit, show, tell; returns the exit code."""
    from totalrecall.audit.audit import audit
    from totalrecall.pictures.masks import read_roi

    _check(args)
    if args.json != "-":
        tell_region(args, read_roi(args.roi))
    pictures = training_pictures(args)
    with progress_bars(args) as progress:
        settings = ComparedSettings(**given_settings(args, ComparedSettings))
        result = audit(pictures, settings, memory=args.memory, progress=progress)
    for error in result.skipped:
        complain(error)
    shown = list(islice(result.show(args.top), args.top))
    if args.json != "-":
        _tell(args, result, shown)
    if args.output:
        _write_sheet(args, result, shown)
    if args.json:
        write_json(args.json, {**result.to_json(shown), "notices": args.notices})
    return 1 if result.skipped else 0


def _check(args: argparse.Namespace) -> None:
    if args.top < 1:
        raise SettingError(f"--top must be at least 1, got {args.top}.")
    check_target("--json", args.json)
    if args.output is None:
        return
    output = Path(args.output)
    check_target("--output", str(output / "audit.html") if output.is_dir() else args.output)
    if output.suffix.lower() not in (".html", ".htm") and output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file. Name a folder, or a file that ends in .html.")


def _write_sheet(args: argparse.Namespace, result: "Audit", shown: "Sequence[Shown]") -> None:
    from totalrecall.audit.sheet import write_page_of, write_picture_of

    output = Path(args.output)
    if output.suffix.lower() in (".html", ".htm"):
        say(args, f"Contact sheet: {write_page_of(output, result, shown, notes=[_summary(result)])}")
        return
    page = write_page_of(output / "audit.html", result, shown, notes=[_summary(result)])
    write_picture_of(output / "audit.png", result, shown)
    say(args, f"Contact sheet: {page} and {output / 'audit.png'}")


def _tell(args: argparse.Namespace, result: "Audit", shown: "Sequence[Shown]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("level", justify="right")
    table.add_column("picture", overflow="fold")
    table.add_column("why", overflow="fold")
    for rank, picture in enumerate(shown, start=1):
        mark = "* " if picture.entry.stands_out else ""
        table.add_row(f"{mark}{rank}", f"{picture.entry.level:.3f}", picture.entry.path, picture.reason)
    print_table(table)
    say(args, _summary(result))
    if result.parts < len(result.pictures):
        say(
            args,
            f"The pictures seem to show {result.parts} different parts. Pictures of the same part are ranked together.",
        )
    if result.report.repeats:
        count = len(result.report.repeats)
        say(
            args,
            f"Not compared: {counted(count, 'picture')} that {'repeats another' if count == 1 else 'repeat others'}.",
        )
    _name(args, [_duplicates(result, exact=True), _duplicates(result, exact=False), _sizes(result)])
    seconds = result.report.seconds
    say(
        args,
        f"Time: features {seconds['features']:.1f} s, coreset {seconds['coreset']:.1f} s, "
        f"comparing {seconds['comparing']:.1f} s; peak memory {human_bytes(result.report.peak_memory)}",
    )


def _summary(result: "Audit") -> str:
    """Say in one line how many stand out."""
    count, total = len(result.outliers), len(result.pictures)
    if not result.limit < float("inf"):
        return f"{total} pictures are too few to say which of them stand out. They are ranked, the worst first."
    if not count:
        return f"None of {total} pictures stands out: the worst is at {result.entries[0].level:.3g}, {_limit(result)}."
    stand = "stands" if count == 1 else "stand"
    return f"{count} of {total} pictures {stand} out (*): above {result.limit:.3g}, usual is {result.usual:.3g}."


def _limit(result: "Audit") -> str:
    return f"the limit is {result.limit:.3g}, usual is {result.usual:.3g}"


def _duplicates(result: "Audit", *, exact: bool) -> list[str]:
    what = "The same file" if exact else "Nearly the same"
    return [f"{what}: " + result.names_of(group) for group in result.duplicates if group.exact == exact]


def _sizes(result: "Audit") -> list[str]:
    odd = [(result.pictures[size.picture], size.usual) for size in result.sizes]
    return [
        f"Unusual size: {picture.path} is {picture.width} x {picture.height}, usual is {usual}"
        for picture, usual in odd
    ]


def _name(args: argparse.Namespace, kinds: list[list[str]]) -> None:
    for lines in kinds:
        for line in lines[:_NAMED]:
            say(args, line)
        if len(lines) > _NAMED:
            say(args, f"... and {len(lines) - _NAMED} more of these (--json names all)")
