"""Work given to workers as they are free, and what becomes of work over which workers die.

Ray replaces a worker that dies. Its work is done again, some times in turn: by whoever is free, or by its successor
where Ray sees to that. If it does not help, the worker gets nothing more until all else that it has in hand is done;
then the pictures that end it are found (see `isolating`), and the rest of the work is given out anew.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from totalrecall.cluster.connection import need_ray
from totalrecall.errors import ClusterError

__all__ = ["Errand", "Errands", "Rescue"]

_DEATHS = 3  # over the same work, before a picture of it may be to blame
_SEARCHES = 3  # over the same work; if no picture is to blame, the workers die of something else

Item = TypeVar("Item")


@runtime_checkable  # the checks of the test run need it
class Rescue(Protocol[Item]):
    """What is left of a piece of work over which workers died."""

    def search(self, worker: Any, item: Item) -> Any:
        """Have those pictures of it found that end a worker; returns the answer's reference."""

    def without(self, item: Item, killers: Any) -> Item:
        """Return the work without them."""


@dataclass(frozen=True)
class Errand(Generic[Item]):
    """A piece of work on its way.

    Attributes:
        at: its place among all.
        item: the work.
        deaths: of workers over it, since it was last searched.
        searches: how often pictures of it that end a worker were searched for.
    """

    at: int
    item: Item
    deaths: int = 0
    searches: int = 0


@dataclass(eq=False)
class _Hand(Generic[Item]):
    """A worker, and what it has in hand.

    Attributes:
        worker: as Ray knows it.
        ready: it has started, as far as is known.
        flying: pieces of work that it was asked for.
        failed: those over which it died; until they are seen to it gets nothing else.
        searching: it is tried just now.
    """

    worker: Any
    ready: bool
    flying: int = 0
    failed: list[Errand[Item]] = field(default_factory=list)
    searching: bool = False


class Errands(Generic[Item]):
    """Pieces of work for workers.

    Args:
        items: the work, taken as workers are free.
        ask: given a worker and an item, asks for it and returns the answer's reference, or those of its parts, of which
            the first is got.
        get: given a reference and an item (None for a worker's start), returns the answer; raises ClusterError where
            workers died over it.
        start: given a worker, returns the reference of an answer that comes once it is there: whoever is free does its
            work if it dies. If not given, Ray keeps the work for its successor.
        look: seconds, and what is called each time that nothing has come for so long.
        ahead: how many items a worker has in hand.
        rescue: what is left of an item over which workers died; the error is raised if not given.
    """

    def __init__(
        self,
        items: Iterator[Item],
        ask: Callable[[Any, Item], Any],
        get: Callable[[Any, Item | None], Any],
        *,
        start: Callable[[Any], Any] | None = None,
        look: tuple[float, Callable[[], object]] | None = None,
        ahead: int = 2,
        rescue: Rescue[Item] | None = None,
    ) -> None:
        self._ray = need_ray()
        self._items = (Errand(at, item) for at, item in enumerate(items))
        self._again: deque[Errand[Item]] = deque()
        self._ask, self._get, self._start, self._ahead, self._rescue = ask, get, start, ahead, rescue
        self._look = look
        self._hands: list[_Hand[Item]] = []
        self._asked: dict[Any, tuple[_Hand[Item], Errand[Item] | None, Any]] = {}

    def add(self, worker: Any) -> None:
        """Let a worker take part."""
        hand: _Hand[Item] = _Hand(worker, self._start is None)
        self._hands.append(hand)
        if self._start is not None:
            self._await(hand, self._start)

    def _await(self, hand: _Hand[Item], start: Callable[[Any], Any]) -> None:
        hand.ready = False
        reference = start(hand.worker)
        self._asked[reference] = (hand, None, reference)

    def step(self) -> tuple[Errand[Item], Any] | None:
        """Wait until something has come; returns a piece of work with its answer, or None where it was something else.

        Raises:
            ClusterError: workers died over a piece of work, and no picture of it is to blame.
            TotalRecallError: as a worker raised it.
        """
        for hand in self._hands:
            self._fill(hand)
        done = self._first()
        hand, errand, parts = self._asked.pop(done)
        if errand is None:
            self._get(done, None)
            hand.ready = True
            return None
        if hand.searching:
            assert self._rescue is not None
            hand.searching = False
            rest = self._rescue.without(errand.item, self._get(done, errand.item))
            self._again.append(replace(errand, item=rest, deaths=0))
            return None
        hand.flying -= 1
        try:
            answer = self._get(done, errand.item)
        except ClusterError:
            errand = replace(errand, deaths=errand.deaths + 1)
            if self._start is not None and hand.ready:
                self._await(hand, self._start)
            if self._start is not None and errand.deaths < _DEATHS:
                self._again.append(errand)
            elif self._rescue is None or errand.searches == _SEARCHES:
                raise
            else:
                hand.failed.append(errand)
            come = None
        else:
            come = errand, [answer, *parts[1:]] if isinstance(parts, list) else answer
        if hand.failed and self._rescue is not None:
            self._see_to(hand, self._rescue)
        return come

    def _first(self) -> Any:
        """Return the reference of the answer that comes first."""
        seconds, call = self._look or (None, None)
        while True:
            done, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=seconds)
            if done:
                return done[0]
            if call is not None:
                call()

    def _see_to(self, hand: _Hand[Item], rescue: Rescue[Item]) -> None:
        """Try a worker with the first piece of work over which it died, once it has nothing else in hand."""
        if hand.flying:
            return
        first, *others = hand.failed
        hand.failed = []
        self._again.extend(others)  # they may only have stood behind it
        hand.searching = True
        reference = rescue.search(hand.worker, first.item)
        self._asked[reference] = (hand, replace(first, searches=first.searches + 1), reference)

    def _fill(self, hand: _Hand[Item]) -> None:
        while hand.ready and not hand.failed and not hand.searching and hand.flying < self._ahead:
            errand = self._again.popleft() if self._again else next(self._items, None)
            if errand is None:
                return
            parts = self._ask(hand.worker, errand.item)
            hand.flying += 1
            self._asked[parts[0] if isinstance(parts, list) else parts] = (hand, errand, parts)
