"""A station that changes a model's file and is killed at a chosen moment.

    python -m tests.killed_change FOLDER MODEL ACTION MOMENT [KEY]

ACTION is one of the changes of the trail, KEY the proposal that is approved. MOMENT says where it ends: `asked`, before
anything is written down; `announced`, before the file is written; `written`, before the new file is used.
"""

import os
import signal
import sys
from pathlib import Path
from unittest import mock

from totalrecall.station.judging import model_files
from totalrecall.station.settings import StationSettings
from totalrecall.station.station import Station
from totalrecall.station.store.records import Actor
from totalrecall.station.store.trail import Trail
from totalrecall.station.thresholds import set_threshold, take_back_threshold
from totalrecall.system.files import write_atomically

ANNA = Actor("anna", "engineer")


def die(*_, **__):
    """End as the system ends a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def written_then_dead(*args, **kwargs):
    """Write the file, and end."""
    write_atomically(*args, **kwargs)
    die()


if __name__ == "__main__":
    folder, model, action, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    station = Station(StationSettings(models=(model,), folder=folder, watch_seconds=0))
    station.start()
    changes = {
        "threshold": lambda: set_threshold(station, "part", ANNA, threshold=0.5),
        "threshold taken back": lambda: take_back_threshold(station, "part", ANNA),
        "approve": lambda: station.teaching.approve(sys.argv[5], ANNA),
        "undo": lambda: station.teaching.undo("part", ANNA),
        "fit": lambda: station.model_files.add(
            folder / "models" / "new.trecall", model.read_bytes(), actor=ANNA, details={}
        ),
    }
    if moment == "asked":
        patch = mock.patch.object(Trail, "append_in", die)
    else:
        patch = mock.patch.object(model_files, "write_atomically", die if moment == "announced" else written_then_dead)
    with patch:
        changes[action]()
