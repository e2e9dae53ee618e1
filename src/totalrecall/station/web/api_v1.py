"""The station's own HTTP API, version 1: pictures in, inspections out."""

import asyncio
import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from totalrecall.errors import TotalRecallError
from totalrecall.station.access.guard import actor_of
from totalrecall.station.drawing import overlay_png
from totalrecall.station.judging.caption import Upload
from totalrecall.station.store.records import Inspection
from totalrecall.station.web.answers import (
    BINARY,
    DIGITS,
    NAME,
    OBJECT,
    answer,
    answers,
    having,
    many_pictures,
    one_picture,
)
from totalrecall.station.web.jobs import Jobs
from totalrecall.station.web.uploads import uploads_of

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["router"]

_KEY = Path(description="the id of an inspection or job", pattern=DIGITS)
_TEXTS = {
    "serial": {"type": "string", "maxLength": 200, "description": "of the part"},
    "line": {"type": "string", "maxLength": 200, "description": "of the production line, or of the camera"},
}
_INSPECTION: dict[str, Any] = {
    "type": "object",
    "required": ["id", "path", "score", "threshold", "is_anomalous", "p_value", "regions", "nearest", "milliseconds"],
    "properties": {
        "id": {"type": "string"},
        "path": {"type": "string", "description": "the picture's name as it was sent"},
        "score": {"type": ["number", "null"]},
        "threshold": {"type": ["number", "null"]},
        "is_anomalous": {"type": ["boolean", "null"], "description": "null: there is no verdict"},
        "p_value": {"type": ["number", "null"]},
        "regions": {"type": "array"},
        "nearest": {"type": ["object", "null"]},
        "milliseconds": {"type": "number"},
        "verdict": {"type": "string", "enum": ["defect", "good", "no verdict", "wrong product", "unreadable"]},
        "heatmap": {"type": "string", "description": "PNG as base64, where it was asked for"},
    },
}


def router(station: "Station") -> APIRouter:
    """Return the routes, bound to a station."""
    routes = APIRouter(prefix="/v1", tags=["v1"])
    _add_models(routes, station)
    _add_judging(routes, station)
    _add_jobs(routes, station)
    _add_inspections(routes, station)
    return routes


def _add_models(routes: APIRouter, station: "Station") -> None:
    @routes.get("/models", responses=answers(having("models")), summary="Which models are there?")
    async def models() -> Response:
        facts = [{**loaded.to_json(), **_state(station, loaded.name)} for loaded in station.shelf.all()]
        return answer({"models": facts})

    @routes.get("/models/{name}", responses=answers(OBJECT), summary="One model")
    async def model(name: Annotated[str, NAME]) -> Response:
        loaded = station.shelf.get(name)
        drift = await run_in_threadpool(station.drift.facts, loaded)
        return answer({**loaded.to_json(), **_state(station, name), "drift": drift})

    @routes.post("/models/{name}/reload", responses=answers(OBJECT), summary="Read the model's file again")
    async def reload(request: Request, name: Annotated[str, NAME]) -> Response:
        """Read it again. A file that cannot be used is refused (409), and the model in use goes on."""
        return answer((await run_in_threadpool(station.model_files.reload, name, actor_of(request))).to_json())


def _add_judging(routes: APIRouter, station: "Station") -> None:
    @routes.post(
        "/models/{name}/predict",
        responses=answers(_INSPECTION, png=True),
        openapi_extra=one_picture(_TEXTS),
        summary="Judge one picture",
    )
    async def predict(
        request: Request,
        name: Annotated[str, NAME],
        heatmap: Annotated[bool, Query(description="add the overlay as base64 PNG")] = False,
    ) -> Response:
        """Judge one picture, as the multipart field `file` or as the body itself.

        With `Accept: image/png` the answer is the overlay; the header `X-Inspection-Id` names the inspection.
        """
        (upload,) = await uploads_of(request, most=1)
        inspection = await _judge(station, name, upload)
        if "image/png" in request.headers.get("accept", ""):
            png = await run_in_threadpool(overlay_png, station, inspection)
            return Response(png, media_type="image/png", headers={"X-Inspection-Id": inspection.key})
        body = inspection.to_json()
        if heatmap:
            png = await run_in_threadpool(overlay_png, station, inspection)
            body["heatmap"] = base64.b64encode(png).decode("ascii")
        return answer(body)

    @routes.post(
        "/models/{name}/batch",
        responses=answers(having("results")),
        openapi_extra=many_pictures(_TEXTS),
        summary="Judge several pictures and wait for all",
    )
    async def batch(request: Request, name: Annotated[str, NAME]) -> Response:
        """Judge several multipart fields `file`; a picture that cannot be read has `error` and no score."""
        station.shelf.get(name)
        uploads = await uploads_of(request, most=station.settings.batch)
        outcomes = await asyncio.gather(*(_judge(station, name, one) for one in uploads), return_exceptions=True)
        return answer({"results": [_told(one, outcome) for one, outcome in zip(uploads, outcomes, strict=True)]})


def _add_jobs(routes: APIRouter, station: "Station") -> None:
    jobs = Jobs(station)
    station.while_open(jobs.close)

    @routes.post(
        "/models/{name}/jobs",
        status_code=202,
        responses=answers(OBJECT, status=202),
        openapi_extra=many_pictures(_TEXTS),
        summary="Judge several pictures later",
    )
    async def begin(request: Request, name: Annotated[str, NAME]) -> Response:
        """Take several pictures and answer at once; `GET /v1/jobs/{id}` tells how far it is, and the results."""
        loaded = station.shelf.get(name)
        uploads = await uploads_of(request, most=station.settings.batch * 16)
        key = await run_in_threadpool(jobs.begin, loaded.name, uploads, actor_of(request))
        return answer({"id": key, "total": len(uploads)}, 202, {"Location": f"/v1/jobs/{key}"})

    @routes.get("/jobs/{key}", responses=answers(OBJECT), summary="How far is a job?")
    async def job(key: Annotated[str, _KEY]) -> Response:
        return answer(await run_in_threadpool(jobs.facts, key))


def _add_inspections(routes: APIRouter, station: "Station") -> None:
    @routes.get("/inspections/{key}", responses=answers(_INSPECTION), summary="One inspection")
    async def inspection_of(key: Annotated[str, _KEY]) -> Response:
        inspection = await run_in_threadpool(station.history.inspection, key)
        return answer(inspection.to_json())

    @routes.get("/inspections/{key}/overlay.png", responses=answers(BINARY, kind="image/png"), summary="Its overlay")
    async def overlay(key: Annotated[str, _KEY]) -> Response:
        inspection = await run_in_threadpool(station.history.inspection, key)
        png = await run_in_threadpool(overlay_png, station, inspection)
        return Response(png, media_type="image/png")


async def _judge(station: "Station", model: str, upload: Upload) -> Inspection:
    return await asyncio.wrap_future(station.submit(upload.picture, replace(upload.caption, model=model)))


def _told(upload: Upload, outcome: Inspection | BaseException) -> dict[str, Any]:
    """Return the result of one picture of several; a fault of one is told in its place."""
    if isinstance(outcome, Inspection):
        return outcome.to_json()
    if isinstance(outcome, TotalRecallError):
        return {"path": upload.name, "score": None, "error": str(outcome), "status": outcome.http_status}
    raise outcome


def _state(station: "Station", name: str) -> dict[str, Any]:
    return {"held": station.holds.get(name), "fault": station.shelf.faults.get(name)}
