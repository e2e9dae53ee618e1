"""Good pictures to plant defects on, and planted copies as a detector takes them."""

import numpy as np

from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import Source, load_picture
from totalrecall.planting.where import part_mask
from totalrecall.types import Image, Mask

__all__ = ["as_given", "ground"]


def ground(source: Source, recipe: Recipe) -> tuple[Image, Mask, Mask | None]:
    """Return a good picture, uint8 RGB (h, w, 3), where the part is, and where it is judged, bool (h, w); None: all.

    Raises:
        PictureError: it is gone, or cannot be read.
    """
    loaded = load_picture(source, recipe)
    if loaded.error is not None:
        raise loaded.error
    assert loaded.image is not None
    assert loaded.geometry is not None
    h, w = loaded.image.shape[:2]
    region = recipe.original_roi(h, w)
    part = part_mask(loaded.image) if region is None else np.ones((h, w), bool)  # a person has said where it is
    if loaded.geometry.seen != (slice(0, h), slice(0, w)):
        shown = np.zeros((h, w), bool)
        shown[loaded.geometry.seen] = True
        region = shown if region is None else region & shown
    return loaded.image, part, region


def as_given(picture: Image, recipe: Recipe) -> np.ndarray:
    """Return a picture as a detector takes it: of a 16-bit camera's model 8 bits would be refused."""
    depth = recipe.depth
    return picture if depth is None or depth.eight_bit else picture.astype(np.float64) / 255
