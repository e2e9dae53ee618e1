"""Fit a detector whose model grows picture by picture: each good picture is read once.

The pictures that set the threshold come last. At that point the model knows all other pictures and none of these, so it
can score them; afterwards it learns them too.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np

from totalrecall.backbones import Advice, Backbone
from totalrecall.calibration import Calibration, held_count, held_out
from totalrecall.detectors.base import Model
from totalrecall.detectors.extents import LEAST, Extents, learn_extents, restored_extents
from totalrecall.detectors.fit_report import FitReport, Progress, nothing_readable, warn_of_fit
from totalrecall.detectors.measuring import OneBackbone
from totalrecall.detectors.settings import PyramidSettings
from totalrecall.detectors.state import FitState
from totalrecall.drift.conditions import Glance, Reference, look
from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.features.extractor import FeatureExtractor
from totalrecall.features.memory import baseline
from totalrecall.pictures.copies import Repeats, inspected
from totalrecall.pictures.geometry import Frame
from totalrecall.pictures.loading import LearntPicture, LoadedPicture, Source, Sources, expand, renumbered
from totalrecall.pictures.unlike import PictureTally
from totalrecall.scoring import PatchDistances, cell_sigma, region_level
from totalrecall.system.memory import available_memory, peak_memory, resident_memory
from totalrecall.system.text import bytes_of, format_size
from totalrecall.types import LayerMap

__all__ = ["Inspected", "Learner", "OnePass", "OnePassPlan"]

Own = TypeVar("Own", bound="OnePass[Any, Any]")
Seen = TypeVar("Seen", bound="Inspected")


@dataclass(frozen=True, eq=False)
class Inspected:
    """What a detector compares of a picture.

    Attributes:
        inside: which positions (rows, columns) of its distances count; None: all.
    """

    inside: np.ndarray | None

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return which positions count, bool (rows, columns)."""
        return np.ones(shape, bool) if self.inside is None else self.inside


@dataclass(frozen=True, eq=False)
class _Scored:
    """A good picture that sets the threshold, as a model without it measures it.

    Attributes:
        score: by the paper.
        peak: of its map.
        glance: a look at it.
        grid: float32 (rows, columns), its distances; `inside` says which count.
    """

    score: float
    peak: float
    glance: Glance
    grid: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True)
class OnePassPlan:
    """What a fit will take, by arithmetic.

    Attributes:
        pictures: number given; `held` of them set the threshold.
        model: bytes of the model, in memory and in its file.
        memory: bytes that the process is expected to hold at most; `limit` are allowed.
    """

    pictures: int
    held: int
    model: int
    memory: int
    limit: int

    def facts(self) -> dict[str, object]:
        """Return what a program may want to read, as JSON types."""
        return asdict(self)


def _pyramid_layers(backbone: Backbone, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Return the layers asked for; if none were, those of 1, 2 and 3 that a ResNet has, or what another advises."""
    if layers is not None:
        return tuple(layers)
    if backbone.advice.layers != Advice().layers:
        return backbone.advice.layers
    names = {layer.name for layer in backbone.layers}
    return tuple(number for number in (1, 2, 3) if f"layer{number}" in names)


class Learner(ABC, Generic[Model, Seen]):
    """A model in the making, of at most `count` pictures.

    Attributes:
        smaller: what would make the model smaller, as a sentence.
    """

    smaller: str

    @abstractmethod
    def memory(self) -> tuple[int, int]:
        """Return the bytes of the model, and those that making and using it takes in addition."""

    @abstractmethod
    def add(self, at: int, features: Seen) -> None:
        """Learn the picture at a place among those given."""

    @abstractmethod
    def so_far(self) -> Model:
        """Return the model of what was added, to score the pictures by that set the threshold."""

    @abstractmethod
    def add_held(self, at: int, features: Seen) -> None:
        """Learn one of those pictures; the model that `so_far` gave must not know it."""

    @abstractmethod
    def finish(self) -> Model:
        """Return the model of all pictures."""

    @abstractmethod
    def counts(self) -> tuple[int, int, int]:
        """Return for the report, once finished: patches seen, their dimensions, vectors in the model."""


@dataclass
class _Reading:
    """What is noted while the pictures of a fit are read.

    Attributes:
        repeats: the pictures, and which of them count.
        report: of the fit.
        progress: called after each picture.
        pictures: that could be read, by their place among those that count; `errors` of the others.
        scored: the pictures that set the threshold, by the same place.
        tally: what sets pictures apart.
    """

    repeats: Repeats
    report: FitReport
    progress: Progress | None
    pictures: dict[int, LearntPicture] = field(default_factory=dict)
    errors: dict[int, PictureError] = field(default_factory=dict)
    scored: dict[int, _Scored] = field(default_factory=dict)
    tally: PictureTally = field(default_factory=PictureTally)

    @property
    def skipped(self) -> list[PictureError]:
        """Why pictures were left out, in the order given."""
        return [self.errors[at] for at in sorted(self.errors)]


class OnePass(OneBackbone[Model, Seen]):
    """A detector that reads each good picture once. See `PaDiM` and `SPADE`."""

    settings: PyramidSettings

    def __init__(self, settings: PyramidSettings) -> None:
        super().__init__(settings)
        self.layers = _pyramid_layers(self.backbone, settings.layers)
        self.settings = replace(settings, backbone=self.backbone.name, size=self.recipe.size, layers=self.layers)
        self.extractor = FeatureExtractor(
            self.backbone,
            self.recipe,
            layers=self.layers,
            engine=settings.engine,
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
        )

    @abstractmethod
    def _learner(self, count: int) -> Learner[Model, Seen]:
        """Return an empty model in the making, of at most so many pictures."""

    @abstractmethod
    def _measure(self, model: Model, features: Seen) -> PatchDistances:
        """Measure one picture against a model, and score it as the paper does.

        Raises:
            PictureError: a distance is no finite number.
        """

    @property
    def extents_(self) -> Extents | None:
        """What the scoring `extent` counts by; None for `paper`, and where too few good pictures were measured."""
        return self._fitted().extents

    def _scored_otherwise(self) -> str:
        """Say that the scoring `extent` was asked for in vain; empty where it was not."""
        scored = len(self.calibration_.scores)
        if self.settings.scoring != "extent" or self.extents_ is not None:
            return ""
        return f". Scored as by the paper: extent needs {LEAST} good pictures that are held out, got {scored}"

    def _distances(self, model: Model, features: Seen) -> PatchDistances:
        distances, extents = self._measure(model, features), self.extents_
        if extents is None:
            return distances
        grid = distances.grid
        cells = np.argwhere(features.mask(grid.shape))
        return replace(distances, score=extents.score(grid, cells, cell_sigma(self.recipe, grid.shape[0])))

    def fit(
        self: Own,
        pictures: Sources,
        *,
        memory: int | str | None = None,
        announce: Callable[[OnePassPlan], None] | None = None,
        progress: Progress | None = None,
    ) -> Own:
        """Learn what good pictures look like; fitting again forgets.

        Args:
            pictures: a folder, a glob, or any of files, folders, globs and uint8 RGB arrays. Good pictures only.
            memory: bytes that the process may hold, or a size such as "2GB"; half of what is free if not given.
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
        sources, limit = expand(pictures), bytes_of(memory)
        with self._depth_of(sources, progress):
            repeats = Repeats(sources)
            plan = self._plan(repeats.distinct, limit)
            if announce:
                announce(plan)
            report = FitReport(plan=plan.facts())
            learner, reading = self._learnt(_Reading(repeats, report, progress))
            if repeats.search(self.recipe):
                del learner, reading  # which pictures are held out depends on how many there are
                report.plan = self._plan(repeats.distinct, limit).facts()
                learner, reading = self._learnt(_Reading(repeats, report, progress))
            model = learner.finish()
            self.judge_by(self._state_of(model, reading))
            learnt = self.pictures_
            report.pictures, report.calibration_pictures = len(learnt), len(reading.scored)
            report.patches, report.dimensions, report.vectors = learner.counts()
            report.peak_memory, report.repeats = peak_memory(), repeats.told
            self.report_, self.skipped_ = report, reading.skipped
            warn_of_fit(report, reading.skipped, reading.tally, learnt, len(sources))
        return self

    def _state_of(self, model: Model, reading: _Reading) -> FitState[Model]:
        """Return the state of a model, with the threshold that the pictures held out set."""
        places, scored = sorted(reading.pictures), [reading.scored[at] for at in sorted(reading.scored)]
        which = np.searchsorted(places, sorted(reading.scored)).astype(np.int32)
        scores, peaks = np.array([seen.score for seen in scored]), np.array([seen.peak for seen in scored])
        learnt = self._learnt_extents(scored)
        extents, scores = (None, scores) if learnt is None else learnt
        looks = [
            (seen.glance, float(seen.grid.mean()), score) for seen, score in zip(scored, scores.tolist(), strict=True)
        ]
        calibration = Calibration(scores, peaks, self.settings.false_alarm_rate, 1, which)
        pictures = [reading.pictures[at] for at in places]
        return FitState(model, pictures, calibration, Reference.learn(looks), extents=extents)

    def _learnt_extents(self, scored: Sequence[_Scored]) -> tuple[Extents, np.ndarray] | None:
        """Return what the distances of the pictures held out say about scores, if asked for, and their scores (n,)."""
        if self.settings.scoring != "extent" or not scored:
            return None
        grids, inside = np.stack([seen.grid for seen in scored]), np.stack([seen.inside for seen in scored])
        return learn_extents(grids, inside, [0] * len(grids), sigma=cell_sigma(self.recipe, grids.shape[1]))

    def _restored_extents(
        self, tensors: Mapping[str, np.ndarray], calibration: Calibration, grid: tuple[int, ...]
    ) -> Extents | None:
        """Return what a model file holds for the scoring `extent`, of distances on a grid (rows, columns).

        Raises:
            ValueError: it does not fit.
        """
        wanted = self.settings.scoring == "extent"
        extents = restored_extents(tensors, scored=len(calibration.scores), wanted=wanted)
        if extents is not None and (not wanted or extents.place.shape != grid):
            raise ValueError("extents.place is of another grid, or of another scoring")
        return extents

    def _learnt(self, reading: _Reading) -> tuple[Learner[Model, Seen], _Reading]:
        """Return the learner of the pictures that count, and what was noted when they were read.

        Raises:
            DataError: no picture could be read.
        """
        count = len(reading.repeats.distinct)
        held = held_out(count, self.settings.holdout, self.settings.seed)
        learner, report = self._learner(count), reading.report
        with report.timing("features"):
            for at, features in self._read(reading, np.setdiff1d(np.arange(count), held), None):
                learner.add(at, features)
        with report.timing("calibration"):
            for at, features in self._read_held(reading, held, learner):
                learner.add_held(at, features)
        if not reading.pictures:
            raise DataError(nothing_readable(reading.skipped))
        return learner, reading

    def _read_held(
        self, reading: _Reading, positions: np.ndarray, learner: Learner[Model, Seen]
    ) -> Iterator[tuple[int, Seen]]:
        """Yield the readable pictures that set the threshold, scored by what was learnt until then."""
        model = self._ready(learner.so_far()) if reading.pictures else None
        for done, (at, features) in enumerate(self._read(reading, positions, model), start=1):
            if reading.progress:
                reading.progress("calibration", done, len(positions))
            yield at, features

    def _read(self, reading: _Reading, positions: np.ndarray, model: Model | None) -> Iterator[tuple[int, Seen]]:
        """Yield the readable pictures at some positions; note their scores where there is a model to score by."""

        def judge(
            loaded: LoadedPicture, maps: Sequence[LayerMap] | None
        ) -> tuple[LoadedPicture, Seen | None, _Scored | None]:
            if maps is None or loaded.geometry is None:
                return loaded, None, None
            try:
                frame = self.recipe.frame(loaded.geometry)
                features = self._features(maps, frame)
                return loaded, features, self._scored(model, features, loaded, frame)
            except PictureError as error:
                return replace(loaded, error=PictureError(f"{loaded.path}: {error}")), None, None

        repeats, seconds = reading.repeats, reading.report.seconds
        stream = self.extractor.stream_maps(judge, (repeats.distinct[at] for at in positions), hashes=True)
        for at, (read, features, scored) in zip(positions.tolist(), stream, strict=True):
            seconds["decode"] = seconds.get("decode", 0.0) + read.seconds
            loaded = renumbered(read, repeats.distinct[at], repeats.places[at])
            reading.tally.observe(loaded)
            if loaded.error is not None:
                reading.errors[at] = loaded.error
            else:
                assert loaded.geometry is not None
                assert loaded.prepared is not None
                repeats.look(repeats.places[at], loaded.prepared, inspected(self.recipe, loaded.geometry))
                reading.pictures[at] = LearntPicture.of(loaded)
            if reading.progress:
                reading.progress("features", len(reading.pictures) + len(reading.errors), len(repeats.distinct))
            if scored is not None and loaded.error is None:
                reading.scored[at] = scored
            if features is not None and loaded.error is None:
                yield at, features

    def _scored(self, model: Model | None, features: Seen, loaded: LoadedPicture, frame: Frame) -> _Scored | None:
        """Return a picture as a model measures it; None where there is no model yet."""
        if model is None:
            return None
        distances = self._measure(model, features)
        score, full_map = distances.score_and_map(frame)
        peak, grid = region_level(full_map, self.settings.min_area), distances.grid
        return _Scored(score, peak, look(loaded, self.recipe), grid, features.mask(grid.shape))

    def _plan(self, sources: Sequence[Source], memory: int | None) -> OnePassPlan:
        """Return what a fit will take.

        Raises:
            DataError: there are no pictures.
            SettingError: it is more than is allowed.
        """
        if not len(sources):
            raise DataError("There are no pictures to fit on. Give files, folders or globs of good pictures.")
        learner = self._learner(len(sources))
        model, working = learner.memory()
        needed = baseline(self.extractor, sources) + model + working
        limit = resident_memory() + available_memory() // 2 if memory is None else memory
        if needed > limit:
            raise SettingError(
                f"memory must be at least {format_size(needed)} for a {type(self).__name__} of {len(sources)} pictures "
                f"(the model alone takes {format_size(model)}), got {format_size(limit)}"
                f"{' (half of the free memory)' if memory is None else ''}. {learner.smaller}",
                "memory",
            )
        held = held_count(len(sources), self.settings.holdout)
        return OnePassPlan(len(sources), held, model, needed, limit)
