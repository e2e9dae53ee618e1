"""What was inspected already: files of hot folders, and messages that came with an id.

A row is written in the transaction that holds the inspection. So there is no moment at which a picture is inspected and
not in the ledger, or the other way round, however the process ends.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from sqlalchemy import Connection, delete, insert, select

from totalrecall.station.store.database import Database
from totalrecall.station.store.records import Inspection, storable
from totalrecall.station.store.tables import inspections, messages, watched_files
from totalrecall.system.files import sha256

__all__ = ["Ledger", "MessageLedger", "WatchedFile"]

_AT_ONCE = 500  # digests of one question


@dataclass(frozen=True)
class WatchedFile:
    """A file of a hot folder, as it was when it was looked at.

    Attributes:
        path: absolute, without links.
        size: in bytes.
        mtime_ns: time of its last change.
        inode: number of the file on its disk.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int

    @property
    def digest(self) -> str:
        """The SHA-256 of path, size and time."""
        text = json.dumps([self.path, self.size, self.mtime_ns])  # halves of surrogate pairs are escaped
        return hashlib.sha256(text.encode("ascii")).hexdigest()


class Ledger:
    """The files of hot folders that were inspected."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def inspected(self, files: Sequence[WatchedFile]) -> dict[WatchedFile, str]:
        """Return those files that were inspected, with the keys of their inspections."""
        keys: dict[str, str] = {}
        digests = [file.digest for file in files]
        for at in range(0, len(digests), _AT_ONCE):
            query = select(watched_files.c.digest, watched_files.c.inspection)
            query = query.where(watched_files.c.digest.in_(digests[at : at + _AT_ONCE]))
            with self._database.read() as connection:
                keys.update({row.digest: row.inspection for row in connection.execute(query)})
        return {file: keys[digest] for file, digest in zip(files, digests, strict=True) if digest in keys}

    def same_content(self, file: WatchedFile, sha256: str) -> str | None:
        """Return the key of the inspection of a file that had this path and content at another time."""
        table = watched_files.c
        query = select(table.inspection).where(table.sha256 == sha256, table.path == storable(file.path, _PATH))
        with self._database.read() as connection:
            row = connection.execute(query.limit(1)).one_or_none()
        return None if row is None else row.inspection

    def add(self, connection: Connection, file: WatchedFile, sha256: str, key: str) -> None:
        """Write down that a file was inspected, within a transaction.

        Raises:
            IntegrityError: it was before.
        """
        connection.execute(
            insert(watched_files),
            {
                "digest": file.digest,
                "path": storable(file.path, _PATH),
                "size": file.size,
                "mtime_ns": file.mtime_ns,
                "sha256": sha256,
                "inspection": key,
                "at": datetime.now(timezone.utc),
            },
        )

    def add_later(self, file: WatchedFile, sha256: str, key: str) -> "Future[None]":
        """Write down that a file holds what was inspected before."""
        return self._database.write(lambda connection: self.add(connection, file, sha256, key))

    def forget(self, file: WatchedFile) -> "Future[None]":
        """Strike a file out: it is no longer in the folder, so one that comes there is another."""
        query = delete(watched_files).where(watched_files.c.digest == file.digest)

        def write(connection: Connection) -> None:
            connection.execute(query)

        return self._database.write(write)


_PATH = 4096  # characters of a path
_AHEAD = timedelta(minutes=1)  # that a clock may be set back before messages are taken for new ones


class MessageLedger:
    """Messages that were inspected, by the ids that their senders gave them.

    Args:
        database: that holds it.
        window: for how long an id is remembered.
    """

    def __init__(self, database: Database, window: timedelta) -> None:
        self._database, self._window = database, window

    def inspected(self, topic: str, name: str) -> bool:
        """Tell whether a message was inspected within the window."""
        query = select(messages.c.inspection).where(
            messages.c.digest == _digest(topic, name), messages.c.at.between(*self._lately)
        )
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def same_picture(self, model: str, picture: bytes) -> bool:
        """Tell whether a model inspected a picture that came as a message within the window."""
        table = inspections.c
        query = select(table.key).where(
            table.picture_sha256 == sha256(picture),
            table.model == model,
            table.source == "mqtt",
            table.at.between(*self._lately),
        )
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def add(self, connection: Connection, inspection: Inspection, topic: str, name: str) -> None:
        """Write down a message within a transaction, and strike out those that are older than the window.

        Raises:
            IntegrityError: there was one of this id within the window.
        """
        connection.execute(delete(messages).where(~messages.c.at.between(*self._lately)))
        row = {"digest": _digest(topic, name), "inspection": inspection.key, "at": datetime.now(timezone.utc)}
        connection.execute(insert(messages), row)

    @property
    def _lately(self) -> tuple[datetime, datetime]:
        """The window: what is of a later clock, that was set back since, is not in it."""
        now = datetime.now(timezone.utc)
        return now - self._window, now + _AHEAD


def _digest(topic: str, name: str) -> str:
    return hashlib.sha256(json.dumps([topic, name]).encode("ascii")).hexdigest()
