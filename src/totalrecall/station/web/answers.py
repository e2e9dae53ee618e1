"""What the routes take and answer, as the document of the interface (OpenAPI) tells it; and an answer itself."""

import json
from typing import Any

from fastapi import Path, Response

from totalrecall.station.web.problems import CONTENT_TYPE, PROBLEM

__all__ = [
    "BINARY",
    "DIGITS",
    "NAME",
    "OBJECT",
    "REFUSALS",
    "answer",
    "answers",
    "having",
    "many_pictures",
    "one_picture",
]

DIGITS = "^[0-9a-f]{32}$"  # of a key that the station made
NAME = Path(description="the stem of the model's file", min_length=1, max_length=300)
BINARY = {"type": "string", "format": "binary"}
OBJECT = {"type": "object"}
_REFUSAL = {"description": "why not", "content": {CONTENT_TYPE: {"schema": PROBLEM}}}
REFUSALS: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 403, 404, 409, 413, 415, 422, 500, 503), _REFUSAL)
_FORM = "multipart/form-data"


def having(*names: str) -> dict[str, Any]:
    """Return the schema of an object that has some names."""
    return {**OBJECT, "required": list(names)}


def answers(
    schema: dict[str, Any], *, status: int = 200, kind: str = "application/json", png: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Return what a route answers.

    Args:
        schema: of the content.
        status: of HTTP.
        kind: of the content.
        png: the answer may be a picture instead.
    """
    content = {kind: {"schema": schema}, **({"image/png": {"schema": BINARY}} if png else {})}
    return {status: {"description": "done", "content": content}, **REFUSALS}


def one_picture(texts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what a route takes: a picture as the field `file` or as the body, with texts as other fields."""
    kinds = {"application/octet-stream": {"schema": BINARY}, "image/*": {"schema": BINARY}}
    return _body({_FORM: _form(BINARY, texts), **kinds})


def many_pictures(texts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what a route takes: pictures as fields `file`, with texts as other fields."""
    return _body({_FORM: _form({"type": "array", "items": BINARY}, texts)})


def answer(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return JSON; of our own values, so nothing is checked or turned again."""
    return Response(json.dumps(body, ensure_ascii=False, allow_nan=False), status, headers, "application/json")


def _form(file: dict[str, Any], texts: dict[str, Any] | None) -> dict[str, Any]:
    return {"schema": {**having("file"), "properties": {"file": file, **(texts or {})}}}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}
