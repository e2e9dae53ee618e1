"""Drawings: a histogram of scores with round numbers along the axis, and curves of shares, such as the ROC.

What is here lays a drawing out, in its own units; `templates/plots.html` writes it as inline SVG.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Bar", "Curve", "Curves", "Histogram", "Series", "Stack", "Tick", "curves", "histogram", "score_histogram"]

_LEFT, _TOP = 34, 30
_SIDE = 250  # of the square that curves are drawn in
_EDGE = 16  # about half the width of a number
_MOST_LIMITS = 3


@dataclass(frozen=True)
class Series:
    """Scores that are drawn alike: their name in the legend, and `good`, `defect` or `plain` for the style sheet."""

    name: str
    kind: str
    scores: Sequence[float]


@dataclass(frozen=True)
class Stack:
    """A series that was counted: how many of its scores lie in each bin."""

    name: str
    kind: str
    counts: Sequence[int]


@dataclass(frozen=True)
class Bar:
    """A part of a column: its kind, its upper left corner and its size."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Tick:
    """A number at a place of the axis; `side` says which end of its text is there: `start`, `mid` or `end`."""

    x: float
    side: str
    text: str


@dataclass(frozen=True)
class Histogram:
    """A histogram, laid out: columns from `top` down to `floor`, between `left` and `width`.

    Attributes:
        words: what is read aloud in its place.
        legend: kind, name and number of scores of each series.
        bars: parts of columns.
        ticks: numbers along the axis.
        limits: thresholds.
        tallest: number of scores in the highest column.
        width: of the drawing.
        floor: height of the axis, from above.
    """

    words: str
    legend: list[tuple[str, str, int]]
    bars: list[Bar]
    ticks: list[Tick]
    limits: list[Tick]
    tallest: int
    width: int
    floor: int
    left: int = _LEFT
    top: int = _TOP


@dataclass(frozen=True)
class Curve:
    """A curve of shares (x, y), both from 0 to 1, and its name in the legend."""

    name: str
    points: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Curves:
    """Curves in a square, laid out.

    Attributes:
        title: of the drawing.
        across, upright: what the axes show.
        lines: name and points of each curve.
        ticks: share of the side, number across, number upright.
        dot: place of the threshold in use, and what it is in words; None where nothing is marked.
    """

    title: str
    across: str
    upright: str
    lines: list[tuple[str, list[tuple[float, float]]]]
    ticks: list[tuple[float, str, str]]
    dot: tuple[float, float, str] | None
    left: int = _LEFT
    top: int = _TOP
    side: int = _SIDE


def score_histogram(
    series: Sequence[Series],
    thresholds: Sequence[float],
    *,
    what: str = "scores",
    width: int = 860,
    height: int = 200,
    bins: int = 28,
) -> Histogram | None:
    """Return the histogram of some scores, or None where no score is a number.

    Args:
        series: drawn one upon another, the first at the foot; empty ones are left out.
        thresholds: marked by lines, the lowest three of those that are numbers.
        what: what the scores are called when the drawing is read aloud.
        width: of the drawing, in its own units: letters are 13 high.
        height: of the highest column.
        bins: number of columns.
    """
    known = [(one, [score for score in one.scores if math.isfinite(score)]) for one in series]
    known = [(one, scores) for one, scores in known if scores]
    if not known:
        return None
    limits = sorted({value for value in thresholds if math.isfinite(value)})[:_MOST_LIMITS]
    scores = [score for _, mine in known for score in mine]
    low, high = min(scores + limits), max(scores + limits)
    margin = 0.04 * ((high - low) or max(abs(high), 1.0))
    span = (low - margin, high + margin)
    stacks = [Stack(one.name, one.kind, np.histogram(mine, bins, span)[0].tolist()) for one, mine in known]
    words = f"Histogram of {len(scores)} {what} from {min(scores):.3g} to {max(scores):.3g}"
    words += "".join(f", threshold {value:.3g}" for value in limits)
    return histogram(stacks, span, limits, words=words, width=width, height=height)


def histogram(
    stacks: Sequence[Stack],
    span: tuple[float, float],
    limits: Sequence[float] = (),
    *,
    words: str,
    width: int = 520,
    height: int = 150,
) -> Histogram | None:
    """Return the histogram of scores that were counted, or None where there are none.

    Args:
        stacks: drawn one upon another, the first at the foot; each has as many bins, of equal width.
        span: scores at both ends of the axis.
        limits: thresholds, within the span.
        words: what is read aloud in its place.
        width: of the drawing.
        height: of the highest column.
    """
    columns = np.array([stack.counts for stack in stacks])  # (series, bins)
    tallest = int(columns.sum(axis=0).max(initial=0))
    if not tallest:
        return None
    floor, step = _TOP + height, (width - _LEFT) / columns.shape[1]
    tops = floor - np.cumsum(columns, axis=0) / tallest * height
    bars = [
        Bar(stacks[row].kind, _LEFT + at * step + 1, tops[row, at], step - 2, columns[row, at] / tallest * height)
        for row, at in np.argwhere(columns).tolist()
    ]

    def place(value: float) -> float:
        return _LEFT + (value - span[0]) / (span[1] - span[0]) * (width - _LEFT)

    ticks = []
    for value in _round_numbers(*span):
        x = place(value)
        near_the_end = x > width - _EDGE  # half of the number would be cut off
        ticks.append(Tick(width, "end", f"{value:.4g}") if near_the_end else Tick(x, "mid", f"{value:.4g}"))
    marks = [
        Tick(place(value), "end" if place(value) > width * 0.75 else "start", f"threshold {value:.3g}")
        for value in limits
    ]
    legend = [(stack.kind, stack.name, sum(stack.counts)) for stack in stacks]
    return Histogram(words, legend, bars, ticks, marks, tallest, width, floor)


def curves(
    drawn: Sequence[Curve],
    *,
    title: str,
    across: str,
    upright: str,
    widest: float = 1.0,
    operating: tuple[float, float] | None = None,
) -> Curves | None:
    """Return curves in one square, or None where none has points.

    Args:
        drawn: the curves; those without points are left out.
        title: of the drawing.
        across, upright: what the axes show.
        widest: share at the right end of the axis.
        operating: x and y of the threshold in use, marked by a dot; None marks nothing.
    """
    floor = _TOP + _SIDE
    lines = [
        (curve.name, [(_LEFT + x / widest * _SIDE, floor - y * _SIDE) for x, y in curve.points])
        for curve in drawn
        if curve.points
    ]
    if not lines:
        return None
    dot = None
    if operating is not None:
        alarms, found = operating
        words = f"threshold: {100 * found:.3g} % found, {100 * alarms:.3g} % false alarms"
        dot = (_LEFT + alarms / widest * _SIDE, floor - found * _SIDE, words)
    ticks = [(share, f"{share * widest:g}", f"{share:g}") for share in (0.0, 0.5, 1.0)]
    return Curves(title, across, upright, lines, ticks, dot)


def _round_numbers(low: float, high: float) -> list[float]:
    """Return four to ten round numbers between two, in steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = max(power * share for share in (1, 2, 5) if power * share <= (high - low) / 4)
    return [count * step for count in range(math.ceil(low / step), math.floor(high / step) + 1)]
