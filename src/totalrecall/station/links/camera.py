"""A camera: a frame every so often, always the newest one.

One thread reads frames as fast as they come, so that none grows old in a buffer; another takes the newest every
interval, and waits until it is inspected before it takes the next. A camera that is lost is opened again, after longer
and longer pauses. A video file plays as fast as it was taken, once.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from totalrecall.errors import SettingError, TotalRecallError
from totalrecall.station.camera_source import CameraSource
from totalrecall.station.judging.caption import Caption
from totalrecall.station.links.base import Changes, pause_before, reason_of, submit_patiently
from totalrecall.station.station import Link
from totalrecall.station.store.records import iso

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["Camera"]

_Frame = npt.NDArray[Any]
_OPEN_TIMEOUT = 10_000  # milliseconds; FFmpeg looks at a slow stream for up to five seconds
_READ_TIMEOUT = 5000  # milliseconds to wait for a frame
_USUAL_RATE = 25.0  # frames per second of a video file that states none


class Camera(Link):
    """Brings frames of a camera.

    Args:
        source: where they come from.
        model: that judges; may be missing where there is only one, or a recipe says it.
        interval: seconds between two frames that are inspected. At 0 as many as can be judged; of a video file every
            one.
        first_pause: seconds before a lost camera is opened again; doubled each time, up to a minute.
        is_wanted: tells by the moment of time.monotonic at which a frame was taken whether it is to be inspected.
    """

    def __init__(
        self,
        source: CameraSource,
        model: str | None = None,
        *,
        interval: float = 1.0,
        first_pause: float = 1.0,
        is_wanted: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self.source, self._interval = source, interval
        self._model, self._first_pause, self._is_wanted = model, first_pause, is_wanted
        self.name = f"camera {source.place}"
        self.is_output = False
        self.ended = threading.Event()  # every frame of a video file is inspected
        self._changes = Changes()
        self._closing = threading.Event()  # no more frames are taken
        self._awake = threading.Event()  # the next frame is due, whatever the interval
        self._hurry = threading.Event()  # the frame in hand is not waited for any longer
        self._changed = threading.Condition()
        self._capture: Any = None  # opened before the start
        self._frame: tuple[_Frame, float] | None = None
        self._no_more = False
        self._came = False  # a frame, since the source was opened
        self._threads: list[threading.Thread] = []

    @property
    def fault(self) -> str | None:
        """Why no frame is inspected at the moment."""
        return self._changes.said("lost") or self._changes.said("wait") or self._changes.said("refused")

    def open(self) -> None:
        """Open the camera before `start`, to see that it gives pictures; of a video file no frame is taken.

        Raises:
            SettingError: it cannot be opened.
        """
        capture = _opened(self.source)
        good = False
        with contextlib.suppress(cv2.error):  # that is a camera that gives no frame
            good = capture.isOpened() and (self.source.is_file or capture.read()[0])
        if not good:
            capture.release()
            place = self.source.place
            raise SettingError(f"camera {place} cannot be opened, or gives no picture. Look whether it is on.")
        self._capture = capture

    def start(self, station: "Station") -> None:
        """Begin to take frames."""
        self._station = station
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for run, name in ((self._read, "station-camera"), (self._inspect, "station-camera-frames"))
        ]
        for thread in self._threads:
            thread.start()

    def begin_interval(self, interval: float) -> None:
        """Take the next frame that comes, and from then on one every so many seconds."""
        self._interval = interval
        with self._changed:
            if not self.source.is_file:  # of a video file every frame may be wanted
                self._frame = None
        self._awake.set()

    def close(self, patience: float = 0.0) -> None:
        """Stop after the frame in hand.

        Args:
            patience: seconds that the frame in hand may wait for a station that is busy.
        """
        self._closing.set()
        self._awake.set()
        with self._changed:
            self._changed.notify_all()
        if self._capture is not None and not self._threads:  # it was opened, and never started
            self._capture.release()
        for thread in self._threads[::-1]:
            thread.join(patience)
            self._hurry.set()
        for thread in self._threads:
            thread.join()

    # ------------------------------------------------------------------ reading

    def _read(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            came = self._read_once()
            if self.source.is_file:
                if not came and not self._closing.is_set():
                    self._changes.say("lost", f"{self.name} holds no picture that can be read.")
                break
            attempt = 1 if came else attempt + 1
            if not self._closing.is_set():
                self._changes.say("lost", f"{self.name} gives no picture. It is opened again and again.")
            self._closing.wait(pause_before(attempt, self._first_pause, 60.0))
        with self._changed:
            self._no_more = True
            self._changed.notify_all()

    def _read_once(self) -> bool:
        """Open the source and read it until it ends, whatever ends it; returns whether any frame came."""
        self._came = False
        capture = None
        try:
            capture, self._capture = self._capture or _opened(self.source), None
            if capture.isOpened():
                self._read_frames(capture)
        except cv2.error:  # that is a camera that gives no frame
            return self._came
        except Exception as error:  # the source is opened again, as after any fault
            self._changes.say("fault", f"Reading {self.name} failed: {reason_of(error)}")
        finally:
            if capture is not None:
                capture.release()
        return self._came

    def _read_frames(self, capture: Any) -> None:
        """Hold the newest frame until no more come."""
        rate = capture.get(cv2.CAP_PROP_FPS)
        pause = 1 / (rate if 0 < rate <= 1000 else _USUAL_RATE) if self.source.is_file else 0.0
        next_at = time.monotonic()
        while not self._closing.is_set():
            good, frame = capture.read()
            if not good:
                break
            self._came = True
            self._changes.settled("lost", f"{self.name} gives pictures again.")
            with self._changed:
                if self.source.is_file and self._interval == 0:  # every frame: the one before must be taken
                    self._changed.wait_for(lambda: self._frame is None or self._closing.is_set())
                self._frame = frame, time.monotonic()
                self._changed.notify_all()
            next_at += pause
            if pause and self._interval:
                self._closing.wait(max(next_at - time.monotonic(), 0))

    # ------------------------------------------------------------------ inspecting

    def _inspect(self) -> None:
        while (newest := self._newest()) is not None:
            began = time.monotonic()
            try:
                if self._is_wanted(newest[1]):
                    self._submit(*newest)
            except Exception as error:  # whatever it is, the next frame is another
                self._changes.say("refused", f"A frame of {self.name} was not inspected: {reason_of(error)}")
            self._awake.wait(max(began + self._interval - time.monotonic(), 0))
            self._awake.clear()
        self.ended.set()

    def _newest(self) -> tuple[_Frame, float] | None:
        """Wait for a frame that was not taken yet, with its moment; None once there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._no_more or self._closing.is_set())
            frame, self._frame = self._frame, None
            self._changed.notify_all()
            return None if self._closing.is_set() else frame

    def _submit(self, frame: _Frame, taken: float) -> None:
        good, png = cv2.imencode(".png", np.ascontiguousarray(frame), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not good:
            raise TotalRecallError("it cannot be written as PNG.")
        name = f"frame {iso(datetime.now(timezone.utc))}"
        caption = Caption(model=self._model, name=name, line=self.source.label, source="camera", taken=taken)
        submit = partial(self._station.submit, png.tobytes(), caption)
        waited = submit_patiently(submit, self._hurry, self._say_why)
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
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT]
    return cv2.VideoCapture(source.opened, cv2.CAP_FFMPEG, limits)
