"""Who may do what, and who did what: the login page, users and tokens, the audit trail, the language."""

import json
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from totalrecall.errors import NotFoundError, SettingError, StationError
from totalrecall.station.access.guard import safe_next
from totalrecall.station.access.users import USER_ROLES
from totalrecall.station.pages.page import COOKIE, Page, actor_of, back_to
from totalrecall.station.pages.texts import languages
from totalrecall.station.store.records import ROLES

if TYPE_CHECKING:
    from totalrecall.station.access.logins import Logins

__all__ = ["add_language", "add_login", "add_trail", "add_users"]

_YEAR = 365 * 24 * 3600
_ROWS = 60
_FEW = 3  # entries of a list that are written out
_NAME = Form(max_length=128)
_PASSWORD = Form(max_length=1024)
_TOKEN_DAYS = ("90", "365", "")


def add_login(routes: APIRouter, page: Page) -> None:
    """Add the page whose form `api_users` takes; it comes back here with the reason of a refusal."""

    @routes.get("/login")
    def login(
        request: Request,
        then: Annotated[str, Query(alias="next", max_length=2000)] = "/",
        problem: Annotated[str, Query(max_length=20)] = "",
        seconds: Annotated[int, Query(ge=0, le=10**6)] = 0,
    ) -> Response:
        t = page.texts(request)
        refusal = {"wrong": t("login.wrong"), "wait": t("login.wait", {"seconds": seconds})}.get(problem)
        values: dict[str, Any] = {"view": "login", "views": [], "then": safe_next(then), "refusal": refusal}
        return page.render(request, "login.html", values)


def add_language(routes: APIRouter) -> None:
    """Add the choice of the language, which a cookie remembers."""

    @routes.get("/language")
    def choose(
        language: Annotated[str, Query(max_length=20)], back: Annotated[str, Query(max_length=2000)] = "/"
    ) -> Response:
        """Remember it; nothing else changes, so a plain link may do it, before a login too."""
        if language not in languages():
            raise SettingError(f"language must be one of {', '.join(languages())}, got {language!r}.")
        response = back_to(back)
        response.set_cookie(COOKIE, language, max_age=_YEAR, httponly=True, samesite="lax")
        return response


def add_trail(routes: APIRouter, page: Page) -> None:
    """Add the audit trail."""
    station = page.station

    @routes.get("/trail")
    def trail(request: Request, before: Annotated[int | None, Query(ge=1)] = None, verify: bool = False) -> Response:
        rows = station.trail.rows(_ROWS + 1, before)
        values = {
            "view": "trail",
            "rows": [_told(row) for row in rows[:_ROWS]],
            "older": rows[_ROWS - 1].id if len(rows) > _ROWS else None,
            "first": before is None,
            "verified": station.trail.verify() if verify else None,
        }
        return page.render(request, "trail.html", values)


def add_users(routes: APIRouter, page: Page, logins: "Logins") -> None:
    """Add users and tokens."""
    users = page.station.users

    @routes.get("/users")
    def shown(request: Request) -> Response:
        return _view(page, request)

    @routes.post("/users")
    async def add(
        request: Request,
        name: Annotated[str, _NAME],
        password: Annotated[str, _PASSWORD],
        role: Annotated[str, Form(max_length=20)] = "operator",
    ) -> Response:
        try:
            await logins.compute(lambda: users.add(name, role, password, actor_of(request)))
        except (SettingError, StationError) as error:  # others are no fault of what was typed
            refusal = str(error)
            return await run_in_threadpool(_view, page, request, None, refusal, error.http_status)
        return back_to("/users", "user_added")

    @routes.post("/users/change")
    async def change(
        request: Request,
        name: Annotated[str, _NAME],
        what: Annotated[str, Form(max_length=20)],
        value: Annotated[str, _PASSWORD] = "",
    ) -> Response:
        """Change a user's role or password, keep the user out, let the user in again, or remove the user."""
        actor = actor_of(request)
        if what == "role":
            await run_in_threadpool(users.set_role, name, value, actor)
        elif what == "password":
            await logins.compute(lambda: users.set_password(name, value, actor))
        elif what in ("disable", "enable"):
            await run_in_threadpool(users.set_disabled, name, what == "disable", actor)
        elif what == "remove":
            await run_in_threadpool(users.remove, name, actor)
        else:
            raise NotFoundError("There is no such change.")
        return back_to("/users", "user_changed")

    _add_tokens(routes, page)


def _add_tokens(routes: APIRouter, page: Page) -> None:
    """Add the tokens of machines."""
    users = page.station.users

    @routes.post("/users/tokens")
    def add_token(
        request: Request,
        name: Annotated[str, _NAME],
        role: Annotated[str, Form(max_length=20)] = "machine",
        days: Annotated[str, Form(max_length=10)] = "",
    ) -> Response:
        """Make a token and show it, this once."""
        try:
            lasts = float(days) if days else None
        except ValueError:
            raise SettingError(f"days must be a number, got {days!r}.", "days") from None
        _, secret = users.tokens.add(name, actor_of(request), role=role, days=lasts)
        return _view(page, request, secret)

    @routes.post("/users/tokens/revoke")
    def revoke(request: Request, key: Annotated[str, Form(max_length=40)]) -> Response:
        users.tokens.revoke(key, actor_of(request))
        return back_to("/users", "token_revoked")


def _view(
    page: Page, request: Request, secret: str | None = None, refusal: str | None = None, status: int = 200
) -> Response:
    """Return the view of users and tokens, with the secret of a new token or the reason of a refusal."""
    users = page.station.users
    values = {
        "view": "users",
        "users": users.list(),
        "tokens": [token for token in users.tokens.list() if token.revoked_at is None],
        "secret": secret,
        "refusal": refusal,
        "roles": USER_ROLES,
        "token_roles": ("machine", *(role for role in ROLES if role != "machine")),
        "token_days": _TOKEN_DAYS,
    }
    return page.render(request, "users.html", values, status=status)


def _told(row: Any) -> dict[str, Any]:
    """Return a row of the trail with its details as pairs of words."""
    details = json.loads(row.details)
    pairs = [(name.replace("_", " "), _short(value)) for name, value in details.items()]
    names = ("id", "at", "actor", "role", "action", "subject", "hash")
    return {**{name: getattr(row, name) for name in names}, "pairs": pairs}


def _short(value: object) -> str | bool:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return value  # yes or no, in the reader's language
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, dict)):
        if len(value) > _FEW or isinstance(value, dict):
            return f"{len(value)} ×"
        return ", ".join(str(_short(one)) for one in value) or "–"
    text = str(value)
    is_hash = len(text) in (32, 64) and all(letter in "0123456789abcdef" for letter in text)
    return f"{text[:12]}…" if is_hash else text
