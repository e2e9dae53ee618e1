"""What several commands share: messages, progress bars, checks of output files."""

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
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from totalrecall.errors import PICTURE_NOTICES, SettingError, TotalRecallError
from totalrecall.system.files import atomic_write, check_writable
from totalrecall.system.text import counted, escaped_json, printable

if TYPE_CHECKING:
    from rich.table import Table

    from totalrecall.registry import AnyDetector, AnyJudge

__all__ = [
    "add_output_options",
    "check_target",
    "complain",
    "emit",
    "in_words_of_options",
    "judging",
    "print_table",
    "program_name",
    "progress_bars",
    "save_over",
    "say",
    "size_change",
    "telling_notices",
    "write_json",
]

Judge = TypeVar("Judge")  # a detector, or an exported graph

_STEPS = {
    "survey": "Looking at pictures",
    "depth": "Finding the bit depth",
    "features": "Reading features",
    "coreset": "Choosing the coreset",
    "calibration": "Calibrating",
    "comparing": "Comparing pictures",
    "scoring": "Scoring",
    "pictures": "Making pictures",
    "planting": "Planting defects",
}


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add --quiet, which nearly every command has."""
    parser.add_argument("--quiet", "-q", action="store_true", help="print only results, errors and warnings")


def judging(args: argparse.Namespace, detector: Judge) -> Judge:
    """Return the detector at the rate or threshold that `add_rate_options` asks for, and say what that promises."""
    if args.false_alarm_rate is None and args.threshold is None:
        return detector
    judge = cast("AnyJudge", detector)
    other = judge.judging(false_alarm_rate=args.false_alarm_rate, threshold=args.threshold)
    say(args, f"For this run: {other.promise_.in_words()}")
    return cast(Judge, other)


def complain(error: Exception | str) -> None:
    """Say what is wrong on stderr, on one line even if a file's name holds a line break."""
    print(printable(f"totalrecall: {' '.join(str(error).splitlines())}"), file=sys.stderr)


def emit(text: str) -> None:
    """Print one line of a result on stdout, with nothing in it that a terminal would obey."""
    print(printable(text))


@contextlib.contextmanager
def telling_notices(args: argparse.Namespace) -> Iterator[None]:
    """Print each of the library's notices about pictures once, on stderr, and keep them in `args.notices` for --json.

    They are printed with --quiet, too: the user must learn which files were ignored, and which pictures are unlike the
    others. All commands do this here, so that none forgets it.
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
    for name in error.settings:
        if name in vars(args):  # a value in quotes may be the same word
            message = re.sub(rf"(?<![\w'-]){name}(?![\w'])", f"--{name.replace('_', '-')}", message)
    return message


def check_target(option: str, target: str | None) -> None:
    """Refuse a file that cannot be written before the work that it is to hold, and one that would cost a picture.

    Raises:
        SettingError: it has no name, or a picture's: `--json *.png` would write over the first.
        DataError: it is a folder, or its folder cannot be written.
    """
    from totalrecall.pictures.files import PICTURE_SUFFIXES

    if target is None or target == "-":
        return
    if not target:
        raise SettingError(f"{option} must name a file to write, got an empty name.")
    if Path(target).suffix.lower() in PICTURE_SUFFIXES:
        raise SettingError(
            f"{option} {target} is named like a picture, and one of yours could be lost. Name it otherwise."
        )
    check_writable(target)


def say(args: argparse.Namespace, text: str) -> None:
    """Print one line for the person, unless --quiet; to stderr where stdout carries JSON."""
    if not args.quiet:
        to_stdout = getattr(args, "json", None) != "-" and getattr(args, "csv", None) != "-"
        print(printable(text), file=sys.stdout if to_stdout else sys.stderr)


def save_over(detector: "AnyDetector", path: str, sha256: str) -> None:
    """Write a changed model over its own file, with the backbone inside if it was.

    Args:
        detector: as changed.
        path: of the file.
        sha256: of what is there.

    Raises:
        DataError: another file is there by now, or it cannot be written.
    """
    from totalrecall.detectors.model_file import read_header

    detector.save(path, embed_backbone="backbone.graph" in read_header(path)["tensors"], replacing=sha256)


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
    program = shutil.which("totalrecall")
    if program is not None and (not beside.is_file() or os.path.realpath(program) == os.path.realpath(beside)):
        return "totalrecall"
    if not beside.is_file():
        return f"{shlex.quote(sys.executable)} -m totalrecall"
    here = os.path.relpath(beside)
    return shlex.quote(here if not here.startswith(os.pardir) else str(beside))


def size_change(kind: str, before: int, after: int, *, then: str = "now") -> str:
    """Say how a change altered a model: the vectors of its bank, or without a bank its pictures."""
    has_bank = kind in ("patchcore", "joined")
    size = f"bank of {counted(before, 'vector')}" if has_bank else f"model of {counted(before, 'picture')}"
    return f"{size}, {then} {after}"


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
