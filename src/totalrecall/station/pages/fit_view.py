"""The fit view: good pictures are dropped, a model comes out, and what it would find is measured."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from totalrecall.errors import NotFoundError, SettingError
from totalrecall.station.pages.page import Page, actor_of, back_to, go_to
from totalrecall.station.pages.promises import promise_words
from totalrecall.station.pages.views import Key
from totalrecall.station.quality.fitting import MOST_FITTED
from totalrecall.station.web.uploads import read_form

__all__ = ["add_fit"]

_SETTINGS: dict[str, Callable[[str], float]] = {"false_alarm_rate": float, "size": int}
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
        form = await read_form(request, most=MOST_FITTED, texts=("name", *_SETTINGS))
        name, settings = form.texts.get("name", ""), _settings(form.texts)
        key = await run_in_threadpool(station.fits.begin, name, form.uploads, actor_of(request), settings)
        return go_to(request, f"/fit/{key}")

    @routes.get("/fit/{key}")
    def work(request: Request, key: Key) -> Response:
        facts = station.fits.facts(key)
        values = {"view": "fit", "facts": facts, "key": key, "promise": _promise(page, request, facts)}
        return page.render_part(request, "fit_work.html", "fit_now.html", values)

    @routes.post("/fit/{key}/cancel")
    def cancel(key: Key) -> Response:
        station.fits.cancel(key)
        return back_to("/fit", "cancelled")

    @routes.post("/fit/{key}/{what}")
    def more(request: Request, key: Key, what: Annotated[str, "audit or capability"]) -> Response:
        """Look for odd pictures among those of a fit, or plant defects on them."""
        begin: Any = {"audit": station.fits.begin_audit, "capability": station.fits.begin_capability}.get(what)
        if begin is None:
            raise NotFoundError("There is no such page.")
        return back_to(f"/fit/{begin(key, actor_of(request))}")


def _promise(page: Page, request: Request, facts: dict[str, Any]) -> str:
    """Return in the reader's language what a fitted model's threshold promises; nothing once it is another model."""
    every = {loaded.name: loaded for loaded in page.station.shelf.all()}
    loaded, result = every.get(facts["model"]), facts["result"]
    if facts["what"] != "fit" or result is None or loaded is None or loaded.sha256 != result["sha256"]:
        return ""
    return promise_words(loaded.judge.promise_, page.texts(request))


def _settings(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a fit that differ from the defaults.

    Raises:
        SettingError: one is no number.
    """
    settings: dict[str, Any] = {}
    for name, kind in _SETTINGS.items():
        text = texts.get(name, "").strip()
        if not text:
            continue
        try:
            settings[name] = kind(text)
        except ValueError:
            raise SettingError(f"{name} must be a number, got {text[:40]!r}.", name) from None
    return settings
