"""same_part: photographs of one part are told by its surface, whatever the light; those that lie alike are not one."""

import numpy as np
import pytest

from totalrecall.outliers.same_part import SKETCH, part_numbers, same_part, surface

GRID = (16, 16)
CELLS = np.indices(GRID).reshape(2, -1).T
DIMENSIONS = 96


def shape_of_all():
    return np.random.default_rng(1).normal(0, 2, (len(CELLS), DIMENSIONS))


def photograph(part, light, noise=0.5):
    """Return patches: the shape of all parts, the part's own surface, in a light that moves and stretches them all."""
    own = np.random.default_rng([2, part]).normal(0, 1, (len(CELLS), DIMENSIONS))
    rng = np.random.default_rng([3, part, light])
    seen = shape_of_all() + own + noise * rng.normal(size=own.shape)
    bright = np.random.default_rng([4, light])
    return (seen * bright.uniform(0.5, 2) + bright.normal(0, 20)).astype(np.float32)


def surfaces_of(photographs):
    return np.stack([surface(one, CELLS, GRID) for one in photographs])


def groups(linked):
    return [tuple(one.tolist()) for one in linked]


def test_photographs_of_a_part_in_three_lights_find_each_other_and_nobody_else():
    surfaces = surfaces_of(photograph(part, light) for part in range(12) for light in range(3))
    assert groups(same_part(surfaces)) == [
        (3 * part, 3 * part + 1, 3 * part + 2) for part in range(12) for _ in range(3)
    ]
    assert part_numbers(same_part(surfaces)).tolist() == np.repeat(np.arange(12), 3).tolist()


def test_parts_that_are_all_different_are_each_their_own():
    surfaces = surfaces_of(photograph(part, 0) for part in range(30))
    assert groups(same_part(surfaces)) == [(at,) for at in range(30)]
    assert part_numbers(same_part(surfaces)).tolist() == list(range(30))


def test_parts_that_are_alike_where_they_lie_alike_are_not_called_the_same():
    ways = np.random.default_rng(5).normal(0, 2, (2, len(CELLS), DIMENSIONS))  # to the right, say, and down
    moved = np.random.default_rng(9).normal(size=(30, 2))
    shifts = np.einsum("nw,wcd->ncd", moved, ways)
    surfaces = surfaces_of((photograph(part, 0) + shifts[part]).astype(np.float32) for part in range(30))
    units = surfaces - surfaces.mean(axis=0)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    assert np.triu(units @ units.T, 1).max() > 0.7  # a fixed limit would call them the same
    assert groups(same_part(surfaces)) == [(at,) for at in range(30)]


@pytest.mark.parametrize(("count", "kinds"), [(30, 3), (120, 5)])
def test_a_few_kinds_of_parts_are_not_a_few_parts(count, kinds):
    ways = np.random.default_rng(5).normal(0, 5, (kinds, len(CELLS), DIMENSIONS))
    surfaces = surfaces_of((photograph(part, 0) + ways[part % kinds]).astype(np.float32) for part in range(count))
    assert groups(same_part(surfaces)) == [(at,) for at in range(count)]


def test_photographs_linked_by_a_third_show_one_part():
    line = np.random.default_rng(6).normal(size=(20, SKETCH)).astype(np.float32)
    line[1] = line[0] + line[2]  # like both, and they are not like each other
    linked = groups(same_part(line))
    assert linked[0] == (0, 1)
    assert linked[1] == (0, 1, 2)
    assert part_numbers(same_part(line))[:4].tolist() == [0, 0, 0, 1]


def test_the_answer_does_not_depend_on_how_many_are_compared_at_a_time():
    surfaces = surfaces_of(photograph(part, light) for part in range(9) for light in range(2))
    whole = groups(same_part(surfaces))
    assert groups(same_part(surfaces, rows=4)) == whole


@pytest.mark.parametrize("count", [0, 1, 7])
def test_of_few_pictures_nothing_is_usual(count):
    surfaces = np.ones((count, SKETCH), np.float32)
    assert groups(same_part(surfaces)) == [(at,) for at in range(count)]
    assert part_numbers(same_part(surfaces)).tolist() == list(range(count))


def test_a_sketch_keeps_cosines():
    rng = np.random.default_rng(7)
    one, other = (rng.normal(size=(len(CELLS), 64)).astype(np.float32) for _ in range(2))
    mixed = (0.8 * one + 0.6 * other).astype(np.float32)
    a, b = surface(one, CELLS, GRID), surface(mixed, CELLS, GRID)
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(0.8, abs=0.1)
    assert a.shape == (SKETCH,)
    assert a.dtype == np.float32


@pytest.mark.parametrize(("rows", "dimensions"), [(5, 8), (16, 384), (48, 40)])
def test_any_grid_and_length_will_do_and_only_some_of_the_cells(rows, dimensions):
    cells = np.indices((rows, rows)).reshape(2, -1).T[::2]
    patches = np.random.default_rng(8).normal(size=(len(cells), dimensions)).astype(np.float32)
    found = surface(patches, cells, (rows, rows))
    assert np.isfinite(found).all()
    assert found.any()
    moved = surface(patches * 3 + 5, cells, (rows, rows))  # light and contrast
    np.testing.assert_allclose(moved, found, atol=1e-2 * np.abs(found).max())


def test_a_picture_that_is_the_same_all_over_and_one_without_patches_have_no_surface():
    for dimensions in (32, 384, 1536):
        same = np.tile(np.random.default_rng(dimensions).normal(size=dimensions).astype(np.float32), (len(CELLS), 1))
        assert not surface(same, CELLS, GRID).any()
        same[0] *= 1.01  # little, and it counts
        assert surface(same, CELLS, GRID).any()
    assert not surface(np.empty((0, 32), np.float32), CELLS[:0], GRID).any()
    assert groups(same_part(np.zeros((9, SKETCH), np.float32))) == [(at,) for at in range(9)]
