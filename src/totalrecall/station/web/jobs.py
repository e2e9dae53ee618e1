"""Many pictures of one request that are judged later, while the client asks how far they are."""

import secrets
import threading
import time
from collections import OrderedDict, deque
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
_REMEMBERED = 100  # jobs whose pictures that were not judged are told one by one
_PLACES = 8  # last digits of a key: the picture's place in its job
_STOPPED = "The station stopped before all pictures were judged."


class Jobs:
    """Runs jobs one after the other, in a thread, behind the pictures of clients that wait for their answer."""

    def __init__(self, station: "Station") -> None:
        self._station = station
        self._jobs: deque[tuple[str, list[Upload]]] = deque()
        self._failures: OrderedDict[str, dict[int, dict[str, Any]]] = OrderedDict()  # by job, by place
        self._changed = threading.Condition()
        self._closed = False
        self._running: str | None = None
        self._thread = threading.Thread(target=self._run, name="station-jobs", daemon=True)
        self._thread.start()

    def begin(self, model: str, uploads: list[Upload], actor: Actor) -> str:
        """Take a job and return its key.

        Raises:
            BusyError: too many wait.
            SettingError: a text that was said with them cannot be taken.
        """
        key = secrets.token_hex(16)
        start = secrets.token_hex(16)[:-_PLACES]
        now = time.monotonic()  # whose recipe judges them
        # the keys of inspections sort as the pictures were sent, whatever the clock does meanwhile
        said = [
            replace(one.caption, model=model, job=key, taken=now, key=f"{start}{place:0{_PLACES}x}").checked()
            for place, one in enumerate(uploads)
        ]
        with self._changed:
            if self._closed or len(self._jobs) + (self._running is not None) >= _AT_ONCE:
                raise BusyError(f"{_AT_ONCE} jobs wait already, and no more are allowed. Send it again later.")
            self._station.history.begin_job(key, model, len(uploads), actor).result()
            self._failures[key] = {}
            while len(self._failures) > _REMEMBERED:
                self._failures.popitem(last=False)
            self._jobs.append(
                (key, [replace(one, caption=caption) for one, caption in zip(uploads, said, strict=True)])
            )
            self._changed.notify()
        return key

    def facts(self, key: str) -> dict[str, Any]:
        """Return how far a job is, with the results that it has so far, in the order in which the pictures were sent.

        Each has its `place`, from 0. A picture that could not be judged has `error` and no score; after a restart such
        a one is missing.

        Raises:
            NotFoundError: there is none of that key.
        """
        job = self._station.history.job(key)
        if job is None:
            raise NotFoundError(f"There is no job {key}.")
        found = self._station.history.find(Filter(job=key), limit=_MOST_SHOWN)
        results = {int(one.key[-_PLACES:], 16): one.to_json() for one in found}
        results |= self._failures.get(key, {})
        return {**job, "id": key, "results": [{**results[place], "place": place} for place in sorted(results)]}

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
        under_way: deque[tuple[int, str, Future[Inspection]]] = deque()
        for place, one in enumerate(uploads):
            waited = self._submitted(one)
            if waited is None:
                for rest in under_way:
                    self._step(key, *rest)
                return False
            under_way.append((place, one.name, waited))
            uploads[place] = Upload(b"", one.caption)  # its bytes are wanted no longer
            while under_way and (under_way[0][2].done() or len(under_way) > self._station.settings.queue):
                self._step(key, *under_way.popleft())
        for rest in under_way:
            self._step(key, *rest)
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

    def _step(self, key: str, place: int, name: str, waited: "Future[Inspection]") -> None:
        error = waited.exception()
        reason = None
        if error is not None and not isinstance(error, PictureError):  # that is among the results, with its reason
            reason = str(error)
            if key in self._failures:
                self._failures[key][place] = {"path": name, "score": None, "error": reason}
        self._station.history.step_job(key, failed=error is not None, error=reason)
