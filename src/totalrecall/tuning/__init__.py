"""Settings for one part, found by planted defects on good pictures that were held out.

`tuning` tries settings one after another; `planted` plants the same defects for each of them; `thresholds` says what
several thresholds of one detector find; `int8` fits with a backbone of 8 bits, if that costs little.
"""

from totalrecall.tuning.int8 import EightBits, compare_int8, fit_int8
from totalrecall.tuning.thresholds import found_above
from totalrecall.tuning.tuning import Tried, Tuning, tune

__all__ = ["EightBits", "Tried", "Tuning", "compare_int8", "fit_int8", "found_above", "tune"]
