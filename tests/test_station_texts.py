"""The page's texts: the same keys and places in every language, none in the templates, and which language is chosen."""

import re
import string
from html.parser import HTMLParser
from pathlib import Path

import pytest

from totalrecall.station import pages
from totalrecall.station.pages.texts import languages, preferred, texts_of

STATION = Path(pages.__file__).parents[1]
TEMPLATES = sorted((STATION / "pages" / "templates").glob("*.html"))
CODES = ("en", "de", "zh")
NOT_WORDS = {"Total Recall", "UTC", "ms", "p", "part,path,truth"}  # names and units, the same in every language
KEYS = {"D", "F", "U"}  # of the keyboard
CALL = re.compile(r'\bt\(\s*"([a-z_.]+)"(\s*~)?')
CHOICE = re.compile(r'\bt\(\s*"([a-z_.]+)" if [^)]*? else "([a-z_.]+)"')


def places(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("code", CODES)
def test_a_language_says_everything_that_english_says_with_the_same_values(code):
    english, other = languages()["en"].entries, languages()[code].entries
    assert set(other) == set(english)
    assert {key: places(text) for key, text in other.items()} == {key: places(text) for key, text in english.items()}
    assert all(text.strip() for text in other.values())


@pytest.mark.parametrize("code", ["de", "zh"])
def test_a_language_is_translated(code):
    english, other = languages()["en"].entries, languages()[code].entries
    same = sorted(key for key, text in other.items() if text == english[key])
    assert len(same) < 0.06 * len(other), same  # names such as Drift, Name, OK


def test_every_text_that_a_template_or_a_view_asks_for_is_there():
    known, missing = languages()["en"].entries, []
    for path in [*TEMPLATES, *(STATION / "pages").glob("*.py")]:
        source = path.read_text(encoding="utf-8")
        wanted = [(key, bool(more)) for key, more in CALL.findall(source)]
        wanted += [(key, False) for pair in CHOICE.findall(source) for key in pair]
        for key, is_stem in wanted:
            found = any(one.startswith(key) for one in known) if is_stem else key in known
            if not found:
                missing.append((path.name, key))
    assert missing == []


def test_every_text_is_asked_for():
    source = "".join(path.read_text(encoding="utf-8") for path in [*TEMPLATES, *(STATION / "pages").glob("*.py")])
    stems = {key for key, more in CALL.findall(source) if more}
    stems |= {"said.", "promise.", "fit.run_", "trail.actions.", "trail.facts."}
    idle = [
        key
        for key in languages()["en"].entries
        if f'"{key}"' not in source and not any(key.startswith(stem) for stem in stems)
    ]
    assert set(idle) <= {"language", "decimal_mark"}  # asked for by another way


class _Words(HTMLParser):
    """Gathers what a reader would see or hear of a template, outside its own expressions."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.words = []

    def handle_data(self, data):
        self.words.append(data)

    def handle_starttag(self, tag, attrs):  # noqa: ARG002  what the parser calls it with
        heard = ("alt", "title", "aria-label", "placeholder")
        self.words += [value for name, value in attrs if name in heard and value]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_holds_no_words_of_its_own(path):
    source = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    reader = _Words()
    reader.feed(source)
    text = " ".join(" ".join(reader.words).split())
    for known in sorted(NOT_WORDS, key=len, reverse=True):
        text = text.replace(known, " ")
    words = {word for word in re.findall(r"[^\W\d_]{2,}|[A-Z]", text) if word not in KEYS}
    assert words == set()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr,zh-CN;q=0.7,de;q=0.6", "zh"),
        ("fr, it", "en"),
        ("de;q=0, zh;q=0.1", "zh"),
        ("EN-us;q=0.1,de;q=0.1", "en"),
        ("de" * 5000, "en"),
        ("de;q=9;;;,\x00", "en"),
    ],
)
def test_the_language_that_a_browser_likes_best_is_chosen(accepted, language):
    assert preferred(accepted, CODES) == language


def test_what_a_person_chose_goes_before_what_the_browser_asks_for():
    assert texts_of("zh", "de").language == "zh"
    assert texts_of("xx", "de").language == "de"
    assert texts_of(None, None).language == "en"


def test_numbers_have_the_decimal_mark_of_the_language():
    german, english = languages()["de"], languages()["en"]
    assert (english.number(1000, 2), english.number(1234.5, 3), english.number(12.34, 2)) == ("1000", "1234", "12")
    assert (german.number(1.4738, 4), english.number(1.4738, 4)) == ("1,474", "1.474")
    assert (english.percent(0.01), english.percent(0.00207)) == ("1\xa0%", "0.21\xa0%")
    assert (german.percent(1e-6), german.percent(0.0)) == ("< 0,01\xa0%", "0\xa0%")
    assert (german.score(1.41), english.score(30.0), english.score(None)) == ("1,410", "30.00", "–")
    assert german.percent(0.0144) == "1,4\xa0%"
    assert (english.number(None), english.number(float("nan")), english.percent(None)) == ("–", "–", "–")
