"""On which processors a thread may run, also where CI has bound the process to one and Python is told otherwise."""

import re
from pathlib import Path

from totalrecall.system.threads import cores


def affinity(thread: int | str = "self") -> set[int]:
    """Return the numbers of the processors that a thread of this process may run on, the first one if not given."""
    status = Path(f"/proc/self/task/{thread}/status" if thread != "self" else "/proc/self/status")
    if not status.exists():  # not on macOS and Windows
        return set(range(cores()))
    mask = int(
        re.search(r"^Cpus_allowed:\s*([\da-f,]+)", status.read_text(), flags=re.MULTILINE)[1].replace(",", ""), 16
    )
    return {number for number in range(mask.bit_length()) if mask >> number & 1}
