"""Pixel metrics of as many large maps as MVTec AD has test pictures: seconds of their own, memory, and the error.

    python -m benchmarks.metrics [--maps 1725] [--side 1024]

The maps are noise, smooth and fine, with a raised defect in three of four, made outside the clock. The baseline is
scikit-learn, in turn, on the pixels of some of the maps. The answer that is asserted: kept scores give its figures to
1e-6, counted ones differ from those by no more than `error_bounds` says, and the whole set takes less than two minutes
and 2 GB.
"""

import argparse
import time
from collections.abc import Iterator

import cv2
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.common import paired, record
from totalrecall.evaluation.metrics import PixelMetrics
from totalrecall.system.memory import peak_memory
from totalrecall.types import AnomalyMap, Mask

_COMPARED = 12  # maps that scikit-learn sorts, too
_DEFECTIVE = 3, 4  # of every four, as in MVTec AD's test
_SECONDS, _BYTES = 120, 2 << 30  # the limits asserted


def main() -> None:
    """Compare on some maps, then stream all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=1725)
    parser.add_argument("--side", type=int, default=1024)
    args = parser.parse_args()
    before = peak_memory()
    streamed, seconds = _streamed(args.maps, args.side)
    row: dict[str, object] = {
        "maps": args.maps,
        "side": args.side,
        "own_s": seconds,
        "own_ms_a_map": 1000 * seconds / args.maps,
        "peak_mb": peak_memory() / 1e6,
        "mb_before": before / 1e6,
        **{f"{name}_error_at_most": bound for name, bound in streamed.error_bounds().items()},
    }
    assert seconds < _SECONDS, f"{seconds:.0f} s for {args.maps} maps"
    assert peak_memory() < _BYTES, f"{peak_memory() / 1e6:.0f} MB"
    record("metrics", [row | _beside_scikit_learn(args.side)])


def _streamed(maps: int, side: int) -> tuple[PixelMetrics, float]:
    """Return the metrics of all maps, and the seconds that they took themselves."""
    metrics, seconds = PixelMetrics(), 0.0
    for one, mask in _maps(maps, side):
        began = time.perf_counter()
        metrics.add(one, mask)
        seconds += time.perf_counter() - began
    began = time.perf_counter()
    figures = metrics.auroc(), metrics.average_precision(), metrics.aupro()
    seconds += time.perf_counter() - began
    assert metrics.maps == maps
    assert all(0 < figure < 1 for figure in figures)
    return metrics, seconds


def _beside_scikit_learn(side: int) -> dict[str, object]:
    """Return seconds of ours and of scikit-learn on the same maps, and by how much they differ."""
    maps = list(_maps(_COMPARED, side))
    scores = np.concatenate([one.ravel() for one, _ in maps])
    labels = np.concatenate([mask.ravel() for _, mask in maps])

    def ours(exact_pixels: int) -> tuple[PixelMetrics, dict[str, float]]:
        metrics = PixelMetrics(exact_pixels=exact_pixels)
        for one, mask in maps:
            metrics.add(one, mask)
        return metrics, {
            "auroc": metrics.auroc(),
            "average_precision": metrics.average_precision(),
            "aupro": metrics.aupro(),
        }

    def theirs() -> dict[str, float]:
        return {
            "auroc": float(roc_auc_score(labels, scores)),
            "average_precision": float(average_precision_score(labels, scores)),
        }

    kept, exact = ours(scores.size)
    counted, binned = ours(0)
    assert kept.exact
    assert not counted.exact
    for name, value in theirs().items():
        assert abs(exact[name] - value) < 1e-6, f"{name} {exact[name]}, by scikit-learn {value}"
    bounds = counted.error_bounds()
    errors = {name: abs(binned[name] - exact[name]) for name in exact}
    for name, error in errors.items():
        assert error <= bounds[name] + 1e-9, f"{name} is off by {error:.2g}, at most {bounds[name]:.2g} was said"
    mine, other, ratio = paired(lambda: ours(0), theirs, rounds=3)
    return {
        "compared_maps": _COMPARED,
        "ours_s": mine,  # three metrics; scikit-learn's are two, without AUPRO
        "sklearn_s": other,
        "ratio_to_sklearn": ratio,
        **{f"{name}_error": error for name, error in errors.items()},
    }


def _maps(count: int, side: int) -> Iterator[tuple[AnomalyMap, Mask]]:
    """Yield maps (side, side) with their masks, each another; cheap enough not to wait for."""
    rng = np.random.default_rng(0)
    noise = rng.gamma(4.0, 0.25, (side // 8, side // 8, 8)).astype(np.float32)
    smooth = [cv2.GaussianBlur(cv2.resize(noise[:, :, at], (side, side)), (0, 0), 4) for at in range(8)]
    fine = rng.random((2 * side, 2 * side), np.float32) / 50
    for at in range(count):
        row, column = rng.integers(0, side, 2)
        one = smooth[at % 8] * np.float32(rng.uniform(0.8, 1.2)) + fine[row : row + side, column : column + side]
        mask = np.zeros((side, side), np.uint8)
        if at % _DEFECTIVE[1] < _DEFECTIVE[0]:
            for _ in range(rng.integers(1, 4)):
                middle = [int(place) for place in rng.integers(0, side, 2)]
                axes = [int(half) for half in rng.integers(side // 64, side // 12, 2)]
                cv2.ellipse(mask, middle, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
            one += mask * np.float32(rng.uniform(0, 1))
        yield one, mask.astype(bool)


if __name__ == "__main__":
    main()
