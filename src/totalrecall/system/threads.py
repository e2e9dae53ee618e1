"""The cores of this process, and keeping linear algebra to one of them where more only wait for each other.

Many small products, a QR decomposition, or any product beside a busy engine: there each BLAS call ends in its threads
spinning until the slowest has had its turn on a core. Measured on two cores with another program running: a basis of
128 of 384 dimensions takes 6.5 s with two threads and 0.07 s with one. Whole pieces of work side by side, each with one
thread, keep the cores busy instead.

After its last product OpenBLAS lets its threads spin for another 2**26 cycles, 20 ms in which the backbone's threads
would have the cores. `OPENBLAS_THREAD_TIMEOUT` makes that 0.3 ms; it is read when NumPy is imported, so it is set here
and the package imports this module first. Where NumPy was there before, `blas_threads_rest` says so.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from totalrecall.errors import SettingError
from totalrecall.system.forks import abandon, in_child

__all__ = [
    "blas_threads_rest",
    "check_not_forked",
    "core_cache",
    "cores",
    "in_order",
    "in_worker",
    "one_blas_thread",
    "side_by_side",
    "workers",
]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_WORKER = "totalrecall-worker"
_TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"

_rest = _TIMEOUT in os.environ or "numpy" not in sys.modules
os.environ.setdefault(_TIMEOUT, "20")  # 2**20 cycles

_lock = threading.Lock()
_forks = 0  # between this process and the one that imported the package
_inside = 0  # how many `with` blocks, of all threads, are open
_limit: AbstractContextManager[Any] | None = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit NumPy's BLAS to one thread inside a `with` block; blocks may nest and overlap in several threads."""
    global _inside, _limit
    with _lock:
        # subtle: the limit is the whole process's. Blocks that overlap must set it once and lift it once, or the first
        # to end would lift it for the others, and the last would restore what the first had set.
        if _inside == 0:
            _let_any_thread_control()
            _limit = _controller().limit(limits=1, user_api="blas")
        _inside += 1
    born = _forks
    try:
        yield
    finally:
        if born == _forks:  # else a forked child has lifted it already
            _leave()


def _leave() -> None:
    global _inside, _limit
    with _lock:
        _inside -= 1
        if _inside == 0 and _limit is not None:
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
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    """Tell whether the caller is one of `workers`: one that waited for the others could wait for itself."""
    return threading.current_thread().name.startswith(_WORKER)


def in_order(
    function: Callable[[Item], Outcome], items: Iterable[Item], *, ahead: int | None = None
) -> Iterator[Outcome]:
    """Yield function(item) of each item in turn, worked out by `workers`, at most `ahead` of them before their turn.

    An error of the function, or of the items, comes out in its turn; whatever is still under way is waited for.

    Raises:
        SettingError: the process was forked meanwhile, and it is the child that asks for more.
    """
    ahead = cores() + 1 if ahead is None else ahead
    pending: deque[Future[Outcome]] = deque()
    born = _forks

    try:
        for item in items:
            pending.append(workers().submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
                check_not_forked(born)
        while pending:
            yield pending.popleft().result()
            check_not_forked(born)
    finally:
        if born == _forks:
            for future in pending:
                future.cancel()
            wait(pending)


def check_not_forked(born: int) -> None:
    """Raise SettingError if the process was forked since: what the parent's threads work on never ends in a child."""
    if born != _forks:
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


def _renew() -> None:
    """Begin anew in a forked child: the workers are gone, and so is whoever held the lock."""
    global _forks, _inside, _lock
    _forks += 1
    if workers.cache_info().currsize:
        abandon(workers())
        workers.cache_clear()
    _lock, _inside = threading.Lock(), 0
    if _limit is not None:
        _lift()


in_child(_renew)
