"""What the detectors with memory banks share when good pictures join or leave after the fit."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

from totalrecall.detectors.base import Detector, Model
from totalrecall.detectors.changes import Change, Changed, are_last_added, named_pictures
from totalrecall.detectors.fit_report import Progress
from totalrecall.detectors.state import FitState
from totalrecall.errors import PictureError
from totalrecall.pictures.loading import Source

__all__ = ["UpdatableDetector", "Updates"]


@dataclass(frozen=True)
class Updates(Generic[Model]):
    """What a detector can do with good pictures after its fit; the first two return the state then, and what was done.

    Attributes:
        add: lets pictures join; the second argument is called after each one.
        remove: lets pictures leave, each by its number among the learnt ones.
        count_vectors: of a learnt picture, by its number.
    """

    add: Callable[[Sequence[Source], Progress | None], tuple[FitState[Model], Change]]
    remove: Callable[[Sequence[int]], tuple[FitState[Model], Change]]
    count_vectors: Callable[[int], int]


class UpdatableDetector(Detector[Model]):
    """A detector that good pictures can join or leave."""

    @abstractmethod
    def _updates(self) -> Updates[Model]:
        """Return what it can do with good pictures."""

    def _with_pictures(
        self, add: Sequence[Source] | None, remove: Sequence[str | Path], progress: Progress | None
    ) -> tuple[FitState[Model], Change]:
        if add is not None:
            return self._updates().add(add, progress)
        pictures = self._fitted().pictures
        leaving, skipped = named_pictures(pictures, remove)
        if are_last_added(self.history_, [pictures[at] for at in leaving]):
            return self._without_last_added(leaving, skipped)
        after, change = self._updates().remove(leaving)
        return after, replace(change, skipped=skipped)

    def _without_last_added(
        self, leaving: Sequence[int], skipped: Sequence[PictureError]
    ) -> tuple[FitState[Model], Change]:
        """Return the state before the last update, whose pictures are all to leave, and what was done."""
        before, after = self._fitted(), self._undone()
        count = self._updates().count_vectors
        gone = [Changed(before.pictures[at].path, before.pictures[at].sha256, count(at)) for at in leaving]
        sizes, thresholds = (len(before), len(after)), (before.threshold, after.threshold)
        return after, Change("undo", gone, (), skipped, sizes, thresholds, after.threshold)
