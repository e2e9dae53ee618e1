"""Finds the good pictures that look least like the others: dirty parts, the same picture twice, unusual sizes.

For each picture an audit measures how well all other pictures explain it (`outliers.explain`). It works like a fit with
a small memory bank: the pictures are read as memory allows (`plan`), a coreset of all patches is chosen, and each
picture is measured against the coreset without its own vectors. An audit decides nothing: it ranks the pictures and
gives a reason for each.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from totalrecall.audit.checks import describe, find_duplicates, looks, odd_looks
from totalrecall.detectors.fit_report import FitReport, Progress
from totalrecall.detectors.settings import ComparedSettings
from totalrecall.errors import ChunkedFitWarning, DataError, PictureError, UnlikePictureWarning
from totalrecall.outliers.explain import LeaveOneOutIndex, LeaveOneOutScores, explain, laid_out, limit_of, smoothed
from totalrecall.outliers.same_part import part_numbers
from totalrecall.patchcore.detector import PatchCore
from totalrecall.patchcore.fitting import learn
from totalrecall.patchcore.reading import PicturePatches, Reader, TrainingPatches
from totalrecall.pictures.bit_depth import checked_bit_depth, find_bit_depth
from totalrecall.pictures.copies import Repeat
from totalrecall.pictures.geometry import Geometry, Recipe
from totalrecall.pictures.loading import LearntPicture, Source, Sources, expand, load_picture, read_image, spread
from totalrecall.pictures.unlike import OddSize, mixed_notes, odd_sizes
from totalrecall.scoring import anomaly_map
from totalrecall.system.settings import declared
from totalrecall.system.text import bytes_of, listed
from totalrecall.types import AnomalyMap, Image

__all__ = ["Audit", "Entry", "SamePicture", "Shown", "audit"]

_VECTORS = (2000, 10_000)  # of the small bank: at least and at most, and a hundredth of the patches between
_MOST_OF_IT = 0.4  # share of a picture from which it is no longer a spot
_NAMED = 6  # pictures of a group
_COMPARED = 60  # pictures whose light and focus say what is usual


@dataclass(frozen=True)
class Entry:
    """One picture of the ranking.

    Attributes:
        number: index into `Audit.pictures`.
        path: path of its file, or `array[i]`.
        level: how badly the others explain it, higher is worse: a distance, scaled by the most similar picture.
        stands_out: whether the level is above `Audit.limit`.
        like: path of the most similar picture, the one that explains most of its patches best.
        part: number of the part that it seems to show, the same for several photographs of a part (see `same_part`).
    """

    number: int
    path: str
    level: float
    stands_out: bool
    like: str
    part: int


@dataclass(frozen=True)
class SamePicture:
    """Paths of pictures that are the same: with the same bytes if `exact`, else nearly the same to look at."""

    paths: tuple[str, ...]
    exact: bool


@dataclass(frozen=True, eq=False)
class Shown:
    """What to show of one picture.

    Attributes:
        entry: its place in the ranking.
        reason: why it is unlike the others, as a sentence.
        share: share of its patches that are worse than usual.
        spot: box around the worst of these patches, in original pixels: left, top, width, height; None without any.
        image: the pixels of the picture.
        anomaly_map: its distances, in original pixels.
    """

    entry: Entry
    reason: str
    share: float
    spot: tuple[int, int, int, int] | None
    image: Image = field(repr=False)
    anomaly_map: AnomalyMap = field(repr=False)


@dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes:
        entries: all pictures that could be read, the worst first.
        limit: level above which a picture stands out; infinite if there are too few pictures.
        usual: the median level.
        pictures: the different pictures that could be read, in the order given; `sizes` refers to them by index.
        duplicates: groups of the same picture. Of a group in `report.repeats` only the first picture was compared; of a
            group that is only nearly the same (see `checks`) all were.
        sizes: pictures of an unusual size.
        skipped: the pictures that could not be read, each with the reason.
        report: time and memory of the audit.
    """

    entries: list[Entry]
    limit: float
    usual: float
    pictures: Sequence[LearntPicture]
    duplicates: list[SamePicture]
    sizes: list[OddSize]
    skipped: list[PictureError]
    report: FitReport
    _explained: LeaveOneOutScores = field(repr=False)
    _learnt: TrainingPatches = field(repr=False)
    _sources: Sequence[Source] = field(repr=False)
    _recipe: Recipe = field(repr=False)

    @property
    def parts(self) -> int:
        """The number of different parts that the pictures seem to show."""
        return len({entry.part for entry in self.entries})

    def names_of(self, group: SamePicture) -> str:
        """Return the paths of a group in a line; of a large group the first paths and how many more there are."""
        return listed(group.paths, _NAMED)

    @property
    def outliers(self) -> list[Entry]:
        """The pictures that stand out, the worst first."""
        return [entry for entry in self.entries if entry.stands_out]

    def show(self, top: int) -> Iterator[Shown]:
        """Yield what to show of the worst pictures, the worst first; a picture whose file is gone is left out."""
        worst = self.entries[:top]
        usual = self._usual_looks() if worst else np.empty((0, 3))
        for entry in worst:
            for seen in self._learnt.reread([entry.number]):
                image = self._image(entry.path)
                if image is not None:
                    yield self._shown(entry, seen, image, usual)

    def to_json(self, shown: Iterable[Shown] = ()) -> dict[str, Any]:
        """Return everything as JSON types; pictures in `shown` carry their reason, share and box."""
        more = {one.entry.number: one for one in shown}
        return {
            "pictures": len(self.pictures),
            "limit": self.limit,
            "usual": self.usual,
            "parts": self.parts,
            "entries": [_entry_json(entry, more.get(entry.number)) for entry in self.entries],
            "duplicates": [{"exact": group.exact, "paths": list(group.paths)} for group in self.duplicates],
            "repeats": [asdict(one) for one in self.report.repeats],
            "sizes": [
                {
                    "path": self.pictures[size.picture].path,
                    "width": self.pictures[size.picture].width,
                    "height": self.pictures[size.picture].height,
                    "usual": size.usual,
                }
                for size in self.sizes
            ],
            "skipped": [str(error) for error in self.skipped],
        }

    def _image(self, path: str) -> Image | None:
        """Return the pixels of a picture, or None if its file is gone."""
        if path.startswith("array["):
            return load_picture(self._sources[int(path[6:-1])], self._recipe).image
        try:
            return read_image(path, self._recipe.depth)
        except PictureError:
            return None

    def _usual_looks(self) -> np.ndarray:
        """Return light, contrast and sharpness of some of the pictures, (n, 3)."""
        some = spread([picture.path for picture in self.pictures], _COMPARED)
        images = (self._image(str(path)) for path in some)
        return np.array([looks(image) for image in images if image is not None]).reshape(-1, 3)

    def _shown(self, entry: Entry, seen: PicturePatches, image: Image, usual: np.ndarray) -> Shown:
        grid = self._learnt.grid
        distances = self._explained.distances[entry.number] * np.float32(self._explained.measure[entry.number])
        whole, level = laid_out(distances, seen.cells, grid), smoothed(distances, seen.cells, grid)
        geometry = self._recipe.geometry(seen.picture.height, seen.picture.width)
        full = anomaly_map(whole, geometry, roi=self._recipe.prepared_roi(geometry))
        # worse than usual: nearer, in ratio, to the level of this picture than to the usual level
        limit = math.sqrt(self.usual * entry.level) if entry.level > self.usual else math.inf
        hot = level > limit
        share = float(hot.mean()) if len(hot) else 0.0
        spot = _box(seen.cells[_around(seen.cells, hot, grid, level)], grid, geometry) if hot.any() else None
        words = _words(share, spot, image.shape[:2])
        different = odd_looks(looks(image), usual) if len(usual) else []
        return Shown(entry, "; ".join([words, *different]), share, spot, image, full)


def audit(
    pictures: Sources,
    settings: ComparedSettings | None = None,
    *,
    memory: int | str | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Rank good pictures by how badly the others explain them; needs no model and no defect.

    Args:
        pictures: as for `PatchCore.fit`.
        settings: how the pictures are prepared and which of their features are compared; the usual ones if not given.
        memory: bytes that the process may hold, or a size such as "2GB"; half of what is free if not given.
        progress: called with (step, done, total); steps are `features`, `coreset` and `comparing`.

    Raises:
        DataError: fewer than three pictures could be read.
        SettingError: a setting is outside what is allowed, or the memory does not suffice.
        BackboneError: the backbone is not there or cannot be used.

    Warns:
        UnlikePictureWarning: some are grey and the others colour; PassedOverWarning: some files or pages are not read.
    """
    sources, limit = expand(pictures), bytes_of(memory)
    given = {} if settings is None else {name: getattr(settings, name) for name in declared(ComparedSettings)}
    detector = PatchCore(**given, holdout=0.0)  # nothing is calibrated
    depth = find_bit_depth(sources, checked_bit_depth(detector.settings.bit_depth), progress=progress)
    if depth.note:
        warnings.warn(depth.note, UnlikePictureWarning, stacklevel=2)
    extractor = detector.extractor
    extractor.recipe = replace(extractor.recipe, depth=depth)
    chosen = replace(detector.settings, coreset=_share(detector, len(sources)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChunkedFitWarning)  # a ranking loses nothing by it
        learnt, reader = learn(extractor, chosen, sources, memory=limit, progress=progress)
    if len(learnt.pictures) < 3:
        why = f" The first that could not be read: {reader.skipped[0]}" if reader.skipped else ""
        repeats = len(reader.report.repeats)
        why = f", and {repeats} that repeat them.{why}" if repeats else f".{why}"
        raise DataError(f"An audit needs at least 3 good pictures that can be read, got {len(learnt.pictures)}{why}")
    reader.tally.warn()
    for note in mixed_notes(learnt.pictures, sizes=False):  # of sizes it says more
        warnings.warn(note, UnlikePictureWarning, stacklevel=2)
    return _audited(learnt, reader, progress)


def _audited(learnt: TrainingPatches, reader: Reader, progress: Progress | None) -> Audit:
    """Compare the pictures that were read."""
    with reader.report.timing("coreset"):
        bank = learnt.bank(learnt.choose())
    with reader.report.timing("comparing"):
        explained, described = _compare(learnt, LeaveOneOutIndex(bank.vectors, bank.origin[:, 0]), progress)
    reader.report.finish(
        pictures=len(bank.pictures), patches=learnt.patch_count, bank=bank.vectors.shape, radius=0.0, scored=0
    )
    levels = explained.relative
    limit = limit_of(levels)
    return Audit(
        entries=_ranked(learnt.pictures, explained, limit),
        limit=limit,
        usual=float(np.median(levels)),
        pictures=learnt.pictures,
        duplicates=_twice(learnt.pictures, described, reader.report.repeats),
        sizes=odd_sizes(learnt.pictures),
        skipped=reader.skipped,
        report=reader.report,
        _explained=explained,
        _learnt=learnt,
        _sources=reader.given,
        _recipe=reader.extractor.recipe,
    )


def _share(detector: PatchCore, pictures: int) -> float:
    """Return the share of the patches that the small bank holds."""
    rows, columns, _ = detector.extractor.expected_grid()
    patches = max(pictures, 1) * rows * columns
    return min(max(patches // 100, _VECTORS[0]), _VECTORS[1], patches) / patches


def _compare(
    learnt: TrainingPatches, others: LeaveOneOutIndex, progress: Progress | None
) -> tuple[LeaveOneOutScores, dict[int, np.ndarray]]:
    """Measure how well all pictures are explained; on the way, describe each as a whole."""
    described: dict[int, np.ndarray] = {}

    def again(numbers: Sequence[int]) -> Iterator[PicturePatches]:
        for seen in learnt.reread(numbers):
            if seen.index not in described:
                described[seen.index] = describe(others.shortened(seen.patches), seen.cells, learnt.grid)
            yield seen

    def told(done: int, total: int) -> None:
        if progress:
            progress("comparing", done, total)

    explained = explain(others, again, len(learnt.pictures), learnt.grid, progress=told)
    told(1, 1)
    return explained, described


def _twice(
    pictures: Sequence[LearntPicture], described: dict[int, np.ndarray], repeats: Sequence[Repeat]
) -> list[SamePicture]:
    """Return the groups of the same bytes, then those that look the same: the repeats that were left out, and of the
    pictures that were compared, those whose files had not gone when they were read again."""
    exact: dict[str, list[str]] = {}
    near: dict[str, list[str]] = {}
    for one in repeats:
        (exact if one.same == "bytes" else near).setdefault(one.first, [one.first]).append(one.path)
    known = sorted(described)
    for group in find_duplicates(np.stack([described[at] for at in known])):
        paths = [pictures[known[at]].path for at in group]
        near[paths[0]] = [*paths, *(more for path in paths for more in near.pop(path, [])[1:])]
    groups = [SamePicture(tuple(paths), exact=True) for paths in exact.values()]
    return groups + [SamePicture(tuple(paths), exact=False) for paths in near.values()]


def _ranked(pictures: Sequence[LearntPicture], explained: LeaveOneOutScores, limit: float) -> list[Entry]:
    entries = []
    levels, parts = explained.relative, part_numbers(explained.parts)
    for at in np.argsort(-levels, kind="stable").tolist():
        by = explained.by[at][explained.by[at] >= 0]
        like = pictures[int(np.bincount(by).argmax())].path if len(by) else ""
        own = float(levels[at])
        entries.append(Entry(at, pictures[at].path, own, own > limit, like, int(parts[at])))
    return entries


def _around(cells: np.ndarray, hot: np.ndarray, grid: tuple[int, int], level: np.ndarray) -> np.ndarray:
    """Return which of the cells (p, 2) are hot and joined to the worst one, bool (p,)."""
    mask = np.zeros(grid, np.uint8)
    mask[cells[hot, 0], cells[hot, 1]] = 1
    labels = cv2.connectedComponents(mask, connectivity=8)[1][cells[:, 0], cells[:, 1]]
    return np.asarray((labels == labels[level.argmax()]) & hot)


def _box(cells: np.ndarray, grid: tuple[int, int], geometry: Geometry) -> tuple[int, int, int, int]:
    """Return the box of cells (p, 2) in original pixels: left, top, width, height."""
    step = (geometry.prepared[0] / grid[0], geometry.prepared[1] / grid[1])
    (top, left), (low, right) = (
        geometry.point_to_original(row * step[0] - 0.5, column * step[1] - 0.5)
        for row, column in (cells.min(axis=0), cells.max(axis=0) + 1)
    )
    return left, top, max(right - left, 1), max(low - top, 1)


def _words(share: float, spot: tuple[int, int, int, int] | None, shape: tuple[int, ...]) -> str:
    """Say where in the picture the patches are that the others do not explain."""
    if spot is None:
        return "like the others"
    if share >= _MOST_OF_IT:
        return f"unlike the others as a whole ({share:.0%} of it)"
    left, top, width, height = spot
    down = ("upper", "middle", "lower")[min(3 * (top + height // 2) // shape[0], 2)]
    across = ("left", "middle", "right")[min(3 * (left + width // 2) // shape[1], 2)]
    where = "in the middle" if down == across else f"{down} {across}"
    return f"a spot unlike the others, {where}, at x {left} to {left + width}, y {top} to {top + height}"


def _entry_json(entry: Entry, shown: Shown | None) -> dict[str, Any]:
    told = {} if shown is None else {"reason": shown.reason, "share": shown.share, "box": shown.spot}
    return {
        "path": entry.path,
        "level": entry.level,
        "stands_out": entry.stands_out,
        "like": entry.like,
        "part": entry.part,
        **told,
    }
