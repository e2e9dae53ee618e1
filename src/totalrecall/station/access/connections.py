"""Connections that do not wait for ever: for the head of a request, or for a client that reads no answer."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_SECONDS", "READ_SECONDS", "PatientProtocol"]

HEAD_SECONDS = 15.0  # from the first byte of a request, or from the connection, to the end of its head
READ_SECONDS = 60.0  # that a client may read nothing of an answer that is ready for it


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP with a deadline for the head of each request, and for the reading of each answer.

    uvicorn itself waits without end for a client that opens a connection and sends its head byte by byte, or does not
    read; a few hundred of them would keep everybody else out.
    """

    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

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
        self._stop_stall()
        super().connection_lost(exc)
        # subtle: uvicorn lets this timer run on where the client reset the connection, and with it all that belongs to
        # the connection stays in memory for as long
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        self._stop_stall()
        self._stall = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: the client has read."""
        super().resume_writing()
        self._stop_stall()

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

    def _stop_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._awaits_head() and not self.transport.is_closing():
            self.transport.close()
