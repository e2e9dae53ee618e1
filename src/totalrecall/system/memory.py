"""How much memory there is and the process uses, how its heaps are kept few, and rows in a scratch file.

The operating system counts the resident pages of a mapped file as the process's own memory. So a scratch file is never
mapped here: rows are written and read back. What the system keeps of the file does not count as the process's.
"""

import contextlib
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from totalrecall.errors import DataError
from totalrecall.types import Patches

__all__ = [
    "RowStore",
    "available_memory",
    "check_scratch",
    "container_room",
    "limit_heaps",
    "peak_memory",
    "resident_memory",
]

_M_ARENA_MAX = -8  # glibc's malloc.h


def available_memory() -> int:
    """Return the bytes that new work can use without swapping; in a container no more than its limit leaves."""
    import psutil

    free = int(psutil.virtual_memory().available)
    room = container_room()
    return free if room is None else min(free, room)


def container_room(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes that a container's memory limit leaves, or None where there is no limit.

    psutil knows the machine only. What the system keeps of files counts as free, since it is given up first.

    Args:
        root: where the kernel shows the limits: of version 2 of its control groups, or of version 1 in `memory`.
    """
    room = _room(root, "memory.max", "memory.current", "inactive_file")
    if room is None:
        room = _room(root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return room


def _room(folder: Path, limit: str, used: str, files: str) -> int | None:
    try:
        most, held = (folder / limit).read_text().strip(), int((folder / used).read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # version 1 has no word for "no limit": it writes a number of 19 digits
        return None if most == "max" else max(int(most) - held + int(counts.get(files, 0)), 0)
    except (OSError, ValueError):
        return None


def resident_memory() -> int:
    """Return the bytes of memory that are resident in this process now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Return the most bytes of memory that were resident in this process so far."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    # subtle: `ru_maxrss` also counts the process that started this one; Linux knows better, and psutil does not ask it
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def limit_heaps(count: int) -> bool:
    """Have all threads share `count` heaps of the C library, where it is glibc; False elsewhere.

    By itself it gives almost every thread a heap of its own, eight a core, and each stays as large as it ever was: a
    process that works for months grows to many times what it needs. Call it before the threads begin.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(_M_ARENA_MAX, count) == 1


def check_scratch(size: int) -> None:
    """Find out that the scratch disk is too small before it is filled.

    Raises:
        DataError: says so, and what to do.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > 0.95 * free:
        raise DataError(
            f"The patches need {size / 1e9:.1f} GB of scratch space, {folder} has {free / 1e9:.1f} GB free. "
            "Set TMPDIR to a larger disk, or use fewer pictures or a smaller --size."
        )


class RowStore:
    """Float32 rows, appended in turn and read back in any order: in memory, or in a scratch file.

    The file has no name once it is open (where the system allows it), so that nothing is left behind even if the
    process is killed.

    Args:
        capacity: rows expected; more may come.
        dimensions: numbers a row.
        scratch: keep them in a scratch file.

    Raises:
        DataError: the scratch disk cannot hold them.
    """

    def __init__(self, capacity: int, dimensions: int, *, scratch: bool = False) -> None:
        self.dimensions = dimensions
        self._filled = 0
        self._array = np.empty((0 if scratch else capacity, dimensions), np.float32)
        self._file = None
        if scratch:
            check_scratch(capacity * dimensions * 4)
            self._file = tempfile.TemporaryFile(prefix="totalrecall-")  # noqa: SIM115  it lives as long as this
            weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._filled

    def append(self, rows: Patches) -> None:
        """Add rows (n, dimensions) at the end.

        Raises:
            DataError: the scratch disk is full.
        """
        first, self._filled = self._filled, self._filled + len(rows)
        if self._file is None:
            if self._filled > len(self._array):
                # subtle: in place, so that no second copy exists; views of the old rows must not be alive
                self._array.resize((self._filled * 5 // 4, self.dimensions), refcheck=False)
            self._array[first : self._filled] = rows
            return
        try:
            self._file.seek(first * self.dimensions * 4)
            self._file.write(np.ascontiguousarray(rows, np.float32).data)
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"The scratch file in {tempfile.gettempdir()} cannot be written: {error.strerror}. "
                "Set TMPDIR to a larger disk, or use fewer pictures or a smaller --size."
            ) from None

    def all(self) -> Patches:
        """Return all rows: in memory a view, from a scratch file a copy."""
        return self.span(0, self._filled)

    def span(self, first: int, last: int) -> Patches:
        """Return rows that lie side by side: in memory a view, from a scratch file a copy."""
        if self._file is None:
            return self._array[first:last]
        rows = np.empty((last - first, self.dimensions), np.float32)
        self._read(first, rows)
        return rows

    def blocks(self, size: int) -> Iterator[Patches]:
        """Yield all rows, in turn, up to `size` at a time."""
        for first in range(0, self._filled, size):
            yield self.span(first, min(first + size, self._filled))

    def take(self, indices: np.ndarray) -> Patches:
        """Return a copy of the rows at indices (n,)."""
        if self._file is None:
            return self._array[: self._filled][indices]
        rows = np.empty((len(indices), self.dimensions), np.float32)
        for at in np.argsort(indices, kind="stable").tolist():  # forward through the file
            self._read(int(indices[at]), rows[at : at + 1])
        return rows

    def clear(self) -> None:
        """Forget the rows and keep the room."""
        self._filled = 0

    def close(self) -> None:
        """Give back memory and disk."""
        self.clear()
        self._array = np.empty((0, self.dimensions), np.float32)
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _read(self, first: int, rows: Patches) -> None:
        assert self._file is not None
        self._file.seek(first * self.dimensions * 4)
        if len(rows) and self._file.readinto(rows.reshape(-1).view(np.uint8).data) != rows.nbytes:
            raise DataError("The scratch file is shorter than what was written. Is its disk full or gone?")
