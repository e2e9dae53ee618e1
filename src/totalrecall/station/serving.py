"""The process of a station: a socket, a server, and signals that let it finish what is in flight."""

import contextlib
import signal
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from totalrecall.errors import SettingError
from totalrecall.station.settings import StationSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["listen", "serve"]

_HEADERS = 32 << 10  # bytes of a request's head
_IDLE = 20  # seconds that a connection may stay open between two requests
_GRACE = 60  # seconds for what is in flight when the station ends
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """Ends at SIGINT and SIGTERM once what is in flight is answered. That is no fault: no signal is passed on."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._end) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)


def listen(settings: StationSettings) -> socket.socket:
    """Return a socket that listens on the address.

    Raises:
        SettingError: it is taken, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=256)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(
            f"Cannot listen on {settings.host} port {settings.port}: {reason}. "
            "Stop what uses it, or name another port.",
            "host",
            "port",
        ) from None


def serve(app: "FastAPI", settings: StationSettings, sock: socket.socket, started: Callable[[], None]) -> None:
    """Answer requests until SIGINT or SIGTERM.

    Args:
        app: to serve.
        settings: of the station.
        sock: that listens.
        started: called once requests are answered.
    """
    warnings.simplefilter("ignore")  # of single pictures: each is told in its answer, not in the log
    config = uvicorn.Config(
        app,
        http="auto",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEADERS,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_GRACE,
        ssl_certfile=None if settings.tls is None else str(settings.tls[0]),
        ssl_keyfile=None if settings.tls is None else str(settings.tls[1]),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    started()
    _Server(config).run(sockets=[sock])
