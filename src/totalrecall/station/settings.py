"""What a station is told at its start: models, address, limits, places."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from totalrecall.errors import SettingError
from totalrecall.station.access.policy import Policy
from totalrecall.station.store.records import NEAR_MISS

__all__ = ["StationSettings"]

_LARGEST_PORT = 65535


@dataclass(frozen=True)
class StationSettings:
    """Settings of a station; each is an option of `totalrecall serve`.

    Attributes:
        models: files that `fit` or `export` wrote; a model's name is its file's stem.
        folder: of the history, the kept pictures and whatever else the station writes.
        database: an SQLAlchemy address; `history.db` in the folder if None.
        policy: the address that it listens on, from where it may be called, and the limits of a request.
        port: of TCP; 0 lets the system choose.
        queue: pictures that may wait; one more is refused with 503.
        batch: pictures of one request.
        keep_bytes: of the pictures that are kept on disk.
        keep_good: share of the good pictures that are kept.
        near_miss: a good picture whose score is above this share of the threshold is kept, and can be judged.
        running: engine, device, precision and threads, for `load_judge`.
        watch_seconds: between two looks whether a model's file was replaced; 0 never looks.
        golden_every: seconds between two golden checks; 0 checks at the start and when asked alone.
        hold_on_golden_failure: hold a model whose golden check fails.
        wrong_product: notice pictures that show another product, and give them no verdict.

    Raises:
        SettingError: a value is outside what is allowed.
    """

    models: tuple[Path, ...]
    folder: Path = Path("totalrecall-station")
    database: str | None = None
    policy: Policy = field(default_factory=Policy)
    port: int = 8000
    queue: int = 64
    batch: int = 64
    keep_bytes: int = 5 << 30
    keep_good: float = 0.02
    near_miss: float = NEAR_MISS
    running: Mapping[str, Any] = field(default_factory=dict)
    watch_seconds: float = 1.0
    golden_every: float = 0.0
    hold_on_golden_failure: bool = False
    wrong_product: bool = False

    def __post_init__(self) -> None:
        self._check("port", 0, _LARGEST_PORT)
        self._check("queue", 1, 100_000)
        self._check("batch", 1, 10_000)
        self._check("keep_bytes", 0, 1 << 50)
        self._check("keep_good", 0, 1)
        self._check("near_miss", 0, 1)
        self._check("watch_seconds", 0, 3600)
        self._check("golden_every", 0, 366 * 86400)

    def _check(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        if not least <= value <= most:  # subtle: nan is refused, too
            raise SettingError(f"{name} must be from {least:,} to {most:,}, got {value}.", name)

    @property
    def database_address(self) -> str:
        """The SQLAlchemy address of the history."""
        return self.database or f"sqlite:///{(self.folder / 'history.db').absolute()}"
