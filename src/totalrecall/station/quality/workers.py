"""Long work beside the judging: each piece in a child process, with its progress, until it is done or cancelled.

A child has its own interpreter and a low priority, so that the line's pictures go first. It ends with the station,
however that ends: its end of a pipe tells.
"""

import contextlib
import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from totalrecall.errors import ConflictError, NotFoundError, TotalRecallError
from totalrecall.pictures.loading import FAILURES
from totalrecall.station.store.records import iso
from totalrecall.system.text import unexpected

__all__ = ["Progress", "Task", "Work", "Workers"]

Progress = Callable[[str, int, int], None]  # (step, done, total)
Task: TypeAlias = Callable[[dict[str, Any], Progress], dict[str, Any]]  # arguments and result are JSON types

_REMEMBERED = 50  # pieces of work that are over
_PATIENCE = 5.0  # seconds until a child that was asked to end is killed
_NICE = 10


@dataclass
class Work:
    """A piece of work, and how far it is.

    Attributes:
        key: 32 hexadecimal digits.
        what: "learn", "catch", "fit", "audit" or "capability".
        model: whose, or which is to be.
        actor: the name of whoever began it.
        at: when it began, UTC.
        step, done, total: what it does now.
        state: "running", "done", "failed" or "cancelled".
        error: why it failed, one line.
        result: of JSON types, once it is done.
    """

    key: str
    what: str
    model: str
    actor: str
    at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    step: str = ""
    done: int = 0
    total: int = 0
    state: str = "running"
    error: str | None = None
    result: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what people are told of it, but the result."""
        names = ("what", "model", "actor", "step", "done", "total", "state", "error")
        return {"id": self.key, "at": iso(self.at), **{name: getattr(self, name) for name in names}}


@dataclass(eq=False)
class _Running:
    work: Work
    lane: str
    process: multiprocessing.process.BaseProcess
    thread: threading.Thread | None = None
    cancelled: bool = False


class Workers:
    """Runs pieces of work, one at a time in each lane. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}  # by lane
        self._works: dict[str, Work] = {}  # by key, the oldest first

    def begin(
        self,
        work: Work,
        lane: str,
        task: Task,
        arguments: dict[str, Any],
        *,
        finish: Callable[[dict[str, Any]], dict[str, Any]] = lambda result: result,
        clean: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin a piece of work.

        Args:
            work: its description, which is kept up to date.
            lane: in which only one runs at a time.
            task: a function of a module, called in the child.
            arguments: of the task.
            finish: called here, in a thread, with the child's result; returns that of the work.
            clean: called once it is over, however it ended.

        Raises:
            ConflictError: another one runs in the lane.
        """
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
        with self._lock:
            other = self._running.get(lane)
            if other is not None:
                raise ConflictError(
                    f"Model {other.work.model} is worked on already ({other.work.what}). Wait until it is done, or "
                    "cancel it."
                )
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_child, args=(theirs, f"{task.__module__}:{task.__qualname__}", arguments), daemon=True
            )
            running = self._running[lane] = _Running(work, lane, process)
            self._works[work.key] = work
            while len(self._works) > _REMEMBERED:
                oldest = next((one for one in self._works.values() if one.state != "running"), None)
                if oldest is None:
                    break
                del self._works[oldest.key]
            try:
                process.start()
            except BaseException:
                del self._running[lane], self._works[work.key]
                raise
            theirs.close()
            running.thread = threading.Thread(
                target=self._follow, args=(running, ours, finish, clean), name=f"station-{work.what}", daemon=True
            )
            running.thread.start()

    def get(self, key: str) -> Work | None:
        """Return a piece of work that runs, or was over not long ago."""
        with self._lock:
            return self._works.get(key)

    def all(self) -> list[Work]:
        """Return them, the newest first."""
        with self._lock:
            return list(reversed(self._works.values()))

    def cancel(self, key: str) -> None:
        """End a piece of work; returns when it has ended.

        Raises:
            NotFoundError: none of that key runs.
        """
        with self._lock:
            running = next((one for one in self._running.values() if one.work.key == key), None)
            if running is None:
                raise NotFoundError(f"No work of the id {key} is running.")
            running.cancelled = True
        _end(running)

    def wait(self, key: str, seconds: float | None = None) -> None:
        """Return when a piece of work is over, or after some seconds."""
        with self._lock:
            running = next((one for one in self._running.values() if one.work.key == key), None)
        if running is not None and running.thread is not None:
            running.thread.join(seconds)

    def close(self) -> None:
        """End everything."""
        with self._lock:
            running = list(self._running.values())
            for one in running:
                one.cancelled = True
        for one in running:
            _end(one)

    def _follow(
        self,
        running: _Running,
        pipe: Connection,
        finish: Callable[[dict[str, Any]], dict[str, Any]],
        clean: Callable[[], None],
    ) -> None:
        """Take what the child says until it is over."""
        work, state = running.work, "failed"
        try:
            result = _heard(running, pipe)
            if running.cancelled:
                state = "cancelled"
            elif result is not None:
                work.result, state = finish(result), "done"
        except TotalRecallError as error:
            work.error = str(error)
        except FAILURES as error:
            work.error = unexpected(error)
        finally:
            pipe.close()
            running.process.join()
            with contextlib.suppress(Exception):  # what is left is swept at the next start
                clean()
            if state == "failed" and work.error is None:
                work.error = "It failed, and its reason is not known."
            with self._lock:
                self._running.pop(running.lane, None)
            work.state = state


def _heard(running: _Running, pipe: Connection) -> dict[str, Any] | None:
    """Return the child's result; None where it failed or ended without any."""
    work = running.work
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            running.process.join()
            if not running.cancelled:
                work.error = (
                    f"The process that did the work was ended (exit code {running.process.exitcode}). It may have "
                    "needed more memory than there is."
                )
            return None
        kind, *rest = message
        if kind == "step":
            work.step, work.done, work.total = rest
        elif kind == "failed":
            work.error = rest[0]
            return None
        else:
            result: dict[str, Any] = rest[0]
            return result


def _end(running: _Running) -> None:
    running.process.terminate()
    running.process.join(_PATIENCE)
    if running.process.is_alive():
        running.process.kill()
    if running.thread is not None:
        running.thread.join()


# ---------------------------------------------------------------------- in the child


def _child(pipe: Connection, name: str, arguments: dict[str, Any]) -> None:
    """Do the work and say what came of it."""
    threading.Thread(target=_end_with_station, args=(multiprocessing.parent_process(),), daemon=True).start()
    if hasattr(os, "nice"):
        with contextlib.suppress(OSError):
            os.nice(_NICE)
    module, _, function = name.partition(":")
    try:
        task: Task = getattr(importlib.import_module(module), function)
        result = task(arguments, lambda step, done, total: pipe.send(("step", step, done, total)))
        pipe.send(("done", result))
    except TotalRecallError as error:
        pipe.send(("failed", str(error)))
    except MemoryError:
        pipe.send(("failed", "There is not enough memory. Use fewer pictures."))
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    except (*FAILURES, ImportError) as error:
        pipe.send(("failed", unexpected(error)))


def _end_with_station(station: multiprocessing.process.BaseProcess | None) -> None:
    """End as soon as the station has: nobody would take the result."""
    if station is not None:
        station.join()
        os._exit(1)
