"""Cameras of 10 to 14 bits in 16-bit files: the depth is found over the set, kept, and applied everywhere."""

import json
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from totalrecall import PaDiM, PatchCore, load_detector
from totalrecall.audit.audit import audit
from totalrecall.cli import main
from totalrecall.detectors.model_file import read_artifact, write_artifact
from totalrecall.detectors.settings import ComparedSettings
from totalrecall.detectors.spade import SPADE
from totalrecall.errors import PictureError, SettingError, UnlikePictureWarning
from totalrecall.pictures.bit_depth import BitDepth, find_bit_depth
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import load_picture, read_image
from totalrecall.reports.gallery import patch_pair

RNG = np.random.default_rng(7)
EIGHT = [RNG.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(6)]
for _picture in EIGHT:
    _picture[0, 0], _picture[0, 1] = 255, 0
SPREAD = [(one.astype(np.uint32) * 4095 // 255).astype(np.uint16) for one in EIGHT]  # as a 12-bit camera sees them


def save(folder, pictures, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number}{suffix}"), picture[..., ::-1])
    return folder


def low(pictures=SPREAD):
    return list(pictures)


def high(pictures=SPREAD):
    return [picture << 4 for picture in pictures]


def make(kind, backbone, **options):
    few = {"at_least": 1, "coreset": 0.1, "folds": 1} if kind is PatchCore else {}
    few |= {"dimensions": 8} if kind is PaDiM else {}
    return kind(backbone=backbone, size=64, **few, **options)


def complaint(call, *arguments, **options):
    with pytest.raises((PictureError, SettingError)) as caught:
        call(*arguments, **options)
    return str(caught.value)


# ---------------------------------------------------------------------- finding


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("pictures", "found"),
    [
        (EIGHT, BitDepth(None)),
        (low(), BitDepth(12, 0, eight_bit=False)),
        (high(), BitDepth(12, 4, eight_bit=False)),
        ([picture >> 2 for picture in SPREAD], BitDepth(10, 0, eight_bit=False)),
        ([(picture >> 2) << 6 for picture in SPREAD], BitDepth(10, 6, eight_bit=False)),
        ([picture >> 1 for picture in SPREAD], BitDepth(12, 0, eight_bit=False)),  # no camera has 11 bits
        ([picture.astype(np.uint16) * 257 for picture in EIGHT], BitDepth(16, 0, eight_bit=False)),
        ([picture.astype(np.uint16) << 8 for picture in EIGHT], BitDepth(8, 8, eight_bit=False)),
        ([*EIGHT[:2], *low()[2:]], BitDepth(12, 0, eight_bit=True)),
        ([np.full((8, 8, 3), 1024, np.uint16)], BitDepth(12, 0, eight_bit=False)),  # zeros by chance say nothing
        ([np.zeros((8, 8, 3), np.uint16)], BitDepth(8, 0, eight_bit=False)),
    ],
)
def test_the_depth_is_found_over_files_and_arrays_alike(pictures, found, suffix, tmp_path):
    files = sorted(save(tmp_path, pictures, suffix).iterdir())
    assert find_bit_depth(files) == find_bit_depth(pictures) == found


def test_the_depth_of_pictures_in_memory_is_found_too():
    files = [cv2.imencode(".png", picture)[1].tobytes() for picture in high()]
    assert find_bit_depth(files) == find_bit_depth(high())
    grey = [Image.fromarray(picture[..., 0]) for picture in low()]
    assert find_bit_depth(grey).bits == 12
    assert find_bit_depth([picture.astype(">u2") for picture in low()]) == find_bit_depth(low())
    assert find_bit_depth([picture / 4095 for picture in low()]) == BitDepth(None)


def test_one_dark_and_one_overexposed_picture_change_nothing():
    dark, white = SPREAD[0] >> 5, np.full_like(SPREAD[0], 4095)
    assert find_bit_depth([*low(), dark, white]) == find_bit_depth(low())
    assert find_bit_depth([*high(), dark << 4, white << 4]) == find_bit_depth(high())


def test_a_hot_pixel_lies_within_the_depth_of_its_camera():
    dark = [picture >> 4 for picture in SPREAD]  # 256 values of a 12-bit camera in a dark line
    dark[3][5, 5] = 4095
    assert (find_bit_depth(dark).bits, find_bit_depth(dark).shift) == (12, 0)


def test_what_cannot_be_read_is_left_to_whoever_reads_it(tmp_path):
    save(tmp_path, low())
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    (tmp_path / "x.tif").write_bytes(b"II*\0\xff\xff\xff\xff")
    (tmp_path / "y.tif").write_bytes(b"MM\0*\0\0\0\x08\xff\xff")
    assert find_bit_depth(sorted(tmp_path.iterdir())).bits == 12
    assert find_bit_depth([tmp_path / "gone.png", tmp_path]) == BitDepth(None)


def test_pictures_of_eight_bits_are_not_read_to_find_that(tmp_path):
    files = sorted(save(tmp_path, EIGHT).iterdir())
    told = []
    find_bit_depth(files, progress=lambda *step: told.append(step))
    assert told == []
    find_bit_depth([*files, *low()], progress=lambda *step: told.append(step))
    assert told[-1] == ("depth", 6, 6)


def test_a_few_pictures_far_above_the_others_are_named():
    alien = SPREAD[0] << 4
    found = find_bit_depth([*low(), alien])
    assert (found.bits, found.shift) == (16, 0)
    assert found.note.startswith(
        "Only an array has values above 4095, and they set the brightness scale of all pictures."
    )
    assert find_bit_depth([*low(), alien], 12).note == ""


# ---------------------------------------------------------------------- scaling


def test_pictures_look_the_same_in_8_bits_low_and_high():
    reference = [load_picture(picture, Recipe(size=64)).prepared for picture in EIGHT]
    for pictures in (low(), high()):
        recipe = Recipe(size=64, depth=find_bit_depth(pictures))
        for picture, expected in zip(pictures, reference, strict=True):
            assert np.array_equal(load_picture(picture, recipe).prepared, expected)


def test_the_full_range_is_what_it_was():
    every = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 8, 1).repeat(3, axis=2)
    assert np.array_equal(BitDepth(16).to_8_bits(every, "x"), ((every.astype(np.uint32) + 128) // 257).astype(np.uint8))
    for bits in range(8, 17):
        values = np.arange(1 << bits, dtype=np.uint16).reshape(-1, 8, 1).repeat(3, axis=2)
        expected = np.rint(values / (2**bits - 1) * 255).astype(np.uint8)
        assert np.array_equal(BitDepth(bits).to_8_bits(values, "x"), expected)
        assert np.array_equal(BitDepth(bits, 16 - bits).to_8_bits(values << (16 - bits), "x"), expected)


def test_a_picture_that_does_not_fit_is_refused():
    depth = BitDepth(12, 0, eight_bit=False)
    assert complaint(depth.to_8_bits, SPREAD[0] << 4, "x.png") == (
        "x.png has values up to 65520, above the 12 bits of the model (up to 4095). If that is no fault of the "
        "picture, fit with a bit depth of 16."
    )
    assert complaint(depth.to_8_bits, EIGHT[0], "x.png").startswith(
        "x.png holds 8-bit pixels, and the model was fitted on pictures of 12 bits in 16-bit files."
    )
    assert complaint(BitDepth(None).to_8_bits, SPREAD[0], "x.png").startswith(
        "x.png holds 16-bit pixels, and the model was fitted on 8-bit pictures"
    )
    assert complaint(BitDepth(12, 4).to_8_bits, SPREAD[0], "x.png").startswith("x.png uses its low 4 bits")


@pytest.mark.parametrize("asked", [7, 17, "many", "12.5"])
def test_a_depth_that_no_camera_has_is_refused(asked, tiny_backbone):
    with pytest.raises(SettingError, match=r"bit_depth must be auto, or from 8 to 16 bits, got .*12 or 14"):
        make(PatchCore, tiny_backbone, bit_depth=asked)


# ---------------------------------------------------------------------- detectors


@pytest.mark.parametrize("kind", [PatchCore, PaDiM, SPADE])
def test_a_detector_says_the_same_of_all_three_kinds_of_files(kind, tiny_backbone, tmp_path):
    scores = []
    for name, pictures in (("eight", EIGHT), ("low", low()), ("high", high())):
        folder = save(tmp_path / name, pictures)
        detector = make(kind, tiny_backbone).fit(sorted(folder.iterdir())[:5])
        detector.save(tmp_path / f"{name}.trecall")
        detector = load_detector(tmp_path / f"{name}.trecall")
        scores.append([detector.predict(folder / "5.png").score, detector.predict(pictures[5]).score])
    assert scores[0] == scores[1] == scores[2]
    assert scores[0][0] == scores[0][1]
    assert detector.recipe.depth == BitDepth(12, 4, eight_bit=False)


def test_without_the_depth_a_12_bit_picture_would_be_nearly_black(tmp_path):
    path = save(tmp_path, low()) / "0.png"
    assert read_image(path).max() == 16
    assert read_image(path, BitDepth(12)).max() == 255


def test_a_model_file_of_before_takes_the_full_range(tiny_backbone, tmp_path):
    make(PatchCore, tiny_backbone).fit(EIGHT[:5]).save(tmp_path / "m.trecall")
    header, tensors = read_artifact(tmp_path / "m.trecall")
    assert header["recipe"]["bit_depth"] is None
    del header["recipe"]["bit_depth"]
    write_artifact(tmp_path / "m.trecall", header, tensors)
    former = load_detector(tmp_path / "m.trecall")
    assert former.recipe.depth is None
    full = EIGHT[5].astype(np.uint16) * 257
    assert former.predict(full).score == former.predict(EIGHT[5]).score


def test_fitting_again_finds_the_depth_again(tiny_backbone):
    detector = make(PatchCore, tiny_backbone).fit(low()[:5])
    assert detector.recipe.depth.bits == 12
    detector.fit(EIGHT[:5])
    assert detector.recipe.depth.bits is None
    assert detector.predict(EIGHT[5]).score >= 0


def test_a_depth_that_is_given_holds_whatever_the_pictures_use(tiny_backbone):
    dark = [picture >> 3 for picture in SPREAD]
    detector = make(PatchCore, tiny_backbone, bit_depth=12).fit(dark[:5])
    assert detector.recipe.depth == BitDepth(12, 0, eight_bit=False)
    assert detector.predict(SPREAD[5]).score >= 0
    assert make(PatchCore, tiny_backbone, bit_depth="12").fit(high()[:5]).recipe.depth.shift == 4


def test_update_and_audit_take_12_bits_too(tiny_backbone, tmp_path):
    detector = make(PatchCore, tiny_backbone).fit(low()[:5])
    change = detector.update(add=[SPREAD[5], EIGHT[5]])
    assert "holds 8-bit pixels" in str(change.skipped[0])
    assert len(detector.pictures_) == 6
    options = {"backbone": tiny_backbone, "size": 64}
    seen = {
        name: audit(pictures, ComparedSettings(**options))
        for name, pictures in (("8", EIGHT), ("low", low()), ("high", high()))
    }
    levels = {name: [entry.level for entry in found.entries] for name, found in seen.items()}
    assert levels["8"] == levels["low"] == levels["high"]
    assert np.array_equal(next(seen["low"].show(1)).image, next(seen["8"].show(1)).image)


def test_overlays_and_patches_of_a_report_show_what_the_camera_saw(tiny_backbone, tmp_path):
    shown, pairs = [], []
    for name, pictures in (("eight", EIGHT), ("low", low()), ("high", high())):
        folder = save(tmp_path / name, pictures)
        detector = make(PatchCore, tiny_backbone).fit(sorted(folder.iterdir())[:5])
        result, depth = detector.predict(folder / "5.png"), detector.recipe.depth
        shown.append(result.overlay(title="x"))
        pairs.append(patch_pair(folder / "5.png", (30, 20), folder / "0.png", (9, 9), depth=depth))
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], shown[2])
    assert pairs[0] == pairs[1] == pairs[2]


def test_one_alien_picture_is_told_by_a_fit(tiny_backbone):
    with pytest.warns(UnlikePictureWarning, match="Only an array has values above 4095"):
        make(PatchCore, tiny_backbone).fit([*low()[:5], SPREAD[5] << 4])


# ---------------------------------------------------------------------- arrays


def test_float_arrays_have_the_range_from_0_to_1(tiny_backbone):
    detector = make(PatchCore, tiny_backbone).fit(EIGHT[:5])
    expected = detector.predict(EIGHT[5]).score
    for dtype in (np.float32, np.float64):
        assert detector.predict(EIGHT[5].astype(dtype) / 255).score == expected
    twelve = make(PatchCore, tiny_backbone).fit(low()[:5])
    assert twelve.predict(EIGHT[5] / 255).score == expected


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.full((8, 8), 200.0),
            "array[0] holds float64 values from 200 to 200; from 0 to 1 are allowed. Divide",
        ),
        (np.full((8, 8), -0.1), "array[0] holds float64 values from -0.1 to -0.1; from 0 to 1 are allowed."),
        (np.full((8, 8), np.nan), "array[0] holds values that are nan or infinite. Give numbers from 0 to 1."),
        (np.full((8, 8), np.inf), "array[0] holds values that are nan or infinite. Give numbers from 0 to 1."),
        (
            np.zeros((8, 8), np.int64),
            "array[0] must hold uint8 (0 to 255), uint16, or float from 0 to 1, got int64",
        ),
        (np.zeros((8, 8), np.uint32), "array[0] must hold uint8 (0 to 255), uint16, or float from 0 to 1, got uint32"),
    ],
)
def test_an_array_of_another_range_is_refused(array, message):
    assert str(load_picture(array, Recipe(size=32)).error).startswith(message)


# ---------------------------------------------------------------------- the command line


def test_fit_says_what_it_found_and_predict_names_what_does_not_fit(added, tmp_path, capsys):
    good = save(tmp_path / "good", low())
    model = str(tmp_path / "m.trecall")
    options = ["--backbone", added, "--size", "64", "--at-least", "50"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["fit", str(good), "-o", model, *options]) == 0
        assert "Bit depth: 12 of 16 bits used\n" in capsys.readouterr().out
        save(tmp_path / "new", [EIGHT[0]])
        assert main(["predict", model, str(tmp_path / "new"), str(good / "1.png")]) == 1
        captured = capsys.readouterr()
        assert "0.png holds 8-bit pixels, and the model was fitted on pictures of 12 bits" in captured.err
        assert "1.png" in captured.out
        assert main(["fit", str(good), "-o", model, *options, "--bit-depth", "10"]) == 1
        assert "above the 10 bits of the model (up to 1023)" in capsys.readouterr().err
        assert main(["fit", str(good), "-o", model, *options, "--bit-depth", "7"]) == 2
        assert "--bit-depth must be auto, or from 8 to 16 bits, got 7." in capsys.readouterr().err
        assert main(["info", model, "--json", "-"]) == 0
        assert json.loads(capsys.readouterr().out)["prepared"]["bit_depth"] == 12
