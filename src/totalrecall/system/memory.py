"""How much memory there is, how much was used, sizes as a person writes them, and rows that may lie in a scratch file.

The operating system counts the resident pages of a mapped file as the process's own memory. So a scratch file is never
mapped here: rows are written and read back, and what the system keeps of the file is its own affair.
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

__all__ = ["RowStore", "available_memory", "check_scratch", "peak_memory", "resident_memory"]


def available_memory() -> int:
    """Return the bytes that new work can use without swapping; a guess of 4 GB where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30


def resident_memory() -> int:
    """Return the memory resident in this process now, bytes by the system's count; 0 if unknown."""
    return _status("VmRSS")


def peak_memory() -> int:
    """Return the most resident memory of this process so far, bytes by the system's count; 0 if unknown."""
    peak = _status("VmHWM")  # subtle: where it is known, `ru_maxrss` also counts the process that started this one
    if peak or sys.platform == "win32":
        return peak
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status(name: str) -> int:
    """Return bytes of a line of /proc/self/status, 0 where there is none."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


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
