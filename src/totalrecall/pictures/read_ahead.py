"""How much is read ahead: pictures wait for their turn as long as others, decoded already, fill the memory."""

import threading

__all__ = ["READ_AHEAD", "ReadAhead"]

READ_AHEAD = 512 << 20  # bytes of files and pixels that wait for the reader


class ReadAhead:
    """Bytes that the pictures of a stream hold until the reader takes them.

    The picture whose turn it is never waits, so a stream of pictures that are each larger than the limit goes on, one
    at a time.

    Args:
        limit: bytes of all of them.
    """

    def __init__(self, limit: int = READ_AHEAD) -> None:
        self._limit = limit
        self._held: dict[int, int] = {}
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def hold(self, index: int, size: int) -> bool:
        """Wait until a picture may hold `size` bytes in all; False where nobody reads any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or index <= self._turn or self._fits(index, size))
            self._held[index] = size
            self._changed.notify_all()
            return not self._closed

    def taken(self, index: int) -> None:
        """Note that the reader has a picture: it is the next one's turn."""
        with self._changed:
            self._held.pop(index, None)
            self._turn = index + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let everyone go who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return sum(self._held.values())

    def _fits(self, index: int, size: int) -> bool:
        before = self._held.get(index, 0)
        return size <= before or self.held - before + size <= self._limit
