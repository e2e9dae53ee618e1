"""What several commands share: options, progress bars, where text goes."""

import argparse
import contextlib
import json
import math
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from totalrecall.cli.paths import INPUT, OUTPUT
from totalrecall.errors import SettingError, TotalRecallError
from totalrecall.files import atomic_write, check_writable
from totalrecall.notices import PICTURE_NOTICES
from totalrecall.wording import counted, escaped_json, printable

if TYPE_CHECKING:
    from rich.table import Table

    from totalrecall.kinds import AnyDetector

__all__ = [
    "add_output_options",
    "add_rate_options",
    "add_reading_options",
    "add_report_options",
    "add_split_options",
    "check_report",
    "check_target",
    "complain",
    "emit",
    "fraction",
    "human_bytes",
    "in_words_of_options",
    "judging",
    "print_table",
    "program_name",
    "progress_bars",
    "say",
    "telling_notices",
    "told_size",
    "write_json",
]

# as `datasets.LAYOUTS`, without importing it to show --help
LAYOUTS = ("folder", "mvtec", "mvtec-loco", "mvtec-ad2", "btad", "visa", "mtd", "mstc", "kolektor")

_STEPS = {
    "depth": "Finding the bit depth",
    "features": "Reading features",
    "coreset": "Choosing the coreset",
    "calibration": "Calibrating",
    "comparing": "Comparing pictures",
    "scoring": "Scoring",
    "pictures": "Making pictures",
}


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add --quiet, which every command has."""
    parser.add_argument("--quiet", "-q", action="store_true", help="print nothing but results, errors and warnings")


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add --max-pixels, which every command that reads pictures has."""
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="refuse larger pictures, by their header (default 100000000)",
    )


def add_split_options(parser: argparse.ArgumentParser, *, seed: bool = True) -> None:
    """Add the options that say which pictures of a data set are meant."""
    parser.add_argument("--layout", choices=LAYOUTS, help="how the data set's folder is laid out")
    if seed:
        parser.add_argument("--seed", type=int, default=42, help="of the split and of all random choices (default 42)")


def add_rate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that set another threshold than the model's, for this run only."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--false-alarm-rate", type=fraction, metavar="RATE", help="judge at this rate (default: the model's), this once"
    )
    group.add_argument(
        "--threshold", type=fraction, metavar="SCORE", help="judge by this score (default: the model's), this once"
    )


def judging(args: argparse.Namespace, detector: "AnyDetector") -> "AnyDetector":
    """Return the detector at the rate or threshold that `add_rate_options` asks for, and say what that promises."""
    if args.false_alarm_rate is None and args.threshold is None:
        return detector
    other = detector.judging(false_alarm_rate=args.false_alarm_rate, threshold=args.threshold)
    say(args, f"For this run: {other.promise_.in_words()}")
    return other


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add --report, and --parts-per-day for it."""
    parser.add_argument(
        "--report", metavar="FILE", type=OUTPUT, help="write an HTML page of scores, threshold and overlays, under 5 MB"
    )
    parser.add_argument(
        "--parts-per-day", type=int, metavar="N", help="good parts a day, for the report's false alarms a day"
    )
    parser.add_argument(
        "--good-pictures",
        metavar="DIR",
        type=INPUT,
        action="append",
        help="folder of the learnt pictures, for the report to show the nearest; may be given several times",
    )


def check_report(args: argparse.Namespace) -> None:
    """Refuse a report that cannot be written.

    Args:
        args: of a command with `add_report_options`.

    Raises:
        SettingError: it has no name, or there are parts a day for no report.
        DataError: it is a folder, or its folder cannot be written.
    """
    if args.parts_per_day is not None and args.report is None:
        raise SettingError(f"--parts-per-day is for --report only, got {args.parts_per_day}. Write --report FILE.html.")
    if args.parts_per_day is not None and args.parts_per_day < 1:
        raise SettingError(f"--parts-per-day must be at least 1, got {args.parts_per_day}.")
    if args.good_pictures and args.report is None:
        raise SettingError(
            f"--good-pictures is for --report only, got {args.good_pictures[0]}. Write --report FILE.html."
        )
    for folder in args.good_pictures or ():
        if not _is_folder(folder):
            raise SettingError(f"--good-pictures must be a folder, got {folder}. Name that of the pictures learnt.")
    if args.report is None:
        return
    if args.report == "-":
        raise SettingError(f"--report must name a file of its own, got {args.report}. Write --report FILE.html.")
    check_target("--report", args.report)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long, or with a NUL byte
        return False


def fraction(text: str) -> float:
    """Read a number for argparse, with a clear message for words."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number such as 0.01, got {text!r}") from None


def complain(error: Exception | str) -> None:
    """Say what is wrong on stderr, on one line even if a file's name holds a line break."""
    print(printable(f"totalrecall: {' '.join(str(error).splitlines())}"), file=sys.stderr)


def emit(text: str) -> None:
    """Print one line of a result on stdout, with nothing in it that a terminal would obey."""
    print(printable(text))


@contextlib.contextmanager
def telling_notices(args: argparse.Namespace) -> Iterator[None]:
    """Tell each of the library's notices about pictures once, on stderr, and keep them in `args.notices` for --json.

    They are told with --quiet too: what is passed over, or is unlike the other pictures, is never passed over in
    silence. One place for all commands, so that none forgets it.
    """
    args.notices = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            text = str(message)
            if not issubclass(category, PICTURE_NOTICES):
                show(message, category, filename, lineno, file, line)
            elif text not in args.notices:
                args.notices.append(text)
                complain(f"note: {text}")

        warnings.showwarning = tell
        for category in PICTURE_NOTICES:
            warnings.simplefilter("always", category)
        yield


def in_words_of_options(error: TotalRecallError, args: argparse.Namespace) -> str:
    """Return an error's message as the person typed it: `patch_size must be` becomes `--patch-size must be`."""
    message = str(error)
    setting = re.match(r"([a-z_]+)(:| must | is for | needs )", message)
    if not setting or setting[1] not in vars(args):
        return message
    if isinstance(error, SettingError) or setting[2] == " needs ":  # others begin with the name of a file
        return f"--{setting[1].replace('_', '-')}{message[setting.end(1) :]}"
    return message


def check_target(option: str, target: str | None) -> None:
    """Refuse a file that cannot be written before the work that it is to hold, and one that would cost a picture.

    Raises:
        SettingError: it has no name, or a picture's: `--json *.png` would write over the first.
        DataError: it is a folder, or its folder cannot be written.
    """
    from totalrecall.picture_files import PICTURE_SUFFIXES

    if target is None or target == "-":
        return
    if not target:
        raise SettingError(f"{option} must name a file to write, got an empty name.")
    if Path(target).suffix.lower() in PICTURE_SUFFIXES:
        raise SettingError(f"{option} must name a file to write, got the picture {target}. Write {option} FILE.")
    check_writable(target)


def say(args: argparse.Namespace, text: str) -> None:
    """Print one line for the person, unless --quiet; to stderr where stdout carries JSON."""
    if not args.quiet:
        to_stdout = getattr(args, "json", None) != "-" and getattr(args, "csv", None) != "-"
        print(printable(text), file=sys.stdout if to_stdout else sys.stderr)


def write_json(target: str, value: dict[str, Any]) -> None:
    """Write one JSON object to a file, or to stdout for `-`; nan, which JSON has not, becomes null."""
    text = escaped_json(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        atomic_write(Path(target), text.encode())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(table: "Table") -> None:
    """Print a table, as wide as the terminal."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    console = Console(markup=False, highlight=False, emoji=False)
    # the words of a cell are still apart from the terminal's codes for bold here
    words = [Segment(_lines(part.text), part.style) for part in console.render(table)]
    with console.capture() as drawn:  # subtle: printing itself, rich would end the process at a closed pipe
        console.print(Segments(words), end="")
    sys.stdout.write(drawn.get())


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def program_name() -> str:
    """Return what a shell here calls this program by: its name, or where it lies if the shell would not find it."""
    beside = Path(sys.executable).with_name("totalrecall")
    found = shutil.which("totalrecall")
    if found is not None and (not beside.is_file() or os.path.realpath(found) == os.path.realpath(beside)):
        return "totalrecall"
    if not beside.is_file():
        return f"{shlex.quote(sys.executable)} -m totalrecall"
    here = os.path.relpath(beside)
    return shlex.quote(here if not here.startswith(os.pardir) else str(beside))


def human_bytes(count: float) -> str:
    """Return bytes as a person reads them: 512 MB, 1.3 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def told_size(kind: str, before: int, after: int, *, then: str = "now") -> str:
    """Say how large a model of a kind was and is: in vectors of its bank, or where it has none in pictures."""
    what = f"bank of {counted(before, 'vector')}" if kind == "patchcore" else f"model of {counted(before, 'picture')}"
    return f"{what}, {then} {after}"


@contextlib.contextmanager
def progress_bars(args: argparse.Namespace) -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a (step, done, total) callback that draws a bar a step with the time left; None where nobody looks."""
    if args.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<22}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def update(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(printable(_STEPS.get(step, step)), total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield update
