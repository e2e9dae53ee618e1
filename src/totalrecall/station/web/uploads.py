"""Pictures out of an HTTP request: multipart fields `file`, or the body itself."""

from collections.abc import Collection
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile

from totalrecall.errors import SettingError
from totalrecall.station.judging.caption import Caption, Upload

__all__ = ["Form", "read_form", "uploads_of"]

_FIELDS = 16  # of a form, besides pictures
_LONGEST_FIELD = 4096  # bytes of one that is no picture


@dataclass(frozen=True)
class Form:
    """A form with pictures.

    Attributes:
        uploads: the fields `file`, in their order.
        tables: the bytes of files that are no pictures, by their fields.
        texts: the other fields.
    """

    uploads: list[Upload]
    tables: dict[str, bytes]
    texts: dict[str, str]

    def check_pictures(self) -> None:
        """Refuse a form without pictures, or with an empty one.

        Raises:
            SettingError: it is.
        """
        if not self.uploads:
            raise SettingError("The form holds no picture. Send it as the field file, with a file name.")
        if not all(one.picture for one in self.uploads):
            raise SettingError("A picture of the form is empty.")


async def read_form(request: Request, *, most: int, tables: Collection[str] = (), texts: Collection[str] = ()) -> Form:
    """Return the form of a request whose size the guard limits.

    Args:
        request: of the type multipart/form-data.
        most: files that are allowed.
        tables: fields of files that are no pictures.
        texts: fields of texts.

    Raises:
        SettingError: a field is unknown.
    """
    read = Form([], {}, {})
    async with request.form(max_files=most, max_fields=_FIELDS, max_part_size=_LONGEST_FIELD) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) and name == "file":
                read.uploads.append(Upload(await value.read(), Caption(name=value.filename or "")))
            elif isinstance(value, UploadFile) and name in tables:
                read.tables[name] = await value.read()
            elif isinstance(value, str) and name in texts:
                read.texts[name] = value
            elif name != "csrf":  # that is the guard's, who has read it
                known = ", ".join(("file (a picture)", *tables, *texts))
                raise SettingError(f"The fields of this form may be {known}; got {name[:80]!r}.")
    return read


async def uploads_of(request: Request, *, most: int) -> list[Upload]:
    """Return the pictures of a request, with what is said of all of them.

    Args:
        request: whose size the guard limits.
        most: pictures that are allowed.

    Raises:
        SettingError: there is none, there are more, or a field is unknown.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _of_form(await read_form(request, most=most, texts=("serial", "line")))
    if kind in ("", "application/octet-stream") or kind.startswith("image/"):
        body = await request.body()
        if not body:
            raise SettingError("The request holds no picture. Send it as the multipart field file, or as the body.")
        query = request.query_params
        caption = Caption(name=query.get("name", ""), serial=query.get("serial"), line=query.get("line"))
        return [Upload(body, caption)]
    raise SettingError(
        f"A picture is sent as multipart/form-data with the field file, or as a body of image/* or "
        f"application/octet-stream, got {kind[:80]!r}."
    )


def _of_form(form: Form) -> list[Upload]:
    form.check_pictures()
    serial, line = form.texts.get("serial"), form.texts.get("line")
    return [Upload(one.picture, Caption(name=one.name, serial=serial, line=line)) for one in form.uploads]
