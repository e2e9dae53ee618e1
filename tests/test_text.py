"""Counts, names and durations in words."""

import pytest

from totalrecall.errors import SettingError
from totalrecall.system.text import counted, human_bytes, human_seconds, listed, parse_seconds


@pytest.mark.parametrize(
    ("names", "words"),
    [([], ""), (["a"], "a"), (["a", "b", "c"], "a, b, c"), (["a", "b", "c", "d", "e"], "a, b, c and 2 more")],
)
def test_the_first_names_are_written_out_and_the_rest_counted(names, words):
    assert listed(names, 3) == words


def test_of_a_list_that_was_cut_the_whole_number_may_be_given():
    assert listed(["a", "b"], 3, total=7, separator="; ") == "a; b and 5 more"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5999, "100 min"), (9000, "2.5 h")]
)
def test_a_duration_has_the_unit_that_a_person_would_choose(seconds, words):
    assert human_seconds(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(999, "999 B"), (512e6, "512 MB"), (1.34e9, "1.3 GB"), (1.57e12, "1.6 TB")]
)
def test_a_size_has_the_unit_that_a_person_would_choose(count, words):
    assert human_bytes(count) == words


def test_one_thing_is_named_in_the_singular():
    assert (counted(1, "picture"), counted(2, "picture")) == ("1 picture", "2 pictures")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5 s", 1.5), ("15min", 900), ("8h", 28800), ("1d", 86400), (" 2 H ", 7200)]
)
def test_a_time_is_read_as_a_person_writes_it(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1", "8 hours", "1e3", "nan", "1h30"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(SettingError, match="such as 15min, 8h or 1d"):
        parse_seconds(text)
