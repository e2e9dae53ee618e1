"""The page over several reports: a row a model with its figures and links, and a picture or two of each."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from totalrecall.reports.page import jpeg_uri, number, text, write_page
from totalrecall.types import Image

__all__ = ["IndexRow", "write_index"]

_WIDTH = 860
_HEADS = ("image AUROC", "pixel AUROC", "threshold", "found", "missed", "false alarms")


@dataclass(frozen=True)
class IndexRow:
    """What the index tells of one model, as tested on labelled pictures.

    Attributes:
        name: of the part.
        report: its report, relative to the index.
        model: its model file, relative to the index.
        image_auroc: of pictures.
        pixel_auroc: of pixels.
        threshold: score above which a picture is judged defective.
        good: number of good pictures tested.
        defective: number of defective pictures tested.
        found: how many of the defective were judged so.
        false_alarms: how many of the good were judged defective.
        overlays: pictures to show, each with its caption.
    """

    name: str
    report: Path
    model: Path
    image_auroc: float
    pixel_auroc: float
    threshold: float
    good: int
    defective: int
    found: int
    false_alarms: int
    overlays: Sequence[tuple[str, Image | Path]] = ()


def write_index(
    path: str | Path,
    *,
    title: str,
    rows: Sequence[IndexRow],
    notes: Sequence[str] = (),
    commands: Mapping[str, str] | None = None,
) -> Path:
    """Write the index and return its path.

    Args:
        path: the HTML file; the rows' links start at its folder.
        title: the page's heading.
        rows: the models, in the order in which they are shown.
        notes: sentences to print under the heading, such as "The pictures are synthetic."
        commands: what to type next: what it does, then the command.

    Raises:
        DataError: the folder cannot be made or written.
    """
    parts = [
        f"<h1>{text(title)}</h1>",
        *(f'<p class="note">{text(note)}</p>' for note in notes),
        _table(rows),
        *(_pictures(row) for row in rows),
        _commands(commands or {}),
    ]
    return write_page(path, title, parts)


def _table(rows: Sequence[IndexRow]) -> str:
    heads = "".join(f'<th scope="col" class="num">{head}</th>' for head in _HEADS)
    lines = "".join(_line(row) for row in rows)
    return (
        '<section><h2>All at a glance</h2><div class="scroll"><table>'
        f'<thead><tr><th scope="col">part</th>{heads}<th scope="col">look at</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div></section>"
    )


def _line(row: IndexRow) -> str:
    figures = (
        number(row.image_auroc),
        number(row.pixel_auroc),
        number(row.threshold),
        f"{row.found} of {row.defective}",
        str(row.defective - row.found),
        f"{row.false_alarms} of {row.good}",
    )
    cells = "".join(f'<td class="num">{figure}</td>' for figure in figures)
    return (
        f'<tr><th scope="row"><a href="#{_anchor(row)}">{text(row.name)}</a></th>{cells}'
        f"<td>{_link(row.report, 'report')}, {_link(row.model, 'model')}</td></tr>\n"
    )


def _pictures(row: IndexRow) -> str:
    figures = []
    for caption, overlay in row.overlays:
        source = jpeg_uri(overlay, _WIDTH)
        if source is not None:  # else its file is gone
            figures.append(
                f'<figure><img loading="lazy" alt="Overlay of {text(caption)}" src="{source}">'
                f"<figcaption>{text(caption)}</figcaption></figure>"
            )
    return (
        f'<section id="{_anchor(row)}"><h2>{text(row.name)}</h2><div class="gallery">{"".join(figures)}</div>'
        f'<p class="note">{_link(row.report, "All its pictures and scores")}</p></section>'
    )


def _commands(commands: Mapping[str, str]) -> str:
    items = "".join(f"<p>{text(what)}</p><p><code>{text(command)}</code></p>" for what, command in commands.items())
    return f"<section><h2>What to type next</h2>{items}</section>" if items else ""


def _anchor(row: IndexRow) -> str:
    return html.escape(f"part-{quote(row.name)}", quote=True)


def _link(target: Path, words: str) -> str:
    # quoted and begun with ./, so that no folder's name can be taken for a scheme such as javascript:
    return f'<a href="./{html.escape(quote(target.as_posix()), quote=True)}">{words}</a>'
