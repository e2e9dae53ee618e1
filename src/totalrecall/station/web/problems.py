"""Errors as RFC 9457 problem JSON: one form for every answer that is no success."""

import json
import secrets
import sys
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from totalrecall.errors import BusyError, ClusterError, HistoryError, ThrottledError, TotalRecallError
from totalrecall.station.access.guard_head import RefusedError
from totalrecall.system.text import printable

__all__ = ["CONTENT_TYPE", "PROBLEM", "add_problems", "problem", "retry_after"]

CONTENT_TYPE = "application/problem+json"
_RETRY = {BusyError: 1, ClusterError: 5, HistoryError: 5}  # seconds
_TYPE = "https://totalrecall.invalid/problems/"  # names a kind of problem; nothing is there to be fetched
PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "one line for a person"},
    },
}


def problem(status: int, detail: str, *, kind: str = "", headers: dict[str, str] | None = None) -> Response:
    """Return a problem as a response.

    Args:
        status: of HTTP.
        detail: one line for a person.
        kind: the name of the error.
        headers: of the response.
    """
    body = {
        "type": f"{_TYPE}{kind}" if kind else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": printable(" ".join(detail.split())),
    }
    return Response(json.dumps(body), status, headers, CONTENT_TYPE)


def retry_after(error: TotalRecallError) -> dict[str, str]:
    """Return the header that says when to ask again, for an error that passes by itself."""
    seconds = error.seconds if isinstance(error, ThrottledError) else _RETRY.get(type(error))
    return {} if seconds is None else {"Retry-After": str(seconds)}


def _of_error(error: TotalRecallError) -> Response:
    """Return one of our errors as a response."""
    return problem(error.http_status, str(error), kind=type(error).__name__, headers=retry_after(error))


def add_problems(app: FastAPI) -> None:
    """Let an application answer every error in this form."""

    async def known(_: Request, error: Exception) -> Response:
        assert isinstance(error, TotalRecallError)
        return _of_error(error)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5]]
        return problem(422, "; ".join(said), kind="SettingError")

    async def unexpected(_: Request, error: Exception) -> Response:
        number = secrets.token_hex(4)  # a client learns nothing of the inside; the log tells which fault it was
        what = printable(" ".join(f"{type(error).__name__}: {error}".split()))
        print(f"totalrecall: unexpected fault {number}: {what}", file=sys.stderr)
        return problem(500, f"unexpected fault {number}; the station's log names it")

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)  # of the body, by the guard, which answers in its own way
        return problem(error.status, error.detail)

    async def gone(_: Request, error: Exception) -> Response:
        assert isinstance(error, ClientDisconnect)
        return problem(400, "The client went away before its request was whole.")  # nobody reads it; it is counted

    app.add_exception_handler(TotalRecallError, known)
    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)
