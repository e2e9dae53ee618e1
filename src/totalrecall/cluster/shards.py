"""Pictures of a fit that one worker reads together, and what is known of them afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from totalrecall.patchcore.plan import Plan
from totalrecall.patchcore.reading import ReadPicture
from totalrecall.patchcore.settings import Settings
from totalrecall.pictures.loading import Source

__all__ = ["Kept", "Shard", "ShardWork"]


@runtime_checkable  # the checks of the test run need it
class Kept(Protocol):
    """A value that outlives the fit; see `kept.KeptValue`."""

    def read(self) -> Any:
        """Return it; None if it is not there."""

    def write(self, value: Any) -> None:
        """Keep it."""


@dataclass(frozen=True)
class ShardWork:
    """What a worker is told of the pictures of a shard.

    Attributes:
        given: of each picture its position, its place among all that were given, and its source.
        settings, plan: of the fit.
        marks: the repeats are still to be found.
        killers: positions of pictures that end a worker: they are told, and not read.
        kept: where the answer is kept, and may be from an earlier fit; None where it is not.
    """

    given: Sequence[tuple[int, int, Source]]
    settings: Settings
    plan: Plan
    marks: bool
    killers: frozenset[int] = frozenset()
    kept: Kept | None = None


@dataclass(frozen=True, eq=False)
class Shard:
    """What is known of the pictures of a shard, beside the patches themselves.

    Attributes:
        pictures: in the order given, those that end a worker last; without pixels and patches. Each knows how many
            patches it has by their cells.
        surfaces: of each picture with patches, where the parts are to be told apart.
        rows: patches of all, those of tilted copies after their picture's own.
    """

    pictures: Sequence[ReadPicture]
    surfaces: Sequence[np.ndarray | None]
    rows: int
