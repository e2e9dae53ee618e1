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


def write_parts(root: Path, good: int, dented: int, runs: int, *, noise: float = 0.0) -> Path:
    """Write pictures of parts whose truth is known, and return their folder.

    Args:
        root: the folder.
        good: parts without damage.
        dented: parts with damage.
        runs: pictures of each part.
        noise: standard deviation in which the pictures of one part differ, in levels of 255.
    """
    import numpy as np

    for truth, count, picture in (("good", good, good_picture), ("dent", dented, defect_picture)):
        for number in range(count):
            folder = root / truth / f"{number:02}"
            folder.mkdir(parents=True)
            image = cv2.imdecode(np.frombuffer(picture(number), np.uint8), cv2.IMREAD_COLOR)
            for run in range(runs):
                exposed = image + np.random.default_rng(100 * number + run).normal(0, noise, image.shape)
                cv2.imwrite(str(folder / f"{run}.png"), np.clip(exposed, 0, 255).astype(np.uint8))
    return root
