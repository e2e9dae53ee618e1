"""errors: the tree in the docstring is the tree of the classes, and each knows its exit code and HTTP status."""

import re

import pytest

from totalrecall import errors
from totalrecall.errors import TotalRecallError

DRAWN = re.compile(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>\w+Error) +exit (?P<exit>\d+) +HTTP (?P<http>\d+) +\S", re.M)


def every(kind):
    return [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, kind)]


def every_error():
    return every(TotalRecallError)


def drawn():
    """Return name -> (depth, exit code, HTTP status), and name -> the name it hangs from, as the docstring draws it."""
    facts, parents, path = {}, {}, []
    for match in DRAWN.finditer(errors.__doc__):
        depth = len(match["branch"]) // 4
        del path[depth:]
        facts[match["name"]] = (int(match["exit"]), int(match["http"]))
        parents[match["name"]] = path[-1] if path else None
        path.append(match["name"])
    return facts, parents


def test_every_error_is_drawn_and_public():
    facts, _ = drawn()
    assert sorted(facts) == sorted(error.__name__ for error in every_error())
    assert set(facts) | {warning.__name__ for warning in every(UserWarning)} <= set(errors.__all__)


def test_every_warning_is_listed_with_what_it_says():
    listed = re.findall(r"^    (\w+Warning) +\S", errors.__doc__, re.M)
    assert sorted(listed) == sorted(warning.__name__ for warning in every(UserWarning))


@pytest.mark.parametrize("error", every_error())
def test_exit_code_status_and_parent_are_those_of_the_drawing(error):
    facts, parents = drawn()
    assert (error.exit_code, error.http_status) == facts[error.__name__]
    parent = parents[error.__name__]
    if parent is None:
        assert error is TotalRecallError
    else:
        assert vars(errors)[parent] in error.__bases__


@pytest.mark.parametrize("error", every_error())
def test_an_error_is_documented_and_keeps_its_message(error):
    assert error.__doc__
    assert str(error("one line")) == "one line"
    assert error.exit_code in (1, 2, 3)
    assert 400 <= error.http_status < 600


def test_a_wrong_setting_is_a_value_error_too():
    assert issubclass(errors.SettingError, ValueError)
