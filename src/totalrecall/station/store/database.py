"""The database of the station: one thread writes, in grouped transactions; many may read.

A write is acknowledged, its future resolved, only after COMMIT: what was acknowledged is on the disk, whatever happens
to the process afterwards. While one transaction waits for the disk the next writes gather, and share the next COMMIT.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from totalrecall.errors import HistoryError
from totalrecall.station.store.addresses import (
    checking_engine,
    file_of,
    in_words,
    parse_address,
    reading_engine,
    shown,
    writing_engine,
)
from totalrecall.station.store.claim import ServerClaim, claim_database_file
from totalrecall.station.store.schema import State, state_of, upgrade

__all__ = ["Database"]

T = TypeVar("T")

_MOST = 256  # writes of one transaction: what a reader of the newest waits for stays short


@dataclass(frozen=True)
class _Write(Generic[T]):
    """A function that writes, and the promise to whoever asked for it."""

    function: Callable[[Connection], T]
    future: "Future[T]"


class Database:
    """A database with the station's tables, brought up to date when it is opened.

    Args:
        url: any address of SQLAlchemy, such as `sqlite:///history.db` or `postgresql://user@host/name`.
        wait: seconds to wait for another program that locks a SQLite file.
        create: make the tables where there are none, and bring older ones up to date; else such a database is refused
            and nothing is changed.
        alone: refuse a database that another station uses, and keep others out until `close`.

    Raises:
        SettingError: the address is none, its driver is not installed, or another station uses the database.
        HistoryError: the database cannot be used, is another program's, or is of a newer version.
    """

    def __init__(self, url: str, *, wait: float = 30.0, create: bool = True, alone: bool = False) -> None:
        self._url = parse_address(url)
        self._wait = wait
        self.place = shown(self._url)
        with contextlib.ExitStack() as opened:
            file = file_of(self._url)
            if alone and file is not None and not file.is_dir():
                opened.enter_context(claim_database_file(file))
            self._check(create=create)
            self._writing = writing_engine(self._url, wait)
            opened.callback(self._writing.dispose)
            self._reading = reading_engine(self._url, wait)
            opened.callback(self._reading.dispose)
            if alone and self._url.get_backend_name() == "postgresql":
                event.listen(self._writing, "connect", ServerClaim(self.place).take)
            if create:
                with self._speaking(), self._writing.begin() as connection:
                    upgrade(connection, self.place)
            self._opened = opened.pop_all()
        self._identity = _identity(file_of(self._url))
        self._queue: SimpleQueue[_Write[Any] | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._fault: str | None = None
        self._connection: Connection | None = None  # to a file, of the thread that writes
        self._writer = threading.Thread(target=self._work, name="database writer", daemon=True)
        self._writer.start()

    def __repr__(self) -> str:
        return f"Database({self.place!r})"  # without the password

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def fault(self) -> str | None:
        """Why nothing could be written the last time, in a line; None if it could. Any thread may ask."""
        return f"The database {self.place} is closed." if self._closed else self._fault

    def write(self, function: Callable[[Connection], T]) -> "Future[T]":
        """Have a function run in the next transaction, and return the promise of its result.

        The future resolves after COMMIT. A function that fails is undone alone, and its future holds the error; the
        others of the transaction are not touched. A function must neither commit nor wait for another write, and nor
        must a callback of the future: both run in the thread that writes.

        Raises (in the future):
            HistoryError: the disk is full, the file is locked or the server is gone; nothing is acknowledged.
        """
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                raise HistoryError(f"The database {self.place} is closed.")
            self._queue.put(_Write(function, future))
        return future

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that only reads, and sees everything that was acknowledged.

        Raises:
            HistoryError: the database cannot be read.
        """
        with self._speaking(), self._reading.begin() as connection:
            yield connection

    def files(self) -> list[Path]:
        """Return the files of a SQLite database, which nobody else may write; none for a server's."""
        file = file_of(self._url)
        return [] if file is None else [file, *(Path(f"{file}{end}") for end in ("-wal", "-shm"))]

    def close(self) -> None:
        """Finish what was asked for, and let go of the database."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._writer.join()
        self._opened.close()

    def _check(self, *, create: bool) -> None:
        """Look at the database before anything of it is changed."""
        file = file_of(self._url)
        if file is not None and file.is_dir():
            raise HistoryError(f"{file} is a folder, not a database. Name a file in it.")
        if file is not None and not _holds_something(file):
            if not create:
                raise HistoryError(f"There is no history in {file}. Start the station first, or name another file.")
            self._make(file)
            return
        engine = checking_engine(self._url, self._wait)
        try:
            with self._speaking(), engine.connect() as connection:
                state = state_of(connection, self.place)
        finally:
            engine.dispose()
        if not create and state is not State.CURRENT:
            what = "holds no history yet" if state is State.EMPTY else "was written by an older version"
            raise HistoryError(f"The database {self.place} {what}. Start the station once: totalrecall serve.")

    def _make(self, file: Path) -> None:
        """Make an empty file that only this user may read, and its folder: hashes of passwords will be in it."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        except (OSError, ValueError) as error:
            raise HistoryError(
                f"The database {self.place} cannot be made: {getattr(error, 'strerror', None) or error}. "
                "Name a file in a folder that can be written."
            ) from None

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        """Say what is wrong with the database in one line; a row that breaks a rule stays the error that it is."""
        try:
            yield
        except SQLAlchemyError as error:
            if _is_about_rows(error):
                raise
            raise in_words(error, self._url, self._wait) from None

    def _work(self) -> None:
        """Write until the database is closed; whatever ends the thread, nobody waits for it in vain."""
        writes: list[_Write[Any] | None] = []
        try:
            while None not in writes:
                writes = self._next_writes()
                asked = [write for write in writes if write is not None and write.future.set_running_or_notify_cancel()]
                if asked:
                    self._write_together(asked)
        finally:
            self._let_go()
            with self._closing:
                self._closed = True
            while not self._queue.empty():
                for write in self._next_writes():
                    if write is not None and write.future.set_running_or_notify_cancel():
                        write.future.set_exception(HistoryError(f"The database {self.place} is closed."))

    def _next_writes(self) -> list[_Write[Any] | None]:
        """Wait for a write, and return it with those that wait behind it."""
        writes = [self._queue.get()]
        with contextlib.suppress(Empty):
            while len(writes) < _MOST and writes[-1] is not None:
                writes.append(self._queue.get_nowait())
        return writes

    def _write_together(self, writes: list[_Write[Any]]) -> None:
        """Run functions in one transaction, and resolve their futures once it is committed."""
        outcomes: list[tuple[Any, Exception | None]] = []
        try:
            with self._speaking(), self._transaction() as connection:
                if len(writes) == 1:  # the transaction itself undoes it: a savepoint would cost as much as the insert
                    outcomes = [(writes[0].function(connection), None)]
                else:
                    outcomes = [_run(write.function, connection) for write in writes]
                self._check_in_place()
        except BaseException as error:
            self._remember([error])
            for write in writes:
                write.future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        told = [(result, None if failure is None else self._in_words(failure)) for result, failure in outcomes]
        self._remember([failure for _, failure in told])
        for write, (result, failure) in zip(writes, told, strict=True):
            if failure is None:
                write.future.set_result(result)
            else:
                write.future.set_exception(failure)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Give the connection for one transaction of the thread that writes.

        That to a file stays open until something goes wrong: to take it from the pool and give it back takes a quarter
        of the time of a write. A server's is taken anew, since the pool then asks whether the server is still there.
        """
        if file_of(self._url) is None:
            with self._writing.begin() as connection:
                yield connection
            return
        if self._connection is None:
            self._connection = self._writing.connect()
        try:
            with self._connection.begin():
                yield self._connection
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Close the connection to a file; the next write opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()

    def _remember(self, failures: Sequence[BaseException | None]) -> None:
        """Keep whether the database can be written; a refusal of what was asked says nothing about that."""
        for failure in failures:
            if failure is None:
                self._fault = None
            elif isinstance(failure, HistoryError):
                self._fault = str(failure)

    def _check_in_place(self) -> None:
        """Refuse to write into a file that was removed or replaced: SQLite would, and all of it would be lost."""
        if _identity(file_of(self._url)) != self._identity:
            raise HistoryError(
                f"The database {self.place} was removed or replaced while the station uses it. Put the file back, or "
                "start the station again."
            )

    def _in_words(self, error: Exception) -> Exception:
        if isinstance(error, SQLAlchemyError) and not _is_about_rows(error):
            return in_words(error, self._url, self._wait)
        return error


def _run(function: Callable[[Connection], T], connection: Connection) -> tuple[T | None, Exception | None]:
    """Run a function in a savepoint, and return its result or why it failed; it is undone then."""
    savepoint = connection.begin_nested()
    try:
        result = function(connection)
        savepoint.commit()
    except BaseException as error:
        try:
            savepoint.rollback()
        except SQLAlchemyError:  # the transaction itself is gone: a full disk, a lost server
            raise error from None
        # subtle: SQLAlchemy rolls a lost connection's savepoint back without a word, and fails at whatever comes next
        if not isinstance(error, Exception) or connection.invalidated:
            raise
        return None, error
    return result, None


def _is_about_rows(error: SQLAlchemyError) -> bool:
    """Tell a rule that was broken, or a wrong statement, from a database that cannot be used."""
    return isinstance(error, IntegrityError) or not isinstance(error, (DBAPIError, PoolTimeoutError))


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Return by what the system knows a file; None where there is none."""
    if file is None:
        return None
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _holds_something(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except (OSError, ValueError):
        return False
