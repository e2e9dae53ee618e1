"""The command line: one command a file, thin over the library.

Exit codes: 0 fine; 1 a picture or file was bad (named on stderr, the others are still done); 2 wrong usage; 3 a model
or backbone file is unusable; 10 a defect was found, with `predict --fail-on-anomaly`; 130 interrupted.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from totalrecall import __version__
from totalrecall.cli.common import complain, in_words_of_options, telling_notices
from totalrecall.errors import TotalRecallError

__all__ = ["build_parser", "main"]

COMMANDS = (
    "demo",
    "audit",
    "fit",
    "predict",
    "evaluate",
    "benchmark",
    "update",
    "teach",
    "info",
    "backbones",
    "datasets",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; command files import nothing heavy until they run."""
    parser = argparse.ArgumentParser(
        prog="totalrecall",
        description="Find defects in pictures of products after seeing good pictures only (PatchCore).",
        epilog="Start with: totalrecall demo",
    )
    parser.add_argument("--version", action="version", version=f"totalrecall {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"totalrecall.cli.{name}").add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    No traceback reaches a person. With TOTALRECALL_DEBUG set, what was not expected is raised all the same.
    """
    # OpenCV's own warnings about a damaged file would only double our one line; set before cv2 is imported
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that the terminal's encoding lacks must not stop a run
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(arguments)
    try:
        with telling_notices(args):
            code = int(args.run(args))
        sys.stdout.flush()  # here, so that a closed pipe is met here
        return code
    except TotalRecallError as error:
        complain(in_words_of_options(error, args))
        return error.exit_code
    except KeyboardInterrupt:
        complain("interrupted.")
        return 130
    except BrokenPipeError:  # `totalrecall predict ... | head`
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        complain("out of memory. Use a smaller --coreset or --size, or fewer pictures.")
        return 1
    except Exception as error:
        if os.environ.get("TOTALRECALL_DEBUG"):
            raise
        if isinstance(error, OSError) and error.strerror:  # a full disk, a share that went away
            complain(f"{error.strerror}: {error.filename}." if error.filename else f"{error.strerror}.")
        else:
            what = f"{type(error).__name__}: {error}".rstrip(".: ")
            complain(f"unexpected {what}. Please report it; TOTALRECALL_DEBUG=1 shows where.")
        return 1
