"""The tables of a database: are they ours, are they of today, and how they become so."""

from enum import Enum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from totalrecall.errors import HistoryError
from totalrecall.station.store import chain
from totalrecall.station.store.records import STATION
from totalrecall.station.store.tables import METADATA, VERSION_TABLE

__all__ = ["State", "current", "state_of", "upgrade"]

_FOLDER = Path(__file__).with_name("migrations")


class State(Enum):
    """What a database holds: nothing yet, tables of an older version, or those of this one."""

    EMPTY = "empty"
    OLDER = "older"
    CURRENT = "current"


def current() -> str:
    """Return the number of the newest migration."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def state_of(connection: Connection, place: str) -> State:
    """Return what a database holds, and change nothing.

    Args:
        connection: to it.
        place: its address for people.

    Raises:
        HistoryError: its tables are another program's, or of a newer version of Total Recall; or it cannot hold every
            letter.
    """
    if connection.dialect.name == "postgresql":
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
        if encoding != "UTF8":
            raise HistoryError(f"{place} must store text as UTF8, got {encoding}. Make a database: createdb -E UTF8.")
    there = set(inspect(connection).get_table_names())
    if VERSION_TABLE in there:
        return _state_of_ours(connection, place)
    strange = there if connection.dialect.name == "sqlite" else there & set(METADATA.tables)
    if strange:
        table = min(strange)
        raise HistoryError(f"{place} is another program's database: it holds the table {table!r}. Name another one.")
    return State.EMPTY


def _state_of_ours(connection: Connection, place: str) -> State:
    found = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    scripts = ScriptDirectory.from_config(_config())
    if found == scripts.get_current_head():
        return State.CURRENT
    if found is None or found in {script.revision for script in scripts.walk_revisions()}:
        return State.EMPTY if found is None else State.OLDER
    raise HistoryError(
        f"{place} was written by a newer version of Total Recall: it is of version {found}, this one knows "
        f"{current()}. Install the newer version."
    )


def upgrade(connection: Connection, place: str) -> None:
    """Bring the tables up to date, in the transaction of a connection; a second program waits until it is done.

    Raises:
        HistoryError: as `state_of`.
    """
    if connection.dialect.name == "postgresql":  # SQLite's write transaction is itself such a lock
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": chain.LOCK})
    state = state_of(connection, place)
    if state is State.CURRENT:
        return
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if state is State.EMPTY:
        # so a trail without rows is never whole
        chain.append(connection, STATION, "begin", "history", {"version": current()})


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config
