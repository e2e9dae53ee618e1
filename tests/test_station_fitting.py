"""Fitting from the page: uploaded pictures become a model of the station; what fails or is cancelled leaves nothing."""

import os
import shutil
import signal
import time

import pytest

from tests.parts import damaged, stripes
from tests.stations import started
from tests.striped import defect_picture, good_picture, png
from totalrecall import load_detector
from totalrecall.errors import ConflictError, HistoryError, NotFoundError, SettingError
from totalrecall.station.judging.caption import Caption, Upload
from totalrecall.station.quality.fitting import checked_name
from totalrecall.station.quality.workers import Workers
from totalrecall.station.store.records import Actor

ANNA = Actor("anna", "engineer")


@pytest.fixture
def station(fitted, tmp_path):
    with started(tmp_path / "station", fitted) as (station, _):
        yield station


@pytest.fixture(scope="module")
def uploads():
    names = ["part 1.png", "../../etc/passwd", "C:\\pictures\\teil.png", "零件.png"]
    return [
        Upload(png(stripes(seed)), Caption(name=names[seed] if seed < len(names) else f"{seed}.png"))
        for seed in range(24)
    ]


def finished(station, key):
    station.fits.wait(key, 300)
    return station.fits.facts(key)


def test_uploaded_pictures_become_a_model_that_judges_and_stays(fitted, tmp_path, uploads):
    folder = tmp_path / "station"
    with started(folder, fitted) as (station, _):
        key = station.fits.begin("new-part", uploads, ANNA, {"false_alarm_rate": 0.1, "size": 64})
        facts = finished(station, key)
        assert facts["state"] == "done", facts
        result = facts["result"]
        assert (result["pictures"], result["skipped"], result["settings"]["size"]) == (24, [], 64)
        assert "false alarm" in result["promise"].lower() or "good pictures" in result["promise"].lower()
        assert station.inspect(defect_picture(0), Caption(model="new-part")).verdict == "defect"
        assert station.shelf.get("new-part").sha256 == result["sha256"]
        names = [picture.path for picture in load_detector(folder / "models" / "new-part.trecall").pictures_]
        assert names[:4] == ["0000 part 1.png", "0001 passwd", "0002 teil.png", "0003 零件.png"]
        row = station.trail.rows(limit=1)[0]
        assert (row.actor, row.action, row.subject) == ("anna", "fit", "new-part")
        with pytest.raises(ConflictError, match="There is a model new-part already"):
            station.fits.begin("new-part", uploads, ANNA)
    with started(folder, fitted) as (station, _):
        assert [loaded.name for loaded in station.shelf.all()] == ["new-part", "part"]
        assert list((folder / "fits").iterdir()) == []


def test_an_audit_and_a_capability_study_of_the_pictures(station, uploads):
    dirty = [*uploads, Upload(png(damaged(50)), Caption(name="dirty.png"))]
    key = station.fits.begin("new", dirty, ANNA, {"size": 64})
    assert finished(station, key)["state"] == "done"
    audit = finished(station, station.fits.begin_audit(key, ANNA))
    assert audit["state"] == "done", audit
    assert audit["result"]["pictures"] == 25
    worst = audit["result"]["worst"][0]
    assert (worst["name"], worst["stands_out"]) == ("dirty.png", True)
    capability = finished(station, station.fits.begin_capability(key, ANNA))
    assert capability["state"] == "done", capability
    assert capability["result"]["sentences"]


def test_no_fit_begins_between_the_look_for_pictures_and_their_audit(station, uploads, monkeypatch):
    key = station.fits.begin("new", uploads, ANNA, {"size": 64})
    assert finished(station, key)["state"] == "done"
    original, alone = Workers.begin, []

    def begin(*arguments, **also):
        alone.append(station.fits._beginning.locked())  # a fit that begins now has to wait, and then finds the audit
        return original(*arguments, **also)

    monkeypatch.setattr(Workers, "begin", begin)
    audit = station.fits.begin_audit(key, ANNA)
    with pytest.raises(ConflictError, match="Another fit is running"):
        station.fits.begin("second", uploads, ANNA)
    assert finished(station, audit)["state"] == "done"
    assert alone == [True]


def test_a_fit_that_fails_says_why_and_leaves_nothing(station):
    key = station.fits.begin("bad", [Upload(b"no picture", Caption(name=f"{at}.png")) for at in range(5)], ANNA)
    facts = finished(station, key)
    assert facts["state"] == "failed"
    assert "0000 0.png" in facts["error"] or "readable" in facts["error"]
    assert list((station.settings.folder / "models").iterdir()) == []
    assert list((station.settings.folder / "fits").iterdir()) == []
    with pytest.raises(NotFoundError):
        station.shelf.get("bad")
    with pytest.raises(NotFoundError, match="are not here any more"):
        station.fits.begin_audit(key, ANNA)


def test_one_fit_at_a_time_and_a_cancelled_one_leaves_nothing(station, uploads):
    key = station.fits.begin("first", uploads, ANNA)
    with pytest.raises(ConflictError, match="Another fit is running"):
        station.fits.begin("second", uploads, ANNA)
    assert station.inspect(good_picture(0)).verdict == "good"  # judging goes on
    station.fits.cancel(key)
    assert station.fits.facts(key)["state"] == "cancelled"
    assert list((station.settings.folder / "fits").iterdir()) == []
    assert list((station.settings.folder / "models").iterdir()) == []
    with pytest.raises(NotFoundError):
        station.fits.cancel(key)


def test_a_child_that_is_killed_is_a_failure_with_a_reason(station, uploads):
    key = station.fits.begin("killed", uploads, ANNA)
    deadline = time.monotonic() + 120
    while not station.fits.facts(key)["step"] and time.monotonic() < deadline:
        time.sleep(0.01)
    import psutil

    for child in psutil.Process().children():
        if "spawn_main" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
    facts = finished(station, key)
    assert facts["state"] == "failed"
    assert "was ended (exit code -9)" in facts["error"]
    assert list((station.settings.folder / "fits").iterdir()) == []


def test_what_a_killed_station_left_is_removed_at_the_next_start(fitted, tmp_path):
    left = tmp_path / "station" / "fits" / ("a" * 32) / "pictures"
    left.mkdir(parents=True)
    (left / "0000 a.png").write_bytes(b"picture")
    with started(tmp_path / "station", fitted) as (station, _):
        assert list((tmp_path / "station" / "fits").iterdir()) == []
        assert station.fits.all() == []


def test_a_model_of_the_stations_own_folder_may_be_named_on_the_command_line_too(fitted, tmp_path):
    models = tmp_path / "station" / "models"
    models.mkdir(parents=True)
    for name in ("part", "second"):
        shutil.copy(fitted, models / f"{name}.trecall")
    with started(tmp_path / "station", models / "part.trecall") as (station, _):
        assert [loaded.name for loaded in station.shelf.all()] == ["part", "second"]
        assert station.shelf.faults == {}


def test_a_damaged_model_of_a_fit_keeps_no_station_from_starting(fitted, tmp_path):
    (tmp_path / "station" / "models").mkdir(parents=True)
    (tmp_path / "station" / "models" / "broken.trecall").write_bytes(b"no model")
    with started(tmp_path / "station", fitted) as (station, _):
        assert [loaded.name for loaded in station.shelf.all()] == ["part"]
        assert "broken" in station.shelf.faults


@pytest.mark.parametrize(
    "name", ["", " ", "../up", "a/b", "a\\b", ".hidden", "a.b", "-a", "_a", "a" * 65, "con", "COM1", "a\nb", "a b"]
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(SettingError, match="A model's name has 1 to 64 letters"):
        checked_name(name)


@pytest.mark.parametrize("name", ["part", "Part-7_b", "零件", "7"])
def test_what_is_a_name_stays(name):
    assert checked_name(f" {name} ") == name


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"roi": "/etc/passwd"}, "Settings of a fit here are false_alarm_rate, size, backbone, got 'roi'"),
        ({"backbone": "/tmp/x.onnx"}, "backbone must be the name of a backbone"),
        ({"size": 5}, "size"),
        ({"false_alarm_rate": 2}, "false_alarm_rate"),
    ],
)
def test_what_is_no_setting_is_refused(station, uploads, settings, fault):
    with pytest.raises(SettingError, match=fault):
        station.fits.begin("new", uploads, ANNA, settings)


def test_too_few_pictures_are_refused(station, uploads):
    with pytest.raises(SettingError, match="A fit takes 3 to 5,000 pictures, got 2"):
        station.fits.begin("new", uploads[:2], ANNA)


def test_pictures_that_cannot_be_written_are_refused_in_a_line(station, uploads):
    folder = station.settings.folder / "fits"
    folder.rmdir()
    folder.write_bytes(b"a file stands where the folder was")
    with pytest.raises(HistoryError, match="The pictures cannot be written to"):
        station.fits.begin("new-part", uploads[:3], ANNA)
    folder.unlink()
    assert finished(station, station.fits.begin("new-part", uploads[:3], ANNA))["state"] == "done"
