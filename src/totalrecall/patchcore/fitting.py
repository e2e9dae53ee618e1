"""The steps of a fit: read the pictures as planned, leave out dirty patches, calibrate the threshold."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.detectors.extents import Extents, learn_extents
from totalrecall.detectors.fit_report import FitReport, Progress
from totalrecall.drift.conditions import Glance, Reference
from totalrecall.errors import ChunkedFitWarning, OutlierWarning, PictureError, RepeatedPartsWarning, SettingError
from totalrecall.features.patches import PatchExtractor
from totalrecall.outliers.explain import LeaveOneOutIndex, dirty_patches, explain
from totalrecall.outliers.notes import outlier_note, repeated_note, unlike_the_others
from totalrecall.patchcore.bank import Bank, BankState
from totalrecall.patchcore.calibration_patches import (
    CalibrationPatches,
    Coverage,
    PatchKeeper,
    highest_pictures,
    kept_pictures,
)
from totalrecall.patchcore.chunks import take_chunks
from totalrecall.patchcore.gathered import gather
from totalrecall.patchcore.judge import Judge, PatchSet
from totalrecall.patchcore.plan import Plan, make_plan
from totalrecall.patchcore.reading import CoresetChoice, PicturePatches, Reader, TrainingPatches
from totalrecall.patchcore.settings import Settings
from totalrecall.pictures.copies import Repeats
from totalrecall.pictures.loading import LearntPicture, Source
from totalrecall.scoring import PatchDistances, region_level
from totalrecall.search.levels import choose_levels
from totalrecall.system.text import format_size
from totalrecall.types import Matrix, Patches

__all__ = [
    "Announce",
    "Calibrated",
    "Fitted",
    "FoldMeasure",
    "MeasuredPicture",
    "Way",
    "calibrate",
    "chunked_note",
    "fit_bank",
    "learn",
    "measure_fold",
    "measure_folds",
    "warn_of_outliers",
    "without_outliers",
]

Announce = Callable[[Plan], None]


@dataclass(frozen=True)
class Way:
    """Where the work of a fit is done; the outcome is the same to the bit.

    Attributes:
        plan: what a fit will take; see `make_plan`.
        read: reads the pictures that count.
        measure: measures good pictures by the banks without their folds; see `measure_folds`.
    """

    plan: Callable[[PatchExtractor, Settings, Sequence[Source], int | None], Plan]
    read: "Callable[[Reader, Plan], TrainingPatches]"
    measure: "Callable[[TrainingPatches, Judge, Progress | None], Folds]"


def chunked_note(plan: Plan) -> str:
    """Say what choosing in chunks means, and how to have the exact answer."""
    return (
        f"{format_size(plan.limit)} of memory are too little for all patches at once, so the coreset is chosen in "
        f"{len(plan.chunks)} chunks and merged, which is less exact; the exact one needs {format_size(plan.exact)}."
    )


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit gave.

    Attributes:
        state: bank, calibration, and what is kept beside them.
        reader: with its report, and the pictures that it had to skip.
        left_out: paths of pictures whose bad patches were left out.
        grids: distances (rows, columns) of the pictures that set the threshold, by their number among all.
    """

    state: BankState
    reader: Reader
    left_out: list[str]
    grids: Mapping[int, np.ndarray]


def fit_bank(
    extractor: PatchExtractor,
    settings: Settings,
    sources: Sequence[Source] | Repeats,
    *,
    memory: int | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
    way: Way | None = None,
) -> Fitted:
    """Learn a bank of good pictures and calibrate it; see `PatchCore.fit`, and `learn` for what is raised."""
    way = way or HERE
    learnt, reader = learn(extractor, settings, sources, memory=memory, announce=announce, progress=progress, way=way)
    report = reader.report
    with report.timing("coreset"):
        choice = learnt.choose()
    left_out: list[str] = []
    if settings.ignore_outliers:
        with report.timing("comparing"):
            choice, left_out = without_outliers(learnt, choice, progress)
    with report.timing("calibration"):
        calibrated = calibrate(learnt, Judge(settings, extractor.recipe), progress, way.measure)
    bank = learnt.bank(choice)  # last, so that no other bank is in memory at the same time
    bank = bank if calibrated.levels is None else bank.with_levels(calibrated.levels)
    calibration = calibrated.calibration
    report.finish(
        pictures=len(bank.pictures),
        patches=learnt.patch_count,
        bank=bank.vectors.shape,
        radius=choice.radius,
        scored=len(calibration.scores),
    )
    known = math.isfinite(choice.radius)  # of a random choice it is not
    coverage = Coverage(choice.radius, len(bank.pictures)) if known else None
    drift, patches, extents = calibrated.drift, calibrated.patches, calibrated.extents
    state = BankState(bank, bank.pictures, calibration, drift, patches=patches, coverage=coverage, extents=extents)
    return Fitted(state, reader, left_out, calibrated.grids)


def warn_of_outliers(
    calibration: Calibration, pictures: Sequence[LearntPicture], settings: Settings, left_out: list[str]
) -> list[str]:
    """Warn of parts that are shown several times, and of pictures unlike the others; `fit` itself calls it.

    Returns:
        The paths of these pictures: those left out, where the settings say so.
    """
    repeated = repeated_note(calibration)
    if repeated:
        warnings.warn(repeated, RepeatedPartsWarning, stacklevel=3)
    if settings.ignore_outliers:
        return left_out
    outliers = unlike_the_others(calibration, pictures)
    if outliers:
        warnings.warn(outlier_note(outliers, len(calibration.scores)), OutlierWarning, stacklevel=3)
    return outliers


def learn(
    extractor: PatchExtractor,
    settings: Settings,
    sources: Sequence[Source] | Repeats,
    *,
    memory: int | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
    way: Way | None = None,
) -> tuple[TrainingPatches, Reader]:
    """Read good pictures; see `PatchCore.fit`, which this is the first half of, and `Settings.new_parts`.

    Where the repeats among the pictures were searched for already, by another fit of the same pictures, they are given.

    Returns:
        What banks can be chosen from, and the reader with its report and the pictures that it had to skip. Those that
        repeat an earlier one are left out, and named in the report.

    Raises:
        DataError: no picture could be read, or the disk cannot hold the patches.
        SettingError: not even the bank fits into that memory, or not all patches and the parts are to be told apart.

    Warns:
        ChunkedFitWarning: memory was not given, and what is free does not hold all patches at once.
    """
    way = way or HERE
    repeats = sources if isinstance(sources, Repeats) else Repeats(sources)
    plan = way.plan(extractor, settings, repeats.distinct, memory)
    if announce:
        announce(plan)
    if memory is None and plan.way == "chunks":
        warnings.warn(chunked_note(plan), ChunkedFitWarning, stacklevel=3)
    report = FitReport(plan=plan.facts())
    reader = Reader(extractor, settings, repeats, report, progress)
    learnt = way.read(reader, plan)
    if repeats.search(extractor.recipe):
        # what was decided with the repeats among the others, folds and chunks and coresets, is decided without them
        del learnt, reader
        plan = way.plan(extractor, settings, repeats.distinct, memory)
        report.plan = plan.facts()
        reader = Reader(extractor, settings, repeats, report, progress)
        learnt = way.read(reader, plan)
    report.repeats = repeats.told
    return learnt, reader


def _read(reader: Reader, plan: Plan) -> TrainingPatches:
    """Read the pictures that count, in the way that the plan says."""
    if reader.settings.new_parts and plan.way == "chunks":
        raise SettingError(
            f"new_parts needs all patches at once, {format_size(plan.exact)} of memory, got {format_size(plan.limit)}. "
            "Give more memory, or fewer pictures of each part.",
            "new_parts",
        )
    return take_chunks(reader, plan) if plan.way == "chunks" else gather(reader, plan)


def without_outliers(
    learnt: TrainingPatches, choice: CoresetChoice, progress: Progress | None
) -> tuple[CoresetChoice, list[str]]:
    """Leave out of a coreset the bad patches of pictures that clearly stand out.

    The other chosen patches stay. A new choice among the rest would move the score by chance, by several tenths of a
    point of AUROC on magnetic tiles, even where next to nothing was left out.

    Args:
        learnt: the pictures; their bad patches are left out of every later choice and of the calibration.
        choice: a coreset of all patches.
        progress: called with (step, done, total); the step is `comparing`.

    Returns:
        The rest of the coreset, and the paths of those pictures.
    """
    bank = learnt.bank(choice)
    told: Callable[[int, int], None] | None = None
    if progress is not None:
        report = progress

        def told(done: int, total: int) -> None:
            report("comparing", done, total)

    others = LeaveOneOutIndex(bank.vectors, bank.origin[:, 0])
    explained = explain(others, learnt.reread, len(learnt.pictures), learnt.grid, progress=told)
    dirty = dirty_patches(explained, learnt.reread, learnt.grid)
    if not dirty:
        return choice, []
    learnt.leave_out(dirty)
    return learnt.filter_choice(choice), [
        learnt.pictures[at].path for at in sorted(dirty, key=lambda at: -explained.relative[at])
    ]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What good pictures gave, each by a bank without its fold.

    Attributes:
        calibration: their scores.
        drift: how they were taken.
        patches: what is kept of them so that the threshold can follow the bank; None where there is no calibration.
        levels: dimensions in which such a bank is best searched; None where no picture was scored.
        extents: what their distances say about scores; None of too few pictures.
        grids: their distances (rows, columns), by their number among the detector's pictures.
    """

    calibration: Calibration
    drift: Reference | None
    patches: CalibrationPatches | None
    levels: tuple[int, ...] | None
    extents: Extents | None
    grids: Mapping[int, np.ndarray]


@dataclass(frozen=True, eq=False)
class MeasuredPicture:
    """A good picture as a bank without its fold measures it.

    Attributes:
        picture: among the detector's; `fold` is the number of its fold.
        grid: float32 (rows, columns), its distances, 0 outside the region of interest, which `inside` marks.
        score: before anything is known of the other pictures' distances.
        peak: of its map.
        glance: a look at it.
    """

    picture: int
    fold: int
    grid: np.ndarray
    inside: np.ndarray
    score: float
    peak: float
    glance: Glance


@dataclass(frozen=True, eq=False)
class FoldMeasure:
    """The pictures of a fold as the bank without them measures them, and what suits the search in such a bank.

    Attributes:
        measured: of its pictures that have patches.
        levels: of a search in such a bank; None where there was no picture to try it on.
        basis: its directions, of these levels.
    """

    measured: Sequence[MeasuredPicture]
    levels: tuple[int, ...] | None = None
    basis: Matrix | None = None


Folds = tuple[list[MeasuredPicture], tuple[int, ...] | None]


def calibrate(
    learnt: TrainingPatches,
    judge: Judge,
    progress: Progress | None,
    measure: "Callable[[TrainingPatches, Judge, Progress | None], Folds] | None" = None,
) -> Calibrated:
    """Score good pictures, each by a bank without its fold; see which search suits such a bank.

    These banks are made for this alone. The detector's bank holds every good picture: with forty parts, giving up
    eight would cost more than it brings, and a bank that knows more only brings good parts nearer.

    Args:
        learnt: the pictures.
        judge: of the settings, which knows nothing of good pictures yet.
        progress: called with (step, done, total); the step is `calibration`.
        measure: in place of `measure_folds`.
    """
    measured, levels = (measure or measure_folds)(learnt, judge, progress)
    extents, scores = _with_extents(measured, judge, learnt.grid)
    judge = replace(judge, extents=extents)
    drift = Reference.learn(
        [(seen.glance, float(seen.grid.mean()), score) for seen, score in zip(measured, scores.tolist(), strict=True)]
    )
    settings = judge.settings
    peaks = np.array([seen.peak for seen in measured], np.float64)
    pictures = np.array([seen.picture for seen in measured], np.int32)
    folds = max(len(learnt.folds), 1)
    calibration = Calibration(scores, peaks, settings.false_alarm_rate, folds, pictures)
    if learnt.parts is not None:
        parts, shown_by = len(np.unique(learnt.parts)), len(learnt.parts)
        calibration = replace(calibration, parts=parts, shown_by=shown_by, new_parts=settings.new_parts)
    patches, grids = _kept_patches(learnt, measured, calibration, judge), {seen.picture: seen.grid for seen in measured}
    return Calibrated(calibration, drift, patches, levels, extents, grids)


def measure_folds(learnt: TrainingPatches, judge: Judge, progress: Progress | None) -> Folds:
    """Return the pictures of all folds in the detector's order, and the levels of a search in such banks."""
    measured: list[MeasuredPicture] = []
    total = sum(map(len, learnt.folds))
    done, levels, basis = 0, None, None

    def told() -> None:
        nonlocal done
        done += 1
        if progress:
            progress("calibration", done, total)

    for number in range(len(learnt.folds)):
        fold = measure_fold(learnt, number, judge, basis=basis, search=levels is None, told=told)
        measured += fold.measured
        if levels is None and fold.levels is not None:
            levels, basis = fold.levels, fold.basis
    return sorted(measured, key=lambda seen: seen.picture), levels


def measure_fold(
    learnt: TrainingPatches,
    number: int,
    judge: Judge,
    *,
    basis: Matrix | None,
    search: bool,
    told: Callable[[], None] | None = None,
) -> FoldMeasure:
    """Measure the pictures of a fold by the bank without them.

    Args:
        learnt: the pictures.
        number: of the fold.
        judge: see `calibrate`.
        basis: directions that the bank's search prunes by; it finds its own if None.
        search: find the levels of a search in such a bank.
        told: called after each picture.
    """
    fold = learnt.folds[number]
    bank = learnt.bank(learnt.choose(without=fold), basis=basis)
    measured: list[MeasuredPicture] = []
    unseen: list[Patches] = []
    for seen in learnt.reread(fold):
        if len(seen.cells):
            measured.append(_measured(seen, number, bank, learnt.grid, judge))
            unseen += [seen.patches[:: len(seen.cells) // 8 + 1]] if len(unseen) < 8 else []
        if told:
            told()
    if not search or not unseen:
        return FoldMeasure(measured)
    levels = choose_levels(bank.vectors, np.concatenate(unseen))
    return FoldMeasure(measured, levels, bank.with_levels(levels).basis)


def _measured(seen: PicturePatches, fold: int, bank: Bank, grid: tuple[int, int], judge: Judge) -> MeasuredPicture:
    distances = _distances(seen, bank, grid, judge)
    frame = judge.recipe.frame(judge.recipe.geometry(seen.picture.height, seen.picture.width))
    score, full_map = distances.score_and_map(frame)
    inside = np.zeros(grid, bool)
    inside[seen.cells[:, 0], seen.cells[:, 1]] = True
    peak = region_level(full_map, judge.settings.min_area)
    return MeasuredPicture(seen.index, fold, distances.grid, inside, score, peak, seen.glance)


def _with_extents(
    measured: Sequence[MeasuredPicture], judge: Judge, grid: tuple[int, int]
) -> tuple[Extents | None, np.ndarray]:
    """Return what the pictures' distances say about scores, and their scores (n,) by the scoring that was asked for."""
    scores = np.array([seen.score for seen in measured], np.float64)
    if not measured:
        return None, scores
    learnt = learn_extents(
        np.stack([seen.grid for seen in measured]),
        np.stack([seen.inside for seen in measured]),
        [seen.fold for seen in measured],
        sigma=judge.sigma(grid[0]),
    )
    if learnt is None:
        return None, scores
    extents, by_extent = learnt
    return extents, by_extent if judge.settings.scoring == "extent" else scores


def _kept_patches(
    learnt: TrainingPatches, measured: Sequence[MeasuredPicture], calibration: Calibration, judge: Judge
) -> CalibrationPatches | None:
    """Return what a model keeps of the pictures that score highest, once it is known which do."""
    keeper = PatchKeeper(judge.scoring)
    chosen = highest_pictures(calibration, kept_pictures(len(measured), calibration.rate)).tolist()
    entries = {measured[at].picture: at for at in chosen}
    for seen in learnt.reread(list(entries)):  # subtle: a file that is read again may be gone by now
        at = entries[seen.index]
        grid, score, peak = measured[at].grid, float(calibration.scores[at]), float(calibration.peaks[at])
        weight = judge.weight(grid, seen.cells)
        keeper.add(seen.index, seen.patches, seen.cells, grid, score, peak, weight=weight)
    return keeper.patches()


def _distances(seen: PicturePatches, bank: Bank, grid: tuple[int, int], judge: Judge) -> PatchDistances:
    """Measure a good picture of the fit by a bank without it.

    Raises:
        PictureError: its score is no number, so it can set no threshold; it is in the bank by now.
    """
    try:
        return judge.measure(bank, PatchSet(seen.patches, seen.cells, grid))
    except PictureError as error:
        raise PictureError(f"{seen.picture.path}: {error} Leave it out of the good pictures.") from None


HERE = Way(plan=make_plan, read=_read, measure=measure_folds)
"""In this process."""
