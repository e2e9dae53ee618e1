"""A detector on labelled pictures: one pass, the metrics of pictures and of pixels, and what could not be used."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from totalrecall.datasets import FrameMask, MaskSource, Sample
from totalrecall.datasets.base import open_array
from totalrecall.datasets.overlap import learnt_note
from totalrecall.errors import DataError, LearntPictureWarning, PictureError
from totalrecall.evaluation import metrics
from totalrecall.pictures.geometry import Geometry
from totalrecall.pictures.masks import read_mask
from totalrecall.system.text import counted
from totalrecall.types import AnomalyMap, Mask

__all__ = [
    "BadPicture",
    "Evaluation",
    "Judged",
    "Placed",
    "Scored",
    "Scorer",
    "evaluate",
    "read_defect_mask",
    "seen_pixels",
]


@runtime_checkable
class Scored(Protocol):
    """What is looked at in a detector's result."""

    @property
    def score(self) -> float: ...

    @property
    def anomaly_map(self) -> AnomalyMap: ...


@runtime_checkable
class Judged(Scored, Protocol):
    """A result with a verdict; None where there is no threshold."""

    @property
    def is_anomalous(self) -> bool | None: ...


@runtime_checkable
class Placed(Scored, Protocol):
    """A result that says which part of the picture the detector saw."""

    @property
    def geometry(self) -> Geometry: ...


@runtime_checkable
class Scorer(Protocol):
    """A detector: one outcome for each path, in order; a picture that cannot be used comes as its error."""

    def predict_stream(self, paths: Iterable[Path], /) -> Iterator[Scored | PictureError]: ...


@dataclass(frozen=True)
class BadPicture:
    """A picture, or its mask, that could not be used, and why in one line."""

    path: Path
    message: str


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one evaluation; `nan` where there is nothing to measure, and `reasons` then says why.

    `defect_auroc` is the image AUROC of each defect alone against all good pictures. `images` counts the pictures
    scored, `pixel_images` those of them in the pixel metrics. `pixel_error` bounds the error of the pixel metrics (see
    `metrics.PixelMetrics`). `image_f1` is reached by `score > image_f1_threshold`.

    At the detector's own threshold `found` of `defects` were called anomalous, and `false_alarms` of `good`; None where
    it gave no verdict at all. `no_verdict` pictures got none.
    """

    image_auroc: float
    image_f1: float
    pixel_auroc: float
    pixel_aupro: float
    images: int
    seconds: float
    image_average_precision: float = math.nan
    image_f1_threshold: float = math.nan
    pixel_average_precision: float = math.nan
    pixel_images: int = 0
    pixel_error: dict[str, float] = field(default_factory=dict)
    defect_auroc: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    bad: tuple[BadPicture, ...] = ()
    found: int | None = None
    defects: int = 0
    false_alarms: int | None = None
    good: int = 0
    no_verdict: int = 0

    def verdicts_in_words(self, at: str = "the model's threshold") -> str:
        """Say in a line how many defects the detector's own threshold found, and how many good pictures it called.

        Args:
            at: what that threshold is called.
        """
        defects = counted(self.defects, "defect")
        if self.found is None or self.false_alarms is None:
            return f"no verdicts ({defects}, {counted(self.good, 'good picture')}): the model has no threshold"
        unjudged = f", {self.no_verdict} without a verdict" if self.no_verdict else ""
        return (
            f"found {self.found} of {defects}, {counted(self.false_alarms, 'false alarm')} "
            f"among {counted(self.good, 'good picture')}"
            f"{unjudged} (at {at})"
        )

    def to_json(self) -> dict[str, object]:
        """Return a dictionary that is valid JSON once dumped: `nan` is null, a path is text."""
        return {
            "image_auroc": _null(self.image_auroc),
            "image_f1": _null(self.image_f1),
            "pixel_auroc": _null(self.pixel_auroc),
            "pixel_aupro": _null(self.pixel_aupro),
            "images": self.images,
            "seconds": self.seconds,
            "found": self.found,
            "defects": self.defects,
            "false_alarms": self.false_alarms,
            "good": self.good,
            "no_verdict": self.no_verdict,
            "image_average_precision": _null(self.image_average_precision),
            "image_f1_threshold": _null(self.image_f1_threshold),
            "pixel_average_precision": _null(self.pixel_average_precision),
            "pixel_images": self.pixel_images,
            "pixel_error": {name: _null(bound) for name, bound in self.pixel_error.items()},
            "defect_auroc": {name: _null(value) for name, value in self.defect_auroc.items()},
            "reasons": dict(self.reasons),
            "bad": [{"path": str(bad.path), "message": bad.message} for bad in self.bad],
        }


def evaluate(
    detector: Scorer,
    samples: Sequence[Sample],
    *,
    seen_only: bool = False,
    progress: Callable[[int, int], object] | None = None,
    heard: Callable[[Sample, Any], object] | None = None,
) -> Evaluation:
    """Score every sample and return the metrics; a picture or mask that cannot be used is named in `bad`, not raised.

    Args:
        detector: anything with `predict_stream`.
        samples: labelled pictures, as `DataSet.test` gives them.
        seen_only: measure pixels only where a crop showed the picture, as the PatchCore paper does. A defect that the
            crop hides altogether then leaves a good picture to the pixel metrics; to those of pictures it stays bad.
        progress: called as `progress(done, total)` after each picture.
        heard: called with each sample and its result, or the `PictureError` of a picture that cannot be read.

    Raises:
        DataError: there are no samples.

    Warns:
        LearntPictureWarning: some of the samples are pictures that the detector learnt, by path or by their bytes.
    """
    if not samples:
        raise DataError("There are no pictures to evaluate on. Check that the data set has pictures to test on.")
    note = learnt_note(getattr(detector, "pictures_", ()), samples)
    if note:
        warnings.warn(note, LearntPictureWarning, stacklevel=2)
    start = time.perf_counter()
    pixels = metrics.PixelMetrics()
    scored: list[tuple[Sample, float]] = []
    verdicts: list[tuple[int, bool | None]] = []
    bad: list[BadPicture] = []
    outcomes = detector.predict_stream(sample.path for sample in samples)
    for done, (sample, outcome) in enumerate(zip(samples, outcomes, strict=True), start=1):
        if heard is not None:
            heard(sample, outcome)
        if isinstance(outcome, PictureError):
            bad.append(BadPicture(sample.path, str(outcome)))
        else:
            scored.append((sample, float(outcome.score)))
            verdicts.append((sample.label, outcome.is_anomalous if isinstance(outcome, Judged) else None))
            try:
                found = seen_pixels(sample, outcome, seen_only=seen_only)
                if found is not None:
                    pixels.add(*found)
            except DataError as error:
                bad.append(BadPicture(sample.path, str(error)))  # its score still counts, its pixels cannot
        if progress is not None:
            progress(done, len(samples))
    return replace(_summary(scored, pixels, bad, start), **_counted(verdicts))


def read_defect_mask(source: MaskSource, shape: tuple[int, int]) -> Mask:
    """Return where a mask marks a defect, in pixels of its picture.

    Args:
        source: a picture file, read by the rule of `masks`; several, of which each marks some of the defects; or a
            frame of an array, where all but 0 is marked.
        shape: height and width of the picture.

    Raises:
        DataError: the mask cannot be read or understood, or is not of the picture's size.
    """
    if isinstance(source, tuple):
        return np.logical_or.reduce([read_defect_mask(part, shape) for part in source])
    if isinstance(source, FrameMask):
        path, mask = source.path, _read_frame(source)
    else:
        try:
            path, mask = source, read_mask(source)
        except (PictureError, DataError) as error:
            raise DataError(f"The mask cannot be used: {error}") from None
    if mask.shape != tuple(shape):
        raise DataError(
            f"The mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels, its picture {shape[1]} x {shape[0]}. "
            "They must be of one size: restore the mask or the picture."
        )
    return mask


def _read_frame(source: FrameMask) -> Mask:
    try:
        frames = open_array(source.path)  # the one frame is read, not the whole video
        frame = np.array(frames[source.frame])
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise DataError(f"Cannot read frame {source.frame} of {source.path}: {error}. Restore the file.") from None
    if frame.ndim != 2 or frame.dtype.kind not in "bui":
        raise DataError(
            f"The masks {source.path} must be an array (frames, height, width) of integers, got {frames.shape} "
            f"{frames.dtype}. Restore the file."
        )
    return np.asarray(frame != 0)


def seen_pixels(sample: Sample, result: Scored, *, seen_only: bool) -> tuple[AnomalyMap, Mask] | None:
    """Return a picture's map and defects as they are measured, None where nobody knows where its defects are.

    An anomalous picture without a mask, or with an empty one (four of MT_Uneven), has a defect that nobody has marked.
    Taken as good all over, a map that finds the defect would be counted as a false alarm; so it stays out.

    Args:
        sample: the picture.
        result: what a detector said of it.
        seen_only: see `evaluate`.

    Raises:
        DataError: the mask cannot be used.
    """
    anomaly_map = result.anomaly_map
    if sample.label == 0:
        mask = np.zeros(anomaly_map.shape, bool)
    elif sample.mask is None:
        return None
    else:
        mask = read_defect_mask(sample.mask, anomaly_map.shape)
        if not mask.any():
            return None
    if seen_only and isinstance(result, Placed):
        seen = result.geometry.seen
        return np.ascontiguousarray(anomaly_map[seen]), np.ascontiguousarray(mask[seen])
    return anomaly_map, mask


def _summary(
    scored: list[tuple[Sample, float]], pixels: metrics.PixelMetrics, bad: list[BadPicture], start: float
) -> Evaluation:
    labels = [sample.label for sample, _ in scored]
    scores = [score for _, score in scored]
    image_f1, threshold = metrics.f1_max(labels, scores)
    reasons = {"image": metrics.reason(labels, scores), "pixel": pixels.reason}
    return Evaluation(
        image_auroc=metrics.auroc(labels, scores),
        image_f1=image_f1,
        pixel_auroc=pixels.auroc(),
        pixel_aupro=pixels.aupro(),
        images=len(scored),
        image_average_precision=metrics.average_precision(labels, scores),
        image_f1_threshold=threshold,
        pixel_average_precision=pixels.average_precision(),
        pixel_images=pixels.maps,
        pixel_error=pixels.error_bounds(),
        defect_auroc=_by_defect(scored),
        reasons={name: why for name, why in reasons.items() if why},
        bad=tuple(bad),
        seconds=time.perf_counter() - start,
    )


def _counted(verdicts: Sequence[tuple[int, bool | None]]) -> dict[str, Any]:
    """Return how many verdicts on pictures of label 0 and 1 were which, as `Evaluation` has them."""
    good, defects = ([verdict for label, verdict in verdicts if label == wanted] for wanted in (0, 1))
    given = any(verdict is not None for _, verdict in verdicts)
    return {
        "found": sum(verdict is True for verdict in defects) if given else None,
        "defects": len(defects),
        "false_alarms": sum(verdict is True for verdict in good) if given else None,
        "good": len(good),
        "no_verdict": sum(verdict is None for _, verdict in verdicts),
    }


def _by_defect(scored: list[tuple[Sample, float]]) -> dict[str, float]:
    """Return the image AUROC of each defect against all good pictures, by the defect's name."""
    good = [score for sample, score in scored if sample.label == 0]
    values = {}
    for defect in sorted({sample.defect for sample, _ in scored if sample.label == 1}):
        found = [score for sample, score in scored if sample.label == 1 and sample.defect == defect]
        values[defect] = metrics.auroc([0] * len(good) + [1] * len(found), good + found)
    return values


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None
