"""A model of striped parts that finds their damage, and pictures as bytes, for tests of the station."""

from pathlib import Path

import cv2

from tests.parts import damaged, made_to_grow, odd, stripes


def fit_striped(folder: Path, name: str = "part", pictures: int = 24, **options) -> Path:
    """Fit a model of good parts and return its file."""
    detector = made_to_grow("compact", **options).fit([stripes(seed) for seed in range(pictures)])
    return detector.save(folder / f"{name}.trecall")


def png(picture) -> bytes:
    """The bytes of a picture as PNG."""
    return cv2.imencode(".png", picture)[1].tobytes()


def good_picture(seed: int) -> bytes:
    """A good part that was not learnt."""
    return png(stripes(1000 + seed))


def defect_picture(seed: int) -> bytes:
    """A part with damage."""
    return png(damaged(2000 + seed))


def odd_picture(seed: int) -> bytes:
    """A part with a stain, which is fine, and which the model calls a defect."""
    return png(odd(seed))


def other_product(seed: int) -> bytes:
    """A part of another product: noise, as coarse as the stripes are."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return png(cv2.resize(rng.integers(0, 255, (14, 18, 3), np.uint8), (90, 70), interpolation=cv2.INTER_NEAREST))
