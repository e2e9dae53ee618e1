"""The product changes while the line runs: each picture is judged and told by the recipe of the moment it was taken."""

import contextlib
import html
import itertools
import json
import logging
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from sqlalchemy import select

from tests.line_ready import wait_until
from tests.stations import started
from tests.striped import good_picture
from totalrecall import load_detector
from totalrecall.errors import ConflictError, HistoryError, NotFoundError, SettingError
from totalrecall.station.camera_source import camera_source
from totalrecall.station.judging.caption import Caption
from totalrecall.station.links import camera as cameras
from totalrecall.station.links.hot_folder import HotFolder, Pace
from totalrecall.station.links.recipe_camera import RecipeCamera
from totalrecall.station.quality import recipes
from totalrecall.station.station import Link
from totalrecall.station.store.records import Actor, Filter
from totalrecall.station.store.tables import outbox

ANNA = Actor("anna", "operator")
WITH_OUTPUTS = """
[product.a]
model = "part"
false_alarm_rate = 0.3
outputs = ["first"]

[product.b]
model = "other"
false_alarm_rate = 0.1
outputs = ["second"]
"""


class Line(Link):
    """An output that remembers whose verdicts it was told."""

    def __init__(self, name):
        self.name, self.products = name, []

    def body(self, inspection):
        return {"product": inspection.product}

    def told(self, inspection):
        self.products.append(inspection.product)


@pytest.fixture
def places(fitted, tmp_path):
    return [Path(shutil.copy(fitted, tmp_path / f"{name}.trecall")) for name in ("part", "other")]


@pytest.fixture
def write(tmp_path):
    """Writes recipes.toml of the station; each time it looks as if some time had passed."""
    times = itertools.count(1_700_000_000)

    def write(text):
        folder = tmp_path / "station"
        folder.mkdir(exist_ok=True)
        part = tmp_path / "recipes.toml"
        part.write_text(text, encoding="utf-8")
        os.utime(part, (at := next(times), at))
        part.replace(folder / "recipes.toml")
        return folder

    return write


@contextlib.contextmanager
def judging_stopped(station):
    """What is submitted stays in the queue until the end of the block."""
    gate, original = threading.Event(), station.inspector._model

    def waiting(name):
        assert gate.wait(60)
        return original(name)

    station.inspector._model = waiting
    try:
        yield
    finally:
        station.inspector._model = original
        gate.set()


def by_products(station):
    """The models, thresholds and targets of the outbox of all inspections, by their products."""
    with station.database.read() as connection:
        targets = dict(connection.execute(select(outbox.c.inspection, outbox.c.target)).all())
    found = {}
    for one in station.history.find(limit=1000):
        found.setdefault(one.product, set()).add((one.model, one.threshold, targets.get(one.key)))
    return found


def test_pictures_in_the_queue_keep_their_recipe(places, tmp_path, write):
    first, second = Line("first"), Line("second")
    with started(write(WITH_OUTPUTS), *places, links=[first, second]) as (station, _):
        station.recipes.select("a", ANNA)
        with judging_stopped(station):
            futures = [station.submit(good_picture(number)) for number in range(5)]
            station.recipes.select("b", ANNA)
            futures += [station.submit(good_picture(number)) for number in range(5, 8)]
        assert [future.result().product for future in futures] == ["a"] * 5 + ["b"] * 3
        assert (first.products, second.products) == (["a"] * 5, ["b"] * 3)
        detector = load_detector(places[0])
        at = {rate: detector.judging(false_alarm_rate=rate).threshold_ for rate in (0.3, 0.1)}
        assert by_products(station) == {"a": {("part", at[0.3], "first")}, "b": {("other", at[0.1], "second")}}


def test_a_picture_that_comes_late_keeps_the_recipe_of_its_time(places, write, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("totalrecall.station.quality.recipes.time.monotonic", lambda: clock[0])
    with started(write(WITH_OUTPUTS), *places, links=[Line("first"), Line("second")]) as (station, _):
        for moment, product in ((110.0, "a"), (120.0, "b")):
            clock[0] = moment
            station.recipes.select(product, ANNA)
        clock[0] = 130.0
        write(WITH_OUTPUTS.replace("0.1", "0.2"))
        station.recipes.look()
        told = [
            (one.product, one.threshold)
            for taken in (105.0, 115.0, 125.0, 135.0, None)
            for one in [station.inspect(good_picture(0), Caption("part" if taken == 105.0 else None, taken=taken))]
        ]
        detector = load_detector(places[0])
        at = {rate: detector.judging(false_alarm_rate=rate).threshold_ for rate in (0.3, 0.1, 0.2)}
        assert told == [
            (None, detector.threshold_),
            ("a", at[0.3]),
            ("b", at[0.1]),
            ("b", at[0.2]),
            ("b", at[0.2]),
        ]
        write('[product.b]\nmodel = "part"\n')  # product a is no longer made; its pictures are still on their way
        station.recipes.look()
        assert station.inspect(good_picture(0), Caption(taken=115.0)).threshold == at[0.3]
        with pytest.raises(NotFoundError):
            station.inspect(good_picture(0), Caption(product="a"))


def test_a_jobs_pictures_keep_the_recipe_under_which_it_came(places, write):
    with started(write(WITH_OUTPUTS), *places, links=[Line("first"), Line("second")]) as (station, http):
        station.recipes.select("a", ANNA)
        with judging_stopped(station):
            files = [("file", (f"{number}.png", good_picture(number), "image/png")) for number in range(60)]
            job = http.post("/v1/models/part/jobs", files=files).json()["id"]  # more than may wait
            station.recipes.select("b", ANNA)
        wait_until(lambda: http.get(f"/v1/jobs/{job}").json()["state"] == "done")
        results = http.get(f"/v1/jobs/{job}").json()["results"]
        assert [one["product"] for one in results] == ["a"] * 60


def test_a_file_keeps_the_recipe_under_which_it_came(places, tmp_path, write, caplog):
    (tmp_path / "incoming").mkdir()
    folder = HotFolder(tmp_path / "incoming", pace=Pace(rest=0.05, search=0.2))
    links = [Line("first"), Line("second"), folder]
    with started(write(WITH_OUTPUTS), *places, links=links) as (station, _):
        station.recipes.select("a", ANNA)
        station.holds["part"] = "a check failed."
        (tmp_path / "incoming" / "1.png").write_bytes(good_picture(1))
        wait_until(lambda: "1.png" not in caplog.text and "a check failed" in caplog.text)
        assert "a check failed" in folder.fault
        station.recipes.select("b", ANNA)
        (tmp_path / "incoming" / "2.png").write_bytes(good_picture(2))
        station.holds.clear()
        wait_until(lambda: station.history.count(Filter()) == 2)
        assert {(one.name, one.product, one.model) for one in station.history.find()} == {
            ("1.png", "a", "part"),
            ("2.png", "b", "other"),
        }
        wait_until(lambda: folder.fault is None)


def test_what_waits_for_a_product_is_judged_by_the_first_that_is_chosen(places, tmp_path, write, caplog):
    (tmp_path / "incoming").mkdir()

    def links():
        return [Line("first"), Line("second"), HotFolder(tmp_path / "incoming", pace=Pace(rest=0.05, search=0.2))]

    folder = write(WITH_OUTPUTS)
    with started(folder, *places, links=links()) as (station, _):  # of two models none is named
        (tmp_path / "incoming" / "1.png").write_bytes(good_picture(1))
        wait_until(lambda: "model must be one of other, part, got no name" in caplog.text)
        station.recipes.select("a", ANNA)
        wait_until(lambda: [(one.name, one.product) for one in station.history.find()] == [("1.png", "a")])
    write('[product.b]\nmodel = "other"\n')
    with started(folder, *places, links=links()) as (station, _):  # product a was made, and has no recipe now
        (tmp_path / "incoming" / "2.png").write_bytes(good_picture(2))
        with pytest.raises(ConflictError, match="Nothing is judged until a product is chosen"):
            station.inspect(good_picture(0), Caption("other"))
        wait_until(lambda: "Nothing is judged until a product is chosen" in caplog.text)
        station.recipes.select("b", ANNA)
        wait_until(lambda: station.history.find(limit=1)[0].product == "b")
        assert station.inspect(good_picture(0), Caption("other", taken=0.0)).product == "b"


def test_changes_at_the_same_time_come_one_after_the_other(places, write):
    write(WITH_OUTPUTS)
    with started(write(WITH_OUTPUTS), *places, links=[Line("first"), Line("second")]) as (station, _):
        heard, ready = [], threading.Barrier(6)
        station.recipes.on_change(lambda recipe: heard.append(None if recipe is None else recipe.product))

        def change(number):
            ready.wait(30)
            for product in ("a", "b", None, "a", "b"):
                station.recipes.select(product, Actor(f"person {number}", "operator"))

        threads = [threading.Thread(target=change, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows = [row for row in station.trail.rows(limit=100) if row.action == "recipe"][::-1]
        chosen = [row.subject or None for row in rows]
        assert len(rows) == 30
        assert heard == chosen  # everybody hears of them in the order of the trail
        assert [json.loads(row.details)["before"] for row in rows] == [None, *chosen[:-1]]
        current = station.recipes.current
        assert chosen[-1] == (None if current is None else current.product) == station.history.value("product")
        assert station.trail.verify().broken == []


def test_a_faulty_file_stays_told_and_is_read_once_its_model_is_there(places, tmp_path, write, caplog):
    caplog.set_level(logging.WARNING)
    with started(write('[product.a]\nmodel = "part"\n'), places[0]) as (station, http):
        station.recipes.select("a", ANNA)
        write('[product.a]\nmodel = "part"\n[product.late]\nmodel = "late"\n')
        station.recipes.look()
        fault = "recipes.toml, product 'late': model must be one of part, got 'late'."
        assert caplog.text.count(fault) == 1
        station.recipes.select("a", ANNA)
        assert station.recipes.fault == http.get("/v1/recipes").json()["fault"] == fault
        assert fault.replace("'", "&#39;") in http.get("/history").text  # on every view
        station.shelf.add(shutil.copy(places[0], tmp_path / "late.trecall"))
        station.recipes.look()
        assert station.recipes.fault is None
        assert station.recipes.select("late", ANNA).model == "late"
        assert station.trail.rows(limit=2)[1].action == "recipes read"


def test_an_error_that_nobody_foresaw_is_told_and_the_file_is_read_later(places, write, monkeypatch):
    def failing(*_):
        raise AssertionError("a wire is loose")

    with started(write(""), *places) as (station, _):
        monkeypatch.setattr(recipes, "parse_recipes", failing)
        write('[product.a]\nmodel = "part"\n')
        station.recipes.watch(0.02)
        wait_until(lambda: station.recipes.fault == "unexpected AssertionError: a wire is loose")
        monkeypatch.undo()
        wait_until(lambda: [recipe.product for recipe in station.recipes.all()] == ["a"])
        assert station.recipes.fault is None


def test_the_file_is_read_again_by_itself(places, write):
    with started(write(""), *places) as (station, _):
        station.recipes.watch(0.02)
        write('[product.a]\nmodel = "part"\n')
        wait_until(lambda: [recipe.product for recipe in station.recipes.all()] == ["a"])
        write("[product.a]\nmodel = ")
        wait_until(lambda: station.recipes.fault is not None)
        assert station.recipes.fault.startswith("recipes.toml is no TOML: ")
        assert [recipe.product for recipe in station.recipes.all()] == ["a"]


def test_a_file_that_is_being_written_is_not_read(places, write, monkeypatch):
    """An editor that writes in place empties the file first, and an empty file would take every product away."""
    with started(write('[product.a]\nmodel = "part"\n'), *places) as (station, _):
        looked = []
        monkeypatch.setattr(station.recipes, "look", lambda: looked.append(station.recipes.path.read_text()))
        texts = iter(["", "", '[product.b]\nmodel = "part"\n'])

        def wait(_):
            text = next(texts, None)
            if text is not None:
                write(text)
            return len(looked) > 2

        monkeypatch.setattr(station.recipes, "_closing", SimpleNamespace(wait=wait, set=lambda: None))
        station.recipes.watch(1.0)
        wait_until(lambda: len(looked) > 2)
        assert set(looked) == {'[product.b]\nmodel = "part"\n'}


# ---------------------------------------------------------------------- cameras


class Cameras:
    """Cameras that a test controls, by what is opened; each gives frames of a colour of its own, 200 a second.

    Attributes:
        broken: which give no picture.
        running: which are open, and how often each was opened.
    """

    def __init__(self) -> None:
        self.broken, self.running, self.opened = set(), [], []

    def __call__(self, source):
        return _Capture(self, source.opened)


class _Capture:
    def __init__(self, cameras, which) -> None:
        assert which not in cameras.running, f"{which} is opened twice"
        self._cameras, self._which = cameras, which
        cameras.running.append(which)
        cameras.opened.append(which)

    def isOpened(self):
        return self._which not in self._cameras.broken

    def get(self, _):
        return 0.0

    def read(self):
        threading.Event().wait(0.005)
        frame = np.full((70, 90, 3), 10 * int(self._which), np.uint8)
        return self.isOpened(), frame

    def release(self):
        if self._which in self._cameras.running:
            self._cameras.running.remove(self._which)


@pytest.fixture
def belt(monkeypatch):
    belt = Cameras()
    monkeypatch.setattr(cameras, "_opened", belt)
    return belt


CAMERAS = """
[product.a]
model = "part"
camera = 1

[product.b]
model = "other"
camera = "2"
camera_interval = 0

[product.c]
model = "other"
camera = "2"
camera_interval = 86_400

[product.none]
model = "part"
"""


def seen(station):
    """What camera took the pictures of each product, by which model they were judged."""
    return {(one.product, one.line, one.model) for one in station.history.find(limit=1000)}


def count(station, product):
    return sum(one.product == product for one in station.history.find(limit=1000))


def test_the_camera_follows_the_recipe(places, write, belt):
    with started(write(CAMERAS), *places, links=[RecipeCamera(0.01)]) as (station, _):
        assert belt.opened == []
        station.recipes.select("a", ANNA)
        wait_until(lambda: count(station, "a") >= 3)
        station.recipes.select("b", ANNA)
        wait_until(lambda: count(station, "b") >= 3)
        wait_until(lambda: belt.running == [2])
        station.recipes.select("a", ANNA)
        station.recipes.select("b", ANNA)
        station.recipes.select("a", ANNA)  # at once again, while the camera is being stopped
        before = count(station, "a")
        wait_until(lambda: count(station, "a") > before)
        station.recipes.select("none", ANNA)
        wait_until(lambda: belt.running == [])
        station.recipes.select("a", ANNA)
        station.recipes.select(None, ANNA)
        wait_until(lambda: belt.running == [])
        assert seen(station) == {("a", "camera 1", "part"), ("b", "camera 2", "other")}
        station.recipes.select("b", ANNA)
    assert belt.running == []  # closed with the station


def test_two_recipes_share_a_camera(places, write, belt):
    with started(write(CAMERAS), *places, links=[RecipeCamera(0.01)]) as (station, _):
        station.recipes.select("b", ANNA)
        wait_until(lambda: count(station, "b") >= 2)
        station.recipes.select("c", ANNA)
        wait_until(lambda: count(station, "c") >= 1)
        assert belt.opened == [2]
        before = count(station, "b")
        station.recipes.select("b", ANNA)  # and the long interval of c is over
        wait_until(lambda: count(station, "b") > before)
        assert belt.opened == [2]


def test_a_camera_that_cannot_be_opened_leaves_the_recipe_before(places, write, belt, tmp_path):
    (tmp_path / "no-video.avi").write_text("this is no video")
    recipes = CAMERAS + f'[product.file]\nmodel = "part"\ncamera = "{tmp_path}/no-video.avi"\n'
    recipes += '[product.gone]\nmodel = "part"\ncamera = "no-such-file.avi"\n'
    recipes += '[product.unset]\nmodel = "part"\ncamera = "env:NOT_SET_ANYWHERE"\n'
    with started(write(recipes), *places, links=[RecipeCamera(0.01)]) as (station, http):
        station.recipes.select("a", ANNA)
        belt.broken.add(2)
        rows = len(station.trail.rows(limit=100))
        for product, words in (
            ("b", "The camera of product 'b' cannot be used. camera 2 cannot be opened, or gives no picture."),
            ("gone", "The camera of product 'gone' cannot be used. A camera must be a number, an address or a video"),
            ("unset", "cannot be used. The environment variable NOT_SET_ANYWHERE of a camera is not set."),
        ):
            answer = http.post("/v1/recipes/select", json={"product": product})
            assert answer.status_code == 422
            assert words in answer.json()["detail"]
        refused = http.post("/recipes", data={"product": "b"}, headers={"Accept-Language": "de"})
        assert "ist nicht zu gebrauchen. Die Kamera 2 lässt sich nicht öffnen" in refused.text
        assert station.recipes.current.product == station.history.value("product") == "a"
        assert len(station.trail.rows(limit=100)) == rows
        before = count(station, "a")
        wait_until(lambda: count(station, "a") > before)  # the camera before goes on
        write(recipes.replace("camera = 1", "camera = 2"))
        station.recipes.look()
        assert "camera 2 cannot be opened" in station.recipes.fault
        assert station.recipes.current.camera == "1"
        belt.broken.clear()
        write(recipes.replace("camera = 1", "camera = 3"))
        station.recipes.look()
        assert station.recipes.fault is None
        wait_until(lambda: ("a", "camera 3", "part") in seen(station))
        wait_until(lambda: belt.running == [3])


def test_a_video_that_is_none_is_refused(places, write, tmp_path):
    (tmp_path / "no-video.avi").write_text("this is no video")
    text = f'[product.file]\nmodel = "part"\ncamera = "{tmp_path}/no-video.avi"\n'
    with (
        started(write(text), *places, links=[RecipeCamera(0.01)]) as (station, _),
        pytest.raises(SettingError, match=r"camera no-video\.avi cannot be opened"),
    ):
        station.recipes.select("file", ANNA)


def test_a_change_that_cannot_be_written_down_releases_the_new_camera(places, write, belt, monkeypatch):
    def refuse(*_):
        raise HistoryError("the disk is full")

    with started(write(CAMERAS), *places, links=[RecipeCamera(0.01)]) as (station, _):
        station.recipes.select("a", ANNA)
        with monkeypatch.context() as patched:
            patched.setattr(station.trail, "append_in", refuse)
            with pytest.raises(HistoryError):
                station.recipes.select("b", ANNA)
        assert belt.running == [1]
        before = count(station, "a")
        wait_until(lambda: count(station, "a") > before)


def test_a_frame_in_hand_is_judged_by_the_recipe_under_which_it_was_taken(places, write, belt, caplog):
    with started(write(CAMERAS), *places, links=[RecipeCamera(0.01)]) as (station, _):
        station.holds["part"] = "a check failed."
        station.recipes.select("a", ANNA)
        wait_until(lambda: "wait: Model part is held" in caplog.text)
        station.recipes.select("b", ANNA)
        wait_until(lambda: count(station, "b") >= 1)
        assert count(station, "a") == 0
        station.holds.clear()
        wait_until(lambda: count(station, "a") == 1)
        assert seen(station) == {("a", "camera 1", "part"), ("b", "camera 2", "other")}


def test_every_frame_of_a_recipes_video_gets_the_score_of_predict(places, write, tmp_path):
    video = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 20, (90, 70))
    for number in range(6):
        writer.write(cv2.imdecode(np.frombuffer(good_picture(number), np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    capture, frames = cv2.VideoCapture(str(video)), []
    while (read := capture.read())[0]:
        frames.append(np.ascontiguousarray(read[1][..., ::-1]))
    capture.release()
    text = f'[product.a]\nmodel = "part"\ncamera = "{video}"\ncamera_interval = 0\n'
    with started(write(text), *places, links=[RecipeCamera()]) as (station, _):
        station.recipes.select("a", ANNA)
        wait_until(lambda: count(station, "a") == len(frames))
        scores = [one.score for one in station.history.find()[::-1]]
    detector = load_detector(places[0])
    assert scores == [detector.predict(frame).score for frame in frames]


def test_after_a_restart_the_camera_runs_and_a_lost_one_is_told_everywhere(places, write, belt, caplog):
    folder = write(CAMERAS)
    with started(folder, *places, links=[RecipeCamera(0.01)]) as (station, _):
        station.recipes.select("a", ANNA)
    belt.broken.add(1)
    with started(folder, *places, links=[RecipeCamera(0.01, first_pause=0.02)]) as (station, http):
        words = "camera 1 gives no picture. It is opened again and again."
        wait_until(lambda: station.faults() == [words])
        assert words in caplog.text
        assert words in http.get("/").text
        assert "Die Kamera 1 liefert kein Bild." in http.get("/history", headers={"Accept-Language": "de"}).text
        assert 'totalrecall_link_up{link="camera of the recipe"} 0.0' in http.get("/metrics").text
        answer = http.get("/live/now", params={"told": ""})
        assert answer.status_code == 200  # though no picture is new
        assert words in answer.text
        told = html.unescape(answer.text).split("&told=")[1].split('"')[0]
        assert http.get("/live/now", params={"told": told}).status_code == 204
        before = count(station, "a")
        belt.broken.clear()
        wait_until(lambda: count(station, "a") > before)
        wait_until(lambda: station.faults() == [])
        assert 'totalrecall_link_up{link="camera of the recipe"} 1.0' in http.get("/metrics").text
        assert words not in http.get("/live/now", params={"told": told}).text


def test_a_camera_that_runs_all_the_time_is_not_opened_twice(places, write, belt):
    with (
        started(write(CAMERAS), *places, links=[RecipeCamera(0.01, [camera_source("1")])]) as (station, _),
        pytest.raises(SettingError, match="camera 1 runs already, by --camera"),
    ):
        station.recipes.select("a", ANNA)
    assert belt.opened == []


def test_the_password_of_a_camera_is_never_shown(places, write, belt, caplog):
    address = "rtsp://user:private-word@camera.local:554/stream?token=private-word"
    belt.broken.add(address)
    folder = write(f'[product.a]\nmodel = "part"\ncamera = "{address}"\ncamera_interval = 2\n')
    with started(folder, *places, links=[RecipeCamera()]) as (station, http):
        texts = [http.get("/v1/recipes").text, http.get("/recipes").text]
        texts.append(http.post("/v1/recipes/select", json={"product": "a"}).text)
        assert all("camera.local" in text and "/stream" not in text for text in texts)
        write(f'[product.a]\nmodel = "part"\ncamera = "{address.replace("rtsp", "rtps")}"\n')
        station.recipes.look()
        assert "must begin with one of rtsp" in station.recipes.fault
        texts += [http.get("/recipes").text, http.get("/v1/recipes").text, caplog.text]
        assert not any("private-word" in text for text in texts)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("camera_interval = 1", "camera_interval needs a camera"),
        ("camera = 0\ncamera_interval = -1", "camera_interval must be from 0 to 86,400 seconds, got -1"),
        ("camera = 0\ncamera_interval = nan", "camera_interval must be from 0 to 86,400 seconds, got nan"),
        ("camera = 0\ncamera_interval = '1 s'", "camera_interval must be from 0 to 86,400 seconds, got '1 s'"),
        ("camera = 'gopher://host/'", "product 'a': The address of a camera must begin with one of rtsp"),
        ("camera = 'rtsp://host:port/'", "product 'a': The address of a camera has a wrong port or host"),
        ("camera = ''", "camera must be a number, an address or a video file, got ''"),
        ("outputs = ['folder']", "outputs are first, got 'folder'"),
    ],
)
def test_faults_of_cameras_and_outputs_are_one_clear_line(places, write, tmp_path, lines, fault):
    watched = HotFolder(tmp_path, done="leave")
    with (
        pytest.raises(SettingError) as caught,
        started(write(f'[product.a]\nmodel = "part"\n{lines}\n'), *places, links=[Line("first"), watched]),
    ):
        pass
    assert fault in str(caught.value)
    assert str(caught.value).isprintable()
