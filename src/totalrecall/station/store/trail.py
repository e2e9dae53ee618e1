"""The audit trail: who changed what and when, in rows that cannot be altered without being noticed.

What is noticed: a row that was altered, removed, inserted or swapped with another. What is not: an end that was cut
off, or a trail that was written anew from some row on, unless somebody wrote down a later hash (`expect_head`).
A judgement in the history that is not the one in the trail is noticed, too.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, exists, func, select

from totalrecall.station.store import chain
from totalrecall.station.store.chain import SUBJECT, Entry
from totalrecall.station.store.database import Database
from totalrecall.station.store.records import Actor, storable
from totalrecall.station.store.tables import inspections, trail

__all__ = ["Trail", "Verified"]

_PAGE = 1000  # rows of one read


@dataclass(frozen=True)
class Verified:
    """What a look at every row of the trail said.

    Attributes:
        rows: how many there are.
        broken: numbers of the rows that are not what was written, or do not continue the row before.
        head: hash of the last row; 64 zeros without one.
        reasons: number of a broken row -> what is wrong with it.
        expected: whether the hash that was asked for is that of a row; None where none was.
        judgements: keys of the inspections whose judgement in the history is not the last one in the trail.
    """

    rows: int
    broken: list[int]
    head: str
    reasons: dict[int, str] = field(default_factory=dict)
    expected: bool | None = None
    judgements: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.broken and not self.judgements and self.expected is not False


class Trail:
    """The audit trail of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, actor: Actor, action: str, subject: str, details: Mapping[str, Any]) -> "Future[int]":
        """Append a row, and return the promise of its number."""
        return self._database.write(lambda connection: self.append_in(connection, actor, action, subject, details))

    def append_in(
        self, connection: Connection, actor: Actor, action: str, subject: str, details: Mapping[str, Any]
    ) -> int:
        """Append a row in the transaction of what it tells about, so that neither is there without the other."""
        return chain.append(connection, actor, action, subject, details)

    def rows(self, limit: int = 50, before: int | None = None) -> list[Entry]:
        """Return rows, the newest first.

        Args:
            limit: the most of them.
            before: the number of the last row of the page before.
        """
        query = select(trail).order_by(trail.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(trail.c.id < before)
        with self._database.read() as connection:
            return [Entry(**row) for row in connection.execute(query).mappings()]

    def last(self, subject: str, actions: Collection[str]) -> Entry | None:
        """Return the newest row about a subject that tells of one of some actions; None without one."""
        query = select(trail).where(trail.c.subject == storable(subject, SUBJECT), trail.c.action.in_(actions))
        with self._database.read() as connection:
            row = connection.execute(query.order_by(trail.c.id.desc()).limit(1)).mappings().one_or_none()
        return None if row is None else Entry(**row)

    def subjects(self, action: str) -> set[str]:
        """Return the subjects of all rows that tell of an action."""
        query = select(trail.c.subject).where(trail.c.action == action).distinct()
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def verify(self, expect_head: str | None = None) -> Verified:
        """Look at every row, and whether the judgements in the history are those that the trail tells of.

        Args:
            expect_head: a hash that was written down; a row must have it still.
        """
        count, head, reasons, seen = 0, chain.FIRST, {}, expect_head == chain.FIRST
        for row, reason in chain.checked(self._every()):
            count, head = count + 1, str(row["hash"])
            seen = seen or head == expect_head
            if reason:
                reasons[int(row["id"])] = reason
        if count == 0:
            reasons[1] = "it is missing, and so are all others"
        expected = None if expect_head is None else seen
        return Verified(count, sorted(reasons), head, reasons, expected, sorted(self._altered_judgements()))

    def _altered_judgements(self) -> Iterator[str]:
        """Yield the keys of inspections that were judged, or are gone, behind the trail's back.

        A judgement and its row come in one transaction; each of the two statements sees both or neither.
        """
        judged = trail.c.action == "judge"
        last = select(func.max(trail.c.id).label("id")).where(judged).group_by(trail.c.subject).subquery()
        table = inspections.c
        told = (
            select(trail.c.subject, trail.c.actor, trail.c.details, table.key, table.judgement, table.judged_by)
            .join(last, trail.c.id == last.c.id)
            .outerjoin(inspections, table.key == trail.c.subject)
        )
        has_row = exists().where(judged, trail.c.subject == table.key)
        untold = select(table.key).where(table.judgement.is_not(None), ~has_row)
        with self._database.read() as connection:
            for row in connection.execute(told):
                judgement = _judgement(row.details)
                by = None if judgement is None else row.actor
                if row.key is None or (row.judgement, row.judged_by) != (judgement, by):
                    yield row.subject
            yield from connection.execute(untold).scalars()

    def _every(self) -> Iterator[Mapping[str, Any]]:
        """Yield all rows by rising number, page by page: a long read would keep the database from tidying up."""
        after: int | None = None
        while True:
            query = select(trail).order_by(trail.c.id).limit(_PAGE)
            if after is not None:
                query = query.where(trail.c.id > after)
            with self._database.read() as connection:
                page = connection.execute(query).mappings().all()
            yield from (dict(row) for row in page)
            if len(page) < _PAGE:
                return
            after = int(page[-1]["id"])


def _judgement(details: str) -> str | None:
    """Return the judgement that a row of the trail tells of; one that nobody gives where the row was destroyed."""
    try:
        return json.loads(details)["judgement"]
    except (ValueError, KeyError, TypeError):
        return ""
