"""The pictures that wait to be judged, and the threads that judge them.

At most so many pictures wait as the station allows; one more is refused at once, so that a client learns it and the
delay of those that were let in stays bounded. Models take turns, whatever the number of pictures that wait for each.
A picture that comes alone is judged by all cores, as soon as possible; of several each is judged by one core, since
that takes the least of the processor's time: nothing is handed from thread to thread. What came of them is told in the
order in which they came, model by model: a job, a controller and whoever reads the history rely on it.
"""

import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from totalrecall.errors import BusyError, PictureError, TotalRecallError
from totalrecall.features.extractor import PIXELS_AT_ONCE
from totalrecall.station.judging.room import Room, pixels_of
from totalrecall.system.text import unexpected
from totalrecall.system.threads import cores, on_one_core, one_blas_thread

if TYPE_CHECKING:
    from totalrecall.scoring import Result
    from totalrecall.station.judging.models import Loaded

__all__ = ["Inspector", "Judged", "Judges", "Waiting"]

_AHEAD = 4  # pictures a thread that may have been judged before their turn


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
        heat: of the result, as `heat_of` makes it, where that was done with the judging; None where it was not.
    """

    waiting: Waiting
    loaded: "Loaded | None"
    outcome: "Result | TotalRecallError"
    milliseconds: float
    heat: np.ndarray | None = None


@runtime_checkable  # the checks of the test run need it
class Judges(Protocol):
    """Who judges the pictures: this process, or others that it asks. Any thread may call it.

    Attributes:
        at_once: pictures that they may have at the same time.
    """

    @property
    def at_once(self) -> int:
        """How many pictures they may have at the same time."""
        ...

    def judge(self, loaded: "Loaded", waiting: Waiting, *, alone: bool) -> "tuple[Result, np.ndarray | None]":
        """Judge a picture; return the result, and its heat if that is made along with it.

        Args:
            loaded: the model, at the rate that is asked for.
            waiting: the picture.
            alone: no other one is judged at the moment.

        Raises:
            PictureError: it cannot be read.
            TotalRecallError: it was not judged.
        """
        ...

    def find_fault(self) -> str | None:
        """Return why nothing can be judged at the moment, in a line; None if it can. It may take seconds."""
        ...


class _Here:
    """Judges in the threads of this process."""

    def __init__(self) -> None:
        # one is answering, and one is ready for the core that gets free, while the others judge: 8 % more pictures
        # than with one fewer
        self.at_once = cores() + 2
        self._room = Room(PIXELS_AT_ONCE)

    def judge(self, loaded: "Loaded", waiting: Waiting, *, alone: bool) -> "tuple[Result, None]":
        """Judge a picture; see `Judges`."""
        with (
            self._room.held(pixels_of(waiting.picture, waiting.name)),
            contextlib.nullcontext() if alone else on_one_core(),
        ):
            return loaded.judge.predict(waiting.picture, conditions=waiting.conditions), None

    def find_fault(self) -> str | None:
        """Nothing that would not end the process; see `Judges`."""
        return None


@dataclass(eq=False)
class _Turn:
    """A picture that was taken to be judged, until what came of it is told."""

    waiting: Waiting
    alone: bool
    judged: Judged | None = None


class _Line:
    """The pictures of one model: those that wait, and those that were taken, in the order in which they came."""

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.taken: deque[_Turn] = deque()
        self.telling = False  # a thread is telling what came of those taken


class Inspector:
    """Judges pictures by threads of its own. Any thread may submit one.

    Args:
        model: gives a model by its name; called for each picture, so that a replaced one is used from the next on.
        limit: of the pictures that wait.
        at_rate: gives a model that judges at a false-alarm rate of a recipe.
        judges: who judges; this process if None.
    """

    def __init__(
        self,
        model: "Callable[[str], Loaded]",
        limit: int,
        at_rate: "Callable[[Loaded, float], Loaded]" = lambda loaded, _: loaded,
        judges: Judges | None = None,
    ) -> None:
        self._model, self._at_rate = model, at_rate
        self.judges = _Here() if judges is None else judges
        self.limit = limit
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # by model; the one whose turn it is comes first
        self._waiting = self._under_way = 0
        self._changed = threading.Condition()
        self._closed = False
        self._workers = [
            threading.Thread(target=self._run, name=f"station-judge-{number}", daemon=True)
            for number in range(self.judges.at_once)
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
                self._lines.setdefault(picture.model, _Line()).waiting.append(picture)
            self._waiting += len(pictures)
            self._changed.notify(len(pictures))

    def close(self) -> None:
        """Judge what waits, take no more, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _run(self) -> None:
        with one_blas_thread():  # several steps of a picture ask for it, and each change of the limit lets others in
            while (taken := self._next()) is not None:
                line, turn = taken
                self._finish(line, turn, self._judged(turn.waiting, turn.alone))

    def _next(self) -> tuple[_Line, _Turn] | None:
        """Wait for a picture, and return it; None at the end."""
        with self._changed:
            while (model := next(filter(self._may_go_on, self._lines), None)) is None:
                if self._closed and not self._waiting:
                    return None
                self._changed.wait()
            self._lines.move_to_end(model)  # behind the others
            line = self._lines[model]
            self._waiting -= 1
            self._under_way += 1
            turn = _Turn(line.waiting.popleft(), alone=self._waiting == 0 and self._under_way == 1)
            line.taken.append(turn)
            if self._closed and not self._waiting:
                self._changed.notify_all()  # the end, for those that have nothing to do
            return line, turn

    def _may_go_on(self, model: str) -> bool:
        """Tell whether a picture of a model may be taken: not while many wait for the one before them to be told."""
        line = self._lines[model]
        return bool(line.waiting) and len(line.taken) < _AHEAD * len(self._workers)

    def _finish(self, line: _Line, turn: _Turn, judged: Judged) -> None:
        """Tell what came of a picture, if it is its turn, and of those behind it that waited for it."""
        with self._changed:
            turn.judged = judged
            self._under_way -= 1
            if line.telling:
                return  # whoever tells tells this, too
            line.telling = True
        while (told := self._next_told(line)) is not None:
            _tell(told)

    def _next_told(self, line: _Line) -> Judged | None:
        with self._changed:
            if not line.taken or line.taken[0].judged is None:
                line.telling = False
                return None
            if self._waiting:
                self._changed.notify()  # there is room for one more
            return line.taken.popleft().judged

    def _judged(self, waiting: Waiting, alone: bool) -> "Judged":
        """Judge a picture; whatever happens, there is an outcome, so that nobody waits for ever."""
        loaded = heat = None
        outcome: Result | TotalRecallError
        try:
            loaded = self._model(waiting.model)
            if waiting.rate is not None:
                loaded = self._at_rate(loaded, waiting.rate)
            outcome, heat = self.judges.judge(loaded, waiting, alone=alone)
        except PictureError as error:  # in memory a picture has no name of its own
            outcome = PictureError(str(error).replace("bytes[0]", waiting.name, 1), *error.settings)
        except Exception as error:
            outcome = error if isinstance(error, TotalRecallError) else TotalRecallError(unexpected(error))
        return Judged(waiting, loaded, outcome, 1000 * (time.perf_counter() - waiting.since), heat)


def _tell(judged: Judged) -> None:
    with contextlib.suppress(Exception):  # of one picture's reader; the other pictures of the group go on
        judged.waiting.done(judged)
