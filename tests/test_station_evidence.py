"""The evidence sheet, and the commands `station study` and `station evidence`."""

import json
import shutil
from datetime import datetime, timezone

import pytest

from tests.commands import complaint, run
from tests.parts import stripes
from tests.stations import started
from tests.striped import good_picture, png, write_parts
from totalrecall import load_detector
from totalrecall.errors import DataError, HistoryError, SettingError
from totalrecall.station.quality.evidence import Criteria, Evidence, JudgedPicture, gather_evidence, write_evidence
from totalrecall.station.quality.labelled import read_parts
from totalrecall.station.store.records import Actor
from totalrecall.system.files import file_sha256, sha256


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Six good parts, of which three are called defects, and five damaged ones, with a copy of each picture."""
    return write_parts(tmp_path_factory.mktemp("labelled"), good=6, dented=5, runs=2)


def test_a_sheet_names_what_was_tested_and_judges_by_the_criteria(fitted, labelled, tmp_path):
    parts = read_parts(labelled)
    detector = load_detector(fitted)
    alarms = sum(detector.predict(good_picture(at)).verdict != "good" for at in range(6))
    evidence = gather_evidence(fitted, parts, Criteria(0.02, 0.95))
    assert (evidence.found.count, evidence.found.total) == (5, 5)
    assert (evidence.false_alarms.count, evidence.false_alarms.total) == (alarms, 6)
    assert not evidence.passed
    assert gather_evidence(fitted, parts, Criteria(1.0, 1.0)).passed
    assert evidence.model_sha256 == file_sha256(fitted)
    lines = sorted(f"{file_sha256(part.pictures[0])} {part.truth}\n" for part in parts)
    assert evidence.pictures_sha256 == sha256("".join(lines).encode())
    facts = json.loads(json.dumps(evidence.to_json(), allow_nan=False))
    assert facts["threshold"] == detector.threshold_
    assert facts["versions"]["openvino"][0].isdigit()
    assert facts["facts"]["settings"]["false_alarm_rate"] == 0.1
    page = write_evidence(tmp_path / "sheet.html", evidence).read_text()
    assert "FAILED" in page
    assert evidence.model_sha256 in page
    assert page.count("(score ") == alarms


@pytest.mark.parametrize(
    ("good", "alarms", "defects", "found", "limits", "needed"),
    [
        (2, 0, 9, 9, (0.02, 0.95), {"false_alarms": 183, "found": 72}),
        (182, 0, 71, 71, (0.02, 0.95), {"false_alarms": 183, "found": 72}),
        (183, 0, 72, 72, (0.02, 0.95), {}),
        (2, 1, 9, 5, (0.02, 0.95), {}),  # what is not met needs no proof
        (1000, 0, 1000, 1000, (0.0, 1.0), {"false_alarms": 0, "found": 0}),
        (5, 5, 5, 0, (1.0, 0.0), {}),
    ],
)
def test_a_criterion_that_so_few_pictures_cannot_show_is_told(good, alarms, defects, found, limits, needed):
    tested = [JudgedPicture("a", "", "good", "defect" if at < alarms else "good", 1.0) for at in range(good)]
    tested += [JudgedPicture("b", "", "defect", "defect" if at < found else "good", 1.0) for at in range(defects)]
    evidence = Evidence(
        "m", "", {}, Criteria(*limits), tested, learnt=[], copies=[], threshold=1.0, at=datetime.now(timezone.utc)
    )
    assert evidence.needed == needed
    said = " ".join(evidence.sentences())
    for count in needed.values():
        assert (f": {count} " if count else "No number of pictures") in said
    assert ("too few" in said) == any(needed.values())


def test_learnt_pictures_are_no_evidence(labelled, tmp_path):
    for at in range(12):
        (tmp_path / "good").mkdir(exist_ok=True)
        (tmp_path / "good" / f"{at}.png").write_bytes(png(stripes(at)))
    from tests.parts import made_to_grow

    place = made_to_grow("compact").fit(tmp_path / "good").save(tmp_path / "part.trecall")
    shutil.copytree(labelled, tmp_path / "labelled")
    (tmp_path / "labelled" / "good" / "known.png").write_bytes((tmp_path / "good" / "3.png").read_bytes())
    evidence = gather_evidence(place, read_parts(tmp_path / "labelled"), Criteria(1, 0))
    assert [name.rpartition("/")[2] for name in evidence.learnt] == ["known.png"]
    assert evidence.false_alarms.total == 6
    assert "Learnt by the model, and so not counted: 1 picture of those given." in evidence.sentences()
    with pytest.raises(DataError, match="no good ones"):
        gather_evidence(
            place, [part for part in read_parts(tmp_path / "labelled") if "known" in part.name], Criteria(1, 0)
        )


def test_a_copy_of_a_picture_is_no_further_evidence(fitted, labelled, tmp_path):
    evidence = gather_evidence(fitted, read_parts(labelled), Criteria(1, 0))
    assert len(evidence.copies) == 11
    assert all(name.endswith("1.png") for name in evidence.copies)
    assert "Copies of others, and so not counted: 11 pictures of those given." in evidence.sentences()
    shutil.copytree(labelled, tmp_path / "labelled")
    shutil.copy(labelled / "good" / "00" / "0.png", tmp_path / "labelled" / "dent" / "good.png")
    with pytest.raises(DataError, match="it cannot be good and a defect"):
        gather_evidence(fitted, read_parts(tmp_path / "labelled"), Criteria(1, 0))


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_criterion_is_a_share(value):
    with pytest.raises(SettingError, match="must be from 0 to 1"):
        Criteria(value, 0.5)


def test_a_sheet_whose_pictures_cannot_be_written_is_refused_in_a_line(fitted, tmp_path):
    with started(tmp_path / "station", fitted) as (station, _):
        (station.settings.folder / "evidence").write_bytes(b"a file stands where the folder should be")
        with pytest.raises(HistoryError, match="The pictures cannot be written to"):
            station.sheets.begin(fitted.stem, Criteria(0.02, 0.95), Actor("anna", "engineer"))


def test_the_command_writes_both_and_its_exit_code_says_passed(capsys, fitted, labelled, tmp_path):
    files = ["-o", tmp_path / "sheet.html", "--json", tmp_path / "sheet.json"]
    asked = ["station", "evidence", fitted, labelled]
    code, out, err = run(capsys, *asked, "--max-false-alarms", "1", "--min-found", "0.95", *files)
    assert (code, err, out[-2]) == (0, [], "Passed")
    assert json.loads((tmp_path / "sheet.json").read_text())["passed"]
    assert "PASSED" in (tmp_path / "sheet.html").read_text()
    code, out, err = run(capsys, *asked, "--max-false-alarms", "0", "--min-found", "0.95", "--quiet")
    assert (code, out, err) == (1, ["Failed"], ["totalrecall: the acceptance criteria are not met."])
    code, said = complaint(capsys, *asked, "--max-false-alarms", "2", "--min-found", "0.95")
    assert (code, said) == (2, "--max-false-alarms must be from 0 to 1, got 2. For 2 percent write 0.02.")


def test_the_study_command_tells_and_writes(capsys, fitted, labelled, tmp_path):
    files = ["-o", tmp_path / "study.html", "--json", tmp_path / "study.json"]
    code, out, _ = run(capsys, "station", "study", fitted, labelled, "--runs", "2", *files)
    assert code == 0
    assert out[0].startswith("Effectiveness: ")
    assert any("same picture in several runs" in line for line in out)
    facts = json.loads((tmp_path / "study.json").read_text())
    assert (facts["parts"], facts["runs"], facts["model_sha256"]) == (11, 2, file_sha256(fitted))
    assert "Gauge study" in (tmp_path / "study.html").read_text()
    code, said = complaint(capsys, "station", "study", fitted, labelled, "--runs", "3")
    assert code == 1
    assert "has 2 pictures, and 3 runs were asked for" in said
    code, said = complaint(capsys, "station", "study", fitted, labelled, "-o", "-")
    assert (code, said) == (2, "--out must name a file, got -. Write --out FILE.html.")
