"""outliers.explain: each picture by the others alone; the dirty ones come first, and a clean set stays whole."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from totalrecall.outliers.explain import (
    LeaveOneOutIndex,
    dirty_patches,
    explain,
    laid_out,
    level,
    limit_of,
    smoothed,
    standing_out,
)
from totalrecall.patchcore.coreset import greedy_k_center

GRID = (10, 10)
CELLS = np.indices(GRID).reshape(2, -1).T


@dataclass(frozen=True, eq=False)
class Picture:
    index: int
    patches: np.ndarray
    cells: np.ndarray


def good_picture(number, dimensions=6):
    """Return 100 patches that vary about ten prototypes, which all pictures share."""
    rng = np.random.default_rng([7, number])
    prototypes = np.random.default_rng(1).normal(0, 4, (10, dimensions))
    return (prototypes[CELLS[:, 0]] + rng.normal(0, 0.3, (100, dimensions))).astype(np.float32)


def spoiled(patches, where, shift=20.0):
    patches = patches.copy()
    patches[where] += np.float32(shift)
    return patches


def pictures_of(arrays):
    return [Picture(at, array, CELLS) for at, array in enumerate(arrays)]


def explained_of(pictures, ratio=0.2, **options):
    patches = np.concatenate([picture.patches for picture in pictures])
    owner = np.repeat(np.arange(len(pictures)), [len(picture.patches) for picture in pictures])
    chosen = greedy_k_center(patches, int(ratio * len(patches))).indices
    others = LeaveOneOutIndex(patches[chosen], owner[chosen])
    return explain(others, lambda numbers: (pictures[at] for at in numbers), len(pictures), GRID, **options)


# ---------------------------------------------------------------------- the nearest of others


@pytest.mark.parametrize("dimensions", [5, 128])
def test_the_nearest_of_another_picture_is_found_as_by_a_plain_loop(dimensions):
    rng = np.random.default_rng(0)
    vectors = rng.normal(3, 1, (300, dimensions)).astype(np.float32)
    owner = rng.integers(0, 7, 300)
    queries = rng.normal(3, 1, (40, dimensions)).astype(np.float32)
    distances, found = LeaveOneOutIndex(vectors, owner).nearest(queries, picture=3)
    apart = np.linalg.norm(queries[:, None].astype(np.float64) - vectors[None], axis=2)
    apart[:, owner == 3] = np.inf
    assert np.allclose(distances, apart.min(axis=1), atol=1e-4)
    assert (found == owner[apart.argmin(axis=1)]).all()
    assert 3 not in found


def test_more_vectors_than_one_product_takes_change_nothing():
    rng = np.random.default_rng(0)
    vectors, owner = rng.normal(size=(300, 6)).astype(np.float32), rng.integers(0, 7, 300)
    queries = rng.normal(size=(40, 6)).astype(np.float32)
    whole = LeaveOneOutIndex(vectors, owner).nearest(queries, picture=0)
    parts = LeaveOneOutIndex(vectors, owner).nearest(queries, picture=0, columns=32)
    assert np.allclose(whole[0], parts[0], atol=1e-6)
    assert (whole[1] == parts[1]).all()


def test_long_vectors_are_shortened_and_keep_their_distances_as_far_as_they_have_few_directions():
    rng = np.random.default_rng(0)
    low = rng.normal(size=(400, 20)) @ rng.normal(size=(20, 300))
    vectors = low.astype(np.float32)
    others = LeaveOneOutIndex(vectors[:350], np.arange(350))
    assert others.shortened(vectors).shape == (400, 128)
    exact = np.linalg.norm(vectors[350:, None] - vectors[None, :350], axis=2).min(axis=1)
    assert np.allclose(others.nearest(vectors[350:], picture=-1)[0], exact, rtol=1e-3)


def test_where_there_is_no_other_picture_the_distance_is_infinite():
    distances, found = LeaveOneOutIndex(np.ones((4, 3), np.float32), np.zeros(4, int)).nearest(
        np.ones((2, 3), np.float32), picture=0
    )
    assert np.isinf(distances).all()
    assert (found == -1).all()


def test_pictures_left_out_explain_nobody():
    rng = np.random.default_rng(0)
    vectors, owner = rng.normal(size=(100, 4)).astype(np.float32), np.repeat(np.arange(5), 20)
    left_out = np.array([False, True, False, True, False])
    _, found = LeaveOneOutIndex(vectors, owner).without(left_out).nearest(vectors, picture=0)
    assert set(found) == {2, 4}


# ---------------------------------------------------------------------- explaining


def test_a_spoiled_picture_comes_first_and_the_patches_say_where():
    arrays = [good_picture(i) for i in range(20)]
    where = (CELLS[:, 0] >= 7) & (CELLS[:, 1] >= 7)
    arrays[13] = spoiled(arrays[13], where)
    explained = explained_of(pictures_of(arrays))
    assert explained.levels.argmax() == 13
    assert explained.distances[13][where].min() > 5 * explained.distances[13][~where].max()
    assert all((by != at).all() for at, by in enumerate(explained.by))


def test_two_pictures_with_the_same_defect_do_not_explain_each_other():
    arrays = [good_picture(i) for i in range(20)]
    where = CELLS[:, 0] >= 7
    for at in (4, 13):
        arrays[at] = spoiled(arrays[at], where, 20.0)
    arrays[4][where] += np.float32(1.5)  # alike, and far enough that the first pass sees something
    explained = explained_of(pictures_of(arrays))
    assert set(np.argsort(-explained.levels)[:2]) == {4, 13}
    assert explained.levels[[4, 13]].min() > 10 * np.median(explained.levels)
    assert 4 not in explained.by[13]
    assert 13 not in explained.by[4]


def test_a_dirty_part_that_was_photographed_twice_is_found_out():
    arrays = [good_picture(i) for i in range(20)]
    where = CELLS[:, 0] >= 7
    arrays[4] = spoiled(arrays[4], where)
    arrays[13] = arrays[4] + np.random.default_rng(3).normal(0, 0.01, arrays[4].shape).astype(np.float32)
    explained = explained_of(pictures_of(arrays))  # the first pass sees nothing: each is the other's twin
    assert set(np.argsort(-explained.levels)[:2]) == {4, 13}
    assert explained.levels[[4, 13]].min() > 10 * np.median(explained.levels)


def test_a_crowd_of_copies_of_one_picture_has_no_infinite_levels():
    pictures = pictures_of([good_picture(0)] * 12)
    for of_the_vectors in ([0] * 100, np.repeat([0, 1], 50)):  # without its twin nobody explains either
        others = LeaveOneOutIndex(good_picture(0), np.array(of_the_vectors))
        explained = explain(others, lambda numbers: (pictures[at] for at in numbers), 12, GRID)
        assert np.isfinite(explained.levels).all()
        assert all(np.isfinite(one).all() for one in explained.distances)


def test_a_picture_is_judged_by_those_that_are_like_it():
    def wild(number):  # the other half of the pictures: brighter, and they vary more
        rng = np.random.default_rng([8, number])
        return good_picture(number) + 30 + rng.normal(0, 0.9, (100, 6)).astype(np.float32)

    arrays = [wild(i) if i % 2 else good_picture(i) for i in range(80)]
    arrays[10] = spoiled(arrays[10], (CELLS[:, 0] >= 7) & (CELLS[:, 1] >= 7), 0.8)  # less than the wild ones vary
    explained = explained_of(pictures_of(arrays))
    calm, rest = explained.relative[::2], explained.relative[1::2]
    assert explained.relative.argmax() == 10
    assert explained.levels.argmax() != 10
    assert 0.8 < np.median(calm) / np.median(rest) < 1.25
    assert standing_out(explained.relative)[0] == 10


def surfaced(part, light):
    """Return patches of a part whose surface is its own, in one light or another."""
    own = np.random.default_rng([9, part]).normal(0, 0.6, (100, 6))
    rng = np.random.default_rng([10, part, light])
    return (good_picture(part) + own + rng.normal(0, 0.3, (100, 6))).astype(np.float32)


def test_a_part_is_judged_by_all_of_its_photographs():
    arrays = [surfaced(part, light) for part in range(24) for light in range(3)]
    bad = [30, 31, 32]  # the photographs of part 10
    arrays = [spoiled(one, CELLS[:, 0] == 4, 1.5) if at in bad else one for at, one in enumerate(arrays)]
    explained = explained_of(pictures_of(arrays))
    assert [part.tolist() for part in explained.parts[30:33]] == [bad] * 3
    assert set(np.argsort(-explained.relative)[:3]) == set(bad)
    calm = [at for at in range(72) if at not in bad]
    own = explained.levels / np.median(explained.levels)
    ranked = explained.relative / np.median(explained.relative)
    assert ranked[calm].std() < own[calm].std()  # chance in one photograph is evened out by the others


def test_a_picture_that_stands_out_by_itself_is_not_lost_among_clean_photographs_of_its_part():
    arrays = [surfaced(part, light) for part in range(24) for light in range(3)]
    arrays[31] = spoiled(arrays[31], (CELLS[:, 0] >= 8) & (CELLS[:, 1] >= 8), 2.5)
    explained = explained_of(pictures_of(arrays))
    assert len(explained.parts[31]) == 3
    assert explained.relative.argmax() == 31
    assert standing_out(explained.relative)[0] == 31


def test_the_second_pass_equals_explaining_everything_anew_by_the_rest():
    arrays = [good_picture(i) for i in range(20)]
    arrays[4] = spoiled(arrays[4], CELLS[:, 0] == 2)
    pictures = pictures_of(arrays)
    explained = explained_of(pictures)
    patches = np.concatenate(arrays)
    chosen = greedy_k_center(patches, 400).indices
    others = LeaveOneOutIndex(patches[chosen], np.repeat(np.arange(20), 100)[chosen])
    alone = []
    for at, array in enumerate(arrays):
        nearest, by = others.nearest(array, at)
        highest = level(nearest, CELLS, GRID)
        for twin in np.flatnonzero(np.bincount(by) >= 3):  # each that explains three patches is left out in turn
            without = others.without(np.arange(20) == twin).nearest(array, at)[0]
            highest = max(highest, level(without, CELLS, GRID))
        alone.append(highest)
    suspects = np.isin(np.arange(20), np.argsort(-np.array(alone), kind="stable")[:2])
    rest = others.without(suspects)
    for at, array in enumerate(arrays):
        assert np.allclose(explained.distances[at], rest.nearest(array, at)[0], atol=1e-5)


def test_the_order_of_the_pictures_does_not_matter():
    arrays = [good_picture(i) for i in range(12)]
    arrays[5] = spoiled(arrays[5], CELLS[:, 0] == 2)
    patches = np.concatenate(arrays)
    vectors, owner = patches[::3], np.repeat(np.arange(12), 100)[::3]
    order = np.random.default_rng(0).permutation(12)
    place = np.argsort(order)
    one, two = (
        explain(LeaveOneOutIndex(vectors, names), lambda numbers, own=own: (own[at] for at in numbers), 12, GRID)
        for own, names in (
            (pictures_of(arrays), owner),
            (pictures_of([arrays[at] for at in order]), place[owner]),
        )
    )
    assert np.allclose(one.levels[order], two.levels, atol=1e-5)


def test_a_picture_without_patches_has_level_0_and_three_pictures_are_explained_once():
    empty = Picture(1, np.empty((0, 6), np.float32), np.empty((0, 2), np.int64))
    pictures = [Picture(0, good_picture(0), CELLS), empty, Picture(2, good_picture(2), CELLS)]
    explained = explained_of(pictures)
    assert explained.levels[1] == 0
    assert (explained.by[0] == 2).all()


def test_progress_rises_to_the_whole():
    told = []
    explained_of(pictures_of([good_picture(i) for i in range(20)]), progress=lambda *one: told.append(one))
    assert {total for _, total in told} == {40}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == 40


# ---------------------------------------------------------------------- levels and limits


def test_the_level_is_the_mean_of_the_worst_hundredth_after_smoothing():
    distances = np.zeros(400, np.float32)
    cells = np.indices((20, 20)).reshape(2, -1).T
    distances[[210, 211, 230, 231]] = 8  # four cells, 10 10 to 11 11
    values = np.sort(smoothed(distances, cells, (20, 20)))
    assert level(distances, cells, (20, 20)) == pytest.approx(values[-4:].mean())
    assert 1 < level(distances, cells, (20, 20)) < 8
    assert level(np.full(400, 3.0, np.float32), cells, (20, 20)) == pytest.approx(3.0, rel=1e-5)


def test_cells_that_were_not_seen_count_for_nothing():
    half = CELLS[:50]
    assert level(np.full(50, 2.0, np.float32), half, GRID) == pytest.approx(2.0, rel=1e-4)
    assert laid_out(np.full(50, 2.0, np.float32), half, GRID)[5:].max() == 0


def test_the_limit_of_a_lognormal_crowd_lies_three_and_a_half_deviations_up():
    levels = np.exp(np.random.default_rng(0).normal(1.0, 0.1, 20_000))
    assert math.log(limit_of(levels)) == pytest.approx(1.35, abs=0.02)


def test_the_limit_does_not_follow_the_dirty_tenth():
    levels = np.exp(np.random.default_rng(0).normal(0.0, 0.1, 1000))
    dirty = np.concatenate([levels, np.full(110, 50.0)])
    assert limit_of(dirty) < 1.15 * limit_of(levels)
    assert set(standing_out(dirty)) >= set(range(1000, 1110))


def test_of_few_pictures_none_stands_out_and_equal_ones_have_a_limit():
    assert limit_of(np.array([1.0, 1, 1, 1, 1, 1, 90])) == math.inf
    assert len(standing_out(np.array([1.0, 1, 1, 90]))) == 0
    assert 1 < limit_of(np.ones(20)) < 1.1
    assert limit_of(np.zeros(20)) == math.inf


# ---------------------------------------------------------------------- what is left out


def test_a_clean_set_stays_whole_and_of_a_dirty_picture_only_the_bad_patches_go():
    arrays = [good_picture(i) for i in range(30)]
    clean = pictures_of(arrays)
    assert dirty_patches(explained_of(clean), lambda numbers: (clean[at] for at in numbers), GRID) == {}
    where = (CELLS[:, 0] >= 7) & (CELLS[:, 1] >= 6)
    arrays[11] = spoiled(arrays[11], where)
    dirty = pictures_of(arrays)
    found = dirty_patches(explained_of(dirty), lambda numbers: (dirty[at] for at in numbers), GRID)
    assert list(found) == [11]
    bad = found[11][CELLS[:, 0], CELLS[:, 1]]
    assert bad[where].all()
    assert bad.mean() < 0.4  # and their neighbours, that the smoothing reaches
