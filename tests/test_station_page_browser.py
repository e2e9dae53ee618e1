"""The station's page in a real browser: what people do at the line, from the first picture to the way back."""

import re

import pytest

from tests.station_browser import (
    LONG,
    NEEDS_CHROMIUM,
    PASSWORD,
    log_in,
    opened_page,
    served_station,
    upload,
)
from totalrecall.station.judging.caption import Caption
from totalrecall.station.store.records import ANYBODY, Filter

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("uvicorn")
pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]


@pytest.fixture(scope="module")
def served(rejecting, tmp_path_factory):
    with served_station(rejecting, tmp_path_factory.mktemp("station")) as (station, url):
        yield station, url


@pytest.fixture
def own_station(rejecting, tmp_path):
    """A station of one test alone: with users everybody must log in, a second model must be chosen."""
    copy = tmp_path / rejecting.name
    copy.write_bytes(rejecting.read_bytes())
    with served_station(copy, tmp_path / "station") as (station, url):
        yield station, url


@pytest.fixture
def lonely_page(browser):
    """A page on a tablet, which may lose the station."""
    context = browser.new_context(viewport={"width": 1024, "height": 768}, locale="en")
    yield context.new_page()
    context.close()


@pytest.fixture
def page(browser):
    with opened_page(browser) as opened:
        yield opened


def test_a_picture_is_uploaded_and_its_verdict_stands_there_at_once(served, page, pictures):
    station, url = served
    page.goto(url)
    page.locator("input[name=serial]").fill("A-1")
    upload(page, pictures[0])
    sync_api.expect(page.locator(".now .facts")).to_contain_text("A-1")
    inspection = station.history.find(limit=1)[0]
    word = {"defect": "NG", "good": "OK"}[inspection.verdict]
    sync_api.expect(page.locator(".verdict b")).to_have_text(word)
    sync_api.expect(page.locator("#spoken")).to_contain_text("A-1")  # read aloud by a screen reader
    assert float(page.locator(".verdict b").evaluate("one => getComputedStyle(one).fontSize").removesuffix("px")) >= 58


def test_the_live_view_follows_the_line_by_itself(served, page, pictures):
    station, url = served
    page.goto(url)
    for number, path in enumerate(pictures):
        station.inspect(path.read_bytes(), Caption(name=path.name, serial=f"L-{number}"))
    sync_api.expect(page.locator(".now .facts")).to_contain_text(f"L-{len(pictures) - 1}")
    sync_api.expect(page.locator(".strip li")).to_have_count(min(len(station.recent.last(12)), 12))


def test_the_slider_fades_the_heat_and_the_next_picture_keeps_it(served, page, pictures):
    station, url = served
    station.inspect(pictures[-1].read_bytes(), Caption(name="first"))
    page.goto(url)
    heat = page.locator(".stage img.heat")
    slider = page.get_by_role("slider", name="Heat map")
    slider.fill("20")
    sync_api.expect(heat).to_have_css("opacity", "0.2")
    station.inspect(pictures[0].read_bytes(), Caption(name="again", serial="N-1"))
    sync_api.expect(page.locator(".now .facts")).to_contain_text("N-1")
    sync_api.expect(heat).to_have_css("opacity", "0.2")
    page.get_by_role("button", name="On / off").click()
    sync_api.expect(heat).to_have_css("opacity", "0")
    page.reload()
    sync_api.expect(heat).to_have_css("opacity", "0")  # this tablet keeps it


def test_a_queue_is_judged_by_the_keyboard_alone(served, page, pictures):
    station, url = served
    for path in pictures:
        station.inspect(path.read_bytes(), Caption(name=path.name))
    queue = [one.key for one in station.history.find(Filter(to_judge=True))]
    assert len(queue) >= 3
    page.goto(f"{url}/judge")
    shown = page.locator(".stage .picture")
    sync_api.expect(shown).to_have_attribute("src", f"/pictures/{queue[0]}/picture.jpg")
    page.keyboard.press("ArrowRight")
    sync_api.expect(shown).to_have_attribute("src", f"/pictures/{queue[1]}/picture.jpg")
    page.keyboard.press("ArrowLeft")
    sync_api.expect(shown).to_have_attribute("src", f"/pictures/{queue[0]}/picture.jpg")
    page.keyboard.press("d")
    sync_api.expect(shown).to_have_attribute("src", f"/pictures/{queue[1]}/picture.jpg")
    assert station.history.get(queue[0]).judgement == "defect"
    page.keyboard.press("f")
    sync_api.expect(shown).to_have_attribute("src", f"/pictures/{queue[2]}/picture.jpg")
    assert station.history.get(queue[1]).judgement == "fine"
    page.keyboard.press("u")
    sync_api.expect(shown).to_have_attribute("src", f"/pictures/{queue[1]}/picture.jpg")
    assert station.history.get(queue[1]).judgement is None
    before = page.locator("[data-heat-toggle]").get_attribute("aria-pressed")
    page.keyboard.press(" ")
    sync_api.expect(page.locator("[data-heat-toggle]")).not_to_have_attribute("aria-pressed", before)
    page.keyboard.press("f")
    sync_api.expect(page.locator(".progress p")).to_contain_text("2 judged")
    page.goto(f"{url}/trail")
    assert page.locator("tbody tr").first.inner_text().split("\t")[3] == "judgement"


def test_the_handle_of_the_threshold_tells_the_false_alarms_and_is_applied(own_station, page):
    station, url = own_station
    page.goto(f"{url}/threshold")
    before = station.shelf.get("part").judge.threshold_
    page.get_by_label("Good parts per day").fill("10000")
    alarms = page.locator('[data-shows="alarms"]')
    handle = page.locator("[data-handle] path").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 6)
    page.mouse.down()
    page.mouse.move(handle["x"] + 400, handle["y"] + 6, steps=4)
    page.mouse.up()
    moved = float(page.locator("#score").input_value())
    assert moved > before
    share = station.shelf.get("part").judge.calibration_.expected_rate(moved)
    told = float(re.sub(r"[^0-9.]", "", alarms.inner_text()))
    assert told == pytest.approx(10000 * share, rel=0.05, abs=0.2)
    page.get_by_role("button", name="10 %").click()
    sync_api.expect(page.locator('[data-shows="rate"]')).to_have_text("10%")
    sync_api.expect(alarms).to_have_text("1,000")
    page.get_by_role("button", name="Compare with the one in use").click()
    assert station.shelf.get("part").judge.threshold_ == before  # what it would change is shown first
    row = page.locator("tr", has_text="Expected false alarms in 10000 good parts")
    sync_api.expect(row.locator("td").last).to_contain_text("1000")
    page.get_by_role("button", name="Use this threshold").click()
    sync_api.expect(page.locator(".said")).to_have_text("The new threshold is in use.")
    assert station.shelf.get("part").judge.calibration_.rate == pytest.approx(0.1)


def judged(station, path, name, judgement):
    """An inspection that a person judged."""
    key = station.inspect(path.read_bytes(), Caption(name=name)).key
    return station.history.judge(key, judgement, ANYBODY)


def test_fine_parts_are_taught_compared_approved_and_taken_back(served, page, parts):
    station, url = served
    good = sorted((parts / "test" / "good").glob("*.png"))
    for number, path in enumerate(good):
        judged(station, path, f"fine {number}", "fine")
    before = station.shelf.get("part").sha256
    page.goto(f"{url}/models/part")
    page.get_by_role("button", name="Propose a version that knows them").click()
    page.get_by_role("button", name="Approve").wait_for(timeout=LONG)
    assert station.shelf.get("part").sha256 == before  # a proposal changes nothing
    sync_api.expect(page.locator(".compared")).to_contain_text("False alarms")
    page.get_by_role("button", name="Approve").click()
    sync_api.expect(page.locator(".said")).to_have_text("The proposed version is in use.")
    assert station.shelf.get("part").sha256 != before
    page.once("dialog", lambda question: question.accept())
    page.get_by_role("button", name="Back to the version before").click()
    sync_api.expect(page.locator(".said")).to_have_text("The version before is in use again.")
    assert station.shelf.get("part").sha256 == before


def test_a_golden_picture_is_added_and_checked_by_a_button(served, page, pictures):
    station, url = served
    for path in pictures:
        inspection = station.inspect(path.read_bytes(), Caption(name=f"golden {path.name}"))
        right = {"defect": "defect", "good": "fine"}[inspection.verdict]
        station.history.judge(inspection.key, right, ANYBODY)
        page.goto(f"{url}/history/{inspection.key}")
        page.get_by_role("button", name="golden").click()
        sync_api.expect(page.locator(".said")).to_have_text("The picture is golden now.")
    page.get_by_role("button", name=f"Check the {len(pictures)} golden pictures").click()
    sync_api.expect(page.locator(".said")).to_have_text("The golden check passed.")
    assert station.golden.runs("part", 1)[0]["passed"]


def test_a_model_is_fitted_from_pictures_that_were_chosen(own_station, page, parts):
    station, url = own_station
    page.goto(f"{url}/fit")
    upload(page, *sorted((parts / "train" / "good").glob("*.png")))
    page.get_by_label("Name of the model").fill("second")
    page.get_by_label("False-alarm rate").select_option("0.05")
    page.get_by_role("button", name="Fit", exact=True).click()
    page.get_by_role("link", name="Open the model").wait_for(timeout=LONG)
    assert station.shelf.get("second").judge.calibration_.rate == pytest.approx(0.05)
    page.get_by_role("link", name="Open the model").click()
    sync_api.expect(page.locator("h1")).to_have_text("second")
    page.goto(f"{url}/threshold?model=second")
    page.get_by_label("Model", exact=True).select_option("part")
    sync_api.expect(page).to_have_url(f"{url}/threshold?model=part")


def test_the_language_is_chosen_by_the_menu_and_stays(served, page):
    _, url = served
    page.goto(f"{url}/history?verdict=defect")
    page.get_by_label("Language").select_option("de")
    sync_api.expect(page.locator("h1")).to_have_text("Verlauf")
    assert page.url == f"{url}/history?verdict=defect"
    page.goto(f"{url}/drift")
    sync_api.expect(page.locator("html")).to_have_attribute("lang", "de")


@pytest.mark.parametrize("size", [(1024, 768), (768, 1024), (1440, 900)])
def test_no_view_is_wider_than_the_screen(served, page, size):
    _, url = served
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for path in (
        "/",
        "/judge",
        "/threshold",
        "/history",
        "/drift",
        "/models",
        "/models/part",
        "/models/part/evidence",
        "/threshold/compare?model=part&score=2",
        "/fit",
        "/users",
        "/trail",
    ):
        page.goto(f"{url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], path


def test_nothing_shown_has_too_little_contrast_or_is_too_small_to_touch(served, page):
    _, url = served
    for path in (
        "/",
        "/judge",
        "/threshold",
        "/history",
        "/models/part",
        "/models/part/evidence",
        "/fit",
        "/users",
        "/trail",
    ):
        page.goto(f"{url}{path}")
        assert page.evaluate(CONTRAST) == [], path


CONTRAST = """() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(one => one / 255)
    .map(one => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = one => {
    for (; one; one = one.parentElement) {
      const colour = channels(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const one of document.querySelectorAll("main *, header *")) {
    const words = [...one.childNodes].filter(node => node.nodeType === 3 && node.data.trim()).length;
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    if (box.width < 2 || style.visibility === "hidden" || one.closest("svg, .unseen, :disabled, option")) continue;
    if (words) {
      const [a, b] = [luminance(channels(style.color)), luminance(ground(one))].sort((x, y) => y - x);
      const said = `contrast ${one.className || one.tagName}: ${one.textContent.slice(0, 30)}`;
      if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(said);
    }
    const small = one.matches("button, select, a.button") && (box.height < 44 || box.width < 44); // for gloves
    if (small) bad.push(`small ${one.textContent.slice(0, 30)}`);
  }
  return bad;
}"""


def test_a_station_that_is_gone_is_told(served, lonely_page):
    _, url = served
    lonely_page.goto(url)
    lonely_page.route("**/live/now**", lambda route: route.abort())
    sync_api.expect(lonely_page.locator("#lost")).to_contain_text("No connection")
    lonely_page.unroute("**/live/now**")
    sync_api.expect(lonely_page.locator("#lost")).to_be_hidden()


def test_the_first_picture_takes_the_place_of_waiting(own_station, page, pictures):
    station, url = own_station
    page.goto(url)
    sync_api.expect(page.locator(".verdict")).to_contain_text("Waiting")
    station.inspect(pictures[0].read_bytes(), Caption(name="first", serial="W-1"))
    sync_api.expect(page.locator(".now .facts")).to_contain_text("W-1")
    sync_api.expect(page.locator(".verdict")).not_to_contain_text("Waiting")


def test_people_log_in_and_see_what_they_may_do(own_station, page):
    station, url = own_station
    page.goto(f"{url}/users")
    form = page.locator("form[action='/users']")
    form.get_by_label("Name").fill("Eva")
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button").click()
    page.wait_for_url("**/login**")
    station.users.add("Ada", "auditor", PASSWORD, ANYBODY)
    log_in(page, "Eva", "not this one")
    sync_api.expect(page.locator(".refused")).to_have_text("The name or the password is wrong.")
    log_in(page, "Eva")
    sync_api.expect(page.locator("h1")).to_have_text("Users")
    page.goto(f"{url}/judge")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login**")
    log_in(page, "Ada")
    page.wait_for_url(f"{url}/")
    sync_api.expect(page.locator("nav")).to_contain_text("Trail")
    sync_api.expect(page.locator("nav")).not_to_contain_text("Judge")
    assert page.locator("input[type=file]").count() == 0


def test_an_operator_proposes_a_threshold_and_an_engineer_decides(own_station, page, pictures):
    station, url = own_station
    for name, role in (("Eva", "engineer"), ("Olaf", "operator")):
        station.users.add(name, role, PASSWORD, ANYBODY)
    inspections = [station.inspect(path.read_bytes(), Caption(name=path.name)) for path in pictures]
    for one in inspections:
        station.history.judge(one.key, "defect", ANYBODY)
    before = station.shelf.get("part").judge.threshold_
    wanted = min(one.score for one in inspections) - 1
    page.goto(f"{url}/threshold/compare?model=part&score={wanted}&parts=1000")
    log_in(page, "Olaf")
    row = page.locator("tr", has_text="Judged defects that are found")
    found = sum(one.score > before for one in inspections)
    sync_api.expect(row.locator("td").first).to_have_text(f"{found} of {len(inspections)}")
    sync_api.expect(row.locator("td").last).to_contain_text(f"{len(inspections)} of {len(inspections)} ▲ better")
    assert page.get_by_role("button", name="Use this threshold").count() == 0
    page.get_by_role("button", name="Propose it to an engineer").click()
    sync_api.expect(page.locator(".said")).to_contain_text("An engineer decides.")
    assert station.shelf.get("part").judge.threshold_ == before
    page.get_by_role("button", name="Log out").click()
    log_in(page, "Eva")
    page.goto(f"{url}/threshold")
    sync_api.expect(page.locator(".asked")).to_contain_text("olaf proposes the threshold")
    page.locator(".asked a").click()
    page.get_by_role("button", name="Use this threshold").click()
    sync_api.expect(page.locator(".said")).to_have_text("The new threshold is in use.")
    assert station.shelf.get("part").judge.threshold_ == pytest.approx(wanted)
    sync_api.expect(page.locator(".asked")).to_have_count(0)
    row = next(row for row in station.trail.rows() if row.action == "threshold")
    assert (row.actor, '"proposed_by":"olaf"' in row.details.replace(" ", "")) == ("eva", True)
