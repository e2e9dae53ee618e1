"""search: brute force's answer, ties and all, with far less work."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import totalrecall.search as search
from tests import reference
from totalrecall.errors import SettingError
from totalrecall.search import ExactSearch, principal_basis


def patch_like(m=900, q=80, d=256, seed=0, offset=0.0):
    """A bank and queries with a falling spectrum, as features have."""
    rng = np.random.default_rng(seed)
    scale = 1 / np.arange(1, d + 1) ** 0.6
    bank = (rng.standard_normal((m, d)) * scale + offset).astype(np.float32)
    queries = bank[rng.integers(m, size=q)] + (rng.standard_normal((q, d)) * scale * 0.5).astype(np.float32)
    return bank, queries


def brute_force(queries, bank, k):
    every = reference.distances(queries, bank.astype(np.float64))
    order = np.argsort(every, axis=1, kind="stable")[:, :k]  # stable: ties to the lower index
    return np.take_along_axis(every, order, axis=1), order


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("dimensions", [16, 256, 600])
def test_neighbours_are_brute_forces(dimensions, k):
    bank, queries = patch_like(d=dimensions)
    distances, indices = ExactSearch(bank).nearest(queries, k)
    expected, order = brute_force(queries, bank, k)
    assert np.array_equal(indices, order)
    assert np.allclose(distances, expected, rtol=1e-6)


def test_data_without_structure_falls_back_to_whole_products():
    rng = np.random.default_rng(1)
    bank = rng.standard_normal((700, 256), dtype=np.float32)
    queries = rng.standard_normal((60, 256), dtype=np.float32)
    _, indices = ExactSearch(bank).nearest(queries)
    assert np.array_equal(indices, brute_force(queries, bank, 1)[1])


def test_any_orthonormal_basis_gives_the_same_answer():
    bank, queries = patch_like()
    worst = np.linalg.qr(np.random.default_rng(2).standard_normal((256, 128)))[0].astype(np.float32)
    assert np.array_equal(ExactSearch(bank, worst).nearest(queries, 2)[1], brute_force(queries, bank, 2)[1])


def test_a_member_of_the_bank_is_at_distance_zero():
    bank, _ = patch_like(offset=50.0)
    distances, indices = ExactSearch(bank).nearest(bank[:40])
    assert (distances == 0).all()
    assert indices[:, 0].tolist() == list(range(40))


def test_ties_go_to_the_lower_index():
    bank, queries = patch_like(m=300)
    doubled = np.concatenate([bank, bank, bank])
    _, indices = ExactSearch(doubled).nearest(queries, 3)
    first = brute_force(queries, bank, 1)[1]
    assert np.array_equal(indices, first + np.array([0, 300, 600]))


def test_all_vectors_equal_is_no_trouble():
    bank = np.ones((500, 256), np.float32)
    distances, indices = ExactSearch(bank).nearest(np.zeros((3, 256), np.float32))
    assert np.allclose(distances, 16)
    assert (indices == 0).all()


def test_the_bound_is_under_every_distance():
    bank, queries = patch_like()
    engine = ExactSearch(bank)
    centred = queries - engine.mean
    norms = np.einsum("qd,qd->q", centred, centred)
    margin = engine.slack * (np.sqrt(norms) + engine.longest) ** 2
    for left, blocks in zip(engine._reduce(centred, norms, engine.levels), engine._levels, strict=True):
        bounds = norms[:, None] + left @ np.concatenate(blocks, axis=1)
        assert (bounds <= reference.distances(queries, bank) ** 2 + 2 * margin[:, None]).all()
        assert bounds.mean() > 0.3 * (reference.distances(queries, bank) ** 2).mean()  # and says something


LEVELS = [(), (16,), (64,), (8, 32), (64, 192), (200, 256)]


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("levels", LEVELS)
def test_every_plan_gives_the_same_answer(levels, k, monkeypatch):
    monkeypatch.setattr(search, "_BLOCK", 256)  # several blocks, the last one smaller
    bank, queries = patch_like(m=900)
    distances, indices = ExactSearch(bank, levels=levels).nearest(queries, k)
    expected, order = brute_force(queries, bank, k)
    assert np.array_equal(indices, order)
    assert np.allclose(distances, expected, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("levels", [(16,), (4, 16), (64, 192)])
@pytest.mark.parametrize("crowded", [0.0, 0.003, 0.01])
def test_queries_with_many_candidates_go_on_to_the_next_level(crowded, levels, k, monkeypatch):
    monkeypatch.setattr(search, "_CROWDED", crowded)
    monkeypatch.setattr(search, "_BLOCK", 500)
    bank, queries = patch_like(m=1300)
    bank = np.concatenate([bank, bank[:50]])  # ties as well
    _, indices = ExactSearch(bank, levels=levels).nearest(queries, k)
    assert np.array_equal(indices, brute_force(queries, bank, k)[1])


def test_fewer_vectors_in_the_last_block_than_neighbours(monkeypatch):
    monkeypatch.setattr(search, "_BLOCK", 100)
    bank, queries = patch_like(m=302)
    for levels in LEVELS:
        _, indices = ExactSearch(bank, levels=levels).nearest(queries, 7)
        assert np.array_equal(indices, brute_force(queries, bank, 7)[1])


def test_pruning_leaves_few_vectors_to_measure():
    bank, queries = patch_like(m=3000)
    engine = ExactSearch(bank)
    _, indices = engine.nearest(queries)
    assert np.array_equal(indices, brute_force(queries, bank, 1)[1])
    assert "_whole" not in vars(engine)  # never made, since never needed


def test_one_thread_and_many_give_the_same():
    bank, queries = patch_like(m=3000, q=700)
    engine = ExactSearch(bank)
    alone, together = engine.nearest(queries, threads=1), engine.nearest(queries, threads=2)
    assert np.array_equal(alone[1], together[1])
    assert np.array_equal(alone[0], together[0])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 4))
def test_permuting_the_bank_changes_no_distance(seed, k):
    bank, queries = patch_like(m=200, q=10, seed=seed)
    order = np.random.default_rng(seed).permutation(200)
    before, where = ExactSearch(bank).nearest(queries, k)
    after, there = ExactSearch(bank[order]).nearest(queries, k)
    assert np.array_equal(before, after)
    assert np.array_equal(where, order[there])


def test_many_queries_equal_one_at_a_time(monkeypatch):
    bank, queries = patch_like()
    engine = ExactSearch(bank)
    together = engine.nearest(queries, 2)
    monkeypatch.setattr(search, "_TILE", 1)  # one query a tile
    alone = engine.nearest(queries, 2)
    assert np.array_equal(together[1], alone[1])
    assert np.array_equal(together[0], alone[0])


def test_gathering_in_small_steps_changes_nothing(monkeypatch):
    bank, queries = patch_like()
    before = ExactSearch(bank).nearest(queries, 3)
    monkeypatch.setattr(search, "_GATHER_FLOATS", 300)
    after = ExactSearch(bank).nearest(queries, 3)
    assert np.array_equal(before[1], after[1])


def test_no_queries_give_no_answers():
    bank, _ = patch_like()
    distances, indices = ExactSearch(bank).nearest(np.empty((0, 256), np.float32))
    assert distances.shape == indices.shape == (0, 1)


def test_a_bank_of_one():
    distances, indices = ExactSearch(np.ones((1, 4), np.float32)).nearest(np.zeros((2, 4), np.float32))
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


def test_on_real_patches_answers_are_brute_forces(real_patches):
    bank, queries = real_patches[::10], real_patches[5::97]
    _, indices = ExactSearch(np.ascontiguousarray(bank)).nearest(np.ascontiguousarray(queries))
    assert np.array_equal(indices, brute_force(queries, bank, 1)[1])
