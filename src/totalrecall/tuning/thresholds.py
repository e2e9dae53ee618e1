"""What several thresholds of one detector find of the same planted defects."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from totalrecall.pictures.loading import Source
from totalrecall.planting import as_given
from totalrecall.tuning.planted import plant_defects

if TYPE_CHECKING:
    from typing import Any

    from totalrecall.detectors.base import Detector

__all__ = ["found_above"]

_PICTURES = 20  # to plant on
_PER_KIND = 8  # defects: 64 in all, which a fit of twenty pictures judges in the time that it took


def found_above(
    detector: "Detector[Any]", sources: Sequence[Source], thresholds: Sequence[float], *, seed: int = 0
) -> tuple[list[int], int]:
    """Return how many planted defects score above each threshold, and how many were planted.

    The detector may know the pictures. Then it has seen all but the defect, and finds no more than on new ones: what
    surrounds a defect adds less to the score. The figures compare thresholds.

    Args:
        detector: fitted.
        sources: good pictures; 20 of them are used.
        thresholds: scores.
        seed: the same one plants the same defects.

    Raises:
        DataError: no defect could be planted.
    """
    order = np.random.default_rng(seed).permutation(len(sources))[:_PICTURES].tolist()
    planted = plant_defects([sources[at] for at in order], detector.recipe, seed, per_kind=_PER_KIND)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a picture unlike the others
        scores = np.array(
            [detector.predict(as_given(picture, detector.recipe)).score for picture in planted.pictures()]
        )
    return [int((scores > threshold).sum()) for threshold in thresholds], len(scores)
