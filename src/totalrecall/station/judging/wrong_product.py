"""Wrong product: a picture that is far from all good pictures as a whole gets no verdict.

A defect, even a large one, leaves a part of the picture as it is. So the question is asked of the quietest tenth of the
picture: the level that 90 % of the anomaly map lie above. Another product is far from the good patches there, too. The
level is compared with what the model keeps of the good pictures that set its threshold, each measured by a bank
without it: the mean distance of all patches (`drift`). A picture shows another product where even its quietest tenth
lies farther than `MARGIN` times the mean that 19 of 20 good pictures keep below; the largest would follow one odd
picture. Models of pictures under 192 pixels cannot tell.

Measured in `benchmarks/wrong_product.py`; the table is in docs/howto/recipes.md.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from totalrecall.detectors.base import Detector
from totalrecall.drift.conditions import FEWEST_PICTURES, MEASURES
from totalrecall.errors import SettingError

if TYPE_CHECKING:
    from totalrecall.scoring import Result
    from totalrecall.station.judging.models import Loaded

__all__ = ["MARGIN", "ProductCheck", "limit_of", "quiet_level"]

MARGIN = 1.1
_USUAL = 0.95  # share of the good pictures
_SMALLEST = 192  # pixels of a prepared picture: in a smaller one a network sees a defect from nearly everywhere
_QUIET = 0.1  # share of the picture
_PIXELS = 20_000  # of the map that are looked at
_PATCHES = MEASURES.index("patches")


def quiet_level(result: "Result") -> float:
    """Return the level that nine tenths of a picture's anomaly map lie above; nan if nothing of it was inspected."""
    seen = result.geometry.seen
    values = result.anomaly_map[seen]
    recipe = result.recipe
    roi = None if recipe is None else recipe.original_roi(*result.anomaly_map.shape)
    step = max(math.isqrt(values.size // _PIXELS), 1)  # the map is smooth: some of its pixels say what all do
    values = values[::step, ::step]
    inside = values if roi is None else values[roi[seen][::step, ::step]]
    return float(np.quantile(inside, _QUIET)) if inside.size else math.nan


def limit_of(judge: object) -> float:
    """Return the level above which a picture shows another product; nan where a model cannot tell."""
    if not isinstance(judge, Detector):  # an exported graph keeps nothing to compare with
        return math.nan
    if judge.recipe.size < _SMALLEST:
        return math.nan
    try:
        means = judge.drift_.values[:, _PATCHES]
    except SettingError:  # a model of an older version
        return math.nan
    return MARGIN * float(np.quantile(means, _USUAL)) if len(means) >= FEWEST_PICTURES else math.nan


class ProductCheck:
    """Tells pictures of other products. Any thread may call it."""

    def __init__(self) -> None:
        self._limits: dict[str, tuple[str, float]] = {}  # of each model the hash, and the limit that follows from it

    def is_wrong(self, loaded: "Loaded", result: "Result") -> bool:
        """Tell whether a picture shows another product than the model learnt."""
        sha256, limit = self._limits.get(loaded.name, ("", math.nan))
        if sha256 != loaded.sha256:
            limit = limit_of(loaded.judge)
            self._limits[loaded.name] = (loaded.sha256, limit)
        return quiet_level(result) > limit  # subtle: nothing is greater than nan
