"""What an update of a model is told as, and what joining and leaving a PatchCore model share.

Pictures join it by `joining` and leave it by `leaving`, without those that it was fitted on. PaDiM and SPADE have
`growing` for that.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from totalrecall.errors import PictureError
from totalrecall.evidence import Recalibration
from totalrecall.types import Patches

if TYPE_CHECKING:
    from totalrecall.detector import PatchCore

__all__ = ["Change", "Changed", "added_vectors", "recalibration_of"]


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


def recalibration_of(detector: "PatchCore") -> Recalibration:
    """Return the detector's calibration as the fit left it, to follow the bank from there."""
    pictures = detector.pictures_
    return Recalibration(
        detector.calibration_,
        detector._evidence,
        score_of=lambda grid, at: detector._score_of(grid, pictures[at]),
        level_of=lambda grid, at: detector._level_of(grid, pictures[at]),
    )


def added_vectors(detector: "PatchCore") -> Patches:
    """Return the vectors (v, d) that joined after the fit."""
    bank = detector.bank_
    return bank.vectors[bank.origin[:, 0] >= detector._covered().pictures]
