"""What a change of a model is reported as, and what all changes share: who joins, who leaves, what a defect teaches."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.errors import PictureError
from totalrecall.scoring import judged

__all__ = ["Change", "Changed", "Lesson", "catching_threshold", "lessons"]


@dataclass(frozen=True)
class Changed:
    """A picture that joined or left.

    Attributes:
        path, sha256: of its file.
        vectors: that entered or left; `forced` of them entered for the picture to pass, though within the radius. 1 in
            models without a bank.
        before, after: its score; nan for one that left.
    """

    path: str
    sha256: str
    vectors: int
    forced: int = 0
    before: float = math.nan
    after: float = math.nan

    def note(self) -> dict[str, Any]:
        """Return what the history keeps of it."""
        return {"path": self.path, "sha256": self.sha256, "vectors": self.vectors}


@dataclass(frozen=True)
class Change:
    """What an update did.

    Attributes:
        what: `add`, `remove` or `threshold`; `undo` where removing the pictures of the last update took it back.
        pictures: that joined or left.
        known: paths that were left out, being in the model already.
        skipped: why pictures could not be used.
        vectors, threshold: of the bank, and of the detector, before and after; of a kind without a bank, pictures.
        lowest: what the threshold cannot be below, by what the model keeps of its good pictures; where that is the
            threshold itself, it is known to a percent.
        recalibrated: whether the model keeps anything of them, so that the threshold could follow.
        estimated: whether pictures of the fit left, so that it could follow by estimate only.
    """

    what: str
    pictures: Sequence[Changed]
    known: Sequence[str] = ()
    skipped: Sequence[PictureError] = field(default_factory=list)
    vectors: tuple[int, int] = (0, 0)
    threshold: tuple[float, float] = (math.nan, math.nan)
    lowest: float = math.nan
    recalibrated: bool = True
    estimated: bool = False

    @property
    def still_anomalous(self) -> int | None:
        """How many of the pictures that joined score above the threshold all the same; None where there is none."""
        if math.isnan(self.threshold[1]):
            return None
        return sum(one.after > self.threshold[1] for one in self.pictures)

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON types; nan stays."""
        facts = asdict(replace(self, skipped=()))
        skipped = [str(error) for error in self.skipped]
        return {**facts, "still_anomalous": self.still_anomalous, "skipped": skipped}


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
