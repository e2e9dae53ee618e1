"""The page over several reports."""

import re
from pathlib import Path

import numpy as np

from tests.report_pages import HOSTILE, Reader
from totalrecall.demo.index import IndexRow, write_index

GREY = np.full((40, 60, 3), 128, np.uint8)


def row(name: str = "washer", **changes) -> IndexRow:
    figures = {"image_auroc": 0.9876, "pixel_auroc": float("nan"), "threshold": 1.5, "good": 10, "defective": 12}
    settings = figures | {"found": 9, "false_alarms": 1} | changes
    return IndexRow(name, Path(name) / "report.html", Path(name) / f"{name}.trecall", **settings)


def index(folder: Path, rows, **changes) -> str:
    settings = {"title": "Demo"} | changes
    return write_index(folder / "index.html", rows=rows, **settings).read_text(encoding="utf-8")


def test_a_row_holds_the_figures_and_what_cannot_be_measured_is_a_dash(tmp_path):
    page = index(tmp_path, [row()])
    assert re.findall(r'<td class="num">([^<]*)</td>', page) == ["0.988", "–", "1.500", "9 of 12", "3", "1 of 10"]


def test_each_model_has_its_links_and_its_pictures_in_the_order_given(tmp_path):
    shown = [("damaged", GREY), ("good", GREY), ("gone", tmp_path / "gone.png")]
    page = index(tmp_path, [row("wood", overlays=shown), row("board")])
    assert re.findall(r'href="\./([^"]*report\.html)">report', page) == ["wood/report.html", "board/report.html"]
    assert re.findall(r"<figcaption>(\w+)", page) == ["damaged", "good"]
    assert re.findall(r'<section id="part-(\w+)"', page) == ["wood", "board"]


def test_what_to_type_next_stands_at_the_end(tmp_path):
    page = index(tmp_path, [row()], commands={"Learn:": "totalrecall fit <GOOD>"})
    assert "<p>Learn:</p>\n<p><code>totalrecall fit &lt;GOOD&gt;</code></p>\n</section>\n</main>" in page
    assert "Next steps" not in index(tmp_path, [row()])


def test_hostile_names_stay_text_and_cannot_become_a_script(tmp_path):
    hostile = HOSTILE.replace("\udcff", "")  # a lone surrogate cannot be part of a link
    page = index(
        tmp_path,
        [row(hostile), row("javascript:alert(1)", overlays=[(HOSTILE, GREY)])],
        title=HOSTILE,
        notes=[HOSTILE],
        commands={HOSTILE: HOSTILE},
    )
    tags = Reader(page).tags
    assert not [name for name, _ in tags if name == "script"]
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for name, attributes in tags if name == "img")
    targets = [attributes["href"] for name, attributes in tags if name == "a"]
    assert len(targets) == 8
    assert all(target.startswith(("./", "#part-")) for target in targets)
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
