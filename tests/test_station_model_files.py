"""Changes of model files: no file is changed, and no picture judged by another model, without a row that says so."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from tests.killed_change import ANNA
from tests.stations import started
from tests.striped import fit_striped, good_picture, odd_picture
from totalrecall.errors import ConflictError, DataError, HistoryError, ModelFileError
from totalrecall.station.judging import model_files
from totalrecall.station.judging.caption import Caption
from totalrecall.station.judging.model_files import NOT_IN_PLACE, REPLACED
from totalrecall.station.thresholds import set_threshold, take_back_threshold
from totalrecall.system.files import file_sha256, write_atomically

WITH_KILLS = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return fit_striped(tmp_path_factory.mktemp("models"))


@pytest.fixture
def place(fitted, tmp_path):
    """The model in a folder of its own."""
    return Path(shutil.copy(fitted, tmp_path / "part.trecall"))


def told(station, model="part", since=0):
    """What the trail says of a model from some row on: who, what, and the hash that it knows then."""
    rows = [row for row in reversed(station.trail.rows(limit=1000)) if row.id > since and row.subject == model]
    return [(row.actor, row.action, row.facts().get("sha256")) for row in rows if "golden" not in row.action]


def last_row(station):
    return station.trail.rows(limit=1)[0].id


def prepared(action, place, folder):
    """Bring a station to where a change can be made; returns the proposal's key and the last row of the trail."""
    with started(folder, place, keep_good=1.0) as (station, _):
        key = ""
        if action == "threshold taken back":
            set_threshold(station, "part", ANNA, threshold=0.5)
        if action in ("approve", "undo"):
            inspection = station.inspect(odd_picture(0))
            station.history.judge(inspection.key, "fine", ANNA)
            key = station.teaching.propose("part", fine=[inspection.key], actor=ANNA)
            station.teaching.wait(key, 120)
        if action == "undo":
            station.teaching.approve(key, ANNA)
        return key, last_row(station)


def killed(folder, place, action, moment, key):
    command = [sys.executable, "-m", "tests.killed_change", str(folder), str(place), action, moment, key]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


STATES = {("approve", "announced"): "proposed", ("approve", "written"): "approved"}
STATES |= {("undo", "announced"): "approved", ("undo", "written"): "undone"}


@WITH_KILLS
@pytest.mark.slow
@pytest.mark.parametrize("action", ["threshold", "threshold taken back", "approve", "undo", "fit"])
@pytest.mark.parametrize("moment", ["announced", "written"])
def test_after_a_kill_the_trail_says_who_changed_what_and_what_is_in_place(action, moment, place, tmp_path):
    folder = tmp_path / "station"
    key, since = prepared(action, place, folder)
    model, file = ("new", folder / "models" / "new.trecall") if action == "fit" else ("part", place)
    before = file_sha256(file) if file.exists() else None
    killed(folder, place, action, moment, key)
    with started(folder, place) as (station, _):
        now = file_sha256(file) if file.exists() else None
        rows = [row for row in told(station, model, since) if row[0] == "anna" or row[1] == NOT_IN_PLACE]
        if moment == "announced":
            assert now == before
            assert [row[:2] for row in rows] == [("anna", action), ("station", NOT_IN_PLACE)]
        else:
            assert now != before
            assert [row[:2] for row in rows] == [("anna", action)]
        assert rows[-1][2] == now
        assert REPLACED not in [row[1] for row in told(station, model, since)]
        if now is not None:
            assert told(station, model, since)[-1] == ("station", "start", now)
        if (action, moment) in STATES:
            assert station.teaching.facts(key)["state"] == STATES[action, moment]
        assert station.trail.verify().is_whole
        assert station.inspect(good_picture(0), Caption(model="part")).model_sha256 == file_sha256(place)


@WITH_KILLS
@pytest.mark.slow
def test_what_was_not_announced_before_a_kill_has_not_happened(place, tmp_path):
    folder, before = tmp_path / "station", place.read_bytes()
    _, since = prepared("threshold", place, folder)
    killed(folder, place, "threshold", "asked", "")
    with started(folder, place) as (station, _):
        assert {row[1] for row in told(station, since=since)} == {"start"}
        assert place.read_bytes() == before


@WITH_KILLS
@pytest.mark.slow
def test_what_was_cut_off_can_be_done_again(place, tmp_path):
    folder, before = tmp_path / "station", place.read_bytes()
    key, _ = prepared("approve", place, folder)
    killed(folder, place, "approve", "announced", key)
    with started(folder, place) as (station, _):
        station.teaching.approve(key, ANNA)
    killed(folder, place, "undo", "announced", key)
    with started(folder, place) as (station, _):
        facts = station.teaching.facts(key)
        assert (facts["state"], facts["decided_by"]) == ("approved", "anna")
        station.teaching.undo("part", ANNA)
        assert place.read_bytes() == before
        assert not list((folder / "proposals").iterdir())


def test_the_row_comes_before_the_file_and_the_file_before_its_use(place, tmp_path, monkeypatch):
    with started(tmp_path / "station", place) as (station, _):
        seen = []

        def written(*args, **kwargs):
            seen.append((station.trail.rows(limit=1)[0].action, station.shelf.get().sha256 == file_sha256(place)))
            return write_atomically(*args, **kwargs)

        monkeypatch.setattr(model_files, "write_atomically", written)
        set_threshold(station, "part", ANNA, threshold=0.5)
        take_back_threshold(station, "part", ANNA)
        assert seen == [("threshold", True), ("threshold taken back", True)]


def test_the_rows_of_a_change_hold_both_hashes(place, tmp_path):
    with started(tmp_path / "station", place) as (station, _):
        before, threshold = file_sha256(place), station.shelf.get().judge.threshold_
        set_threshold(station, "part", ANNA, threshold=0.5)
        facts = station.trail.rows(limit=1)[0].facts()
        assert (facts["sha256_before"], facts["sha256"]) == (before, file_sha256(place))
        assert (facts["threshold_before"], facts["threshold"]) == (threshold, 0.5)
        take_back_threshold(station, "part", ANNA)
        assert station.trail.rows(limit=1)[0].facts()["threshold_before"] == 0.5
        assert file_sha256(place) == before


def test_a_file_that_cannot_be_written_is_told_at_once(place, tmp_path, monkeypatch):
    with started(tmp_path / "station", place) as (station, _):
        before, since = file_sha256(place), last_row(station)

        def full(*_, **__):
            raise DataError("Cannot write part.trecall: No space left on device.")

        monkeypatch.setattr(model_files, "write_atomically", full)
        with pytest.raises(HistoryError, match="No space left"):
            set_threshold(station, "part", ANNA, threshold=0.5)
        rows = station.trail.rows(limit=2)
        assert [row.action for row in rows] == [NOT_IN_PLACE, "threshold"]
        facts = rows[0].facts()
        assert (facts["row"], facts["sha256"], "No space left" in facts["reason"]) == (rows[1].id, before, True)
        assert rows[1].id == since + 1


@pytest.mark.parametrize("lost", ["folder", "disk"])
@pytest.mark.parametrize("path", ["/threshold", "/threshold/undo"])
def test_a_threshold_that_cannot_be_written_is_503_and_can_be_changed_later(lost, path, place, tmp_path, monkeypatch):
    form = {"data": {"model": "part", "score": "0.5"}, "follow_redirects": False}
    with started(tmp_path / "station", place) as (station, client):
        set_threshold(station, "part", ANNA, threshold=0.7)
        before, changes, aside = file_sha256(place), tmp_path / "station" / "changes", tmp_path / "aside"
        with monkeypatch.context() as patched:
            if lost == "folder":
                changes.rename(aside)
            else:

                def full(_):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

                patched.setattr(os, "fsync", full)
            answer = client.post(path, **form)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        expected = "No space left on device" if lost == "disk" else f"Cannot write {changes}: No such file or directory"
        assert expected in unescape(answer.text)
        assert file_sha256(place) == before
        if lost == "folder":
            aside.rename(changes)
        assert client.post(path, **form).status_code == 303
        assert file_sha256(place) != before


def test_a_file_that_somebody_writes_at_that_very_moment_is_left_and_told(place, tmp_path, monkeypatch):
    with started(tmp_path / "elsewhere", place) as (other, _):
        set_threshold(other, "part", ANNA, threshold=0.7)
        theirs = place.read_bytes()
        take_back_threshold(other, "part", ANNA)
    with started(tmp_path / "station", place) as (station, _):

        def late(*args, **kwargs):
            place.write_bytes(theirs)
            return write_atomically(*args, **kwargs)

        monkeypatch.setattr(model_files, "write_atomically", late)
        with pytest.raises(DataError, match="was written by another program meanwhile") as refused:
            set_threshold(station, "part", ANNA, threshold=0.5)
        assert refused.type is DataError  # to ask again would not help: the model must be looked at first
        assert place.read_bytes() == theirs
        station.shelf.look()
        assert station.shelf.get().sha256 == file_sha256(place) == told(station)[-1][2]
        assert [row[1] for row in told(station)][-2:] == ["threshold", NOT_IN_PLACE]


def test_a_new_file_that_cannot_be_used_leaves_the_old_one_in_place_and_in_use(place, tmp_path):
    with started(tmp_path / "station", place) as (station, _):
        before, data = station.shelf.get(), place.read_bytes()
        with pytest.raises(ModelFileError):
            station.model_files.replace(
                "part", b"no model", before=before.sha256, actor=ANNA, action="approve", details={"proposal": "x"}
            )
        assert place.read_bytes() == data
        assert station.shelf.get().sha256 == before.sha256
        assert not station.shelf.faults
        assert station.trail.rows(limit=1)[0].action == NOT_IN_PLACE
        with pytest.raises(ModelFileError):
            station.model_files.add(tmp_path / "station" / "models" / "new.trecall", b"no", actor=ANNA, details={})
        assert not (tmp_path / "station" / "models" / "new.trecall").exists()
        assert [row[1] for row in told(station, "new")] == ["fit", NOT_IN_PLACE]


def test_what_could_not_be_told_is_told_before_the_next_change(place, tmp_path, monkeypatch):
    with started(tmp_path / "station", place) as (station, _):
        real, before = station.database.write, file_sha256(place)

        def full(*_, **__):
            monkeypatch.setattr(station.database, "write", lost)  # and now the database goes, too
            raise DataError("Cannot write part.trecall: No space left on device.")

        def lost(_):
            raise HistoryError("The database does not answer.")

        monkeypatch.setattr(model_files, "write_atomically", full)
        with pytest.raises(DataError, match="No space left"):
            set_threshold(station, "part", ANNA, threshold=0.5)
        monkeypatch.undo()
        assert station.database.write == real
        set_threshold(station, "part", ANNA, threshold=0.6)
        assert [row[1:] for row in told(station)][-3:-1] == [
            ("threshold", told(station)[-3][2]),
            (NOT_IN_PLACE, before),
        ]
        assert told(station)[-1] == ("anna", "threshold", file_sha256(place))


def test_a_file_that_was_changed_while_the_station_was_down_is_told_at_the_start(place, fitted, tmp_path):
    folder = tmp_path / "station"
    with started(folder, place):
        before = file_sha256(place)
    with started(tmp_path / "elsewhere", place) as (other, _):
        set_threshold(other, "part", ANNA, threshold=0.5)
    with started(folder, place) as (station, _):
        rows = [row for row in reversed(station.trail.rows(limit=3)) if row.action == REPLACED]
        assert [row.facts() for row in rows] == [{"sha256_before": before, "sha256": file_sha256(place)}]
        assert told(station)[-1] == ("station", "start", file_sha256(place))
    with started(folder, place) as (station, _):
        assert [row[1] for row in told(station)].count(REPLACED) == 1


def test_a_replaced_file_is_used_once_its_row_is_committed(place, tmp_path, monkeypatch):
    with started(tmp_path / "station", place) as (station, _):
        before = station.shelf.get()
        with started(tmp_path / "elsewhere", place) as (other, _):
            set_threshold(other, "part", ANNA, threshold=0.5)

        def lost(_):
            raise HistoryError("The database does not answer.")

        with monkeypatch.context() as patched:
            patched.setattr(station.database, "write", lost)
            station.shelf.look()
            assert station.shelf.get() is before
            assert station.shelf.faults["part"] == "The database does not answer."
        station.shelf.look()  # by itself, though the file is the same as at the look before
        assert station.shelf.get().sha256 == file_sha256(place)
        assert station.trail.rows(limit=1)[0].action == REPLACED
        assert not station.shelf.faults


def test_a_change_by_the_station_itself_is_not_told_twice(place, tmp_path):
    with started(tmp_path / "station", place) as (station, _):
        since = last_row(station)
        set_threshold(station, "part", ANNA, threshold=0.5)
        station.shelf.look()
        station.shelf.reload("part")
        assert [row[1] for row in told(station, since=since)] == ["threshold"]


def test_a_file_that_somebody_changed_meanwhile_is_not_written_over(place, tmp_path):
    with started(tmp_path / "station", place) as (station, _):
        with started(tmp_path / "elsewhere", place) as (other, _):
            set_threshold(other, "part", ANNA, threshold=0.5)
        data = place.read_bytes()
        with pytest.raises(ConflictError, match=r"part\.trecall has changed since then"):
            station.model_files.replace(
                "part", b"x", before=station.shelf.get().sha256, actor=ANNA, action="undo", details={}
            )
        assert place.read_bytes() == data


def test_who_asks_for_a_reload_is_told_and_a_broken_file_is_refused_with_the_reason(place, tmp_path):
    with started(tmp_path / "station", place) as (station, client):
        assert client.post("/v1/models/part/reload").status_code == 200
        in_use, data = station.shelf.get(), place.read_bytes()
        place.write_bytes(data[:1000])
        refused = client.post("/v1/models/part/reload")
        assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
        assert "part.trecall" in refused.json()["detail"]
        page = client.post("/models/part/reload", headers={"Accept": "text/html"}, follow_redirects=False)
        assert (page.status_code, "part.trecall" in page.text) == (409, True)
        assert station.shelf.get() is in_use
        assert client.get("/v1/models/part").json()["fault"] == refused.json()["detail"]
        assert client.post("/v1/models/part/predict", content=good_picture(0)).status_code == 200
        assert told(station)[-3:] == [("local", "reload", in_use.sha256)] * 3
        refused = client.post("/threshold", data={"model": "part", "score": "0.5"}, follow_redirects=False)
        assert refused.status_code == 409  # the threshold of a broken file cannot be changed either
