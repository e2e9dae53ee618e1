"""What a detector holds once it is fitted, as one frozen value, and how a model file stores it.

A change of a detector is another value: the detector assigns it once the change is complete, so a change that fails
leaves the detector as it was.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np

from totalrecall._version import __version__
from totalrecall.calibration import OF_PARTS, Calibration
from totalrecall.detectors.extents import Extents
from totalrecall.detectors.history import Step, past_of, steps_of, with_step
from totalrecall.detectors.model_file import Contents
from totalrecall.detectors.promise import Promise
from totalrecall.drift.conditions import Reference
from totalrecall.errors import SettingError
from totalrecall.pictures.loading import LearntPicture

__all__ = ["FitState", "Model", "calibration_of", "read_state", "state_contents", "with_history"]

Model = TypeVar("Model")
State = TypeVar("State", bound="FitState[Any]")


@dataclass(frozen=True, eq=False)
class FitState(Generic[Model]):
    """What a detector has learnt, and the threshold that it judges by.

    Attributes:
        model: what pictures are measured against.
        pictures: the good pictures that were learnt.
        calibration: scores of good pictures, each by a bank or model without it.
        drift: conditions of these pictures; None in a model of an older version.
        taught: the threshold that `teach` or a person set; None where the threshold of the calibration holds.
        origin: who set it, `taught` or `given`, see `promise.ORIGINS`.
        history: the steps since the fit, as the model file stores them.
        header: the header of the model file that was read; None once anything has changed.
        capability: what planted defects said of this model at this threshold, for `info`; None if nobody asked.
        tuning: the settings that were tried before the fit, as `Tuning.to_json` returns them; None if none were.
        extents: what the scoring `extent` counts by; None where too few good pictures were measured, or it was not
            asked for.
    """

    model: Model
    pictures: Sequence[LearntPicture]
    calibration: Calibration
    drift: Reference | None = None
    taught: float | None = None
    origin: str = "taught"
    history: Contents = field(default=({}, {}), repr=False)
    header: Mapping[str, Any] | None = field(default=None, repr=False)
    capability: Mapping[str, Any] | None = field(default=None, repr=False)
    tuning: Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)
    extents: Extents | None = field(default=None, repr=False)

    @cached_property
    def threshold(self) -> float:
        """Score above which a picture is anomalous; nan where nothing sets a threshold."""
        return self.calibration.threshold if self.taught is None else self.taught

    def __len__(self) -> int:
        """How many vectors the bank has, or pictures a model without one."""
        return len(self.pictures)

    @property
    def promise(self) -> Promise:
        """What the threshold promises."""
        return Promise(self.calibration, self.threshold, "calibrated" if self.taught is None else self.origin)

    def with_threshold(self: State, threshold: float, origin: str) -> State:
        """Return the state with a threshold in place of the calibration's.

        Raises:
            SettingError: it is not a finite number.
        """
        if not math.isfinite(threshold):
            raise SettingError(
                f"threshold must be a finite score, got {threshold:g}. `predict` shows scores.", "threshold"
            )
        return replace(self, taught=float(threshold), origin=origin, header=None, capability=None)

    def with_rate(self: State, rate: float) -> State:
        """Return the state with the threshold that the scores of good pictures give for another false-alarm rate.

        Raises:
            SettingError: the model has no scores of good pictures.
        """
        if not len(self.calibration.scores):
            raise SettingError(
                "false_alarm_rate needs scores of good pictures, and this model has none: it was fitted on fewer than "
                "3, or with holdout 0. Fit it again, or set a threshold.",
                "false_alarm_rate",
            )
        calibration = replace(self.calibration, rate=float(rate))
        return replace(self, calibration=calibration, taught=None, header=None, capability=None)


def state_contents(state: FitState[Any], header: dict[str, Any], tensors: dict[str, np.ndarray]) -> Contents:
    """Return header and tensors of a model file, without the backbone's graph.

    Args:
        state: of the detector.
        header, tensors: what is not in the state, or only the detector can say: settings, recipe, backbone, the model.
    """
    calibration = state.calibration
    facts: dict[str, Any] = {name: getattr(calibration, name) for name in ("folds", *OF_PARTS)}
    thresholds = {name: getattr(calibration, name) for name in ("threshold", "pixel_threshold")}
    facts |= {name: value for name, value in thresholds.items() if math.isfinite(value)}  # JSON has no nan
    header = {
        **header,
        "library": (state.header or {}).get("library", __version__),
        "pictures": [_without_none(asdict(picture)) for picture in state.pictures],
        "calibration": facts,
    }
    tensors = {**tensors, "calibration.scores": calibration.scores, "calibration.peaks": calibration.peaks}
    if calibration.pictures is not None:
        tensors["calibration.pictures"] = calibration.pictures
    if state.taught is not None:
        header["taught"] = {"threshold": state.taught}
        header["taught"] |= {} if state.origin == "taught" else {"by": state.origin}  # older versions wrote no `by`
    if state.capability is not None:
        header["capability"] = dict(state.capability)
    if state.tuning is not None:
        header["tuning"] = {"rows": [dict(row) for row in state.tuning]}
    tensors |= {} if state.drift is None else state.drift.tensors()
    return {**header, **state.history[0]}, {**tensors, **state.history[1]}


def _without_none(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a picture that are known: a picture of an older model is written as it was read."""
    return {name: value for name, value in facts.items() if value is not None}


def calibration_of(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Calibration:
    """Return the calibration that a model file holds, with the thresholds that were stored.

    A model of an older version stores none; then they are worked out. Stored ones are checked against the ranks of the
    scores and not worked out again: another version, or another processor, may round the fitted tail otherwise.

    Raises:
        ValueError: a threshold contradicts the scores, or is infinite.
    """
    facts = header.get("calibration", {})
    calibration = Calibration(
        tensors["calibration.scores"],
        tensors["calibration.peaks"],
        header["settings"]["false_alarm_rate"],
        facts.get("folds", 1),
        tensors.get("calibration.pictures"),
        **{name: facts[name] for name in OF_PARTS if name in facts},  # older models have none
    )
    if "threshold" in facts or "pixel_threshold" in facts:
        calibration = calibration.with_stored(facts.get("threshold", math.nan), facts.get("pixel_threshold", math.nan))
    if math.isinf(calibration.threshold) or math.isinf(calibration.pixel_threshold):
        raise ValueError("calibration.scores give an infinite threshold")
    return calibration


def read_state(state: State, contents: Contents) -> State:
    """Return the state of a model file, given that with its model, pictures and calibration.

    Raises:
        KeyError, TypeError, ValueError: a part is missing or does not fit.
    """
    header, tensors = contents
    taught = float(header["taught"]["threshold"]) if "taught" in header else None
    if taught is not None and not math.isfinite(taught):
        raise ValueError("taught.threshold (not a finite number)")
    steps_of(header)  # raises where they are damaged
    return replace(
        state,
        taught=taught,
        origin=header.get("taught", {}).get("by", "taught"),
        history=past_of(contents),
        drift=Reference.restored(tensors),
        header=header,
        capability=header.get("capability"),
        tuning=header["tuning"]["rows"] if "tuning" in header else None,
    )


def with_history(
    before: FitState[Any],
    contents_before: Contents,
    after: State,
    contents_after: Contents,
    what: str,
    pictures: Sequence[dict[str, Any]],
) -> State:
    """Return a changed state together with the step that led there, so that it can be undone to the byte.

    Args:
        before, after: the change.
        contents_before, contents_after: what the model file holds of them.
        what: was done, see `Step`.
        pictures: by which.
    """
    header, tensors = contents_before
    if before.header is not None:  # perhaps of another version, which wrote other keys
        header = {**before.header, **before.history[0]}
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    thresholds = (_number(before.threshold), _number(after.threshold))
    step = Step(what, when, __version__, pictures, (len(before), len(after)), thresholds)
    return replace(after, history=past_of(with_step((header, tensors), contents_after, step)))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no nan
