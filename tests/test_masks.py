"""One reader of masks, however a person or a program wrote them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from totalrecall import PaDiM, PatchCore
from totalrecall.audit.audit import audit
from totalrecall.benchmark.cell import Cell
from totalrecall.datasets import open_dataset
from totalrecall.datasets.check import check_files
from totalrecall.demo.pictures import make_dataset
from totalrecall.detectors.settings import ComparedSettings
from totalrecall.detectors.spade import SPADE
from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.evaluation.evaluate import read_defect_mask
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import load_picture
from totalrecall.pictures.masks import read_mask, read_roi, roi_words

SHAPE = np.zeros((64, 96), bool)  # a disc and a bar
cv2.circle(SHAPE.view(np.uint8), (60, 30), 17, 1, -1)
SHAPE[40:60, 8:30] = True


def png(tmp_path, pixels, mode=None, **options):
    """Write pixels, RGB or RGBA or grey, as Pillow does."""
    image = Image.fromarray(pixels) if mode is None else Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "mask.png", **options)
    return tmp_path / "mask.png"


def painted(colour, ground):
    return np.where(SHAPE[:, :, None], np.array(colour, np.uint8), np.array(ground, np.uint8))


def palette(tmp_path):
    image = Image.fromarray(SHAPE.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def palette_with_a_transparent_entry(tmp_path):
    image = Image.fromarray(SHAPE.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.save(tmp_path / "mask.png", transparency=0)
    return tmp_path / "mask.png"


def jpeg(tmp_path, colour, quality):
    Image.fromarray(painted(colour, (0, 0, 0))).save(tmp_path / "mask.jpg", quality=quality)
    return tmp_path / "mask.jpg"


WAYS = {
    "white on black": lambda to: png(to, SHAPE.astype(np.uint8) * 255),
    "1 on 0": lambda to: png(to, SHAPE.astype(np.uint8)),
    "3 on 0": lambda to: png(to, SHAPE.astype(np.uint8) * 3),
    "100 on 20": lambda to: png(to, np.where(SHAPE, 100, 20).astype(np.uint8)),
    "1 on 0 of 16 bits": lambda to: png(to, SHAPE.astype(np.uint16)),
    "300 on 0 of 16 bits": lambda to: png(to, SHAPE.astype(np.uint16) * 300),
    "one bit": lambda to: png(to, SHAPE.astype(np.uint8) * 255, "1"),
    "a palette": palette,
    "a palette with a transparent entry": palette_with_a_transparent_entry,
    "white on transparent": lambda to: png(to, painted((255, 255, 255, 255), (255, 255, 255, 0))),
    "white on transparent black": lambda to: png(to, painted((255, 255, 255, 255), (0, 0, 0, 0))),
    "black on transparent": lambda to: png(to, painted((0, 0, 0, 255), (0, 0, 0, 0))),
    "black on transparent white": lambda to: png(to, painted((0, 0, 0, 255), (255, 255, 255, 0))),
    "red on transparent": lambda to: png(to, painted((200, 0, 0, 255), (0, 0, 0, 0))),
    "grey with alpha": lambda to: png(to, painted((255, 255), (255, 0)), "LA"),
    "opaque with alpha": lambda to: png(to, painted((255, 255, 255, 255), (0, 0, 0, 255))),
    "red on black": lambda to: png(to, painted((255, 0, 0), (0, 0, 0))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_is_understood_however_it_is_painted_for_every_use(way, tmp_path):
    path = WAYS[way](tmp_path)
    assert np.array_equal(read_mask(path), SHAPE)
    assert np.array_equal(read_roi(path).mask, SHAPE)
    assert np.array_equal(read_defect_mask(path, SHAPE.shape), SHAPE)


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (0, 160, 0), (120, 120, 120)])
def test_a_jpeg_mask_marks_as_much_as_was_painted(colour, quality, tmp_path):
    mask = read_mask(jpeg(tmp_path, colour, quality))
    assert (mask != SHAPE).mean() < 0.03  # only along the edge
    assert mask.sum() == pytest.approx(SHAPE.sum(), rel=0.1)
    eroded = cv2.erode(SHAPE.astype(np.uint8), np.ones((7, 7))) > 0
    assert mask[eroded].all()


def test_a_soft_brush_has_its_edge_in_the_middle(tmp_path):
    soft = cv2.GaussianBlur(SHAPE.astype(np.float32), (0, 0), 1.5)
    grey = np.rint(255 * soft).astype(np.uint8)
    assert np.array_equal(read_mask(png(tmp_path, grey)), grey > 127)
    layer = np.dstack([np.full((*SHAPE.shape, 3), 255, np.uint8), grey])
    assert np.array_equal(read_mask(png(tmp_path, layer)), grey > 127)


def test_a_part_cut_out_of_its_photograph_is_the_region(tmp_path):
    photograph = np.random.default_rng(1).integers(40, 200, (*SHAPE.shape, 3), np.uint8)
    path = png(tmp_path, np.dstack([photograph, SHAPE.astype(np.uint8) * 255]))
    assert np.array_equal(read_roi(path).mask, SHAPE)


def test_what_is_transparent_around_black_and_white_is_not_marked(tmp_path):
    layers = painted((255, 255, 255, 255), (0, 0, 0, 255))
    layers[:, :20] = (255, 255, 255, 0)
    mask = read_mask(png(tmp_path, layers))
    assert not mask[:, :20].any()
    assert np.array_equal(mask[:, 20:], SHAPE[:, 20:])


def test_classes_are_all_marked_whatever_their_numbers(tmp_path):
    for values in ((0, 1, 2), (0, 85, 170, 255), (0, 40, 80)):
        classes = np.zeros((60, 60), np.uint8)
        for at, value in enumerate(values[1:]):
            classes[10:30, 5 + 20 * at : 5 + 20 * at + 8] = value
        assert np.array_equal(read_mask(png(tmp_path, classes)), classes > 0)


def test_an_upright_mask_is_read_from_a_turned_file(tmp_path):
    image = Image.fromarray(painted((255, 255, 255), (0, 0, 0)))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    image.save(tmp_path / "mask.jpg", exif=exif, quality=95)
    assert read_mask(tmp_path / "mask.jpg").shape == SHAPE.shape[::-1]


# ---------------------------------------------------------------------- what nobody could understand


def test_a_photograph_is_no_mask(tmp_path):
    photograph = np.random.default_rng(1).normal(120, 40, (64, 96)).clip(0, 255).astype(np.uint8)
    path = png(tmp_path, photograph)
    with pytest.raises(DataError, match=r"mask.png has \d+ grey values and no two that stand out, so it could"):
        read_mask(path)
    with pytest.raises(SettingError, match=r"^roi: .*mask.png has \d+ grey values .* Paint the region white on black"):
        PatchCore(roi=path)
    with pytest.raises(DataError, match=r"^The mask cannot be used: .*mask.png has \d+ grey values"):
        read_defect_mask(path, (64, 96))


def test_colours_on_white_are_refused_rather_than_marked_everywhere(tmp_path):
    with pytest.raises(DataError, match=r"has colours on a ground that is not black. Paint the region white on black"):
        read_mask(png(tmp_path, painted((255, 0, 0), (255, 255, 255))))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((8, 8), np.uint8), "The region-of-interest mask is empty: white pixels mark what is inspected."),
        (
            np.full((8, 8), 128, np.uint8),
            "has the value 128 everywhere, so it marks no region. Paint the region white on black",
        ),
        (
            np.full((8, 8, 4), (255, 255, 255, 9), np.uint8),
            "is transparent everywhere. Paint the region white on black",
        ),
    ],
)
def test_a_region_of_one_value_is_refused(pixels, message, tmp_path):
    with pytest.raises(SettingError) as caught:
        read_roi(png(tmp_path, pixels))
    assert message in str(caught.value)


def test_a_white_region_is_the_whole_picture_and_an_empty_defect_mask_stays_allowed(tmp_path):
    assert roi_words(read_roi(png(tmp_path, np.full((8, 8), 255, np.uint8)))) == (
        "Region of interest: 100 % of the picture is inspected (the value 255 everywhere)"
    )
    assert not read_defect_mask(png(tmp_path, np.zeros((8, 8), np.uint8)), (8, 8)).any()


def test_the_share_that_is_inspected_is_told(tmp_path):
    assert read_roi(None) is None
    path = png(tmp_path, painted((255, 255, 255, 255), (255, 255, 255, 0)))
    share = round(100 * SHAPE.mean())
    assert roi_words(read_roi(path)) == (
        f"Region of interest: {share} % of the picture is inspected (what is painted on transparent)"
    )


def test_a_data_set_check_that_decodes_names_masks_nobody_understands_and_inverted_ones(tmp_path):
    root = make_dataset(tmp_path / "set", kind="wood", good=3, test_good=1, defective=2, size=(64, 64))
    first, second = sorted((root / "ground_truth").rglob("*.png"))[:2]
    cv2.imwrite(str(first), 255 - cv2.imread(str(first), cv2.IMREAD_GRAYSCALE))
    cv2.imwrite(str(second), np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    data = open_dataset("mvtec", root)
    assert check_files(data) == []  # the headers alone say nothing of it
    messages = sorted(problem.message for problem in check_files(data, decode=True))
    assert any("its border too, so it seems to be inverted. Defects are white on black." in one for one in messages)
    assert any("grey values and no two that stand out" in one for one in messages)


# ---------------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int64, np.float64])
def test_an_array_of_two_values_is_a_region(dtype, tiny_backbone):
    roi = SHAPE.astype(dtype)
    for kind in (PatchCore, PaDiM, SPADE):
        assert np.array_equal(kind(backbone=tiny_backbone, roi=roi).recipe.roi, SHAPE)
    if dtype is not bool:
        assert np.array_equal(read_roi(roi * 3).mask, SHAPE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 3), np.uint8), "roi must be an array (h, w), bool or of two values, got uint8 (4, 5, 3)."),
        (
            np.eye(4) * np.arange(4),
            "roi must be bool or of two values, got 4 values of float64. For example: mask > 0.5",
        ),
        (np.full((4, 4), np.nan), "roi must be bool or of two values, got 1 values of float64."),
        (np.zeros((4, 4)), "The region-of-interest mask is empty: white pixels mark what is inspected."),
    ],
)
def test_an_array_that_says_nothing_is_refused(array, message, tiny_backbone):
    with pytest.raises(SettingError) as caught:
        PatchCore(backbone=tiny_backbone, roi=array)
    assert str(caught.value).startswith(message)


# ---------------------------------------------------------------------- the shape of pictures


def test_a_picture_of_another_shape_than_its_region_is_refused(tmp_path):
    recipe = Recipe(size=64, roi=SHAPE)
    assert load_picture(np.zeros((640, 960, 3), np.uint8), recipe).error is None
    assert load_picture(np.zeros((33, 50, 3), np.uint8), recipe).error is None  # 2 : 3 but for rounding
    error = load_picture(np.zeros((960, 640, 3), np.uint8), recipe).error
    assert str(error) == (
        "array[0]: The picture has 640 x 960 pixels, its region of interest 96 x 64, which is another shape. "
        "Draw the region on a picture of this camera, whole and upright."
    )


def test_fit_predict_and_audit_name_pictures_of_another_shape_than_the_region(tiny_backbone, tmp_path):
    rng = np.random.default_rng(0)
    good = [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(4)]
    square = rng.integers(0, 255, (64, 64, 3), np.uint8)
    options = {"backbone": tiny_backbone, "size": 64, "roi": SHAPE}
    with pytest.warns(UserWarning, match="1 of 5 pictures were left out. The first: .*which is another shape"):
        detector = PatchCore(**options, at_least=1).fit([*good, square])
    with pytest.raises(PictureError, match="which is another shape"):
        detector.predict(square)
    with pytest.raises(DataError, match=r"None of the 2 pictures could be read. The first: .*which is another shape"):
        PaDiM(**options).fit([square, 255 - square])
    assert len(audit([*good, square], ComparedSettings(**options)).skipped) == 1


def test_a_benchmark_knows_a_region_by_what_it_marks(tmp_path, tiny_backbone):
    data = open_dataset(
        "mvtec", make_dataset(tmp_path / "set", kind="wood", good=3, test_good=1, defective=1, size=(64, 96))
    )
    hashes = set()
    for number, way in enumerate(("white on black", "3 on 0", "white on transparent", "black on transparent")):
        (tmp_path / str(number)).mkdir()
        roi = WAYS[way](tmp_path / str(number))
        hashes.add(Cell("patchcore", data, 0, tiny_backbone, {}, roi=roi).setup["roi"])
    assert len(hashes) == 1


def test_masks_of_a_region_are_read_like_files_in_memory_would_be():
    """The oracle of the JPEG tests: Pillow itself shows ringing that `colours.any()` would mark."""
    file = io.BytesIO()
    Image.fromarray(painted((255, 0, 0), (0, 0, 0))).save(file, "JPEG", quality=75)
    assert (np.asarray(Image.open(file)).max(axis=2) > 0).sum() > 1.5 * SHAPE.sum()
