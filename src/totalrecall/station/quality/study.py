"""A gauge study: is the inspection fit to decide? An attribute agreement analysis with its repeatability.

Every part is put under the camera several times, and its pictures are judged as on the line. The study says how far
the scores of one part lie apart, whether a part always gets the same verdict, how many defects are missed and good
parts rejected, and how far verdicts agree with each other and with the truth beyond chance.

What is asked of a gauge is what AIAG's "Measurement Systems Analysis" (4th edition, 2010, chapter III, section C) asks
of a person who inspects: effectiveness, miss rate, false alarm rate, and kappa.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.station.quality.agreement import Kappa, Share, kappa_of, percent, share_of
from totalrecall.station.quality.labelled import Part, digest_of
from totalrecall.station.quality.workers import Progress
from totalrecall.station.store.records import finite
from totalrecall.system.text import counted, listed

if TYPE_CHECKING:
    from totalrecall.registry import AnyJudge

__all__ = ["Gauge", "JudgedPart", "Rating", "run_study", "study_of"]

_FEWEST_PARTS, _MOST_PARTS = 20, 80  # that a study should have
_FEWEST_RUNS = 2
_NAMED = 5
# effectiveness at least, miss rate at most, false alarm rate at most: of an acceptable and of a marginal gauge
_LIMITS = {"effectiveness": (0.9, 0.8), "miss rate": (0.02, 0.05), "false alarm rate": (0.05, 0.1)}
_KAPPA_GOOD, _KAPPA_POOR = 0.75, 0.4


@dataclass(frozen=True)
class JudgedPart:
    """A part with what became of it in each run.

    Attributes:
        name: of the part.
        truth: "good" or "defect".
        verdicts: one of each run: "good", "defect", or another if there was none of these.
        scores: one of each run.
    """

    name: str
    truth: str
    verdicts: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def is_steady(self) -> bool:
        """Whether every run gave the same verdict."""
        return len(set(self.verdicts)) == 1

    @property
    def wrong(self) -> int:
        """In how many runs a defect passed, or a good part did not."""
        if self.truth == "good":
            return sum(verdict != "good" for verdict in self.verdicts)
        return sum(verdict == "good" for verdict in self.verdicts)


@dataclass(frozen=True)
class Rating:
    """One of the figures that AIAG sets limits for.

    Attributes:
        name: of the figure.
        value: that was measured.
        word: "acceptable", "marginal" or "not acceptable".
        limits: of the first two.
    """

    name: str
    value: float
    word: str
    limits: tuple[float, float]


@dataclass(frozen=True)
class Gauge:
    """The result of a study.

    Attributes:
        parts: that were judged, the good ones first.
        runs: of each part.
        threshold: that was in force.
        notes: what a reader must know.
    """

    parts: Sequence[JudgedPart]
    runs: int
    threshold: float
    notes: Sequence[str] = ()

    # ------------------------------------------------------------------ verdicts

    @property
    def steady(self) -> Share:
        """Parts with the same verdict in every run."""
        return share_of(sum(part.is_steady for part in self.parts), len(self.parts))

    @property
    def effectiveness(self) -> Share:
        """Parts that are judged right in every run."""
        return share_of(sum(not part.wrong for part in self.parts), len(self.parts))

    def decisions(self, truth: str) -> Share:
        """Wrong decisions on parts of a truth, over all runs: misses, or false alarms."""
        mine = self.of(truth)
        return share_of(sum(part.wrong for part in mine), len(mine) * self.runs)

    def parts_wrong(self, truth: str) -> Share:
        """Parts of a truth that are judged wrong in any run."""
        mine = self.of(truth)
        return share_of(sum(part.wrong > 0 for part in mine), len(mine))

    def of(self, truth: str) -> list[JudgedPart]:
        """Return the parts of a truth."""
        return [part for part in self.parts if part.truth == truth]

    # ------------------------------------------------------------------ kappa

    def kappa_of_runs(self) -> list[tuple[int, int, Kappa]]:
        """Return kappa of each two runs, counted from 1."""
        return [
            (one + 1, other + 1, kappa_of(self._verdicts(one), self._verdicts(other)))
            for one, other in itertools.combinations(range(self.runs), 2)
        ]

    def kappa_of_truth(self) -> list[Kappa]:
        """Return kappa of each run against the truth."""
        truth = [part.truth for part in self.parts]
        return [kappa_of(self._verdicts(run), truth) for run in range(self.runs)]

    def _verdicts(self, run: int) -> list[str]:
        return [part.verdicts[run] for part in self.parts]

    # ------------------------------------------------------------------ scores

    @property
    def repeatability(self) -> float:
        """Standard deviation of the scores of one part, pooled over all parts (one-way analysis of variance)."""
        squares = sum(float(((np.array(part.scores) - np.mean(part.scores)) ** 2).sum()) for part in self.parts)
        freedom = len(self.parts) * (self.runs - 1)
        return math.sqrt(squares / freedom) if freedom else math.nan

    @property
    def spread_of_good(self) -> float:
        """Standard deviation of the mean scores of the good parts."""
        means = [float(np.mean(part.scores)) for part in self.of("good")]
        return float(np.std(means, ddof=1)) if len(means) > 1 else math.nan

    @property
    def widest(self) -> JudgedPart:
        """The part whose scores lie farthest apart."""
        return max(self.parts, key=lambda part: max(part.scores) - min(part.scores))

    # ------------------------------------------------------------------ telling

    def ratings(self) -> list[Rating]:
        """Return the figures that AIAG sets limits for, with the word for each."""
        figures = {
            "effectiveness": self.effectiveness.value,
            "miss rate": self.decisions("defect").value,
            "false alarm rate": self.decisions("good").value,
        }
        ratings = []
        for name, value in figures.items():
            good, marginal = _LIMITS[name]
            sign = 1 if name == "effectiveness" else -1
            within = [sign * value >= sign * limit for limit in (good, marginal)]
            word = "acceptable" if within[0] else "marginal" if within[1] else "not acceptable"
            ratings.append(Rating(name, value, word, (good, marginal)))
        return ratings

    def sentences(self) -> list[str]:
        """Say what was found, a sentence each."""
        lines = [f"{rating.name.capitalize()}: {percent(rating.value)}, {rating.word}." for rating in self.ratings()]
        worst = min((kappa for kappa in self.kappa_of_truth()), key=_value)
        if math.isfinite(worst.value):
            word = "good" if worst.value > _KAPPA_GOOD else "poor" if worst.value < _KAPPA_POOR else "fair"
            lines.append(f"Agreement with the truth beyond chance, in the worst run: kappa {worst.in_words()}, {word}.")
        if self.runs > 1:
            lines.append(f"Parts with the same verdict in all {self.runs} runs: {self.steady.in_words()}.")
            share = self.repeatability / self.spread_of_good if self.spread_of_good else math.nan
            beside = (
                f", {share:.0%} of the spread between good parts".replace("%", " %") if math.isfinite(share) else ""
            )
            lines.append(f"Scores of one part differ by a standard deviation of {self.repeatability:.4g}{beside}.")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types; what is not known is None."""
        pairs = self.kappa_of_runs()
        return {
            "parts": len(self.parts),
            "good": len(self.of("good")),
            "defects": len(self.of("defect")),
            "runs": self.runs,
            "threshold": finite(self.threshold),
            "steady": self.steady.to_json(),
            "effectiveness": self.effectiveness.to_json(),
            "misses": self.decisions("defect").to_json(),
            "parts_missed": self.parts_wrong("defect").to_json(),
            "false_alarms": self.decisions("good").to_json(),
            "parts_rejected": self.parts_wrong("good").to_json(),
            "kappa_of_runs": [{"runs": [one, other], **kappa.to_json()} for one, other, kappa in pairs],
            "kappa_of_truth": [kappa.to_json() for kappa in self.kappa_of_truth()],
            "repeatability": finite(self.repeatability),
            "spread_of_good": finite(self.spread_of_good),
            "ratings": [{"name": one.name, "value": finite(one.value), "word": one.word} for one in self.ratings()],
            "sentences": self.sentences(),
            "notes": list(self.notes),
            "results": [
                {
                    "part": part.name,
                    "truth": part.truth,
                    "verdicts": list(part.verdicts),
                    "scores": list(part.scores),
                    "wrong": part.wrong,
                }
                for part in self.parts
            ],
        }


def run_study(
    judge: "AnyJudge", parts: Sequence[Part], *, runs: int | None = None, progress: Progress | None = None
) -> Gauge:
    """Judge the pictures of parts and return the study.

    Args:
        judge: the model.
        parts: with their pictures, one of each run.
        runs: the first so many pictures of each part are judged; by default as many as every part has.
        progress: called with ("scoring", done, total).

    Raises:
        SettingError: there are too few runs, or the model has no threshold.
        DataError: a part has too few pictures, or there are no good or no defective parts.
        PictureError: a picture cannot be read.
    """
    if not math.isfinite(judge.threshold_):
        raise SettingError("The model has no threshold, so it gives no verdicts to study. Fit it again, or teach it.")
    runs = _runs(parts, runs)
    pictures = [picture for part in parts for picture in part.pictures[:runs]]
    results = []
    for number, result in enumerate(judge.predict_stream(pictures), start=1):
        if isinstance(result, PictureError):
            raise result
        results.append((result.verdict, result.score))
        if progress:
            progress("scoring", number, len(pictures))
    judged = []
    for at, part in enumerate(parts):
        mine = results[at * runs : (at + 1) * runs]
        verdicts, scores = zip(*mine, strict=True)
        judged.append(JudgedPart(part.name, part.truth, verdicts, scores))
    return study_of(judged, float(judge.threshold_), notes=_repeated(parts, runs))


def study_of(parts: Sequence[JudgedPart], threshold: float, *, notes: Sequence[str] = ()) -> Gauge:
    """Return the study of parts that were judged.

    Args:
        parts: all with as many runs.
        threshold: that was in force.
        notes: what a reader must know, beside what is found here.

    Raises:
        DataError: there are no good or no defective parts, or some have more runs than others.
    """
    for truth, what in (("good", "good"), ("defect", "defective")):
        if not any(part.truth == truth for part in parts):
            raise DataError(f"A study needs good and defective parts, and there are no {what} ones.")
    runs = {len(part.verdicts) for part in parts}
    if len(runs) != 1:
        raise DataError(f"Every part of a study needs as many runs, got {min(runs)} and {max(runs)}.")
    said = list(notes)
    if len(parts) < _FEWEST_PARTS:
        said.append(
            f"There are {counted(len(parts), 'part')}; a study should have {_FEWEST_PARTS} to {_MOST_PARTS}. The "
            "intervals say how little is known."
        )
    if min(runs) < _FEWEST_RUNS:
        said.append("Every part was judged once, so nothing is said of repeatability.")
    said.append(
        "The runs of one part are alike. The intervals by parts take that into account; those by decisions do not, "
        "and are too narrow."
    )
    return Gauge(sorted(parts, key=lambda part: (part.truth != "good", part.name)), min(runs), threshold, said)


def _runs(parts: Sequence[Part], wanted: int | None) -> int:
    """Return how many runs there are."""
    if not parts:
        raise DataError("There are no parts to study.")
    fewest = min(parts, key=lambda part: len(part.pictures))
    if wanted is None:
        return len(fewest.pictures)
    if wanted < 1:
        raise SettingError(f"runs must be at least 1, got {wanted}.", "runs")
    if len(fewest.pictures) < wanted:
        raise DataError(
            f"Part {fewest.name} has {counted(len(fewest.pictures), 'picture')}, and {wanted} runs were asked for. "
            "Take as many pictures of every part, each time put under the camera anew."
        )
    return wanted


def _repeated(parts: Sequence[Part], runs: int) -> list[str]:
    """Say where a part has the same picture twice: that repeats nothing."""
    names = []
    for part in parts:
        digests = [digest_of(picture) for picture in part.pictures[:runs]]
        if len(set(digests)) < len(digests):
            names.append(part.name)
    if not names:
        return []
    return [
        f"{len(names)} of {counted(len(parts), 'part')} have the same picture in several runs, which says nothing of "
        f"repeatability: {listed(names, _NAMED)}."
    ]


def _value(kappa: Kappa) -> float:
    return kappa.value if math.isfinite(kappa.value) else math.inf
