"""`totalrecall predict`: pictures -> scores, verdicts, heat maps."""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from totalrecall.cli.common import add_output_options, check_target, complain, emit, judging, progress_bars, say
from totalrecall.cli.options import (
    add_rate_options,
    add_reading_options,
    add_report_options,
    add_running_options,
    check_report,
    running,
)
from totalrecall.cli.paths import CHANGED, INPUT, LINES, OUTPUT
from totalrecall.cli.spread import add_spread_options, check_spread
from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.system.files import is_special
from totalrecall.system.text import counted, csv_line, escaped_json, human_bytes, listed, printable

if TYPE_CHECKING:
    from totalrecall.cli.heatmaps import HeatmapFolder
    from totalrecall.registry import AnyJudge
    from totalrecall.reports.writer import ReportWriter
    from totalrecall.scoring import Result

__all__ = ["add_parser"]

_MOST_NAMED = 3
DEFECT_FOUND, NO_VERDICT = 10, 11  # exit codes of --fail-on-anomaly
_COLUMNS = (
    "path",
    "score",
    "threshold",
    "is_anomalous",
    "p_value",
    "regions",
    "nearest_path",
    "nearest_x",
    "nearest_y",
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "predict",
        help="score pictures",
        description="Score pictures with a fitted model. Unreadable pictures are named, and the others are scored.",
    )
    parser.add_argument("model", metavar="MODEL", type=INPUT, help="file that `fit` or `export` wrote")
    parser.add_argument("pictures", nargs="+", metavar="PICTURES", type=INPUT, help="files, folders or globs")
    parser.add_argument("--json", metavar="FILE", type=LINES, help="write one JSON line per picture ('-' for stdout)")
    parser.add_argument("--csv", metavar="FILE", type=LINES, help="write one CSV row per picture ('-' for stdout)")
    parser.add_argument(
        "--heatmaps",
        metavar="DIR",
        type=OUTPUT,
        help="write each picture with its heat map, regions and verdict into this folder",
    )
    add_rate_options(parser)
    add_report_options(parser)
    parser.add_argument(
        "--monitor",
        metavar="FILE",
        type=CHANGED,
        help="warn when light, focus or position changes; FILE stores the state, and the next run continues it",
    )
    parser.add_argument(
        "--fail-on-anomaly",
        action="store_true",
        help=f"exit with {DEFECT_FOUND} if a defect is found, otherwise with {NO_VERDICT} if a picture got no verdict "
        "(the model has no threshold, or the picture cannot be judged)",
    )
    add_running_options(parser, precision=True)
    add_reading_options(parser)
    add_spread_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, write, tell; returns the exit code."""
    from totalrecall.pictures.files import find_pictures
    from totalrecall.registry import load_judge

    check_spread(args)
    if args.ray is not None:
        return _run_spread(args)
    _check_targets(args)
    detector = judging(args, load_judge(args.model, **running(args)))
    pictures, heatmaps = _pictures(args, find_pictures(args.pictures))
    report = _report(args, detector)
    began = time.perf_counter()
    bad, verdicts = 0, Counter[str]()
    with ExitStack() as stack:
        watch = stack.enter_context(_watched(args, detector)) if args.monitor else None
        writers = [stack.enter_context(writer) for writer in _writers(args)]
        progress = stack.enter_context(progress_bars(args))
        for done, result in enumerate(_results(detector, pictures, watch is not None), start=1):
            if report:
                report.add(pictures[done - 1], result)
            if isinstance(result, PictureError):
                bad += 1
                complain(result)
            else:
                verdicts[result.verdict] += 1
                for write in writers:
                    write(result)
                if watch:
                    watch(result)
                if heatmaps:
                    heatmaps.write(done - 1, result)
            if progress:
                progress("scoring", done, len(pictures))
    seconds = time.perf_counter() - began
    _tell(args, verdicts, bad, seconds)
    if report:
        _write_report(args, report, seconds)
    if args.fail_on_anomaly:
        return _exit_code(verdicts, bad)
    return 1 if bad else 0


def _run_spread(args: argparse.Namespace) -> int:
    """Score on a cluster; returns the exit code."""
    from totalrecall.cli.spread import predict_spread

    began = time.perf_counter()
    verdicts, now = predict_spread(args)
    bad = verdicts.pop("unreadable", 0)
    _tell(args, verdicts, bad, time.perf_counter() - began, now)
    say(args, f"Wrote {args.out}")
    if args.fail_on_anomaly:
        return _exit_code(verdicts, bad)
    return 1 if bad else 0


def _pictures(args: argparse.Namespace, given: list[Path]) -> "tuple[list[Path], HeatmapFolder | None]":
    """Return the pictures to score, and where their heat maps go."""
    if not args.heatmaps:
        return given, None
    from totalrecall.cli.heatmaps import HeatmapFolder  # only where heat maps are asked for

    heatmaps = HeatmapFolder(args.heatmaps)
    pictures = heatmaps.without_earlier(given)
    if not pictures:
        raise DataError(
            f"All {counted(len(given), 'given picture')} are heat maps of an earlier run, in {args.heatmaps}. "
            "Give the pictures themselves."
        )
    if len(pictures) < len(given):
        say(args, f"Left out {counted(len(given) - len(pictures), 'heat map')} of an earlier run in {args.heatmaps}")
    heatmaps.plan(pictures, args.files)
    heatmaps.clear()
    if heatmaps.earlier:
        say(args, f"Removed {counted(len(heatmaps.earlier), 'heat map')} of an earlier run from {args.heatmaps}")
    return pictures, heatmaps


def _exit_code(verdicts: "Counter[str]", bad: int) -> int:
    """Return what a line is to do: 0 let pass, 10 reject, 11 look at by hand, since not every picture was judged.

    A defect that was found outweighs pictures that were not judged. A picture that cannot be read counts as one of
    these: 0 must mean that every part was seen and is good.
    """
    if verdicts["defect"]:
        return DEFECT_FOUND
    return NO_VERDICT if bad or verdicts["no verdict"] else 0


def _check_targets(args: argparse.Namespace) -> None:
    check_target("--json", args.json)
    check_target("--csv", args.csv)
    check_target("--monitor", args.monitor)
    if args.monitor == "-":
        raise SettingError("--monitor must name a file, got -.")
    if args.json == args.csv == "-":
        raise SettingError(f"--json and --csv must be two files, got {args.json} for both.")
    if args.heatmaps and os.path.lexists(args.heatmaps) and not Path(args.heatmaps).is_dir():
        raise DataError(f"{args.heatmaps} is a file. Name a folder for --heatmaps.")
    check_report(args)


def _results(detector: "AnyJudge", pictures: Sequence[Path], conditions: bool) -> "Iterator[Result | PictureError]":
    """Return the results: of one picture with the lowest delay, of many with the highest throughput."""
    if len(pictures) > 1:
        yield from detector.predict_stream(pictures, conditions=conditions)
        return
    try:
        yield detector.predict(pictures[0], conditions=conditions)
    except PictureError as error:
        yield error


def _report(args: argparse.Namespace, detector: "AnyJudge") -> "ReportWriter | None":
    if not args.report:
        return None
    from totalrecall.reports.writer import ReportWriter

    folders = [*(args.good_pictures or ()), *filter(os.path.isdir, args.pictures)]
    return ReportWriter(args.report, detector, good_pictures=folders)


def _write_report(args: argparse.Namespace, report: "ReportWriter", seconds: float) -> None:
    named = listed(args.pictures, _MOST_NAMED, separator=" ")  # a shell's glob comes as thousands of names
    path = report.write(
        f"Total Recall: {Path(args.model).stem}",
        facts={"model": args.model, "pictures": named, "seconds": f"{seconds:.1f}"},
        parts_per_day=args.parts_per_day,
    )
    say(args, f"Wrote the report {path} ({human_bytes(path.stat().st_size)})")


@contextmanager
def _watched(args: argparse.Namespace, detector: "AnyJudge") -> "Iterator[Callable[[Result], None]]":
    """Watch for drift; what was seen is kept every hundred pictures and at the end, whatever ends the run."""
    from totalrecall.drift.monitor import Monitor

    monitor = Monitor.open(args.monitor, detector.drift_, detector.threshold_)

    def watch(result: "Result") -> None:
        assert result.conditions is not None  # `drift_` has found that the model has something to compare with
        for alarm in monitor.observe(result.conditions, result.is_anomalous, result.path):
            complain(f"drift since {result.path}: {alarm.words}")
        if monitor.pictures % 100 == 0:
            monitor.save(args.monitor)

    try:
        yield watch
    finally:
        monitor.save(args.monitor)
    for line in monitor.words():
        say(args, f"Drift: {line}")


def _tell(args: argparse.Namespace, verdicts: "Counter[str]", bad: int, seconds: float, now: int | None = None) -> None:
    """Say what was found; `now` is how many pictures were judged in these seconds, if not all."""
    done = verdicts.total()
    now = done if now is None else now
    rate = f", {now / seconds:.1f} pictures/s" if now > 1 else ""
    failed = f"; {bad} could not be read" if bad else ""
    told = f"{verdicts['defect']} anomalous, {verdicts['good']} good"
    if verdicts["no verdict"]:
        told += f", {verdicts['no verdict']} no verdict"
    say(args, f"{counted(done, 'picture')} in {seconds:.1f} s{rate}: {told}{failed}")
    if verdicts["no verdict"]:
        complain(  # with --quiet too: the exit code alone does not tell it
            "warning: the model has no threshold, so it gives no verdict. Fit it with at least 3 good pictures and "
            "with --holdout over 0."
        )
    if args.heatmaps:
        say(args, f"Wrote heat maps to {args.heatmaps}")


# ---------------------------------------------------------------------- writers


def _writers(args: argparse.Namespace) -> "list[_Writer]":
    writers: list[_Writer] = []
    if args.json:
        writers.append(_json_lines(args.json))
    if args.csv:
        writers.append(_csv_rows(args.csv))
    told = args.json or args.csv  # with --quiet the lines are told once, wherever that is
    if "-" not in (args.json, args.csv) and not (args.quiet and told):
        writers.append(_plain_lines())
    return writers


if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    _Writer = AbstractContextManager[Callable[[Result], None]]


@contextmanager
def _text_file(target: str) -> Iterator[TextIO]:
    """Open `target` by way of `target.part`, renamed at the end; an interrupted run leaves its lines in the part."""
    if target == "-":
        yield sys.stdout
        return
    path = Path(target)
    whole_at_once = is_special(path)  # a pipe has no other name
    part = path if whole_at_once else Path(f"{target}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # a name that is no Unicode gets \udcff for its bytes, which JSON reads back
        file = part.open("w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1)
    except OSError as error:
        raise DataError(f"Cannot write {path}: {error.strerror or error}. Name a place that can be written.") from None
    try:
        with file:
            yield file
    except BaseException:
        if not whole_at_once:
            complain(f"the lines so far are in {part}")
        raise
    if not whole_at_once:
        os.replace(part, path)  # noqa: PTH105


@contextmanager
def _json_lines(target: str) -> "Iterator[Callable[[Result], None]]":
    with _text_file(target) as file:

        def write(result: "Result") -> None:
            file.write(escaped_json(json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False)) + "\n")

        yield write


@contextmanager
def _csv_rows(target: str) -> "Iterator[Callable[[Result], None]]":
    with _text_file(target) as file:
        told = printable if file.isatty() else str
        file.write(csv_line((*_COLUMNS, "milliseconds")))

        def write(result: "Result") -> None:
            near = result.nearest
            values = result.to_json()
            row = [values[name] for name in _COLUMNS[:5]]
            place = ("", "", "") if near is None else (near.path, near.x, near.y)
            line = csv_line([*row, len(result.regions), *place, values["milliseconds"]])
            file.write(told(line.rstrip("\n")) + "\n")

        yield write


@contextmanager
def _plain_lines() -> "Iterator[Callable[[Result], None]]":
    def write(result: "Result") -> None:
        sign = {True: " >", False: " <=", None: ""}[result.is_anomalous]
        verdict = "DEFECT" if result.is_anomalous is True else f"{result.verdict:6}"
        limit = f"{sign} {result.threshold:.3f}" if sign else ""
        emit(f"{verdict}  {result.score:.3f}{limit}  {result.path}")

    yield write
