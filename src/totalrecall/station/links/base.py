"""What the links share: patience while the station is busy, and lines for the log."""

import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from totalrecall.errors import BusyError, ConflictError, NotFoundError, TotalRecallError
from totalrecall.system.text import unexpected

if TYPE_CHECKING:
    from totalrecall.station.store.records import Inspection

__all__ = ["LOG", "PASSING", "Changes", "pause_before", "reason_of", "submit_patiently"]

LOG = logging.getLogger("totalrecall.station")

PASSING = (BusyError, ConflictError, NotFoundError)  # a full queue, a held model, a model that is not there yet
_CHANCE = secrets.SystemRandom()  # no seed: many stations must not come at the same moment
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0  # seconds between two tries at a station that is busy


class Changes:
    """Writes into the log what has changed: the same words about the same thing only once. Any thread may call it."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._said: dict[object, str] = {}

    def say(self, about: object, words: str) -> None:
        """Write a line, unless it was the last one about this."""
        with self._lock:
            if self._said.get(about) == words:
                return
            if len(self._said) >= self._most:  # then the oldest may be said a second time
                del self._said[next(iter(self._said))]
            self._said[about] = words
        LOG.warning("%s", words)

    def once(self, about: object, words: str) -> None:
        """Write a line, unless anything was said about this before."""
        with self._lock:
            known = about in self._said
        if not known:
            self.say(about, words)

    def said(self, about: object) -> str | None:
        """Return what was last said about something and is not over."""
        with self._lock:
            return self._said.get(about)

    def settled(self, about: object, words: str = "") -> None:
        """Write that what was said about something is over, if anything was."""
        with self._lock:
            was = self._said.pop(about, None)
        if was is not None and words:
            LOG.warning("%s", words)


def reason_of(error: BaseException) -> str:
    """Return what is said of an error, whatever it is: a link must not end without a word."""
    if isinstance(error, TotalRecallError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return unexpected(error)


def pause_before(attempt: int, first: float, longest: float) -> float:
    """Return the seconds to wait before another try: doubling, with a fifth of chance, so that not all come at once.

    Args:
        attempt: 1 after the first failure.
        first: seconds after it.
        longest: the most seconds.
    """
    return float(min(first * 2 ** min(attempt - 1, 30), longest) * _CHANCE.uniform(0.8, 1.2))


def submit_patiently(
    submit: "Callable[[], Future[Inspection]]",
    closing: threading.Event,
    say: Callable[[str], object] = lambda _: None,
    passing: tuple[type[TotalRecallError], ...] = PASSING,
) -> "Future[Inspection] | None":
    """Submit a picture as soon as the station takes it; None if it did not before the link closed.

    Args:
        submit: `Station.submit` with its arguments.
        closing: set when the link stops.
        say: told why it waits, where that is more than a full queue.
        passing: refusals that pass, so that it is tried again.

    Raises:
        TotalRecallError: the picture is refused for good.
    """
    attempt, said = 0, ""
    while True:  # at least once: a picture in hand is not dropped because the link closes
        try:
            return submit()
        except passing as error:
            attempt += 1
            if not isinstance(error, BusyError) and str(error) != said:
                said = str(error)
                say(said)
        if closing.wait(pause_before(attempt, _FIRST_PAUSE, _LONGEST_PAUSE)):
            return None
