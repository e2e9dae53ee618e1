"""Each verdict to a web address, signed, tried again until it is taken.

    POST /verdicts HTTP/1.1
    Content-Type: application/json
    Idempotency-Key: 0c6e...                     the inspection's id, the same at every try
    X-TotalRecall-Delivery: 0c6e...
    X-TotalRecall-Signature: t=1764433500,v1=5f2b...

`v1` is the HMAC-SHA256, in hexadecimal digits, of `t`, a full stop and the body's bytes, under the secret that both
sides know. A receiver computes it itself, compares in constant time, refuses an old `t`, and passes over an id that it
has had. Any status from 200 to 299 means that it was taken. Redirects are not followed.
"""

import hashlib
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from totalrecall._version import __version__
from totalrecall.errors import SettingError
from totalrecall.station.access.policy import is_loopback
from totalrecall.station.links.base import LOG
from totalrecall.station.links.outbox import Deliverer, Patience
from totalrecall.station.station import Link
from totalrecall.station.store.records import NOT_PRODUCTION

if TYPE_CHECKING:
    from totalrecall.station.station import Station
    from totalrecall.station.store.records import Inspection

__all__ = ["WHEN", "Webhook", "signature"]

WHEN = ("all", "rejects")
_SHORTEST_SECRET = 16  # bytes
_SECONDS = 10.0  # for one try, from the connection to the answer
_ANSWER = 64 << 10  # bytes of an answer that are read; nobody needs them
_SUCCESS = range(200, 300)


@dataclass(frozen=True)
class _Address:
    tls: bool
    host: str
    port: int
    path: str


class Webhook(Link):
    """Sends each inspection to an address.

    Args:
        address: http or https, without name and password.
        secret: that the receiver knows, too.
        name: by which recipes, the log and the outbox know it.
        when: "all", or "rejects": whatever was not found good.
        authorities: file of the certificates that are trusted instead of the system's.
        seconds: for one try.
        patience: how often it is tried.

    Raises:
        SettingError: the address or the secret cannot be used.
    """

    def __init__(
        self,
        address: str,
        secret: bytes,
        name: str = "webhook",
        *,
        when: str = "all",
        authorities: Path | None = None,
        seconds: float = _SECONDS,
        patience: Patience | None = None,
    ) -> None:
        self._address = _parsed(address)
        if len(secret) < _SHORTEST_SECRET:
            raise SettingError(
                f"The secret of a webhook must have at least {_SHORTEST_SECRET} bytes, got {len(secret)}. "
                "Make one: openssl rand -hex 32"
            )
        self._secret, self._when, self._seconds, self._patience = secret, when, seconds, patience
        self._tls = _tls(authorities) if self._address.tls else None
        self.name = name  # and not the address: what stands behind its host may be secret
        self._deliverer: Deliverer | None = None

    def body(self, inspection: "Inspection") -> dict[str, Any] | None:
        """Return the inspection as the API gives it."""
        if inspection.source in NOT_PRODUCTION:
            return None
        return inspection.to_json() if self._when == "all" or inspection.verdict != "good" else None

    def told(self, inspection: "Inspection") -> None:  # noqa: ARG002
        """Have the deliverer look into the outbox."""
        if self._deliverer is not None:
            self._deliverer.wake()

    @property
    def fault(self) -> str | None:
        """Why the receiver takes nothing at the moment."""
        return None if self._deliverer is None else self._deliverer.fault

    def start(self, station: "Station") -> None:
        """Begin to deliver, what lies in the outbox from before first."""
        if self._tls is None and not is_loopback(self._address.host):
            LOG.warning("%s is plain http: who listens on the way can read the verdicts. Use https.", self.name)
        self._deliverer = Deliverer(station.database, self.name, self._deliver, self._patience)

    def close(self) -> None:
        """Stop after the delivery in hand."""
        if self._deliverer is not None:
            self._deliverer.close()

    def _deliver(self, body: dict[str, Any], key: str) -> str | None:
        payload = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        at = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"totalrecall/{__version__}",
            "Idempotency-Key": key,
            "X-TotalRecall-Delivery": key,
            "X-TotalRecall-Signature": f"t={at},v1={signature(self._secret, at, payload)}",
        }
        connection = self._connection()
        # subtle: the socket's own limit begins anew with each byte that comes; this one does not
        end = threading.Timer(self._seconds, _cut, [connection])
        end.daemon = True
        end.start()
        try:
            connection.request("POST", self._address.path, payload, headers)
            answer = connection.getresponse()
            answer.read(_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            return _reason(error)
        finally:
            end.cancel()
            connection.close()
        if answer.status in _SUCCESS:
            return None
        not_followed = " (redirects are not followed)" if answer.status in range(300, 400) else ""
        return f"it answered {answer.status}{not_followed}"

    def _connection(self) -> http.client.HTTPConnection:
        address = self._address
        if self._tls is not None:
            return http.client.HTTPSConnection(address.host, address.port, timeout=self._seconds, context=self._tls)
        return http.client.HTTPConnection(address.host, address.port, timeout=self._seconds)


def signature(secret: bytes, at: int, payload: bytes) -> str:
    """Return the signature of a body that was sent at a time, in seconds since 1970."""
    return hmac.new(secret, b"%d." % at + payload, hashlib.sha256).hexdigest()


def _parsed(address: str) -> _Address:
    """Return the parts of an address.

    Raises:
        SettingError: it is none; the message does not repeat it, since it may hold a password.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise SettingError("The address of a webhook has a wrong port or host. Write https://host:port/path.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingError("The address of a webhook must begin with https:// or http:// and name a host.")
    if parts.username is not None or parts.password is not None:
        raise SettingError("The address of a webhook may hold no name or password: the signature proves who sends.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(letter <= " " or letter == "\x7f" for letter in path):
        raise SettingError("The path of a webhook's address must be printable ASCII. Write other letters as %XX.")
    tls = parts.scheme == "https"
    return _Address(tls, parts.hostname, port or (443 if tls else 80), path)


def _tls(authorities: Path | None) -> ssl.SSLContext:
    """Return how certificates are checked.

    Raises:
        SettingError: the file of the authorities cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=None if authorities is None else str(authorities))
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(f"{authorities} holds no certificates in PEM form: {reason}.") from None


def _reason(error: Exception) -> str:
    """Return why a try failed, in words that hold nothing of the address or the body."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"the connection ended ({type(error).__name__})"


def _cut(connection: http.client.HTTPConnection) -> None:
    """End a connection whatever it waits for."""
    sock = connection.sock
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            sock.close()
