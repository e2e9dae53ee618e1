"""Sessions of users in browsers: a random secret in a cookie, kept as a digest only."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert, select, update

from totalrecall.station.store import chain, tables
from totalrecall.station.store.records import Actor
from totalrecall.system.files import sha256

if TYPE_CHECKING:
    from totalrecall.station.store.database import Database

__all__ = ["Session", "Sessions", "end_sessions", "ended_cookie", "is_csrf", "session_cookie", "session_secret"]

IDLE = timedelta(hours=8)  # without a request, a session ends: a shift
LONGEST = timedelta(hours=24)  # and at the latest then
_MOST = 20  # sessions of a user; the oldest ends at one more
_SEEN_EVERY = timedelta(minutes=1)  # that often at most the last request is noted
_AHEAD = timedelta(minutes=5)  # that a clock may be set back without a login
_SECRET_LENGTH = 43  # of 32 bytes in base 64
_COOKIE = "totalrecall_session"


@dataclass(frozen=True)
class Session:
    """A user's login in one browser.

    Attributes:
        actor: the user, with today's role.
        expires_at: when it ends at the latest, in UTC.
        digest: of its secret.
        csrf: a text that forms of this session must send back; a foreign page cannot know it.
    """

    actor: Actor
    expires_at: datetime
    digest: str
    csrf: str = field(repr=False)


class Sessions:
    """The sessions of a station.

    Args:
        database: in which they are.
    """

    def __init__(self, database: "Database") -> None:
        self._database = database

    def begin(self, user: str, hashed: str, *, instead_of: str | None = None) -> tuple[Session, str] | None:
        """Begin a session and return it with its secret; None if the user was changed since the password was checked.

        The secret is always new: one that the browser brought along may have been planted there.

        Args:
            user: the name.
            hashed: the password's hash that was checked.
            instead_of: secret of a session that ends.
        """
        now = _now()
        secret = secrets.token_urlsafe(32)

        def write(connection: Connection) -> Session | None:
            chain.lock(connection)
            row = connection.execute(select(tables.users).where(tables.users.c.name == user)).first()
            if row is None or row.disabled or row.password != hashed:
                return None
            session = Session(Actor(user, row.role), now + LONGEST, _digest(secret), _csrf(secret))
            if instead_of is not None:
                connection.execute(delete(tables.sessions).where(tables.sessions.c.digest == _digest(instead_of)))
            _sweep(connection, user, now)
            connection.execute(
                insert(tables.sessions).values(
                    digest=session.digest, user=user, at=now, expires_at=session.expires_at, seen_at=now
                )
            )
            return session

        session = self._database.write(write).result()
        return None if session is None else (session, secret)

    def of_secret(self, secret: str) -> Session | None:
        """Return the session of a cookie, or None if there is none, it has ended, or the user may not log in."""
        if len(secret) != _SECRET_LENGTH:
            return None
        digest, now = _digest(secret), _now()
        found = (
            select(tables.sessions, tables.users.c.role)
            .join(tables.users, tables.users.c.name == tables.sessions.c.user)
            .where(tables.sessions.c.digest == digest, tables.users.c.disabled.is_(False))
        )
        with self._database.read() as connection:
            row = connection.execute(found).first()
        if row is None or now >= row.expires_at or now - row.seen_at > IDLE:
            return None
        if max(row.at, row.seen_at) > now + _AHEAD:  # the clock was set back: it would live for longer than a day
            return None
        if now - row.seen_at > _SEEN_EVERY:
            seen = update(tables.sessions).where(tables.sessions.c.digest == digest).values(seen_at=now)
            self._database.write(partial(chain.execute_alone, seen))
        return Session(Actor(row.user, row.role), row.expires_at, digest, _csrf(secret))

    def end(self, digest: str) -> None:
        """End a session."""
        gone = delete(tables.sessions).where(tables.sessions.c.digest == digest)
        self._database.write(partial(chain.execute_alone, gone)).result()


def end_sessions(connection: Connection, user: str) -> None:
    """End all sessions of a user, within a transaction that changes what the user may do."""
    connection.execute(delete(tables.sessions).where(tables.sessions.c.user == user))


def _sweep(connection: Connection, user: str, now: datetime) -> None:
    """Remove sessions that have ended, and a user's oldest where they are too many."""
    columns = tables.sessions.c
    connection.execute(delete(tables.sessions).where((columns.expires_at <= now) | (columns.seen_at < now - IDLE)))
    oldest = select(columns.digest).where(columns.user == user).order_by(columns.seen_at.desc()).offset(_MOST - 1)
    too_many = connection.execute(oldest).scalars().all()
    if too_many:
        connection.execute(delete(tables.sessions).where(columns.digest.in_(too_many)))


def _cookie_name(*, secure: bool) -> str:
    """Return the cookie's name; browsers take `__Host-` only over TLS, of this very host, and for all its paths."""
    return f"__Host-{_COOKIE}" if secure else _COOKIE


def session_secret(cookies: list[bytes], *, secure: bool) -> str | None:
    """Return the secret in the cookie headers of a request.

    None if there is none, and if there are several: other programs of the same computer can set a cookie beside ours.
    """
    wanted = _cookie_name(secure=secure)
    pairs = [pair.strip().partition("=") for header in cookies for pair in header.decode("latin-1").split(";")]
    values = [value.strip().strip('"') for name, _, value in pairs if name == wanted]
    return values[0] if len(values) == 1 else None


def session_cookie(secret: str, *, secure: bool) -> str:
    """Return the value of `Set-Cookie` for a session."""
    tail = "; Secure" if secure else ""
    seconds = int(LONGEST.total_seconds())
    return f"{_cookie_name(secure=secure)}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{tail}"


def ended_cookie(*, secure: bool) -> str:
    """Return the value of `Set-Cookie` that removes the cookie."""
    tail = "; Secure" if secure else ""
    return f"{_cookie_name(secure=secure)}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0{tail}"


def is_csrf(session: Session, text: str) -> bool:
    """Tell whether a form sent back the text of its session."""
    return hmac.compare_digest(session.csrf.encode(), text.encode("utf-8", "replace"))


def _csrf(secret: str) -> str:
    """Return a text that only those can make who know the secret, and that does not tell it."""
    return hmac.new(secret.encode(), b"totalrecall csrf", hashlib.sha256).hexdigest()


def _digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "replace"))


def _now() -> datetime:
    return datetime.now(timezone.utc)
