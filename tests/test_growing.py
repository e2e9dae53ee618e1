"""growing: pictures join and leave PaDiM and SPADE models, exactly, and every step can be undone."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.parts import damaged, digest, odd, stripes, written
from totalrecall import SPADE, PaDiM, load_detector
from totalrecall.detectors.changing import Changing
from totalrecall.detectors.model_file import read_artifact, write_artifact
from totalrecall.errors import DataError, ModelFileError, NotFittedError, SettingError

both = pytest.mark.parametrize("kind", [PaDiM, SPADE])
SIZE = 64


def make(kind, backbone, **options):
    return kind(**{"backbone": backbone, "size": SIZE, "precision": "f32", "false_alarm_rate": 0.2, **options})


@pytest.fixture(scope="module")
def files(tiny_backbone, good, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: make(kind, tiny_backbone).fit(good).save(folder / f"{kind.kind}.trecall") for kind in (PaDiM, SPADE)}


@pytest.fixture
def load(files):
    return lambda kind: kind.load(files[kind])


def calibrated_alone(kind, backbone, good, without=(), also=()):
    """A fit on the pictures that do not set the threshold, and others: what those are to be scored by."""
    paths = sorted(good.iterdir())
    fitted = make(kind, backbone).fit(good)
    which = {str(paths[at]) for at in fitted.calibration_.pictures}
    others = [path for path in paths if str(path) not in which and path not in without]
    return make(kind, backbone, holdout=0).fit([*others, *also]), [path for path in paths if str(path) in which]


# ---------------------------------------------------------------------- joining


@both
def test_a_model_that_pictures_joined_is_that_of_a_fit_on_all_of_them(load, tiny_backbone, kind, good, alarms):
    detector = load(kind)
    detector.update(add=alarms)
    refit = make(kind, tiny_backbone, holdout=0).fit([*sorted(good.iterdir()), *sorted(alarms.iterdir())])
    assert detector.pictures_ == refit.pictures_
    for picture in (stripes(100), damaged(100), odd(50)):
        ours, theirs = detector.predict(picture), refit.predict(picture)
        assert ours.score == pytest.approx(theirs.score, rel=1e-4)
        assert ours.anomaly_map == pytest.approx(theirs.anomaly_map, rel=1e-3, abs=1e-3)


@both
def test_on_real_bottles_a_changed_model_scores_as_a_fit_on_what_it_knows(shared, kind):
    from totalrecall.datasets import open_dataset

    data = open_dataset("mvtec", shared / "data" / "mvtec_ad" / "bottle")
    own, more, gone = data.train[:20], data.train[60:66], [data.train[3], data.train[61]]
    detector = kind(size=128, precision="f32").fit(own)
    detector.update(add=more)
    detector.update(remove=gone)
    refit = kind(size=128, precision="f32", holdout=0).fit([path for path in [*own, *more] if path not in gone])
    pictures = [sample.path for sample in data.test[::8]]
    assert detector.score(pictures) == pytest.approx(refit.score(pictures), rel=1e-4)


@both
def test_it_tells_the_scores_before_and_after(load, kind, alarms):
    detector = load(kind)
    before = detector.score(alarms)
    change = detector.update(add=alarms)
    after = detector.score(alarms)
    assert [one.before for one in change.pictures] == pytest.approx(before.tolist(), rel=1e-3)
    assert [one.after for one in change.pictures] == pytest.approx(after.tolist(), rel=1e-3)
    assert (after < before).all()
    assert change.vectors == (24, 30)
    assert change.still_anomalous == sum(one.after > detector.threshold_ for one in change.pictures)
    assert change.to_json()["still_anomalous"] == change.still_anomalous


def test_false_alarms_pass_with_a_single_neighbour(tiny_backbone, good, alarms):
    detector = make(SPADE, tiny_backbone, neighbours=1).fit(good)
    assert (detector.score(alarms) > detector.threshold_).all()
    change = detector.update(add=alarms)
    assert change.still_anomalous == 0
    assert (detector.score(alarms) <= detector.threshold_).all()
    assert detector.predict(damaged(300)).is_anomalous


@both
def test_what_was_saved_judges_as_what_was_changed(load, kind, alarms, tmp_path):
    detector = load(kind)
    detector.update(add=alarms)
    loaded = load_detector(detector.save(tmp_path / "then.trecall"))
    assert loaded.predict(damaged(100)).score == detector.predict(damaged(100)).score
    assert loaded.history_ == detector.history_
    assert loaded.threshold_ == detector.threshold_


@both
def test_known_pictures_are_left_out_and_bad_ones_do_not_stop_the_others(load, kind, good, alarms, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    detector = load(kind)
    change = detector.update(add=[good / "03.png", min(alarms.iterdir()), tmp_path / "text.png"])
    assert change.known == [str(good / "03.png")]
    assert [one.path for one in change.pictures] == [str(min(alarms.iterdir()))]
    assert [str(error).split(" ")[0] for error in change.skipped] == [str(tmp_path / "text.png")]


@both
def test_nothing_new_is_no_step(load, files, kind, good, tmp_path):
    detector = load(kind)
    assert detector.update(add=good / "03.png").pictures == []
    assert detector.update(remove="none.png").pictures == []
    assert written(detector, tmp_path) == digest(files[kind])


@both
def test_more_pictures_than_memory_holds_are_refused_beforehand(load, kind, alarms, monkeypatch):
    detector = load(kind)
    each, beside = detector._growth()
    monkeypatch.setattr("totalrecall.detectors.membership.available_memory", lambda: beside + 2 * each)
    with pytest.raises(SettingError, match=r"add: 6 pictures at once need .* of memory, 2 fit. Add them in parts."):
        detector.update(add=alarms)


# ---------------------------------------------------------------------- the threshold


def test_in_spade_the_threshold_is_that_of_scoring_all_again(load, tiny_backbone, good, alarms):
    detector = load(SPADE)
    change = detector.update(add=alarms)
    alone, held = calibrated_alone(SPADE, tiny_backbone, good, also=sorted(alarms.iterdir()))
    calibration = detector.calibration_
    assert calibration.scores == pytest.approx(alone.score(held), rel=1e-5)
    peaks = [result.anomaly_map.max() for result in alone.predict_stream(held)]
    assert calibration.peaks == pytest.approx(peaks, rel=1e-5)
    assert change.recalibrated
    assert change.threshold[1] != change.threshold[0]  # fewer pictures than neighbours: each is looked at


def test_in_spade_with_enough_good_pictures_the_threshold_only_falls(tiny_backbone, good, alarms):
    detector = make(SPADE, tiny_backbone, neighbours=3).fit(good)
    before = detector.calibration_
    detector.update(add=[*sorted(alarms.iterdir()), stripes(60), stripes(61)])
    assert (detector.calibration_.scores <= before.scores).all()


def test_in_padim_the_threshold_stays_and_it_is_said(load, alarms):
    detector = load(PaDiM)
    before = detector.calibration_
    change = detector.update(add=alarms)
    assert (change.recalibrated, change.threshold[0]) == (False, change.threshold[1])
    assert detector.calibration_ is before
    assert len(before.scores) == len(before.pictures) == 4  # the false alarms do not join


def test_a_spade_of_before_that_does_not_say_which_pictures_set_it_keeps_its_threshold(files, alarms, tmp_path):
    header, tensors = read_artifact(files[SPADE])
    del header["tensors"], tensors["calibration.pictures"]
    detector = SPADE.load(write_artifact(tmp_path / "old.trecall", header, tensors))
    change = detector.update(add=alarms)
    assert (change.recalibrated, change.threshold[0]) == (False, change.threshold[1])


@both
def test_without_calibration_there_is_no_threshold_to_follow(tiny_backbone, kind, good, alarms):
    detector = make(kind, tiny_backbone, holdout=0).fit(good)
    change = detector.update(add=alarms)
    assert math.isnan(change.threshold[1])
    assert change.still_anomalous is None


@both
def test_a_picture_that_leaves_no_longer_sets_the_threshold(load, tiny_backbone, kind, good):
    detector = load(kind)
    before, gone = detector.calibration_, 2
    name = detector.pictures_[before.pictures[gone]].path
    change = detector.update(remove=name)
    after = detector.calibration_
    assert after.scores == pytest.approx(np.delete(before.scores, gone))
    kept = [detector.pictures_[at].path for at in after.pictures]
    assert kept == [path for path in (str(good / f"{at:02}.png") for at in before.pictures) if path != name]
    assert change.estimated == (kind is PaDiM)


# ---------------------------------------------------------------------- leaving


@both
def test_a_model_that_pictures_left_is_that_of_a_fit_on_the_rest(load, tiny_backbone, kind, good, alarms):
    detector = load(kind)
    detector.update(add=alarms)
    gone = [good / "04.png", good / "17.png", sorted(alarms.iterdir())[1]]
    change = detector.update(remove=gone)
    assert [one.path for one in change.pictures] == list(map(str, gone))
    rest = [path for path in [*sorted(good.iterdir()), *sorted(alarms.iterdir())] if path not in gone]
    refit = make(kind, tiny_backbone, holdout=0).fit(rest)
    assert detector.pictures_ == refit.pictures_
    for picture in (stripes(100), damaged(100), odd(50)):
        assert detector.predict(picture).score == pytest.approx(refit.predict(picture).score, rel=1e-3)


def test_in_spade_the_threshold_follows_a_picture_that_leaves(load, tiny_backbone, good):
    detector = load(SPADE)
    gone = next(good / f"{at:02}.png" for at in range(24) if at not in detector.calibration_.pictures)
    detector.update(remove=gone)
    alone, held = calibrated_alone(SPADE, tiny_backbone, good, without=[gone])
    assert detector.calibration_.scores == pytest.approx(alone.score(held), rel=1e-5)


@both
def test_removing_the_pictures_of_the_last_update_undoes_it(load, files, kind, alarms, tmp_path):
    detector = load(kind)
    detector.update(add=alarms)
    assert detector.update(remove=sorted(alarms.iterdir())).what == "undo"
    assert written(detector, tmp_path) == digest(files[kind])


@pytest.fixture
def moving(tiny_backbone, good, tmp_path):
    """A PaDiM whose good pictures may be moved, and their folder."""
    folder = tmp_path / "own"
    folder.mkdir()
    for path in sorted(good.iterdir())[:8]:
        (folder / path.name).write_bytes(path.read_bytes())
    return make(PaDiM, tiny_backbone).fit(folder), folder


def test_a_picture_whose_file_is_gone_or_another_cannot_leave_a_padim_and_it_is_said_why(moving):
    detector, folder = moving
    (folder / "02.png").unlink()
    cv2.imwrite(str(folder / "03.png"), stripes(99))
    change = detector.update(remove=[folder / name for name in ("02.png", "03.png", "05.png")])
    assert [one.path for one in change.pictures] == [str(folder / "05.png")]
    assert [str(error) for error in change.skipped] == [
        f"{folder / name}: the model keeps sums, not pictures, and subtracts one by its file, which is not there with "
        "the bytes that were learnt. Give that file's path, or fit again without it."
        for name in ("02.png", "03.png")
    ]
    assert detector.gaussians_.count == 7


def test_a_moved_file_lets_a_picture_leave_a_padim(moving, tmp_path):
    detector, folder = moving
    moved = (folder / "02.png").rename(tmp_path / "moved.png")
    assert [one.path for one in detector.update(remove=moved).pictures] == [str(folder / "02.png")]


def test_what_joined_a_padim_leaves_without_its_file(load):
    detector = load(PaDiM)
    detector.update(add=[odd(1), odd(2)])
    detector.update(add=[odd(3)])
    alone = load(PaDiM)
    alone.update(add=[odd(2)])
    assert [one.path for one in detector.update(remove=["array[0]"]).pictures] == ["array[0]", "array[0]"]
    assert detector.predict(damaged(5)).score == alone.predict(damaged(5)).score


def test_a_picture_that_reads_otherwise_than_it_was_learnt_is_refused(moving, tmp_path, monkeypatch):
    detector, folder = moving
    read = detector._digest
    monkeypatch.setattr(detector, "_digest", lambda *given: replace(read(*given), patches=read(*given).patches + 9))
    state = written(detector, tmp_path)
    message = r"The pictures cannot be subtracted: gaussians.left \(never learnt\). Fit a new model instead."
    with pytest.raises(DataError, match=message):
        detector.update(remove=folder / "02.png")
    assert written(detector, tmp_path) == state


@both
def test_the_last_picture_cannot_leave(load, kind, good):
    with pytest.raises(DataError, match=r"^No picture would be left. Fit a new model instead.$"):
        load(kind).update(remove=sorted(good.iterdir()))


def test_a_spade_must_keep_a_picture_to_judge_those_by_that_set_the_threshold(load, good):
    detector = load(SPADE)
    which = {detector.pictures_[at].path for at in detector.calibration_.pictures}
    with pytest.raises(DataError, match="No picture would be left beside those that set the threshold"):
        detector.update(remove=[path for path in good.iterdir() if str(path) not in which])


# ---------------------------------------------------------------------- the history


@both
def test_any_number_of_steps_is_undone_to_the_byte(load, files, kind, good, alarms, tmp_path):
    pictures = sorted(alarms.iterdir())
    detector, states = load(kind), [digest(files[kind])]
    for change in (
        {"add": pictures[:2]},
        {"add": pictures[2:]},
        {"remove": good / "05.png"},
        {"remove": [good / "06.png", pictures[0]]},
    ):
        detector.update(**change)
        states.append(written(detector, tmp_path))
        detector = kind.load(tmp_path / "now.trecall")
    detector.teach([stripes(400)], apply=True)
    assert [step.what for step in detector.history_] == ["add", "add", "remove", "remove", "teach"]
    assert [step.vectors for step in detector.history_[:4]] == [(24, 26), (26, 30), (30, 29), (29, 27)]
    assert len(set(states)) == 5
    for state in states[::-1]:
        detector.undo()
        assert written(detector, tmp_path) == state
        detector = kind.load(tmp_path / "now.trecall")
    with pytest.raises(SettingError, match="There is nothing to undo"):
        detector.undo()


@both
def test_a_step_costs_the_file_its_pictures_and_no_second_model(load, files, kind, alarms, tmp_path):
    detector = load(kind)
    detector.update(add=alarms)
    more = detector.save(tmp_path / "more.trecall").stat().st_size - files[kind].stat().st_size
    grid, numbers = 16 * 16, 100
    own = 4 * grid * numbers if kind is PaDiM else detector.gallery_.size(1, detector.extractor.shapes())[0]
    assert 6 * own < more < 6 * own + 10_000


@both
def test_an_update_that_fails_leaves_the_detector_as_it_was(load, files, kind, alarms, tmp_path, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    detector = load(kind)
    monkeypatch.setattr(kind, "_followed", broken)
    with pytest.raises(KeyboardInterrupt):
        detector.update(add=alarms)
    assert written(detector, tmp_path) == digest(files[kind])


@both
def test_update_and_undo_are_those_of_patchcore(kind):
    assert kind.update is Changing.update
    assert kind.undo is Changing.undo


@both
def test_wrong_use_is_named(load, tiny_backbone, kind, alarms):
    for given in ({}, {"add": alarms, "remove": alarms}):
        with pytest.raises(SettingError, match="update takes one of add, remove, false_alarm_rate and threshold"):
            load(kind).update(**given)
    with pytest.raises(NotFittedError):
        make(kind, tiny_backbone).update(add=alarms)


@both
def test_only_what_is_inside_the_region_of_interest_counts(tiny_backbone, kind, good, alarms, tmp_path):
    roi = np.zeros((70, 90), bool)
    roi[:, :45] = True
    detector = make(kind, tiny_backbone, roi=roi).fit(good)
    state = written(detector, tmp_path)
    detector.update(add=alarms)
    refit = make(kind, tiny_backbone, roi=roi, holdout=0).fit([*sorted(good.iterdir()), *sorted(alarms.iterdir())])
    assert detector.predict(damaged(9)).score == pytest.approx(refit.predict(damaged(9)).score, rel=1e-4)
    detector.undo()
    assert written(detector, tmp_path) == state


# ---------------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("joined", lambda one: one[:, :9]),
        ("joined", lambda one: one.astype(np.float64)),
        ("joined", lambda one: one * np.nan),
        ("left", lambda one: np.concatenate([one] * 40)),
        ("left", lambda one: one + 100),
    ],
)
def test_a_damaged_part_is_named(load, good, alarms, tmp_path, part, value):
    detector = load(PaDiM)
    detector.update(add=alarms)
    detector.update(remove=good / "07.png")
    header, tensors = read_artifact(detector.save(tmp_path / "m.trecall"))
    tensors[f"gaussians.{part}"] = value(tensors[f"gaussians.{part}"])
    del header["tensors"]
    with pytest.raises(ModelFileError, match=rf"is damaged: gaussians\.{part}"):
        PaDiM.load(write_artifact(tmp_path / "m.trecall", header, tensors))
