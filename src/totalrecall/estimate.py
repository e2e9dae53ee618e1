"""How long a fit will take: a pilot of a few pictures and one matrix product, and the arithmetic of the rest."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from totalrecall.extractor import PatchExtractor
from totalrecall.fitting import walked
from totalrecall.images import Source
from totalrecall.patches import flatten_grid
from totalrecall.plan import Plan, spread
from totalrecall.search import default_levels
from totalrecall.threads import cores, one_blas_thread, workers
from totalrecall.types import Matrix

__all__ = ["Speeds", "expected_seconds", "measure", "scoring_seconds", "timed"]

_PILOT = 64  # pictures at most
_WARM = 8  # of them that only fill the pipeline
_PATIENCE = 1.5  # seconds for the others
_MOMENTS, _MOMENT = 4, 0.05  # how often, and how many seconds, products are timed before the pictures and after
_ROWS, _COLUMNS = 1024, 512  # a block of points and its centres, as `coreset` multiplies them

# The greedy's time over that of the bare products of all points with all centres: this share, and half as much again
# where it keeps half of them (its last points wait for few centres each). Beside them a selection costs Python and
# reading the pool once. Measured on magnetic tiles with two backbones and on synthetic boards: 0.55 to 0.8, 1.0 to 1.1.
_WALK, _WALK_MORE = 0.7, 0.7
_SELECTION = 21e-6  # seconds
_REFILLED = 0.6  # of a coreset's time: the banks of 20 folds together, on tiles; on bottle 0.3 (see `refill`)
_SEARCH, _QUERY = 0.55, 8e-6  # the search's time over that of its first bounds, and a query's own seconds on one core
_SCORED = 2e-3  # seconds a picture for its score and map
_WRITTEN = 1e9  # bytes of scratch a second


@dataclass(frozen=True)
class Speeds:
    """What the pilot measured: seconds a picture, nan if none could be read, and multiply-adds a second."""

    picture: float
    products: float


def timed(plan: Plan, extractor: PatchExtractor, sources: Sequence[Source]) -> Plan:
    """Return the plan with its seconds, after a pilot that also compiles the backbone."""
    return replace(plan, seconds=expected_seconds(plan, measure(plan, extractor, sources)))


def measure(plan: Plan, extractor: PatchExtractor, sources: Sequence[Source]) -> Speeds:
    """Run the pilot: a few pictures from all over the list, and products of the size that the coreset does."""
    before = _products(plan.walked)
    moments: list[float] = []
    for loaded, grid in extractor.stream(spread(sources, _PILOT), hashes=True):
        if grid is None or loaded.geometry is None:
            continue
        patches, _ = flatten_grid(grid, extractor.recipe.prepared_roi(loaded.geometry))
        if plan.projected:
            walked(patches, plan, extractor.settings)
        moments.append(time.perf_counter())
        if len(moments) > 2 * _WARM and moments[-1] - moments[_WARM] > _PATIENCE:
            break
    return Speeds(_pace(moments), max(before, _products(plan.walked)))  # another program's burst soon passes


def _pace(moments: Sequence[float]) -> float:
    first = min(_WARM, len(moments) // 2)
    count = len(moments) - 1 - first
    return (moments[-1] - moments[first]) / count if count > 0 else math.nan


def _products(dimensions: int) -> float:
    """Return multiply-adds a second of products on all cores, a thread each, as `coreset` does them."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((_ROWS, dimensions), dtype=np.float32)
    centres = rng.standard_normal((dimensions, _COLUMNS), dtype=np.float32)
    with one_blas_thread():
        done = list(workers().map(_rounds, [(block, centres)] * cores()))
    return sum(done) * _ROWS * _COLUMNS * dimensions


def _rounds(pair: tuple[Matrix, Matrix]) -> float:
    """Return how many times a second a thread does a product: the best of a few moments."""
    out = np.empty((_ROWS, _COLUMNS), np.float32)
    np.matmul(*pair, out=out)
    best = 0.0
    for _ in range(_MOMENTS):
        began, rounds = time.perf_counter(), 0
        while time.perf_counter() - began < _MOMENT:
            np.matmul(*pair, out=out)
            rounds += 1
        best = max(best, rounds / (time.perf_counter() - began))
    return best


def expected_seconds(plan: Plan, speeds: Speeds) -> float:
    """Return the seconds of a fit, nan if no picture of the pilot could be read."""
    n, d = plan.patches, plan.walked
    if plan.way == "chunks":
        sizes = [len(chunk) * plan.per_picture for chunk in plan.chunks]
        coreset = sum(_walk(size, kept, d, speeds) for size, kept in zip(sizes, plan.kept(), strict=True))
        again = plan.held * speeds.picture
        if plan.merged:
            kept = sum(plan.kept())
            coreset += _walk(kept, plan.vectors, d, speeds)
            again += sum(_walk(kept, count, d, speeds) for count in plan.others())
    else:
        coreset = _walk(n, plan.vectors, d, speeds)
        again = _REFILLED * coreset if plan.folds else 0.0
    search = sum(_search(plan, fold, count, speeds) for fold, count in _folds(plan))
    written = plan.scratch / _WRITTEN
    return plan.pictures * speeds.picture + coreset + again + search + written


def scoring_seconds(plan: Plan, speeds: Speeds, pictures: int) -> float:
    """Return the seconds in which the detector, once fitted, will score so many pictures."""
    return pictures * speeds.picture + _search(plan, pictures, plan.vectors, speeds)


def _folds(plan: Plan) -> Iterator[tuple[int, int]]:
    """Yield of each fold how many pictures it has, and how many vectors the bank has that scores them."""
    yield from zip(plan.folds, plan.others(), strict=True)


def _search(plan: Plan, pictures: int, vectors: int, speeds: Speeds) -> float:
    """Return the seconds of the search, in a bank of so many vectors, and of what is made of the distances."""
    bounds = (*default_levels(plan.dimensions), plan.dimensions)[0]
    queries = pictures * plan.per_picture
    return queries * (_SEARCH * vectors * bounds / speeds.products + _QUERY / cores()) + _SCORED * pictures


def _walk(points: int, count: int, dimensions: int, speeds: Speeds) -> float:
    """Return the seconds of one coreset."""
    if count >= points:
        return 0.0
    factor = _WALK + _WALK_MORE * count / points
    return factor * points * count * dimensions / speeds.products + _SELECTION * count
