"""A station behind its guard at an address of this computer, and a browser that goes there."""

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from totalrecall.registry import load_detector
from totalrecall.station.app import guarded
from totalrecall.station.settings import StationSettings
from totalrecall.station.station import Station

CHROMIUM = Path("/usr/bin/chromium")
LONG = 120_000  # milliseconds for what a child process does
PASSWORD = "a long password 7"
NEEDS_CHROMIUM = pytest.mark.skipif(
    not CHROMIUM.is_file(), reason="chromium is not installed (Debian: apt-get install chromium)"
)


def rejecting_half(model: Path, pictures: Sequence[Path], folder: Path) -> Path:
    """A copy of a model, named part, whose threshold lies in the middle of the scores of some pictures."""
    path = Path(shutil.copy(model, folder / "part.trecall"))
    detector = load_detector(path)
    detector.update(threshold=float(np.median([detector.predict(picture).score for picture in pictures])))
    detector.save(path)
    return path


@contextlib.contextmanager
def served_station(model: Path, folder: Path, **settings) -> Iterator[tuple[Station, str]]:
    """A station of one model that keeps every picture and lets all be judged, with its address."""
    import uvicorn

    common = {"watch_seconds": 0, "keep_good": 1.0, "near_miss": 1.0}
    station = Station(StationSettings(models=(model,), folder=folder, **{**common, **settings}))
    station.start()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = uvicorn.Config(guarded(station), log_level="error", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        try:
            yield station, f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            station.close()


@contextlib.contextmanager
def opened_browser():
    """A chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        try:
            yield opened
        finally:
            opened.close()


@contextlib.contextmanager
def opened_page(browser, **context):
    """A page on a tablet; a complaint of the browser, such as a refusal of the security policy, fails the test."""
    opened = browser.new_context(**{"viewport": {"width": 1024, "height": 768}, "locale": "en", **context})
    page = opened.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        yield page
    finally:
        opened.close()
    assert said == []


def upload(page, *paths):
    """Choose files in the page's field for pictures."""
    page.locator("input[name=file]").set_input_files([str(path) for path in paths])


def log_in(page, name, password=PASSWORD):
    """Fill in the login page's form, and send it."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
