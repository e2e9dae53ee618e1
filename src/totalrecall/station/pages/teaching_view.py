"""What changes a model: golden pictures and their check, teaching, proposed versions, recipes."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from totalrecall.station.drawing import thumbnail
from totalrecall.station.pages.page import Page, actor_of, back_to, quoted
from totalrecall.station.pages.views import Key, checked_key
from totalrecall.station.web.uploads import read_form

__all__ = ["add_golden", "add_recipes", "add_teaching"]

_MOST = 50  # golden pictures of one form
_REASON = Form(max_length=500)
_NAME = Path(max_length=300)


def add_golden(routes: APIRouter, page: Page) -> None:
    """Add the routes of golden pictures."""
    station = page.station

    @routes.post("/models/{name}/golden/check")
    def check(request: Request, name: Annotated[str, _NAME]) -> Response:
        run = station.golden.check(name, actor_of(request))
        return back_to(f"/models/{quoted(name)}", "golden_passed" if run["passed"] else "golden_failed")

    @routes.post("/models/{name}/golden/release")
    def release(request: Request, name: Annotated[str, _NAME], reason: Annotated[str, _REASON]) -> Response:
        station.golden.release(name, reason, actor_of(request))
        return back_to(f"/models/{quoted(name)}", "released")

    @routes.post("/models/{name}/golden")
    async def upload(request: Request, name: Annotated[str, _NAME]) -> Response:
        """Make pictures golden that a person sends, whose truth that person knows."""
        form = await read_form(request, most=_MOST, texts=("expected",))
        form.check_pictures()
        expected, actor = form.texts.get("expected", ""), actor_of(request)
        for one in form.uploads:
            add_one = partial(station.golden.add, name, one.picture, expected=expected, name=one.name, actor=actor)
            await run_in_threadpool(add_one)
        return back_to(f"/models/{quoted(name)}", "golden_added")

    @routes.post("/golden/add/{key}")
    def add(request: Request, key: Key) -> Response:
        """Make the picture of a judged inspection a golden one."""
        added = station.golden.add_inspected(key, actor_of(request))
        return back_to(f"/models/{quoted(added['model'])}", "golden_added")

    @routes.post("/golden/{key}/remove")
    def remove(request: Request, key: Key, model: Annotated[str, Form(max_length=300)]) -> Response:
        station.golden.remove(key, actor_of(request))
        return back_to(f"/models/{quoted(station.shelf.get(model).name)}", "golden_removed")

    @routes.get("/golden/{key}/small.jpg")
    def picture(key: Key) -> Response:
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(thumbnail(station, station.golden.picture(key)), headers=headers, media_type="image/jpeg")


def add_teaching(routes: APIRouter, page: Page) -> None:
    """Add the routes of teaching: proposals, their comparison, approval, and the way back."""
    station = page.station

    @routes.post("/models/{name}/teach")
    def teach(
        request: Request,
        name: Annotated[str, _NAME],
        key: Annotated[list[str], Form(max_length=200)],
        what: Annotated[str, Form(max_length=20)] = "fine",
    ) -> Response:
        """Begin to make a proposed version from pictures that people judged."""
        chosen = {"missed" if what == "missed" else "fine": list(map(checked_key, key))}
        begun = station.teaching.propose(name, actor=actor_of(request), **chosen)
        return back_to(f"/proposals/{begun}")

    @routes.get("/proposals/{key}")
    def proposal(request: Request, key: Key) -> Response:
        facts = station.teaching.facts(key)
        values = {"view": "models", "model": facts["model"], "facts": facts, "key": key}
        return page.render_part(request, "proposal.html", "proposal_now.html", values)

    @routes.post("/proposals/{key}/approve")
    def approve(request: Request, key: Key) -> Response:
        facts = station.teaching.approve(key, actor_of(request))
        return back_to(f"/models/{quoted(facts['model'])}", "approved")

    @routes.post("/proposals/{key}/reject")
    def reject(request: Request, key: Key) -> Response:
        facts = station.teaching.reject(key, actor_of(request))
        return back_to(f"/models/{quoted(facts['model'])}", "rejected")

    @routes.post("/proposals/{key}/cancel")
    def cancel(key: Key) -> Response:
        facts = station.teaching.facts(key)
        station.teaching.cancel(key)
        return back_to(f"/models/{quoted(facts['model'])}", "cancelled")

    @routes.post("/models/{name}/undo")
    def undo(request: Request, name: Annotated[str, _NAME]) -> Response:
        station.teaching.undo(name, actor_of(request))
        return back_to(f"/models/{quoted(name)}", "undone")


def add_recipes(routes: APIRouter, page: Page) -> None:
    """Add the routes of recipes."""
    station = page.station

    @routes.get("/recipes")
    def recipes(request: Request) -> Response:
        return page.render(request, "recipes.html", {"view": "recipes", "facts": station.recipes.facts()})

    @routes.post("/recipes")
    def select(request: Request, product: Annotated[str, Form(max_length=200)] = "") -> Response:
        """Choose the product that is made; an empty name chooses none."""
        station.recipes.select(product or None, actor_of(request))
        return back_to("/recipes", "recipe_selected")
