"""What a fit does about good pictures that are unlike the others, or of the same part: says so, or acts on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.outliers.explain import standing_out
from totalrecall.pictures.loading import LearntPicture
from totalrecall.system.text import listed

__all__ = ["Bar", "bar_of", "outlier_note", "repeated_note", "unlike_the_others"]

_LEAST_JUDGED = 8  # pictures: of fewer each sets the threshold
_MANY = 0.2  # of the pictures that show a part once more: worth a word
_BAR = 0.85  # of the threshold: without one or two pictures it would be under this share, so they set it


def unlike_the_others(calibration: Calibration, pictures: Sequence[LearntPicture]) -> list[str]:
    """Return the paths of good pictures that a bank without them explains badly, the worst first.

    The limit is that of an audit, which has other levels: there a picture is held against its like.
    """
    if calibration.pictures is None:
        return []
    return [pictures[int(calibration.pictures[at])].path for at in standing_out(calibration.scores)]


def outlier_note(names: Sequence[str], total: int) -> str:
    """Say which good pictures are unlike the others, and what to do about it."""
    single = len(names) == 1
    return (
        f"{len(names)} of {total} good pictures {'is' if single else 'are'} unlike the others: {listed(names, 3)}. "
        f"Look at {'it' if single else 'them'} with `totalrecall audit`; --ignore-outliers leaves "
        f"{'its' if single else 'their'} bad patches out."
    )


@dataclass(frozen=True)
class Bar:
    """One or two good pictures that set the threshold alone.

    Attributes:
        pictures: their paths, the highest score first.
        threshold: as it is; `without` is what it would be without them.
    """

    pictures: tuple[str, ...]
    threshold: float
    without: float

    def in_words(self, found: Sequence[int] = (), planted: int = 0) -> str:
        """Say it, what to do, and what the two thresholds find of defects that are planted on good pictures.

        Args:
            found: planted defects above `threshold`, and above `without`; nothing where none were planted.
            planted: how many there were.
        """
        which, them = ("one good picture", "it") if len(self.pictures) == 1 else ("two good pictures", "them")
        what = ""
        if planted:
            now, then = found
            what = (
                f" Of {planted} defects planted on good pictures, {now} are above the threshold and {then} above the "
                "other one."
            )
        return (
            f"The threshold is set by {which}: {', '.join(self.pictures)}. Without {them} it would be "
            f"{self.without:.4g}, not {self.threshold:.4g}.{what} Look at {them}: a defect among the good pictures "
            "would hide others."
        )


def bar_of(calibration: Calibration, pictures: Sequence[LearntPicture]) -> Bar | None:
    """Return the one or two good pictures that set the threshold alone; None where none does."""
    order = np.argsort(-calibration.scores, kind="stable")
    if calibration.pictures is None or len(order) < _LEAST_JUDGED:
        return None
    for count in (1, 2):
        without = replace(calibration, scores=calibration.scores[order[count:]]).threshold
        if without < _BAR * calibration.threshold:
            paths = tuple(pictures[int(calibration.pictures[at])].path for at in order[:count])
            return Bar(paths, calibration.threshold, without)
    return None


def repeated_note(calibration: Calibration) -> str | None:
    """Say what it means for the stated rate that many pictures show the same parts; None where it is not worth a word.

    Where the photographs of a part were held out together (`new_parts`) it means nothing.
    """
    pictures, parts = calibration.shown_by, calibration.parts
    if calibration.new_parts or parts is None or pictures - parts < _MANY * pictures:
        return None
    return (
        f"{pictures} good pictures seem to show {parts} parts, many of them several times. The stated false-alarm rate "
        "is for more pictures of these parts. If others are to come, fit with --new-parts: otherwise many more of them "
        "will be called anomalous."
    )
