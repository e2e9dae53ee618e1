"""A worker of a fit: one core, one engine. It reads pictures, lowers bounds of the coreset, and measures folds.

It keeps nothing that another could not make again: whoever replaces it after its death does the same work, and gives
the same answer to the bit.
"""

import contextlib
import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from totalrecall.cluster.connection import need_ray
from totalrecall.cluster.isolating import ended_every_worker
from totalrecall.cluster.rows import SharedRows
from totalrecall.cluster.shards import Shard, ShardWork
from totalrecall.cluster.survey import look_at
from totalrecall.errors import PictureError
from totalrecall.features.patches import PatchExtractor
from totalrecall.outliers.same_part import surface
from totalrecall.patchcore.coreset import BLOCK, columns, greedy_k_center, lower, moved
from totalrecall.patchcore.fitting import FoldMeasure, measure_fold
from totalrecall.patchcore.judge import Judge
from totalrecall.patchcore.plan import projected_patches
from totalrecall.patchcore.reading import PicturePatches, ReadPicture, TrainingPatches, read_patches
from totalrecall.pictures.formats.header import set_max_pixels
from totalrecall.pictures.in_memory import RemotePicture, source_name
from totalrecall.pictures.loading import LoadedPicture
from totalrecall.system.memory import RowStore, peak_memory
from totalrecall.system.threads import limit_cores, one_blas_thread
from totalrecall.types import Matrix, Patches

__all__ = ["TRIES", "Worker"]

TRIES = 4  # of the same work, over which worker after worker dies


class Worker:
    """One process of a fit.

    Args:
        folder: that relative paths of pictures start from; where it is not there, no such picture is either.
        pixels: that a picture may have.
        ledger: name of an actor, see `Ledger`. Work that was begun too often and never ended is not begun again: its
            answer is None.
    """

    def __init__(self, folder: str, pixels: int, ledger: str) -> None:
        self._ledger = need_ray().get_actor(ledger)
        limit_cores(1)  # the one that Ray gave
        with contextlib.suppress(OSError):
            os.chdir(folder)
        set_max_pixels(pixels)
        self._extractor: PatchExtractor | None = None
        self._points: SharedRows | None = None

    def survey(self, pictures: Sequence[RemotePicture]) -> list[RemotePicture] | None:
        """Return pictures of a store with what a fit asks of them before it reads them; see `look_at`."""
        with self._begun(("survey", pictures[0].address)) as begun:
            return look_at(pictures) if begun else None

    @contextlib.contextmanager
    def _begun(self, work: Hashable) -> Iterator[bool]:
        """Note in the ledger that work was begun, and that it was ended; yields whether it is to be done."""
        times = need_ray().get(self._ledger.begin.remote(work))
        yield times <= TRIES
        if times <= TRIES:
            self._ledger.end.remote(work)

    def read(self, work: ShardWork, extractor: Sequence[Any]) -> tuple[Shard | None, Patches | None, Matrix | None]:
        """Read the pictures of a shard, or take what an earlier fit kept of them.

        Args:
            work: the pictures, and how they are read.
            extractor: the reference of the extractor of all shards, in a list, so that Ray passes it on as it is. The
                engine is opened here at the first of them, with one thread.

        Returns:
            What is known of them, their patches, and the projection of these.
        """
        kept = None if work.kept is None else work.kept.read()
        if kept is not None:
            shard, patches, projected = kept
            return shard, patches, projected
        with self._begun(("read", work.marks, work.given[0][0], len(work.given), work.killers)) as begun:
            if not begun:
                return None, None, None
            answer = self._read(work, extractor)
        if work.kept is not None:
            work.kept.write(answer)
        return answer

    def try_once(self, work: ShardWork, extractor: Sequence[Any]) -> bool:
        """Read the pictures of a shard, and forget them; see `isolating`."""
        self._read(work, extractor)
        return True

    def _read(self, work: ShardWork, extractor: Sequence[Any]) -> tuple[Shard, Patches, Matrix | None]:
        plan, settings = work.plan, work.settings
        if self._extractor is None:
            self._extractor = need_ray().get(extractor[0])
        patches = RowStore(plan.per_picture * len(work.given), plan.dimensions)
        projected = RowStore(plan.per_picture * len(work.given), plan.coreset_dimensions) if plan.projected else None
        pictures, surfaces = [], []
        given = [one for one in work.given if one[0] not in work.killers]
        for picture in read_patches(self._extractor, given, hashes=True, marks=work.marks, copies=plan.copies > 0):
            shown = None
            if picture.patches is not None:
                for some in [picture.patches.patches, *(copy.patches for copy in picture.patches.tilted)]:
                    patches.append(some)
                    if projected is not None:
                        projected.append(projected_patches(some, plan, settings))
                if settings.holdout > 0:
                    shown = surface(picture.patches.patches, picture.patches.cells, picture.grid)
            pictures.append(_without_numbers(picture))
            surfaces.append(shown)
        for position, place, source in work.given:
            if position in work.killers:
                name = source_name(source, place)
                loaded = LoadedPicture(name, error=PictureError(ended_every_worker(name)))
                pictures.append(ReadPicture(position, loaded))
                surfaces.append(None)
        shard = Shard(pictures, surfaces, len(patches))
        return shard, patches.all(), None if projected is None else projected.all()

    def norms(self, points: SharedRows, mean: np.ndarray, first: int, last: int) -> np.ndarray:
        """Return the squared lengths of the points from `first`, where a block begins, up to `last`."""
        points = self._mapped(points)
        norms = np.empty(last - first, np.float32)
        for row in range(first, last, BLOCK):
            some = moved(points, slice(row, min(row + BLOCK, last)), mean)
            np.einsum("nd,nd->n", some, some, out=norms[row - first : row - first + len(some)])
        return norms

    def meet(
        self,
        points: SharedRows,
        mean: np.ndarray,
        norms: np.ndarray,
        blocks: Sequence[tuple[np.ndarray, int]],
        first: int,
        centres: np.ndarray,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Find the least distances of blocks of points to some centres; see `Greedy.meet_all`.

        Args:
            points, mean, norms: all of them, (n, d), their mean (d,), and the squared lengths (n,) from there.
            blocks: of each the rows, and how many centres it leaves out.
            first, centres: see there.

        Returns:
            Of each block the squared distances, and the places of the centres which are that near.
        """
        points, centres = self._mapped(points), centres.astype(np.int64)  # they travel in as few bytes as will do
        found = []
        with one_blas_thread():
            parts, lengths = columns(points, centres, mean), norms[centres]
            for rows, skip in ((some.astype(np.int64), skip) for some, skip in blocks):
                least, coverer = np.full(len(rows), np.inf, np.float32), np.zeros(len(rows), np.int32)
                some = moved(points, rows, mean)
                lower(least, coverer, some, norms[rows], skip=skip, first=first, parts=parts, lengths=lengths)
                found.append((least, coverer))
        return found

    def _mapped(self, points: SharedRows) -> SharedRows:
        """Return these rows as they were mapped before: to ask the object store costs more than a small product."""
        if self._points is None or self._points.token != points.token:
            self._points = points
        return self._points

    def choose(self, points: SharedRows, count: int, seed: int, radius: float) -> tuple[np.ndarray, float]:
        """Return a coreset of some shards for a merge: indices, and the covering radius."""
        if count >= len(points):
            return np.arange(len(points)), 0.0
        coreset = greedy_k_center(points.all(), count, seed=seed, radius=radius)
        return coreset.indices, coreset.radius

    def measure(
        self, learnt: TrainingPatches, number: int, judge: Judge, basis: Matrix | None, search: bool
    ) -> FoldMeasure | None:
        """Measure the pictures of a fold; see `fitting.measure_fold`."""
        with self._begun(("fold", number)) as begun:
            return measure_fold(learnt, number, judge, basis=basis, search=search) if begun else None

    def facts(self) -> dict[str, Any]:
        """Return which process this is, and the most memory that it held."""
        node = need_ray().get_runtime_context().get_node_id()
        return {"role": "worker", "node": node, "pid": os.getpid(), "peak_memory": peak_memory()}


def _without_numbers(picture: ReadPicture) -> ReadPicture:
    """Return a picture without its pixels and its patches, which go their own way."""
    loaded = replace(picture.loaded, image=None, prepared=None)
    seen = picture.patches
    if seen is None:
        return replace(picture, loaded=loaded)
    tilted = [replace(copy, patches=_none(copy.patches)) for copy in seen.tilted]
    bare: PicturePatches = replace(seen, patches=_none(seen.patches), tilted=tilted)
    return replace(picture, loaded=loaded, patches=bare)


def _none(patches: Patches) -> Patches:
    return np.empty((0, patches.shape[1]), np.float32)
