"""Which station is meant: the options of all actions of `totalrecall station`, and the database behind them."""

import argparse
import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.paths import INPUT
from totalrecall.errors import MissingExtraError, SettingError

if TYPE_CHECKING:
    from totalrecall.station.store.database import Database

__all__ = ["FOLDER", "add_database_options", "open_database"]

FOLDER = "totalrecall-station"
_NEEDED = ("sqlalchemy", "alembic")


def add_database_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which station is meant."""
    parser.add_argument(
        "--folder", metavar="DIR", type=INPUT, help=f"folder of the station (default: {FOLDER} in the current folder)"
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        help="an SQLAlchemy address, such as postgresql://user@host/name (default: history.db in the folder)",
    )


@contextlib.contextmanager
def open_database(args: argparse.Namespace, *, create: bool) -> "Iterator[Database]":
    """Give the database that the options name.

    Args:
        args: with the options of `add_database_options`.
        create: make it if it is not there.

    Raises:
        SettingError: both options were given.
        MissingExtraError: the packages of the station are not installed.
        HistoryError: the database cannot be used.
    """
    if args.folder is not None and args.database is not None:
        raise SettingError("--folder and --database name two places for one history. Give one of them.")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"The history of a station needs {' and '.join(missing)}, not installed here. "
            'Run: pip install "totalrecall[station]"'
        )
    from totalrecall.station.store.addresses import address_of_file
    from totalrecall.station.store.database import Database

    address = args.database or address_of_file(Path(args.folder or FOLDER) / "history.db")
    with Database(address, create=create) as database:
        yield database
