"""A fit on a cluster: pictures are read, the coreset is chosen and folds are measured by workers, exactly as by one.

The patches of each shard of pictures go into the object store of the node that read them, and Ray spills them to disk
where memory is short. What is known of each picture beside its patches, a few kilobytes, is kept by the process that
began the fit; and so are some 30 bytes for each patch: where it is from, and how far the nearest chosen one is.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from totalrecall.cluster.coreset import Merged, SharedGreedy, merged
from totalrecall.cluster.crew import Crew
from totalrecall.cluster.isolating import search_killers
from totalrecall.cluster.kept import KeptFit, KeptValue, asked_of
from totalrecall.cluster.rows import SharedRows
from totalrecall.cluster.shards import Shard, ShardWork
from totalrecall.cluster.survey import AT_A_TIME
from totalrecall.detectors.fit_report import Progress
from totalrecall.features.patches import PatchExtractor
from totalrecall.patchcore.coreset import Coreset, Rows, budget, first_choice
from totalrecall.patchcore.fitting import FoldMeasure, Folds, MeasuredPicture, Way, measure_folds
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
        kept: where the coreset is kept, and may be from an earlier fit; None where it is not.
    """

    def __init__(self, reader: Reader, plan: Plan, crew: Crew, merge: bool, kept: KeptValue | None = None) -> None:
        projected = SharedRows(plan.coreset_dimensions) if plan.projected else None
        super().__init__(reader, plan, SharedRows(plan.dimensions), projected)
        self._crew: Crew | None = crew
        self._merge, self._kept = merge, kept
        self.merged: Merged | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker needs to measure a fold."""
        at_rest = _AtRest(self._reader.settings, self._reader.grid)
        folds = {"folds": self.folds, "_own": self._own}  # known once, here
        return {
            **vars(self),
            **folds,
            "_crew": None,
            "_kept": None,
            "merged": None,
            "_reader": at_rest,
            "_surfaces": [],
        }

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
        """Return the greedy choice among all patches, by the workers, or what an earlier fit kept of it."""
        choice = None if self._kept is None else self._kept.read()
        if choice is None:
            choice = self._chosen(count)
            if self._kept is not None:
                self._kept.write(choice)
        if isinstance(choice, Merged):
            self.merged = choice
            return choice.coreset
        coreset: Coreset = choice
        return coreset

    def _chosen(self, count: int) -> Coreset | Merged:
        assert self._crew is not None
        settings, points = self._reader.settings, self._points()
        assert isinstance(points, SharedRows)
        if self._merge:
            return merged(
                points,
                count,
                self._crew,
                seed=settings.seed,
                radius=settings.coreset_radius,
                progress=self._reader.selecting,
            )
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
        kept: the folder of what is done, which an earlier fit may have left; None: nothing is kept.
        told: called with what a person is told of it.

    Attributes:
        merged: how the coreset was chosen in two rounds; None where it was not.
    """

    def __init__(
        self,
        workers: int,
        *,
        merge: bool = False,
        kept: KeptFit | None = None,
        told: Callable[[str], object] | None = None,
    ) -> None:
        self._merge = merge
        self._kept, self._told = kept, told
        self._readings = 0
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
        if self._kept is not None and not self._readings:
            more: dict[str, object] = {"merge": self._merge, "folder": str(Path.cwd())}
            if self._merge:
                more["workers"] = len(self.workers)
            asked = asked_of(extractor, settings, more)
            needed = 4 * plan.patches * (plan.dimensions + (plan.coreset_dimensions if plan.projected else 0))
            said = self._kept.begin(asked, sources, self._shard_size(plan), needed)
            if said and self._told is not None:
                self._told(said)
        return replace(plan, limit=memory or plan.memory)

    def _shard_size(self, plan: Plan) -> int:
        """Return how many pictures a shard has."""
        if self._kept is not None and self._kept.size:
            return self._kept.size
        return shard_size(plan.pictures, len(self.workers), 4 * plan.dimensions * plan.per_picture)

    def _kept_value(self, name: str) -> KeptValue | None:
        return None if self._kept is None else self._kept.value(name)

    def _read(self, reader: Reader, plan: Plan) -> SharedPatches:
        """Have the workers read the pictures that count."""
        crew = self._crew
        assert crew is not None, "let go"
        self._readings += 1
        total, size = len(reader.sources), self._shard_size(plan)
        works = [
            ShardWork(
                reader.given_at(range(at, min(at + size, total))),
                reader.settings,
                plan,
                reader.marking,
                kept=self._kept_value(f"features-{self._readings}-{at // size:05}"),
            )
            for at in range(0, total, size)
        ]
        gathered = SharedPatches(reader, plan, crew, self._merge, self._kept_value("coreset"))
        own = copy.copy(reader.extractor)
        own.threads = 1
        ask = _ReadShard([crew.ray.put(own)])  # kept until all is read: whoever replaces a worker needs it
        with reader.report.timing("features"):
            for shard, patches, projected in crew.spread(works, ask, rescue=ask):
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
        measured: dict[int, FoldMeasure] = self._kept_folds(len(folds))
        told = _Calibrated(progress, [len(fold) for fold in folds])
        first, number = FoldMeasure([]), 0
        while number < len(folds) and first.levels is None:
            if number not in measured:
                fold = crew.get(crew.workers[0].measure.remote(given, number, judge, None, True))
                measured[number] = self._keep_fold(number, fold)
            first, number = measured[number], number + 1
            told(measured)
        rest = [at for at in range(number, len(folds)) if at not in measured]
        for at, fold in zip(rest, crew.spread(rest, _MeasureFold(given, judge, first.basis)), strict=True):
            measured[at] = self._keep_fold(at, fold)
            told(measured)
        told(measured)
        learnt.note_processes(crew.facts())
        return sorted((seen for fold in measured.values() for seen in fold.measured), key=_place), first.levels

    def _kept_folds(self, count: int) -> dict[int, FoldMeasure]:
        """Return the folds that an earlier fit measured, by their numbers."""
        values = {number: self._kept_value(f"fold-{number:05}") for number in range(count)}
        read = {number: value.read() for number, value in values.items() if value is not None}
        return {number: fold for number, fold in read.items() if fold is not None}

    def _keep_fold(self, number: int, fold: FoldMeasure) -> FoldMeasure:
        value = self._kept_value(f"fold-{number:05}")
        if value is not None:
            value.write(fold)
        return fold


@dataclass(frozen=True)
class _Calibrated:
    """Tells how far the calibration is.

    Attributes:
        progress: called with (step, done, total).
        sizes: pictures of each fold.
    """

    progress: Progress | None
    sizes: Sequence[int]

    def __call__(self, measured: Mapping[int, FoldMeasure]) -> None:
        """Tell it, given what is measured."""
        if self.progress:
            self.progress("calibration", sum(self.sizes[number] for number in measured), sum(self.sizes))


def _place(seen: MeasuredPicture) -> int:
    return seen.picture


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

    def search(self, worker: Any, item: ShardWork) -> Any:
        """Have the pictures of a shard found that end a worker; see `Rescue`."""
        positions = [position for position, *_ in item.given if position not in item.killers]
        return search_killers(_TryShard(self.extractor, item), worker, positions)

    def without(self, item: ShardWork, killers: Sequence[int]) -> ShardWork:
        """Return a shard whose pictures of some positions are told, and not read."""
        return replace(item, killers=item.killers | set(killers))


@dataclass(frozen=True)
class _TryShard:
    """Has a worker read some pictures of a shard, once; see `isolating`.

    Attributes:
        extractor, work: see `Worker.read`.
    """

    extractor: Sequence[Any]
    work: ShardWork

    def ready(self, worker: Any) -> Any:
        """Return the reference of an answer that comes once the worker is there."""
        return worker.facts.remote()

    def read(self, worker: Any, items: Sequence[int]) -> Any:
        """Return the reference of the answer."""
        some = replace(self.work, given=[one for one in self.work.given if one[0] in items], kept=None)
        return worker.try_once.options(max_task_retries=0).remote(some, self.extractor)


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
