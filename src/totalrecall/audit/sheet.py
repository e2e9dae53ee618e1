"""The contact sheet of an audit: the good pictures that are least like the others, as one page or as one picture.

All pictures are drawn on the same colour scale, which ends at twice the audit's limit: their colours can be compared.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from totalrecall.audit.audit import Audit, Shown
from totalrecall.pictures.overlay import draw_overlay, save_overlay
from totalrecall.reports.page import jpeg_uri, number, write_page
from totalrecall.scoring import Region

__all__ = ["VERDICT", "draw_tile", "write_page_of", "write_picture_of"]

Picture: TypeAlias = NDArray[np.uint8]  # (h, w, 3) RGB; not `types.Image`, for sizes change here

VERDICT = 60  # rows at the top of an overlay, with a verdict that an audit does not give
_SCALE = 64  # rows at the foot of an overlay, with the colour scale
_TILE = (480, 480)  # pixels of the sheet's tiles: width, height
_CAPTION, _GAP = 44, 16
_COLUMNS = 3
_WIDTH = 860  # of the page's pictures
_BUDGET = 4_000_000  # bytes of pictures in the page
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER, _INK, _SOFT, _BAD = (250, 250, 247), (28, 30, 33), (110, 114, 120), (178, 34, 34)


def draw_tile(audit: Audit, shown: Shown) -> Picture:
    """Return a picture next to its heat map, at most 968 pixels wide."""
    scale = audit.limit if math.isfinite(audit.limit) else 1.5 * audit.usual
    boxes = []
    if shown.spot is not None:
        left, top, width, height = shown.spot
        boxes = [Region(left, top, width, height, width * height, shown.entry.level)]
    overlay = draw_overlay(
        shown.image,
        shown.anomaly_map,
        threshold=scale if scale > 0 else None,
        score=shown.entry.level,
        score_threshold=None,
        is_anomalous=None,
        regions=boxes,
    )
    return overlay[VERDICT:]


def write_page_of(path: str | Path, audit: Audit, shown: Sequence[Shown], *, notes: Sequence[str] = ()) -> Path:
    """Write the page, under 5 MB, and return its path.

    Raises:
        DataError: the folder cannot be made or written.
    """
    figures, room = [], _BUDGET
    for one in shown:
        source = jpeg_uri(draw_tile(audit, one), _WIDTH)
        room -= len(source or "")
        if source is None or room < 0:
            break
        figures.append((one, source))
    values = {
        "title": "Audit of the good pictures",
        "notes": notes,
        "numbers": _numbers(audit),
        "figures": figures,
        "left_out": len(shown) - len(figures),
        "duplicates": _duplicates(audit),
        "sizes": _sizes(audit),
        "skipped": list(map(str, audit.skipped)),
    }
    return write_page(path, "audit.html", values)


def write_picture_of(path: str | Path, audit: Audit, shown: Sequence[Shown]) -> Path:
    """Write the pictures as one PNG, three tiles in a row, and return its path.

    Raises:
        DataError: the folder cannot be made or written.
    """
    tiles = [_small(draw_tile(audit, one)[:-_SCALE]) for one in shown]
    bands = []
    for first in range(0, len(tiles), _COLUMNS):
        row = tiles[first : first + _COLUMNS]
        high = max(len(tile) for tile in row)
        band = np.full((high + _CAPTION + _GAP, _COLUMNS * (_TILE[0] + _GAP), 3), _PAPER, np.uint8)
        for column, (tile, one) in enumerate(zip(row, shown[first:], strict=False)):
            x = column * (_TILE[0] + _GAP)
            band[: len(tile), x : x + tile.shape[1]] = tile
            mark = "stands out, " if one.entry.stands_out else ""
            head = f"{first + column + 1}. {mark}{one.entry.level:.3g}  {Path(one.entry.path).name}"
            _write(band, head, (x, high + 17), _BAD if one.entry.stands_out else _INK)
            _write(band, one.reason, (x, high + 37), _SOFT)
        bands.append(band)
    inside = np.concatenate(bands) if bands else np.full((_GAP, _GAP, 3), _PAPER, np.uint8)
    sheet = cv2.copyMakeBorder(inside, _GAP, 0, _GAP, 0, cv2.BORDER_CONSTANT, value=_PAPER)
    return save_overlay(path, sheet)


def _small(tile: Picture) -> Picture:
    share = min(_TILE[0] / tile.shape[1], _TILE[1] / tile.shape[0], 1.0)
    size = (max(round(tile.shape[1] * share), 1), max(round(tile.shape[0] * share), 1))
    return np.asarray(cv2.resize(tile, size, interpolation=cv2.INTER_AREA))


def _write(sheet: Picture, words: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    words = "".join(letter if " " <= letter <= "~" else "?" for letter in words)  # the Hershey fonts hold ASCII only
    while len(words) > 8 and cv2.getTextSize(words, _FONT, 0.42, 1)[0][0] > _TILE[0]:
        middle = len(words) // 2
        words = f"{words[: middle - 4]}...{words[middle + 3 :]}"
    cv2.putText(sheet, words, place, _FONT, 0.42, colour, 1, cv2.LINE_AA)


def _numbers(audit: Audit) -> dict[str, str]:
    return {
        "pictures": str(len(audit.pictures)),
        "different parts": str(audit.parts),
        "stand out": str(len(audit.outliers)),
        "limit": number(audit.limit),
        "usual level": number(audit.usual),
        "groups of copies": str(len(audit.duplicates)),
        "unusual sizes": str(len(audit.sizes)),
        "unreadable": str(len(audit.skipped)),
    }


def _duplicates(audit: Audit) -> list[str]:
    return [
        f"{'same bytes' if group.exact else 'nearly the same'}: " + audit.names_of(group) for group in audit.duplicates
    ]


def _sizes(audit: Audit) -> list[str]:
    odd = [(audit.pictures[size.picture], size.usual) for size in audit.sizes]
    return [f"{picture.path}: {picture.width} x {picture.height}, usual is {usual}" for picture, usual in odd]
