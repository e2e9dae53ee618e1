"""A detector that may change after its fit: what was done to it is kept with it, and can be undone to the byte."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from totalrecall.detector_base import Detector, Digest, Model
from totalrecall.errors import ModelFileError, PictureError
from totalrecall.fitting import renumbered
from totalrecall.history import Step, past_of, steps_of, undone, with_step
from totalrecall.images import LoadedPicture
from totalrecall.sources import Sources, expand
from totalrecall.teaching import Lesson, catching_threshold, lessons
from totalrecall.types import LayerMap

__all__ = ["Changing"]

Note = Callable[[str, Sequence[dict[str, Any]]], None]  # (what was done, by which pictures)


class Changing(Detector[Model, Digest]):
    """What detectors share that change after their fit."""

    @property
    def history_(self) -> list[Step]:
        """What was done since the fit, the oldest first."""
        return steps_of(self._past[0])

    @property
    def taught_(self) -> float | None:
        """The threshold that `teach` set; None where the calibration's holds."""
        return self._taught

    def undo(self) -> Step:
        """Take back the last change, to the byte of the file that `save` writes; returns what was taken back.

        Raises:
            SettingError: nothing was changed since the fit.
            ModelFileError: what was kept for it is damaged.
        """
        contents = undone(self._contents())
        step = self.history_[-1]
        try:
            self._put(contents)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(f"The model's history is damaged: {error}. Copy or fit it again.") from None
        return step

    def teach(self, defects: Sources, *, apply: bool = False) -> tuple[list[Lesson], list[PictureError]]:
        """Say which threshold would catch known defects, and what that costs in false alarms.

        Args:
            defects: pictures, as for `fit`.
            apply: set the threshold that catches all of them, if it is not low enough. `save` keeps it, `undo` takes it
                back, and it stays through updates.

        Returns:
            A lesson of each picture, and which could not be read.

        Raises:
            NotFittedError: nothing was learnt yet.
        """
        told, skipped = self._told(expand(defects))
        missed = [one for one in told if not one.caught]
        if apply and missed:
            with self._changing() as note:
                self._taught = catching_threshold([one.score for one in missed])
                note("teach", [{"path": one.path, "sha256": one.sha256, "score": one.score} for one in told])
        return told, skipped

    def _told(self, sources: Sequence[Any]) -> tuple[list[Lesson], list[PictureError]]:
        self._ready(self._fitted())

        def look(loaded: LoadedPicture, maps: Sequence[LayerMap] | None) -> tuple[LoadedPicture, float | PictureError]:
            if maps is None:
                assert loaded.error is not None
                return loaded, loaded.error
            try:
                return loaded, self._judge(loaded, maps, began=math.nan).score
            except PictureError as error:
                return loaded, error

        scored: list[tuple[str, str, float]] = []
        skipped: list[PictureError] = []
        for at, (found, score) in enumerate(self.extractor.stream_maps(look, sources, hashes=True)):
            loaded = renumbered(found, sources[at], at)
            if isinstance(score, PictureError):
                skipped.append(loaded.error or score)
            else:
                scored.append((loaded.path, loaded.sha256, score))
        return lessons(scored, self.calibration_, self.threshold_), skipped

    @contextmanager
    def _changing(self) -> Iterator[Note]:
        """Keep what a change replaces, once the change notes itself; if it fails the detector is as it was."""
        from totalrecall import __version__

        before = self._contents()
        if self._read is not None:  # of another version, perhaps, which wrote other keys
            before = ({**self._read, **self._past[0]}, before[1])
        vectors, threshold = self._size, self.threshold_

        def note(what: str, pictures: Sequence[dict[str, Any]]) -> None:
            self._read = None
            after = self._contents()
            when = datetime.now(timezone.utc).isoformat(timespec="seconds")
            thresholds = (_number(threshold), _number(self.threshold_))
            step = Step(what, when, __version__, pictures, (vectors, self._size), thresholds)
            self._past = past_of(with_step(before, after, step))

        try:
            yield note
        except BaseException:
            self._put(before)
            raise

    @property
    def _size(self) -> int:
        """How many vectors the bank has, or pictures a model without one."""
        return len(self._pictures)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no nan
