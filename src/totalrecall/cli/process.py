"""What stands around a command: stdout and stderr that may be closed or go away, and signals that end the program."""

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO, cast

__all__ = ["EndedBySignal", "Stream", "ending_signals", "standard_streams"]


class EndedBySignal(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: whatever is open is closed and kept as at Ctrl-C."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__(number)
        self.number = number

    @property
    def words(self) -> str:
        """What a person is told."""
        return f"ended by {signal.Signals(self.number).name}."

    @property
    def exit_code(self) -> int:
        """The shells' code of a program that a signal ended."""
        return 128 + self.number


@contextlib.contextmanager
def ending_signals() -> Iterator[list[EndedBySignal]]:
    """Let SIGTERM, and SIGHUP where there is one, end what runs here as Ctrl-C does; give a list of those that came.

    A signal that the program around us handles or ignores (`nohup`) is left alone.
    """
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield []
        return

    came: list[EndedBySignal] = []

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # the second one must not stop what the first one has kept
        came.append(EndedBySignal(number))
        raise came[-1]

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield came
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


class Stream:
    """stdout or stderr, whose reader may go away.

    Attributes:
        closed_before: it was closed when the program began.
        stops: a reader who goes away ends the command: nothing else would come of it.
    """

    def __init__(self, stream: Any, *, optional: bool) -> None:
        """Wrap a stream.

        Args:
            stream: a TextIO; None, which Python puts for one that is closed, takes everything and keeps nothing.
            optional: what cannot be written to it for whatever reason is no loss.
        """
        self.closed_before = stream is None
        self.stops = False
        self._optional = optional
        self._stream = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        if hasattr(self._stream, "reconfigure"):  # a file name that the terminal's encoding lacks must not stop a run
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        """Return what the stream itself has: its encoding, whether it is a terminal."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; it is lost where nobody reads it.

        Raises:
            BrokenPipeError: nobody does, and that ends the command.
            OSError: it cannot be written for another reason, such as a full disk.
        """
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: closed by the program around us
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Write what is held back, as `write` does."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def end(self) -> None:
        """Write what is held back, or let it go: the program's end must not fail over it."""
        with contextlib.suppress(OSError):
            self.stops, self._optional = False, True
            self.flush()

    def _lose(self, error: OSError | ValueError) -> None:
        gone = isinstance(error, ValueError) or error.errno in (errno.EPIPE, errno.EBADF)
        if not gone and not self._optional:
            raise error
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is held back goes there
            os.close(nowhere)
        if self.stops:
            raise BrokenPipeError(errno.EPIPE, "nobody reads it") from None


@contextlib.contextmanager
def standard_streams() -> Iterator[tuple[Stream, Stream]]:
    """Put streams whose readers may go away in the place of stdout and stderr, and give them."""
    before = sys.stdout, sys.stderr
    if None in before:
        _fill_closed()
    streams = Stream(before[0], optional=False), Stream(before[1], optional=True)
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
    try:
        yield streams
    finally:
        for stream in streams:
            stream.end()
        sys.stdout, sys.stderr = before


def _fill_closed() -> None:
    """Take the numbers of closed streams: a model file opened as number 1 would hold what a library prints."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
