"""The pictures that wait to be judged, and the threads that judge them.

At most so many pictures wait as the station allows; one more is refused at once, so that a client learns it and the
delay of those that were let in stays bounded. Models take turns, whatever the number of pictures that wait for each.
What waits for one model is judged in groups, as `predict` judges a folder: reading one picture, the network of another
and the search of a third at the same time.
"""

import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from totalrecall.errors import BusyError, PictureError, TotalRecallError
from totalrecall.pictures.loading import FAILURES

if TYPE_CHECKING:
    from totalrecall.scoring import Result
    from totalrecall.station.judging.models import Loaded

__all__ = ["Inspector", "Judged", "Waiting"]

_GROUP = 16  # pictures that are judged together
_WORKERS = 2  # groups at a time: while one ends, the next has begun


@dataclass(eq=False)
class Waiting:
    """A picture that waits to be judged.

    Attributes:
        picture: the bytes of its file.
        name: of the picture, for results and messages.
        model: by which it is to be judged.
        conditions: measure how it was taken, for the drift monitor.
        rate: false-alarm rate at which it is to be judged, by a recipe; the model's own if None.
        done: called by the thread that judged it.
    """

    picture: bytes
    name: str
    model: str
    conditions: bool
    done: Callable[["Judged"], None]
    rate: float | None = None
    since: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, eq=False)
class Judged:
    """What came of a picture.

    Attributes:
        waiting: the picture.
        loaded: the model by which it was judged.
        outcome: the result, or why there is none.
        milliseconds: since the picture came.
    """

    waiting: Waiting
    loaded: "Loaded | None"
    outcome: "Result | TotalRecallError"
    milliseconds: float


class Inspector:
    """Judges pictures by threads of its own. Any thread may submit one.

    Args:
        model: gives a model by its name; called for each group, so that a replaced model is used from the next one on.
        limit: of the pictures that wait.
        at_rate: gives a model that judges at a false-alarm rate of a recipe.
    """

    def __init__(
        self,
        model: "Callable[[str], Loaded]",
        limit: int,
        at_rate: "Callable[[Loaded, float], Loaded]" = lambda loaded, _: loaded,
    ) -> None:
        self._model, self._at_rate = model, at_rate
        self.limit = limit
        # by model and rate; the one whose turn it is comes first
        self._queues: OrderedDict[tuple[str, float | None], deque[Waiting]] = OrderedDict()
        self._waiting = self._under_way = 0
        self._changed = threading.Condition()
        self._closed = False
        self._workers = [
            threading.Thread(target=self._run, name=f"station-judge-{number}", daemon=True)
            for number in range(_WORKERS)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def waiting(self) -> int:
        """How many pictures wait."""
        return self._waiting

    def submit(self, *pictures: Waiting) -> None:
        """Let pictures wait: all of them, or none.

        Raises:
            BusyError: more would wait than are allowed, or the station is stopping.
        """
        with self._changed:
            if self._closed:
                raise BusyError("The station is stopping. Send the picture again when it is back.")
            if self._waiting + len(pictures) > self.limit:
                raise BusyError(
                    f"{self._waiting} pictures wait already, allowed are {self.limit}. Send it again after a second."
                )
            for picture in pictures:
                self._queues.setdefault((picture.model, picture.rate), deque()).append(picture)
            self._waiting += len(pictures)
            self._changed.notify()

    def close(self) -> None:
        """Judge what waits, take no more, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            try:
                self._judge(group)
            finally:
                with self._changed:
                    self._under_way -= 1

    def _next_group(self) -> list[Waiting] | None:
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            model, queue = self._queues.popitem(last=False)
            # of many, half: the other thread takes the rest, and both end at about the same time
            count = min(_GROUP, -(-len(queue) // 2) if self._under_way == 0 else len(queue))
            group = [queue.popleft() for _ in range(max(count, 1))]
            if queue:
                self._queues[model] = queue  # behind the other models
                self._changed.notify()
            self._waiting -= len(group)
            self._under_way += 1
            return group

    def _judge(self, group: list[Waiting]) -> None:
        """Judge a group and tell each; whatever happens, nobody waits for ever."""
        told = 0
        loaded = None
        try:
            loaded = self._model(group[0].model)
            if group[0].rate is not None:
                loaded = self._at_rate(loaded, group[0].rate)
            for waiting, outcome in zip(group, _outcomes(loaded, group), strict=True):
                told += 1
                _tell(Judged(waiting, loaded, _named(outcome, waiting.name, told - 1), _since(waiting)))
        except (TotalRecallError, *FAILURES) as error:
            known = error if isinstance(error, TotalRecallError) else _unexpected(error)
            for waiting in group[told:]:
                _tell(Judged(waiting, loaded, known, _since(waiting)))


def _outcomes(loaded: "Loaded", group: list[Waiting]) -> "Iterator[Result | TotalRecallError]":
    conditions = any(waiting.conditions for waiting in group)
    if len(group) == 1:
        try:
            yield loaded.judge.predict(group[0].picture, conditions=conditions)
        except PictureError as error:
            yield error
        return
    yield from loaded.judge.predict_stream([waiting.picture for waiting in group], conditions=conditions)


def _named(outcome: "Result | TotalRecallError", name: str, index: int) -> "Result | TotalRecallError":
    """Return a refusal with the picture's own name: in memory it is called by its place in the group."""
    if not isinstance(outcome, TotalRecallError):
        return outcome
    return type(outcome)(str(outcome).replace(f"bytes[{index}]", name, 1), *outcome.settings)


def _unexpected(error: Exception) -> TotalRecallError:
    return TotalRecallError(f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _tell(judged: Judged) -> None:
    with contextlib.suppress(Exception):  # of one picture's reader; the other pictures of the group go on
        judged.waiting.done(judged)


def _since(waiting: Waiting) -> float:
    return 1000 * (time.perf_counter() - waiting.since)
