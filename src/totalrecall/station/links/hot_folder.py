"""A hot folder: every picture that appears in it is inspected, exactly once.

The folder itself is the truth: it is searched at the start and every few seconds; between that the system tells of
changes. A file waits until it is whole (`whole_files.py`), is submitted, and stands in the ledger from the moment its
inspection is committed. Then it stays, is moved into a folder of the verdict, or is deleted.
"""

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from totalrecall.errors import HistoryError, PictureError, SettingError, TotalRecallError
from totalrecall.pictures.files import PICTURE_SUFFIXES
from totalrecall.station.judging.caption import Caption, shown_name
from totalrecall.station.links.base import Changes, pause_before, reason_of, submit_patiently
from totalrecall.station.links.filing import VERDICT_FOLDERS, put_away
from totalrecall.station.links.ledger import Ledger, WatchedFile
from totalrecall.station.links.whole_files import (
    UnreadyError,
    UnwantedError,
    find_files,
    look_at,
    read_whole,
    seems_whole,
)
from totalrecall.station.station import Link
from totalrecall.station.store.records import Inspection
from totalrecall.system.files import sha256

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["DONE", "HotFolder", "Pace"]

DONE = ("leave", "move", "delete")
_UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", "~")  # of files under way
_AT_ONCE = 16  # pictures that are submitted and not yet inspected
_LONGEST_PAUSE = 60.0  # seconds between two tries of a file that failed


@dataclass(frozen=True)
class Pace:
    """How patiently a folder is watched, in seconds.

    Attributes:
        rest: that size and time of a file must not change.
        cut: that a file may rest without a picture's end before it counts as one that is damaged.
        search: between two searches of the whole folder; more where a search takes long.
        limit: of the bytes of one file.
    """

    rest: float = 0.5
    cut: float = 10.0
    search: float = 5.0
    limit: int = 64 << 20


@dataclass
class _Candidate:
    """A file that waits to be whole."""

    file: WatchedFile
    since: float  # it is as it is, by time.monotonic
    not_before: float
    seen: float  # when it came, by time.monotonic: the recipe of that moment judges it
    attempts: int = 0


class HotFolder(Link):
    """Watches a folder.

    Args:
        folder: that is watched, with those inside it.
        model: that judges; may be missing where there is only one.
        done: "leave", "move" or "delete" what was inspected.
        pace: how patiently.

    Raises:
        SettingError: there is no such folder.
    """

    def __init__(
        self, folder: Path, model: str | None = None, *, done: str = "leave", pace: Pace | None = None
    ) -> None:
        if not folder.is_dir():
            raise SettingError(f"{folder} is no folder. Make it, or name another by --watch.")
        self._folder = os.path.realpath(folder)
        self._model, self._done, self._pace = model, done, pace or Pace()
        self.name = f"folder {self._folder}"
        self.is_output = False
        self._changes = Changes()
        self._closing, self._wake = threading.Event(), threading.Event()
        self._waiting: dict[str, _Candidate] = {}
        self._settled: dict[str, WatchedFile] = {}  # inspected or unwanted, and still there as they were
        self._under_way: dict[str, WatchedFile] = {}
        self._outcomes: SimpleQueue[tuple[_Candidate, Future[Inspection]]] = SimpleQueue()
        self._changed: SimpleQueue[str] = SimpleQueue()
        self._next_search = 0.0
        self._threads: list[threading.Thread] = []

    @property
    def fault(self) -> str | None:
        """Why the folder cannot be watched, or its pictures wait."""
        return self._changes.said("fault") or self._changes.said("wait") or self._changes.said("away")

    def start(self, station: "Station") -> None:
        """Begin to watch."""
        self._station = station
        self._ledger = Ledger(station.database)
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for run, name in ((self._run, "station-folder"), (self._listen, "station-folder-changes"))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop; what is submitted is inspected all the same, and put away at the next start."""
        self._closing.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()

    # ------------------------------------------------------------------ two threads

    def _listen(self) -> None:
        """Wake the other thread when the system tells of a change."""
        from watchfiles import watch

        attempt = 0
        while not self._closing.is_set():
            begun = False
            try:
                for changes in watch(
                    self._folder,
                    watch_filter=None,
                    debounce=100,
                    step=20,
                    rust_timeout=200,
                    yield_on_timeout=True,
                    stop_event=self._closing,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    for _, path in changes:
                        self._changed.put(path)
                    if not begun:  # what came before the system told is found by a search
                        begun, attempt, self._next_search = True, 0, 0.0
                        self._wake.set()
                    elif changes:
                        self._wake.set()
            except (OSError, RuntimeError):  # gone, or too many watches: it is searched every few seconds all the same
                attempt += 1
            self._closing.wait(pause_before(max(attempt, 1), 1.0, _LONGEST_PAUSE))

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            self._wake.clear()
            try:
                self._look_at_changed()
                if time.monotonic() >= self._next_search:
                    self._search()
                self._take_whole_ones()
                self._put_away()
                attempt = 0
                self._changes.settled("fault", f"{self._folder} is watched again.")
            except Exception as error:  # whatever it is, it is said, and the folder is looked at again
                attempt += 1
                self._changes.say("fault", f"{self._folder} cannot be watched at the moment: {reason_of(error)}")
                self._closing.wait(pause_before(attempt, 0.5, _LONGEST_PAUSE))
            self._wake.wait(self._seconds_to_wait())

    def _seconds_to_wait(self) -> float:
        now = time.monotonic()
        times = [self._next_search, *(candidate.not_before for candidate in self._waiting.values())]
        if len(self._under_way) >= _AT_ONCE:  # then an outcome wakes it
            times = times[:1]
        return min(max(min(times) - now, 0.01), self._pace.search)

    # ------------------------------------------------------------------ one pass

    def _look_at_changed(self) -> None:
        """Let those files wait of which the system told; a folder that came is searched with all others."""
        now = time.monotonic()
        paths: set[str] = set()
        with contextlib.suppress(Empty):
            while True:
                paths.add(self._changed.get_nowait())
        files = []
        for path in paths:
            with contextlib.suppress(OSError), self._telling(path):
                status = os.lstat(path)
                if stat.S_ISDIR(status.st_mode):
                    self._next_search = 0.0
                elif self._is_watched(path) and self._is_picture(path):
                    files.append(look_at(path, status))
        self._let_wait(files, now)

    def _is_watched(self, path: str) -> bool:
        """Tell whether a search would come to a path: not hidden, and not what was moved away."""
        parts = Path(os.path.relpath(path, self._folder)).parts
        moved = self._done == "move" and len(parts) > 1 and parts[0] in VERDICT_FOLDERS
        return not moved and not any(part.startswith(".") for part in parts)

    def _search(self) -> None:
        """Look at every file of the folder, and let those wait that are new."""
        began = time.monotonic()
        leave_out = VERDICT_FOLDERS if self._done == "move" else frozenset()
        there: dict[str, WatchedFile] = {}
        for path, status in find_files(self._folder, leave_out):
            if self._is_picture(path):
                with self._telling(path):
                    there[path] = look_at(path, status)
        self._settled = {path: file for path, file in self._settled.items() if there.get(path) == file}
        self._waiting = {path: candidate for path, candidate in self._waiting.items() if path in there}
        self._let_wait(there.values(), began)
        took = time.monotonic() - began
        self._next_search = began + max(self._pace.search, 20 * took)

    def _let_wait(self, files: Iterable[WatchedFile], now: float) -> None:
        """Let files wait, in the order of their times, unless they are inspected or wait already."""
        fresh = []
        for file in files:
            candidate = self._waiting.get(file.path)
            inspected = self._settled.get(file.path) == file or self._under_way.get(file.path) == file
            if not inspected and (candidate is None or candidate.file != file):
                fresh.append(file)
        keys = self._ledger.inspected(fresh)
        for file in sorted(fresh, key=lambda file: (file.mtime_ns, file.path)):
            if file not in keys:
                self._waiting[file.path] = _Candidate(file, now, now + self._pace.rest, now)
            elif self._done == "leave" or not self._is_put_away(file, self._verdict(keys[file])):
                self._settle(file)  # it stands in the ledger, and ought to have been put away by now

    def _verdict(self, key: str) -> str:
        inspection = self._station.history.get(key)
        return "unreadable" if inspection is None else inspection.verdict

    def _take_whole_ones(self) -> None:
        for candidate in list(self._waiting.values()):
            if self._closing.is_set():
                return
            while len(self._under_way) >= _AT_ONCE and not self._closing.is_set():
                self._wake.wait(1.0)
                self._wake.clear()
                self._put_away()
            if time.monotonic() >= candidate.not_before:
                self._try(candidate)

    def _try(self, candidate: _Candidate) -> None:
        """Take a file; where an error is the file's and not the folder's, the other files do not wait for it."""
        try:
            with self._telling(candidate.file.path):
                self._take(candidate)
        except (OSError, TotalRecallError):
            raise
        except Exception as error:
            self._try_later(candidate, error)

    def _try_later(self, candidate: _Candidate, error: BaseException) -> None:
        """Say why a file is not inspected yet, and let it wait for another try, longer each time."""
        file = candidate.file
        candidate.attempts += 1
        self._changes.say(file.path, f"{self._shown(file.path)} is tried again: {reason_of(error)}")
        candidate.not_before = time.monotonic() + pause_before(candidate.attempts, self._pace.rest, _LONGEST_PAUSE)
        self._waiting.setdefault(file.path, candidate)

    def _take(self, candidate: _Candidate) -> None:
        """Submit a file if it is whole; else it waits on.

        Raises:
            UnwantedError: it is not to be read.
        """
        file, now = candidate.file, time.monotonic()
        try:
            candidate.file = file = look_at(file.path, os.lstat(file.path))
            content = read_whole(file, self._pace.limit)
        except (UnreadyError, OSError):
            candidate.since, candidate.not_before = now, now + self._pace.rest
            return
        if now - candidate.since < self._pace.cut and not seems_whole(content):
            # a writer that pauses; each look reads the file, so they become rarer
            candidate.not_before = now + max(self._pace.rest, (now - candidate.since) / 2)
            return
        digest = sha256(content)
        if self._done == "leave" and (key := self._ledger.same_content(file, digest)) is not None:
            self._ledger.add_later(file, digest, key).result()
            self._settle(file)
            return
        submit = partial(
            self._station.submit,
            content,
            Caption(model=self._model, name=self._shown(file.path), source="folder", taken=candidate.seen),
            also=lambda connection, inspection: self._ledger.add(connection, file, digest, inspection.key),
        )
        waited = submit_patiently(submit, self._closing, self._say_why)
        if waited is not None:
            self._changes.settled("wait", f"The pictures of {self._folder} are judged again.")
            del self._waiting[file.path]
            self._under_way[file.path] = file
            waited.add_done_callback(partial(self._ended, candidate))

    def _ended(self, candidate: _Candidate, future: "Future[Inspection]") -> None:
        """Take in what came of a file; called by a thread that must not wait."""
        self._outcomes.put((candidate, future))
        self._wake.set()

    def _put_away(self) -> None:
        """Do with what was inspected as was asked."""
        with contextlib.suppress(Empty):
            while True:
                candidate, future = self._outcomes.get_nowait()
                file = candidate.file
                self._under_way.pop(file.path, None)
                error = future.exception()
                if error is None:
                    self._finish(file, future.result().verdict)
                elif isinstance(error, PictureError):  # inspected, and nothing to be seen
                    self._finish(file, "unreadable")
                elif not isinstance(error, HistoryError) and self._ledger.inspected([file]):
                    self._settle(file)  # it was in the ledger already
                else:
                    self._try_later(candidate, error)

    def _finish(self, file: WatchedFile, verdict: str) -> None:
        self._changes.settled(file.path)
        if self._done == "leave" or not self._is_put_away(file, verdict):
            self._settle(file)

    def _is_put_away(self, file: WatchedFile, verdict: str) -> bool:
        """Move or delete a file; returns whether it is no longer where it was."""
        if self._done == "delete" and verdict == "unreadable":
            self._changes.say(file.path, f"{self._shown(file.path)} cannot be read as a picture, and is left.")
            return False
        try:
            gone = put_away(file, self._folder, verdict if self._done == "move" else None)
        except OSError as error:
            what = "moved" if self._done == "move" else "deleted"
            self._changes.say("away", f"{self._shown(file.path)} cannot be {what}: {error.strerror or error}")
            return False
        self._changes.settled("away")
        if gone:
            self._ledger.forget(file).result()
        return gone

    def _settle(self, file: WatchedFile) -> None:
        self._settled[file.path] = file
        self._waiting.pop(file.path, None)

    # ------------------------------------------------------------------ words

    def _say_why(self, why: str) -> None:
        self._changes.say("wait", f"The pictures of {self._folder} wait: {why}")

    def _is_picture(self, path: str) -> bool:
        """Tell whether a file may be a picture by its name; of those that are none, one of each kind is told."""
        name = os.path.basename(path).lower()  # noqa: PTH119
        if name.endswith(PICTURE_SUFFIXES):
            return True
        if not name.endswith(_UNFINISHED):
            suffix = os.path.splitext(name)[1]  # noqa: PTH122
            kind = f"others that end in {suffix}" if suffix else "others without an ending"
            self._changes.once(
                ("kind", suffix), f"{self._shown(path)} is no picture by its name; it is left alone, and so are {kind}."
            )
        return False

    @contextlib.contextmanager
    def _telling(self, path: str) -> Iterator[None]:
        """Tell once of a file that is left alone, and settle it."""
        try:
            yield
        except UnwantedError as error:
            self._changes.say(path, f"{self._shown(path)} {error}; it is left alone.")
            candidate = self._waiting.pop(path, None)
            if candidate is not None:
                self._settled[path] = candidate.file

    def _shown(self, path: str) -> str:
        """Return a path inside the folder as every reader takes it."""
        return shown_name(os.path.relpath(path, self._folder).encode("utf-8", "replace").decode())
