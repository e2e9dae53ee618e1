"""What the links of a line need: messages that were inspected, and files of hot folders found by their content."""

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table and the index."""
    op.create_table(
        "messages",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("inspection", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_messages")),
    )
    op.create_index(op.f("ix_messages_at"), "messages", ["at"])
    op.create_index(op.f("ix_watched_files_sha256"), "watched_files", ["sha256"])
