"""A fit on a cluster: pictures are read, the coreset is chosen and folds are measured by workers, exactly as by one.

The patches of each shard of pictures go into the object store of the node that read them, and Ray spills them to disk
where memory is short. What is known of each picture beside its patches, a few kilobytes, is kept by the process that
began the fit; and so are some 30 bytes for each patch: where it is from, and how far the nearest chosen one is.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from totalrecall.cluster.coreset import Merged, SharedGreedy, merged
from totalrecall.cluster.crew import Crew
from totalrecall.cluster.rows import SharedRows
from totalrecall.cluster.survey import AT_A_TIME
from totalrecall.cluster.worker import Shard, ShardWork
from totalrecall.detectors.fit_report import Progress
from totalrecall.features.patches import PatchExtractor
from totalrecall.patchcore.coreset import Coreset, Rows, budget, first_choice
from totalrecall.patchcore.fitting import FoldMeasure, Folds, Way, measure_folds
from totalrecall.patchcore.gathered import InMemoryPatches
from totalrecall.patchcore.judge import Judge
from totalrecall.patchcore.plan import Plan, make_plan
from totalrecall.patchcore.reading import Reader, TrainingPatches
from totalrecall.patchcore.settings import Settings
from totalrecall.pictures.in_memory import RemotePicture
from totalrecall.pictures.loading import Source
from totalrecall.types import Matrix

__all__ = ["SharedPatches", "Spread", "shard_size"]

_SHARDS = 8  # for each worker, so that none is idle for long at the end
_SHARD_BYTES = 128 << 20  # of patches, at most: what is lost and read again where a worker dies
_ALL = 1 << 62  # bytes: the patches are not in the memory of the process that plans


def shard_size(pictures: int, workers: int, each: int) -> int:
    """Return how many pictures a worker reads at a time.

    Args:
        pictures: in all.
        workers: that read them.
        each: bytes of a picture's patches.
    """
    return max(min(math.ceil(pictures / (_SHARDS * workers)), _SHARD_BYTES // max(each, 1)), 1)


class SharedPatches(InMemoryPatches):
    """All patches of the good pictures, in the object store.

    Args:
        reader, plan: of the fit.
        crew: the workers; None in a copy that a worker measures a fold with.
        merge: choose the coreset in two rounds.
    """

    def __init__(self, reader: Reader, plan: Plan, crew: Crew, merge: bool) -> None:
        projected = SharedRows(plan.coreset_dimensions) if plan.projected else None
        super().__init__(reader, plan, SharedRows(plan.dimensions), projected)
        self._crew: Crew | None = crew
        self._merge = merge
        self.merged: Merged | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker needs to measure a fold."""
        at_rest = _AtRest(self._reader.settings, self._reader.grid)
        folds = {"folds": self.folds, "_own": self._own}  # known once, here
        return {**vars(self), **folds, "_crew": None, "merged": None, "_reader": at_rest, "_surfaces": []}

    def add_shard(self, shard: Shard, patches: Any, projected: Any) -> None:
        """Count the pictures of the next shard, and note where their patches are from.

        Args:
            shard: the pictures.
            patches, projected: references of theirs.
        """
        for rows, where in ((self.patches, patches), (self._projected, projected)):
            if isinstance(rows, SharedRows):
                rows.add(where, shard.rows)
        for picture, shown in zip(shard.pictures, shard.surfaces, strict=True):
            self._reader.count(picture)
            seen = self._reader.noted(picture)
            if seen is not None:
                self.note(seen, shown)

    def note_processes(self, facts: Sequence[dict[str, Any]]) -> None:
        """Note in the report which processes took part, and their memory."""
        self._reader.report.processes = list(facts)

    def whole_choice(self, count: int) -> Coreset:
        """Return the greedy choice among all patches, by the workers."""
        assert self._crew is not None
        settings, points = self._reader.settings, self._points()
        assert isinstance(points, SharedRows)
        if self._merge:
            self.merged = merged(
                points,
                count,
                self._crew,
                seed=settings.seed,
                radius=settings.coreset_radius,
                progress=self._reader.selecting,
            )
            return self.merged.coreset
        run = SharedGreedy(points, count, self._crew)
        first = first_choice(len(points), settings.seed)
        return run.choose_all(first, radius=settings.coreset_radius, progress=self._reader.selecting)

    def _subsample(self, rows: np.ndarray | None) -> Coreset:
        settings, total = self._reader.settings, len(self.patches)
        count = budget(total, settings.coreset, settings.at_least)
        if rows is not None or settings.subsampling != "greedy" or count >= total:
            return super()._subsample(rows)
        coreset = self.whole_choice(count)
        self._reader.selected(count)
        return coreset

    def _points(self) -> Rows:
        rows = self.patches if self._projected is None else self._projected
        assert isinstance(rows, SharedRows)
        return rows


@dataclass
class _AtRest:
    """What a copy of the patches asks of a reader that is done."""

    settings: Settings
    grid: tuple[int, int]

    def selected(self, count: int) -> None:
        """Take no notice: the progress is told where the fit began."""

    def selecting(self, done: int, total: int) -> None:
        """Take no notice."""


class Spread:
    """Where a fit on a cluster does its work: `PatchCore.fit(pictures, way=Spread(2).way)`.

    A Ray cluster must be connected (see `connection`), and stay so until the fit is done. The workers start at once.

    Args:
        workers: processes, of a core each.
        merge: choose the coreset in two rounds, which is less exact; see `coreset`.

    Attributes:
        merged: how the coreset was chosen in two rounds; None where it was not.
    """

    def __init__(self, workers: int, *, merge: bool = False) -> None:
        self._merge = merge
        self._crew: Crew | None = Crew(workers)
        self._patches: SharedPatches | None = None

    @property
    def way(self) -> Way:
        """What `PatchCore.fit` takes."""
        return Way(plan=self._plan, read=self._read, measure=self._measure)

    @property
    def merged(self) -> Merged | None:
        """How the coreset was chosen in two rounds."""
        return None if self._patches is None else self._patches.merged

    @property
    def workers(self) -> Sequence[Any]:
        """The workers, as Ray knows them; none once they were let go."""
        return [] if self._crew is None else self._crew.workers

    def survey(self, sources: Sequence[Source], progress: Progress | None = None) -> list[Source]:
        """Return the pictures of a fit, those of a store with what a fit asks of them before it reads them.

        Args:
            sources: of the pictures, as `as_sources` gives them.
            progress: called with (step, done, total); the step is `survey`.
        """
        crew = self._crew
        assert crew is not None, "let go"
        remote = [source for source in sources if isinstance(source, RemotePicture)]
        spans = [remote[first : first + AT_A_TIME] for first in range(0, len(remote), AT_A_TIME)]
        known: list[RemotePicture] = []
        for some in crew.spread(spans, _survey):
            known += some
            if progress:
                progress("survey", len(known), len(remote))
        following = iter(known)
        return [next(following) if isinstance(source, RemotePicture) else source for source in sources]

    def close(self) -> None:
        """Let the workers go."""
        if self._crew is not None:
            self._crew.close()
        self._crew = None

    def _plan(
        self, extractor: PatchExtractor, settings: Settings, sources: Sequence[Source], memory: int | None
    ) -> Plan:
        """Return the plan of a fit that holds all patches, wherever; `memory` would be that of one process."""
        plan = make_plan(extractor, settings, sources, _ALL)
        return replace(plan, limit=memory or plan.memory)

    def _read(self, reader: Reader, plan: Plan) -> SharedPatches:
        """Have the workers read the pictures that count."""
        crew = self._crew
        assert crew is not None, "let go"
        total = len(reader.sources)
        size = shard_size(total, len(crew), 4 * plan.dimensions * plan.per_picture)
        works = [
            ShardWork(reader.given_at(range(at, min(at + size, total))), reader.settings, plan, reader.marking)
            for at in range(0, total, size)
        ]
        gathered = SharedPatches(reader, plan, crew, self._merge)
        own = copy.copy(reader.extractor)
        own.threads = 1
        ask = _ReadShard([crew.ray.put(own)])  # kept until all is read: whoever replaces a worker needs it
        with reader.report.timing("features"):
            for shard, patches, projected in crew.spread(works, ask):
                gathered.add_shard(shard, patches, projected)
        gathered.finish()
        self._patches = gathered
        return gathered

    def _measure(self, learnt: TrainingPatches, judge: Judge, progress: Progress | None) -> Folds:
        """Have the workers measure the folds, side by side once it is known how their banks are best searched."""
        if not isinstance(learnt, SharedPatches) or self._crew is None:
            return measure_folds(learnt, judge, progress)
        crew, folds = self._crew, learnt.folds
        given = crew.ray.put(learnt)
        measured: list[Any] = []
        first = FoldMeasure([])
        done, number, total = 0, 0, sum(map(len, folds))
        while number < len(folds) and first.levels is None:
            first = crew.get(crew.workers[0].measure.remote(given, number, judge, None, True))
            measured += first.measured
            done, number = done + len(folds[number]), number + 1
            if progress:
                progress("calibration", done, total)
        ask = _MeasureFold(given, judge, first.basis)
        rest = range(number, len(folds))
        for at, fold in zip(rest, crew.spread(rest, ask), strict=True):
            measured += fold.measured
            done += len(folds[at])
            if progress:
                progress("calibration", done, total)
        learnt.note_processes(crew.facts())
        return sorted(measured, key=lambda seen: seen.picture), first.levels


def _survey(worker: Any, pictures: Sequence[RemotePicture]) -> Any:
    return worker.survey.remote(pictures)


@dataclass(frozen=True)
class _ReadShard:
    """Asks a worker for a shard.

    Attributes:
        extractor: see `Worker.read`.
    """

    extractor: Sequence[Any]

    def __call__(self, worker: Any, work: ShardWork) -> Any:
        """Return the references of the parts of the answer."""
        return worker.read.options(num_returns=3).remote(work, self.extractor)


@dataclass(frozen=True)
class _MeasureFold:
    """Asks a worker for a fold.

    Attributes:
        learnt: where the patches are.
        judge, basis: see `measure_fold`.
    """

    learnt: Any
    judge: Judge
    basis: Matrix | None

    def __call__(self, worker: Any, number: int) -> Any:
        """Return the reference of the answer."""
        return worker.measure.remote(self.learnt, number, self.judge, self.basis, False)
