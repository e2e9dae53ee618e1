"""Few overlays are kept, whatever the number of pictures: those worth a look."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from totalrecall import load_detector
from totalrecall.datasets import Sample, open_dataset
from totalrecall.errors import PictureError
from totalrecall.reports.gallery import _SMALL, MOST_FULL, MOST_TELLING, WorstOverlays

ROOM = MOST_FULL + _SMALL


@pytest.fixture(scope="module")
def detector(model):
    return load_detector(model)


@pytest.fixture(scope="module")
def result(detector, parts):
    return detector.predict(parts / "test" / "good" / "000.png")


@pytest.fixture
def drawn(monkeypatch):
    """The scores of the pictures that were drawn; drawing itself is spared."""
    scores = []

    def draw(self, result, sample):
        scores.append(result.score)
        return b"%g" % result.score

    monkeypatch.setattr(WorstOverlays, "_draw", draw)
    return scores


def sample(label: int) -> Sample:
    return Sample(Path("a.png"), label, "scratch" if label else "good", None, "test", "c")


def test_the_highest_scores_are_kept_and_few_others_are_ever_drawn(detector, result, drawn):
    overlays = WorstOverlays()
    scores = np.random.default_rng(0).permutation(10_000).astype(float).tolist()
    for number, score in enumerate(scores):
        overlays.offer(number, replace(result, score=score))
    kept = overlays.of()
    assert sorted(scores[number] for number in kept) == list(range(10_000 - ROOM, 10_000))
    assert all(kept[number] == b"%g" % scores[number] for number in kept)
    assert len(drawn) < ROOM * (1 + 1.3 * np.log(10_000 / ROOM))


def test_of_labelled_pictures_the_low_defects_and_the_high_good_ones_are_kept_too(detector, result, drawn):
    overlays = WorstOverlays()
    for number in range(1000):  # every fourth is good, and scores as high as its neighbours
        overlays.offer(number, replace(result, score=float(number % 500)), sample(int(number % 4 > 0)))
    kept = {(number % 500, number % 4 > 0) for number in overlays.of()}
    lowest = sorted(number % 500 for number in range(1000) if number % 4)[:MOST_TELLING]
    assert {(score, True) for score in lowest} <= kept
    assert (496, False) in kept
    assert len(overlays.of()) <= ROOM + 2 * MOST_TELLING


def test_a_score_that_is_no_number_is_not_drawn(detector, result, drawn):
    overlays = WorstOverlays()
    overlays.offer(0, replace(result, score=float("nan")))
    assert overlays.of() == {}


def test_a_picture_that_has_gone_or_changed_meanwhile_has_no_overlay(detector, result, tmp_path):
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((9, 9, 3), np.uint8))
    overlays = WorstOverlays()
    overlays.offer(0, replace(result, path=str(tmp_path / "gone.png")))
    overlays.offer(1, replace(result, path=str(tmp_path / "other.png")))
    overlays.offer(2, result)
    assert list(overlays.of()) == [2]
    with pytest.raises(PictureError, match="was replaced by another picture after it was scored"):
        replace(result, path=str(tmp_path / "other.png")).overlay()


def test_the_marked_defect_is_outlined_and_a_mask_that_cannot_be_read_is_not(detector, parts, tmp_path):
    marked = next(one for one in open_dataset("mvtec", parts).test if one.label == 1)
    result = detector.predict(marked.path)
    pictures = []
    for one in (None, marked, replace(marked, mask=tmp_path / "gone.png")):
        overlays = WorstOverlays()
        overlays.offer(0, result, one)
        pictures.append(cv2.imdecode(np.frombuffer(overlays.of()[0], np.uint8), 1)[..., ::-1].astype(int))
    blue = [int((picture[..., 2] - picture[..., 0] > 90).sum()) for picture in pictures]
    assert blue[0] == blue[2] == 0
    assert blue[1] > 20
