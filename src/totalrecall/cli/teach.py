"""`totalrecall teach`: what it would cost to catch a defect that was missed."""

import argparse
import math
import shlex
from typing import TYPE_CHECKING

from totalrecall.cli.common import add_output_options, check_target, complain, save_over, say, write_json
from totalrecall.cli.options import add_reading_options, add_running_options, running
from totalrecall.cli.paths import CHANGED, INPUT, OUTPUT

if TYPE_CHECKING:
    from totalrecall.calibration import Calibration
    from totalrecall.detectors.changes import Lesson
    from totalrecall.registry import AnyDetector

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "teach",
        help="say what it would cost to catch a missed defect",
        description=(
            "Say which threshold would have caught known defects, and how many good pictures it would call anomalous. "
            "Nothing changes without --apply."
        ),
    )
    parser.add_argument("model", metavar="MODEL", type=CHANGED, help="file that `fit` wrote")
    parser.add_argument(
        "--defect",
        nargs="+",
        required=True,
        metavar="PICTURES",
        type=INPUT,
        help="files, folders or globs of known defects",
    )
    parser.add_argument(
        "--apply", action="store_true", help="set the threshold that catches them all; `update --undo` takes it back"
    )
    parser.add_argument("--json", metavar="FILE", type=OUTPUT, help="write the result as JSON ('-' for stdout)")
    add_running_options(parser)
    add_reading_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score the defects, say what it costs to catch them, and set the threshold with --apply; returns the exit code."""
    from totalrecall.detectors.model_file import read_header
    from totalrecall.pictures.files import find_pictures
    from totalrecall.registry import load_detector
    from totalrecall.system.files import exclusive

    check_target("--json", args.json)
    read_header(args.model)  # a clear word if it is no model
    pictures = find_pictures(args.defect)
    with exclusive(args.model) as sha256:
        detector = load_detector(args.model, **running(args))
        before = detector.threshold_
        told, skipped = detector.teach(pictures, apply=args.apply)
        changed = detector.taught_ is not None and detector.threshold_ != before  # subtle: nan is unlike itself
        if changed:
            save_over(detector, args.model, sha256)
    for error in skipped:
        complain(error)
    _tell(args, detector, told, before, changed)
    if args.json:
        facts = {"model": args.model, "threshold": [before, detector.threshold_], "applied": args.apply}
        facts |= {"skipped": [str(error) for error in skipped], "notices": args.notices}
        write_json(args.json, {**facts, "defects": [lesson.to_json() for lesson in told]})
    return 1 if skipped else 0


def _tell(
    args: argparse.Namespace, detector: "AnyDetector", told: "list[Lesson]", before: float, changed: bool
) -> None:
    """Say what each defect tells, and all of them together."""
    calibration = detector.calibration_
    for lesson in told:
        verdict = {True: "caught", False: "missed", None: "no verdict"}[lesson.caught]
        p_value = "" if math.isnan(lesson.p_value) else f", p-value {lesson.p_value:.2g}"
        say(args, f"{lesson.path}: score {lesson.score:.4g}{p_value}, {verdict}")
        if lesson.caught is not True:
            say(
                args,
                f"  A threshold of {lesson.threshold:.4g} would catch it; {_cost(calibration, lesson.threshold)}",
            )
    missed = [lesson for lesson in told if lesson.caught is not True]
    if not told:
        return
    if not missed:
        say(args, f"Nothing to teach: the threshold {before:.4g} catches all of them")
        return
    lowest = min(missed, key=lambda lesson: lesson.threshold)
    none = math.isnan(before)
    if changed:
        was = "there was none" if none else f"was {before:.4g}"
        undo = f"totalrecall update {shlex.quote(str(args.model))} --undo"
        say(args, f"Threshold: score {detector.threshold_:.4g}, {was}. To take it back: {undo}")
        say(args, detector.promise_.in_words())
    else:
        now = "there is none" if none else f"it is {before:.4g}"
        say(
            args,
            f"To catch all of them the threshold must be {lowest.threshold:.4g}, {now}; "
            f"{_cost(calibration, lowest.threshold)}. Nothing was changed: --apply sets it.",
        )


def _cost(calibration: "Calibration", threshold: float) -> str:
    """Say how many good pictures a threshold calls anomalous."""
    from totalrecall.detectors.promise import Promise

    return f"false alarms are then {Promise(calibration, threshold, 'taught').rate_in_words()}"
