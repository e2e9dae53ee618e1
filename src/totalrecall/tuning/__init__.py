"""Settings for one part, found by planted defects on good pictures that were held out.

`tuning` tries settings one after another; `planted` plants the same defects for each of them; `thresholds` says what
several thresholds of one detector find.
"""

from totalrecall.tuning.thresholds import found_above
from totalrecall.tuning.tuning import Tried, Tuning, tune

__all__ = ["Tried", "Tuning", "found_above", "tune"]
