"""More good pictures than memory holds: a coreset of each chunk of them, and a merge of these coresets.

Each chunk of pictures gives its own greedy coreset, twice the share asked for if memory allows, and is forgotten. The
merge is the same greedy over all that was kept (Ceccarello, Pietracaprina and Pucci, "Solving k-center clustering (with
outliers) in MapReduce and streaming, almost as accurately as sequentially", VLDB 2019).

What is known of the answer. A patch lies within the radius r_c of its chunk's coreset from something kept, and that
within the radius r_m of the merge from something chosen. So every patch lies within

    r_m + max r_c

of the bank: known afterwards, always true, and what `FitReport.radius` states. Beforehand: where each chunk keeps at
least as many as the bank holds, r_c is at most twice the smallest radius r* that any k vectors can reach (Gonzalez
1985), r_m at most twice that, and so the bank's at most 4 r*. A chunk keeps fewer than the bank holds as soon as there
are more chunks than the larger share outweighs; then the bound known afterwards is the only one. In a projection all
radii are the projection's.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from totalrecall.detectors.fit_report import nothing_readable
from totalrecall.errors import DataError
from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.coreset import budget, subsample
from totalrecall.patchcore.plan import Plan, projected_patches
from totalrecall.patchcore.reading import CoresetChoice, PicturePatches, Reader, marked, without_pictures
from totalrecall.pictures.loading import LearntPicture
from totalrecall.system.memory import RowStore
from totalrecall.types import Matrix

__all__ = ["ChunkedPatches", "take_chunks"]

_BLOCK = 4096  # rows read back at a time


class ChunkedPatches:
    """Coresets of chunks of pictures, kept in a scratch file; their patches are gone.

    Pictures held out for the threshold are in chunks of their own, so that a bank without them is the merge of the
    other chunks' coresets: no patch is measured twice.
    """

    def __init__(self, reader: Reader, plan: Plan) -> None:
        self._reader, self._plan = reader, plan
        self._settings = reader.settings
        self._kept = RowStore(sum(plan.kept()), plan.dimensions, scratch=True)
        self._members: list[list[int]] = []  # of each chunk: places of its readable pictures among those given
        self._origins: list[np.ndarray] = []  # of each chunk: picture (until the end its place), row, column
        self._sizes: list[int] = []  # patches of each chunk
        self._radii: list[float] = []
        self._found: dict[int, LearntPicture] = {}
        self._given: list[int] = []
        self._numbers: list[np.ndarray] = []
        self.pictures: list[LearntPicture] = []
        self.folds: list[list[int]] = []
        self._dirty: Mapping[int, np.ndarray] = {}

    # ------------------------------------------------------------------ reading

    def add(self, positions: Sequence[int], store: RowStore, projected: RowStore | None) -> None:
        """Read one chunk of pictures and keep its coreset."""
        store.clear()
        origins, members = [np.empty((0, 3), np.int32)], []
        if projected is not None:
            projected.clear()
        with self._reader.report.timing("features"):
            for seen in self._reader.read(positions):
                store.append(seen.patches)
                if projected is not None:
                    projected.append(projected_patches(seen.patches, self._plan, self._settings))
                origins.append(np.column_stack([np.full(len(seen.cells), seen.index), seen.cells]).astype(np.int32))
                self._found[seen.index] = seen.picture
                members.append(seen.index)
        with self._reader.report.timing("coreset"):
            count = self._plan.keeps(len(store))
            points = store if projected is None else projected
            rows, radius = self._choose(points.all(), np.arange(len(store)), count)
            self._kept.append(store.take(rows))
        self._origins.append(np.concatenate(origins)[rows])
        self._members.append(members)
        self._sizes.append(len(store))
        self._radii.append(radius)

    def finish(self) -> None:
        """Number the pictures that could be read in the order given, whatever the order of the chunks."""
        self._given = sorted(self._found)
        number = np.full(len(self._reader.sources), -1, np.int32)
        number[self._given] = np.arange(len(self._given))
        for origin in self._origins:
            origin[:, 0] = number[origin[:, 0]]
        self._numbers = [number[members] for members in self._members]
        self.pictures = [self._found[at] for at in self._given]
        first = len(self._plan.chunks) - self._plan.held_chunks
        if sum(self._sizes[:first]):  # else there is nothing to score those held out by
            held = sorted(int(at) for numbers in self._numbers[first:] for at in numbers)
            self.folds = [held] if held else []

    # ------------------------------------------------------------------ choosing

    @property
    def parts(self) -> None:
        """Which part each picture shows is not looked at: which are held out was decided before they were read."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self._reader.grid

    @property
    def patch_count(self) -> int:
        """How many patches the pictures gave."""
        return sum(self._sizes)

    @property
    def kept_count(self) -> int:
        """How many vectors the chunks kept."""
        return len(self._kept)

    def choose(self, *, without: Sequence[int] = ()) -> CoresetChoice:
        """Merge the coresets of all chunks that hold none of the pictures left out."""
        used = [chunk for chunk, numbers in enumerate(self._numbers) if not np.isin(numbers, without).any()]
        ends = np.cumsum([len(origin) for origin in self._origins])
        rows = np.concatenate([np.arange(ends[chunk] - len(self._origins[chunk]), ends[chunk]) for chunk in used])
        radius = max(self._radii[chunk] for chunk in used)
        if self._dirty:
            rows = rows[~marked(np.concatenate(self._origins)[rows], self._dirty)]
        total = sum(self._sizes[chunk] for chunk in used)
        count = budget(total, self._settings.coreset, self._settings.at_least)
        if self._plan.merged:
            rows, merged = self._choose(self._points(), rows, count)
            radius += merged
        return CoresetChoice(rows, radius)

    def _choose(self, points: Matrix, rows: np.ndarray, count: int) -> tuple[np.ndarray, float]:
        """Return a coreset of some rows, and its covering radius."""
        radius = 0.0
        if 0 < count < len(rows):
            coreset = subsample(
                points,
                count,
                method=self._settings.subsampling,
                rows=rows,
                seed=self._settings.seed,
                radius=self._settings.coreset_radius,
                progress=self._reader.selecting,
            )
            rows, radius = rows[coreset.indices], coreset.radius
        self._reader.selected(count)
        return rows, radius

    def leave_out(self, dirty: Mapping[int, np.ndarray]) -> None:
        """Never choose some patches again, nor calibrate on their pictures."""
        self._dirty = dirty
        self.folds = without_pictures(self.folds, dirty)

    def filter_choice(self, choice: CoresetChoice) -> CoresetChoice:
        """Return an earlier choice without the excluded patches."""
        origin = np.concatenate(self._origins)[choice.rows]
        return replace(choice, rows=choice.rows[~marked(origin, self._dirty)])

    def bank(self, choice: CoresetChoice, *, basis: Matrix | None = None) -> Bank:
        """Return the chosen patches as a memory bank; see `fitting.TrainingPatches`."""
        origin = np.concatenate(self._origins)[choice.rows]
        return Bank(self._kept.take(choice.rows), origin, self.pictures, basis)

    def reread(self, pictures: Sequence[int]) -> Iterator[PicturePatches]:
        """Yield pictures with their patches; they are read from their files again."""
        for seen in self._reader.read([self._given[picture] for picture in pictures], again=True):
            yield replace(seen, index=bisect_left(self._given, seen.index))

    def _points(self) -> Matrix:
        """Return all that was kept, as the merge walks it."""
        if not self._plan.projected:
            return self._kept.all()
        points = RowStore(len(self._kept), self._plan.coreset_dimensions)
        for block in self._kept.blocks(_BLOCK):
            points.append(projected_patches(block, self._plan, self._settings))
        return points.all()


def take_chunks(reader: Reader, plan: Plan) -> ChunkedPatches:
    """Return the coresets of all chunks.

    Raises:
        DataError: no picture could be read, or scratch space does not suffice.
    """
    chunked = ChunkedPatches(reader, plan)
    reader.selections = plan.selections
    largest = max(map(len, plan.chunks)) * plan.per_picture
    store = RowStore(largest, plan.dimensions, scratch=plan.projected)
    projected = RowStore(largest, plan.coreset_dimensions) if plan.projected else None
    most = 0
    for positions in plan.chunks:
        chunked.add([int(at) for at in positions], store, projected)
        most = max(most, len(store))
    store.close()
    chunked.finish()
    if not chunked.pictures:
        raise DataError(nothing_readable(reader.skipped))
    if not chunked.patch_count:
        raise DataError("The region of interest covers no patch of any picture: is it hidden by the crop?")
    reader.report.scratch = 4 * plan.dimensions * (chunked.kept_count + (most if plan.projected else 0))
    reader.report.chunks = len(plan.chunks)
    return chunked
