"""`totalrecall update`: good pictures join a model after its fit, or leave it; the last change is taken back."""

import argparse
import math
from typing import TYPE_CHECKING, Any

from totalrecall.cli.common import (
    add_output_options,
    check_target,
    complain,
    progress_bars,
    save_over,
    say,
    size_change,
    write_json,
)
from totalrecall.cli.options import add_reading_options, add_running_options, fraction, running
from totalrecall.cli.paths import CHANGED, INPUT, OUTPUT
from totalrecall.system.text import counted

if TYPE_CHECKING:
    import numpy as np

    from totalrecall.detectors.changes import Change
    from totalrecall.detectors.history import Step
    from totalrecall.registry import AnyDetector

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "update",
        help="let a model learn from false alarms, or take that back",
        description=(
            "Add good pictures to a model, such as false alarms, or remove them, without the pictures of the fit. "
            "The threshold follows. Only PatchCore models can learn pictures after their fit; the threshold and the "
            "false-alarm rate can be changed in every model. The file keeps the history, and every step can be undone "
            "exactly."
        ),
    )
    parser.add_argument(
        "model", metavar="MODEL", type=CHANGED, help="file that `fit` wrote; it is replaced whole or not at all"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--add", nargs="+", metavar="PICTURES", type=INPUT, help="files, folders or globs of good pictures"
    )
    what.add_argument(
        "--remove",
        nargs="+",
        metavar="PICTURE",
        type=INPUT,
        help="learnt pictures: their paths at that time, files with the same bytes, or SHA-256 (8 digits or more)",
    )
    what.add_argument(
        "--false-alarm-rate", type=fraction, metavar="RATE", help="judge at this rate from now on, such as 0.05"
    )
    what.add_argument("--threshold", type=fraction, metavar="SCORE", help="judge by this score from now on")
    what.add_argument("--undo", action="store_true", help="take back the last change, of update or teach")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, but do not change the file")
    parser.add_argument("--json", metavar="FILE", type=OUTPUT, help="write what was done as JSON ('-' for stdout)")
    add_running_options(parser)
    add_reading_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Change the model and say what was done; returns the exit code."""
    check_target("--json", args.json)
    return _undo(args) if args.undo else _update(args)


def _update(args: argparse.Namespace) -> int:
    from totalrecall.detectors.model_file import read_header
    from totalrecall.pictures.files import find_pictures
    from totalrecall.registry import load_detector
    from totalrecall.system.files import exclusive

    read_header(args.model)  # a clear word if it is no model
    pictures = find_pictures(args.add) if args.add else None
    with exclusive(args.model) as sha256:
        detector = load_detector(args.model, **running(args))
        with progress_bars(args) as progress:
            change = detector.update(
                add=pictures,
                remove=args.remove,
                false_alarm_rate=args.false_alarm_rate,
                threshold=args.threshold,
                progress=progress,
            )
        if (change.pictures or change.what == "threshold") and not args.dry_run:
            save_over(detector, args.model, sha256)
    for error in change.skipped:
        complain(error)
    _tell(args, change, detector)
    if args.json:
        facts = {"model": args.model, "dry_run": args.dry_run, "notices": args.notices}
        write_json(args.json, {**facts, **change.to_json()})
    return 1 if change.skipped else 0


def _tell(args: argparse.Namespace, change: "Change", detector: "AnyDetector") -> None:
    """Say what was done."""
    for line in change.lines():
        say(args, line)
    if not change.pictures and change.what != "threshold":
        return
    if math.isnan(change.threshold[1]):
        complain("warning: no threshold: the model gives no verdict")  # with --quiet too
    if change.what == "threshold":
        say(args, detector.promise_.in_words())
    if args.dry_run:
        say(args, f"Dry run: {args.model} was not changed")


def _undo(args: argparse.Namespace) -> int:
    """Take back the last step, in the file alone: so it serves every kind, and files of other versions."""
    from totalrecall.detectors.history import last_step, undone
    from totalrecall.detectors.model_file import read_artifact, read_header, write_artifact
    from totalrecall.detectors.model_schema import check_layout_if_known
    from totalrecall.system.files import exclusive

    read_header(args.model)  # a clear word if it is no model
    with exclusive(args.model) as sha256:
        contents = read_artifact(args.model, check_layout_if_known)
        header, tensors = undone(contents)
        step = last_step(contents)
        _check_undone(header, tensors)
        if not args.dry_run:
            write_artifact(args.model, header, tensors, replacing=sha256)
    say(args, _words_of(step, str(header["kind"])))
    if args.dry_run:
        say(args, f"Dry run: {args.model} was not changed")
    if args.json:
        facts = {**step.to_json(), "what": "undo", "undone": step.what}
        write_json(args.json, {"model": args.model, "dry_run": args.dry_run, **facts})
    return 0


def _check_undone(header: dict[str, Any], tensors: "dict[str, np.ndarray]") -> None:
    """Refuse to write over a model what no model holds; of a kind of another version it cannot be told.

    Raises:
        ModelFileError: the history leads to it.
    """
    from totalrecall.detectors.model_schema import check_layout_if_known, check_values
    from totalrecall.errors import ModelFileError

    try:
        known = check_layout_if_known(header, {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()})
        if known:
            check_values(header, tensors)
    except ValueError as error:
        raise ModelFileError(f"The model's history is damaged: {error}. Copy or fit it again.") from None


def _words_of(step: "Step", kind: str) -> str:
    """Say what was taken back."""
    count = len(step.pictures)
    if step.what == "threshold":
        text = f"Undid the change of the threshold of {step.when}"
    else:
        text = f"Undid {step.what} of {step.when} ({counted(count, 'picture')})"
    before, after = step.vectors
    if before != after:
        text += f": {size_change(kind, after, before)}"
    if step.threshold[0] is not None and step.threshold[1] is not None:
        text += f"; threshold {step.threshold[1]:.4g}, now {step.threshold[0]:.4g}"
    return text
