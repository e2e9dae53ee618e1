"""`totalrecall station study` and `station evidence`: is the inspection fit to decide, and the sheet that proves it."""

import argparse
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
from totalrecall.cli.options import add_rate_options, add_reading_options, add_running_options, fraction, running
from totalrecall.cli.paths import INPUT, OUTPUT
from totalrecall.errors import SettingError
from totalrecall.system.text import human_bytes

if TYPE_CHECKING:
    from totalrecall.station.quality.study import Gauge

__all__ = ["add_quality_parsers"]

_PARTS = "CSV file with the columns part,path,truth, or a folder good/PART/*.png and defect/PART/*.png"


def add_quality_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands to those of `totalrecall station`."""
    study = subparsers.add_parser(
        "study",
        help="gauge study: repeatability, misses, false alarms and kappa, by parts whose truth is known",
        description="Judge several pictures of each of 20 to 80 parts whose truth is known, and say how far scores and "
        "verdicts repeat, what is missed and rejected, and Cohen's kappa, with intervals.",
    )
    _add_sources(study)
    study.add_argument(
        "--runs", type=int, metavar="N", help="pictures of each part (default: as many as every part has)"
    )
    add_rate_options(study)
    _add_common(study)
    study.set_defaults(run=run_study_command)
    evidence = subparsers.add_parser(
        "evidence",
        help="evidence sheet: hashes, settings, acceptance criteria and result of a model",
        description="Judge pictures whose truth is known, compare the result with acceptance criteria, and write a "
        "sheet for the validation file. Exit code 0 if the criteria are met, 1 if not.",
    )
    _add_sources(evidence)
    evidence.add_argument(
        "--max-false-alarms",
        type=fraction,
        required=True,
        metavar="SHARE",
        help="of good pictures that may be rejected, such as 0.02",
    )
    evidence.add_argument(
        "--min-found", type=fraction, required=True, metavar="SHARE", help="of defects that must be found, such as 0.95"
    )
    _add_common(evidence)
    evidence.set_defaults(run=run_evidence_command)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=INPUT, help="file that `fit` or `export` wrote")
    parser.add_argument("parts", metavar="PARTS", type=INPUT, help=_PARTS)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="FILE", type=OUTPUT, help="page that can be printed, a FILE.html")
    parser.add_argument("--json", metavar="FILE", type=OUTPUT, help="write everything as JSON ('-' for stdout)")
    add_running_options(parser, precision=True)
    add_reading_options(parser)
    add_output_options(parser)


def run_study_command(args: argparse.Namespace) -> int:
    """Judge, tell, write; returns the exit code."""
    from totalrecall.registry import load_judge
    from totalrecall.station.quality.labelled import read_parts
    from totalrecall.station.quality.study import run_study
    from totalrecall.system.files import file_sha256

    _check_targets(args)
    parts = read_parts(args.parts)
    judge = judging(args, load_judge(args.model, **running(args)))
    digest = file_sha256(args.model)
    with progress_bars(args) as progress:
        gauge = run_study(judge, parts, runs=args.runs, progress=progress)
    if args.json != "-":
        for sentence in gauge.sentences():
            emit(sentence)
    for note in gauge.notes:
        say(args, note)
    if args.json:
        facts = {"model": args.model, "model_sha256": digest, "notices": args.notices}
        write_json(args.json, {**facts, **gauge.to_json()})
    if args.out:
        _write_study(args, gauge, digest, judge.promise_.in_words())
    return 0


def _write_study(args: argparse.Namespace, gauge: "Gauge", digest: str, promise: str) -> None:
    from datetime import datetime, timezone

    from totalrecall._version import __version__
    from totalrecall.station.quality.study_page import write_study

    facts = {
        "model": Path(args.model).name,
        "model, SHA-256": digest,
        "threshold promises": promise,
        "made": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC by totalrecall {__version__}",
    }
    path = write_study(args.out, gauge, facts=facts, notes=args.notices)
    say(args, f"Page: {path} ({human_bytes(path.stat().st_size)})")


def run_evidence_command(args: argparse.Namespace) -> int:
    """Judge, compare, write; returns 0 if the criteria are met, 1 if not."""
    from totalrecall.station.quality.evidence import Criteria, gather_evidence, write_evidence
    from totalrecall.station.quality.labelled import read_parts

    _check_targets(args)
    criteria = Criteria(max_false_alarms=args.max_false_alarms, min_found=args.min_found)
    parts = read_parts(args.parts)
    with progress_bars(args) as progress:
        evidence = gather_evidence(args.model, parts, criteria, running=running(args), progress=progress)
    if args.json != "-":
        for sentence in evidence.sentences():
            say(args, sentence)
        emit("Passed" if evidence.passed else "Failed")
    if args.json:
        write_json(args.json, {**evidence.to_json(), "notices": args.notices})
    if args.out:
        path = write_evidence(args.out, evidence)
        say(args, f"Page: {path} ({human_bytes(path.stat().st_size)})")
    if not evidence.passed:
        complain("the acceptance criteria are not met.")
    return 0 if evidence.passed else 1


def _check_targets(args: argparse.Namespace) -> None:
    check_target("--json", args.json)
    check_target("--out", args.out)
    if args.out == "-":
        raise SettingError("--out must name a file, got -. Write --out FILE.html.")
