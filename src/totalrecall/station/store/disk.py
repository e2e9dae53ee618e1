"""Files in the station's folder: that one cannot be written is told as it is of the database."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from totalrecall.errors import DataError, HistoryError

__all__ = ["writing"]


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Tell in one line that files of the station cannot be written; whoever asked may ask again later.

    Args:
        place: of the files, for the message. What the block does must have no other reason for a `DataError`.

    Raises:
        HistoryError: the disk is full, or the folder is gone or cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise HistoryError(
            f"Cannot write {place}: {error.strerror or error}. Free some space on its disk, or put the folder back."
        ) from None
    except DataError as error:  # of the library, which writes files for whoever sees to it at once
        raise HistoryError(str(error)) from None
