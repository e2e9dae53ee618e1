"""guard: what a real browser sends with our own forms gets through, and what a foreign page makes it send does not."""

import http.server
import socket
import threading
from pathlib import Path

import pytest
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.station_access import PASSWORD, open_users, with_roles
from tests.station_clients import guarded, served, small_app
from totalrecall.station.access.policy import Policy
from totalrecall.station.store.records import ANYBODY

CHROMIUM = Path("/usr/bin/chromium")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(
    not CHROMIUM.is_file(), reason="chromium is not installed (Debian: apt-get install chromium)"
)

LOGIN = """<!doctype html><form method="post" action="/login"><input name="name"><input name="password" type="password">
<input name="next" value="/v1/me"><button>Log in</button></form><script>window.inline = true</script>
<p id="style" style="color: rgb(1, 2, 3)">x</p>"""
FOREIGN = """<!doctype html><body><form method="post" action="{station}{path}" enctype="text/plain">
<input name='{{"name": "eve", "x": "' value='"}}'><button>Go</button></form><img id="picture" src="{station}/healthz">
<iframe src="{station}/login"></iframe></body>"""


@pytest.fixture(scope="module")
def browser():
    """A browser for which the name evil.example leads to this computer, as DNS rebinding makes it."""
    with sync_api.sync_playwright() as playwright:
        rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", rules])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    context = browser.new_context()
    yield context.new_page()
    context.close()


def address_in_the_network():
    """Return an address of this computer that a browser does not trust as it trusts the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))  # sends nothing
        except OSError:
            pytest.skip("this computer has no address but the loopback's")
        address = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this computer has no address but the loopback's")
    return address


def app_with_login_page(users):
    app = small_app(users)
    app.router.routes.insert(0, login_route())
    return app


def login_route():
    async def login(request):
        return HTMLResponse(LOGIN)

    return Route("/login", login, methods=["GET"])


def log_in(page, station):
    page.goto(f"{station}/login")
    page.fill("[name=name]", "operators-name")
    page.fill("[name=password]", PASSWORD)
    page.click("button")
    page.wait_for_url("**/v1/me")


@pytest.mark.parametrize("where", ["loopback", "network"])
def test_a_person_logs_in_by_a_plain_form(tmp_path, page, where):
    """Over plain HTTP from the network a browser sends no Sec-Fetch-Site; then Origin must do."""
    host = "127.0.0.1" if where == "loopback" else address_in_the_network()
    policy = Policy(host=host)
    with open_users(tmp_path) as users:
        guard = guarded(with_roles(users), policy, app_with_login_page(users))
        with served(guard, policy, host) as (_, port):
            log_in(page, f"http://{host}:{port}")
            assert '"name":"operators-name"' in page.content()
            cookie = page.context.cookies()[0]
            assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
            page.goto(f"http://{host}:{port}/login")
            assert page.evaluate("window.inline") is None  # no script stands in the page
            assert page.evaluate("getComputedStyle(document.getElementById('style')).color") != "rgb(1, 2, 3)"
            csrf = page.evaluate("fetch('/v1/me').then(answer => answer.json()).then(me => me.csrf)")
            send = (
                "text => fetch('/v1/models/b/predict', {method: 'POST', headers: text ? {'X-CSRF-Token': text} : {}})"
            )
            assert page.evaluate(f"{{ const f = {send}; f('{csrf}').then(answer => answer.status) }}") == 200
            assert page.evaluate(f"{{ const f = {send}; f('').then(answer => answer.status) }}") == 403


@pytest.fixture
def foreign():
    """A site of somebody else: it serves the page that is set as its attribute `text`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(self.server.text.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.mark.parametrize("site", ["localhost", "127.0.0.1"])  # another site; another port of the same
def test_a_foreign_page_changes_and_shows_nothing_at_a_station_without_users(tmp_path, page, foreign, site):
    policy = Policy()
    with open_users(tmp_path) as users, served(guarded(users, policy), policy) as (_, port):
        station = f"http://127.0.0.1:{port}"
        foreign.text = FOREIGN.format(station=station, path="/v1/tokens")
        page.goto(f"http://{site}:{foreign.server_port}/")
        assert page.evaluate("document.getElementById('picture').naturalWidth") == 0
        refused = page.evaluate(
            "station => fetch(station + '/v1/tokens', {method: 'POST', mode: 'no-cors', body: '{\"name\": \"eve\"}'})"
            ".then(() => 'sent', () => 'refused')",
            station,
        )
        assert refused in ("sent", "refused")  # whatever the page learns of it
        with page.expect_navigation() as gone:
            page.click("button")
        assert gone.value.status == 403
        assert users.tokens.list() == []
        assert page.frames[-1].url != f"{station}/login" or "Log in" not in page.frames[-1].content()


def test_a_name_that_leads_to_this_computer_reads_nothing(tmp_path, page):
    """DNS rebinding: the browser takes the foreign page and the station for one site, since both have one name."""
    policy = Policy()
    with open_users(tmp_path) as users, served(guarded(users, policy), policy) as (_, port):
        users.tokens.add("press", ANYBODY)
        assert "press" in page.goto(f"http://127.0.0.1:{port}/v1/tokens").text()
        answer = page.goto(f"http://evil.example:{port}/v1/tokens")
        assert answer.status == 421
        assert "press" not in answer.text()
