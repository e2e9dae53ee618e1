"""threads: the limit on linear algebra holds inside, is lifted after, and may overlap."""

import threading
import time

import numpy  # noqa: F401  its BLAS is what is limited
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from totalrecall.system.threads import core_cache, cores, in_order, in_worker, one_blas_thread, workers


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        yield


def blas_threads():
    """Threads of NumPy's own BLAS; other tests may have loaded SciPy's."""
    of_numpy = [pool for pool in threadpool_info() if pool["user_api"] == "blas" and "numpy" in pool["filepath"]]
    return {pool["num_threads"] for pool in of_numpy}


def test_inside_there_is_one_thread_and_outside_what_was():
    assert blas_threads() == {2}
    with one_blas_thread():
        assert blas_threads() == {1}
    assert blas_threads() == {2}


def test_an_error_inside_lifts_the_limit():
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert blas_threads() == {2}


def test_blocks_may_nest():
    with one_blas_thread():
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}


def test_the_first_of_two_overlapping_blocks_to_end_lifts_nothing():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            entered.set()
            leave.wait(10)

    with one_blas_thread():
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
    assert blas_threads() == {1}
    leave.set()
    thread.join()
    assert blas_threads() == {2}


def test_there_is_a_worker_for_each_core():
    assert cores() >= 1
    names = set(workers().map(lambda _: threading.current_thread().name, range(20)))
    assert 1 <= len(names) <= cores()


def test_results_come_in_the_order_of_the_items():
    def slow_at_first(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number**2

    assert list(in_order(slow_at_first, range(20))) == [number**2 for number in range(20)]


def test_only_a_few_items_are_drawn_ahead():
    drawn = []

    def endless():
        while True:
            drawn.append(len(drawn))
            yield drawn[-1]

    results = in_order(lambda number: number, endless(), ahead=3)
    assert next(results) == 0
    assert len(drawn) <= 5
    results.close()


@pytest.mark.parametrize(("limit", "most"), [(1, 4), (7, 7), (10, 10), (10**6, 16)])
def test_items_under_way_are_no_larger_than_the_limit_together_or_one_alone(limit, most):
    sizes = [1, 4, 2, 2, 1, 4, 4, 1, 1, 4, 2, 4]
    lock, now, together, drawn, done = threading.Lock(), 0, [], [], []

    def work(size):
        nonlocal now
        with lock:
            now += size
            together.append(now)
        time.sleep(0.002)
        with lock:
            now -= size
        return size

    def drawing():
        for size in sizes:
            drawn.append(size)
            yield size

    for size in in_order(work, drawing(), ahead=3, size=lambda size: size, limit=limit):
        done.append(size)
        assert sum(drawn) - sum(done[:-1]) <= max(limit, 4) + 4  # and one that waits to be let in
    assert done == sizes
    assert max(together) <= most


def test_an_item_larger_than_the_limit_is_yielded_before_another_is_drawn():
    drawn = []
    results = in_order(lambda item: item, (drawn.append(at) or at for at in range(9)), size=lambda _: 2, limit=1)
    assert [next(results), next(results)] == [0, 1]
    assert drawn == [0, 1]
    results.close()


def test_an_error_comes_out_in_its_turn_and_the_rest_is_waited_for():
    running = []

    def work(number):
        if number == 2:
            raise KeyError(number)
        running.append(number)
        time.sleep(0.01)
        running.remove(number)
        return number

    results = in_order(work, range(9), ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError):
        next(results)
    assert not running


def test_a_worker_knows_that_it_is_one():
    assert not in_worker()
    assert list(in_order(lambda _: in_worker(), range(2))) == [True, True]


def test_a_cores_own_cache_has_a_size():
    assert 1 << 17 <= core_cache() <= 1 << 26
