"""Deliveries that survive everything: they lie in the database, beside their inspection, until the target took them.

A row comes into the outbox within the transaction that holds the inspection. One thread for each target takes what is
due and delivers it. What the target does not take is tried again: after 1 s, then after twice as long each time, up to
10 minutes; after 48 hours of tries it is given up, and the row says so for a month. They are counted by tries, not by
the clock, which may jump, and a station that is switched off tries nothing. A target that is dead delays no other. When
the process is killed between a delivery and its mark, the target gets it twice, with the same id.
"""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from totalrecall.station.links.base import Changes, pause_before, reason_of
from totalrecall.station.store.database import Database
from totalrecall.station.store.records import Inspection, finite
from totalrecall.station.store.tables import inspections, outbox

__all__ = ["Deliverer", "Patience", "put"]

_AT_ONCE = 50  # rows of one look
_LOOK = 60.0  # seconds at most between two looks
_LONGEST_ERROR = 500  # characters
_NEVER = datetime(9999, 1, 1, tzinfo=timezone.utc)  # when a row that was given up is due
_KEPT = timedelta(days=7)  # that delivered rows stay, for people who ask what went out
_GIVEN_UP_KEPT = timedelta(days=30)  # that rows which were given up stay, counted from their inspections
_SWEEP = 3600.0  # seconds between two looks for both


@dataclass(frozen=True)
class Patience:
    """How long a target is waited for, in seconds.

    Attributes:
        first: between the first failure and the second try; doubled after each.
        longest: between two tries of one delivery.
        target: between two tries at a target that took nothing lately.
        give_up: of pauses, one after the other, after which a delivery is given up.
    """

    first: float = 1.0
    longest: float = 600.0
    target: float = 60.0
    give_up: float = 48 * 3600.0

    @property
    def tries(self) -> int:
        """How many times a delivery is tried: until the pauses after the tries before come to `give_up`."""
        count, waited, pause = 1, 0.0, self.first
        while pause < self.longest and waited < self.give_up:
            count, waited, pause = count + 1, waited + pause, 2 * pause
        return count + max(math.ceil((self.give_up - waited) / self.longest), 0)


@dataclass(frozen=True)
class _Row:
    id: int
    inspection: str
    body: dict[str, Any]
    attempts: int


def put(connection: Connection, inspection: Inspection, target: str, body: dict[str, Any]) -> None:
    """Lay a delivery into the outbox, within a transaction."""
    row = {"inspection": inspection.key, "target": target, "body": finite(body), "attempts": 0}
    connection.execute(insert(outbox), {**row, "next_at": inspection.at})


class Deliverer:
    """Takes from the outbox what is due for one target, in a thread of its own.

    Args:
        database: that holds the outbox.
        target: as in the rows.
        deliver: called with body and id of a delivery; returns why the target did not take it, or None. The reason
            goes into the log and the database: it must hold nothing that is secret.
        patience: how often, and how long, it is tried.
    """

    def __init__(
        self,
        database: Database,
        target: str,
        deliver: Callable[[dict[str, Any], str], str | None],
        patience: Patience | None = None,
    ) -> None:
        self._database, self._target, self._deliver = database, target, deliver
        self._patience = patience or Patience()
        self._tries = self._patience.tries
        self._changes = Changes()
        self._due = threading.Event()
        self._closing = threading.Event()
        self._marking: dict[int, Future[None]] = {}
        self._failures = 0  # since the target last took something
        self._swept = -math.inf
        self._thread = threading.Thread(target=self._run, name=f"station-to-{target}"[:60], daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """Why the target takes nothing at the moment; None if it does."""
        return self._changes.said("database") or self._changes.said("marks") or self._changes.said("target")

    def wake(self) -> None:
        """Look for what is due: something was just laid into the outbox. It does not wait."""
        self._due.set()

    def close(self) -> None:
        """Stop after the delivery in hand; the rest stays in the outbox for the next start."""
        self._closing.set()
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._due.clear()
            try:
                self._sweep()
                rows, wait = self._look()
            except Exception as error:  # whatever it is, it is said, and tried again
                self._changes.say("database", f"Nothing can be delivered to {self._target}: {reason_of(error)}")
                self._closing.wait(self._patience.first)
                continue
            self._changes.settled("database")
            for row in rows:
                if self._closing.is_set():
                    break
                if not self._try(row):
                    self._closing.wait(pause_before(self._failures, self._patience.first, self._patience.target))
            if self._marking:  # what follows must see them
                self._finish_marking()
            elif not rows:
                self._due.wait(wait)

    def _look(self) -> tuple[list[_Row], float]:
        """Return the rows that are due, the oldest first, and the seconds until the next one is."""
        now = datetime.now(timezone.utc)
        open_ = (outbox.c.target == self._target, outbox.c.delivered_at.is_(None), outbox.c.id.not_in(self._marking))
        query = select(outbox.c.id, outbox.c.inspection, outbox.c.body, outbox.c.attempts)
        query = (
            query.where(*open_, or_(outbox.c.next_at <= now, self._is_of_a_later_clock(now)))
            .order_by(outbox.c.id)
            .limit(_AT_ONCE)
        )
        with self._database.read() as connection:
            rows = [_Row(*row) for row in connection.execute(query)]
            next_at = None if rows else connection.execute(select(func.min(outbox.c.next_at)).where(*open_)).scalar()
        return rows, _LOOK if next_at is None else min(max((next_at - now).total_seconds(), 0.01), _LOOK)

    def _is_of_a_later_clock(self, now: datetime) -> ColumnElement[bool]:
        """Whether a row is due later than any pause lasts: the clock was set back, and it would wait until then."""
        longest = timedelta(seconds=max(self._patience.longest, _LOOK))
        return and_(outbox.c.next_at > now + longest, outbox.c.next_at < _NEVER)

    def _try(self, row: _Row) -> bool:
        """Deliver one row and mark it; returns whether the target took it."""
        try:
            reason = self._deliver(row.body, row.inspection)
        except Exception as error:  # a fault of the link: the thread lives on, and the row waits
            reason = f"unexpected {type(error).__name__}"
        now = datetime.now(timezone.utc)
        if reason is None:
            self._failures = 0
            self._changes.settled("target", f"{self._target} takes deliveries again.")
            self._mark(row, {"attempts": row.attempts + 1, "delivered_at": now, "error": None})
            return True
        self._failures += 1
        reason = reason[:_LONGEST_ERROR]
        self._changes.say("target", f"{self._target} did not take a delivery: {reason}. It is tried again.")
        attempts = row.attempts + 1
        next_at = now + timedelta(seconds=pause_before(attempts, self._patience.first, self._patience.longest))
        if attempts >= self._tries:
            next_at, reason = _NEVER, f"given up: {reason}"
            self._changes.say(row.id, f"The delivery of inspection {row.inspection} to {self._target} was {reason}.")
        self._mark(row, {"attempts": attempts, "next_at": next_at, "error": reason})
        return False

    def _mark(self, row: _Row, values: dict[str, Any]) -> None:
        query = update(outbox).where(outbox.c.id == row.id).values(values)

        def write(connection: Connection) -> None:
            connection.execute(query)

        self._marking[row.id] = self._database.write(write)

    def _finish_marking(self) -> None:
        """Wait until the marks are on the disk. A row whose mark failed is delivered again, after a pause."""
        wait_for(self._marking.values())
        failed = [error for future in self._marking.values() if (error := future.exception()) is not None]
        self._marking.clear()
        if failed:
            self._changes.say("marks", f"What was delivered to {self._target} cannot be marked: {failed[0]}")
            self._closing.wait(self._patience.target)
        else:
            self._changes.settled("marks")

    def _sweep(self) -> None:
        """Remove, once an hour, what was delivered or given up long ago."""
        if time.monotonic() - self._swept < _SWEEP:
            return
        self._swept = time.monotonic()
        now = datetime.now(timezone.utc)
        old = select(inspections.c.key).where(inspections.c.at < now - _GIVEN_UP_KEPT)
        given_up = and_(outbox.c.next_at >= _NEVER, outbox.c.inspection.in_(old))
        delivered = outbox.c.delivered_at < now - _KEPT
        query = delete(outbox).where(outbox.c.target == self._target, or_(delivered, given_up))

        def write(connection: Connection) -> None:
            connection.execute(query)

        self._database.write(write).result()
