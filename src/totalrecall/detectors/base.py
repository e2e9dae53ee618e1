"""What PatchCore, PaDiM and SPADE share: judging pictures, thresholds, changes of these, and the model file.

A detector measures pictures against its model (see `measuring`). Everything else is here: reading, regions, verdicts,
thresholds, undo. What was learnt is one frozen `FitState`; whatever changes a detector makes another state and assigns
it at the end.
"""

import copy
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import cv2
import numpy as np

from totalrecall.backbones import Backbone, load
from totalrecall.calibration import Calibration
from totalrecall.detectors.changes import Change, Lesson, catching_threshold, lessons, score_defects
from totalrecall.detectors.fit_report import FitReport, Progress
from totalrecall.detectors.history import Step, steps_of, undone
from totalrecall.detectors.model_file import Contents, Layout, read_artifact, write_artifact
from totalrecall.detectors.model_schema import DAMAGE, check_kind, check_layout, check_values, reason_of
from totalrecall.detectors.promise import Promise
from totalrecall.detectors.settings import CommonSettings
from totalrecall.detectors.state import FitState, Model, calibration_of, read_state, state_contents, with_history
from totalrecall.drift.conditions import Reference, look
from totalrecall.engines import Running
from totalrecall.errors import ModelFileError, NotFittedError, PictureError, SettingError, UnlikePictureWarning
from totalrecall.features.extractor import FeatureExtractor
from totalrecall.pictures.bit_depth import BitDepth, checked_bit_depth, find_bit_depth
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import LearntPicture, LoadedPicture, Source, Sources, expand, failure, load_picture
from totalrecall.pictures.masks import read_roi
from totalrecall.pictures.unlike import LearntKinds, PictureTally
from totalrecall.scoring import Measurement, Result, judged, regions_of
from totalrecall.system.files import refuse_overwriting
from totalrecall.types import LayerMap

__all__ = ["Detector", "Model"]

Own = TypeVar("Own", bound="Detector[Any]")


class Detector(ABC, Generic[Model]):
    """A detector of anomalies that learns from good pictures alone. See `PatchCore` for what all of them have."""

    kind: ClassVar[str]  # in the header of a model file
    former_settings: ClassVar[dict[str, Any]] = {}  # that older models do not name, as they were then

    settings: CommonSettings
    extractor: FeatureExtractor

    def __init__(self, settings: CommonSettings) -> None:
        self.region = read_roi(settings.roi)
        self.backbone = load(settings.backbone) if isinstance(settings.backbone, str) else settings.backbone
        size = self.backbone.prepared_side(settings.size, settings.crop)
        self.recipe = Recipe.of(settings, None if self.region is None else self.region.mask, size=size)
        self._begin()

    def _begin(self) -> None:
        """Hold what a detector holds that has learnt nothing yet."""
        self._state: FitState[Model] | None = None
        self.report_: FitReport | None = None
        self.skipped_: list[PictureError] = []
        self._kinds: LearntKinds | None = None
        self._told_odd: set[str] = set()  # kinds of odd pictures that `predict` has warned of

    # ------------------------------------------------------------------ what a detector must say

    @abstractmethod
    def fit(self: Own, pictures: Sources) -> Own:
        """Learn what good pictures look like; fitting again forgets."""

    @abstractmethod
    def measure(self, loaded: LoadedPicture, maps: Sequence[LayerMap] | None = None) -> Measurement:
        """Measure one picture against what was learnt.

        Args:
            loaded: the picture, prepared by the detector's recipe unless the maps are not given.
            maps: its feature maps, one a layer, each (1, h, w, c); made of its pixels if not given.

        Raises:
            PictureError: its score is no number, or the region of interest covers none of it.
        """

    @abstractmethod
    def _to_tensors(self, state: FitState[Model]) -> Contents:
        """Return what the model file must hold of the model: of its header, and tensors."""

    @abstractmethod
    def _from_tensors(
        self, contents: Contents, pictures: Sequence[LearntPicture], calibration: Calibration
    ) -> FitState[Model]:
        """Return the state of a model that `_to_tensors` gave.

        Raises:
            KeyError, ValueError: a part is missing or does not fit.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what the model holds, for `totalrecall info`, as JSON types in reading order."""

    @abstractmethod
    def summary(self) -> str:
        """Say in one line what was learnt, for a person."""

    def _ready(self, model: Model) -> Model:
        """Return the model once whatever it works out at first use is there; called before pictures are measured."""
        return model

    def _with_pictures(
        self,
        add: Sequence[Source] | None,
        remove: Sequence[str | Path],  # noqa: ARG002
        progress: Progress | None,  # noqa: ARG002
    ) -> tuple[FitState[Model], Change]:
        """Return the state once good pictures have joined or left, and what was done; SettingError where none can."""
        what = "remove" if add is None else "add"
        raise SettingError(
            f"{what} works on PatchCore models only, and this is a {type(self).__name__} model. Fit it again with all "
            "good pictures, or use PatchCore. The threshold and the false-alarm rate of this model can be changed.",
            what,
        )

    # ------------------------------------------------------------------ judging

    def predict(self, picture: Source, *, conditions: bool = False) -> Result:
        """Judge one picture, a file or one in memory, as soon as possible.

        Args:
            picture: to judge: a path, the bytes of a file, an open file, a PIL picture, or an array or tensor: grey
                (h, w), RGB (h, w, 3) or RGBA (h, w, 4), or with channels first, uint8, uint16 or bool.
            conditions: say in the result how it was taken, for `Monitor`.

        Raises:
            PictureError: it cannot be read.
            NotFittedError: nothing was learnt yet.

        Warns:
            UnlikePictureWarning: it is far from all learnt ones in shape or size, or grey where they are colour, or the
                reverse; once for each of these. PassedOverWarning: it holds more than one page; once.

        Examples:
            >>> from totalrecall import PatchCore
            >>> detector = PatchCore.load("part.trecall")
            >>> result = detector.predict("part.png")
            >>> result.verdict, result.score > result.threshold
            ('defect', True)
        """
        self._ready(self._fitted().model)
        began = time.perf_counter()
        loaded = load_picture(picture, self.recipe)
        if loaded.error is not None:
            raise loaded.error
        tally = PictureTally(self._kinds)
        tally.observe(loaded)
        tally.warn(told=self._told_odd)
        assert loaded.prepared is not None
        try:
            try:
                maps = self.extractor.maps(loaded.prepared)
            except PictureError as error:
                raise PictureError(f"{loaded.path}: {error}") from None
            return self._to_result(loaded, maps, began, conditions=conditions)
        except (MemoryError, cv2.error) as error:
            raise failure(loaded.path, error) from None

    def predict_stream(self, pictures: Sources, *, conditions: bool = False) -> Iterator[Result | PictureError]:
        """Judge many pictures, as many a second as possible; yields in order, the error of one that cannot be read.

        Args:
            pictures: as for `fit`.
            conditions: as for `predict`.

        Raises:
            NotFittedError: nothing was learnt yet.

        Warns:
            UnlikePictureWarning, PassedOverWarning: as `predict`, with their number, after the last picture.

        Examples:
            >>> from totalrecall import PatchCore
            >>> detector = PatchCore.load("part.trecall")
            >>> for result in detector.predict_stream(["part.png", "missed.png"]):
            ...     print(result.path, result.verdict)
            part.png defect
            missed.png good
        """
        self._ready(self._fitted().model)
        return self._judge_stream(expand(pictures), conditions=conditions)

    def score(self, pictures: Sources) -> np.ndarray:
        """Return the scores (n,) of pictures, bigger is more anomalous.

        Raises:
            PictureError: one of them cannot be read.
            NotFittedError: nothing was learnt yet.

        Examples:
            >>> from totalrecall import PatchCore
            >>> PatchCore.load("part.trecall").score(["part.png", "missed.png"]).shape
            (2,)
        """
        scores = []
        for result in self.predict_stream(pictures):
            if isinstance(result, PictureError):
                raise result
            scores.append(result.score)
        return np.array(scores)

    def _judge_stream(self, sources: Sequence[Source], *, conditions: bool) -> Iterator[Result | PictureError]:
        def judge(
            loaded: LoadedPicture, maps: Sequence[LayerMap] | None
        ) -> tuple[LoadedPicture, Result | PictureError]:
            light = replace(loaded, image=None, prepared=None)
            if loaded.error is not None:
                return light, loaded.error
            assert maps is not None  # whatever has no error was prepared
            try:
                return light, self._to_result(loaded, maps, began=math.nan, conditions=conditions)
            except PictureError as error:
                return light, error

        before, tally = time.perf_counter(), PictureTally(self._kinds)
        for light, result in self.extractor.stream_maps(judge, sources):
            tally.observe(light)
            now = time.perf_counter()
            if isinstance(result, Result):
                result = replace(result, milliseconds=1000 * (now - before))
            yield result
            before = time.perf_counter()
        tally.warn()

    def _to_result(
        self, loaded: LoadedPicture, maps: Sequence[LayerMap], began: float, *, conditions: bool = False
    ) -> Result:
        """Turn one picture's feature maps into a result.

        Raises:
            PictureError: its score is no number, or the region of interest covers none of it.
        """
        state, geometry = self._fitted(), loaded.geometry
        assert geometry is not None
        measured = self.measure(loaded, maps)
        score, full_map = measured.score, measured.anomaly_map
        is_anomalous, pixel_threshold = judged(score, state.threshold), state.calibration.pixel_threshold
        regions = regions_of(full_map, measured.frame, pixel_threshold, is_anomalous, min_area=self.settings.min_area)
        taken = None
        if conditions and state.drift is not None:
            taken = state.drift.conditions(look(loaded, self.recipe), measured.mean_distance, score)
        return Result(
            path=loaded.path,
            score=score,
            threshold=state.threshold,
            is_anomalous=is_anomalous,
            p_value=state.calibration.p_value(score),
            anomaly_map=full_map,
            regions=regions,
            nearest=measured.nearest,
            milliseconds=1000 * (time.perf_counter() - began),
            geometry=geometry,
            conditions=taken,
            worst=measured.worst,
            pixel_threshold=pixel_threshold,
            recipe=self.recipe,
            picture=loaded.image if loaded.in_memory else None,
        )

    # ------------------------------------------------------------------ what was learnt

    def _fitted(self) -> FitState[Model]:
        if self._state is None:
            name = type(self).__name__
            raise NotFittedError(f"This detector is not fitted yet. Call fit(good_pictures) or {name}.load(file).")
        return self._state

    def judge_by(self, state: FitState[Model]) -> None:
        """Judge by another state from now on: all that changes a detector ends here."""
        if self._state is None or state.pictures is not self._state.pictures:
            self._kinds, self._told_odd = LearntKinds(state.pictures), set()
        self._state = state
        if self.settings.false_alarm_rate != state.calibration.rate:
            self.settings = replace(self.settings, false_alarm_rate=state.calibration.rate)

    def judging_by(self: Own, state: FitState[Model]) -> Own:
        """Return a detector of the same settings that judges by a state; this one stays as it is."""
        other = copy.copy(self)
        other.judge_by(state)
        return other

    @property
    def pictures_(self) -> Sequence[LearntPicture]:
        """The good pictures that were learnt from."""
        return self._fitted().pictures

    @property
    def calibration_(self) -> Calibration:
        """Scores of good pictures, each by a bank or model without it."""
        return self._fitted().calibration

    @property
    def threshold_(self) -> float:
        """Score above which a picture is anomalous: as taught, else as calibrated; nan without calibration pictures."""
        return math.nan if self._state is None else self._state.threshold

    @property
    def pixel_threshold_(self) -> float:
        """Map value above which a region is marked; nan without calibration pictures."""
        return math.nan if self._state is None else self._state.calibration.pixel_threshold

    @property
    def taught_(self) -> float | None:
        """The threshold that `teach` or a person set; None where the calibration's holds."""
        return None if self._state is None else self._state.taught

    @property
    def history_(self) -> list[Step]:
        """What was done since the fit, the oldest first."""
        return [] if self._state is None else steps_of(self._state.history[0])

    def judging(self: Own, *, false_alarm_rate: float | None = None, threshold: float | None = None) -> Own:
        """Return the same model judging at another rate, or by another threshold; this one stays as it is.

        The copy shares all that was learnt. To keep the change in the model file, with its history: `update`.

        Args:
            false_alarm_rate: of good pictures; the thresholds of scores and of pixels follow.
            threshold: a score; the pixel threshold stays.

        Raises:
            SettingError: neither or both were given, or the value is outside what is allowed.
            NotFittedError: nothing was learnt yet.

        Examples:
            >>> from totalrecall import PatchCore
            >>> detector = PatchCore.load("part.trecall")  # at a false-alarm rate of 10 %
            >>> detector.judging(false_alarm_rate=0.2).threshold_ < detector.threshold_
            True
            >>> detector.judging(threshold=9.0).predict("part.png").is_anomalous
            False
        """
        if (false_alarm_rate is None) == (threshold is None):
            raise SettingError("judging needs false_alarm_rate or threshold, one of the two.")
        return self.judging_by(self._with_other_threshold(false_alarm_rate, threshold))

    def _with_other_threshold(self, false_alarm_rate: float | None, threshold: float | None) -> FitState[Model]:
        """Return the state that judges at another rate, or by a threshold set by hand.

        Raises:
            SettingError: it is not between 0 and 1, or no finite number; or the model has no scores for a rate.
        """
        state = self._fitted()
        if threshold is not None:
            return state.with_threshold(threshold, "given")
        assert false_alarm_rate is not None
        replace(self.settings, false_alarm_rate=float(false_alarm_rate))  # checks it
        return state.with_rate(false_alarm_rate)

    @property
    def promise_(self) -> Promise:
        """What the threshold in use promises."""
        return self._fitted().promise

    @property
    def drift_(self) -> Reference:
        """The conditions of the pictures that set the threshold, for `Monitor`.

        Raises:
            SettingError: the model was written before there were any.
        """
        drift = self._fitted().drift
        if drift is None:
            raise SettingError(
                "The model keeps nothing to compare pictures with: an older version wrote it. Fit it again."
            )
        return drift

    @property
    def capability_(self) -> Mapping[str, Any] | None:
        """What planted defects said of the model as it is (see `capability`); None if that was not kept."""
        return None if self._state is None else self._state.capability

    def keep_capability(self, summary: Mapping[str, Any]) -> None:
        """Keep what planted defects say, as `Capability.summary` returns it, until pictures or threshold change."""
        state, kept = self._fitted(), dict(summary)
        header = None if state.header is None else {**state.header, "capability": kept}
        self.judge_by(replace(state, capability=kept, header=header))

    # ------------------------------------------------------------------ changes after the fit

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
        self._fitted()
        undone_state = self._undone()
        step = self.history_[-1]
        self.judge_by(undone_state)
        return step

    def _undone(self) -> FitState[Model]:
        """Return the state before the last change."""
        contents = undone(self.contents(self._fitted()))
        header, tensors = contents
        try:
            check_layout(header, {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()})
            return self.state_from(contents)
        except DAMAGE as error:
            raise ModelFileError(f"The model's history is damaged: {reason_of(error)}. Copy or fit it again.") from None

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
        found, skipped = self._lessons(expand(defects))
        missed = [lesson for lesson in found if lesson.caught is not True]
        if apply and missed:
            before = self._fitted()
            after = before.with_threshold(catching_threshold([lesson.score for lesson in missed]), "taught")
            noted = [{"path": lesson.path, "sha256": lesson.sha256, "score": lesson.score} for lesson in found]
            self.judge_by(self._with_step(before, after, "teach", noted))
        return found, skipped

    def _lessons(self, sources: Sequence[Source]) -> tuple[list[Lesson], list[PictureError]]:
        """Score known defects; returns what they tell, and which could not be read."""
        state = self._fitted()
        self._ready(state.model)

        def score(loaded: LoadedPicture, maps: Sequence[LayerMap]) -> float:
            return self._to_result(loaded, maps, began=math.nan).score

        scored, skipped = score_defects(self.extractor, score, sources, PictureTally(self._kinds))
        return lessons(scored, state.calibration, state.threshold), skipped

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
        be called anomalous the worst patches, until they pass; the threshold follows. `PaDiM` and `SPADE` cannot learn
        or forget pictures after their fit; their threshold and their false-alarm rate can be changed.

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
            SettingError: none or several of the four were given, or one is outside what is allowed; add or remove
                was given to a detector other than `PatchCore`; or memory does not hold so many at once.
            DataError: nothing would be left.
            NotFittedError: nothing was learnt yet.

        Examples:
            >>> from totalrecall import PatchCore
            >>> detector = PatchCore.load("part.trecall")
            >>> change = detector.update(add="false_alarms")
            >>> len(change.pictures), change.still_anomalous
            (2, 0)
        """
        given = [value for value in (add, remove, false_alarm_rate, threshold) if value is not None]
        if len(given) != 1:
            raise SettingError(
                "update takes one of add, remove, false_alarm_rate and threshold. For several, call it several times."
            )
        before = self._fitted()
        if false_alarm_rate is not None or threshold is not None:
            after = self._with_other_threshold(false_alarm_rate, threshold)
            vectors, thresholds = (len(before), len(before)), (before.threshold, after.threshold)
            change = Change("threshold", [], vectors=vectors, threshold=thresholds, lowest=after.threshold)
        else:
            names = [remove] if isinstance(remove, (str, Path)) else list(remove or ())
            after, change = self._with_pictures(None if add is None else expand(add), names, progress)
        if change.what == "undo":
            self.judge_by(after)
        elif change.pictures or change.what == "threshold":
            self.judge_by(self._with_step(before, after, change.what, [picture.note() for picture in change.pictures]))
        return change

    def _with_step(
        self, before: FitState[Model], after: FitState[Model], what: str, pictures: Sequence[dict[str, Any]]
    ) -> FitState[Model]:
        """Return a changed state with the step that led there in its history."""
        after = replace(after, header=None, capability=None)  # it was of the model before
        return with_history(before, self.contents(before), after, self.contents(after), what, pictures)

    # ------------------------------------------------------------------ what all fits share

    @contextmanager
    def _depth_of(self, sources: Sequence[Source], progress: Progress | None) -> Iterator[None]:
        """Find how many bits the pictures of a fit use, before they are learnt from; a failed fit changes nothing."""
        former, asked = self.recipe.depth, checked_bit_depth(self.settings.bit_depth)
        depth = find_bit_depth(sources, asked, progress=progress)
        if depth.note:
            warnings.warn(depth.note, UnlikePictureWarning, stacklevel=4)
        self.set_depth(depth)
        try:
            yield
        except BaseException:
            self.set_depth(former)
            raise

    def set_depth(self, depth: BitDepth | None) -> None:
        """Prepare pictures by another bit depth from now on."""
        if depth != self.recipe.depth:
            self.recipe = replace(self.recipe, depth=depth)
            self.extractor.recipe = self.recipe

    # ------------------------------------------------------------------ the model file

    def save(self, path: str | Path, *, embed_backbone: bool = True, replacing: str | None = None) -> Path:
        """Write the model as one file, whole or not at all.

        Args:
            path: usually ends in `.trecall`.
            embed_backbone: keep the backbone's graph inside, so that the file alone is enough on another machine.
            replacing: SHA-256 of the file that is expected there.

        Raises:
            DataError: the place cannot be written, or holds another file than expected.
            NotFittedError: there is nothing to save yet.
            SettingError: it is a picture that the model learnt.

        Examples:
            >>> from totalrecall import PatchCore
            >>> detector = PatchCore.load("part.trecall")
            >>> detector.save("copy.trecall").name
            'copy.trecall'
        """
        state = self._fitted()
        header, tensors = self.contents(state)
        if replacing is None:  # else the file that is there is known to be the model
            refuse_overwriting(path, (picture.path for picture in state.pictures), "a picture that the model learnt")
        if embed_backbone:
            tensors = {**tensors, **{name: np.frombuffer(graph, np.uint8) for name, graph in self._graphs().items()}}
        return write_artifact(path, header, tensors, replacing=replacing)

    def _graphs(self) -> dict[str, bytes]:
        """Return the backbone's graph, by the name of the tensor that holds it."""
        return {"backbone.graph": self.backbone.graph}

    def contents(self, state: FitState[Model]) -> Contents:
        """Return header and tensors of the model file for a state, all but the backbone's graph."""
        header, tensors = self._to_tensors(state)
        header = {
            **header,
            "kind": self.kind,
            "settings": {**self.settings.stored(), "false_alarm_rate": state.calibration.rate},
            "recipe": self.recipe.to_json(),
            "backbone": self.backbone.to_header(),
        }
        if self.recipe.roi is not None:
            tensors = {**tensors, "recipe.roi": self.recipe.roi.astype(np.uint8)}
        return state_contents(state, header, tensors)

    @classmethod
    def load(
        cls: type[Own],
        path: str | Path,
        *,
        precision: str | None = None,
        threads: int | None = None,
        engine: str | None = None,
        device: str | None = None,
    ) -> Own:
        """Read a model file of this kind; `totalrecall.load_detector` opens whichever kind a file holds.

        Args:
            path: as given to `save`.
            precision: of the backbone here, if it should differ from the fit's.
            threads: of the engine; all cores if not given.
            engine: what runs the backbone: "openvino" if not given, whatever the fit had.
            device: what the engine computes on; the processor if not given.

        Raises:
            ModelFileError: the file is missing, damaged, of another kind, or from a newer version.
            BackboneError: the backbone was not embedded, and the one of that name here is missing or another.

        Examples:
            >>> from totalrecall import PatchCore
            >>> PatchCore.load("part.trecall").backbone.name
            'compact'
        """

        def check(header: dict[str, Any], layout: Layout) -> None:
            check_kind(header, cls.kind, f"{path} holds a {{}} model; this is {cls.__name__}. Use load_detector(path).")
            check_layout(header, layout)

        running = Running(precision=precision, threads=threads, engine=engine, device=device)
        return cls.from_contents(read_artifact(path, check), path, running)

    @classmethod
    def from_contents(cls: type[Own], contents: Contents, path: str | Path, running: Running) -> Own:
        """Return the detector of a model file that was read and whose layout was checked.

        Args:
            contents: header and tensors of the file.
            path: of the file, for the messages.
            running: how the backbone is run here.

        Raises:
            ModelFileError: a value in it is damaged.
            BackboneError: the backbone was not embedded, and the one of that name here is missing or another.
        """
        header, tensors = contents
        try:
            settings = {**cls.former_settings, **header["settings"]}
            settings |= running.chosen()
            roi = tensors.get("recipe.roi")
            graph = tensors.get("backbone.graph")
            data = load(header["backbone"]["name"]).graph if graph is None else graph.tobytes()
            settings["backbone"] = Backbone.from_header(header["backbone"], data, origin=f"The backbone of {path}")
            make: Any = cls  # each kind's own settings
            recipe = {name: value for name, value in header["recipe"].items() if name not in BitDepth.KEYS}
            detector: Own = make(**settings, **recipe, roi=None if roi is None else roi.astype(bool))
            detector.load_contents(contents)
        except DAMAGE as error:
            raise ModelFileError(f"{path} is damaged: {reason_of(error)}. Copy or fit it again.") from None
        return detector

    def load_contents(self, contents: Contents) -> None:
        """Hold what a model file of the same settings holds.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or does not fit.
        """
        self.set_depth(BitDepth.from_json(contents[0]["recipe"]))
        self.judge_by(self.state_from(contents))

    def state_from(self, contents: Contents) -> FitState[Model]:
        """Return the state that a model file holds.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or does not fit.
        """
        header, tensors = contents
        if header["kind"] != self.kind:
            raise ValueError("kind is another")
        check_values(header, tensors)
        pictures = [LearntPicture(**picture) for picture in header["pictures"]]
        try:
            for height, width in {(picture.height, picture.width) for picture in pictures}:
                self.recipe.geometry(height, width)
        except PictureError as error:
            raise ValueError(f"pictures: {error}") from None
        calibration = calibration_of(header, tensors)
        return read_state(self._from_tensors(contents, pictures, calibration), contents)
