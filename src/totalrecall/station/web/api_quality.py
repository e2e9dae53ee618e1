"""HTTP routes of what keeps an inspection good: teaching, golden check, recipes, gauge studies, fits."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from totalrecall.errors import SettingError
from totalrecall.station.access.guard import actor_of
from totalrecall.station.quality.fitting import MOST_FITTED
from totalrecall.station.quality.studies import MOST_STUDIED
from totalrecall.station.web.answers import DIGITS, NAME, answer, answers, having, many_pictures, one_picture
from totalrecall.station.web.uploads import uploads_of

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["quality_routes"]

_KEY = Path(description="the id of a proposal, golden picture, fit, study or inspection", pattern=DIGITS)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


_Keys = Annotated[list[Annotated[str, Field(pattern=DIGITS)]], Field(max_length=1000)]


class _Proposal(_Body):
    fine: _Keys = Field(default=[], description="inspections that a person judged fine: their pictures are learnt")
    missed: _Keys = Field(default=[], description="missed defects: the threshold is lowered until they are caught")


class _Reason(_Body):
    reason: str = Field(max_length=1000)


class _Choice(_Body):
    product: str | None = Field(max_length=1000, description="null: none, models judge at their own rates")


def quality_routes(station: "Station") -> APIRouter:
    """Return the routes, bound to a station."""
    routes = APIRouter(prefix="/v1", tags=["quality"])
    _add_proposals(routes, station)
    _add_decisions(routes, station)
    _add_golden(routes, station)
    _add_golden_checks(routes, station)
    _add_recipes(routes, station)
    _add_fits(routes, station)
    _add_fit_studies(routes, station)
    _add_studies(routes, station)
    return routes


# ---------------------------------------------------------------------- teaching


def _add_proposals(routes: APIRouter, station: "Station") -> None:
    @routes.get("/proposals", responses=answers(having("proposals")), summary="Proposed versions of models")
    async def proposals(
        model: Annotated[str | None, Query(max_length=300, description="of this model alone")] = None,
    ) -> Response:
        return answer({"proposals": await run_in_threadpool(station.teaching.all, model)})

    @routes.get(
        "/proposals/{key}", responses=answers(having("id", "state")), summary="One proposal, with its comparison"
    )
    async def proposal(key: Annotated[str, _KEY]) -> Response:
        return answer(await run_in_threadpool(station.teaching.facts, key))

    @routes.post(
        "/models/{name}/proposals",
        status_code=202,
        responses=answers(having("id"), status=202),
        summary="Propose a version that learns from judged pictures",
    )
    async def propose(request: Request, name: Annotated[str, NAME], body: _Proposal) -> Response:
        """Begin to make a proposed version; `GET /v1/proposals/{id}` tells how far it is, and what it would change."""
        actor = actor_of(request)
        key = await run_in_threadpool(station.teaching.propose, name, fine=body.fine, missed=body.missed, actor=actor)
        return answer({"id": key}, 202, {"Location": f"/v1/proposals/{key}"})


def _add_decisions(routes: APIRouter, station: "Station") -> None:
    @routes.post("/proposals/{key}/approve", responses=answers(having("id", "state")), summary="Put it in use")
    async def approve(request: Request, key: Annotated[str, _KEY]) -> Response:
        return answer(await run_in_threadpool(station.teaching.approve, key, actor_of(request)))

    @routes.post("/proposals/{key}/reject", responses=answers(having("id", "state")), summary="Put it aside for good")
    async def reject(request: Request, key: Annotated[str, _KEY]) -> Response:
        return answer(await run_in_threadpool(station.teaching.reject, key, actor_of(request)))

    @routes.post(
        "/proposals/{key}/cancel", responses=answers(having("id", "state")), summary="End one that is being made"
    )
    async def cancel(key: Annotated[str, _KEY]) -> Response:
        await run_in_threadpool(station.teaching.cancel, key)
        return answer(await run_in_threadpool(station.teaching.facts, key))

    @routes.post(
        "/models/{name}/undo",
        responses=answers(having("id", "state")),
        summary="Restore the file before the last approval",
    )
    async def undo(request: Request, name: Annotated[str, NAME]) -> Response:
        return answer(await run_in_threadpool(station.teaching.undo, name, actor_of(request)))


# ---------------------------------------------------------------------- golden check


def _add_golden(routes: APIRouter, station: "Station") -> None:
    @routes.get(
        "/models/{name}/golden", responses=answers(having("pictures", "runs")), summary="Golden pictures and checks"
    )
    async def pictures(name: Annotated[str, NAME]) -> Response:
        loaded = station.shelf.get(name)
        shown, runs = (
            await run_in_threadpool(station.golden.all, loaded.name),
            await run_in_threadpool(station.golden.runs, loaded.name),
        )
        return answer({"pictures": shown, "runs": runs, "held": station.holds.get(loaded.name)})

    @routes.post(
        "/models/{name}/golden",
        status_code=201,
        responses=answers(having("id"), status=201),
        openapi_extra=one_picture(),
        summary="Add a picture whose truth is known",
    )
    async def add(
        request: Request,
        name: Annotated[str, NAME],
        expected: Annotated[str, Query(pattern="^(defect|good)$", description="defect or good")],
    ) -> Response:
        """Add a picture, as the multipart field `file` or as the body itself; the model must judge it as expected."""
        (one,) = await uploads_of(request, most=1)
        actor = actor_of(request)
        added = await run_in_threadpool(
            station.golden.add, name, one.picture, expected=expected, name=one.name, actor=actor
        )
        return answer(added, 201)

    @routes.post(
        "/inspections/{key}/golden",
        status_code=201,
        responses=answers(having("id"), status=201),
        summary="Add the picture of a judged inspection",
    )
    async def add_inspected(request: Request, key: Annotated[str, _KEY]) -> Response:
        return answer(await run_in_threadpool(station.golden.add_inspected, key, actor_of(request)), 201)

    @routes.delete("/golden/{key}", responses=answers(having("id")), summary="Remove a golden picture")
    async def remove(request: Request, key: Annotated[str, _KEY]) -> Response:
        await run_in_threadpool(station.golden.remove, key, actor_of(request))
        return answer({"id": key})


def _add_golden_checks(routes: APIRouter, station: "Station") -> None:
    @routes.post(
        "/models/{name}/golden/check", responses=answers(having("passed", "words")), summary="Judge them again"
    )
    async def check(request: Request, name: Annotated[str, NAME]) -> Response:
        return answer(await run_in_threadpool(station.golden.check, name, actor_of(request)))

    @routes.post("/models/{name}/release", responses=answers(having("name")), summary="Let a held model judge again")
    async def release(request: Request, name: Annotated[str, NAME], body: _Reason) -> Response:
        await run_in_threadpool(station.golden.release, name, body.reason, actor_of(request))
        return answer({"name": name, "held": None})


# ---------------------------------------------------------------------- recipes


def _add_recipes(routes: APIRouter, station: "Station") -> None:
    @routes.get(
        "/recipes", responses=answers(having("product", "recipes", "fault")), summary="Recipes, and which is in use"
    )
    async def recipes() -> Response:
        return answer(station.recipes.facts())

    @routes.post(
        "/recipes/select", responses=answers(having("product", "recipes")), summary="Choose the product that is made"
    )
    async def select(request: Request, body: _Choice) -> Response:
        await run_in_threadpool(station.recipes.select, body.product, actor_of(request))
        return answer(station.recipes.facts())


# ---------------------------------------------------------------------- fits


def _add_fits(routes: APIRouter, station: "Station") -> None:
    @routes.get("/fits", responses=answers(having("fits")), summary="Fits, audits and capability studies")
    async def fits() -> Response:
        return answer({"fits": station.fits.all()})

    @routes.post(
        "/fits",
        status_code=202,
        responses=answers(having("id"), status=202),
        openapi_extra=many_pictures(),
        summary="Fit a model from good pictures",
    )
    async def fit(
        request: Request,
        name: Annotated[str, Query(min_length=1, max_length=300, description="of the model that is to be")],
        false_alarm_rate: Annotated[float | None, Query(gt=0, lt=1)] = None,
        size: Annotated[int | None, Query(ge=1, le=10_000)] = None,
        backbone: Annotated[str | None, Query(max_length=100)] = None,
    ) -> Response:
        """Take good pictures as multipart fields `file`; `GET /v1/fits/{id}` tells how far the fit is."""
        uploads = await uploads_of(request, most=MOST_FITTED)
        given = {"false_alarm_rate": false_alarm_rate, "size": size, "backbone": backbone}
        settings = {what: value for what, value in given.items() if value is not None}
        key = await run_in_threadpool(station.fits.begin, name, uploads, actor_of(request), settings)
        return answer({"id": key}, 202, {"Location": f"/v1/fits/{key}"})

    @routes.get("/fits/{key}", responses=answers(having("id", "state")), summary="How far is it?")
    async def facts(key: Annotated[str, _KEY]) -> Response:
        return answer(await run_in_threadpool(station.fits.facts, key))

    @routes.delete("/fits/{key}", responses=answers(having("id", "state")), summary="End it")
    async def cancel(key: Annotated[str, _KEY]) -> Response:
        await run_in_threadpool(station.fits.cancel, key)
        return answer(await run_in_threadpool(station.fits.facts, key))


def _add_fit_studies(routes: APIRouter, station: "Station") -> None:
    @routes.post(
        "/fits/{key}/audit",
        status_code=202,
        responses=answers(having("id"), status=202),
        summary="Look for odd pictures among those of a fit",
    )
    async def audit(request: Request, key: Annotated[str, _KEY]) -> Response:
        begun = await run_in_threadpool(station.fits.begin_audit, key, actor_of(request))
        return answer({"id": begun}, 202, {"Location": f"/v1/fits/{begun}"})

    @routes.post(
        "/fits/{key}/capability",
        status_code=202,
        responses=answers(having("id"), status=202),
        summary="Plant defects on the pictures of a fit",
    )
    async def capability(request: Request, key: Annotated[str, _KEY]) -> Response:
        begun = await run_in_threadpool(station.fits.begin_capability, key, actor_of(request))
        return answer({"id": begun}, 202, {"Location": f"/v1/fits/{begun}"})


# ---------------------------------------------------------------------- gauge studies


def _add_studies(routes: APIRouter, station: "Station") -> None:
    @routes.get("/studies", responses=answers(having("studies")), summary="Gauge studies since the start")
    async def studies() -> Response:
        return answer({"studies": await run_in_threadpool(station.studies.all)})

    @routes.post(
        "/models/{name}/studies",
        status_code=202,
        responses=answers(having("id"), status=202),
        openapi_extra=many_pictures(),
        summary="Begin a gauge study",
    )
    async def begin(request: Request, name: Annotated[str, NAME]) -> Response:
        """Take a table (a `file` that ends in .csv: part,path,truth) and the pictures that it names as fields."""
        station.shelf.get(name)
        uploads = await uploads_of(request, most=MOST_STUDIED + 1)
        tables = [one for one in uploads if one.name.lower().endswith(".csv")]
        if len(tables) != 1:
            raise SettingError(f"A study needs one table, a file that ends in .csv, got {len(tables)}.")
        try:
            table = tables[0].picture.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise SettingError("The table of a study must be text in UTF-8.") from None
        pictures = [one for one in uploads if one is not tables[0]]
        key = await run_in_threadpool(station.studies.begin, name, table, pictures, actor_of(request))
        return answer({"id": key}, 202, {"Location": f"/v1/studies/{key}"})

    @routes.get(
        "/studies/{key}", responses=answers(having("id", "state")), summary="How far is it, and what was found?"
    )
    async def facts(key: Annotated[str, _KEY]) -> Response:
        return answer(await run_in_threadpool(station.studies.facts, key))

    @routes.get(
        "/studies/{key}/page",
        responses=answers({"type": "string"}, kind="text/html"),
        summary="The page of a study, to print",
    )
    async def page(key: Annotated[str, _KEY]) -> Response:
        text = await run_in_threadpool(station.studies.page, key)
        headers = {"Content-Disposition": f'attachment; filename="gauge-study-{key[:8]}.html"'}
        return Response(text, media_type="text/html", headers=headers)
