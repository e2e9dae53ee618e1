"""threads: the limit holds inside, and only there."""

import numpy  # noqa: F401  loads the BLAS
import pytest
from threadpoolctl import threadpool_info

from totalrecall.threads import one_blas_thread


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_inside_there_is_one_thread_and_outside_what_was():
    before = blas_threads()
    assert before
    with one_blas_thread():
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_an_error_inside_restores_too():
    before = blas_threads()
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert blas_threads() == before
