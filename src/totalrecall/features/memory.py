"""How much memory it takes to read pictures and run the backbone, computed before it is used."""

import math
import os
from collections.abc import Sequence

from totalrecall.errors import PictureError
from totalrecall.features.extractor import FeatureExtractor
from totalrecall.features.patches import covered_cells
from totalrecall.pictures.copies import FINGERPRINT
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import FAILURES, READ_AHEAD, Source, picture_size, spread
from totalrecall.system.memory import resident_memory

__all__ = ["baseline", "baseline_bytes", "engine_bytes", "sizes_seen"]

# Bytes, measured (see `benchmarks/bounded.py`).
_PROGRAM = 140 << 20  # Python, NumPy, OpenCV, OpenVINO
_GRAPHS = 3  # times the backbone's file: the bytes, the parsed graph, the compiled graph
_PER_PIXEL = 60  # of feature maps inside the engine, a prepared pixel
_GRIDS = 9  # patch grids, or as much in feature maps, on their way at a time
_PER_PICTURE = 6000 + FINGERPRINT  # path, hash and size, and a look at it (see `drift.conditions` and `copies`)


def sizes_seen(recipe: Recipe, sources: Sequence[Source], grid: tuple[int, int]) -> tuple[int, int]:
    """Return the pixels of the largest of eight pictures, and the most patches that any of them has.

    Only the headers of files are read: nothing is decoded.
    """
    pixels, patches = 0, 0
    for source in spread(sources, 8):
        try:
            geometry = recipe.geometry(*picture_size(source))
        except (PictureError, *FAILURES):  # the fit will name it
            continue
        pixels = max(pixels, math.prod(geometry.original))
        roi = recipe.prepared_roi(geometry)
        covered = math.prod(grid) if roi is None else int(covered_cells(roi, grid).sum())
        patches = max(patches, covered)
    return pixels, patches or math.prod(grid)


def baseline(extractor: FeatureExtractor, sources: Sequence[Source]) -> int:
    """Return the bytes of the process before a fit keeps anything, of a detector that takes the maps as they are."""
    shapes = extractor.shapes()
    pixels, _ = sizes_seen(extractor.recipe, sources, max(shapes)[:2])
    return baseline_bytes(extractor, pixels, 4 * sum(map(math.prod, shapes)), len(sources))


def baseline_bytes(extractor: FeatureExtractor, pixels: int, grid: int, pictures: int) -> int:
    """Return the bytes of the process before it keeps anything: libraries, graph, and pictures on their way."""
    threads = min(os.cpu_count() or 1, 8)
    # read ahead and being decoded, see `loading.load_pictures`; of large pictures no more than is let in, and one
    waiting = min((3 * threads + 8) * 3 * pixels, READ_AHEAD + 12 * pixels)
    ours = _PROGRAM + engine_bytes(extractor) + _GRIDS * grid + waiting
    # a program that already holds much memory has that much less
    return max(ours, resident_memory()) + _PER_PICTURE * pictures


def engine_bytes(extractor: FeatureExtractor) -> int:
    """Return the bytes of the backbone's graph, ready to run."""
    return _GRAPHS * len(extractor.backbone.graph) + extractor.recipe.piece**2 * _PER_PIXEL
