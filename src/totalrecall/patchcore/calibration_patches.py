"""What a model keeps of its good pictures so that its threshold can follow the bank once the pictures are gone.

A vector that joins the bank also brings the good pictures that set the threshold nearer, so their scores must be
computed again. The new distance of a patch is the smaller of its old distance and its distance to the new vectors. Only
the pictures that scored highest decide the threshold, so the model stores the worst patches of these:

- the features of four times as many patches as a score averages, in float16 (of `extent`, as many as it averages);
- the distances of these patches and of the whole grid, in float16, for the anomaly map.

Patches that were not stored keep their old distance, and a picture of which nothing was stored keeps its old score.
So a score, and with it the threshold, is at worst an upper bound: more pictures pass than should, never fewer.
`Recalibration` gives a lower bound of the threshold; where both bounds agree, it is known to a percent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import numpy as np

from totalrecall.calibration import Calibration, conformal_threshold
from totalrecall.pictures.loading import LearntPicture
from totalrecall.search.exact import ExactSearch
from totalrecall.types import Matrix, Patches

__all__ = [
    "CalibrationPatches",
    "Coverage",
    "GridJudge",
    "PatchKeeper",
    "Recalibration",
    "highest_pictures",
    "kept_pictures",
]

_SHARE, _AT_LEAST, _AT_MOST = 0.1, 48, 200  # of the calibration pictures
_BEYOND_RATE = 3  # times as many as the threshold leaves above it, where that is more
_PATCHES, _PATCHES_AT_LEAST = 4, 8  # times a hundredth of all patches, which a score averages
_PATCHES_OF_EXTENT = 10  # the score `extent` averages up to a tenth
_SAME = 0.99  # of a score: bounds that are this close are one value
_PREFIX = "evidence."


@runtime_checkable  # the checks of the test run need it
class GridJudge(Protocol):
    """Judges a picture by its grid of distances (rows, columns): see `judge.Judge`."""

    def score_of_grid(self, grid: np.ndarray, picture: LearntPicture) -> float:
        """Return the picture's score."""

    def level_of_grid(self, grid: np.ndarray, picture: LearntPicture) -> float:
        """Return the level below which its map shows a region."""


def kept_pictures(count: int, rate: float) -> int:
    """Return the number of calibration pictures whose patches are stored."""
    usual = max(min(int(_SHARE * count), _AT_MOST), _AT_LEAST)
    return min(max(usual, int(np.ceil(_BEYOND_RATE * rate * (count + 1)))), count)


@dataclass(frozen=True)
class Coverage:
    """The covering radius of a bank when it was fitted.

    Attributes:
        radius: no patch was farther from it than this, in the space that the coreset was chosen in.
        pictures: how many there were; those of updates come after them.
    """

    radius: float
    pictures: int


@dataclass(frozen=True, eq=False)
class CalibrationPatches:
    """The worst patches of e good pictures, as the fit measured them by banks that did not know them.

    Attributes:
        pictures: int32 (e,), ascending, among the detector's.
        scores, peaks: float64 (e,), as in the fit's calibration.
        grids: float16 (e, rows, columns), distances, 0 outside the region of interest.
        vectors: float16 (e, k, d), features of the k worst patches.
        cells: int32 (e, k), row * columns + column of these; -1 where a picture has fewer.
        distances: float32 (e, k), theirs.
    """

    pictures: np.ndarray
    scores: np.ndarray
    peaks: np.ndarray
    grids: np.ndarray
    vectors: np.ndarray
    cells: np.ndarray
    distances: np.ndarray

    @staticmethod
    def of(tensors: dict[str, np.ndarray], which: np.ndarray | None, dimensions: int) -> "CalibrationPatches | None":
        """Return what a model file holds; None where it holds none.

        Args:
            tensors: of the file.
            which: of the detector's pictures set the threshold.
            dimensions: of a patch.

        Raises:
            KeyError, ValueError: a part is missing or does not fit.
        """
        if f"{_PREFIX}vectors" not in tensors:
            return None
        stored = CalibrationPatches(*(tensors[_PREFIX + field.name] for field in fields(CalibrationPatches)))
        (e,), (_, k, _) = stored.pictures.shape, stored.vectors.shape
        shapes = {
            "scores": (e,),
            "peaks": (e,),
            "grids": (e, *stored.grids.shape[1:]),
            "vectors": (e, k, dimensions),
            "cells": (e, k),
            "distances": (e, k),
        }
        for name, shape in shapes.items():
            if getattr(stored, name).shape != shape or len(stored.grids.shape) != 3:
                raise ValueError(f"{_PREFIX}{name} (wrong shape)")
        if stored.cells.dtype != np.int32 or stored.pictures.dtype != np.int32:
            raise ValueError(f"{_PREFIX}cells or pictures (wrong type)")
        if e and (stored.cells.max() >= stored.grids[0].size or stored.cells.min() < -1):
            raise ValueError(f"{_PREFIX}cells (outside the grid)")
        if (np.diff(stored.pictures) < 1).any():
            raise ValueError(f"{_PREFIX}pictures (not ascending)")
        if which is None or not np.isin(stored.pictures, which).all():
            raise ValueError(f"{_PREFIX}pictures (not among those that set the threshold)")
        return stored

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a model file must hold."""
        return {_PREFIX + field.name: getattr(self, field.name) for field in fields(self)}

    def distances_to(self, vectors: Patches) -> np.ndarray:
        """Return the distance (e, k) of each kept patch to the nearest of some vectors (v, d); inf of none."""
        e, k, d = self.vectors.shape
        if not len(vectors) or not e:
            return np.full((e, k), np.inf, np.float32)
        patches = self.vectors.reshape(e * k, d).astype(np.float32)
        return ExactSearch(vectors, levels=()).nearest(patches)[0].reshape(e, k)  # (e*k, 1) -> (e, k)

    def grid(self, row: int, distances: np.ndarray, *, rest: float = 1.0) -> np.ndarray:
        """Return the grid (rows, columns) of a kept picture with its kept patches at other distances (k,).

        Args:
            row: of the picture among those kept.
            distances: of its kept patches.
            rest: what the distances of the others are multiplied by.
        """
        grid = self.grids[row].astype(np.float32) * np.float32(rest)
        cells = self.cells[row]
        grid.flat[cells[cells >= 0]] = distances[cells >= 0]
        return grid

    def without(self, picture: int) -> "CalibrationPatches":
        """Return these patches once a picture of the detector's is gone, and those after it have moved up."""
        keep = self.pictures != picture
        stored = CalibrationPatches(*(getattr(self, field.name)[keep] for field in fields(self)))
        return replace(stored, pictures=stored.pictures - (stored.pictures > picture).astype(np.int32))

    def raised(
        self, lost: Patches, rest: Matrix, owners: np.ndarray, *, judge: GridJudge, pictures: Sequence[LearntPicture]
    ) -> "CalibrationPatches":
        """Return these patches once vectors have left the bank: an estimate, since the banks of the fit are not kept.

        Where the nearest vector is among the lost, the distance becomes that to the rest, if that is farther. A
        picture's own vectors do not count.

        Args:
            lost: (l, d).
            rest: (m, d), what is left of the bank that was fitted.
            owners: (m,) of which of the detector's pictures each is.
            judge: as the fit judged.
            pictures: of the detector.
        """
        if not len(self.pictures) or not len(lost):
            return self
        to_lost, to_rest = self.distances_to(lost), self._distances_to_others(rest, owners)
        farther = (to_lost < to_rest) & np.isfinite(to_rest) & (to_rest > self.distances) & (self.cells >= 0)
        distances = np.where(farther, to_rest, self.distances)
        scores, peaks = self.scores.copy(), self.peaks.copy()
        for row in np.flatnonzero(farther.any(axis=1)).tolist():
            picture = pictures[int(self.pictures[row])]
            before, after = self.grid(row, self.distances[row]), self.grid(row, distances[row])
            for values, value_of in ((scores, judge.score_of_grid), (peaks, judge.level_of_grid)):
                raised = _in_proportion(values[row], value_of(before, picture), value_of(after, picture))
                values[row] = max(values[row], raised)
        return replace(self, distances=distances, scores=scores, peaks=peaks)

    def _distances_to_others(self, bank: Matrix, owners: np.ndarray) -> np.ndarray:
        """Return the distance (e, k) of each kept patch to the nearest vector of another picture; inf of none."""
        new_distances = np.empty(self.cells.shape, np.float32)
        norms = np.einsum("md,md->m", bank, bank)
        for row, picture in enumerate(self.pictures):
            patches = self.vectors[row].astype(np.float32)
            squared = norms - 2 * (patches @ bank.T)  # (k, d) @ (d, m) -> (k, m)
            squared[:, owners == picture] = np.inf
            apart = patches - bank[squared.argmin(axis=1)]
            new_distances[row] = np.sqrt(np.einsum("kd,kd->k", apart, apart))
            new_distances[row, np.isinf(squared.min(axis=1))] = np.inf
        return new_distances


def _in_proportion(value: float, before: float, after: float) -> float:
    """Scale a fitted value by after / before: errors that both share (float16, the fixed weight of eq. 7) cancel."""
    return value * after / before if before > 0 else after


def highest_pictures(calibration: Calibration, count: int) -> np.ndarray:
    """Return the entries (count,), ascending, that rank highest by score or by peak: three by score for one by peak."""
    ranks = np.empty((2, len(calibration.scores)), np.int64)
    for rank, values in zip(ranks, (calibration.scores, calibration.peaks), strict=True):
        rank[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return np.sort(np.argsort(np.minimum(ranks[0], 3 * ranks[1]), kind="stable")[:count])


class PatchKeeper:
    """Collects the worst patches of the calibration pictures that a model keeps.

    Args:
        scoring: how many patches a score averages depends on it.
    """

    def __init__(self, scoring: str = "map1pct") -> None:
        self._times = _PATCHES_OF_EXTENT if scoring == "extent" else _PATCHES
        self._kept: list[tuple[int, float, float, tuple[np.ndarray, ...]]] = []

    def add(
        self,
        picture: int,
        patches: Patches,
        cells: np.ndarray,
        grid: np.ndarray,
        score: float,
        peak: float,
        *,
        weight: np.ndarray,
    ) -> None:
        """Take one picture, in the detector's order.

        Args:
            picture: among the detector's.
            patches: (p, d), and their (row, column), `cells` (p, 2).
            grid: (rows, columns) of their distances.
            score, peak: as the calibration has them.
            weight: (p,) by which patches are kept, the largest first.
        """
        if grid.max() > np.finfo(np.float16).max:
            return  # it counts at its old score, rather than at an infinite one
        distances = grid[cells[:, 0], cells[:, 1]]
        count = max(self._times * max(len(cells) // 100, 1), _PATCHES_AT_LEAST)
        worst = np.argsort(-weight, kind="stable")[:count]
        worst = worst[np.abs(patches[worst]).max(axis=1) < np.finfo(np.float16).max]
        vectors = np.zeros((count, patches.shape[1]), np.float16)
        vectors[: len(worst)] = patches[worst]
        at = np.full(count, -1, np.int32)
        at[: len(worst)] = cells[worst, 0] * grid.shape[1] + cells[worst, 1]
        worst_distances = np.zeros(count, np.float32)
        worst_distances[: len(worst)] = distances[worst]
        self._kept.append((picture, score, peak, (grid.astype(np.float16), vectors, at, worst_distances)))

    def patches(self) -> CalibrationPatches | None:
        """Return what is kept; None where nothing was taken."""
        chosen = self._kept
        if not chosen:
            return None
        width = max(candidate[3][2].size for candidate in chosen)  # regions of interest may cover unequal parts
        parts = [[_padded(part, width if at else None) for at, part in enumerate(candidate[3])] for candidate in chosen]
        grids, vectors, cells, distances = (np.stack(part) for part in zip(*parts, strict=True))
        return CalibrationPatches(
            np.array([candidate[0] for candidate in chosen], np.int32),
            np.array([candidate[1] for candidate in chosen], np.float64),
            np.array([candidate[2] for candidate in chosen], np.float64),
            grids,
            vectors,
            cells,
            distances,
        )


def _padded(part: np.ndarray, width: int | None) -> np.ndarray:
    if width is None or len(part) == width:
        return part
    fill = -1 if part.dtype == np.int32 else 0
    return np.concatenate([part, np.full((width - len(part), *part.shape[1:]), fill, part.dtype)])


class Recalibration:
    """A calibration that follows the bank while vectors join it.

    Args:
        calibration: of the detector.
        patches: of the fit; None leaves the calibration as it is.
        judge: as the fit judged.
        pictures: of the detector.
    """

    def __init__(
        self,
        calibration: Calibration,
        patches: CalibrationPatches | None,
        *,
        judge: GridJudge,
        pictures: Sequence[LearntPicture],
    ) -> None:
        self._calibration, self._patches = calibration, patches
        self._judge, self._pictures = judge, pictures
        self.scores = calibration.scores.copy()
        self._fitted: dict[int, float] = {}  # scores of stored grids as the fit left them
        self._joined = False
        if patches is not None:
            assert calibration.pictures is not None
            self._entries = np.searchsorted(calibration.pictures, patches.pictures)
            self.scores[self._entries] = patches.scores
            self._distances = patches.distances.copy()

    def add(self, vectors: Patches) -> None:
        """Let vectors (v, d) join the bank."""
        stored = self._patches
        if stored is None or not len(vectors):
            return
        self._joined = True
        new_distances = stored.distances_to(vectors)
        nearer = (new_distances < self._distances) & (stored.cells >= 0)
        self._distances[nearer] = new_distances[nearer]
        for row in np.flatnonzero(nearer.any(axis=1)).tolist():
            self.scores[self._entries[row]] = self._score(stored, row)

    def _score(self, stored: CalibrationPatches, row: int, *, rest: float = 1.0) -> float:
        """Return the score of a kept picture as it is now, with the patches that were not kept scaled by `rest`."""
        picture = self._pictures[int(stored.pictures[row])]
        if row not in self._fitted:
            self._fitted[row] = self._judge.score_of_grid(stored.grid(row, stored.distances[row]), picture)
        after = self._judge.score_of_grid(stored.grid(row, self._distances[row], rest=rest), picture)
        return min(stored.scores[row], _in_proportion(stored.scores[row], self._fitted[row], after))

    def _peak(self, stored: CalibrationPatches, row: int) -> float:
        """Return the peak of a kept picture's map as it is now."""
        picture = self._pictures[int(stored.pictures[row])]
        before = self._judge.level_of_grid(stored.grid(row, stored.distances[row]), picture)
        after = self._judge.level_of_grid(stored.grid(row, self._distances[row]), picture)
        return min(stored.peaks[row], _in_proportion(stored.peaks[row], before, after))

    @property
    def threshold(self) -> float:
        """The threshold as it is now, at worst an upper bound."""
        return replace(self._calibration, scores=self.scores).threshold

    @property
    def lowest_threshold(self) -> float:
        """What the threshold cannot be below: whatever was not kept counts as if a new vector had met it."""
        stored = self._patches
        if stored is None or not self._joined:
            return self.threshold
        lowest = np.zeros_like(self.scores)
        for row, entry in enumerate(self._entries):
            lowest[entry] = self._score(stored, row, rest=0.0)
        now = self.threshold
        if self._calibration.below_floor:  # it is of the tail, which begins with a third of the scores at most
            highest = np.argsort(-self.scores)[: len(lowest) // 3 + 1]
            known = bool((lowest[highest] >= _SAME * self.scores[highest]).all())
            return now if known else conformal_threshold(lowest, self._calibration.rate)
        bound = replace(self._calibration, scores=lowest).threshold
        return now if bound >= _SAME * now else bound

    def calibration(self) -> Calibration:
        """Return the calibration as it is now."""
        stored = self._patches
        if stored is None:
            return self._calibration
        peaks = self._calibration.peaks.copy()
        peaks[self._entries] = stored.peaks
        for row in np.flatnonzero((self._distances < stored.distances).any(axis=1)).tolist():
            peaks[self._entries[row]] = self._peak(stored, row)
        return replace(self._calibration, scores=self.scores, peaks=peaks)
