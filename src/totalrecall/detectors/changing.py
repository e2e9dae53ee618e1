"""A detector that may change after its fit: what was done to it is kept with it, and can be undone to the byte."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.detectors.base import Detector, Digest, Model
from totalrecall.detectors.changes import Lesson, catching_threshold, lessons
from totalrecall.detectors.fit_report import Progress
from totalrecall.detectors.history import Step, past_of, steps_of, undone, with_step
from totalrecall.detectors.model_schema import DAMAGE, reason_of
from totalrecall.errors import ModelFileError, PictureError, SettingError
from totalrecall.pictures.loading import LoadedPicture, Source, Sources, expand, renumbered
from totalrecall.types import LayerMap

if TYPE_CHECKING:
    from totalrecall.detectors.changes import Change

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
        """The threshold that `teach` or a person set; None where the calibration's holds."""
        return self._taught

    def undo(self) -> Step:
        """Take back the last change, to the byte of the file that `save` writes; returns what was taken back.

        Raises:
            SettingError: nothing was changed since the fit.
            ModelFileError: what was kept for it is damaged.

        Examples:
            >>> from totalrecall import PatchCore
            >>> detector = PatchCore.load("part.trecall")
            >>> change = detector.update(false_alarm_rate=0.2)
            >>> detector.undo().what
            'threshold'
        """
        contents = undone(self._contents())
        step = self.history_[-1]
        try:
            self._put(contents)
        except DAMAGE as error:
            raise ModelFileError(f"The model's history is damaged: {reason_of(error)}. Copy or fit it again.") from None
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

        Examples:
            >>> from totalrecall import PatchCore
            >>> detector = PatchCore.load("part.trecall")
            >>> lessons, skipped = detector.teach("missed.png")
            >>> lessons[0].caught, lessons[0].threshold < detector.threshold_
            (False, True)
        """
        told, skipped = self._told(expand(defects))
        missed = [one for one in told if one.caught is not True]
        if apply and missed:
            with self._changing() as note:
                self._set_threshold(catching_threshold([one.score for one in missed]), "taught")
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
        tally = self._tally()
        for at, (found, score) in enumerate(self.extractor.stream_maps(look, sources, hashes=True)):
            loaded = renumbered(found, sources[at], at)
            tally.observe(loaded)
            if isinstance(score, PictureError):
                skipped.append(loaded.error or score)
            else:
                scored.append((loaded.path, loaded.sha256, score))
        tally.warn(stacklevel=3)
        return lessons(scored, self.calibration_, self.threshold_), skipped

    def update(
        self,
        *,
        add: Sources | None = None,
        remove: str | Path | Sequence[str | Path] | None = None,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        progress: Progress | None = None,
    ) -> "Change":
        """Let good pictures join, false alarms for instance, or learnt ones leave; `save` keeps it, `undo` reverts it.

        A `PatchCore` takes in what is farther from the bank than its covering radius, and of pictures that would still
        be called anomalous the worst patches, until they pass; the threshold follows (see `patchcore.update`). In
        `PaDiM` and `SPADE` a picture is one among many: see `detectors.one_pass`, and `Change.still_anomalous`.

        Args:
            add: as for `fit`.
            remove: pictures that were learnt, each by its path as given then, its SHA-256 (8 digits or more), or a
                file of the same bytes. Just those of the last update: it is undone.
            false_alarm_rate: judge at another rate from now on; in place of what `teach` or a person set.
            threshold: judge by this score from now on; it stays through updates.
            progress: called with (step, done, total); steps are `features` and `calibration`.

        Returns:
            What was done, and which pictures could not be used.

        Raises:
            SettingError: none or several of the four were given, or one is outside what is allowed; or memory
                does not hold so many at once.
            DataError: nothing would be left.
            NotFittedError: nothing was learnt yet.

        Examples:
            >>> from totalrecall import PatchCore
            >>> detector = PatchCore.load("part.trecall")
            >>> change = detector.update(add="false_alarms")
            >>> len(change.pictures), change.still_anomalous
            (2, 0)
        """
        given = [one for one in (add, remove, false_alarm_rate, threshold) if one is not None]
        if len(given) != 1:
            raise SettingError(
                "update takes one of add, remove, false_alarm_rate and threshold. For several, call it several times."
            )
        if false_alarm_rate is not None or threshold is not None:
            return self._judged_by(false_alarm_rate, threshold)
        names = [remove] if isinstance(remove, (str, Path)) else list(remove or ())
        with self._changing() as note:
            change = self._leave(names, progress) if add is None else self._join(expand(add), progress)
            if change.pictures and change.what != "undo":
                note(change.what, [one.note() for one in change.pictures])
        return change

    def _judged_by(self, false_alarm_rate: float | None, threshold: float | None) -> "Change":
        """Set the threshold at another rate, or by hand."""
        from totalrecall.detectors.changes import Change

        before, size = self.threshold_, self._size
        self._fitted()
        with self._changing() as note:
            if threshold is not None:
                self._set_threshold(threshold, "given")
            elif false_alarm_rate is not None:
                self._set_rate(false_alarm_rate)
            note("threshold", [])
        now = self.threshold_
        return Change("threshold", [], vectors=(size, size), threshold=(before, now), lowest=now)

    @abstractmethod
    def _join(self, sources: Sequence[Source], progress: Progress | None) -> "Change":
        """Let good pictures join."""

    @abstractmethod
    def _leave(self, names: Sequence[str | Path], progress: Progress | None) -> "Change":
        """Let pictures leave, or undo the last update if it is just they that it let join."""

    @contextmanager
    def _changing(self) -> Iterator[Note]:
        """Keep what a change replaces, once the change notes itself; if it fails the detector is as it was."""
        from totalrecall._version import __version__

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
