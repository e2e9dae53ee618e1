"""Good pictures that join a PatchCore model after its fit, without the pictures that it was fitted on.

Patches farther from the bank than its covering radius enter, the greedy k-center going on from the bank, so that all
are within the radius again. Pictures that would still be called anomalous then enter by their worst patches, worst
first, until they pass. The threshold follows (see `evidence`); the pictures themselves do not join those that set it,
since false alarms, picked for scoring high, are no sample of good pictures.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from totalrecall.detectors.changes import Change, Changed
from totalrecall.detectors.fit_report import Progress
from totalrecall.detectors.membership import is_last_update, named, read_newcomers, without
from totalrecall.errors import DataError, PictureError
from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.coreset import greedy_k_center, project
from totalrecall.patchcore.evidence import Coverage, Recalibration
from totalrecall.patchcore.settings import walked_dimensions
from totalrecall.pictures.loading import LearntPicture, Source
from totalrecall.search.exact import ExactSearch
from totalrecall.types import Matrix, Patches

if TYPE_CHECKING:
    from totalrecall.patchcore.detector import PatchCore

__all__ = ["add_pictures", "added_vectors", "covering", "estimated_radius", "recalibration_of", "remove_pictures"]


class _Newcomer:
    """A good picture that joins: what it holds, and how far its patches are from the bank as that grows.

    Attributes:
        distances: (p,) of its patches.
        before, score: of the picture, by the bank of before and as it has grown.
        covering, forced: how many of its patches enter for the radius, and how many for it to pass.
    """

    def __init__(self, detector: "PatchCore", picture: LearntPicture, digest: Any) -> None:
        self.picture, self.digest = picture, digest
        self.covering = self.forced = self._met = 0
        self.measure(detector, detector.bank_, met=0)
        self.before = self.score

    def measure(self, detector: "PatchCore", bank: Bank, *, met: int) -> None:
        """Take distances and score from a bank that holds so many forced vectors."""
        measured = detector._measured(bank, self.digest)
        cells = self.digest.cells
        self.distances = measured.grid[cells[:, 0], cells[:, 1]]
        assert measured.score is not None
        self.score, self._met = measured.score, met

    def meet(self, detector: "PatchCore", forced: Sequence[np.ndarray]) -> None:
        """Take notice of the forced vectors that have entered since."""
        if self._met == len(forced):
            return
        for vector in forced[self._met :]:
            apart = self.digest.patches - vector
            self.distances = np.minimum(self.distances, np.sqrt(np.einsum("pd,pd->p", apart, apart)))
        grid = np.zeros(self.digest.grid, np.float32)
        grid[self.digest.cells[:, 0], self.digest.cells[:, 1]] = self.distances
        self.score, self._met = min(self.score, detector._score_of(grid, self.picture)), len(forced)


def _newcomer(detector: "PatchCore", picture: LearntPicture, digest: Any) -> _Newcomer | PictureError:
    """Return a picture that joins, or why it cannot be scored."""
    try:
        return _Newcomer(detector, picture, digest)
    except PictureError as error:
        return PictureError(f"{picture.path}: {error}")


def add_pictures(detector: "PatchCore", sources: Sequence[Source], progress: Progress | None = None) -> Change:
    """Let good pictures join a detector; see `PatchCore.update`.

    Raises:
        SettingError: memory does not hold their patches.
    """
    before = detector.bank_
    rows, columns, d = detector.extractor.expected_grid()
    found, known, skipped = read_newcomers(detector, sources, progress, each=2 * 4 * rows * columns * d)
    measured = [_newcomer(detector, one.picture, one.digest) for one in found]
    newcomers = [one for one in measured if isinstance(one, _Newcomer)]
    skipped = [*skipped, *(one for one in measured if isinstance(one, PictureError))]
    threshold = detector.threshold_
    if not newcomers:
        sizes, thresholds = (len(before), len(before)), (threshold, threshold)
        return Change("add", [], known, skipped, sizes, thresholds, threshold)
    recalibration = recalibration_of(detector)
    recalibration.add(added_vectors(detector))
    coverage = detector._covered()
    entering = _cover(detector, newcomers, coverage.radius)
    bank, forced = _let_pass(detector, newcomers, entering, recalibration)
    detector._become(bank, recalibration.calibration(), detector._evidence, coverage)
    joined = [
        Changed(one.picture.path, one.picture.sha256, one.covering + one.forced, one.forced, one.before, one.score)
        for one in newcomers
    ]
    assert len(bank) == len(before) + len(entering) + len(forced)
    return Change(
        "add",
        joined,
        known,
        skipped,
        (len(before), len(bank)),
        (threshold, detector.threshold_),
        min(recalibration.lowest_threshold, detector.threshold_) if detector._taught is None else detector._taught,
        detector._evidence is not None,
    )


def _cover(detector: "PatchCore", newcomers: Sequence[_Newcomer], radius: float) -> list[tuple[int, int]]:
    """Return the patches that enter for the radius, as newcomer and row of each."""
    bank, settings = detector.bank_, detector.settings
    dimensions = walked_dimensions(bank.vectors.shape[1], settings)
    patches = np.concatenate([one.digest.patches for one in newcomers])
    chosen = covering(bank.vectors, patches, radius, dimensions=dimensions, seed=settings.seed)
    starts = np.cumsum([0, *(len(one.digest.patches) for one in newcomers)])
    owners = np.searchsorted(starts, chosen, side="right") - 1
    for owner in owners:
        newcomers[owner].covering += 1
    return list(zip(owners.tolist(), (chosen - starts[owners]).tolist(), strict=True))


def _let_pass(
    detector: "PatchCore",
    newcomers: Sequence[_Newcomer],
    entering: Sequence[tuple[int, int]],
    recalibration: Recalibration,
) -> tuple[Bank, list[tuple[int, int]]]:
    """Return the bank with all that enters, and the patches that do so only for their pictures to pass."""
    recalibration.add(_stacked(newcomers, entering))
    forced: list[tuple[int, int]] = []
    while True:
        bank = _grown(detector.bank_, newcomers, [*entering, *forced])
        for one in newcomers:
            one.measure(detector, bank, met=len(forced))
        more = _force(detector, newcomers, recalibration, len(forced))
        if not more:
            return bank, forced
        forced += more  # and measured once more by the search itself, which may see the last digit otherwise


def _force(
    detector: "PatchCore", newcomers: Sequence[_Newcomer], recalibration: Recalibration, met: int
) -> list[tuple[int, int]]:
    """Choose worst patches of pictures that do not pass, one at a time, until all do."""
    chosen: list[tuple[int, int]] = []
    forced: list[np.ndarray] = [np.empty(0)] * met
    while True:
        limit = recalibration.threshold if detector._taught is None else detector._taught
        failing = [one for one in newcomers if one.score > limit]
        for one in failing:
            one.meet(detector, forced)
        failing = [one for one in failing if one.score > limit and one.distances.max() > 0]
        if not failing:
            return chosen
        worst = max(failing, key=lambda one: one.score)
        row = int(worst.distances.argmax())
        worst.forced += 1
        chosen.append((newcomers.index(worst), row))
        forced.append(worst.digest.patches[row])
        recalibration.add(forced[-1][None])


def _stacked(newcomers: Sequence[_Newcomer], which: Sequence[tuple[int, int]]) -> Patches:
    """Return the patches (v, d) at some rows of some newcomers."""
    vectors = np.empty((len(which), newcomers[0].digest.patches.shape[1]), np.float32)
    for at, (owner, row) in enumerate(which):
        vectors[at] = newcomers[owner].digest.patches[row]
    return vectors


def _grown(bank: Bank, newcomers: Sequence[_Newcomer], entering: Sequence[tuple[int, int]]) -> Bank:
    """Return a bank with patches at its end; its search prunes by the directions that it had."""
    origin = [(len(bank.pictures) + owner, *newcomers[owner].digest.cells[row]) for owner, row in entering]
    return replace(
        bank,
        vectors=np.concatenate([bank.vectors, _stacked(newcomers, entering)]),
        origin=np.concatenate([bank.origin, np.array(origin, np.int32).reshape(-1, 3)]),
        pictures=[*bank.pictures, *(one.picture for one in newcomers)],
    )


def covering(bank: Matrix, patches: Patches, radius: float, *, dimensions: int, seed: int) -> np.ndarray:
    """Return which patches must join a bank so that none is farther from it than a radius, in the order of selection.

    Args:
        bank: (m, d).
        patches: (p, d).
        radius: in the projected space, if `dimensions` is less than d.
        dimensions: of the random projection (see `coreset.project`).
        seed: of the projection.
    """
    points, centres = (project(one, dimensions=dimensions, seed=seed) for one in (patches, bank))
    if not len(patches):
        return np.empty(0, np.int64)
    far = np.flatnonzero(ExactSearch(centres).nearest(points)[0][:, 0] > radius)
    if not len(far):
        return far
    together = np.concatenate([centres, points[far]])
    start = np.arange(len(centres))
    chosen = greedy_k_center(together, len(together), start=start, radius=radius).indices[len(centres) :]
    return far[chosen - len(centres)]


def estimated_radius(bank: Bank, *, dimensions: int, seed: int) -> float:
    """Return the covering radius of a bank in the order of the greedy: that of the bank before its last vector.

    The greedy takes the farthest point, so no patch was farther than this last one; a model of before kept no radius.
    """
    points = project(bank.vectors, dimensions=dimensions, seed=seed)
    if len(points) < 2:
        return 0.0
    apart = points[:-1] - points[-1]
    return float(np.sqrt(np.einsum("md,md->m", apart, apart).min()))


def remove_pictures(detector: "PatchCore", names: Sequence[str | Path]) -> Change:
    """Let pictures leave a detector; see `PatchCore.update`.

    Raises:
        DataError: nothing of the bank would be left.
    """
    found, skipped = named(detector.pictures_, names)
    leaving = list(found)
    bank, threshold = detector.bank_, detector.threshold_
    if not leaving:
        sizes, thresholds = (len(bank), len(bank)), (threshold, threshold)
        return Change("remove", [], (), skipped, sizes, thresholds, threshold, detector._evidence is not None)
    stays = ~np.isin(bank.origin[:, 0], leaving)
    if not stays.any():
        raise DataError("Nothing of the bank would be left. Fit a new model instead.")
    counts = np.bincount(bank.origin[:, 0], minlength=len(bank.pictures))
    gone = [Changed(bank.pictures[at].path, bank.pictures[at].sha256, int(counts[at])) for at in leaving]
    if is_last_update(detector, gone):
        detector.undo()
        thresholds = (threshold, detector.threshold_)
        return Change("undo", gone, (), skipped, (len(bank), len(detector.bank_)), thresholds, thresholds[1])
    fitted = detector._covered().pictures
    lowest = _leave(detector, leaving, stays)
    return Change(
        "remove",
        gone,
        (),
        skipped,
        (len(bank), len(detector.bank_)),
        (threshold, detector.threshold_),
        min(lowest, detector.threshold_) if detector._taught is None else detector._taught,
        detector._evidence is not None,
        estimated=any(at < fitted for at in leaving),
    )


def _leave(detector: "PatchCore", leaving: Sequence[int], stays: np.ndarray) -> float:
    """Take pictures and their vectors out; returns what the threshold cannot be below."""
    bank, coverage = detector.bank_, detector._covered()
    calibration, evidence = detector.calibration_, detector._evidence
    fitted = bank.origin[:, 0] < coverage.pictures
    lost = bank.vectors[fitted & ~stays]
    pictures = detector.pictures_
    if evidence is not None:
        evidence = evidence.raised(
            lost,
            bank.vectors[fitted & stays],
            bank.origin[fitted & stays, 0],
            score_of=lambda grid, at: detector._score_of(grid, pictures[at]),
            level_of=lambda grid, at: detector._level_of(grid, pictures[at]),
        )
    for picture in sorted(leaving, reverse=True):
        evidence = evidence and evidence.without(picture)
        calibration = without(calibration, picture)
    number = np.cumsum(~np.isin(np.arange(len(bank.pictures)), leaving)) - 1  # of those that stay
    origin = bank.origin[stays].copy()
    origin[:, 0] = number[origin[:, 0]]
    rest = [one for at, one in enumerate(bank.pictures) if at not in set(leaving)]
    smaller = replace(bank, vectors=bank.vectors[stays], origin=origin, pictures=rest)
    fewer = sum(at < coverage.pictures for at in leaving)
    coverage = Coverage(coverage.radius, coverage.pictures - fewer)
    detector._become(smaller, calibration, evidence, coverage)
    recalibration = recalibration_of(detector)
    recalibration.add(added_vectors(detector))
    detector._become(smaller, recalibration.calibration(), evidence, coverage)
    return recalibration.lowest_threshold


def recalibration_of(detector: "PatchCore") -> Recalibration:
    """Return the detector's calibration as the fit left it, to follow the bank from there."""
    pictures = detector.pictures_
    return Recalibration(
        detector.calibration_,
        detector._evidence,
        score_of=lambda grid, at: detector._score_of(grid, pictures[at]),
        level_of=lambda grid, at: detector._level_of(grid, pictures[at]),
    )


def added_vectors(detector: "PatchCore") -> Patches:
    """Return the vectors (v, d) that joined after the fit."""
    bank = detector.bank_
    return bank.vectors[bank.origin[:, 0] >= detector._covered().pictures]
