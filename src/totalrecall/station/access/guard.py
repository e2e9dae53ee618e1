"""The guard before the station's routes: who calls, from where, with what; only then a handler runs.

In this order: the head of the request (`guard_head.py`), the name by which the station is called, requests that pages
of other sites made, who calls, whether the table of permissions (`permissions.py`) lets that role call the route, the
hidden text of a session's forms, and the body's size and time (`guard_body.py`). Every answer gets headers that bind
the browser.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import anyio
import anyio.to_thread
from fastapi import Request
from starlette.routing import compile_path

from totalrecall.errors import ForbiddenError, HistoryError, LoginError
from totalrecall.station.access.guard_body import Answer, Body, Receive, RefusalPage, Send, Traffic, refuse
from totalrecall.station.access.guard_head import Head, RefusedError, check_cross_site, check_host, read_head
from totalrecall.station.access.permissions import ANYONE, PERMISSIONS, Permissions, unlisted
from totalrecall.station.access.policy import Policy, is_loopback
from totalrecall.station.access.sessions import Session, is_csrf, session_secret
from totalrecall.station.access.users import Users
from totalrecall.station.store.records import ANYBODY, Actor

__all__ = ["Caller", "Guard", "actor_of", "caller_of", "csrf_of", "requires", "safe_next"]

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BELIEVED = 0.5  # seconds for which it is believed that there is no user
_FIRST_PART = 1024  # bytes of a form with files that may hold the hidden text
_LOOKUPS = 8  # callers that are looked up at the same time
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="Total Recall"'}


@dataclass(frozen=True)
class Caller:
    """Who calls.

    Attributes:
        actor: name and role.
        session: of a person who has logged in; None for a token, and where nobody needs to log in.
        is_token: a machine calls.
    """

    actor: Actor
    session: Session | None = None
    is_token: bool = False


class Guard:
    """ASGI middleware that lets a request through only if the policy and the table of permissions allow it.

    Put it around the whole application (`Guard(app, ...)`), so that answers to unexpected faults pass it, too.

    Args:
        app: FastAPI or Starlette application, or middleware.
        policy: from where the station may be called.
        users: people and machines that may call; None lets everybody in where the policy does.
        permissions: who may call what.
        page: gives the page that says why a request is refused, for a person who looks at it.
    """

    def __init__(
        self,
        app: App,
        *,
        policy: Policy,
        users: Users | None = None,
        permissions: Mapping[tuple[str, str], frozenset[str]] = PERMISSIONS,
        page: RefusalPage | None = None,
    ) -> None:
        self.app = app
        self._page = page
        self._policy = policy
        self._users = users
        self._table = permissions
        self._permissions = Permissions(permissions)
        self._traffic = Traffic.of(policy)
        self._lookups = anyio.CapacityLimiter(_LOOKUPS)
        self._empty = (-math.inf, -1)  # when there was no user, and how many this process had added by then
        self._unlisted: list[tuple[str, Any]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the station has no WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = Answer(send, scope["path"], secure=scope.get("scheme") == "https")
        body = Body(receive, self._policy, self._traffic, self._policy.max_body)
        head: Head | None = None
        try:
            head = read_head(dict(scope), self._policy)
            answer = Answer(send, head.path, secure=head.is_secure)
            await self._let_in(scope, head, body, answer)
        except RefusedError as refusal:
            if answer.started:
                raise  # an answer that was begun cannot be taken back: the connection breaks
            answer.body = None
            if head is None or not head.is_safe:
                await body.drain()
            await refuse(answer, refusal, head, None if self._page is None else partial(self._page, scope))
        finally:
            body.end()

    async def _let_in(self, scope: Scope, head: Head, body: Body, answer: Answer) -> None:
        """Check a request, and have it handled.

        Raises:
            RefusedError: a check fails, or the body does not keep to the limits.
        """
        check_host(head, self._policy)
        methods = self._permissions.methods(head.path)
        method = "GET" if head.method == "HEAD" else head.method
        roles = methods.get(method, frozenset())
        public = ANYONE in roles
        check_cross_site(head, public=public)
        caller = None if public else await self._caller(head)
        if public:
            body.limit(self._policy.max_form, head.length)
        state = scope.setdefault("state", {})
        state["caller"], state["actor"] = caller, None if caller is None else caller.actor
        if caller is not None:
            self._check_permission(caller, methods, method)
            if caller.session is not None and not head.is_safe:
                await self._check_csrf(caller.session, head, body)
        self._check_listed(scope, head, method)
        scope["client"] = (head.client, (scope.get("client") or ("", 0))[1])
        scope["scheme"] = head.scheme
        answer.body = body
        # no route knows HEAD; of the answer to it the server sends the head alone
        asked = {**scope, "method": "GET"} if head.method == "HEAD" else scope
        try:
            await self.app(asked, body, answer)
        except Exception:
            if body.refusal is None:
                raise
        if body.refusal is not None and not answer.started:
            raise body.refusal

    async def _caller(self, head: Head) -> Caller:
        """Find out who calls.

        Raises:
            RefusedError: nobody who may.
        """
        authorizations = head.headers.get(b"authorization", [])
        if len(authorizations) > 1:
            raise RefusedError(400, "A request may have one Authorization header.")
        bearer: str | None = None
        if authorizations:
            kind, _, bearer = authorizations[0].decode("latin-1").strip().partition(" ")
            if kind.lower() != "bearer" or not bearer:
                raise RefusedError(401, "Authorization must be: Bearer TOKEN.", _CHALLENGE)
        secret = session_secret(head.headers.get(b"cookie", []), secure=head.is_secure)
        if bearer is None and secret is None and self._is_known_to_be_empty():
            return self._anybody(head)
        look_up = partial(self._look_up, None if bearer is None else bearer.strip(), secret)
        try:
            caller, somebody = await anyio.to_thread.run_sync(look_up, limiter=self._lookups)
        except HistoryError as error:
            raise RefusedError(503, str(error), {"Retry-After": "5"}) from None
        if caller is not None:
            return caller
        if bearer is not None:
            challenge = {"WWW-Authenticate": 'Bearer realm="Total Recall", error="invalid_token"'}
            raise RefusedError(401, "There is no such token, or it was revoked or has expired.", challenge)
        if not somebody:
            return self._anybody(head)
        raise _log_in_first(head)

    def _look_up(self, bearer: str | None, secret: str | None) -> tuple[Caller | None, bool]:
        """Return who has a token or a session, and whether there is any user."""
        if self._users is None:
            return None, False
        asked = time.monotonic(), self._users.added
        if bearer is not None:
            token = self._users.tokens.of_secret(bearer)
            return (None if token is None else Caller(token.actor, is_token=True)), True
        session = None if secret is None else self._users.sessions.of_secret(secret)
        if session is not None:
            return Caller(session.actor, session), True
        somebody = self._users.any()
        if not somebody:
            self._empty = asked
        return None, somebody

    def _is_known_to_be_empty(self) -> bool:
        """Tell whether there was no user half a second ago, and none was added here since.

        To ask the database at each picture would cost as much as all the rest of the guard. A first user whom another
        process adds is noticed half a second later.
        """
        at, added = self._empty
        return self._users is not None and self._users.added == added and time.monotonic() - at < _BELIEVED

    def _anybody(self, head: Head) -> Caller:
        """Let everybody in, where there is no user.

        Raises:
            RefusedError: the policy does not, or the request comes from elsewhere after all.
        """
        add = "Add a user at the station: totalrecall station users add NAME --role engineer."
        if not self._policy.is_open:
            raise RefusedError(401, f"The station has no users. {add}", _CHALLENGE)
        if not self._policy.insecure and (head.came_through_proxy or not _may_be_local(head.client)):
            raise RefusedError(403, f"Without users the station serves programs of its own computer only. {add}")
        return Caller(ANYBODY)

    def _check_permission(self, caller: Caller, methods: Mapping[str, frozenset[str]], method: str) -> None:
        """Refuse a route that is not there or not in the table, and a role that may not call it.

        Raises:
            RefusedError: it is.
        """
        if not methods:
            raise RefusedError(404, "There is no such page.")
        if method not in methods:
            raise RefusedError(405, f"{method} is not possible here.", {"Allow": ", ".join(sorted(methods))})
        if caller.actor.role not in methods[method]:
            able = ", ".join(sorted(methods[method] - {ANYONE}))
            raise RefusedError(
                403, f"{caller.actor.name} is {caller.actor.role}; this needs the role {able or 'of nobody'}."
            )

    async def _check_csrf(self, session: Session, head: Head, body: Body) -> None:
        """Refuse a change by a session that does not carry the session's hidden text.

        Raises:
            RefusedError: it does not.
        """
        text = head.get(b"x-csrf-token")
        if not text and head.content_type == "application/x-www-form-urlencoded":
            values = (await body.form(self._policy.max_form)).get("csrf", [])
            text = values[0] if len(values) == 1 else ""
        elif not text and head.boundary:  # a form with files: the hidden text stands first in it
            name, value = await body.first_field(head.boundary, _FIRST_PART)
            text = value if name == "csrf" else ""
        if not is_csrf(session, text):
            raise RefusedError(
                403, "The form has expired. Load the page again. (Programs send the header X-CSRF-Token.)"
            )

    def _check_listed(self, scope: Scope, head: Head, method: str) -> None:
        """Refuse a route that is not in the table, though another row's template fits its path.

        Raises:
            RefusedError: it is not.
        """
        if self._unlisted is None:
            app = self.app if hasattr(self.app, "routes") else scope.get("app")
            found = [] if app is None else unlisted(app, self._table)
            self._unlisted = [(one, compile_path(path or "/")[0]) for one, path in found]
        if any(one in (method, "*") and pattern.match(head.path) for one, pattern in self._unlisted):
            raise RefusedError(403, "This route is not in the station's table of permissions.")


def caller_of(request: Request) -> Caller:
    """Return who calls, for a handler.

    Raises:
        LoginError: the guard let nobody in: the route is for anybody, or there is no guard.
    """
    caller = getattr(request.state, "caller", None)
    if not isinstance(caller, Caller):
        raise LoginError("Log in first.")
    return caller


def actor_of(request: Request) -> Actor:
    """Return the name and role of who calls, for a handler.

    Raises:
        LoginError: as `caller_of`.
    """
    return caller_of(request).actor


def csrf_of(request: Request) -> str:
    """Return the hidden text for a form's field `csrf`, or for the header X-CSRF-Token; empty without a session."""
    caller = getattr(request.state, "caller", None)
    return caller.session.csrf if isinstance(caller, Caller) and caller.session is not None else ""


def requires(*roles: str) -> Callable[[Request], Actor]:
    """Return a FastAPI dependency that lets only some roles through, as a second lock beside the table."""

    def check(request: Request) -> Actor:
        actor = actor_of(request)
        if actor.role not in roles:
            raise ForbiddenError(f"{actor.name} is {actor.role}; this needs the role {' or '.join(roles)}.")
        return actor

    return check


def safe_next(text: str) -> str:
    """Return where to go after a login: a path of this station, or its first page for whatever is none."""
    plain = text.startswith("/") and not text.startswith("//") and "\\" not in text and len(text) <= 2000
    if not plain or any(ord(letter) <= 0x20 or ord(letter) >= 0x7F for letter in text):
        return "/"
    path = text.partition("?")[0].partition("#")[0]
    return "/" if "//" in path or path in ("/login", "/logout") else text


def _log_in_first(head: Head) -> RefusedError:
    """Return the way to the login page for a browser, and the word for a program."""
    if head.wants_page:
        target = quote(head.path) + (f"?{head.query}" if head.query else "")
        ways = {} if safe_next(target) == "/" else {"next": target}
        query = "".join(f"?{name}={quote(value, safe='')}" for name, value in ways.items())
        return RefusedError(303, "Log in first.", {"Location": f"/login{query}"})
    if head.shows_page and b"hx-request" not in head.headers:  # a form of a page whose session has ended
        return RefusedError(303, "Log in first.", {"Location": "/login"})
    headers = dict(_CHALLENGE)
    if head.headers.get(b"hx-request"):
        headers["HX-Redirect"] = "/login"
    return RefusedError(401, "Log in first, or send the header Authorization: Bearer TOKEN.", headers)


def _may_be_local(client: str) -> bool:
    """Tell whether a client is on this computer; a client without an address came through a socket file."""
    return is_loopback(client) or not any(letter in client for letter in ".:")
