"""Many pictures of one request that are judged later, while the client asks how far they are."""

import secrets
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from totalrecall.errors import BusyError, NotFoundError, PictureError
from totalrecall.station.judging.caption import Upload
from totalrecall.station.store.records import Actor, Filter, Inspection

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["Jobs"]

_AT_ONCE = 4  # jobs that wait or run: their pictures are held in memory
_PAUSE = 0.02  # seconds between two tries while the queue is full
_MOST_SHOWN = 10_000
_STOPPED = "The station stopped before all pictures were judged."


class Jobs:
    """Runs jobs one after the other, in a thread, behind the pictures of clients that wait for their answer."""

    def __init__(self, station: "Station") -> None:
        self._station = station
        self._jobs: deque[tuple[str, list[Upload]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._running: str | None = None
        self._thread = threading.Thread(target=self._run, name="station-jobs", daemon=True)
        self._thread.start()

    def begin(self, model: str, uploads: list[Upload], actor: Actor) -> str:
        """Take a job and return its key.

        Raises:
            BusyError: too many wait.
        """
        key = secrets.token_hex(16)
        with self._changed:
            if self._closed or len(self._jobs) + (self._running is not None) >= _AT_ONCE:
                raise BusyError(f"{_AT_ONCE} jobs wait already, and no more are allowed. Send it again later.")
            self._station.history.begin_job(key, model, len(uploads), actor).result()
            now = time.monotonic()  # whose recipe judges them
            said = [replace(one.caption, model=model, job=key, taken=now) for one in uploads]
            self._jobs.append(
                (key, [replace(one, caption=caption) for one, caption in zip(uploads, said, strict=True)])
            )
            self._changed.notify()
        return key

    def facts(self, key: str) -> dict[str, Any]:
        """Return how far a job is, with the inspections that it has so far.

        Raises:
            NotFoundError: there is none of that key.
        """
        job = self._station.history.job(key)
        if job is None:
            raise NotFoundError(f"There is no job {key}.")
        found = self._station.history.find(Filter(job=key), limit=_MOST_SHOWN)
        return {**job, "id": key, "results": [inspection.to_json() for inspection in reversed(found)]}

    def close(self) -> None:
        """Stop after the picture in hand; what was not judged is written down as interrupted."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if self._closed:
                    for key, *_ in self._jobs:
                        self._station.history.end_job(key, "interrupted", _STOPPED)
                    return
                key, uploads = self._jobs.popleft()
                self._running = key
            if self._judge(key, uploads):
                self._station.history.end_job(key)
            else:
                self._station.history.end_job(key, "interrupted", _STOPPED)
            with self._changed:
                self._running = None

    def _judge(self, key: str, uploads: list[Upload]) -> bool:
        """Judge a job's pictures; returns whether all of them were."""
        under_way: deque[Future[Inspection]] = deque()
        for number, one in enumerate(uploads):
            waited = self._submitted(one)
            if waited is None:
                for rest in under_way:
                    self._step(key, rest)
                return False
            under_way.append(waited)
            uploads[number] = Upload(b"", one.caption)  # its bytes are wanted no longer
            while under_way and (under_way[0].done() or len(under_way) > self._station.settings.queue):
                self._step(key, under_way.popleft())
        for rest in under_way:
            self._step(key, rest)
        return True

    def _submitted(self, one: Upload) -> "Future[Inspection] | None":
        """Let a picture wait as soon as there is room; None once the station stops."""
        while not self._closed:
            inspector = self._station.inspector
            if inspector.waiting < max(inspector.limit // 2, 1):  # half of the queue is for clients that wait
                try:
                    return self._station.submit(one.picture, one.caption)
                except BusyError:
                    pass
                except Exception as error:  # whatever it is, the other pictures are judged
                    failed: Future[Inspection] = Future()
                    failed.set_exception(error)
                    return failed
            time.sleep(_PAUSE)
        return None

    def _step(self, key: str, waited: "Future[Inspection]") -> None:
        error = waited.exception()
        # a picture that cannot be read is among the results, with its own reason
        reason = None if error is None or isinstance(error, PictureError) else str(error)
        self._station.history.step_job(key, failed=error is not None, error=reason)
