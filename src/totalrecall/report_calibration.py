"""What stands behind the threshold, for the report: how good pictures scored, and what follows from it, in words."""

from totalrecall.promise import Promise
from totalrecall.report_page import LONGEST_NOTE, text
from totalrecall.report_plot import Series, histogram

__all__ = ["calibration_section"]


def calibration_section(
    promise: Promise,
    *,
    parts_a_day: int | None = None,
) -> str:
    """Return the histogram of the good pictures' scores with the threshold, beside the promise.

    Args:
        promise: of the threshold that the detector judged by.
        parts_a_day: good parts that pass, for the expected false alarms a day; None assumes a number and says so.
    """
    calibration, used, facts = promise.calibration, promise.threshold, promise.rows(parts_a_day)
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
