"""What a station is told at its start: models, address, limits, places."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from totalrecall.errors import SettingError

__all__ = ["LOOPBACK_NAMES", "StationSettings", "is_loopback"]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_LARGEST_PORT = 65535
_LEAST_BODY = 1 << 10


@dataclass(frozen=True)
class StationSettings:
    """Settings of a station; each is an option of `totalrecall serve`.

    Attributes:
        models: files that `fit` or `export` wrote; a model's name is its file's stem.
        folder: of the history, the kept pictures and whatever else the station writes.
        database: an SQLAlchemy address; `history.db` in the folder if None.
        host: the address that it listens on.
        port: of TCP; 0 lets the system choose.
        queue: pictures that may wait; one more is refused with 503.
        max_body: bytes of a request.
        timeout: seconds that a client may take to send a request.
        batch: pictures of one request.
        keep_bytes: of the pictures that are kept on disk.
        keep_good: share of the good pictures that are kept.
        near_miss: a good picture whose score is above this share of the threshold is kept, and can be judged.
        running: engine, device, precision and threads, for `load_judge`.
        allow_hosts: names by which clients may call the station, beside the loopback's and `host`.
        insecure: serve another address than the loopback's without any user.
        tls: files of the certificate and of its key, or None for plain HTTP.
        watch_seconds: between two looks whether a model's file was replaced; 0 never looks.

    Raises:
        SettingError: a value is outside what is allowed.
    """

    models: tuple[Path, ...]
    folder: Path = Path("totalrecall-station")
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    queue: int = 64
    max_body: int = 64 << 20
    timeout: float = 30.0
    batch: int = 64
    keep_bytes: int = 5 << 30
    keep_good: float = 0.02
    near_miss: float = 0.9
    running: Mapping[str, Any] = field(default_factory=dict)
    allow_hosts: tuple[str, ...] = ()
    insecure: bool = False
    tls: tuple[Path, Path] | None = None
    watch_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not self.host or any(letter.isspace() for letter in self.host):
            raise SettingError(f"host must be an address or a name, got {self.host!r}. Usual: 127.0.0.1.", "host")
        self._check("port", 0, _LARGEST_PORT)
        self._check("queue", 1, 100_000)
        self._check("max_body", _LEAST_BODY, 4 << 30)
        self._check("timeout", 0.1, 3600)
        self._check("batch", 1, 10_000)
        self._check("keep_bytes", 0, 1 << 50)
        self._check("keep_good", 0, 1)
        self._check("near_miss", 0, 1)
        self._check("watch_seconds", 0, 3600)

    def _check(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        if not least <= value <= most:  # subtle: nan is refused, too
            raise SettingError(f"{name} must be from {least:,} to {most:,}, got {value}.", name)

    @property
    def database_address(self) -> str:
        """The SQLAlchemy address of the history."""
        return self.database or f"sqlite:///{(self.folder / 'history.db').absolute()}"


def is_loopback(host: str) -> bool:
    """Tell whether only programs of this machine reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, of which nobody knows where it leads tomorrow
        return False
