"""Paths and options of the command line in any order."""

import argparse

import pytest

from totalrecall.cli import COMMANDS, OrderedParser, build_parser
from totalrecall.cli.paths import actions_of


def _lists_of_numbers():
    """Yield command and option of each list of numbers, of the commands that take paths as well."""
    for command in COMMANDS:
        actions = list(actions_of(build_parser([command])))
        if all(action.option_strings for action in actions):
            continue
        for action in actions:
            if action.nargs in ("+", "*") and action.option_strings and callable(action.type):
                try:
                    action.type("1")
                    action.type("/")
                except (ValueError, TypeError, argparse.ArgumentTypeError):
                    yield command, action.option_strings[0]


LISTS = list(_lists_of_numbers())
PATHS = {
    "audit": ["good", "more"],
    "fit": ["good", "more"],
    "capability": ["part.trecall", "good"],
    "benchmark": ["mvtec", "root"],
}
NEEDED = {"fit": ["-o", "part.trecall"]}


def parsed(*words):
    return vars(build_parser([words[0]]).parse_args(list(words)))


def test_all_lists_of_numbers_are_known():
    assert {("audit", "--layers"), ("fit", "--sizes"), ("capability", "--contrast"), ("benchmark", "--shots")} <= {
        *LISTS
    }
    assert {command for command, _ in LISTS} == PATHS.keys()


@pytest.mark.parametrize(("command", "option"), LISTS)
def test_paths_may_follow_a_list_of_numbers_in_every_command(command, option):
    paths, needed = PATHS[command], NEEDED.get(command, [])
    expected = parsed(command, *paths, *needed, option, "1", "2")
    assert expected[option.removeprefix("--").replace("-", "_")] == [1, 2]
    for words in (
        [option, "1", "2", *paths, *needed],
        [*needed, paths[0], option, "1", "2", paths[1]],
        [option, "1", "2", paths[0], *needed, "--quiet", paths[1]],
        [*needed, option, "1", "2", "--", *paths],
    ):
        words = [word for word in words if word != "--quiet" or _has_quiet(command)]
        assert {**parsed(command, *words), "quiet": None} == {**expected, "quiet": None}, words


def _has_quiet(command):
    return "quiet" in parsed(command, *PATHS[command], *NEEDED.get(command, []))


@pytest.fixture
def parser():
    made = OrderedParser(prog="it")
    made.add_argument("paths", nargs="*")
    made.add_argument("--numbers", nargs="+", type=float)
    made.add_argument("--names", nargs="+")
    made.add_argument("--one", type=int)
    made.add_argument("--pair", nargs=2)
    made.add_argument("-f", "--flag", action="store_true")
    made.add_argument("-o", "--out")
    return made


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--numbers 1 -2.5 3e4 a b", {"numbers": [1, -2.5, 3e4], "paths": ["a", "b"]}),
        ("a --numbers 1 b 2 --flag c", {"numbers": [1], "paths": ["a", "b", "2", "c"], "flag": True}),
        ("--num 1 2 a", {"numbers": [1, 2], "paths": ["a"]}),
        ("--names x y", {"names": ["x", "y"]}),
        ("--names x y -f a", {"names": ["x", "y"], "flag": True, "paths": ["a"]}),
        ("--pair x y a", {"pair": ["x", "y"], "paths": ["a"]}),
        ("--one=3 a -oout b", {"one": 3, "out": "out", "paths": ["a", "b"]}),
        ("--out - a", {"out": "-", "paths": ["a"]}),
        ("- -f a", {"paths": ["-", "a"], "flag": True}),
        ("--one -3 a", {"one": -3, "paths": ["a"]}),
        ("-f -- -a --flag", {"flag": True, "paths": ["-a", "--flag"]}),
        ("", {}),
    ],
)
def test_options_take_their_own_values_wherever_they_stand(parser, words, expected):
    empty = {"paths": [], "numbers": None, "names": None, "one": None, "pair": None, "flag": False, "out": None}
    assert vars(parser.parse_args(words.split())) == {**empty, **expected}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--numbers a", "argument --numbers: invalid float value: 'a'"),
        ("--numbers", "argument --numbers: expected at least one argument"),
        ("--one a", "argument --one: invalid int value: 'a'"),
        ("--pair a", "argument --pair: expected 2 arguments"),
        ("--o a", "ambiguous option: --o could match --one, --out"),
    ],
)
def test_what_is_wrong_is_told_as_before(parser, capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words.split())
    assert (caught.value.code, capsys.readouterr().err.splitlines()[-1]) == (2, f"it: error: {message}")


def test_what_is_no_option_is_told(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--unknown", "a"])
    assert "unrecognized arguments: --unknown" in capsys.readouterr().err
