"""Every inspection, in the database: added, looked up, judged by people, counted, written out as CSV."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import fields, replace
from datetime import datetime, timezone
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    delete,
    extract,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from totalrecall.errors import ConflictError, NotFoundError, SettingError
from totalrecall.station.store import chain
from totalrecall.station.store.database import Database
from totalrecall.station.store.records import (
    JUDGEMENTS,
    NEAR_MISS,
    NOT_PRODUCTION,
    REJECTS,
    Actor,
    Filter,
    Inspection,
    finite,
    iso,
    storable,
)
from totalrecall.station.store.tables import inspections, jobs, outbox, values
from totalrecall.system.text import csv_line

__all__ = ["CSV_COLUMNS", "History"]

T = TypeVar("T")

_PAGE = 500  # rows of one read of the CSV
_TRIED = "tried after a fault"  # the key of the write that finds out whether the database is well again
_ROOM = 1 << 16  # bytes of that write: more than an inspection takes, else a nearly full disk would hold the one alone
_LONGEST = {"name": 1000, "error": 1000}  # characters of a text; of the others 255
_TEXTS = ("model", "source", "name", "serial", "line", "product", "error", "judged_by")
_FIELDS = tuple(field.name for field in fields(Inspection))
_COLUMNS = tuple(inspections.c[name] for name in _FIELDS)

CSV_COLUMNS = (
    "id", "at", "model", "model_sha256", "source", "name", "serial", "line", "product", "verdict", "score", "threshold",
    "p_value", "is_anomalous", "regions", "milliseconds", "judgement", "judged_by", "judged_at", "picture_sha256",
    "error", "job", "kept",
)  # fmt: skip


class History:
    """The inspections of a database, with their jobs and the station's remembered values.

    Args:
        database: that holds them.
        near_miss: share of the threshold from which on a good picture waits for a person's judgement, as rejects do.
    """

    def __init__(self, database: Database, *, near_miss: float = NEAR_MISS) -> None:
        self._database = database
        self._near_miss = near_miss
        self._trial: Future[None] | None = None

    def add(
        self,
        inspection: Inspection,
        deliveries: Sequence[tuple[str, dict[str, Any]]] = (),
        also: Callable[[Connection, Inspection], object] | None = None,
    ) -> "Future[None]":
        """Add an inspection, and what is to be told of it, in one transaction.

        Args:
            inspection: numbers that are none (nan) become None; texts that are too long are cut.
            deliveries: target and body of each row for the outbox.
            also: what else is written; if it fails nothing is.

        Returns:
            a promise that is kept once the inspection is on the disk.

        Raises (in the future):
            ConflictError: the key is that of another inspection.
            HistoryError: the database cannot be written.
        """
        row = {**_row_of(inspection), "to_judge": self._waits(inspection)}
        told = [
            {
                "inspection": inspection.key,
                "target": target,
                "body": finite(body),
                "attempts": 0,
                "next_at": inspection.at,
            }
            for target, body in deliveries
        ]

        def write(connection: Connection) -> None:
            try:
                connection.execute(insert(inspections), row)
            except IntegrityError as error:
                if "unique" not in str(error.orig).lower():
                    raise
                raise ConflictError(f"The history already holds an inspection {inspection.key}.") from None
            if told:
                connection.execute(insert(outbox), told)
            if also is not None:
                also(connection, inspection)

        return self._database.write(write)

    def get(self, key: str) -> Inspection | None:
        """Return an inspection, or None where there is none of this key."""
        with self._database.read() as connection:
            return _get(connection, key)

    def inspection(self, key: str) -> Inspection:
        """Return an inspection.

        Raises:
            NotFoundError: there is none of this key.
        """
        with self._database.read() as connection:
            return _there(connection, key)

    def among(self, keys: Sequence[str]) -> list[Inspection]:
        """Return the inspections of some keys, at most a few hundred, in any order; unknown keys are passed over."""
        query = select(*_COLUMNS).where(inspections.c.key.in_(keys))
        with self._database.read() as connection:
            return [_inspection(row) for row in connection.execute(query).mappings()]

    def find(self, wanted: Filter | None = None, limit: int = 50, before: str | None = None) -> list[Inspection]:
        """Return inspections, the newest first.

        Args:
            wanted: which; all by default.
            limit: the most of them.
            before: key of the last inspection of the page before.

        Raises:
            NotFoundError: there is no inspection of the key `before`.
        """
        query = select(*_COLUMNS).where(*_conditions(wanted or Filter()))
        query = query.order_by(inspections.c.at.desc(), inspections.c.key.desc()).limit(limit)
        with self._database.read() as connection:
            if before is not None:
                place = tuple_(inspections.c.at, inspections.c.key)
                query = query.where(place < tuple_(_there(connection, before).at, before))
            return [_inspection(row) for row in connection.execute(query).mappings()]

    def count(self, wanted: Filter | None = None) -> int:
        """Return how many inspections there are."""
        query = select(func.count()).select_from(inspections).where(*_conditions(wanted or Filter()))
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def judge(self, key: str, judgement: str | None, actor: Actor) -> Inspection:
        """Write down what a person says about an inspection, with a row of the audit trail, and return it.

        Args:
            key: of the inspection.
            judgement: `defect` or `fine`, or None to take it back.
            actor: who says so.

        Raises:
            SettingError: it is no judgement.
            NotFoundError: there is no inspection of this key.
            HistoryError: the database cannot be written.
        """
        if judgement is not None and judgement not in JUDGEMENTS:
            raise SettingError(f"judgement must be one of {', '.join(JUDGEMENTS)}, got {judgement!r}.")

        def write(connection: Connection) -> Inspection:
            inspection = _there(connection, key)
            at = None if judgement is None else datetime.now(timezone.utc)
            by = None if judgement is None else storable(actor.name, 255)
            changes: dict[str, Any] = {"judgement": judgement, "judged_by": by, "judged_at": at}
            changes["to_judge"] = judgement is None and self._waits(replace(inspection, judgement=None))
            connection.execute(update(inspections).where(inspections.c.key == key).values(changes))
            chain.append(connection, actor, "judge", key, {"before": inspection.judgement, "judgement": judgement})
            return _there(connection, key)

        return self._database.write(write).result()

    def mark_kept(self, keys: Sequence[str], kept: bool) -> "Future[None]":
        """Write down whether the pictures of inspections are kept."""

        def write(connection: Connection) -> None:
            for at in range(0, len(keys), _PAGE):
                chosen = inspections.c.key.in_(keys[at : at + _PAGE])
                connection.execute(update(inspections).where(chosen).values(kept=kept))

        return self._database.write(write)

    def scores(
        self, model: str, since: datetime | None = None, limit: int = 10_000
    ) -> list[tuple[float, bool | None, str | None]]:
        """Return score, verdict and a person's judgement of a model's scored inspections, the newest first.

        Those of a golden check or a study do not count: they say nothing about the parts of today.
        """
        table = inspections.c
        query = select(table.score, table.is_anomalous, table.judgement)
        query = query.where(table.score.is_not(None), _of_production(), *_conditions(Filter(model=model, since=since)))
        query = query.order_by(table.at.desc(), table.key.desc()).limit(limit)
        with self._database.read() as connection:
            return [(row.score, row.is_anomalous, row.judgement) for row in connection.execute(query)]

    def per_hour(
        self, model: str | None = None, since: datetime | None = None
    ) -> list[tuple[datetime, dict[str, int]]]:
        """Return how often each verdict came, by hours in UTC, the oldest first; hours without any are left out.

        Those of a golden check or a study do not count.
        """
        table = inspections.c
        hour = [extract(part, table.at) for part in ("year", "month", "day", "hour")]
        query: Any = select(*hour, table.verdict, func.count()).where(
            _of_production(), *_conditions(Filter(model=model, since=since))
        )
        query = query.group_by(*hour, table.verdict).order_by(*hour, table.verdict)
        hours: dict[datetime, dict[str, int]] = {}
        with self._database.read() as connection:
            for year, month, day, of_day, verdict, count in connection.execute(query):
                at = datetime(int(year), int(month), int(day), int(of_day), tzinfo=timezone.utc)
                hours.setdefault(at, {})[verdict] = int(count)
        return list(hours.items())

    def csv(self, wanted: Filter | None = None) -> Iterator[str]:
        """Yield the lines of a CSV file, the newest inspection first, in which no spreadsheet finds a formula.

        It is read page by page: inspections that are added meanwhile are left out, and memory stays as it is.
        """
        yield csv_line(CSV_COLUMNS)
        before: str | None = None
        while True:
            page = self.find(wanted, limit=_PAGE, before=before)
            yield from (csv_line(_cells(inspection)) for inspection in page)
            if len(page) < _PAGE:
                return
            before = page[-1].key

    def begin_job(self, key: str, model: str, total: int, actor: Actor) -> "Future[None]":
        """Write down that pictures were sent together."""
        job = {
            "key": key,
            "model": storable(model, 255),
            "at": datetime.now(timezone.utc),
            "actor": storable(actor.name, 255),
            "total": total,
            "done": 0,
            "failed": 0,
            "state": "running",
        }
        return self._database.write(lambda connection: _nothing(connection.execute(insert(jobs), job)))

    def step_job(self, key: str, *, failed: bool = False, error: str | None = None) -> "Future[None]":
        """Write down that one more picture of a job was judged, or could not be; the first reason why stays."""
        counts = {"failed": jobs.c.failed + 1} if failed else {"done": jobs.c.done + 1}
        return self._update_job(key, counts, error)

    def end_job(self, key: str, state: str = "done", error: str | None = None) -> "Future[None]":
        """Write down that a job is `done` or was `interrupted`, and why."""
        if state not in ("done", "interrupted"):
            raise SettingError(f"state must be done or interrupted, got {state!r}.")
        return self._update_job(key, {"state": state}, error)

    def interrupt_jobs(self) -> "Future[int]":
        """Write down that the jobs of the process before were interrupted; the promise holds how many."""
        reason = func.coalesce(jobs.c.error, "The station ended before all pictures were judged.")
        query = update(jobs).where(jobs.c.state == "running").values(state="interrupted", error=reason)
        return self._database.write(lambda connection: int(connection.execute(query).rowcount))

    def job(self, key: str) -> dict[str, Any] | None:
        """Return what is known of a job, its key apart, as JSON types; None if there is none of that key."""
        with self._database.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.key == key)).mappings().one_or_none()
        if row is None:
            return None
        return {name: iso(value) if name == "at" else value for name, value in row.items() if name != "key"}

    def value(self, key: str, default: Any = None) -> Any:
        """Return a value that the station remembers between two starts, as JSON types."""
        with self._database.read() as connection:
            row = connection.execute(select(values.c.value).where(values.c.key == key)).one_or_none()
        return default if row is None else row.value

    def set_value(self, key: str, value: Any, also: Callable[[Connection], object] | None = None) -> "Future[None]":
        """Remember a value of JSON types; None forgets it. With `also`, what else is written in the transaction."""

        def write(connection: Connection) -> None:
            connection.execute(delete(values).where(values.c.key == key))
            if value is not None:
                connection.execute(insert(values), {"key": key, "value": finite(value)})
            if also is not None:
                also(connection)

        return self._database.write(write)

    def find_fault(self, patience: float = 1.0) -> str | None:
        """Return why nothing can be written, in a line; None if it can.

        Only after a write that failed is another one tried, which finds out whether the database is well again.

        Args:
            patience: seconds to wait for it. One that takes longer goes on, and no second one begins meanwhile.

        Raises:
            HistoryError: the database is closed.
        """
        if self._database.fault is not None:
            if self._trial is None or self._trial.done():
                self._trial = self.set_value(_TRIED, iso(datetime.now(timezone.utc)).ljust(_ROOM))
            wait([self._trial], patience)
        return self._database.fault

    def _waits(self, inspection: Inspection) -> bool:
        """Tell whether a person should say what an inspection shows."""
        if inspection.source in NOT_PRODUCTION or inspection.judgement is not None:
            return False
        return inspection.verdict in REJECTS or inspection.is_near_miss(self._near_miss)

    def _update_job(self, key: str, changes: dict[str, Any], error: str | None) -> "Future[None]":
        if error is not None:
            changes = {**changes, "error": func.coalesce(jobs.c.error, storable(error, 1000))}
        query = update(jobs).where(jobs.c.key == key).values(changes)
        return self._database.write(lambda connection: _nothing(connection.execute(query)))


def _nothing(_: object) -> None:
    """Take a result that nobody needs."""


def _row_of(inspection: Inspection) -> dict[str, Any]:
    """Return the columns of an inspection, as every database takes them."""
    row = finite({name: getattr(inspection, name) for name in _FIELDS})
    for name in _TEXTS:
        if row[name] is not None:
            row[name] = storable(row[name], _LONGEST.get(name, 255))
    return dict(row)


def _inspection(row: Any) -> Inspection:
    return Inspection(**row)


def _get(connection: Connection, key: str) -> Inspection | None:
    row = connection.execute(select(*_COLUMNS).where(inspections.c.key == key)).mappings().one_or_none()
    return None if row is None else _inspection(row)


def _there(connection: Connection, key: str) -> Inspection:
    inspection = _get(connection, key)
    if inspection is None:
        raise NotFoundError(f"There is no inspection {key[:80]}.")
    return inspection


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    table = inspections.c
    conditions: list[ColumnElement[bool]] = [
        column == value
        for column, value in (
            (table.model, wanted.model),
            (table.verdict, wanted.verdict),
            (table.serial, wanted.serial),
            (table.source, wanted.source),
            (table.job, wanted.job),
        )
        if value is not None
    ]
    if wanted.judgement == "none":
        conditions.append(table.judgement.is_(None))
    elif wanted.judgement is not None:
        conditions.append(table.judgement == wanted.judgement)
    if wanted.since is not None:
        conditions.append(table.at >= wanted.since)
    if wanted.until is not None:
        conditions.append(table.at < wanted.until)
    if wanted.text:
        columns = (table.name, table.serial, table.line, table.product)
        text = storable(wanted.text, 1000)
        conditions.append(or_(*(column.icontains(text, autoescape=True) for column in columns)))
    if wanted.to_judge:
        conditions.append(table.to_judge)
    return conditions


def _of_production() -> ColumnElement[bool]:
    return inspections.c.source.not_in(NOT_PRODUCTION)


def _cells(inspection: Inspection) -> list[object]:
    facts = inspection.to_json()
    special = {
        "name": inspection.name,
        "regions": len(inspection.regions),
        "job": inspection.job,
        "kept": inspection.kept,
    }
    return [special[name] if name in special else facts[name] for name in CSV_COLUMNS]
