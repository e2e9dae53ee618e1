"""How a view becomes a page: templates, and what each of them knows of the station, the person and the language."""

import re
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from totalrecall.errors import LoginError, NotFoundError, TotalRecallError
from totalrecall.reports.page import environment
from totalrecall.station.access.certificate import read_validity
from totalrecall.station.access.permissions import PERMISSIONS
from totalrecall.station.pages.texts import Texts, languages, texts_of
from totalrecall.station.store.records import Actor
from totalrecall.station.web.problems import retry_after

if TYPE_CHECKING:
    from jinja2 import Environment

    from totalrecall.station.station import Station

__all__ = ["COOKIE", "Page", "PageRoute", "actor_of", "back_to", "go_to", "is_htmx", "quoted", "safe_path"]

COOKIE = "totalrecall_language"
_PATH = re.compile(r"/(?:[A-Za-z0-9_\-.~=&%+?][A-Za-z0-9_\-./~=&%+?]*)?")
_SAID = re.compile(r"[a-z_]{1,40}")
_LONGEST = 1200  # letters of a text that comes from outside
_LIVES_SHORT = {"Cache-Control": "no-store", "Vary": "Cookie, Accept-Language"}
_VIEWS = ("live", "judge", "threshold", "history", "drift", "models", "fit", "recipes", "trail", "users")


class Page:
    """Renders the views of one station."""

    def __init__(self, station: "Station") -> None:
        self.station = station
        tls = station.settings.policy.tls
        self._validity = None if tls is None else read_validity(tls[0])  # of the file that is served until the end

    def texts(self, request: Request) -> Texts:
        """Return the texts in the reader's language."""
        return texts_of(request.cookies.get(COOKIE), request.headers.get("accept-language"))

    def render(
        self, request: Request, template: str, values: Mapping[str, object] | None = None, *, status: int = 200
    ) -> HTMLResponse:
        """Return a view, or a part of one, as HTML."""
        return HTMLResponse(self._text(request, template, values or {}), status, _LIVES_SHORT)

    def refusal(self, scope: MutableMapping[str, Any], status: int, detail: str) -> tuple[str, dict[str, str]]:
        """Return the page, or the piece of one, that says why a request is refused, and its headers."""
        request = Request(scope)
        values = {"status": status, "detail": detail}
        if not is_htmx(request):
            return self._text(request, "refused.html", values), _LIVES_SHORT
        shown_where_messages_are = {"HX-Retarget": "#message", "HX-Reswap": "innerHTML"}
        return self._text(request, "refused_piece.html", values), {**_LIVES_SHORT, **shown_where_messages_are}

    def _text(self, request: Request, template: str, values: Mapping[str, object]) -> str:
        return _environment().get_template(template).render({**self._common(request), **values})

    def render_part(
        self, request: Request, whole: str, part: str, values: Mapping[str, object] | None = None
    ) -> HTMLResponse:
        """Return a view by the template of the whole page, or for htmx by that of the part which changes."""
        return self.render(request, part if is_htmx(request) else whole, values)

    def _common(self, request: Request) -> dict[str, object]:
        state, actor, t = request.scope.get("state", {}), _known_actor(request), self.texts(request)
        said = request.query_params.get("said", "")
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        session = getattr(state.get("caller"), "session", None)
        return {
            "t": t,
            "number": t.number,
            "percent": t.percent,
            "languages": languages(),
            "actor": actor,
            "logged_in": session is not None,
            "csrf": "" if session is None else session.csrf,
            "views": [view for view in _VIEWS if _may(actor, "GET", "/" if view == "live" else f"/{view}")],
            "view": "",
            "may_judge": _may(actor, "POST", "/judge/{key}"),
            "may_change": _may(actor, "POST", "/threshold"),
            "models": [loaded.name for loaded in self.station.shelf.all()],
            "model": None,
            "holds": dict(self.station.holds),
            "faults": self.station.faults(),
            "certificate": None if self._validity is None else self._validity.state(),
            "certificate_ends": "" if self._validity is None else f"{self._validity.ends:%Y-%m-%d}",
            "insecure": self.station.settings.policy.insecure and session is None,
            "here": path if safe_path(path) else "/",
            "said": t(f"said.{said}") if _SAID.fullmatch(said) and f"said.{said}" in t.entries else None,
        }

    def model_name(self, name: str | None) -> str:
        """Return the model that a view is about: the one that was asked for, or the first.

        Raises:
            NotFoundError: there is none of that name.
        """
        every = self.station.shelf.all()
        if not name and every:
            return every[0].name
        return self.station.shelf.get(name or None).name


class PageRoute(APIRoute):
    """A route of the page: a refusal is told as a page, in the reader's language, and not as JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, which answers errors itself."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except TotalRecallError as error:
                answer = _refusal(request, error.http_status, str(error))
                answer.headers.update(retry_after(error))
                return answer
            except RequestValidationError as error:
                said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
                return _refusal(request, 422, said)

        return handled


def _refusal(request: Request, status: int, detail: str) -> Response:
    page: Page = request.app.state.page
    text, headers = page.refusal(request.scope, status, detail)
    return HTMLResponse(text, status, headers)


def actor_of(request: Request) -> Actor:
    """Return who asks.

    Raises:
        LoginError: the guard let nobody in, or there is no guard.
    """
    actor = _known_actor(request)
    if actor is None:
        raise LoginError("Log in first.")
    return actor


def _known_actor(request: Request) -> Actor | None:
    """Return who asks; None on the page of the login and of a refusal, which are shown to anybody."""
    actor = request.scope.get("state", {}).get("actor")
    return actor if isinstance(actor, Actor) else None


def is_htmx(request: Request) -> bool:
    """Tell whether htmx asks, for a part of a page."""
    return request.headers.get("hx-request") == "true"


def back_to(path: str, said: str = "") -> Response:
    """Return the browser to a page, which then says what was done."""
    if not safe_path(path):
        raise NotFoundError("There is no such page.")
    if said:
        path += f"{'&' if '?' in path else '?'}said={said}"
    return RedirectResponse(path, 303)


def go_to(request: Request, path: str) -> Response:
    """Send the browser to the page of work that was begun."""
    return Response(status_code=204, headers={"HX-Redirect": path}) if is_htmx(request) else back_to(path)


def quoted(name: str) -> str:
    """Return a name as a part of an address."""
    return quote(name, safe="")


def safe_path(path: str) -> bool:
    """Tell whether a path stays within the station: from one slash on, and nothing that a browser reads otherwise."""
    return len(path) < 2000 and _PATH.fullmatch(path) is not None


def _may(actor: Actor | None, method: str, path: str) -> bool:
    """Tell whether a role may call a route; what it may not is not offered."""
    return actor is not None and actor.role in PERMISSIONS[method, path]


@cache
def _environment() -> "Environment":
    return environment(Path(__file__).with_name("templates"), _LONGEST)
