"""What a fit reports: what it read, what it chose, what that took."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from totalrecall.errors import PictureError
from totalrecall.pictures.copies import Repeat
from totalrecall.system.memory import peak_memory

__all__ = ["FitReport", "Progress", "nothing_readable"]

Progress = Callable[[str, int, int], None]  # (step, done, total)


@dataclass
class FitReport:
    """What a fit did and what it took.

    Attributes:
        pictures: read and learnt from; `calibration_pictures` of them also set the threshold.
        repeats: pictures that were left out, being the same as an earlier one (see `copies`).
        patches: gathered from them, of `dimensions` numbers each; `vectors` were chosen.
        radius: covering radius of the coreset, in the projected space where there is one; with more than one chunk a
            bound of it, that of the merge and the largest chunk's together.
        chunks: in how many the pictures were taken; more than one only where memory did not hold them all.
        seconds: wall time by step. `decode` is the threads' own time; it runs beside `features`, not before it.
        peak_memory: bytes resident at most, by the operating system's count.
        scratch: bytes of scratch file.
        plan: what was expected, as JSON types.
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
            bank: how many vectors were chosen, of how many numbers each.
            radius: covering radius of the choice.
            scored: see `pictures`.
        """
        self.pictures, self.calibration_pictures = pictures, scored
        self.patches, self.radius = patches, radius
        self.vectors, self.dimensions = bank
        self.peak_memory = peak_memory()


def nothing_readable(skipped: Sequence[PictureError]) -> str:
    """Say that no picture could be read, and why the first could not."""
    return f"None of the {len(skipped)} pictures could be read. The first: {skipped[0]}"
