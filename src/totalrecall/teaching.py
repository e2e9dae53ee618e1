"""A defect that was missed: which threshold would have caught it, and what that costs in false alarms."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.results import judged

__all__ = ["Lesson", "catching_threshold", "lessons"]


@dataclass(frozen=True)
class Lesson:
    """What a known defect tells.

    Attributes:
        path: of the picture; `sha256` of its file.
        score: Euclidean distance, as `Result` has it.
        p_value: share of good pictures expected to score at least this high; nan if not calibrated.
        caught: whether it is above the threshold as it is; None where there is no threshold.
        threshold: the highest that it is above.
        false_alarm_rate: share of good pictures expected above that; an estimate where it is below the calibration's
            floor, nan if not calibrated.
    """

    path: str
    sha256: str
    score: float
    p_value: float
    caught: bool | None
    threshold: float
    false_alarm_rate: float

    def to_json(self) -> dict[str, Any]:
        """Return the lesson as JSON types."""
        return asdict(self)


def catching_threshold(scores: Sequence[float]) -> float:
    """Return the highest threshold that all these scores are above."""
    return float(np.nextafter(min(scores), -np.inf))


def lessons(pictures: Sequence[tuple[str, str, float]], calibration: Calibration, threshold: float) -> list[Lesson]:
    """Return what known defects tell.

    Args:
        pictures: path, SHA-256 and score of each.
        calibration: of the detector that scored them, and its threshold as it is.
    """
    told = []
    for path, digest, score in pictures:
        needed = catching_threshold([score])
        rate = calibration.expected_rate(needed)
        told.append(Lesson(path, digest, score, calibration.p_value(score), judged(score, threshold), needed, rate))
    return told
