"""Which pictures end the process that reads them: found by halves, so that all others are still judged or learnt.

A decoder may crash on a file, or a picture may need more memory than a worker has. Whoever gives out the work only sees
that workers died over some pictures. Then half of them is tried, and the other half, until those are left that end a
worker each time they are tried alone. Such a picture is told like one that cannot be read.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from totalrecall.cluster.connection import need_ray

__all__ = ["Attempt", "Ledger", "ended_every_worker", "find_killers", "search_killers"]

_ALONE = 2  # deaths over a picture alone, in turn; a machine that was switched off is one

Item = TypeVar("Item", bound=Hashable)


@runtime_checkable  # the checks of the test run need it
class Attempt(Protocol):
    """How a worker is asked to read some pictures, once, with no other try by Ray; other processes get a copy."""

    def ready(self, worker: Any) -> Any:
        """Return the reference of an answer that comes once the worker is there."""

    def read(self, worker: Any, items: Sequence[Any]) -> Any:
        """Return the reference of the answer."""


class Ledger:
    """Counts how often work was begun and not ended, where no worker's death is felt.

    Ray itself cannot say it: it also counts the calls of a worker whose machine has just gone, which are many a second.
    """

    def __init__(self) -> None:
        self._begun: Counter[Hashable] = Counter()

    def begin(self, work: Hashable) -> int:
        """Return how often it was begun in turn, this time included."""
        self._begun[work] += 1
        return self._begun[work]

    def end(self, work: Hashable) -> None:
        """Note that it was ended: whoever does it again, because its answer was lost, begins at one."""
        del self._begun[work]


def ended_every_worker(name: str) -> str:
    """Return what is said of a picture that ended every worker."""
    return (
        f"{name} was not read: it ended every worker that tried. Look at it by itself, and at the memory of the "
        "machines if it is large."
    )


def search_killers(attempt: Attempt, worker: Any, items: Sequence[Any]) -> Any:
    """Have a task of the cluster find the pictures that end a worker, while this process goes on.

    Args:
        attempt: how they are read.
        worker: that is tried; it gets no other work meanwhile.
        items: pictures, of which some may.

    Returns:
        The reference of these pictures.
    """
    return need_ray().remote(num_cpus=0, max_retries=3)(find_killers).remote(attempt, worker, items)


def find_killers(attempt: Attempt, worker: Any, items: Sequence[Item]) -> list[Item]:
    """Return the pictures over which a worker dies each time; see `search_killers`."""
    killers = []
    groups = _halves(items) if len(items) > 1 else [list(items)]
    while groups:
        some = groups.pop()
        tries = _ALONE if len(some) == 1 else 1
        if any(_survives(attempt, worker, some) for _ in range(tries)):
            continue
        if len(some) == 1:
            killers += some
        else:
            groups += _halves(some)
    return killers


def _halves(items: Sequence[Item]) -> list[list[Item]]:
    middle = len(items) // 2
    return [list(items[middle:]), list(items[:middle])]


def _survives(attempt: Attempt, worker: Any, items: Sequence[Item]) -> bool:
    ray = need_ray()
    ray.get(attempt.ready(worker))  # one that is just being replaced would seem to die of this
    try:
        ray.get(attempt.read(worker, items))
    except ray.exceptions.RayTaskError:  # an error is an answer
        raise
    except ray.exceptions.RayError:
        return False
    return True
