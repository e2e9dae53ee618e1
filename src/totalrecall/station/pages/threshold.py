"""The threshold view: what another threshold would mean, before it is chosen."""

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from markupsafe import escape

from totalrecall.errors import ForbiddenError
from totalrecall.registry import is_exported
from totalrecall.station.pages.histogram import score_drawing
from totalrecall.station.pages.page import Page, actor_of, back_to, quoted
from totalrecall.station.pages.promises import promise_words
from totalrecall.station.thresholds import (
    can_take_back,
    propose_threshold,
    proposed_threshold,
    reject_threshold,
    set_threshold,
    take_back_threshold,
)

if TYPE_CHECKING:
    from totalrecall.calibration import Calibration
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

    @routes.get("/threshold/compare")
    def compare(
        request: Request,
        model: Annotated[str, Query(max_length=300)],
        score: Annotated[float, Query(allow_inf_nan=False)] = 0.0,
        rate: Annotated[str, Query(max_length=20)] = "",
        parts: Annotated[int, Query(ge=1, le=10**8)] = _PARTS_PER_DAY,
    ) -> Response:
        """Show what another threshold would change, before anybody puts it in use or proposes it."""
        loaded = station.shelf.get(model)
        values = {"view": "threshold", "model": loaded.name, "parts": parts, "rate": rate}
        return page.render(request, "threshold_compare.html", {**values, **_compared(station, loaded, score, rate)})

    _add_decisions(routes, page)


def _add_decisions(routes: APIRouter, page: Page) -> None:
    """Add what changes a threshold, proposes another one, or takes a change back."""
    station = page.station

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

    @routes.post("/threshold/propose")
    def propose(
        request: Request,
        model: Annotated[str, Form(max_length=300)],
        score: Annotated[float, Form()],
        rate: Annotated[str, Form(max_length=20)] = "",
    ) -> Response:
        """Let an engineer decide on another threshold."""
        stated, name = _share(rate), page.model_name(model)
        propose_threshold(station, name, actor_of(request), threshold=None if stated else score, rate=stated)
        return back_to(f"/threshold?model={quoted(name)}", "threshold_proposed")

    @routes.post("/threshold/reject")
    def reject(request: Request, model: Annotated[str, Form(max_length=300)]) -> Response:
        """Put a proposed threshold aside."""
        name = page.model_name(model)
        reject_threshold(station, name, actor_of(request))
        return back_to(f"/threshold?model={quoted(name)}", "threshold_rejected")

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
    told["rate"] = _known(judge.promise_.expected_rate)
    told["defects"] = sorted(score for score, _, judgement in inspected if judgement == "defect")
    told["fine"] = sorted(score for score, _, judgement in inspected if judgement == "fine")
    return {
        "drawing": drawing,
        "in_use": _known(in_use),
        "fixed": is_exported(loaded.path),
        "can_take_back": can_take_back(loaded),
        "proposal": _proposal(station, loaded),
        "recipe": _recipe(station, loaded),
        "levels": judge.promise_.levels(),
        "told": escape(json.dumps(told, allow_nan=False)),
    }


def _compared(station: "Station", loaded: "Loaded", score: float, rate: str) -> dict[str, Any]:
    """Return the figures of the threshold in use and of another one: of the fit, and of what was inspected."""
    judge, stated = loaded.judge, _share(rate)
    threshold = score if stated is None else _at_rate(judge.calibration_, stated)
    inspected = station.history.scores(loaded.name, None, _MOST)
    of = {
        name: [one for one, _, judgement in inspected if judgement in judgements]
        for name, judgements in (("defects", ("defect",)), ("fine", ("fine",)), ("inspected", (None, "defect", "fine")))
    }
    columns = []
    for limit, expected in (
        (float(judge.threshold_), judge.promise_.expected_rate),
        (threshold, stated if stated is not None else judge.calibration_.expected_rate(threshold)),
    ):
        counted = {name: sum(one > limit for one in scores) for name, scores in of.items()}
        columns.append({"threshold": _known(limit), "rate": _known(expected), **counted})
    return {
        "before": columns[0],
        "after": columns[1],
        "totals": {name: len(scores) for name, scores in of.items()},
        "proposal": _proposal(station, loaded),
        "fixed": is_exported(loaded.path),
    }


def _at_rate(calibration: "Calibration", rate: float) -> float:
    return float(replace(calibration, rate=rate).threshold)


def _proposal(station: "Station", loaded: "Loaded") -> dict[str, Any] | None:
    """Return what an engineer is to decide on, with its threshold as a score."""
    proposal = proposed_threshold(station, loaded)
    if proposal is None:
        return None
    rate = proposal["false_alarm_rate"]
    score = proposal["threshold"] if rate is None else _at_rate(loaded.judge.calibration_, rate)
    return {**proposal, "score": score, "rate": "" if rate is None else f"{rate:g}"}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


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
