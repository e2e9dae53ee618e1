"""A thorough look at a data set: every picture and mask is opened, and each mask is compared with its picture.

Opening a set looks at names alone. Here the sizes are read too, from the first bytes of the files (`headers.py`), in
threads, since a disk is what is waited for. What is damaged inside is found by decoding alone, which is asked for.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from totalrecall.datasets.base import DataSet, FrameMask, MaskSource, Sample, open_array
from totalrecall.datasets.headers import picture_size
from totalrecall.errors import DataError, PictureError
from totalrecall.images import read_image
from totalrecall.masks import read_mask

__all__ = ["Problem", "check_files", "mask_files"]

_THREADS = 8
_MOST = 0.6  # of a picture, and of its border, that no defect covers


@dataclass(frozen=True)
class Problem:
    """A picture or mask that cannot be used as it is, and why in one line."""

    path: Path
    message: str


def check_files(
    data: DataSet, *, decode: bool = False, progress: Callable[[int, int], object] | None = None
) -> list[Problem]:
    """Return what is wrong with the files of a data set, in the order of its samples.

    Args:
        data: an opened data set.
        decode: decode every picture and mask instead of reading the first bytes; slow where they are large.
        progress: called as `progress(done, total)` after each sample.
    """
    problems: list[Problem] = []
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        found = pool.map(lambda sample: list(_problems(sample, decode)), data.samples)
        for done, some in enumerate(found, start=1):
            problems += some
            if progress is not None:
                progress(done, len(data.samples))
    return problems


def mask_files(mask: MaskSource | None) -> tuple[Path, ...]:
    """Return the files that a mask is in."""
    if mask is None:
        return ()
    if isinstance(mask, FrameMask):
        return (mask.path,)
    return mask if isinstance(mask, tuple) else (mask,)


def _problems(sample: Sample, decode: bool) -> Iterator[Problem]:
    try:
        size = _decoded_size(sample.path) if decode else picture_size(sample.path)
    except PictureError as error:
        yield Problem(sample.path, str(error))
        return
    for path in mask_files(sample.mask):
        try:
            mask_size = _mask_size(path, sample.mask, decode)
        except (PictureError, DataError) as error:
            yield Problem(path, f"The mask of {sample.path} cannot be used: {error}")
            continue
        if mask_size != size:
            yield Problem(
                path,
                f"The mask {path} is {mask_size[1]} x {mask_size[0]} pixels, its picture {sample.path} "
                f"{size[1]} x {size[0]}. They must be of one size.",
            )


def _decoded_size(path: Path) -> tuple[int, int]:
    height, width = read_image(path).shape[:2]
    return height, width


def _understood_size(path: Path) -> tuple[int, int]:
    """Return the size of a mask of which one can say what it marks, and which does not seem to be inverted."""
    mask = read_mask(path)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if mask.mean() > _MOST and border.mean() > _MOST:
        raise DataError(
            f"{path} marks {mask.mean():.0%} of the picture, its border too, so it seems to be inverted. "
            "Defects are white on black."
        )
    return mask.shape


def _mask_size(path: Path, mask: MaskSource | None, decode: bool) -> tuple[int, int]:
    if not isinstance(mask, FrameMask):
        return _understood_size(path) if decode else picture_size(path)
    try:
        frames = open_array(path)  # the header alone, until a frame is looked at
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not an array of masks ({error}). Restore the file.") from None
    if frames.ndim != 3 or mask.frame >= len(frames):
        raise DataError(f"{path} has the shape {frames.shape} and no frame {mask.frame}. Restore the file.")
    return frames.shape[1], frames.shape[2]
