"""The pictures in a report: a row for each, the choice of those that are shown, and the patches cut out of them.

Nothing large is kept while pictures are judged: `WorstOverlays` draws and keeps the few that the page can show.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from totalrecall.datasets import Sample
from totalrecall.errors import DataError, PictureError
from totalrecall.evaluation.evaluate import read_defect_mask
from totalrecall.pictures.bit_depth import BitDepth
from totalrecall.pictures.loading import read_image
from totalrecall.reports.page import jpeg, jpeg_uri, render
from totalrecall.scoring import Result
from totalrecall.types import Image, Mask

__all__ = [
    "FULL_WIDTH",
    "MOST_FULL",
    "MOST_TELLING",
    "Gallery",
    "ReportEntry",
    "Section",
    "WorstOverlays",
    "counts",
    "cut_patch",
    "gallery",
    "patch_pair",
    "short_name",
]

FULL_WIDTH, _SMALL_WIDTH = 860, 300  # pixels
MOST_FULL = 24
MOST_TELLING = 8  # defects with the lowest scores, and as many good pictures with the highest
_FULL_BYTES, _SMALL_BYTES = 2_300_000, 1_600_000  # of HTML
_PATCH_SHARE = 8  # a patch is this part of the picture's shorter side
_PATCH_LEAST = 24  # pixels, for there to be something to see
_PATCH_SHOWN = 200  # pixels
_SMALL = 48  # overlays that are kept besides those in full

Picture: TypeAlias = NDArray[np.uint8]  # (h, w, 3) RGB; not `types.Image`, for sizes change here


@dataclass(frozen=True)
class ReportEntry:
    """One picture's row.

    Attributes:
        path: the picture's file.
        score: bigger is more anomalous.
        threshold: score above which a picture is defective; None if there is none.
        is_anomalous: the verdict; None without a threshold.
        p_value: share of good pictures expected to score at least this high; None if unknown.
        regions_count: number of regions above the pixel threshold.
        overlay: the overlay, as pixels, as a JPEG's bytes, or the file that `save_overlay` wrote; None shows none.
        label: 0 good, 1 anomalous, None unknown.
        nearest: path of the good picture whose patch is nearest to the worst patch.
        worst: x and y of the worst patch, in the picture's pixels; None shows no patches.
        nearest_at: x and y of the good patch, in pixels of `nearest`; None shows no patches.
        nearest_file: the file of `nearest`; None shows no patches, and the page says why.
        good_named: whether a person named a folder of good pictures.
        defect: the name of the defect in the data set.
        depth: bit depth of the model, by which 16-bit pictures are shown.
    """

    path: str | Path
    score: float
    threshold: float | None
    is_anomalous: bool | None
    p_value: float | None = None
    regions_count: int = 0
    overlay: Image | Path | bytes | None = None
    label: int | None = None
    nearest: str | None = None
    worst: tuple[int, int] | None = None
    nearest_at: tuple[int, int] | None = None
    nearest_file: str | Path | None = None
    good_named: bool = True
    defect: str | None = None
    depth: BitDepth | None = None

    @classmethod
    def of(
        cls,
        result: Result,
        *,
        overlay: Image | Path | bytes | None = None,
        label: int | None = None,
        defect: str | None = None,
    ) -> "ReportEntry":
        """Return the row of a result; it keeps nothing large."""
        judged, nearest = math.isfinite(result.threshold), result.nearest
        return cls(
            result.path,
            result.score,
            result.threshold if judged else None,
            result.is_anomalous,
            p_value=result.p_value,
            regions_count=len(result.regions),
            overlay=overlay,
            label=label,
            nearest=None if nearest is None else nearest.path,
            worst=result.worst,
            nearest_at=None if nearest is None else (nearest.x, nearest.y),
            defect=defect,
        )

    @property
    def name(self) -> str:
        """The short name of its file."""
        return short_name(self.path)

    @property
    def nearest_name(self) -> str | None:
        """The short name of the nearest good picture."""
        return None if self.nearest is None else short_name(self.nearest)

    @property
    def truth(self) -> str:
        """What is known of the picture: good, the name of its defect, or a dash."""
        if self.label == 1:
            return self.defect or "defective"
        return "–" if self.label is None else "good"

    @property
    def missed(self) -> bool:
        """Whether this is a defect that was judged good."""
        return self.label == 1 and self.is_anomalous is False

    @property
    def false_alarm(self) -> bool:
        """Whether this is a good picture that was judged defective."""
        return self.label == 0 and self.is_anomalous is True


def short_name(path: str | Path) -> str:
    """Return the file's name with its folder, which in many data sets is the name of the defect."""
    return "/".join(Path(path).parts[-2:]) or str(path)


def counts(entries: Sequence[ReportEntry], bad_files: int) -> dict[str, str]:
    """Return the number of pictures, of each verdict, and of wrong verdicts, name by name."""
    numbers = {"pictures": str(len(entries))}
    if any(entry.is_anomalous is not None for entry in entries):
        numbers["judged defective"] = str(sum(entry.is_anomalous is True for entry in entries))
        numbers["judged good"] = str(sum(entry.is_anomalous is False for entry in entries))
    unjudged = sum(entry.is_anomalous is None for entry in entries)
    if unjudged:
        numbers["no verdict"] = str(unjudged)
    if any(entry.label is not None and entry.is_anomalous is not None for entry in entries):
        numbers["missed defects"] = str(sum(entry.missed for entry in entries))
        numbers["false alarms"] = str(sum(entry.false_alarm for entry in entries))
    if bad_files:
        numbers["unreadable"] = str(bad_files)
    return numbers


@dataclass(frozen=True)
class Section:
    """Pictures under a heading, with a sentence about them; `figures` are HTML, `small` those of a third the width."""

    heading: str
    note: str
    figures: Sequence["Markup"]
    small: bool = False


@dataclass(frozen=True)
class Gallery:
    """The pictures of a report.

    Attributes:
        sections: those that have pictures, in order.
        shown: ranks of the entries that are shown; the anchor of a figure is `p` and its rank.
        left_out: number of entries that are not.
    """

    sections: list[Section]
    shown: set[int]
    left_out: int


@dataclass
class _Room:
    """What is left of the page's budget, and the entries that are shown already."""

    full: int = MOST_FULL
    full_bytes: int = _FULL_BYTES
    small_bytes: int = _SMALL_BYTES
    shown: set[int] = field(default_factory=set)


def gallery(entries: Sequence[ReportEntry]) -> Gallery:
    """Choose which overlays a report shows, as far as the room goes.

    Args:
        entries: in the order of the table.
    """
    room, sections = _Room(), []
    drawn = [rank for rank, entry in enumerate(entries) if entry.overlay is not None]
    labels = {entry.label for entry in entries}
    if 1 in labels:
        defects = [rank for rank in reversed(drawn) if entries[rank].label == 1]
        missed = _share(sum(entry.missed for entry in entries), entries, 1, "was missed", "were missed")
        sections.append(_telling("Defects with the lowest scores", missed, entries, defects, room))
    if 0 in labels:
        good = [rank for rank in drawn if entries[rank].label == 0]
        alarms = _share(sum(entry.false_alarm for entry in entries), entries, 0, "is a false alarm", "are false alarms")
        sections.append(_telling("Good pictures with the highest scores", alarms, entries, good, room))
    rest = [rank for rank in drawn if rank not in room.shown]
    sections += _highest("Other pictures" if room.shown else "Pictures", entries, rest, room)
    left_out = len(entries) - len(room.shown) if drawn else 0
    return Gallery([section for section in sections if section.figures], room.shown, left_out)


def _share(wrong: int, entries: Sequence[ReportEntry], label: int, one: str, several: str) -> str:
    """Say how many of a kind were judged wrongly, such as `3 of 63 were missed.`; nothing without verdicts."""
    judged = sum(entry.label == label and entry.is_anomalous is not None for entry in entries)
    return f"{wrong or 'None'} of {judged} {one if wrong == 1 else several}." if judged else ""


def _telling(heading: str, note: str, entries: Sequence[ReportEntry], ranks: Sequence[int], room: _Room) -> Section:
    """Return the first few in full."""
    figures = [_in_full(rank, entries[rank], room) for rank in ranks[:MOST_TELLING] if rank not in room.shown]
    return Section(heading, note, [figure for figure in figures if figure])


def _highest(heading: str, entries: Sequence[ReportEntry], ranks: Sequence[int], room: _Room) -> list[Section]:
    """Return the highest scores in full and the next small, as far as the room goes."""
    full: list[Markup] = []
    small: list[Markup] = []
    for rank in ranks:
        figure = None if small else _in_full(rank, entries[rank], room)  # no gaps: the first small one ends the large
        if figure:
            full.append(figure)
        elif room.small_bytes > 0 and (figure := _figure(rank, entries[rank], _SMALL_WIDTH)):
            room.small_bytes -= len(figure)
            if room.small_bytes < 0:
                break
            small.append(figure)
            room.shown.add(rank)
    next_ones = f"The next {len(small)}, small"
    return [Section(f"{heading}, highest score first", "", full), Section(next_ones, "", small, small=True)]


def _in_full(rank: int, entry: ReportEntry, room: _Room) -> "Markup | None":
    """Return one figure in full, or None where there is no room for it or its file is gone."""
    figure = _figure(rank, entry, FULL_WIDTH) if room.full else None
    if figure is None:
        return None
    if len(figure) > room.full_bytes:
        room.full = 0
        return None
    room.full -= 1
    room.full_bytes -= len(figure)
    room.shown.add(rank)
    return figure


def _figure(rank: int, entry: ReportEntry, width: int) -> "Markup | None":
    """Return one overlay with its caption, or None where the overlay's file is gone."""
    source = jpeg_uri(entry.overlay, width) if entry.overlay is not None else None
    if source is None:
        return None
    compared = width == FULL_WIDTH and entry.nearest is not None and None not in (entry.worst, entry.nearest_at)
    patches = _patches(entry) if compared else None
    values = {"rank": rank, "entry": entry, "source": source, "compared": compared, "patches": patches}
    return render("figure.html", values)


def _patches(entry: ReportEntry) -> list[str] | None:
    """Return both patches of an entry as `patch_pair` does; None too where the good picture's file is not known."""
    if entry.worst is None or entry.nearest_at is None or entry.nearest_file is None:
        return None
    return patch_pair(entry.path, entry.worst, entry.nearest_file, entry.nearest_at, depth=entry.depth)


def patch_pair(
    path: str | Path,
    worst: tuple[int, int],
    nearest: str | Path,
    nearest_at: tuple[int, int],
    *,
    depth: BitDepth | None = None,
) -> list[str] | None:
    """Return the worst patch and the nearest good one, each as the `src` of an image; None where a file is gone.

    Args:
        path: the picture's file.
        worst: x and y of its worst patch, in pixels of the file.
        nearest: the good picture's file.
        nearest_at: x and y of the good patch, in pixels of that file.
        depth: bit depth of the model, for 16-bit pictures.
    """
    try:
        patches = cut_patch(read_image(path, depth), worst), cut_patch(read_image(nearest, depth), nearest_at)
    except PictureError:  # moved away since
        return None
    return [str(jpeg_uri(_enlarged(patch), _PATCH_SHOWN)) for patch in patches]


def cut_patch(image: Picture, at: tuple[int, int]) -> Picture:
    """Return the square around a point (x, y), an eighth of the shorter side, moved to lie inside the picture."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    side = min(max(round(shorter / _PATCH_SHARE), _PATCH_LEAST), shorter)
    left, top = (min(max(at[axis] - side // 2, 0), (width, height)[axis] - side) for axis in (0, 1))
    return image[top : top + side, left : left + side]


def _enlarged(patch: Picture) -> Picture:
    interpolation = cv2.INTER_CUBIC if patch.shape[0] < _PATCH_SHOWN else cv2.INTER_AREA
    return np.asarray(cv2.resize(patch, (_PATCH_SHOWN, _PATCH_SHOWN), interpolation=interpolation), np.uint8)


class WorstOverlays:
    """Keeps the overlays of the pictures that are worth a look: at most 88 of them, about 6 MB."""

    def __init__(self) -> None:
        self._highest = _Few(MOST_FULL + _SMALL)
        self._lowest_defects = _Few(MOST_TELLING)
        self._highest_good = _Few(MOST_TELLING)

    def offer(self, number: int, result: Result, sample: Sample | None = None) -> None:
        """Draw and keep a picture's overlay if it is worth a look; a picture whose file is gone has none.

        Args:
            number: number of the picture, a key in `of`.
            result: result of the picture.
            sample: the labelled sample, if there is one.
        """
        if not math.isfinite(result.score):
            return
        places = [(self._highest, result.score)]
        if sample is not None:
            places.append(
                (self._highest_good, result.score) if sample.label == 0 else (self._lowest_defects, -result.score)
            )
        places = [(few, value) for few, value in places if few.wants(value)]
        if not places:
            return
        try:
            drawn = self._draw(result, sample)
        except PictureError:
            return
        for few, value in places:
            few.put(value, number, drawn)

    def of(self) -> dict[int, bytes]:
        """Return the JPEGs by the number of their picture."""
        kept = (self._highest, self._lowest_defects, self._highest_good)
        return {number: drawn for few in kept for _, number, drawn in few.held}

    def _draw(self, result: Result, sample: Sample | None) -> bytes:
        depth = None if result.recipe is None else result.recipe.depth
        image = read_image(result.path, depth)
        overlay = result.overlay(image, truth=_truth(sample, image.shape[:2]))
        drawn = jpeg(overlay, FULL_WIDTH)
        assert drawn is not None  # pixels, not a file that may have gone
        return drawn


class _Few:
    """The highest few of any number of values, each with the number of its picture and the overlay."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.held: list[tuple[float, int, bytes]] = []  # a heap, the lowest first

    def wants(self, value: float) -> bool:
        """Return whether a value would be among the highest."""
        return len(self.held) < self.room or value > self.held[0][0]

    def put(self, value: float, number: int, drawn: bytes) -> None:
        """Add a value, and forget the lowest if there are too many."""
        heapq.heappush(self.held, (value, number, drawn))
        if len(self.held) > self.room:
            heapq.heappop(self.held)


def _truth(sample: Sample | None, shape: tuple[int, int]) -> Mask | None:
    """Return the mask of the defect for a picture of a shape (h, w); None if nobody marked it."""
    if sample is None or sample.label == 0 or sample.mask is None:
        return None
    try:
        return read_defect_mask(sample.mask, shape)
    except DataError:  # `evaluate` names it
        return None
