"""The evidence view: a model tested against criteria by pictures whose truth is known, as a sheet to print."""

from typing import Annotated

from fastapi import APIRouter, Form, Path, Request, Response

from totalrecall.station.pages.page import Page, actor_of, back_to
from totalrecall.station.pages.views import Key
from totalrecall.station.quality.evidence import Criteria

__all__ = ["add_evidence"]

_NAME = Path(max_length=300)
_PERCENT = Form(ge=0, le=100, allow_inf_nan=False)


def add_evidence(routes: APIRouter, page: Page) -> None:
    """Add the evidence view's routes."""
    station = page.station

    @routes.get("/models/{name}/evidence")
    def evidence(request: Request, name: Annotated[str, _NAME]) -> Response:
        loaded = station.shelf.get(name)
        values = {"view": "models", "model": loaded.name, "sheets": station.sheets.all(loaded.name)}
        return page.render(request, "evidence.html", values)

    @routes.post("/models/{name}/evidence")
    def begin(
        request: Request,
        name: Annotated[str, _NAME],
        false_alarms: Annotated[float, _PERCENT],
        found: Annotated[float, _PERCENT],
    ) -> Response:
        """Begin to test a model."""
        criteria = Criteria(false_alarms / 100, found / 100)
        return back_to(f"/evidence/{station.sheets.begin(name, criteria, actor_of(request))}")

    @routes.get("/evidence/{key}")
    def sheet(request: Request, key: Key) -> Response:
        facts = station.sheets.facts(key)
        values = {"view": "models", "model": facts["model"], "facts": facts, "key": key}
        return page.render_part(request, "evidence_sheet.html", "evidence_now.html", values)

    @routes.get("/evidence/{key}/page.html")
    def saved(key: Key) -> Response:
        """Return the sheet as one file to keep; it holds its own style, so it is not shown within the page."""
        headers = {"Content-Disposition": f'attachment; filename="evidence-{key[:8]}.html"'}
        return Response(station.sheets.page(key), headers=headers, media_type="text/html; charset=utf-8")
