"""The threshold view: what another threshold would mean, before it is chosen."""

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from markupsafe import escape

from totalrecall.errors import ForbiddenError
from totalrecall.registry import is_exported
from totalrecall.station.pages.histogram import score_drawing
from totalrecall.station.pages.page import Page, actor_of, back_to, quoted
from totalrecall.station.pages.promises import promise_words
from totalrecall.station.thresholds import can_take_back, set_threshold, take_back_threshold

if TYPE_CHECKING:
    from totalrecall.station.judging.models import Loaded
    from totalrecall.station.station import Station

__all__ = ["add_threshold"]

_MOST = 5000  # inspections that are drawn
_PARTS_PER_DAY = 1000


def add_threshold(routes: APIRouter, page: Page) -> None:
    """Add the threshold view's routes."""
    station = page.station

    @routes.get("/threshold")
    def threshold(
        request: Request,
        model: Annotated[str | None, Query(max_length=300)] = None,
        parts: Annotated[int, Query(ge=1, le=10**8)] = _PARTS_PER_DAY,
    ) -> Response:
        loaded = station.shelf.get(page.model_name(model))
        values = _values(station, loaded)
        words = promise_words(loaded.judge.promise_, page.texts(request))
        common = {"view": "threshold", "model": loaded.name, "parts": parts, "promise": words}
        return page.render(request, "threshold.html", {**common, **values})

    @routes.post("/threshold")
    def change(
        request: Request,
        model: Annotated[str, Form(max_length=300)],
        score: Annotated[float, Form()],
        rate: Annotated[str, Form(max_length=20)] = "",
    ) -> Response:
        """Let the model judge by another threshold from now on."""
        actor = actor_of(request)
        if actor.role != "engineer":
            raise ForbiddenError(f"Only an engineer changes a threshold, and {actor.name} is {actor.role}.")
        stated = _share(rate)
        loaded = set_threshold(station, model, actor, threshold=None if stated else score, rate=stated)
        return back_to(f"/threshold?model={quoted(loaded.name)}", "threshold_changed")

    @routes.post("/threshold/undo")
    def take_back(request: Request, model: Annotated[str, Form(max_length=300)]) -> Response:
        """Take back the last change of the threshold."""
        loaded = take_back_threshold(station, model, actor_of(request))
        return back_to(f"/threshold?model={quoted(loaded.name)}", "threshold_taken_back")


def _values(station: "Station", loaded: "Loaded") -> dict[str, Any]:
    judge = loaded.judge
    in_use = float(judge.threshold_)
    inspected = station.history.scores(loaded.name, None, _MOST)
    drawing = score_drawing(judge.calibration_, in_use, inspected)
    told: dict[str, Any] = (
        {} if drawing is None else {"low": drawing.span[0], "high": drawing.span[1], "rates": drawing.rates}
    )
    expected = judge.promise_.expected_rate
    told["rate"] = expected if math.isfinite(expected) else None
    told["defects"] = sorted(score for score, _, judgement in inspected if judgement == "defect")
    told["fine"] = sorted(score for score, _, judgement in inspected if judgement == "fine")
    return {
        "drawing": drawing,
        "in_use": in_use if math.isfinite(in_use) else None,
        "fixed": is_exported(loaded.path),
        "can_take_back": can_take_back(loaded),
        "recipe": _recipe(station, loaded),
        "levels": judge.promise_.levels(),
        "told": escape(json.dumps(told, allow_nan=False)),
        "defects": told["defects"],
        "fine": told["fine"],
    }


def _recipe(station: "Station", loaded: "Loaded") -> dict[str, Any] | None:
    """Return the product that is made at a rate of its own by this model: its threshold holds meanwhile."""
    recipe = station.recipes.current
    if recipe is None or recipe.model != loaded.name or recipe.false_alarm_rate is None:
        return None
    judge = station.recipes.loaded(loaded.name, recipe.false_alarm_rate).judge
    return {"product": recipe.product, "rate": recipe.false_alarm_rate, "threshold": float(judge.threshold_)}


def _share(text: str) -> float | None:
    """Return a stated rate, which a button put into the form; None where the handle was moved."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1 else None
