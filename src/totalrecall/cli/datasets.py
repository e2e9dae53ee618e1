"""`totalrecall datasets`: the labelled sets that are known, how their files lie, whether those on disk are whole."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.cli.common import (
    add_output_options,
    check_target,
    complain,
    emit,
    print_table,
    progress_bars,
    say,
    write_json,
)
from totalrecall.cli.options import LAYOUTS, add_reading_options
from totalrecall.cli.paths import INPUT, OUTPUT
from totalrecall.errors import DataError, SettingError, only_picture_notices

if TYPE_CHECKING:
    from totalrecall.datasets import Counts, DataSet, SetInfo
    from totalrecall.datasets.check import Problem

__all__ = ["add_parser"]

_SHOWN = 10  # problems of a category that are printed; --json has them all


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "datasets",
        help="list the known data sets, or check one on disk",
        description="List the known data sets with web page, licence and numbers of pictures. With LAYOUT: say how its "
        "files are arranged. With LAYOUT and ROOT: check that all files are there, can be read, and have masks of the "
        "right size.",
    )
    parser.add_argument(
        "layout", nargs="?", choices=LAYOUTS, metavar="LAYOUT", help=f"layout of the data set: {', '.join(LAYOUTS)}"
    )
    parser.add_argument(
        "root", nargs="?", metavar="ROOT", type=INPUT, help="folder of the set, or of one of its categories"
    )
    parser.add_argument(
        "--categories", nargs="+", metavar="NAME", help="categories to check (default: all that are there)"
    )
    parser.add_argument(
        "--decode",
        action="store_true",
        help="decode every picture, not only its first bytes; slow, but finds all damage",
    )
    parser.add_argument(
        "--extract-frames", action="store_true", help="for mstc: first extract the training frames from the videos"
    )
    parser.add_argument(
        "--json", metavar="FILE", type=OUTPUT, help="write the output and all problems as JSON ('-' for stdout)"
    )
    add_reading_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List, describe or check; returns the exit code."""
    check_target("--json", args.json)
    if args.root is None and (args.categories or args.decode or args.extract_frames):
        raise SettingError("--categories, --decode and --extract-frames need a data set on disk. Give LAYOUT and ROOT.")
    if args.layout is None:
        return _list(args)
    if args.root is None:
        return _describe(args)
    if args.extract_frames:
        _extract_frames(args)
    return _check(args)


def _list(args: argparse.Namespace) -> int:
    from totalrecall.datasets import SETS

    if args.json:
        write_json(args.json, {"datasets": [_facts(info) for info in SETS.values()]})
    if args.json != "-":
        rows = [[info.layout, info.title, str(len(info.counts) or ""), *_numbers(info.total)] for info in SETS.values()]
        _print_rows(["layout", "set", "categories", *_KINDS], rows)
        say(args, "")
        for info in SETS.values():
            for i, text in enumerate(text for text in (info.page, info.licence, info.note) if text):
                say(args, f"{'' if i else info.layout:<11} {text}")
    return 0


def _describe(args: argparse.Namespace) -> int:
    from importlib import import_module

    from totalrecall.datasets import SETS

    info = SETS[args.layout]
    if args.json:
        write_json(args.json, _facts(info))
        if args.json == "-":
            return 0
    module = import_module(f"totalrecall.datasets.{args.layout.replace('-', '_')}")
    facts = [info.page, info.licence and f"Licence: {info.licence}", info.note]
    about = (module.__doc__ or info.title).strip().splitlines()
    for line in [*about, "", *(text for text in facts if text), ""]:
        emit(line)
    if info.counts:
        _print_rows(["category", *_KINDS], [[name, *_numbers(counts)] for name, counts in info.counts.items()])
    return 0


def _check(args: argparse.Namespace) -> int:
    from totalrecall.datasets import SETS, categories
    from totalrecall.datasets.check import check_files
    from totalrecall.datasets.overlap import split_note

    info = SETS[args.layout]
    names = args.categories or categories(args.layout, args.root)
    opened = [(name, _open(args, name)) for name in names]
    total, done = sum(len(data.samples) for _, data in opened if not isinstance(data, DataError)), 0
    reports = []
    with progress_bars(args) as progress:
        for name, data in opened:
            if isinstance(data, DataError):
                reports.append(_report(info, name, None, [str(data)], []))
                continue
            step = (
                None if progress is None else (lambda n, _, before=done: progress("Checking files", before + n, total))
            )
            problems = check_files(data, decode=args.decode, progress=step)
            done += len(data.samples)
            twice = split_note(data)
            told = [*data.warnings, *data.passed_over, *([twice] if twice else [])]
            reports.append(_report(info, name, data, told, problems))
    absent = [name for name in info.counts if name not in dict(opened)] if args.categories is None else []
    wrong = any(report["wrong"] for report in reports)
    _tell(args, reports, absent)
    if args.json:
        facts = {"layout": args.layout, "root": args.root, "ok": not wrong, "absent": absent, "categories": reports}
        write_json(args.json, facts)
    return 1 if wrong else 0


def _open(args: argparse.Namespace, name: str) -> "DataSet | DataError":
    """Return a category, or why it cannot be opened: the others are still looked at."""
    from totalrecall.datasets import open_dataset

    try:
        with only_picture_notices(quiet=True):  # they are among what is wrong
            return open_dataset(args.layout, args.root, category=name)
    except DataError as error:
        return error


def _report(
    info: "SetInfo", name: str, data: "DataSet | None", warnings: list[str], problems: "list[Problem]"
) -> dict[str, Any]:
    from totalrecall.datasets.base import mask_warnings
    from totalrecall.datasets.official import count

    samples = [] if data is None else data.samples
    users_own = info.layout in ("folder", "mvtec") and name not in info.counts  # a set of one's own needs no masks
    masked = sum(sample.mask is not None for sample in samples)
    notes = list(mask_warnings(samples)) if users_own and not masked else []
    official = info.counts.get(name)
    counts = count(samples)
    return {
        "category": name,
        **_as_json(counts),
        "with_mask": masked,
        "official": None if official is None else _as_json(official),
        "as_published": None if official is None else counts == official,
        "notes": notes,
        "warnings": [warning for warning in warnings if warning not in notes],
        "problems": [{"path": str(problem.path), "message": problem.message} for problem in problems],
        "wrong": bool(problems or set(warnings) - set(notes)),
    }


def _tell(args: argparse.Namespace, reports: list[dict[str, Any]], absent: list[str]) -> None:
    answers = {None: "", True: "yes", False: "no"}
    rows = [
        [
            report["category"],
            *(str(report[kind]) for kind in ("train", "validation", "good", "anomalous", "with_mask")),
            answers[report["as_published"]],
            str(len(report["warnings"]) + len(report["problems"])),
        ]
        for report in reports
    ]
    if args.json != "-":
        _print_rows(["category", *_KINDS, "masks", "as published", "problems"], rows)
    for report in reports:
        for note in report["notes"]:
            say(args, f"{report['category']}: {note}")
        for warning in report["warnings"]:
            complain(f"{report['category']}: {warning}")
        for problem in report["problems"][:_SHOWN]:
            complain(f"{report['category']}: {problem['message']}")
        if len(report["problems"]) > _SHOWN:
            complain(
                f"{report['category']}: {len(report['problems']) - _SHOWN} more like these; --json lists them all."
            )
    if absent and len(reports) > 1:
        say(args, f"Official categories that are not here: {', '.join(absent)}")
    if not any(report["wrong"] for report in reports):
        say(args, "No problem was found.")


def _extract_frames(args: argparse.Namespace) -> None:
    from totalrecall.datasets.mstc import extract_frames

    if args.layout != "mstc":
        raise SettingError(f"--extract-frames is for mstc, got {args.layout}. Leave it out.")
    with progress_bars(args) as progress:
        step = None if progress is None else (lambda done, total: progress("Extracting frames", done, total))
        written = extract_frames(Path(args.root), progress=step)
    say(args, f"Wrote {written} frames into {Path(args.root) / 'training' / 'frames'}")


_KINDS = ("to fit", "validate", "good", "bad")  # pictures to fit on, kept aside, and to test on


def _numbers(counts: "Counts") -> list[str]:
    return [str(n or "") for n in (counts.train, counts.validation, counts.good, counts.bad)]


def _as_json(counts: "Counts") -> dict[str, int]:
    return {
        "train": counts.train,
        "validation": counts.validation,
        "good": counts.good,
        "anomalous": counts.bad,
    }


def _facts(info: "SetInfo") -> dict[str, Any]:
    return {
        "layout": info.layout,
        "title": info.title,
        "page": info.page,
        "licence": info.licence,
        "note": info.note,
        "categories": {name: _as_json(counts) for name, counts in info.counts.items()},
    }


def _print_rows(headings: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, heading in enumerate(headings):
        numeric = bool(rows) and all(row[i].isdigit() or not row[i] for row in rows) and any(row[i] for row in rows)
        table.add_column(heading, justify="right" if numeric and i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    print_table(table)
