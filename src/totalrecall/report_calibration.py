"""What stands behind the threshold, for the report: how good pictures scored, and what follows from it, in words."""

import math

from totalrecall.calibration import Calibration
from totalrecall.outliers import repeated_note
from totalrecall.report_page import LONGEST_NOTE, text
from totalrecall.report_plot import Series, histogram

__all__ = ["PARTS_A_DAY", "calibration_section", "promise"]

PARTS_A_DAY = 1000  # where nobody said how many


def calibration_section(
    calibration: Calibration, *, threshold: float | None = None, parts_a_day: int | None = None
) -> str:
    """Return the histogram of the good pictures' scores with the threshold, beside the promise.

    Args:
        calibration: of the detector that judged.
        threshold: that it judged by, where it is not the calibration's own but was taught.
        parts_a_day: good parts that pass, for the expected false alarms a day; None assumes a number and says so.
    """
    used = calibration.threshold if threshold is None else threshold
    facts = promise(calibration, threshold=threshold, parts_a_day=parts_a_day)
    rows = "".join(
        f"<tr><th scope=row>{text(name)}</th><td>{text(words, LONGEST_NOTE)}</td></tr>" for name, words in facts.items()
    )
    count = len(calibration.scores)
    series = Series("good pictures, none learnt when it was scored", "good", calibration.scores.tolist())
    bins = min(max(count // 5, 10), 24)
    drawn = histogram([series], [used], what="scores of good pictures", width=520, height=150, bins=bins)
    plot = f"<div>{drawn}</div>" if drawn else ""
    return (
        f'<section><h2>What the threshold promises</h2><div class="promise">{plot}'
        f'<table class="facts">{rows}</table></div></section>'
    )


def promise(
    calibration: Calibration, *, threshold: float | None = None, parts_a_day: int | None = None
) -> dict[str, str]:
    """Return in words, name by name, what is known of the threshold; arguments as for `calibration_section`."""
    count, own = len(calibration.scores), calibration.threshold
    used = own if threshold is None else threshold
    taught = not (used == own or (math.isnan(used) and math.isnan(own)))
    if not count:
        by = f"score {used:.4g}, as it was taught" if taught else "none, so there is no verdict"
        return {"threshold": by, "set by": "no good picture was scored without being learnt, so nothing is promised"}
    note = f", as it was taught; the good pictures alone would set {own:.4g}" if taught else ""
    how = f"each scored without its fold of {calibration.folds}" if calibration.folds > 1 else "scored without them"
    least = calibration.floor
    as_long_as = "good parts, light and camera stay as they were for those pictures"
    if calibration.new_parts:
        how += f"; the photographs of each of {calibration.parts} parts were held out together, for new ones to come"
    elif repeated_note(calibration):
        as_long_as += (
            f", and so do the parts: {calibration.shown_by} pictures seem to show {calibration.parts}, many several "
            "times. Of other parts many more will be called anomalous; for those fit with --new-parts"
        )
    return {
        "threshold": f"score {used:.4g}{note}",
        "compared with" if taught else "set by": f"{count} good pictures, {how}",
        "stated rate": f"{_percent(calibration.rate)} of good pictures may be called anomalous",
        "promise": "none for a threshold that was taught" if taught else _kept(calibration),
        "false alarms": _alarms(calibration, used, parts_a_day, taught=taught),
        "p-value": "of a picture: the share of good pictures expected to score at least as high; from "
        f"{count} it cannot be under {least:.2g}",
        "as long as": as_long_as,
    }


def _kept(calibration: Calibration) -> str:
    """Say whether the rate is guaranteed or estimated."""
    count, rate = len(calibration.scores), _percent(calibration.rate)
    floor = _percent(calibration.floor)
    if calibration.interval is not None:
        low, high = map(_percent, calibration.interval)
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
    low, high = map(_percent, calibration.rank_rates)
    ranks = f"{low} to {high}" if low != high else high
    if calibration.folds > 1:
        return (
            f"{rate} expected on average, by rank {ranks}. For scores taken in folds that is not proved; what was "
            "measured is the rate itself or a little less"
        )
    return f"{rate} expected on average; guaranteed by rank, whatever the distribution: {ranks}"


def _alarms(calibration: Calibration, threshold: float, parts_a_day: int | None, *, taught: bool) -> str:
    """Say how many false alarms a day are expected."""
    rate = calibration.expected_rate(threshold)
    parts = PARTS_A_DAY if parts_a_day is None else parts_a_day
    highest = not taught and calibration.below_floor and calibration.interval is None
    words = f"{'at most' if highest else 'about'} {rate * parts:.3g} a day ({_percent(rate)})"
    if calibration.interval is not None and not taught:
        low, high = calibration.interval
        words += f", 90 % interval {low * parts:.2g} to {high * parts:.2g}"
    assumed = ", a number assumed here; in proportion for others" if parts_a_day is None else ""
    return f"{words}, if {parts} good parts pass a day{assumed}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
