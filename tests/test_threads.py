"""threads: the limit holds inside, and only there."""

import threading

import numpy  # noqa: F401  loads the BLAS
from threadpoolctl import threadpool_info

from totalrecall.threads import one_blas_thread


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_inside_there_is_one_thread_and_outside_what_was():
    before = blas_threads()
    assert before
    with one_blas_thread():
        assert set(blas_threads()) == {1}
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_an_error_inside_restores_too():
    before = blas_threads()
    try:
        with one_blas_thread():
            raise KeyError
    except KeyError:
        pass
    assert blas_threads() == before


def test_overlapping_blocks_of_two_threads_leave_nothing_behind():
    before, entered, leave, seen = blas_threads(), threading.Event(), threading.Event(), []

    def other():
        with one_blas_thread():
            seen.append(set(blas_threads()))
            entered.set()
            leave.wait(10)
        seen.append(blas_threads())

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with one_blas_thread():
        assert set(blas_threads()) == {1}
        leave.set()
        thread.join()
    assert seen == [{1}, before]
    assert blas_threads() == before
