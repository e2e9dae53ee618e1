"""Drift at the station: a slow disk keeps nobody waiting, and a model that was replaced disturbs no watch."""

import os
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.striped import good_picture
from totalrecall.drift.monitor import Alarm, Monitor
from totalrecall.station.judging.models import Shelf
from totalrecall.station.judging.watching import DriftWatch


@pytest.fixture
def loaded(fitted):
    shelf = Shelf([fitted])
    yield shelf.get()
    shelf.close()


def test_while_the_state_is_written_it_is_known_who_is_watched(loaded, tmp_path, monkeypatch):
    watch = DriftWatch(tmp_path)
    assert watch.watches(loaded)
    writing, written = threading.Event(), threading.Event()

    def slow(monitor, path):
        writing.set()
        assert written.wait(60)

    monkeypatch.setattr(Monitor, "save", slow)
    closing = threading.Thread(target=watch.close)
    closing.start()
    assert writing.wait(60)
    asking = threading.Thread(target=watch.watches, args=(loaded,), daemon=True)
    asking.start()
    asking.join(60)
    was_answered = not asking.is_alive()
    written.set()
    closing.join(60)
    assert was_answered


def test_the_state_of_a_model_that_is_not_in_use_goes_after_a_month(loaded, tmp_path):
    in_use, gone, lately = (tmp_path / f"{name}.monitor" for name in (loaded.sha256[:32], "a" * 32, "b" * 32))
    month = 31 * 86400
    for path, age in ((in_use, month), (gone, month), (lately, month - 2 * 86400)):
        path.write_bytes(b"state")
        os.utime(path, (at := time.time() - age, at))
    DriftWatch(tmp_path).sweep([loaded])
    assert set(tmp_path.glob("*.monitor")) == {in_use, lately}


def test_a_result_of_a_model_that_was_replaced_leaves_the_new_ones_watch_alone(loaded, tmp_path):
    watch = DriftWatch(tmp_path)
    new = replace(loaded, sha256="f" * 64, at=loaded.at + timedelta(seconds=1))
    result = loaded.judge.predict(good_picture(0), conditions=True)
    watch.observe(loaded, result, "part 7.png")
    watch.observe(new, result, "part 7.png")
    watch.observe(loaded, result, "part 7.png")
    watch.observe(new, result, "part 7.png")
    assert watch.facts(new)["pictures"] == 2


def test_an_alarm_names_the_picture_as_its_sender_does(loaded, tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(Monitor, "observe", lambda *given: named.append(given[-1]) or [])
    DriftWatch(tmp_path).observe(loaded, loaded.judge.predict(good_picture(0), conditions=True), "part 7.png")
    assert named == ["part 7.png"]


def test_the_last_alarms_are_still_told_after_a_restart_and_damaged_ones_are_not(loaded, tmp_path, monkeypatch):
    result = loaded.judge.predict(good_picture(0), conditions=True)
    raised = [Alarm("light", "+", 1, "part 7.png", "The light is brighter by 20 percent.", 0.5)]
    watch = DriftWatch(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "observe", lambda *_: raised)
        watch.observe(loaded, result, "part 7.png")
    before = watch.facts(loaded)["alarms"]
    assert [(alarm["words"], alarm["picture"]) for alarm in before] == [(raised[0].words, "part 7.png")]
    watch.close()
    assert DriftWatch(tmp_path).facts(loaded)["alarms"] == before
    file = next(tmp_path.glob("*.alarms"))
    for damaged in (b"", b"{}", b'[{"at": 1}, 7]', b"[" * 200_000, b"\xff"):
        file.write_bytes(damaged)
        assert DriftWatch(tmp_path).facts(loaded)["alarms"] == []
    again = DriftWatch(tmp_path)
    again.reset(loaded)
    file.unlink()
    assert again.facts(loaded)["alarms"] == []
