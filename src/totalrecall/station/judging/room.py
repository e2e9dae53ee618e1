"""Room for pictures in memory: so many pixels at the same time, and whoever comes later waits."""

import contextlib
import threading
from collections.abc import Iterator

from totalrecall.errors import PictureError
from totalrecall.pictures.decode import open_picture

__all__ = ["Room", "pixels_of"]


class Room:
    """Bounds the pixels of all pictures that are worked on at the same time, and with them the memory.

    Args:
        limit: of the pixels. A picture that has more is worked on alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pixels = 0
        self._turn = threading.Lock()  # a large picture waits; those behind it must not keep it waiting for ever
        self._left = threading.Condition()

    @contextlib.contextmanager
    def held(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for so many pixels, and hold it inside a `with` block."""
        with self._turn, self._left:
            self._left.wait_for(lambda: self._pixels == 0 or self._pixels + pixels <= self._limit)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._left:
                self._pixels -= pixels
                self._left.notify()


def pixels_of(picture: bytes, name: str) -> int:
    """Return how many pixels a picture's file says that it has; 0 if it is none, and will be refused."""
    try:
        header = open_picture(picture, name).header
    except PictureError:
        return 0
    return header.height * header.width
