"""What PatchCore, PaDiM and SPADE share: judging pictures, thresholds, results and the model file.

A detector turns a picture's feature maps into what its model compares, the digest, and measures that against the model.
Everything else is here, once: reading, the map in original pixels, regions, verdicts, and keeping.
"""

import math
import re
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import cv2
import numpy as np

from totalrecall.backbones import Backbone, load
from totalrecall.calibration import OF_PARTS, Calibration
from totalrecall.detectors.fit_report import FitReport, Progress
from totalrecall.detectors.history import past_of, steps_of
from totalrecall.detectors.model_file import Contents, Layout, read_artifact, write_artifact
from totalrecall.detectors.model_schema import DAMAGE, check_layout, check_values, reason_of
from totalrecall.detectors.promise import Promise
from totalrecall.detectors.settings import CommonSettings
from totalrecall.drift.conditions import Reference, look
from totalrecall.engines import PRECISION
from totalrecall.errors import (
    ModelFileError,
    NotFittedError,
    PictureError,
    RepeatedPictureWarning,
    SettingError,
    SkippedPictureWarning,
    UnlikePictureWarning,
)
from totalrecall.features.extractor import FeatureExtractor
from totalrecall.features.patches import covered_cells
from totalrecall.pictures.bit_depth import BitDepth, checked_bit_depth, find_bit_depth
from totalrecall.pictures.copies import repeats_note
from totalrecall.pictures.geometry import Geometry, Recipe
from totalrecall.pictures.loading import LearntPicture, LoadedPicture, Source, Sources, expand, failure, load_picture
from totalrecall.pictures.masks import read_roi
from totalrecall.pictures.unlike import LearntKinds, PictureTally, mixed_notes
from totalrecall.scoring import (
    NearestPatch,
    Region,
    Result,
    anomaly_map,
    find_regions,
    judged,
    marked_regions,
    patch_centre,
    worst_patch,
)
from totalrecall.system.files import refuse_overwriting
from totalrecall.types import AnomalyMap, LayerMap

__all__ = ["Detector", "Digest", "Measured", "Model"]

Model = TypeVar("Model")
Digest = TypeVar("Digest")
Own = TypeVar("Own", bound="Detector[Any, Any]")

_IN_MEMORY = re.compile(r"\w+\[\d+\]")  # `array[3]`: the name of a picture that is no file


@dataclass(frozen=True, eq=False)
class Measured:
    """What a model says of one picture.

    Attributes:
        grid: float32 (rows, columns), the distance at each position, 0 outside the region of interest.
        score: of the picture; None where it is the largest value of its anomaly map.
        nearest: picture, row and column of the good patch nearest to the worst one; None where there is no such patch.
    """

    grid: np.ndarray
    score: float | None = None
    nearest: tuple[int, int, int] | None = None


class Detector(ABC, Generic[Model, Digest]):
    """A detector of anomalies that learns from good pictures alone. See `PatchCore` for what all of them have."""

    kind: ClassVar[str]  # in the header of a model file
    _former: ClassVar[dict[str, Any]] = {}  # settings that models of before do not name, as they were then

    settings: CommonSettings
    extractor: FeatureExtractor

    def __init__(self, settings: CommonSettings) -> None:
        self._asked_depth = checked_bit_depth(settings.bit_depth)
        self.region = read_roi(settings.roi)
        self.recipe = Recipe.of(settings, None if self.region is None else self.region.mask)
        self.backbone = load(settings.backbone) if isinstance(settings.backbone, str) else settings.backbone
        self._model: Model | None = None
        self._pictures: Sequence[LearntPicture] = ()
        self._calibration: Calibration | None = None
        self._drift: Reference | None = None
        self._taught: float | None = None  # a threshold in place of the calibration's
        self._origin = "taught"  # of that: `taught` or `given`, see `promise.ORIGINS`
        self._past: Contents = ({}, {})  # the steps since the fit, as `history` keeps them
        self._read: dict[str, Any] | None = None  # the header as it was read, until something changes
        self.report_: FitReport | None = None
        self.skipped_: list[PictureError] = []
        self._kinds: LearntKinds | None = None
        self._told_odd: set[str] = set()  # kinds of odd pictures that `predict` has warned of

    # ------------------------------------------------------------------ what a detector must say

    @abstractmethod
    def _digest(self, maps: Sequence[LayerMap], geometry: Geometry) -> Digest:
        """Turn a picture's feature maps, one a layer, each (1, h, w, c), into what the model compares.

        Raises:
            PictureError: nothing of it is left to compare.
        """

    @abstractmethod
    def _measure(self, model: Model, digest: Digest) -> Measured:
        """Measure one picture against a model."""

    def _ready(self, model: Model) -> Model:
        """Return the model once whatever it works out at first use is there; called before pictures are measured."""
        return model

    @abstractmethod
    def _kept(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what the model file must hold of the model: of its header, and tensors."""

    @abstractmethod
    def _restored(self, header: dict[str, Any], tensors: dict[str, np.ndarray]) -> Model:
        """Return the model that `_kept` gave; the pictures are there already.

        Raises:
            KeyError, ValueError: a part is missing or does not fit.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what the model holds, for `totalrecall info`, as JSON types in reading order."""

    @abstractmethod
    def summary(self) -> str:
        """Say in one line what was learnt, for a person."""

    # ------------------------------------------------------------------ judging

    def predict(self, picture: Source, *, conditions: bool = False) -> Result:
        """Judge one picture, a file or one in memory, as soon as possible.

        Args:
            picture: to judge: a path, the bytes of a file, an open file, a PIL picture, or an array or tensor: grey
                (h, w), RGB (h, w, 3) or RGBA (h, w, 4), or with channels first, uint8, uint16 or bool.
            conditions: say in the result how it was taken, for `drift.Monitor`.

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
        self._ready(self._fitted())
        began = time.perf_counter()
        loaded = load_picture(picture, self.recipe)
        if loaded.error is not None:
            raise loaded.error
        tally = self._tally()
        tally.observe(loaded)
        tally.warn(told=self._told_odd)
        assert loaded.prepared is not None
        try:
            try:
                maps = self.extractor.maps(loaded.prepared)
            except PictureError as error:
                raise PictureError(f"{loaded.path}: {error}") from None
            return self._judge(loaded, maps, began, conditions=conditions)
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
        self._ready(self._fitted())
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
            seen = replace(loaded, image=None, prepared=None)
            if loaded.error is not None:
                return seen, loaded.error
            assert maps is not None  # whatever has no error was prepared
            try:
                return seen, self._judge(loaded, maps, began=math.nan, conditions=conditions)
            except PictureError as error:
                return seen, error

        before, tally = time.perf_counter(), self._tally()
        for seen, result in self.extractor.stream_maps(judge, sources):
            tally.observe(seen)
            now = time.perf_counter()
            if isinstance(result, Result):
                result = replace(result, milliseconds=1000 * (now - before))
            yield result
            before = time.perf_counter()
        tally.warn()

    def _judge(
        self, loaded: LoadedPicture, maps: Sequence[LayerMap], began: float, *, conditions: bool = False
    ) -> Result:
        """Turn one picture's feature maps into a result."""
        geometry = loaded.geometry
        assert geometry is not None
        try:
            digest = self._digest(maps, geometry)
        except PictureError as error:
            raise PictureError(f"{loaded.path}: {error}") from None
        try:
            measured = self._measured(self._fitted(), digest)
            score, full_map = self._judged(measured, geometry)
        except PictureError as error:
            raise PictureError(f"{loaded.path}: {error}") from None
        taken = None
        if conditions and self._drift is not None:
            taken = self._drift.conditions(look(loaded, self.recipe), float(measured.grid.mean()), score)
        threshold = self.threshold_
        is_anomalous = judged(score, threshold)
        return Result(
            path=loaded.path,
            score=score,
            threshold=threshold,
            is_anomalous=is_anomalous,
            p_value=math.nan if self._calibration is None else self._calibration.p_value(score),
            anomaly_map=full_map,
            regions=self._regions(full_map, geometry, is_anomalous),
            nearest=self._nearest(measured),
            milliseconds=1000 * (time.perf_counter() - began),
            geometry=geometry,
            conditions=taken,
            worst=worst_patch(geometry, measured.grid),
            pixel_threshold=self.pixel_threshold_,
            recipe=self.recipe,
            picture=loaded.image if _IN_MEMORY.fullmatch(loaded.path) else None,
        )

    def _measured(self, model: Model, digest: Digest) -> Measured:
        """Measure one picture against a model; every score of a picture, at a fit too, comes from here.

        Raises:
            PictureError: its score or one of its distances is no finite number, of which no verdict can be given.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # it is found below, and named
            measured = self._measure(model, digest)
        score = 0.0 if measured.score is None else measured.score
        if not math.isfinite(score) or not np.isfinite(measured.grid).all():
            raise PictureError(
                f"its score is not a finite number (got {score if not math.isfinite(score) else math.nan:g}), so there "
                "is no verdict. Look at the picture; if others fail too, at the backbone and --precision f32."
            )
        return measured

    def _regions(self, full_map: AnomalyMap, geometry: Geometry, is_anomalous: bool | None) -> list[Region]:
        """Return what is marked: of an anomalous picture always its worst place."""
        threshold, min_area = self.pixel_threshold_, self.settings.min_area
        if is_anomalous is not True:
            return find_regions(full_map, threshold, min_area=min_area)
        inside = np.zeros(full_map.shape, bool)
        inside[geometry.seen] = True
        roi = self.recipe.original_roi(*geometry.original)
        return marked_regions(full_map, threshold, min_area=min_area, inside=inside if roi is None else inside & roi)

    def _judged(self, measured: Measured, geometry: Geometry) -> tuple[float, AnomalyMap]:
        """Return a picture's score and its map in original pixels."""
        full_map = anomaly_map(measured.grid, geometry, roi=self.recipe.prepared_roi(geometry))
        original_roi = self.recipe.original_roi(*geometry.original)
        if original_roi is not None:
            full_map = full_map * original_roi
        return float(full_map.max()) if measured.score is None else measured.score, full_map

    def _nearest(self, measured: Measured) -> NearestPatch | None:
        """Return where in the good pictures the worst patch's nearest neighbour lies, in original pixels."""
        if measured.nearest is None:
            return None
        picture, row, column = measured.nearest
        source, grid = self._pictures[picture], measured.grid.shape
        geometry = self.recipe.geometry(source.height, source.width)
        return NearestPatch(source.path, *patch_centre(geometry, grid, row, column))

    def _inside(self, geometry: Geometry, shape: tuple[int, int]) -> np.ndarray | None:
        """Return the cells (rows, columns) that touch the region of interest; None where all count.

        Raises:
            PictureError: none does.
        """
        roi = self.recipe.prepared_roi(geometry)
        if roi is None:
            return None
        inside = covered_cells(roi, shape)
        if not inside.any():
            raise PictureError("the region of interest covers none of it, it is hidden by the crop.")
        return inside

    # ------------------------------------------------------------------ what was learnt

    def _fitted(self) -> Model:
        if self._model is None:
            name = type(self).__name__
            raise NotFittedError(f"This detector is not fitted yet. Call fit(good_pictures) or {name}.load(file).")
        return self._model

    @property
    def pictures_(self) -> Sequence[LearntPicture]:
        """The good pictures that were learnt from."""
        self._fitted()
        return self._pictures

    @property
    def calibration_(self) -> Calibration:
        """Scores of good pictures, each by a bank or model without it."""
        self._fitted()
        assert self._calibration is not None
        return self._calibration

    @property
    def threshold_(self) -> float:
        """Score above which a picture is anomalous: as taught, else as calibrated; nan without calibration pictures."""
        if self._taught is not None:
            return self._taught
        return math.nan if self._calibration is None else self._calibration.threshold

    @property
    def pixel_threshold_(self) -> float:
        """Map value above which a region is marked; nan without calibration pictures."""
        return math.nan if self._calibration is None else self._calibration.pixel_threshold

    def _take(self, model: Model, pictures: Sequence[LearntPicture], calibration: Calibration) -> None:
        """Hold what a fit learnt, and forget what was before."""
        self._model, self._pictures, self._calibration = model, pictures, calibration
        self._taught, self._past, self._read = None, ({}, {}), None
        self._told_odd = set()

    def _set_threshold(self, threshold: float, origin: str) -> None:
        """Judge by a threshold in place of the calibration's.

        Raises:
            SettingError: it is not a finite number.
        """
        self._fitted()
        if not math.isfinite(threshold):
            raise SettingError(
                f"threshold must be a finite score, got {threshold:g}. `predict` shows scores.", "threshold"
            )
        self._taught, self._origin, self._read = float(threshold), origin, None

    def _set_rate(self, rate: float) -> None:
        """Judge at another false-alarm rate: by the threshold that the scores of good pictures give for it.

        Raises:
            SettingError: it is not between 0 and 1, or the model has no scores of good pictures.
        """
        calibration = self.calibration_
        settings = replace(self.settings, false_alarm_rate=float(rate))
        if not len(calibration.scores):
            raise SettingError(
                "false_alarm_rate needs scores of good pictures, and this model has none: it was fitted on fewer than "
                "3, or with holdout 0. Fit it again, or set a threshold.",
                "false_alarm_rate",
            )
        self.settings, self._calibration = settings, replace(calibration, rate=float(rate))
        self._taught, self._read = None, None

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
            raise SettingError("judging takes either false_alarm_rate or threshold.")
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        if threshold is not None:
            other._set_threshold(threshold, "given")
        elif false_alarm_rate is not None:
            other._set_rate(false_alarm_rate)
        return other

    @property
    def promise_(self) -> Promise:
        """What the threshold in use promises."""
        calibration = self.calibration_
        return Promise(calibration, self.threshold_, "calibrated" if self._taught is None else self._origin)

    @property
    def drift_(self) -> Reference:
        """The conditions of the pictures that set the threshold, for `drift.Monitor`.

        Raises:
            SettingError: the model was written before there were any.
        """
        self._fitted()
        if self._drift is None:
            raise SettingError(
                "The model keeps nothing to compare pictures with: an older version wrote it. Fit it again."
            )
        return self._drift

    @contextmanager
    def _depth_of(self, sources: Sequence[Source], progress: Progress | None) -> Iterator[None]:
        """Find how many bits the pictures of a fit use, before they are learnt from; a failed fit changes nothing."""
        former, depth = self.recipe.depth, find_bit_depth(sources, self._asked_depth, progress=progress)
        if depth.note:
            warnings.warn(depth.note, UnlikePictureWarning, stacklevel=4)
        self._set_depth(depth)
        try:
            yield
        except BaseException:
            self._set_depth(former)
            raise

    def _set_depth(self, depth: BitDepth | None) -> None:
        self.recipe = replace(self.recipe, depth=depth)
        self.extractor.recipe = self.recipe

    def _warn_of_left_out(self, given: int) -> None:
        """Say which pictures were left out of a fit; called by `fit` itself, for the caller's line to be named."""
        if self.report_ is not None and self.report_.repeats:
            note = repeats_note(self.report_.repeats, given)
            warnings.warn(note, RepeatedPictureWarning, stacklevel=3)
        if self.skipped_:
            warnings.warn(
                f"{len(self.skipped_)} of {given} pictures were left out. The first: {self.skipped_[0]}",
                SkippedPictureWarning,
                stacklevel=3,
            )

    def _warn_of_odd(self, tally: PictureTally) -> None:
        """Say what sets pictures of a fit apart; called by `fit` itself, for the caller's line to be named."""
        tally.warn(stacklevel=3)
        for note in mixed_notes(self._pictures):
            warnings.warn(note, UnlikePictureWarning, stacklevel=3)

    def _tally(self) -> PictureTally:
        """Return what compares pictures, before any content, with those that were learnt."""
        kinds = self._kinds
        if kinds is None or kinds.pictures is not self._pictures:
            kinds = self._kinds = LearntKinds(self._pictures)
        return PictureTally(kinds)

    # ------------------------------------------------------------------ keeping

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
        header, tensors = self._contents()
        if replacing is None:  # else the file that is there is known to be the model
            refuse_overwriting(path, (picture.path for picture in self._pictures), "a picture that the model learnt")
        if embed_backbone:
            tensors["backbone.graph"] = np.frombuffer(self.backbone.graph, np.uint8)
        return write_artifact(path, header, tensors, replacing=replacing)

    def _contents(self) -> Contents:
        """Return header and tensors of the model file, all but the backbone's graph."""
        from totalrecall._version import __version__

        calibration = self.calibration_
        own, tensors = self._kept()
        header: dict[str, Any] = {
            **own,
            "kind": self.kind,
            "library": (self._read or {}).get("library", __version__),
            "settings": self.settings.to_json(),
            "recipe": self.recipe.to_json(),
            "backbone": self.backbone.to_header(),
            "pictures": [_without_none(asdict(picture)) for picture in self._pictures],
        }
        header["calibration"] = {name: getattr(calibration, name) for name in ("folds", *OF_PARTS)}
        tensors = {**tensors, "calibration.scores": calibration.scores, "calibration.peaks": calibration.peaks}
        if calibration.pictures is not None:
            tensors["calibration.pictures"] = calibration.pictures
        if self._taught is not None:
            header["taught"] = {"threshold": self._taught}
            header["taught"] |= {} if self._origin == "taught" else {"by": self._origin}  # `taught` as ever
        tensors |= {} if self._drift is None else self._drift.tensors()
        if self.recipe.roi is not None:
            tensors["recipe.roi"] = self.recipe.roi.astype(np.uint8)
        return {**header, **self._past[0]}, {**tensors, **self._past[1]}

    @classmethod
    def load(cls: type[Own], path: str | Path, *, precision: str | None = None, threads: int | None = None) -> Own:
        """Read a model file of this kind; `totalrecall.load_detector` opens whichever kind a file holds.

        Args:
            path: as given to `save`.
            precision: of the backbone here, if it should differ from the fit's.
            threads: of the engine; all cores if not given.

        Raises:
            ModelFileError: the file is missing, damaged, of another kind, or from a newer version.
            BackboneError: the backbone was not embedded, and the one of that name here is missing or another.

        Examples:
            >>> from totalrecall import PatchCore
            >>> PatchCore.load("part.trecall").backbone.name
            'compact'
        """
        if precision is not None:
            PRECISION.check("precision", precision)  # here, or the caller's mistake would be taken for damage

        def check(header: dict[str, Any], layout: Layout) -> None:
            kind = header.get("kind")
            if isinstance(kind, str) and kind != cls.kind:
                raise ModelFileError(
                    f"{path} holds a {kind[:40]} model; this is {cls.__name__}. Use load_detector(path)."
                )
            if kind != cls.kind:
                raise ValueError("kind is missing or no text")
            check_layout(header, layout)

        header, tensors = read_artifact(path, check)
        try:
            settings = {**cls._former, **header["settings"]}
            settings["precision"] = precision or settings["precision"]
            roi = tensors.get("recipe.roi")
            graph = tensors.get("backbone.graph")
            data = load(header["backbone"]["name"]).graph if graph is None else graph.tobytes()
            settings["backbone"] = Backbone.from_header(header["backbone"], data, origin=f"The backbone of {path}")
            mask = None if roi is None else roi.astype(bool)
            make: Any = cls  # each kind's own settings
            recipe = {name: value for name, value in header["recipe"].items() if name not in BitDepth.KEYS}
            detector: Own = make(**settings, **recipe, roi=mask, threads=threads)
            detector._set_depth(BitDepth.from_json(header["recipe"]))
            detector._put((header, tensors))
        except DAMAGE as error:
            raise ModelFileError(f"{path} is damaged: {reason_of(error)}. Copy or fit it again.") from None
        return detector

    def _check_geometries(self, pictures: Sequence[LearntPicture]) -> None:
        """Raise ValueError if one of the pictures could not have been prepared."""
        try:
            for height, width in {(one.height, one.width) for one in pictures}:
                self.recipe.geometry(height, width)
        except PictureError as error:
            raise ValueError(f"pictures: {error}") from None

    def _put(self, contents: Contents) -> None:
        """Hold what a model file holds.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or does not fit.
        """
        header, tensors = contents
        if header["kind"] != self.kind:
            raise ValueError("kind is another")
        check_layout(header, {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()})
        check_values(header, tensors)
        how = header.get("calibration", {})
        self.settings = replace(self.settings, false_alarm_rate=header["settings"]["false_alarm_rate"])
        calibration = Calibration(
            tensors["calibration.scores"],
            tensors["calibration.peaks"],
            self.settings.false_alarm_rate,
            how.get("folds", 1),
            tensors.get("calibration.pictures"),
            **{name: how[name] for name in OF_PARTS if name in how},  # models of before have none
        )
        if math.isinf(calibration.threshold) or math.isinf(calibration.pixel_threshold):
            raise ValueError("calibration.scores give an infinite threshold")
        pictures = [LearntPicture(**picture) for picture in header["pictures"]]
        self._check_geometries(pictures)
        self._pictures, self._calibration = pictures, calibration  # `_restored` looks at them
        self._take(self._restored(header, tensors), pictures, calibration)
        self._taught = float(header["taught"]["threshold"]) if "taught" in header else None
        self._origin = header.get("taught", {}).get("by", "taught")
        if self._taught is not None and not math.isfinite(self._taught):
            raise ValueError("taught.threshold (not a finite number)")
        self._drift = Reference.restored(tensors)
        steps_of(header)
        self._past, self._read = past_of(contents), header


def _without_none(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts of a picture without those that a model of before does not know: it is written as it was."""
    return {name: value for name, value in facts.items() if value is not None}
