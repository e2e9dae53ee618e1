"""detector: fit, judge, keep, against the oracle and against itself."""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests import reference
from tests.parts import SIZE, damaged, make, stripes
from totalrecall import PatchCore, SkippedPictureWarning
from totalrecall.errors import BackboneError, DataError, ModelFileError, NotFittedError, PictureError, SettingError
from totalrecall.pictures.loading import load_pictures, read_image


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder of twelve good pictures of uneven size: soft stripes with noise."""
    folder = tmp_path_factory.mktemp("good")
    for i in range(12):
        cv2.imwrite(str(folder / f"{i:02}.png"), stripes(i))
    return folder


@pytest.fixture(scope="module")
def fitted(tiny_backbone, good):
    return make(tiny_backbone).fit(good)


def test_a_defect_scores_above_the_good_and_is_found_where_it_is(fitted):
    fine, broken = fitted.predict(stripes(100)), fitted.predict(damaged(100))
    assert broken.score > fine.score
    assert broken.is_anomalous
    assert broken.p_value == pytest.approx(1 / 13)  # the floor of twelve calibration pictures
    row, column = np.unravel_index(broken.anomaly_map.argmax(), broken.anomaly_map.shape)
    assert 20 <= row <= 55
    assert 30 <= column <= 70
    region = broken.regions[0]
    assert region.x <= 50 <= region.x + region.width
    assert region.peak == pytest.approx(broken.anomaly_map.max())


def test_the_worst_patch_is_told_and_lies_in_the_defect(fitted):
    result = fitted.predict(damaged(100))
    x, y = result.worst
    assert 40 - 8 <= x <= 60 + 8  # a patch sees its neighbours, too
    assert 30 - 8 <= y <= 45 + 8


@pytest.mark.filterwarnings("ignore::totalrecall.errors.UnlikePictureWarning")
def test_the_map_has_the_pictures_own_size(fitted):
    result = fitted.predict(stripes(3, height=51, width=133))
    assert result.anomaly_map.shape == (51, 133)
    assert result.anomaly_map.dtype == np.float32


def test_nearest_names_a_good_picture_and_a_place_inside_it(fitted, good):
    nearest = fitted.predict(damaged(5)).nearest
    assert nearest.path in {str(path) for path in good.iterdir()}
    assert 0 <= nearest.x < 90
    assert 0 <= nearest.y < 70


@pytest.mark.parametrize("scoring", ["max", "paper", "top1pct"])
def test_scores_equal_the_oracle(tiny_backbone, good, scoring):
    detector = make(tiny_backbone, scoring=scoring, holdout=0).fit(good)
    picture = damaged(7)
    prepared, _ = detector.recipe.prepare(picture)
    maps = detector.extractor.engine.run(prepared[None])
    patches = reference.describe([maps["layer2"], maps["layer3"]]).reshape(-1, detector.bank_.vectors.shape[1])
    expected = reference.score(patches, detector.bank_.vectors.astype(np.float64), scoring)
    assert detector.predict(picture).score == pytest.approx(expected, rel=1e-4)


def test_the_bank_is_the_plain_loops_choice(tiny_backbone, good):
    detector = make(tiny_backbone, holdout=0, projection=10_000).fit(good)  # no projection: plain vectors
    everything = make(tiny_backbone, holdout=0, coreset=1.0).fit(good).bank_
    points = everything.vectors.astype(np.float64)
    first = int(np.random.default_rng(42).integers(len(points)))
    indices, radius = reference.greedy(points, len(detector.bank_), first)
    nearest = reference.distances(points[::7], detector.bank_.vectors.astype(np.float64)).min(axis=1)
    assert nearest.max() <= radius * (1 + 1e-5)
    assert np.array_equal(detector.bank_.origin[:20], everything.origin[indices[:20]])


def test_a_bank_ends_early_at_the_radius_asked_for_and_says_so(tiny_backbone, good):
    whole = make(tiny_backbone, holdout=0).fit(good)
    wanted = 1.5 * whole.report_.radius
    early = make(tiny_backbone, holdout=0, coreset_radius=wanted).fit(good)
    assert 1 < len(early.bank_) < len(whole.bank_)
    assert early.report_.radius <= wanted
    assert np.array_equal(early.bank_.origin, whole.bank_.origin[: len(early.bank_)])  # a prefix of the same choice
    assert f"every patch within {early.report_.radius:.4g} of it" in early.summary()
    assert "within" not in whole.summary()


def test_a_stream_gives_what_single_pictures_give(fitted):
    pictures = [stripes(i) for i in range(5)] + [damaged(6)]
    streamed = list(fitted.predict_stream(pictures))
    for picture, result in zip(pictures, streamed, strict=True):
        alone = fitted.predict(picture)
        assert result.score == pytest.approx(alone.score, rel=1e-4)
        assert np.allclose(result.anomaly_map, alone.anomaly_map, rtol=1e-3, atol=1e-3)
    assert fitted.score(pictures) == pytest.approx([result.score for result in streamed], rel=1e-4)


def test_a_bad_picture_comes_in_its_turn_and_the_others_are_judged(fitted, good, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    files = sorted(good.iterdir())
    results = list(fitted.predict_stream([files[0], tmp_path / "text.png", tmp_path / "gone.png", files[1]]))
    assert [isinstance(result, PictureError) for result in results] == [False, True, True, False]
    assert results[1].args[0].startswith(f"{tmp_path / 'text.png'} is not a picture")
    assert results[3].path == str(files[1])


@pytest.mark.parametrize(("pixels", "least", "most"), [(1, 1, 1), (70 * 90, 1, 2), (10**8, 3, 8)])
def test_large_pictures_are_judged_a_few_at_a_time(fitted, good, tmp_path, monkeypatch, pixels, least, most):
    (tmp_path / "text.png").write_text("not a picture")
    files = [*sorted(good.iterdir())[:8], tmp_path / "text.png"]
    files[3], files[8] = files[8], files[3]
    alone = [math.nan if at == 3 else fitted.predict(file).score for at, file in enumerate(files)]
    drawn = []  # pictures that left the threads that read, of which the caller may have the result already

    def drawing(*arguments, **options):
        for loaded in load_pictures(*arguments, **options):
            if loaded.error is None:
                drawn.append(loaded.path)
            yield loaded

    monkeypatch.setattr("totalrecall.features.extractor.load_pictures", drawing)
    monkeypatch.setattr("totalrecall.features.extractor.PIXELS_AT_ONCE", pixels)
    scores, under_way, done = [], [], 0
    for result in fitted.predict_stream(files):
        under_way.append(len(drawn) - done)
        failed = isinstance(result, PictureError)
        done += not failed
        scores.append(math.nan if failed else result.score)
    assert scores == pytest.approx(alone, rel=1e-4, nan_ok=True)
    assert least <= max(under_way) <= most


def test_a_bad_picture_at_the_end_is_not_lost(fitted, good, tmp_path):
    (tmp_path / "empty.png").touch()
    results = list(fitted.predict_stream([next(good.iterdir()), tmp_path / "empty.png"]))
    assert isinstance(results[1], PictureError)


def test_fitting_leaves_bad_pictures_out_and_says_so(tiny_backbone, good, tmp_path):
    (tmp_path / "empty.png").touch()
    detector = make(tiny_backbone)
    with pytest.warns(SkippedPictureWarning, match=r"1 of 13 pictures were left out. The first: .*empty.png is empty"):
        detector.fit([good, tmp_path / "empty.png"])
    assert len(detector.skipped_) == 1
    assert detector.report_.pictures == 12


def test_fitting_on_nothing_readable_fails_in_one_line(tiny_backbone, tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"None of the 1 pictures could be read. The first: .* is empty"):
        make(tiny_backbone).fit(tmp_path)
    with pytest.raises(DataError, match="There are no pictures to fit on"):
        make(tiny_backbone).fit([])


def test_a_failed_fit_leaves_the_former_one(tiny_backbone, good, tmp_path):
    detector = make(tiny_backbone).fit(good)
    bank = detector.bank_
    with pytest.raises(DataError):
        detector.fit([])
    assert detector.bank_ is bank


def test_fitting_again_forgets(tiny_backbone, good):
    detector = make(tiny_backbone).fit([stripes(50), stripes(51), stripes(52)])
    detector.fit(good)
    assert len(detector.bank_.pictures) == 12


def test_save_and_load_is_identity(fitted, tmp_path):
    path = fitted.save(tmp_path / "part.trecall")
    loaded = PatchCore.load(path)
    before, after = fitted.predict(damaged(9)), loaded.predict(damaged(9))
    assert after.score == before.score
    assert np.array_equal(after.anomaly_map, before.anomaly_map)
    assert (after.threshold, after.p_value, after.nearest) == (before.threshold, before.p_value, before.nearest)
    assert loaded.settings == fitted.settings
    assert loaded.save(tmp_path / "again.trecall").read_bytes() == path.read_bytes()


def test_the_same_fit_gives_the_same_file(tiny_backbone, good, tmp_path):
    one = make(tiny_backbone).fit(good).save(tmp_path / "one.trecall").read_bytes()
    two = make(tiny_backbone).fit(good).save(tmp_path / "two.trecall").read_bytes()
    assert one == two


def test_a_model_without_its_backbone_needs_the_same_one_here(fitted, tmp_path):
    path = fitted.save(tmp_path / "part.trecall", embed_backbone=False)
    with pytest.raises(BackboneError, match="No backbone is called"):
        PatchCore.load(path)


def test_before_fit_there_is_nothing_to_predict_or_save(tiny_backbone, tmp_path):
    detector = make(tiny_backbone)
    for call in (lambda: detector.predict(stripes(0)), lambda: detector.save(tmp_path / "x"), lambda: detector.bank_):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()
    with pytest.raises(NotFittedError):
        detector.predict_stream([stripes(0)])


def test_outside_the_region_of_interest_nothing_counts(tiny_backbone, good):
    roi = np.zeros((70, 90), bool)
    roi[:, :35] = True
    detector = make(tiny_backbone, roi=roi).fit(good)
    fine, broken = stripes(11), stripes(11)
    broken[30:45, 45:85] = (20, 20, 230)
    assert detector.predict(broken).score == detector.predict(fine).score
    assert (detector.predict(broken).anomaly_map[:, 35:] == 0).all()
    inside = stripes(11)
    inside[30:45, 5:25] = (20, 20, 230)
    assert detector.predict(inside).score > detector.predict(fine).score


@pytest.mark.filterwarnings("ignore::totalrecall.errors.UnlikePictureWarning")
def test_grey_arrays_are_taken_and_others_refused(fitted):
    grey = stripes(1)[:, :, 0]
    assert fitted.predict(grey).score == pytest.approx(fitted.predict(np.repeat(grey[:, :, None], 3, 2)).score)
    with pytest.raises(PictureError, match=r"array\[0\] holds float32 values from 9 to 9; from 0 to 1 are allowed"):
        fitted.predict(np.full((10, 10, 3), 9, np.float32))


def test_files_and_arrays_give_the_same_score(fitted, good):
    path = sorted(good.iterdir())[0]
    assert fitted.predict(path).score == fitted.predict(read_image(path)).score


def test_without_holdout_there_is_no_verdict(tiny_backbone, good):
    result = make(tiny_backbone, holdout=0).fit(good).predict(damaged(1))
    assert math.isnan(result.threshold)
    assert math.isnan(result.p_value)
    assert not result.is_anomalous
    assert result.regions == []
    assert result.to_json()["threshold"] is None


def test_json_keeps_the_contract(fitted):
    line = json.loads(json.dumps(fitted.predict(damaged(2)).to_json(), allow_nan=False))
    names = "path score threshold is_anomalous p_value regions nearest milliseconds"
    assert list(line) == names.split()
    assert set(line["regions"][0]) == {"x", "y", "width", "height", "area", "peak"}
    assert set(line["nearest"]) == {"path", "x", "y"}


def test_progress_reports_each_step(tiny_backbone, good):
    seen = []
    make(tiny_backbone).fit(good, progress=lambda step, done, total: seen.append((step, done, total)))
    assert ("features", 12, 12) in seen
    assert ("calibration", 12, 12) in seen
    assert {step for step, _, _ in seen} == {"features", "coreset", "calibration"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coreset": 10}, "coreset must be over 0 and at most 1, got 10. For 10 percent write 0.1."),
        ({"coreset": 0}, "coreset must be over 0 and at most 1, got 0."),
        ({"layers": ()}, "layers must be different numbers such as 2 3, got none."),
        ({"layers": (2, 2)}, "layers must be different numbers such as 2 3, got 2 2."),
        ({"layers": (2, 7)}, "layers: backbone tiny has no layer 7. It has: 1 2 3."),
        ({"size": 16}, "size must be from 32 to 4096 pixels, got 16. Usual: 224 to 512."),
        ({"resize": "zoom"}, "resize must be one of squash, letterbox, crop, got 'zoom'."),
        ({"scoring": "mean"}, "scoring must be one of extent, map1pct, top1pct, max, paper, got 'mean'."),
        ({"false_alarm_rate": 1}, "false_alarm_rate must be between 0 and 1, got 1. Usual: 0.01."),
        ({"holdout": 1.5}, "holdout must be at least 0 and under 1, got 1.5. Usual: 0.2."),
        ({"patch_size": 4}, "patch_size must be odd and at least 1, got 4. The paper uses 3."),
        ({"precision": "f16"}, "precision must be one of auto, f32, bf16, int8, got 'f16'."),
        ({"seed": -1}, "seed must be at least 0, got -1."),
        ({"neighbours": 0}, "neighbours must be at least 1, got 0. Usual: 3 to 9."),
        (
            {"coreset_radius": -1},
            "coreset_radius must be at least 0, got -1. 0: the share alone; else a distance such as the radius that "
            "a fit reports.",
        ),
        (
            {"coreset_radius": 1, "subsampling": "random"},
            "coreset_radius needs subsampling 'greedy', got 'random': a random choice has no radius.",
        ),
    ],
)
def test_a_bad_setting_is_named_before_any_work(tiny_backbone, options, message):
    with pytest.raises(SettingError) as caught:
        make(tiny_backbone, **options)
    assert str(caught.value) == message


def test_a_model_of_another_kind_is_refused(fitted, tmp_path):
    from totalrecall.detectors.model_file import read_artifact, write_artifact

    header, tensors = read_artifact(fitted.save(tmp_path / "a.trecall"))
    write_artifact(tmp_path / "b.trecall", {**header, "kind": "padim"}, tensors)
    with pytest.raises(ModelFileError, match="holds a padim model"):
        PatchCore.load(tmp_path / "b.trecall")


@pytest.mark.parametrize("lost", ["bank.vectors", "bank.origin", "calibration.scores"])
def test_a_model_that_lacks_a_part_is_damaged(fitted, tmp_path, lost):
    from totalrecall.detectors.model_file import read_artifact, write_artifact

    header, tensors = read_artifact(fitted.save(tmp_path / "a.trecall"))
    del tensors[lost]
    write_artifact(tmp_path / "b.trecall", header, tensors)
    with pytest.raises(ModelFileError, match=rf"b\.trecall is damaged: .*{lost}"):
        PatchCore.load(tmp_path / "b.trecall")


def test_on_real_tiles_scores_equal_the_oracle(shared, resnet18):
    """Twenty real pictures, float32 engine, every scoring: relative error under 1e-4."""
    from totalrecall.datasets import open_dataset

    data = open_dataset("mtd", shared / "data" / "mtd")
    detector = PatchCore(backbone=resnet18, precision="f32", holdout=0, at_least=1).fit(data.train[:15])
    bank = detector.bank_.vectors.astype(np.float64)
    pictures = [sample.path for sample in data.test[::30]][:20]
    assert len(pictures) == 20
    for path in pictures:
        prepared, _ = detector.recipe.prepare(read_image(path))
        maps = detector.extractor.engine.run(prepared[None])
        patches = reference.describe([maps["layer2"], maps["layer3"]]).reshape(-1, 384)
        for scoring in ("max", "paper", "top1pct"):
            detector.settings = replace(detector.settings, scoring=scoring)
            expected = reference.score(patches, bank, scoring)
            assert detector.predict(path).score == pytest.approx(expected, rel=1e-4), scoring


def test_tiles_are_seen_apart_and_laid_side_by_side(tiny_backbone):
    detector = make(tiny_backbone, tile=2)
    picture = stripes(4, height=2 * SIZE, width=2 * SIZE)  # already of the prepared size
    prepared, geometry = detector.recipe.prepare(picture)
    assert np.array_equal(prepared, picture)
    assert geometry.prepared == (2 * SIZE, 2 * SIZE)
    corner = make(tiny_backbone, patch_size=1).extractor.describe(np.ascontiguousarray(picture[SIZE:, :SIZE]))
    whole = make(tiny_backbone, patch_size=1, tile=2).extractor.describe(prepared)
    assert whole.shape == (1, 16, 16, 384)
    assert np.allclose(whole[:, 8:, :8][:, :, :, :128], corner[:, :, :, :128], atol=1e-5)


def test_a_tiled_stream_gives_what_single_pictures_give(tiny_backbone, good):
    detector = make(tiny_backbone, tile=2).fit(good)
    results = list(detector.predict_stream([stripes(1), damaged(2)]))
    assert results[1].score == pytest.approx(detector.predict(damaged(2)).score, rel=1e-4)
    assert results[1].score > results[0].score


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile must be from 1 to 16 pieces a side, got 0. 2 makes four pieces."),
        ({"tile": 2, "size": 100}, "With tile, size must be a multiple of 32 pixels, got 100. Use 96."),
    ],
)
def test_a_bad_tile_is_named(tiny_backbone, options, message):
    with pytest.raises(SettingError) as caught:
        make(tiny_backbone, **options)
    assert str(caught.value) == message
