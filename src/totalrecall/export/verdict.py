"""Distances -> score, map in original pixels, verdict and p-value inside a graph: what `scoring` and `judge` do.

Blur and interpolation are linear, so constant matrices do them. They are found by asking OpenCV what it makes of the
unit vectors, with its kernels and its way at the edge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from totalrecall.detectors.extents import HUNDREDTH, SHARES, SMOOTHINGS, Extents
from totalrecall.export.graph import GraphWriter, Value
from totalrecall.export.patches import Nearest
from totalrecall.export.preparation import Axis, Prepared, rounded_quotient
from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.judge import Judge
from totalrecall.scoring import smooth, smoothing_sigma

__all__ = ["Cells", "anomaly_map", "cells_of", "extent_score", "first_largest", "picture_score"]

CountRule: TypeAlias = Callable[[int], int]

_TINY = 1e-6  # as in `scoring`: where nothing is inside, nothing is divided by 0


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of the patch grid that count.

    Attributes:
        rows, columns: of the grid.
        inside: float32 (rows, columns), 1 where a cell counts; None where all do.
    """

    rows: int
    columns: int
    inside: Value | None

    @property
    def total(self) -> int:
        """How many cells the grid has."""
        return self.rows * self.columns

    def grid(self, values: Value) -> Value:
        """Return values of all cells (p,) as a grid, 0 where a cell does not count."""
        grid = values.reshape(self.rows, self.columns)
        return grid if self.inside is None else grid.graph.where(self.inside > 0, grid, 0.0)

    def flat(self, grid: Value) -> Value:
        """Return a grid's values (p,), -1, which no distance is, where a cell does not count."""
        if self.inside is not None:
            grid = grid.graph.where(self.inside > 0, grid, -1.0)
        return grid.reshape(self.total)


def cells_of(graph: GraphWriter, prepared: Prepared, rows: int, columns: int) -> Cells:
    """Return which cells of a grid touch the region of interest."""
    if prepared.roi is None:
        return Cells(rows, columns, None)
    side = prepared.axes[0].window
    # subtle: OpenCV leaves out what a cell covers by less than a thousandth, and asking it gives just that
    down, across = (
        cv2.resize(np.eye(side, dtype=np.float32), (side, n), interpolation=cv2.INTER_AREA) for n in (rows, columns)
    )
    covered = graph.constant(down).times(prepared.roi).times(graph.constant(np.ascontiguousarray(across.T)))
    return Cells(rows, columns, (covered > 0).to("float32"))


# ---------------------------------------------------------------------- the map


def _blur_matrix(length: int, sigma: float) -> np.ndarray:
    """Return what the anomaly map's Gaussian does along an axis, float32 (length, length)."""
    columns = [smooth(column[:, None], sigma)[:, 0] for column in np.eye(length, dtype=np.float32)]
    return np.ascontiguousarray(np.stack(columns, axis=1))


def _growing_matrix(length: int, target: int) -> np.ndarray:
    """Return what the bilinear resize does along an axis, float32 (target, length)."""
    columns = [
        cv2.resize(column[:, None], (1, target), interpolation=cv2.INTER_LINEAR)
        for column in np.eye(length, dtype=np.float32)
    ]
    return np.ascontiguousarray(np.concatenate(columns, axis=1))


def _along_both(graph: GraphWriter, values: Value, down: np.ndarray, across: np.ndarray) -> Value:
    """Return down @ values @ across^T."""
    return graph.constant(down).times(values).times(graph.constant(np.ascontiguousarray(across.T)))


def anomaly_map(graph: GraphWriter, grid: Value, prepared: Prepared, resize: str, cells: Cells) -> Value:
    """Return the map in original pixels, float32 (h, w), 0 where a crop or the region of interest hides the picture.

    Args:
        graph: to write to.
        grid: distances (rows, columns).
        prepared: of the picture.
        resize: of the recipe.
        cells: of the grid.
    """
    side = prepared.axes[0].window
    sigma = smoothing_sigma(side)
    blur = _blur_matrix(side, sigma)
    grown = [_growing_matrix(length, side) for length in (cells.rows, cells.columns)]
    if prepared.roi is None:
        smoothed = _along_both(
            graph, grid, *((blur.astype(np.float64) @ matrix).astype(np.float32) for matrix in grown)
        )
    else:
        weighted = _along_both(graph, _along_both(graph, grid, *grown) * prepared.roi, blur, blur)
        weights = _along_both(graph, prepared.roi, blur, blur).at_least(_TINY)
        smoothed = weighted / weights * prepared.roi
    full = _to_original(graph, smoothed, prepared.axes, resize)
    return full if prepared.original_roi is None else full * prepared.original_roi.to("float32")


def _to_original(graph: GraphWriter, prepared_map: Value, axes: tuple[Axis, Axis], resize: str) -> Value:
    """Carry a map of the prepared picture to original pixels, as `Geometry.map_to_original` does."""
    height, width = (axis.original for axis in axes)
    if resize == "squash":
        return _resized(graph, prepared_map, height, width)
    canvas = prepared_map
    for number, axis in enumerate(axes):
        canvas = canvas.slice(axis.padding, axis.padding + axis.shown, axis=number)
    before = [axis.hidden for axis in axes]
    after = [axis.resized - axis.hidden - axis.shown for axis in axes]
    padding = graph.shape([*before, *after])
    canvas = graph.node("Pad", canvas, padding, attributes={"mode": "edge"})
    full = _resized(graph, canvas, height, width)
    if resize == "letterbox":
        return full
    seen = [_seen(axis) for axis in axes]
    return full * (seen[0].reshape(-1, 1) * seen[1].reshape(1, -1))


def _resized(graph: GraphWriter, values: Value, height: Value, width: Value) -> Value:
    """Return a map (H, W) as (h, w), bilinear with pixel centres kept."""
    sides = graph.node("Shape", values, kind="int64")
    four = graph.node("Reshape", values, graph.join([graph.constant(np.array([1, 1], np.int64)), sides]))
    sizes = graph.shape([1, 1, height, width])
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    nothing = Value(graph, "", "float32")  # neither a region nor scales
    return graph.node("Resize", four, nothing, nothing, sizes, attributes=attributes).reshape(height, width)


def _seen(axis: Axis) -> Value:
    """Return which positions of the original the crop shows, float32 (length,), as `Geometry.seen` says."""
    graph = axis.original.graph
    last = (axis.start + axis.window).at_most(axis.resized)
    begin = rounded_quotient(axis.hidden * axis.original, axis.resized).at_most(axis.original - 1)
    end = rounded_quotient(last * axis.original, axis.resized).at_least(begin + 1)
    at = graph.range(axis.original)
    return ((at > (begin - 1)) & (at < end)).to("float32")


# ---------------------------------------------------------------------- the score


def picture_score(graph: GraphWriter, judge: Judge, bank: Bank, near: Nearest, cells: Cells) -> Value:
    """Return the score of a picture, float32 (1,), by the scoring of the judge.

    Args:
        graph: to write to.
        judge: of the detector.
        bank: of the detector.
        near: what the search has found.
        cells: of the grid.
    """
    grid = cells.grid(near.distances)
    if judge.scoring == "extent":
        assert judge.extents is not None
        return extent_score(graph, grid, cells, judge.extents, judge.sigma(cells.rows))
    if judge.scoring == "map1pct":
        smoothed = _smoothed(graph, grid, cells, judge.sigma(cells.rows))
        return _largest_means(graph, cells.flat(smoothed), cells, [_hundredth])
    flat = cells.flat(grid)
    if judge.scoring == "top1pct":
        return _largest_means(graph, flat, cells, [_hundredth])
    score = flat.largest()
    return score if judge.scoring == "max" else _reweighted(graph, judge, bank, near, flat, score)


def _hundredth(count: int) -> int:
    return max(count // 100, 1)


def _smoothed(graph: GraphWriter, grid: Value, cells: Cells, sigma: float) -> Value:
    """Return distances after the anomaly map's Gaussian on the grid, as `scoring.smooth_distances` does."""
    down, across = _blur_matrix(cells.rows, sigma), _blur_matrix(cells.columns, sigma)
    smoothed = _along_both(graph, grid, down, across)
    if cells.inside is None:
        weights = np.maximum(down.sum(axis=1)[:, None] * across.sum(axis=1), np.float32(_TINY))
        return smoothed / graph.constant(weights.astype(np.float32))
    return smoothed / _along_both(graph, cells.inside, down, across).at_least(_TINY)


def _largest_means(graph: GraphWriter, flat: Value, cells: Cells, counts: Sequence[CountRule]) -> Value:
    """Return the mean of the largest values, for each rule that says of how many: float32 (rules,).

    How many cells count is looked up in a table, which Python made: 0.03 * 100 is not 3 in float32.
    """
    at_most = max(rule(cells.total) for rule in counts)
    ordered, _ = graph.largest_of(flat, at_most)
    table = np.array([[rule(max(n, 1)) for rule in counts] for n in range(cells.total + 1)], np.int64)  # (p + 1, rules)
    if cells.inside is None:
        weights = (np.arange(at_most)[:, None] < table[-1]) / table[-1]  # (n, rules)
        return ordered.reshape(1, at_most).times(graph.constant(weights.astype(np.float32))).reshape(len(counts))
    taken = graph.constant(table).take(_count(cells)).reshape(1, -1)
    weights_now = (graph.range(at_most).reshape(-1, 1) < taken).to("float32") / taken.to("float32")
    return ordered.reshape(1, at_most).times(weights_now).reshape(len(counts))


def _count(cells: Cells) -> Value:
    """Return how many cells count, int64 (1,)."""
    assert cells.inside is not None
    return cells.inside.reshape(-1).reduce("ReduceSum").to("int64")


def extent_score(graph: GraphWriter, grid: Value, cells: Cells, extents: Extents, sigma: float) -> Value:
    """Return the score of `Extents.score`, float32 (1,), of distances (rows, columns)."""
    corrected = grid / graph.constant(extents.place.astype(np.float32))
    rules = [_share_rule(share) for share in SHARES]
    means = []
    for times in SMOOTHINGS:
        values = _smoothed(graph, corrected, cells, times * sigma) if times else corrected
        means.append(_largest_means(graph, cells.flat(values), cells, rules))
    profile = graph.join(means)
    usual, deviations = (graph.constant(part.astype(np.float32)) for part in (extents.means, extents.deviations))
    unusual = ((profile - usual) / deviations).largest()
    unit = float(extents.means[HUNDREDTH]), float(extents.deviations[HUNDREDTH])
    return (unusual * unit[1] + unit[0]).at_least(0.0)


def _share_rule(share: float) -> CountRule:
    return lambda count: max(int(share * count), 1)


def _reweighted(graph: GraphWriter, judge: Judge, bank: Bank, near: Nearest, flat: Value, score: Value) -> Value:
    """Return the score of eq. 7; which bank vectors are the neighbours of each is found beforehand."""
    number = min(judge.settings.neighbours, len(bank))
    if number < 2:
        return score
    _, around = bank.nearest(bank.vectors, number)  # (m, b)
    worst = first_largest(graph, flat)
    neighbours = graph.constant(around.astype(np.int32), "bank_neighbours").take(near.indices.take(worst))
    difference = near.vectors.take(neighbours.reshape(number)) - near.queries.take(worst)  # (b, d)
    away = graph.node("Sqrt", (difference * difference).reduce("ReduceSum", 1, keep=False))
    largest = away.largest()  # subtle: a common factor cancels, and keeps exp finite
    total = graph.node("Exp", away - largest).reduce("ReduceSum")
    return (graph.node("Exp", score - largest) / total * -1 + 1) * score


def first_largest(graph: GraphWriter, flat: Value) -> Value:
    """Return where the largest value stands first, int64 (1,)."""
    attributes = {"axis": 0, "keepdims": 1, "select_last_index": 0}
    return graph.node("ArgMax", flat, kind="int64", attributes=attributes)
