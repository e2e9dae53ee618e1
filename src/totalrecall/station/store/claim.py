"""One station at a time uses a folder, and one a database: a second is refused while the first is alive.

A claim lies with the system (a lock of a file) or with the server (an advisory lock of PostgreSQL), not in a row or in
a file's content: so it ends with the process, however that ends. Programs that only look (`station verify`, `csv`) or
change users and tokens (`station users`, `tokens`) need none.

The server's lock belongs to the connection that writes. If that is lost, the lock is, too; the next connection takes it
again before anything is written, or says that another station has it by now. Stations that share a database would
begin here: with a claim for each of them, and one for what only one of them may do. (The replicas of `serve --ray` are
none: they judge, and the one station writes.)
"""

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, text

from totalrecall.errors import DataError, HistoryError, SettingError
from totalrecall.station.store.chain import LOCK
from totalrecall.station.store.tables import trail
from totalrecall.system.files import sha256

__all__ = ["ServerClaim", "claim_database_file", "claim_folder", "mark_of"]

_PATIENCE = 3.0  # seconds: a server notices only after a moment that the process before was killed
_PAUSE = 0.1
_STATION = LOCK + 1  # PostgreSQL's advisory lock of the station
# after a minute the server notices that the computer of a station is gone, which by default it does after two hours
_KEEP_ALIVE = ("tcp_keepalives_idle TO 20", "tcp_keepalives_interval TO 10", "tcp_keepalives_count TO 4")
_SERVER = "SELECT system_identifier FROM pg_control_system()"
_OLD_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = %s AND pid <> pg_backend_pid() AND datname = current_database()"
)


@contextlib.contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Make the station's folder, for this user alone, and hold it: two stations would write over each other's files.

    Raises:
        DataError: it cannot be made or written.
        SettingError: another station holds it.
    """
    advice = "Name a folder that can be written by --folder."
    with _claimed(folder / "lock", f"{folder}", "Stop it, or name another --folder.", advice):
        yield


@contextlib.contextmanager
def claim_database_file(file: Path) -> Iterator[None]:
    """Hold a SQLite file, by a file beside it: SQLite's own locks are for single transactions.

    Raises:
        DataError: the file beside it cannot be written.
        SettingError: another station holds it.
    """
    advice = "Name a database in a folder that can be written."
    with _claimed(Path(f"{file}.lock"), f"the database {file}", "Stop it, or name another --database.", advice):
        yield


@contextlib.contextmanager
def _claimed(lock: Path, what: str, way_out: str, advice: str) -> Iterator[None]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{lock.parent} cannot be a folder, since a file has its place. {advice}") from None
    except OSError as error:
        raise DataError(f"Cannot write {lock.parent}: {error.strerror or error}. {advice}") from None
    with os.fdopen(handle, "r+") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SettingError(f"Another station uses {what}. {way_out}") from None
        yield


def mark_of(connection: Connection) -> str:
    """Return what tells a PostgreSQL database of a station from all others, whatever its address: 64 hex digits.

    It is made of the hash of the trail's first row, and of what the server calls itself and the database, in which a
    copy of the database differs.
    """
    first = connection.execute(select(trail.c.hash).order_by(trail.c.id).limit(1)).scalar_one_or_none()
    database = connection.execute(text("SELECT oid FROM pg_database WHERE datname = current_database()")).scalar_one()
    may_ask = connection.execute(text("SELECT has_function_privilege('pg_control_system()', 'execute')")).scalar_one()
    server = connection.execute(text(_SERVER)).scalar_one() if may_ask else ""
    return sha256(f"{first} {database} {server}".encode())


class ServerClaim:
    """The claim of a station on a PostgreSQL database, held by its connection that writes.

    Args:
        place: address of the database for people.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._name = f"totalrecall station {secrets.token_hex(8)}"
        self._held_before = False

    def take(self, connection: Any, record: object) -> None:  # noqa: ARG002  SQLAlchemy says which place in its pool
        """Take the lock for a new connection.

        A connection that broke may live on at the server, and hold the lock: it is known by its name, and ended.

        Raises:
            SettingError: another station has the lock, at the start.
            HistoryError: another station has taken it since.
        """
        end = time.monotonic() + _PATIENCE
        with connection.cursor() as cursor:
            for setting in _KEEP_ALIVE:
                cursor.execute(f"SET {setting}")
            cursor.execute("SELECT set_config('application_name', %s, false)", (self._name,))
            while not self._is_taken(cursor):
                connection.commit()
                if time.monotonic() > end:
                    connection.close()  # nothing must ever be written by it
                    raise self._refusal()
                time.sleep(_PAUSE)
        connection.commit()
        self._held_before = True

    def _is_taken(self, cursor: Any) -> bool:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", (_STATION,))
        if cursor.fetchone()[0]:
            return True
        if self._held_before:
            cursor.execute(_OLD_SESSIONS, (self._name,))
        return False

    def _refusal(self) -> Exception:
        if self._held_before:
            return HistoryError(
                f"The connection to the database {self._place} was lost, and another station uses it now. Stop one of "
                "the two."
            )
        return SettingError(f"Another station uses the database {self._place}. Stop it, or name another --database.")
