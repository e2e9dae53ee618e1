"""An exported graph as a detector: it judges as the model did, and cannot learn any more."""

import copy
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2

from totalrecall.calibration import Calibration
from totalrecall.detectors.history import Step
from totalrecall.detectors.promise import ORIGINS, Promise
from totalrecall.detectors.settings import CommonSettings
from totalrecall.drift.conditions import Reference
from totalrecall.engines.runtime import core
from totalrecall.errors import ModelFileError, PictureError, SettingError
from totalrecall.export.graph_rules import LARGEST_FILE, check_exported, check_sizes
from totalrecall.export.metadata import batch_of, calibration_from, read_facts, unpacked_mask
from totalrecall.export.runtime import GraphResult, Run, open_openvino
from totalrecall.pictures.bit_depth import BitDepth
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import (
    LearntPicture,
    LoadedPicture,
    Source,
    Sources,
    expand,
    failure,
    load_picture,
    load_pictures,
)
from totalrecall.pictures.unlike import LearntKinds, PictureTally
from totalrecall.scoring import NearestPatch, Result, judged, regions_of
from totalrecall.system.files import read_regular

__all__ = ["BackboneName", "ExportedModel", "load_exported", "read_exported"]

_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError)


@dataclass(frozen=True)
class BackboneName:
    """Which backbone a graph has inside."""

    name: str
    sha256: str
    licence: str


@dataclass(frozen=True, eq=False)
class _State:
    """What a threshold is judged by; `judging` makes another."""

    calibration: Calibration
    threshold: float
    pixel_threshold: float
    origin: str


class ExportedModel:
    """A graph that `totalrecall export` wrote; OpenVINO runs it.

    Attributes:
        kind: of the model, such as `patchcore`.
        facts_: what the graph says of itself.
        recipe: how it prepares pictures, which it does itself.
        backbone: whose features it computes.
        pictures_: the good pictures that the model learnt.
        batch: how many pictures the graph takes at once; one is judged at a time here, and the others are blank.
    """

    def __init__(self, path: str | Path, data: bytes, facts: dict[str, Any], *, threads: int | None = None) -> None:
        """Take over what a file says.

        Args:
            path: of the file, for the messages.
            data: the serialized graph, which was checked.
            facts: what it says of itself.
            threads: to compute with; all cores if not given.

        Raises:
            ModelFileError: what it says of itself is damaged.
        """
        self.path, self.facts_, self._data, self._threads = str(path), facts, data, threads
        try:
            self.kind = str(facts["kind"])
            self.recipe = _recipe(facts)
            self.backbone = BackboneName(*(str(facts["backbone"][name]) for name in ("name", "sha256", "licence")))
            self.pictures_ = [LearntPicture(**picture) for picture in facts["pictures"]]
            for height, width in {(picture.height, picture.width) for picture in self.pictures_}:
                self.recipe.geometry(height, width)
            self._grid = int(facts["grid"][0]), int(facts["grid"][1])
            self.batch = batch_of(facts)
            calibration = calibration_from(facts)
            self._state = _State(calibration, *_thresholds(facts), _origin(facts))
            self.settings = CommonSettings(
                size=self.recipe.size,
                seed=int(facts["seed"]),
                min_area=int(facts["min_area"]),
                false_alarm_rate=calibration.rate,
            )
        except (*_DAMAGE, PictureError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelFileError(f"{path} is damaged: its metadata ({reason}). Export the model again.") from None
        self._kinds, self._told_odd = LearntKinds(self.pictures_), set[str]()
        self._lock = threading.Lock()  # the request of a graph holds one picture at a time
        self.report_ = None  # of a fit; there was none here

    # ------------------------------------------------------------------ judging

    def predict(self, picture: Source, *, conditions: bool = False) -> Result:
        """Judge one picture; see `PatchCore.predict`.

        Raises:
            PictureError: it cannot be read, or gets no score.
            SettingError: conditions were asked for, which a graph does not know.
        """
        self._check_conditions(conditions)
        began = time.perf_counter()
        loaded = load_picture(picture, self.recipe)
        if loaded.error is not None:
            raise loaded.error
        tally = PictureTally(self._kinds)
        tally.observe(loaded)
        tally.warn(told=self._told_odd)
        return self._result(loaded, began)

    def predict_stream(self, pictures: Sources, *, conditions: bool = False) -> Iterator[Result | PictureError]:
        """Judge many pictures in order; see `PatchCore.predict_stream`. They are read while others are judged."""
        self._check_conditions(conditions)
        tally = PictureTally(self._kinds)
        began = time.perf_counter()
        for loaded in load_pictures(expand(pictures), self.recipe):
            tally.observe(loaded)
            outcome: Result | PictureError
            if loaded.error is not None:
                outcome = loaded.error
            else:
                try:
                    outcome = self._result(loaded, began)
                except PictureError as error:
                    outcome = error
            yield outcome
            began = time.perf_counter()
        tally.warn()

    def _result(self, loaded: LoadedPicture, began: float) -> Result:
        """Turn what the graph says of a picture into a result.

        Raises:
            PictureError: it gives no score.
        """
        image, geometry, state = loaded.image, loaded.geometry, self._state
        assert image is not None
        assert geometry is not None
        fixed = self.facts_["picture_size"]
        if fixed is not None and tuple(fixed) != geometry.original:
            got = f"{geometry.original[1]} x {geometry.original[0]}"
            raise PictureError(
                f"{loaded.path}: the graph takes pictures of {fixed[1]} x {fixed[0]} pixels alone, got {got}. "
                "Export the model without --picture-size."
            )
        try:
            with self._lock:
                seen = self._run(image)
        except (MemoryError, cv2.error) as error:
            raise failure(loaded.path, error) from None
        if not seen.sound:
            raise PictureError(f"{loaded.path}: its score is not a finite number, so there is no verdict.")
        is_anomalous = judged(seen.score, state.threshold)
        frame = self.recipe.frame(geometry)
        regions = regions_of(
            seen.anomaly_map, frame, state.pixel_threshold, is_anomalous, min_area=self.settings.min_area
        )
        return Result(
            path=loaded.path,
            score=seen.score,
            threshold=state.threshold,
            is_anomalous=is_anomalous,
            p_value=state.calibration.p_value(seen.score),
            anomaly_map=seen.anomaly_map,
            regions=regions,
            nearest=self._nearest(seen),
            milliseconds=1000 * (time.perf_counter() - began),
            geometry=geometry,
            worst=geometry.cell_centre(self._grid, *seen.worst),
            pixel_threshold=state.pixel_threshold,
            recipe=self.recipe,
            picture=image if loaded.in_memory else None,
        )

    def _nearest(self, seen: GraphResult) -> NearestPatch | None:
        """Return where the good patch lies that the graph names; None where it names none."""
        _, number, row, column = seen.nearest
        if not 0 <= number < len(self.pictures_):
            return None
        source = self.pictures_[number]
        return NearestPatch(
            source.path, *self.recipe.cell_centre((source.height, source.width), self._grid, row, column)
        )

    @cached_property
    def _run(self) -> Run:
        """The graph, compiled at first use."""
        return open_openvino(self._data, self.path, batch=self.batch, threads=self._threads)

    # ------------------------------------------------------------------ thresholds

    @property
    def threshold_(self) -> float:
        """Score above which a picture is anomalous; nan without one."""
        return self._state.threshold

    @property
    def pixel_threshold_(self) -> float:
        """Map value above which a region is marked; nan without one."""
        return self._state.pixel_threshold

    @property
    def calibration_(self) -> Calibration:
        """Scores of good pictures, each by a bank or model without it."""
        return self._state.calibration

    @property
    def promise_(self) -> Promise:
        """What the threshold in use promises."""
        return Promise(self._state.calibration, self._state.threshold, self._state.origin)

    def judging(self, *, false_alarm_rate: float | None = None, threshold: float | None = None) -> "ExportedModel":
        """Return the same graph judging at another rate, or by another threshold; see `PatchCore.judging`.

        Raises:
            SettingError: neither or both were given, or the value is outside what is allowed.
        """
        if (false_alarm_rate is None) == (threshold is None):
            raise SettingError("judging needs false_alarm_rate or threshold, one of the two.")
        state = self._state
        if threshold is not None:
            if not math.isfinite(threshold):
                raise SettingError(f"threshold must be a finite score, got {threshold:g}.", "threshold")
            return self._judging_by(replace(state, threshold=float(threshold), origin="given"))
        assert false_alarm_rate is not None
        replace(self.settings, false_alarm_rate=float(false_alarm_rate))  # checks it
        if not len(state.calibration.scores):
            raise SettingError(
                "false_alarm_rate needs scores of good pictures, and this model has none.", "false_alarm_rate"
            )
        calibration = replace(state.calibration, rate=float(false_alarm_rate))
        thresholds = calibration.threshold, calibration.pixel_threshold
        return self._judging_by(_State(calibration, *thresholds, "calibrated"))

    def _judging_by(self, state: _State) -> "ExportedModel":
        other = copy.copy(self)
        vars(other)["_state"] = state
        return other

    # ------------------------------------------------------------------ what it does not have

    @property
    def drift_(self) -> Reference:
        """An exported graph keeps no conditions to compare with.

        Raises:
            SettingError: always.
        """
        raise SettingError("An exported graph keeps no conditions to compare pictures with. Use the model itself.")

    @property
    def history_(self) -> list[Step]:
        """The steps since the fit, which a graph does not keep."""
        return []

    @property
    def capability_(self) -> None:
        """What planted defects said of the model, which a graph does not keep."""
        return

    def facts(self) -> dict[str, Any]:
        """Return what the model holds, as JSON types in reading order."""
        return dict(self.facts_["facts"])

    def summary(self) -> str:
        """Say in one line what the graph is."""
        return f"Graph: exported from a {self.kind} model by totalrecall {self.facts_['library']}"

    def _check_conditions(self, conditions: bool) -> None:
        if conditions:
            raise SettingError("An exported graph does not say how a picture was taken. Use the model itself.")


def read_exported(path: str | Path) -> tuple[bytes, dict[str, Any]]:
    """Read an exported file, and check it before any runtime sees it.

    Returns:
        The serialized graph, and what it says of itself.

    Raises:
        ModelFileError: it is missing, no exported graph, damaged, or holds what no export writes.
    """
    if Path(path).suffix != ".onnx":
        raise ModelFileError(f"An exported graph is read here as an .onnx file, got {path}. Export it with --to onnx.")
    try:
        data = read_regular(path, limit=LARGEST_FILE)
    except OSError as error:
        raise ModelFileError(
            f"Cannot read {path}: {error.strerror or error}. Name a file of `totalrecall export`."
        ) from None
    facts, _ = read_facts(data, str(path))
    check_exported(data, str(path))
    return data, facts


def load_exported(path: str | Path, *, threads: int | None = None) -> ExportedModel:
    """Open a file that `totalrecall export --to onnx` wrote.

    Raises:
        ModelFileError: as for `read_exported`, or its graph computes more than a model of ours.
    """
    data, facts = read_exported(path)
    model = ExportedModel(path, data, facts, threads=threads)
    height, width = _usual_size(model)
    try:
        graph = core().read_model(data)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelFileError(f"{path} is damaged: OpenVINO cannot read it ({str(error)[-200:]}).") from None
    check_sizes(graph, str(path), height, width, batch=model.batch)
    return model


def _usual_size(model: ExportedModel) -> tuple[int, int]:
    """Return height and width of a picture that the graph takes."""
    fixed = model.facts_["picture_size"]
    if fixed is not None:
        return int(fixed[0]), int(fixed[1])
    if model.pictures_:
        return model.pictures_[0].height, model.pictures_[0].width
    return model.recipe.size, model.recipe.size


def _recipe(facts: dict[str, Any]) -> Recipe:
    """Return how the graph prepares pictures."""
    settings = {name: value for name, value in facts["recipe"].items() if name not in BitDepth.KEYS}
    packed = facts["region_of_interest"]
    roi = None if packed is None else unpacked_mask(packed)
    return Recipe(**settings, roi=roi, depth=BitDepth.from_json(facts["recipe"]))


def _thresholds(facts: dict[str, Any]) -> tuple[float, float]:
    """Return the thresholds of scores and of pixels; nan where there is none.

    Raises:
        ValueError: one is infinite.
    """
    values = [math.nan if facts[name] is None else float(facts[name]) for name in ("threshold", "pixel_threshold")]
    if any(math.isinf(value) for value in values):
        raise ValueError("a threshold is infinite")
    return values[0], values[1]


def _origin(facts: dict[str, Any]) -> str:
    if facts["threshold_is"] not in ORIGINS:
        raise ValueError("threshold_is")
    return str(facts["threshold_is"])
