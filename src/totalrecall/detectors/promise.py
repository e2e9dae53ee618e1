"""What the threshold in use promises, in words and as facts: asked wherever a promise is stated.

A threshold is set from good pictures (`calibrated`), by known defects (`taught`) or by hand (`given`). Only the first
has a rate that was asked for; for the others the same scores give the share of good pictures above the threshold.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from totalrecall.calibration import Calibration, fit_tail, rate_interval

__all__ = ["ORIGINS", "PARTS_PER_DAY", "RATES", "Level", "Promise", "needed_pictures", "percent"]

ORIGINS = ("calibrated", "taught", "given")
RATES = (0.01, 0.02, 0.05, 0.1)  # that a fit names the thresholds of
PARTS_PER_DAY = 1000  # where nobody said how many
_BY = {"taught": "taught by known defects", "given": "set by hand"}
_HALF = 0.5  # of good pictures above a threshold: it separates nothing


@dataclass(frozen=True)
class Level:
    """A threshold at another false-alarm rate.

    Attributes:
        false_alarm_rate: asked for.
        threshold, pixel_threshold: that it gives.
        by_rank: whether there are enough good pictures for ranks to give it.
        estimated: whether it is beyond all scores, by the fitted tail. Neither: the threshold is the highest score.
    """

    false_alarm_rate: float
    threshold: float
    pixel_threshold: float
    by_rank: bool
    estimated: bool


@dataclass(frozen=True, eq=False)
class Promise:
    """What stands behind a threshold.

    Attributes:
        calibration: the scores of good pictures.
        threshold: in use; nan if there is none.
        origin: where it comes from, one of `ORIGINS`.
    """

    calibration: Calibration
    threshold: float
    origin: str = "calibrated"

    @property
    def calibrated(self) -> bool:
        """Whether the good pictures set it."""
        return self.origin == "calibrated"

    @cached_property
    def expected_rate(self) -> float:
        """The share of good pictures expected above it; nan if nothing is known of it."""
        return math.nan if math.isnan(self.threshold) else self.calibration.expected_rate(self.threshold)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 90 % interval of that share, where the threshold is beyond all scores and a tail could be fitted."""
        if self.calibrated:
            return self.calibration.interval
        scores = self.calibration.scores
        if not len(scores) or self.threshold < scores.max() or fit_tail(scores) is None:
            return None
        return rate_interval(scores, self.threshold)

    @property
    def guaranteed_rate(self) -> float | None:
        """The rate that false alarms are not above on average, whatever the distribution; None without one."""
        if not self.calibrated or not len(self.calibration.scores) or self.calibration.estimated:
            return None
        return self.calibration.guaranteed_rate

    # ------------------------------------------------------------------ in words

    def in_words(self) -> str:
        """Say in a line what the threshold is, what set it, and what false alarms it gives."""
        if math.isnan(self.threshold):
            return "The model has no threshold and gives no verdicts, because no good pictures were kept aside for it."
        how = self._how() if self.calibrated else self._by_whom()
        return f"Threshold {self.threshold:.4g}, {how}. False alarms: {self.rate_in_words()}."

    def _how(self) -> str:
        calibration, count = self.calibration, len(self.calibration.scores)
        if calibration.folds > 1:
            text = f"set by {calibration.folds}-fold cross-validation on {count} good pictures"
        else:
            text = f"set on {count} good pictures that were kept aside"
        if calibration.new_parts:
            text += f", all pictures of each of {calibration.parts} parts in one fold"
        return text

    def _by_whom(self) -> str:
        calibrated_threshold = self.calibration.threshold
        if math.isnan(calibrated_threshold):
            return _BY[self.origin]
        return f"{_BY[self.origin]} (the good pictures alone would set {calibrated_threshold:.4g})"

    def rate_in_words(self) -> str:
        """Say which share of good pictures is above it."""
        calibration, rate = self.calibration, self.expected_rate
        if math.isnan(rate):
            return "not known, no good picture was held out"
        if self.interval is not None:
            low, high = map(percent, self.interval)
            expected = percent(calibration.rate) if self.calibrated else percent(rate)
            return f"about {expected} (an estimate, 90 % interval {low} to {high})"
        if not self.calibrated:
            apart = ", so this model cannot tell such pictures from good ones" if rate >= _HALF else ""
            return f"about {percent(rate)} of good pictures{apart}"
        at_most = f"at most {percent(calibration.guaranteed_rate)} on average"
        return at_most if calibration.below_floor else f"{percent(calibration.rate)} expected, {at_most}"

    def note(self) -> str | None:
        """Say what is missing for the rate asked for, and what to do; None if nothing is."""
        calibration = self.calibration
        count, rate = len(calibration.scores), calibration.rate
        if not count:
            return (
                "no picture was held out, so there is no threshold and no verdict; scores alone are given. Fit with at "
                "least 3 good pictures and --holdout over 0."
            )
        if not self.calibrated or not calibration.below_floor:
            return None
        threshold = (
            "The threshold is an estimate: it is extrapolated beyond their highest score (generalised Pareto tail)."
            if calibration.estimated
            else "The threshold is their highest score."
        )
        return (
            f"{count} good pictures are too few for a false-alarm rate of {percent(rate)} (the lowest possible is "
            f"{percent(calibration.floor)}). {threshold} Use at least {needed_pictures(rate)} good pictures."
        )

    # ------------------------------------------------------------------ other rates

    def levels(self) -> list[Level]:
        """Return the thresholds at 1, 2, 5 and 10 percent; none without scores of good pictures."""
        if not len(self.calibration.scores):
            return []
        others = [replace(self.calibration, rate=rate) for rate in RATES]
        return [
            Level(other.rate, other.threshold, other.pixel_threshold, not other.below_floor, other.estimated)
            for other in others
        ]

    def levels_in_words(self) -> str | None:
        """Say in a line which thresholds other rates give, and which of them the number of pictures supports."""
        told = []
        for level in self.levels():
            support = "" if level.by_rank else " (estimate)" if level.estimated else " (highest score)"
            told.append(f"{percent(level.false_alarm_rate)} {level.threshold:.4g}{support}")
        return f"Thresholds by false-alarm rate: {', '.join(told)}" if told else None

    # ------------------------------------------------------------------ as facts

    def facts(self) -> dict[str, Any]:
        """Return the promise as JSON types."""
        calibration = self.calibration
        return {
            "threshold": self.threshold,
            "threshold_is": self.origin,
            "false_alarm_rate": calibration.rate,
            "expected_rate": self.expected_rate,
            "guaranteed_rate": self.guaranteed_rate,
            "expected_rate_90_percent_interval": None if self.interval is None else list(self.interval),
            "supported_by_ranks": self.calibrated and bool(len(calibration.scores)) and not calibration.below_floor,
            "thresholds": [vars(level) for level in self.levels()],
        }

    def rows(self, parts_per_day: int | None = None) -> dict[str, str]:
        """Return in words, name by name, what is known of the threshold; for a report.

        Args:
            parts_per_day: good parts per day, for the expected number of false alarms; None assumes a number and says
                so.
        """

        calibration = self.calibration
        count = len(calibration.scores)
        by = "" if self.calibrated else f", {_BY[self.origin]}"
        if not count:
            text = "none, so there is no verdict" if math.isnan(self.threshold) else f"score {self.threshold:.4g}{by}"
            return {"threshold": text, "set by": "no good picture was held out, so nothing is promised"}
        alone = "" if self.calibrated else f"; the good pictures alone would set {calibration.threshold:.4g}"
        return {
            "threshold": f"score {self.threshold:.4g}{by}{alone}",
            "set by" if self.calibrated else "compared with": f"{count} good pictures, {self._held_out()}",
            "stated rate": f"{percent(calibration.rate)} of good pictures may be called anomalous",
            "promise": self._kept(),
            "false alarms": self._alarms(parts_per_day),
            "p-value": "share of good pictures that are expected to score at least as high as a picture; with "
            f"{count} good pictures it is never below {calibration.floor:.2g}",
            "valid while": self._condition(),
        }

    def _held_out(self) -> str:
        """Say how the good pictures were scored."""
        calibration = self.calibration
        if calibration.folds <= 1:
            return "kept aside together"
        parts = f" (all pictures of each of {calibration.parts} parts in one fold)" if calibration.new_parts else ""
        return f"by {calibration.folds}-fold cross-validation{parts}"

    def _condition(self) -> str:
        """Say what must not change."""
        calibration = self.calibration
        words = "good parts, light and camera stay as they were in those pictures"
        from totalrecall.outliers.notes import repeated_note  # it loads what compares pictures

        if calibration.new_parts or not repeated_note(calibration):
            return words
        return (
            f"{words}, and so do the parts: the {calibration.shown_by} pictures seem to show {calibration.parts} "
            "parts, many of them several times. Pictures of other parts will be called anomalous far more often; for "
            "new parts fit with --new-parts"
        )

    def _kept(self) -> str:
        """Say whether the rate is guaranteed or estimated."""
        calibration = self.calibration
        if not self.calibrated:
            return f"none for a threshold that was {_BY[self.origin]}"
        count, rate, floor = len(calibration.scores), percent(calibration.rate), percent(calibration.floor)
        if self.interval is not None:
            low, high = map(percent, self.interval)
            return (
                f"an estimate, not a guarantee: {low} to {high} of good pictures are expected above the threshold "
                f"(90 % interval). {count} pictures can guarantee {floor} at best, so the threshold is extrapolated "
                "beyond their highest score"
            )
        if calibration.below_floor:
            return (
                f"{count} pictures cannot guarantee {rate}. The threshold is their highest score; at most {floor} of "
                "good pictures are above it on average"
            )
        low, high = map(percent, calibration.rank_rates)
        ranks = f"{low} to {high}" if low != high else high
        if calibration.folds > 1:
            return (
                f"{rate} of good pictures will score above the threshold on average ({ranks} by rank). "
                "This is not proved, because the threshold was set by cross-validation; in our "
                "measurements the rate was this or a little lower"
            )
        return f"{rate} of good pictures on average, guaranteed by rank for any distribution of scores ({ranks})"

    def _alarms(self, parts_per_day: int | None) -> str:
        """Say how many false alarms per day are expected."""
        rate, parts = self.expected_rate, PARTS_PER_DAY if parts_per_day is None else parts_per_day
        highest = self.calibrated and self.calibration.below_floor and self.interval is None
        words = f"{'at most' if highest else 'about'} {rate * parts:.3g} per day ({percent(rate)})"
        if self.interval is not None:
            low, high = self.interval
            words += f", 90 % interval {low * parts:.2g} to {high * parts:.2g}"
        assumed = " (an assumed number, see --parts-per-day)" if parts_per_day is None else ""
        return f"{words}, for {parts} good parts per day{assumed}"


def needed_pictures(rate: float) -> int:
    """Return how many good pictures ranks need for a rate."""
    return math.ceil(1 / rate - 1e-9) - 1


def percent(rate: float) -> str:
    """Return a share as a percentage: `9.09 %`; what an estimate gives below a millionth is `under 0.0001 %`."""
    return "under 0.0001 %" if 0 < rate < 1e-6 else f"{100 * rate:.3g} %"
