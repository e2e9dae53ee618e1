"""Image AUROC of Magnetic Tile as 8-bit pictures and as a 12-bit camera would write them, in 16-bit files.

The same tiles five times: in 8 bits; in 12 of 16, the low ones; in the high ones; with the four bits that 8-bit
pictures do not have filled with noise; and the low ones scaled by the full range of 16 bits (`bit_depth=16`), which is
what every picture got before. The answer that is asserted: the first four agree to 0.003. A subset: `--good` and
`--bad` tiles, or 0 for all.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import SHARED, record
from totalrecall import PatchCore
from totalrecall.datasets import open_dataset
from totalrecall.evaluation.metrics import auroc
from totalrecall.pictures.loading import read_image, spread

WAYS = {"8 bits": 8, "12 low": 12, "12 high": 12, "12 low, noise": 12, "12 low, full range": 16}


def main() -> None:
    """Write the tiles in each way, fit, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--good", type=int, default=200, metavar="N", help="good tiles to fit on (default 200; 0: all)")
    parser.add_argument("--bad", type=int, default=150, metavar="N", help="defective tiles (default 150; 0: all)")
    args = parser.parse_args()
    data = open_dataset("mtd", SHARED / "data" / "mtd")
    train = spread(data.train, args.good or len(data.train))
    good, bad = ([sample.path for sample in data.test if sample.label == label] for label in (0, 1))
    test = [*good, *spread(bad, args.bad or len(bad))]
    labels = [0] * len(good) + [1] * (len(test) - len(good))
    rows: list[dict[str, object]] = []
    for way, bits in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            files = [
                _written(Path(folder) / f"{at}.png", read_image(path), way) for at, path in enumerate(train + test)
            ]
            detector = PatchCore(bit_depth=16 if way.endswith("range") else "auto").fit(files[: len(train)])
            value = auroc(labels, detector.score(files[len(train) :]))
        depth = detector.recipe.depth
        assert depth is not None
        assert (depth.bits or 8) == bits, (way, depth)
        rows.append({"way": way, "train": len(train), "test": len(test), "shift": depth.shift, "image_auroc": value})
    reference = float(str(rows[0]["image_auroc"]))
    for row in rows:
        row["difference"] = float(str(row["image_auroc"])) - reference
    record("bit_depth", rows)
    assert all(abs(float(str(row["difference"]))) <= 0.003 for row in rows[:4])


def _written(path: Path, image: np.ndarray, way: str) -> Path:
    """Write a tile in one of the ways, without loss."""
    if way != "8 bits":
        image = np.rint(image[:, :, 0].astype(float) * 4095 / 255)  # a grey camera: (h, w, 3) -> (h, w)
        if way.endswith("noise"):
            image += np.random.default_rng(int(path.stem)).integers(-7, 8, image.shape)
        image = image.clip(0, 4095).astype(np.uint16) << (4 if way == "12 high" else 0)
    cv2.imwrite(str(path), image)
    return path


if __name__ == "__main__":
    main()
