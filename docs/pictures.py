"""Make the pictures of the docs: `python docs/pictures.py` draws, fits and scores with the program's own demo."""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from totalrecall import PatchCore
from totalrecall.cli import main
from totalrecall.demo.pictures import defective, good

IMAGES = Path(__file__).resolve().parent / "images"


def heatmap() -> None:
    """Write heatmap.jpg: a detector that saw forty synthetic boards judges a damaged one."""
    boards = [good("board", np.random.default_rng([1, i])) for i in range(40)]
    picture, _ = defective("board", "scratch", np.random.default_rng([2, 3]))
    detector = PatchCore(false_alarm_rate=0.12).fit(boards)
    result = detector.predict(picture)
    _write("heatmap.jpg", result.overlay(picture, title="synthetic board, scratched")[:, :, ::-1])  # RGB -> BGR


def first_hour() -> None:
    """Write washers.jpg and washer-scratch.jpg: the pictures of `totalrecall demo`, which the tutorial repeats."""
    with tempfile.TemporaryDirectory() as folder:
        washer, model = Path(folder) / "washer", str(Path(folder) / "washer.trecall")
        main(["demo", "--kinds", "washer", "--out", folder, "--quiet"])
        main(["fit", str(washer / "pictures/train/good"), "-o", model, "--quiet"])
        main(["predict", model, str(washer / "pictures/test/scratch"), "--heatmaps", f"{folder}/maps", "--quiet"])
        above = [washer / f"pictures/train/good/{i:03}.png" for i in (0, 1, 2)]
        below = [washer / f"pictures/test/{defect}/000.png" for defect in ("crack", "scratch", "missing")]
        _write("washers.jpg", np.vstack([np.hstack([_read(path, 220) for path in row]) for row in (above, below)]))
        _write("washer-scratch.jpg", _read(next(Path(folder, "maps").glob("*000*.png"))))


def _read(path: Path, side: int | None = None) -> np.ndarray:
    picture = cv2.imread(str(path))
    if side is None:
        return picture
    small = cv2.resize(picture, (side - 8, side - 8), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _write(name: str, picture: np.ndarray) -> None:
    cv2.imwrite(str(IMAGES / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    heatmap()
    first_hour()
