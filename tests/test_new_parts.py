"""fit with and without new_parts: photographs of one part are held out together, and it is said where they are not."""

import json
import re

import cv2
import numpy as np
import pytest

from tests.parts import enough_for, make
from totalrecall import PatchCore
from totalrecall.cli import main
from totalrecall.errors import DataError, RepeatedPartsWarning, SettingError

PARTS, LIGHTS = 12, 4


def photograph(part, light):
    """Return a picture of a part with a surface of its own, blotches, in a light."""
    own = np.random.default_rng([1, part]).uniform(40, 200, (13, 13, 3)).astype(np.float32)
    surface = cv2.resize(own, (72, 72), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng([2, part, light])
    return np.clip(surface * (0.8 + 0.03 * light) + rng.normal(0, 3, surface.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs():
    return [photograph(part, light) for part in range(PARTS) for light in range(LIGHTS)]


@pytest.fixture(scope="module")
def plain(tiny_backbone, photographs):
    with pytest.warns(RepeatedPartsWarning, match=r"48 good pictures seem to show 12 parts, .* fit with --new-parts"):
        return make(tiny_backbone, false_alarm_rate=0.1).fit(photographs)


@pytest.fixture(scope="module")
def apart(tiny_backbone, photographs):
    return make(tiny_backbone, false_alarm_rate=0.1, new_parts=True).fit(photographs)


def test_the_bank_is_the_same_and_the_threshold_higher(plain, apart):
    assert np.array_equal(plain.bank_.vectors, apart.bank_.vectors)
    assert apart.threshold_ > plain.threshold_
    assert (plain.calibration_.parts, plain.calibration_.new_parts) == (PARTS, False)
    assert (apart.calibration_.parts, apart.calibration_.new_parts) == (PARTS, True)
    assert apart.calibration_.folds == PARTS  # no more folds than parts


def test_new_parts_pass_where_the_threshold_is_for_them(plain, apart):
    new = [photograph(part, light) for part in range(100, 120) for light in range(2)]
    assert (plain.score(new) > plain.threshold_).mean() > 0.5
    assert (apart.score(new) > apart.threshold_).mean() <= 0.25


def test_a_fit_with_new_parts_warns_of_no_repeated_ones(tiny_backbone, photographs, recwarn):
    make(tiny_backbone, new_parts=True).fit(photographs)
    assert not [one for one in recwarn if issubclass(one.category, RepeatedPartsWarning)]


def test_where_few_are_held_out_together_all_pictures_say_what_is_repeated(tiny_backbone, photographs):
    with pytest.warns(RepeatedPartsWarning, match="48 good pictures seem to show 12 parts"):
        detector = make(tiny_backbone, folds=1, holdout=0.1).fit(photographs)
    assert len(detector.calibration_.scores) == 4
    assert (detector.calibration_.parts, detector.calibration_.shown_by) == (PARTS, PARTS * LIGHTS)


def test_parts_that_were_photographed_once_give_no_warning(tiny_backbone, recwarn):
    detector = make(tiny_backbone).fit([photograph(part, 0) for part in range(24)])
    assert detector.calibration_.parts == 24
    assert not [one for one in recwarn if issubclass(one.category, RepeatedPartsWarning)]


def test_the_choice_and_what_was_seen_are_kept_in_the_model(apart, tmp_path):
    again = PatchCore.load(apart.save(tmp_path / "m.trecall"))
    assert again.settings.new_parts
    assert (again.calibration_.parts, again.calibration_.new_parts) == (PARTS, True)
    assert again.calibration_.shown_by == PARTS * LIGHTS
    assert again.threshold_ == apart.threshold_


def test_the_report_says_for_which_parts_the_rate_is(plain, apart):
    assert "for new parts fit with --new-parts" in plain.promise_.rows()["valid while"]
    words = apart.promise_.rows()
    assert "all pictures of each of 12 parts in one fold" in words["set by"]
    assert "--new-parts" not in words["valid while"]


def test_fewer_than_three_parts_cannot_tell_of_others(tiny_backbone):
    two = [photograph(part, light) for part in range(2) for light in range(LIGHTS)]
    two += [photograph(1, light) for light in range(LIGHTS, 9)]
    detector = make(tiny_backbone, new_parts=True)
    parts = np.array([0] * LIGHTS + [1] * 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("totalrecall.patchcore.gathered.part_numbers", lambda _: parts)
        with pytest.raises(
            DataError,
            match="new_parts needs good pictures of at least 3 parts, got 13 pictures that seem to show 2 parts",
        ):
            detector.fit(two)


def test_in_chunks_parts_cannot_be_told_apart_and_the_fit_says_what_it_needs(tiny_backbone, photographs, monkeypatch):
    monkeypatch.setattr("totalrecall.patchcore.plan._LEAST", 16)
    detector = make(tiny_backbone, new_parts=True)
    with pytest.raises(SettingError, match=r"new_parts needs all patches at once, [\d.]+[MG]B of memory, got"):
        detector.fit(photographs, memory=enough_for(detector, photographs, 8))


def test_the_command_tells_and_takes_the_option(added, photographs, tmp_path, capsys):
    folder = tmp_path / "good"
    folder.mkdir()
    for at, picture in enumerate(photographs):
        cv2.imwrite(str(folder / f"{at:02}.png"), picture)
    options = ["--backbone", added, "--size", "64", "--precision", "f32", "--coreset", "0.2", "--at-least", "1"]
    assert main(["fit", str(folder), "-o", str(tmp_path / "a.trecall"), *options]) == 0
    out = capsys.readouterr().out
    assert "Note: 48 good pictures seem to show 12 parts" in out
    file = tmp_path / "b.json"
    given = ["fit", str(folder), "-o", str(tmp_path / "b.trecall"), "--new-parts", "--json", str(file), *options]
    assert main(given) == 0
    out = capsys.readouterr().out
    assert "all pictures of each of 12 parts in one fold" in out
    assert "seem to show" not in out
    facts = json.loads(file.read_text())
    assert (facts["parts"], facts["new_parts"]) == (12, True)
    assert main(["info", str(tmp_path / "b.trecall")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"parts seemingly shown +12\s.*rate is for new parts +yes", out, re.S)
    assert main(["fit", str(folder), "-o", str(tmp_path / "c"), "--method", "padim", "--new-parts"]) == 2
    assert "--new-parts is only for --method patchcore, got --method padim." in capsys.readouterr().err
    two = [str(one) for one in sorted(folder.iterdir())[:2]]
    assert main(["fit", *two, "-o", str(tmp_path / "c"), "--new-parts", *options]) == 1
    assert (
        "totalrecall: --new-parts needs good pictures of at least 3 parts, got 2 pictures that seem to show 2 parts"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_an_audit_says_how_many_parts_there_are_and_ranks_by_all_photographs(photographs, tmp_path, capsys):
    folder = tmp_path / "good"
    folder.mkdir()
    for at, picture in enumerate(photographs):
        cv2.imwrite(str(folder / f"{at:02}.png"), picture)
    file = tmp_path / "a.json"
    command = ["audit", str(folder), "-o", str(tmp_path / "a.html"), "--size", "128", "--precision", "f32"]
    assert main([*command, "--json", str(file)]) == 0
    assert "The pictures seem to show 12 different parts" in capsys.readouterr().out
    facts = json.loads(file.read_text())
    assert facts["parts"] == PARTS
    by_path = {entry["path"][-6:-4]: entry["part"] for entry in facts["entries"]}
    assert [by_path[f"{at:02}"] for at in range(48)] == [at // LIGHTS for at in range(48)]
    assert "<dt>different parts</dt><dd>12</dd>" in (tmp_path / "a.html").read_text()
