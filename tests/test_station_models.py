"""The station's models by name, and files that are replaced while it runs."""

import shutil
import threading
from pathlib import Path

import pytest

from totalrecall import load_detector
from totalrecall.errors import ModelFileError, NotFoundError, SettingError
from totalrecall.station.judging import models
from totalrecall.station.judging.models import Shelf, model_name
from totalrecall.station.settings import StationSettings


@pytest.fixture
def place(model, tmp_path):
    """A copy of the model that a test may replace."""
    return shutil.copy(model, tmp_path / "part.trecall")


@pytest.fixture
def other(place, tmp_path):
    """The same model with another threshold, in another file."""
    detector = load_detector(place)
    detector.update(threshold=0.5)
    return detector.save(tmp_path / "changed")


def replace(new, old):
    """Put a file in another's place, as `save` does."""
    shutil.copy(new, old.with_name("incoming")).replace(old)


def test_a_model_is_found_by_its_stem_and_alone_without_a_name(place):
    shelf = Shelf([place])
    assert shelf.get("part") is shelf.get() is shelf.all()[0]
    with pytest.raises(NotFoundError, match="must be one of part, got 'plate'"):
        shelf.get("plate")


def test_without_a_name_several_models_are_not_guessed_at(place, other, tmp_path):
    second = shutil.copy(other, tmp_path / "second.trecall")
    shelf = Shelf([place, second])
    with pytest.raises(NotFoundError, match="part, second, got no name"):
        shelf.get()


def test_two_files_of_one_name_are_refused(place, tmp_path):
    (tmp_path / "b").mkdir()
    twin = shutil.copy(place, tmp_path / "b" / "part.trecall")
    with pytest.raises(SettingError, match="Two models have the name part"):
        Shelf([place, twin])


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "x.trecall").write_bytes(b"nothing")
    with pytest.raises(ModelFileError):
        Shelf([tmp_path / "x.trecall"])
    with pytest.raises(ModelFileError, match="does not exist"):
        Shelf([tmp_path / "y.trecall"])


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%b", "a\nb"])
def test_a_name_that_no_address_can_hold_is_refused(tmp_path, name):
    with pytest.raises(SettingError, match="Rename the file"):
        model_name(tmp_path / f"{name}.trecall")


def test_a_replaced_file_is_read_and_told_once(place, other):
    told = []
    shelf = Shelf([place], on_change=told.append)
    before = shelf.get()
    shelf.look()
    assert shelf.get() is before
    assert not told
    replace(other, place)
    shelf.look()
    shelf.look()
    after = shelf.get()
    assert (after.judge.threshold_, before.judge.threshold_ != 0.5) == (0.5, True)
    assert told == [after]
    assert after.sha256 != before.sha256


def test_a_damaged_file_leaves_the_model_in_use_and_the_reason_is_told(place, other):
    shelf = Shelf([place])
    before = shelf.get()
    place.write_bytes(b"half of it")
    shelf.look()
    assert shelf.get() is before
    assert "part.trecall" in shelf.faults["part"]
    replace(other, place)
    shelf.look()
    assert shelf.get().judge.threshold_ == 0.5
    assert not shelf.faults


def test_a_file_that_went_away_leaves_the_model_in_use(place):
    shelf = Shelf([place])
    away = place.rename(place.with_suffix(".away"))
    shelf.look()
    assert shelf.get("part").name == "part"
    assert "is gone" in shelf.faults["part"]
    away.rename(place)
    shelf.look()
    assert not shelf.faults


def test_the_watch_takes_a_replaced_file_by_itself(place, other):
    changed = threading.Event()
    shelf = Shelf([place], on_change=lambda _: changed.set())
    shelf.watch(0.05)
    replace(other, place)
    assert changed.wait(60)
    shelf.close()
    assert shelf.get().judge.threshold_ == 0.5


def test_an_error_that_nobody_foresaw_is_told_and_the_watch_goes_on(place, other, tmp_path):
    second = tmp_path / "second.trecall"
    shutil.copy(place, second)
    loose = [True]

    def before_use(loaded):
        if loaded.name == "part" and loose:
            raise AssertionError("a wire is loose")

    shelf = Shelf([place, second], before_use=before_use)
    shutil.copy(other, tmp_path / "another.trecall")
    replace(other, place)
    replace(tmp_path / "another.trecall", second)
    shelf.look()
    assert shelf.faults == {"part": "unexpected AssertionError: a wire is loose"}
    assert shelf.get("part").judge.threshold_ != 0.5
    assert shelf.get("second").judge.threshold_ == 0.5
    loose.clear()
    shelf.look()
    assert shelf.get("part").judge.threshold_ == 0.5
    assert not shelf.faults


def test_of_two_files_of_one_name_that_come_at_once_one_is_refused(place, tmp_path, monkeypatch):
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(place, again)
    shelf, both, original = Shelf([]), threading.Barrier(2), models.model_name

    def met(path):
        name = original(path)
        both.wait(60)  # neither is on the shelf yet
        return name

    monkeypatch.setattr(models, "model_name", met)
    outcomes = []

    def add(path):
        try:
            outcomes.append(shelf.add(path).path)
        except SettingError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=add, args=(path,)) for path in (place, again / place.name)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = [one for one in outcomes if isinstance(one, Path)]
    (refusal,) = [one for one in outcomes if isinstance(one, str)]
    assert "Two models have the name part" in refusal
    assert shelf.get().path == path


def test_facts_are_json(place):
    facts = Shelf([place]).get().to_json()
    assert facts["name"] == "part"
    assert facts["kind"] == "patchcore"
    assert facts["training_pictures"] == 10
    assert len(facts["sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", 70000), ("port", -1), ("queue", 0), ("keep_good", 2), ("near_miss", float("nan"))],
)
def test_a_setting_outside_what_is_allowed_is_refused(name, value):
    with pytest.raises(SettingError, match=f"{name} must be from"):
        StationSettings(models=(), **{name: value})
