"""The fit view: good pictures are dropped, a model comes out, and what it would find is measured."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from totalrecall.errors import NotFoundError, SettingError
from totalrecall.station.judging.sent import Sent
from totalrecall.station.pages.page import Page, actor_of, back_to, is_htmx
from totalrecall.station.pages.views import is_key

if TYPE_CHECKING:
    from starlette.datastructures import FormData

__all__ = ["add_fit"]

_MOST = 5000  # pictures
_FIELDS = 8
_LONGEST_FIELD = 4096
_RATES = ("0.01", "0.02", "0.05", "0.001")
_SIZES = ("", "256", "320", "384", "512")


def add_fit(routes: APIRouter, page: Page) -> None:
    """Add the fit view's routes."""
    station = page.station

    @routes.get("/fit")
    def fit(request: Request) -> Response:
        values = {"view": "fit", "works": station.fits.all(), "rates": _RATES, "sizes": _SIZES}
        return page.render(request, "fit.html", values)

    @routes.post("/fit")
    async def begin(request: Request) -> Response:
        """Take good pictures and begin to fit."""
        async with request.form(max_files=_MOST, max_fields=_FIELDS, max_part_size=_LONGEST_FIELD) as form:
            sent = [
                Sent(await value.read(), value.filename or "")
                for name, value in form.multi_items()
                if name == "file" and isinstance(value, UploadFile)
            ]
            name, settings = _typed(form, "name"), _settings(form)
        key = await run_in_threadpool(station.fits.begin, name, sent, actor_of(request), settings)
        if is_htmx(request):
            return Response(status_code=204, headers={"HX-Redirect": f"/fit/{key}"})
        return back_to(f"/fit/{key}")

    @routes.get("/fit/{key}")
    def work(request: Request, key: str) -> Response:
        facts = station.fits.facts(key if is_key(key) else "?")
        template = "fit_now.html" if is_htmx(request) else "fit_work.html"
        return page.render(request, template, {"view": "fit", "facts": facts, "key": key})

    @routes.post("/fit/{key}/cancel")
    def cancel(key: str) -> Response:
        station.fits.cancel(key if is_key(key) else "?")
        return back_to("/fit", "cancelled")

    @routes.post("/fit/{key}/{what}")
    def more(request: Request, key: str, what: Annotated[str, "audit or capability"]) -> Response:
        """Look for odd pictures among those of a fit, or plant defects on them."""
        begin: Any = {"audit": station.fits.begin_audit, "capability": station.fits.begin_capability}.get(what)
        if begin is None or not is_key(key):
            raise NotFoundError("There is no such page.")
        return back_to(f"/fit/{begin(key, actor_of(request))}")


def _typed(form: "FormData", name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _settings(form: "FormData") -> dict[str, Any]:
    """Return the settings of a fit that differ from the defaults.

    Raises:
        SettingError: one is no number.
    """
    settings: dict[str, Any] = {}
    for name, kind in (("false_alarm_rate", float), ("size", int)):
        text = _typed(form, name).strip()
        if not text:
            continue
        try:
            settings[name] = kind(text)
        except ValueError:
            raise SettingError(f"{name} must be a number, got {text[:40]!r}.", name) from None
    return settings
