"""The judge view: rejects and near misses that a person has not looked at yet, one after the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response

from totalrecall.errors import SettingError
from totalrecall.station.pages.page import Page, actor_of, back_to, is_htmx
from totalrecall.station.pages.views import Key, Shown, checked_key, shown
from totalrecall.station.store.records import JUDGEMENTS, Filter

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["Sitting", "add_judging"]

_WINDOW = 200  # pictures of the queue among which one goes back and forth
_UNDOABLE = 20


@dataclass(frozen=True)
class Sitting:
    """What a person has done since the view was opened; it travels with the page.

    Attributes:
        model: whose pictures are judged; None for all.
        judged: keys of what was judged, the last first, as far as it can be taken back.
        count: how many were judged.
    """

    model: str | None
    judged: tuple[str, ...] = ()
    count: int = 0


def add_judging(routes: APIRouter, page: Page) -> None:
    """Add the judge view's routes."""
    station = page.station

    @routes.get("/judge")
    def judge(
        request: Request,
        model: Annotated[str | None, Query(max_length=300)] = None,
        at: Annotated[str | None, Query(max_length=40)] = None,
        judged: Annotated[str, Query(max_length=_UNDOABLE * 33)] = "",
        count: Annotated[int, Query(ge=0, le=10**6)] = 0,
    ) -> Response:
        name = station.shelf.get(model).name if model else None
        sitting = Sitting(name, _keys(judged), count)
        values = {"view": "judge", "model": name, **_card(station, sitting, at)}
        return page.render_part(request, "judge.html", "judge_card.html", values)

    @routes.post("/judge/{key}")
    def judged(
        request: Request,
        key: Key,
        judgement: Annotated[str, Form(max_length=20)] = "",
        model: Annotated[str, Form(max_length=300)] = "",
        done: Annotated[str, Form(max_length=_UNDOABLE * 33)] = "",
        count: Annotated[int, Form(ge=0, le=10**6)] = 0,
        back: Annotated[str, Form(max_length=2000)] = "",
    ) -> Response:
        """Write down what a person says; an empty judgement takes it back."""
        if judgement not in ("", *JUDGEMENTS):
            raise SettingError(f"judgement must be one of {', '.join(JUDGEMENTS)}, or empty, got {judgement!r}.")
        inspection = station.history.inspection(key)
        name = station.shelf.get(model).name if model else None
        after = _after(station, name, key) if judgement else key
        said = station.history.judge(inspection.key, judgement or None, actor_of(request))
        station.kept.judged(said)  # a picture that was judged goes before one that was not
        keys = [one for one in _keys(done) if one != key]
        if judgement:
            sitting = Sitting(name, (key, *keys)[:_UNDOABLE], count + 1)
        else:
            sitting = Sitting(name, tuple(keys), max(count - 1, 0))
        if not is_htmx(request):
            return back_to(back or "/judge", "judged" if judgement else "taken_back")
        return page.render(
            request, "judge_card.html", {"view": "judge", "model": name, **_card(station, sitting, after)}
        )


def _card(station: "Station", sitting: Sitting, at: str | None) -> dict[str, Any]:
    """Return what the card shows: an inspection, its neighbours in the queue, and how far one is."""
    wanted = Filter(model=sitting.model, to_judge=True)
    keys = [one.key for one in station.history.find(wanted, limit=_WINDOW)]
    left = station.history.count(wanted) if len(keys) == _WINDOW else len(keys)
    place = keys.index(at) if at in keys else 0
    current: Shown | None = None
    if keys:
        current = shown(station, station.history.inspection(keys[place]), outlines=True)
    following = keys[place + 1] if place + 1 < len(keys) else None
    return {
        "current": current,
        "sitting": sitting,
        "done": ".".join(sitting.judged),
        "left": left,
        "place": place + 1,
        "before": keys[place - 1] if place > 0 else None,
        "after": following,
        "upcoming": None if following is None else shown(station, station.history.inspection(following)),
    }


def _after(station: "Station", model: str | None, key: str) -> str | None:
    """Return what comes after an inspection in the queue, else what comes before it."""
    keys = [one.key for one in station.history.find(Filter(model=model, to_judge=True), limit=_WINDOW)]
    if key not in keys:
        return None
    place = keys.index(key)
    return keys[place + 1] if place + 1 < len(keys) else keys[place - 1] if place else None


def _keys(text: str) -> tuple[str, ...]:
    return tuple(checked_key(part) for part in text.split(".") if part)[:_UNDOABLE]
