"""search.bounds: every bound is under its distance, in either precision, and a graph that errs is found out."""

import numpy as np
import pytest

from tests import reference
from tests.patch_vectors import patch_like
from totalrecall.search import bounds
from totalrecall.search.bounds import BLOCK, BoundsGraph, all_dimensions_pay
from totalrecall.search.exact import ExactSearch
from totalrecall.search.levels import principal_basis


@pytest.fixture(params=["f32", "bf16"])
def precision(request):
    """The formats that a graph computes in; OpenVINO imitates bf16 where the processor has it not."""
    return request.param


def made(bank, levels, precision):
    """Return the search that knows mean, norms and slack, its basis, and a graph."""
    engine = ExactSearch(bank, levels=levels)
    basis = principal_basis(bank, levels[0]) if levels else None
    graph = BoundsGraph(bank, engine.mean, engine.norms, basis, engine.slack, precision=precision)
    return engine, basis, graph


@pytest.mark.parametrize("offset", [0.0, 20.0])
@pytest.mark.parametrize("levels", [(), (16,), pytest.param((64,), marks=pytest.mark.slow)])
@pytest.mark.parametrize("m", [900, pytest.param(64, marks=pytest.mark.slow), 7])
def test_the_bound_is_under_every_distance_and_says_something(precision, levels, m, offset):
    bank, queries = patch_like(m=m, offset=offset)
    engine, _, graph = made(bank, levels, precision)
    stored, lowest, norms = graph.of(queries)
    margin = engine.slack * (np.sqrt(norms) + engine.longest) ** 2
    squared = reference.distances(queries, bank) ** 2
    limit = (squared - norms[:, None] + 2 * margin[:, None]).astype(np.float32)
    bounds = graph.numbers(stored)[:, :m]
    assert (bounds <= graph.above(limit)).all()
    assert (bounds + norms[:, None]).mean() > (0.9 if not levels else 0.3) * squared.mean()
    assert np.allclose(norms, ((queries - engine.mean.astype(np.float64)) ** 2).sum(axis=1), rtol=1e-4)
    assert np.array_equal(graph.numbers(lowest), graph.numbers(stored).reshape(len(queries), -1, BLOCK).min(axis=2))


def test_places_without_a_vector_are_far_away(precision):
    bank, queries = patch_like(m=70)
    stored, lowest, _ = made(bank, (16,), precision)[2].of(queries)
    assert stored.shape == (len(queries), 2 * BLOCK)
    assert lowest.shape == (len(queries), 2)
    graph = made(bank, (16,), precision)[2]
    assert (graph.numbers(stored)[:, 70:] > 1e38).all()


def test_a_graph_agrees_with_what_it_was_made_of_and_with_nothing_else(precision):
    bank, _ = patch_like(m=700)
    other, _ = patch_like(m=700, seed=1)
    engine, _, graph = made(bank, (64,), precision)
    assert graph.agrees(bank, engine.mean, engine.norms)
    stranger = ExactSearch(other, levels=(64,))
    assert not graph.agrees(other, stranger.mean, stranger.norms)


@pytest.mark.parametrize("error", [0.01, -0.05, np.nan])
def test_a_graph_that_rounds_too_much_is_found_out(precision, error, monkeypatch):
    bank, _ = patch_like(m=700)
    engine, _, graph = made(bank, (64,), precision)
    numbers = graph.numbers
    monkeypatch.setattr(graph, "numbers", lambda stored: numbers(stored) + np.float32(error * engine.longest**2))
    assert not graph.agrees(bank, engine.mean, engine.norms)


def test_a_graph_that_cuts_digits_off_instead_of_rounding_is_found_out(monkeypatch):
    bank, _ = patch_like(m=700)
    engine, _, graph = made(bank, (64,), "bf16")
    assert graph.agrees(bank, engine.mean, engine.norms)
    numbers = graph.numbers
    # the product of a query cut to 8 digits is short by up to 1 in 128 of its size
    monkeypatch.setattr(graph, "numbers", lambda stored: numbers(stored) + np.abs(numbers(stored)) / 128)
    assert not graph.agrees(bank, engine.mean, engine.norms)


def test_rounding_is_to_nearest_ties_to_even():
    graph = made(patch_like(m=64)[0], (), "bf16")[2]
    u = 2.0**-8
    given = np.array([1, 1 + 0.9 * u, 1 + u, 1 + 1.1 * u, 1 + 3 * u, -1 - u, 0, 3e38], np.float32)
    near = graph._numbers_near(given)
    assert near[:7].tolist() == [1, 1, 1, 1 + 2 * u, 1 + 4 * u, -1, 0]
    assert abs(near[7] / 3e38 - 1) <= u


def test_calls_from_one_thread_reuse_what_they_gave_before(precision):
    bank, queries = patch_like(m=200)
    graph = made(bank, (16,), precision)[2]
    first = graph.of(queries)[0]
    kept = first.copy()
    first[:] = graph.infinity
    assert not np.isfinite(graph.numbers(first)).any()
    assert np.array_equal(graph.of(queries)[0], kept)


def test_all_dimensions_pay_for_few_vectors_and_matrix_units_alone(monkeypatch):
    monkeypatch.setattr(bounds, "matrix_units", lambda: True)
    assert all_dimensions_pay((2140, 1536), 128)
    assert all_dimensions_pay((2140, 384), 96)
    assert not all_dimensions_pay((21_401, 1536), 256)
    monkeypatch.setattr(bounds, "matrix_units", lambda: False)
    assert not all_dimensions_pay((2140, 1536), 128)


@pytest.mark.parametrize("levels", [(), (16,), (64,)])
def test_rounded_numbers_come_in_steps_that_matrix_units_take_whole(levels):
    bank, _ = patch_like(m=70)
    assert made(bank, levels, "bf16")[2]._columns_kept.shape[1] % 32 == 0
