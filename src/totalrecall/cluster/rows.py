"""Rows of numbers in Ray's object store: each node holds them once, for all of its processes, and Ray spills them.

Every process of a node reads the same memory: nothing is copied but the rows that it takes. What another node's process
asks for is brought there once. The objects belong to the process that began the fit, so they outlive the worker that
made them.
"""

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from totalrecall.cluster.connection import need_ray
from totalrecall.system.memory import RowStore
from totalrecall.types import Patches

__all__ = ["SharedRows"]

_RUNS = 16  # ascending parts of a list of indices that are copied one by one


class SharedRows(RowStore):
    """Float32 rows (n, d) that lie in the object store as a few arrays; they are only read.

    Args:
        dimensions: numbers a row.

    Attributes:
        shards: the arrays, one after the other.
        counts: rows of each.
        token: the same in every process.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__(0, dimensions)
        self.shards: list[Any] = []
        self.counts: list[int] = []
        self._starts = np.zeros(1, np.int64)
        self._arrays: list[Patches] | None = None
        self.token = uuid.uuid4().hex

    def add(self, shard: Any, count: int) -> None:
        """Add the reference of an array (count, d) at the end; before anybody reads."""
        self.shards.append(shard)
        self.counts.append(count)
        self._starts = np.append(self._starts, self._starts[-1] + count)

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels: where the rows are, not the rows."""
        return {**vars(self), "_arrays": None}

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of numbers in each."""
        return len(self), self.dimensions

    @property
    def dtype(self) -> Any:
        """Of the numbers: float32."""
        return np.dtype(np.float32)

    @property
    def arrays(self) -> list[Patches]:
        """The arrays in this node's memory, brought there at first use."""
        if self._arrays is None:
            self._arrays = need_ray().get(self.shards)
        return self._arrays

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, which: slice | np.ndarray) -> Patches:
        """Return some rows: a copy of those at indices, or those side by side of a slice, which may not be changed."""
        if isinstance(which, slice):
            first, last, step = which.indices(len(self))
            return self.span(first, last)[::step]
        return self.take(which)

    def part(self, first: int, last: int) -> "SharedRows":
        """Return the rows of the shards from `first` up to `last`."""
        rows = SharedRows(self.dimensions)
        for shard, count in zip(self.shards[first:last], self.counts[first:last], strict=True):
            rows.add(shard, count)
        return rows

    def span(self, first: int, last: int) -> Patches:
        """Return rows that lie side by side; of one shard they are not copied."""
        pieces = []
        for array, start in zip(self.arrays, self._starts[:-1].tolist(), strict=True):
            low, high = max(first - start, 0), min(last - start, len(array))
            if low < high:
                pieces.append(array[low:high])
        if not pieces:
            return np.empty((0, self.dimensions), np.float32)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def take(self, indices: np.ndarray) -> Patches:
        """Return a copy of the rows at indices (n,). Those of ascending indices are copied once, others are, too, run
        by run: whoever asks has sorted them, or joined a few sorted lists.

        Raises:
            IndexError: one of them is not from 0 to the number of rows.
        """
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"Rows from 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}.")
        rows = np.empty((len(indices), self.dimensions), np.float32)
        falls = np.flatnonzero(indices[1:] < indices[:-1]) + 1
        if len(falls) <= _RUNS:
            edges = [0, *falls.tolist(), len(indices)]
            for first, last in itertools.pairwise(edges):
                self._take_ascending(indices[first:last], rows[first:last])
            return rows
        order = np.argsort(indices, kind="stable")
        rows[order] = self.take(indices[order])
        return rows

    def _take_ascending(self, indices: np.ndarray, rows: Patches) -> None:
        """Copy the rows at ascending indices (n,) into (n, d)."""
        edges = np.searchsorted(indices, self._starts).tolist()
        for shard, (first, last) in enumerate(itertools.pairwise(edges)):
            if first < last:
                own = indices[first:last] - self._starts[shard]
                # mode: NumPy would copy once more otherwise, so that nothing is written where an index is wrong
                np.take(self.arrays[shard], own, axis=0, out=rows[first:last], mode="clip")

    def all(self) -> Patches:
        """Return all rows; more than one shard is copied."""
        return self.span(0, len(self))

    def blocks(self, size: int) -> Iterator[Patches]:
        """Yield all rows, in turn, up to `size` at a time."""
        for first in range(0, len(self), size):
            yield self.span(first, min(first + size, len(self)))

    def append(self, rows: Patches) -> None:
        """Refuse: what is in the object store never changes."""
        raise TypeError(f"Rows in the object store cannot grow, got {len(rows)} more.")

    def clear(self) -> None:
        """Forget the rows; Ray frees them once no process knows them."""
        self.shards, self.counts, self._arrays = [], [], None
        self._starts = np.zeros(1, np.int64)
