"""Who may call what: one table from each route to the roles that may call it.

A route that is not in the table is refused, whoever calls it. `guard.py` enforces the table before any handler runs;
`unlisted` names the routes of an application that it lacks.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from starlette.routing import Mount, Route, compile_path

from totalrecall.station.store.records import ROLES

__all__ = ["ANYONE", "PERMISSIONS", "Permissions", "routes_of", "unlisted", "unrouted"]

ANYONE = "anyone"  # stands for a caller who need not be logged in

_PUBLIC = frozenset({ANYONE, *ROLES})
_ALL = frozenset(ROLES)
_INSPECT = frozenset({"operator", "engineer", "machine"})
_ENGINEER = frozenset({"engineer"})
_PERSON = frozenset({"operator", "engineer", "auditor"})
_WATCH = frozenset({"engineer", "auditor", "machine"})
_JUDGE = frozenset({"operator", "engineer"})
_AUDIT = frozenset({"engineer", "auditor"})

PERMISSIONS: dict[tuple[str, str], frozenset[str]] = {
    # for anybody: what is asked before a login, and what a load balancer asks
    ("GET", "/healthz"): _PUBLIC,
    ("GET", "/readyz"): _PUBLIC,
    ("GET", "/static/{path:path}"): _PUBLIC,
    ("GET", "/login"): _PUBLIC,
    ("POST", "/login"): _PUBLIC,
    ("POST", "/v1/login"): _PUBLIC,
    ("GET", "/language"): _PUBLIC,
    # one's login
    ("POST", "/logout"): _ALL,
    ("POST", "/v1/logout"): _ALL,
    ("GET", "/v1/me"): _ALL,
    ("POST", "/v1/me/password"): _PERSON,
    # users and tokens
    ("GET", "/v1/users"): _ENGINEER,
    ("POST", "/v1/users"): _ENGINEER,
    ("PATCH", "/v1/users/{name}"): _ENGINEER,
    ("DELETE", "/v1/users/{name}"): _ENGINEER,
    ("GET", "/v1/tokens"): _ENGINEER,
    ("POST", "/v1/tokens"): _ENGINEER,
    ("DELETE", "/v1/tokens/{key}"): _ENGINEER,
    # models and inspections, and the same by the Open Inference Protocol
    ("GET", "/v1/models"): _ALL,
    ("GET", "/v1/models/{name}"): _ALL,
    ("POST", "/v1/models/{name}/reload"): _ENGINEER,
    ("POST", "/v1/models/{name}/predict"): _INSPECT,
    ("POST", "/v1/models/{name}/batch"): _INSPECT,
    ("POST", "/v1/models/{name}/jobs"): _INSPECT,
    ("GET", "/v1/jobs/{key}"): _ALL,
    ("GET", "/v1/inspections/{key}"): _ALL,
    ("GET", "/v1/inspections/{key}/overlay.png"): _ALL,
    ("GET", "/v2"): _ALL,
    ("GET", "/v2/health/live"): _ALL,
    ("GET", "/v2/health/ready"): _ALL,
    ("GET", "/v2/models/{name}"): _ALL,
    ("GET", "/v2/models/{name}/ready"): _ALL,
    ("POST", "/v2/models/{name}/infer"): _INSPECT,
    # the page: what is looked at
    ("GET", "/"): _PERSON,
    ("GET", "/live/now"): _PERSON,
    ("GET", "/pictures/{key}/{what}"): _PERSON,
    ("GET", "/history"): _PERSON,
    ("GET", "/history.csv"): _PERSON,
    ("GET", "/history/{key}"): _PERSON,
    ("GET", "/threshold"): _PERSON,
    ("GET", "/drift"): _PERSON,
    ("GET", "/models"): _PERSON,
    ("GET", "/models/{name}"): _PERSON,
    ("GET", "/golden/{key}/small.jpg"): _PERSON,
    ("GET", "/proposals/{key}"): _PERSON,
    ("GET", "/recipes"): _PERSON,
    ("GET", "/study"): _PERSON,
    ("GET", "/study/{key}"): _PERSON,
    ("GET", "/study/{key}/page.html"): _PERSON,
    ("GET", "/models/{name}/evidence"): _PERSON,
    ("GET", "/evidence/{key}"): _PERSON,
    ("GET", "/evidence/{key}/page.html"): _PERSON,
    ("GET", "/trail"): _AUDIT,
    # the page: what is done by whoever stands at the line
    ("POST", "/live/inspect"): _JUDGE,
    ("GET", "/judge"): _JUDGE,
    ("POST", "/judge/{key}"): _JUDGE,
    ("GET", "/threshold/compare"): _JUDGE,
    ("POST", "/threshold/propose"): _JUDGE,
    ("POST", "/models/{name}/golden/check"): _JUDGE,
    ("POST", "/recipes"): _JUDGE,
    # the page: what changes how parts are judged
    ("POST", "/threshold"): _ENGINEER,
    ("POST", "/threshold/reject"): _ENGINEER,
    ("POST", "/threshold/undo"): _ENGINEER,
    ("POST", "/drift/reset"): _ENGINEER,
    ("POST", "/models/{name}/reload"): _ENGINEER,
    ("POST", "/models/{name}/teach"): _ENGINEER,
    ("POST", "/models/{name}/undo"): _ENGINEER,
    ("POST", "/models/{name}/golden/release"): _ENGINEER,
    ("POST", "/models/{name}/golden"): _ENGINEER,
    ("POST", "/golden/add/{key}"): _ENGINEER,
    ("POST", "/golden/{key}/remove"): _ENGINEER,
    ("POST", "/proposals/{key}/approve"): _ENGINEER,
    ("POST", "/proposals/{key}/reject"): _ENGINEER,
    ("POST", "/proposals/{key}/cancel"): _ENGINEER,
    ("GET", "/fit"): _ENGINEER,
    ("POST", "/fit"): _ENGINEER,
    ("GET", "/fit/{key}"): _ENGINEER,
    ("POST", "/fit/{key}/cancel"): _ENGINEER,
    ("POST", "/fit/{key}/{what}"): _ENGINEER,
    ("POST", "/study"): _ENGINEER,
    ("POST", "/models/{name}/evidence"): _ENGINEER,
    ("GET", "/users"): _ENGINEER,
    ("POST", "/users"): _ENGINEER,
    ("POST", "/users/change"): _ENGINEER,
    ("POST", "/users/tokens"): _ENGINEER,
    ("POST", "/users/tokens/revoke"): _ENGINEER,
    # teaching, golden check, recipes, fits, gauge studies
    ("GET", "/v1/proposals"): _PERSON,
    ("GET", "/v1/proposals/{key}"): _PERSON,
    ("POST", "/v1/models/{name}/proposals"): _ENGINEER,
    ("POST", "/v1/proposals/{key}/approve"): _ENGINEER,
    ("POST", "/v1/proposals/{key}/reject"): _ENGINEER,
    ("POST", "/v1/proposals/{key}/cancel"): _ENGINEER,
    ("POST", "/v1/models/{name}/undo"): _ENGINEER,
    ("GET", "/v1/models/{name}/golden"): _PERSON,
    ("POST", "/v1/models/{name}/golden"): _ENGINEER,
    ("POST", "/v1/inspections/{key}/golden"): _ENGINEER,
    ("DELETE", "/v1/golden/{key}"): _ENGINEER,
    ("POST", "/v1/models/{name}/golden/check"): _INSPECT,
    ("POST", "/v1/models/{name}/release"): _ENGINEER,
    ("GET", "/v1/recipes"): _ALL,
    ("POST", "/v1/recipes/select"): _INSPECT,
    ("GET", "/v1/fits"): _PERSON,
    ("POST", "/v1/fits"): _ENGINEER,
    ("GET", "/v1/fits/{key}"): _PERSON,
    ("DELETE", "/v1/fits/{key}"): _ENGINEER,
    ("POST", "/v1/fits/{key}/audit"): _ENGINEER,
    ("POST", "/v1/fits/{key}/capability"): _ENGINEER,
    ("GET", "/v1/studies"): _PERSON,
    ("POST", "/v1/models/{name}/studies"): _ENGINEER,
    ("GET", "/v1/studies/{key}"): _PERSON,
    ("GET", "/v1/studies/{key}/page"): _PERSON,
    # figures, and the document of this interface
    ("GET", "/metrics"): _WATCH,
    ("GET", "/openapi.json"): _ALL,
}


class Permissions:
    """The table, asked by a request's method and path.

    Args:
        table: from (method, path template) to roles.
    """

    def __init__(self, table: Mapping[tuple[str, str], frozenset[str]] = PERMISSIONS) -> None:
        templates: dict[str, dict[str, frozenset[str]]] = {}
        for (method, template), roles in table.items():
            if not roles <= _PUBLIC:
                raise ValueError(f"{method} {template}: no such role as {sorted(roles - _PUBLIC)}")
            templates.setdefault(template, {})[method] = roles
        self._fixed = {template: roles for template, roles in templates.items() if "{" not in template}
        self._patterns = [
            (compile_path(template)[0], roles) for template, roles in templates.items() if "{" in template
        ]
        self._known = lru_cache(maxsize=256)(self._find)  # a line's programs call the same few paths

    def methods(self, path: str) -> Mapping[str, frozenset[str]]:
        """Return the roles that may call a path, by method; empty if the table has no such path.

        Where a path fits several templates, only those roles are returned that may call all of them: which of the
        templates the router will choose need not be known here.
        """
        return self._known(path)

    def _find(self, path: str) -> dict[str, frozenset[str]]:
        found = [self._fixed[path]] if path in self._fixed else []
        found += [roles for pattern, roles in self._patterns if pattern.match(path)]
        together: dict[str, frozenset[str]] = {}
        for one in found:
            for method, roles in one.items():
                together[method] = together.get(method, roles) & roles
        return together


def routes_of(app: Any) -> list[tuple[str, str]]:
    """Return (method, path template) of every route of a FastAPI or Starlette application.

    A mount is written as `/static/{path:path}` with the method GET; a WebSocket with the method WEBSOCKET.
    """
    found: list[tuple[str, str]] = []
    for route in _flat(app.routes):
        original = getattr(route, "original_route", route)
        path = str(getattr(route, "path", None) or getattr(original, "path", ""))
        if isinstance(original, Mount):
            found.append(("GET", f"{path.rstrip('/')}/{{path:path}}"))
        elif isinstance(original, Route) or getattr(route, "methods", None):
            methods = set(getattr(route, "methods", None) or ())
            if "GET" in methods:
                methods.discard("HEAD")
            found += [(method, path) for method in sorted(methods or {"*"})]
        else:  # a WebSocket, a host, or what a later version brings
            found.append(("WEBSOCKET", path))
    return sorted(set(found))


def unlisted(app: Any, table: Mapping[tuple[str, str], frozenset[str]] = PERMISSIONS) -> list[tuple[str, str]]:
    """Return the routes of an application that the table lacks: they are refused."""
    return [route for route in routes_of(app) if route not in table]


def unrouted(app: Any, table: Mapping[tuple[str, str], frozenset[str]] = PERMISSIONS) -> list[tuple[str, str]]:
    """Return the rows of the table that no route of an application has."""
    return sorted(set(table) - set(routes_of(app)))


def _flat(routes: Iterable[Any]) -> Iterable[Any]:
    """Return all routes, those of included routers too, which newer versions of FastAPI keep apart."""
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:
        return routes
    return iter_route_contexts(list(routes))
