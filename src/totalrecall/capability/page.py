"""The page of a capability study: curves, sizes, sentences, and the smallest found and largest missed defects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from totalrecall.capability.capability import Capability, KindCapability, Outcome
from totalrecall.errors import PictureError
from totalrecall.planting import KINDS
from totalrecall.reports.page import jpeg_uri, number, write_page
from totalrecall.reports.plots import SizeCurve, SizePlot

__all__ = ["HEADS", "rows_of", "write_page_of"]

HEADS = ("kind", "contrast", "planted", "found", "a90", "a90/95")
_BUDGET = 4_000_000  # bytes of pictures in the page
_WIDTH = 860  # of a picture
_CLOSE = 264  # of a close-up
_ALONG = 60  # points of a curve
_ABOUT = (
    "a90: size that is found 9 times in 10. a90/95: size of which that is known with 95 % confidence. The size is the "
    "longest side of a defect, of a scratch its length, in pixels of the picture. Contrast: by what share of white the "
    "middle of a defect differs from the part. Nothing is said of sizes that were not planted: <= is at or below the "
    "smallest, > is not reached at the largest."
)


def rows_of(found: Capability) -> list[list[str]]:
    """Return the rows of the table under `HEADS`, one for each kind and contrast."""
    return [
        [
            kind.kind,
            "-" if kind.contrast is None else f"{kind.contrast:g}",
            str(kind.planted),
            str(kind.hits),
            *(
                ["-", "-"]
                if kind.curve is None
                else [
                    limit.in_words() + _millimetres(found, limit.size, limit.relation)
                    for limit in (kind.curve.a90, kind.curve.a90_95)
                ]
            ),
        ]
        for kind in found.kinds
    ]


def write_page_of(path: str | Path, found: Capability, *, facts: dict[str, str], notes: Sequence[str] = ()) -> Path:
    """Write the page, under 5 MB, and return its path.

    Args:
        path: the HTML file; its folder is made.
        found: what was measured.
        facts: shown as tiles, such as the model's name.
        notes: sentences under the title.

    Raises:
        DataError: the folder cannot be made or written.
    """
    figures, left_out = _figures(found)
    values = {
        "title": "What would it find?",
        "notes": list(dict.fromkeys([*notes, *(f"{note}." for note in found.notes())])),  # a notice may be one of both
        "numbers": {**facts, **_numbers(found)},
        "sentences": [_with_fit(kind, found.millimetres_per_pixel) for kind in found.kinds],
        "heads": HEADS,
        "rows": rows_of(found),
        "about": _ABOUT,
        "plots": _plots(found),
        "figures": figures,
        "left_out": left_out,
        "kinds": {name: KINDS[name].what for name in dict.fromkeys(kind.kind for kind in found.kinds)},
        "false_alarms": found.false_alarms,
        "skipped": list(map(str, found.skipped)),
    }
    return write_page(path, "capability.html", values)


def _with_fit(kind: KindCapability, millimetres_per_pixel: float | None) -> str:
    """Return the sentence of a kind, with a word where the curve does not fit what was seen."""
    text = kind.sentence(millimetres_per_pixel)
    fits = kind.curve is None or kind.curve.fits
    return text if fits else f"{text} The curve does not fit well: look at its dots."


def _numbers(found: Capability) -> dict[str, str]:
    return {
        "good pictures": str(len(found.pictures)),
        "planted defects": str(found.planted),
        "found": str(sum(kind.hits for kind in found.kinds)),
        "threshold": number(found.threshold),
        "seed": str(found.seed),
    }


def _plots(found: Capability) -> list[SizePlot]:
    """Return a drawing for each kind that was planted in two sizes or more, with a curve for each contrast."""
    plots = []
    for name in dict.fromkeys(kind.kind for kind in found.kinds):
        mine = [kind for kind in found.kinds if kind.kind == name and kind.curve is not None]
        if not mine:
            continue
        sizes = [cell.size for cell in mine[0].cells]
        words = f"{KINDS[name].plural}, share found by size in pixels"
        words += "".join(f"; {_aloud(kind)}" for kind in mine)
        curves = [_curve(kind) for kind in mine]
        plots.append(SizePlot(KINDS[name].plural, words, curves, sizes, f"size in pixels{_mm_axis(found)}"))
    return plots


def _aloud(kind: KindCapability) -> str:
    at = "" if kind.contrast is None else f"contrast {kind.contrast:g}: "
    return at + ", ".join(f"{cell.size:g}: {cell.hits} of {cell.planted}" for cell in kind.cells)


def _mm_axis(found: Capability) -> str:
    scale = found.millimetres_per_pixel
    return "" if scale is None else f" of {scale:.3g} mm"


def _curve(kind: KindCapability) -> SizeCurve:
    assert kind.curve is not None
    points = [(cell.size, cell.hits / cell.planted) for cell in kind.cells if cell.planted]
    along = np.geomspace(points[0][0], points[-1][0], _ALONG)
    low, high = kind.curve.band(along)
    line = list(zip(along.tolist(), kind.curve.probability(along).tolist(), strict=True))
    band = list(zip(along.tolist(), low.tolist(), high.tolist(), strict=True))
    name = "" if kind.contrast is None else f"contrast {kind.contrast:g}"
    return SizeCurve(name, points, line, band)


def _figures(found: Capability) -> tuple[list[dict[str, Any]], int]:
    """Return the smallest found and the largest missed defect of each kind, as many pictures as there is room for."""
    wanted = [
        (kind, one) for kind in found.kinds for one in (kind.smallest_found, kind.largest_missed) if one is not None
    ]
    figures: list[dict[str, Any]] = []
    room = _BUDGET
    for kind, outcome in wanted:
        try:
            figure = _figure(found, kind, outcome)
        except PictureError:  # its file has gone since
            continue
        room -= len(figure["source"]) + sum(map(len, figure["close"]))
        if room < 0:
            break
        figures.append(figure)
    return figures, len(wanted) - len(figures)


def _figure(found: Capability, kind: KindCapability, outcome: Outcome) -> dict[str, Any]:
    planted, result = found.show(outcome)
    size = f"{outcome.trial.size:g} pixels{_millimetres(found, outcome.trial.size)}"
    overlay = result.overlay(planted.picture, title=f"{kind.name}, {size}", truth=planted.mask)
    rows, columns = _around(planted.box, planted.mask.shape)
    good = found.good_picture(outcome)
    return {
        "source": jpeg_uri(overlay, _WIDTH),
        "close": [_enlarged(picture[rows, columns]) for picture in (good, planted.picture)],
        "words": f"{kind.name}, {size}",
        "hit": outcome.hit,
        "score": outcome.score,
        "path": Path(found.pictures[outcome.picture]).name,
    }


def _around(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return rows and columns of a square around a box, with as much again of the part on each side."""
    left, top, width, height = box
    side = min(max(2 * max(width, height), _CLOSE // 4), *shape[:2])
    first = [
        int(np.clip(start + length // 2 - side // 2, 0, limit - side))
        for start, length, limit in ((top, height, shape[0]), (left, width, shape[1]))
    ]
    return slice(first[0], first[0] + side), slice(first[1], first[1] + side)


def _enlarged(pixels: np.ndarray) -> str | None:
    smooth = cv2.INTER_AREA if len(pixels) > _CLOSE else cv2.INTER_CUBIC
    return jpeg_uri(np.asarray(cv2.resize(pixels, (_CLOSE, _CLOSE), interpolation=smooth)), _CLOSE)


def _millimetres(found: Capability, size: float, relation: str = "=") -> str:
    scale = found.millimetres_per_pixel
    return "" if scale is None or relation == "none" else f" ({size * scale:.2g} mm)"
