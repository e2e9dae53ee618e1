"""The command line: one command a file, thin over the library.

Exit codes: 0 fine; 1 a picture or file was bad (named on stderr, the others are still done); 2 wrong usage; 3 a model
or backbone file is unusable; with `predict --fail-on-anomaly` 10 a defect was found, 11 no defect but not every
picture was judged; 130 interrupted, 128 + n ended by signal n.

Paths may stand anywhere, also behind a list of numbers. argparse gives an option of several values all words up to the
next option, so of `audit --layers 2 3 GOOD` it would read GOOD as a number; and it takes the arguments that are no
option's in one place only. So the words are put in order before it sees them: options, then `--`, then the others.
"""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from totalrecall._version import __version__
from totalrecall.cli.common import complain, in_words_of_options, telling_notices
from totalrecall.cli.paths import CommandFiles
from totalrecall.cli.process import EndedBySignal, Stream, ending_signals, standard_streams
from totalrecall.errors import TotalRecallError
from totalrecall.pictures.formats.header import MAX_PIXELS, set_max_pixels
from totalrecall.system.text import printable

__all__ = ["OrderedParser", "build_parser", "main"]

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


_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")  # what argparse takes as a number and not as an option


class OrderedParser(argparse.ArgumentParser):
    """A parser that takes its arguments and options in any order."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end the program."""
        super().error(printable(message))  # a glob's file names may stand in it

    def parse_known_args(  # type: ignore[override]  # argparse declares it three times, by what it returns
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse words, once they are in order; those of a parser that has commands are the command's."""
        has_commands = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)  # noqa: SLF001
        words = args if args is None or has_commands else self._in_order(list(args))
        return super().parse_known_args(words, namespace)

    def _in_order(self, words: list[str]) -> list[str]:
        """Return options with their values, then `--` and the other words."""
        end = words.index("--") if "--" in words else len(words)
        options: list[str] = []
        others: list[str] = []
        at = 0
        while at < end:
            after = at + 1
            if _is_option(words[at]):
                after += self._values_of(words[at], words[after:end])
                options += words[at:after]
            else:
                others.append(words[at])
            at = after
        others += words[end + 1 :]
        return [*options, "--", *others] if others else options

    def _values_of(self, word: str, following: Sequence[str]) -> int:
        """Return how many of the words that follow an option are its values."""
        action = self._action_of(word)
        if action is None or action.nargs == 0:
            return 0
        most = action.nargs if isinstance(action.nargs, int) else 1 if action.nargs in (None, "?") else len(following)
        count = 0
        while count < min(most, len(following)) and not _is_option(following[count]):
            if count and _takes_numbers(action) and not _reads(action, following[count]):
                break
            count += 1
        return count

    def _action_of(self, word: str) -> argparse.Action | None:
        """Return the option that a word names, maybe by the beginning of its name; None where its value is in it."""
        known = self._option_string_actions
        if word in known:
            return known[word]
        meant = [known[name] for name in known if name.startswith(word)] if word.startswith("--") else []
        return meant[0] if meant and all(action is meant[0] for action in meant) else None


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and " " not in word and not _NEGATIVE.fullmatch(word)


def _takes_numbers(action: argparse.Action) -> bool:
    """Tell whether the values of an option are numbers: no path and no name is read as one."""
    return action.nargs in ("+", "*") and _reads(action, "1") and not _reads(action, "/")


def _reads(action: argparse.Action, word: str) -> bool:
    """Tell whether a word can be a value of an option."""
    if not callable(action.type):
        return True
    try:
        action.type(word)
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return False
    return True


def build_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of some commands, or of all; command files import nothing heavy until they run."""
    parser = OrderedParser(
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
    with standard_streams() as (stdout, _), ending_signals() as came:
        args = argparse.Namespace()
        try:
            return _run(arguments, args, stdout)
        except TotalRecallError as error:
            complain(in_words_of_options(error, args))
            return error.exit_code
        except KeyboardInterrupt as end:
            return _tell_signal(next(iter(came), end))  # Ray raises a plain one, whatever signal it was
        except BrokenPipeError:  # `totalrecall info ... | head`
            return 0
        except MemoryError:
            complain("out of memory. Use a smaller --coreset or --size, or fewer pictures.")
            return 1
        except Exception as error:
            signal = next(iter(came), None) or _signal_behind(error)  # compiled code may hide what interrupted it
            if signal is not None:
                return _tell_signal(signal)
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


def _tell_signal(signal: KeyboardInterrupt) -> int:
    """Say which signal ended the command, and return its exit code."""
    if isinstance(signal, EndedBySignal):
        complain(signal.words)
        return signal.exit_code
    complain("interrupted.")
    return 130


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
