"""The command line: one command a file, thin over the library.

Exit codes: 0 fine; 1 a picture or file was bad (named on stderr, the others are still done); 2 wrong usage; 3 a model
or backbone file is unusable; with `predict --fail-on-anomaly` 10 a defect was found, 11 no defect but not every
picture was judged; 130 interrupted, 128 + n ended by signal n.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from totalrecall._version import __version__
from totalrecall.cli.common import complain, in_words_of_options, telling_notices
from totalrecall.cli.paths import CommandFiles
from totalrecall.cli.process import EndedBySignal, Stream, ending_signals, standard_streams
from totalrecall.cli.word_order import OrderedParser
from totalrecall.errors import TotalRecallError
from totalrecall.pictures.formats.header import MAX_PIXELS, set_max_pixels
from totalrecall.system.text import printable

__all__ = ["build_parser", "main"]

COMMANDS = (
    "demo",
    "audit",
    "fit",
    "predict",
    "evaluate",
    "capability",
    "benchmark",
    "update",
    "teach",
    "export",
    "serve",
    "station",
    "info",
    "backbones",
    "datasets",
)


class _Parser(OrderedParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))  # a glob's file names may stand in it


def build_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of some commands, or of all; command files import nothing heavy until they run."""
    parser = _Parser(
        prog="totalrecall",
        description="Find defects in pictures of products after seeing good pictures only (PatchCore).",
        epilog="Start with: totalrecall demo",
    )
    parser.add_argument("--version", action="version", version=f"totalrecall {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in commands:
        import_module(f"totalrecall.cli.{name}").add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    No traceback reaches a person. With TOTALRECALL_DEBUG set, what was not expected is raised all the same.
    """
    # OpenCV's own warnings about a damaged file would only double our one line; set before cv2 is imported
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    with standard_streams() as (stdout, _), ending_signals():
        args = argparse.Namespace()
        try:
            return _run(arguments, args, stdout)
        except TotalRecallError as error:
            complain(in_words_of_options(error, args))
            return error.exit_code
        except EndedBySignal as end:
            complain(end.words)
            return end.exit_code
        except KeyboardInterrupt:
            complain("interrupted.")
            return 130
        except BrokenPipeError:  # `totalrecall info ... | head`
            return 0
        except MemoryError:
            complain("out of memory. Use a smaller --coreset or --size, or fewer pictures.")
            return 1
        except Exception as error:
            signal = _signal_behind(error)
            if signal is not None:
                complain(signal.words if isinstance(signal, EndedBySignal) else "interrupted.")
                return signal.exit_code if isinstance(signal, EndedBySignal) else 130
            if os.environ.get("TOTALRECALL_DEBUG"):
                raise
            complain(_unexpected(error))
            return 1


def _run(arguments: Sequence[str] | None, args: argparse.Namespace, stdout: Stream) -> int:
    """Fill `args` from the command line and run the command, once its files are found not to be in each other's way."""
    typed = sys.argv[1:] if arguments is None else arguments
    parser = build_parser([name for name in typed[:1] if name in COMMANDS] or COMMANDS)  # others are not even imported
    parser.parse_args(typed, args)
    args.files = CommandFiles(parser, args)
    args.files.check(stdout_is_closed=stdout.closed_before)
    stdout.stops = not args.files.writes
    pixels = getattr(args, "max_pixels", None)
    set_max_pixels(MAX_PIXELS if pixels is None else pixels)
    with telling_notices(args):
        code = int(args.run(args))
    with contextlib.suppress(BrokenPipeError):
        stdout.flush()  # here, so that a full disk is met here
    return code


def _signal_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the signal behind an error: one that strikes the import of a compiled module arrives as an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:  # a full disk, a share that went away
        return f"{error.strerror}: {error.filename}." if error.filename else f"{error.strerror}."
    what = f"{type(error).__name__}: {error}".rstrip(".: ")
    return f"unexpected {what}. Please report it; TOTALRECALL_DEBUG=1 shows where."
