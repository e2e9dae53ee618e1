"""Routes of login and logout, and for engineers of users and tokens."""

from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from totalrecall.errors import ForbiddenError, LoginError, SettingError, ThrottledError
from totalrecall.station.access.guard import caller_of, csrf_of, requires, safe_next
from totalrecall.station.access.logins import Logins
from totalrecall.station.access.passwords import LONGEST_PASSWORD
from totalrecall.station.access.sessions import Session, ended_cookie, session_cookie, session_secret
from totalrecall.station.access.tokens import Token
from totalrecall.station.access.users import User, Users
from totalrecall.station.store.records import Actor, iso

__all__ = ["user_routes"]

T = TypeVar("T")

_LONGEST_FIELD = 4 * LONGEST_PASSWORD  # a longer one is refused before anything is made of it


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Login(_Body):
    name: str = Field(max_length=_LONGEST_FIELD)
    password: str = Field(max_length=_LONGEST_FIELD)


class _PasswordChange(_Body):
    password: str = Field(max_length=_LONGEST_FIELD, description="today's")
    new: str = Field(max_length=_LONGEST_FIELD)


class _NewUser(_Body):
    name: str = Field(max_length=_LONGEST_FIELD)
    role: str
    password: str = Field(max_length=_LONGEST_FIELD)


class _UserChange(_Body):
    role: str | None = None
    disabled: bool | None = None
    password: str | None = Field(default=None, max_length=_LONGEST_FIELD)


class _NewToken(_Body):
    name: str = Field(max_length=_LONGEST_FIELD)
    role: str = "machine"
    days: float | None = None


def user_routes(users: Users, logins: Logins | None = None) -> APIRouter:
    """Return the routes of login, logout, users and tokens.

    Args:
        users: of the station.
        logins: checks passwords.
    """
    router = APIRouter()
    logins = Logins(users) if logins is None else logins
    _add_login(router, users, logins)
    _add_me(router, logins)
    _add_users(router, users, logins)
    _add_tokens(router, users)
    return router


def _add_login(router: APIRouter, users: Users, logins: Logins) -> None:
    """Add login and logout, for programs (JSON) and for the forms of the pages."""

    async def begin(request: Request, name: str, password: str) -> tuple[Session, str]:
        """Begin a session in the place of the one that the request came with; return it with its cookie."""
        secure = request.url.scheme == "https"
        cookies = [value for key, value in request.scope["headers"] if key == b"cookie"]
        address = request.client.host if request.client else ""
        before = session_secret(cookies, secure=secure)
        session, secret = await logins.log_in(name, password, address, instead_of=before)
        return session, session_cookie(secret, secure=secure)

    @router.post("/v1/login", summary="Log in", tags=["access"])
    async def log_in(request: Request, body: _Login) -> Response:
        """Begin a session; the cookie of the answer holds it."""
        try:
            session, cookie = await begin(request, body.name, body.password)
        except ThrottledError as error:
            return _problem(error, {"Retry-After": str(error.seconds)})
        facts = {**_me(session.actor, session), "csrf": session.csrf}
        return JSONResponse(facts, headers={"Set-Cookie": cookie})

    @router.post("/login", include_in_schema=False)
    async def log_in_by_form(
        request: Request,
        name: str = Form("", max_length=_LONGEST_FIELD),
        password: str = Form("", max_length=_LONGEST_FIELD),
        next: str = Form("/", max_length=_LONGEST_FIELD),  # noqa: A002  the field's name in the page
    ) -> Response:
        """Begin a session and go on to a page of this station, or back to the login page with the reason."""
        target = safe_next(next)
        try:
            _, cookie = await begin(request, name, password)
        except LoginError:
            return RedirectResponse(f"/login?problem=wrong&next={quote(target, safe='')}", 303)
        except ThrottledError as error:
            wait = f"/login?problem=wait&seconds={error.seconds}&next={quote(target, safe='')}"
            return RedirectResponse(wait, 303)
        return RedirectResponse(target, 303, {"Set-Cookie": cookie})

    async def end(request: Request, response: Response) -> Response:
        session = caller_of(request).session
        if session is not None:
            await anyio.to_thread.run_sync(users.log_out, session)
        response.headers.append("Set-Cookie", ended_cookie(secure=request.url.scheme == "https"))
        return response

    @router.post("/v1/logout", status_code=204, summary="Log out", tags=["access"])
    async def log_out(request: Request) -> Response:
        """End this session."""
        return await end(request, Response(status_code=204))

    @router.post("/logout", include_in_schema=False)
    async def log_out_by_form(request: Request) -> Response:
        """End this session and go to the login page."""
        return await end(request, RedirectResponse("/login", 303))


def _add_me(router: APIRouter, logins: Logins) -> None:
    """Add what people may ask and change of themselves."""

    @router.get("/v1/me", summary="Who am I?", tags=["access"])
    async def me(request: Request) -> dict[str, Any]:
        """Return name and role, and for a session the text that its changes must carry as the header X-CSRF-Token."""
        caller = caller_of(request)
        return {**_me(caller.actor, caller.session), "csrf": csrf_of(request)}

    @router.post("/v1/me/password", status_code=204, summary="Change one's password", tags=["access"])
    async def change_password(request: Request, body: _PasswordChange) -> Response:
        """Change the password; all sessions of this user end."""
        caller = caller_of(request)
        if caller.session is None:
            raise ForbiddenError("Only a user who has logged in has a password to change.")
        address = request.client.host if request.client else ""
        try:
            await logins.change_password(caller.actor, body.password, body.new, address)
        except ThrottledError as error:
            return _problem(error, {"Retry-After": str(error.seconds)})
        except LoginError as error:  # subtle: 401 would send the page to the login
            raise ForbiddenError(str(error)) from None
        return Response(status_code=204)


def _add_users(router: APIRouter, users: Users, logins: Logins) -> None:
    """Add the routes by which engineers manage users."""
    engineer = Depends(_person)

    @router.get("/v1/users", dependencies=[engineer], summary="Users", tags=["access"])
    async def list_users() -> dict[str, Any]:
        """Return all users."""
        found = await anyio.to_thread.run_sync(users.list)
        return {"users": [_user(user) for user in found]}

    @router.post("/v1/users", status_code=201, summary="Add a user", tags=["access"])
    async def add_user(body: _NewUser, actor: Actor = engineer) -> dict[str, Any]:
        """Add a user. The first one must be an engineer; from then on everybody must log in."""
        return _user(await logins.compute(partial(users.add, body.name, body.role, body.password, actor)))

    @router.patch("/v1/users/{name}", summary="Change a user", tags=["access"])
    async def change_user(name: str, body: _UserChange, actor: Actor = engineer) -> dict[str, Any]:
        """Change role, password or whether the user may log in; the user's sessions end."""
        given = [value for value in (body.role, body.disabled, body.password) if value is not None]
        if len(given) != 1:
            raise SettingError(f"Change one of role, disabled and password at a time, got {len(given)}.")
        if body.password is not None:
            return _user(await logins.compute(partial(users.set_password, name, body.password, actor)))
        if body.role is not None:
            return _user(await _in_thread(partial(users.set_role, name, body.role, actor)))
        return _user(await _in_thread(partial(users.set_disabled, name, bool(body.disabled), actor)))

    @router.delete("/v1/users/{name}", status_code=204, summary="Remove a user", tags=["access"])
    async def remove_user(name: str, actor: Actor = engineer) -> Response:
        """Remove a user; the user's sessions end."""
        await _in_thread(partial(users.remove, name, actor))
        return Response(status_code=204)


def _add_tokens(router: APIRouter, users: Users) -> None:
    """Add the routes by which engineers manage the tokens of machines."""
    engineer = Depends(_person)

    @router.get("/v1/tokens", dependencies=[engineer], summary="Tokens", tags=["access"])
    async def list_tokens() -> dict[str, Any]:
        """Return all tokens, without their secrets."""
        found = await anyio.to_thread.run_sync(users.tokens.list)
        return {"tokens": [_token(token) for token in found]}

    @router.post("/v1/tokens", status_code=201, summary="Make a token", tags=["access"])
    async def add_token(body: _NewToken, actor: Actor = engineer) -> dict[str, Any]:
        """Make a token. The answer is the only place where it can be read."""
        make = partial(users.tokens.add, body.name, actor, role=body.role, days=body.days)
        token, secret = await _in_thread(make)
        return {**_token(token), "token": secret}

    @router.delete("/v1/tokens/{key}", status_code=204, summary="Revoke a token", tags=["access"])
    async def revoke_token(key: str, actor: Actor = engineer) -> Response:
        """End a token at once."""
        await _in_thread(partial(users.tokens.revoke, key, actor))
        return Response(status_code=204)


def _person(request: Request) -> Actor:
    """Return the engineer who calls.

    Raises:
        ForbiddenError: it is a token: one that leaked must not make others, which would outlive it.
    """
    actor = requires("engineer")(request)
    if caller_of(request).is_token:
        raise ForbiddenError("Users and tokens are managed by people who log in, not by a token.")
    return actor


async def _in_thread(function: "partial[T]") -> T:
    return await anyio.to_thread.run_sync(function)


def _problem(error: ThrottledError, headers: dict[str, str]) -> Response:
    from totalrecall.station.web.problems import problem

    return problem(error.http_status, str(error), kind=type(error).__name__, headers=headers)


def _me(actor: Actor, session: Session | None) -> dict[str, Any]:
    return {
        "name": actor.name,
        "role": actor.role,
        "expires_at": _time(None if session is None else session.expires_at),
    }


def _user(user: User) -> dict[str, Any]:
    return {"name": user.name, "role": user.role, "disabled": user.disabled, "at": _time(user.at)}


def _token(token: Token) -> dict[str, Any]:
    return {
        "id": token.key,
        "name": token.name,
        "role": token.role,
        "at": _time(token.at),
        "expires_at": _time(token.expires_at),
        "revoked_at": _time(token.revoked_at),
        "last_used_at": _time(token.last_used_at),
    }


def _time(time: datetime | None) -> str | None:
    return None if time is None else iso(time)
