"""Drawings as inline SVG: a histogram of scores, with round numbers along the axis, and the ROC curve."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Series", "histogram", "roc"]

_LEFT, _TOP, _FOOT = 34, 30, 48
_SIDE = 250  # of the curve's square
_EDGE = 16  # about half a number
_HATCH = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" class="under"/><line y2="6" class="stripe"/></pattern></defs>'
)


@dataclass(frozen=True)
class Series:
    """Scores that are drawn alike: their name in the legend, and `good`, `defect` or `plain` for the style sheet."""

    name: str
    kind: str
    scores: Sequence[float]


@dataclass(frozen=True)
class _Frame:
    low: float
    high: float
    width: int
    height: int

    @property
    def floor(self) -> int:
        return _TOP + self.height

    def at(self, value: float) -> float:
        return _LEFT + (value - self.low) / (self.high - self.low) * (self.width - _LEFT)


def histogram(
    series: Sequence[Series],
    thresholds: Sequence[float],
    *,
    what: str = "scores",
    width: int = 860,
    height: int = 200,
    bins: int = 28,
) -> str:
    """Return the legend and the histogram as HTML, or nothing where no score is a number.

    Args:
        series: drawn one upon another, the first at the foot; empty ones are left out.
        thresholds: marked by lines, the lowest three of those that are numbers.
        what: the scores are called when the picture is read aloud; no mark-up.
        width: of the drawing, in its own units: letters are 13 high.
        height: of the highest bar.
        bins: number of bars side by side.
    """
    drawn = [(one, [score for score in one.scores if math.isfinite(score)]) for one in series]
    drawn = [(one, scores) for one, scores in drawn if scores]
    if not drawn:
        return ""
    limits = sorted({value for value in thresholds if math.isfinite(value)})[:3]
    scores = [score for _, own in drawn for score in own]
    low, high = min(scores + limits), max(scores + limits)
    margin = 0.04 * ((high - low) or max(abs(high), 1.0))
    frame = _Frame(low - margin, high + margin, width, height)
    counts = [np.histogram(own, bins, (frame.low, frame.high))[0] for _, own in drawn]
    tallest = int(np.sum(counts, axis=0).max())
    legend = "".join(f'<span><i class="{one.kind}"></i>{one.name} ({len(own)})</span>' for one, own in drawn)
    spoken = f"Histogram of {len(scores)} {what} from {min(scores):.3g} to {max(scores):.3g}"
    spoken += "".join(f", threshold {value:.3g}" for value in limits)
    hatch = _HATCH if any(one.kind == "defect" for one, _ in drawn) else ""
    bars = _bars(frame, [one.kind for one, _ in drawn], counts, tallest)
    return (
        f'<p class="legend">{legend}</p>'
        f'<svg viewBox="0 0 {width} {frame.floor + _FOOT}" role="img" aria-label="{spoken}">'
        f"{hatch}{bars}{_marks(frame, tallest, limits)}</svg>"
    )


def roc(points: Sequence[Sequence[float]], operating: tuple[float, float] | None) -> str:
    """Return the ROC curve as HTML.

    Args:
        points: share of good pictures above a threshold, share of defective ones above it; from (0, 0) to (1, 1).
        operating: the same for the threshold in use, marked by a dot; None marks nothing.
    """
    floor, right = _TOP + _SIDE, _LEFT + _SIDE
    path = " ".join(f"{_LEFT + x * _SIDE:.1f},{floor - y * _SIDE:.1f}" for x, y in points)
    marks = f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{right}"/>'
    for share in (0.0, 0.5, 1.0):
        marks += f'<text class="end" x="{_LEFT - 6}" y="{floor - share * _SIDE + 4:.0f}">{share:g}</text>'
        marks += f'<text class="mid" x="{_LEFT + share * _SIDE:.0f}" y="{floor + 18}">{share:g}</text>'
    spoken, dot = "ROC curve of pictures", ""
    if operating is not None:
        words = f"threshold: {100 * operating[1]:.3g} % found, {100 * operating[0]:.3g} % false alarms"
        spoken += f"; {words}"
        x, y = _LEFT + operating[0] * _SIDE, floor - operating[1] * _SIDE
        side, gap = ("end", -10) if operating[0] > 0.6 else ("start", 10)
        drop = -10 if operating[1] < 0.15 else 20  # the numbers of the axis are below
        dot = (
            f'<circle class="limit" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
            f'<text class="limit {side}" x="{x + gap:.1f}" y="{y + drop:.1f}">{words}</text>'
        )
    return (
        f'<svg viewBox="0 0 520 {floor + _FOOT}" role="img" aria-label="{spoken}">{marks}'
        f'<polyline class="curve" points="{path}"/>{dot}'
        f'<text x="{_LEFT}" y="{_TOP - 12}">share of defects found</text>'
        f'<text class="end" x="{right}" y="{floor + 36}">share of good pictures called defective</text></svg>'
    )


def _bars(frame: _Frame, kinds: Sequence[str], counts: Sequence[np.ndarray], tallest: int) -> str:
    bars, base = [], [0.0] * len(counts[0])
    step = (frame.width - _LEFT) / len(base)
    for kind, own in zip(kinds, counts, strict=True):
        for i in np.flatnonzero(own):
            tall = float(own[i]) / tallest * frame.height
            base[i] += tall
            x, y = _LEFT + i * step + 1, frame.floor - base[i]
            bars.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{step - 2:.1f}" height="{tall:.1f}"/>')
    return "".join(bars)


def _marks(frame: _Frame, tallest: int, thresholds: Sequence[float]) -> str:
    """Return the axes, numbers and threshold lines."""
    floor, width = frame.floor, frame.width
    marks = [
        f'<line class="axis" x1="{_LEFT}" x2="{width}" y1="{floor}" y2="{floor}"/>',
        f'<text x="{_LEFT - 6}" y="{_TOP + 5}" class="end">{tallest}</text>',
        f'<text x="{_LEFT - 6}" y="{floor}" class="end">0</text>',
        f'<text x="{width}" y="{floor + 40}" class="end">score; bigger is more anomalous</text>',
    ]
    for value in _round_numbers(frame):
        x = frame.at(value)
        x, side = (width, "end") if x > width - _EDGE else (x, "mid")  # or half of it would be cut off
        marks.append(f'<text x="{x:.1f}" y="{floor + 18}" class="{side}">{value:.4g}</text>')
    for value in thresholds:
        x = frame.at(value)
        side, gap = ("end", -6) if x > width * 0.75 else ("start", 6)
        marks.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 14}" y2="{floor}"/>')
        marks.append(f'<text class="limit {side}" x="{x + gap:.1f}" y="{_TOP - 6}">threshold {value:.3g}</text>')
    return "".join(marks)


def _round_numbers(frame: _Frame) -> list[float]:
    """Return four to ten round numbers within the axis, in steps of 1, 2 or 5 times a power of ten."""
    spread = frame.high - frame.low
    power = 10.0 ** math.floor(math.log10(spread / 4))
    step = max(power * share for share in (1, 2, 5) if power * share <= spread / 4)
    first, last = math.ceil(frame.low / step), math.floor(frame.high / step)
    return [count * step for count in range(first, last + 1)]
