"""The benchmark's HTML page: tables, curves, histograms, the best and worst pictures. One file, offline, under 5 MB."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from totalrecall.benchmark.tables import AVERAGE, Table, group_name
from totalrecall.evaluation.curves import MAX_FPR
from totalrecall.reports.page import LONGEST_NOTE, jpeg_uri, number, text, write_page

__all__ = ["write_benchmark_page"]

_PLOT_BYTES, _PICTURE_BYTES = 1_500_000, 2_600_000  # of HTML; the tables are small beside them
_WIDTH = 400
_COLOURS = ("--cool", "--warm", "--fine", "--bad", "--ink", "--soft")
_DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 2", "1 2")
_SIDE, _LEFT, _TOP, _FOOT = 300, 46, 12, 44  # of a plot, in its own units

_HATCH = (
    '<svg width="0" height="0" style="position:absolute;width:0" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" class="under"/><line y2="6" class="stripe"/></pattern></defs></svg>'
)

Line = Mapping[str, Any]


def write_benchmark_page(
    path: Path,
    *,
    title: str,
    notes: Sequence[str],
    tables: Sequence[Table],
    lines: Sequence[Line],
    pictures: Path,
    bad: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write the page and return its path.

    Args:
        path: the HTML file.
        title: its heading.
        notes: sentences under it.
        tables: shown first, in this order.
        lines: of cells; of each column and category the first is drawn.
        pictures: folder of the thumbnails that the lines name.
        bad: cells and files that could not be used, each with the reason.

    Raises:
        DataError: the folder cannot be made or written.
    """
    drawn = _first_of_each(lines)
    parts = [
        f"<h1>{text(title)}</h1>",
        *(f'<p class="note">{text(note, LONGEST_NOTE)}</p>' for note in notes),
        _bad(bad),
        *(_table(table) for table in tables),
        _HATCH,
        *_categories(drawn, pictures),
    ]
    return write_page(path, title, parts)


def _first_of_each(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Return the lines to draw by category: the first seed of each column."""
    drawn: dict[str, dict[tuple[str, int | None], Line]] = {}
    for line in lines:
        setup = line["setup"]
        drawn.setdefault(setup["category"], {}).setdefault((setup["method"], setup["shots"]), line)
    return {category: list(mine.values()) for category, mine in drawn.items()}


def _bad(bad: Sequence[tuple[str, str]]) -> str:
    if not bad:
        return ""
    items = "".join(f"<li><bdi><code>{text(name)}</code></bdi> {text(why)}</li>" for name, why in bad[:60])
    more = f"<p>and {len(bad) - 60} more</p>" if len(bad) > 60 else ""
    return f'<section class="alert"><h2>What could not be used</h2><ul>{items}</ul>{more}</section>'


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col"{_numeric(at)}>{text(head)}</th>' for at, head in enumerate(table.heads))
    rows = "".join(_row(row) for row in table.rows)
    note = f'<p class="note">{text(table.note, LONGEST_NOTE)}</p>' if table.note else ""
    return (
        f'<section><h2>{text(table.title)}</h2><div class="scroll"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{note}</section>"
    )


def _row(row: Sequence[str]) -> str:
    weight = ' style="font-weight:600"' if row[0] == AVERAGE else ""
    cells = "".join(f'<td class="num"{weight}>{text(cell)}</td>' for cell in row[1:])
    return f'<tr><th scope="row"{weight}>{text(row[0])}</th>{cells}</tr>\n'


def _numeric(at: int) -> str:
    return ' class="num"' if at else ""


def _categories(drawn: Mapping[str, Sequence[Line]], pictures: Path) -> list[str]:
    """Return a section a category, as far as the page's room goes."""
    parts = []
    plots, room, left_out = _PLOT_BYTES, _PICTURE_BYTES, 0
    # every cell gets as many pictures as all of them can have
    most = min(max(_PICTURE_BYTES // (30_000 * max(sum(map(len, drawn.values())), 1)), 1), 6)
    for category, lines in drawn.items():
        curves = _curves(lines) + "".join(_histogram(line) for line in lines)
        plots -= len(curves)
        figures = []
        for line in lines:
            for shown in line["shown"][:most]:
                figure = _picture(line, shown, pictures)
                room -= len(figure)
                if room < 0:
                    left_out += 1
                else:
                    figures.append(figure)
        parts.append(
            f"<section><h2>{text(category)}, seed {lines[0]['setup']['seed']}</h2>"
            + (f'<div class="gallery">{curves}</div>' if plots >= 0 else '<p class="note">Curves: see cells.jsonl.</p>')
            + (f'<h2>Best and worst pictures</h2><div class="gallery">{"".join(figures)}</div>' if figures else "")
            + "</section>"
        )
    if left_out:
        parts.append(f'<p class="note">{left_out} pictures are left out to keep this page small.</p>')
    return parts


def _curves(lines: Sequence[Line]) -> str:
    return _plot(lines, "roc", 1.0, "ROC of pictures", "share of defects found") + _plot(
        lines, "pro", MAX_FPR, "PRO of pixels", "overlap of regions"
    )


def _plot(lines: Sequence[Line], name: str, widest: float, title: str, upright: str) -> str:
    """Return one curve a method, in a square."""
    curves, legend = [], []
    for at, line in enumerate(lines):
        points = line["curves"][name]
        if not points:
            continue
        pen = f"stroke:var({_COLOURS[at % len(_COLOURS)]});stroke-dasharray:{_DASHES[at % len(_DASHES)] or 'none'}"
        place = " ".join(f"{_LEFT + x / widest * _SIDE:.1f},{_TOP + (1 - y) * _SIDE:.1f}" for x, y in points)
        curves.append(f'<polyline points="{place}" style="fill:none;stroke-width:2;{pen}"/>')
        sample = (
            f'<svg viewBox="0 0 34 8" style="display:inline-block;width:34px">'
            f'<line x2="34" y1="4" y2="4" style="stroke-width:3;{pen}"/></svg>'
        )
        legend.append(f"<span>{sample} {text(_name(line))}</span>")
    if not curves:
        return (
            f"<figure><figcaption><b>{title}</b>: there is nothing to draw, {_why(lines, name)}.</figcaption></figure>"
        )
    floor, right = _TOP + _SIDE, _LEFT + _SIDE
    axes = f'<path class="axis" style="fill:none" d="M{_LEFT} {_TOP}V{floor}H{right}"/>'
    for share in (0.0, 0.5, 1.0):
        axes += f'<text class="end" x="{_LEFT - 6}" y="{floor - share * _SIDE + 4:.0f}">{share:g}</text>'
        axes += f'<text class="mid" x="{_LEFT + share * _SIDE:.0f}" y="{floor + 17}">{share * widest:g}</text>'
    axes += f'<text class="end" x="{right}" y="{floor + 36}">false-positive rate</text>'
    return (
        f'<figure><svg viewBox="0 0 {right + 14} {floor + _FOOT}" role="img" aria-label="{title}">{axes}'
        f"{''.join(curves)}</svg><figcaption><b>{title}</b>, upright: {upright}"
        f'<p class="legend">{"".join(legend)}</p></figcaption></figure>'
    )


def _why(lines: Sequence[Line], name: str) -> str:
    level = "image" if name == "roc" else "pixel"
    return text(next((line["reasons"][level] for line in lines if line["reasons"].get(level)), "no defect is marked"))


def _histogram(line: Line) -> str:
    """Return the scores of good and of defective pictures, stacked."""
    counts = line["histogram"]
    tallest = max((good + bad for good, bad in zip(counts["good"], counts["bad"], strict=True)), default=0)
    if not tallest:
        return ""
    width, height = 460, 130
    floor, right = _TOP + height, _LEFT + width
    step = width / len(counts["good"])
    bars = []
    for at, (good, bad) in enumerate(zip(counts["good"], counts["bad"], strict=True)):
        base = float(floor)
        for kind, many in (("good", good), ("defect", bad)):
            tall = many / tallest * height
            base -= tall
            if many:
                bars.append(
                    f'<rect class="{kind}" x="{_LEFT + at * step + 1:.1f}" y="{base:.1f}" width="{step - 2:.1f}" '
                    f'height="{tall:.1f}"/>'
                )
    marks = (
        f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        f'<text class="end" x="{_LEFT - 6}" y="{_TOP + 10}">{tallest}</text>'
        f'<text x="{_LEFT}" y="{floor + 18}">{counts["low"]:.4g}</text>'
        f'<text class="end" x="{right}" y="{floor + 18}">{counts["high"]:.4g}</text>'
    )
    legend = (
        f'<span><i></i>good ({sum(counts["good"])})</span><span><i class="defect"></i>defective '
        f"({sum(counts['bad'])})</span>"
    )
    name = text(_name(line))
    return (
        f'<figure><svg viewBox="0 0 {right + 14} {floor + 26}" role="img" aria-label="Scores of {name}">'
        f'{"".join(bars)}{marks}</svg><figcaption><b>Scores</b>, {name}<p class="legend">{legend}</p></figcaption>'
        "</figure>"
    )


def _picture(line: Line, shown: Mapping[str, Any], pictures: Path) -> str:
    """Return one thumbnail, or nothing where its file is gone."""
    file = pictures / Path(shown["file"]).name
    source = jpeg_uri(file, _WIDTH) if file.is_file() else None
    if source is None:
        return ""
    path = Path(shown["path"])
    name = text("/".join(path.parts[-2:]))
    return (
        f'<figure><img loading="lazy" alt="Overlay of {name}" src="{source}"><figcaption>{text(_name(line))}: '
        f'{text(shown["why"])}, <b>{number(shown["score"])}</b> <bdi title="{text(path)}">{name}</bdi>'
        "</figcaption></figure>"
    )


def _name(line: Line) -> str:
    return group_name((line["setup"]["method"], line["setup"]["shots"]))
