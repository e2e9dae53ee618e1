"""The library's sentences in the reader's language: the dictionary holds those that the page may meet, no others."""

import ast
import re
import shutil
import string
from html import unescape
from pathlib import Path

import pytest

import totalrecall
from tests.station_browser import rejecting_half
from tests.stations import started
from totalrecall.drift.conditions import MEASURES, change_in_words
from totalrecall.station.judging.caption import Caption, Upload
from totalrecall.station.pages.sentences import Sentences
from totalrecall.station.pages.texts import languages
from totalrecall.station.store.records import ANYBODY

SOURCE = Path(totalrecall.__file__).parent
CODES = ("de", "zh")
# Files whose refusals a person at the page may meet
FILES = (
    "access/guard.py", "access/guard_body.py", "access/passwords.py", "access/tokens.py", "access/users.py",
    "camera_source.py", "drawing.py", "judging/inspecting.py", "links/camera.py", "links/recipe_camera.py", "pages",
    "quality/comparing.py", "quality/fitting.py", "quality/golden.py", "quality/studies.py", "quality/teaching.py",
    "quality/workers.py", "store/disk.py", "thresholds.py",
)  # fmt: skip
# The beginnings of those that only a program can meet, or whoever builds the station
NOT_AT_THE_PAGE = (
    "A request may have one Authorization", "There is no such token", "This route is not in", "Authorization must be",
    "A form may have at most", "Users need the package", "role must be one of", "Settings of a fit here",
    "backbone must be", "{} is not the file that", "Cannot read {}",
)  # fmt: skip


def places(sentence):
    return sorted(name for _, name, _, _ in string.Formatter().parse(sentence) if name)


def pattern(sentence):
    """A sentence with all its places alike."""
    return "".join(text + ("" if name is None else "{}") for text, name, _, _ in string.Formatter().parse(sentence))


def text_of(node):
    """The text of a string or an f-string of the source, its values as {}; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def test_both_languages_know_the_same_sentences_with_the_same_values():
    german, chinese = (languages()[code].library for code in CODES)
    assert list(german) == list(chinese)
    for language in (german, chinese):
        assert [english for english, other in language.items() if not set(places(other)) <= set(places(english))] == []
        assert all(other.strip() for other in language.values())


# Sentences that the library puts together of several pieces, so that no file holds them whole; those of an audit, of a
# capability and of the drift are made by the tests below
COMPOSED = re.compile(
    r"product must be one of none|There is no evidence sheet|engineer, operator|auditor, engineer|"
    r"(upper|middle|lower) (left|middle|right)|The golden check of model \{name_model\} passed|"
    r".* unlike the others: \{name\}|It does not find 9 of 10|\{words_kind\}: larger|\{size\} pixels|The table|"
    r"Effectiveness|\{count\} (parts?|pictures? watched)|the (pictures|parts) (are|have)|patches lie|scores are"
)


def test_every_sentence_of_the_dictionary_is_one_of_the_library():
    """A sentence that the library says otherwise by now would stay English without anybody noticing."""
    texts = []
    for path in SOURCE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts.append("\n".join(filter(None, map(text_of, nodes))).lower())
    lost = []
    for english in languages()["de"].library:
        pieces = [re.sub(r"^\W+|\W+$", "", piece).lower() for piece in pattern(english).split("{}")]
        if not COMPOSED.match(english) and not any(all(piece in text for piece in pieces) for text in texts):
            lost.append(english)
    assert lost == []


def test_every_refusal_that_a_person_at_the_page_may_meet_is_in_the_dictionary():
    names = (f"{{name_{number}}}" for number in range(10_000))
    known = {re.sub(r"\{\}", lambda _: next(names), pattern(english)): "known" for english in languages()["de"].library}
    sentences, lacking = Sentences(known, str), []
    for path in sorted(SOURCE.joinpath("station").rglob("*.py")):
        if not path.relative_to(SOURCE / "station").as_posix().startswith(FILES):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            said = next(filter(None, map(text_of, node.exc.args)), None)
            if said is not None and not said.startswith(NOT_AT_THE_PAGE) and sentences.of(said) is None:
                lacking.append((path.name, said))
    assert lacking == []


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("measure", [*MEASURES, "patches_since"])
@pytest.mark.parametrize("direction", ["+", "-"])
def test_what_the_drift_says_is_in_the_dictionary(code, measure, direction):
    t = languages()[code]
    change = change_in_words(measure, direction, 0.3, (100, 200))
    assert t.sentence(change) is not None
    assert t.sentence(f"since picture 12: {change} (3 of the last 4 were judged anomalous)") is not None
    assert t.sentence("nothing has moved (12 pictures watched, 9 judged good)") is not None


@pytest.mark.slow
def test_what_a_fit_an_audit_and_a_capability_say_is_in_the_dictionary(model, parts, tmp_path):
    pictures = [Upload(path.read_bytes(), Caption(name=path.name)) for path in sorted((parts / "train").rglob("*.png"))]
    with started(tmp_path / "station", Path(shutil.copy(model, tmp_path / "part.trecall"))) as (station, _):
        fitted = station.fits.begin("second", pictures, ANYBODY, {"size": 64})
        station.fits.wait(fitted, 120)
        sentences = [*filter(None, [station.fits.facts(fitted)["result"]["note"]])]
        for begin in (station.fits.begin_audit, station.fits.begin_capability):
            key = begin(fitted, ANYBODY)
            station.fits.wait(key, 300)
            result = station.fits.facts(key)["result"]
            sentences += [one["reason"] for one in result.get("worst", []) if one["reason"]]
            sentences += [*result.get("sentences", []), *result.get("notes", [])]
    assert len(sentences) > 8
    for code in CODES:
        assert [one for one in sentences if languages()[code].sentence(one) is None] == []


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("Model line 1 is not held.", "Das Modell line 1 ist nicht angehalten."),
        ("Model good is not held.", "Das Modell good ist nicht angehalten."),  # a name stays what it is
        (
            "The golden check of model b failed for 2 of 5 golden pictures: a.png (expected was good, and it is judged "
            "defect), b, c.png (its score was 1.5, and is 1.25 by the same model) and 1 more.",
            "Die Referenzprüfung des Modells b ist nicht bestanden (2 von 5 Referenzbilder): a.png (erwartet war gut, "
            "geprüft wird Fehler), b, c.png (der Wert war 1,5 und ist beim selben Modell 1,25), +1.",
        ),
        (
            "a spot unlike the others, upper left, at x 5 to 9, y 0 to 27; brighter (120, others 90)",
            "eine Stelle anders als bei den anderen, oben links, bei x 5 bis 9, y 0 bis 27; heller (120, andere 90)",
        ),
        (
            "Finds 9 of 10 stains of 54 pixels at contrast 0.1; with 95 % confidence of 60.2 pixels.",
            "Findet 9 von 10 (Flecken) ab 54 Pixel bei Kontrast 0,1; mit 95 % Sicherheit ab 60,2 Pixel.",
        ),
    ],
)
def test_a_sentence_is_said_with_its_values(english, german):
    assert languages()["de"].sentence(english) == german
    assert languages()["en"].sentence(english) == english


@pytest.mark.parametrize("english", ["", "Something else.", "Model x is held: Something else.", "x" * 3000])
def test_a_sentence_that_is_not_known_is_not_translated_in_part(english):
    assert languages()["de"].sentence(english) is None
    assert languages()["zh"].sentence(english) is None


def test_a_name_that_looks_like_a_sentence_takes_no_time_and_no_wrong_place():
    one = Sentences({"{name} and {name_2} and {name_3} and {name_4}!": "{name_4}|{name}"}, str)
    assert one.of(" and " * 390 + "!") is not None
    assert one.of("a and b and c!") is None


@pytest.fixture
def german(model, parts, tmp_path):
    """A station of which a German asks, with a model that fails its golden check and pictures that cannot be read."""
    pictures = sorted((parts / "test").rglob("*.png"))
    path = rejecting_half(model, pictures, tmp_path)
    with started(tmp_path / "station", path, keep_good=1.0, hold_on_golden_failure=True) as (station, client):
        client.headers["Accept-Language"] = "de"
        verdicts = [station.inspect(one.read_bytes(), Caption(name=one.name)).verdict for one in pictures]
        for one, verdict in zip(pictures, verdicts, strict=True):
            station.golden.add("part", one.read_bytes(), expected=verdict, name=one.name, actor=ANYBODY)
        yield station, client


# words that stand in every second English sentence, and in no German one
ENGLISH = re.compile(r"\b(the|and|were|must|not|has|have|there|with|which|pictures?|passed|failed|expected)\b")
VIEWS = (
    "/", "/judge", "/threshold", "/history", "/drift", "/models", "/models/part", "/models/part/evidence",
    "/fit", "/study", "/recipes",
    "/trail?verify=true", "/users", "/login", "/threshold/compare?model=part&score=2",
)  # fmt: skip


def seen(answer):
    """What a reader sees of a page, without its scripts, codes and what is marked as another language."""
    text = re.sub(r"(?s)<(script|style|code|option)\b.*?</\1>|<time\b.*?</time>", " ", answer.text)
    return unescape(re.sub(r"<[^>]*>", " ", text))


def test_no_view_and_no_refusal_is_english_to_a_german(german):
    station, client = german
    station.golden.check("part", ANYBODY)
    wanted = [client.get(path) for path in VIEWS]
    wanted.append(client.post("/live/inspect", files=[("file", ("kein Bild.png", b"nothing"))], headers=HTMX))
    forms = (
        ("/threshold", {"model": "nothing", "score": "1"}),
        ("/threshold/reject", {"model": "part"}),
        ("/models/part/undo", {}),
        ("/models/part/golden/release", {"reason": "because"}),
        ("/models/part/teach", {"key": "0" * 32}),
        ("/judge/" + "0" * 32, {"judgement": "fine"}),
        ("/golden/add/" + station.history.find(limit=1)[0].key, {}),
        ("/drift/reset", {"model": "part", "reason": " "}),
        ("/recipes", {"product": "nothing"}),
        ("/users", {"name": "Eva", "password": "short", "role": "engineer"}),
        ("/users", {"name": "Eva", "password": "aaaaaaaaaaaa", "role": "engineer"}),
        ("/users", {"name": "Eva", "password": "a long password 7", "role": "operator"}),
        ("/users/tokens/revoke", {"key": "0" * 32}),
        ("/nothing-here", {}),
    )
    refused = [client.post(path, data=data, headers={"Accept": "text/html"}) for path, data in forms]
    assert [str(answer.url) for answer in refused if answer.status_code not in (404, 409, 422)] == []
    english = {}
    assert languages()["de"]("common.english") not in "".join(answer.text for answer in [*wanted, *refused])
    for answer in [*wanted, *refused]:
        assert '<html lang="de">' in answer.text or answer.request.headers.get("hx-request")
        found = ENGLISH.findall(seen(answer))
        if found:
            english[str(answer.request.url)] = [line for line in seen(answer).split("\n") if ENGLISH.search(line)]
    assert english == {}


HTMX = {"HX-Request": "true"}


def test_a_check_that_failed_is_told_in_german_on_every_page(german):
    station, client = german
    detector_path = station.shelf.get("part").path
    from totalrecall.registry import load_detector

    detector = load_detector(detector_path)
    detector.update(threshold=1000.0)
    detector.save(detector_path)
    station.shelf.reload("part")
    assert not station.golden.check("part", ANYBODY)["passed"]
    page = seen(client.get("/history"))
    assert "Die Referenzprüfung des Modells part ist nicht bestanden" in page
    assert "erwartet war Fehler, geprüft wird gut" in page
    assert ENGLISH.findall(page) == []
