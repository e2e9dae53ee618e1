"""What the threshold in use promises, in words and as facts: asked wherever a promise is stated.

A threshold is set from good pictures (`calibrated`), by known defects (`taught`) or by hand (`given`). Only the first
has a rate that was asked for; of the others the share of good pictures above is told by the same scores.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from totalrecall.calibration import Calibration, fit_tail, rate_interval
from totalrecall.outliers.notes import repeated_note

__all__ = ["ORIGINS", "PARTS_A_DAY", "RATES", "Level", "Promise", "needed_pictures", "percent"]

ORIGINS = ("calibrated", "taught", "given")
RATES = (0.01, 0.02, 0.05, 0.1)  # that a fit names the thresholds of
PARTS_A_DAY = 1000  # where nobody said how many
_BY = {"taught": "taught by known defects", "given": "set by hand"}
_HALF = 0.5  # of good pictures above a threshold: it tells nothing apart


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
            return "No threshold, so no verdict: no good picture was held out to set one."
        how = self._how() if self.calibrated else self._by_whom()
        return f"Threshold {self.threshold:.4g}, {how}. False alarms: {self.rate_in_words()}."

    def _how(self) -> str:
        calibration, count = self.calibration, len(self.calibration.scores)
        if calibration.folds > 1:
            text = f"set by {calibration.folds}-fold cross-validation on {count} good pictures"
        else:
            text = f"set on {count} good pictures held out together"
        if calibration.new_parts:
            text += f", all pictures of each of {calibration.parts} parts in one fold"
        return text

    def _by_whom(self) -> str:
        own = self.calibration.threshold
        alone = "" if math.isnan(own) else f" (the good pictures alone would set {own:.4g})"
        return _BY[self.origin] + alone

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
            apart = ": this model cannot tell such pictures from good ones" if rate >= _HALF else ""
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
            "The threshold is an estimate beyond their highest score, by a generalised Pareto tail."
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
            Level(one.rate, one.threshold, one.pixel_threshold, not one.below_floor, one.estimated) for one in others
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

    def rows(self, parts_a_day: int | None = None) -> dict[str, str]:
        """Return in words, name by name, what is known of the threshold; for a report.

        Args:
            parts_a_day: good parts that pass, for the expected false alarms a day; None assumes a number and says so.
        """
        calibration = self.calibration
        count, own = len(calibration.scores), calibration.threshold
        by = "" if self.calibrated else f", as it was {'taught' if self.origin == 'taught' else 'set by hand'}"
        if not count:
            text = "none, so there is no verdict" if math.isnan(self.threshold) else f"score {self.threshold:.4g}{by}"
            return {
                "threshold": text,
                "set by": "no good picture was scored without being learnt, so nothing is promised",
            }
        alone = "" if self.calibrated else f"; the good pictures alone would set {own:.4g}"
        how = "scored without them"
        if calibration.folds > 1:
            how = f"each scored without its fold of {calibration.folds}"
        as_long_as = "good parts, light and camera stay as they were for those pictures"
        if calibration.new_parts:
            how += (
                f"; the photographs of each of {calibration.parts} parts were held out together, for new ones to come"
            )
        elif repeated_note(calibration):
            as_long_as += (
                f", and so do the parts: {calibration.shown_by} pictures seem to show {calibration.parts}, many "
                "several times. Of other parts many more will be called anomalous; for those fit with --new-parts"
            )
        return {
            "threshold": f"score {self.threshold:.4g}{by}{alone}",
            "set by" if self.calibrated else "compared with": f"{count} good pictures, {how}",
            "stated rate": f"{percent(calibration.rate)} of good pictures may be called anomalous",
            "promise": self._kept(),
            "false alarms": self._alarms(parts_a_day),
            "p-value": "of a picture: the share of good pictures expected to score at least as high; from "
            f"{count} it cannot be under {calibration.floor:.2g}",
            "as long as": as_long_as,
        }

    def _kept(self) -> str:
        """Say whether the rate is guaranteed or estimated."""
        calibration = self.calibration
        if not self.calibrated:
            return f"none for a threshold that was {'taught' if self.origin == 'taught' else 'set by hand'}"
        count, rate, floor = len(calibration.scores), percent(calibration.rate), percent(calibration.floor)
        if self.interval is not None:
            low, high = map(percent, self.interval)
            return (
                f"estimated, not guaranteed: {count} pictures can promise {floor} at best, so the threshold is "
                f"extrapolated beyond their highest score; {low} to {high} of good pictures are expected above it "
                "(90 % interval)"
            )
        if calibration.below_floor:
            return (
                f"{rate} cannot be promised from {count} pictures: the threshold is their highest score, which at most "
                f"{floor} of good pictures are above on average"
            )
        low, high = map(percent, calibration.rank_rates)
        ranks = f"{low} to {high}" if low != high else high
        if calibration.folds > 1:
            return (
                f"{rate} expected on average, by rank {ranks}. For scores taken in folds that is not proved; what was "
                "measured is the rate itself or a little less"
            )
        return f"{rate} expected on average; guaranteed by rank, whatever the distribution: {ranks}"

    def _alarms(self, parts_a_day: int | None) -> str:
        """Say how many false alarms a day are expected."""
        rate, parts = self.expected_rate, PARTS_A_DAY if parts_a_day is None else parts_a_day
        highest = self.calibrated and self.calibration.below_floor and self.interval is None
        words = f"{'at most' if highest else 'about'} {rate * parts:.3g} a day ({percent(rate)})"
        if self.interval is not None:
            low, high = self.interval
            words += f", 90 % interval {low * parts:.2g} to {high * parts:.2g}"
        assumed = ", a number assumed here; in proportion for others" if parts_a_day is None else ""
        return f"{words}, if {parts} good parts pass a day{assumed}"


def needed_pictures(rate: float) -> int:
    """Return how many good pictures ranks need for a rate."""
    return math.ceil(1 / rate - 1e-9) - 1


def percent(rate: float) -> str:
    """Return a share as a percentage: `9.09 %`."""
    return f"{100 * rate:.3g} %"
