"""What a fit reports: what it read, what it chose, what that took."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from totalrecall.errors import PictureError, RepeatedPictureWarning, SkippedPictureWarning, UnlikePictureWarning
from totalrecall.pictures.copies import Repeat, repeats_note
from totalrecall.pictures.loading import LearntPicture
from totalrecall.pictures.unlike import PictureTally, mixed_notes
from totalrecall.system.memory import peak_memory

__all__ = ["FitReport", "Progress", "nothing_readable", "warn_of_fit"]

Progress = Callable[[str, int, int], None]  # (step, done, total)


@dataclass
class FitReport:
    """What a fit did and what it took.

    Attributes:
        pictures: read and learnt from; `calibration_pictures` of them also set the threshold.
        repeats: pictures that were left out because they repeat an earlier picture (see `copies`).
        patches: number gathered from them; `dimensions` of each; `vectors` were chosen.
        radius: covering radius of the coreset, in the projected space where there is one; with more than one chunk a
            bound of it, that of the merge and the largest chunk's together.
        chunks: number of parts in which the pictures were read; more than 1 only if memory did not hold all.
        seconds: wall time of each step. `decode` is the time of its threads, which run in parallel with `features`.
        peak_memory: bytes resident at most, by the operating system's count.
        scratch: bytes of scratch file.
        plan: what was expected, as JSON types.
        processes: of a fit on a cluster, each with its `role`, `node`, `pid` and `peak_memory` in bytes, which counts
            what it shares with others on its machine; none elsewhere.
    """

    pictures: int = 0
    repeats: list[Repeat] = field(default_factory=list)
    calibration_pictures: int = 0
    patches: int = 0
    dimensions: int = 0
    vectors: int = 0
    radius: float = 0.0
    chunks: int = 1
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0
    scratch: int = 0
    plan: dict[str, Any] = field(default_factory=dict)
    processes: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        """Add the time of a `with` block to a step."""
        began = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - began

    def finish(self, *, pictures: int, patches: int, bank: tuple[int, int], radius: float, scored: int) -> None:
        """Note what came out.

        Args:
            pictures: that were learnt; `scored` of them set the threshold.
            patches: of these pictures.
            bank: number of chosen vectors, and their dimensions.
            radius: covering radius of the choice.
            scored: see `pictures`.
        """
        self.pictures, self.calibration_pictures = pictures, scored
        self.patches, self.radius = patches, radius
        self.vectors, self.dimensions = bank
        self.peak_memory = peak_memory()


def warn_of_fit(
    report: FitReport,
    skipped: Sequence[PictureError],
    tally: PictureTally,
    pictures: Sequence[LearntPicture],
    given: int,
) -> None:
    """Warn of what a fit left out, and of pictures that are unlike the others; `fit` itself calls it.

    Args:
        report: of the fit.
        skipped: why pictures could not be used.
        tally: what was seen of the pictures.
        pictures: that were learnt.
        given: how many pictures were given.
    """
    if report.repeats:
        warnings.warn(repeats_note(report.repeats, given), RepeatedPictureWarning, stacklevel=3)
    if skipped:
        note = f"{len(skipped)} of {given} pictures were left out. The first: {skipped[0]}"
        warnings.warn(note, SkippedPictureWarning, stacklevel=3)
    tally.warn(stacklevel=3)
    for note in mixed_notes(pictures):
        warnings.warn(note, UnlikePictureWarning, stacklevel=3)


def nothing_readable(skipped: Sequence[PictureError]) -> str:
    """Say that no picture could be read, and why the first could not."""
    return f"None of the {len(skipped)} pictures could be read. The first: {skipped[0]}"
