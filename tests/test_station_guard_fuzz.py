"""guard: whatever a client writes, it gets an answer, and no handler runs that the table does not allow."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.station_access import open_users, with_roles
from totalrecall.station.access.guard import Guard
from totalrecall.station.access.permissions import ANYONE, PERMISSIONS, Permissions
from totalrecall.station.access.policy import Policy

NAMES = [
    b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"cookie", b"origin",
    b"referer", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"x-forwarded-for", b"x-forwarded-proto",
    b"x-csrf-token", b"accept", b"hx-request", b"connection", b"x",
]  # fmt: skip
VALUES = [
    b"", b"127.0.0.1", b"localhost:8000", b"evil.example", b"http://127.0.0.1", b"null", b"cross-site", b"same-origin",
    b"none", b"5", b"-1", b"99999999999999999999", b"chunked", b"Bearer trecall_x", b"Basic eA==", b"Bearer",
    b"totalrecall_session=" + b"x" * 43, b"totalrecall_session=\xff; totalrecall_session", b"application/json",
    b"application/x-www-form-urlencoded", b"text/html", b"1.2.3.4, ,5.6.7.8", b"\xff\xfe", b"https", b"[::1", b"[]:",
]  # fmt: skip
PATHS = [path.replace("{path:path}", "a").replace("{name}", "b").replace("{key}", "c") for _, path in PERMISSIONS]

headers = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.binary(max_size=60)), max_size=8)
headers |= headers.map(lambda lines: [(b"host", b"localhost"), *lines])
paths = st.sampled_from(PATHS) | st.text(max_size=60) | st.text("/.%\\ab{}", max_size=20).map("/".__add__)
queries = st.sampled_from([b"", b"token=x", b"next=//evil", b"&&&=", b"%ff%00"]) | st.binary(max_size=60)
methods = st.sampled_from(["GET", "POST", "HEAD", "DELETE", "PATCH", "PUT", "OPTIONS", "get", ""])


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    with open_users(tmp_path_factory.mktemp("station")) as opened:
        yield with_roles(opened)


async def call(guard, scope, body):
    parts, sent = [body[:5], body[5:]], []

    async def receive():
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    await guard(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(host="0.0.0.0", proxies=("127.0.0.1",), max_body=8)], ids=["a", "b"]
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=methods, path=paths, query=queries, headers=headers, body=st.binary(max_size=20))
def test_who_is_not_logged_in_reaches_only_what_is_for_anybody(users, policy, method, path, query, headers, body):
    handled = []

    async def app(scope, receive, send):
        handled.append(scope)
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"handled"})

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query, "headers": headers, "client": ("127.0.0.1", 1), "scheme": "http",
    }  # fmt: skip
    sent = asyncio.run(call(Guard(app, policy=policy, users=users), scope, body))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    status = sent[0]["status"]
    assert 200 <= status < 500 or status == 503
    allowed = Permissions().methods(path).get("GET" if method == "HEAD" else method, frozenset())
    if handled:
        assert ANYONE in allowed
        assert handled[0]["state"]["actor"] is None
        assert [name for name, _ in headers].count(b"host") == 1
    else:
        assert status >= 300
    assert dict(sent[0]["headers"])[b"x-content-type-options"] == b"nosniff"
