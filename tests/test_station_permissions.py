"""permissions: each role against each route, and no route that the table lacks."""

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from tests.station_access import open_users, with_roles
from tests.station_clients import client_of, guarded, logged_in, small_app
from tests.stations import started
from totalrecall.station.access.guard import Guard
from totalrecall.station.access.permissions import ANYONE, PERMISSIONS, Permissions, routes_of, unlisted, unrouted
from totalrecall.station.access.policy import Policy
from totalrecall.station.app import build_app
from totalrecall.station.store.records import ANYBODY, ROLES
from totalrecall.station.web.api_users import user_routes

# Written by hand, apart from the table: what the roles are for. A change of the table must be a change here, too.
ONLY_ENGINEERS = {
    ("GET", "/v1/users"),
    ("POST", "/v1/users"),
    ("PATCH", "/v1/users/{name}"),
    ("DELETE", "/v1/users/{name}"),
    ("GET", "/v1/tokens"),
    ("POST", "/v1/tokens"),
    ("DELETE", "/v1/tokens/{key}"),
    ("POST", "/v1/models/{name}/reload"),
    ("POST", "/threshold"),
    ("POST", "/threshold/undo"),
    ("POST", "/drift/reset"),
    ("POST", "/models/{name}/reload"),
    ("POST", "/models/{name}/teach"),
    ("POST", "/models/{name}/undo"),
    ("POST", "/models/{name}/golden/release"),
    ("POST", "/golden/add/{key}"),
    ("POST", "/golden/{key}/remove"),
    ("POST", "/proposals/{key}/approve"),
    ("POST", "/proposals/{key}/reject"),
    ("POST", "/proposals/{key}/cancel"),
    ("GET", "/fit"),
    ("POST", "/fit"),
    ("POST", "/study"),
    ("GET", "/users"),
    ("POST", "/users"),
    ("POST", "/users/change"),
    ("POST", "/users/tokens"),
    ("POST", "/users/tokens/revoke"),
}
FOR_ANYBODY = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/static/{path:path}"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/v1/login"),
    ("GET", "/language"),
}


@pytest.fixture(scope="module")
def callers(tmp_path_factory):
    """A client for each role, and one that nobody knows."""
    with open_users(tmp_path_factory.mktemp("station")) as users:
        with_roles(users)
        _, secret = users.tokens.add("press", ANYBODY)
        plain = guarded(users, app=small_app())  # without the real routes of login: each says who calls
        real = guarded(users)
        clients = {"nobody": client_of(plain)}
        for role in ("engineer", "operator", "auditor"):
            client = logged_in(real, f"{role}s-name")
            clients[role] = client_of(plain, **{"X-CSRF-Token": client.headers["X-CSRF-Token"]})
            clients[role].cookies.update(client.cookies)
        clients["machine"] = client_of(plain, Authorization=f"Bearer {secret}")
        yield clients


@pytest.mark.parametrize(("method", "path"), sorted(PERMISSIONS))
def test_a_role_may_call_what_the_table_says_and_nothing_else(callers, method, path):
    address = path.replace("{path:path}", "a.css").replace("{name}", "bottle").replace("{key}", "0" * 32)
    roles = PERMISSIONS[method, path]
    assert set(callers) == {"nobody", *ROLES}
    for role, client in callers.items():
        answer = client.request(method, address, json={} if method != "GET" else None)
        if ANYONE in roles:
            assert (role, answer.status_code, answer.json()["who"]) == (role, 200, None)
        elif role == "nobody":
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
        elif role in roles:
            assert (answer.status_code, answer.json()["role"]) == (200, role)
        else:
            assert (role, answer.status_code) == (role, 403)
            assert f"is {role}; this needs the role" in answer.json()["detail"]


def test_what_is_for_anybody_and_what_only_for_engineers_is_what_was_meant():
    assert {route for route, roles in PERMISSIONS.items() if ANYONE in roles} == FOR_ANYBODY
    for route in ONLY_ENGINEERS:
        assert PERMISSIONS[route] == {"engineer"}
    for (method, path), roles in PERMISSIONS.items():
        assert "engineer" in roles
        if "auditor" in roles and ANYONE not in roles and method != "GET":
            assert path in ("/logout", "/v1/logout", "/v1/me/password")  # an auditor changes nothing else
        if "machine" in roles and ANYONE not in roles and method not in ("GET", "POST"):
            raise AssertionError(f"a machine may {method} {path}")


def test_head_is_allowed_where_get_is(callers):
    assert callers["operator"].head("/v1/users").status_code == 403
    assert callers["operator"].head("/v1/models").status_code in (200, 405)  # FastAPI answers GET only
    assert callers["nobody"].head("/v1/models").status_code == 401


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_another_method_is_refused(callers, method):
    answer = callers["engineer"].request(method, "/v1/models")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert callers["nobody"].request(method, "/v1/models").status_code == 401


def test_a_page_that_is_not_there_is_told_only_to_those_who_are_logged_in(callers):
    assert callers["nobody"].get("/v1/nothing").status_code == 401
    assert callers["auditor"].get("/v1/nothing").status_code == 404
    assert callers["auditor"].get("/v1/models/").status_code == 404  # nor is there a redirect


def app_with(*paths, table=None):
    app = FastAPI()

    async def handler() -> str:
        return "handled"

    for path in paths:
        app.add_api_route(path, handler)
    return Guard(app, policy=Policy(), permissions=table or {})


def test_a_route_that_is_not_in_the_table_is_refused_whoever_calls():
    client = client_of(app_with("/listed", "/forgotten", table={("GET", "/listed"): frozenset(ROLES)}))
    assert client.get("/listed").text == '"handled"'
    assert client.get("/forgotten").status_code == 404


def test_a_route_that_is_not_in_the_table_is_refused_though_another_row_fits_its_path():
    table = {("GET", "/models/{name}"): frozenset({ANYONE, *ROLES})}
    client = client_of(app_with("/models/secrets", "/models/{name}", table=table))
    assert client.get("/models/bottle").text == '"handled"'
    answer = client.get("/models/secrets")
    assert answer.status_code == 403
    assert answer.json()["detail"] == "This route is not in the station's table of permissions."


def test_where_two_rows_fit_a_path_only_those_may_call_it_who_may_call_both():
    table = Permissions(
        {
            ("GET", "/models/{name}"): frozenset({ANYONE, *ROLES}),
            ("GET", "/models/secrets"): frozenset({"engineer"}),
            ("POST", "/models/{name}"): frozenset({"operator"}),
        }
    )
    assert table.methods("/models/secrets") == {"GET": {"engineer"}, "POST": {"operator"}}
    assert table.methods("/models/bottle")["GET"] == {ANYONE, *ROLES}
    assert table.methods("/models/a/b") == {}
    assert table.methods("/models/") == {}


def test_a_role_that_does_not_exist_cannot_stand_in_the_table():
    with pytest.raises(ValueError, match="no such role as \\['root'\\]"):
        Permissions({("GET", "/"): frozenset({"root"})})


async def live(websocket):
    raise AssertionError("a WebSocket was accepted")


def test_every_kind_of_route_is_found():
    """Included routers, mounts, plain routes, WebSockets: none is overlooked."""
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    inner.add_api_route("/a/{key}", lambda key: key, methods=["GET", "DELETE"])
    outer.include_router(inner)
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(outer, prefix="/v1")
    app.mount("/static", StaticFiles(directory="."), "static")
    app.router.routes.append(Route("/plain", PlainTextResponse("plain"), methods=["GET"]))
    app.add_api_websocket_route("/live", live)
    app.mount("/sub", FastAPI())
    assert routes_of(app) == [
        ("DELETE", "/v1/outer/inner/a/{key}"),
        ("GET", "/openapi.json"),
        ("GET", "/plain"),
        ("GET", "/static/{path:path}"),
        ("GET", "/sub/{path:path}"),
        ("GET", "/v1/outer/inner/a/{key}"),
        ("WEBSOCKET", "/live"),
    ]
    assert ("GET", "/plain") in unlisted(app)
    assert ("GET", "/static/{path:path}") not in unlisted(app)
    assert ("POST", "/login") in unrouted(app)
    routes = [Mount("/static", StaticFiles(directory=".")), WebSocketRoute("/live", live)]
    assert routes_of(Starlette(routes=routes)) == [("GET", "/static/{path:path}"), ("WEBSOCKET", "/live")]


def test_the_routes_of_login_and_users_are_all_in_the_table(tmp_path):
    with open_users(tmp_path) as users:
        assert unlisted(small_app(users)) == unrouted(small_app(users)) == []
        assert len(routes_of(user_only(users))) == 13


def user_only(users):
    app = FastAPI(openapi_url=None)
    app.include_router(user_routes(users))
    return app


def test_fastapis_pages_that_load_scripts_from_elsewhere_are_refused():
    app = FastAPI()
    assert unlisted(app) == [("GET", "/docs"), ("GET", "/docs/oauth2-redirect"), ("GET", "/redoc")]
    client = client_of(guarded(None, app=app))
    for path in ("/docs", "/docs/oauth2-redirect", "/redoc"):
        assert client.get(path).status_code == 404


def test_a_websocket_is_refused():
    app = FastAPI()
    app.add_api_websocket_route("/live", live)
    client = client_of(guarded(None, app=app))
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/live"):
        pass
    assert caught.value.code == 1008


def test_every_route_of_a_station_is_in_the_table(tmp_path, model):
    """The whole application, as `serve` builds it."""
    with started(tmp_path / "station", model) as (station, client):
        assert unlisted(build_app(station)) == []
        assert len(routes_of(build_app(station))) > 25
        assert client.get("/v1/me").json()["name"] == "local"
