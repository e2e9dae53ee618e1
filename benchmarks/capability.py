"""Planted defects beside real ones: does what `capability` says hold for the defects that really came?

A model is fitted on the good pictures of a real set, and its real defects are judged. Their size is the longest side of
the mask (of its largest area, where there are several), their contrast how far the median brightness in it is from that
around it. Defects of the kinds that a person would choose for them are planted on the good test pictures, at the median
contrast of the real ones and at 0.2, and a curve of the probability of detection is fitted. What it promises of the
real ones is its mean over their sizes; it stands beside the share that was found. Asserted: every real picture is
judged, and the promise is a share.

    python -m benchmarks.capability [--sets bottle tire cookie metal_plate mtd100] [--per-size 12]
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from benchmarks.common import open_real_set, record
from totalrecall import PatchCore
from totalrecall.capability import Capability, capability
from totalrecall.datasets import Sample
from totalrecall.errors import DataError, PictureError
from totalrecall.evaluation.evaluate import read_defect_mask
from totalrecall.pictures.loading import read_image

SETS = ("bottle", "tire", "cookie", "metal_plate", "mtd100")
# kinds that a person would choose for a real one
ALIKE = {
    "broken_large": ("missing", "blob"),
    "broken_small": ("missing", "blob"),
    "contamination": ("blob", "stain"),
    "hole": ("missing", "blob"),
    "cut": ("scratch", "missing"),
    "combined": ("blob", "scratch"),
    "broken": ("missing", "shifted"),
    "defective": ("stain", "scratch"),
    "blowhole": ("blob", "dent"),
    "break": ("missing", "blob"),
    "crack": ("scratch",),
    "fray": ("stain", "texture"),
    "uneven": ("stain",),
}
_PLAIN = 0.2  # a contrast that is planted beside that of the real ones
_FAINTEST = 0.02
_FEWEST = 100  # good tiles that `mtd100` is fitted on
_TESTED = 60


@dataclass(frozen=True)
class Real:
    """A real defect: its longest side in pixels, its contrast in shares of white, and whether it was found."""

    size: float
    contrast: float
    hit: bool


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--per-size", type=int, default=12)
    parser.add_argument("--trial", action="store_true", help="print only, add nothing to results/capability.csv")
    args = parser.parse_args()
    for name in args.sets:
        rows = _measured(name, args.per_size)
        if args.trial:
            for row in rows:
                print(row, flush=True)
        else:
            record("capability", rows)


def _measured(name: str, per_size: int) -> list[dict[str, Any]]:
    """Return a row for each kind of real defect, kind of planted ones like it, and contrast."""
    data = open_real_set("mtd" if name == "mtd100" else name)
    train = list(data.train)[:: max(len(data.train) // _FEWEST, 1)][:_FEWEST] if name == "mtd100" else list(data.train)
    good = [sample.path for sample in data.test if sample.label == 0][:_TESTED]
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = PatchCore().fit(train)
        real = _real(detector, [sample for sample in data.test if sample.label == 1])
        contrasts = {defect: _usual_contrast(judged) for defect, judged in real.items()}
        kinds = list(dict.fromkeys(kind for defect in real for kind in ALIKE[defect]))
        asked = {*contrasts.values(), _PLAIN}
        found = capability(detector, good, kinds=kinds, sizes=_sizes(real), contrasts=list(asked), per_size=per_size)
    seconds = time.perf_counter() - began
    rows: list[dict[str, Any]] = []
    for defect, judged in real.items():
        for kind in ALIKE[defect]:
            beside = _beside(found, kind, judged, {contrasts[defect], _PLAIN, None})
            facts = {"data": name, "real": defect, "real_contrast": contrasts[defect]}
            rows += [{**facts, **row, "seconds": seconds} for row in beside]
    return rows


def _usual_contrast(judged: Sequence[Real]) -> float:
    return max(round(float(np.median([one.contrast for one in judged])), 2), _FAINTEST)


def _sizes(real: dict[str, list[Real]]) -> list[float]:
    """Return six sizes to plant, from half the tenth smallest in a hundred real ones to the tenth largest."""
    sizes = np.array([one.size for judged in real.values() for one in judged])
    return sorted(set(np.geomspace(max(np.quantile(sizes, 0.1) / 2, 2), np.quantile(sizes, 0.9), 6).round().tolist()))


def _beside(found: Capability, kind: str, judged: Sequence[Real], contrasts: set[float | None]) -> list[dict[str, Any]]:
    """Return what real defects were found beside what planted ones of a kind promise, for some contrasts."""
    sizes, hits = np.array([one.size for one in judged]), np.array([one.hit for one in judged])
    rows = []
    for planted in found.kinds:
        if planted.kind != kind or planted.curve is None or planted.contrast not in contrasts:
            continue
        low, high = planted.cells[0].size, planted.cells[-1].size
        promised = planted.curve.probability(np.clip(sizes, low, high))
        assert ((promised >= 0) & (promised <= 1)).all()
        small = sizes < np.median(sizes)
        rows.append(
            {
                "planted": kind,
                "contrast": "" if planted.contrast is None else planted.contrast,
                "defects": len(sizes),
                "median_size": float(np.median(sizes)),
                "found_percent": 100 * float(hits.mean()),
                "promised_percent": 100 * float(promised.mean()),
                "found_small_percent": 100 * float(hits[small].mean()) if small.any() else float("nan"),
                "promised_small_percent": 100 * float(promised[small].mean()) if small.any() else float("nan"),
                "a90": planted.curve.a90.in_words(),
                "a90_95": planted.curve.a90_95.in_words(),
                "fits": planted.curve.fits,
                "planted_found": f"{planted.hits}/{planted.planted}",
                "cells": " ".join(f"{cell.size:g}:{cell.hits}/{cell.planted}" for cell in planted.cells),
                "false_alarms": f"{len(found.false_alarms)}/{len(found.false_alarms) + len(found.pictures)}",
            }
        )
    return rows


def _real(detector: PatchCore, samples: Sequence[Sample]) -> dict[str, list[Real]]:
    """Return the real defects whose masks are known, by kind."""
    judged: dict[str, list[Real]] = {}
    results = detector.predict_stream([sample.path for sample in samples])
    for sample, result in zip(samples, results, strict=True):
        assert not isinstance(result, PictureError), result
        try:
            mask = sample.mask and read_defect_mask(sample.mask, result.anomaly_map.shape)
        except DataError:
            continue
        if mask is not None and mask.any():
            size, grey = _longest(mask), read_image(sample.path).astype(np.float32).mean(axis=2)
            reach = max(int(size / 4), 3)
            around = cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
            contrast = abs(float(np.median(grey[mask]) - np.median(grey[around & ~mask]))) / 255
            judged.setdefault(sample.defect, []).append(Real(size, contrast, result.is_anomalous is True))
    return judged


def _longest(mask: np.ndarray) -> float:
    """Return the longest side of the largest area of a mask, in pixels."""
    outlines = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    return max(max(cv2.minAreaRect(outline)[1]) + 1 for outline in outlines)


if __name__ == "__main__":
    main()
