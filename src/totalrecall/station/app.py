"""The web application: routes of the API and of the page behind one guard, bound to one station."""

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from totalrecall._version import __version__
from totalrecall.errors import ClusterError, HistoryError
from totalrecall.station.access.guard import Guard
from totalrecall.station.access.logins import Logins
from totalrecall.station.judging.metrics import CONTENT_TYPE, Metrics
from totalrecall.station.pages import add_pages
from totalrecall.station.web import api_v1, api_v2
from totalrecall.station.web.api_quality import quality_routes
from totalrecall.station.web.api_users import user_routes
from totalrecall.station.web.problems import add_problems, problem

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["build_app", "guarded"]


def guarded(station: "Station") -> ASGIApp:
    """Return the application of a station behind its guard, as it is served; what the guard refuses is counted, too."""
    app = build_app(station)
    guard = Guard(app, policy=station.settings.policy, users=station.users, page=app.state.page.refusal)
    return _Counting(guard, station.metrics)


def build_app(station: "Station") -> FastAPI:
    """Return the application of a station, with every route and without the guard."""
    app = FastAPI(
        title="Total Recall inspection station",
        version=__version__,
        description="Finds defects in pictures of products. A model's name is the stem of its file.",
        docs_url=None,  # its page loads from a network that a line has not
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    add_problems(app)

    @app.get("/healthz", tags=["health"], summary="Does it run?")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], summary="Can it judge?")
    async def readyz() -> Response:
        if not station.ready.is_set():
            return problem(503, "The station is starting or stopping.", headers={"Retry-After": "1"})
        if station.database.fault is not None:  # no picture is answered before it is written down
            fault = await run_in_threadpool(station.history.find_fault)
            if fault is not None:  # anybody may ask here, and the reason names the database
                raise HistoryError("The station cannot write into its database. What it refuses meanwhile says why.")
        if await run_in_threadpool(station.inspector.judges.find_fault) is not None:
            raise ClusterError("No replica judges at the moment. What is refused meanwhile says why.")
        return Response('{"status": "ready"}', media_type="application/json")

    @app.get("/metrics", tags=["health"], summary="Counters for Prometheus")
    async def metrics() -> Response:
        return Response(station.metrics.text(), media_type=CONTENT_TYPE)

    logins = Logins(station.users)
    for routes in (
        api_v1.router(station),
        api_v2.router(station),
        quality_routes(station),
        user_routes(station.users, logins),
    ):
        # not include_router: a router that is included is asked at each request whether its routes are still the same
        app.router.routes.extend(routes.routes)
    add_pages(app, station, logins)
    return app


class _Counting:
    """Counts answers by status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method: Any = scope["method"]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(method, message["status"])
            await send(message)

        await self._app(scope, receive, counted)
