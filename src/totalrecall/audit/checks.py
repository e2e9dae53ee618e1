"""What an audit finds without patch distances: the same picture twice, unusual light and focus.

Two pictures are nearly the same if they are much nearer to each other than pictures of different parts are: nearer than
0.4 times the median distance between a picture and its fourth nearest neighbour. Pictures are compared by their
features, averaged over the cells of a coarse grid. A hash of the pixels (the signs of DCT coefficients, or of
differences) does not work here: all pictures of one kind of part have nearly the same hash. On 209 bottles and 761
magnetic tiles this finds one pair and five pairs, each the same part in the same place. Copies that were saved again as
JPEG or made brighter are found before, by a stricter test (see `copies`), and a fit leaves them out.
"""

import cv2
import numpy as np

from totalrecall.types import Image, Matrix, Patches

__all__ = ["describe", "find_duplicates", "looks", "odd_looks"]

_BINS = 4  # a side, of the coarse grid
_DIRECTIONS = 64  # of the patches' main ones
_SAME = 0.4  # of the usual distance to the fourth nearest picture
_FOURTH = 4
_LEAST = 8  # pictures; with fewer, nothing can be called usual
_BLOCK = 1024  # pictures compared at a time
_GREY, _CONTRAST, _SHARP = 12.0, 0.25, 0.4  # smallest differences to report: grey levels, and shares
_ODD = 5.0  # robust standard deviations


# ---------------------------------------------------------------------- the same picture twice


def describe(patches: Patches, cells: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the means of patches (p, d) over a coarse grid of 4 x 4, float32 (16 * at most 64,); zero where none is.

    Args:
        patches: in order of their main directions, of which the first 64 count.
        cells: (p, 2) row and column of each.
        grid: rows and columns of the patch grid.
    """
    bins = (cells[:, 0] * _BINS // grid[0]) * _BINS + cells[:, 1] * _BINS // grid[1]
    member = (bins == np.arange(_BINS**2)[:, None]).astype(np.float32)  # (16, p)
    member /= np.maximum(member.sum(axis=1, keepdims=True), 1)
    return np.asarray((member @ patches[:, :_DIRECTIONS]).ravel())  # (16, p) @ (p, 64)


def find_duplicates(described: Matrix) -> list[tuple[int, ...]]:
    """Return the groups of pictures that look nearly the same, each ascending: each within the limit of another.

    Args:
        described: (n, f) from `describe`; of different pictures (see `copies`).
    """
    return sorted(tuple(group) for group in _alike(described))


def _alike(described: Matrix) -> list[list[int]]:
    count = len(described)
    if count < _LEAST:
        return []
    norms = np.einsum("nf,nf->n", described, described)
    fourth = np.empty(count, np.float32)
    close: list[tuple[int, int, float]] = []
    for start in range(0, count, _BLOCK):
        some = slice(start, min(start + _BLOCK, count))
        squared = norms[some, None] + norms - 2 * (described[some] @ described.T)  # (block, f) @ (f, n)
        squared[np.arange(some.stop - start), np.arange(start, some.stop)] = np.inf
        order = np.argpartition(squared, _FOURTH - 1, axis=1)[:, :_FOURTH]
        nearest = np.take_along_axis(squared, order, axis=1)
        fourth[some] = nearest.max(axis=1)
        close += [
            (start + row, int(other), float(distance))
            for row, (others, distances) in enumerate(zip(order, nearest, strict=True))
            for other, distance in zip(others, distances, strict=True)
        ]
    limit = _SAME**2 * float(np.median(fourth))
    group = np.arange(count)
    for one, other, distance in close:
        if distance < limit:
            group[group == group[one]] = group[other]
    groups = [np.flatnonzero(group == name) for name in np.unique(group)]
    return [members.tolist() for members in groups if len(members) > 1]


# ---------------------------------------------------------------------- light and focus


def looks(image: Image) -> tuple[float, float, float]:
    """Return mean grey 0..255, its standard deviation, and the sharpness of a picture (of its Laplacian, likewise)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    share = 256 / max(grey.shape)
    if share < 1:
        grey = cv2.resize(grey, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return float(grey.mean()), float(grey.std()), float(cv2.Laplacian(grey, cv2.CV_32F).std())


def odd_looks(own: tuple[float, float, float], usual: Matrix) -> list[str]:
    """Say how light, contrast and sharpness differ from those of other pictures, (n, 3) from `looks`."""
    words = []
    names = (("brighter", "darker"), ("of more contrast", "of less contrast"), ("sharper", "blurred"))
    for column, least in enumerate((_GREY, _CONTRAST, _SHARP)):
        middle = float(np.median(usual[:, column]))
        spread = 1.4826 * float(np.median(np.abs(usual[:, column] - middle)))
        apart = own[column] - middle
        if abs(apart) > max(_ODD * spread, least if column == 0 else least * middle):
            more, less = names[column]
            words.append(f"{more if apart > 0 else less} ({own[column]:.0f}, others {middle:.0f})")
    return words
