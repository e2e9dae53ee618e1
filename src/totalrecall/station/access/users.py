"""The people who may use a station: name, role, password; each change is in the audit trail."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, delete, insert, select, update

from totalrecall.errors import ConflictError, NotFoundError, SettingError
from totalrecall.station.access.passwords import PasswordHasher, check_password_rules
from totalrecall.station.access.sessions import Session, Sessions, end_sessions
from totalrecall.station.access.tokens import Tokens
from totalrecall.station.access.user_names import look, normal_name
from totalrecall.station.store import chain, tables
from totalrecall.station.store.records import STATION, Actor

if TYPE_CHECKING:
    from totalrecall.station.store.database import Database
    from totalrecall.station.store.trail import Trail

__all__ = ["USER_ROLES", "User", "Users"]

USER_ROLES = ("operator", "engineer", "auditor")

T = TypeVar("T")


@dataclass(frozen=True)
class User:
    """A person who may log in.

    Attributes:
        name: as `normal_name` spells it.
        role: `operator`, `engineer` or `auditor`.
        disabled: may not log in at the moment.
        at: when the user was added, in UTC.
    """

    name: str
    role: str
    disabled: bool
    at: datetime


class Users:
    """The users of a station, their sessions, and the tokens of its machines.

    There is always an engineer who can log in, once there are users at all: nobody else could add users.

    Args:
        database: in which they are.
        trail: where each change is written down.
        hasher: of the passwords.

    Attributes:
        sessions: of the users.
        tokens: of machines.
        added: changes whenever this process begins or ends to add a user.
    """

    def __init__(self, database: "Database", trail: "Trail", hasher: PasswordHasher | None = None) -> None:
        self._database = database
        self._trail = trail
        self._hasher = PasswordHasher() if hasher is None else hasher
        self.sessions = Sessions(database)
        self.tokens = Tokens(database, trail)
        self.added = 0

    def any(self) -> bool:
        """Tell whether there is a user, be it a disabled one: then everybody must log in."""
        with self._database.read() as connection:
            return connection.execute(select(tables.users.c.name).limit(1)).first() is not None

    def list(self) -> list[User]:
        """Return all users by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(tables.users).order_by(tables.users.c.name)).all()
        return [_user(row) for row in rows]

    def add(self, name: str, role: str, password: str, actor: Actor) -> User:
        """Add a user.

        Raises:
            SettingError: the name, role or password is not allowed, or the first user is no engineer.
            ConflictError: a user has this name, or one that looks like it.
        """
        name = normal_name(name)
        _check_role(role)
        check_password_rules(password, name)
        user = User(name, role, False, datetime.now(timezone.utc))
        hashed = self._hasher.hash(password)

        def write(connection: Connection) -> User:
            others = connection.execute(select(tables.users.c.name)).scalars().all()
            if name in others:
                raise ConflictError(f"There is a user {name} already. `totalrecall station users list` shows all.")
            alike = [other for other in others if look(other) == look(name)]
            if alike:
                raise ConflictError(f"The name {name!r} looks like that of the user {alike[0]!r}. Choose another.")
            if not others and role != "engineer":
                raise SettingError(f"The first user must be an engineer, who can add the others, got the role {role}.")
            row = {"name": name, "role": role, "password": hashed, "disabled": False, "at": user.at}
            connection.execute(insert(tables.users).values(**row))
            self._trail.append_in(connection, actor, "user added", name, {"role": role})
            return user

        self.added += 1
        try:
            return self._write(write)
        finally:
            self.added += 1  # whoever looked meanwhile saw the users of before

    def set_role(self, name: str, role: str, actor: Actor) -> User:
        """Give a user another role; the user's sessions end.

        Raises:
            SettingError: there is no such role.
            NotFoundError: there is no such user.
            ConflictError: it is the last engineer.
        """
        _check_role(role)

        def change(connection: Connection, user: User) -> User:
            if user.role == role:
                return user
            if role != "engineer":
                _keep_an_engineer(connection, user, f"become {role}")
            self._alter(connection, user.name, {"role": role})
            details = {"role": role, "role_before": user.role}
            self._trail.append_in(connection, actor, "user role changed", user.name, details)
            return User(user.name, role, user.disabled, user.at)

        return self._change(name, change)

    def set_disabled(self, name: str, disabled: bool, actor: Actor) -> User:
        """Keep a user from logging in, or let the user log in again; sessions end at once.

        Raises:
            NotFoundError: there is no such user.
            ConflictError: it is the last engineer.
        """

        def change(connection: Connection, user: User) -> User:
            if user.disabled == disabled:
                return user
            if disabled:
                _keep_an_engineer(connection, user, "be disabled")
            self._alter(connection, user.name, {"disabled": disabled})
            self._trail.append_in(connection, actor, "user disabled" if disabled else "user enabled", user.name, {})
            return User(user.name, user.role, disabled, user.at)

        return self._change(name, change)

    def set_password(self, name: str, password: str, actor: Actor) -> User:
        """Give a user another password; the user's sessions end.

        Raises:
            SettingError: the password is not allowed.
            NotFoundError: there is no such user.
        """
        check_password_rules(password, normal_name(name))
        hashed = self._hasher.hash(password)

        def change(connection: Connection, user: User) -> User:
            self._alter(connection, user.name, {"password": hashed})
            self._trail.append_in(connection, actor, "user password changed", user.name, {})
            return user

        return self._change(name, change)

    def remove(self, name: str, actor: Actor) -> None:
        """Remove a user.

        Raises:
            NotFoundError: there is no such user.
            ConflictError: it is the last engineer.
        """

        def change(connection: Connection, user: User) -> None:
            _keep_an_engineer(connection, user, "be removed")
            end_sessions(connection, user.name)
            connection.execute(delete(tables.users).where(tables.users.c.name == user.name))
            self._trail.append_in(connection, actor, "user removed", user.name, {"role": user.role})

        self._change(name, change)

    def log_in(
        self, name: str, password: str, *, address: str = "", instead_of: str | None = None
    ) -> tuple[Session, str] | None:
        """Check a password and begin a session; None if the name or the password is wrong, or the user is disabled.

        As much is computed whether or not there is the user. Attempts are not limited here (see `Logins`).

        Args:
            name: as typed.
            password: as typed.
            address: of the client, for the audit trail; empty where there is none.
            instead_of: secret of a session that ends.
        """
        known, hashed = self._password_of(name)
        right = self._hasher.verify(hashed, password)
        if not right or known is None or hashed is None or known.disabled:
            # not as typed: people type passwords into the field of the name
            subject = known.name if known else "an unknown user"
            self._trail.append(STATION, "login refused", subject, {"address": address} if address else {}).result()
            return None
        if self._hasher.is_outdated(hashed):
            hashed = self._rehash(known.name, hashed, password)
        begun = self.sessions.begin(known.name, hashed, instead_of=instead_of)
        if begun is not None:
            self._log(begun[0].actor, "login", known.name)
        return begun

    def log_out(self, session: Session) -> None:
        """End a session."""
        self.sessions.end(session.digest)
        self._log(session.actor, "logout", session.actor.name)

    def has_password(self, name: str, password: str) -> bool:
        """Tell whether a user has this password."""
        _, hashed = self._password_of(name)
        return self._hasher.verify(hashed, password)

    def _password_of(self, name: str) -> tuple[User | None, str | None]:
        """Return a user and the hash of the password, or nothing for a name that no user can have."""
        try:
            normal = normal_name(name)
        except SettingError:
            normal = ""  # asked for all the same, for the time that it takes
        with self._database.read() as connection:
            row = connection.execute(select(tables.users).where(tables.users.c.name == normal)).first()
        return (None, None) if row is None else (_user(row), row.password)

    def _rehash(self, name: str, before: str, password: str) -> str:
        """Keep a right password as today's settings say, and return the hash in force."""
        hashed = self._hasher.hash(password)
        is_same = (tables.users.c.name == name) & (tables.users.c.password == before)
        change = update(tables.users).where(is_same).values(password=hashed)
        rows = self._write(lambda connection: connection.execute(change).rowcount)
        return hashed if rows else before

    def _alter(self, connection: Connection, name: str, values: dict[str, object]) -> None:
        connection.execute(update(tables.users).where(tables.users.c.name == name).values(values))
        end_sessions(connection, name)

    def _change(self, name: str, change: Callable[[Connection, User], T]) -> T:
        """Run a change of a user within one transaction."""
        normal = normal_name(name)

        def write(connection: Connection) -> T:
            row = connection.execute(select(tables.users).where(tables.users.c.name == normal)).first()
            if row is None:
                raise NotFoundError(f"There is no user {normal}. `totalrecall station users list` shows all.")
            return change(connection, _user(row))

        return self._write(write)

    def _write(self, function: Callable[[Connection], T]) -> T:
        """Run a function in a transaction of its own; no other process changes users meanwhile."""

        def alone(connection: Connection) -> T:
            chain.lock(connection)
            return function(connection)

        return self._database.write(alone).result()

    def _log(self, actor: Actor, action: str, subject: str) -> None:
        self._trail.append(actor, action, subject, {}).result()


def _user(row: Any) -> User:
    return User(row.name, row.role, bool(row.disabled), row.at)


def _check_role(role: str) -> None:
    if role not in USER_ROLES:
        raise SettingError(
            f"role must be one of {', '.join(USER_ROLES)}, got {role!r}. Machines get a token: "
            "`totalrecall station tokens add`.",
            "role",
        )


def _keep_an_engineer(connection: Connection, user: User, what: str) -> None:
    """Refuse a change that would leave no engineer who can log in.

    Raises:
        ConflictError: it would.
    """
    columns = tables.users.c
    if user.role != "engineer" or user.disabled:
        return
    able = select(columns.name).where(columns.role == "engineer", columns.disabled.is_(False))
    if connection.execute(able).scalars().all() == [user.name]:
        raise ConflictError(
            f"{user.name} is the last engineer who can log in and cannot {what}. Add another engineer first: "
            "`totalrecall station users add NAME --role engineer`."
        )
