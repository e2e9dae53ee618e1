"""Scores as a drawing under which a threshold moves, and the share of good parts above each threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from totalrecall.reports.plots import Series

if TYPE_CHECKING:
    from totalrecall.calibration import Calibration

__all__ = ["Panel", "ScoreDrawing", "score_drawing"]

_BINS = 56
_STEPS = 240  # thresholds of which the rate is worked out; between them it is interpolated
_FARTHEST = 3.0  # thresholds: what lies farther is drawn in the last column
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 960, 120, 44, 54, 32


@dataclass(frozen=True)
class Panel:
    """One row of columns.

    Attributes:
        top: of the panel, from the drawing's top; its floor is `height` below.
        tallest: number of scores in its highest column.
        bars: kind, x, y, width and height of each part of a column.
    """

    top: int
    height: int
    tallest: int
    bars: Sequence[tuple[str, float, float, float, float]]


@dataclass(frozen=True, eq=False)
class ScoreDrawing:
    """Two rows of columns over one axis: the good pictures of the fit, and what was inspected.

    Attributes:
        panels: the two.
        series: of both, with their counts, for the legend.
        span: scores at the axis's ends.
        rates: share of good parts expected above `_STEPS` + 1 thresholds, evenly spaced over the span; empty where
            nothing is known.
        width, height, left: of the drawing.
    """

    panels: Sequence[Panel]
    series: Sequence[Series]
    span: tuple[float, float]
    rates: Sequence[float]
    width: int = _WIDTH
    height: int = _TOP + 2 * _HEIGHT + _GAP + 46
    left: int = _LEFT

    @property
    def floor(self) -> int:
        """The axis's place, from the top."""
        return self.panels[-1].top + self.panels[-1].height

    def at(self, score: float) -> float:
        """Return the place of a score, from the left."""
        low, high = self.span
        return self.left + (min(score, high) - low) / (high - low) * (self.width - self.left)

    def marks(self) -> list[float]:
        """Return round numbers within the axis."""
        low, high = self.span
        power = 10.0 ** np.floor(np.log10((high - low) / 4))
        step = max(power * share for share in (1, 2, 5) if power * share <= (high - low) / 4)
        return [float(count * step) for count in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def score_drawing(
    calibration: "Calibration", threshold: float, inspected: Sequence[tuple[float, bool | None, str | None]]
) -> ScoreDrawing | None:
    """Return the drawing of a model's scores, or None where there is no score and no threshold.

    Args:
        calibration: of the model.
        threshold: in use; nan if there is none.
        inspected: score, verdict and a person's judgement of what was inspected.
    """
    good = np.asarray(calibration.scores, np.float64)
    judged = {
        kind: np.array([score for score, _, judgement in inspected if judgement == wanted], np.float64)
        for kind, wanted in (("open", None), ("fine", "fine"), ("defect", "defect"))
    }
    every = np.concatenate([good, *judged.values(), [threshold] if np.isfinite(threshold) else []])
    every = every[np.isfinite(every)]
    if not len(every):
        return None
    span = _span(every, threshold)
    rows = [[("calibration", good)], list(judged.items())]
    panels = [_panel(row, span, _TOP + at * (_HEIGHT + _GAP)) for at, row in enumerate(rows)]
    series = [Series(kind, kind, [len(scores)]) for row in rows for kind, scores in row]
    steps = np.linspace(*span, _STEPS + 1)
    rates = [round(calibration.expected_rate(float(step)), 7) for step in steps] if len(good) else []
    return ScoreDrawing(panels, series, span, rates)


def _span(every: np.ndarray, threshold: float) -> tuple[float, float]:
    low, high = float(every.min()), float(every.max())
    if np.isfinite(threshold) and threshold > 0:
        high = max(min(high, _FARTHEST * threshold), 1.3 * threshold)
    margin = 0.03 * ((high - low) or max(abs(high), 1.0))
    return max(low - margin, 0.0) if low >= 0 else low - margin, high + margin


def _panel(row: Sequence[tuple[str, np.ndarray]], span: tuple[float, float], top: int) -> Panel:
    counts = np.array([np.histogram(np.clip(scores, *span), _BINS, span)[0] for _, scores in row])  # (series, bins)
    tallest = int(counts.sum(axis=0).max())
    heights = counts / max(tallest, 1) * _HEIGHT
    tops = top + _HEIGHT - np.cumsum(heights, axis=0)
    step = (_WIDTH - _LEFT) / _BINS
    bars = [
        (row[at][0], _LEFT + column * step + 1, float(tops[at, column]), step - 2, float(heights[at, column]))
        for at, column in np.argwhere(counts).tolist()
    ]
    return Panel(top, _HEIGHT, tallest, bars)
