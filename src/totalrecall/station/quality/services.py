"""What the station's own departments (golden check, teaching, recipes, fits, studies) need of it.

They are parts of the station and call it; this is the side of it that they see.
"""

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from totalrecall.station.judging.caption import UNSAID, Caption

if TYPE_CHECKING:
    from totalrecall.station.judging.inspecting import Inspector
    from totalrecall.station.judging.model_files import ModelFiles
    from totalrecall.station.judging.models import Shelf
    from totalrecall.station.settings import StationSettings
    from totalrecall.station.store.database import Database
    from totalrecall.station.store.history import History
    from totalrecall.station.store.kept import KeptPictures
    from totalrecall.station.store.records import Inspection
    from totalrecall.station.store.trail import Trail

__all__ = ["Services"]


class Services(Protocol):
    """A station as its departments see it; `Station` says what each attribute is."""

    settings: "StationSettings"
    links: list[Any]  # of each only the name is asked, and whether it is an output
    holds: dict[str, str]
    shelf: "Shelf"
    model_files: "ModelFiles"
    database: "Database"
    history: "History"
    trail: "Trail"
    kept: "KeptPictures"
    inspector: "Inspector"

    def submit(self, picture: bytes, caption: Caption = UNSAID) -> "Future[Inspection]":
        """Let a picture wait to be judged; see `Station.submit`."""
        ...
