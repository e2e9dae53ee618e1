"""Connections that wait neither for a head nor for a client that reads no answer for ever; only so many an address."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from totalrecall.station.access.throttle import network_of

__all__ = ["HEAD_SECONDS", "MOST_REFUSED", "READ_SECONDS", "Addresses", "Listener", "PatientProtocol"]

HEAD_SECONDS = 15.0  # from the first byte of a request, or from the connection, to the end of its head
READ_SECONDS = 60.0  # that a client may read nothing of an answer that is ready for it

_TOGETHER = 64 << 10  # bytes of an answer that wait to be sent with what follows them at once
_GOODBYE_SECONDS = 1.0  # between two looks whether a connection that is to end can, once the server stops
_REFUSED_SECONDS = 1.0  # that a connection too many stays until its client has sent something
MOST_REFUSED = 64  # such connections at a time


def _closing_answer(status: int, title: str, detail: str, *more: str) -> bytes:
    """Return an answer in bytes, a problem as all refusals are, with more lines of its head."""
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
    head = [f"HTTP/1.1 {status} {title}", "content-type: application/problem+json", *more, "connection: close"]
    return "\r\n".join([*head, f"content-length: {len(body)}", "", body]).encode()


_TOO_MANY = _closing_answer(
    503,
    "Service Unavailable",
    "This address has too many connections open. Close some, and try again.",
    "retry-after: 5",
)
_NO_HTTP = _closing_answer(400, "Bad Request", "This is no request of HTTP/1.1 that can be read.")


class Addresses:
    """How many connections of a server each address has open. An IPv6 address counts as its /64 network.

    Args:
        most: connections of an address; 0 for no limit.
        is_exempt: tells whether an address has no limit: a reverse proxy's, behind which many clients are.
        count: called with the reason when a connection is refused.
    """

    def __init__(
        self,
        most: int,
        is_exempt: Callable[[str], bool] = lambda _: False,
        count: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._most, self._is_exempt, self._count = most, is_exempt, count
        self._open: Counter[str] = Counter()
        self.refused = 0  # connections that are about to be closed

    def begin(self, address: str) -> str | None:
        """Count a connection, and return under what; None if it is one too many."""
        if self._most == 0 or not address or self._is_exempt(address):
            return ""
        network = network_of(address)
        if self._open[network] >= self._most:
            self._count("address")
            return None
        self._open[network] += 1
        return network

    def end(self, network: str) -> None:
        """Count a connection no longer."""
        self._open[network] -= 1
        if self._open[network] <= 0:
            del self._open[network]


class Listener(socket.socket):
    """A socket that listens, and closes what an address opens far beyond its limit before anything is done with it.

    `PatientProtocol` refuses a connection with an answer, and over TLS after the handshake alone: who opens thousands
    and never shakes hands would take all the files that a process may open.

    Args:
        listening: a socket; it is taken over.
        addresses: that are counted; with room for connections that get an answer before they are closed.
    """

    def __init__(self, listening: socket.socket, addresses: Addresses) -> None:
        super().__init__(fileno=listening.detach())
        self._addresses = addresses

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection with its address.

        Raises:
            ConnectionAbortedError: there were too many of the address; asyncio goes on with other work, and comes back.
        """
        connection, address = super().accept()
        network = self._addresses.begin(str(address[0]) if address else "")
        if network is None:
            connection.close()
            raise ConnectionAbortedError
        return _Accepted(connection, self._addresses, network), address


class _Accepted(socket.socket):
    """A connection that is counted until it is closed."""

    def __init__(self, connection: socket.socket, addresses: Addresses, network: str) -> None:
        super().__init__(fileno=connection.detach())
        self._addresses, self._network = addresses, network

    def close(self) -> None:
        """Close it, and count it no longer."""
        network, self._network = self._network, ""
        if network:
            self._addresses.end(network)
        super().close()


class _Gathering:
    """A transport that sends what is written at the same time in one piece.

    uvicorn writes the head of an answer and then the body: each would be a call of the system, and wake the client.

    Args:
        transport: of asyncio; whatever is not about writing is its own.
        loop: in whose next round it is sent.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pieces: list[bytes] = []
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send bytes soon: in the loop's next round, or now if they are many, and then without a copy of them."""
        if not data:
            return
        if self._count + len(data) > _TOGETHER:
            self._send()
            self._transport.write(data)
            return
        if not self._pieces:
            self._loop.call_soon(self._send)
        self._pieces.append(data)
        self._count += len(data)

    def close(self) -> None:
        """Send what was written, and close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._pieces:
            data, self._pieces, self._count = b"".join(self._pieces), [], 0
            self._transport.write(data)


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP with a deadline for the head of each request and for the reading of each answer, and with a limit.

    uvicorn itself waits without end for a client that opens a connection and sends its head byte by byte, or does not
    read; a few hundred of them would keep everybody else out.

    Args:
        config, server_state, app_state, _loop: as uvicorn gives them.
        addresses: that are counted.
    """

    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _goodbye: asyncio.TimerHandle | None = None
    _network: str | None = None  # under which it is counted
    _is_refused = False

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        addresses: Addresses,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._addresses = addresses

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request, or refuse a connection too many."""
        super().connection_made(cast("asyncio.Transport", _Gathering(transport, self.loop)))
        self._network = self._addresses.begin(self.client[0] if self.client else "")
        if self._network is None:
            self._refuse()
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take in data; between two requests its first byte begins the wait."""
        if self._is_refused:
            self.transport.close()
            return
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
        if self._goodbye is not None:
            self._goodbye.cancel()
            self._goodbye = None
        if self._is_refused:
            self._addresses.refused -= 1
        elif self._network:
            self._addresses.end(self._network)
        super().connection_lost(exc)
        # subtle: uvicorn lets this timer run on where the client reset the connection, and with it all that belongs to
        # the connection stays in memory for as long
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's words, always the same
        """Answer what is no HTTP with a problem, where uvicorn sends a line of text."""
        self.transport.write(_NO_HTTP)
        self.transport.close()

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        self._stop_stall()
        self._stall = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: the client has read."""
        super().resume_writing()
        self._stop_stall()

    def shutdown(self) -> None:
        """End when what is in hand is answered; a client of TLS that does not say goodbye is not waited for."""
        super().shutdown()
        self._goodbye = self.loop.call_later(_GOODBYE_SECONDS, self._end)

    def _end(self) -> None:
        """Break the connection if it is closing and all was sent; else look again later."""
        if self.transport.is_closing() and self.transport.get_write_buffer_size() == 0:
            self.transport.abort()
        else:
            self._goodbye = self.loop.call_later(_GOODBYE_SECONDS, self._end)

    def _refuse(self) -> None:
        """Answer at once, and close. What the client has sent by then must be read, or the answer never reaches it."""
        self._is_refused = True
        self._addresses.refused += 1
        self.connections.discard(self)  # it takes no place from others
        self.transport.write(_TOO_MANY)
        if self._addresses.refused > MOST_REFUSED:
            self.transport.close()
        else:
            self._deadline = self.loop.call_later(_REFUSED_SECONDS, self.transport.close)

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
