"""What the report says of labelled pictures."""

import re

import pytest

from tests.report_pages import HOSTILE, Reader, entry, page, section
from totalrecall.evaluation.evaluate import Evaluation
from totalrecall.reports.report import figures

NAN = float("nan")
ENTRIES = [
    *(entry(i, 1.0 + i, label=0) for i in range(3)),  # 1, 2 and 3: the last is over 2
    *(entry(3 + i, score, label=1, defect="crack") for i, score in enumerate((1.5, 4.0))),
    entry(5, 9.0, label=1, defect=HOSTILE),
    entry(6, 5.0),
]
MEASURED = Evaluation(
    0.75, 0.5, NAN, NAN, 6, 1.0, defect_auroc={"crack": 0.5, HOSTILE: 1.0}, reasons={"pixel": "no defect is <marked>"}
)


@pytest.fixture
def measured_section(tmp_path):
    def write(entries, measured=None):
        text = page(tmp_path, entries, measured=measured)
        Reader(text)
        return section(text, "Good against defective")

    return write


def test_what_could_not_be_measured_is_left_out_and_the_reason_said(measured_section):
    assert figures(MEASURED) == {"image AUROC": "0.7500", "image F1 (best)": "0.5000"}
    assert "pixel metrics: no defect is <marked>" in Reader(measured_section(ENTRIES, MEASURED)).words


def test_each_kind_of_defect_has_its_row_and_the_good_pictures_theirs(measured_section):
    rows = re.findall(r'<tr><th scope="row">(.*?)</tr>', measured_section(ENTRIES, MEASURED))
    cells = [re.findall(r">([^<>]*)</td>", row) for row in rows]
    assert cells == [
        ["1", "0", "9.000", "9.000", "1.0000"],
        ["2", "1", "1.500", "4.000", "0.5000"],
        ["3", "1", "1.000", "3.000", "–"],
    ]
    assert [row.startswith(name) for row, name in zip(rows, ("&lt;script", "crack", "good"), strict=True)] == [True] * 3


def test_the_curve_goes_from_corner_to_corner_and_the_threshold_is_on_it(measured_section):
    section = measured_section(ENTRIES)
    points = [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]*)"', section)[1].split()]
    assert (points[0], points[-1]) == ((34.0, 280.0), (284.0, 30.0))
    assert points == sorted(points, key=lambda point: (point[0], -point[1]))
    dot = re.search(r'cx="([\d.]+)" cy="([\d.]+)"', section)
    assert (float(dot[1]), float(dot[2])) == pytest.approx((34 + 250 / 3, 280 - 250 * 2 / 3), abs=0.06)
    assert "threshold: 66.7 % found, 33.3 % false alarms" in section


def test_without_verdicts_no_point_is_marked_and_nothing_called_wrong(measured_section):
    section = measured_section([entry(i, float(i), label=i % 2, is_anomalous=None) for i in range(4)])
    assert "<polyline" in section
    assert "<circle" not in section
    assert section.count('<td class="num">–</td><td class="num">') == 2


def test_of_one_kind_alone_there_is_no_curve_and_without_labels_nothing(measured_section):
    assert "<svg" not in measured_section([entry(1, 1.0, label=0), entry(2, NAN, label=1)])
    assert measured_section([entry(1, 1.0)]) == ""
