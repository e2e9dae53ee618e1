"""evidence: what is kept of the good pictures is enough to say what their scores would be, or an upper bound of it."""

import numpy as np
import pytest

from totalrecall.calibration import Calibration
from totalrecall.patchcore.calibration_patches import (
    CalibrationPatches,
    PatchKeeper,
    Recalibration,
    highest_pictures,
    kept_pictures,
)
from totalrecall.pictures.loading import LearntPicture

SIDE, DIMENSIONS = 30, 4  # 900 patches, of which a score averages 9, and 36 are kept


def cells(side=SIDE):
    return np.indices((side, side)).reshape(2, -1).T


PICTURES = [LearntPicture(f"{at}.png", "", SIDE, SIDE) for at in range(100)]


def top(grid):
    """The score that `top1pct` is, of a whole grid."""
    values = np.sort(grid.ravel())
    return float(values[-max(len(values) // 100, 1) :].mean())


def peak(grid):
    return float(grid.max())


class Highest:
    """Judges by the grid alone."""

    def score_of_grid(self, grid, picture):  # noqa: ARG002
        return top(grid)

    def level_of_grid(self, grid, picture):  # noqa: ARG002
        return peak(grid)


def to_nearest(patches, bank):
    return np.linalg.norm(patches[:, None] - bank, axis=2).min(axis=1).astype(np.float32)


def some(count=60, seed=0, rate=0.1):
    """Pictures of random patches with the distances to a bank, and the keeper and calibration of them."""
    rng = np.random.default_rng(seed)
    bank = rng.standard_normal((30, DIMENSIONS), dtype=np.float32)
    pictures = rng.standard_normal((count, SIDE**2, DIMENSIONS), dtype=np.float32)
    keeper = PatchKeeper()
    grids = [to_nearest(patches, bank).reshape(SIDE, SIDE) for patches in pictures]
    scores, peaks = np.array([top(grid) for grid in grids]), np.array([peak(grid) for grid in grids])
    calibration = Calibration(scores, peaks, rate, 5, np.arange(count, dtype=np.int32))
    for at in highest_pictures(calibration, kept_pictures(count, rate)).tolist():
        keeper.add(at, pictures[at], cells(), grids[at], scores[at], peaks[at], weight=grids[at].ravel())
    return bank, pictures, keeper.patches(), calibration


@pytest.mark.parametrize(
    ("count", "rate", "kept"),
    [(10, 0.01, 10), (100, 0.01, 48), (761, 0.01, 76), (761, 0.1, 229), (20_000, 0.01, 601), (20_000, 0.001, 200)],
)
def test_of_how_many_pictures_evidence_is_kept(count, rate, kept):
    assert kept_pictures(count, rate) == kept


def test_the_highest_by_score_and_by_peak_are_kept_whatever_their_order():
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(500)
        calibration = Calibration(order.astype(float), ((order + 250) % 500).astype(float), 0.01)
        chosen = highest_pictures(calibration, 100)
        kept = set(order[chosen].tolist())
        assert {*range(430, 500), *range(230, 250)} <= kept
        assert len(kept) == 100
        assert (np.diff(chosen) > 0).all()


def test_of_the_score_extent_a_tenth_of_the_patches_is_kept():
    grid = np.random.default_rng(0).random((SIDE, SIDE)).astype(np.float32)
    for scoring, count in (("map1pct", 36), ("extent", 90)):
        keeper = PatchKeeper(scoring)
        keeper.add(0, np.ones((900, 2), np.float32), cells(), grid, 1.0, 1.0, weight=grid.ravel())
        assert keeper.patches().cells.shape == (1, count)


def test_a_picture_with_fewer_patches_is_filled_up():
    keeper = PatchKeeper()
    for at, count in enumerate((3, 9)):
        grid = np.zeros((3, 3), np.float32)
        grid.flat[:count] = np.arange(count) + 1
        keeper.add(at, np.ones((count, 2), np.float32), cells(3)[:count], grid, 1.0, 1.0, weight=grid.ravel()[:count])
    kept = keeper.patches()
    assert kept.cells.tolist() == [[2, 1, 0, -1, -1, -1, -1, -1], [8, 7, 6, 5, 4, 3, 2, 1]]
    assert kept.grid(0, np.zeros(8, np.float32)).tolist() == np.zeros((3, 3)).tolist()
    assert kept.grid(1, np.zeros(8, np.float32)).ravel().tolist() == [1, *[0] * 8]


def test_what_float16_cannot_hold_is_not_kept():
    keeper = PatchKeeper()
    patches = np.ones((9, 2), np.float32)
    patches[4] = 1e6
    keeper.add(0, patches, cells(3), np.ones((3, 3), np.float32), 1.0, 1.0, weight=np.ones(9))
    kept = keeper.patches()
    assert np.isfinite(kept.vectors).all()
    assert 4 not in kept.cells


def test_of_nothing_there_is_no_evidence():
    assert PatchKeeper().patches() is None


def test_scores_follow_the_bank_exactly_where_all_that_counts_was_kept():
    bank, pictures, evidence, calibration = some()
    worst = pictures[evidence.pictures[3]][evidence.cells[3][:2]]
    recalibration = Recalibration(calibration, evidence, judge=Highest(), pictures=PICTURES)
    recalibration.add(worst[:1])
    recalibration.add(worst[1:])
    true = [to_nearest(patches, np.concatenate([bank, worst])).reshape(SIDE, SIDE) for patches in pictures]
    kept = evidence.pictures
    assert recalibration.scores[kept] == pytest.approx([top(true[at]) for at in kept], rel=1e-3)
    assert (recalibration.scores < calibration.scores - 1e-3).sum() >= 1
    assert recalibration.calibration().peaks[kept] == pytest.approx([peak(true[at]) for at in kept], rel=1e-3)
    assert recalibration.lowest_threshold == recalibration.threshold


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 100, 1000])
def test_scores_are_upper_bounds_and_the_threshold_lies_between_its_bounds(count):
    bank, pictures, evidence, calibration = some(seed=1)
    new = np.random.default_rng(2).standard_normal((count, DIMENSIONS), dtype=np.float32)
    recalibration = Recalibration(calibration, evidence, judge=Highest(), pictures=PICTURES)
    recalibration.add(new)
    true = np.array([top(to_nearest(patches, np.concatenate([bank, new]))) for patches in pictures])
    assert (recalibration.scores >= true * (1 - 1e-3)).all()
    threshold = Calibration(true, calibration.peaks, calibration.rate).threshold
    assert recalibration.lowest_threshold * (1 - 1e-3) <= threshold <= recalibration.threshold * (1 + 1e-3)
    assert recalibration.threshold < calibration.threshold


def test_below_the_floor_the_bounds_are_those_of_the_tail_or_of_the_highest_score():
    _, pictures, evidence, calibration = some(rate=0.001)
    recalibration = Recalibration(calibration, evidence, judge=Highest(), pictures=PICTURES)
    assert calibration.below_floor
    assert recalibration.lowest_threshold == recalibration.threshold == calibration.threshold
    worst = pictures[evidence.pictures[3]][evidence.cells[3][:2]]
    recalibration.add(worst)
    assert recalibration.lowest_threshold == recalibration.threshold
    recalibration.add(np.random.default_rng(2).standard_normal((1000, DIMENSIONS), dtype=np.float32))
    assert recalibration.lowest_threshold < recalibration.threshold


def test_without_evidence_the_calibration_stays():
    _, pictures, _, calibration = some()
    recalibration = Recalibration(calibration, None, judge=Highest(), pictures=PICTURES)
    recalibration.add(pictures[0])
    assert recalibration.calibration() is calibration
    assert recalibration.lowest_threshold == recalibration.threshold == calibration.threshold


def test_a_picture_that_leaves_moves_the_others_up():
    _, _, evidence, _ = some()
    gone = int(evidence.pictures[4])
    left = evidence.without(gone)
    expected = np.delete(evidence.pictures, 4)
    assert left.pictures.tolist() == (expected - (expected > gone)).tolist()
    assert np.array_equal(left.vectors, np.delete(evidence.vectors, 4, axis=0))


def test_distances_rise_to_the_nearest_of_the_others_where_a_lost_vector_was_nearest():
    """Nine patches on a line; the vectors at 0 and 10 are left, that at 4 goes, that at 4.5 is the picture's own."""
    keeper = PatchKeeper()
    patches = np.arange(9, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32) / np.float32(np.sqrt(2))
    line = np.array([0, 10, 4.5, 4], np.float32)
    bank = line[:, None] * np.ones((1, 2), np.float32) / np.float32(np.sqrt(2))
    others = np.array([0, 1, 3])
    grid = np.abs(np.arange(9)[:, None] - line[others]).min(axis=1).astype(np.float32).reshape(3, 3)
    keeper.add(7, patches, cells(3), grid, top(grid), peak(grid), weight=grid.ravel())
    evidence = keeper.patches()
    raised = evidence.raised(bank[3:], bank[:3], np.array([1, 2, 7]), judge=Highest(), pictures=PICTURES)
    after = np.minimum(np.arange(9), np.abs(10 - np.arange(9)))
    expected = np.where(evidence.cells[0] >= 0, after[evidence.cells[0]], 0)
    assert raised.distances[0] == pytest.approx(expected, rel=1e-3)
    assert raised.scores[0] == pytest.approx(5, rel=1e-3)
    assert evidence.raised(bank[:0], bank, np.zeros(4), judge=Highest(), pictures=PICTURES) is evidence


def test_what_a_model_file_holds_is_what_was_kept():
    _, _, evidence, calibration = some()
    again = CalibrationPatches.of(evidence.tensors(), calibration.pictures, DIMENSIONS)
    assert all(np.array_equal(again.tensors()[name], one) for name, one in evidence.tensors().items())
    assert CalibrationPatches.of({}, None, DIMENSIONS) is None
    with pytest.raises(ValueError, match="not among those that set the threshold"):
        CalibrationPatches.of(evidence.tensors(), np.arange(3), DIMENSIONS)
