"""What the detectors with memory banks share when good pictures join or leave after the fit."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from totalrecall.detectors.base import Detector, Model
from totalrecall.detectors.changes import Change, Changed, are_last_added, named_pictures
from totalrecall.detectors.fit_report import Progress
from totalrecall.detectors.state import FitState
from totalrecall.errors import PictureError
from totalrecall.pictures.loading import Source

__all__ = ["UpdatableDetector"]


class UpdatableDetector(Detector[Model]):
    """A detector that good pictures can join or leave."""

    @abstractmethod
    def _with_added(self, sources: Sequence[Source], progress: Progress | None) -> tuple[FitState[Model], Change]:
        """Return the state once good pictures have joined, and what was done."""

    @abstractmethod
    def _with_removed(self, leaving: Sequence[int]) -> tuple[FitState[Model], Change]:
        """Return the state once pictures have left, each by its number among the learnt ones, and what was done."""

    @abstractmethod
    def _count_vectors(self, picture: int) -> int:
        """Return how many vectors are of a learnt picture, by its number."""

    def _with_pictures(
        self, add: Sequence[Source] | None, remove: Sequence[str | Path], progress: Progress | None
    ) -> tuple[FitState[Model], Change]:
        if add is not None:
            return self._with_added(add, progress)
        pictures = self._fitted().pictures
        leaving, skipped = named_pictures(pictures, remove)
        if are_last_added(self.history_, [pictures[at] for at in leaving]):
            return self._without_last_added(leaving, skipped)
        after, change = self._with_removed(leaving)
        return after, replace(change, skipped=skipped)

    def _without_last_added(
        self, leaving: Sequence[int], skipped: Sequence[PictureError]
    ) -> tuple[FitState[Model], Change]:
        """Return the state before the last update, whose pictures are all to leave, and what was done."""
        before, after = self._fitted(), self._undone()
        gone = [
            Changed(before.pictures[at].path, before.pictures[at].sha256, self._count_vectors(at)) for at in leaving
        ]
        sizes, thresholds = (len(before), len(after)), (before.threshold, after.threshold)
        return after, Change("undo", gone, (), skipped, sizes, thresholds, after.threshold)
