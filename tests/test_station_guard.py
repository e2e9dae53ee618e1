"""guard: each attack on a station by a browser or a client is refused, and what is honest gets through."""

import re

import pytest
from fastapi import Body as JsonBody
from fastapi import FastAPI

from tests.station_access import PASSWORD, open_users, with_roles
from tests.station_clients import ELSEWHERE, HERE, PREDICT, client_of, guarded, logged_in, small_app
from totalrecall.errors import HistoryError
from totalrecall.station.access.guard import Guard, safe_next
from totalrecall.station.access.policy import Policy
from totalrecall.station.store.records import ANYBODY, ROLES

# --- who is let in without a login ---


def test_without_users_a_program_of_this_computer_may_do_everything(users):
    answer = client_of(guarded(users)).post(PREDICT, content=b"picture")
    assert answer.json() == {"who": "local", "role": "engineer", "bytes": 7}


def test_from_the_first_user_on_everybody_must_log_in_at_once(users):
    client = client_of(guarded(users))
    assert client.get("/v1/me").json()["name"] == "local"
    answer = client.post("/v1/users", json={"name": "anna", "role": "engineer", "password": PASSWORD})
    assert answer.status_code == 201
    assert client.get("/v1/me").status_code == 401


def test_whoever_calls_while_the_first_user_is_added_is_not_let_in_afterwards(users, monkeypatch):
    """It is believed for half a second that there is no user; not by what was seen before the user was there."""
    client, write = client_of(guarded(users)), users._write

    def meanwhile(function):
        assert client.get("/v1/me").status_code == 200
        return write(function)

    monkeypatch.setattr(users, "_write", meanwhile)
    users.add("anna", "engineer", PASSWORD, ANYBODY)
    assert client.get("/v1/me").status_code == 401


def test_a_first_user_added_by_another_process_is_noticed_within_half_a_second(users, tmp_path):
    guard = guarded(users)
    client = client_of(guard)
    assert client.get("/v1/me").status_code == 200
    with open_users(tmp_path) as other:
        other.add("anna", "engineer", PASSWORD, ANYBODY)
    looked, added = guard._empty
    guard._empty = (looked - 0.5, added)  # as if half a second had passed
    assert client.get("/v1/me").status_code == 401


@pytest.mark.parametrize("address", ["192.168.1.7", "10.0.0.1", "::ffff:192.168.1.7", "fe80::1", "0.0.0.0"])
def test_without_users_another_computer_is_refused_even_if_it_gets_here(users, address):
    answer = client_of(guarded(users), address=address).get("/v1/me")
    assert answer.status_code == 403
    assert "totalrecall station users add" in answer.json()["detail"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Host"])
def test_without_users_a_proxy_that_nobody_told_of_opens_nothing(local, header):
    assert local.get("/v1/me", headers={header: "127.0.0.1"}).status_code == 403


def test_an_address_of_the_network_is_not_open_without_users(users):
    client = client_of(guarded(users, Policy(host="0.0.0.0")), base="http://192.168.1.5:8000")
    assert client.get("/v1/me").status_code == 401
    client = client_of(guarded(users, Policy(host="0.0.0.0", insecure=True)), address="192.168.1.7")
    assert client.get("/v1/me").json()["name"] == "local"


def test_insecure_opens_nothing_once_there_are_users(guard, users):
    assert client_of(guarded(users, Policy(host="0.0.0.0", insecure=True))).get("/v1/me").status_code == 401


def test_a_database_that_is_gone_lets_nobody_in(users, monkeypatch):
    def gone():
        raise HistoryError("The database is gone.")

    guard = guarded(users)
    monkeypatch.setattr(users, "any", gone)
    answer = client_of(guard).get("/v1/me")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert client_of(guard).get("/healthz").status_code == 200


# --- tokens ---


def test_a_token_is_taken_from_the_header_only(guard, users):
    _, secret = users.tokens.add("press", ANYBODY)
    client = client_of(guard)
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {secret}"}).json()["name"] == "token:press"
    assert client.get("/v1/me", headers={"Authorization": f"bearer  {secret} "}).json()["name"] == "token:press"
    for name in ("token", "access_token", "api_key", "Authorization", "x"):
        answer = client.get("/v1/me", params={name: secret})
        assert answer.status_code == 400
        assert "revoke the token" in answer.json()["detail"]
        assert secret not in answer.text
    assert client.get("/v1/me", headers={"Cookie": f"totalrecall_session={secret}"}).status_code == 401


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer ", "Bearer x", "Bearer trecall_", "Basic YW5uYTpwYXNz", "trecall_x", "Bearer \xff", "Digest x"],
)
def test_a_wrong_token_is_never_taken_for_none(users, value):
    """Without users everybody is let in; but not who says something wrong."""
    client = client_of(guarded(users))
    assert client.get("/v1/me").status_code == 200
    answer = client.get("/v1/me", headers={b"Authorization": value.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="Total Recall"')


def test_two_authorizations_are_refused(guard, users):
    _, secret = users.tokens.add("press", ANYBODY)
    both = [("Authorization", f"Bearer {secret}"), ("Authorization", "Bearer x")]
    assert client_of(guard).get("/v1/me", headers=both).status_code == 400


def test_a_revoked_token_ends_at_once(guard, users):
    token, secret = users.tokens.add("press", ANYBODY)
    client = client_of(guard, Authorization=f"Bearer {secret}")
    assert client.get("/v1/me").status_code == 200
    users.tokens.revoke(token.key, ANYBODY)
    assert client.get("/v1/me").status_code == 401


def test_a_token_of_an_engineer_makes_no_users_or_tokens(guard, users):
    _, secret = users.tokens.add("robot", ANYBODY, role="engineer")
    client = client_of(guard, Authorization=f"Bearer {secret}")
    assert client.post("/v1/models/bottle/reload").status_code == 200
    for method, path in (("GET", "/v1/users"), ("POST", "/v1/tokens"), ("DELETE", "/v1/users/operators-name")):
        answer = client.request(method, path, json={"name": "x1"} if method == "POST" else None)
        assert answer.status_code == 403
        assert answer.json()["detail"] == "Users and tokens are managed by people who log in, not by a token."


# --- names of the station: DNS rebinding ---


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "localhost.", "[::1]:8000", "127.8.9.1", "[::ffff:127.0.0.1]:80"],
)
def test_the_station_answers_to_the_names_of_the_loopback(local, host):
    assert local.get("/v1/me", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:80@localhost",
        "localhost@evil.example",
        "localhost:80:80",
        "localhost:x",
        "localhost/x",
        "[::1]evil.example",
        "[evil.example]",
        "192.168.1.5",
        "0.0.0.0:8000",
        "2130706433",
        "0x7f.1",
        "127.1",
        "",
        "ⅼocalhost",
    ],
)
@pytest.mark.parametrize("path", ["/v1/me", "/healthz", "/login"])
def test_a_page_whose_name_leads_to_this_computer_is_refused(local, host, path):
    answer = local.get(path, headers={b"Host": host.encode("utf-8")})
    assert answer.status_code == 421
    assert "--allow-host" in answer.json()["detail"]


def test_a_further_name_is_allowed_where_asked(users):
    policy = Policy(allow_hosts=("station.factory", "10.0.0.9"))
    client = client_of(guarded(with_roles(users), policy))
    for host, status in (("station.factory", 200), ("STATION.factory:8000", 200), ("10.0.0.9", 200), ("factory", 421)):
        assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_an_address_of_the_network_is_called_by_any_of_its_addresses_but_by_no_foreign_name(users):
    client = client_of(guarded(users, Policy(host="0.0.0.0")))
    for host, status in (("192.168.1.5:8000", 200), ("[fe80::1]", 200), ("0.0.0.0", 200), ("evil.example", 421)):
        assert client.get("/healthz", headers={"Host": host}).status_code == status


# --- requests that pages of other sites made ---

FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},  # another port of this computer
    {"Sec-Fetch-Site": "cross-site", "Origin": HERE},
    {"Origin": ELSEWHERE},
    {"Origin": "null"},  # a sandboxed frame, a file
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "https://127.0.0.1:8000"},
    {"Origin": "http://localhost:8000"},  # another name of ours is another site for the browser
    {"Origin": f"{HERE}.evil.example"},
    {"Referer": f"{ELSEWHERE}/page"},
    {"Referer": f"{HERE}@evil.example/"},
    {"Referer": "http://[::1"},  # no address at all
    {"Sec-Fetch-Site": "something new"},
]
FORMS = [
    {"data": {"a": "b"}},
    {"files": {"file": b"picture"}},
    {"content": b'{"role": "engineer"}', "headers": {"Content-Type": "text/plain"}},  # JSON that needs no leave
    {"json": {"name": "eve"}},
    {},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("sent", FORMS)
def test_a_page_of_another_site_changes_nothing(local, headers, sent):
    both = {**sent.get("headers", {}), **headers}
    rest = {name: value for name, value in sent.items() if name != "headers"}
    for path in (PREDICT, "/v1/users", "/v1/models/bottle/reload"):
        assert local.post(path, headers=both, **rest).status_code == 403
    assert local.delete("/v1/users/anna", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": HERE},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": HERE},
        {"Origin": "HTTP://127.0.0.1:8000"},
        {"Referer": f"{HERE}/models"},
        {},
    ],
)
def test_our_page_and_a_program_may_change_something(local, headers):
    assert local.post(PREDICT, headers=headers, content=b"picture").status_code == 200


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("path", ["/login", "/v1/login"])
def test_another_site_cannot_log_a_browser_in(guard, headers, path):
    sent = {"name": "engineers-name", "password": PASSWORD}
    for one in ({"data": sent}, {"json": sent}):
        answer = client_of(guard).post(path, headers=headers, **one)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""]
)
def test_a_login_by_a_form_must_say_where_it_comes_from(guard, kind):
    headers = {"Content-Type": kind} if kind else {}
    answer = client_of(guard).post("/login", content=b"name=engineers-name", headers=headers)
    assert answer.status_code == 403
    assert "Origin" in answer.json()["detail"]


@pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket", "navigate"])
def test_another_site_cannot_embed_a_picture_or_a_page(local, mode):
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": "iframe"}
        assert local.get("/v1/inspections/" + "0" * 32, headers=headers).status_code == 403


def test_a_link_on_another_site_leads_here(local):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert local.get("/v1/models", headers=headers).status_code == 200
    assert local.post(PREDICT, headers=headers).status_code == 403


def test_there_is_no_leave_for_other_origins(local):
    headers = {"Origin": ELSEWHERE, "Access-Control-Request-Method": "POST"}
    answer = local.options(PREDICT, headers=headers)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    answer = local.get("/v1/models", headers={"Origin": ELSEWHERE})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_json_that_is_sent_as_plain_text_is_not_taken_for_json(local):
    app = FastAPI()

    @app.post("/v1/users")
    async def handler(name: str = JsonBody(embed=True)) -> str:
        return name

    client = client_of(guarded(None, app=app))
    assert client.post("/v1/users", json={"name": "eve"}).status_code == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = client.post("/v1/users", content=b'{"name": "eve"}', headers={"Content-Type": kind})
        assert answer.status_code == 422


# --- the hidden text of a session's forms ---


def test_a_change_by_a_session_needs_the_sessions_hidden_text(guard):
    client = logged_in(guard, "operators-name")
    text = client.headers.pop("X-CSRF-Token")
    assert re.fullmatch("[0-9a-f]{64}", text)
    assert client.get("/v1/me").json()["csrf"] == text
    other = logged_in(guard, "engineers-name").headers["X-CSRF-Token"]
    assert other != text
    for wrong in (None, "", "x", other, text[:-1], text.upper() + "x", "\xff"):
        headers = {} if wrong is None else {b"X-CSRF-Token": wrong.encode("latin-1")}
        answer = client.post(PREDICT, content=b"picture", headers=headers)
        assert answer.status_code == 403
        assert "form has expired" in answer.json()["detail"]
    assert client.post(PREDICT, content=b"picture", headers={"X-CSRF-Token": text}).json()["bytes"] == 7


def test_a_form_carries_the_hidden_text_as_a_field_and_reaches_its_handler_whole(guard):
    client = logged_in(guard, "operators-name")
    text = client.headers.pop("X-CSRF-Token")
    form = {"csrf": text, "judgement": "fine", "x": "y" * 5000}
    assert client.post(PREDICT, data=form).json()["bytes"] == len(f"csrf={text}&judgement=fine&x=" + "y" * 5000)
    assert client.post(PREDICT, data={"csrf": [text, text]}).status_code == 403
    assert client.post(PREDICT, data={"csrf": ""}).status_code == 403
    assert client.post(PREDICT, data={**form, "x": "y" * (64 << 10)}).status_code == 413
    assert client.post(PREDICT, data={"csrf": text, **{f"n{i}": "" for i in range(1200)}}).status_code == 400
    assert client.post(PREDICT, files={"csrf": text.encode()}).status_code == 403  # large forms use the header


def test_another_users_session_cookie_cannot_be_combined_with_ones_own_hidden_text(guard):
    mine, other = logged_in(guard, "operators-name"), logged_in(guard, "engineers-name")
    other.headers["X-CSRF-Token"] = mine.headers["X-CSRF-Token"]
    assert other.post("/v1/models/bottle/reload").status_code == 403


# --- login, logout, cookies ---


def test_a_login_gives_a_cookie_that_scripts_and_other_sites_cannot_use(guard):
    answer = client_of(guard).post("/v1/login", json={"name": "Operators-Name", "password": PASSWORD})
    assert answer.json()["name"] == "operators-name"
    assert answer.json()["role"] == "operator"
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"totalrecall_session=[\w-]{43}; HttpOnly; SameSite=Strict; Path=/; Max-Age=86400", cookie)
    assert answer.headers["cache-control"] == "no-store"


def test_over_tls_the_cookie_is_secure_and_bound_to_this_host(users):
    guard = guarded(with_roles(users))
    client = client_of(guard, base="https://127.0.0.1:8000")
    answer = client.post("/v1/login", json={"name": "operators-name", "password": PASSWORD})
    assert answer.headers["set-cookie"].startswith("__Host-totalrecall_session=")
    assert answer.headers["set-cookie"].endswith("; Path=/; Max-Age=86400; Secure")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert client.get("/v1/me").json()["name"] == "operators-name"
    secret = re.search("=([^;]+)", answer.headers["set-cookie"])[1]
    # one without the prefix can have been set over plain HTTP by anybody in between
    plain = client_of(guard, base="https://127.0.0.1:8000", Cookie=f"totalrecall_session={secret}")
    assert plain.get("/v1/me").status_code == 401


def test_a_planted_cookie_is_never_adopted(guard):
    planted = "p" * 43
    client = client_of(guard, Cookie=f"totalrecall_session={planted}")
    answer = client.post("/v1/login", json={"name": "operators-name", "password": PASSWORD})
    assert planted not in answer.headers["set-cookie"]
    assert client_of(guard, Cookie=f"totalrecall_session={planted}").get("/v1/me").status_code == 401


def test_a_second_cookie_of_the_same_name_counts_for_none(guard):
    secret = logged_in(guard, "operators-name").cookies["totalrecall_session"]
    for cookie in (
        f"totalrecall_session={secret}; totalrecall_session=x",
        f"totalrecall_session=x; totalrecall_session={secret}",
    ):
        assert client_of(guard, Cookie=cookie).get("/v1/me").status_code == 401
    headers = [("Cookie", f"totalrecall_session={secret}"), ("Cookie", "totalrecall_session=x")]
    assert client_of(guard).get("/v1/me", headers=headers).status_code == 401
    assert client_of(guard, Cookie=f"a=b;totalrecall_session={secret} ;c=d").get("/v1/me").status_code == 200


def test_logging_in_again_ends_the_session_before(guard):
    client = logged_in(guard, "operators-name")
    before = client.cookies["totalrecall_session"]
    client.post("/v1/login", json={"name": "operators-name", "password": PASSWORD})
    assert client.cookies["totalrecall_session"] != before
    assert client_of(guard, Cookie=f"totalrecall_session={before}").get("/v1/me").status_code == 401


def test_a_logout_ends_the_session_on_the_station_not_only_in_the_browser(guard):
    client = logged_in(guard, "operators-name")
    secret = client.cookies["totalrecall_session"]
    answer = client.post("/v1/logout")
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert client_of(guard, Cookie=f"totalrecall_session={secret}").get("/v1/me").status_code == 401


@pytest.mark.parametrize("change", [{"disabled": True}, {"role": "auditor"}, {"password": "other words of mine"}])
def test_a_change_of_a_user_ends_the_users_sessions_at_once(guard, change):
    engineer, operator = logged_in(guard, "engineers-name"), logged_in(guard, "operators-name")
    assert operator.get("/v1/me").status_code == 200
    assert engineer.patch("/v1/users/operators-name", json=change).status_code == 200
    assert operator.get("/v1/me").status_code == 401
    assert operator.post(PREDICT).status_code == 401


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(guard, users):
    users.set_disabled("auditors-name", True, ANYBODY)
    answers = [
        client_of(guard).post("/v1/login", json={"name": name, "password": password})
        for name, password in (
            ("operators-name", "wrong"),
            ("nobody-here", "wrong"),
            ("no name at all!", "wrong"),
            ("auditors-name", PASSWORD),
            ("operators-name", ""),
            ("operators-name", "x" * 600),
        )
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1


def test_guessing_is_slowed_down(guard):
    client = client_of(guard)
    statuses = [
        client.post("/v1/login", json={"name": "operators-name", "password": f"wrong {number}"}).status_code
        for number in range(8)
    ]
    assert statuses == [401] * 5 + [429] * 3
    answer = client.post("/v1/login", json={"name": "OPERATORS-name", "password": PASSWORD})
    assert answer.status_code == 429  # the right one, too: else the answer would tell that it was right
    assert answer.headers["retry-after"] == "1"
    assert (
        client_of(guard, address="10.0.0.2")
        .post("/v1/login", json={"name": "operators-name", "password": PASSWORD})
        .is_success
    )


def test_the_login_form_goes_on_to_a_page_of_this_station_only(guard):
    def log_in(password, target):
        form = {"name": "operators-name", "password": password, "next": target}
        return client_of(guard).post("/login", data=form, headers={"Origin": HERE})

    assert log_in(PASSWORD, "/models?a=b").headers["location"] == "/models?a=b"
    assert log_in(PASSWORD, "//evil.example").headers["location"] == "/"
    answer = log_in("wrong", "/models?a=b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?problem=wrong&next=%2Fmodels%3Fa%3Db"
    assert "set-cookie" not in answer.headers
    for _ in range(5):
        answer = log_in("wrong", "/")
    assert re.fullmatch(r"/login\?problem=wait&seconds=\d+&next=%2F", answer.headers["location"])


@pytest.mark.parametrize(
    "target",
    [
        "",
        "models",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\n/evil.example",
        "/a//evil.example",
        "/models\r\nSet-Cookie: a=b",
        " /models",
        "/mödels",
        "/" + "a" * 3000,
        "/login",
        "/logout?x",
    ],
)
def test_no_login_leads_to_another_site(target):
    assert safe_next(target) == "/"


@pytest.mark.parametrize("target", ["/", "/models", "/history?since=2026-11-29T16:00&text=a%20b#top", "/m%C3%B6del"])
def test_a_login_leads_back_to_the_page_that_was_asked_for(target):
    assert safe_next(target) == target


def test_a_browser_is_sent_to_the_login_page_and_a_program_is_told(users):
    with_roles(users)
    app = small_app()
    app.add_api_route("/", lambda: "page")
    guard = Guard(app, policy=Policy(), users=users, permissions={("GET", "/"): frozenset(ROLES)})
    client, page = client_of(guard), {"Accept": "text/html,*/*"}
    assert client.get("/", headers=page).headers["location"] == "/login"
    answer = client.get("/history?verdict=defect&x=%2F%2Fevil", headers=page)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fhistory%3Fverdict%3Ddefect%26x%3D%252F%252Fevil"
    assert client.get("/", headers={**page, "HX-Request": "true"}).headers["hx-redirect"] == "/login"
    form = client.post("/", headers={**page, "Origin": HERE})  # its session has ended
    assert (form.status_code, form.headers["location"]) == (303, "/login")
    assert client.post("/", headers={"Origin": HERE}).status_code == 401
    assert client.get("/").headers["content-type"] == "application/problem+json"


# --- one's own password ---


def test_a_user_changes_the_password_with_the_old_one(guard):
    client = logged_in(guard, "operators-name")
    new = "other words of mine"
    assert client.post("/v1/me/password", json={"password": "wrong", "new": new}).status_code == 403
    assert client.post("/v1/me/password", json={"password": PASSWORD, "new": "short"}).status_code == 422
    assert client.get("/v1/me").status_code == 200
    assert client.post("/v1/me/password", json={"password": PASSWORD, "new": new}).status_code == 204
    assert client.get("/v1/me").status_code == 401
    assert logged_in(guard, "operators-name", new).get("/v1/me").status_code == 200


def test_the_old_password_cannot_be_guessed_by_who_finds_an_open_page(guard):
    client = logged_in(guard, "operators-name")
    statuses = [
        client.post("/v1/me/password", json={"password": f"wrong {n}", "new": "other words of mine"}).status_code
        for n in range(7)
    ]
    assert statuses[0] == 403
    assert statuses[-1] == 429


def test_without_a_login_there_is_no_password_to_change(users):
    answer = client_of(guarded(users)).post("/v1/me/password", json={"password": "x", "new": "y"})
    assert answer.status_code == 403


# --- users and tokens by the API ---


def test_an_engineer_manages_users(guard, users):
    client = logged_in(guard, "engineers-name")
    made = client.post("/v1/users", json={"name": "Bert", "role": "operator", "password": PASSWORD})
    assert made.status_code == 201
    assert {key: made.json()[key] for key in ("name", "role", "disabled")} == {
        "name": "bert",
        "role": "operator",
        "disabled": False,
    }
    assert client.patch("/v1/users/bert", json={"role": "engineer"}).json()["role"] == "engineer"
    assert client.patch("/v1/users/bert", json={"disabled": True}).json()["disabled"] is True
    assert client.patch("/v1/users/bert", json={"disabled": True, "role": "auditor"}).status_code == 422
    assert client.patch("/v1/users/bert", json={}).status_code == 422
    assert client.patch("/v1/users/bert", json={"name": "carl"}).status_code == 422
    listed = client.get("/v1/users")
    assert "bert" in [user["name"] for user in listed.json()["users"]]
    assert "argon2" not in listed.text
    assert client.delete("/v1/users/bert").status_code == 204
    assert client.delete("/v1/users/bert").status_code == 404
    answer = client.delete("/v1/users/engineers-name")
    assert answer.status_code == 409
    assert "last engineer" in answer.json()["detail"]
    assert users.trail_rows()[0].actor == "engineers-name"


def test_an_engineer_manages_tokens(guard):
    client = logged_in(guard, "engineers-name")
    made = client.post("/v1/tokens", json={"name": "Press", "days": 30}).json()
    assert made["name"] == "press"
    assert made["role"] == "machine"
    listed = client.get("/v1/tokens")
    assert made["token"] not in listed.text
    assert client_of(guard, Authorization=f"Bearer {made['token']}").get("/v1/models").status_code == 200
    assert client.delete(f"/v1/tokens/{made['id']}").status_code == 204
    assert client_of(guard, Authorization=f"Bearer {made['token']}").get("/v1/models").status_code == 401
    assert client.get("/v1/tokens").json()["tokens"][0]["revoked_at"] is not None
