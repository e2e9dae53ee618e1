"""Evaluation with a detector that answers from a table."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from totalrecall.datasets import Sample, open_dataset
from totalrecall.errors import DataError, PictureError
from totalrecall.evaluation.evaluate import evaluate, read_defect_mask
from totalrecall.pictures.geometry import Geometry


@dataclass(frozen=True)
class FakeResult:
    path: Path
    score: float
    anomaly_map: np.ndarray
    is_anomalous: bool = False


class FakeDetector:
    """Gives each path the score and map of its table; a path that is not in it is a bad picture."""

    def __init__(self, answers: dict[Path, tuple[float, np.ndarray]]) -> None:
        self.answers = answers

    def predict_stream(self, paths: Iterable[Path], /) -> Iterator[FakeResult | PictureError]:
        for path in paths:
            if path in self.answers:
                yield FakeResult(path, *self.answers[path])
            else:
                yield PictureError(f"{path} cannot be read. Restore the file.")


def sample(path, label, defect="good", mask=None):
    return Sample(Path(path), label, defect, mask, "test", "part")


def written(path: Path, mask: np.ndarray) -> Path:
    cv2.imwrite(str(path), mask)
    return path


@pytest.fixture
def case(tmp_path):
    """Two good pictures and three bad ones of 6 x 4 pixels; the dent's map is perfect, the scratches have no mask."""
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:5] = 255
    dent = sample("dent.png", 1, "dent", written(tmp_path / "dent.png", mask))
    samples = [
        sample("a.png", 0),
        dent,
        sample("s1.png", 1, "scratch"),
        sample("b.png", 0),
        sample("s2.png", 1, "scratch"),
    ]
    ramp = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    answers = {
        Path("a.png"): (1.0, ramp),
        Path("b.png"): (3.0, ramp),
        Path("dent.png"): (5.0, ramp + np.float32(2) * (mask > 0)),
        Path("s1.png"): (4.0, ramp + 9),
        Path("s2.png"): (2.0, ramp + 9),
    }
    return samples, answers


def test_the_metrics_of_a_small_set_by_hand(case):
    samples, answers = case
    result = evaluate(FakeDetector(answers), samples)
    assert result.image_auroc == pytest.approx(5 / 6)  # of six pairs only scratch 2.0 < good 3.0 is wrong
    assert result.image_average_precision == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert result.image_f1 == pytest.approx(6 / 7)
    assert result.image_f1_threshold == 1.5
    assert result.defect_auroc == {"dent": 1.0, "scratch": 0.75}
    assert (result.pixel_auroc, result.pixel_average_precision, result.pixel_aupro) == (1.0, 1.0, 1.0)
    assert (result.images, result.pixel_images) == (5, 3)  # the scratches have no mask: their pixels are left out
    assert result.pixel_error == {"auroc": 0.0, "average_precision": 0.0, "aupro": 0.0}
    assert result.bad == ()
    assert result.reasons == {}
    assert result.seconds >= 0


def test_a_defect_that_nobody_has_marked_stays_out_of_the_pixel_metrics(case, tmp_path):
    samples, answers = case
    empty = written(tmp_path / "empty.png", np.zeros((4, 6), np.uint8))
    samples[2] = sample("s1.png", 1, "scratch", empty)  # its map is high all over: as good pixels they would be alarms
    result = evaluate(FakeDetector(answers), samples)
    assert result.pixel_auroc == 1.0
    assert (result.images, result.pixel_images) == (5, 3)


def test_bad_pictures_are_named_and_the_others_still_done(case):
    samples, answers = case
    del answers[Path("s2.png")], answers[Path("a.png")]
    result = evaluate(FakeDetector(answers), samples)
    assert [(bad.path, bad.message) for bad in result.bad] == [
        (Path("a.png"), "a.png cannot be read. Restore the file."),
        (Path("s2.png"), "s2.png cannot be read. Restore the file."),
    ]
    assert (result.images, result.image_auroc) == (3, 1.0)


def test_a_mask_of_another_size_is_named_and_its_picture_counts_for_images_only(case, tmp_path):
    samples, answers = case
    samples[1] = sample("dent.png", 1, "dent", written(tmp_path / "small.png", np.full((2, 3), 255, np.uint8)))
    result = evaluate(FakeDetector(answers), samples)
    assert [bad.path for bad in result.bad] == [Path("dent.png")]
    assert "small.png is 3 x 2 pixels, its picture 6 x 4." in result.bad[0].message
    assert result.images == 5
    assert result.image_auroc == pytest.approx(5 / 6)
    assert math.isnan(result.pixel_aupro)


def test_nan_is_null_in_json_and_has_a_reason(case):
    samples, answers = case
    result = evaluate(FakeDetector(answers), [s for s in samples if s.label == 0])
    text = json.dumps(result.to_json(), allow_nan=False)
    line = json.loads(text)
    assert list(line)[:6] == ["image_auroc", "image_f1", "pixel_auroc", "pixel_aupro", "images", "seconds"]
    assert line["image_auroc"] is line["image_f1"] is line["pixel_auroc"] is line["pixel_aupro"] is None
    assert line["images"] == 2
    assert line["reasons"] == {
        "image": "all 2 labels are good, there is nothing to find",
        "pixel": "no mask marks a defect, there is nothing to find",
    }


def test_json_holds_the_numbers_and_the_bad_pictures(case):
    samples, answers = case
    del answers[Path("a.png")]
    line = json.loads(json.dumps(evaluate(FakeDetector(answers), samples).to_json(), allow_nan=False))
    assert line["pixel_aupro"] == 1.0
    assert line["defect_auroc"] == {"dent": 1.0, "scratch": 0.5}
    assert line["bad"] == [{"path": "a.png", "message": "a.png cannot be read. Restore the file."}]


def test_progress_is_told_after_each_picture(case):
    samples, answers = case
    del answers[Path("b.png")]
    seen = []
    evaluate(FakeDetector(answers), samples, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_nothing_to_evaluate_on_is_refused():
    with pytest.raises(DataError, match=r"^There are no pictures to evaluate on. Check that the data set"):
        evaluate(FakeDetector({}), [])


def test_a_detector_that_loses_a_picture_is_not_believed(case):
    samples, answers = case

    class Forgetful(FakeDetector):
        def predict_stream(self, paths, /):
            yield from list(super().predict_stream(paths))[:-1]

    with pytest.raises(ValueError, match=r"shorter"):
        evaluate(Forgetful(answers), samples)


# --- masks ---


@pytest.mark.parametrize(
    ("values", "marked"),
    [
        (np.array([[0, 255]], np.uint8), [0, 1]),  # MVTec AD
        (np.array([[0, 1, 2]], np.uint8), [0, 1, 1]),  # VisA: class numbers
        (np.array([[0, 3, 127, 128, 252, 255]], np.uint8), [0, 0, 0, 1, 1, 1]),  # MTD: smoothed edges
        (np.array([[0, 0]], np.uint8), [0, 0]),
        (np.array([[0, 255]], np.uint16), [0, 1]),  # 8 bits stored in 16
        (np.array([[0, 300, 65535]], np.uint16), [0, 0, 1]),
        (np.array([[[0, 0, 0], [255, 255, 255], [99, 99, 99]]], np.uint8), [0, 1, 0]),  # grey stored as colour
        (np.array([[[0, 0, 0], [0, 0, 128], [255, 255, 0]]], np.uint8), [0, 1, 1]),  # a colour per class
        (np.array([[[0, 0, 0, 255], [255, 255, 255, 255]]], np.uint8), [0, 1]),  # alpha is no defect
    ],
)
def test_masks_are_read_however_they_are_written(values, marked, tmp_path):
    mask = read_defect_mask(written(tmp_path / "mask.png", values), (1, values.shape[1]))
    assert mask.dtype == bool
    assert mask.tolist() == [[bool(m) for m in marked]]


def test_a_mask_with_a_name_that_is_not_ascii_is_read(tmp_path):
    path = tmp_path / "маска.png"
    path.write_bytes(cv2.imencode(".png", np.full((2, 2), 255, np.uint8))[1].tobytes())
    assert read_defect_mask(path, (2, 2)).all()


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_a_mask_that_is_no_picture_is_one_clear_line(content, tmp_path):
    (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(
        DataError, match=r"^The mask cannot be used: .*mask.png is (empty|not a picture that can be decoded)"
    ):
        read_defect_mask(tmp_path / "mask.png", (1, 1))


def test_a_mask_that_is_gone_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"^The mask cannot be used: .*gone.png does not exist.$"):
        read_defect_mask(tmp_path / "gone.png", (1, 1))


def test_a_mask_of_another_size_names_both_sizes(tmp_path):
    path = written(tmp_path / "mask.png", np.zeros((3, 5), np.uint8))
    with pytest.raises(DataError, match=r"mask.png is 5 x 3 pixels, its picture 7 x 9. They must be of one size"):
        read_defect_mask(path, (9, 7))


def test_real_masks_of_each_kind(shared):
    tiles = [s for s in open_dataset("mtd", shared / "data" / "mtd").test if s.label == 1]
    empty = []
    for tile in tiles:
        height, width = cv2.imread(str(tile.path), cv2.IMREAD_GRAYSCALE).shape
        mask = read_defect_mask(tile.mask, (height, width))
        if not mask.any():
            empty.append(tile.defect)
    assert len(tiles) == 392
    assert empty == ["uneven"] * 4


def test_a_detector_that_knows_the_masks_is_perfect_on_the_real_bottle(shared):
    samples = open_dataset("mvtec", shared / "data" / "mvtec_ad" / "bottle").test
    rng = np.random.default_rng(0)
    answers = {}
    for s in samples:
        mask = np.zeros((288, 288), bool) if s.mask is None else read_defect_mask(s.mask, (288, 288))
        answers[s.path] = (float(mask.any()) + 1, rng.random((288, 288), np.float32) + np.float32(2) * mask)
    result = evaluate(FakeDetector(answers), samples)
    assert (result.images, result.pixel_images) == (83, 83)
    assert (result.image_auroc, result.image_f1, result.pixel_auroc) == (1.0, 1.0, 1.0)
    assert result.pixel_aupro == pytest.approx(1.0, abs=1e-12)


# ---------------------------------------------------------------------- inside the crop alone


@dataclass(frozen=True)
class CroppedResult(FakeResult):
    """Of 6 x 4 pixels the detector saw the middle 2 x 2."""

    @property
    def geometry(self) -> Geometry:
        return Geometry((4, 6), (4, 6), (1, 2), (2, 2))


class CroppedDetector(FakeDetector):
    def predict_stream(self, paths: Iterable[Path], /) -> Iterator[CroppedResult | PictureError]:
        for path in paths:
            yield CroppedResult(path, *self.answers[path])


def cropped_case(tmp_path, first_row):
    """A good picture, and one with a defect from the given row on; the map is right inside, nonsense outside."""
    mask = np.zeros((4, 6), np.uint8)
    mask[first_row:, 3:] = 255
    good, bad = np.full((4, 6), 9, np.float32), np.full((4, 6), 9, np.float32)
    good[1:3, 2:4], bad[1:3, 2:4] = 0, 1 + (mask[1:3, 2:4] > 0)
    samples = [sample("good.png", 0), sample("bad.png", 1, "dent", written(tmp_path / "bad.png", mask))]
    return samples, {Path("good.png"): (1.0, good), Path("bad.png"): (2.0, bad)}


def test_pixels_that_the_crop_hid_do_not_count(tmp_path):
    samples, answers = cropped_case(tmp_path, first_row=1)
    inside = evaluate(CroppedDetector(answers), samples, seen_only=True)
    assert (inside.pixel_auroc, inside.pixel_images) == (1.0, 2)
    assert evaluate(CroppedDetector(answers), samples).pixel_auroc < 0.7
    # who does not say what was seen has seen everything
    assert evaluate(FakeDetector(answers), samples, seen_only=True).pixel_auroc < 0.7


def test_a_defect_that_the_crop_hides_leaves_good_pixels_and_a_bad_picture(tmp_path):
    samples, answers = cropped_case(tmp_path, first_row=3)  # below the rows that were seen
    inside = evaluate(CroppedDetector(answers), samples, seen_only=True)
    assert (inside.image_auroc, inside.pixel_images) == (1.0, 2)
    assert math.isnan(inside.pixel_auroc)  # all pixels inside are good
