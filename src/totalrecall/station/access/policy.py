"""From where a station may be called, and what it demands of the callers: the rule of exposure, TLS, limits."""

import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.errors import DataError, SettingError

if TYPE_CHECKING:
    from totalrecall.station.access.connections import Listener
    from totalrecall.station.access.users import Users

__all__ = ["Policy", "check_exposure", "check_tls", "is_loopback", "limited", "server_options"]

MAX_HEADER_BYTES = 32 << 10
_KEEP_ALIVE = 15  # seconds that a connection may be idle between two requests
_CONNECTIONS = 512


@lru_cache(maxsize=256)  # asked several times at each request, mostly about the same few clients
def is_loopback(host: str) -> bool:
    """Tell whether only programs of this computer reach an address; a name but localhost may lead anywhere."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        ip = ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


@dataclass(frozen=True)
class Policy:
    """From where a station may be called, and the limits of a request.

    Attributes:
        host: the address that it listens on.
        allow_hosts: names by which clients may call it, beside the loopback's and `host`.
        proxies: addresses or networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
        insecure: everybody may do everything from everywhere, while there is no user.
        tls: files of the certificate and of its key, or None for plain HTTP.
        max_body: bytes of a request.
        max_form: bytes of a request from somebody who is not logged in, or of a form whose hidden text is checked.
        timeout: seconds that a client may pause, and may take to send a small request.
        slowest: bytes per second that a client must send of a large request.
        connections: that one address may have open; 0 for no limit. All programs of this computer are one address.

    Raises:
        SettingError: a name or an address is none, or a limit would let nobody in.
    """

    host: str = "127.0.0.1"
    allow_hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    insecure: bool = False
    tls: tuple[Path, Path] | None = None
    max_body: int = 64 << 20
    max_form: int = 64 << 10
    timeout: float = 30.0
    slowest: int = 32 << 10
    connections: int = 256

    def __post_init__(self) -> None:
        for name in self.allow_hosts:
            if not name or any(letter in name for letter in "/@*?#,;\\") or name != name.strip() or "://" in name:
                raise SettingError(
                    f"allow_host must be a name or address such as station.example, got {name!r}.", "allow_host"
                )
        for proxy in self.proxies:
            _network(proxy)
        limits = (("max_body", 1, 1 << 40), ("timeout", 0.01, 86_400), ("connections", 0, 100_000))
        for limit, least, most in limits:
            value = getattr(self, limit)
            if not least <= value <= most:  # subtle: nan is refused, too
                raise SettingError(f"{limit} must be from {least:,} to {most:,}, got {value}.", limit)

    @property
    def is_local(self) -> bool:
        """Whether only programs of this computer can call: then nobody needs to log in while there is no user.

        A further name, or a proxy, says that calls come from elsewhere, whatever the address.
        """
        return is_loopback(self.host) and not self.proxies and all(is_loopback(name) for name in self.allow_hosts)

    @property
    def is_open(self) -> bool:
        """Whether everybody who reaches the station is let in while there is no user."""
        return self.is_local or self.insecure

    def allows_host(self, host: str) -> bool:
        """Tell whether a request may name this host: what a page of another site can make a browser send is refused.

        Such a page can have its own name lead to this computer (DNS rebinding), but it cannot call by our names, nor by
        an address.
        """
        name = _bare(host)
        if name is None:
            return False
        if name in {_bare(allowed) for allowed in self.allow_hosts} or is_loopback(name) or name == _bare(self.host):
            return True
        if is_loopback(self.host):
            return False
        return _is_address(name) or name in _names_of_this_computer()

    def trusts_proxy(self, address: str) -> bool:
        """Tell whether an address is that of a reverse proxy which is believed."""
        if not self.proxies:
            return False
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in _network(proxy) for proxy in self.proxies)


def check_exposure(policy: Policy, users: "Users", place: str = "") -> list[str]:
    """Refuse to serve other computers without users; return what the person at the terminal must be told.

    Args:
        policy: of the station.
        users: of the station.
        place: the options by which `totalrecall station` finds its history.

    Raises:
        SettingError: calls may come from elsewhere, and there is neither a user nor a token, nor `--insecure`.
    """
    protected = users.any() or users.tokens.any()
    if policy.is_local:
        return []
    notices = []
    if not protected and not policy.insecure:
        raise SettingError(
            f"This station would be called from other computers ({_why(policy)}) and has no users. "
            f"Add one: totalrecall station users add NAME --role engineer{place and f' {place}'}. "
            "Or let everybody in the network do everything: --insecure.",
            "insecure",
        )
    if not protected:
        notices.append("insecure: everybody in the network can do everything here, since there are no users")
    if policy.tls is None and not policy.proxies:
        notices.append("passwords and pictures cross the network unencrypted; --tls-cert and --tls-key encrypt them")
    return notices


def check_tls(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Return both files if they can be served with, None if neither is given.

    Raises:
        SettingError: only one of them is given, or they do not belong together.
        DataError: a file is missing or cannot be read, or the key needs a password.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, lacking = ("tls_cert", "tls_key") if key is None else ("tls_key", "tls_cert")
        raise SettingError(f"{given} needs {lacking}, too: the certificate and its key.", given, lacking)
    for what, file in (("certificate", certificate), ("key", key)):
        _check_readable(what, file)
    if certificate.read_bytes().find(b"-----BEGIN CERTIFICATE-----") < 0:
        raise DataError(f"{certificate} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----).")
    if b"PRIVATE KEY-----" not in key.read_bytes():
        raise DataError(f"{key} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----).")
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return ""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password)
    except (ssl.SSLError, OSError, ValueError) as error:
        if asked:
            raise DataError(
                f"The key {key} is encrypted, and a station must start without a person. Decrypt it for this computer: "
                f"openssl pkey -in {key} -out station.key, readable by the station only."
            ) from None
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise SettingError(
                f"The key {key} does not belong to the certificate {certificate}. Name the one that was made with it.",
                "tls_key",
            ) from None
        reason = getattr(error, "reason", None) or str(error)
        raise DataError(f"{certificate} and {key} cannot be used for TLS: {reason}.") from None
    return certificate, key


def server_options(policy: Policy, refused: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """Return the settings of `uvicorn.Config` that keep to a policy.

    Args:
        policy: of the station.
        refused: called with the reason for each connection that is one too many.
    """
    from totalrecall.station.access.connections import Addresses, PatientProtocol

    options: dict[str, Any] = {
        "http": partial(PatientProtocol, addresses=Addresses(policy.connections, policy.trusts_proxy, refused)),
        "loop": "asyncio",  # another's would not ask our socket for its connections
        "ws": "none",
        "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
        "proxy_headers": False,  # uvicorn believes any program of this computer; the guard believes named proxies only
        "server_header": False,
        "timeout_keep_alive": _KEEP_ALIVE,
        "limit_concurrency": max(_CONNECTIONS, 2 * policy.connections),
    }
    if policy.tls is not None:
        options["ssl_certfile"], options["ssl_keyfile"] = map(str, policy.tls)
    return options


def limited(sock: socket.socket, policy: Policy, refused: Callable[[str], object] = lambda _: None) -> "Listener":
    """Return a socket that listens, with a policy's limit of the connections of an address.

    Args:
        sock: that listens; it is taken over.
        policy: of the station.
        refused: called with the reason for each connection that is closed at once.
    """
    from totalrecall.station.access.connections import MOST_REFUSED, Addresses, Listener

    most = policy.connections + MOST_REFUSED if policy.connections else 0
    return Listener(sock, Addresses(most, policy.trusts_proxy, refused))


def _check_readable(what: str, file: Path) -> None:
    if not file.exists():
        raise DataError(f"The {what} {file} is missing.")
    if not file.is_file():
        raise DataError(f"The {what} {file} is no file.")
    if not os.access(file, os.R_OK):
        raise DataError(f"The {what} {file} cannot be read by this user.")


def _why(policy: Policy) -> str:
    if not is_loopback(policy.host):
        return f"--host {policy.host}"
    if policy.proxies:
        return f"--proxy {policy.proxies[0]}"
    return f"--allow-host {next(name for name in policy.allow_hosts if not is_loopback(name))}"


@lru_cache(maxsize=256)
def _bare(host: str) -> str | None:
    """Return the name of a Host header or an address without port, brackets and final dot; None if it is neither."""
    text = host.strip().lower()
    if text.startswith("["):
        name, closed, port = text[1:].partition("]")
        port = port.removeprefix(":") if port.startswith(":") or not port else "?"
        if not closed or not _is_address(name):
            return None
    elif text.count(":") > 1:  # an IPv6 address without brackets, as in --host ::1
        name, port = text, ""
        if not _is_address(name):
            return None
    else:
        name, _, port = text.partition(":")
    if (port and not (port.isascii() and port.isdigit())) or not name or not name.isascii():
        return None
    return _spelled(name.removesuffix("."))


def _spelled(name: str) -> str:
    try:
        return str(ip_address(name))
    except ValueError:
        return name


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _names_of_this_computer() -> set[str]:
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return {name, short, f"{short}.local"}


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise SettingError(
            f"proxy must be an address or a network such as 10.0.0.0/24, got {text!r}.", "proxy"
        ) from None
