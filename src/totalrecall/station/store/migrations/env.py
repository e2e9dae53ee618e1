"""What alembic runs to migrate: it takes the connection, and the transaction, that `station/schema.py` opened."""

from alembic import context

from totalrecall.station.store.tables import METADATA, VERSION_TABLE

__all__ = ["migrate"]


def migrate() -> None:
    """Run the steps that are asked for, in the transaction of the given connection."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=METADATA,
        version_table=VERSION_TABLE,
        render_as_batch=True,  # SQLite alters a table by copying it
    )
    context.run_migrations()


if __name__ == "env_py":  # the name by which alembic runs this file; an import runs nothing
    migrate()
