"""The history view and the drift view: what was inspected, and whether something has moved since."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import StreamingResponse

from totalrecall.errors import SettingError
from totalrecall.station.pages.page import Page, actor_of, back_to
from totalrecall.station.pages.views import Key, checked_key, shown
from totalrecall.station.store.records import JUDGEMENTS, VERDICTS, Filter, typed_time

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["TypedFilter", "add_drift", "add_history"]

_PAGE = 50
_SPANS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=31)}
_LONGEST = 200


@dataclass(frozen=True)
class TypedFilter:
    """What a person filters by, as typed; an empty text does not matter."""

    model: str = ""
    verdict: str = ""
    judgement: str = ""
    serial: str = ""
    text: str = ""
    span: str = ""
    since: str = ""
    until: str = ""

    def filter(self) -> Filter:
        """Return it as the history understands it.

        Raises:
            SettingError: a value is none of those that are allowed.
        """
        since = typed_time("since", self.since) if self.since.strip() else None
        if self.span:
            if self.span not in _SPANS:
                raise SettingError(f"span must be one of {', '.join(_SPANS)}, got {self.span!r}.")
            since = datetime.now(timezone.utc) - _SPANS[self.span]
        return Filter(
            model=self.model or None,
            verdict=self.verdict or None,
            judgement=self.judgement or None,
            serial=self.serial.strip() or None,
            text=self.text.strip() or None,
            since=since,
            until=typed_time("until", self.until) if self.until.strip() else None,
        )

    def query(self, *, before: str | None = None) -> str:
        """Return it as the query of an address."""
        typed = {name: value for name, value in asdict(self).items() if value}
        return urlencode({**typed, **({} if before is None else {"before": before})})


def _asked(
    model: Annotated[str, Query(max_length=300)] = "",
    verdict: Annotated[str, Query(max_length=20)] = "",
    judgement: Annotated[str, Query(max_length=20)] = "",
    serial: Annotated[str, Query(max_length=_LONGEST)] = "",
    text: Annotated[str, Query(max_length=_LONGEST)] = "",
    span: Annotated[str, Query(max_length=20)] = "",
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
) -> TypedFilter:
    return TypedFilter(model, verdict, judgement, serial, text, span, since, until)


_Filter = Annotated[TypedFilter, Depends(_asked)]


def add_history(routes: APIRouter, page: Page) -> None:
    """Add the history's routes."""
    station = page.station

    @routes.get("/history")
    def history(
        request: Request, asked: _Filter, before: Annotated[str | None, Query(max_length=40)] = None
    ) -> Response:
        wanted = asked.filter()
        found = station.history.find(wanted, _PAGE + 1, checked_key(before) if before else None)
        more = found[_PAGE - 1].key if len(found) > _PAGE else None
        values = {
            "view": "history",
            "model": asked.model or None,
            "asked": asked,
            "rows": [shown(station, one) for one in found[:_PAGE]],
            "total": station.history.count(wanted),
            "older": asked.query(before=more) if more else None,
            "newest": asked.query() if before else None,
            "verdicts": VERDICTS,
            "judgements": (*JUDGEMENTS, "none"),
            "spans": tuple(_SPANS),
        }
        return page.render(request, "history.html", values)

    @routes.get("/history.csv")
    def csv(asked: _Filter) -> Response:
        """Download what the filters leave, as CSV."""
        lines = station.history.csv(asked.filter())
        headers = {"Content-Disposition": 'attachment; filename="inspections.csv"', "Cache-Control": "no-store"}
        return StreamingResponse(_encoded(lines), headers=headers, media_type="text/csv; charset=utf-8")

    @routes.get("/history/{key}")
    def inspection(request: Request, key: Key) -> Response:
        current = station.history.inspection(key)
        values = {"view": "history", "model": current.model, "current": shown(station, current, outlines=True)}
        return page.render(request, "inspection.html", values)


def add_drift(routes: APIRouter, page: Page) -> None:
    """Add the drift view's routes."""
    station = page.station

    @routes.get("/drift")
    def drift(request: Request, model: Annotated[str | None, Query(max_length=300)] = None) -> Response:
        chosen = [station.shelf.get(model)] if model else station.shelf.all()
        values = {
            "view": "drift",
            "model": model or None,
            "watched": [(loaded.name, station.drift.facts(loaded), _hours(station, loaded.name)) for loaded in chosen],
        }
        return page.render(request, "drift.html", values)

    @routes.post("/drift/reset")
    def reset(
        request: Request,
        model: Annotated[str, Form(max_length=300)],
        reason: Annotated[str, Form(max_length=_LONGEST)],
    ) -> Response:
        """Begin to watch anew, with a reason for the trail."""
        if not reason.strip():
            raise SettingError("reason must say why the watch begins anew, got nothing.")
        loaded = station.shelf.get(model)
        station.trail.append(actor_of(request), "drift reset", loaded.name, {"reason": reason.strip()}).result()
        station.drift.reset(loaded)
        return back_to("/drift", "drift_reset")


def _hours(station: "Station", model: str) -> list[dict[str, Any]]:
    """Return the last day's rejects by the hour, as columns of a small drawing."""
    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    counted = dict(station.history.per_hour(model, now - timedelta(hours=23)))
    columns = []
    for back in range(23, -1, -1):
        at = now - timedelta(hours=back)
        verdicts = counted.get(at, {})
        total = sum(verdicts.values())
        rejects = total - verdicts.get("good", 0)
        columns.append({"at": at, "total": total, "rejects": rejects, "share": rejects / total if total else 0.0})
    return columns


def _encoded(lines: Iterator[str]) -> Iterator[bytes]:
    yield b"\xef\xbb\xbf"  # so that spreadsheets read it as UTF-8
    for line in lines:
        yield line.encode("utf-8", "replace")
