"""The camera of the product that is made: started when its recipe is chosen, stopped when another one is.

It is opened before the recipe is chosen, so that a camera that gives no picture leaves the recipe before, and its
camera, as they are. Two recipes with the same camera share it: no picture is missed between them.
"""

import contextlib
import threading
from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING

from totalrecall.errors import SettingError
from totalrecall.station.camera_source import CameraSource, camera_source
from totalrecall.station.links.camera import Camera
from totalrecall.station.station import Link

if TYPE_CHECKING:
    from totalrecall.station.quality.recipe_file import Recipe
    from totalrecall.station.station import Station

__all__ = ["RecipeCamera"]

_PATIENCE = 10.0  # seconds that the last frame of a camera may wait for a station that is busy


class RecipeCamera(Link):
    """Runs the camera that the recipe in use names; nothing where it names none.

    Args:
        interval: seconds between two frames, where the recipe does not say.
        others: sources of the cameras that run all the time.
        first_pause: seconds before a lost camera is opened again.
    """

    def __init__(
        self, interval: float = 1.0, others: Collection[CameraSource] = (), *, first_pause: float = 1.0
    ) -> None:
        self.name = "camera of the recipe"
        self.is_output = False
        self._interval, self._first_pause = interval, first_pause
        self._others = {source.opened for source in others}
        self._lock = threading.Lock()
        self._camera: Camera | None = None
        self._stopping: dict[int | str, threading.Thread] = {}  # cameras of recipes before, by what they opened
        self._sources: dict[str, CameraSource] = {}  # by what recipes say
        self._closed = False

    @property
    def fault(self) -> str | None:
        """Why its camera gives no frames at the moment."""
        camera = self._camera
        return None if camera is None else camera.fault

    def start(self, station: "Station") -> None:
        """Start the camera of the recipe in use; one that gives no picture is opened again and again.

        Raises:
            SettingError: the recipe's camera is none that could be opened.
        """
        self._station = station
        recipe = station.recipes.current
        source = self._source(recipe)
        if recipe is not None and source is not None:
            self._camera = self._made(recipe, source)
            self._camera.start(station)
        station.recipes.before_change(self._prepare)

    def close(self) -> None:
        """Stop after the frame in hand."""
        with self._lock:
            self._closed = True
            camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()
        for thread in list(self._stopping.values()):
            thread.join()

    # ------------------------------------------------------------------ a change; one at a time

    def _prepare(self, recipe: "Recipe | None") -> "partial[None]":
        """Open the camera of a recipe that is to be chosen; returns what is called once it is, or is not.

        Raises:
            SettingError: it cannot be opened, or gives no picture.
        """
        source, now = self._source(recipe), self._camera
        if recipe is None or source is None:
            return partial(self._settle, None, None)
        if now is not None and now.source == source:
            return partial(self._settle, now, self._interval_of(recipe))
        if (stopping := self._stopping.get(source.opened)) is not None:
            stopping.join()  # a device cannot be opened twice
        camera = self._made(recipe, source)
        with _of_product(recipe):
            camera.open()
        return partial(self._settle, camera, None)

    def _settle(self, camera: Camera | None, interval: float | None, chosen: bool) -> None:
        """Use the camera of a recipe that was chosen instead of the one before; release it if it was not chosen."""
        with self._lock:
            before = self._camera
            if not chosen or self._closed:
                if camera is not None and camera is not before:
                    camera.close()
                return
            self._camera = camera
            if camera is before:
                if camera is not None and interval is not None:
                    camera.begin_interval(interval)
                return
            if camera is not None:
                camera.start(self._station)
        if before is not None:
            self._stop(before)

    def _stop(self, camera: Camera) -> None:
        """Stop a camera in the background: its last frame is judged by the recipe under which it was taken."""

        def run() -> None:
            camera.close(_PATIENCE)
            self._stopping.pop(camera.source.opened, None)

        thread = threading.Thread(target=run, name="station-camera-stop", daemon=True)
        self._stopping[camera.source.opened] = thread
        thread.start()

    # ------------------------------------------------------------------ one camera

    def _source(self, recipe: "Recipe | None") -> CameraSource | None:
        """Return the source that a recipe names; None if it names none.

        Raises:
            SettingError: it is none that could be opened, or runs all the time.
        """
        if recipe is None or recipe.camera is None:
            return None
        with _of_product(recipe):
            source = self._sources[recipe.camera] = camera_source(recipe.camera)
            if source.opened in self._others:
                raise SettingError(f"camera {source.place} runs already, by --camera. Take it out of one of the two.")
        return source

    def _interval_of(self, recipe: "Recipe") -> float:
        return self._interval if recipe.camera_interval is None else recipe.camera_interval

    def _made(self, recipe: "Recipe", source: CameraSource) -> Camera:
        return Camera(
            source,
            interval=self._interval_of(recipe),
            first_pause=self._first_pause,
            is_wanted=partial(self._is_of, source),
        )

    def _is_of(self, source: CameraSource, taken: float) -> bool:
        """Tell whether the recipe that was in use at a moment has this camera."""
        recipe = self._station.recipes.at(taken)
        return recipe is not None and recipe.camera is not None and self._sources.get(recipe.camera) == source


@contextlib.contextmanager
def _of_product(recipe: "Recipe") -> Iterator[None]:
    """Let a refusal say whose camera it is about."""
    try:
        yield
    except SettingError as error:
        raise SettingError(f"The camera of product {recipe.product!r} cannot be used. {error}") from None
