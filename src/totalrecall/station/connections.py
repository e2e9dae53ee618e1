"""Connections that do not wait for ever: a client must send the head of a request within seconds."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_SECONDS", "PatientProtocol"]

HEAD_SECONDS = 15.0  # from the first byte of a request, or from the connection, to the end of its head


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP with a deadline for the head of each request.

    uvicorn itself waits without end for a client that opens a connection and sends its head byte by byte; a few hundred
    of them would keep everybody else out.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take in data; between two requests its first byte begins the wait."""
        head_before = self._awaits_head()
        super().data_received(data)
        if not self._awaits_head():
            self._stop_waiting()
        elif not head_before or self._deadline is None:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _awaits_head(self) -> bool:
        """Tell whether no request is being worked on: the next bytes are the head of one."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._awaits_head() and not self.transport.is_closing():
            self.transport.close()
