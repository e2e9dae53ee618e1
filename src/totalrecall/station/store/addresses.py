"""Addresses of databases: read, shown without passwords, opened; and what goes wrong with a database, in words."""

import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from totalrecall.errors import HistoryError, MissingExtraError, SettingError

__all__ = [
    "address_of_file",
    "checking_engine",
    "file_of",
    "in_words",
    "parse_address",
    "reading_engine",
    "shown",
    "writing_engine",
]

# for PostgreSQL: seconds until a connection is made; then how soon a server that is gone is noticed, in half a minute
_LINE = {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
_LINE |= {"tcp_user_timeout": 30_000}  # milliseconds
_FORM = "Write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME."
_BUSY = ("database is locked", "database table is locked", "database schema is locked")
_PAUSE = 0.02  # seconds between two tries at a file that another program holds
_FULL = ("disk is full", "No space left on device", "disk I/O error")


def address_of_file(path: str | Path) -> str:
    """Return the address of a SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def parse_address(text: str) -> URL:
    """Return a database's address as SQLAlchemy takes it; PostgreSQL is spoken to by psycopg.

    Raises:
        SettingError: it is no address. The message never repeats it: it may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise SettingError(f"database must be an address, got something else. {_FORM}", "database") from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if "@" in (url.host or ""):  # what stands before it may be the end of a password
        raise SettingError("database must have one @ before its host. Write @ in a password as %40.", "database")
    if url.get_backend_name() == "sqlite":
        if url.drivername not in ("sqlite", "sqlite+pysqlite"):
            raise SettingError(f"database must name no other driver for SQLite, got {url.drivername}.", "database")
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise SettingError("database must name a file for SQLite. Write sqlite:///FILE.", "database")
    return url


def file_of(url: URL) -> Path | None:
    """Return the file of a SQLite address, and None for a server's."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def shown(url: URL) -> str:
    """Return an address for people: a file's path, or server and name without password and options."""
    file = file_of(url)
    if file is not None:
        return str(file)
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{user}{url.host or ''}{port}/{url.database or ''}"


def writing_engine(url: URL, wait: float) -> Engine:
    """Return the engine of the one connection that writes; it is durable: what is committed is on the disk.

    Args:
        url: the address.
        wait: seconds that SQLite waits for another program's transaction.

    Raises:
        SettingError: there is no such kind of database, or its driver is not installed.
    """
    if file_of(url) is None:
        return _server_engine(url, read_only=False)
    pragmas = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"journal_size_limit={64 << 20}")
    # subtle: IMMEDIATE takes the write lock at once; a transaction that reads first could not wait for it later
    return _sqlite_engine(url, wait, pragmas, "BEGIN IMMEDIATE")


def reading_engine(url: URL, wait: float) -> Engine:
    """Return the engine of the connections that only read; they wait for nobody who writes."""
    if file_of(url) is None:
        return _server_engine(url, read_only=True)
    return _sqlite_engine(url, wait, ("query_only=ON",), "BEGIN")


def checking_engine(url: URL, wait: float) -> Engine:
    """Return an engine that changes nothing, not even the mode of a SQLite file, to look at what is there."""
    file = file_of(url)
    if file is None:
        return _server_engine(url, read_only=True)
    target = f"file:{quote(str(file.absolute()))}?mode=ro"
    return create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(target, uri=True, timeout=wait), hide_parameters=True
    )


def _sqlite_engine(url: URL, wait: float, pragmas: tuple[str, ...], begin: str) -> Engine:
    engine = create_engine(
        url, hide_parameters=True, connect_args={"timeout": wait}, pool_size=8, max_overflow=32, pool_timeout=wait
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:  # noqa: ARG001
        connection.isolation_level = None  # or Python's module would begin transactions as it thinks fit
        cursor = connection.cursor()
        for pragma in pragmas:
            _patiently(cursor, f"PRAGMA {pragma}", wait)
        cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _patiently(cursor: sqlite3.Cursor, statement: str, wait: float) -> None:
    """Run a statement, and again while another program holds the file, for as long as `wait` seconds.

    SQLite itself waits for any other statement. Not for a change to WAL: it reads first, and a reader that wants to
    write is refused at once.
    """
    end = time.monotonic() + wait
    while True:
        try:
            cursor.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if str(error) not in _BUSY or time.monotonic() >= end:
                raise
        time.sleep(_PAUSE)


def _server_engine(url: URL, *, read_only: bool) -> Engine:
    postgresql = url.get_backend_name() == "postgresql"
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,  # a server that was started again meanwhile costs nothing
            pool_size=8 if read_only else 1,  # one thread writes, and one station's claim is on its connection
            max_overflow=32 if read_only else 0,
            connect_args={name: value for name, value in _LINE.items() if postgresql and name not in url.query},
        )
    except NoSuchModuleError:
        raise SettingError(f"database must be of a kind that SQLAlchemy knows. {_FORM}", "database") from None
    except ModuleNotFoundError as error:
        if postgresql:
            raise MissingExtraError(
                f"A PostgreSQL database needs the package psycopg, which cannot be imported ({error}). "
                'Run: pip install "totalrecall[postgresql]"'
            ) from None
        raise MissingExtraError(
            f"The driver of a {url.get_backend_name()} database is not installed ({error}). Install it with pip."
        ) from None
    if postgresql:

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, record: Any) -> None:  # noqa: ARG001
            with connection.cursor() as cursor:
                cursor.execute("SET TIME ZONE 'UTC'")
                cursor.execute("SET synchronous_commit TO on")
                if read_only:
                    cursor.execute("SET default_transaction_read_only TO on")
            connection.commit()

    return engine


def in_words(error: SQLAlchemyError | sqlite3.Error | OSError, url: URL, wait: float) -> HistoryError:
    """Return what went wrong with a database as one line for a person, without statement, values or password."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    reason = _first_line(str(cause), url)
    place = shown(url)
    if isinstance(error, PoolTimeoutError):
        return HistoryError(f"The database {place} has too much to do: all connections are taken. Try again.")
    if any(words in reason for words in _BUSY):
        return HistoryError(
            f"The database {place} is locked by another program; waited {wait:g} s. Close that program, or try again."
        )
    if any(words in reason for words in _FULL):
        return HistoryError(f"The database {place} cannot be written: {reason}. Free some space on its disk.")
    if "file is not a database" in reason or "malformed" in reason:
        return HistoryError(f"{place} is not a database of the station: {reason}. Name another file.")
    if file_of(url) is None and isinstance(error, (OperationalError, InterfaceError)):
        return HistoryError(f"The database {place} does not answer: {reason}.")
    return HistoryError(f"The database {place} cannot be used: {reason}.")


def _first_line(message: str, url: URL) -> str:
    """Return the first line of a driver's message without the password, in whatever form it repeats it."""
    reason = next((line.strip() for line in message.splitlines() if line.strip()), "no reason given").rstrip(".")
    secrets = [url.password, *(value for name, value in url.query.items() if "pass" in name.lower())]
    for secret in secrets:
        if secret:
            for form in (str(secret), quote(str(secret), safe="")):
                reason = reason.replace(form, "***")
    return reason
