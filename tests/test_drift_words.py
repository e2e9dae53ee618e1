"""drift.conditions: a sentence for each measure and way."""

import math

import pytest

from totalrecall.drift.conditions import change_in_words, spread_in_words

SIZE = (300, 400)  # height, width
SPREAD = {"light": 0.03, "focus": 0.05, "across": 0.01, "down": 0.002}


@pytest.mark.parametrize(
    ("measure", "direction", "change", "words"),
    [
        ("light", "+", math.log(1.15), "the pictures are 15 % brighter than the good ones that were learnt from"),
        ("light", "-", math.log(0.925), "the pictures are 7.5 % darker than the good ones that were learnt from"),
        ("red", "+", math.log(1.1), "the colour of the light has changed: 10 % more red against green"),
        ("blue", "-", math.log(0.96), "the colour of the light has changed: 4.0 % less blue against green"),
        ("focus", "-", math.log(0.6), "the pictures are blurred: the finest detail is 40 % weaker than it was"),
        ("focus", "+", math.log(1.3), "the finest detail is 30 % stronger than it was: more noise, or a sharper focus"),
        ("across", "+", 0.05, "the parts have moved to the right by 5.0 % of the width (20 pixels)"),
        ("across", "-", -0.1, "the parts have moved to the left by 10 % of the width (40 pixels)"),
        ("down", "+", 0.02, "the parts have moved down by 2.0 % of the height (6 pixels)"),
        ("down", "-", -0.02, "the parts have moved up by 2.0 % of the height (6 pixels)"),
        ("patches", "+", 0.3, "patches lie farther from the good ones than at the fit: parts or camera have changed"),
        ("score", "+", 0.3, "scores are higher than at the fit: parts or camera have changed"),
    ],
)
def test_what_has_moved_is_said(measure, direction, change, words):
    assert change_in_words(measure, direction, change, SIZE) == words


def test_against_the_first_pictures_watched_it_is_said_so():
    since = [change_in_words("patches_since", direction, 0.1, SIZE) for direction in "+-"]
    assert [words.split(" the good ones ")[0] for words in since] == [
        "the pictures are less like",
        "the pictures are more like",
    ]
    assert all("than when the monitor was started" in words for words in since)


def test_the_fewer_the_pictures_the_larger_must_be_what_is_noticed():
    many, few = spread_in_words(SPREAD, 1000), spread_in_words(SPREAD, 10)
    assert many == [
        "a change of 3.1 % in brightness is noticed within about 50 pictures",
        "the same for a change of 4.9 % in the finest detail",
        "the same for a shift of 1.0 % of the width or 0.2 % of the height",
    ]
    assert few[0].startswith("a change of 6.2 % in brightness")


def test_parts_that_lie_anywhere_cannot_be_seen_to_shift():
    assert spread_in_words({**SPREAD, "down": 0.2}, 50)[-1].startswith("a shift cannot be seen")
