"""Threads: the cores of this process, workers in order, linear algebra on one core, and what a fork leaves of them.

Many small products, a QR decomposition, or any product beside a busy engine: there each BLAS call ends in its threads
spinning until the slowest has had its turn on a core. Measured on two cores with another program running: a basis of
128 of 384 dimensions takes 6.5 s with two threads and 0.07 s with one. Whole pieces of work side by side, each with one
thread, keep the cores busy instead.

After its last product OpenBLAS lets its threads spin for another 2**26 cycles, 20 ms in which the backbone's threads
would have the cores. `OPENBLAS_THREAD_TIMEOUT` makes that 0.3 ms; it is read when NumPy is imported, so it is set here
and the package imports this module first. Where NumPy was there before, `blas_threads_rest` says so.

A fork copies the memory of a process and one of its threads. Pools whose threads are gone wait for ever, and so does
whoever asks for a lock that such a thread held. So what holds one says here how to begin anew in the child; what only
the library itself could take apart, by waiting for its own threads, is kept there untouched. And the locks inside the
libraries must not be held at that moment: a fork waits until no thread is in what runs `undivided`.
"""

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from totalrecall.errors import SettingError

__all__ = [
    "Renewable",
    "abandon",
    "blas_threads_rest",
    "check_not_forked",
    "core_cache",
    "cores",
    "generation",
    "in_child",
    "in_order",
    "in_worker",
    "limit_cores",
    "on_one_core",
    "one_blas_thread",
    "renew_in_child",
    "side_by_side",
    "undivided",
    "wait_before_fork",
    "workers",
]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_WORKER = "totalrecall-worker"
_TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"

_rest = _TIMEOUT in os.environ or "numpy" not in sys.modules
os.environ.setdefault(_TIMEOUT, "20")  # 2**20 cycles

_caller = threading.local()
_most = sys.maxsize  # cores that this process may use
_generation = 0  # forks between this process and the one that imported the package
_lock = threading.Lock()
_limited = 0  # how many blocks of `one_blas_thread`, of all threads, are open
_limit: AbstractContextManager[Any] | None = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit NumPy's BLAS to one thread inside a `with` block; blocks may nest and overlap in several threads."""
    global _limited, _limit
    with _lock:
        # subtle: the limit is the whole process's. Blocks that overlap must set it once and lift it once, or the first
        # to end would lift it for the others, and the last would restore what the first had set.
        if _limited == 0:
            _let_any_thread_control()
            _limit = _controller().limit(limits=1, user_api="blas")
        _limited += 1
    born = _generation
    try:
        yield
    finally:
        if born == _generation:  # else a forked child has lifted it already
            _leave()


def _leave() -> None:
    global _limited, _limit
    with _lock:
        _limited -= 1
        if _limited == 0 and _limit is not None:
            _lift()


def _lift() -> None:
    global _limit
    assert _limit is not None
    _let_any_thread_control()
    _limit.__exit__(None, None, None)
    _limit = None
    _let_any_thread_control()


def _let_any_thread_control() -> None:
    """From 3.8 on threadpoolctl ignores all threads but the first that set a limit; here the lock keeps the peace."""
    for library in _controller().lib_controllers:
        clear = getattr(library, "clear_controlling_thread", None)
        if clear is not None:
            clear(force=True)


def blas_threads_rest() -> bool:
    """Tell whether BLAS threads sleep after a product; else several of them cost the backbone more than they bring."""
    return _rest


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return min(len(os.sched_getaffinity(0)), _most)
    return min(os.cpu_count() or 1, _most)


def limit_cores(count: int) -> None:
    """Have this process use no more cores from now on: the others have processes of their own."""
    global _most
    _most = count


@lru_cache(maxsize=1)
def core_cache() -> int:
    """Return the bytes of the cache that a core has to itself (L2), 1 MB where the system does not tell."""
    try:
        for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
            if (index / "level").read_text().strip() == "2":
                size = (index / "size").read_text().strip()
                return int(size.rstrip("KM")) << (20 if size.endswith("M") else 10)
    except (OSError, ValueError):
        pass
    return 1 << 20


def in_worker() -> bool:
    """Tell whether the caller is to do all by itself: one of `workers`, or a thread inside `on_one_core`.

    A worker that waited for the others could wait for itself.
    """
    return getattr(_caller, "on_one_core", False) or threading.current_thread().name.startswith(_WORKER)


@contextmanager
def on_one_core() -> Iterator[None]:
    """Have the calling thread do all by itself inside a `with` block: the other cores have work of their own."""
    before = getattr(_caller, "on_one_core", False)
    _caller.on_one_core = True
    try:
        yield
    finally:
        _caller.on_one_core = before


def in_order(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    *,
    ahead: int | None = None,
    size: Callable[[Item], int] = lambda _: 0,
    limit: int = 0,
) -> Iterator[Outcome]:
    """Yield function(item) of each item in turn, worked out by `workers`, at most `ahead` of them before their turn.

    An error of the function, or of the items, comes out in its turn; whatever is still under way is waited for.

    Args:
        function: of an item.
        items: drawn as they are needed.
        ahead: how many are drawn before their turn; one more than `cores()` if not given.
        size: of an item, in any unit.
        limit: of the sizes of all items that are under way, which are those whose outcome was not yielded yet. An item
            that is larger is under way alone, and meanwhile no other is drawn.

    Raises:
        SettingError: the process was forked meanwhile, and it is the child that asks for more.
    """
    ahead = cores() + 1 if ahead is None else ahead
    pending: deque[tuple[Future[Outcome], int]] = deque()
    under_way = 0
    born = _generation

    def oldest() -> Outcome:
        nonlocal under_way
        future, its_size = pending.popleft()
        under_way -= its_size
        return future.result()

    try:
        for item in items:
            its_size = size(item)
            while pending and under_way + its_size > limit:
                yield oldest()
                check_not_forked(born)
            pending.append((workers().submit(function, item), its_size))
            under_way += its_size
            while len(pending) > ahead or under_way > limit:
                yield oldest()
                check_not_forked(born)
        while pending:
            yield oldest()
            check_not_forked(born)
    finally:
        if born == _generation:
            for future, _ in pending:
                future.cancel()
            wait(future for future, _ in pending)


def check_not_forked(born: int) -> None:
    """Raise SettingError if the process was forked since: what the parent's threads work on never ends in a child."""
    if born != _generation:
        raise SettingError("A stream of pictures cannot be continued in a forked child. Start a new stream there.")


def side_by_side(function: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Outcome]:
    """Return function(item) of each, by the workers; by the caller where there is one item or it is a worker."""
    return list((map if len(items) == 1 or in_worker() else workers().map)(function, items))


@lru_cache(maxsize=1)
def workers() -> ThreadPoolExecutor:
    """Return the process's own threads, one a core, for NumPy work, which lets go of the interpreter meanwhile."""
    return ThreadPoolExecutor(cores(), thread_name_prefix=_WORKER)


@lru_cache(maxsize=1)
def _controller() -> Any:
    import numpy  # noqa: F401  its BLAS must be loaded before it can be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


# ---------------------------------------------------------------------- forks


@runtime_checkable  # the checks of the test run need it
class Renewable(Protocol):
    """Something with threads, locks or compiled graphs."""

    def renew(self) -> None:
        """Let go of them, and begin anew at the next use; called in a forked child, which has one thread."""


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
    _renew_workers()
    for function in _functions:
        function()
    for owner in list(_renewable):
        owner.renew()


def _renew_workers() -> None:
    """Begin anew: the workers are gone, and so is whoever held the lock."""
    global _limited, _lock
    if workers.cache_info().currsize:
        abandon(workers())
        workers.cache_clear()
    _lock, _limited = threading.Lock(), 0
    if _limit is not None:
        _lift()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_close, after_in_parent=_open, after_in_child=_renew_all)
