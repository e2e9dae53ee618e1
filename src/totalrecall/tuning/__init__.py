"""Settings for one part, found by planted defects on good pictures that were held out.

`tuning` tries settings one after another; `planted` plants the same defects for each of them.
"""

from totalrecall.tuning.tuning import Tried, Tuning, tune

__all__ = ["Tried", "Tuning", "tune"]
