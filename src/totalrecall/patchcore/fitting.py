"""What a fit does before it can choose: plan, announce, and read the pictures in the way that the plan says."""

import warnings
from collections.abc import Callable, Sequence

from totalrecall.detectors.fit_report import FitReport, Progress
from totalrecall.errors import ChunkedFitWarning, SettingError
from totalrecall.features.extractor import PatchExtractor
from totalrecall.outliers.explain import Others, dirty_patches, explain
from totalrecall.patchcore.chunks import take_chunks
from totalrecall.patchcore.gathered import gather
from totalrecall.patchcore.plan import Plan, make_plan
from totalrecall.patchcore.reading import Choice, Learnt, Reader
from totalrecall.patchcore.settings import Settings
from totalrecall.pictures.copies import Repeats
from totalrecall.pictures.loading import Source
from totalrecall.system.text import format_size

__all__ = ["Announce", "chunked_note", "learn", "without_outliers"]

Announce = Callable[[Plan], None]


def chunked_note(plan: Plan) -> str:
    """Say what choosing in chunks means, and how to have the exact answer."""
    return (
        f"{format_size(plan.limit)} of memory do not hold all patches at once, so the coreset is chosen in "
        f"{len(plan.chunks)} chunks and merged; the exact one needs {format_size(plan.exact)}."
    )


def learn(
    extractor: PatchExtractor,
    settings: Settings,
    sources: Sequence[Source],
    *,
    memory: int | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
) -> tuple[Learnt, Reader]:
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
) -> tuple[Learnt, Reader]:
    """Read the pictures that count, in the way that the plan says."""
    if settings.new_parts and plan.way == "chunks":
        raise SettingError(
            f"new_parts needs all patches at once, {format_size(plan.exact)} of memory, got {format_size(plan.limit)}. "
            "Give more memory, or fewer pictures of each part.",
            "new_parts",
        )
    reader = Reader(extractor, settings, repeats, report, progress)
    return (take_chunks(reader, plan) if plan.way == "chunks" else gather(reader, plan)), reader


def without_outliers(learnt: Learnt, choice: Choice, progress: Progress | None) -> tuple[Choice, list[str]]:
    """Leave the bad patches of pictures that clearly stand out out of a coreset.

    What was chosen of the others stays: choosing again among the rest would move the score by the greedy's own luck,
    several tenths of a point of AUROC on magnetic tiles, also where next to nothing was left out.

    Args:
        learnt: the pictures; told to leave the patches out of every later choice and of the calibration.
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

    others = Others(bank.vectors, bank.origin[:, 0])
    explained = explain(others, learnt.again, len(learnt.pictures), learnt.grid, progress=told)
    dirty = dirty_patches(explained, learnt.again, learnt.grid)
    if not dirty:
        return choice, []
    learnt.leave_out(dirty)
    return learnt.kept_of(choice), [
        learnt.pictures[at].path for at in sorted(dirty, key=lambda at: -explained.relative[at])
    ]
