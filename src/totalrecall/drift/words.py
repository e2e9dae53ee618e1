"""What a change of conditions is called, in a sentence that a person at the line understands."""

import math
from collections.abc import Mapping

__all__ = ["change_in_words", "spread_in_words"]

_UNALIGNED = 0.05  # of the side: parts that differ by more in their place lie anywhere


def change_in_words(measure: str, direction: str, change: float, size: tuple[int, int]) -> str:
    """Say what has moved, which way and how far.

    Args:
        measure: as in `conditions`, or `patches_since`.
        direction: `+` or `-`, the way that the bets found it to have moved.
        change: of the measure's median, in its own unit.
        size: height and width in original pixels, for a displacement.
    """
    up = direction == "+"
    share = _percent(measure, change)
    if measure == "light":
        return f"the pictures are {share} {'brighter' if up else 'darker'} than the good ones that were learnt from"
    if measure in ("red", "blue"):
        return f"the colour of the light has changed: {share} {'more' if up else 'less'} {measure} against green"
    if measure == "focus":
        if up:
            return f"the finest detail is {share} stronger than it was: more noise, or a sharper focus"
        return f"the pictures are blurred: the finest detail is {share} weaker than it was"
    if measure in ("across", "down"):
        side, name = (size[1], "width") if measure == "across" else (size[0], "height")
        way = ("to the right" if up else "to the left") if measure == "across" else ("down" if up else "up")
        return f"the parts have moved {way} by {share} of the {name} ({abs(change) * side:.0f} pixels)"
    if measure == "patches_since":
        how = "less" if up else "more"
        return (
            f"the pictures are {how} like the good ones than when the monitor was started: parts or camera have changed"
        )
    what = "patches lie farther from the good ones" if measure == "patches" else "scores are higher"
    return f"{what} than at the fit: parts or camera have changed"


def spread_in_words(spread: Mapping[str, float], pictures: int) -> list[str]:
    """Say from which change on each measure is noticed soon, by how much the good pictures differ in it.

    Within 50 pictures, nine times in ten, is noticed a change of one standard deviation where there are many
    calibration pictures, of 1.3 with 30 and of 2 with 10 (simulated, normal numbers).

    Args:
        spread: standard deviation of each measure.
        pictures: of the calibration.
    """
    aligned = max(spread["across"], spread["down"]) <= _UNALIGNED
    spread = {name: one * (1 + 10 / pictures) for name, one in spread.items()}
    lines = [
        f"a change of {_percent('light', spread['light'])} in brightness is noticed within about 50 pictures",
        f"the same for a change of {_percent('focus', -spread['focus'])} in the finest detail",
    ]
    if aligned:
        across, down = _percent("across", spread["across"]), _percent("down", spread["down"])
        return [*lines, f"the same for a shift of {across} of the width or {down} of the height"]
    return [*lines, "a shift cannot be seen: the good parts themselves lie anywhere in their pictures"]


def _percent(measure: str, change: float) -> str:
    """Return how far a measure has moved, in percent; those that are logarithms as the ratio that they stand for."""
    share = change if measure in ("across", "down") else math.expm1(change)
    return f"{abs(share):.1%}".replace("%", " %") if abs(share) < 0.0995 else f"{abs(share):.0%}".replace("%", " %")
