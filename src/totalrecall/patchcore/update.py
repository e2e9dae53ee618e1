"""Good pictures that join a PatchCore model after its fit, or leave it, without the pictures that it was fitted on.

Patches farther from the bank than its covering radius enter: the greedy k-center continues from the bank, until all
are within the radius again. Pictures that would still be called anomalous then enter by their worst patches, worst
first, until they pass. The threshold follows (see `calibration_patches`); the pictures themselves do not join those
that set it, since false alarms, picked for scoring high, are no sample of good pictures.

`add` and `remove` turn one state into another; they know no detector.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from totalrecall.detectors.changes import Change, Changed, Newcomer, without
from totalrecall.errors import DataError, PictureError
from totalrecall.patchcore.bank import Bank, BankState
from totalrecall.patchcore.calibration_patches import Coverage, Recalibration
from totalrecall.patchcore.coreset import greedy_k_center, project
from totalrecall.patchcore.judge import Judge, PatchSet
from totalrecall.patchcore.settings import coreset_dimensions
from totalrecall.pictures.loading import LearntPicture
from totalrecall.search.exact import ExactSearch
from totalrecall.types import Matrix, Patches

__all__ = ["add", "covering", "estimated_radius", "remove"]


def _unchanged(state: BankState, what: str) -> Change:
    """Return the report of a change that nothing came of."""
    size, threshold = len(state), state.threshold
    return Change(what, [], (), [], (size, size), (threshold, threshold), threshold, state.patches is not None)


# ---------------------------------------------------------------------- joining


def add(state: BankState, newcomers: Sequence[Newcomer[PatchSet]], judge: Judge) -> tuple[BankState, Change]:
    """Let good pictures join.

    Args:
        state: of the detector.
        newcomers: pictures that the model does not know yet.
        judge: of the detector.

    Returns:
        The state with them, and what was done; pictures that cannot be scored are named in it.
    """
    former = state.bank
    measured = [_measured(newcomer, former, judge) for newcomer in newcomers]
    joining = [picture for picture in measured if isinstance(picture, _Joining)]
    skipped = [error for error in measured if isinstance(error, PictureError)]
    if not joining:
        return state, replace(_unchanged(state, "add"), skipped=skipped, recalibrated=True)
    coverage = _covered(state, judge)
    recalibration = _recalibration(state, judge)
    recalibration.add(_added_vectors(former, coverage))
    entering = _cover(joining, former, coverage.radius, judge)
    bank, forced = _let_pass(joining, entering, state, recalibration)
    assert len(bank) == len(state) + len(entering) + len(forced)
    after = replace(
        state, model=bank, pictures=bank.pictures, calibration=recalibration.calibration(), coverage=coverage
    )
    joined = [
        Changed(
            picture.newcomer.picture.path,
            picture.newcomer.picture.sha256,
            picture.covering + picture.forced,
            picture.forced,
            picture.before,
            picture.score,
        )
        for picture in joining
    ]
    return after, _report("add", joined, state, after, recalibration.lowest_threshold, skipped=skipped)


def _report(
    what: str,
    pictures: Sequence[Changed],
    before: BankState,
    after: BankState,
    lowest: float,
    *,
    skipped: Sequence[PictureError] = (),
    estimated: bool = False,
) -> Change:
    """Return the report of a change."""
    return Change(
        what,
        pictures,
        (),
        list(skipped),
        (len(before), len(after)),
        (before.threshold, after.threshold),
        min(lowest, after.threshold) if after.taught is None else after.taught,
        after.patches is not None,
        estimated,
    )


class _Joining:
    """A good picture that joins: what it holds, and how far its patches are from the bank as that grows.

    Attributes:
        newcomer: the picture and its patches.
        distances: (p,) of its patches.
        before, score: of the picture, by the bank before the update and by the bank as it has grown.
        covering, forced: how many of its patches enter for the radius, and how many for it to pass.
    """

    def __init__(self, newcomer: Newcomer[PatchSet], bank: Bank, judge: Judge) -> None:
        self.newcomer, self._judge = newcomer, judge
        self.patches, self.cells = newcomer.features.patches, newcomer.features.cells
        self.covering = self.forced = self._met = 0
        self.measure(bank, met=0)
        self.before = self.score

    def measure(self, bank: Bank, *, met: int) -> None:
        """Take distances and score from a bank that holds so many forced vectors."""
        measured = self._judge.measure(bank, self.newcomer.features)
        self.distances = measured.grid[self.cells[:, 0], self.cells[:, 1]]
        assert measured.score is not None
        self.score, self._met = measured.score, met

    def meet(self, forced: Sequence[np.ndarray]) -> None:
        """Take notice of the forced vectors that have entered since."""
        if self._met == len(forced):
            return
        for vector in forced[self._met :]:
            apart = self.patches - vector
            self.distances = np.minimum(self.distances, np.sqrt(np.einsum("pd,pd->p", apart, apart)))
        grid = np.zeros(self.newcomer.features.grid, np.float32)
        grid[self.cells[:, 0], self.cells[:, 1]] = self.distances
        score = self._judge.score_of_grid(grid, self.newcomer.picture)
        self.score, self._met = min(self.score, score), len(forced)


def _measured(newcomer: Newcomer[PatchSet], bank: Bank, judge: Judge) -> _Joining | PictureError:
    """Return a picture that joins, or why it cannot be scored."""
    try:
        return _Joining(newcomer, bank, judge)
    except PictureError as error:
        return PictureError(f"{newcomer.picture.path}: {error}")


def _cover(joining: Sequence[_Joining], bank: Bank, radius: float, judge: Judge) -> list[tuple[int, int]]:
    """Return the patches that enter for the radius: which of the joining pictures, and the row of the patch."""
    dimensions = coreset_dimensions(bank.vectors.shape[1], judge.settings)
    patches = np.concatenate([picture.patches for picture in joining])
    chosen = covering(bank.vectors, patches, radius, dimensions=dimensions, seed=judge.settings.seed)
    starts = np.cumsum([0, *(len(picture.patches) for picture in joining)])
    owners = np.searchsorted(starts, chosen, side="right") - 1
    for owner in owners:
        joining[owner].covering += 1
    return list(zip(owners.tolist(), (chosen - starts[owners]).tolist(), strict=True))


def _let_pass(
    joining: Sequence[_Joining],
    entering: Sequence[tuple[int, int]],
    state: BankState,
    recalibration: Recalibration,
) -> tuple[Bank, list[tuple[int, int]]]:
    """Return the bank with all that enters, and the patches that do so only for their pictures to pass."""
    recalibration.add(_stacked(joining, entering))
    forced: list[tuple[int, int]] = []
    while True:
        bank = _grown(state.bank, joining, [*entering, *forced])
        for picture in joining:
            picture.measure(bank, met=len(forced))
        more = _force(joining, state.taught, recalibration, len(forced))
        if not more:
            return bank, forced
        forced += more  # and measured once more by the search itself, which may see the last digit otherwise


def _force(
    joining: Sequence[_Joining], taught: float | None, recalibration: Recalibration, met: int
) -> list[tuple[int, int]]:
    """Choose worst patches of pictures that do not pass, one at a time, until all do."""
    chosen: list[tuple[int, int]] = []
    forced: list[np.ndarray] = [np.empty(0)] * met
    while True:
        limit = recalibration.threshold if taught is None else taught
        failing = [picture for picture in joining if picture.score > limit]
        for picture in failing:
            picture.meet(forced)
        failing = [picture for picture in failing if picture.score > limit and picture.distances.max() > 0]
        if not failing:
            return chosen
        worst = max(failing, key=lambda picture: picture.score)
        row = int(worst.distances.argmax())
        worst.forced += 1
        chosen.append((joining.index(worst), row))
        forced.append(worst.patches[row])
        recalibration.add(forced[-1][None])


def _stacked(joining: Sequence[_Joining], which: Sequence[tuple[int, int]]) -> Patches:
    """Return the patches (v, d) at some rows of some joining pictures."""
    vectors = np.empty((len(which), joining[0].patches.shape[1]), np.float32)
    for at, (owner, row) in enumerate(which):
        vectors[at] = joining[owner].patches[row]
    return vectors


def _grown(bank: Bank, joining: Sequence[_Joining], entering: Sequence[tuple[int, int]]) -> Bank:
    """Return a bank with patches at its end; its search prunes by the directions that it had."""
    origin = [(len(bank.pictures) + owner, *joining[owner].cells[row]) for owner, row in entering]
    return replace(
        bank,
        vectors=np.concatenate([bank.vectors, _stacked(joining, entering)]),
        origin=np.concatenate([bank.origin, np.array(origin, np.int32).reshape(-1, 3)]),
        pictures=[*bank.pictures, *(picture.newcomer.picture for picture in joining)],
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
    points, centres = (project(vectors, dimensions=dimensions, seed=seed) for vectors in (patches, bank))
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

    The greedy takes the farthest point, so no patch was farther than this last one. Older models store no radius.
    """
    points = project(bank.vectors, dimensions=dimensions, seed=seed)
    if len(points) < 2:
        return 0.0
    apart = points[:-1] - points[-1]
    return float(np.sqrt(np.einsum("md,md->m", apart, apart).min()))


def _covered(state: BankState, judge: Judge) -> Coverage:
    """Return what the fit's coreset covers; estimated for a model that does not say."""
    if state.coverage is not None:
        return state.coverage
    bank, settings = state.bank, judge.settings
    dimensions = coreset_dimensions(bank.vectors.shape[1], settings)
    radius = 0.0 if settings.coreset == 1 else estimated_radius(bank, dimensions=dimensions, seed=settings.seed)
    return Coverage(radius, len(bank.pictures))


def _recalibration(state: BankState, judge: Judge) -> Recalibration:
    """Return the calibration as the fit left it, to follow the bank from there."""
    return Recalibration(state.calibration, state.patches, judge=judge, pictures=state.pictures)


def _added_vectors(bank: Bank, coverage: Coverage) -> Patches:
    """Return the vectors (v, d) that joined after the fit."""
    return bank.vectors[bank.origin[:, 0] >= coverage.pictures]


# ---------------------------------------------------------------------- leaving


def remove(state: BankState, leaving: Sequence[int], judge: Judge) -> tuple[BankState, Change]:
    """Let pictures leave, each by its place among the detector's, ascending, with their vectors.

    Raises:
        DataError: nothing of the bank would be left.
    """
    if not leaving:
        return state, _unchanged(state, "remove")
    bank, coverage = state.bank, _covered(state, judge)
    stays = ~np.isin(bank.origin[:, 0], leaving)
    if not stays.any():
        raise DataError("Nothing of the bank would be left. Fit a new model instead.")
    gone = [Changed(bank.pictures[at].path, bank.pictures[at].sha256, bank.count_vectors(at)) for at in leaving]
    calibration, patches = state.calibration, state.patches
    fitted = bank.origin[:, 0] < coverage.pictures
    if patches is not None:
        patches = patches.raised(
            bank.vectors[fitted & ~stays],
            bank.vectors[fitted & stays],
            bank.origin[fitted & stays, 0],
            judge=judge,
            pictures=state.pictures,
        )
    for picture in sorted(leaving, reverse=True):
        patches = patches and patches.without(picture)
        calibration = without(calibration, picture)
    smaller = _shrunk(bank, leaving, stays)
    fewer = sum(at < coverage.pictures for at in leaving)
    coverage = Coverage(coverage.radius, coverage.pictures - fewer)
    after = replace(
        state, model=smaller, pictures=smaller.pictures, calibration=calibration, patches=patches, coverage=coverage
    )
    recalibration = _recalibration(after, judge)
    recalibration.add(_added_vectors(smaller, coverage))
    after = replace(after, calibration=recalibration.calibration())
    return after, _report("remove", gone, state, after, recalibration.lowest_threshold, estimated=fewer > 0)


def _shrunk(bank: Bank, leaving: Sequence[int], stays: np.ndarray) -> Bank:
    """Return a bank without some pictures; `stays` marks the vectors that are left."""
    number = np.cumsum(~np.isin(np.arange(len(bank.pictures)), leaving)) - 1  # of the pictures that stay
    origin = bank.origin[stays].copy()
    origin[:, 0] = number[origin[:, 0]]
    rest: list[LearntPicture] = [picture for at, picture in enumerate(bank.pictures) if at not in set(leaving)]
    return replace(bank, vectors=bank.vectors[stays], origin=origin, pictures=rest)
