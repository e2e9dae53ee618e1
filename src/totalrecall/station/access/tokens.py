"""Tokens by which machines call the station: random, shown once, kept as a digest only."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, select, update

from totalrecall.errors import ConflictError, NotFoundError, SettingError
from totalrecall.station.access.user_names import normal_name
from totalrecall.station.store import chain, tables
from totalrecall.station.store.records import ROLES, Actor
from totalrecall.system.files import sha256

if TYPE_CHECKING:
    from totalrecall.station.store.database import Database
    from totalrecall.station.store.trail import Trail

__all__ = ["TOKEN_PREFIX", "Token", "Tokens"]

TOKEN_PREFIX = "trecall_"  # by which programs that search for leaked secrets know it
_LONGEST = 128
_USED_EVERY = timedelta(minutes=1)  # the last use is noted at most that often


@dataclass(frozen=True)
class Token:
    """What is known of a token.

    Attributes:
        key: by which it is revoked.
        name: of the machine that has it.
        role: that the machine has.
        at: when it was made, in UTC.
        expires_at: when it ends, or None.
        revoked_at: when it was revoked, or None.
        last_used_at: within a minute, or None.
    """

    key: str
    name: str
    role: str
    at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def actor(self) -> Actor:
        """Who calls with it; the colon cannot be in a user's name."""
        return Actor(f"token:{self.name}", self.role)

    def is_valid(self, now: datetime) -> bool:
        """Tell whether it may be used."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Tokens:
    """The tokens of a station.

    Args:
        database: in which they are.
        trail: where each change is written down.
    """

    def __init__(self, database: "Database", trail: "Trail") -> None:
        self._database = database
        self._trail = trail

    def add(self, name: str, actor: Actor, *, role: str = "machine", days: float | None = None) -> tuple[Token, str]:
        """Make a token and return it with its secret, which nobody can read again.

        Raises:
            SettingError: the name, the role or the days are not allowed.
            ConflictError: a token in use has the name.
        """
        name = normal_name(name, "token")
        if role not in ROLES:
            raise SettingError(f"role must be one of {', '.join(ROLES)}, got {role!r}.", "role")
        if days is not None and not 0 < days <= 36500:
            raise SettingError(f"days must be over 0 and at most 36500, got {days:g}.", "days")
        now = _now()
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        ends = None if days is None else now + timedelta(days=days)
        token = Token(secrets.token_hex(8), name, role, now, ends, None, None)

        def write(connection: Connection) -> None:
            chain.lock(connection)
            same = connection.execute(select(tables.tokens).where(tables.tokens.c.name == name)).all()
            if any(_token(row).is_valid(now) for row in same):
                raise ConflictError(f"A token in use has the name {name}. Revoke it first, or choose another name.")
            connection.execute(
                insert(tables.tokens).values(
                    id=token.key, name=name, role=role, digest=_digest(secret), at=now, expires_at=ends
                )
            )
            details = {"role": role, "expires_at": None if ends is None else ends.isoformat(timespec="seconds")}
            self._trail.append_in(connection, actor, "token added", name, {"id": token.key, **details})

        self._database.write(write).result()
        return token, secret

    def list(self) -> list[Token]:
        """Return all tokens, the revoked ones too, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(tables.tokens).order_by(tables.tokens.c.name, tables.tokens.c.at)).all()
        return [_token(row) for row in rows]

    def any(self) -> bool:
        """Tell whether there is a token that may be used."""
        now = _now()
        return any(token.is_valid(now) for token in self.list())

    def revoke(self, key: str, actor: Actor) -> Token:
        """End a token at once.

        Args:
            key: its id, or the name of the one in use.
            actor: who revokes it.

        Raises:
            NotFoundError: there is none, or it was revoked before.
        """
        now = _now()

        def write(connection: Connection) -> Token:
            chain.lock(connection)
            either = (tables.tokens.c.id == key) | (tables.tokens.c.name == key)
            rows = connection.execute(select(tables.tokens).where(either, tables.tokens.c.revoked_at.is_(None))).all()
            if not rows:
                raise NotFoundError(f"No token in use is called {key!r}. `totalrecall station tokens list` shows them.")
            token = _token(rows[0])
            connection.execute(update(tables.tokens).where(tables.tokens.c.id == token.key).values(revoked_at=now))
            self._trail.append_in(connection, actor, "token revoked", token.name, {"id": token.key})
            return token

        return self._database.write(write).result()

    def of_secret(self, secret: str) -> Token | None:
        """Return the token that somebody calls with, or None if there is none or it has ended."""
        if len(secret) > _LONGEST or not secret.startswith(TOKEN_PREFIX):
            return None
        # the digest of a long random secret: neither a fast hash nor the time of the look-up tells anything of it
        with self._database.read() as connection:
            row = connection.execute(select(tables.tokens).where(tables.tokens.c.digest == _digest(secret))).first()
        now = _now()
        if row is None or not (token := _token(row)).is_valid(now):
            return None
        if token.last_used_at is None or abs(now - token.last_used_at) > _USED_EVERY:
            used = update(tables.tokens).where(tables.tokens.c.id == token.key).values(last_used_at=now)
            self._database.write(partial(chain.execute_alone, used))
        return token


def _token(row: Any) -> Token:
    return Token(row.id, row.name, row.role, row.at, row.expires_at, row.revoked_at, row.last_used_at)


def _digest(secret: str) -> str:
    return sha256(secret.encode())


def _now() -> datetime:
    return datetime.now(timezone.utc)
