"""All tables of the station's database: its first version."""

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them, from one that others refer to onwards."""
    _make_inspections()
    _make_trail()
    _make_outbox()
    _make_users()
    _make_tokens()
    _make_sessions()
    _make_golden()
    _make_golden_runs()
    _make_proposals()
    _make_jobs()
    _make_values()
    _make_watched_files()


def _time() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _make_inspections() -> None:
    op.create_table(
        "inspections",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("at", _time(), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("picture_sha256", sa.String(length=64), nullable=False),
        sa.Column("serial", sa.String(length=255), nullable=True),
        sa.Column("line", sa.String(length=255), nullable=True),
        sa.Column("product", sa.String(length=255), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("threshold", sa.Double(), nullable=True),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("is_anomalous", sa.Boolean(), nullable=True),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("regions", sa.JSON(), nullable=False),
        sa.Column("nearest", sa.JSON(), nullable=True),
        sa.Column("milliseconds", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("job", sa.String(length=32), nullable=True),
        sa.Column("judgement", sa.String(length=20), nullable=True),
        sa.Column("judged_by", sa.String(length=255), nullable=True),
        sa.Column("judged_at", _time(), nullable=True),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("to_judge", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_inspections")),
    )
    _index_inspections()


def _index_inspections() -> None:
    op.create_index(op.f("ix_inspections_at_key"), "inspections", ["at", "key"])
    op.create_index(
        op.f("ix_inspections_job"),
        "inspections",
        ["job"],
        sqlite_where=sa.text("job IS NOT NULL"),
        postgresql_where=sa.text("job IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_inspections_judgement"),
        "inspections",
        ["judgement"],
        sqlite_where=sa.text("judgement IS NOT NULL"),
        postgresql_where=sa.text("judgement IS NOT NULL"),
    )
    op.create_index(
        "ix_inspections_kept",
        "inspections",
        ["key"],
        sqlite_where=sa.text("kept = 1"),
        postgresql_where=sa.text("kept"),
    )
    op.create_index(op.f("ix_inspections_model_at_key"), "inspections", ["model", "at", "key"])
    op.create_index(
        op.f("ix_inspections_serial"),
        "inspections",
        ["serial"],
        sqlite_where=sa.text("serial IS NOT NULL"),
        postgresql_where=sa.text("serial IS NOT NULL"),
    )
    op.create_index(
        "ix_inspections_to_judge",
        "inspections",
        ["at", "key"],
        sqlite_where=sa.text("to_judge = 1"),
        postgresql_where=sa.text("to_judge"),
    )
    op.create_index(op.f("ix_inspections_verdict_at_key"), "inspections", ["verdict", "at", "key"])


def _make_trail() -> None:
    op.create_table(
        "trail",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trail")),
    )
    op.create_index(op.f("ix_trail_subject"), "trail", ["subject"])


def _make_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", _number(), autoincrement=True, nullable=False),
        sa.Column("inspection", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=255), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", _time(), nullable=False),
        sa.Column("delivered_at", _time(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["inspection"], ["inspections.key"], name=op.f("fk_outbox_inspection_inspections")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(op.f("ix_outbox_inspection"), "outbox", ["inspection"])
    op.create_index(op.f("ix_outbox_target_delivered_at_next_at"), "outbox", ["target", "delivered_at", "next_at"])


def _make_users() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_users")),
    )


def _make_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("at", _time(), nullable=False),
        sa.Column("expires_at", _time(), nullable=True),
        sa.Column("revoked_at", _time(), nullable=True),
        sa.Column("last_used_at", _time(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
    )


def _make_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("at", _time(), nullable=False),
        sa.Column("expires_at", _time(), nullable=False),
        sa.Column("seen_at", _time(), nullable=False),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name=op.f("fk_sessions_user_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_user"), "sessions", ["user"])


def _make_golden() -> None:
    op.create_table(
        "golden",
        sa.Column("id", _number(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("picture_sha256", sa.String(length=64), nullable=False),
        sa.Column("expected", sa.String(length=20), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("added_at", _time(), nullable=False),
        sa.Column("added_by", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_golden")),
    )
    op.create_index(op.f("ix_golden_model"), "golden", ["model"])


def _make_golden_runs() -> None:
    op.create_table(
        "golden_runs",
        sa.Column("id", _number(), autoincrement=True, nullable=False),
        sa.Column("at", _time(), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_golden_runs")),
    )
    op.create_index(op.f("ix_golden_runs_model_at"), "golden_runs", ["model", "at"])


def _make_proposals() -> None:
    op.create_table(
        "proposals",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("at", _time(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("base_sha256", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("pictures", sa.JSON(), nullable=False),
        sa.Column("comparison", sa.JSON(), nullable=False),
        sa.Column("decided_by", sa.String(length=255), nullable=True),
        sa.Column("decided_at", _time(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_proposals")),
    )
    op.create_index(op.f("ix_proposals_model_at"), "proposals", ["model", "at"])


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("at", _time(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_jobs")),
    )


def _make_values() -> None:
    op.create_table(
        "values",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_values")),
    )


def _make_watched_files() -> None:
    op.create_table(
        "watched_files",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("inspection", sa.String(length=32), nullable=True),
        sa.Column("at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_watched_files")),
    )
