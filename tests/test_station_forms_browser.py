"""The page's forms in a browser without scripts: everything that changes something works by plain HTML."""

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


@pytest.fixture(params=["nobody logs in", "a user"])
def plain(request, browser, rejecting, tmp_path):
    """A station, its address, and a page without scripts; with users the forms carry the session's hidden text."""
    copy = tmp_path / rejecting.name
    copy.write_bytes(rejecting.read_bytes())
    with (
        served_station(copy, tmp_path / "station") as (station, url),
        opened_page(browser, java_script_enabled=False) as page,
    ):
        if request.param == "a user":
            station.users.add("Eva", "engineer", PASSWORD, ANYBODY)
            page.goto(url)
            log_in(page, "Eva")
        yield station, url, page


def test_a_picture_is_uploaded_and_judged(plain, pictures):
    station, url, page = plain
    page.goto(url)
    page.locator("input[name=serial]").fill("P-1")
    upload(page, pictures[0])
    page.get_by_role("button", name="Inspect", exact=True).click()
    sync_api.expect(page.locator(".now .facts")).to_contain_text("P-1")
    inspection = station.history.find(limit=1)[0]
    assert (inspection.serial, inspection.source) == ("P-1", "page")
    for path in pictures:
        station.inspect(path.read_bytes(), Caption(name=path.name))
    key = station.history.find(Filter(to_judge=True))[0].key
    page.goto(f"{url}/judge")
    page.get_by_role("button", name="Defect").click()
    sync_api.expect(page.locator(".said")).to_have_text("The judgement is written down.")
    assert station.history.get(key).judgement == "defect"


def test_a_golden_picture_is_uploaded_and_checked(plain, pictures):
    station, url, page = plain
    verdict = station.inspect(pictures[-1].read_bytes(), Caption(name="first")).verdict
    page.goto(f"{url}/models/part")
    upload(page, pictures[-1])
    page.get_by_label("They must come out as").select_option(verdict)
    page.get_by_role("button", name="Add").click()
    sync_api.expect(page.locator(".said")).to_have_text("The picture is golden now.")
    assert [one["expected"] for one in station.golden.all("part")] == [verdict]
    page.get_by_role("button", name="Check the 1 golden").click()
    sync_api.expect(page.locator(".said")).to_have_text("The golden check passed.")


def test_a_model_is_fitted(plain, parts):
    station, url, page = plain
    page.goto(f"{url}/fit")
    upload(page, *sorted((parts / "train" / "good").glob("*.png")))
    page.get_by_label("Name of the model").fill("second")
    page.get_by_role("button", name="Fit", exact=True).click()
    page.wait_for_url("**/fit/*")
    page.get_by_role("link", name="Open the model").wait_for(timeout=LONG)  # the page loads itself again meanwhile
    assert station.shelf.get("second").name == "second"


def test_a_form_with_files_and_without_the_hidden_text_of_the_session_is_refused(browser, rejecting, tmp_path):
    copy = tmp_path / rejecting.name
    copy.write_bytes(rejecting.read_bytes())
    with (
        served_station(copy, tmp_path / "station") as (station, url),
        browser.new_context(locale="en") as context,
    ):
        page = context.new_page()
        station.users.add("Eva", "engineer", PASSWORD, ANYBODY)
        page.goto(url)
        log_in(page, "Eva")
        page.wait_for_url(f"{url}/")
        send = """([name, value]) => { const form = new FormData(); if (name) form.append(name, value);
          form.append("file", new Blob(["x"]), "x.png");
          return fetch("/live/inspect", {method: "POST", body: form}).then(answer => answer.status); }"""
        hidden = page.locator("form.drop input[name=csrf]").get_attribute("value")
        answers = [page.evaluate(send, [name, value]) for name, value in (("csrf", hidden), ("line", hidden))]
    assert answers == [200, 403]
