"""Few good pictures, each also learnt a little tilted.

A part never lies twice in quite the same way. Forty pictures show how differently; up to four cannot, and whatever
turns up a little askew seems unknown. So the bank of so few also gets the patches of tilted copies. No mirror images: a
part that lies the wrong way round is a defect. The copies set no threshold, and belong to their picture: a bank without
it is without them.

Measured by image AUROC on sets with 1 and 2 good pictures: see docs/why/ablation.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from totalrecall.types import Matrix, Patches, PreparedImage

__all__ = ["ANGLES", "TiltedPatches", "cells_before", "tilted"]

ANGLES = (-10.0, -5.0, 5.0, 10.0)  # degrees


@dataclass(frozen=True, eq=False)
class TiltedPatches:
    """Patches (n, d) of a tilted copy, and the (row, column) on the picture itself, (n, 2), that each of them shows."""

    patches: Patches
    cells: np.ndarray


def tilted(prepared: PreparedImage) -> Iterator[tuple[PreparedImage, Matrix]]:
    """Yield tilted copies of a prepared picture, and of each the affine map (2, 3) from its pixels (x, y) back."""
    h, w = prepared.shape[:2]
    for angle in ANGLES:
        forth = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), angle, 1.0)
        copy = cv2.warpAffine(prepared, forth, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        yield copy, cv2.invertAffineTransform(forth)


def cells_before(
    cells: np.ndarray, back: Matrix, inside: np.ndarray, sides: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return where on the untilted grid patches of a copy lie: row and column (n, 2), and which of them (n,) count.

    Args:
        cells: (n, 2) row and column on the copy's grid.
        back: from `tilted`.
        inside: bool (rows, columns), where the picture itself is judged.
        sides: height and width of the prepared picture.
    """
    per_cell = np.divide(sides, inside.shape)  # pixels, (2,)
    centres = (cells + 0.5) * per_cell - 0.5
    x, y = back @ np.stack([centres[:, 1], centres[:, 0], np.ones(len(cells))])  # (2, 3) @ (3, n) -> (2, n)
    before = np.floor((np.stack([y, x], axis=1) + 0.5) / per_cell).astype(np.int64)
    seen = np.all((before >= 0) & (before < inside.shape), axis=1)  # the rest is what fills the corners
    before = np.where(seen[:, None], before, 0)
    return before, seen & inside[before[:, 0], before[:, 1]]
