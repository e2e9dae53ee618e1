"""The tables of the station's database, as SQLAlchemy Core knows them.

Changes come as migrations (`migrations/versions`); a test compares both on SQLite and PostgreSQL. Times are UTC.
"""

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

__all__ = [
    "METADATA",
    "VERSION_TABLE",
    "UtcTime",
    "golden",
    "golden_runs",
    "inspections",
    "jobs",
    "messages",
    "outbox",
    "proposals",
    "sessions",
    "tokens",
    "trail",
    "users",
    "values",
    "watched_files",
]

VERSION_TABLE = "totalrecall_version"  # not alembic's usual name: another program's tables may lie in the same database


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC, with its time zone in Python whatever the database gives."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time in UTC; SQLite stores it without its zone, as text that sorts by time.

        Raises:
            ValueError: it has no time zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a time zone cannot be stored, got {value.isoformat()}")
        value = value.astimezone(timezone.utc)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _number() -> Column[int]:
    """Return a key that the database counts up; SQLite counts only INTEGER."""
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def _json(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, JSON(none_as_null=True), nullable=nullable)


inspections = Table(
    "inspections",
    METADATA,
    Column("key", String(32), primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("model", String(255), nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("source", String(255), nullable=False),
    Column("name", Text, nullable=False),
    Column("picture_sha256", String(64), nullable=False),
    Column("serial", String(255)),
    Column("line", String(255)),
    Column("product", String(255)),
    Column("score", Double),
    Column("threshold", Double),
    Column("p_value", Double),
    Column("is_anomalous", Boolean),
    Column("verdict", String(20), nullable=False),
    _json("regions"),
    _json("nearest", nullable=True),
    Column("milliseconds", Double, nullable=False),
    Column("error", Text),
    Column("job", String(32)),
    Column("judgement", String(20)),
    Column("judged_by", String(255)),
    Column("judged_at", UtcTime),
    Column("kept", Boolean, nullable=False),
    Column("to_judge", Boolean, nullable=False),  # it waits for a person's judgement
    # pages read the newest first, of all, of a model, of a verdict
    Index(None, "at", "key"),
    Index(None, "model", "at", "key"),
    Index(None, "verdict", "at", "key"),
)
# each index is one more page to write for each inspection; what most inspections have not, costs them nothing
for _name in ("judgement", "serial", "job"):
    _where = inspections.c[_name].is_not(None)
    Index(None, inspections.c[_name], sqlite_where=_where, postgresql_where=_where)
for _name, _columns in (("kept", ("key",)), ("to_judge", ("at", "key"))):
    Index(
        f"ix_inspections_{_name}",
        *(inspections.c[_column] for _column in _columns),
        sqlite_where=text(f"{_name} = 1"),
        postgresql_where=text(_name),
    )

trail = Table(
    "trail",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),  # text, as it was hashed
    Column("actor", String(255), nullable=False),
    Column("role", String(20), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", Text, nullable=False),  # JSON, as it was hashed
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index(None, "subject"),
)

outbox = Table(
    "outbox",
    METADATA,
    _number(),
    Column("inspection", String(32), ForeignKey("inspections.key"), nullable=False),
    Column("target", String(255), nullable=False),
    _json("body"),
    Column("attempts", Integer, nullable=False),
    Column("next_at", UtcTime, nullable=False),
    Column("delivered_at", UtcTime),
    Column("error", Text),
    Index(None, "target", "delivered_at", "next_at"),
    Index(None, "inspection"),
)

users = Table(
    "users",
    METADATA,
    Column("name", String(255), primary_key=True),
    Column("role", String(20), nullable=False),
    Column("password", Text, nullable=False),  # an argon2 hash
    Column("disabled", Boolean, nullable=False),
    Column("at", UtcTime, nullable=False),
)

tokens = Table(
    "tokens",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("role", String(20), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
    Column("last_used_at", UtcTime),
)

sessions = Table(
    "sessions",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("user", String(255), ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    Index(None, "user"),
)

golden = Table(
    "golden",
    METADATA,
    _number(),
    Column("model", String(255), nullable=False),
    Column("key", String(32), nullable=False),  # of the picture's file
    Column("name", Text, nullable=False),
    Column("picture_sha256", String(64), nullable=False),
    Column("expected", String(20), nullable=False),
    Column("score", Double),
    Column("model_sha256", String(64), nullable=False),  # by which the score was recorded
    Column("added_at", UtcTime, nullable=False),
    Column("added_by", String(255), nullable=False),
    Index(None, "model"),
)

golden_runs = Table(
    "golden_runs",
    METADATA,
    _number(),
    Column("at", UtcTime, nullable=False),
    Column("model", String(255), nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("passed", Boolean, nullable=False),
    _json("details"),
    Column("actor", String(255), nullable=False),
    Index(None, "model", "at"),
)

proposals = Table(
    "proposals",
    METADATA,
    Column("key", String(32), primary_key=True),
    Column("model", String(255), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("base_sha256", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("state", String(20), nullable=False),
    _json("pictures"),
    _json("comparison"),
    Column("decided_by", String(255)),
    Column("decided_at", UtcTime),
    Index(None, "model", "at"),
)

jobs = Table(
    "jobs",
    METADATA,
    Column("key", String(32), primary_key=True),
    Column("model", String(255), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    Column("error", Text),
)

values = Table(
    "values",
    METADATA,
    Column("key", String(255), primary_key=True),
    _json("value", nullable=True),
)

watched_files = Table(  # of a hot folder: which file of which size and time was inspected
    "watched_files",
    METADATA,
    Column("digest", String(64), primary_key=True),  # SHA-256 of path, size and time
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("inspection", String(32)),
    Column("at", UtcTime, nullable=False),
    Index(None, "sha256"),
)

messages = Table(  # that came with an id of their sender's: which were inspected lately
    "messages",
    METADATA,
    Column("digest", String(64), primary_key=True),  # SHA-256 of topic and id
    Column("inspection", String(32), nullable=False),
    Column("at", UtcTime, nullable=False),
    Index(None, "at"),
)
