"""Array types with their axes named once.

Letters: `n` pictures, `p` patches, `h` `w` rows and columns of pixels or of a patch grid, `c` channels, `d` dimensions
of a patch vector, `q` query vectors, `k` neighbours. Under the test run, which imports jaxtyping first, shapes and
types are checked at every call; users get plain NumPy arrays and pay nothing for it (jaxtyping costs 0.2 s to import).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

__all__ = [
    "AnomalyMap",
    "Distances",
    "FeatureMap",
    "Image",
    "Indices",
    "LayerMap",
    "Mask",
    "Matrix",
    "PatchGrid",
    "PatchStack",
    "Patches",
    "PreparedImage",
    "PreparedMap",
    "PreparedMask",
    "RoiSource",
]

if not TYPE_CHECKING and "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float32, Int64, UInt8

    Image = UInt8[np.ndarray, "h w 3"]  # RGB
    Mask = Bool[np.ndarray, "h w"]
    PreparedImage = UInt8[np.ndarray, "H W 3"]  # as the backbone sees it
    PreparedMask = Bool[np.ndarray, "H W"]
    PreparedMap = Float32[np.ndarray, "H W"]
    FeatureMap = Float32[np.ndarray, "n h w c"]
    LayerMap = Float32[np.ndarray, "n _ _ _"]  # one of several feature maps, each of its own size
    PatchGrid = Float32[np.ndarray, "n rows columns d"]  # a patch vector for each position of the finest layer
    PatchStack = Float32[np.ndarray, "n p d"]  # the patches of several pictures, each at its own place of the grid
    Patches = Float[np.ndarray, "p d"]  # float32 in a detector; float64 where a test wants exact arithmetic
    Matrix = Float[np.ndarray, "_ _"]  # of axes that are not those of the patches beside it: a basis, weights
    Distances = Float[np.ndarray, "q k"]  # Euclidean, ascending along k
    Indices = Int64[np.ndarray, "q k"]
    AnomalyMap = Float32[np.ndarray, "h w"]
else:
    Array: TypeAlias = np.ndarray[Any, Any]
    Image: TypeAlias = Array
    Mask: TypeAlias = Array
    PreparedImage: TypeAlias = Array
    PreparedMask: TypeAlias = Array
    PreparedMap: TypeAlias = Array
    FeatureMap: TypeAlias = Array
    LayerMap: TypeAlias = Array
    PatchGrid: TypeAlias = Array
    PatchStack: TypeAlias = Array
    Patches: TypeAlias = Array
    Matrix: TypeAlias = Array
    Distances: TypeAlias = Array
    Indices: TypeAlias = Array
    AnomalyMap: TypeAlias = Array

RoiSource: TypeAlias = str | Path | np.ndarray  # a region of interest: a mask's file, or an array (h, w)
