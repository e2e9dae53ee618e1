"""The page of a gauge study, for the screen and for paper."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from totalrecall.reports.page import number, render, write_page
from totalrecall.station.quality.agreement import Share, percent
from totalrecall.station.quality.study import Gauge, JudgedPart

__all__ = ["study_html", "write_study"]

_HEADS = ("figure", "share", "95 % interval")
_KAPPA_HEADS = ("kappa", "value", "95 % interval", "agreed")
_PART_HEADS = ("part", "truth", "verdicts", "scores from", "to", "wrong runs")
_TEMPLATE = "study.html"
_ABOUT = (
    "Effectiveness: parts that are judged right in every run. Miss: a defect that passes. False alarm: a good part "
    "that does not. Limits of AIAG, Measurement Systems Analysis, 4th edition: effectiveness 90 % (marginal 80 %), "
    "misses 2 % (5 %), false alarms 5 % (10 %). Intervals: Clopper and Pearson 1934."
)
_ABOUT_KAPPA = (
    "Cohen's kappa is 1 for full agreement and 0 for that of chance; above 0.75 is good, below 0.40 poor. Standard "
    "error: Fleiss, Cohen and Everitt 1969. Where all agree, the lower end is that of the share of agreement."
)


@dataclass(frozen=True)
class _StripPlot:
    """The scores of each part as dots above its place, with the threshold.

    Attributes:
        parts: the good ones first.
        threshold: marked by a line.
        words: what is read aloud in its place.
    """

    parts: Sequence[JudgedPart]
    threshold: float
    words: str
    left: int = 46
    top: int = 18
    width: int = 900
    height: int = 260

    def dots(self) -> list[tuple[str, float, float]]:
        """Return kind, x and y of each score."""
        return [
            (part.truth, self._across(at), self.at(score))
            for at, part in enumerate(self.parts)
            for score in part.scores
        ]

    def spans(self) -> list[tuple[float, float, float]]:
        """Return x and both ends of the line that joins a part's scores."""
        return [
            (self._across(at), self.at(min(part.scores)), self.at(max(part.scores)))
            for at, part in enumerate(self.parts)
        ]

    def at(self, score: float) -> float:
        """Return the place of a score, from the top; the axis is one of ratios where all scores are above 0."""
        low, high = self.ends
        share = math.log(score / low) / math.log(high / low) if low > 0 else (score - low) / (high - low)
        return self.top + (1 - share) * self.height

    @property
    def ends(self) -> tuple[float, float]:
        """The scores at both ends of the axis."""
        scores = [self.threshold, *(score for part in self.parts for score in part.scores)]
        if min(scores) > 0:
            return min(scores) / 1.05, max(scores) * 1.05
        margin = 0.05 * ((max(scores) - min(scores)) or 1.0)
        return min(scores) - margin, max(scores) + margin

    @property
    def border(self) -> float:
        """Between the good parts and the others, from the left."""
        good = sum(part.truth == "good" for part in self.parts)
        return self._across(good - 0.5)

    def _across(self, at: float) -> float:
        return self.left + (at + 0.5) * (self.width - self.left) / len(self.parts)


def study_html(study: Gauge, *, facts: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """Return the page; arguments as for `write_study`."""
    return str(render(_TEMPLATE, _values(study, facts, notes)))


def write_study(path: str | Path, study: Gauge, *, facts: Mapping[str, str], notes: Sequence[str] = ()) -> Path:
    """Write the page and return its path.

    Args:
        path: the HTML file; its folder is made.
        study: that was made.
        facts: of the model and the day, in a table at the foot.
        notes: sentences under the title, before the study's own.

    Raises:
        DataError: the folder cannot be made or written.
    """
    return write_page(path, _TEMPLATE, _values(study, facts, notes))


def _values(study: Gauge, facts: Mapping[str, str], notes: Sequence[str]) -> dict[str, object]:
    good, defects = len(study.of("good")), len(study.of("defect"))
    words = f"Scores of {good} good parts and {defects} defective ones in {study.runs} runs"
    words += f", threshold {study.threshold:.4g}"
    return {
        "title": "Gauge study",
        "notes": [*notes, *study.notes],
        "numbers": {
            "parts": str(len(study.parts)),
            "good": str(good),
            "defective": str(defects),
            "runs": str(study.runs),
            "threshold": number(study.threshold),
        },
        "ratings": study.ratings(),
        "sentences": study.sentences(),
        "heads": _HEADS,
        "rows": _rows(study),
        "about": _ABOUT,
        "kappa_heads": _KAPPA_HEADS,
        "kappas": _kappas(study),
        "about_kappa": _ABOUT_KAPPA,
        "plot": _StripPlot(study.parts, study.threshold, words),
        "part_heads": _PART_HEADS,
        "parts": [_part(part) for part in study.parts],
        "facts": dict(facts),
    }


def _rows(study: Gauge) -> list[list[str]]:
    figures = {
        "right in every run (effectiveness), by parts": study.effectiveness,
        "same verdict in every run, by parts": study.steady,
        "misses, by decisions": study.decisions("defect"),
        "missed in any run, by defective parts": study.parts_wrong("defect"),
        "false alarms, by decisions": study.decisions("good"),
        "rejected in any run, by good parts": study.parts_wrong("good"),
    }
    return [[name, *_cells(share)] for name, share in figures.items()]


def _cells(share: Share) -> list[str]:
    if not share.total:
        return ["–", "–"]
    return [
        f"{share.count} of {share.total}, {percent(share.value)}",
        f"{percent(share.low)} to {percent(share.high)}",
    ]


def _kappas(study: Gauge) -> list[list[str]]:
    named = [(f"run {one} and run {other}", kappa) for one, other, kappa in study.kappa_of_runs()]
    named += [(f"run {run} and the truth", kappa) for run, kappa in enumerate(study.kappa_of_truth(), start=1)]
    return [
        [
            name,
            number(kappa.value, 2),
            f"{number(kappa.low, 2)} to {number(kappa.high, 2)}",
            f"{kappa.agreed} of {kappa.total}",
        ]
        for name, kappa in named
    ]


def _part(part: JudgedPart) -> list[str]:
    counts = {verdict: part.verdicts.count(verdict) for verdict in dict.fromkeys(part.verdicts)}
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    ends = [number(min(part.scores)), number(max(part.scores))]
    return [part.name, part.truth, verdicts, *ends, str(part.wrong)]
