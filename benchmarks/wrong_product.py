"""How often another product is noticed, and how often a defect is taken for one: `python -m benchmarks.wrong_product`.

A detector is fitted on each of the real sets of ../shared, with the defaults. It judges its own test pictures, good
(as they are, darker and brighter) and defective; 60 pictures of each other set; and 60 photographs of anything. Of each
group: how many the station takes for another product (`station/judging/wrong_product.py`), and the quiet level against
the limit. The models are kept in a folder, so that a run that was cut off goes on.
"""

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import REAL_SETS, RESULTS, SHARED, open_real_set
from totalrecall import PatchCore
from totalrecall.errors import PictureError
from totalrecall.pictures.files import find_pictures
from totalrecall.pictures.loading import read_image
from totalrecall.station.judging.wrong_product import limit_of, quiet_level
from totalrecall.system.text import csv_line

EACH = 60  # pictures of another set
MOST = 200  # pictures to fit on
LIGHT = {"good, 70 % of the light": 0.7, "good, 130 % of the light": 1.3}


def pictures_of(name: str) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the pictures of a set to fit on, its good ones to test on, and its defects."""
    data = open_real_set(name)
    test = [(Path(one.path), one.label == 1) for one in data.test]
    good = [path for path, anomalous in test if not anomalous]
    return [Path(path) for path in data.train][:MOST], good, [path for path, anomalous in test if anomalous]


def lit(path: Path, gain: float) -> np.ndarray:
    """Return a picture in other light."""
    return np.clip(np.rint(read_image(path) * np.float32(gain)), 0, 255).astype(np.uint8)


def groups(name: str) -> Iterator[tuple[str, Sequence[Path | np.ndarray]]]:
    """Yield what the model of a set is shown."""
    _, good, defects = pictures_of(name)
    yield "good", good
    for words, gain in LIGHT.items():
        yield words, [lit(path, gain) for path in good]
    yield "defects", defects
    for other in REAL_SETS:
        if other != name:
            train, test, _ = pictures_of(other)
            yield f"another product: {other}", [*test, *train][:EACH]
    photographs = find_pictures(SHARED / "data" / "natural")
    chosen = np.random.default_rng(0).permutation(len(photographs))[:EACH]
    yield "photographs of anything", [photographs[at] for at in chosen]


def fitted(name: str, folder: Path) -> PatchCore:
    """Return the model of a set."""
    path = folder / f"{name}.trecall"
    if not path.exists():
        PatchCore().fit(pictures_of(name)[0]).save(path)
    return PatchCore.load(path)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=list(REAL_SETS))
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "wrong-product-models")
    parser.add_argument("--table", type=Path, default=RESULTS / "wrong_product.csv")
    args = parser.parse_args()
    args.models.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    lines = [csv_line(["model", "pictures", "taken for another product", "of", "lowest", "median", "highest"])]
    for name in args.sets:
        detector = fitted(name, args.models)
        limit = limit_of(detector)
        for words, pictures in groups(name):
            results = [one for one in detector.predict_stream(pictures) if not isinstance(one, PictureError)]
            levels = np.array([quiet_level(result) for result in results]) / limit
            ends = [f"{value:.2f}" for value in (levels.min(), np.median(levels), levels.max())]
            lines.append(csv_line([name, words, int((levels > 1).sum()), len(levels), *ends]))
            print(lines[-1], end="", flush=True)
        args.table.write_text("".join(lines))


if __name__ == "__main__":
    main()
