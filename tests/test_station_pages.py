"""The station's page: every view answers, does what its buttons say, and prints what people type as text."""

import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.station_access import make_certificate
from tests.station_browser import rejecting_half
from tests.stations import started
from totalrecall.station.access.policy import Policy
from totalrecall.station.app import build_app
from totalrecall.station.judging.caption import Caption
from totalrecall.station.pages import texts
from totalrecall.station.store.records import ANYBODY, Filter

NASTY = "<script>alert('x')</script>&\"'"


@pytest.fixture(scope="module")
def place(model, pictures, tmp_path_factory):
    """A model that rejects half of the test pictures."""
    return rejecting_half(model, pictures, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def running(place, tmp_path_factory):
    with started(tmp_path_factory.mktemp("station"), place, keep_good=1.0) as (station, client):
        client.follow_redirects = False
        yield station, client


@pytest.fixture(scope="module")
def inspected(running, pictures):
    """The inspections of the test pictures, with odd names and serial numbers."""
    station, _ = running
    return [
        station.inspect(path.read_bytes(), Caption(name=f"{NASTY}{number}", serial=f"S-{number}", line="line 1"))
        for number, path in enumerate(pictures)
    ]


@pytest.fixture
def newest(running, inspected, pictures):
    """An inspection after all others, whichever tests ran before: a reject with an odd name."""
    station, _ = running
    reject = next(path for path, one in zip(pictures, inspected, strict=True) if one.verdict == "defect")
    return station.inspect(reject.read_bytes(), Caption(name=NASTY, serial="NEWEST", line="line 1"))


def text_of(answer):
    return unescape(re.sub(r"<[^>]*>", " ", answer.text))


VIEWS = (
    "/", "/judge", "/threshold", "/history", "/drift", "/models", "/models/part", "/models/part/evidence",
    "/fit", "/study", "/recipes",
    "/trail?verify=true", "/users", "/login",
)  # fmt: skip


@pytest.mark.parametrize("path", VIEWS)
@pytest.mark.parametrize("language", ["en", "de", "zh"])
def test_a_view_answers_in_the_language_that_the_browser_asks_for(running, inspected, path, language):
    _, client = running
    answer = client.get(path, headers={"Accept-Language": language})
    assert answer.status_code == 200
    assert f'<html lang="{language}">' in answer.text
    assert texts.languages()[language]("nav.live") in answer.text or path == "/login"
    assert "style=" not in answer.text  # the content security policy would leave it out
    assert not re.search(r"<script(?! src)|\son[a-z]+=", answer.text)


@pytest.mark.parametrize("path", [*VIEWS, "INSPECTION"])
def test_what_clients_send_is_printed_as_text(running, newest, path):
    _, client = running
    path = path.replace("INSPECTION", f"/history/{newest.key}")
    page = client.get(path).text
    assert "<script>alert" not in page
    if path in ("/", "/judge", "/history") or "history/" in path:
        assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&#34;&#39;" in page


def test_every_field_has_a_label(running, inspected):
    _, client = running
    for path in VIEWS:
        page = client.get(path).text
        for field in re.findall(r"<(?:input|select|textarea)[^>]*>", page):
            if 'type="hidden"' in field:
                continue
            name = re.search(r'id="([^"]+)"', field)
            before = page[: page.index(field)]
            inside = before.rfind("<label") > before.rfind("</label>")
            assert inside or "aria-label=" in field or (name and f'for="{name[1]}"' in page), (path, field)


def test_every_picture_has_an_alternative_text_and_every_drawing_a_role(running, inspected):
    _, client = running
    for path in (*VIEWS, f"/history/{inspected[0].key}"):
        page = client.get(path).text
        assert all(" alt=" in picture for picture in re.findall(r"<img[^>]*>", page))
        assert all("aria-hidden" in one or 'role="img"' in one for one in re.findall(r"<svg[^>]*>", page))


def test_the_live_view_shows_the_last_inspection_and_tells_when_nothing_is_new(running, inspected, newest):
    _, client = running
    page = client.get("/").text
    assert f'src="/pictures/{newest.key}/picture.jpg"' in page
    assert "NEWEST" in page
    assert client.get(f"/live/now?seen={newest.key}").status_code == 204
    assert client.get("/live/now?model=part&seen=" + inspected[0].key).status_code == 200
    assert client.get("/live/now?model=nothing&seen=").status_code in (204, 404)


def test_the_live_view_says_the_verdict_by_a_word_and_a_shape(running, inspected):
    _, client = running
    for inspection in inspected:
        page = client.get(f"/history/{inspection.key}").text
        look = {"defect": "ng", "good": "ok"}[inspection.verdict]
        assert f'<svg class="shape {look}"' in page
        assert f"<b>{look.upper()}</b>" in page


def test_a_picture_that_is_sent_by_hand_is_inspected(running, inspected, pictures):
    station, client = running
    before = station.history.count()
    files = [("file", ("mine.png", pictures[0].read_bytes(), "image/png"))]
    answer = client.post("/live/inspect", files=files, data={"serial": "H-1"}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert "H-1" in answer.text
    newest = station.history.find(limit=1)[0]
    assert (newest.name, newest.serial, newest.source) == ("mine.png", "H-1", "page")
    assert station.history.count() == before + 1
    assert client.post("/live/inspect?model=part", files=files).headers["location"] == "/?model=part"


def test_a_file_that_is_no_picture_is_told_beside_the_verdict(running):
    _, client = running
    files = [("file", (NASTY, b"no picture", "image/png"))]
    answer = client.post("/live/inspect", files=files, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert 'class="verdict unreadable"' in answer.text
    assert "<script>alert" not in answer.text


def test_pictures_are_given_as_a_browser_shows_them(running, inspected):
    _, client = running
    key = inspected[0].key
    for what, kind, start in (
        ("picture.jpg", "image/jpeg", b"\xff\xd8"),
        ("small.jpg", "image/jpeg", b"\xff\xd8"),
        ("heat.png", "image/png", b"\x89PNG"),
    ):
        answer = client.get(f"/pictures/{key}/{what}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.content.startswith(start)
        assert "immutable" in answer.headers["cache-control"]
    assert client.get(f"/pictures/{key}/secret").status_code == 404
    assert client.get("/pictures/..%2e/picture.jpg").status_code in (400, 404)


def test_a_judgement_is_written_down_with_the_trail_and_taken_back(running, newest):
    station, client = running
    key = newest.key
    queue = station.history.count(Filter(to_judge=True))
    answer = client.post(f"/judge/{key}", data={"judgement": "fine"}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert f'name="done" value="{key}"' in answer.text
    assert (station.history.get(key).judgement, station.history.get(key).judged_by) == ("fine", "local")
    assert station.history.count(Filter(to_judge=True)) == queue - 1
    back = client.post(
        f"/judge/{key}", data={"judgement": "", "done": key, "count": "1"}, headers={"HX-Request": "true"}
    )
    assert f"/pictures/{key}/picture.jpg" in back.text  # it is the one to be judged again
    assert station.history.get(key).judgement is None
    actions = [row.action for row in station.trail.rows(limit=2)]
    assert actions == ["judge", "judge"]


def test_the_queue_goes_back_and_forth(running, inspected):
    station, client = running
    keys = [one.key for one in station.history.find(Filter(to_judge=True))]
    assert len(keys) >= 2
    page = client.get(f"/judge?at={keys[0]}").text
    assert f"at={keys[1]}" in page
    assert 'data-shortcut="ArrowRight"' in page
    assert 'data-shortcut="ArrowLeft"' not in page
    assert f"/pictures/{keys[1]}/picture.jpg" in page  # the next one is loaded ahead
    last = client.get(f"/judge?at={keys[-1]}").text
    assert f"at={keys[-2]}" in last
    assert 'data-shortcut="ArrowRight"' not in last


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/judge/" + "0" * 32, {"judgement": "fine"}, 404),
        ("/judge/KEY", {"judgement": "perhaps"}, 422),
        ("/judge/KEY", {"judgement": "fine", "done": "../../x"}, 404),
        ("/judge/KEY", {"judgement": "fine", "back": "//evil.example/"}, 404),
        ("/judge/KEY", {"judgement": "fine", "back": "/\\evil.example/"}, 404),
        ("/judge/KEY", {"count": "many"}, 422),
        ("/threshold", {"model": "part", "score": "nan"}, 422),
        ("/threshold", {"model": "nothing", "score": "1"}, 404),
        ("/drift/reset", {"model": "part", "reason": "   "}, 422),
        ("/models/nothing/reload", {}, 404),
    ],
)
def test_a_refusal_is_a_page_that_says_why(running, inspected, path, data, status):
    _, client = running
    answer = client.post(path.replace("KEY", inspected[0].key), data=data)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert 'class="refused"' in answer.text
    piece = client.post(path.replace("KEY", inspected[0].key), data=data, headers={"HX-Request": "true"})
    assert "<html" not in piece.text or status == 404


@pytest.mark.parametrize(
    ("language", "words"), [("en", "This did not work"), ("de", "Zur Live-Ansicht"), ("zh", "返回实时视图")]
)
def test_what_the_guard_refuses_is_told_by_the_page_in_the_language_of_the_browser(running, language, words):
    _, client = running
    headers = {"Accept": "text/html", "Accept-Language": language}
    for answer in (client.get("/nothing-here", headers=headers), client.post("/history", headers=headers)):
        assert answer.status_code in (404, 405)
        assert f'<html lang="{language}">' in answer.text
        assert words in answer.text
        assert 'class="top"' in answer.text
    piece = client.post("/nothing-here", headers={"HX-Request": "true", "Accept-Language": language})
    assert (piece.status_code, piece.headers["hx-retarget"]) == (404, "#message")
    assert "<html" not in piece.text


def test_a_held_model_says_its_reason_once(running):
    station, client = running
    station.holds["part"] = "its wire is loose."
    try:
        for path in ("/models/part", "/models", "/history"):
            assert client.get(path).text.count("its wire is loose.") == 1, path
    finally:
        station.holds.clear()


def test_without_the_guard_nobody_changes_anything(place, tmp_path):
    with started(tmp_path / "station", place) as (station, _):
        with TestClient(build_app(station), base_url="http://127.0.0.1:8000") as client:  # without its guard
            answer = client.post("/models/part/reload")
            assert answer.status_code == 401
            assert "Log in first." in answer.text
            assert "/reload" not in client.get("/models/part").text
        assert "reload" not in [row.action for row in station.trail.rows()]


def test_no_page_leads_out_of_the_station(running):
    _, client = running
    for back in ("//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/a\nb"):
        assert client.get("/language", params={"language": "de", "back": back}).status_code == 404
    answer = client.get("/language", params={"language": "de", "back": "/history?text=%C3%A4&span=day"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/history?text=%C3%A4&span=day")
    assert answer.headers["set-cookie"].startswith("totalrecall_language=de")
    client.cookies.clear()
    assert client.get("/language", params={"language": "tlh"}).status_code == 422


def test_the_threshold_view_knows_the_share_above_every_threshold(running, inspected):
    station, client = running
    page = client.get("/threshold?model=part&parts=5000").text
    judge = station.shelf.get("part").judge
    assert f'data-in-use="{judge.threshold_}"' in page
    assert 'value="5000"' in page
    for level in judge.promise_.levels():
        assert f'data-level="{level.threshold}"' in page


@pytest.fixture
def tuned(place, tmp_path):
    """A station of one test alone, which may change the threshold."""
    with started(tmp_path / "station", Path(shutil.copy(place, tmp_path)), keep_good=1.0) as (station, client):
        client.follow_redirects = False
        yield station, client


def test_a_threshold_is_changed_in_the_file_and_in_the_trail(tuned):
    station, client = tuned
    before = station.shelf.get("part")
    wanted = 1.1 * before.judge.threshold_
    answer = client.post("/threshold", data={"model": "part", "score": repr(wanted), "rate": ""})
    assert (answer.status_code, answer.headers["location"]) == (303, "/threshold?model=part&said=threshold_changed")
    after = station.shelf.get("part")
    assert after.judge.threshold_ == pytest.approx(wanted)
    assert after.sha256 != before.sha256
    assert "set by hand" in text_of(client.get("/threshold"))
    row = next(row for row in station.trail.rows() if row.action == "threshold")
    assert row.subject == "part"
    assert client.post("/threshold", data={"model": "part", "score": "1", "rate": "0.1"}).status_code == 303
    assert station.shelf.get("part").judge.promise_.calibrated  # a stated rate keeps what it promises
    assert station.shelf.get("part").judge.calibration_.rate == pytest.approx(0.1)


def test_a_change_of_the_threshold_is_taken_back_to_the_byte(tuned):
    station, client = tuned
    before = station.shelf.get("part").sha256
    assert client.post("/threshold", data={"model": "part", "score": "2.5"}).status_code == 303
    assert 'action="/threshold/undo"' in client.get("/threshold").text
    answer = client.post("/threshold/undo", data={"model": "part"})
    assert answer.headers["location"] == "/threshold?model=part&said=threshold_taken_back"
    assert station.shelf.get("part").sha256 == before
    assert station.trail.rows(limit=1)[0].action == "threshold taken back"


def test_a_proposed_threshold_changes_nothing_until_an_engineer_decides(tuned):
    station, client = tuned
    before = station.shelf.get("part")
    wanted = 1.2 * before.judge.threshold_
    form = {"model": "part", "score": repr(wanted), "rate": ""}
    assert client.post("/threshold/propose", data=form).headers["location"].endswith("said=threshold_proposed")
    assert station.shelf.get("part").sha256 == before.sha256
    assert f"local proposes the threshold {wanted:.4g}." in text_of(client.get("/threshold"))
    assert 'action="/threshold/reject"' in client.get("/threshold/compare", params=form).text
    answer = client.post("/threshold/reject", data={"model": "part"})
    assert answer.headers["location"].endswith("said=threshold_rejected")
    assert "proposes the threshold" not in text_of(client.get("/threshold"))
    assert client.post("/threshold/reject", data={"model": "part"}).status_code == 409
    actions = [row.action for row in station.trail.rows(limit=2)]
    assert actions == ["threshold rejected", "threshold proposed"]
    for score in ("nan", "-1", "0"):
        assert client.post("/threshold/propose", data={**form, "score": score}).status_code == 422


def test_a_proposal_is_gone_once_the_model_has_changed(tuned):
    station, client = tuned
    client.post("/threshold/propose", data={"model": "part", "score": "2.5", "rate": ""})
    client.post("/threshold", data={"model": "part", "score": "3.5"})
    assert "proposes the threshold" not in text_of(client.get("/threshold"))
    details = next(row.details for row in station.trail.rows() if row.action == "threshold")
    assert "proposed_by" not in details  # it is another one that is in use now


def test_the_comparison_tells_what_a_stated_rate_changes(tuned):
    station, client = tuned
    judge = station.shelf.get("part").judge
    level = judge.promise_.levels()[-1]
    page = text_of(client.get("/threshold/compare?model=part&score=1&rate=0.1&parts=500"))
    assert f"{level.threshold:.4g}" in page
    assert "in 500 good parts" in page
    assert "Nobody has judged a defect yet" in page
    assert client.get("/threshold/compare?model=part&score=nan").status_code == 422
    assert client.get("/threshold/compare?model=nothing&score=1").status_code == 404


def test_only_a_change_of_the_threshold_is_taken_back(model, tmp_path):
    with started(tmp_path / "station", shutil.copy(model, tmp_path / "part.trecall")) as (_, client):
        assert 'action="/threshold/undo"' not in client.get("/threshold").text
        answer = client.post("/threshold/undo", data={"model": "part"})
        assert answer.status_code == 409
        assert "was not that of its threshold" in answer.text


def test_a_recipe_at_a_rate_of_its_own_is_named_beside_the_threshold(place, tmp_path):
    folder = tmp_path / "station"
    folder.mkdir()
    product = '[product."<b>Washer</b>"]\nmodel = "part"\nfalse_alarm_rate = 0.2\n'
    (folder / "recipes.toml").write_text(product, encoding="utf-8")
    with started(folder, place) as (station, client):
        client.follow_redirects = False
        assert "Washer" not in client.get("/threshold").text
        page = client.get("/recipes").text
        assert "&lt;b&gt;Washer&lt;/b&gt;" in page
        assert client.post("/recipes", data={"product": "<b>Washer</b>"}).status_code == 303
        assert station.recipes.current.product == "<b>Washer</b>"
        told = text_of(client.get("/threshold"))
        limit = station.recipes.loaded("part", 0.2).judge.threshold_
        assert f"states 20\xa0% for this model, and so the threshold {limit:.4g} applies" in told
        assert client.post("/recipes", data={"product": ""}).status_code == 303
        assert station.recipes.current is None


def test_a_watch_without_pictures_says_nothing_of_what_has_moved(place, tmp_path):
    with started(tmp_path / "station", place) as (_, client):
        page = client.get("/drift").text
        assert "No picture watched yet" in page
        assert "Nothing has moved" not in page


def test_the_history_is_filtered_paged_and_downloaded(running, inspected):
    station, client = running
    defects = station.history.find(Filter(verdict="defect"))
    page = client.get("/history?verdict=defect").text
    assert all(f'href="/history/{one.key}"' in page for one in defects)
    good = next(one for one in inspected if one.verdict == "good")
    assert f'href="/history/{good.key}"' not in page
    assert f"/history/{good.key}" in client.get("/history", params={"serial": good.serial}).text
    assert "/history/" + good.key not in client.get("/history?until=2001-01-01T00:00").text
    csv = client.get("/history.csv?verdict=defect")
    assert csv.headers["content-disposition"].startswith("attachment")
    assert csv.text.lstrip("\ufeff").splitlines()[0].startswith("id,at,model")
    assert len(csv.text.splitlines()) == 1 + len(defects)
    assert client.get("/history?verdict=perhaps").status_code == 422
    assert client.get("/history?since=yesterday").status_code == 422
    assert client.get("/history?before=" + "0" * 32).status_code == 404


def test_the_history_goes_on_page_by_page(running, pictures, monkeypatch):
    from totalrecall.station.pages import looking_back

    monkeypatch.setattr(looking_back, "_PAGE", 3)
    station, client = running
    keys, path = [], "/history"
    while path:
        page = client.get(path).text
        keys += re.findall(r'<td class="thumb"><a href="/history/([0-9a-f]{32})"', page)
        older = re.search(r'href="(/history\?[^"]*before=[^"]*)"', page)
        path = unescape(older[1]) if older else None
    assert keys == [one.key for one in station.history.find(limit=1000)]


def test_the_watch_begins_anew_with_a_reason(running, inspected):
    station, client = running
    answer = client.post("/drift/reset", data={"model": "part", "reason": NASTY})
    assert answer.headers["location"] == "/drift?said=drift_reset"
    row = station.trail.rows(limit=1)[0]
    assert (row.action, row.subject) == ("drift reset", "part")
    assert "<script>alert" not in client.get("/trail").text


def test_what_was_done_is_said_and_nothing_else_is(running):
    _, client = running
    assert "The new threshold is in use." in client.get("/threshold?said=threshold_changed").text
    for said in ("<b>", "nothing", "../x", "threshold_changed<"):
        assert 'class="said"' not in client.get("/threshold", params={"said": said}).text


def test_files_of_the_page_are_fixed_and_known_by_their_content(running):
    _, client = running
    answer = client.get("/static/station.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert client.get("/static/station.js", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.get("/static/htmx.LICENSE.txt").text.startswith("Zero-Clause BSD")
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/nothing.css", "/static//etc/passwd"):
        assert client.get(path).status_code in (400, 404)


def test_a_station_without_pictures_waits_for_the_first(place, tmp_path):
    with started(tmp_path / "station", place) as (_, client):
        for path in VIEWS:
            assert client.get(path).status_code == 200
        assert "Waiting for the first picture" in client.get("/").text
        assert "Nothing is left to judge" in client.get("/judge").text
        assert client.get("/live/now?seen=").status_code == 204


def test_after_a_restart_the_last_pictures_are_those_of_the_history(place, pictures, tmp_path):
    with started(tmp_path / "station", place, keep_good=1.0) as (station, _):
        key = station.inspect(pictures[0].read_bytes(), Caption(name="before")).key
    with started(tmp_path / "station", place, keep_good=1.0) as (_, client):
        page = client.get("/").text
        assert f"/pictures/{key}/picture.jpg" in page
        assert client.get(f"/pictures/{key}/picture.jpg").status_code == 200


def test_a_logged_in_person_sees_what_the_role_may_do(place, pictures, tmp_path):
    with started(tmp_path / "station", place, keep_good=1.0) as (station, client):
        for name, role in (("Eva", "engineer"), ("Olaf", "operator"), ("Ada", "auditor")):
            station.users.add(name, role, "a long password 7", ANYBODY)
        key = station.inspect(pictures[-1].read_bytes(), Caption(name="one")).key
        client.follow_redirects = False
        origin = {"Origin": "http://127.0.0.1:8000", "Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
        assert client.get("/", headers=origin).status_code in (303, 401)
        seen = {}
        for name in ("Eva", "Olaf", "Ada"):
            client.cookies.clear()
            form = {"name": name, "password": "a long password 7", "next": "/judge"}
            assert client.post("/login", data=form, headers=origin).headers["location"] == "/judge"
            page = client.get("/").text
            seen[name] = re.findall(r'<a href="(/[a-z]*)"', page)
            csrf = re.search(r"X-CSRF-Token&#34;: &#34;([0-9a-f]+)|X-CSRF-Token\": \"([0-9a-f]+)", page)
            token = next(filter(None, csrf.groups()))
            without = client.post(f"/judge/{key}", data={"judgement": "fine"}, headers=origin)
            assert without.status_code == 403
            answer = client.post(f"/judge/{key}", data={"judgement": "fine", "csrf": token}, headers=origin)
            assert answer.status_code == (403 if name == "Ada" else 303)
            assert ("Compare with the one in use" in client.get("/threshold").text) == (name != "Ada")
            compared = client.get("/threshold/compare?model=part&score=1").text
            assert ("Use this threshold" in compared, "Propose it" in compared) == (name == "Eva", name == "Olaf")
            assert client.get("/users").status_code == (200 if name == "Eva" else 403)
            assert client.get("/trail").status_code == (403 if name == "Olaf" else 200)
        assert "/users" in seen["Eva"]
        assert "/users" not in seen["Olaf"]
        assert "/judge" in seen["Olaf"]
        assert "/judge" not in seen["Ada"]
        assert "/trail" in seen["Ada"]


def test_the_login_page_says_what_was_wrong_and_keeps_where_one_wanted_to_go(running):
    _, client = running
    page = client.get("/login?problem=wrong&next=/history?verdict=defect").text
    assert "The name or the password is wrong." in page
    assert 'name="next" value="/history?verdict=defect"' in page
    assert 'name="next" value="/"' in client.get("/login?next=//evil.example").text
    assert "Try again in 30 s." in client.get("/login?problem=wait&seconds=30").text


def test_an_evidence_sheet_is_made_of_the_pictures_whose_truth_is_known(tuned, pictures):
    station, client = tuned
    for path in pictures:
        inspection = station.inspect(path.read_bytes(), Caption(name=f"{NASTY}{path.name}"))
        station.history.judge(inspection.key, "fine" if "good" in path.parts else "defect", ANYBODY)
    answer = client.post("/models/part/evidence", data={"false_alarms": "100", "found": "0"})
    key = answer.headers["location"].removeprefix("/evidence/")
    station.sheets.wait(key, 60)
    facts = station.sheets.facts(key)
    assert (facts["state"], facts["error"]) == ("done", None)
    sheet = facts["result"]
    assert sheet["passed"]
    assert sheet["model_sha256"] == station.shelf.get("part").sha256
    assert sorted(one["name"] for one in sheet["pictures"]) == sorted(f"{NASTY}{path.name}" for path in pictures)
    page = client.get(f"/evidence/{key}")
    assert "The criteria are met" in page.text
    assert sheet["pictures_sha256"] in page.text
    assert "<script>alert" not in page.text
    saved = client.get(f"/evidence/{key}/page.html")
    assert saved.headers["content-disposition"].startswith("attachment")
    assert "PASSED" in saved.text
    assert "<script>alert" not in saved.text
    assert f'href="/evidence/{key}"' in client.get("/models/part/evidence").text
    assert 'href="/models/part/evidence"' in client.get("/models/part").text
    row = station.trail.rows(limit=1)[0]
    assert (row.action, row.subject, '"passed":true' in row.details.replace(" ", "")) == ("evidence", "part", True)


def test_an_evidence_sheet_without_pictures_says_what_is_missing(tuned):
    station, client = tuned
    key = client.post("/models/part/evidence", data={"false_alarms": "2", "found": "95"}).headers["location"][10:]
    station.sheets.wait(key, 60)
    page = client.get(f"/evidence/{key}", headers={"Accept-Language": "de"}).text
    assert "Ein Nachweis braucht gute und fehlerhafte Bilder" in page
    assert client.get(f"/evidence/{key}/page.html").status_code == 404
    assert client.get("/evidence/" + "0" * 32).status_code == 404
    for wrong in ("-1", "101", "nan", "many"):
        assert client.post("/models/part/evidence", data={"false_alarms": wrong, "found": "95"}).status_code == 422


@pytest.mark.parametrize(("days", "said"), [("10", True), ("90", False)])
def test_a_certificate_that_ends_soon_is_said_on_each_page(place, tmp_path, days, said):
    pair = (tmp_path / "a.crt", tmp_path / "a.key")
    make_certificate(*pair, "-nodes", "-days", days)
    with started(tmp_path / "station", place, policy=Policy(tls=pair)) as (_, client):
        for path in ("/", "/models", "/history"):
            for language, words in (("en", "certificate ends on"), ("de", "Zertifikat der Station"), ("zh", "证书")):
                text = client.get(path, headers={"Accept-Language": language}).text
                assert (words in text) == said
