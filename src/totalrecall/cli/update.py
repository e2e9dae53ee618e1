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
    told_size,
    write_json,
)
from totalrecall.cli.options import add_reading_options, fraction
from totalrecall.cli.paths import CHANGED, INPUT, OUTPUT
from totalrecall.system.text import counted

if TYPE_CHECKING:
    import numpy as np

    from totalrecall.detectors.changes import Change
    from totalrecall.detectors.history import Step
    from totalrecall.registry import AnyDetector

__all__ = ["add_parser"]

_SHOWN = 20  # pictures named one by one
_KEPT_NOTHING = (
    "Note: this model keeps nothing of the pictures that set its threshold, so it stays as it was; "
    "it may be too high by now. Fit again with this version for a threshold that follows."
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "update",
        help="let a model learn from false alarms, or take that back",
        description=(
            "Let good pictures join a model, such as false alarms, or leave it, without those that it was fitted on. "
            "The threshold follows. Only PatchCore models can learn pictures after their fit; the threshold and the "
            "false-alarm rate can be changed in every model. The file keeps the history, and every step can be undone, "
            "to the byte."
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
        help="learnt pictures: paths as given then, files of the same bytes, or SHA-256 (8 digits or more)",
    )
    what.add_argument(
        "--false-alarm-rate", type=fraction, metavar="RATE", help="judge at this rate from now on, such as 0.05"
    )
    what.add_argument("--threshold", type=fraction, metavar="SCORE", help="judge by this score from now on")
    what.add_argument("--undo", action="store_true", help="take back the last change, of update or teach")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and leave the file as it is")
    parser.add_argument("--json", metavar="FILE", type=OUTPUT, help="write what was done as JSON ('-' for stdout)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the backbone (default: all cores)")
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
    with exclusive(args.model) as found:
        detector = load_detector(args.model, threads=args.threads)
        with progress_bars(args) as progress:
            change = detector.update(
                add=pictures,
                remove=args.remove,
                false_alarm_rate=args.false_alarm_rate,
                threshold=args.threshold,
                progress=progress,
            )
        if (change.pictures or change.what == "threshold") and not args.dry_run:
            save_over(detector, args.model, found)
    for error in change.skipped:
        complain(error)
    _tell(args, change, detector)
    if args.json:
        facts = {"model": args.model, "dry_run": args.dry_run, "notices": args.notices}
        write_json(args.json, {**facts, **change.to_json()})
    return 1 if change.skipped else 0


def _tell(args: argparse.Namespace, change: "Change", detector: "AnyDetector") -> None:
    """Say what was done."""
    for path in change.known:
        say(args, f"{path}: in the model already, left out")
    if change.what == "threshold":
        _tell_threshold(args, change.threshold)
        say(args, detector.promise_.in_words())
        if args.dry_run:
            say(args, f"Dry run: {args.model} was left as it is")
        return
    if not change.pictures:
        say(args, "Nothing was changed")
        return
    done = {"add": "Added", "remove": "Removed", "undo": "Undid the update that added"}[change.what]
    count = len(change.pictures)
    say(args, f"{done} {counted(count, 'picture')}: {told_size(detector.kind, *change.vectors)}")
    if change.what == "add":
        forced = [one for one in change.pictures if one.forced]
        if forced:
            vectors = sum(one.forced for one in forced)
            say(args, f"  {vectors} of these were near the bank already, and entered for {len(forced)} of them to pass")
        for one in change.pictures[:_SHOWN]:
            entered = counted(one.vectors, "vector")
            say(args, f"  {one.path}: score {one.before:.4g}, now {one.after:.4g}; {entered}")
        if count > _SHOWN:
            say(args, f"  and {count - _SHOWN} more")
    _tell_threshold(args, change.threshold)
    if not change.recalibrated and change.what == "add":
        say(args, _KEPT_NOTHING)
    elif change.estimated:
        say(args, "  an estimate: pictures of the fit left, and the banks that scored the others are not kept")
    elif change.what != "undo" and change.lowest < change.threshold[1]:
        say(
            args, f"  at most that, at least {change.lowest:.4g}: the model does not keep enough to say it more exactly"
        )
    if change.what == "add" and change.still_anomalous:
        say(args, f"{change.still_anomalous} of them would still be called anomalous.")
    if args.dry_run:
        say(args, f"Dry run: {args.model} was left as it is")


def _tell_threshold(args: argparse.Namespace, threshold: tuple[float, float]) -> None:
    before, after = threshold
    if math.isnan(after):
        complain("warning: no threshold: the model gives no verdict")  # with --quiet too
        return
    was = "there was none" if math.isnan(before) else f"was {before:.4g}"
    say(args, f"Threshold: score {after:.4g}" + ("" if before == after else f", {was}"))


def _undo(args: argparse.Namespace) -> int:
    """Take back the last step, in the file alone: so it serves every kind, and files of other versions."""
    from totalrecall.detectors.history import last_step, undone
    from totalrecall.detectors.model_file import read_artifact, read_header, write_artifact
    from totalrecall.detectors.model_schema import check_layout_if_known
    from totalrecall.system.files import exclusive

    read_header(args.model)  # a clear word if it is no model
    with exclusive(args.model) as found:
        contents = read_artifact(args.model, check_layout_if_known)
        header, tensors = undone(contents)
        step = last_step(contents)
        _check_undone(header, tensors)
        if not args.dry_run:
            write_artifact(args.model, header, tensors, replacing=found)
    say(args, _words_of(step, str(header["kind"])))
    if args.dry_run:
        say(args, f"Dry run: {args.model} was left as it is")
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
        known = check_layout_if_known(header, {name: (one.dtype, one.shape) for name, one in tensors.items()})
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
        text += f": {told_size(kind, after, before)}"
    if step.threshold[0] is not None and step.threshold[1] is not None:
        text += f"; threshold {step.threshold[1]:.4g}, now {step.threshold[0]:.4g}"
    return text
