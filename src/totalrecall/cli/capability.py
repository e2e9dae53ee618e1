"""`totalrecall capability`: what a model would find, of defects that the program plants on good pictures."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.cli.common import (
    add_output_options,
    check_target,
    complain,
    emit,
    judging,
    print_table,
    progress_bars,
    save_over,
    say,
    write_json,
)
from totalrecall.cli.options import add_rate_options, add_reading_options, add_running_options, fraction, running
from totalrecall.cli.paths import CHANGED, INPUT, OUTPUT
from totalrecall.errors import DataError, SettingError
from totalrecall.system.text import counted, human_bytes, human_seconds

if TYPE_CHECKING:
    from totalrecall.capability import Capability, CapabilityStudy

__all__ = ["add_parser"]

# as `planting.KINDS`, without importing it to show --help
_KINDS = ("scratch", "dent", "stain", "blob", "missing", "shifted", "texture", "faded")
_NOT_REAL = "Planted defects are not real ones: test the model on real defects as soon as you have some."


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "capability",
        help="say what a model would find, without any real defect",
        description="Plant defects of several kinds and sizes on good pictures, judge them by the model, and say which "
        "sizes it finds: probability of detection with confidence bounds. Planted defects are not real ones.",
    )
    parser.add_argument("model", metavar="MODEL", type=CHANGED, help="file that `fit` wrote")
    parser.add_argument(
        "good",
        nargs="+",
        metavar="GOOD",
        type=INPUT,
        help="files, folders or globs of good pictures that the model was not fitted on",
    )
    parser.add_argument("-o", "--out", metavar="FILE", type=OUTPUT, help="page with curves and examples, a FILE.html")
    parser.add_argument("--json", metavar="FILE", type=OUTPUT, help="write everything as JSON ('-' for stdout)")
    parser.add_argument(
        "--save", action="store_true", help="keep a summary in the model file: `info` shows it until the model changes"
    )
    _add_planting_options(parser)
    add_rate_options(parser)
    add_running_options(parser, precision=True)
    add_reading_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def _add_planting_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("planting")
    group.add_argument(
        "--kinds",
        nargs="+",
        choices=_KINDS,
        metavar="KIND",
        help=f"kinds of defects: {', '.join(_KINDS)} (default: all)",
    )
    group.add_argument(
        "--sizes",
        nargs="+",
        type=fraction,
        metavar="PIXELS",
        help="longest sides of the defects, in pixels of the pictures (default: six sizes, by the size of the part)",
    )
    group.add_argument(
        "--contrast",
        nargs="+",
        type=fraction,
        default=[0.1],
        metavar="SHARE",
        help="share of white that a defect differs by; several are compared (default: 0.1)",
    )
    group.add_argument(
        "--per-size",
        type=int,
        default=20,
        metavar="N",
        help="defects of each kind, size and contrast (default: %(default)s)",
    )
    group.add_argument("--seed", type=int, default=0, help="seed of the planting (default: %(default)s)")
    group.add_argument("--millimetres-per-pixel", type=fraction, metavar="MM", help="name sizes in millimetres, too")


def run(args: argparse.Namespace) -> int:
    """Plant, judge, tell, write; returns the exit code."""
    from totalrecall.capability import CapabilityStudy
    from totalrecall.pictures.files import find_pictures
    from totalrecall.registry import load_detector

    _check(args)
    judged = _digest(args.model) if args.save else ""
    detector = judging(args, load_detector(args.model, **running(args)))
    with progress_bars(args) as progress:
        study = CapabilityStudy(
            detector,
            find_pictures(args.good),
            kinds=args.kinds,
            sizes=args.sizes,
            contrasts=args.contrast,
            per_size=args.per_size,
            seed=args.seed,
            millimetres_per_pixel=args.millimetres_per_pixel,
            progress=progress,
        )
        _announce(args, study)
        found = study.run()
    for error in found.skipped:
        complain(error)
    if args.json != "-":
        _tell(args, found)
    if args.json:
        write_json(args.json, {"model": args.model, **found.to_json(), "notices": args.notices})
    if args.save:
        _save(args, found, judged)
    if args.out:
        _write_page(args, found, detector.promise_.in_words())
    return 1 if found.skipped else 0


def _check(args: argparse.Namespace) -> None:
    check_target("--json", args.json)
    check_target("--out", args.out)
    if args.out == "-":
        raise SettingError("--out must name a file, got -. Write --out FILE.html.")
    if args.save and (args.threshold is not None or args.false_alarm_rate is not None):
        other = "--threshold" if args.threshold is not None else "--false-alarm-rate"
        raise SettingError(f"--save keeps what the model's own threshold finds, got {other}. Leave one of them out.")


def _digest(model: str) -> str:
    """Return the SHA-256 of a model's file."""
    from totalrecall.detectors.model_file import read_header
    from totalrecall.system.files import file_sha256

    read_header(model)  # a clear word if it is no model
    return file_sha256(model)


def _save(args: argparse.Namespace, found: "Capability", judged: str) -> None:
    """Keep a summary in the model's file, if that is still the model that was judged."""
    from totalrecall.registry import load_detector
    from totalrecall.system.files import exclusive

    with exclusive(args.model) as there:
        if there != judged:
            raise DataError(
                f"{args.model} was changed while it was measured, so nothing was kept in it. Measure again."
            )
        detector = load_detector(args.model)  # as it is in the file, whatever the precision of this run
        detector.keep_capability(found.summary())
        save_over(detector, args.model, there)
    say(args, f"Kept a summary in {args.model}: `info` shows it until the model changes")


def _announce(args: argparse.Namespace, study: "CapabilityStudy") -> None:
    """Say beforehand how many pictures will be judged, and about how long that takes."""
    seconds = study.trials * study.milliseconds / 1000
    sizes = ", ".join(f"{size:g}" for size in study.sizes)
    say(
        args,
        f"Plan: {study.trials} planted defects of {sizes} pixels on {counted(len(study.pictures), 'good picture')}, "
        f"about {human_seconds(seconds)}",
    )


def _tell(args: argparse.Namespace, found: "Capability") -> None:
    """Print the table, a result, and for a person the sentences."""
    from rich.table import Table

    from totalrecall.capability.page import HEADS, rows_of

    table = Table(box=None, pad_edge=False)
    for at, head in enumerate(HEADS):
        table.add_column(head, justify="right" if at else "left")
    for row in rows_of(found):
        table.add_row(*row)
    print_table(table)
    for sentence in found.sentences():
        say(args, sentence)
    for note in found.notes():
        if f"{note}." not in args.notices:  # else it was said before the work
            say(args, f"{note}.")
    emit(_NOT_REAL)  # with --quiet, too


def _write_page(args: argparse.Namespace, found: "Capability", promise: str) -> None:
    from totalrecall.capability.page import write_page_of

    facts: dict[str, Any] = {"model": Path(args.model).stem}
    path = write_page_of(args.out, found, facts=facts, notes=[promise, *args.notices])
    say(args, f"Page: {path} ({human_bytes(path.stat().st_size)})")
