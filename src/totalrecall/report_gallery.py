"""The pictures of a report, within its budget: where it errs first, then the highest scores in full, the next small.

Overlays are shown in full while `_FULL_BYTES` lasts, then small while `_SMALL_BYTES` lasts; what was left out is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from totalrecall.report_entry import ReportEntry, short_name, truth, verdict
from totalrecall.report_page import jpeg_uri, number
from totalrecall.report_page import text as safe
from totalrecall.report_patches import no_patches, patch_pair

__all__ = ["FULL_WIDTH", "MOST_FULL", "MOST_TELLING", "gallery"]

FULL_WIDTH, _SMALL_WIDTH = 860, 300  # pixels
MOST_FULL = 24
MOST_TELLING = 8  # defects with the lowest scores, and as many good pictures with the highest
_FULL_BYTES, _SMALL_BYTES = 2_300_000, 1_600_000  # of HTML


@dataclass
class _Room:
    """What is left of the page's budget, and the pictures that have had their place."""

    full: int = MOST_FULL
    full_bytes: int = _FULL_BYTES
    small_bytes: int = _SMALL_BYTES
    shown: set[int] = field(default_factory=set)


def gallery(entries: Sequence[ReportEntry]) -> tuple[str, set[int]]:
    """Return the overlays as HTML, and which of the entries have one in it.

    Args:
        entries: in the order of the table; a figure's anchor is `p` and the entry's place.
    """
    room = _Room()
    drawn = [rank for rank, entry in enumerate(entries) if entry.overlay is not None]
    labels = {entry.label for entry in entries}
    parts = []
    if 1 in labels:
        defects = [rank for rank in reversed(drawn) if entries[rank].label == 1]
        missed = _share(sum(entry.missed for entry in entries), entries, 1, "was missed", "were missed")
        parts.append(_in_full("Defects with the lowest scores", missed, entries, defects, room))
    if 0 in labels:
        good = [rank for rank in drawn if entries[rank].label == 0]
        alarms = _share(sum(entry.false_alarm for entry in entries), entries, 0, "is a false alarm", "are false alarms")
        parts.append(_in_full("Good pictures with the highest scores", alarms, entries, good, room))
    rest = [rank for rank in drawn if rank not in room.shown]
    parts.append(_highest("The others" if room.shown else "Pictures", entries, rest, room))
    left_out = len(entries) - len(room.shown)
    if drawn and left_out:
        parts.append(
            f'<p class="note">{left_out} more overlays are left out to keep this page small. '
            "<code>totalrecall predict --heatmaps DIR</code> writes one for every picture.</p>"
        )
    return "\n".join(part for part in parts if part), room.shown


def _share(wrong: int, entries: Sequence[ReportEntry], label: int, one: str, several: str) -> str:
    """Say how many of a kind were judged wrongly, such as `3 of 63 were missed.`; nothing without verdicts."""
    judged = sum(entry.label == label and entry.is_anomalous is not None for entry in entries)
    return f"{wrong or 'None'} of {judged} {one if wrong == 1 else several}." if judged else ""


def _in_full(heading: str, words: str, entries: Sequence[ReportEntry], ranks: Sequence[int], room: _Room) -> str:
    """Return the first few in full."""
    figures = [_place(rank, entries[rank], room) for rank in ranks[:MOST_TELLING] if rank not in room.shown]
    return _section(heading, words, figures)


def _highest(heading: str, entries: Sequence[ReportEntry], ranks: Sequence[int], room: _Room) -> str:
    """Return the highest scores in full and the next small, as far as the room goes."""
    full: list[str] = []
    small: list[str] = []
    for rank in ranks:
        figure = _place(rank, entries[rank], room) if not small else ""  # no gaps: once full, it stays full
        if figure:
            full.append(figure)
        elif room.small_bytes > 0 and (figure := _figure(rank, entries[rank], _SMALL_WIDTH)):
            room.small_bytes -= len(figure)
            if room.small_bytes < 0:
                break
            small.append(figure)
            room.shown.add(rank)
    return _section(f"{heading}, highest score first", "", full) + _section(
        f"The next {len(small)}, small", "", small, "gallery small"
    )


def _place(rank: int, entry: ReportEntry, room: _Room) -> str:
    """Return one figure in full, or nothing where there is no room for it or its file is gone."""
    if not room.full:
        return ""
    figure = _figure(rank, entry, FULL_WIDTH)
    if not figure:
        return ""
    if len(figure) > room.full_bytes:
        room.full = 0
        return ""
    room.full -= 1
    room.full_bytes -= len(figure)
    room.shown.add(rank)
    return figure


def _section(heading: str, words: str, figures: Sequence[str], kind: str = "gallery") -> str:
    body = "".join(figures)
    note = f'<p class="note">{words}</p>' if words else ""
    return f'<section><h2>{heading}</h2>{note}<div class="{kind}">{body}</div></section>' if body else ""


def _figure(rank: int, entry: ReportEntry, width: int) -> str:
    """Return one overlay with its caption, or nothing where the overlay's file is gone."""
    source = jpeg_uri(entry.overlay, width) if entry.overlay is not None else None
    if source is None:
        return ""
    name = safe(short_name(entry.path))
    patches = _patches(entry) if width == FULL_WIDTH else ""
    known = "" if entry.label is None else f' <span class="known">labelled {truth(entry)}</span>'
    p_value = "" if number(entry.p_value) == "–" else f' <span class="known">p-value {number(entry.p_value)}</span>'
    return (
        f'<figure id="p{rank}"><img loading="lazy" alt="Overlay of {name}" src="{source}">{patches}'
        f"<figcaption>{verdict(entry)} <b>{number(entry.score)}</b> <bdi>{name}</bdi>{p_value}{known}"
        "</figcaption></figure>"
    )


def _patches(entry: ReportEntry) -> str:
    """Return the worst patch beside the good one, or nothing where one is not known."""
    if entry.worst is None or entry.nearest is None or entry.nearest_at is None:
        return ""
    names = (short_name(entry.path), short_name(entry.nearest))
    if entry.nearest_file is None:
        return no_patches(names[1], named=entry.good_named)
    return patch_pair(entry.path, entry.worst, entry.nearest_file, entry.nearest_at, names, depth=entry.depth)
