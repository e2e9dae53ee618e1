"""Lines of the server's log that strangers can cause: counted, and written once a minute at most.

uvicorn and asyncio write a line for each request that is no HTTP, each handshake that fails, each connection over a
limit. Whoever reaches the port could fill a disk with them.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

__all__ = ["SparingFilter", "sparing_logs"]

_LOGGERS = ("uvicorn.error", "asyncio")
_EVERY = 60.0  # seconds between two lines of a kind
_MOST = 100  # kinds that are told apart; beyond these all count as one
_KNOWN = {
    "Invalid HTTP request received.": "no HTTP",
    "Unsupported upgrade request.": "upgrade",
    "Exceeded concurrency limit.": "connections",
}
_REPEATED = ("No supported WebSocket library detected",)  # advice beside a line that is counted


class SparingFilter(logging.Filter):
    """Lets the first line of a kind through, then one a minute that says how many there were.

    Args:
        count: called with the reason for each line.
        clock: seconds that only grow.
    """

    def __init__(self, count: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._count, self._clock = count, clock
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}  # when one was written, and how many were not since

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is to be written."""
        kind = str(record.msg).partition("\n")[0][:80]
        if kind.startswith(_REPEATED):
            return False
        self._count(_KNOWN.get(kind, "other"))
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= _MOST:
                kind = ""
            now, (at, left_out) = self._clock(), self._kinds.get(kind, (float("-inf"), 0))
            if now - at < _EVERY:
                self._kinds[kind] = (at, left_out + 1)
                return False
            self._kinds[kind] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out:,} more since the last line)"
        return True


@contextlib.contextmanager
def sparing_logs(count: Callable[[str], object]) -> Iterator[None]:
    """Let the server write sparingly meanwhile."""
    sparing = SparingFilter(count)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(sparing)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(sparing)
