"""What a forked process cannot take over: threads, locks that they held, and graphs that a library compiled.

A fork copies the memory of a process and one of its threads. Pools whose threads are gone wait for ever, and so does
whoever asks for a lock that such a thread held. So what holds one says here how to begin anew in the child; what only
the library itself could take apart, by waiting for its own threads, is kept there untouched. And the locks inside the
libraries must not be held at that moment: a fork waits until no thread is in what runs `undivided`.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

__all__ = ["Renewable", "abandon", "generation", "in_child", "renew_in_child", "undivided", "wait_before_fork"]


@runtime_checkable  # the checks of the test run need it
class Renewable(Protocol):
    """Something with threads, locks or compiled graphs."""

    def renew(self) -> None:
        """Let go of them, and begin anew at the next use; called in a forked child, which has one thread."""


_generation = 0
_renewable: "weakref.WeakSet[Renewable]" = weakref.WeakSet()
_functions: list[Callable[[], None]] = []
_waits: list[Callable[[], None]] = []

_gate = threading.Condition()
_closed = False  # while a thread forks
_inside = 0  # threads in `undivided`


def generation() -> int:
    """Return how many forks lie between this process and the one that imported the package."""
    return _generation


def renew_in_child(owner: Renewable) -> None:
    """Have `owner.renew()` called in each forked child, as long as the owner lives."""
    _renewable.add(owner)


def in_child(function: Callable[[], None]) -> None:
    """Have a function called in each forked child."""
    _functions.append(function)


def abandon(thing: object) -> None:
    """Keep a thing until the process ends, and then too: taking it apart would wait for threads that are gone."""
    if thing is not None:
        import ctypes  # no Python name can keep it: at the end of the process all of them are cleared

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


@contextmanager
def undivided() -> Iterator[None]:
    """Run a `with` block before or after any fork by another thread, never across it.

    Inside, nothing may wait for another thread of ours, which could be waiting to get in.
    """
    global _inside
    with _gate:
        while _closed:
            _gate.wait()
        _inside += 1
    try:
        yield
    finally:
        with _gate:
            _inside -= 1
            _gate.notify_all()


def wait_before_fork(function: Callable[[], None]) -> None:
    """Have a function called before each fork, when no thread is in `undivided`: it waits for what goes on besides."""
    _waits.append(function)


def _close() -> None:
    global _closed
    with _gate:
        while _closed:  # by another thread that forks
            _gate.wait()
        _closed = True
        while _inside:
            _gate.wait()
    for function in _waits:
        function()


def _open() -> None:
    global _closed
    with _gate:
        _closed = False
        _gate.notify_all()


def _renew_all() -> None:
    global _generation, _gate, _closed, _inside
    _generation += 1
    _gate, _closed, _inside = threading.Condition(), False, 0
    for function in _functions:
        function()
    for owner in list(_renewable):
        owner.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_close, after_in_parent=_open, after_in_child=_renew_all)
