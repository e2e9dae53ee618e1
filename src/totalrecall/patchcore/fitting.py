"""The steps of a fit: read the pictures as planned, leave out dirty patches, calibrate the threshold."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.detectors.fit_report import FitReport, Progress
from totalrecall.drift.conditions import Glance, Reference
from totalrecall.errors import ChunkedFitWarning, PictureError, SettingError
from totalrecall.features.patches import PatchExtractor
from totalrecall.outliers.explain import LeaveOneOutIndex, dirty_patches, explain
from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.calibration_patches import CalibrationPatches, PatchKeeper
from totalrecall.patchcore.chunks import take_chunks
from totalrecall.patchcore.gathered import gather
from totalrecall.patchcore.judge import Judge, PatchSet
from totalrecall.patchcore.plan import Plan, make_plan
from totalrecall.patchcore.reading import CoresetChoice, PicturePatches, Reader, TrainingPatches
from totalrecall.patchcore.settings import Settings
from totalrecall.pictures.copies import Repeats
from totalrecall.pictures.loading import Source
from totalrecall.scoring import PatchDistances, region_level
from totalrecall.search.levels import choose_levels
from totalrecall.system.text import format_size
from totalrecall.types import Patches

__all__ = ["Announce", "Calibrated", "calibrate", "chunked_note", "learn", "without_outliers"]

Announce = Callable[[Plan], None]


def chunked_note(plan: Plan) -> str:
    """Say what choosing in chunks means, and how to have the exact answer."""
    return (
        f"{format_size(plan.limit)} of memory are too little for all patches at once, so the coreset is chosen in "
        f"{len(plan.chunks)} chunks and merged, which is less exact; the exact one needs {format_size(plan.exact)}."
    )


def learn(
    extractor: PatchExtractor,
    settings: Settings,
    sources: Sequence[Source],
    *,
    memory: int | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
) -> tuple[TrainingPatches, Reader]:
    """Read good pictures; see `PatchCore.fit`, which this is the first half of, and `Settings.new_parts`.

    Returns:
        What banks can be chosen from, and the reader with its report and the pictures that it had to skip. Those that
        repeat an earlier one are left out, and named in the report.

    Raises:
        DataError: no picture could be read, or the disk cannot hold the patches.
        SettingError: not even the bank fits into that memory, or not all patches and the parts are to be told apart.

    Warns:
        ChunkedFitWarning: memory was not given, and what is free does not hold all patches at once.
    """
    repeats = Repeats(sources)
    plan = make_plan(extractor, settings, repeats.distinct, memory)
    if announce:
        announce(plan)
    if memory is None and plan.way == "chunks":
        warnings.warn(chunked_note(plan), ChunkedFitWarning, stacklevel=3)
    report = FitReport(plan=plan.facts())
    learnt, reader = _read(extractor, settings, repeats, plan, report, progress)
    if repeats.search(extractor.recipe):
        # what was decided with the repeats among the others, folds and chunks and coresets, is decided without them
        del learnt, reader
        plan = make_plan(extractor, settings, repeats.distinct, memory)
        report.plan = plan.facts()
        learnt, reader = _read(extractor, settings, repeats, plan, report, progress)
    report.repeats = repeats.told
    return learnt, reader


def _read(
    extractor: PatchExtractor,
    settings: Settings,
    repeats: Repeats,
    plan: Plan,
    report: FitReport,
    progress: Progress | None,
) -> tuple[TrainingPatches, Reader]:
    """Read the pictures that count, in the way that the plan says."""
    if settings.new_parts and plan.way == "chunks":
        raise SettingError(
            f"new_parts needs all patches at once, {format_size(plan.exact)} of memory, got {format_size(plan.limit)}. "
            "Give more memory, or fewer pictures of each part.",
            "new_parts",
        )
    reader = Reader(extractor, settings, repeats, report, progress)
    return (take_chunks(reader, plan) if plan.way == "chunks" else gather(reader, plan)), reader


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
    """

    calibration: Calibration
    drift: Reference | None
    patches: CalibrationPatches | None
    levels: tuple[int, ...] | None


def calibrate(learnt: TrainingPatches, judge: Judge, progress: Progress | None) -> Calibrated:
    """Score good pictures, each by a bank without its fold; see which search suits such a bank.

    These banks are made for this alone. The detector's bank holds every good picture: with forty parts, giving up
    eight would cost more than it brings, and a bank that knows more only brings good parts nearer.
    """
    settings = judge.settings
    judged: list[tuple[int, float, float]] = []  # picture, score, peak
    looked: dict[int, tuple[Glance, float, float]] = {}  # picture: a look at it, mean distance, score
    total = sum(map(len, learnt.folds))
    done, levels, basis = 0, None, None
    keeper = PatchKeeper(total, settings.false_alarm_rate)
    for fold in learnt.folds:
        bank = learnt.bank(learnt.choose(without=fold), basis=basis)
        unseen: list[Patches] = []
        for seen in learnt.reread(fold):
            if len(seen.cells):
                distances = _distances(seen, bank, learnt.grid, judge)
                frame = judge.recipe.frame(judge.recipe.geometry(seen.picture.height, seen.picture.width))
                score, full_map = distances.score_and_map(frame)
                judged.append((seen.index, score, region_level(full_map, settings.min_area)))
                weight = judge.weight(distances.grid, seen.cells)
                keeper.add(seen.index, seen.patches, seen.cells, distances.grid, *judged[-1][1:], weight=weight)
                looked[seen.index] = (seen.glance, float(distances.grid.mean()), score)
                unseen += [seen.patches[:: len(seen.cells) // 8 + 1]] if len(unseen) < 8 else []
            done += 1
            if progress:
                progress("calibration", done, total)
        if levels is None and unseen:
            levels = choose_levels(bank.vectors, np.concatenate(unseen))
            basis = bank.with_levels(levels).basis
    judged.sort()
    drift = Reference.learn([looked[picture] for picture in sorted(looked)])
    pictures, scores, peaks = np.array(judged, np.float64).reshape(-1, 3).T
    folds = max(len(learnt.folds), 1)
    calibration = Calibration(scores, peaks, settings.false_alarm_rate, folds, pictures.astype(np.int32))
    if learnt.parts is not None:
        parts, shown_by = len(np.unique(learnt.parts)), len(learnt.parts)
        calibration = replace(calibration, parts=parts, shown_by=shown_by, new_parts=settings.new_parts)
    return Calibrated(calibration, drift, keeper.patches(), levels)


def _distances(seen: PicturePatches, bank: Bank, grid: tuple[int, int], judge: Judge) -> PatchDistances:
    """Measure a good picture of the fit by a bank without it.

    Raises:
        PictureError: its score is no number, so it can set no threshold; it is in the bank by now.
    """
    try:
        return judge.measure(bank, PatchSet(seen.patches, seen.cells, grid))
    except PictureError as error:
        raise PictureError(f"{seen.picture.path}: {error} Leave it out of the good pictures.") from None
