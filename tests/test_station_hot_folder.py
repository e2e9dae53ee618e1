"""The hot folder: every picture exactly once, never half written, whatever the writer, the line and the process do."""

import contextlib
import logging
import os
import random
import shutil
import threading
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.line_ready import Serving, copied, inspections_in, wait_until
from tests.stations import started
from totalrecall import load_detector
from totalrecall.errors import BusyError, SettingError
from totalrecall.station.links import hot_folder
from totalrecall.station.links.hot_folder import HotFolder, Pace
from totalrecall.station.links.ledger import Ledger
from totalrecall.station.links.whole_files import UnreadyError, look_at, read_whole, seems_whole
from totalrecall.station.store.records import Filter

SOON = Pace(rest=0.05, cut=1.0, search=0.5)


@pytest.fixture
def watched(tmp_path):
    folder = tmp_path / "watched"
    folder.mkdir()
    return folder


@contextlib.contextmanager
def watching(place, watched, tmp_path, done="leave", pace=SOON, **settings):
    with started(tmp_path / "station", place, links=[HotFolder(watched, done=done, pace=pace)], **settings) as (one, _):
        yield one


def names(station):
    return Counter(one.name for one in station.history.find(limit=10_000))


def settled(station, count):
    """Wait for so many inspections, and for a search after them that brings no more."""
    wait_until(lambda: station.history.count(Filter()) >= count)
    (link,) = station.links
    before = link._next_search
    wait_until(lambda: link._next_search > before and not link._waiting and not link._under_way)
    assert station.history.count(Filter()) == count


def test_pictures_get_the_score_of_predict_and_stay(place, watched, pictures, tmp_path):
    (watched / "shift 1" / "camera").mkdir(parents=True)
    shutil.copy(pictures[0], watched / "before.png")
    with watching(place, watched, tmp_path) as station:
        shutil.copy(pictures[1], watched / "after.PNG")
        shutil.copy(pictures[2], watched / "shift 1" / "camera" / "nested.png")
        settled(station, 3)
        found = {one.name: one for one in station.history.find()}
    paths = ("before.png", "after.PNG", str(Path("shift 1", "camera", "nested.png")))
    assert set(found) == set(paths)
    detector = load_detector(place)
    for path, name in zip(pictures[:3], paths, strict=True):
        assert found[name].score == pytest.approx(detector.predict(path).score, rel=1e-6)
        assert found[name].source == "folder"
        assert (watched / name).read_bytes() == path.read_bytes()


def test_a_slow_writer_is_waited_for(place, watched, pictures, tmp_path):
    data = pictures[0].read_bytes()
    with watching(place, watched, tmp_path, pace=Pace(rest=0.01, cut=3600, search=0.05)) as station:
        (link,) = station.links
        with (watched / "slow.png").open("wb", buffering=0) as file:
            for at in range(0, len(data), len(data) // 4 + 1):
                file.write(data[at : at + len(data) // 4 + 1])
                before = link._next_search
                wait_until(lambda before=before: link._next_search > before)  # it looks, and reads nothing
        settled(station, 1)
        (found,) = station.history.find()
    assert found.score == pytest.approx(load_detector(place).predict(data).score, rel=1e-6)


def test_a_writer_that_closes_the_file_between_two_pieces_is_waited_for(place, watched, pictures, tmp_path):
    """Nobody has it open meanwhile, as over a network: the picture's end tells."""
    data = pictures[0].read_bytes()
    with watching(place, watched, tmp_path, pace=Pace(rest=0.01, cut=3600, search=0.05)) as station:
        (link,) = station.links
        for at in range(0, len(data), len(data) // 3 + 1):
            with (watched / "slow.png").open("ab") as file:
                file.write(data[at : at + len(data) // 3 + 1])
            before = link._next_search
            wait_until(lambda before=before: link._next_search > before)
        settled(station, 1)
        (found,) = station.history.find()
    assert found.verdict != "unreadable"
    assert found.score == pytest.approx(load_detector(place).predict(data).score, rel=1e-6)


def test_a_picture_that_is_renamed_into_place_is_taken(place, watched, pictures, tmp_path):
    with watching(place, watched, tmp_path) as station:
        for number, path in enumerate(pictures):
            shutil.copy(path, watched / f"{number}.png.part")
            (watched / f"{number}.png.part").rename(watched / f"{number}.png")
        settled(station, len(pictures))
        assert names(station) == Counter(f"{number}.png" for number in range(len(pictures)))


def test_a_folder_that_is_moved_in_is_searched(place, watched, pictures, tmp_path):
    (tmp_path / "outside").mkdir()
    copied(pictures, tmp_path / "outside")
    with watching(place, watched, tmp_path, pace=Pace(rest=0.05, search=3600)) as station:
        wait_until(lambda: station.links[0]._next_search > 0)
        (tmp_path / "outside").rename(watched / "inside")
        wait_until(lambda: station.history.count(Filter()) == len(pictures))


def test_hundreds_at_once_with_a_small_queue(place, watched, pictures, tmp_path):
    with watching(place, watched, tmp_path, queue=2) as station:
        for number in range(200):
            shutil.copy(pictures[number % len(pictures)], watched / f"{number:03}.png")
        settled(station, 200)
        assert names(station) == Counter(f"{number:03}.png" for number in range(200))


def test_a_new_picture_under_an_old_name_is_inspected_and_a_touched_one_is_not(place, watched, pictures, tmp_path):
    path = watched / "latest.png"
    with watching(place, watched, tmp_path) as station:
        shutil.copy(pictures[0], path)
        settled(station, 1)
        os.utime(path, ns=(10**18, 10**18))
        settled(station, 1)
        path.write_bytes(pictures[1].read_bytes())
        settled(station, 2)
        digests = {one.picture_sha256 for one in station.history.find()}
    assert len(digests) == 2
    with watching(place, watched, tmp_path) as station:  # a restart inspects nothing again
        settled(station, 2)


def test_links_are_not_followed_and_other_files_are_told_once(place, watched, pictures, tmp_path, caplog):
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(pictures[0], outside / "secret.png")
    (watched / "link.png").symlink_to(outside / "secret.png")
    (watched / "linked").symlink_to(outside)
    (watched / "nowhere.png").symlink_to(outside / "missing.png")
    os.mkfifo(watched / "pipe.png")
    for name in ("notes.txt", "more.txt", "Thumbs.db", "a.png.part", ".hidden.png"):
        (watched / name).write_bytes(b"text")
    shutil.copy(pictures[0], watched / "real.png")
    with watching(place, watched, tmp_path, done="delete") as station:
        settled(station, 1)
        assert names(station) == Counter(["real.png"])
        (link,) = station.links
        for _ in range(3):
            before = link._next_search
            wait_until(lambda before=before: link._next_search > before)
    left = {path.name for path in watched.iterdir()}
    assert left == {
        "link.png", "linked", "nowhere.png", "pipe.png", "notes.txt", "more.txt", "Thumbs.db", "a.png.part",
        ".hidden.png",
    }  # fmt: skip
    assert (outside / "secret.png").exists()
    text = caplog.text
    for words in ("link.png is a link", "pipe.png is no regular file", "end in .txt", "end in .db"):
        assert text.count(words) == 1, (words, text)
    assert ".part" not in text
    assert ".hidden" not in text


def test_what_cannot_be_read_as_a_picture_is_written_down_once(place, watched, pictures, tmp_path, caplog):
    (watched / "broken.png").write_bytes(pictures[0].read_bytes()[:-20])
    (watched / "text.png").write_bytes(b"no picture")
    with watching(place, watched, tmp_path, done="delete", pace=Pace(rest=0.02, cut=0.2, search=0.1)) as station:
        settled(station, 2)
        assert {one.verdict for one in station.history.find()} == {"unreadable"}
    with watching(place, watched, tmp_path, done="delete") as station:
        settled(station, 2)
    assert sorted(path.name for path in watched.iterdir()) == ["broken.png", "text.png"]
    assert "cannot be read as a picture, and is left" in caplog.text


def test_inspected_pictures_are_moved_by_their_verdict_and_nothing_is_overwritten(place, watched, pictures, tmp_path):
    good = [path for path in pictures if path.parent.name == "good"]
    (watched / "line").mkdir()
    (watched / "good" / "line").mkdir(parents=True)
    (watched / "good" / "line" / "a.png").write_bytes(b"there before")
    with watching(place, watched, tmp_path, done="move") as station:
        verdict = station.inspect(good[0].read_bytes()).verdict
        assert verdict == "good"
        for path in good[:2]:
            shutil.copy(path, watched / "line" / "a.png")
            wait_until(lambda: not (watched / "line" / "a.png").exists())
        (watched / "text.png").write_bytes(b"no picture")
        wait_until(lambda: (watched / "unreadable" / "text.png").exists())
        settled(station, 4)
    assert (watched / "good" / "line" / "a.png").read_bytes() == b"there before"
    assert (watched / "good" / "line" / "a (2).png").read_bytes() == good[0].read_bytes()
    assert (watched / "good" / "line" / "a (3).png").read_bytes() == good[1].read_bytes()
    # what comes back is inspected again: somebody wants it
    with watching(place, watched, tmp_path, done="move") as station:
        (watched / "good" / "line" / "a (2).png").rename(watched / "again.png")
        wait_until(lambda: (watched / "good" / "again.png").exists())
        settled(station, 5)


def test_a_verdicts_folder_that_is_a_link_takes_nothing(place, watched, pictures, tmp_path, caplog):
    (tmp_path / "elsewhere").mkdir()
    for name in ("good", "defect", "no-verdict"):
        (watched / name).symlink_to(tmp_path / "elsewhere")
    shutil.copy(pictures[0], watched / "a.png")
    with watching(place, watched, tmp_path, done="move") as station:
        settled(station, 1)
        wait_until(lambda: "cannot be moved" in caplog.text)
    assert (watched / "a.png").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_inspected_pictures_are_deleted_where_asked(place, watched, pictures, tmp_path):
    with watching(place, watched, tmp_path, done="delete") as station:
        copied(pictures, watched)
        wait_until(lambda: not list(watched.iterdir()))
        settled(station, len(pictures))


def test_a_busy_or_held_station_drops_no_picture(place, watched, pictures, tmp_path, caplog):
    with started(tmp_path / "station", place, links=()) as (station, _):
        station.holds["part"] = "its golden check failed."
        refused = []
        original = station.submit

        def submit(*arguments, **also):
            if len(refused) < 3:
                refused.append(1)
                raise BusyError("busy")
            return original(*arguments, **also)

        station.submit = submit
        link = HotFolder(watched, pace=SOON)
        link.start(station)
        try:
            copied(pictures, watched)
            wait_until(lambda: "its golden check failed" in caplog.text)
            assert station.history.count(Filter()) == 0
            station.holds.clear()
            wait_until(lambda: station.history.count(Filter()) == len(pictures))
        finally:
            link.close()
        assert len(refused) == 3
    assert caplog.text.count("its golden check failed") == 1


@pytest.mark.parametrize("done", ["leave", "move"])
def test_each_picture_is_inspected_exactly_once_through_kill_9(place, watched, pictures, tmp_path, done):
    random.seed(done)
    arguments = (place, "--folder", tmp_path / "station", "--watch", watched, "--watch-done", done)
    rng = np.random.default_rng(0)
    wanted = set()

    def write(count):
        for _ in range(count):
            picture = cv2.imread(str(pictures[len(wanted) % len(pictures)]))
            picture[:2] = rng.integers(0, 255, picture[:2].shape)  # each is another
            name = f"{len(wanted):04}.png"
            (watched / f"{name}.part").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
            (watched / f"{name}.part").rename(watched / name)
            wanted.add(name)

    for kill in range(2):  # benchmarks.station_folder_kills makes twenty
        with Serving(*arguments) as serving:
            write(40)
            enough = random.randrange(15, 40) + 40 * kill
            wait_until(lambda enough=enough: len(inspections_in(tmp_path / "station")) >= enough)
            serving.kill()
    with Serving(*arguments) as serving:
        wait_until(lambda: len(inspections_in(tmp_path / "station")) >= len(wanted))
        if done == "move":
            wait_until(lambda: not list(watched.glob("*.png")))
        assert serving.stop() == 0
    found = Counter(one.name for one in inspections_in(tmp_path / "station"))
    assert found == Counter(wanted)
    if done == "move":
        assert {path.name for path in watched.rglob("*.png")} == wanted


# ---------------------------------------------------------------------- parts of it


def test_a_file_that_somebody_writes_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(b"half")
        file.flush()
        seen = look_at(str(path), path.lstat())
        with pytest.raises(UnreadyError):
            read_whole(seen, 1000)
    assert read_whole(seen, 1000) == b"half"
    path.write_bytes(b"another")
    with pytest.raises(UnreadyError):
        read_whole(seen, 1000)


def test_who_opens_a_file_while_it_is_looked_at_ends_nothing(tmp_path):
    """The kernel tells the holder of a lease by a signal, which would end the process."""
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 100)
    seen = look_at(str(path), path.lstat())
    stop = threading.Event()

    def write():
        while not stop.is_set():
            path.open("r+b").close()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    for _ in range(3000):
        with contextlib.suppress(UnreadyError):
            reads += read_whole(seen, 1000) == b"x" * 100
    stop.set()
    writer.join()
    assert reads


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
def test_the_end_of_a_picture_is_looked_for(suffix):
    picture = np.random.default_rng(0).integers(0, 255, (60, 70, 3), np.uint8)
    data = cv2.imencode(suffix, picture)[1].tobytes()
    assert seems_whole(data)
    assert not seems_whole(data[: len(data) // 2])
    assert not seems_whole(data[:20])


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingError, match="is no folder"):
        HotFolder(tmp_path / "missing")


class UnforeseenError(Exception):
    """No error of ours, nor of the system."""


def failing_times(monkeypatch, owner, name, times):
    """Let a method raise an error that nobody foresaw, so many times; gives the list of its failures."""
    original, failures = getattr(owner, name), []

    def failing(*arguments):
        if len(failures) < times:
            failures.append(1)
            raise UnforeseenError("a wire\nis loose")
        return original(*arguments)

    monkeypatch.setattr(owner, name, failing)
    return failures


def test_an_error_that_nobody_foresaw_is_told_and_the_folder_goes_on(
    place, watched, pictures, tmp_path, caplog, monkeypatch
):
    failures = failing_times(monkeypatch, Ledger, "inspected", 2)
    copied(pictures, watched)
    with watching(place, watched, tmp_path) as station:
        wait_until(lambda: station.history.count(Filter()) == len(pictures))
        wait_until(lambda: station.links[0].fault is None)
    assert len(failures) == 2
    assert "cannot be watched at the moment: unexpected UnforeseenError: a wire is loose" in caplog.text
    assert "is watched again" in caplog.text


def test_a_file_that_causes_an_error_holds_up_no_other(place, watched, pictures, tmp_path, caplog, monkeypatch):
    original = hot_folder.read_whole

    def failing(file, limit):
        if Path(file.path).name == "first.png":
            raise UnforeseenError("a wire\nis loose")
        return original(file, limit)

    monkeypatch.setattr(hot_folder, "read_whole", failing)
    shutil.copy(pictures[0], watched / "first.png")
    os.utime(watched / "first.png", (1, 1))  # the oldest is taken first
    shutil.copy(pictures[1], watched / "second.png")
    with watching(place, watched, tmp_path) as station:
        wait_until(lambda: names(station) == Counter(["second.png"]))
        assert "first.png is tried again: unexpected UnforeseenError: a wire is loose" in caplog.text
        monkeypatch.undo()
        wait_until(lambda: names(station) == Counter(["first.png", "second.png"]))


def test_a_folder_that_goes_and_comes_back_is_told(place, watched, pictures, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    with watching(place, watched, tmp_path) as station:
        watched.rmdir()
        wait_until(lambda: "cannot be watched at the moment" in caplog.text)
        watched.mkdir()
        copied(pictures, watched)
        wait_until(lambda: station.history.count(Filter()) == len(pictures))
    assert "is watched again" in caplog.text
