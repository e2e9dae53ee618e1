"""The rows of the audit trail, each hashed with the one before: append one, and check them all.

The hash of a row is the SHA-256 of canonical JSON (keys sorted, no spaces, ASCII) of its columns `id`, `at`, `actor`,
`role`, `action`, `subject`, `details` (as text) and `previous`, which is the hash of the row before. Whoever alters a
row must alter every later one, too; so whoever has written down a later hash notices it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection, Executable, insert, select, text

from totalrecall.station.store.records import Actor, finite, storable
from totalrecall.station.store.tables import trail
from totalrecall.system.files import sha256

__all__ = ["FIRST", "LOCK", "SUBJECT", "Entry", "append", "checked", "execute_alone", "lock", "row_hash"]

FIRST = "0" * 64  # stands for the hash before the first row
LOCK = 0x7265_6361_6C6C  # "recall": PostgreSQL's advisory lock of the trail and of the migrations
SUBJECT = 1000  # letters of a subject
_HASHED = ("id", "at", "actor", "role", "action", "subject", "details", "previous")


@dataclass(frozen=True)
class Entry:
    """One row of the audit trail.

    Attributes:
        id: 1 for the first row, then one more each.
        at: in UTC, with microseconds, as text.
        actor: name of who did it.
        role: that he, she or it had.
        action: what was done, such as `judge`.
        subject: what it was done to: a model's name, an inspection's key.
        details: what else there is to know, as JSON.
        previous: the hash of the row before; 64 zeros in the first.
        hash: of this row.
    """

    id: int
    at: str
    actor: str
    role: str
    action: str
    subject: str
    details: str
    previous: str
    hash: str

    def facts(self) -> dict[str, Any]:
        """Return the details as JSON types."""
        return dict(json.loads(self.details))


_LAST = select(trail.c.id, trail.c.hash).order_by(trail.c.id.desc()).limit(1)


def row_hash(row: Mapping[str, Any]) -> str:
    """Return the hash of a row of the trail."""
    columns = {name: row[name] for name in _HASHED}
    return sha256(json.dumps(columns, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii"))


def lock(connection: Connection) -> None:
    """Let nobody else append, or change who may do what, until the end of the transaction.

    On SQLite a transaction that writes is alone anyway. One that changes other rows, too, asks for this first: two that
    wait for each other's rows would both fail.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


def execute_alone(statement: Executable, connection: Connection) -> None:
    """Run a statement after whoever appends, or changes who may do what, has ended."""
    lock(connection)
    connection.execute(statement)


def append(connection: Connection, actor: Actor, action: str, subject: str, details: Mapping[str, Any]) -> int:
    """Append a row to the trail, as part of a transaction, and return its number.

    Two processes cannot append at once: on SQLite only one of them has a write transaction, on PostgreSQL a lock is
    held until the end of the transaction, and elsewhere the last row is locked.
    """
    lock(connection)
    last = connection.execute(_LAST.with_for_update()).one_or_none()
    number, previous = (1, FIRST) if last is None else (last.id + 1, last.hash)
    row = {
        "id": number,
        "at": datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "actor": storable(actor.name, 255),
        "role": actor.role,
        "action": storable(action, 64),
        "subject": storable(subject, SUBJECT),
        "details": json.dumps(finite(dict(details)), sort_keys=True, separators=(",", ":"), default=str),
        "previous": previous,
    }
    connection.execute(insert(trail), {**row, "hash": row_hash(row)})
    return int(number)


def checked(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield each row of the trail, which come by rising number, with what is wrong with it; an empty text if nothing.

    A row that was altered is named itself; one that was removed, inserted or swapped shows in the row that comes after
    the gap, or in the one that does not belong there.
    """
    number, fits = 0, {FIRST}
    for row in rows:
        computed, reasons = row_hash(row), []
        if row["id"] != number + 1:
            missing = f"row {number + 1} is" if row["id"] == number + 2 else f"rows {number + 1} to {row['id'] - 1} are"
            reasons.append(f"{missing} missing before it")
        elif row["previous"] not in fits:
            reasons.append("it does not continue the row before")
        if computed != row["hash"]:
            reasons.append("its content is not what its hash was made of")
        yield row, "; ".join(reasons)
        # where only the hash of a row was altered, the next one continues what it was: that one is whole
        number, fits = row["id"], {row["hash"], computed}
