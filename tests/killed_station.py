"""A process that adds inspections as fast as it can, and says each key once it is acknowledged; the tests kill it.

    python -m tests.killed_station ADDRESS NAME [THREADS]

Each key begins with NAME (8 hexadecimal digits). Every tenth inspection is judged, too.
"""

import os
import sys
import threading
from datetime import datetime, timezone

from tests.databases import inspection
from totalrecall.station.database import Database
from totalrecall.station.history import History
from totalrecall.station.records import Actor

ANNA = Actor("Anna", "operator")


def work(history: History, name: str, thread: int) -> None:
    """Add inspections until the process is killed."""
    number = 0
    while True:
        key = f"{name}{thread:08x}{number:016x}"
        history.add(inspection(key=key, at=datetime.now(timezone.utc)), [("hook", {"id": key})]).result()
        os.write(1, f"{key}\n".encode())  # whole or not at all: a pipe takes that much at once
        if number % 10 == 0:
            history.judge(key, "fine", ANNA)
            os.write(1, f"{key} judged\n".encode())
        number += 1


if __name__ == "__main__":
    opened = History(Database(sys.argv[1]))
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    for thread in range(count):
        threading.Thread(target=work, args=(opened, sys.argv[2], thread)).start()
