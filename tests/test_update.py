"""update: pictures join and leave a model without those that it was fitted on, and every step can be undone."""

import numpy as np
import pytest

from tests.parts import damaged, digest, made_to_grow, odd, stripes, written
from totalrecall import PatchCore
from totalrecall.detectors.model_file import read_artifact, read_header, write_artifact
from totalrecall.errors import DataError, ModelFileError, NotFittedError, SettingError
from totalrecall.patchcore.update import covering, estimated_radius


@pytest.fixture(scope="module")
def saved(tiny_backbone, good, tmp_path_factory):
    return made_to_grow(tiny_backbone).fit(good).save(tmp_path_factory.mktemp("model") / "part.trecall")


@pytest.fixture
def detector(saved):
    return PatchCore.load(saved)


# ---------------------------------------------------------------------- joining


def test_false_alarms_pass_once_they_are_added_and_defects_do_not(detector, alarms):
    pictures = sorted(alarms.iterdir())
    assert (detector.score(pictures) > detector.threshold_).all()
    change = detector.update(add=pictures)
    scores = detector.score(pictures)
    assert (scores <= detector.threshold_).all()
    assert detector.predict(damaged(300)).is_anomalous
    assert [one.path for one in change.pictures] == list(map(str, pictures))
    assert [one.after for one in change.pictures] == pytest.approx(scores.tolist(), rel=1e-4)
    assert all(one.before > change.threshold[0] for one in change.pictures)
    assert change.vectors[1] - change.vectors[0] == sum(one.vectors for one in change.pictures) > 0
    assert (detector.bank_.vectors.shape[0], detector.threshold_) == (change.vectors[1], change.threshold[1])


def test_every_added_patch_is_within_the_radius(detector, saved, alarms):
    radius = read_header(saved)["coreset"]["radius"]
    detector.update(add=alarms)
    for picture in sorted(alarms.iterdir()):
        assert detector.predict(picture).anomaly_map.max() <= radius * (1 + 1e-4)


def test_what_enters_is_the_greedy_going_on_from_the_bank():
    rng = np.random.default_rng(0)
    bank, patches = (rng.standard_normal((n, 5), dtype=np.float32) for n in (40, 300))
    chosen = covering(bank, patches, 1.2, dimensions=5, seed=0)
    distances = np.linalg.norm(patches[:, None] - bank, axis=2).min(axis=1)
    expected = []
    while distances.max() > 1.2:  # the plain loop
        expected.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(patches - patches[expected[-1]], axis=1))
    assert chosen.tolist() == expected
    assert len(expected) > 10
    assert len(covering(bank, bank, 1e-6, dimensions=5, seed=0)) == 0


def test_the_radius_of_a_model_that_does_not_say_is_estimated_from_its_last_vector(detector, saved):
    bank, told = detector.bank_, read_header(saved)["coreset"]["radius"]
    points = bank.vectors.astype(np.float64)
    last = np.linalg.norm(points[:-1] - points[-1], axis=1).min()
    estimate = estimated_radius(bank, dimensions=bank.vectors.shape[1], seed=42)
    assert estimate == pytest.approx(last, rel=1e-5)
    assert told <= estimate <= 1.2 * told


def test_a_picture_near_the_bank_that_does_not_pass_enters_by_its_worst_patches(saved, alarms, tmp_path):
    """With a radius that covers everything nothing would enter, and the false alarm would stay one."""
    header, tensors = read_artifact(saved)
    header["coreset"]["radius"] = 1e6
    detector = PatchCore.load(write_artifact(tmp_path / "wide.trecall", header, tensors))
    picture = min(alarms.iterdir())
    change = detector.update(add=picture)
    assert change.pictures[0].forced == change.pictures[0].vectors > 0
    assert not detector.predict(picture).is_anomalous
    cells = detector.bank_.origin[-change.pictures[0].vectors :]
    assert (cells[:, 0] == 24).all()


def test_known_pictures_are_left_out_and_bad_ones_do_not_stop_the_others(detector, good, alarms, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    pictures = sorted(alarms.iterdir())
    bad = [tmp_path / "text.png", tmp_path / "gone.png"]
    change = detector.update(add=[good / "03.png", pictures[0], *bad, pictures[0]])
    assert change.known == [str(good / "03.png"), str(pictures[0])]
    assert [one.path for one in change.pictures] == [str(pictures[0])]
    assert [str(error).split(" ")[0] for error in change.skipped] == list(map(str, bad))


def test_nothing_new_is_no_step(detector, good, saved, tmp_path):
    change = detector.update(add=good / "03.png")
    assert (change.pictures, detector.history_) == ([], [])
    assert written(detector, tmp_path) == digest(saved)


def test_arrays_join_too(detector):
    change = detector.update(add=[odd(3), odd(4)])
    assert [one.path for one in change.pictures] == ["array[0]", "array[1]"]
    assert not detector.predict(odd(3)).is_anomalous


# ---------------------------------------------------------------------- the threshold follows


def test_the_threshold_is_that_of_a_calibration_with_the_new_vectors(tiny_backbone, good, alarms):
    """Against scoring all good pictures again, each by a bank without its fold and with the new vectors."""
    from totalrecall.patchcore.bank import Bank
    from totalrecall.patchcore.fitting import learn

    detector = made_to_grow(tiny_backbone, scoring="map1pct").fit(good)
    detector.update(add=alarms)
    new = detector.bank_.origin[:, 0] >= 24
    learnt, _ = learn(detector.extractor, detector.settings, sorted(good.iterdir()))
    scores = {}
    for fold in learnt.folds:
        bank = learnt.bank(learnt.choose(without=fold))
        vectors = np.concatenate([bank.vectors, detector.bank_.vectors[new]])
        bigger = Bank(vectors, np.zeros((len(vectors), 3), np.int32), bank.pictures)
        for seen in learnt.reread(fold):
            distances = bigger.nearest(seen.patches)[0][:, 0]
            scores[seen.index] = np.sort(distances)[-max(len(distances) // 100, 1) :].mean()
    calibration = detector.calibration_
    told = np.array([scores[picture] for picture in calibration.pictures])
    assert calibration.scores == pytest.approx(told, rel=2e-3)  # float16
    assert (calibration.scores >= told * (1 - 2e-3)).all()


def test_scores_by_extent_follow_in_proportion_and_are_upper_bounds(saved, good, tmp_path):
    """Every score falls as that of the whole grid does, known here from the fit's distances and the new vectors."""
    from totalrecall.patchcore.fitting import learn

    header, tensors = read_artifact(saved)
    header["coreset"]["radius"] = 1e-6  # every patch of the newcomers enters, so that distances fall
    detector = PatchCore.load(write_artifact(tmp_path / "narrow.trecall", header, tensors))
    before, judge = detector.calibration_, detector.judge
    detector.update(add=[stripes(300), stripes(301)])
    added = detector.bank_.vectors[detector.bank_.origin[:, 0] >= 24]
    learnt, _ = learn(detector.extractor, detector.settings, sorted(good.iterdir()))
    told = np.zeros(24)
    for fold in learnt.folds:
        bank = learnt.bank(learnt.choose(without=fold))
        for seen in learnt.reread(fold):
            old = bank.nearest(seen.patches)[0][:, 0].reshape(learnt.grid)
            new = np.minimum(old.ravel(), np.linalg.norm(seen.patches[:, None] - added, axis=2).min(axis=1))
            scores = [judge.score_of_grid(grid.reshape(learnt.grid), seen.picture) for grid in (old, new)]
            told[seen.index] = before.scores[seen.index] * scores[1] / scores[0]
    after = detector.calibration_.scores
    assert (after >= told * (1 - 2e-3)).all()
    assert after == pytest.approx(told, rel=0.25)  # patches that were not kept stay where they were
    assert (after < before.scores * (1 - 1e-3)).sum() > 3


def test_scores_of_the_calibration_only_fall(detector, alarms):
    before = detector.calibration_
    detector.update(add=alarms)
    after = detector.calibration_
    assert (after.scores <= before.scores).all()
    assert (after.peaks <= before.peaks).all()
    assert len(after.scores) == 24  # the false alarms do not join


def test_a_model_that_keeps_no_evidence_keeps_its_threshold(saved, alarms, tmp_path):
    header, tensors = read_artifact(saved)
    kept = {name: one for name, one in tensors.items() if not name.startswith("evidence.")}
    del header["coreset"]
    path = write_artifact(tmp_path / "old.trecall", header, kept)
    detector = PatchCore.load(path)
    change = detector.update(add=alarms)
    assert not change.recalibrated
    assert change.threshold[0] == change.threshold[1]
    assert (detector.score(alarms) <= detector.threshold_).all()
    detector.undo()
    assert written(detector, tmp_path) == digest(path)


# ---------------------------------------------------------------------- the history


def test_any_number_of_steps_is_undone_to_the_byte(detector, saved, good, alarms, tmp_path):
    pictures = sorted(alarms.iterdir())
    states = [digest(saved)]
    for change in (
        {"add": pictures[:2]},
        {"add": pictures[2:]},
        {"remove": good / "05.png"},
        {"remove": pictures[0]},
    ):
        detector.update(**change)
        states.append(written(detector, tmp_path))
        detector = PatchCore.load(tmp_path / "now.trecall")
    detector.teach([stripes(400)], apply=True)
    assert [step.what for step in detector.history_] == ["add", "add", "remove", "remove", "teach"]
    assert len(set(states)) == 5
    for state in states[::-1]:
        detector.undo()
        assert written(detector, tmp_path) == state
        detector = PatchCore.load(tmp_path / "now.trecall")
    with pytest.raises(SettingError, match="There is nothing to undo: the model is as it was fitted"):
        detector.undo()


def test_undo_gives_back_what_another_version_wrote(saved, alarms, tmp_path):
    header, tensors = read_artifact(saved)
    header.pop("tensors")
    path = write_artifact(tmp_path / "old.trecall", {**header, "library": "0.0.9"}, tensors)
    detector = PatchCore.load(path)
    detector.update(add=alarms)
    assert read_artifact(detector.save(tmp_path / "new.trecall"))[0]["library"] != "0.0.9"
    detector.undo()
    assert written(detector, tmp_path) == digest(path)


def test_the_history_says_what_when_and_by_which_picture(detector, alarms):
    picture = min(alarms.iterdir())
    change = detector.update(add=picture)
    (step,) = detector.history_
    assert (step.what, step.vectors, step.threshold) == ("add", change.vectors, change.threshold)
    assert step.pictures == [
        {"path": str(picture), "sha256": digest(picture), "vectors": change.pictures[0].vectors},
    ]
    assert step.when.endswith("+00:00")


def test_fitting_again_forgets_the_history(tiny_backbone, good, alarms):
    detector = made_to_grow(tiny_backbone).fit(good)
    detector.update(add=alarms)
    detector.teach([stripes(400)], apply=True)
    detector.fit(good)
    assert detector.history_ == []
    assert detector.threshold_ == detector.calibration_.threshold


def test_an_update_that_fails_leaves_the_detector_as_it_was(detector, saved, alarms, tmp_path, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("totalrecall.patchcore.calibration_patches.Recalibration.calibration", broken)
    with pytest.raises(KeyboardInterrupt):
        detector.update(add=alarms)
    assert written(detector, tmp_path) == digest(saved)


# ---------------------------------------------------------------------- leaving


def test_removing_the_pictures_of_the_last_update_undoes_it(detector, saved, alarms, tmp_path):
    detector.update(add=alarms)
    change = detector.update(remove=sorted(alarms.iterdir()))
    assert change.what == "undo"
    assert written(detector, tmp_path) == digest(saved)


def test_a_removed_picture_is_gone_from_bank_and_calibration(detector):
    scores = detector.calibration_.scores
    counts = np.bincount(detector.bank_.origin[:, 0], minlength=24)
    gone = int(counts.argmax())
    path = detector.pictures_[gone].path
    change = detector.update(remove=path)
    assert change.pictures[0].vectors == counts[gone] > 0
    assert len(detector.bank_) == counts.sum() - counts[gone]
    assert path not in {picture.path for picture in detector.pictures_}
    assert np.bincount(detector.bank_.origin[:, 0], minlength=23).tolist() == np.delete(counts, gone).tolist()
    calibration = detector.calibration_
    assert len(calibration.scores) == 23
    assert calibration.pictures.tolist() == list(range(23))
    assert (calibration.scores >= np.delete(scores, gone)).all()  # a smaller bank brings no picture nearer


def test_a_removed_false_alarm_is_one_again_and_the_others_stay(detector, alarms):
    pictures = sorted(alarms.iterdir())
    detector.update(add=pictures[:1])
    alone = detector.threshold_
    detector.update(add=pictures[1:])
    detector.update(remove=pictures[1:])  # not the last step any more than the one before: undone
    assert detector.threshold_ == alone
    detector.update(add=pictures[1:])
    detector.update(remove=pictures[0])
    assert len(detector.pictures_) == 24 + 5
    assert not detector.predict(pictures[3]).is_anomalous


def test_a_picture_is_named_by_path_hash_or_file(detector, good, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes((good / "04.png").read_bytes())
    names = [
        str(good / "01.png"),
        digest(good / "02.png"),
        digest(good / "03.png")[:10],
        copy,
        "none.png",
        "0123456789",
    ]
    change = detector.update(remove=names)
    assert [one.path[-6:] for one in change.pictures] == ["01.png", "02.png", "03.png", "04.png"]
    assert [str(error).split(":")[0] for error in change.skipped] == ["none.png", "0123456789"]


def test_the_last_picture_cannot_leave(detector, good):
    with pytest.raises(DataError, match="Nothing of the bank would be left"):
        detector.update(remove=[str(path) for path in good.iterdir()])


# ---------------------------------------------------------------------- teaching


def test_a_missed_defect_says_what_catching_it_costs_and_changes_nothing(detector, saved, tmp_path):
    faint = stripes(500)
    told, skipped = detector.teach([faint, damaged(500)])
    assert skipped == []
    missed, caught = told
    assert (missed.caught, caught.caught) == (False, True)
    assert missed.score == pytest.approx(detector.predict(faint).score, rel=1e-4)
    assert missed.threshold < missed.score <= np.nextafter(missed.threshold, np.inf)
    scores = detector.calibration_.scores
    assert missed.p_value == (1 + (scores >= missed.score).sum()) / 25
    assert missed.p_value - 1 / 25 < missed.false_alarm_rate <= missed.p_value + 1e-12  # a p-value counts whole ranks
    assert written(detector, tmp_path) == digest(saved)


def test_an_applied_lesson_sets_the_threshold_and_stays(detector, alarms, tmp_path):
    faint, before = stripes(500), detector.threshold_
    (lesson,), _ = detector.teach([faint], apply=True)
    assert detector.threshold_ == lesson.threshold < before
    assert detector.predict(faint).is_anomalous
    detector = PatchCore.load(detector.save(tmp_path / "taught.trecall"))
    assert detector.threshold_ == lesson.threshold
    detector.update(add=alarms)
    assert detector.threshold_ == lesson.threshold
    assert (detector.score(alarms) <= lesson.threshold).all()
    detector.undo()
    detector.undo()
    assert detector.threshold_ == before


def test_a_lesson_that_is_known_changes_nothing(detector):
    detector.teach([damaged(1)], apply=True)
    assert detector.history_ == []


# ---------------------------------------------------------------------- hostile files and wrong use


def test_wrong_use_is_named(detector, tiny_backbone, alarms):
    for given in ({}, {"add": alarms, "remove": alarms}):
        with pytest.raises(SettingError, match="update takes one of add, remove, false_alarm_rate and threshold"):
            detector.update(**given)
    with pytest.raises(NotFittedError):
        made_to_grow(tiny_backbone).update(add=alarms)


def test_more_pictures_than_memory_holds_are_refused_beforehand(detector, alarms, monkeypatch):
    monkeypatch.setattr("totalrecall.detectors.changes.available_memory", lambda: 500_000)
    message = r"add got 6 pictures, which need .* of memory at once. The free memory holds 2. Add fewer at a time."
    with pytest.raises(SettingError, match=message):
        detector.update(add=alarms)
    assert detector.history_ == []


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("evidence.cells", lambda one: one + 1000),
        ("evidence.vectors", lambda one: one[:, :, :5]),
        ("evidence.pictures", lambda one: one + 90),
        ("evidence.scores", lambda _: None),
        ("evidence.cells", lambda one: one.astype(np.float32)),
        ("coreset", lambda _: {"radius": "x", "pictures": 3}),
        ("coreset", lambda _: {"radius": 1}),
        ("history", lambda _: [{"what": "add"}]),
        ("history", lambda _: 3),
        ("taught", lambda _: {"threshold": "x"}),
    ],
)
def test_a_damaged_part_is_named(saved, tmp_path, part, value):
    header, tensors = read_artifact(saved)
    where = tensors if part.startswith("evidence") else header
    where[part] = value(where.get(part))
    kept = {name: one for name, one in tensors.items() if one is not None}
    del header["tensors"]
    with pytest.raises(ModelFileError, match="is damaged"):
        PatchCore.load(write_artifact(tmp_path / "m.trecall", header, kept))
