"""search: brute force's answer, ties and all, with far less work."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.affinity import affinity
from tests.patch_vectors import brute_force, patch_like
from totalrecall.errors import SettingError
from totalrecall.patchcore.bank import Bank
from totalrecall.pictures.loading import LearntPicture
from totalrecall.search import exact as search
from totalrecall.search.exact import ExactSearch, SearchSizes
from totalrecall.search.levels import principal_basis
from totalrecall.system.threads import cores, on_one_core, workers

GRAPH, PRODUCTS = SearchSizes(worth_a_graph=0), SearchSizes(worth_a_graph=1 << 62)


@pytest.fixture(params=[GRAPH, PRODUCTS], ids=["by a graph", "by products"])
def way(request):
    """The two ways that bounds are come by."""
    return request.param


@pytest.mark.parametrize("k", [1, pytest.param(3, marks=pytest.mark.slow), 9])
@pytest.mark.parametrize("dimensions", [16, 256, pytest.param(600, marks=pytest.mark.slow)])
def test_neighbours_are_brute_forces(way, dimensions, k):
    bank, queries = patch_like(d=dimensions)
    distances, indices = ExactSearch(bank, sizes=way).nearest(queries, k)
    expected, order = brute_force(queries, bank, k)
    assert np.array_equal(indices, order)
    assert np.allclose(distances, expected, rtol=1e-6)


def test_data_without_structure_is_no_trouble(way):
    rng = np.random.default_rng(1)
    bank = rng.standard_normal((700, 256), dtype=np.float32)
    queries = rng.standard_normal((60, 256), dtype=np.float32)
    _, indices = ExactSearch(bank, sizes=way).nearest(queries)
    assert np.array_equal(indices, brute_force(queries, bank, 1)[1])


def test_any_orthonormal_basis_gives_the_same_answer(way):
    bank, queries = patch_like()
    worst = np.linalg.qr(np.random.default_rng(2).standard_normal((256, 128)))[0].astype(np.float32)
    assert np.array_equal(ExactSearch(bank, worst, sizes=way).nearest(queries, 2)[1], brute_force(queries, bank, 2)[1])


def test_a_member_of_the_bank_is_at_distance_zero(way):
    bank, _ = patch_like(offset=50.0)
    distances, indices = ExactSearch(bank, sizes=way).nearest(bank[:40])
    assert (distances == 0).all()
    assert indices[:, 0].tolist() == list(range(40))


def test_ties_go_to_the_lower_index(way):
    bank, queries = patch_like(m=300)
    doubled = np.concatenate([bank, bank, bank])
    _, indices = ExactSearch(doubled, sizes=way).nearest(queries, 3)
    first = brute_force(queries, bank, 1)[1]
    assert np.array_equal(indices, first + np.array([0, 300, 600]))


def test_all_vectors_equal_is_no_trouble(way):
    bank = np.ones((500, 256), np.float32)
    distances, indices = ExactSearch(bank, sizes=way).nearest(np.zeros((3, 256), np.float32))
    assert np.allclose(distances, 16)
    assert (indices == 0).all()


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(
    "levels", [(), (16,), pytest.param((8, 32), marks=pytest.mark.slow), pytest.param((200,), marks=pytest.mark.slow)]
)
def test_every_plan_gives_the_same_answer(way, levels, k):
    bank, queries = patch_like(m=900)
    engine = ExactSearch(bank, levels=levels, sizes=way)
    distances, indices = engine.nearest(queries, k)
    assert (engine._graphs.get(False) is None) == (way is PRODUCTS)
    expected, order = brute_force(queries, bank, k)
    assert np.array_equal(indices, order)
    assert np.allclose(distances, expected, rtol=1e-6)


@pytest.mark.parametrize("pays", [True, False])
def test_where_the_processor_has_matrix_units_all_dimensions_bound_and_the_answer_stays(pays, monkeypatch):
    monkeypatch.setattr(search, "all_dimensions_pay", lambda *_: pays)
    bank, queries = patch_like(m=900)
    engine = ExactSearch(bank, levels=(16,), sizes=GRAPH)
    assert np.array_equal(engine.nearest(queries)[1], brute_force(queries, bank, 1)[1])
    assert (engine.basis is None) == pays


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("levels", [(4,), (64,)])
@pytest.mark.parametrize("crowded", [0.0, 0.01])
def test_queries_with_many_candidates_are_compared_with_all(crowded, levels, k, monkeypatch):
    sizes = replace(GRAPH, crowded=crowded, worth_products=0, products=4000)  # three rows at a time
    bank, queries = patch_like(m=1300)
    bank = np.concatenate([bank, bank[:50]])  # ties as well
    engine, seen = ExactSearch(bank, levels=levels, sizes=sizes), []
    products = engine._products
    monkeypatch.setattr(engine, "_products", lambda some: seen.append(len(some)) or products(some))
    _, indices = engine.nearest(queries, k)
    assert np.array_equal(indices, brute_force(queries, bank, k)[1])
    assert seen or crowded > 0.0


@pytest.mark.parametrize(
    "m", [1, pytest.param(63, marks=pytest.mark.slow), 64, pytest.param(65, marks=pytest.mark.slow), 302]
)
def test_nearly_as_many_neighbours_as_vectors(way, m):
    bank, queries = patch_like(m=m, q=5)
    for levels in ((), (16,)):
        engine = ExactSearch(bank, levels=levels, sizes=way)
        for k in (1, m - m // 2, m):
            _, indices = engine.nearest(queries, k)
            assert np.array_equal(indices, brute_force(queries, bank, k)[1])


def test_near_ties_are_told_apart(way):
    bank, queries = patch_like(m=200, q=20)
    nearest = brute_force(queries, bank, 1)[1][:, 0]
    twins = bank[nearest] + (bank[nearest] - queries) * np.float32(1e-6)  # a millionth further away
    for both in (np.concatenate([twins, bank]), np.concatenate([bank, twins])):
        _, indices = ExactSearch(both, sizes=way).nearest(queries)
        assert np.array_equal(indices, brute_force(queries, both, 1)[1])


@pytest.mark.parametrize(
    "scale", [1e-12, pytest.param(1e-3, marks=pytest.mark.slow), pytest.param(1e6, marks=pytest.mark.slow), 1e15]
)
def test_large_and_small_numbers_are_no_trouble(way, scale):
    bank, queries = patch_like(m=700)
    bank, queries = bank * np.float32(scale), queries * np.float32(scale)
    for levels in ((), (64,)):
        _, indices = ExactSearch(bank, levels=levels, sizes=way).nearest(queries)
        assert np.array_equal(indices, brute_force(queries, bank, 1)[1])


def test_one_vector_far_from_all_others_is_no_trouble(way):
    bank, queries = patch_like(m=700)
    bank[13] *= np.float32(1e4)
    queries[7] *= np.float32(1e4)
    _, indices = ExactSearch(bank, levels=(64,), sizes=way).nearest(queries)
    assert np.array_equal(indices, brute_force(queries, bank, 1)[1])


def test_a_plan_of_two_levels_as_models_had_before_is_as_good(way):
    bank, queries = patch_like(m=900)
    kept = Bank(
        bank, np.zeros((900, 3), np.int32), [LearntPicture("a.png", "0", 1, 1)], principal_basis(bank, 64), (16, 64)
    )
    kept.checked()
    _, indices = ExactSearch(kept.vectors, kept.basis, kept.levels, sizes=way).nearest(queries)
    assert np.array_equal(indices, brute_force(queries, bank, 1)[1])


def test_pruning_leaves_few_vectors_to_measure(monkeypatch):
    bank, queries = patch_like(m=3000)
    engine, pairs = ExactSearch(bank, sizes=GRAPH), []
    squared = engine._squared
    monkeypatch.setattr(engine, "_squared", lambda *given: pairs.append(len(given[1])) or squared(*given))
    engine.nearest(queries)
    assert sum(pairs) < 20 * len(queries)


def test_a_graph_is_made_once_enough_was_asked_for():
    bank, queries = patch_like()
    engine = ExactSearch(bank, sizes=SearchSizes(worth_a_graph=3 * len(queries) * bank.size))
    for there in (False, False, True):
        _, indices = engine.nearest(queries)
        assert (engine._graphs.get(False) is not None) == there
        assert np.array_equal(indices, brute_force(queries, bank, 1)[1])


def test_who_leaves_the_other_cores_alone_gets_a_graph_for_one_core_and_the_same_numbers():
    bank, queries = patch_like()
    engine = ExactSearch(bank, sizes=GRAPH)
    alone = engine.nearest(queries, 3)
    assert list(engine._graphs) == [False]
    with on_one_core():
        beside = engine.nearest(queries, 3)
    assert list(engine._graphs) == [False, True]
    streams = [int(graph._model.get_property("NUM_STREAMS")) for graph in engine._graphs.values()]
    assert streams == [1, min(cores(), len(affinity()))]
    assert np.array_equal(beside[0], alone[0])
    assert np.array_equal(beside[1], alone[1])
    fresh = ExactSearch(bank, sizes=GRAPH)
    with on_one_core():
        assert np.array_equal(fresh.nearest(queries, 3)[0], alone[0])
    assert list(fresh._graphs) == [True]


@pytest.mark.parametrize("fault", ["does not agree", "cannot be made", "is not installed"])
def test_a_graph_that_is_of_no_use_is_not_used(fault, monkeypatch):
    def refuse(*_given, **_named):
        raise {"cannot be made": RuntimeError, "is not installed": ImportError}[fault](fault)

    if fault == "does not agree":
        monkeypatch.setattr(search.BoundsGraph, "agrees", lambda *_given: False)
    else:
        monkeypatch.setattr(search.BoundsGraph, "compile", refuse)
    bank, queries = patch_like()
    engine = ExactSearch(bank, sizes=GRAPH)
    for _ in range(2):
        assert np.array_equal(engine.nearest(queries)[1], brute_force(queries, bank, 1)[1])
    assert engine._graphs == {False: None}


def test_both_ways_give_the_same_to_the_last_digit():
    bank, queries = patch_like(m=1500, q=300)
    without = ExactSearch(bank, sizes=PRODUCTS).nearest(queries)
    with_graph = ExactSearch(bank, sizes=GRAPH).nearest(queries)
    assert np.array_equal(without[0], with_graph[0])
    assert np.array_equal(without[1], with_graph[1])


def test_a_worker_alone_and_all_cores_give_the_same(way):
    bank, queries = patch_like(m=3000, q=700)
    engine = ExactSearch(bank, sizes=replace(way, tile=200, shared=0))
    alone, together = workers().submit(engine.nearest, queries).result(), engine.nearest(queries)
    assert np.array_equal(alone[1], together[1])
    assert np.array_equal(alone[0], together[0])


def test_several_workers_at_once_do_not_disturb_each_other(way):
    bank, queries = patch_like(m=3000, q=700)
    engine = ExactSearch(bank, sizes=way)
    parts = [queries[at : at + 100] for at in range(0, 700, 100)]
    found = list(workers().map(engine.nearest, parts))
    expected = engine.nearest(queries)
    assert np.array_equal(np.concatenate([one[0] for one in found]), expected[0])
    assert np.array_equal(np.concatenate([one[1] for one in found]), expected[1])


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 4))
def test_permuting_the_bank_changes_no_distance(seed, k):
    bank, queries = patch_like(m=200, q=10, seed=seed)
    order = np.random.default_rng(seed).permutation(200)
    before, where = ExactSearch(bank).nearest(queries, k)
    after, there = ExactSearch(bank[order]).nearest(queries, k)
    assert np.array_equal(before, after)
    assert np.array_equal(where, order[there])


def test_many_queries_equal_one_at_a_time(way):
    bank, queries = patch_like()
    together = ExactSearch(bank, sizes=way).nearest(queries, 2)
    alone = ExactSearch(bank, sizes=replace(way, tile=1)).nearest(queries, 2)  # one query a tile
    assert np.array_equal(together[1], alone[1])
    assert np.array_equal(together[0], alone[0])


def test_gathering_in_small_steps_changes_nothing(way):
    bank, queries = patch_like()
    before = ExactSearch(bank, sizes=way).nearest(queries, 3)
    after = ExactSearch(bank, sizes=replace(way, gathered=300)).nearest(queries, 3)
    assert np.array_equal(before[1], after[1])


def test_no_queries_give_no_answers():
    bank, _ = patch_like()
    distances, indices = ExactSearch(bank).nearest(np.empty((0, 256), np.float32))
    assert distances.shape == indices.shape == (0, 1)


def test_a_bank_of_one(way):
    distances, indices = ExactSearch(np.ones((1, 4), np.float32), sizes=way).nearest(np.zeros((2, 4), np.float32))
    assert distances.ravel().tolist() == [2, 2]
    assert indices.ravel().tolist() == [0, 0]


@pytest.mark.parametrize("k", [0, 901])
def test_k_out_of_range_is_named(k):
    bank, queries = patch_like()
    with pytest.raises(SettingError, match=rf"k must be from 1 to the number of vectors \(900\), got {k}\."):
        ExactSearch(bank).nearest(queries, k)


def test_the_basis_is_orthonormal_and_near_the_principal_axes():
    bank, _ = patch_like(m=2000)
    basis = principal_basis(bank, 64)
    assert np.allclose(basis.T @ basis, np.eye(64), atol=1e-5)
    centred = bank - bank.mean(axis=0)
    best = np.linalg.svd(centred, full_matrices=False)[1][:64]
    kept = np.linalg.norm(centred @ basis) ** 2
    assert kept > 0.99 * (best**2).sum()


def test_on_real_patches_answers_are_brute_forces(way, real_patches):
    bank, queries = real_patches[::10], real_patches[5::97]
    for levels in ((), (64,)):
        _, indices = ExactSearch(np.ascontiguousarray(bank), levels=levels, sizes=way).nearest(
            np.ascontiguousarray(queries)
        )
        assert np.array_equal(indices, brute_force(queries, bank, 1)[1])


def test_queries_need_be_neither_contiguous_nor_writable(way):
    bank, queries = patch_like()
    wide = np.repeat(queries, 2, axis=0)
    wide.flags.writeable = False
    assert np.array_equal(ExactSearch(bank, sizes=way).nearest(wide[::2])[1], brute_force(queries, bank, 1)[1])
