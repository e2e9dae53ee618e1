"""The command line: one command a file, thin over the library.

Exit codes: 0 fine; 1 a picture or file was bad (named on stderr, the others are still done); 2 wrong usage; 3 a model or
backbone file is unusable; 10 a defect was found, with `predict --fail-on-anomaly`; 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from totalrecall import __version__
from totalrecall.errors import TotalRecallError

__all__ = ["build_parser", "main"]

COMMANDS = ("demo", "fit", "predict", "evaluate", "info", "backbones")


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
    """Run one command and return its exit code; no traceback reaches a person."""
    args = build_parser().parse_args(arguments)
    # OpenCV's own warnings about a damaged file would only double our one line; set before cv2 is imported
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        return int(args.run(args))
    except TotalRecallError as error:
        print(f"totalrecall: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("totalrecall: interrupted; nothing half-written is left behind.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `totalrecall predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        print("totalrecall: out of memory. Use a smaller --coreset or --size, or fewer pictures.", file=sys.stderr)
        return 1
