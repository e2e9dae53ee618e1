"""The study view: a gauge study of the station, from pictures of parts whose truth is known."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from totalrecall.errors import DataError
from totalrecall.station.pages.page import Page, actor_of, go_to
from totalrecall.station.pages.views import Key
from totalrecall.station.quality.studies import MOST_STUDIED
from totalrecall.station.web.uploads import read_form

__all__ = ["add_study"]

_LARGEST_TABLE = 4 << 20  # bytes


def add_study(routes: APIRouter, page: Page) -> None:
    """Add the study view's routes."""
    station = page.station

    @routes.get("/study")
    def study(request: Request) -> Response:
        return page.render(request, "study.html", {"view": "models", "runs": station.studies.all()})

    @routes.post("/study")
    async def begin(request: Request) -> Response:
        """Take a table and its pictures, and begin to judge them."""
        form = await read_form(request, most=MOST_STUDIED + 1, tables=("table",), texts=("model",))
        model, table = page.model_name(form.texts.get("model")), _table(form.tables.get("table", b""))
        key = await run_in_threadpool(station.studies.begin, model, table, form.uploads, actor_of(request))
        return go_to(request, f"/study/{key}")

    @routes.get("/study/{key}")
    def run(request: Request, key: Key) -> Response:
        facts = station.studies.facts(key)
        values = {"view": "models", "facts": facts, "key": key}
        return page.render_part(request, "study_run.html", "study_now.html", values)

    @routes.get("/study/{key}/page.html")
    def saved(key: Key) -> Response:
        """Return the study as one file to save or print; it holds its own style, so it is not shown within the page."""
        html = station.studies.page(key)
        headers = {"Content-Disposition": f'attachment; filename="study-{key[:8]}.html"'}
        return Response(html, headers=headers, media_type="text/html; charset=utf-8")


def _table(data: bytes) -> str:
    """Return the text of the table that was sent.

    Raises:
        DataError: there is none, it is too large, or it is no text.
    """
    if not data or len(data) > _LARGEST_TABLE:
        raise DataError("A study needs a table (CSV) with the columns part, path and truth, of at most 4 MB.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("The table must be text in UTF-8.") from None
