"""The worst patch of a picture beside the good patch that it is nearest to, cut from the files."""

from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from totalrecall.bit_depth import BitDepth
from totalrecall.errors import PictureError
from totalrecall.images import read_image
from totalrecall.report_page import jpeg_uri, text

__all__ = ["cut_patch", "no_patches", "patch_pair"]

Picture: TypeAlias = NDArray[np.uint8]  # (h, w, 3) RGB; not `types.Image`, for sizes change here

_SHARE = 8  # a patch is this part of the picture's shorter side
_LEAST = 24  # pixels, for there to be something to see
_SHOWN = 200  # pixels


def patch_pair(
    path: str | Path,
    worst: tuple[int, int],
    nearest: str | Path,
    nearest_at: tuple[int, int],
    names: tuple[str, str],
    *,
    depth: BitDepth | None = None,
) -> str:
    """Return both patches as HTML, or in a line why there are none.

    Args:
        path: the picture's file.
        worst: x and y of its worst patch, in pixels of the file.
        nearest: the good picture's file.
        nearest_at: x and y of the good patch, in pixels of that file.
        names: what the two pictures are called.
        depth: of the model, for 16-bit pictures.
    """
    own, good = text(names[0]), text(names[1])
    try:
        patches = cut_patch(read_image(path, depth), worst), cut_patch(read_image(nearest, depth), nearest_at)
    except PictureError:  # moved away since
        return _without(f"<bdi>{own}</bdi>, or the good picture <bdi>{good}</bdi>, is not there any more")
    first, second = (jpeg_uri(_enlarged(patch), _SHOWN) for patch in patches)
    return (
        f'<div class="patches"><span><img loading="lazy" alt="Worst patch of {own}" src="{first}">worst patch</span>'
        f'<span><img loading="lazy" alt="Nearest good patch, of {good}" src="{second}">'
        f"nearest good patch, of <bdi>{good}</bdi></span></div>"
    )


def no_patches(name: str, *, named: bool) -> str:
    """Say in a line of HTML why the nearest good picture is not shown.

    Args:
        name: what it is called.
        named: whether a folder was named to find it in.
    """
    if named:
        return _without(
            f"the nearest good picture, <bdi>{text(name)}</bdi>, was not found where pictures were looked for, or is "
            "another file by now. To see it, name its folder: --good-pictures DIR"
        )
    return _without(
        f"the nearest good picture is <bdi>{text(name)}</bdi>. To see it, name the folder of the good pictures: "
        "--good-pictures DIR"
    )


def _without(why: str) -> str:
    return f'<p class="gone">No patches side by side: {why}.</p>'


def cut_patch(image: Picture, at: tuple[int, int]) -> Picture:
    """Return the square around a point (x, y), an eighth of the shorter side, moved to lie inside the picture."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    side = min(max(round(shorter / _SHARE), _LEAST), shorter)
    left, top = (min(max(at[axis] - side // 2, 0), (width, height)[axis] - side) for axis in (0, 1))
    return image[top : top + side, left : left + side]


def _enlarged(patch: Picture) -> Picture:
    larger = patch.shape[0] < _SHOWN
    grown = cv2.resize(patch, (_SHOWN, _SHOWN), interpolation=cv2.INTER_CUBIC if larger else cv2.INTER_AREA)
    return np.asarray(grown, np.uint8)
