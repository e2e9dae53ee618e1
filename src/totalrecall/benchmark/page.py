"""The benchmark's HTML page: tables, curves, histograms, the best and worst pictures. One file, offline, under 5 MB."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from totalrecall.benchmark.tables import AVERAGE, Table, group_name
from totalrecall.evaluation.curves import MAX_FPR
from totalrecall.reports.page import jpeg_uri, write_page
from totalrecall.reports.plots import Curve, Curves, Histogram, Series

__all__ = ["write_benchmark_page"]

_MOST_POINTS = 60_000  # of all curves, about 1 MB of HTML
_PICTURE_BYTES = 2_600_000
_WIDTH = 400  # pixels
_USUAL_BYTES, _TEXT_BYTES = 30_000, 1000  # of a picture, and of the text under it

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
        lines: lines of cells; of each column and category the first is drawn.
        pictures: folder of the thumbnails that the lines name.
        bad: cells and files that could not be used, each with the reason.

    Raises:
        DataError: the folder cannot be made or written.
    """
    drawn = _first_of_each(lines)
    categories, left_out = _categories(drawn, pictures)
    values = {
        "title": title,
        "notes": notes,
        "bad": bad,
        "tables": tables,
        "average": AVERAGE,
        "categories": categories,
        "left_out": left_out,
    }
    return write_page(path, "benchmark.html", values)


def _first_of_each(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Return the lines to draw by category: the first seed of each column."""
    drawn: dict[str, dict[tuple[str, int | None], Line]] = {}
    for line in lines:
        setup = line["setup"]
        drawn.setdefault(setup["category"], {}).setdefault((setup["method"], setup["shots"]), line)
    return {category: list(mine.values()) for category, mine in drawn.items()}


def _categories(drawn: Mapping[str, Sequence[Line]], pictures: Path) -> tuple[list[dict[str, Any]], int]:
    """Return what is shown of each category, as far as the page's room goes, and how many pictures are left out."""
    categories = []
    points, room, left_out = _MOST_POINTS, _PICTURE_BYTES, 0
    # every cell gets as many pictures as all of them can have
    most = min(max(_PICTURE_BYTES // (_USUAL_BYTES * max(sum(map(len, drawn.values())), 1)), 1), 6)
    for category, lines in drawn.items():
        points -= sum(len(curve) for line in lines for curve in line["curves"].values())
        figures = []
        for line in lines:
            for figure in (_figure(line, shown, pictures) for shown in line["shown"][:most]):
                if figure is None:
                    continue
                room -= len(figure["source"]) + _TEXT_BYTES
                if room < 0:
                    left_out += 1
                else:
                    figures.append(figure)
        plots = {"plots": _plots(lines), "histograms": _histograms(lines)} if points >= 0 else {}
        categories.append({"name": category, "seed": lines[0]["setup"]["seed"], "figures": figures, **plots})
    return categories, left_out


def _plots(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return the ROC and the PRO curves, one for each method, with the reason where there is nothing to draw."""
    kinds = (
        ("roc", "image", "ROC of pictures", "share of defects found", 1.0),
        ("pro", "pixel", "PRO of pixels", "overlap of regions", MAX_FPR),
    )
    plots = []
    for name, level, title, upright, widest in kinds:
        drawn = [Curve(_name(line), line["curves"][name]) for line in lines if line["curves"][name]]
        plot = Curves(title, "false-positive rate", upright, drawn, widest)
        reasons = (line["reasons"][level] for line in lines if line["reasons"].get(level))
        plots.append({"plot": plot, "reason": next(reasons, "no defect is marked")})
    return plots


def _histograms(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return the scores of good and of defective pictures, stacked, for each method."""
    histograms = []
    for line in lines:
        counts, name = line["histogram"], _name(line)
        if counts["good"]:
            series = [Series("good", "good", counts["good"]), Series("defective", "defect", counts["bad"])]
            plot = Histogram(f"Scores of {name}", series, (counts["low"], counts["high"]))
            histograms.append({"name": name, "plot": plot})
    return histograms


def _figure(line: Line, shown: Mapping[str, Any], pictures: Path) -> dict[str, Any] | None:
    """Return one thumbnail, or None where its file is gone."""
    file = pictures / Path(shown["file"]).name
    source = jpeg_uri(file, _WIDTH) if file.is_file() else None
    if source is None:
        return None
    name = "/".join(Path(shown["path"]).parts[-2:])
    return {"source": source, "method": _name(line), "name": name, **shown}


def _name(line: Line) -> str:
    return group_name((line["setup"]["method"], line["setup"]["shots"]))
