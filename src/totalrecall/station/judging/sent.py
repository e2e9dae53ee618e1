"""Pictures out of an HTTP request: multipart fields `file`, or the body itself."""

from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile

from totalrecall.errors import SettingError

__all__ = ["Sent", "sent_pictures"]

_FIELDS = 16  # of a form, besides pictures
_LONGEST_FIELD = 4096  # bytes of one that is no picture


@dataclass(frozen=True)
class Sent:
    """A picture as a client sent it.

    Attributes:
        picture: the bytes of its file.
        name: that the client gave it; it is never opened.
        serial, line: as the client said, for all pictures of the request.
    """

    picture: bytes
    name: str
    serial: str | None = None
    line: str | None = None


async def sent_pictures(request: Request, *, most: int) -> list[Sent]:
    """Return the pictures of a request.

    Args:
        request: whose size the guard limits.
        most: pictures that are allowed.

    Raises:
        SettingError: there is none, there are more, or a field is unknown.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _of_form(request, most)
    if kind in ("", "application/octet-stream") or kind.startswith("image/"):
        body = await request.body()
        if not body:
            raise SettingError("The request holds no picture. Send it as the multipart field file, or as the body.")
        query = request.query_params
        return [Sent(body, query.get("name", ""), query.get("serial"), query.get("line"))]
    raise SettingError(
        f"A picture is sent as multipart/form-data with the field file, or as a body of image/* or "
        f"application/octet-stream, got {kind[:80]!r}."
    )


async def _of_form(request: Request, most: int) -> list[Sent]:
    async with request.form(max_files=most, max_fields=_FIELDS, max_part_size=_LONGEST_FIELD) as form:
        files, texts = [], {}
        for name, value in form.multi_items():
            if name == "file" and isinstance(value, UploadFile):
                files.append((value.filename or "", await value.read()))
            elif name in ("serial", "line") and isinstance(value, str):
                texts[name] = value
            elif name != "csrf":  # that is the guard's, who has read it
                raise SettingError(f"A form has the fields file (a picture), serial and line, got {name[:80]!r}.")
    if not files:
        raise SettingError("The form holds no picture. Send it as the field file, with a file name.")
    if any(not data for _, data in files):
        raise SettingError("A picture of the form is empty.")
    return [Sent(data, name, texts.get("serial"), texts.get("line")) for name, data in files]
