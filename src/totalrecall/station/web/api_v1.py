"""The station's own HTTP API, version 1: pictures in, inspections out."""

import asyncio
import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from totalrecall.errors import NotFoundError, TotalRecallError
from totalrecall.station.access.guard import actor_of
from totalrecall.station.drawing import overlay_png
from totalrecall.station.judging.caption import Upload
from totalrecall.station.store.records import Inspection
from totalrecall.station.web.jobs import Jobs
from totalrecall.station.web.problems import CONTENT_TYPE, PROBLEM
from totalrecall.station.web.uploads import uploads_of

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["answer", "router"]

_NAME = Path(description="the stem of the model's file", min_length=1, max_length=300)
_KEY = Path(description="the id of an inspection or job", pattern="^[0-9a-f]{32}$")
_BINARY = {"type": "string", "format": "binary"}
_TEXTS = {
    "serial": {"type": "string", "maxLength": 200, "description": "of the part"},
    "line": {"type": "string", "maxLength": 200, "description": "of the production line, or of the camera"},
}
_ONE = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _BINARY, **_TEXTS}}
            },
            "application/octet-stream": {"schema": _BINARY},
            "image/*": {"schema": _BINARY},
        },
    }
}
_MANY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": _BINARY}, **_TEXTS},
                }
            }
        },
    }
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
_FAILURES = (400, 401, 403, 404, 409, 413, 415, 422, 500, 503)


def _answers(schema: dict[str, Any], *, png: bool = False, status: int = 200) -> dict[int | str, dict[str, Any]]:
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if png:
        content["image/png"] = {"schema": _BINARY}
    failure = {"description": "why not", "content": {CONTENT_TYPE: {"schema": PROBLEM}}}
    return {status: {"description": "done", "content": content}, **dict.fromkeys(_FAILURES, failure)}


_LIST = {"type": "object", "required": ["results"], "properties": {"results": {"type": "array"}}}
_MODELS = {"type": "object", "required": ["models"], "properties": {"models": {"type": "array"}}}
_OBJECT = {"type": "object"}


def router(station: "Station") -> APIRouter:
    """Return the routes, bound to a station."""
    routes = APIRouter(prefix="/v1", tags=["v1"])
    _add_models(routes, station)
    _add_judging(routes, station)
    _add_jobs(routes, station)
    _add_inspections(routes, station)
    return routes


def _add_models(routes: APIRouter, station: "Station") -> None:
    @routes.get("/models", responses=_answers(_MODELS), summary="Which models are there?")
    async def models() -> Response:
        facts = [{**loaded.to_json(), **_state(station, loaded.name)} for loaded in station.shelf.all()]
        return answer({"models": facts})

    @routes.get("/models/{name}", responses=_answers(_OBJECT), summary="One model")
    async def model(name: Annotated[str, _NAME]) -> Response:
        loaded = station.shelf.get(name)
        drift = await run_in_threadpool(station.drift.facts, loaded)
        return answer({**loaded.to_json(), **_state(station, name), "drift": drift})

    @routes.post("/models/{name}/reload", responses=_answers(_OBJECT), summary="Read the model's file again")
    async def reload(name: Annotated[str, _NAME]) -> Response:
        return answer((await run_in_threadpool(station.shelf.reload, name)).to_json())


def _add_judging(routes: APIRouter, station: "Station") -> None:
    @routes.post(
        "/models/{name}/predict",
        responses=_answers(_INSPECTION, png=True),
        openapi_extra=_ONE,
        summary="Judge one picture",
    )
    async def predict(
        request: Request,
        name: Annotated[str, _NAME],
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
        responses=_answers(_LIST),
        openapi_extra=_MANY,
        summary="Judge several pictures and wait for all",
    )
    async def batch(request: Request, name: Annotated[str, _NAME]) -> Response:
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
        responses=_answers(_OBJECT, status=202),
        openapi_extra=_MANY,
        summary="Judge several pictures later",
    )
    async def begin(request: Request, name: Annotated[str, _NAME]) -> Response:
        """Take several pictures and answer at once; `GET /v1/jobs/{id}` tells how far it is, and the results."""
        loaded = station.shelf.get(name)
        uploads = await uploads_of(request, most=station.settings.batch * 16)
        key = await run_in_threadpool(jobs.begin, loaded.name, uploads, actor_of(request))
        return answer({"id": key, "total": len(uploads)}, 202, {"Location": f"/v1/jobs/{key}"})

    @routes.get("/jobs/{key}", responses=_answers(_OBJECT), summary="How far is a job?")
    async def job(key: Annotated[str, _KEY]) -> Response:
        return answer(await run_in_threadpool(jobs.facts, key))


def _add_inspections(routes: APIRouter, station: "Station") -> None:
    @routes.get("/inspections/{key}", responses=_answers(_INSPECTION), summary="One inspection")
    async def inspection_of(key: Annotated[str, _KEY]) -> Response:
        inspection = await run_in_threadpool(station.history.get, key)
        if inspection is None:
            raise NotFoundError(f"There is no inspection {key}.")
        return answer(inspection.to_json())

    @routes.get("/inspections/{key}/overlay.png", responses=_answers(_OBJECT, png=True), summary="Its overlay")
    async def overlay(key: Annotated[str, _KEY]) -> Response:
        inspection = await run_in_threadpool(station.history.get, key)
        if inspection is None:
            raise NotFoundError(f"There is no inspection {key}.")
        png = await run_in_threadpool(overlay_png, station, inspection)
        return Response(png, media_type="image/png")


def answer(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return JSON; of our own values, so nothing is checked or turned again."""
    return Response(json.dumps(body, ensure_ascii=False, allow_nan=False), status, headers, "application/json")


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
