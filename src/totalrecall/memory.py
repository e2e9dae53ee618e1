"""How much memory there is, how much was used, and large arrays that move to a scratch file where it is short."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from totalrecall.errors import DataError

__all__ = ["available_memory", "peak_memory", "scratch_array"]


def available_memory() -> int:
    """Return the bytes that new work can use without swapping; a guess of 4 GB where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30


def peak_memory() -> int:
    """Return the most resident memory of this process so far, bytes by the system's count; 0 if unknown."""
    if sys.platform == "win32":
        return 0
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def scratch_array(shape: tuple[int, int], *, limit: int) -> np.ndarray:
    """Return a float32 array to fill: in memory up to `limit` bytes, beyond it backed by a scratch file.

    The file has no name once it is open (where the system allows it), so that nothing is left behind even if the
    process is killed.

    Raises:
        DataError: the scratch disk cannot hold it.
    """
    size = shape[0] * shape[1] * 4
    if size <= limit:
        return np.empty(shape, np.float32)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > 0.95 * free:
        raise DataError(
            f"The patches need {size / 1e9:.1f} GB of scratch space, {folder} has {free / 1e9:.1f} GB free. "
            "Set TMPDIR to a larger disk, or use fewer pictures or a smaller --size."
        )
    with tempfile.TemporaryFile(prefix="totalrecall-", dir=folder) as file:
        os.truncate(file.fileno(), size)
        return np.memmap(file, np.float32, "r+", shape=shape)
