"""guard: heads, bodies, proxies and the headers of answers; what handlers learn of who calls."""

import pytest
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient

from tests.station_access import with_roles
from tests.station_clients import HERE, PREDICT, client_of, guarded, logged_in
from totalrecall.station.access.guard import Guard, actor_of, csrf_of, requires
from totalrecall.station.access.permissions import ANYONE
from totalrecall.station.access.policy import Policy
from totalrecall.station.store.records import ANYBODY

# --- heads and bodies ---


def test_a_body_over_the_limit_is_refused_by_its_announcement(users):
    client = client_of(guarded(users, Policy(max_body=1000)))
    assert client.post(PREDICT, content=b"x" * 1000).json()["bytes"] == 1000
    answer = client.post(PREDICT, content=b"x" * 1001)
    assert answer.status_code == 413
    assert answer.json()["detail"] == "The body must have at most 1,000 bytes, got 1,001."
    assert answer.headers["connection"] == "close"


def test_a_body_in_chunks_is_counted(users):
    client = client_of(guarded(users, Policy(max_body=1000)))
    assert client.post(PREDICT, content=iter([b"x" * 500, b"y" * 500])).json()["bytes"] == 1000
    assert client.post(PREDICT, content=iter([b"x" * 500, b"y" * 501])).status_code == 413


def test_who_is_not_logged_in_may_send_little(guard):
    client = client_of(guard)
    big = {"name": "x" * 100, "password": "x" * (64 << 10)}
    assert client.post("/v1/login", json=big).status_code == 413
    assert client.post("/v1/login", content=iter([b"x" * 60_000, b"y" * 60_000])).status_code in (403, 413)
    assert client.post(PREDICT, content=b"x" * (1 << 20)).status_code == 401
    assert client.post("/v1/login", json={"name": "x", "password": "x" * 60_000}).status_code == 422


def test_bodies_that_are_too_large_together_are_refused(users):
    policy = Policy(max_body=1000)
    guard = guarded(users, policy)
    guard._traffic.bytes = 7500
    client = client_of(guard)
    answer = client.post(PREDICT, content=b"x" * 600)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert client.post(PREDICT, content=b"x" * 400).status_code == 200
    assert guard._traffic.bytes == 7500  # what was taken is given back


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("X-Long", "x" * (33 << 10))], 431),
        ([(f"X-{n}", "y") for n in range(150)], 431),
        ([("Content-Length", "5"), ("Content-Length", "6")], 400),
        ([("Content-Length", "-5")], 400),
        ([("Content-Length", "+5")], 400),
        ([("Content-Length", "5, 5")], 400),
        ([("Content-Length", "9" * 30)], 400),
        ([("Content-Length", "5"), ("Transfer-Encoding", "chunked")], 400),
    ],
)
def test_a_head_that_is_too_large_or_contradicts_itself_is_refused(local, headers, status):
    request = local.build_request("GET", "/healthz")
    request.headers = type(request.headers)([*request.headers.multi_items(), *headers])
    assert local.send(request).status_code == status


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example/",
        "/v1//models",
        "/v1/models/..%2f..%2fetc",
        "/v1/models/%2e%2e",
        "/v1/%2e/models",
        "/v1/models/a%5cb",
        "/v1/models/a%00b",
        "/v1/models/a%0d%0ab",
        "/static/..%2fsecret",
        "/static/%2e%2e/%2e%2e/secret",
    ],
)
def test_an_address_that_can_be_read_in_two_ways_is_refused(local, path):
    request = local.build_request("GET", HERE)
    request.url = request.url.copy_with(raw_path=path.encode())
    assert local.send(request).status_code == 400


def test_a_long_query_is_refused(local):
    assert local.get("/healthz?" + "x" * 9000).status_code == 414
    assert local.get("/healthz?" + "x&" * 200).status_code in (200, 400)
    assert local.get("/healthz?" + "x=1&" * 200).status_code == 400


# --- proxies ---


def test_what_a_proxy_says_counts_only_from_a_proxy_that_was_named(users):
    app = FastAPI()

    @app.get("/v1/me")
    async def me(request: Request) -> list[str]:
        return [request.client.host, request.url.scheme]

    _, secret = users.tokens.add("press", ANYBODY)
    said = {"Authorization": f"Bearer {secret}", "X-Forwarded-Proto": "https"}

    def seen(policy, address, forwarded):
        client = client_of(guarded(users, policy, app), address=address)
        return client.get("/v1/me", headers={**said, "X-Forwarded-For": forwarded}).json()

    proxied = Policy(proxies=("127.0.0.1", "10.9.0.0/16"))
    assert seen(Policy(), "127.0.0.1", "1.2.3.4") == ["127.0.0.1", "http"]
    assert seen(proxied, "127.0.0.1", "1.2.3.4") == ["1.2.3.4", "https"]
    assert seen(proxied, "192.168.1.1", "1.2.3.4") == ["192.168.1.1", "http"]
    assert seen(proxied, "127.0.0.1", "6.6.6.6, 1.2.3.4, 10.9.1.1") == ["1.2.3.4", "https"]  # what is left is claimed
    assert seen(proxied, "127.0.0.1", "evil, 10.9.1.1") == ["evil", "https"]
    assert seen(proxied, "127.0.0.1", "") == ["127.0.0.1", "https"]


def test_the_throttle_counts_the_address_behind_a_proxy_and_not_a_claimed_one(users):
    guard = guarded(with_roles(users), Policy(proxies=("127.0.0.1",), allow_hosts=("station.factory",)))
    for number in range(6):
        client = client_of(guard, **{"X-Forwarded-For": f"9.9.9.{number}, 1.2.3.4"})
        answer = client.post("/v1/login", json={"name": "operators-name", "password": "wrong"})
    assert answer.status_code == 429


# --- headers of answers ---


@pytest.mark.parametrize("path", ["/healthz", "/v1/me", "/v1/nothing", "//", "/login"])
def test_every_answer_binds_the_browser(guard, path):
    answer = client_of(guard).get(path)
    policy = answer.headers["content-security-policy"]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in answer.headers
    assert "server" not in answer.headers


def test_an_unexpected_fault_and_a_handlers_headers_keep_the_others():
    app = FastAPI()

    @app.get("/v1/models")
    async def fault() -> None:
        raise RuntimeError("a secret of the inside")

    @app.get("/healthz")
    async def own() -> Response:
        return Response("x", headers={"Content-Security-Policy": "sandbox", "Cache-Control": "max-age=5"})

    client = TestClient(guarded(None, app=app), base_url=HERE, raise_server_exceptions=False)
    answer = client.get("/v1/models")
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in answer.text
    answer = client.get("/healthz")
    assert answer.headers.get_list("content-security-policy") == ["sandbox"]
    assert answer.headers.get_list("cache-control") == ["max-age=5"]


def test_what_a_client_wrote_cannot_become_html_in_a_refusal(local):
    answer = local.get("/<script>alert(1)</script>", headers={"Accept": "text/html"})
    assert answer.status_code == 404
    answer = local.get("/", headers={"Host": "<script>", "Accept": "text/html"})
    assert answer.status_code == 421
    assert "<script" not in answer.text
    assert "&lt;script&gt;" in answer.text


# --- for handlers ---


def test_a_handler_asks_who_calls_and_locks_itself_a_second_time(users):
    app = FastAPI()

    @app.get("/v1/models")
    async def models(request: Request) -> list[str]:
        actor = requires("engineer", "auditor")(request)
        return [actor.name, csrf_of(request)]

    guard = guarded(with_roles(users), app=app)
    real = guarded(users)
    client = client_of(guard)
    client.cookies.update(logged_in(real, "auditors-name").cookies)
    name, csrf = client.get("/v1/models").json()
    assert name == "auditors-name"
    assert len(csrf) == 64
    client.cookies.clear()
    client.cookies.update(logged_in(real, "operators-name").cookies)
    with pytest.raises(Exception, match="operators-name is operator; this needs the role engineer or auditor"):
        client.get("/v1/models")


def test_without_the_guard_no_handler_believes_that_somebody_called():
    app = FastAPI()

    @app.get("/healthz")
    async def health(request: Request) -> str:
        return csrf_of(request) + actor_of(request).name

    with pytest.raises(Exception, match="Log in first"):
        client_of(app).get("/healthz")
    table = {("GET", "/healthz"): frozenset({ANYONE})}
    with pytest.raises(Exception, match="Log in first"):
        client_of(Guard(app, policy=Policy(), permissions=table)).get("/healthz")


# --- forms with files ---


def part(name, value, extra=""):
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n{value}\r\n'


@pytest.mark.parametrize("boundary", ["b", '"b"'])
def test_a_form_with_files_carries_the_hidden_text_as_its_first_part(guard, boundary):
    """As a browser without scripts sends it; the handler gets all of the body, however large."""
    client = logged_in(guard, "operators-name")
    hidden = client.headers.pop("X-CSRF-Token")
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    picture = part("file", "x" * 300_000, '; filename="x.png"')
    body = part("csrf", hidden) + picture + "--b--\r\n"
    answer = client.post("/live/inspect", content=body, headers=kind)
    assert (answer.status_code, answer.json()["bytes"]) == (200, len(body))


def test_a_form_with_files_is_refused_without_the_hidden_text_in_its_place(guard):
    client = logged_in(guard, "operators-name")
    hidden = client.headers.pop("X-CSRF-Token")
    right, picture, end = part("csrf", hidden), part("file", "x", '; filename="x.png"'), "--b--\r\n"
    kind = "multipart/form-data; boundary=b"
    sent = [
        (picture + right + end, kind),  # not the first
        (part("csrf", hidden + "0") + picture + end, kind),
        (part("csrf", hidden, '; filename="x"') + end, kind),  # a file
        (part("line", hidden) + end, kind),
        (part("csrf", hidden).removesuffix("\r\n"), kind),  # not whole
        ("x" * 2000 + right + end, kind),
        (right + picture + end, "multipart/form-data; boundary=c"),
        (right + picture + end, "multipart/form-data"),
        (right + picture + end, "multipart/form-data; boundary=.*"),
        ("", kind),
    ]
    for body, named in sent:
        answer = client.post("/live/inspect", content=body, headers={"Content-Type": named})
        assert answer.status_code == 403, (body[:80], named)
