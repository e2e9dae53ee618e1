"""The study view: a gauge study of the station, from pictures of parts whose truth is known."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from totalrecall.errors import DataError
from totalrecall.station.judging.sent import Sent
from totalrecall.station.pages.page import Page, actor_of, back_to, is_htmx
from totalrecall.station.pages.views import is_key

if TYPE_CHECKING:
    from starlette.datastructures import FormData

__all__ = ["add_study"]

_MOST = 2000  # pictures
_FIELDS = 4
_LONGEST_FIELD = 4096
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
        async with request.form(max_files=_MOST + 1, max_fields=_FIELDS, max_part_size=_LONGEST_FIELD) as form:
            model, table = page.model_name(str(form.get("model") or "")), await _table(form)
            sent = [
                Sent(await value.read(), value.filename or "")
                for name, value in form.multi_items()
                if name == "file" and isinstance(value, UploadFile)
            ]
        key = await run_in_threadpool(station.studies.begin, model, table, sent, actor_of(request))
        if is_htmx(request):
            return Response(status_code=204, headers={"HX-Redirect": f"/study/{key}"})
        return back_to(f"/study/{key}")

    @routes.get("/study/{key}")
    def run(request: Request, key: str) -> Response:
        facts = station.studies.facts(key if is_key(key) else "?")
        template = "study_now.html" if is_htmx(request) else "study_run.html"
        return page.render(request, template, {"view": "models", "facts": facts, "key": key})

    @routes.get("/study/{key}/page.html")
    def saved(key: str) -> Response:
        """Return the study as one file to save or print; it holds its own style, so it is not shown within the page."""
        html = station.studies.page(key if is_key(key) else "?")
        headers = {"Content-Disposition": f'attachment; filename="study-{key[:8]}.html"'}
        return Response(html, headers=headers, media_type="text/html; charset=utf-8")


async def _table(form: "FormData") -> str:
    """Return the text of the table that was sent.

    Raises:
        DataError: there is none, it is too large, or it is no text.
    """
    sent = form.get("table")
    data = await sent.read() if isinstance(sent, UploadFile) else b""
    if not data or len(data) > _LARGEST_TABLE:
        raise DataError("A study needs a table (CSV) with the columns part, path and truth, of at most 4 MB.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("The table must be text in UTF-8.") from None
