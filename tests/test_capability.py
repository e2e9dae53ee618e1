"""Capability: planted defects are judged at the model's own threshold, and what is said of them is what was counted."""

import json
import shutil

import cv2
import numpy as np
import pytest

from tests.commands import complaint, run
from tests.parts import SIZE, digest, stripes
from totalrecall import PatchCore, load_detector
from totalrecall.capability import CapabilityStudy, capability
from totalrecall.cli import main
from totalrecall.detectors.model_file import read_artifact, write_artifact
from totalrecall.errors import DataError, LearntPictureWarning, ModelFileError, PictureError, SettingError
from totalrecall.planting import KINDS

QUICK = {"kinds": ["blob", "missing"], "sizes": [3, 30], "contrasts": [0.4], "per_size": 4}
OPTIONS = ["--kinds", "blob", "missing", "--sizes", "3", "30", "--contrast", "0.4", "--per-size", "4"]


@pytest.fixture(scope="module")
def detector(tiny_backbone):
    pictures = [stripes(seed) for seed in range(20)]
    return PatchCore(
        backbone=tiny_backbone, size=SIZE, coreset=0.2, at_least=1, precision="f32", false_alarm_rate=0.05
    ).fit(pictures)


@pytest.fixture(scope="module")
def fresh():
    return [stripes(seed) for seed in range(100, 108)]


@pytest.fixture(scope="module")
def found(detector, fresh):
    return capability(detector, fresh, **QUICK)


def counts(found):
    return [(kind.kind, kind.contrast, [(cell.planted, cell.hits) for cell in kind.cells]) for kind in found.kinds]


# ---------------------------------------------------------------------- the library


def test_large_plain_defects_are_found_and_tiny_ones_are_not(found):
    blob = found.kinds[0]
    assert [cell.size for cell in blob.cells] == [3, 30]
    assert blob.cells[0].hits < blob.cells[1].hits == blob.cells[1].planted == 4
    assert blob.cells[1].located == 4


def test_a_hit_is_a_verdict_of_the_detector_itself(detector, found):
    for kind in found.kinds:
        for outcome in kind.outcomes[::3]:
            if outcome.hit is not None:
                planted, result = found.show(outcome)
                assert result.score == pytest.approx(outcome.score, rel=1e-5)
                assert outcome.hit == (outcome.score > detector.threshold_)
                good = found.good_picture(outcome)
                assert (planted.mask == (planted.picture != good).any(axis=2)).all()


def test_a_trial_is_the_same_whatever_else_is_planted(detector, fresh, found):
    alone = capability(detector, fresh, **{**QUICK, "kinds": ["missing"], "sizes": [30]})
    assert [one.score for one in alone.kinds[0].outcomes] == [
        one.score for one in found.kinds[1].outcomes if one.trial.size == 30
    ]


def test_the_seed_decides(detector, fresh, found):
    again, other = (capability(detector, fresh, **QUICK, seed=seed) for seed in (0, 1))
    assert [one.score for one in again.kinds[0].outcomes] == [one.score for one in found.kinds[0].outcomes]
    assert [one.score for one in other.kinds[0].outcomes] != [one.score for one in found.kinds[0].outcomes]


def test_several_contrasts_are_compared_and_missing_pieces_have_none(detector, fresh):
    found = capability(detector, fresh, **{**QUICK, "contrasts": [0.5, 0.1]})
    assert [(kind.kind, kind.contrast) for kind in found.kinds] == [("blob", 0.1), ("blob", 0.5), ("missing", None)]
    faint, plain = found.kinds[:2]
    assert faint.hits <= plain.hits
    places = [[found.show(one)[0].box for one in kind.outcomes if one.trial.size == 30] for kind in (faint, plain)]
    for (x, y, w, h), (left, top, width, height) in zip(*places, strict=True):  # the same place and shape
        assert abs(x + w / 2 - left - width / 2) <= 2
        assert abs(y + h / 2 - top - height / 2) <= 2


def test_pictures_that_are_called_anomalous_as_they_are_carry_no_defect(detector, fresh, found):
    odd = stripes(300)
    cv2.circle(odd, (45, 35), 20, (250, 20, 20), -1)
    more = capability(detector, [*fresh, odd], **QUICK)
    assert len(more.false_alarms) == len(found.false_alarms) + 1
    assert len(more.pictures) == len(found.pictures)
    assert any("called anomalous without any defect" in note for note in more.notes())
    with pytest.raises(DataError, match=r"calls all 1 good pictures anomalous, so none is left"):
        capability(detector, [odd], **QUICK)


def test_pictures_that_the_model_learnt_are_left_out_where_there_are_others(detector, fresh):
    found = capability(detector, [*fresh, stripes(0), stripes(1)], **QUICK)
    assert (found.learnt, found.on_learnt) == (2, False)
    assert len(found.pictures) + len(found.false_alarms) == len(fresh)


def test_only_learnt_pictures_are_used_and_said_to_be(detector):
    with pytest.warns(LearntPictureWarning, match="All 6 good pictures are among those"):
        found = capability(detector, [stripes(seed) for seed in range(6)], **QUICK)
    assert found.on_learnt
    assert any("All 6 good pictures" in note for note in found.notes())


def test_a_picture_that_cannot_be_read_stops_no_other(detector, fresh, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"no picture")
    found = capability(detector, [*fresh, tmp_path / "torn.png"], **QUICK)
    assert [str(error) for error in found.skipped] == [f"{tmp_path / 'torn.png'} is not a picture that can be decoded. "
                                                       "Allowed: JPEG, PNG, BMP, TIFF, WebP."]  # fmt: skip
    assert found.planted > 0


def test_a_file_that_is_replaced_later_is_not_shown(detector, fresh, tmp_path):
    for at, picture in enumerate(fresh[:4]):
        cv2.imwrite(str(tmp_path / f"{at}.png"), picture[..., ::-1])
    found = capability(detector, tmp_path, **QUICK)
    for at in range(4):
        (tmp_path / f"{at}.png").unlink()
    with pytest.raises(PictureError, match="does not exist"):
        found.show(found.kinds[0].outcomes[0])


def test_defects_lie_in_the_region_of_interest(tiny_backbone, fresh):
    region = np.zeros((70, 90), bool)
    region[10:60, 50:85] = True
    detector = PatchCore(
        backbone=tiny_backbone, size=SIZE, coreset=0.2, at_least=1, precision="f32", false_alarm_rate=0.1, roi=region
    ).fit([stripes(seed) for seed in range(12)])
    found = capability(detector, fresh, kinds=["blob", "scratch"], sizes=[4, 16], per_size=4)
    boxes = [found.show(one)[0].mask for kind in found.kinds for one in kind.outcomes if one.hit is not None]
    assert boxes
    assert not any((mask & ~region).any() for mask in boxes)


def test_the_part_that_a_crop_shows_carries_the_defects(tiny_backbone, fresh):
    detector = PatchCore(
        backbone=tiny_backbone, size=SIZE, resize="crop", crop=32, coreset=0.2, at_least=1, precision="f32",
        false_alarm_rate=0.1,
    ).fit([stripes(seed) for seed in range(12)])  # fmt: skip
    found = capability(detector, fresh, kinds=["blob"], sizes=[6], contrasts=[0.4], per_size=8)
    seen = detector.recipe.geometry(70, 90).seen
    for one in found.kinds[0].outcomes:
        if one.hit is not None:
            mask = found.show(one)[0].mask
            assert mask[seen].sum() == mask.sum()


def test_a_16_bit_cameras_model_judges_planted_copies_too(tiny_backbone):
    def deep(seed):
        return stripes(seed).astype(np.uint16) << 8

    detector = PatchCore(
        backbone=tiny_backbone, size=SIZE, coreset=0.2, at_least=1, precision="f32", false_alarm_rate=0.1
    ).fit([deep(seed) for seed in range(12)])
    found = capability(detector, [deep(seed) for seed in range(50, 56)], **QUICK)
    assert found.skipped == []
    assert found.kinds[0].cells[1].hits == 4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kinds": ["rust"]}, "kinds must be of scratch, dent"),
        ({"sizes": [0]}, "sizes must be at least 1 pixel, got 0"),
        ({"sizes": []}, "sizes must be at least one, got none"),
        ({"contrasts": [1.5]}, "contrast must be over 0 and at most 1, got 1.5"),
        ({"contrasts": []}, "contrast must be at least one, got none"),
        ({"per_size": 0}, "per_size must be from 1 to 10000, got 0"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"millimetres_per_pixel": 0.0}, "millimetres_per_pixel must be over 0, got 0"),
    ],
)
def test_what_is_outside_the_allowed_is_refused_before_any_work(detector, fresh, wrong, words):
    with pytest.raises(SettingError, match=words):
        capability(detector, fresh, **{**QUICK, **wrong})


def test_a_model_without_a_threshold_gives_no_verdict(tiny_backbone, fresh):
    detector = PatchCore(backbone=tiny_backbone, size=SIZE, at_least=1, precision="f32", holdout=0.0).fit(fresh)
    with pytest.raises(SettingError, match="The model has no threshold, so it calls nothing a defect"):
        capability(detector, [stripes(200)], **QUICK)
    assert capability(detector.judging(threshold=1e9), [stripes(200)], **QUICK).kinds[0].hits == 0


def test_the_plan_is_told_before_and_progress_reaches_it(detector, fresh):
    steps = []
    study = CapabilityStudy(
        detector, fresh, **{**QUICK, "contrasts": [0.2, 0.4]}, progress=lambda *step: steps.append(step)
    )
    assert study.trials == 2 * 2 * 4 + 2 * 4  # two contrasts of blobs, missing pieces once
    study.run()
    assert steps[-1] == ("planting", study.trials, study.trials)
    assert ("scoring", len(fresh), len(fresh)) in steps


def test_sizes_follow_the_part_unless_they_are_given(detector, fresh):
    study = CapabilityStudy(detector, fresh, kinds=["blob"], per_size=1)
    assert study.sizes == sorted(study.sizes)
    assert len(study.sizes) >= 4
    assert study.sizes[0] >= 2
    assert study.sizes[-1] <= 0.5 * 70


def test_the_sentences_are_what_was_counted(found):
    blob = found.kinds[0]
    assert "blobs" in blob.sentence()
    limit = blob.curve.a90
    if limit.relation == "=":
        assert f"of {limit.size:.3g} pixels ({limit.size * 0.1:.2g} mm)" in blob.sentence(0.1)


def test_the_json_holds_the_counts_and_the_bounds(found):
    facts = json.loads(json.dumps(found.to_json()))
    assert facts["planted"] == sum(kind["planted"] for kind in facts["kinds"])
    sizes = facts["kinds"][0]["sizes"]
    assert [one["size"] for one in sizes] == [3, 30]
    for one in sizes:
        low, high = one["probability_95_percent_bounds"]
        assert 0 <= low <= one["probability"] <= high <= 1


# ---------------------------------------------------------------------- the command


@pytest.fixture
def pictures(parts, tmp_path):
    return shutil.copytree(parts / "test" / "good", tmp_path / "new")


@pytest.fixture(scope="module")
def loose(model, tmp_path_factory):
    """The model of the other tests at a threshold that its new good pictures pass."""
    path = tmp_path_factory.mktemp("loose") / "part.trecall"
    detector = load_detector(model)
    detector.judging(threshold=1.3 * float(detector.calibration_.scores.max())).save(path)
    return path


def test_the_command_tells_writes_the_page_and_the_json(capsys, loose, pictures, tmp_path):
    page, facts = tmp_path / "found.html", tmp_path / "found.json"
    line = ["capability", loose, pictures, *OPTIONS, "-o", page, "--json", facts, "--millimetres-per-pixel", "0.125"]
    code, out, err = run(capsys, *line)
    assert (code, err) == (0, [])
    assert out[0].startswith("Plan: 16 planted defects of 3, 30 pixels on 3 good pictures, about ")
    assert out[1].split() == ["kind", "contrast", "planted", "found", "a90", "a90/95"]
    assert "Planted defects are not real ones: test the model on real defects as soon as you have some." in out
    made = json.loads(facts.read_text())
    assert [kind["kind"] for kind in made["kinds"]] == ["blob", "missing"]
    assert made["model"] == str(loose)
    text = page.read_text()
    assert "Planted defects are not real ones" in text
    assert "mm)" in text
    for kind in made["kinds"]:
        assert kind["sentence"].split(";")[0][:40] in text
    assert text.count("<svg viewBox") >= 2
    assert page.stat().st_size < 5_000_000


def test_quiet_prints_the_result_alone(capsys, loose, pictures):
    code, out, err = run(capsys, "capability", loose, pictures, *OPTIONS, "--quiet")
    assert (code, err) == (0, [])
    assert out[0].startswith("kind")
    assert out[-1].startswith("Planted defects are not real ones")
    assert len(out) == 4


def test_json_on_stdout_stands_alone(capsys, loose, pictures):
    code, out, err = run(capsys, "capability", loose, pictures, *OPTIONS, "--json", "-")
    assert code == 0
    assert json.loads("\n".join(out))["planted"] > 0
    assert err[0].startswith("Plan: ")


def test_a_bad_picture_is_named_and_the_others_are_done(capsys, loose, pictures):
    (pictures / "torn.png").write_bytes(b"no picture")
    code, out, err = run(capsys, "capability", loose, pictures, *OPTIONS)
    assert code == 1
    assert [line for line in err if "torn.png is not a picture" in line]
    assert out[1].startswith("kind")


def test_a_threshold_of_this_run_decides(capsys, loose, pictures, tmp_path):
    line = ["capability", loose, pictures, *OPTIONS, "--json", tmp_path / "f.json", "--threshold", "1e6"]
    assert run(capsys, *line)[0] == 0
    facts = json.loads((tmp_path / "f.json").read_text())
    assert facts["threshold"] == 1e6
    assert sum(kind["hits"] for kind in facts["kinds"]) == 0


def test_learnt_pictures_are_named_as_such(capsys, loose, parts, tmp_path):
    code, _, err = run(
        capsys, "capability", loose, parts / "train", *OPTIONS, "--quiet", "--json", tmp_path / "facts.json"
    )
    assert code == 0
    assert [line for line in err if "All 10 good pictures are among those that the model was fitted on" in line]
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert (facts["learnt"], facts["on_learnt"]) == (10, True)
    assert len(facts["notices"]) == 1


def test_it_is_said_once_that_all_pictures_are_learnt_ones(capsys, loose, parts, tmp_path):
    page = tmp_path / "found.html"
    code, _, err = run(capsys, "capability", loose, parts / "train", *OPTIONS, "--out", page)
    assert code == 0
    told = "All 10 good pictures are among those that the model was fitted on. For new parts the figures may differ"
    assert "\n".join(err).count(told) == 1
    assert page.read_text().count(told) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sizes", "0.1"], "--sizes must be at least 1 pixel, got 0.1."),
        (["--contrast", "20"], "--contrast must be over 0 and at most 1, got 20. For 20 percent of white write 0.2."),
        (["--per-size", "0"], "--per-size must be from 1 to 10000, got 0."),
        (["--millimetres-per-pixel", "-1"], "--millimetres-per-pixel must be over 0, got -1."),
        (["--out", "-"], "--out must name a file, got -."),
        (["--out", "page.png"], "--out page.png is named like a picture"),
    ],
)
def test_wrong_usage_is_said_in_words_of_the_options(capsys, loose, pictures, options, words):
    code, message = complaint(capsys, "capability", loose, pictures, *options)
    assert code == 2
    assert message.startswith(words)


def test_the_help_lists_the_kinds_that_there_are(capsys):
    with pytest.raises(SystemExit):
        run(capsys, "capability", "--help")
    assert ", ".join(KINDS) in " ".join(capsys.readouterr().out.split())


def test_no_output_is_one_of_the_pictures(capsys, loose, pictures, tmp_path):
    picture = next(pictures.iterdir())
    before = picture.read_bytes()
    (tmp_path / "page.html").symlink_to(picture)
    code, message = complaint(capsys, "capability", loose, pictures, *OPTIONS, "-o", tmp_path / "page.html")
    assert code == 2
    assert message.startswith(f"--out {tmp_path / 'page.html'} would write over {pictures}")
    assert picture.read_bytes() == before


def test_ctrl_c_ends_it_and_leaves_no_page(capsys, loose, pictures, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(CapabilityStudy, "run", interrupted)
    code, _, err = run(capsys, "capability", loose, pictures, *OPTIONS, "-o", tmp_path / "page.html", "--quiet")
    assert (code, err) == (130, ["totalrecall: interrupted."])
    assert not (tmp_path / "page.html").exists()


# ---------------------------------------------------------------------- what the model file keeps


@pytest.fixture
def kept(loose, pictures, tmp_path):
    """A model that keeps what planted defects said."""
    own = shutil.copy(loose, tmp_path / "own.trecall")
    assert main(["capability", str(own), str(pictures), *OPTIONS, "--save", "--quiet"]) == 0
    return own


def facts_of(capsys, model):
    return json.loads("\n".join(run(capsys, "info", model, "--json", "-")[1]))


def test_info_shows_what_was_kept(capsys, kept, loose):
    facts = facts_of(capsys, kept)
    assert [kind["kind"] for kind in facts["capability"]["kinds"]] == ["blob", "missing"]
    assert facts["capability"]["threshold"] == facts["threshold"]
    lines = run(capsys, "info", kept)[1]
    assert [line for line in lines if line.startswith("blob, contrast 0.4: ")]
    assert [line for line in lines if line.startswith("missing: ")]
    assert "capability" not in facts_of(capsys, loose)


def test_keeping_it_changes_no_score_and_no_history(kept, loose, parts):
    before, after = load_detector(loose), load_detector(kept)
    picture = next((parts / "test" / "good").iterdir())
    assert after.predict(picture).score == before.predict(picture).score
    assert after.history_ == before.history_


@pytest.mark.parametrize("change", [["--threshold", "100"], ["--false-alarm-rate", "0.4"], ["--add", "ODD"]])
def test_it_is_gone_once_the_model_changes_and_back_after_undo(capsys, kept, alarms, change):
    before = digest(kept)
    assert run(capsys, "update", kept, *(alarms if word == "ODD" else word for word in change))[0] == 0
    assert "capability" not in facts_of(capsys, kept)
    assert run(capsys, "update", kept, "--undo")[0] == 0
    assert "capability" in facts_of(capsys, kept)
    assert digest(kept) == before


def test_what_was_said_after_a_change_is_not_said_of_the_model_before_it(capsys, loose, pictures, tmp_path):
    own = shutil.copy(loose, tmp_path / "own.trecall")
    before = digest(own)
    run(capsys, "update", own, "--threshold", str(2 * load_detector(own).threshold_))
    assert run(capsys, "capability", own, pictures, *OPTIONS, "--save")[0] == 0
    assert run(capsys, "update", own, "--undo")[0] == 0
    assert "capability" not in facts_of(capsys, own)
    assert digest(own) == before


def test_judging_at_another_threshold_forgets_it(kept):
    detector = load_detector(kept)
    assert detector.capability_ is not None
    assert detector.judging(threshold=1.0).capability_ is None
    assert detector.judging(false_alarm_rate=0.3).capability_ is None


def test_only_what_the_models_own_threshold_finds_is_kept(capsys, kept, pictures):
    before = digest(kept)
    code, message = complaint(capsys, "capability", kept, pictures, "--save", "--threshold", "3")
    assert code == 2
    assert message.startswith("--save keeps what the model's own threshold finds, got --threshold.")
    assert digest(kept) == before


def test_a_model_that_changed_meanwhile_is_left_alone(capsys, kept, pictures, monkeypatch):
    judge = CapabilityStudy.run

    def changed(study):
        assert main(["update", str(kept), "--threshold", "100", "--quiet"]) == 0
        return judge(study)

    monkeypatch.setattr(CapabilityStudy, "run", changed)
    code, _, err = run(capsys, "capability", kept, pictures, *OPTIONS, "--save", "--quiet")
    assert code == 1
    assert "was changed while it was measured, so nothing was kept in it. Measure again." in err[-1]
    assert load_detector(kept).threshold_ == 100
    assert load_detector(kept).capability_ is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", -1), ("kinds", "all"), ("kinds", [{"kind": "blob"}]), ("when", None), ("threshold", float("1e301"))],
)
def test_a_damaged_summary_is_refused(kept, tmp_path, name, value):
    header, tensors = read_artifact(kept, lambda *_: None)
    header["capability"] = {**header["capability"], name: value}
    write_artifact(tmp_path / "damaged.trecall", header, tensors)
    with pytest.raises(ModelFileError, match=f"is damaged: capability.{name}"):
        load_detector(tmp_path / "damaged.trecall")
