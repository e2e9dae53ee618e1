"""extents: where good parts vary, and how far a picture is unusual, learnt from leave-one-out distances alone."""

import math

import cv2
import numpy as np
import pytest

from totalrecall import SPADE, PaDiM, PatchCore
from totalrecall.detectors import extents
from totalrecall.detectors.extents import SHARES, SMOOTHINGS, Extents, learn_extents, profile_of
from totalrecall.detectors.model_file import read_artifact, write_artifact
from totalrecall.errors import ModelFileError, SettingError
from totalrecall.patchcore.judge import picture_score

SIDE, SIGMA = 20, 0.5
COUNT = len(SMOOTHINGS) * len(SHARES)


def everywhere(grid):
    return np.indices(grid.shape).reshape(2, -1).T


def scored(extents, grid):
    return extents.score(grid, everywhere(grid), SIGMA)


def good_grids(count=40, seed=0, *, glare=True):
    """Distances of good pictures: noise about 1, and twice that in the left quarter, where good parts vary."""
    grids = np.random.default_rng(seed).gamma(16, 1 / 16, (count, SIDE, SIDE)).astype(np.float32)
    if glare:
        grids[:, :, : SIDE // 4] *= 2
    return grids


def learnt(grids, folds=None, inside=None):
    folds = np.arange(len(grids)) % 5 if folds is None else folds
    inside = np.ones(grids.shape, bool) if inside is None else inside
    return learn_extents(grids, inside, folds, sigma=SIGMA)


def largest(values, share):
    return np.sort(values.ravel())[::-1][: max(int(share * values.size), 1)].mean()


def profile_by_hand(grid, sigma=SIGMA):
    sides = ((2 * round(4 * wide) + 1, wide) for wide in (sigma, 2 * sigma))
    smoothed = [grid, *(cv2.GaussianBlur(grid, (side, side), wide, borderType=2) for side, wide in sides)]
    return np.array([largest(values, share) for values in smoothed for share in (0.005, 0.01, 0.03, 0.1)])


def score_by_hand(profile, profiles):
    """The largest of twelve z-scores, in the unit of the hundredth that is smoothed like the map."""
    unusual = max((profile[at] - np.mean(profiles[:, at])) / np.std(profiles[:, at], ddof=1) for at in range(12))
    return np.mean(profiles[:, 5]) + np.std(profiles[:, 5], ddof=1) * unusual


def test_a_profile_is_the_mean_of_the_largest_at_three_smoothings():
    for grid in good_grids(3):
        assert profile_of(grid, everywhere(grid), SIGMA) == pytest.approx(profile_by_hand(grid), rel=1e-5)


def test_a_mean_is_of_whole_patches_and_of_one_at_least():
    grid = np.arange(1000, dtype=np.float32).reshape(25, 40)
    assert profile_of(grid, everywhere(grid), SIGMA)[:4].tolist() == [997.0, 994.5, 984.5, 949.5]
    assert profile_of(grid, np.array([[3, 3], [2, 0]]), SIGMA)[:4].tolist() == [123.0] * 4


def test_scores_are_the_largest_of_twelve_standardised_means(monkeypatch):
    monkeypatch.setattr("totalrecall.detectors.extents._PLACE_POWER", 0.0)  # place says nothing
    grids = good_grids(glare=False)[:11]
    extents, scores = learnt(grids)
    profiles = np.stack([profile_by_hand(grid) for grid in grids])
    assert (extents.place == 1).all()
    by_hand = [score_by_hand(profile, profiles) for profile in profiles]
    assert [scored(extents, grid) for grid in grids] == pytest.approx(by_hand, rel=1e-5)
    fold = np.arange(len(grids)) % 5  # as in `learnt`
    by_others = [score_by_hand(profile, profiles[fold != at]) for profile, at in zip(profiles, fold, strict=True)]
    assert scores == pytest.approx(np.array(by_others), rel=1e-5)


def alike(rng, shape):
    """Normal extents that are one and the same, but for the unit."""
    return 10 + np.repeat(rng.normal(size=(*shape[:-1], 1)), shape[-1], axis=-1)


def unalike(rng, shape):
    """Normal extents that say nothing of each other."""
    return 10 + rng.normal(size=shape)


def skewed(rng, shape):
    """Extents of which a few are far out."""
    return 10 + rng.exponential(size=shape)


@pytest.mark.parametrize("draw", [alike, unalike, skewed])
def test_a_new_picture_is_as_likely_above_the_scores_of_the_fit_as_one_of_these(draw):
    """12 pictures and a new one: it is the highest in one of 13 draws.

    Counted in a mean and a deviation that they are part of, the 12 would be too low (3.4 draws of 13 unalike, 5.6
    skewed). Widened by the root of (n + 1) / (n - 3), as they once were: 1.8 and 4.2, and 0.7 where all are alike.
    """
    above, trials = 0, 1500
    rng = np.random.default_rng(0)
    for profiles in draw(rng, (trials, 13, COUNT)):
        scores = extents._scores_by_others(profiles[:12], np.arange(12))
        above += extents._scores(profiles[12:], *extents._usual(profiles[:12]))[0] > scores.max()
    expected, spread = trials / 13, math.sqrt(trials * 12 / 13**2)
    assert expected - 4 * spread < above < expected + 2 * spread


def test_where_one_extent_decides_scores_are_in_its_order_and_unit():
    """No factor is between the pictures of the fit and new ones: the hundredth is the score itself."""
    profiles = alike(np.random.default_rng(0), (30, COUNT))
    for groups in (np.arange(30), np.arange(30) // 3):
        assert extents._scores_by_others(profiles, groups) == pytest.approx(profiles[:, extents.HUNDREDTH])
    assert extents._scores(profiles, *extents._usual(profiles[5:])) == pytest.approx(profiles[:, extents.HUNDREDTH])


def test_a_defect_that_is_everywhere_counts_more_than_by_its_hundredth():
    grids = good_grids()
    extents, scores = learnt(grids)
    spot, rust = grids[0].copy(), grids[0] * np.float32(1.3)  # a few patches far out; every patch a little
    spot[3, 10:14] += 2.5
    assert largest(extents.corrected(spot), 0.01) > largest(extents.corrected(rust), 0.01)
    by_extent = [scored(extents, grid) for grid in (spot, rust)]
    assert min(by_extent) > scores.max()


def test_where_good_parts_vary_a_distance_counts_less():
    extents, _ = learnt(good_grids())
    assert extents.place[:, 0].mean() > 1.2 * extents.place[:, -1].mean()
    usual, unusual = np.ones((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.float32)
    usual[5:8, 0:3] = unusual[5:8, -3:] = 4
    scores = [scored(extents, grid) for grid in (usual, unusual)]
    assert scores[1] > 1.1 * scores[0]


def test_place_is_the_square_root_of_a_blurred_mean_with_five_pictures_of_doubt():
    grids = good_grids()
    extents, _ = learnt(grids)
    relative = (grids.sum(axis=0, dtype=np.float64) / grids.mean(dtype=np.float64) + 5) / (len(grids) + 5)
    expected = np.sqrt(cv2.GaussianBlur(relative, (13, 13), 2.0, borderType=cv2.BORDER_REFLECT))
    assert extents.place == pytest.approx(expected, rel=1e-5)


def test_place_never_doubts_a_distance_beyond_a_factor():
    grids = good_grids()
    grids[:, :, : SIDE // 2] = 0  # a painted background
    grids[:, 0, -1] = 500
    place = learnt(grids)[0].place
    assert place.min() >= math.sqrt(0.5) - 1e-6
    assert place.max() <= math.sqrt(2) + 1e-6


def test_good_pictures_are_scored_by_what_the_other_folds_say_about_place():
    grids = good_grids(glare=False)
    grids[0, :4, :4] *= 6  # only this picture varies there
    _, alone = learnt(grids)
    _, together = learnt(grids, folds=np.repeat([0, 1], 20))
    own_place = learnt(grids)[0]
    assert alone[0] > scored(own_place, grids[0])
    assert together[0] != alone[0]


def test_one_fold_is_cut_into_groups():
    _, scores = learnt(good_grids(), folds=np.zeros(40, int))
    _, expected = learnt(good_grids(), folds=np.arange(40) // 2)
    assert np.array_equal(scores, expected)


def test_cells_outside_the_region_of_interest_say_nothing():
    grids = good_grids()
    inside = np.ones(grids.shape, bool)
    inside[:, :, 15:] = False
    whole = learnt(grids[:, :, :15], inside=inside[:, :, :15])
    part = learnt(np.where(inside, grids, np.float32(0)), inside=inside)
    assert part[1] == pytest.approx(whole[1], rel=0.02)  # the mirror at the blur's edge is not the region's
    assert (part[0].place[:, 15:] == 1).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_of_fewer_than_three_pictures_nothing_is_learnt(count):
    assert learnt(good_grids(count)) is None


def test_equal_pictures_give_finite_scores():
    grids = np.ones((20, SIDE, SIDE), np.float32)
    extents, scores = learnt(grids)
    assert np.isfinite(scores).all()
    assert math.isfinite(scored(extents.checked(), np.full((SIDE, SIDE), 5, np.float32)))
    assert np.isfinite(learnt(np.zeros((20, SIDE, SIDE), np.float32))[1]).all()


def test_one_odd_picture_scores_as_it_does_alone_and_gives_no_score_below_its_hundredth():
    """Its deviation is larger than the mean; a model file takes no distance below 0."""
    grids = good_grids(10, glare=False)
    usual = learnt(grids)[1]
    grids[3] *= 90
    known, scores = learnt(grids, folds=np.arange(10))
    hundredths = [profile_by_hand(grid)[5] for grid in grids]
    assert scores[3] == pytest.approx(hundredths[3], rel=0.3)
    others = np.arange(10) != 3
    assert (scores[others] >= 0.99 * np.array(hundredths)[others]).all()
    assert scores[others].max() < 1.5 * usual.max()
    assert scored(known, np.zeros((SIDE, SIDE), np.float32)) >= 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("place", np.zeros((3, 3), np.float32)),
        ("place", np.full((3, 3), np.nan, np.float32)),
        ("means", np.ones(3)),
        ("means", np.full(COUNT, np.inf)),
        ("deviations", np.zeros(COUNT)),
        ("deviations", -np.ones(COUNT)),
    ],
)
def test_parts_that_cannot_be_used_are_named(name, value):
    parts = {"place": np.ones((3, 3), np.float32), "means": np.ones(COUNT)}
    parts = {**parts, "deviations": np.ones(COUNT), name: value}
    with pytest.raises(ValueError, match=f"extents.{name}"):
        Extents(**parts).checked()


# ---------------------------------------------------------------------- in the detector


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    from totalrecall.demo.pictures import make_dataset

    folder = make_dataset(tmp_path_factory.mktemp("parts"), kind="washer", good=12, test_good=4, defective=6, seed=3)
    return PatchCore(size=128, at_least=200, seed=1).fit(folder / "train" / "good"), folder


def test_extent_is_the_default_and_kept_in_the_model(fitted, tmp_path):
    detector, folder = fitted
    assert detector.settings.scoring == "extent"
    pictures = sorted((folder / "test").rglob("*.png"))
    scores = detector.score(pictures)
    loaded = PatchCore.load(detector.save(tmp_path / "part.trecall"))
    assert loaded.score(pictures).tolist() == scores.tolist()
    assert [loaded.predict(path).score for path in pictures] == scores.tolist()


def test_extent_of_the_detector_is_that_of_its_distances(fitted):
    detector, folder = fitted
    judge, path = detector.judge, min((folder / "test").rglob("*.png"))
    _, grid = next(iter(detector.extractor.stream([path])))
    distances = detector.bank_.nearest(grid[0].reshape(-1, grid.shape[3]))[0].reshape(grid.shape[1:3])
    sigma = 4 * 128 / 224 * len(distances) / 128  # of the map, 4 pixels at 224; in cells
    profile = profile_by_hand((distances / judge.extents.place).astype(np.float32), sigma)
    unusual = (profile - judge.extents.means) / judge.extents.deviations
    expected = judge.extents.means[5] + judge.extents.deviations[5] * unusual.max()
    assert detector.predict(path).score == pytest.approx(expected, rel=1e-3)


def test_a_model_that_has_lost_what_its_threshold_was_set_by_is_refused(fitted, tmp_path):
    header, tensors = read_artifact(fitted[0].save(tmp_path / "part.trecall"))
    rest = {name: value for name, value in tensors.items() if not name.startswith("extents.")}
    with pytest.raises(ModelFileError, match=r"extents\.place is missing"):
        PatchCore.load(write_artifact(tmp_path / "without.trecall", header, rest))


def test_an_update_keeps_what_was_learnt_and_undo_gives_the_same_scores(fitted):
    detector, folder = fitted
    pictures = sorted((folder / "test").rglob("*.png"))
    before, extents = detector.score(pictures).tolist(), detector.judge.extents
    worst = pictures[int(np.argmax(before))]
    detector.update(add=[worst])
    assert detector.judge.extents is extents
    assert not detector.predict(worst).is_anomalous
    detector.undo()
    assert detector.score(pictures).tolist() == before


def test_fitting_again_forgets_what_was_learnt(fitted):
    _, folder = fitted
    good = sorted((folder / "train" / "good").glob("*.png"))
    detector = PatchCore(size=128, at_least=200, seed=1).fit(good)
    first = detector.calibration_.scores.tolist()
    assert detector.fit(good).calibration_.scores.tolist() == first
    detector.fit(good[:2])
    assert detector.judge.extents is None
    assert detector.judge.scoring == "map1pct"
    assert math.isnan(detector.threshold_)


def test_without_held_out_pictures_the_score_is_that_of_map1pct(fitted):
    _, folder = fitted
    paths = sorted((folder / "test").rglob("*.png"))
    scores = [
        PatchCore(size=128, at_least=200, holdout=0, scoring=scoring)
        .fit(folder / "train" / "good")
        .score(paths)
        .tolist()
        for scoring in ("extent", "map1pct")
    ]
    assert scores[0] == scores[1]


def test_a_single_picture_cannot_be_scored_by_extent_alone(fitted):
    detector, _ = fitted
    with pytest.raises(SettingError, match="scoring extent needs good pictures"):
        picture_score(np.ones(4), np.zeros(4, int), np.ones((4, 2)), detector.bank_, scoring="extent")


# ---------------------------------------------------------------------- in the methods that PatchCore is compared with


@pytest.fixture(scope="module", params=[PaDiM, SPADE])
def compared(request, tmp_path_factory):
    """A detector whose threshold 12 of 24 good pictures set, and the test pictures."""
    from totalrecall.demo.pictures import make_dataset

    folder = make_dataset(tmp_path_factory.mktemp("parts"), kind="washer", good=24, test_good=4, defective=6, seed=3)
    make = request.param
    detector = make(size=64, scoring="extent", holdout=0.5).fit(folder / "train" / "good")
    return detector, folder, sorted((folder / "test").rglob("*.png"))


def test_padim_and_spade_score_by_extent_what_their_maps_show(compared):
    detector, folder, pictures = compared
    by_paper = type(detector)(size=64, holdout=0.5).fit(folder / "train" / "good")
    assert by_paper.settings.scoring == "paper"
    assert by_paper.extents_ is None
    extents = detector.extents_
    assert extents.means[5] == pytest.approx(detector.calibration_.scores.mean(), rel=1.0)  # of the same unit
    for path in pictures:
        result, reference = detector.predict(path), by_paper.predict(path)
        assert result.score != reference.score
        assert np.array_equal(result.anomaly_map, reference.anomaly_map)
        assert result.nearest == reference.nearest
    assert detector.calibration_.peaks.tolist() == by_paper.calibration_.peaks.tolist()


def test_the_pictures_that_set_the_threshold_are_scored_by_a_model_without_them(compared):
    detector, folder, _ = compared
    good = sorted((folder / "train" / "good").glob("*.png"))
    held = detector.calibration_.pictures.tolist()
    others = type(detector)(size=64, scoring="extent", holdout=0).fit(
        [path for at, path in enumerate(good) if at not in held]
    )
    assert others.extents_ is None
    maps = [others.predict(good[at]).anomaly_map for at in held]  # smoothed, and as large as the pictures
    means = [largest(values, 0.01) for values in maps]
    assert detector.extents_.means[5] == pytest.approx(np.mean(means), rel=0.1)
    assert detector.extents_.deviations[5] == pytest.approx(np.std(means, ddof=1), rel=0.3)


def test_extent_of_padim_and_spade_is_kept_in_the_model(compared, tmp_path):
    detector, _, pictures = compared
    scores = detector.score(pictures).tolist()
    file = detector.save(tmp_path / "part.trecall")
    loaded = type(detector).load(file)
    assert loaded.settings.scoring == "extent"
    assert loaded.score(pictures).tolist() == scores
    assert [loaded.predict(path).score for path in pictures] == scores
    header, tensors = read_artifact(file)
    rest = {name: value for name, value in tensors.items() if not name.startswith("extents.")}
    with pytest.raises(ModelFileError, match=r"extents\.place is missing"):
        type(detector).load(write_artifact(tmp_path / "without.trecall", header, rest))
    other = {**tensors, "extents.place": np.ones((3, 3), np.float32)}
    with pytest.raises(ModelFileError, match=r"extents\.place"):
        type(detector).load(write_artifact(tmp_path / "other.trecall", header, other))


def test_fitting_again_forgets_the_extents_of_padim_and_spade(compared):
    detector, folder, _ = compared
    good = sorted((folder / "train" / "good").glob("*.png"))
    again = type(detector)(size=64, scoring="extent", holdout=0.5).fit(good)
    first = again.calibration_.scores.tolist()
    assert again.fit(good).calibration_.scores.tolist() == first == detector.calibration_.scores.tolist()
    assert "Scored as by the paper" not in again.summary()
    again.fit(good[:12])  # 6 held out are too few
    assert again.extents_ is None
    assert again.summary().endswith("Scored as by the paper: extent needs 10 good pictures that are held out, got 6")
    assert again.predict(good[20]).score == type(again)(size=64, holdout=0.5).fit(good[:12]).predict(good[20]).score


def test_padim_and_spade_refuse_the_scorings_of_patchcore():
    with pytest.raises(SettingError, match="scoring must be one of paper, extent, got 'max'"):
        PaDiM(scoring="max")
