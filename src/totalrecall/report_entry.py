"""One picture's row in a report: what was said of it, what is known of it, and both in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from totalrecall.bit_depth import BitDepth
from totalrecall.report_page import text
from totalrecall.results import Result
from totalrecall.types import Image

__all__ = ["ReportEntry", "counts", "short_name", "truth", "verdict"]


@dataclass(frozen=True)
class ReportEntry:
    """One picture's row.

    Attributes:
        path: the picture's file.
        score: bigger is more anomalous.
        threshold: the verdict's threshold; None if there is none.
        is_anomalous: the verdict; None without a threshold.
        p_value: share of good pictures expected to score at least this high; None if unknown.
        regions_count: number of regions above the pixel threshold.
        overlay: the overlay, as pixels, as a JPEG's bytes, or the file that `save_overlay` wrote; None shows none.
        label: 0 good, 1 anomalous, None unknown.
        nearest: the good picture that the worst patch was nearest to.
        worst: x and y of the worst patch, in the picture's pixels; None shows no patches.
        nearest_at: x and y of the good patch, in pixels of `nearest`; None shows no patches.
        nearest_file: of `nearest`, which is opened; None shows no patches, and says in the page why.
        good_named: whether a folder was named to find it in.
        defect: the name of what is wrong with an anomalous picture, as its data set has it.
        depth: of the model, which 16-bit pictures are shown by.
    """

    path: str | Path
    score: float
    threshold: float | None
    is_anomalous: bool | None
    p_value: float | None = None
    regions_count: int = 0
    overlay: Image | Path | bytes | None = None
    label: int | None = None
    nearest: str | None = None
    worst: tuple[int, int] | None = None
    nearest_at: tuple[int, int] | None = None
    nearest_file: str | Path | None = None
    good_named: bool = True
    defect: str | None = None
    depth: BitDepth | None = None

    @classmethod
    def of(
        cls,
        result: Result,
        *,
        overlay: Image | Path | bytes | None = None,
        label: int | None = None,
        defect: str | None = None,
    ) -> "ReportEntry":
        """Return the row of a result; it holds nothing large of it."""
        judged, nearest = math.isfinite(result.threshold), result.nearest
        return cls(
            result.path,
            result.score,
            result.threshold if judged else None,
            result.is_anomalous,
            p_value=result.p_value,
            regions_count=len(result.regions),
            overlay=overlay,
            label=label,
            nearest=None if nearest is None else nearest.path,
            worst=result.worst,
            nearest_at=None if nearest is None else (nearest.x, nearest.y),
            defect=defect,
        )

    @property
    def missed(self) -> bool:
        """Whether it is a defect that was judged good."""
        return self.label == 1 and self.is_anomalous is False

    @property
    def false_alarm(self) -> bool:
        """Whether it is a good picture that was judged defective."""
        return self.label == 0 and self.is_anomalous is True


def short_name(path: str | Path) -> str:
    """Return the file's name with its folder, which in many layouts says what the picture is."""
    return "/".join(Path(path).parts[-2:]) or str(path)


def verdict(entry: ReportEntry) -> str:
    """Return the verdict as a shape, a word and a colour, so that none of them is needed alone."""
    if entry.is_anomalous is None:
        return '<span class="verdict unsure"><span aria-hidden="true">■</span> no verdict</span>'
    kind, shape, word = ("bad", "▲", "DEFECT") if entry.is_anomalous is True else ("fine", "●", "GOOD")
    wrong = "false alarm" if entry.false_alarm else "missed" if entry.missed else ""
    mark = f' <span class="wrong">{wrong}</span>' if wrong else ""
    return f'<span class="verdict {kind}"><span aria-hidden="true">{shape}</span> {word}</span>{mark}'


def truth(entry: ReportEntry) -> str:
    """Return what is known of a picture: good, the name of its defect, or a dash."""
    if entry.label == 1:
        return text(entry.defect or "defective")
    return "–" if entry.label is None else "good"


def counts(entries: Sequence[ReportEntry], bad_files: int) -> dict[str, str]:
    """Return the numbers of pictures, of verdicts, and of those that were wrong, name by name."""
    found = {"pictures": str(len(entries))}
    if any(entry.is_anomalous is not None for entry in entries):
        found["judged defective"] = str(sum(entry.is_anomalous is True for entry in entries))
        found["judged good"] = str(sum(entry.is_anomalous is False for entry in entries))
    unjudged = sum(entry.is_anomalous is None for entry in entries)
    if unjudged:
        found["no verdict"] = str(unjudged)
    if any(entry.label is not None and entry.is_anomalous is not None for entry in entries):
        found["missed defects"] = str(sum(entry.missed for entry in entries))
        found["false alarms"] = str(sum(entry.false_alarm for entry in entries))
    if bad_files:
        found["unreadable"] = str(bad_files)
    return found
