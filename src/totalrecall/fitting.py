"""Good pictures -> memory bank: gathers the patches, chooses the coreset, says what it took."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from totalrecall.bank import Bank, BankPicture
from totalrecall.coreset import greedy_k_center, project
from totalrecall.errors import DataError, PictureError
from totalrecall.extractor import PatchExtractor
from totalrecall.memory import available_memory, scratch_array
from totalrecall.patches import covered_cells
from totalrecall.search import principal_basis, pruned_dimensions
from totalrecall.types import FeatureMap, Image, Mask, Patches

__all__ = ["FitReport", "Progress", "build_bank", "flatten_grid", "held_out"]

Progress = Callable[[str, int, int], None]  # (step, done, total)


@dataclass
class FitReport:
    """What a fit did and what it took.

    Attributes:
        pictures: read into the bank; `calibration_pictures` were held out of it.
        patches: gathered from them; `vectors` were chosen.
        radius: covering radius of the coreset, in the projected space.
        seconds: wall time by step. `decode` is the threads' own time; it runs beside `features`, not before it.
        peak_memory: bytes resident at most, by the operating system's count.
    """

    pictures: int = 0
    calibration_pictures: int = 0
    patches: int = 0
    dimensions: int = 0
    vectors: int = 0
    radius: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0


def held_out(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices, each ascending, of the pictures for the bank and of those held out to calibrate.

    The share is rounded down, but at least one picture is held out where there are three or more.
    """
    held = int(count * share)
    if share > 0 and count >= 3:
        held = max(held, 1)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def build_bank(
    extractor: PatchExtractor,
    sources: Sequence[str | Path | Image],
    *,
    report: FitReport,
    skipped: list[PictureError],
    progress: Progress | None = None,
) -> Bank:
    """Return the memory bank of the pictures; those that cannot be read are added to `skipped`.

    Raises:
        DataError: no picture could be read, or scratch space does not suffice.
    """
    began = time.perf_counter()
    patches, origin, pictures = _gather(extractor, sources, report, skipped, progress)
    gathered = time.perf_counter()
    report.seconds["features"] = gathered - began
    count = max(int(extractor.settings.coreset * len(patches)), 1)
    chosen = np.arange(len(patches))
    if count < len(patches):
        settings = extractor.settings
        projected = project(patches, dimensions=settings.projection, seed=settings.seed)
        step = None if progress is None else (lambda done, total: progress("coreset", done, total))
        coreset = greedy_k_center(projected, count, seed=settings.seed, progress=step)
        chosen, report.radius = coreset.indices, coreset.radius
    vectors = np.array(patches[chosen])
    basis = None
    if pruned_dimensions(vectors.shape[1]):
        basis = principal_basis(vectors, pruned_dimensions(vectors.shape[1]))
    report.seconds["coreset"] = time.perf_counter() - gathered
    report.pictures, report.patches, report.vectors = len(pictures), len(patches), len(vectors)
    report.dimensions = vectors.shape[1]
    return Bank(vectors, origin[chosen], pictures, basis)


def _gather(
    extractor: PatchExtractor,
    sources: Sequence[str | Path | Image],
    report: FitReport,
    skipped: list[PictureError],
    progress: Progress | None,
) -> tuple[Patches, np.ndarray, list[BankPicture]]:
    """Return all patches (n, d), each one's (picture, row, column), and the pictures."""
    patches = np.empty((0, 0), np.float32)
    origins: list[np.ndarray] = []
    pictures: list[BankPicture] = []
    filled = 0
    for done, (loaded, grid) in enumerate(extractor.stream(sources, hashes=True), start=1):
        report.seconds["decode"] = report.seconds.get("decode", 0.0) + loaded.seconds
        if progress:
            progress("features", done, len(sources))
        if loaded.error is not None:
            skipped.append(loaded.error)
            continue
        assert grid is not None and loaded.geometry is not None  # whatever has no error was prepared
        rows, cells = flatten_grid(grid, extractor.recipe.prepared_roi(loaded.geometry))
        if not pictures:
            shape = (len(sources) * grid.shape[1] * grid.shape[2], grid.shape[3])
            patches = scratch_array(shape, limit=available_memory() // 2)
        patches[filled : filled + len(rows)] = rows
        filled += len(rows)
        origins.append(np.column_stack([np.full(len(rows), len(pictures)), cells]).astype(np.int32))
        pictures.append(BankPicture(loaded.path, loaded.sha256, *loaded.geometry.original))
    if not pictures:
        raise DataError(_nothing_readable(skipped))
    if not filled:
        raise DataError("The region of interest covers no patch of any picture: is it hidden by the crop?")
    return patches[:filled], np.concatenate(origins), pictures


def flatten_grid(grid: FeatureMap, roi: Mask | None) -> tuple[Patches, np.ndarray]:
    """Return a grid's (1, rows, columns, d) patches inside the region of interest, and their (row, column)."""
    _, rows, columns, dimensions = grid.shape
    cells = np.indices((rows, columns)).reshape(2, -1).T  # (rows*columns, 2)
    patches = grid.reshape(-1, dimensions)  # (1, rows, columns, d) -> (rows*columns, d)
    if roi is None:
        return patches, cells
    inside = covered_cells(roi, (rows, columns)).ravel()
    return patches[inside], cells[inside]


def _nothing_readable(skipped: Iterable[PictureError]) -> str:
    reasons = list(skipped)
    if not reasons:
        return "There are no pictures to fit on. Give files, folders or globs of good pictures."
    return f"None of the {len(reasons)} pictures could be read. The first: {reasons[0]}"

