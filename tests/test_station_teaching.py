"""Teaching at the station: a proposal is compared, approved by a person, and taken back to the byte."""

import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.stations import started
from tests.striped import defect_picture, good_picture, odd_picture
from totalrecall import PaDiM, load_detector
from totalrecall.errors import ConflictError, DataError, HistoryError, NotFoundError, SettingError
from totalrecall.station.judging.caption import Caption
from totalrecall.station.settings import StationSettings
from totalrecall.station.station import Station
from totalrecall.station.store.records import Actor
from totalrecall.system.files import write_atomically

ANNA = Actor("anna", "engineer")


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture
def place(fitted, tmp_path):
    """The model in a folder of its own."""
    return Path(shutil.copy(fitted, tmp_path / "part.trecall"))


@pytest.fixture
def running(place, tmp_path):
    with started(tmp_path / "station", place, keep_good=1.0) as (station, _):
        yield station


def false_alarms(station, count=1):
    """Keys of inspections of good parts that were called defects, and that anna judged fine."""
    keys = []
    for seed in range(count):
        inspection = station.inspect(odd_picture(seed), Caption(name=f"odd {seed}.png"))
        assert inspection.verdict == "defect"
        station.history.judge(inspection.key, "fine", ANNA)
        keys.append(inspection.key)
    return keys


def made(station, key):
    station.teaching.wait(key, 120)
    facts = station.teaching.facts(key)
    assert facts["state"] == "proposed", facts
    return facts


def actions(station):
    return [(row.actor, row.action, row.subject) for row in reversed(station.trail.rows(limit=100))]


def test_false_alarms_are_learnt_compared_approved_and_taken_back_to_the_byte(running, place):
    station = running
    before = place.read_bytes()
    for seed in range(3):
        station.history.judge(station.inspect(defect_picture(seed)).key, "defect", ANNA)
    keys = false_alarms(station, 3)
    key = station.teaching.propose("part", fine=keys[:2], actor=ANNA)

    facts = made(station, key)
    assert place.read_bytes() == before  # nothing is changed before a person says so
    comparison = facts["comparison"]
    assert (comparison["pictures"], comparison["learnt"]) == (6, 2)
    assert comparison["before"] == {"found": 3, "defects": 3, "false_alarms": 3, "good": 3}
    assert comparison["after"]["defects"] == 3
    assert comparison["after"]["false_alarms"] <= 1
    assert comparison["not_learnt"]["after"]["good"] == 1
    assert comparison["threshold"]["before"] == load_detector(place).threshold_
    learnt = [row for row in comparison["changed"] if row["learnt"]]
    assert sorted(row["id"] for row in learnt) == sorted(keys[:2])
    assert all(row["before"]["verdict"] == "defect" and row["after"]["verdict"] == "good" for row in learnt)

    station.teaching.approve(key, ANNA)
    assert digest(place) == facts["sha256"]
    assert station.shelf.get("part").sha256 == facts["sha256"]
    assert station.inspect(odd_picture(0)).verdict == "good"
    assert station.teaching.undoable("part")["id"] == key

    station.teaching.undo("part", ANNA)
    assert place.read_bytes() == before
    assert station.inspect(odd_picture(0)).verdict == "defect"
    assert station.teaching.facts(key)["state"] == "undone"
    assert [action for action in actions(station) if action[0] == "anna" and action[1] != "judge"] == [
        ("anna", "propose", "part"),
        ("anna", "approve", "part"),
        ("anna", "undo", "part"),
    ]
    assert station.trail.verify().is_whole
    assert list((station.settings.folder / "proposals").iterdir()) == []


def test_a_learnt_picture_is_named_by_its_inspection(running, place):
    station = running
    keys = false_alarms(station)
    key = station.teaching.propose("part", fine=keys, actor=ANNA)
    made(station, key)
    station.teaching.approve(key, ANNA)
    assert [picture.path for picture in load_detector(place).pictures_][-1] == f"inspection-{keys[0]}"


def test_a_missed_defect_lowers_the_threshold(running, place):
    station = running
    worst = station.inspect(good_picture(2))
    assert worst.verdict == "good"
    station.history.judge(worst.key, "defect", ANNA)
    key = station.teaching.propose("part", missed=[worst.key], actor=ANNA)
    facts = made(station, key)
    assert facts["what"] == "catch"
    assert facts["comparison"]["threshold"]["after"] < worst.score < facts["comparison"]["threshold"]["before"]
    (changed,) = facts["comparison"]["changed"]
    assert (changed["id"], changed["truth"], changed["after"]["verdict"]) == (worst.key, "defect", "defect")
    assert changed["learnt"]
    station.teaching.approve(key, ANNA)
    again = station.inspect(good_picture(2))
    assert (again.verdict, again.threshold) == ("defect", load_detector(place).threshold_)


def test_golden_pictures_are_in_the_frozen_set(running):
    station = running
    station.golden.add("part", good_picture(0), expected="good", name="g", actor=ANNA)
    station.golden.add("part", defect_picture(0), expected="defect", name="d", actor=ANNA)
    key = station.teaching.propose("part", fine=false_alarms(station), actor=ANNA)
    rows = made(station, key)["comparison"]["rows"]
    assert [(row["from"], row["truth"]) for row in rows] == [
        ("golden", "good"),
        ("golden", "defect"),
        ("judged", "good"),
    ]


def test_a_rejected_proposal_leaves_nothing(running, place):
    station = running
    before = digest(place)
    key = station.teaching.propose("part", fine=false_alarms(station), actor=ANNA)
    made(station, key)
    assert station.teaching.reject(key, ANNA)["state"] == "rejected"
    assert digest(place) == before
    assert list((station.settings.folder / "proposals").iterdir()) == []
    for decide in (station.teaching.approve, station.teaching.reject):
        with pytest.raises(ConflictError, match="was rejected by anna already"):
            decide(key, ANNA)


def test_a_model_that_was_changed_meanwhile_is_left_as_it_is(running, place):
    station = running
    key = station.teaching.propose("part", fine=false_alarms(station), actor=ANNA)
    made(station, key)
    detector = load_detector(place)
    detector.update(false_alarm_rate=0.2)
    detector.save(place)
    changed = digest(place)
    with pytest.raises(ConflictError, match="has changed since then"):
        station.teaching.approve(key, ANNA)
    assert digest(place) == changed
    assert station.teaching.facts(key)["state"] == "proposed"


def test_undo_is_refused_where_the_file_is_another_by_now(running, place):
    station = running
    with pytest.raises(ConflictError, match="nothing to take back"):
        station.teaching.undo("part", ANNA)
    key = station.teaching.propose("part", fine=false_alarms(station), actor=ANNA)
    made(station, key)
    station.teaching.approve(key, ANNA)
    detector = load_detector(place)
    detector.update(false_alarm_rate=0.2)
    detector.save(place)
    changed = digest(place)
    with pytest.raises(ConflictError, match="has changed since then"):
        station.teaching.undo("part", ANNA)
    assert digest(place) == changed


def test_what_cannot_be_taught_is_refused_with_the_reason(running):
    station = running
    inspection = station.inspect(odd_picture(0))
    with pytest.raises(SettingError, match="one of the two"):
        station.teaching.propose("part", actor=ANNA)
    with pytest.raises(NotFoundError, match="There is no inspection"):
        station.teaching.propose("part", fine=["0" * 32], actor=ANNA)
    with pytest.raises(ConflictError, match="judged fine before the model is taught, but nobody"):
        station.teaching.propose("part", fine=[inspection.key], actor=ANNA)
    station.history.judge(inspection.key, "defect", ANNA)
    with pytest.raises(ConflictError, match="it was judged defect"):
        station.teaching.propose("part", fine=[inspection.key], actor=ANNA)
    with pytest.raises(ConflictError, match="nothing to teach by it"):
        station.teaching.propose("part", missed=[inspection.key], actor=ANNA)
    station.history.judge(inspection.key, "fine", ANNA)
    station.kept.forget([inspection.key])
    with pytest.raises(ConflictError, match="is not kept any more"):
        station.teaching.propose("part", fine=[inspection.key], actor=ANNA)
    assert station.teaching.all("no such\x00model") == []
    with pytest.raises(NotFoundError, match="There is no proposal"):
        station.teaching.approve("1" * 32, ANNA)


def test_pictures_that_are_known_already_are_no_proposal(running):
    station = running
    keys = false_alarms(station)
    key = station.teaching.propose("part", fine=keys, actor=ANNA)
    made(station, key)
    station.teaching.approve(key, ANNA)
    second = station.teaching.propose("part", fine=keys, actor=ANNA)
    station.teaching.wait(second, 120)
    facts = station.teaching.facts(second)
    assert facts["state"] == "failed"
    assert "has learnt these pictures already" in facts["error"]


def test_one_proposal_at_a_time_and_it_can_be_cancelled(running, place):
    station = running
    keys = false_alarms(station, 3)
    key = station.teaching.propose("part", fine=keys[:1], actor=ANNA)
    with pytest.raises(ConflictError, match="is worked on already"):
        station.teaching.propose("part", fine=keys[1:2], actor=ANNA)
    with pytest.raises(ConflictError, match="is not complete"):
        station.teaching.approve(key, ANNA)
    assert station.inspect(good_picture(0)).verdict == "good"  # judging goes on
    station.teaching.cancel(key)
    assert station.teaching.facts(key)["state"] == "cancelled"
    assert list((station.settings.folder / "proposals").iterdir()) == []


def test_a_model_that_cannot_learn_says_so(good, tmp_path):
    padim = PaDiM(size=64, precision="f32").fit(good)
    place = padim.save(tmp_path / "padim.trecall")
    with started(tmp_path / "station", place) as (station, _), pytest.raises(SettingError, match="Fit it again"):
        station.teaching.propose("padim", fine=["0" * 32], actor=ANNA)


def test_of_two_people_who_decide_at_once_one_is_refused(running, place, monkeypatch):
    station, refusals = running, []
    key = station.teaching.propose("part", fine=false_alarms(station), actor=ANNA)
    facts = made(station, key)

    def reject():
        try:
            station.teaching.reject(key, Actor("bert", "engineer"))
        except ConflictError as error:
            refusals.append(str(error))

    bert = threading.Thread(target=reject)

    def written(*args, **kwargs):
        write_atomically(*args, **kwargs)
        bert.start()  # he says no as soon as her yes has changed the file
        bert.join(1)

    monkeypatch.setattr("totalrecall.station.judging.model_files.write_atomically", written)
    station.teaching.approve(key, ANNA)
    bert.join()
    assert refusals == [f"Proposal {key} was approved by anna already."]
    assert digest(place) == facts["sha256"]
    monkeypatch.undo()
    station.teaching.undo("part", ANNA)
    assert digest(place) == facts["base_sha256"]


def test_a_decision_that_cannot_be_written_down_changes_no_file(running, place, monkeypatch):
    station = running
    key = station.teaching.propose("part", fine=false_alarms(station), actor=ANNA)
    facts = made(station, key)

    def refuse(_):
        raise HistoryError("the disk is full")

    for decide, expected in ((station.teaching.approve, "base_sha256"), (station.teaching.undo, "sha256")):
        with monkeypatch.context() as patched:
            patched.setattr(station.database, "write", refuse)
            with pytest.raises(HistoryError, match="the disk is full"):
                decide(key if decide == station.teaching.approve else "part", ANNA)
        assert digest(place) == facts[expected]
        if expected == "base_sha256":
            station.teaching.approve(key, ANNA)
    station.teaching.undo("part", ANNA)
    assert digest(place) == facts["base_sha256"]


def test_a_model_that_cannot_be_written_is_decided_on_again_once_the_disk_has_room(running, place, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    station = running
    key = station.teaching.propose("part", fine=false_alarms(station), actor=ANNA)
    facts = made(station, key)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(HistoryError, match="No space left on device"):
            station.teaching.approve(key, ANNA)
    assert (station.teaching.facts(key)["state"], digest(place)) == ("proposed", facts["base_sha256"])
    assert station.teaching.approve(key, ANNA)["state"] == "approved"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(HistoryError, match="No space left on device"):
            station.teaching.undo("part", ANNA)
    assert (station.teaching.facts(key)["state"], digest(place)) == ("approved", facts["sha256"])
    assert station.teaching.undo("part", ANNA)["state"] == "undone"


def test_a_proposal_that_cannot_be_begun_says_why_in_a_line(running, place):
    station, folder = running, running.settings.folder / "proposals"
    keys, away = false_alarms(station), place.with_suffix(".away")
    place.rename(away)
    with pytest.raises(DataError, match="The file of model part cannot be read"):
        station.teaching.propose("part", fine=keys, actor=ANNA)
    away.rename(place)
    folder.rmdir()
    folder.write_bytes(b"a file stands where the folder was")
    with pytest.raises(HistoryError, match="proposals"):
        station.teaching.propose("part", fine=keys, actor=ANNA)


def test_what_a_killed_station_left_half_made_is_removed(place, tmp_path):
    folder = tmp_path / "station" / "proposals"
    (folder / f"{'a' * 32}.work").mkdir(parents=True)
    (folder / f"{'a' * 32}.before").write_bytes(b"half")
    station = Station(StationSettings(models=(place,), folder=tmp_path / "station", watch_seconds=0))
    try:
        assert list(folder.iterdir()) == []
    finally:
        station.close()


def test_a_proposal_that_was_tampered_with_is_not_approved(running, place):
    station = running
    before = digest(place)
    key = station.teaching.propose("part", fine=false_alarms(station), actor=ANNA)
    made(station, key)
    file = station.settings.folder / "proposals" / f"{key}.trecall"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(Exception, match="is not the file that was written there"):
        station.teaching.approve(key, ANNA)
    assert digest(place) == before


def test_scores_are_counted_by_truth():
    from totalrecall.station.quality.comparing import tally

    rows = [
        {"truth": truth, "new": {"verdict": verdict}}
        for truth, verdict in (("defect", "defect"), ("defect", "good"), ("good", "defect"), ("good", "good"))
    ]
    assert tally(rows, "new") == {"found": 1, "defects": 2, "false_alarms": 1, "good": 2}
    assert np.sum(list(tally([], "new").values())) == 0
