"""Drawings: a histogram of scores, curves of shares, such as the ROC, and shares found against size.

What is here says where things are, in a drawing's own units; `templates/plots.html` writes them as inline SVG.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Curve", "Curves", "Histogram", "Series", "SizeCurve", "SizePlot", "score_histogram"]

_LEFT, _TOP = 34, 30
_MOST_LIMITS = 3


@dataclass(frozen=True)
class Series:
    """Scores that are drawn alike, counted in bins of equal width.

    Attributes:
        name: in the legend.
        kind: `good`, `defect` or `plain`, for the style sheet.
        counts: number of scores in each bin.
    """

    name: str
    kind: str
    counts: Sequence[int]


@dataclass(frozen=True)
class Histogram:
    """A histogram of scores.

    Attributes:
        words: what is read aloud in its place.
        series: drawn one upon another, the first at the foot; all with as many bins.
        span: scores at both ends of the axis.
        limits: thresholds, marked by lines.
        width: of the drawing; letters are 13 high.
        height: of the highest column.
    """

    words: str
    series: Sequence[Series]
    span: tuple[float, float]
    limits: Sequence[float] = ()
    width: int = 520
    height: int = 150
    left: int = _LEFT
    top: int = _TOP

    @property
    def floor(self) -> int:
        """How far the axis is from the top."""
        return self.top + self.height

    @property
    def tallest(self) -> int:
        """Number of scores in the highest column."""
        return max(map(sum, zip(*(one.counts for one in self.series), strict=True)), default=0)

    def at(self, score: float) -> float:
        """Return the place of a score, from the left."""
        low, high = self.span
        return self.left + (score - low) / (high - low) * (self.width - self.left)

    def bars(self) -> list[tuple[str, float, float, float, float]]:
        """Return kind, x, y, width and height of each part of a column."""
        columns = np.array([one.counts for one in self.series]) / self.tallest * self.height  # (series, bins)
        tops = self.floor - np.cumsum(columns, axis=0)
        step = (self.width - self.left) / columns.shape[1]
        return [
            (self.series[row].kind, self.left + at * step + 1, tops[row, at], step - 2, columns[row, at])
            for row, at in np.argwhere(columns).tolist()
        ]

    def round_numbers(self) -> list[float]:
        """Return four to ten round numbers within the axis, in steps of 1, 2 or 5 times a power of ten."""
        low, high = self.span
        power = 10.0 ** math.floor(math.log10((high - low) / 4))
        step = max(power * share for share in (1, 2, 5) if power * share <= (high - low) / 4)
        return [count * step for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def score_histogram(
    scores: Sequence[tuple[str, str, Sequence[float]]],
    thresholds: Sequence[float],
    *,
    what: str = "scores",
    width: int = 660,
    height: int = 180,
    bins: int = 28,
) -> Histogram | None:
    """Return the histogram of some scores, or None where no score is a number.

    Args:
        scores: name, kind and scores of each series; empty ones are left out.
        thresholds: marked by lines, the lowest three of those that are numbers.
        what: what the scores are called when the drawing is read aloud.
        width, height: as of `Histogram`.
        bins: number of columns.
    """
    known = [(name, kind, [score for score in mine if math.isfinite(score)]) for name, kind, mine in scores]
    every = [score for _, _, mine in known for score in mine]
    if not every:
        return None
    limits = sorted({value for value in thresholds if math.isfinite(value)})[:_MOST_LIMITS]
    low, high = min(every + limits), max(every + limits)
    margin = 0.04 * ((high - low) or max(abs(high), 1.0))
    span = (low - margin, high + margin)
    series = [Series(name, kind, np.histogram(mine, bins, span)[0].tolist()) for name, kind, mine in known if mine]
    words = f"Histogram of {len(every)} {what} from {min(every):.3g} to {max(every):.3g}"
    words += "".join(f", threshold {value:.3g}" for value in limits)
    return Histogram(words, series, span, limits, width, height)


@dataclass(frozen=True)
class Curve:
    """A curve through points (x, y), shares from 0 to 1, and its name in the legend."""

    name: str
    points: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Curves:
    """Curves in one square.

    Attributes:
        title: what is drawn.
        across, upright: what the axes show.
        curves: those that have points.
        widest: share at the right end of the axis.
        operating: x and y of the threshold in use, marked by a dot; None marks nothing.
    """

    title: str
    across: str
    upright: str
    curves: Sequence[Curve]
    widest: float = 1.0
    operating: tuple[float, float] | None = None
    left: int = _LEFT
    top: int = _TOP
    side: int = 250

    def at(self, point: Sequence[float]) -> tuple[float, float]:
        """Return the place of a point, from the left and from the top."""
        return self.left + point[0] / self.widest * self.side, self.top + (1 - point[1]) * self.side


@dataclass(frozen=True)
class SizeCurve:
    """Shares found against size.

    Attributes:
        name: in the legend.
        points: size and share of what was seen.
        line: size and share along the fitted curve; empty without one.
        band: size, lower and upper bound along it.
    """

    name: str
    points: Sequence[tuple[float, float]]
    line: Sequence[tuple[float, float]] = ()
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class SizePlot:
    """Shares found against size, the sizes in even steps of ratio.

    Attributes:
        title: what is drawn.
        words: what is read aloud in its place.
        curves: each with its points and band.
        sizes: marked on the axis, ascending, at least two.
        across: what the axis shows.
        wanted: share that is marked by a line.
    """

    title: str
    words: str
    curves: Sequence[SizeCurve]
    sizes: Sequence[float]
    across: str
    wanted: float = 0.9
    left: int = _LEFT
    top: int = _TOP
    width: int = 330
    height: int = 190

    def at(self, size: float, share: float) -> tuple[float, float]:
        """Return the place of a share at a size, from the left and from the top."""
        low, high = math.log(self.sizes[0]), math.log(self.sizes[-1])
        return self.left + (math.log(size) - low) / (high - low) * self.width, self.top + (1 - share) * self.height

    def outline(self, curve: SizeCurve) -> list[tuple[float, float]]:
        """Return the corners of a curve's band, along its upper bound and back along the lower one."""
        upper = [self.at(size, high) for size, _, high in curve.band]
        return upper + [self.at(size, low) for size, low, _ in reversed(curve.band)]
