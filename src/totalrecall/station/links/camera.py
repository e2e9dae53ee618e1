"""A camera: a frame every so often, always the newest one.

One thread reads frames as fast as they come, so that none grows old in a buffer; another takes the newest every
interval, and waits until it is inspected before it takes the next. A camera that is lost is opened again, after longer
and longer pauses. A video file plays as fast as it was taken, once.
"""

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import numpy.typing as npt

from totalrecall.errors import SettingError, TotalRecallError
from totalrecall.station.judging.caption import Caption
from totalrecall.station.links.base import FAULTS, Changes, pause_before, submit_patiently
from totalrecall.station.station import Link
from totalrecall.station.store.records import iso

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["Camera", "CameraSource", "camera_source"]

_Frame = npt.NDArray[Any]
_SCHEMES = ("rtsp", "rtsps", "http", "https")
_TIMEOUT = 5000  # milliseconds to open a camera, and to wait for a frame
_MOST_DEVICE = 99
_USUAL_RATE = 25.0  # frames per second of a video file that states none


@dataclass(frozen=True)
class CameraSource:
    """Where frames come from.

    Attributes:
        opened: what OpenCV opens: a number, an address or a file.
        label: for people and the history; it holds no password.
        is_file: a video file, that ends.
    """

    opened: int | str
    label: str
    is_file: bool = False


def camera_source(text: str) -> CameraSource:
    """Return what a person means by `0`, `rtsp://...`, `env:NAME` or a file.

    Raises:
        SettingError: it is none of them.
    """
    if text.startswith("env:"):
        value = os.environ.get(text[4:], "")
        if not value:
            raise SettingError(f"The environment variable {text[4:]} of --camera is not set. Put the address into it.")
        text = value
    if text.isdecimal() and int(text) <= _MOST_DEVICE:
        return CameraSource(int(text), f"camera {int(text)}")
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise SettingError(f"The address of a camera must begin with one of {', '.join(_SCHEMES)} and name a host.")
        return CameraSource(text, f"camera at {parts.hostname}")
    path = Path(text)
    if not path.is_file():
        raise SettingError(f"--camera must be a number, an address or a video file, got {text!r}, which is not there.")
    return CameraSource(str(path.absolute()), path.name, is_file=True)


class Camera(Link):
    """Brings frames of a camera.

    Args:
        source: where they come from.
        model: that judges; may be missing where there is only one.
        interval: seconds between two frames that are inspected. At 0 as many as can be judged; of a video file every
            one.
        first_pause: seconds before a lost camera is opened again; doubled each time, up to a minute.
    """

    def __init__(
        self, source: CameraSource, model: str | None = None, *, interval: float = 1.0, first_pause: float = 1.0
    ) -> None:
        self._source, self._model, self._interval, self._first_pause = source, model, interval, first_pause
        self.name = f"camera {source.label}"
        self.ended = threading.Event()  # every frame of a video file is inspected
        self._changes = Changes()
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._frame: _Frame | None = None
        self._no_more = False
        self._threads: list[threading.Thread] = []

    def start(self, station: "Station") -> None:
        """Begin to take frames."""
        self._station = station
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for run, name in ((self._read, "station-camera"), (self._inspect, "station-camera-frames"))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop after the frame in hand."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # ------------------------------------------------------------------ reading

    def _read(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            capture = _opened(self._source)
            try:
                with contextlib.suppress(cv2.error):  # that is a camera that gives no frame
                    if capture.isOpened() and self._read_frames(capture):
                        attempt = 0
            finally:
                capture.release()
            if self._source.is_file:
                break
            attempt += 1
            if not self._closing.is_set():
                self._changes.say("lost", f"{self.name} gives no picture. It is opened again and again.")
            self._closing.wait(pause_before(attempt, self._first_pause, 60.0))
        with self._changed:
            self._no_more = True
            self._changed.notify_all()

    def _read_frames(self, capture: Any) -> bool:
        """Hold the newest frame until no more come; returns whether any came."""
        came = False
        rate = capture.get(cv2.CAP_PROP_FPS)
        pause = 1 / (rate if 0 < rate <= 1000 else _USUAL_RATE) if self._source.is_file else 0.0
        next_at = time.monotonic()
        while not self._closing.is_set():
            good, frame = capture.read()
            if not good:
                break
            came = True
            self._changes.settled("lost", f"{self.name} gives pictures again.")
            with self._changed:
                if self._source.is_file and self._interval == 0:  # every frame: the one before must be taken
                    self._changed.wait_for(lambda: self._frame is None or self._closing.is_set())
                self._frame = frame
                self._changed.notify_all()
            next_at += pause
            if pause and self._interval:
                self._closing.wait(max(next_at - time.monotonic(), 0))
        return came

    # ------------------------------------------------------------------ inspecting

    def _inspect(self) -> None:
        while (frame := self._newest()) is not None:
            began = time.monotonic()
            try:
                self._submit(frame)
            except FAULTS as error:  # whatever it is, the next frame is another
                self._changes.say("refused", f"A frame of {self.name} was not inspected: {error}")
            self._closing.wait(max(began + self._interval - time.monotonic(), 0))
        self.ended.set()

    def _newest(self) -> _Frame | None:
        """Wait for a frame that was not taken yet; None once there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._no_more or self._closing.is_set())
            frame, self._frame = self._frame, None
            self._changed.notify_all()
            return None if self._closing.is_set() else frame

    def _submit(self, frame: _Frame) -> None:
        good, png = cv2.imencode(".png", np.ascontiguousarray(frame), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not good:
            raise TotalRecallError("it cannot be written as PNG.")
        name = f"frame {iso(datetime.now(timezone.utc))}"
        caption = Caption(model=self._model, name=name, line=self._source.label, source="camera")
        submit = partial(self._station.submit, png.tobytes(), caption)
        waited = submit_patiently(submit, self._closing, self._say_why)
        if waited is not None:
            waited.result()
            self._changes.settled("wait", f"The frames of {self.name} are judged again.")
            self._changes.settled("refused")

    def _say_why(self, why: str) -> None:
        self._changes.say("wait", f"The frames of {self.name} wait: {why}")


def _opened(source: CameraSource) -> Any:
    """Return a capture, which may not be opened."""
    # FFmpeg writes addresses with their passwords into its messages
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if isinstance(source.opened, int):
        return cv2.VideoCapture(source.opened)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT]
    return cv2.VideoCapture(source.opened, cv2.CAP_FFMPEG, limits)
