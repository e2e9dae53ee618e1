"""The body of a request: so many bytes, in so much time; and what the guard answers of itself."""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import anyio

from totalrecall.station.access.guard_head import Head, RefusedError
from totalrecall.station.access.policy import Policy
from totalrecall.system.text import printable

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Answer", "Body", "Message", "Receive", "RefusalPage", "Send", "Traffic", "refuse"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RefusalPage = Callable[[MutableMapping[str, Any], int, str], tuple[str, dict[str, str]]]  # (scope, status, detail)

_DRAIN_BYTES, _DRAIN_SECONDS = 1 << 20, 1.0
_TOGETHER = 8  # largest bodies that may be on their way at the same time
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    # subtle: with no-referrer a browser would send `Origin: null` with the forms of our own pages
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Traffic:
    """The bytes of all bodies that are on their way.

    Args:
        most: that may be.
    """

    def __init__(self, most: int) -> None:
        self.bytes = 0
        self._most = most

    @classmethod
    def of(cls, policy: Policy) -> "Traffic":
        """Return the traffic that a policy lets in: several of the largest bodies at a time."""
        return cls(_TOGETHER * policy.max_body)

    def add(self, count: int) -> None:
        """Let bytes in.

        Raises:
            RefusedError: they are too many.
        """
        if self.bytes + count > self._most:
            raise RefusedError(503, "Too many large requests at the same time. Try again in 1 s.", {"Retry-After": "1"})
        self.bytes += count


class Body:
    """Receives the body of a request within limits of size and time.

    Args:
        receive: of ASGI.
        policy: of the station.
        traffic: of all requests.
        most: bytes of this body.

    Attributes:
        refusal: why no more of it is taken. The handler's answer is then not sent: it may take the refusal for its own
            fault.
    """

    def __init__(self, receive: Receive, policy: Policy, traffic: Traffic, most: int) -> None:
        self._receive = receive
        self._policy = policy
        self._traffic = traffic
        self._most = most
        self._began = anyio.current_time()
        self._count = 0
        self._done = False
        self._held: list[Message] = []
        self.refusal: RefusedError | None = None

    async def __call__(self) -> Message:
        """Return the next message of the body; after its end, wait for whatever comes."""
        if self._held:
            return self._held.pop(0)
        if self._done:
            return await self._receive()
        try:
            return await self._next()
        except RefusedError as refusal:
            self.refusal = refusal
            raise

    def limit(self, most: int, announced: int | None) -> None:
        """Take at most so many bytes.

        Raises:
            RefusedError: more are announced.
        """
        self._most = min(self._most, most)
        if announced is not None and announced > self._most:
            raise RefusedError(413, f"The body must have at most {self._most:,} bytes here, got {announced:,}.")

    async def form(self, most: int) -> dict[str, list[str]]:
        """Return the fields of a form, whose handler gets it all the same.

        Args:
            most: bytes of it.

        Raises:
            RefusedError: it is too large, or has too many fields.
        """
        parts = []
        while not self._done:
            message = await self()
            parts.append(message)
            if self._count > most:
                raise RefusedError(413, f"A form must have at most {most:,} bytes.")
        self._held = parts
        text = b"".join(part.get("body", b"") for part in parts).decode("utf-8", "replace")
        try:
            return parse_qs(text, keep_blank_values=True, max_num_fields=1000)
        except ValueError:
            raise RefusedError(400, "A form may have at most 1000 fields.") from None

    async def first_field(self, boundary: str, most: int) -> tuple[str, str]:
        """Return name and value of the first part of a multipart body, whose handler gets all of it all the same.

        Both are empty where the first part is a file, or is not whole within so many bytes.

        Args:
            boundary: that the head names.
            most: bytes that are looked at.

        Raises:
            RefusedError: the body is too large, or comes too slowly.
        """
        parts, start = [], b""
        while not self._done and len(start) < most:
            message = await self()
            parts.append(message)
            start += message.get("body", b"")
        self._held = parts
        mark = re.escape(b"--" + boundary.encode("latin-1"))
        head = rb'\r\nContent-Disposition: form-data; name="(\w+)"\r\n\r\n'
        field = re.match(mark + head + rb"([\x20-\x7e]*)\r\n" + mark, start[:most], re.IGNORECASE)
        return ("", "") if field is None else (field[1].decode("ascii", "replace"), field[2].decode("ascii"))

    async def drain(self) -> None:
        """Take in a little of a body that nobody wants: a client that is still sending may not read the answer."""
        count = 0
        with suppress(RefusedError), anyio.move_on_after(_DRAIN_SECONDS):
            while not self._done and count < _DRAIN_BYTES:
                message = await self._receive()
                count += len(message.get("body", b""))
                self._done = message["type"] != "http.request" or not message.get("more_body", False)

    def end(self) -> None:
        """Forget the bytes: the request is done."""
        self._traffic.bytes -= self._count
        self._count = 0

    async def _next(self) -> Message:
        timeout = self._policy.timeout
        left = self._began + timeout + self._count / self._policy.slowest - anyio.current_time()
        message: Message | None = None
        with anyio.move_on_after(max(0.0, min(timeout, left))):
            message = await self._receive()
        if message is None:
            self._done = True  # nothing more is waited for
            raise RefusedError(408, f"The body came too slowly: {self._count:,} bytes so far.")
        if message["type"] != "http.request":
            self._done = True
            return message
        self._done = not message.get("more_body", False)
        count = len(message.get("body", b""))
        if self._count + count > self._most:
            raise RefusedError(413, f"The body must have at most {self._most:,} bytes.")
        self._traffic.add(count)
        self._count += count
        return message


class Answer:
    """Sends an answer with the headers that keep a browser from doing with it what it should not.

    Args:
        send: of ASGI.
        path: of the request.
        secure: the client calls over TLS.

    Attributes:
        started: something was sent.
        body: of the request; once it was refused, the handler's answer is dropped.
    """

    def __init__(self, send: Send, path: str, *, secure: bool) -> None:
        self._send = send
        self._headers = dict(_HEADERS)
        self._headers[b"cache-control"] = b"no-cache" if path.startswith("/static/") else b"no-store"
        if secure:
            self._headers[b"strict-transport-security"] = b"max-age=31536000"
        self.started = False
        self.body: Body | None = None

    async def __call__(self, message: Message) -> None:
        """Send a message."""
        if not self.started and self.body is not None and self.body.refusal is not None:
            return
        if message["type"] == "http.response.start":
            self.started = True
            given = list(message.get("headers", []))
            names = {name.lower() for name, _ in given}
            lacking = [(name, value) for name, value in self._headers.items() if name not in names]
            message = {**message, "headers": given + lacking}
        await self._send(message)


@cache
def _page() -> "Template":
    from jinja2 import Template

    return Template(Path(__file__).with_name("refused.html").read_text(encoding="utf-8"), autoescape=True)


async def refuse(
    answer: Answer,
    refusal: RefusedError,
    head: Head | None,
    page: Callable[[int, str], tuple[str, dict[str, str]]] | None = None,
) -> None:
    """Answer a request that is refused: with a page where a person looks, else with problem JSON (RFC 9457).

    Args:
        answer: to send it by.
        refusal: why.
        head: of the request; None if it cannot be read.
        page: gives the page and its headers for (status, detail); by default a plain one in English.
    """
    title = HTTPStatus(refusal.status).phrase
    detail = printable(" ".join(refusal.detail.split()))
    more = dict(refusal.headers)
    if head is not None and page is not None and head.shows_page:
        text, given = page(refusal.status, detail)
        kind, more = "text/html; charset=utf-8", given | more
    elif head is not None and head.wants_page:
        text, kind = _page().render(title=title, detail=detail), "text/html; charset=utf-8"
    else:
        problem = {"type": "about:blank", "title": title, "status": refusal.status, "detail": detail}
        text, kind = json.dumps(problem) + "\n", "application/problem+json"
    content = b"" if head is not None and head.method == "HEAD" else text.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(text.encode())).encode())]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in more.items()]
    if head is None or not head.is_safe:
        headers.append((b"connection", b"close"))  # what is left of the body is not read
    await answer({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await answer({"type": "http.response.body", "body": content})
