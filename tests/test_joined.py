"""joined: several memory banks in one detector; one score, one threshold, one map, one file."""

import copy
import pickle
import re
import warnings
from dataclasses import replace
from functools import reduce
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.commands import complaint, run
from tests.parts import damaged, odd, stripes
from totalrecall import JoinedPatchCore, Monitor, PatchCore, load_detector
from totalrecall.backbones import Backbone
from totalrecall.calibration import Calibration
from totalrecall.detectors.model_file import read_artifact, read_header, write_artifact
from totalrecall.errors import (
    DataError,
    ModelFileError,
    NotFittedError,
    PictureError,
    SettingError,
    SkippedPictureWarning,
)
from totalrecall.export.build import check_exportable
from totalrecall.features.extractor import FeatureExtractor
from totalrecall.patchcore.joined_state import join_scores
from totalrecall.patchcore.plan import make_plan

SIZES = (64, 96)
SETTINGS = {"coreset": 0.2, "at_least": 1, "precision": "f32", "false_alarm_rate": 0.1}


def joined(backbone, **options):
    return JoinedPatchCore(**{"backbone": backbone, "sizes": SIZES, **SETTINGS, **options})


def alone(backbone, size, **options):
    return PatchCore(**{"backbone": backbone, "size": size, **SETTINGS, **options})


@pytest.fixture(scope="module")
def fitted(tiny_backbone, good):
    return joined(tiny_backbone).fit(good)


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    return fitted.save(tmp_path_factory.mktemp("joined") / "part.trecall")


@pytest.fixture
def detector(saved):
    return load_detector(saved)


@pytest.fixture(scope="module")
def members(tiny_backbone, good):
    return [alone(tiny_backbone, size).fit(good) for size in SIZES]


@pytest.fixture(scope="module")
def other_backbone(tiny_backbone):
    """The same network under another name, with other advice: 96 pixels, and one layer."""
    header = {**tiny_backbone.to_header(), "name": "other", "advice": {"size": 96, "layers": [2], "patch_size": 1}}
    return Backbone.from_header(header, tiny_backbone.graph)


# ---------------------------------------------------------------------- the score


def test_the_score_is_the_mean_of_the_members_scores_in_standard_deviations_of_the_good_pictures(fitted, members):
    deviations = [member.calibration_.scores.std(ddof=1) for member in members]
    for picture in (stripes(100), damaged(101), odd(102)):
        expected = np.mean([member.predict(picture).score / s for member, s in zip(members, deviations, strict=True)])
        assert fitted.predict(picture).score == pytest.approx(expected, rel=1e-9)
    assert [one["scale"] for one in fitted.facts()["members"]] == pytest.approx(deviations, rel=1e-12)


def test_the_threshold_comes_from_the_joined_scores_of_the_good_pictures(fitted, members):
    scores = [member.calibration_.scores for member in members]
    expected = np.mean([own / own.std(ddof=1) for own in scores], axis=0)
    assert fitted.calibration_.scores == pytest.approx(expected, rel=1e-12)
    assert fitted.threshold_ == pytest.approx(Calibration(expected, expected, 0.1).threshold, rel=1e-12)
    assert fitted.predict(damaged(300)).is_anomalous
    assert not fitted.predict(stripes(301)).is_anomalous


def test_the_map_is_the_mean_of_the_members_maps_and_its_peaks_lie_between_theirs(fitted, members):
    scales = [one["scale"] for one in fitted.facts()["members"]]
    result = fitted.predict(damaged(300))
    maps = [member.predict(damaged(300)).anomaly_map / s for member, s in zip(members, scales, strict=True)]
    np.testing.assert_allclose(result.anomaly_map, np.mean(maps, axis=0), rtol=1e-5)
    assert result.regions
    assert result.regions[0].peak == result.anomaly_map.max() > result.pixel_threshold
    peaks = np.stack([member.calibration_.peaks / s for member, s in zip(members, scales, strict=True)])
    joined_peaks = fitted.calibration_.peaks
    assert (joined_peaks <= peaks.mean(axis=0) * (1 + 1e-6)).all()  # the maps need not peak at one place
    assert (joined_peaks >= peaks.max(axis=0) / len(peaks) * (1 - 1e-6)).all()


def test_the_worst_place_and_its_nearest_patch_are_those_of_the_member_that_is_most_sure(fitted, members):
    scales = [one["scale"] for one in fitted.facts()["members"]]
    result = fitted.predict(damaged(300))
    own = [member.predict(damaged(300)) for member in members]
    assert (result.worst, result.nearest) in [(one.worst, one.nearest) for one in own]
    assert all(scale > 0 for scale in scales)
    x, y = result.worst
    assert 35 <= x <= 65
    assert 25 <= y <= 50


def test_alone_in_a_folder_and_from_the_file_the_score_is_the_same_to_the_bit(fitted, detector, alarms):
    pictures = sorted(alarms.iterdir())
    scores = [fitted.predict(picture).score for picture in pictures]
    for other in (fitted, detector):
        assert other.score(pictures).tolist() == scores
        maps = [result.anomaly_map for result in other.predict_stream(pictures)]
        for picture, values in zip(pictures, maps, strict=True):
            np.testing.assert_array_equal(fitted.predict(picture).anomaly_map, values)


def test_backbones_are_joined_each_with_the_layers_and_the_size_that_suit_it(tiny_backbone, other_backbone, good):
    both = joined([tiny_backbone, other_backbone], sizes=None, patch_size=None).fit(good)
    assert [(one["backbone"], one["size"], one["layers"]) for one in both.facts()["members"]] == [
        ("tiny", 256, [2, 3]),
        ("other", 96, [2]),
    ]
    assert both.predict(damaged(300)).is_anomalous
    pair = JoinedPatchCore(backbone=[tiny_backbone, other_backbone], sizes=[64, 96], **SETTINGS)
    assert [(one.backbone.name, one.recipe.size) for one in pair.members] == [("tiny", 64), ("other", 96)]


@pytest.mark.parametrize(
    "options",
    [
        {"tile": 2},
        {"resize": "crop"},
        {"folds": 1},
        {"new_parts": True},
        {"ignore_outliers": True},
        {"scoring": "max"},
        {"scoring": "paper"},
        {"roi": np.arange(90) >= np.full((70, 1), 20)},
        {"min_area": 30},
    ],
)
def test_it_takes_the_settings_of_its_members(tiny_backbone, good, tmp_path, options):
    detector = joined(tiny_backbone, **options).fit(good)
    result = detector.predict(damaged(300))
    assert result.is_anomalous
    again = load_detector(detector.save(tmp_path / "m.trecall"))
    assert again.predict(damaged(300)).score == result.score
    assert again.threshold_ == detector.threshold_
    if "roi" in options:
        assert (result.anomaly_map[:, :20] == 0).all()


def test_a_crop_of_so_many_pixels_is_refused_where_it_would_be_another_share_for_each_size(tiny_backbone):
    with pytest.raises(SettingError) as caught:
        joined(tiny_backbone, resize="crop", crop=48)
    assert str(caught.value) == (
        "crop is in pixels of one size, got crop 48 for the sizes 64 96: each would see another share of the picture. "
        "Cut the pictures beforehand, or mark what counts with roi."
    )
    alike = JoinedPatchCore(backbone=[tiny_backbone, "compact"], sizes=(64,), resize="crop", crop=48)
    assert [member.recipe.piece for member in alike.members] == [48, 48]


def test_one_or_two_good_pictures_tell_no_deviation_and_the_banks_own_distances_stand_in(tiny_backbone, tmp_path):
    for count in (1, 2):
        detector = joined(tiny_backbone).fit([stripes(at) for at in range(count)])
        assert np.isnan(detector.threshold_)
        spacings = [member.bank_.nearest(member.bank_.vectors, 2)[0][:, 1].mean() for member in detector.members]
        assert [one["scale"] for one in detector.facts()["members"]] == pytest.approx(spacings, rel=1e-6)
        assert detector.predict(damaged(300)).score > 2 * detector.predict(stripes(100)).score
        again = load_detector(detector.save(tmp_path / f"{count}.trecall"))
        assert again.predict(damaged(300)).is_anomalous is None


def test_members_that_left_other_pictures_out_are_calibrated_on_those_that_all_have_scored(tiny_backbone, good):
    pictures = [*sorted(good.iterdir()), *(damaged(at) for at in (500, 501))]
    detector = joined(tiny_backbone, ignore_outliers=True).fit(pictures)
    own = [set(member.calibration_.pictures.tolist()) for member in detector.members]
    assert set(detector.calibration_.pictures.tolist()) == reduce(set.intersection, own)
    assert len(detector.calibration_.pictures) < len(pictures)
    assert len(detector.outliers_) == 2


# ---------------------------------------------------------------------- the fit


def test_the_plan_and_the_report_are_of_all_members(tiny_backbone, good):
    plans, told = [], []
    detector = joined(tiny_backbone).fit(good, announce=plans.append, progress=lambda *step: told.append(step))
    (plan,) = plans
    assert plan.names == ["tiny at 64 pixels", "tiny at 96 pixels"]
    assert plan.limit >= plan.memory > max(own.memory for own in plan.plans)  # the first stays beside the second
    assert [own.patches for own in plan.plans] == [24 * 64, 24 * 144]
    report = detector.report_
    assert (report.patches, report.pictures, report.calibration_pictures) == (24 * (64 + 144), 24, 24)
    assert report.vectors == sum(len(member.bank_) for member in detector.members) == detector.facts()["bank_vectors"]
    assert report.plan["members"][1]["member"] == "tiny at 96 pixels"
    for step in ("features", "coreset", "calibration"):
        done = [made / total for name, made, total in told if name == step]
        assert done == sorted(done)
        assert done[-1] == 1


def test_too_little_memory_names_the_member(tiny_backbone, good):
    with pytest.raises(SettingError, match=r"^memory must be at least .* This is for the member tiny at 64 pixels\.$"):
        joined(tiny_backbone).fit(good, memory=1 << 20)


def test_half_of_the_free_memory_is_named_as_such_for_several_banks_too(tiny_backbone, good, monkeypatch):
    for module in ("totalrecall.patchcore.plan", "totalrecall.patchcore.fitting"):
        monkeypatch.setattr(f"{module}.available_memory", lambda: 0, raising=False)
        monkeypatch.setattr(f"{module}.resident_memory", lambda: 15 * 10**7, raising=False)
    with pytest.raises(SettingError, match=r"got 150MB \(half of the free memory\)\. .*This is for the member tiny at"):
        joined(tiny_backbone).fit(good)
    with pytest.raises(SettingError, match=r"got 150MB\. .*This is for the member tiny at"):
        joined(tiny_backbone).fit(good, memory=15 * 10**7)


def test_the_memory_that_a_later_member_lacks_is_told_as_that_of_the_whole_and_then_is_enough(
    tiny_backbone, good, monkeypatch
):
    monkeypatch.setattr("totalrecall.features.memory.resident_memory", lambda: 0)
    needed = 1 << 20
    for fit, named in ((alone(tiny_backbone, 96).fit, "bank"), (joined(tiny_backbone).fit, "those before it hold ")):
        with pytest.raises(SettingError, match=named) as caught:
            fit(good, memory=needed)
        needed = 10**6 * int(re.findall(r"at least (\d+)MB", str(caught.value))[0])
    joined(tiny_backbone).fit(good, memory=needed)


def test_an_update_of_a_model_without_a_threshold_says_nothing_of_one(tiny_backbone):
    detector = joined(tiny_backbone).fit([stripes(0), stripes(1)])
    for change in (detector.update(add=[stripes(2)]), detector.update(remove=detector.pictures_[0].sha256)):
        assert change.pictures
        assert "threshold" not in " ".join(change.lines())


def test_where_one_member_alone_is_fitted_in_chunks_the_pictures_that_both_have_scored_set_the_threshold(
    tiny_backbone, monkeypatch
):
    monkeypatch.setattr("totalrecall.features.memory.resident_memory", lambda: 0)  # that of the test run is another
    pictures, plans = [stripes(at) for at in range(60)], []
    detector = joined(tiny_backbone, sizes=(128, 256), coreset=0.02)
    small = make_plan(detector.members[0].extractor, detector.members[0].settings, pictures, 10**12)
    detector.fit(pictures, memory=int(1.02 * small.exact), announce=plans.append)
    assert [plan.way for plan in plans[0].plans] == ["memory", "chunks"]
    scored = [len(member.calibration_.scores) for member in detector.members]
    assert (scored, len(detector.calibration_.scores)) == ([60, 12], 12)
    assert detector.predict(damaged(300)).is_anomalous


def test_a_copy_and_another_process_score_alike(detector):
    score = detector.predict(damaged(300)).score
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert other.predict(damaged(300)).score == score


def test_what_is_left_out_is_told_once(tiny_backbone, good, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = joined(tiny_backbone).fit([*sorted(good.iterdir()), min(good.iterdir()), broken])
    assert len([one for one in caught if one.category is SkippedPictureWarning]) == 1
    assert len(detector.skipped_) == len(detector.report_.repeats) == 1
    assert len(detector.pictures_) == 24


def test_a_picture_that_one_member_alone_can_use_is_refused(tiny_backbone, good, monkeypatch):
    feature_maps = FeatureExtractor._feature_maps

    def blinded(self, sources, hashes):
        for loaded, pieces in feature_maps(self, sources, hashes):
            if self.recipe.size == 96 and loaded.path.endswith("05.png"):
                error = PictureError(f"{loaded.path}: some of its features are not numbers.")
                yield replace(loaded, prepared=None, error=error), []
            else:
                yield loaded, pieces

    monkeypatch.setattr(FeatureExtractor, "_feature_maps", blinded)
    detector = joined(tiny_backbone)
    with pytest.raises(DataError, match=r"05\.png can be used by some members only, not by tiny at 96 .*not numbers\."):
        detector.fit(good)
    with pytest.raises(NotFittedError):
        detector.predict(stripes(1))
    pictures = [picture for picture in sorted(good.iterdir()) if picture.name != "05.png"]
    detector.fit(pictures)
    change = detector.update(add=good)
    assert len(change.known) == 23
    assert (len(change.pictures), len(change.skipped)) == (0, 1)


def deep(picture):
    """The picture as a camera of 12 bits takes it."""
    noise = np.random.default_rng(0).integers(0, 16, picture.shape)
    return (16 * picture.astype(np.uint16) + noise).astype(np.uint16)


def test_deep_pictures_are_read_by_one_depth_in_all_members(tiny_backbone, tmp_path):
    for at in range(6):
        cv2.imwrite(str(tmp_path / f"{at}.png"), deep(stripes(at)))
    detector = joined(tiny_backbone).fit(tmp_path)
    assert {member.recipe.depth for member in detector.members} == {detector.recipe.depth}
    assert detector.recipe.depth.bits == 12
    again = load_detector(detector.save(tmp_path / "m.trecall"))
    picture = deep(damaged(300))
    assert again.predict(picture).score == detector.predict(picture).score > detector.threshold_


# ---------------------------------------------------------------------- changes after the fit


def test_false_alarms_pass_by_the_joined_score_once_they_are_added(detector, alarms):
    pictures = sorted(alarms.iterdir())
    assert (detector.score(pictures) > detector.threshold_).all()
    change = detector.update(add=pictures)
    assert (detector.score(pictures) <= detector.threshold_).all()
    assert detector.predict(damaged(300)).is_anomalous
    assert change.still_anomalous == 0
    assert [one.after for one in change.pictures] == pytest.approx(detector.score(pictures).tolist(), rel=1e-4)
    assert change.vectors == (change.vectors[0], sum(len(member.bank_) for member in detector.members))
    assert change.vectors[1] - change.vectors[0] == sum(one.vectors for one in change.pictures) > 0
    assert len(detector.pictures_) == 30
    assert all(len(member.pictures_) == 30 for member in detector.members)
    assert detector.update(add=pictures).known == list(map(str, pictures))


def test_pictures_within_the_radius_are_forced_in_until_they_pass(saved, alarms, tmp_path):
    """With radii that cover everything nothing would enter, and the false alarm would stay one."""
    header, tensors = read_artifact(saved)
    for member in header["members"]:
        member["coreset"]["radius"] = 1e6
    detector = load_detector(write_artifact(tmp_path / "wide.trecall", header, tensors))
    picture = min(alarms.iterdir())
    change = detector.update(add=picture)
    assert change.pictures[0].forced == change.pictures[0].vectors > 0
    assert not detector.predict(picture).is_anomalous
    detector.undo()
    detector.update(threshold=0.8 * detector.threshold_)  # a taught one must be met as well
    detector.update(add=picture)
    assert not detector.predict(picture).is_anomalous


def test_every_step_is_undone_to_the_byte(saved, alarms, good, tmp_path):
    detector, before = load_detector(saved), saved.read_bytes()
    steps = [
        {"add": sorted(alarms.iterdir())[:3]},
        {"add": sorted(alarms.iterdir())[3:]},
        {"remove": min(good.iterdir())},
        {"false_alarm_rate": 0.3},
        {"threshold": 1e3},
    ]
    files = [before]
    for step in steps:
        detector.update(**step)
        files.append(detector.save(tmp_path / "now.trecall").read_bytes())
        detector = load_detector(tmp_path / "now.trecall")  # from the file, as the command does
    lessons, _ = detector.teach(stripes(900), apply=True)
    assert not lessons[0].caught
    assert detector.undo().what == "teach"
    assert len(set(files)) == len(files)
    for expected in reversed(files[:-1]):
        detector.undo()
        assert detector.save(tmp_path / "now.trecall").read_bytes() == expected
    assert detector.threshold_ == load_detector(saved).threshold_


def test_removing_what_was_just_added_takes_the_update_back(detector, saved, alarms, tmp_path):
    detector.update(add=alarms)
    change = detector.update(remove=sorted(alarms.iterdir()))
    assert change.what == "undo"
    assert detector.save(tmp_path / "now.trecall").read_bytes() == saved.read_bytes()


def test_a_picture_that_leaves_is_gone_from_every_member_and_from_the_calibration(detector, good):
    before = detector.calibration_
    change = detector.update(remove=[sorted(good.iterdir())[at] for at in (3, 10)])
    assert change.estimated
    assert len(detector.pictures_) == 22
    assert all([p.path for p in own.pictures_] == [p.path for p in detector.pictures_] for own in detector.members)
    stayed = np.delete(np.arange(24), [3, 10])
    assert detector.calibration_.pictures.tolist() == list(range(22))
    assert (detector.calibration_.scores >= before.scores[stayed] - 1e-9).all()
    scales = np.array([one["scale"] for one in detector.facts()["members"]])
    own = [member.calibration_.scores for member in detector.members]
    assert detector.calibration_.scores == pytest.approx(join_scores(own, scales))
    with pytest.raises(DataError, match=r"^Nothing of the bank would be left"):
        detector.update(remove=sorted(good.iterdir()))


def test_a_copy_that_judges_otherwise_leaves_the_detector_as_it_was(detector, alarms, saved, tmp_path):
    score = detector.predict(min(alarms.iterdir())).score
    other = detector.judging(false_alarm_rate=0.5)
    assert other.threshold_ < detector.threshold_
    other.update(add=alarms)
    assert detector.predict(min(alarms.iterdir())).score == score > other.predict(min(alarms.iterdir())).score
    assert detector.save(tmp_path / "now.trecall").read_bytes() == saved.read_bytes()


def test_its_conditions_are_watched_like_those_of_any_detector(fitted, good, tmp_path):
    assert fitted.drift_.values[:, -1] == pytest.approx(fitted.calibration_.scores, rel=1e-5)
    monitor = Monitor(fitted.drift_, fitted.threshold_)
    for result in fitted.predict_stream(good, conditions=True):
        monitor.observe(result.conditions, result.is_anomalous)
    result = fitted.predict(stripes(400), conditions=True)
    assert result.conditions.values[-1] == pytest.approx(result.score, rel=1e-5)


# ---------------------------------------------------------------------- the file


def test_the_file_holds_every_member_and_each_graph_once(fitted, saved, tmp_path, tiny_backbone, other_backbone, good):
    header, tensors = read_artifact(saved)
    assert header["kind"] == "joined"
    assert [one["recipe"]["size"] for one in header["members"]] == list(SIZES)
    assert {name for name in tensors if name.endswith("backbone.graph")} == {"backbone.graph"}
    for at, member in enumerate(fitted.members):
        np.testing.assert_array_equal(tensors[f"members.{at}.bank.vectors"], member.bank_.vectors)
    bare = fitted.save(tmp_path / "bare.trecall", embed_backbone=False)
    assert "backbone.graph" not in read_header(bare)["tensors"]
    with pytest.raises(ModelFileError, match=r"holds a joined model; this is PatchCore\. Use load_detector"):
        PatchCore.load(saved)
    assert JoinedPatchCore.load(saved, precision="f32").threshold_ == fitted.threshold_


def _without(values, name):
    return {key: value for key, value in values.items() if key != name}


def _unscored(tensors):
    names = [f"members.1.calibration.{name}" for name in ("scores", "peaks", "pictures")]
    return {**tensors, **{name: tensors[name][1:] for name in names}}


def _other(header, part, **facts):
    """Return a header whose second member says otherwise."""
    first, second = header["members"]
    return {**header, "members": [first, {**second, part: {**second[part], **facts}}]}


HOSTILE = {
    "no members": lambda h, t: (_without(h, "members"), t),
    "one member": lambda h, t: ({**h, "members": h["members"][:1]}, t),
    "a member too many": lambda h, t: ({**h, "members": [*h["members"], h["members"][0]]}, t),
    "no object": lambda h, t: ({**h, "members": [1, 2]}, t),
    "a history of its own": lambda h, t: ({**h, "members": [{**m, "history": []} for m in h["members"]]}, t),
    "another kind inside": lambda h, t: ({**h, "members": [{**m, "kind": "padim"} for m in h["members"]]}, t),
    "no settings": lambda h, t: ({**h, "members": [_without(m, "settings") for m in h["members"]]}, t),
    "a path as backbone": lambda h, t: (
        {**h, "members": [{**m, "backbone": {**m["backbone"], "name": "/etc/passwd"}} for m in h["members"]]}, t,
    ),
    "backbone no object": lambda h, t: ({**h, "members": [{**m, "backbone": 3} for m in h["members"]]}, t),
    "members in another order": lambda h, t: ({**h, "members": h["members"][::-1]}, t),
    "no bank": lambda h, t: (h, _without(t, "members.1.bank.vectors")),
    "no scales": lambda h, t: (h, _without(t, "joined.scales")),
    "a scale of 0": lambda h, t: (h, {**t, "joined.scales": np.array([1.0, 0.0])}),
    "a negative scale": lambda h, t: (h, {**t, "joined.scales": np.array([1.0, -1.0])}),
    "a scale of nan": lambda h, t: (h, {**t, "joined.scales": np.array([1.0, np.nan])}),
    "three scales": lambda h, t: (h, {**t, "joined.scales": np.ones(3)}),
    "a stranger's tensor": lambda h, t: (h, {**t, "members.0.bank.more": np.ones(3, np.float32)}),
    "a tensor of no member": lambda h, t: (h, {**t, "members.7.bank.vectors": np.ones((3, 3), np.float32)}),
    "nan in a bank": lambda h, t: (h, {**t, "members.1.bank.vectors": t["members.1.bank.vectors"] * np.nan}),
    "a negative distance": lambda h, t: (h, {**t, "members.1.evidence.grids": -t["members.1.evidence.grids"] - 1}),
    "origin outside": lambda h, t: (h, {**t, "members.0.bank.origin": t["members.0.bank.origin"] + 1000}),
    "a picture that a member has not scored": lambda h, t: (h, _unscored(t)),
    "no list of calibrated pictures": lambda h, t: (h, _without(t, "calibration.pictures")),
    "a scale that makes scores infinite": lambda h, t: (h, {**t, "joined.scales": np.array([5e-324, 5e-324])}),
    "other scales than they were joined by": lambda h, t: (h, {**t, "joined.scales": t["joined.scales"] * [2, 1]}),
    "a member that prepares otherwise": lambda h, t: (_other(h, "recipe", resize="letterbox"), t),
    "a member of another bit depth": lambda h, t: (_other(h, "recipe", bit_depth=12), t),
    "a member that scores otherwise": lambda h, t: (_other(h, "settings", scoring="max"), t),
    "another size than the first member's": lambda h, t: ({**h, "recipe": {**h["recipe"], "size": 32}}, t),
    "another backbone than the first member's": lambda h, t: (
        {**h, "backbone": {**h["backbone"], "sha256": "0" * 64}}, t,
    ),
    "extents of no member": lambda h, t: (h, {**t, "extents.means": np.ones(4)}),
    "another threshold": lambda h, t: ({**h, "calibration": {**h["calibration"], "threshold": 1.0}}, t),
}  # fmt: skip


@pytest.mark.parametrize("how", HOSTILE)
def test_a_damaged_file_is_refused_in_one_line(saved, tmp_path, how):
    header, tensors = HOSTILE[how](*read_artifact(saved))
    path = write_artifact(tmp_path / "bad.trecall", header, tensors)
    with pytest.raises(ModelFileError, match=r"bad\.trecall is damaged: .*Copy or fit it again\.$") as caught:
        load_detector(path).predict(stripes(1))
    assert len(str(caught.value).splitlines()) == 1


# ---------------------------------------------------------------------- as a person types it


def test_the_constructors_lead_to_each_other():
    for keywords in ({"sizes": (256, 384)}, {"size": (256, 384)}, {"backbone": ("compact", "lite2")}):
        with pytest.raises(SettingError, match=r"a PatchCore has one backbone and one size. Use JoinedPatchCore\("):
            PatchCore(**keywords)
    for keywords, message in (
        ({}, "sizes or backbone must name several"),
        ({"sizes": [256]}, "sizes or backbone must name several"),
        ({"sizes": [256, 256]}, "sizes and backbone name compact at 256 pixels twice"),
        ({"sizes": [256, 9999]}, "sizes must be from 1 to 16 numbers from 32 to 4096, got 256 9999"),
        ({"sizes": [256, 384], "size": 320}, "sizes is in place of size"),
        ({"sizes": [256, 320, 384], "backbone": ["compact", "lite2"]}, "sizes must be one for each backbone, got 3"),
    ):
        with pytest.raises(SettingError, match=message):
            JoinedPatchCore(**keywords)


@pytest.fixture(scope="module")
def typed(added, parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("typed") / "part.trecall"
    return path, ["--coreset", 0.1, "--at-least", 1, "--precision", "f32", "-o", path, "--backbone", added]


def test_the_commands_take_a_joined_model(capsys, typed, parts, tmp_path):
    path, options = typed
    code, out, err = run(capsys, "fit", "--sizes", 64, 96, *options, parts / "train" / "good")
    assert (code, err) == (0, [])
    assert out[0].startswith("Plan: 2 fits one after the other, a memory bank each; at most ")
    assert out[1].startswith("added at 64 pixels: 10 pictures")
    assert out[3].startswith("2 banks (added at 64 pixels, ")
    code, out, _ = run(capsys, "info", path)
    assert code == 0
    assert [line for line in out if line.startswith("member 2") and "backbone added, size 96" in line]
    assert ["backbone", "added"] in [line.split() for line in out]
    assert not [line for line in out if line.startswith("prepared") and re.search(r"\bsize", line)]
    bad = next(folder for folder in (parts / "test").iterdir() if folder.name != "good")
    assert run(capsys, "predict", path, bad, "--report", tmp_path / "r.html", "--heatmaps", tmp_path)[0] == 0
    assert run(capsys, "evaluate", path, parts, "--layout", "mvtec")[0] == 0
    before = path.read_bytes()
    code, out, _ = run(capsys, "update", path, "--add", bad)
    assert (code, path.read_bytes() != before) == (0, True)
    assert any(line.startswith("Added 1 picture: bank of ") for line in out)
    assert run(capsys, "update", path, "--undo")[0] == 0
    assert path.read_bytes() == before
    code, message = complaint(capsys, "export", path, "-o", tmp_path / "part.onnx")
    assert (code, message[:40]) == (2, "A model of 2 joined banks cannot be exported"[:40])
    with pytest.raises(SettingError, match="cannot be exported"):
        check_exportable(load_detector(path))


def test_what_it_cannot_be_joined_with_is_refused_in_one_line(capsys, typed, parts):
    good, (path, options) = parts / "train" / "good", typed
    options = ["-o", path, "--backbone", options[-1]]
    for more, message in (
        (["--tune", "--sizes", 64, 96], "--tune tries settings of one memory bank, got --sizes 64 96."),
        (["--method", "padim", "--sizes", 64, 96], "--sizes is only for --method patchcore, got --method padim."),
        (["--sizes", 64, 96, "--size", 64], "--sizes is in place of --size, got --sizes 64 96 and --size 64."),
    ):
        code, said = complaint(capsys, "fit", good, *options, *more)
        assert code == 2
        assert said.startswith(message)
    code, said = complaint(capsys, "fit", good, *options, "lite2", "--method", "padim")
    assert (code, said[:50]) == (2, "--backbone must be one name for --method padim, got added lite2."[:50])


@pytest.mark.parametrize("order", ["numbers first", "pictures on both sides", "numbers, then a backbone"])
def test_pictures_may_follow_a_list_of_numbers(capsys, typed, parts, order, tmp_path):
    path, options = typed
    good = sorted((parts / "train" / "good").iterdir())
    arguments = {
        "numbers first": [*options, "--layers", 2, "--sizes", 64, 96, *good],
        "pictures on both sides": [*good[:4], *options, "--sizes", 64, 96, *good[4:]],
        "numbers, then a backbone": ["--sizes", 64, 96, *good[:4], *options, "--quiet", *good[4:]],
    }[order]
    code, _, err = run(capsys, "fit", *arguments)
    assert (code, err) == (0, [])
    assert read_header(path)["kind"] == "joined"
    assert len(read_header(path)["pictures"]) == len(good)
    for wrong, message in (
        (["--sizes", good[0]], f"argument --sizes: invalid int value: {str(good[0])!r}"),
        (["--sizes", 64, 96], "the following arguments are required: GOOD"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(capsys, "fit", *options, *wrong)
        assert (caught.value.code, message in capsys.readouterr().err) == (2, True)
    code, said = complaint(capsys, "fit", *options, "--sizes", 64, tmp_path / "no")
    assert (code, said.startswith(f"{tmp_path / 'no'} does not exist.")) == (1, True)


def test_pictures_may_still_follow_the_name_of_a_backbone(capsys, typed, parts, tmp_path):
    path, options = typed
    with pytest.raises(SystemExit) as caught:
        run(capsys, "fit", *options)
    assert caught.value.code == 2
    assert "the following arguments are required: GOOD" in capsys.readouterr().err
    code, _, err = run(capsys, "fit", "--size", 64, *options, parts / "train" / "good")
    assert (code, err, read_header(path)["kind"]) == (0, [], "patchcore")
    code, _, _ = run(
        capsys, "fit", parts / "train" / "good", "--sizes", 64, *options, "-o", Path(tmp_path / "m.trecall")
    )
    assert (code, read_header(tmp_path / "m.trecall")["kind"]) == (0, "patchcore")
