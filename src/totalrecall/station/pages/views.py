"""What templates draw of an inspection: the verdict's look, the score beside the threshold, outlines, pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends

from totalrecall.errors import NotFoundError, PictureError
from totalrecall.pictures.loading import picture_size
from totalrecall.station.drawing import picture_and_heat
from totalrecall.station.store.records import NOT_PRODUCTION, Filter, Inspection

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["LOOKS", "Bar", "Key", "Shown", "checked_key", "latest", "shown"]

# of each verdict the name of its shape, word and colour in the templates and the style sheet
LOOKS = {"good": "ok", "defect": "ng", "no verdict": "none", "wrong product": "wrong", "unreadable": "unreadable"}
_STRIP = 12
_KEY_LENGTH = 32
_BAR = 1000  # units of a score bar's length
_FULL = 2.0  # a bar ends at so many thresholds


@dataclass(frozen=True)
class Bar:
    """A score as a bar, in thousandths of its length; the threshold is in the middle."""

    length: int
    limit: int = _BAR // 2


@dataclass(frozen=True, eq=False)
class Shown:
    """An inspection as a template draws it.

    Attributes:
        inspection: itself.
        look: of its verdict, one of the values of `LOOKS`.
        bar: its score, or None without score or threshold.
        has_picture: whether its picture is still there.
        has_heat: whether its heat map is.
        size: height and width of its picture in pixels, for the outlines; None where it is not known.
    """

    inspection: Inspection
    look: str
    bar: Bar | None
    has_picture: bool
    has_heat: bool
    size: tuple[int, int] | None = None


def shown(station: "Station", inspection: Inspection, *, outlines: bool = False) -> Shown:
    """Return an inspection as a template draws it.

    Args:
        station: where it is from.
        inspection: to draw.
        outlines: find out how large its picture is.
    """
    seen = station.recent.get(inspection.key)
    has_picture = seen is not None or inspection.kept
    has_picture = has_picture and inspection.verdict != "unreadable"
    has_heat = has_picture and (seen.heat is not None if seen is not None else inspection.score is not None)
    size = _size(station, inspection.key) if outlines and has_picture else None
    return Shown(inspection, LOOKS[inspection.verdict], _bar(inspection), has_picture, has_heat, size)


def latest(station: "Station", model: str | None) -> list[Inspection]:
    """Return the last dozen inspections of a line, the newest first: from memory, or after a start from the history."""
    held = [seen.inspection for seen in station.recent.last(4 * _STRIP, model)]
    found: Sequence[Inspection] = held or station.history.find(Filter(model=model), limit=4 * _STRIP)
    return [one for one in found if one.source not in NOT_PRODUCTION][:_STRIP]


def checked_key(text: str) -> str:
    """Return a key that came from outside: what has not its form asks no database.

    Raises:
        NotFoundError: it has not the form of a key.
    """
    if len(text) != _KEY_LENGTH or not all(letter in "0123456789abcdef" for letter in text):
        raise NotFoundError("There is nothing of that key.")
    return text


async def _key(key: str) -> str:
    return checked_key(key)


Key = Annotated[str, Depends(_key)]  # the part {key} of an address


def _bar(inspection: Inspection) -> Bar | None:
    score, threshold = inspection.score, inspection.threshold
    if score is None or threshold is None or threshold <= 0:
        return None
    return Bar(round(_BAR * min(max(score / (_FULL * threshold), 0.0), 1.0)))


def _size(station: "Station", key: str) -> tuple[int, int] | None:
    try:
        picture, _ = picture_and_heat(station, key)
        return picture_size(picture)
    except (NotFoundError, PictureError):
        return None
