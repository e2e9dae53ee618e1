"""Which pictures a report shows, and in what order."""

import re

import cv2
import numpy as np

from tests.report_pages import Reader, entry, page
from totalrecall.reports.page import jpeg

DOT = np.zeros((40, 60, 3), np.uint8)


def captions(text: str) -> list[str]:
    return re.findall(r'alt="Overlay of crack/(\d+)\.png"', text)


def labelled():
    """Return 40 defects, of which two are missed, and 30 good pictures, of which one is a false alarm."""
    scores = [1.0, 1.5, *(10.0 + i for i in range(38))]
    defects = [entry(i, score, label=1, defect="scratch", overlay=DOT) for i, score in enumerate(scores)]
    good = [entry(100 + i, 0.1 * i if i else 5.0, label=0, overlay=DOT) for i in range(20)]
    return [*defects, *good]


def test_the_defects_with_the_lowest_scores_come_first_then_the_good_with_the_highest(tmp_path):
    text = page(tmp_path, labelled())
    shown = captions(text)
    assert shown[:8] == ["000", "001", "002", "003", "004", "005", "006", "007"]
    assert shown[8:11] == ["100", "119", "118"]
    assert shown[16] == "039"
    assert len(set(shown)) == len(shown) == 60
    headings = re.findall(r"<h2>([^<]*)</h2>", text)
    places = [
        headings.index(one) for one in ("Defects with the lowest scores", "Good pictures with the highest scores")
    ]
    assert places[1] == places[0] + 1
    assert "Other pictures, highest score first" in headings
    assert "2 of 40 were missed." in text
    assert "1 of 20 is a false alarm." in text


def test_without_verdicts_the_same_pictures_come_first_and_nothing_is_called_missed(tmp_path):
    text = page(tmp_path, [entry(i, float(i), label=i % 2, overlay=DOT, is_anomalous=None) for i in range(30)])
    assert captions(text)[:2] == ["001", "003"]
    assert "missed" not in text
    assert "false alarm" not in re.sub("<style>.*</style>", "", text, flags=re.DOTALL)


def test_a_caption_says_verdict_score_p_value_and_label(tmp_path):
    words = Reader(page(tmp_path, [entry(1, 1.0, label=1, defect="<scratch>", overlay=DOT, p_value=0.25)])).words
    for expected in ("GOOD", "missed", "1.000", "p-value 0.250", "labelled <scratch>", "crack/001.png"):
        assert expected in words


def test_a_jpeg_that_is_narrow_enough_stays_as_it_is_and_another_is_made_smaller():
    drawn = jpeg(np.full((100, 400, 3), 90, np.uint8), 860)
    assert jpeg(drawn, 400) is drawn
    small = cv2.imdecode(np.frombuffer(jpeg(drawn, 100), np.uint8), 1)
    assert small.shape == (25, 100, 3)
    assert abs(float(small.mean()) - 90) < 2
    assert jpeg(b"no picture", 100) is None
