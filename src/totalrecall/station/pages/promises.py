"""What a threshold promises, in the reader's language: the facts of `Promise` put into the dictionary's sentences."""

import math
from typing import TYPE_CHECKING

from totalrecall.station.pages.texts import Texts

if TYPE_CHECKING:
    from totalrecall.detectors.promise import Promise

__all__ = ["promise_words"]


def promise_words(promise: "Promise", t: Texts) -> str:
    """Say what the threshold is, what set it, and which share of good parts is expected above it."""
    if math.isnan(promise.threshold):
        return t("promise.none")
    calibration = promise.calibration
    how = t(
        f"promise.{promise.origin}"
        if not promise.calibrated
        else "promise.folds"
        if calibration.folds > 1
        else "promise.aside",
        {"count": len(calibration.scores), "folds": calibration.folds},
    )
    return f"{t('promise.threshold', {'threshold': t.score(promise.threshold), 'how': how})} {_rate(promise, t)}"


def _rate(promise: "Promise", t: Texts) -> str:
    rate = promise.expected_rate
    if math.isnan(rate):
        return t("promise.unknown")
    if promise.interval is not None:
        low, high = promise.interval
        about = promise.calibration.rate if promise.calibrated else rate
        return t("promise.estimated", {"rate": t.percent(about), "low": t.percent(low), "high": t.percent(high)})
    if not promise.calibrated:
        return t("promise.about", {"rate": t.percent(rate)})
    most = t.percent(promise.calibration.guaranteed_rate)
    if promise.calibration.below_floor:
        return t("promise.at_most", {"most": most})
    return t("promise.expected", {"rate": t.percent(promise.calibration.rate), "most": most})
