"""What `fit` and `predict_stream` take: a folder, a glob, a picture in memory, or any of them together."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from totalrecall.errors import SettingError
from totalrecall.images import Source
from totalrecall.in_memory import held, is_in_memory
from totalrecall.picture_files import find_pictures

__all__ = ["Sources", "expand"]

Sources = Source | Iterable[Source]
_WANTED = "Give paths, folders, globs, bytes, open files, PIL pictures or arrays (h, w, 3)."


def expand(pictures: Any) -> Sequence[Source]:
    """Turn what `fit` and `predict_stream` take into single pictures that can be read more than once.

    An array or tensor of four axes is so many pictures; of an open file the bytes are read now.

    Raises:
        DataError: a folder or glob holds no picture.
        PictureError: an open file cannot be read.
        SettingError: it is neither a picture nor a collection of them.
    """
    if isinstance(pictures, (str, os.PathLike)):
        return list(find_pictures(_path(pictures)))
    if is_in_memory(pictures):
        if getattr(pictures, "ndim", 0) == 4:
            return list(np.asarray(pictures))
        return [held(pictures)]
    if not isinstance(pictures, Iterable):
        raise SettingError(f"pictures must be pictures, got {type(pictures).__name__}. {_WANTED}")
    sources: list[Source] = []
    for picture in pictures:
        if isinstance(picture, (str, os.PathLike)):
            sources.extend(find_pictures(_path(picture)))
        elif is_in_memory(picture):
            sources.append(held(picture))
        else:
            raise SettingError(f"pictures must be pictures, got a {type(picture).__name__} among them. {_WANTED}")
    return sources


def _path(given: str | os.PathLike[str]) -> str | Path:
    return given if isinstance(given, str) else Path(given)
