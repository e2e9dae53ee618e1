"""The process of a station: a socket, a server, and signals that let it finish what is in flight."""

import contextlib
import gc
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from totalrecall.errors import SettingError
from totalrecall.station.access.log_lines import sparing_logs
from totalrecall.station.access.policy import limited, server_options
from totalrecall.station.settings import StationSettings

__all__ = ["listen", "serve"]

_FILES = 8192  # that the process may open
_GRACE = 60  # seconds for what is in flight when the station ends
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """Ends at SIGINT and SIGTERM once what is in flight is answered. That is no fault: no signal is passed on."""

    def __init__(self, config: uvicorn.Config, serving: Callable[[], object], stopping: Callable[[], object]) -> None:
        super().__init__(config)
        self._serving, self._stopping = serving, stopping

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._end) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _tell_service_manager("READY=1")
        self._serving()

    def _end(self, number: int, frame: FrameType | None) -> None:
        _tell_service_manager("STOPPING=1")
        self._stopping()
        self.handle_exit(number, frame)


def _tell_service_manager(state: str) -> None:
    """Tell systemd, or podman, what it waits for (sd_notify): a message to the socket that it names."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def listen(settings: StationSettings) -> socket.socket:
    """Return a socket that listens on the address.

    Raises:
        SettingError: it is taken, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.policy.host else socket.AF_INET
    try:
        return socket.create_server((settings.policy.host.strip("[]"), settings.port), family=family, backlog=256)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        # of a number, since the error's own words repeat the address in Python's form; of a name, by its own words
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise SettingError(
            f"Cannot listen on {settings.policy.host}:{settings.port}: {reason}. "
            "Stop what uses it, or name another port.",
            "port",
        ) from None


def serve(
    app: ASGIApp,
    settings: StationSettings,
    sock: socket.socket,
    refused: Callable[[str], object] = lambda _: None,
    serving: Callable[[], object] = lambda: None,
    stopping: Callable[[], object] = lambda: None,
) -> None:
    """Answer requests until SIGINT or SIGTERM.

    Args:
        app: to serve.
        settings: of the station.
        sock: that listens.
        refused: called with the reason for what is refused before the application sees it.
        serving: called once it answers and the signals are heeded: who is told so may send one at once.
        stopping: called at the signal, before what is in flight is answered; in its handler, so it must only note it.
    """
    warnings.simplefilter("ignore")  # of single pictures: each is told in its answer, not in the log
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE,
        **server_options(settings.policy, refused),
    )
    _allow_files()
    gc.collect()
    gc.freeze()  # what is there now stays: not to be looked through again and again while pictures come
    with sparing_logs(refused), limited(sock, settings.policy, refused) as listener:
        _Server(config, serving, stopping).run(sockets=[listener])


def _allow_files() -> None:
    """Let the process open as many files as it may: each connection is one, and many systems begin with 1,024."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
