"""Fitting a detector whose model grows picture by picture: each good picture is read once.

The pictures that set the threshold come last. By then the model holds all others and none of them, which is what they
must be scored by; afterwards they are learnt like the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from totalrecall.backbones import Backbone
from totalrecall.calibration import Calibration, held_out
from totalrecall.detectors.base import Digest, Model
from totalrecall.detectors.changes import Change, Changed
from totalrecall.detectors.changing import Changing
from totalrecall.detectors.fit_report import FitReport, Progress, nothing_readable
from totalrecall.detectors.membership import Newcomer, is_last_update, named, read_newcomers, read_pictures, without
from totalrecall.drift.conditions import Glance, Reference, look
from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.features.memory import baseline
from totalrecall.pictures.copies import Repeats, inspected
from totalrecall.pictures.loading import LearntPicture, LoadedPicture, Source, Sources, expand, renumbered
from totalrecall.pictures.unlike import PictureTally
from totalrecall.scoring import region_level
from totalrecall.system.files import LARGEST, file_sha256
from totalrecall.system.memory import available_memory, peak_memory, resident_memory
from totalrecall.system.text import format_size
from totalrecall.types import LayerMap

__all__ = ["Learner", "OnePass", "OnePassPlan", "add_pictures", "pyramid_layers", "remove_pictures"]

Own = TypeVar("Own", bound="OnePass[Any, Any]")
Judged = tuple[float, float, tuple[Glance, float, float]]  # score, peak, what `drift.Reference.learn` takes


@dataclass(frozen=True)
class OnePassPlan:
    """What a fit will take, by arithmetic.

    Attributes:
        pictures: given; `held` of them set the threshold.
        model: bytes of the model, in memory and in its file.
        memory: bytes that the process is expected to hold at most, of the `limit` that it may.
    """

    pictures: int
    held: int
    model: int
    memory: int
    limit: int

    def facts(self) -> dict[str, object]:
        """Return what a program may want to read, as JSON types."""
        return asdict(self)


def pyramid_layers(backbone: Backbone, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Return the layers asked for; if none were, those of 1, 2 and 3 that the backbone has."""
    if layers is not None:
        return tuple(layers)
    names = {layer.name for layer in backbone.layers}
    return tuple(number for number in (1, 2, 3) if f"layer{number}" in names)


class Learner(ABC, Generic[Model, Digest]):
    """A model in the making."""

    @abstractmethod
    def add(self, at: int, digest: Digest) -> None:
        """Learn the picture at a place among those given."""

    @abstractmethod
    def so_far(self) -> Model:
        """Return the model of what was added, to score the pictures by that set the threshold."""

    @abstractmethod
    def add_held(self, at: int, digest: Digest) -> None:
        """Learn one of those pictures; the model that `so_far` gave must not know it."""

    @abstractmethod
    def finish(self) -> Model:
        """Return the model of all pictures."""


class OnePass(Changing[Model, Digest]):
    """A detector that reads each good picture once. See `PaDiM` and `SPADE`."""

    @abstractmethod
    def _learner(self, count: int) -> Learner[Model, Digest]:
        """Return an empty model in the making, of at most so many pictures."""

    @abstractmethod
    def _sizes(self, count: int) -> tuple[int, int]:
        """Return the bytes of a model of so many pictures, and those that making and using it takes beside it."""

    @abstractmethod
    def _counts(self) -> tuple[int, int, int]:
        """Return for the report: patches seen, numbers each, vectors kept."""

    @abstractmethod
    def _growth(self) -> tuple[int, int]:
        """Return the bytes that a picture takes which joins the model, and those that joining takes beside it."""

    @abstractmethod
    def _with(self, model: Model, digests: Sequence[Digest]) -> Model:
        """Return the model once pictures joined it, after all that it knew."""

    @abstractmethod
    def _without(self, model: Model, leaving: Sequence[int], digests: Mapping[int, Digest]) -> Model:
        """Return the model once pictures left it, ascending, of which those that must be read were.

        Raises:
            DataError: nothing would be left, or what was read is not what was learnt.
        """

    def _must_be_read(self, picture: int) -> bool:  # noqa: ARG002  in a model that keeps each picture none must be
        """Tell whether one of the pictures can leave only if it is read again."""
        return False

    @property
    def _threshold_follows(self) -> bool:
        """Whether the scores that set the threshold are taken again when pictures join or leave: see `_followed`."""
        return False

    def _followed(
        self,
        entered: Sequence[int],  # noqa: ARG002
        leaving: Sequence[int],  # noqa: ARG002
        progress: Progress | None,  # noqa: ARG002
    ) -> Calibration:
        """Return the calibration as it is once some pictures have entered, or are going to leave.

        Both are there when it is called. Those of the calibration that leave are taken out of it afterwards.
        """
        return self.calibration_

    def _score_alone(self, model: Model, digest: Digest, picture: LearntPicture) -> float:
        """Return a picture's score by a model that is ready."""
        return self._judged(self._measured(model, digest), self.recipe.geometry(picture.height, picture.width))[0]

    def _become(self, model: Model, pictures: Sequence[LearntPicture], calibration: Calibration) -> None:
        """Hold another model; for `update`."""
        self._model, self._pictures, self._calibration = model, pictures, calibration

    def _join(self, sources: Sequence[Source], progress: Progress | None) -> Change:
        return add_pictures(self, sources, progress)

    def _leave(self, names: Sequence[str | Path], progress: Progress | None) -> Change:
        return remove_pictures(self, names, progress)

    def fit(
        self: Own,
        pictures: Sources,
        *,
        memory: int | None = None,
        announce: Callable[[OnePassPlan], None] | None = None,
        progress: Progress | None = None,
    ) -> Own:
        """Learn what good pictures look like; fitting again forgets.

        Args:
            pictures: a folder, a glob, or any of files, folders, globs and uint8 RGB arrays. Good pictures only.
            memory: bytes that the process may hold; half of what is free if not given.
            announce: called before the work begins with what it will take.
            progress: called with (step, done, total); steps are `features` and `calibration`.

        Raises:
            DataError: no picture could be read.
            SettingError: the model does not fit into that memory.

        Warns:
            SkippedPictureWarning: some pictures could not be read; RepeatedPictureWarning: some repeat earlier ones,
                and count once; UnlikePictureWarning: some are of another size or colour than the others;
                PassedOverWarning: some files or pages of files are not read.
        """
        sources = expand(pictures)
        with self._depth_of(sources, progress):
            repeats = Repeats(sources)
            plan = self._plan(repeats.distinct, memory)
            if announce:
                announce(plan)
            report = FitReport(plan=plan.facts())
            learnt, reading = self._learnt(_Reading(self, repeats, report, progress))
            if repeats.search(self.recipe):
                del learnt, reading  # which pictures are held out depends on how many there are
                report.plan = self._plan(repeats.distinct, memory).facts()
                learnt, reading = self._learnt(_Reading(self, repeats, report, progress))
            scores, peaks = np.array(reading.scores), np.array(reading.peaks)
            which = np.searchsorted(sorted(reading.found), reading.scored).astype(np.int32)
            calibration = Calibration(scores, peaks, self.settings.false_alarm_rate, 1, which)
            self._take(learnt, [reading.found[at] for at in sorted(reading.found)], calibration)
            self._drift = Reference.learn(reading.looked)
            report.pictures, report.calibration_pictures = len(self._pictures), len(scores)
            report.patches, report.dimensions, report.vectors = self._counts()
            report.peak_memory, report.repeats = peak_memory(), repeats.told
            self.report_, self.skipped_ = report, reading.skipped
            self._warn_of_left_out(len(sources))
            self._warn_of_odd(reading.tally)
        return self

    def _learnt(self, reading: "_Reading[Model, Digest]") -> "tuple[Model, _Reading[Model, Digest]]":
        """Return the model of the pictures that count, and what was noted when they were read.

        Raises:
            DataError: no picture could be read.
        """
        count = len(reading.sources)
        held = held_out(count, self.settings.holdout, self.settings.seed)
        learner, report = self._learner(count), reading.report
        with report.timing("features"):
            for at, digest in reading.others(np.setdiff1d(np.arange(count), held)):
                learner.add(at, digest)
        with report.timing("calibration"):
            for at, digest in reading.held(held, self._ready(learner.so_far()) if reading.found else None):
                learner.add_held(at, digest)
        if not reading.found:
            raise DataError(nothing_readable(reading.skipped))
        return learner.finish(), reading

    def _plan(self, sources: Sequence[Source], memory: int | None) -> OnePassPlan:
        """Return what a fit will take.

        Raises:
            DataError: there are no pictures.
            SettingError: it is more than is allowed.
        """
        if not len(sources):
            raise DataError("There are no pictures to fit on. Give files, folders or globs of good pictures.")
        model, beside = self._sizes(len(sources))
        needed = baseline(self.extractor, sources) + model + beside
        limit = resident_memory() + available_memory() // 2 if memory is None else memory
        if needed > limit:
            raise SettingError(
                f"memory must be at least {format_size(needed)} for a {type(self).__name__} of {len(sources)} pictures "
                f"({format_size(model)} of them the model), got {format_size(limit)}"
                f"{' (half of what is free)' if memory is None else ''}. {self._smaller()}",
                "memory",
            )
        held = len(held_out(len(sources), self.settings.holdout, self.settings.seed))
        return OnePassPlan(len(sources), held, model, needed, limit)

    @abstractmethod
    def _smaller(self) -> str:
        """Say what would make the model smaller."""


class _Reading(Generic[Model, Digest]):
    """Reads the pictures of a fit, scores those that set the threshold, and notes which could not be read."""

    def __init__(
        self,
        detector: OnePass[Model, Digest],
        repeats: Repeats,
        report: FitReport,
        progress: Progress | None,
    ) -> None:
        self.detector = detector
        self.sources = repeats.distinct
        self._repeats, self._places = repeats, repeats.places
        self.report = report
        self.progress = progress
        self.found: dict[int, LearntPicture] = {}
        self.errors: dict[int, PictureError] = {}
        self.tally = PictureTally()
        self.scores: list[float] = []
        self.peaks: list[float] = []
        self.looked: list[tuple[Glance, float, float]] = []  # a look at each of them, mean distance, score
        self.scored: list[int] = []  # places among those given

    @property
    def skipped(self) -> list[PictureError]:
        """Why pictures were left out, in the order given."""
        return [self.errors[at] for at in sorted(self.errors)]

    def others(self, positions: np.ndarray) -> Iterator[tuple[int, Digest]]:
        """Yield the readable pictures among those at some positions."""
        for at, digest, _ in self._read(positions, None):
            yield at, digest

    def held(self, positions: np.ndarray, model: Model | None) -> Iterator[tuple[int, Digest]]:
        """Yield them too, and note their scores by the model, if there is one."""
        for done, (at, digest, judged) in enumerate(self._read(positions, model), start=1):
            if judged is not None:
                self.scores.append(judged[0])
                self.peaks.append(judged[1])
                self.looked.append(judged[2])
                self.scored.append(at)
            if self.progress:
                self.progress("calibration", done, len(positions))
            yield at, digest

    def _read(self, positions: np.ndarray, model: Model | None) -> Iterator[tuple[int, Digest, Judged | None]]:
        """Yield place, digest, and score with the map's peak where there is a model to score by."""
        detector = self.detector

        def judge(
            loaded: LoadedPicture, maps: Sequence[LayerMap] | None
        ) -> tuple[LoadedPicture, Digest | None, Judged | None, PictureError | None]:
            if maps is None or loaded.geometry is None:
                return loaded, None, None, loaded.error
            try:
                digest = detector._digest(maps, loaded.geometry)
            except PictureError as error:
                return loaded, None, None, PictureError(f"{loaded.path}: {error}")
            if model is None:
                return loaded, digest, None, None
            try:
                measured = detector._measured(model, digest)
            except PictureError as error:
                return loaded, None, None, PictureError(f"{loaded.path}: {error}")
            score, full_map = detector._judged(measured, loaded.geometry)
            peak = region_level(full_map, detector.settings.min_area)
            looked = (look(loaded, detector.recipe), float(measured.grid.mean()), score)
            return loaded, digest, (score, peak, looked), None

        stream = detector.extractor.stream_maps(judge, (self.sources[at] for at in positions), hashes=True)
        for at, (found, digest, judged, error) in zip(positions.tolist(), stream, strict=True):
            self.report.seconds["decode"] = self.report.seconds.get("decode", 0.0) + found.seconds
            loaded = renumbered(replace(found, error=error), self.sources[at], self._places[at])
            self.tally.observe(loaded)
            if loaded.error is not None:
                self.errors[at] = loaded.error
            else:
                assert loaded.geometry is not None
                assert loaded.prepared is not None
                self._repeats.look(self._places[at], loaded.prepared, inspected(detector.recipe, loaded.geometry))
                self.found[at] = LearntPicture(loaded.path, loaded.sha256, *loaded.geometry.original, loaded.grey)
            if self.progress:
                self.progress("features", len(self.found) + len(self.errors), len(self.sources))
            if loaded.error is None:
                assert digest is not None
                yield at, digest, judged


def add_pictures(detector: "OnePass[Any, Any]", sources: Sequence[Source], progress: Progress | None) -> Change:
    """Let good pictures join a detector; see `Changing.update`.

    Raises:
        SettingError: memory does not hold them.
    """
    model, pictures, calibration = detector._fitted(), list(detector.pictures_), detector.calibration_
    each, beside = detector._growth()
    newcomers, known, skipped = read_newcomers(detector, sources, progress, each=each, beside=beside)
    before = _scores(detector, newcomers)
    change = _told(detector, "add", skipped, known=known)
    if not newcomers:
        return change
    grown = detector._with(model, [one.digest for one in newcomers])
    together = [*pictures, *(one.picture for one in newcomers)]
    detector._become(grown, together, calibration)
    entered = range(len(pictures), len(together))
    detector._become(grown, together, detector._followed(entered, (), progress))
    joined = [
        Changed(one.picture.path, one.picture.sha256, 1, 0, was, now)
        for one, was, now in zip(newcomers, before, _scores(detector, newcomers), strict=True)
    ]
    return _done(detector, change, joined)


def remove_pictures(detector: "OnePass[Any, Any]", names: Sequence[str | Path], progress: Progress | None) -> Change:
    """Let pictures leave a detector; see `Changing.update`.

    Raises:
        DataError: nothing would be left.
    """
    pictures = detector.pictures_
    found, skipped = named(pictures, names)
    change = _told(detector, "remove", skipped)
    if not found:
        return change
    if is_last_update(detector, _gone(pictures, found)):
        detector.undo()
        return _done(detector, replace(change, what="undo"), _gone(pictures, found))
    needed = [at for at in found if detector._must_be_read(at)]
    digests, unread = _read_again(detector, {at: found[at] for at in needed})
    leaving = [at for at in found if at not in needed or at in digests]
    change = replace(change, skipped=[*skipped, *unread])
    if not leaving:
        return change
    if len(leaving) == len(pictures):
        raise DataError("No picture would be left. Fit a new model instead.")
    calibration = detector._followed((), leaving, progress)
    for at in reversed(leaving):
        calibration = without(calibration, at)
    rest = [one for at, one in enumerate(pictures) if at not in set(leaving)]
    detector._become(detector._without(detector._fitted(), leaving, digests), rest, calibration)
    return _done(detector, replace(change, estimated=bool(digests)), _gone(pictures, leaving))


def _scores(detector: "OnePass[Any, Any]", newcomers: Sequence[Newcomer[Any]]) -> list[float]:
    """Return the scores of pictures by the detector as it is."""
    model = detector._ready(detector._fitted())
    return [detector._score_alone(model, one.digest, one.picture) for one in newcomers]


def _read_again(detector: "OnePass[Any, Any]", wanted: dict[int, str]) -> tuple[dict[int, Any], list[PictureError]]:
    """Return of pictures of the fit what the model compared, and why others cannot be had.

    Args:
        detector: that learnt them.
        wanted: which they are, and what they were called.
    """
    found: dict[int, Path] = {}
    errors: list[PictureError] = []
    for at, name in wanted.items():
        picture = detector.pictures_[at]
        # the path that a loaded model tells may be a stranger's: only what the person typed is opened
        told = (name, picture.path) if detector.report_ is not None else (name,)
        places = [Path(one) for one in dict.fromkeys(told) if _holds(one, picture)]
        if places:
            found[at] = places[0]
        else:
            errors.append(
                PictureError(
                    f"{picture.path}: the model keeps sums, not pictures, and subtracts one by its file, which is not "
                    "there with the bytes that were learnt. Give that file's path, or fit again without it."
                )
            )
    digests: dict[int, Any] = {}
    for at, read in zip(found, read_pictures(detector, list(found.values()), None), strict=True):
        if isinstance(read, PictureError):
            errors.append(read)
        else:
            digests[at] = read.digest
    return digests, errors


def _holds(path: str, picture: LearntPicture) -> bool:
    """Tell whether a file holds a picture's bytes."""
    try:
        return file_sha256(path, limit=LARGEST["picture"]) == picture.sha256
    except (OSError, ValueError):
        return False


def _gone(pictures: Sequence[LearntPicture], which: Sequence[int] | dict[int, str]) -> list[Changed]:
    return [Changed(pictures[at].path, pictures[at].sha256, 1) for at in which]


def _told(
    detector: "OnePass[Any, Any]", what: str, skipped: Sequence[PictureError], *, known: Sequence[str] = ()
) -> Change:
    """Return a change that has not come about."""
    count, threshold = len(detector.pictures_), detector.threshold_
    follows = detector._threshold_follows
    return Change(what, [], known, skipped, (count, count), (threshold, threshold), threshold, follows)


def _done(detector: "OnePass[Any, Any]", change: Change, pictures: Sequence[Changed]) -> Change:
    """Return the change now that it has."""
    now = detector.threshold_
    return replace(
        change,
        pictures=pictures,
        vectors=(change.vectors[0], len(detector.pictures_)),
        threshold=(change.threshold[0], now),
        lowest=now,
    )
