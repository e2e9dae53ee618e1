"""The HTML report: one safe, small, self-contained file."""

import ast
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from jinja2 import UndefinedError

from tests.report_pages import HOSTILE, Reader, entry, page
from totalrecall import reports
from totalrecall.pictures.overlay import save_overlay
from totalrecall.reports.gallery import ReportEntry
from totalrecall.reports.page import jpeg, render
from totalrecall.reports.report import write_report


def test_the_highest_score_comes_first_and_what_is_no_number_last(tmp_path):
    text = page(tmp_path, [entry(1, 1.0), entry(2, float("nan"), is_anomalous=None), entry(3, 3.0), entry(4, 2.5)])
    assert re.findall(r"<bdi title=\"test/crack/(\d+)", text) == ["003", "004", "001", "002"]


def test_verdict_p_value_regions_and_nearest_are_listed(tmp_path):
    row = entry(7, 3.25, p_value=0.0125, regions_count=2, label=1, nearest="train/good/004.png")
    words = Reader(page(tmp_path, [row])).words
    for expected in ("3.250", "2.000", "DEFECT", "0.0125", "2", "defective", "good/004.png", "compact"):
        assert expected in words


def test_missed_defects_and_false_alarms_are_counted_and_marked(tmp_path):
    text = page(
        tmp_path, [entry(1, 3.0, label=0), entry(2, 1.0, label=1), entry(3, 1.0, label=1), entry(4, 0.5, label=0)]
    )
    assert "<dt>missed defects</dt><dd>2</dd>" in text
    assert "<dt>false alarms</dt><dd>1</dd>" in text
    assert text.count('<span class="wrong">missed</span>') == 2
    assert text.count('<span class="wrong">false alarm</span>') == 1


def test_hostile_names_stay_text(tmp_path):
    bad = ReportEntry(HOSTILE, 3.0, 2.0, True, overlay=np.zeros((20, 30, 3), np.uint8), nearest=HOSTILE)
    text = page(
        tmp_path,
        [bad],
        title=HOSTILE,
        model_info={HOSTILE: HOSTILE},
        bad_files=[(HOSTILE, HOSTILE)],
        notes=[HOSTILE],
    )
    reader = Reader(text)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not [key for _, attributes in reader.tags for key in attributes if key.startswith("on")]
    assert all(attributes["src"].startswith("data:image/jpeg") for tag, attributes in reader.tags if tag == "img")
    assert "\u202e" not in text
    assert any("alert('x')" in word for word in reader.words)


def test_control_characters_and_endless_names_never_reach_a_page():
    text = render("page.html", {"title": "a\x1b[31m\x07\u202e\u2028b", "notes": ["\x00" * 9, "n" * 9000]})
    assert "<h1>a�[31m���b</h1>" in text
    assert not [letter for letter in text if not letter.isprintable() and letter != "\n"]
    assert "n" * 900 in text
    assert len(text) < 16_000
    assert len(render("page.html", {"title": "t" * 10_000, "notes": []})) < 12_000


def test_a_misspelt_name_in_a_template_is_an_error():
    with pytest.raises(UndefinedError, match="'notes' is undefined"):
        render("page.html", {"title": "t"})


def test_one_place_alone_in_the_templates_prints_something_as_it_is():
    folder = Path(reports.__file__).with_name("templates")
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert {name: text.count("|safe") for name, text in texts.items() if "|safe" in text} == {"pieces.html": 1}
    assert not [name for name, text in texts.items() if "autoescape" in text or "<script" in text]


def test_no_module_writes_mark_up():
    """HTML and SVG are in the templates, where all that is printed is escaped."""
    source = Path(reports.__file__).parents[1]
    marks = re.compile(r"</?(a|b|div|dl|figure|h[1-6]|html|img|li|p|path|rect|section|span|svg|t[dhr]|table|ul)\b")
    # a string with a mark has its beginning in the file's text, or writes it by number; no other file need be parsed
    texts = [(path.name, path.read_text(encoding="utf-8")) for path in source.rglob("*.py")]
    suspects = [
        (name, text) for name, text in texts if re.search(r"""<[/a-z"']|\\(x|u00|U000000)3c|\\0?74|\\N""", text)
    ]
    assert 3 < len(suspects) < len(texts)
    strings = [
        (name, node.value)
        for name, text in suspects
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [(name, text) for name, text in strings if marks.search(text)] == []


def test_the_page_asks_for_nothing_from_outside(tmp_path):
    text = page(tmp_path, [entry(1, 3.0, overlay=np.zeros((20, 30, 3), np.uint8))])
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text.replace("url(#hatch)", "")
    assert "default-src 'none'" in text


def test_the_histogram_counts_good_and_defective_apart_and_marks_the_threshold(tmp_path):
    entries = [entry(i, 1.0 + 0.01 * i, label=0) for i in range(9)] + [entry(20 + i, 4.0, label=1) for i in range(4)]
    text = page(tmp_path, entries)
    assert "known good (9)" in text
    assert "known defective (4)" in text
    assert "threshold 2<" in text
    axis = {float(name): float(x) for x, name in re.findall(r'<text x="([\d.]+)"[^>]*class="mid">([\d.]+)<', text)}
    line = float(re.search(r'<line class="limit" x1="([\d.]+)"', text)[1])
    share = (line - axis[1]) / (axis[4] - axis[1])
    assert share == pytest.approx((2 - 1) / (4 - 1), abs=0.002)


def test_equal_scores_and_no_threshold_still_make_a_page(tmp_path):
    same = [entry(i, 0.0, threshold=None, is_anomalous=None) for i in range(3)]
    text = page(tmp_path, same)
    Reader(text)
    assert "pictures (3)" in text
    assert "no verdict" in text
    assert 'class="limit"' not in text


def test_no_entries_still_make_a_page(tmp_path):
    reader = Reader(page(tmp_path, [], bad_files=[("torn.jpg", "is truncated")]))
    assert "torn.jpg" in reader.words
    assert "is truncated" in reader.words


def test_the_page_stays_under_five_megabytes_and_says_what_it_left_out(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 968, 3), np.uint8)  # the worst that JPEG can be given
    rows = [
        ReportEntry('"' * 250 + f"/{i}", 5000.0 - i, 2.0, True, overlay=noise if i < 150 else None) for i in range(3000)
    ]
    path = write_report(
        tmp_path / "r.html", title="t", model_info={}, entries=rows, bad_files=[('"' * 900, "&" * 900)] * 500
    )
    assert path.stat().st_size < 5_000_000
    text = path.read_text(encoding="utf-8")
    assert re.search(r"\d+ more overlays are left out", text)
    assert re.search(r"The \d+ highest of 3000 are listed", text)
    assert "and 440 more" in text


def test_links_lead_to_pictures_that_are_there(tmp_path):
    dot = np.zeros((40, 60, 3), np.uint8)
    text = page(tmp_path, [entry(i, 40.0 - i, overlay=dot if i % 3 else None) for i in range(40)])
    targets, anchors = set(re.findall(r'href="#(\w+)"', text)), set(re.findall(r'<figure id="(\w+)"', text))
    assert targets == anchors
    assert len(anchors) == 26
    assert "The next 2, small" in text


def test_an_overlay_may_be_a_file_and_one_that_is_gone_is_left_out(tmp_path):
    saved = save_overlay(tmp_path / "one.png", np.full((30, 40, 3), 200, np.uint8))
    text = page(tmp_path, [entry(1, 3.0, overlay=saved), entry(2, 2.5, overlay=tmp_path / "gone.png")])
    assert text.count("<figure") == 1


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="every name is Unicode there")
def test_a_picture_whose_name_is_no_unicode_is_drawn_and_one_that_is_gone_or_empty_is_not(tmp_path):
    """OpenCV's imread ends the process at such a name; so a benchmark crashed whose --out had one."""
    _, data = cv2.imencode(".jpg", np.full((20, 30, 3), 90, np.uint8))
    name = tmp_path / "byte\udcff.jpg"
    name.write_bytes(data.tobytes())
    drawn = cv2.imdecode(np.frombuffer(jpeg(name, 15), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (10, 15, 3)
    assert jpeg(tmp_path / "gone\udcff.jpg", 15) is None
    name.write_bytes(b"")
    assert jpeg(name, 15) is None
