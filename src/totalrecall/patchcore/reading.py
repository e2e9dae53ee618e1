"""Read the good pictures of a fit: their patches one after another, and what banks are chosen from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from totalrecall.detectors.fit_report import FitReport, Progress
from totalrecall.drift.conditions import Glance, look
from totalrecall.errors import PictureError
from totalrecall.features.patches import PatchExtractor, flatten_grid
from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.settings import Settings
from totalrecall.patchcore.tilted import TiltedPatches, cells_before, tilted
from totalrecall.pictures.copies import Mark, Repeats, inspected, mark_of
from totalrecall.pictures.loading import LearntPicture, LoadedPicture, Source, renumbered
from totalrecall.pictures.unlike import PictureTally
from totalrecall.types import Matrix, Patches, PreparedImage, PreparedMask

__all__ = [
    "CoresetChoice",
    "PicturePatches",
    "ReadPicture",
    "Reader",
    "TrainingPatches",
    "marked",
    "read_patches",
    "without_pictures",
]


@dataclass(frozen=True, eq=False)
class PicturePatches:
    """One readable picture with its patches inside the region of interest, (n, d), and their (row, column), (n, 2).

    Attributes:
        index: among the pictures given.
        picture, glance: of it.
        patches, cells: its own.
        tilted: those of its tilted copies, for the bank only.
    """

    index: int
    picture: LearntPicture
    patches: Patches
    cells: np.ndarray
    glance: Glance
    tilted: Sequence[TiltedPatches] = ()


@dataclass(frozen=True, eq=False)
class CoresetChoice:
    """Rows of what was kept that make a bank, in the order of selection, and the covering radius."""

    rows: np.ndarray
    radius: float


@runtime_checkable  # the checks of the test run need it
class TrainingPatches(Protocol):
    """Pictures that were read, and from which banks are made: the detector's own, and those without a fold."""

    @property
    def pictures(self) -> Sequence[LearntPicture]:
        """Those that could be read, in the order given."""

    @property
    def folds(self) -> Sequence[Sequence[int]]:
        """Those among them that set the threshold, by the fold that is left out of the bank together."""

    @property
    def parts(self) -> np.ndarray | None:
        """The part that each picture shows, int (n,), recognised by its surface; None where nobody looked."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""

    @property
    def patch_count(self) -> int:
        """How many patches the pictures gave."""

    def choose(self, *, without: Sequence[int] = ()) -> CoresetChoice:
        """Choose a coreset of all pictures but some."""

    def bank(self, choice: CoresetChoice, *, basis: Matrix | None = None) -> Bank:
        """Return the chosen patches as a memory bank, whose search prunes in the directions given, or its own."""

    def leave_out(self, dirty: Mapping[int, np.ndarray]) -> None:
        """Never choose some patches again: of each picture those marked, bool (rows, columns); nor calibrate on it."""

    def filter_choice(self, choice: CoresetChoice) -> CoresetChoice:
        """Return an earlier choice without the excluded patches."""

    def reread(self, pictures: Sequence[int]) -> Iterator[PicturePatches]:
        """Yield some of `pictures` again; their `index` is that among `pictures`."""


class Reader:
    """Reads the different pictures of a fit, notes which could not be read, and counts."""

    def __init__(
        self,
        extractor: PatchExtractor,
        settings: Settings,
        repeats: Repeats,
        report: FitReport,
        progress: Progress | None,
    ) -> None:
        self.extractor, self.settings = extractor, settings
        self.given, self.sources = repeats.sources, repeats.distinct
        self._repeats, self._places = repeats, repeats.places
        self.report = report
        self.progress = progress
        self.errors: dict[int, PictureError] = {}
        self.tally = PictureTally()
        self.grid = (0, 0)
        self.selections = 0  # expected in all, of all coresets of the fit
        self._done = self._selected = 0

    def read(
        self, which: Sequence[int] | None = None, *, again: bool = False, copies: bool = False
    ) -> Iterator[PicturePatches]:
        """Yield the pictures at the given positions, or all, that can be read.

        Args:
            which: positions among the sources.
            again: they were counted before.
            copies: with their tilted copies.
        """
        given = self.given_at(range(len(self.sources)) if which is None else which)
        marks = not again and self.marking
        for picture in read_patches(self.extractor, given, hashes=not again, marks=marks, copies=copies):
            if not again:
                self.count(picture)
            patches = self.noted(picture)
            if patches is not None:
                yield patches

    def given_at(self, positions: Sequence[int]) -> list[tuple[int, int, Source]]:
        """Return what `read_patches` is told of the pictures at positions among the sources."""
        return [(at, self._places[at], self.sources[at]) for at in positions]

    @property
    def marking(self) -> bool:
        """Whether a picture's mark is wanted: the repeats are not searched for yet."""
        return not self._repeats.searched

    def count(self, picture: "ReadPicture") -> None:
        """Count a picture that was read, whether it can be used or not."""
        loaded = picture.loaded
        self._done += 1
        self.tally.observe(loaded)
        self.report.seconds["decode"] = self.report.seconds.get("decode", 0.0) + loaded.seconds
        if self.progress:
            self.progress("features", self._done, len(self.sources))

    def noted(self, picture: "ReadPicture") -> PicturePatches | None:
        """Note why a picture cannot be used, or what it is known by; return its patches."""
        if picture.patches is None:
            assert picture.loaded.error is not None
            self.errors.setdefault(picture.position, picture.loaded.error)
            return None
        if picture.mark is not None:
            self._repeats.note(self._places[picture.position], picture.mark)
        self.grid = picture.grid
        return picture.patches

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


@dataclass(frozen=True, eq=False)
class ReadPicture:
    """A picture that was read, or could not be.

    Attributes:
        position: among the sources that count.
        loaded: what was read, and the error, if any.
        patches: None where there is an error.
        grid: rows and columns of the patch grid.
        mark: what it is known by among its repeats; None where nobody asked.
    """

    position: int
    loaded: LoadedPicture
    patches: PicturePatches | None = None
    grid: tuple[int, int] = (0, 0)
    mark: Mark | None = None


def read_patches(
    extractor: PatchExtractor, given: Sequence[tuple[int, int, Source]], *, hashes: bool, marks: bool, copies: bool
) -> Iterator[ReadPicture]:
    """Yield pictures with their patches, in order.

    Args:
        extractor: of the patches.
        given: of each picture its position, its place among all that were given, and its source.
        hashes: note the SHA-256 of each.
        marks: and what it is known by among its repeats.
        copies: with its tilted copies.
    """
    recipe = extractor.recipe
    stream = extractor.stream((source for *_, source in given), hashes=hashes)
    for (at, place, source), (found, grid) in zip(given, stream, strict=True):
        loaded = renumbered(found, source, place)
        if loaded.error is not None:
            yield ReadPicture(at, loaded)
            continue
        assert grid is not None  # whatever has no error was prepared
        assert loaded.geometry is not None
        assert loaded.prepared is not None
        mark = mark_of(loaded.prepared, inspected(recipe, loaded.geometry)) if marks else None
        roi = recipe.prepared_roi(loaded.geometry)
        patches, cells = flatten_grid(grid, roi)
        shape = (grid.shape[1], grid.shape[2])
        picture = LearntPicture(loaded.path, loaded.sha256, *loaded.geometry.original, loaded.grey)
        turned = _tilted(extractor, loaded.prepared, roi, cells, shape) if copies else []
        seen = PicturePatches(at, picture, patches, cells, look(loaded, recipe), turned)
        yield ReadPicture(at, loaded, seen, shape, mark)


def _tilted(
    extractor: PatchExtractor,
    prepared: PreparedImage,
    roi: PreparedMask | None,
    cells: np.ndarray,
    grid: tuple[int, int],
) -> list[TiltedPatches]:
    """Return the patches of tilted copies of a prepared picture, and where they lie on it."""
    inside = np.zeros(grid, bool)
    inside[cells[:, 0], cells[:, 1]] = True
    copies = []
    for copy, back in tilted(prepared):
        patches, at = flatten_grid(extractor.grid_of(extractor.maps(copy)), roi)
        before, count = cells_before(at, back, inside, prepared.shape[:2])
        copies.append(TiltedPatches(patches[count], before[count]))
    return copies


def marked(origin: np.ndarray, dirty: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return which patches (n,) of an origin (n, 3) are marked in bool (rows, columns) of their picture."""
    found = np.zeros(len(origin), bool)
    for picture, cells in dirty.items():
        of_picture = np.flatnonzero(origin[:, 0] == picture)
        found[of_picture] = cells[origin[of_picture, 1], origin[of_picture, 2]]
    return found


def without_pictures(folds: Sequence[Sequence[int]], dirty: Mapping[int, np.ndarray]) -> list[list[int]]:
    """Return the folds without some pictures, and without those that are empty then."""
    rest = [[at for at in fold if at not in dirty] for fold in folds]
    return [fold for fold in rest if fold]
