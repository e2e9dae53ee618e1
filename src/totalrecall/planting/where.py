"""Which pixels of a picture show the part, and not the ground that it lies on."""

import cv2
import numpy as np

from totalrecall.types import Image, Mask

__all__ = ["edge_width", "part_mask"]

_SIDE = 160  # pixels that the longer side is reduced to: noise goes, and the ground has one colour
_RING = 0.03  # of the shorter side: the frame's edge, where the ground shows if there is any
_SPREAD = 1.5  # levels of 255 by which the ground varies at least
_NEAR, _FAR = 4.0, 10.0  # standard deviations of the ground: alike; something else
_PLAIN = 6.0  # the same, of half the part at least: else it cannot be told from the ground
_LEAST, _MOST = 0.04, 0.97  # of the picture that a part covers where a ground can be told from it
_HOLE = 0.002  # of the picture: a smaller patch that looks like the ground is of the part


def part_mask(image: Image) -> Mask:
    """Return which pixels show the part, bool (h, w); all of them where no ground can be told from it.

    The ground is what the frame's edge mostly shows: a surface of the second degree through its colours, after a
    reduction that averages noise away. What is far from it is the part. Where nearly everything is alike (cloth, wood,
    a tile that fills the picture) there is no ground.
    Small patches that look like the ground are of the part, larger ones are holes in it.
    """
    h, w = image.shape[:2]
    share = min(_SIDE / max(h, w), 1.0)
    size = (max(round(w * share), 8), max(round(h * share), 8))
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), 1.2).astype(np.float32)
    far = _distance_from_ground(small)
    part = (far > _limit(far)).astype(np.uint8)
    part = cv2.erode(_without_specks(part), np.ones((3, 3), np.uint8), borderValue=1)  # what the blur has added
    covered = float(part.mean())
    if not _LEAST <= covered <= _MOST or float(np.median(far[part > 0])) < _PLAIN:
        return np.ones((h, w), bool)
    return cv2.resize(part, (w, h), interpolation=cv2.INTER_NEAREST) > 0


def edge_width(height: int, width: int) -> int:
    """Return within how many pixels of a `part_mask`'s edge the picture may show the part or the ground."""
    return 3 * max(round(max(height, width) / _SIDE), 1)


def _distance_from_ground(small: np.ndarray) -> np.ndarray:
    """Return how unlike the ground each pixel (h, w) is, in standard deviations of the ground's colour."""
    h, w = small.shape[:2]
    ring = max(round(_RING * min(h, w)), 2)
    edge = np.ones((h, w), bool)
    edge[ring:-ring, ring:-ring] = False
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=2)  # light falls off towards the corners
    known, colours = terms[edge], small[edge].astype(np.float64)  # (h, w, c) -> (n, c)
    weights = np.ones(len(colours))
    for _ in range(8):  # least absolute differences: a part that reaches over the frame's edge does not move them
        root = np.sqrt(weights)[:, None]
        ground = np.linalg.lstsq(known * root, colours * root, rcond=None)[0]
        differences = np.abs(colours - known @ ground)
        weights = 1 / np.maximum(differences.max(axis=1), 0.5)
    spread = np.maximum(1.4826 * np.median(differences, axis=0), _SPREAD)
    return np.asarray((np.abs(small - terms @ ground) / spread).max(axis=2), np.float32)


def _limit(far: np.ndarray) -> float:
    """Return the distance from which a pixel is of the part: where Otsu divides the logarithms, between two bounds."""
    levels = np.clip(40 * np.log(np.maximum(far, 1)), 0, 255).astype(np.uint8)
    return float(np.clip(np.exp(cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)[0] / 40), _NEAR, _FAR))


def _without_specks(part: np.ndarray) -> np.ndarray:
    """Return the part, uint8 (h, w), without specks on the ground, and with the small holes in it filled."""
    least = max(round(_HOLE * part.size), 4)
    for value in (1, 0):
        _, labels, stats, _ = cv2.connectedComponentsWithStats((part == value).astype(np.uint8), connectivity=4)
        small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < least)
        part = np.where(np.isin(labels, small[small > 0]), 1 - value, part).astype(np.uint8)
    return part
