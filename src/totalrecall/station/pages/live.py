"""The live view: what the line's last part was, in letters that can be read at two metres."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from totalrecall.errors import PictureError
from totalrecall.station.drawing import heat_layer, shown_picture
from totalrecall.station.judging.caption import Upload
from totalrecall.station.pages.page import Page, back_to, is_htmx, quoted
from totalrecall.station.pages.views import Key, latest, shown
from totalrecall.station.web.uploads import uploads_of
from totalrecall.system.files import sha256

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["add_live", "add_pictures"]

_SMALL = 168  # pixels of a thumbnail
_UNCHANGING = {"Cache-Control": "private, max-age=86400, immutable"}  # a key's picture never changes
_MODEL = Query(max_length=300)


def add_live(routes: APIRouter, page: Page) -> None:
    """Add the live view's routes."""
    station = page.station

    @routes.get("/")
    def live(request: Request, model: Annotated[str | None, _MODEL] = None) -> Response:
        name = station.shelf.get(model).name if model else None
        return page.render(request, "live.html", {"view": "live", "model": name, "whole": True, **_now(station, name)})

    @routes.get("/live/now")
    def now(
        request: Request,
        model: Annotated[str | None, _MODEL] = None,
        seen: Annotated[str, Query(max_length=40)] = "",
        told: Annotated[str, Query(max_length=40)] = "",
    ) -> Response:
        """Return what is new since an inspection and the notices above it; nothing, if nothing is."""
        newest, is_told = station.recent.latest(model or None), _notices(station) == told
        if is_told and ((newest is None and not seen) or (newest is not None and newest.inspection.key == seen)):
            return Response(status_code=204)
        values = _now(station, model or None)
        if is_told and values["current"] is not None and values["current"].inspection.key == seen:
            return Response(status_code=204)
        return page.render(request, "live_now.html", {"model": model or None, "whole": False, **values})

    @routes.post("/live/inspect")
    async def inspect(request: Request, model: Annotated[str | None, _MODEL] = None) -> Response:
        """Judge pictures that a person dropped or chose."""
        uploads = await uploads_of(request, most=station.settings.batch)
        name = station.shelf.get(model).name if model else page.model_name(None)
        refusals = [await run_in_threadpool(_inspect, station, one, name) for one in uploads]
        failed = [refusal for refusal in refusals if refusal is not None]
        if not is_htmx(request):
            return back_to(f"/?model={quoted(name)}" if model else "/", "not_read" if failed else "")
        values = await run_in_threadpool(_now, station, model or None)
        return page.render(
            request, "live_now.html", {"model": model or None, "whole": False, **values, "failed": failed}
        )


def add_pictures(routes: APIRouter, page: Page) -> None:
    """Add the pictures that views show."""
    station = page.station

    @routes.get("/pictures/{key}/{what}")
    def picture(key: Key, what: str) -> Response:
        """Return an inspection's picture, its thumbnail or its heat layer."""
        inspection = station.history.inspection(key)
        if what == "heat.png":
            return Response(heat_layer(station, inspection), headers=_UNCHANGING, media_type="image/png")
        if what == "small.jpg":
            jpeg = shown_picture(station, inspection, widest=_SMALL)
        elif what == "picture.jpg":
            jpeg = shown_picture(station, inspection)
        else:
            return Response(status_code=404)
        return Response(jpeg, headers=_UNCHANGING, media_type="image/jpeg")


def _inspect(station: "Station", upload: Upload, model: str) -> str | None:
    """Judge a picture that a person sent, and return why it cannot be read; None if it can."""
    try:
        station.inspect(upload.picture, replace(upload.caption, model=model, source="page"))
    except PictureError as error:
        return str(error)
    return None


def _notices(station: "Station") -> str:
    """Return what differs once the notices above the view do: models that are held, links that do not work."""
    lines = [*(f"{name} {reason}" for name, reason in sorted(station.holds.items())), *station.faults()]
    return sha256("\n".join(lines).encode())[:16] if lines else ""


def _now(station: "Station", model: str | None) -> dict[str, Any]:
    strip = latest(station, model)
    return {
        "told": _notices(station),
        "current": shown(station, strip[0], outlines=True) if strip else None,
        "strip": [shown(station, one) for one in strip],
        "failed": [],
    }
