"""The same good picture twice: thresholds, defects found and false alarms, with the rule of `copies` and without.

40 bottles are fitted alone and with copies of them in every way: the same files under other names, the folder given
again relative to where one stands, PNG saved as BMP, JPEG of quality 95, 5 percent more light, and a camera that was
stuck: 80 copies of one frame beside 20 bottles, with and without `ignore_outliers`, and 20 copies alone. Judged are the
next 20 good bottles and all defective ones. Without the rule a fit takes each copy for a picture of its own, as it did
before. The answer that is asserted: with the rule the threshold is that of the different pictures, to the bit.

    python -m benchmarks.copies [--methods patchcore padim spade] [--size 256]
"""

import argparse
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np

from benchmarks.common import SHARED, record
from totalrecall.pictures import copies
from totalrecall.pictures.files import find_pictures
from totalrecall.registry import KINDS, detector_class

_GOOD, _NEW, _STUCK = 40, 20, (20, 80)


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=list(KINDS), default=["patchcore"])
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    root = SHARED / "data" / "mvtec_ad" / "bottle"
    good = find_pictures(root / "train" / "good")
    bottles, new = good[:_GOOD], good[_GOOD : _GOOD + _NEW]
    defects = [path for path in find_pictures(root / "test") if path.parent.name != "good"]
    for method in args.methods:
        with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as folder:
            rows = []
            for name, alone, sources, options in _sets(bottles, Path(folder), method):
                wanted = _fitted(method, alone, args.size, options).threshold_
                for rule in (False, True):
                    with _rule(rule):
                        rows.append(_row(method, name, rule, sources, (new, defects), args.size, options))
                assert np.array_equal(rows[-1]["threshold"], wanted, equal_nan=True), (rows[-1], wanted)
            record("copies", rows)


def _sets(bottles: Sequence[Path], folder: Path, method: str) -> Iterator[tuple[str, list[Path], list[Path], dict]]:
    """Yield a name, the different pictures, all that is fitted, and options."""
    first = list(bottles)
    again = {
        "alone": [],
        "same bytes": _written(first, folder / "bytes", lambda path, to: shutil.copy(path, to)),
        "links": _written(first, folder / "links", lambda path, to: to.symlink_to(path)),
        "same folder, relative": [Path(os.path.relpath(path)) for path in first],
        "saved as BMP": _written(first, folder / "bmp", lambda path, to: _save(path, to.with_suffix(".bmp"))),
        "JPEG of quality 95": _written(first, folder / "jpg", lambda path, to: _save(path, to.with_suffix(".jpg"))),
        "5 % more light": _written(first, folder / "light", lambda path, to: _save(path, to, light=1.05)),
    }
    for name, copied in again.items():
        yield name, first, [*first, *copied], {}
    real, stuck = first[: _STUCK[0]], folder / "stuck"
    stuck.mkdir()
    frames = [stuck / f"{at:03}.png" for at in range(_STUCK[1])]
    for frame in frames:
        shutil.copy(real[3], frame)
    yield "stuck camera", real, [*real, *frames], {}
    if method == "patchcore":
        yield "stuck camera, ignore_outliers", real, [*real, *frames], {"ignore_outliers": True}
    yield "20 copies of one", frames[:1], frames[:20], {}


def _written(paths: Sequence[Path], folder: Path, write: Callable[[Path, Path], Any]) -> list[Path]:
    folder.mkdir()
    for path in paths:
        write(path, folder / path.name)
    return sorted(folder.iterdir())


def _save(path: Path, to: Path, *, light: float = 1.0) -> None:
    picture = np.clip(cv2.imread(str(path)) * light, 0, 255).astype(np.uint8)
    cv2.imwrite(str(to), picture, [cv2.IMWRITE_JPEG_QUALITY, 95] if to.suffix == ".jpg" else [])


@contextmanager
def _rule(used: bool) -> Iterator[None]:
    """Fit with the rule, or as if each picture given were another one."""
    if used:
        yield
        return
    with patch.object(copies, "_same_bytes", lambda _: {}), patch.object(copies.Repeats, "search", lambda *_: False):
        yield


def _fitted(method: str, pictures: Sequence[Path], size: int, options: dict[str, Any]) -> Any:
    kind: Any = detector_class(method)
    return kind(size=size, **options).fit(list(pictures))


def _row(
    method: str,
    name: str,
    rule: bool,
    pictures: Sequence[Path],
    judged: tuple[Sequence[Path], Sequence[Path]],
    size: int,
    options: dict[str, Any],
) -> dict[str, Any]:
    detector = _fitted(method, pictures, size, options)
    good, bad = (detector.score(list(paths)) for paths in judged)
    return {
        "method": method,
        "size": size,
        "copies": name,
        "rule": "counts once" if rule else "each counts",
        "given": len(pictures),
        "left_out": len(detector.report_.repeats),
        "threshold": detector.threshold_,
        "outliers": len(getattr(detector, "outliers_", [])),
        "false_alarms": int((good > detector.threshold_).sum()),
        "good": len(good),
        "found": int((bad > detector.threshold_).sum()),
        "defects": len(bad),
    }


if __name__ == "__main__":
    main()
