"""A job says why pictures of it were not judged."""

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("error", sa.Text(), nullable=True))
