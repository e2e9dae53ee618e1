"""The order of the words on a command line: paths may stand anywhere, also behind a list of numbers.

argparse gives an option of several values all words up to the next option, so of `audit --layers 2 3 GOOD` it would
read GOOD as a number; and it takes the arguments that are no option's in one place only. So the words are put in order
before it sees them: options first, then `--`, then the others.
"""

import argparse
import re
from collections.abc import Sequence

__all__ = ["OrderedParser"]

_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")  # what argparse takes as a number and not as an option


class OrderedParser(argparse.ArgumentParser):
    """A parser that takes its arguments and options in any order."""

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
