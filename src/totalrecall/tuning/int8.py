"""A fit with a backbone of 8 bits, kept only if it finds about what the fit without them finds.

Three things are compared on the same good pictures: the order of their scores, each by a bank without it; how far the
threshold is above the median of these; and how many of the same planted defects score above each detector's threshold.

Why the threshold beside the planted defects: few of these score near it, because they are of many sizes and contrasts.
But real defects of a part often all do. Where two good pictures set the threshold and the rounding pushes just these
up, a defect that was as far above the median as the threshold is missed, though hardly any planted one was. On tires
the threshold rose by two fifths and 8 of 17 real defects were left; of 64 planted defects as many were found as before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from totalrecall.backbones.quantize import check_quantizable, quantize
from totalrecall.calibration import Calibration
from totalrecall.detectors.base import Detector
from totalrecall.detectors.fit_report import Progress
from totalrecall.detectors.measuring import OneBackbone
from totalrecall.errors import SettingError
from totalrecall.pictures.loading import Source, Sources, expand, load_picture, spread
from totalrecall.system.settings import declared
from totalrecall.tuning.thresholds import found_above

__all__ = ["LEAST_AGREEMENT", "MOST_LOST", "MOST_RISEN", "EightBits", "compare_int8", "fit_int8"]

LEAST_AGREEMENT = 0.8  # of the order of the good pictures' scores; bf16 and f32 agree by 0.90 on bottle and on tire
MOST_LOST = 0.05  # share of the planted defects
MOST_RISEN = (
    0.2  # of the threshold's distance from the median; f32 and bf16 differ by at most 10 percent on bottle and on tire
)
_PICTURES = 64  # that the scales are found on

Kind = TypeVar("Kind", bound=Detector[Any])


@dataclass(frozen=True)
class EightBits:
    """What the fit with 8 bits gave, beside the one without.

    Attributes:
        agreement: rank correlation (Spearman) of the good pictures' scores, -1 to 1; nan of fewer than three.
        planted: number of planted defects.
        found: of these, above the threshold of the detector of 8 bits.
        found_before: of these, above the threshold of the other.
        risen: by what share of it the threshold is farther above the median of the good pictures' scores than that of
            the other is, both as multiples of their median; below 0 where it is nearer.
    """

    agreement: float
    planted: int
    found: int
    found_before: int
    risen: float

    @property
    def kept(self) -> bool:
        """Whether the loss is within what is allowed."""
        lost = self.found_before - self.found
        few_lost = lost <= MOST_LOST * self.planted
        return self.agreement >= LEAST_AGREEMENT and few_lost and self.risen <= MOST_RISEN

    def in_words(self) -> str:
        """Return the figures for a person."""
        return (
            f"{self.found} of {self.planted} planted defects are found, {self.found_before} without 8 bits; the order "
            f"of the good pictures' scores agrees by {self.agreement:.2f}; the threshold is {abs(self.risen):.0%} "
            f"{'farther above' if self.risen > 0 else 'nearer to'} the median of these"
        )


def fit_int8(
    detector: Kind,
    pictures: Sources,
    *,
    memory: int | str | None = None,
    announce: Callable[[Any], None] | None = None,
    progress: Progress | None = None,
) -> tuple[Kind, EightBits]:
    """Fit twice, without and with a backbone of 8 bits; return the detector with them, and what it lost.

    Args:
        detector: not fitted, of any precision but int8; it is fitted first.
        pictures: good pictures, as for `fit`.
        memory, announce, progress: as for `fit`.

    Raises:
        SettingError: the loss is larger than is allowed, or the backbone cannot have 8 bits; or there are several.
        MissingExtraError: the package nncf is not installed.
        DataError: as for `fit`; or no defect could be planted.
    """
    other, compared = compare_int8(detector, pictures, memory=memory, announce=announce, progress=progress)
    if not compared.kept:
        raise SettingError(
            f"precision int8 loses too much on these parts: {compared.in_words()}. Allowed are {MOST_LOST:.0%} of the "
            f"planted defects, an agreement of at least {LEAST_AGREEMENT:g}, and a threshold at most {MOST_RISEN:.0%} "
            "farther above. Use precision auto.",
            "precision",
        )
    return other, compared


def compare_int8(
    detector: Kind,
    pictures: Sources,
    *,
    memory: int | str | None = None,
    announce: Callable[[Any], None] | None = None,
    progress: Progress | None = None,
) -> tuple[Kind, EightBits]:
    """Do as `fit_int8` does, and return the detector with 8 bits whatever it lost."""
    if not isinstance(detector, OneBackbone):
        raise SettingError(
            "precision int8 is for one backbone at one size. Give one --backbone and one --size.", "precision"
        )
    check_quantizable(detector.backbone)
    sources = expand(pictures)
    fit: Any = detector.fit  # its keywords are those of every kind
    fit(sources, memory=memory, announce=announce, progress=progress)
    if math.isnan(detector.threshold_):
        raise SettingError(
            "precision int8 is compared with more bits at their thresholds, and these pictures give none. "
            "Give more good pictures, or use precision auto.",
            "precision",
        )
    backbone = quantize(detector.backbone, detector.extractor.layers, _prepared(detector, sources))
    values = {name: getattr(detector.settings, name) for name in declared(type(detector.settings))}
    make: Any = type(detector)
    other: Kind = make(**values | {"backbone": backbone, "precision": "int8"})
    fit = other.fit
    fit(sources, memory=memory, progress=progress)
    return other, _compared(detector, other, sources)


def _prepared(detector: Detector[Any], sources: list[Source] | Any) -> list[np.ndarray]:
    """Return what the backbone sees of some of the pictures, each (height, width, 3)."""
    pieces: list[np.ndarray] = []
    for source in spread(sources, _PICTURES):
        loaded = load_picture(source, detector.recipe)
        if loaded.prepared is not None:  # the fit named the others
            pieces += detector.extractor.pieces(loaded.prepared)
    return pieces[:: -(-len(pieces) // _PICTURES) or 1]


def _compared(before: Detector[Any], after: Detector[Any], sources: Any) -> EightBits:
    found_before, planted = found_above(before, sources, [before.threshold_], seed=before.settings.seed)
    found, _ = found_above(after, sources, [after.threshold_], seed=before.settings.seed)
    agreement = _agreement(before.calibration_, after.calibration_)
    risen = _risen(before.calibration_, after.calibration_)
    return EightBits(agreement, planted, found[0], found_before[0], risen)


def _risen(one: Calibration, other: Calibration) -> float:
    """Return by what share the other's threshold is farther above the median score; 0 where neither is above it.

    Each counts in its own median, because the rounding may change the unit of all distances.
    """
    before, after = (
        max(calibration.threshold / max(float(np.median(calibration.scores)), 1e-12) - 1, 0.0)
        for calibration in (one, other)
    )
    if before > 0:
        return after / before - 1
    return math.inf if after > 0 else 0.0


def _agreement(one: Calibration, other: Calibration) -> float:
    """Return the rank correlation of the scores of the pictures that both have."""
    assert one.pictures is not None
    assert other.pictures is not None  # of a fit, not of an old model
    _, at, there = np.intersect1d(one.pictures, other.pictures, return_indices=True)
    if len(at) < 3:
        return float("nan")
    first, second = (np.argsort(np.argsort(scores)) for scores in (one.scores[at], other.scores[there]))
    return float(np.corrcoef(first, second)[0, 1])
