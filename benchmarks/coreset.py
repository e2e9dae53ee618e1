"""Greedy k-center by the pool method against the plain loop and against the bare matrix products.

On real patches where ../shared is there (bottle, ResNet-18), else on clustered points. The answer that is asserted: the
covering radius is the plain loop's to 1e-5.
"""

import numpy as np

from benchmarks.common import SHARED, record, seconds_of
from totalrecall.patchcore.coreset import greedy_k_center, project

POINTS, SHARE = 214_016, 0.1  # all of bottle
PLAIN = 200  # selections that the plain loop is timed on: each costs the same


def main() -> None:
    """Print and record seconds and ratios."""
    points = _points()
    count = int(SHARE * len(points))
    results: list = []
    greedy_k_center(points[:20_000], 500)  # warm up
    ours = seconds_of(lambda: results.append(greedy_k_center(points, count)))
    coreset = results[0]
    plain_part = seconds_of(lambda: results.append(_plain(points, PLAIN)))
    products = seconds_of(lambda: _products(points, count))
    order, radius = results[1]
    same = greedy_k_center(points, PLAIN)
    assert abs(same.radius / radius - 1) < 1e-5, (same.radius, radius)
    agree = int(np.argmin(np.append(order == same.indices, False)))  # up to the first near-tie that rounding swaps
    plain = plain_part * count / PLAIN
    row = {
        "points": len(points),
        "dimensions": points.shape[1],
        "chosen": len(coreset.indices),
        "seconds": ours,
        "plain_loop_seconds_extrapolated": plain,
        "bare_products_seconds": products,
        "times_faster_than_plain_loop": plain / ours,
        "ratio_to_bare_products": ours / products,
        "same_selections_from_the_start": f"{agree} of {PLAIN}",
        "refreshes": coreset.refreshes,
        "share_of_products_done": coreset.products,
    }
    record("coreset", [row])


def _products(points: np.ndarray, count: int) -> None:
    """All products of the points with as many centres, in blocks that stay in the cache, and nothing else."""
    out = np.empty((4096, 512), np.float32)
    for first in range(0, count, 512):
        centres = np.ascontiguousarray(points[first : min(first + 512, count)].T)
        for row in range(0, len(points), 4096):
            rows = points[row : row + 4096]
            np.matmul(rows, centres, out=out[: len(rows), : centres.shape[1]])


def _points() -> np.ndarray:
    bottle = SHARED / "data" / "mvtec_ad" / "bottle"
    weights = SHARED / "backbones" / "resnet18_imagenet1k_v1.safetensors"
    if bottle.is_dir() and weights.is_file():
        from totalrecall import PatchCore
        from totalrecall.backbones.resnet import build_resnet
        from totalrecall.pictures.files import find_pictures

        detector = PatchCore(backbone=build_resnet("resnet18", weights))
        pictures = find_pictures(bottle / "train")[: POINTS // 1024 + 1]
        grids = [grid for _, grid in detector.extractor.stream(pictures) if grid is not None]
        return project(np.concatenate(grids).reshape(-1, 384)[:POINTS])
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((500, 128)) * 3
    spread = rng.standard_normal((POINTS, 128)) * rng.gamma(2, 0.4, (POINTS, 1))
    return (centres[rng.integers(500, size=POINTS)] + spread).astype(np.float32)


def _plain(points: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """The plain greedy loop in float32, as a good NumPy programmer writes it: the choice and its covering radius."""
    points = points - points.mean(axis=0)
    norms = np.einsum("nd,nd->n", points, points)
    chosen = int(np.random.default_rng(42).integers(len(points)))
    nearest = np.full(len(points), np.inf, np.float32)
    order = [chosen]
    for step in range(count):
        np.minimum(nearest, norms - 2 * (points @ points[chosen]) + norms[chosen], out=nearest)
        if step < count - 1:
            chosen = int(nearest.argmax())
            order.append(chosen)
    return np.array(order), float(np.sqrt(nearest.max()))


if __name__ == "__main__":
    main()
