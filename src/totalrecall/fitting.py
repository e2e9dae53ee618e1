"""Good pictures -> memory bank: gathers the patches, chooses the coreset, says what it took.

`learn` reads the pictures as its plan says and gives something to choose banks from: `Gathered`, all patches of them,
or `chunks.Chunked`, the coresets of one chunk after the other.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from totalrecall.bank import Bank, BankPicture
from totalrecall.copies import Repeat, Repeats, inspected
from totalrecall.coreset import Coreset, budget, project, subsample
from totalrecall.drift_conditions import Glance, look
from totalrecall.errors import DataError, PictureError
from totalrecall.extractor import PatchExtractor
from totalrecall.folds import make_folds
from totalrecall.images import LoadedPicture, Source
from totalrecall.in_memory import source_name
from totalrecall.memory import RowStore, peak_memory
from totalrecall.odd_pictures import PictureTally
from totalrecall.patches import flatten_grid
from totalrecall.plan import Plan
from totalrecall.refill import refill
from totalrecall.same_part import part_numbers, same_part, surface
from totalrecall.search import default_levels, principal_basis
from totalrecall.settings import Settings
from totalrecall.threads import one_blas_thread
from totalrecall.types import Matrix, Patches

__all__ = [
    "Choice",
    "FitReport",
    "Gathered",
    "Learnt",
    "Progress",
    "Reader",
    "Seen",
    "as_bank",
    "gather",
    "marked",
    "nothing_readable",
    "renumbered",
    "walked",
    "without_pictures",
]

Progress = Callable[[str, int, int], None]  # (step, done, total)


@dataclass
class FitReport:
    """What a fit did and what it took.

    Attributes:
        pictures: read and learnt from; `calibration_pictures` of them also set the threshold.
        repeats: pictures that were left out, being the same as an earlier one (see `copies`).
        patches: gathered from them, of `dimensions` numbers each; `vectors` were chosen.
        radius: covering radius of the coreset, in the projected space where there is one; with more than one chunk a
            bound of it, that of the merge and the largest chunk's together.
        chunks: in how many the pictures were taken; more than one only where memory did not hold them all.
        seconds: wall time by step. `decode` is the threads' own time; it runs beside `features`, not before it.
        peak_memory: bytes resident at most, by the operating system's count.
        scratch: bytes of scratch file.
        plan: what was expected, as JSON types.
    """

    pictures: int = 0
    repeats: list[Repeat] = field(default_factory=list)
    calibration_pictures: int = 0
    patches: int = 0
    dimensions: int = 0
    vectors: int = 0
    radius: float = 0.0
    chunks: int = 1
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0
    scratch: int = 0
    plan: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        """Add the time of a `with` block to a step."""
        began = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - began

    def finish(self, bank: Bank, patches: int, radius: float, scored: int) -> None:
        """Note what came out: the bank, of how many patches, its covering radius, and the pictures that were scored."""
        self.pictures, self.calibration_pictures = len(bank.pictures), scored
        self.patches, self.radius = patches, radius
        self.vectors, self.dimensions = bank.vectors.shape
        self.peak_memory = peak_memory()


@dataclass(frozen=True, eq=False)
class Seen:
    """One readable picture with its patches inside the region of interest, (n, d), and their (row, column), (n, 2)."""

    index: int  # among the pictures given
    picture: BankPicture
    patches: Patches
    cells: np.ndarray
    glance: Glance


@dataclass(frozen=True, eq=False)
class Choice:
    """Rows of what was kept that make a bank, in the order of selection, and the covering radius."""

    rows: np.ndarray
    radius: float


@runtime_checkable  # the checks of the test run need it
class Learnt(Protocol):
    """Pictures that were read, and from which banks are made: the detector's own, and those without a fold."""

    @property
    def pictures(self) -> Sequence[BankPicture]:
        """Those that could be read, in the order given."""

    @property
    def folds(self) -> Sequence[Sequence[int]]:
        """Those among them that set the threshold, by the fold that is left out of the bank together."""

    @property
    def parts(self) -> np.ndarray | None:
        """The part that each picture shows, int (n,), told by its surface; None where that was not looked at."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""

    @property
    def patch_count(self) -> int:
        """How many patches the pictures gave."""

    def choose(self, *, without: Sequence[int] = ()) -> Choice:
        """Choose a coreset of all pictures but some."""

    def bank(self, choice: Choice, *, basis: Matrix | None = None) -> Bank:
        """Return the chosen patches as a memory bank, whose search prunes in the directions given, or its own."""

    def leave_out(self, dirty: Mapping[int, np.ndarray]) -> None:
        """Never choose some patches again: of each picture those marked, bool (rows, columns); nor calibrate on it."""

    def kept_of(self, choice: Choice) -> Choice:
        """Return a choice of before without what is left out."""

    def again(self, pictures: Sequence[int]) -> Iterator[Seen]:
        """Yield some of `pictures` again; their `index` is that among `pictures`."""


class Reader:
    """Reads the different pictures of a fit, notes which could not be read, and counts."""

    def __init__(
        self, extractor: PatchExtractor, repeats: Repeats, report: FitReport, progress: Progress | None
    ) -> None:
        self.extractor = extractor
        self.given, self.sources = repeats.sources, repeats.distinct
        self._repeats, self._places = repeats, repeats.places
        self.report = report
        self.progress = progress
        self.errors: dict[int, PictureError] = {}
        self.tally = PictureTally()
        self.grid = (0, 0)
        self.selections = 0  # expected in all, of all coresets of the fit
        self._done = self._selected = 0

    def read(self, which: Sequence[int] | None = None, *, again: bool = False) -> Iterator[Seen]:
        """Yield the pictures at the given positions, or all, that can be read.

        Args:
            which: positions among the sources.
            again: they were counted before.
        """
        positions = range(len(self.sources)) if which is None else which
        stream = self.extractor.stream((self.sources[at] for at in positions), hashes=not again)
        for at, (found, grid) in zip(positions, stream, strict=True):
            loaded = renumbered(found, self.sources[at], self._places[at])
            if not again:
                self._done += 1
                self.tally.observe(loaded)
                self.report.seconds["decode"] = self.report.seconds.get("decode", 0.0) + loaded.seconds
                if self.progress:
                    self.progress("features", self._done, len(self.sources))
            if loaded.error is not None:
                self.errors.setdefault(at, loaded.error)
                continue
            assert grid is not None  # whatever has no error was prepared
            assert loaded.geometry is not None
            assert loaded.prepared is not None
            if not again:
                self._repeats.look(self._places[at], loaded.prepared, inspected(self.extractor.recipe, loaded.geometry))
            patches, cells = flatten_grid(grid, self.extractor.recipe.prepared_roi(loaded.geometry))
            self.grid = (grid.shape[1], grid.shape[2])
            picture = BankPicture(loaded.path, loaded.sha256, *loaded.geometry.original, loaded.grey)
            yield Seen(at, picture, patches, cells, look(loaded, self.extractor.recipe))

    def selecting(self, done: int, _: int) -> None:
        """Tell how far the coreset in hand is."""
        if self.progress:
            self.progress("coreset", min(self._selected + done, self.selections), self.selections)

    def selected(self, count: int) -> None:
        """Note that a coreset is done."""
        self._selected += count
        self.selecting(0, count)

    @property
    def skipped(self) -> list[PictureError]:
        """Why pictures were left out, in the order given."""
        return [self.errors[at] for at in sorted(self.errors)]


def renumbered(loaded: LoadedPicture, source: Source, at: int) -> LoadedPicture:
    """Return a picture in memory under its own number: the stream counts from its own beginning."""
    name = source_name(source, at)
    if loaded.path == name:
        return loaded
    error = loaded.error and PictureError(str(loaded.error).replace(loaded.path, name, 1))
    return replace(loaded, path=name, error=error)


def walked(patches: Patches, plan: Plan, settings: Settings) -> Matrix:
    """Return what the coreset is chosen in. A picture at a time, so that every way of fitting gets the same bits."""
    with one_blas_thread():
        return project(patches, dimensions=plan.walked, seed=settings.seed)


class Gathered:
    """All patches of the good pictures: the first and second way of `plan`.

    Attributes:
        patches: (n, d), in memory or in a scratch file.
        origin: int32 (n, 3): picture, row and column; the pictures come one after another.
    """

    def __init__(self, reader: Reader, plan: Plan, patches: RowStore, projected: RowStore | None) -> None:
        self.patches = patches
        self.origin = np.empty((plan.patches, 3), np.int32)
        self.pictures: list[BankPicture] = []
        self._glances: list[Glance] = []
        self._surfaces: list[np.ndarray] = []
        self._reader, self._plan = reader, plan
        self._projected = projected
        self._dirty: Mapping[int, np.ndarray] = {}

    def add(self, seen: Seen) -> None:
        """Keep a picture's patches."""
        first = len(self.patches)
        self.patches.append(seen.patches)
        last = len(self.patches)
        if self._projected is not None:
            self._projected.append(walked(seen.patches, self._plan, self._reader.extractor.settings))
        if last > len(self.origin):
            self.origin.resize((last * 5 // 4, 3), refcheck=False)
        self.origin[first:last, 0] = len(self.pictures)
        self.origin[first:last, 1:] = seen.cells
        self.pictures.append(seen.picture)
        self._glances.append(seen.glance)
        if self._reader.extractor.settings.holdout > 0:
            self._surfaces.append(surface(seen.patches, seen.cells, self._reader.grid))

    def counts(self) -> list[int]:
        """Return how many patches are chosen for the bank, and for those without a fold.

        A bank that is refilled counts with the fold's share of the choices: it is these that are made again.
        """
        settings, total = self._reader.extractor.settings, len(self.patches)
        others = [total - sum(last - first for first, last in map(self._span, fold)) for fold in self.folds]
        own, *anew = (budget(count, settings.coreset, settings.at_least) for count in (total, *others))
        if own == total or settings.subsampling != "greedy":
            return [own, *anew]
        return [own, *(own * (total - rest) // total for rest in others)]

    @cached_property
    def folds(self) -> Sequence[Sequence[int]]:
        """Pictures that set the threshold; asked for once all are read."""
        settings = self._reader.extractor.settings
        parts = self.parts if settings.new_parts else None
        if parts is not None and parts.max() < 2:
            what = f"got {len(parts)} of {parts.max() + 1}, as far as their surfaces tell"
            raise DataError(f"new_parts needs good pictures of at least 3 parts, {what}. Add pictures of others.")
        folds = make_folds(len(self.pictures), settings.holdout, settings.folds, settings.seed, parts)
        return without_pictures([fold.tolist() for fold in folds], self._dirty)

    @cached_property
    def parts(self) -> np.ndarray | None:
        """See `Learnt`."""
        return part_numbers(same_part(np.stack(self._surfaces))) if self._surfaces else None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self._reader.grid

    @property
    def patch_count(self) -> int:
        """How many patches the pictures gave."""
        return len(self.patches)

    def choose(self, *, without: Sequence[int] = ()) -> Choice:
        """Choose a coreset of all pictures but some: that of all, refilled, where the greedy chose it."""
        if not len(without) and not self._dirty:
            return Choice(self._own.indices, self._own.radius)
        left_out = np.zeros(len(self.pictures), bool)
        left_out[list(without)] = True
        gone, dirty = left_out[self.origin[:, 0]], marked(self.origin, self._dirty)
        own = self._own
        if len(without) and own.coverer is not None:
            rows = refill(self._points(), own, gone, dirty)
            self._reader.selected(len(own.indices) * int(np.count_nonzero(gone)) // len(gone))
            return Choice(rows, own.radius)
        rows = np.flatnonzero(~gone & ~dirty)
        coreset = self._subsample(rows)
        return Choice(rows[coreset.indices], coreset.radius)

    @cached_property
    def _own(self) -> Coreset:
        """The coreset of all patches; with coverers where the greedy chose it."""
        return self._subsample(None)

    def _subsample(self, rows: np.ndarray | None) -> Coreset:
        """Choose among some patches, or all; the indices count within them."""
        settings = self._reader.extractor.settings
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

    def _points(self) -> Matrix:
        """Return what the coreset is chosen in, (n, d')."""
        return (self.patches if self._projected is None else self._projected).all()

    def leave_out(self, dirty: Mapping[int, np.ndarray]) -> None:
        """Never choose some patches again, nor calibrate on their pictures."""
        self._dirty = dirty
        self.__dict__.pop("folds", None)  # made anew without those pictures

    def kept_of(self, choice: Choice) -> Choice:
        """Return a choice of before without what is left out."""
        return replace(choice, rows=choice.rows[~marked(self.origin[choice.rows], self._dirty)])

    def bank(self, choice: Choice, *, basis: Matrix | None = None) -> Bank:
        """Return the chosen patches as a memory bank, whose search prunes in the directions given, or its own."""
        return as_bank(self.patches.take(choice.rows), self.origin[choice.rows], self.pictures, basis)

    def again(self, pictures: Sequence[int]) -> Iterator[Seen]:
        """Yield pictures with their patches, as they were kept."""
        for picture in pictures:
            first, last = self._span(picture)
            patches, cells = self.patches.span(first, last), self.origin[first:last, 1:]
            yield Seen(picture, self.pictures[picture], patches, cells, self._glances[picture])

    def _span(self, picture: int) -> tuple[int, int]:
        """Return the first row of a picture's patches, and the one after the last."""
        first, last = np.searchsorted(self.origin[:, 0], [picture, picture + 1])
        return int(first), int(last)


def marked(origin: np.ndarray, dirty: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return which patches (n,) of an origin (n, 3) are marked in bool (rows, columns) of their picture."""
    found = np.zeros(len(origin), bool)
    for picture, cells in dirty.items():
        own = np.flatnonzero(origin[:, 0] == picture)
        found[own] = cells[origin[own, 1], origin[own, 2]]
    return found


def without_pictures(folds: Sequence[Sequence[int]], dirty: Mapping[int, np.ndarray]) -> list[list[int]]:
    """Return the folds without some pictures, and without those that are empty then."""
    rest = [[at for at in fold if at not in dirty] for fold in folds]
    return [fold for fold in rest if fold]


def gather(reader: Reader, plan: Plan) -> Gathered:
    """Return all patches of the pictures; those that cannot be read are noted in the reader.

    Raises:
        DataError: no picture could be read, or scratch space does not suffice.
    """
    patches = RowStore(plan.patches, plan.dimensions, scratch=plan.way == "scratch")
    projected = RowStore(plan.patches, plan.walked) if plan.projected else None
    gathered = Gathered(reader, plan, patches, projected)
    with reader.report.timing("features"):
        for seen in reader.read():
            gathered.add(seen)
    if not gathered.pictures:
        raise DataError(nothing_readable(reader.skipped))
    if not len(patches):
        raise DataError("The region of interest covers no patch of any picture: is it hidden by the crop?")
    gathered.origin = gathered.origin[: len(patches)]
    if plan.way == "scratch":
        reader.report.scratch = len(patches) * plan.dimensions * 4
    reader.selections = sum(gathered.counts())
    return gathered


def as_bank(vectors: Patches, origin: np.ndarray, pictures: Sequence[BankPicture], basis: Matrix | None = None) -> Bank:
    """Return vectors as a bank, with the directions that its search prunes by; they are found if not given.

    Any orthonormal directions bound rightly; the banks of the folds share nearly all their vectors.
    """
    levels = default_levels(vectors.shape[1])
    if basis is None and levels:
        basis = principal_basis(vectors, levels[-1])
    return Bank(vectors, origin, pictures, basis)


def nothing_readable(skipped: Sequence[PictureError]) -> str:
    """Say that no picture could be read, and why the first could not."""
    return f"None of the {len(skipped)} pictures could be read. The first: {skipped[0]}"
