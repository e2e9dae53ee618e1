"""The coreset of points that lie in the object store: greedy k-center, its products spread over the workers.

Exact: what one process chooses, to the bit. Distances are rounded, and how depends on the shape of the matrix product
that gives them. So the blocks of points are those of `coreset.Greedy`, and each is multiplied whole by one worker; the
choice among the largest bounds, which is cheap, is made by the process that began the fit. To a worker travel only the
numbers of a block's points, back come their least distances to the centres; points and centres are in each node's
shared memory. A message holds so few blocks that it goes straight from process to process: what is larger than 100 kB
Ray would put into the object store, and another machine would have to ask for it.

`merged` is the composable variant in two rounds (Malkomes, Kusner, Chen, Weinberger and Moseley, "Fast distributed
k-center clustering with outliers on massive data", NIPS 2015): each worker chooses as many as the bank holds among its
own points, and the same greedy chooses among these. Every point is then within 4 times the smallest radius that any
choice can have, where the exact greedy is within 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from totalrecall.cluster.crew import Crew
from totalrecall.cluster.rows import SharedRows
from totalrecall.patchcore.coreset import BLOCK, Coreset, Greedy, greedy_k_center

__all__ = ["Merged", "SharedGreedy", "merged"]

_ROWS = 8192  # added to the mean at a time
_TOGETHER = 8  # blocks of a message: their answer is 64 kB
Progress = Callable[[int, int], None]


class SharedGreedy(Greedy):
    """One selection among shared points.

    Args:
        points: (n, d).
        count: how many are chosen.
        crew: the workers.
    """

    def __init__(self, points: SharedRows, count: int, crew: Crew) -> None:
        self._shared, self._crew = points, crew
        self._where = crew.ray.put(points)
        super().__init__(points, None, count)
        self._norms = crew.ray.put(self.norms)

    def find_mean(self) -> np.ndarray:
        """Return the mean (d,). The rows are added in their order, as NumPy does: another order rounds otherwise."""
        total = np.zeros((1, self._shared.dimensions))
        for block in self._shared.blocks(_ROWS):
            total = np.add.reduce(np.concatenate([total, block.astype(np.float64)]), axis=0, keepdims=True)
        mean = (total[0] / len(self._shared)).astype(np.float32)
        self._mean = self._crew.ray.put(mean)
        return mean

    def find_norms(self) -> np.ndarray:
        """Return the squared lengths (n,) of the points, moved to the mean."""
        step = max(-(-self.total // (4 * len(self._crew) * BLOCK)), 1) * BLOCK
        spans = [(first, min(first + step, self.total)) for first in range(0, self.total, step)]
        where, mean = self._where, self._mean
        return np.concatenate(list(self._crew.spread(spans, lambda w, span: w.norms.remote(where, mean, *span))))

    def meet_all(self, blocks: Sequence[np.ndarray], skipped: Sequence[int], first: int, centres: np.ndarray) -> None:
        """Lower the bounds of blocks of points, each by one worker; a single block by this process."""
        if len(blocks) < 2:
            super().meet_all(blocks, skipped, first, centres)
            return
        shares = _shares([len(rows) * (len(centres) - skip) for rows, skip in zip(blocks, skipped, strict=True)], self)
        calls = [
            (worker, share[at : at + _TOGETHER])
            for worker, share in zip(self._crew.workers, shares, strict=True)
            for at in range(0, len(share), _TOGETHER)
        ]
        small = np.min_scalar_type(self.total)
        centres = centres.astype(small)
        asked = [
            worker.meet.remote(
                self._where,
                self._mean,
                self._norms,
                [(blocks[at].astype(small), skipped[at]) for at in places],
                first,
                centres,
            )
            for worker, places in calls
        ]
        for (_, places), answers in zip(calls, self._crew.get(asked), strict=True):
            for at, (least, coverer) in zip(places, answers, strict=True):
                self._lower(blocks[at], least, coverer)

    def _lower(self, rows: np.ndarray, least: np.ndarray, coverer: np.ndarray) -> None:
        """Lower the bounds of the rows (n,) that are nearer to one of the centres than to any before."""
        nearer = least < self.bound[rows]
        self.bound[rows[nearer]], self.coverer[rows[nearer]] = least[nearer], coverer[nearer]

    @property
    def hands(self) -> int:
        """How many workers there are."""
        return len(self._crew)


def _shares(costs: Sequence[int], greedy: SharedGreedy) -> list[list[int]]:
    """Return which blocks each worker takes: the dearest first, to whoever has the least."""
    shares: list[list[int]] = [[] for _ in range(greedy.hands)]
    loads = [0] * greedy.hands
    for at in sorted(range(len(costs)), key=lambda block: -costs[block]):
        least = loads.index(min(loads))
        shares[least].append(at)
        loads[least] += costs[at]
    return shares


@dataclass(frozen=True, eq=False)
class Merged:
    """A coreset in two rounds.

    Attributes:
        coreset: as the exact one is, with its measured radius.
        bound: what was known of the radius before it was measured: that of the merge and the largest of a share.
        candidates: that the workers chose in the first round.
    """

    coreset: Coreset
    bound: float
    candidates: int


def merged(
    points: SharedRows, count: int, crew: Crew, *, seed: int, radius: float, progress: Progress | None = None
) -> Merged:
    """Choose `count` points in two rounds.

    Args:
        points: (n, d).
        count: how many are chosen.
        crew: the workers; each chooses among a share of the shards.
        seed, radius, progress: see `greedy_k_center`.
    """
    shares = [share for share in np.array_split(np.arange(len(points.shards)), len(crew)) if len(share)]
    parts = [points.part(int(share[0]), int(share[-1]) + 1) for share in shares]
    firsts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    asked = [worker.choose.remote(part, count, seed, radius) for worker, part in zip(crew.workers, parts, strict=False)]
    answers = crew.get(asked)
    candidates = np.concatenate([first + rows for first, (rows, _) in zip(firsts[:-1], answers, strict=True)])
    if len(candidates) > count:
        second = greedy_k_center(points.take(candidates), count, seed=seed, radius=radius, progress=progress)
        chosen, last = candidates[second.indices], second.radius
    else:
        chosen, last = candidates, 0.0
    run = SharedGreedy(points, len(chosen), crew)  # measures how near the choice is to every point
    return Merged(run.choose_all(chosen), last + max(part for _, part in answers), len(candidates))
