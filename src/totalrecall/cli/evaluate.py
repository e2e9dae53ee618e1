"""`totalrecall evaluate`: the metrics of a fitted model on a labelled data set."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.common import (
    add_output_options,
    check_target,
    complain,
    emit,
    judging,
    progress_bars,
    say,
    write_json,
)
from totalrecall.cli.options import (
    LAYOUTS,
    add_rate_options,
    add_reading_options,
    add_report_options,
    add_running_options,
    check_report,
    running,
)
from totalrecall.cli.paths import INPUT, OUTPUT
from totalrecall.system.text import counted, human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from totalrecall.evaluation.evaluate import Evaluation
    from totalrecall.registry import AnyJudge
    from totalrecall.reports.writer import ReportWriter

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model on labelled pictures",
        description="Measure a fitted model on a labelled data set: AUROC and F1 of pictures, AUROC and PRO of pixels.",
    )
    parser.add_argument("model", metavar="MODEL", type=INPUT, help="file that `fit` or `export` wrote")
    parser.add_argument(
        "root", metavar="ROOT", type=INPUT, help="folder of the data set; for mvtec the folder of one category"
    )
    parser.add_argument("--layout", choices=LAYOUTS, required=True, help="layout of the data set's folder")
    parser.add_argument(
        "--seed",
        type=int,
        help="seed of the split, for layouts without an official split (default: the seed of the fit)",
    )
    parser.add_argument("--json", metavar="FILE", type=OUTPUT, help="write the metrics as JSON ('-' for stdout)")
    add_rate_options(parser)
    add_report_options(parser)
    add_running_options(parser, precision=True)
    add_reading_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, write; returns the exit code."""
    from totalrecall.datasets import open_dataset
    from totalrecall.evaluation.evaluate import evaluate
    from totalrecall.registry import load_judge

    check_target("--json", args.json)
    check_report(args)
    detector = judging(args, load_judge(args.model, **running(args)))
    seed = detector.settings.seed if args.seed is None else args.seed
    data = open_dataset(args.layout, args.root, seed=seed)
    for warning in data.warnings:
        complain(f"warning: {warning}")
    report = _report(args, detector)
    with progress_bars(args) as progress:
        step = None if progress is None else (lambda done, total: progress("scoring", done, total))
        evaluation = evaluate(detector, data.test, progress=step, heard=report.add_sample if report else None)
    for bad in evaluation.bad:
        complain(bad.message)
    promise = detector.promise_
    unchanged = args.false_alarm_rate is None and args.threshold is None
    _tell(args, evaluation, "the model's threshold" if unchanged else f"threshold {promise.threshold:.4g}")
    if args.json:
        facts = {"model": args.model, "root": args.root, "seed": seed, "notices": [*data.warnings, *args.notices]}
        facts |= {"threshold": promise.threshold, "threshold_is": promise.origin}
        write_json(args.json, {**evaluation.to_json(), **facts})
    if report:
        _write_report(args, report, evaluation, [*data.warnings, *args.notices])
    return 1 if evaluation.bad else 0


def _report(args: argparse.Namespace, detector: "AnyJudge") -> "ReportWriter | None":
    if not args.report:
        return None
    from totalrecall.reports.writer import ReportWriter

    return ReportWriter(args.report, detector, good_pictures=[*(args.good_pictures or ()), args.root])


def _write_report(
    args: argparse.Namespace, report: "ReportWriter", measured: "Evaluation", warnings: "Sequence[str]"
) -> None:
    path = report.write(
        f"Total Recall: {Path(args.model).stem}, measured",
        facts={
            "model": args.model,
            "data set": f"{args.root}, layout {args.layout}",
            "seconds": f"{measured.seconds:.1f}",
        },
        notes=warnings,
        parts_per_day=args.parts_per_day,
        measured=measured,
    )
    say(args, f"Wrote the report {path} ({human_bytes(path.stat().st_size)})")


def _tell(args: argparse.Namespace, evaluation: "Evaluation", threshold: str) -> None:
    rows = [
        ("image AUROC", evaluation.image_auroc),
        ("image F1 (best)", evaluation.image_f1),
        ("pixel AUROC", evaluation.pixel_auroc),
        ("pixel AUPRO 0.3", evaluation.pixel_aupro),
    ]
    for name, value in rows:
        if args.json != "-":  # a result, so --quiet keeps it
            emit(f"{name:<16} {value:.4f}")
    if args.json != "-":
        emit(evaluation.verdicts_in_words(threshold))
    for level, reason in evaluation.reasons.items():
        if reason:
            say(args, f"{level} metrics: {reason}")
    for defect, value in evaluation.defect_auroc.items():
        if not math.isnan(value):
            say(args, f"  {defect:<14} {value:.4f}  (image AUROC)")
    rate = evaluation.images / evaluation.seconds
    say(args, f"{counted(evaluation.images, 'picture')} in {evaluation.seconds:.1f} s ({rate:.1f} pictures/s)")
