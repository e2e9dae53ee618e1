"""The page's routes, bound to a station."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request, Response

from totalrecall.errors import NotFoundError
from totalrecall.station.pages.evidence_view import add_evidence
from totalrecall.station.pages.fit_view import add_fit
from totalrecall.station.pages.judging import add_judging
from totalrecall.station.pages.live import add_live, add_pictures
from totalrecall.station.pages.looking_back import add_drift, add_history
from totalrecall.station.pages.models_view import add_models
from totalrecall.station.pages.page import Page, PageRoute
from totalrecall.station.pages.people import add_language, add_login, add_trail, add_users
from totalrecall.station.pages.study_view import add_study
from totalrecall.station.pages.teaching_view import add_golden, add_recipes, add_teaching
from totalrecall.station.pages.threshold import add_threshold

if TYPE_CHECKING:
    from totalrecall.station.access.logins import Logins
    from totalrecall.station.station import Station

__all__ = ["add_pages", "router"]

_STATIC = Path(__file__).with_name("static")
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def add_pages(app: FastAPI, station: "Station", logins: "Logins") -> None:
    """Let an application show the page."""
    page = Page(station)
    app.state.page = page  # by which refusals are told in the reader's language
    app.include_router(router(page, logins))


def router(page: Page, logins: "Logins") -> APIRouter:
    """Return the routes of the page."""
    routes = APIRouter(route_class=PageRoute, include_in_schema=False)
    add_live(routes, page)
    add_pictures(routes, page)
    add_judging(routes, page)
    add_threshold(routes, page)
    add_history(routes, page)
    add_drift(routes, page)
    add_models(routes, page)
    add_golden(routes, page)
    add_teaching(routes, page)
    add_recipes(routes, page)
    add_fit(routes, page)
    add_study(routes, page)
    add_evidence(routes, page)
    add_trail(routes, page)
    add_users(routes, page, logins)
    add_login(routes, page)
    add_language(routes)

    @routes.get("/static/{path:path}")
    def static(request: Request, path: str) -> Response:
        """Return one of the page's files, which were read before: no path from outside touches the disk."""
        if path not in _files():
            raise NotFoundError("There is no such file.")
        data, digest, kind = _files()[path]
        headers = {"Cache-Control": "no-cache", "ETag": digest}
        if request.headers.get("if-none-match") == digest:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=kind)

    return routes


@cache
def _files() -> dict[str, tuple[bytes, str, str]]:
    """Return the content, the entity tag and the type of each file by its name."""
    from totalrecall.system.files import sha256

    found = {}
    for path in sorted(_STATIC.iterdir()):
        data = path.read_bytes()
        found[path.name] = (data, f'"{sha256(data)[:32]}"', _KINDS[path.suffix])
    return found
