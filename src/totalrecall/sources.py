"""What `fit` and `predict` take: a folder, a glob, an array, or any of them together."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from totalrecall.images import Source
from totalrecall.picture_files import find_pictures

__all__ = ["Sources", "expand"]

Sources = Source | Iterable[Source]


def expand(pictures: Sources) -> Sequence[Source]:
    """Turn what `fit` and `predict_stream` take into single pictures; arrays stay as they are."""
    if isinstance(pictures, (str, Path)):
        return find_pictures(pictures)
    if isinstance(pictures, np.ndarray):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    sources: list[Source] = []
    for picture in pictures:
        sources.extend([picture] if isinstance(picture, np.ndarray) else find_pictures(picture))
    return sources
