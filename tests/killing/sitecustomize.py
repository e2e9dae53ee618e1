"""Python runs this at its start where this folder is on its path: a worker of Ray dies when it opens a file `*killer*`.

A test's seam, and nothing of the package: it stands for a file over which a decoder crashes. Only a test puts this
folder on the path of a command; see `tests.cluster_ready.KILLING`.
"""

import os
import signal
import sys


def die_over_killers(event, arguments):
    """Kill this process as the system would, if a worker opens such a file."""
    if event == "open" and sys.argv[0].endswith("default_worker.py"):
        name = os.path.basename(os.fsdecode(arguments[0])) if isinstance(arguments[0], (str, bytes)) else ""  # noqa: PTH119
        if "killer" in name:
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(die_over_killers)
