"""Cameras, as video files that the tests draw; and serial numbers from codes in the picture."""

import contextlib
import logging
import threading

import cv2
import numpy as np
import pytest

from tests.line_ready import wait_until
from tests.rtsp_server import RtspServer
from tests.stations import started
from totalrecall import load_detector
from totalrecall.errors import SettingError
from totalrecall.station.camera_source import camera_source
from totalrecall.station.judging.caption import Caption
from totalrecall.station.links import camera as cameras
from totalrecall.station.links.camera import Camera
from totalrecall.station.links.codes import read_serial
from totalrecall.station.store.records import Filter

zxingcpp = pytest.importorskip("zxingcpp", reason="needs zxing-cpp (pip install 'totalrecall[codes]')")


@pytest.fixture(scope="module")
def video(pictures, tmp_path_factory):
    """A video file of the test pictures, and its frames as OpenCV reads them."""
    path = tmp_path_factory.mktemp("video") / "line.avi"
    first = cv2.imread(str(pictures[0]))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, first.shape[1::-1])
    assert writer.isOpened()
    for picture in pictures:
        writer.write(cv2.imread(str(picture)))
    writer.release()
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    assert len(frames) == len(pictures)
    return path, frames


def test_every_frame_of_a_video_gets_the_score_of_predict(place, video, tmp_path):
    path, frames = video
    detector = load_detector(place)
    link = Camera(camera_source(str(path)), interval=0)
    with started(tmp_path, place, links=[link]) as (station, _):
        assert link.ended.wait(120)
        found = station.history.find()[::-1]
    assert [one.score for one in found] == [
        detector.predict(np.ascontiguousarray(frame[..., ::-1])).score for frame in frames
    ]
    assert {(one.source, one.line) for one in found} == {("camera", "line.avi")}
    assert all(one.name.startswith("frame 2") for one in found)


class Fake:
    """A camera that a test controls: it gives numbered frames as fast as they are asked for."""

    def __init__(self, opens=True, frames=10**9, size=(80, 96, 3)) -> None:
        self.opens, self.left, self.read_frames, self.size = opens, frames, 0, size

    def isOpened(self):
        return self.opens

    def get(self, _):
        return 0.0

    def read(self):
        if self.left <= 0:
            return False, None
        self.left -= 1
        self.read_frames += 1
        frame = np.zeros(self.size, np.uint8)
        frame[:40], frame[40:] = self.read_frames // 256 % 256, self.read_frames % 256
        threading.Event().wait(0.001)
        return True, frame

    def release(self):
        self.opens = False


def test_only_the_newest_frame_is_taken(place, tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setattr(cameras, "_opened", lambda _: fake)
    link = Camera(camera_source("0"), interval=0.01)
    with started(tmp_path, place, links=[]) as (station, _):
        taken = []
        original = station.submit

        def submit(png, caption):
            frame = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
            taken.append((int(frame[0, 0, 0]) * 256 + int(frame[-1, 0, 0]), fake.read_frames))
            return original(png, caption)

        station.submit = submit
        link.start(station)
        wait_until(lambda: len(taken) >= 10)
        link.close()
        found = station.history.find()
    numbers = [number for number, _ in taken]
    assert numbers == sorted(set(numbers))
    assert max(numbers) > len(numbers)  # some were left out
    assert {one.line for one in found} == {"camera 0"}


def test_a_camera_that_is_lost_is_opened_again(place, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    opened = []

    def opener(_):
        opened.append(Fake(frames=3 if len(opened) % 2 else 0, opens=len(opened) % 3 != 2))
        return opened[-1]

    monkeypatch.setattr(cameras, "_opened", opener)
    link = Camera(camera_source("rtsp://user:private@192.0.2.1/stream"), interval=0, first_pause=0.01)
    with started(tmp_path, place, links=[link]) as (station, _):
        wait_until(lambda: len(opened) >= 8 and station.history.count(Filter()) >= 3)
        found = station.history.find()
    assert {one.line for one in found} == {"camera at 192.0.2.1"}
    assert "gives no picture" in caplog.text
    assert "gives pictures again" in caplog.text
    assert "private" not in caplog.text


@pytest.mark.parametrize("fault", ["the driver", "opening"])
def test_a_camera_whose_driver_fails_in_any_way_is_opened_again(place, tmp_path, monkeypatch, caplog, fault):
    caplog.set_level(logging.WARNING)
    opened = []

    class Odd(Fake):
        def read(self):
            if self.left == 1:
                raise ValueError("an odd driver")
            return super().read()

    def opener(_):
        opened.append(Odd(frames=4))
        if fault == "opening" and len(opened) % 2:
            raise MemoryError
        return opened[-1]

    monkeypatch.setattr(cameras, "_opened", opener)
    link = Camera(camera_source("0"), interval=0, first_pause=0.01)
    with started(tmp_path, place, links=[link]) as (station, _):
        wait_until(lambda: len(opened) >= 4 and station.history.count(Filter()) >= 2)
    assert "Reading camera 0 failed" in caplog.text


def test_a_held_station_lets_the_camera_wait(place, video, tmp_path, caplog):
    link = Camera(camera_source(str(video[0])), interval=0)
    with started(tmp_path, place, links=[]) as (station, _):
        station.holds["part"] = "its golden check failed."
        link.start(station)
        with contextlib.closing(link):
            wait_until(lambda: "golden check failed" in caplog.text)
            assert station.history.count(Filter()) == 0
            station.holds.clear()
            assert link.ended.wait(120)
        assert station.history.count(Filter()) == len(video[1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("missing.avi", "is not there"),
        ("gopher://host/", "must begin with one of rtsp"),
        ("rtsp://", "name a host"),
        ("env:NOT_SET_ANYWHERE", "is not set"),
        ("123456", "is not there"),
    ],
)
def test_a_source_that_is_none_is_refused(text, words):
    with pytest.raises(SettingError, match=words):
        camera_source(text)


def test_an_address_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("LINE_1", "rtsp://user:private@camera.local/1")
    source = camera_source("env:LINE_1")
    assert source.opened == "rtsp://user:private@camera.local/1"
    assert source.label == "camera at camera.local"
    assert camera_source("2").opened == 2


# ---------------------------------------------------------------------- codes


def code(text, kind, scale=4):
    """A code as zxing-cpp itself draws it: uint8 (h, w)."""
    kind = getattr(zxingcpp.BarcodeFormat, kind)
    if hasattr(zxingcpp, "create_barcode"):
        drawn = zxingcpp.create_barcode(text, kind)
        return np.array(zxingcpp.write_barcode_to_image(drawn, scale=scale))
    return np.array(zxingcpp.write_barcode(kind, text, width=160, height=160))


def stuck_on(picture, *codes):
    """A picture with codes on it, as PNG bytes."""
    canvas = np.full((400, 700, 3), 140, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    at = 120
    for one in codes:
        canvas[150 : 150 + one.shape[0], at : at + one.shape[1]] = one[..., None]
        at += one.shape[1] + 60
    return cv2.imencode(".png", canvas)[1].tobytes()


@pytest.mark.parametrize("kind", ["DataMatrix", "QRCode"])
def test_a_code_gives_the_serial(kind, pictures):
    picture = cv2.imread(str(pictures[0]))
    assert read_serial(stuck_on(picture, code("SN-0042/A", kind))) == "SN-0042/A"
    assert read_serial(stuck_on(picture)) is None


def test_two_codes_that_differ_give_none_and_twice_the_same_gives_it(pictures):
    picture = cv2.imread(str(pictures[0]))
    one, other = code("SN-1", "QRCode"), code("SN-2", "DataMatrix")
    assert read_serial(stuck_on(picture, one, other)) is None
    assert read_serial(stuck_on(picture, one, code("SN-1", "DataMatrix"))) == "SN-1"


def test_a_text_that_is_no_serial_gives_none(pictures):
    picture = cv2.imread(str(pictures[0]))
    assert read_serial(stuck_on(picture, code("x" * 201, "QRCode", 2))) is None
    assert read_serial(stuck_on(picture, code("a\nb", "QRCode"))) == "a b"
    assert read_serial(b"no picture") is None


def test_serials_are_read_only_where_asked_and_where_none_was_sent(place, pictures, tmp_path):
    data = stuck_on(cv2.imread(str(pictures[0])), code("SN-7", "DataMatrix"))
    with started(tmp_path / "with", place, read_serial=read_serial) as (station, _):
        assert station.inspect(data).serial == "SN-7"
        assert station.inspect(data, Caption(serial="by hand")).serial == "by hand"
        assert station.inspect(pictures[0].read_bytes()).serial is None
    with started(tmp_path / "without", place) as (station, _):
        assert station.inspect(data).serial is None


# ---------------------------------------------------------------------- a camera in the network


@pytest.fixture(scope="module")
def sights(pictures):
    """What a camera sees by turns."""
    return [cv2.resize(cv2.imread(str(path)), (96, 80)) for path in pictures[:4]]


@contextlib.contextmanager
def streaming(sights, port=0):
    with contextlib.closing(RtspServer(sights, port)) as server:
        yield server


def scores(station):
    return {one.score for one in station.history.find(limit=1000)}


def test_frames_of_an_rtsp_camera_get_the_score_of_predict(place, sights, tmp_path):
    detector = load_detector(place)
    with streaming(sights) as server:
        capture = cv2.VideoCapture(server.address, cv2.CAP_FFMPEG)
        frames = [capture.read()[1] for _ in range(2 * len(sights))]
        capture.release()
        expected = {detector.predict(np.ascontiguousarray(frame[..., ::-1])).score for frame in frames}
        assert len(expected) == len(sights)
        link = Camera(camera_source(server.address), interval=0)
        with started(tmp_path, place, links=[link]) as (station, _):
            wait_until(lambda: scores(station) == expected)


def test_a_stream_that_ends_or_freezes_is_told_and_opened_again(place, sights, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(cameras, "_READ_TIMEOUT", 500)
    with streaming(sights) as server:
        link = Camera(camera_source(server.address), interval=0, first_pause=0.05)
        port = server.port
        with started(tmp_path, place, links=[link]) as (station, http):
            wait_until(lambda: station.history.count(Filter()) >= 1)
            server.close()
            wait_until(lambda: "gives no picture" in (link.fault or ""))
            assert f'totalrecall_link_up{{link="{link.name}"}} 0.0' in http.get("/metrics").text
            assert link.fault in http.get("/").text
            before = station.history.count(Filter())
            with streaming(sights, port) as again:
                wait_until(lambda: station.history.count(Filter()) > before and link.fault is None)
                again.is_frozen.set()
                wait_until(lambda: link.fault is not None)
                again.is_frozen.clear()
                wait_until(lambda: link.fault is None)
                assert caplog.text.count("gives no picture") >= 2
                assert caplog.text.count("gives pictures again") >= 2
