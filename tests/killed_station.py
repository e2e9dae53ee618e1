"""A process that adds inspections as fast as it can, and says each key once it is acknowledged; the tests kill it.

    python -m tests.killed_station ADDRESS NAME [FOLDER]

Each key begins with NAME (8 hexadecimal digits). Every tenth inspection is judged, too. With FOLDER pictures are kept
there.
"""

import os
import sys
import threading
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from tests.databases import inspection
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.kept import KeptPictures
from totalrecall.station.store.records import Actor

ANNA = Actor("Anna", "operator")
HEAT = np.arange(64, dtype=np.uint8).reshape(8, 8)
BUDGET = 400_000  # of kept pictures: some thirty


def work(history: History, kept: KeptPictures | None, name: str, thread: int) -> None:
    """Add inspections until the process is killed."""
    number = 0
    while True:
        key = f"{name}{thread:08x}{number:016x}"
        added = inspection(key=key, at=datetime.now(timezone.utc))
        if kept is not None:
            added = replace(added, kept=kept.put(added, key.encode() * 200, HEAT))
        history.add(added, [("hook", {"id": key})]).result()
        os.write(1, f"{key}\n".encode())  # whole or not at all: a pipe takes that much at once
        if number % 10 == 0:
            history.judge(key, "fine", ANNA)
            os.write(1, f"{key} judged\n".encode())
        number += 1


def told(end: threading.ExceptHookArgs) -> None:
    """Say what ended a thread in one write: tracebacks of several threads would run into each other."""
    os.write(2, f"{end.exc_type.__module__}.{end.exc_type.__qualname__}: {end.exc_value}\n".encode())


if __name__ == "__main__":
    threading.excepthook = told
    database = Database(sys.argv[1])
    pictures = KeptPictures(Path(sys.argv[3]), database, budget=BUDGET) if len(sys.argv) > 3 else None
    for number_of_thread in range(4):
        threading.Thread(target=work, args=(History(database), pictures, sys.argv[2], number_of_thread)).start()
