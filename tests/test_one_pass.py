"""PaDiM and SPADE behind one surface: what both must do as PatchCore does."""

import json
import math

import cv2
import numpy as np
import pytest

from tests.parts import damaged, stripes
from totalrecall import SPADE, PaDiM, PatchCore, SkippedPictureWarning, load_detector
from totalrecall.calibration import held_out
from totalrecall.detectors.model_file import read_artifact, write_artifact
from totalrecall.errors import BackboneError, DataError, ModelFileError, NotFittedError, PictureError, SettingError
from totalrecall.pictures.loading import read_image

SIZE = 64
both = pytest.mark.parametrize("kind", [PaDiM, SPADE])


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder of twelve good pictures."""
    folder = tmp_path_factory.mktemp("good")
    for i in range(12):
        cv2.imwrite(str(folder / f"{i:02}.png"), stripes(i))
    return folder


def make(kind, backbone, **options):
    return kind(**{"backbone": backbone, "size": SIZE, "precision": "f32", **options})


@pytest.fixture(scope="module")
def fits(tiny_backbone, good):
    return {kind: make(kind, tiny_backbone).fit(good) for kind in (PaDiM, SPADE)}


@both
def test_a_defect_scores_above_the_good_and_is_found_where_it_is(fits, kind):
    fine, broken = fits[kind].predict(stripes(100)), fits[kind].predict(damaged(100))
    assert broken.score > fine.score
    assert broken.is_anomalous
    assert broken.p_value == pytest.approx(1 / 3)  # the floor of two calibration pictures
    row, column = np.unravel_index(broken.anomaly_map.argmax(), broken.anomaly_map.shape)
    assert 20 <= row <= 55
    assert 30 <= column <= 70
    assert broken.anomaly_map.shape == (70, 90)
    assert broken.anomaly_map.dtype == np.float32
    assert broken.regions[0].peak == pytest.approx(broken.anomaly_map.max())


@both
def test_a_stream_gives_what_single_pictures_give(fits, kind):
    pictures = [stripes(i) for i in range(4)] + [damaged(6)]
    streamed = list(fits[kind].predict_stream(pictures))
    for picture, result in zip(pictures, streamed, strict=True):
        alone = fits[kind].predict(picture)
        assert result.score == pytest.approx(alone.score, rel=1e-4)
        assert np.allclose(result.anomaly_map, alone.anomaly_map, rtol=1e-3, atol=1e-3)
    assert fits[kind].score(pictures) == pytest.approx([result.score for result in streamed], rel=1e-4)


@both
def test_the_threshold_is_what_held_out_pictures_score_by_a_fit_without_them(tiny_backbone, good, kind):
    files = sorted(good.iterdir())
    detector = make(kind, tiny_backbone, holdout=0.3).fit(good)
    held = held_out(12, 0.3, 42)
    assert len(held) == 3
    others = make(kind, tiny_backbone, holdout=0).fit([path for at, path in enumerate(files) if at not in held])
    expected = [others.predict(files[at]) for at in held]
    assert detector.calibration_.scores == pytest.approx([one.score for one in expected], rel=1e-4)
    assert detector.calibration_.peaks == pytest.approx([one.anomaly_map.max() for one in expected], rel=1e-4)
    assert detector.threshold_ == pytest.approx(max(one.score for one in expected), rel=1e-4)
    assert detector.report_.calibration_pictures == 3


@both
def test_those_held_out_are_learnt_in_the_end(tiny_backbone, good, kind):
    with_holdout, without = (make(kind, tiny_backbone, holdout=share).fit(good) for share in (0.3, 0))
    picture = damaged(3)
    assert with_holdout.predict(picture).score == pytest.approx(without.predict(picture).score, rel=1e-4)
    assert [one.path for one in with_holdout.pictures_] == [str(path) for path in sorted(good.iterdir())]


@both
def test_save_and_load_is_identity(fits, kind, tmp_path):
    path = fits[kind].save(tmp_path / "part.trecall")
    for loaded in (kind.load(path), load_detector(path)):
        assert type(loaded) is kind
        before, after = fits[kind].predict(damaged(9)), loaded.predict(damaged(9))
        assert after.score == before.score
        assert np.array_equal(after.anomaly_map, before.anomaly_map)
        assert (after.threshold, after.p_value, after.nearest) == (before.threshold, before.p_value, before.nearest)
        assert loaded.settings == fits[kind].settings
        assert loaded.save(tmp_path / "again.trecall").read_bytes() == path.read_bytes()


@both
def test_the_same_fit_gives_the_same_file(tiny_backbone, good, kind, tmp_path):
    one, two = (make(kind, tiny_backbone).fit(good).save(tmp_path / f"{i}.trecall").read_bytes() for i in range(2))
    assert one == two


@both
def test_a_model_of_another_kind_is_refused(fits, kind, tmp_path):
    other = SPADE if kind is PaDiM else PaDiM
    path = fits[other].save(tmp_path / "a.trecall")
    with pytest.raises(ModelFileError, match=rf"holds a {other.kind} model; this is {kind.__name__}"):
        kind.load(path)


def test_a_kind_that_is_not_known_is_refused(fits, tmp_path):
    header, tensors = read_artifact(fits[PaDiM].save(tmp_path / "a.trecall"))
    write_artifact(tmp_path / "b.trecall", {**header, "kind": "cflow"}, tensors)
    with pytest.raises(ModelFileError, match=r"kind 'cflow', this version knows .*, spade, joined\. Install"):
        load_detector(tmp_path / "b.trecall")


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        (PaDiM, "gaussians.scatter"),
        (PaDiM, "gaussians.channels"),
        (SPADE, "gallery.layer2"),
        (SPADE, "gallery.pooled"),
        (SPADE, "calibration.peaks"),
    ],
)
def test_a_model_that_lacks_a_part_is_damaged(fits, kind, lost, tmp_path):
    header, tensors = read_artifact(fits[kind].save(tmp_path / "a.trecall"))
    del tensors[lost]
    write_artifact(tmp_path / "b.trecall", header, tensors)
    with pytest.raises(ModelFileError, match=rf"b\.trecall is damaged: .*{lost}"):
        kind.load(tmp_path / "b.trecall")


@both
def test_a_model_without_its_backbone_needs_the_same_one_here(fits, kind, tmp_path):
    path = fits[kind].save(tmp_path / "part.trecall", embed_backbone=False)
    with pytest.raises(BackboneError, match="No backbone is called"):
        kind.load(path)


@both
def test_before_fit_there_is_nothing_to_predict_or_save(tiny_backbone, kind, tmp_path):
    detector = make(kind, tiny_backbone)
    for call in (
        lambda: detector.predict(stripes(0)),
        lambda: detector.save(tmp_path / "x"),
        lambda: detector.pictures_,
        lambda: detector.predict_stream([stripes(0)]),
    ):
        with pytest.raises(NotFittedError, match=rf"not fitted yet.*{kind.__name__}\.load"):
            call()


@both
def test_bad_pictures_are_left_out_of_a_fit_and_named(tiny_backbone, good, kind, tmp_path):
    (tmp_path / "empty.png").touch()
    detector = make(kind, tiny_backbone)
    sources = [tmp_path / "empty.png", good]
    with pytest.warns(SkippedPictureWarning, match=r"1 of 13 pictures were left out. The first: .*empty.png is empty"):
        detector.fit(sources)
    assert detector.report_.pictures == 12
    assert [one.path for one in detector.pictures_] == [str(path) for path in sorted(good.iterdir())]
    assert detector.predict(damaged(1)).score == pytest.approx(
        make(kind, tiny_backbone).fit(good).predict(damaged(1)).score, rel=1e-4
    )
    with pytest.raises(DataError, match=r"None of the 1 pictures could be read. The first: .* is empty"):
        detector.fit(tmp_path)
    with pytest.raises(DataError, match="There are no pictures to fit on"):
        detector.fit([])
    assert len(detector.pictures_) == 12  # a failed fit leaves the former one


@both
def test_a_bad_picture_comes_in_its_turn_and_the_others_are_judged(fits, kind, good, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    files = sorted(good.iterdir())
    results = list(fits[kind].predict_stream([files[0], tmp_path / "text.png", files[1]]))
    assert [isinstance(result, PictureError) for result in results] == [False, True, False]


@both
def test_arrays_are_named_by_their_place_among_those_given(tiny_backbone, kind):
    pictures = [stripes(i) for i in range(6)]
    pictures.insert(2, np.zeros((0, 5, 3), np.uint8))
    detector = make(kind, tiny_backbone, holdout=0.4)
    with pytest.warns(SkippedPictureWarning, match=r"The first: array\[2\]"):
        detector.fit(pictures)
    assert [one.path for one in detector.pictures_] == [f"array[{i}]" for i in (0, 1, 3, 4, 5, 6)]


@both
@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_good_pictures_are_enough_to_score_by(tiny_backbone, kind, n):
    detector = make(kind, tiny_backbone).fit([stripes(i) for i in range(n)])
    fine, broken = detector.predict(stripes(5)), detector.predict(damaged(5))
    assert broken.score > fine.score
    assert math.isnan(broken.threshold)
    assert not broken.is_anomalous
    assert json.loads(json.dumps(broken.to_json(), allow_nan=False))["threshold"] is None


@both
def test_outside_the_region_of_interest_nothing_counts(tiny_backbone, good, kind):
    roi = np.zeros((70, 90), bool)
    roi[:, :35] = True
    detector = make(kind, tiny_backbone, roi=roi).fit(good)
    fine, broken, inside = stripes(11), stripes(11), stripes(11)
    broken[30:45, 45:85] = (20, 20, 230)
    inside[30:45, 5:25] = (20, 20, 230)
    assert detector.predict(broken).score == detector.predict(fine).score
    assert (detector.predict(broken).anomaly_map[:, 35:] == 0).all()
    assert detector.predict(inside).score > detector.predict(fine).score


@both
def test_a_region_that_the_crop_hides_is_named(tiny_backbone, good, kind):
    roi = np.zeros((70, 90), bool)
    roi[:, :4] = True
    detector = make(kind, tiny_backbone, size=64, resize="crop", crop=32, roi=roi)
    with pytest.raises(DataError, match=r"None of the 12 pictures.*no patch of it lies in the region of interest"):
        detector.fit(good)


@both
def test_tiles_letterbox_and_files_are_taken_like_anything_else(tiny_backbone, good, kind):
    detector = make(kind, tiny_backbone, tile=2, resize="letterbox").fit(good)
    path = sorted(good.iterdir())[0]
    assert detector.predict(path).score == detector.predict(read_image(path)).score
    streamed = list(detector.predict_stream([stripes(1), damaged(2)]))
    assert streamed[1].score == pytest.approx(detector.predict(damaged(2)).score, rel=1e-4)
    assert streamed[1].score > streamed[0].score


@both
def test_progress_and_plan_tell_what_comes(tiny_backbone, good, kind, tmp_path):
    steps, plans = [], []
    detector = make(kind, tiny_backbone)
    detector.fit(good, announce=plans.append, progress=lambda step, done, total: steps.append((step, done, total)))
    assert ("features", 12, 12) in steps
    assert ("calibration", 2, 2) in steps
    (plan,) = plans
    assert (plan.pictures, plan.held) == (12, 2)
    _, tensors = read_artifact(detector.save(tmp_path / "m.trecall"))
    tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(("gaussians.", "gallery."))}
    assert plan.model == pytest.approx(sum(tensor.nbytes for tensor in tensors.values()), rel=0.01)
    assert json.loads(json.dumps(detector.report_.plan)) == plan.facts()


@both
def test_a_model_that_does_not_fit_is_refused_before_any_work(tiny_backbone, good, kind):
    with pytest.raises(SettingError, match=rf"^memory must be at least \d.* for a {kind.__name__} of 12 pictures"):
        make(kind, tiny_backbone).fit(good, memory=50_000_000)


@both
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, "layers must be different numbers such as 2 3, got none."),
        ({"layers": (2, 7)}, "layers: backbone tiny has no layer 7. It has: 1 2 3."),
        ({"size": 16}, "size must be from 32 to 4096 pixels, got 16. Usual: 224 to 512."),
        ({"false_alarm_rate": 1}, "false_alarm_rate must be between 0 and 1, got 1. Usual: 0.01."),
        ({"holdout": 1.5}, "holdout must be at least 0 and under 1, got 1.5. Usual: 0.2."),
        ({"precision": "f16"}, "precision must be one of auto, f32, bf16, int8, got 'f16'."),
        ({"seed": -1}, "seed must be at least 0, got -1."),
    ],
)
def test_a_bad_setting_is_named_before_any_work(tiny_backbone, kind, options, message):
    with pytest.raises(SettingError) as caught:
        make(kind, tiny_backbone, **options)
    assert str(caught.value) == message


@both
def test_the_layers_are_those_that_the_backbone_has(tiny_backbone, kind):
    from dataclasses import replace

    assert make(kind, tiny_backbone).settings.layers == (1, 2, 3)
    without_first = replace(tiny_backbone, layers=tiny_backbone.layers[1:])
    assert make(kind, without_first).settings.layers == (2, 3)
    assert make(kind, tiny_backbone, layers=(3,)).settings.layers == (3,)


@both
def test_only_the_threshold_can_be_updated_and_that_is_undone_to_the_byte(fits, kind, good, tmp_path):
    file = fits[kind].save(tmp_path / "m.trecall")
    detector = kind.load(file)
    for what in ("add", "remove"):
        with pytest.raises(
            SettingError, match=rf"^{what} works on PatchCore models only, and this is a {kind.__name__} model\. Fit"
        ):
            detector.update(**{what: good})
    assert detector.history_ == []
    assert detector.update(threshold=3.5).threshold[1] == 3.5
    detector.update(false_alarm_rate=0.4)
    assert [step.what for step in detector.history_] == ["threshold", "threshold"]
    loaded = load_detector(detector.save(tmp_path / "changed.trecall"))
    assert loaded.threshold_ == detector.threshold_
    loaded.undo()
    assert loaded.threshold_ == 3.5
    loaded.undo()
    assert loaded.save(tmp_path / "undone.trecall").read_bytes() == file.read_bytes()


def test_a_new_kind_of_detector_fills_in_at_most_eight_methods():
    """The fewer hooks, the less one must read to know what a detector does; a hook is what a subclass overrides."""
    for kind in (PatchCore, PaDiM, SPADE):
        own = {name for name in vars(kind) if callable(vars(kind)[name]) and not name.startswith("__")}
        inherited = {
            name for base in kind.__mro__[1:] if base.__module__.startswith("totalrecall") for name in vars(base)
        }
        assert len(own & inherited) <= 8, sorted(own & inherited)
    assert len(PatchCore.__mro__[1].__abstractmethods__) <= 8


@both
def test_an_update_of_nothing_or_of_two_things_or_before_the_fit_is_named(fits, tiny_backbone, kind, good):
    for given in ({}, {"add": good, "remove": good}):
        with pytest.raises(SettingError, match="update takes one of add, remove, false_alarm_rate and threshold"):
            fits[kind].update(**given)
    with pytest.raises(NotFittedError):
        make(kind, tiny_backbone).update(add=good)
