"""Holds all patches of the good pictures in memory, and builds memory banks from them with `coreset`.

`fitting.learn` gives either `InMemoryPatches` or, where memory is too small, `chunks.ChunkedPatches`: the coresets of
one chunk after the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from totalrecall.calibration import make_folds
from totalrecall.detectors.fit_report import nothing_readable
from totalrecall.drift.conditions import Glance
from totalrecall.errors import DataError
from totalrecall.outliers.same_part import part_numbers, same_part, surface
from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.coreset import Coreset, Rows, budget, refill, subsample
from totalrecall.patchcore.plan import Plan, projected_patches
from totalrecall.patchcore.reading import CoresetChoice, PicturePatches, Reader, marked, without_pictures
from totalrecall.pictures.loading import LearntPicture
from totalrecall.system.memory import RowStore
from totalrecall.system.text import counted
from totalrecall.types import Matrix

__all__ = ["InMemoryPatches", "gather"]


class InMemoryPatches:
    """All patches of the good pictures: the first and second way of `plan`.

    Attributes:
        patches: (n, d), in memory or in a scratch file.
        origin: int32 (n, 3): picture, row and column; the pictures come one after another.
    """

    def __init__(self, reader: Reader, plan: Plan, patches: RowStore, projected: RowStore | None) -> None:
        self.patches = patches
        self.origin = np.empty((plan.patches, 3), np.int32)
        self._noted = 0
        self.pictures: list[LearntPicture] = []
        self._glances: list[Glance] = []
        self._judged: list[int] = []  # patches of each picture that are not of its tilted copies; they come first
        self._surfaces: list[np.ndarray] = []
        self._reader, self._plan = reader, plan
        self._projected = projected
        self._dirty: Mapping[int, np.ndarray] = {}

    def add(self, seen: PicturePatches) -> None:
        """Keep a picture's patches."""
        for patches in [seen.patches, *(copy.patches for copy in seen.tilted)]:
            self.patches.append(patches)
            if self._projected is not None:
                self._projected.append(projected_patches(patches, self._plan, self._reader.settings))
        shown = None
        if self._reader.settings.holdout > 0:
            shown = surface(seen.patches, seen.cells, self._reader.grid)
        self.note(seen, shown)

    def note(self, seen: PicturePatches, shown: np.ndarray | None) -> None:
        """Note where a picture's patches are from; they are kept already.

        Args:
            seen: the picture; its patches are not looked at.
            shown: its `surface`; None where nobody asks for the parts.
        """
        for cells in [seen.cells, *(copy.cells for copy in seen.tilted)]:
            first, self._noted = self._noted, self._noted + len(cells)
            if self._noted > len(self.origin):
                self.origin.resize((self._noted * 5 // 4, 3), refcheck=False)
            self.origin[first : self._noted, 0] = len(self.pictures)
            self.origin[first : self._noted, 1:] = cells
        self._judged.append(len(seen.cells))
        self.pictures.append(seen.picture)
        self._glances.append(seen.glance)
        if shown is not None:
            self._surfaces.append(shown)

    def finish(self) -> None:
        """Note that all pictures are read.

        Raises:
            DataError: no picture could be read, or none has a patch.
        """
        if not self.pictures:
            raise DataError(nothing_readable(self._reader.skipped))
        if not self._noted:
            raise DataError("The region of interest covers no patch of any picture: is it hidden by the crop?")
        self.origin = self.origin[: self._noted]
        self._reader.selections = sum(self.counts())

    def counts(self) -> list[int]:
        """Return how many patches are chosen for the bank, and for those without a fold.

        A bank that is refilled counts with the fold's share of the choices: it is these that are made again.
        """
        settings, total = self._reader.settings, len(self.patches)
        others = [total - sum(last - first for first, last in map(self._span, fold)) for fold in self.folds]
        whole, *anew = (budget(count, settings.coreset, settings.at_least) for count in (total, *others))
        if whole == total or settings.subsampling != "greedy":
            return [whole, *anew]
        return [whole, *(whole * (total - rest) // total for rest in others)]

    @cached_property
    def folds(self) -> Sequence[Sequence[int]]:
        """Pictures that set the threshold; asked for once all are read."""
        settings = self._reader.settings
        parts = self.parts if settings.new_parts else None
        if parts is not None and parts.max() < 2:
            what = f"got {len(parts)} pictures that seem to show {counted(int(parts.max()) + 1, 'part')}"
            raise DataError(
                f"new_parts needs good pictures of at least 3 parts, {what}. Add pictures of other parts.", "new_parts"
            )
        folds = make_folds(len(self.pictures), settings.holdout, settings.folds, settings.seed, parts)
        return without_pictures([fold.tolist() for fold in folds], self._dirty)

    @cached_property
    def parts(self) -> np.ndarray | None:
        """See `TrainingPatches`."""
        return part_numbers(same_part(np.stack(self._surfaces))) if self._surfaces else None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self._reader.grid

    @property
    def patch_count(self) -> int:
        """How many patches the pictures gave."""
        return len(self.patches)

    def choose(self, *, without: Sequence[int] = ()) -> CoresetChoice:
        """Choose a coreset of all pictures but some: that of all, refilled, where the greedy chose it."""
        if not len(without) and not self._dirty:
            return CoresetChoice(self._own.indices, self._own.radius)
        left_out = np.zeros(len(self.pictures), bool)
        left_out[list(without)] = True
        gone, dirty = left_out[self.origin[:, 0]], marked(self.origin, self._dirty)
        whole = self._own
        if len(without) and whole.coverer is not None:
            rows = refill(self._points(), whole, gone, dirty)
            self._reader.selected(len(whole.indices) * int(np.count_nonzero(gone)) // len(gone))
            return CoresetChoice(rows, whole.radius)
        rows = np.flatnonzero(~gone & ~dirty)
        coreset = self._subsample(rows)
        return CoresetChoice(rows[coreset.indices], coreset.radius)

    @cached_property
    def _own(self) -> Coreset:
        """The coreset of all patches; with coverers where the greedy chose it."""
        return self._subsample(None)

    def _subsample(self, rows: np.ndarray | None) -> Coreset:
        """Choose among some patches, or all; the indices count within them."""
        settings = self._reader.settings
        total = len(self.patches) if rows is None else len(rows)
        count = budget(total, settings.coreset, settings.at_least)
        coreset = Coreset(np.arange(total), 0.0, 0, 0.0)
        if count < total:
            coreset = subsample(
                self._points(),
                count,
                method=settings.subsampling,
                rows=rows,
                seed=settings.seed,
                radius=settings.coreset_radius,
                progress=self._reader.selecting,
            )
        self._reader.selected(count)
        return coreset

    def _points(self) -> Rows:
        """Return what the coreset is chosen in, (n, d')."""
        return (self.patches if self._projected is None else self._projected).all()

    def leave_out(self, dirty: Mapping[int, np.ndarray]) -> None:
        """Never choose some patches again, nor calibrate on their pictures."""
        self._dirty = dirty
        self.__dict__.pop("folds", None)  # made anew without those pictures

    def filter_choice(self, choice: CoresetChoice) -> CoresetChoice:
        """Return an earlier choice without the excluded patches."""
        return replace(choice, rows=choice.rows[~marked(self.origin[choice.rows], self._dirty)])

    def bank(self, choice: CoresetChoice, *, basis: Matrix | None = None) -> Bank:
        """Return the chosen patches as a memory bank, whose search prunes in the directions given, or its own."""
        return Bank(self.patches.take(choice.rows), self.origin[choice.rows], self.pictures, basis)

    def reread(self, pictures: Sequence[int]) -> Iterator[PicturePatches]:
        """Yield pictures with their patches, as they were kept, without their tilted copies."""
        for picture in pictures:
            first, _ = self._span(picture)
            last = first + self._judged[picture]
            patches, cells = self.patches.span(first, last), self.origin[first:last, 1:]
            yield PicturePatches(picture, self.pictures[picture], patches, cells, self._glances[picture])

    def _span(self, picture: int) -> tuple[int, int]:
        """Return the first row of a picture's patches, and the one after the last."""
        first, last = np.searchsorted(self.origin[:, 0], [picture, picture + 1])
        return int(first), int(last)


def gather(reader: Reader, plan: Plan) -> InMemoryPatches:
    """Return all patches of the pictures; those that cannot be read are noted in the reader.

    Raises:
        DataError: no picture could be read, or scratch space does not suffice.
    """
    patches = RowStore(plan.patches, plan.dimensions, scratch=plan.way == "scratch")
    projected = RowStore(plan.patches, plan.coreset_dimensions) if plan.projected else None
    gathered = InMemoryPatches(reader, plan, patches, projected)
    with reader.report.timing("features"):
        for seen in reader.read(copies=plan.copies > 0):
            gathered.add(seen)
    gathered.finish()
    if plan.way == "scratch":
        reader.report.scratch = len(patches) * plan.dimensions * 4
    return gathered
