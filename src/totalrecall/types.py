"""Array types with their axes named once.

Letters: `n` pictures (or vectors), `h` `w` rows and columns of pixels or of a patch grid, `c` channels, `d` dimensions
of a patch vector, `q` query vectors, `k` neighbours. Under the test run, which imports jaxtyping first, shapes and
types are checked at every call; users get plain NumPy arrays and pay nothing for it (jaxtyping costs 0.2 s to import).
"""

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

__all__ = ["AnomalyMap", "Distances", "FeatureMap", "Image", "Indices", "Mask", "Patches"]

if not TYPE_CHECKING and "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float32, Int64, UInt8

    Image = UInt8[np.ndarray, "h w 3"]  # RGB
    Mask = Bool[np.ndarray, "h w"]
    FeatureMap = Float32[np.ndarray, "n h w c"]
    Patches = Float[np.ndarray, "n d"]  # float32 on the road; float64 where a test wants exact arithmetic
    Distances = Float[np.ndarray, "q k"]  # Euclidean, ascending along k
    Indices = Int64[np.ndarray, "q k"]
    AnomalyMap = Float32[np.ndarray, "h w"]
else:
    Array: TypeAlias = np.ndarray[Any, Any]
    Image: TypeAlias = Array
    Mask: TypeAlias = Array
    FeatureMap: TypeAlias = Array
    Patches: TypeAlias = Array
    Distances: TypeAlias = Array
    Indices: TypeAlias = Array
    AnomalyMap: TypeAlias = Array
