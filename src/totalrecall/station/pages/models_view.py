"""The models view: what is in use, what it promises, and what `teaching_view` does with it."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from totalrecall.registry import is_exported
from totalrecall.station.pages.page import Page, actor_of, back_to, quoted
from totalrecall.station.pages.promises import promise_words
from totalrecall.station.pages.views import shown
from totalrecall.station.store.records import Filter

if TYPE_CHECKING:
    from totalrecall.station.judging.models import Loaded
    from totalrecall.station.station import Station

__all__ = ["add_models"]

_TAUGHT = 120  # pictures that are offered for teaching
_RUNS = 12
_NAME = Path(max_length=300)


def add_models(routes: APIRouter, page: Page) -> None:
    """Add the routes of models."""
    station = page.station

    @routes.get("/models")
    def models(request: Request) -> Response:
        t = page.texts(request)
        rows = [
            {
                "loaded": loaded,
                "promise": promise_words(loaded.judge.promise_, t),
                "fault": station.shelf.faults.get(loaded.name),
                "held": station.holds.get(loaded.name),
                "golden": _last_run(station, loaded.name),
                "proposals": [one for one in station.teaching.all(loaded.name) if one["state"] == "proposed"],
            }
            for loaded in station.shelf.all()
        ]
        return page.render(request, "models.html", {"view": "models", "rows": rows})

    @routes.get("/models/{name}")
    def model(request: Request, name: Annotated[str, _NAME]) -> Response:
        loaded = station.shelf.get(name)
        return page.render(request, "model.html", _model(page, request, loaded))

    @routes.post("/models/{name}/reload")
    def reload(request: Request, name: Annotated[str, _NAME]) -> Response:
        loaded = station.model_files.reload(name, actor_of(request))
        return back_to(f"/models/{quoted(loaded.name)}", "reloaded")


def _model(page: Page, request: Request, loaded: "Loaded") -> dict[str, Any]:
    station, judge = page.station, loaded.judge
    fine = station.history.find(Filter(model=loaded.name, judgement="fine"), limit=_TAUGHT)
    judged = station.history.find(Filter(model=loaded.name, judgement="defect", verdict="good"), limit=_TAUGHT)
    golden = station.golden.all(loaded.name)
    return {
        "view": "models",
        "model": loaded.name,
        "loaded": loaded,
        "summary": judge.summary(),
        "promise": promise_words(judge.promise_, page.texts(request)),
        "pictures": len(judge.pictures_),
        "threshold": float(judge.threshold_),
        "steps": list(reversed(judge.history_)),
        "fixed": is_exported(loaded.path),
        "fault": station.shelf.faults.get(loaded.name),
        "held": station.holds.get(loaded.name),
        "fine": [shown(station, one) for one in fine if one.kept and one.verdict == "defect"],
        "also_fine": [shown(station, one) for one in fine if one.kept and one.verdict != "defect"],
        "missed": [shown(station, one) for one in judged if one.kept],
        "golden": golden,
        "runs": station.golden.runs(loaded.name, _RUNS),
        "proposals": station.teaching.all(loaded.name, 12),
        "undoable": station.teaching.undoable(loaded.name),
    }


def _last_run(station: "Station", model: str) -> dict[str, Any] | None:
    runs = station.golden.runs(model, 1)
    return runs[0] if runs else None
