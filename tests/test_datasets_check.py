"""A thorough look at a data set: sizes from headers, files that cannot be read, and the command that tells of them."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import dataset_trees as trees
from totalrecall.cli import main
from totalrecall.datasets import LAYOUTS, open_dataset
from totalrecall.datasets.check import check_files, picture_size
from totalrecall.errors import PictureError
from totalrecall.pictures.loading import read_image

# --- the size of a picture from its first bytes ---


def encoded(suffix, pixels, *options):
    return cv2.imencode(suffix, pixels, list(options))[1].tobytes()


def with_exif(jpeg, orientation, order="<"):
    """Return a JPEG with an Exif block: two entries, of which the second is the orientation."""
    entries = struct.pack(f"{order}HHII", 0x010F, 2, 4, 0) + struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, 2) + entries + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def top_down(bmp):
    """Return a BMP whose rows go from top to bottom, which a negative height says."""
    height = struct.unpack_from("<i", bmp, 22)[0]
    return bmp[:22] + struct.pack("<i", -height) + bmp[26:]


COLOUR = np.random.default_rng(0).integers(0, 255, (23, 37, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
PNG, JPEG, BMP = encoded(".png", COLOUR), encoded(".jpg", COLOUR), encoded(".bmp", COLOUR)
PICTURES = {
    "colour.png": PNG,
    "grey.png": encoded(".png", GREY),
    "deep.png": encoded(".png", GREY.astype(np.uint16) * 257),
    "alpha.png": encoded(".png", np.dstack([COLOUR, GREY])),
    "trailing.png": PNG + b"left by an editor",
    "colour.jpg": JPEG,
    "grey.JPG": encoded(".jpg", GREY),
    "progressive.jpg": encoded(".jpg", COLOUR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts.jpg": encoded(".jpg", COLOUR, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "upright.jpg": with_exif(JPEG, 1),
    "upside_down.jpg": with_exif(JPEG, 3),
    "on_its_side.jpg": with_exif(JPEG, 6),
    "on_its_side_motorola.jpg": with_exif(JPEG, 8, ">"),
    "odd_exif.jpg": JPEG[:2] + b"\xff\xe1\x00\x10Exif\0\0II*\0\xff\xff\xff\x7f" + JPEG[2:],
    "fill_bytes.jpg": JPEG[:2] + b"\xff\xff\xff" + JPEG[2:],
    "trailing.jpg": JPEG + b"\0\0",
    "colour.bmp": BMP,
    "grey.bmp": encoded(".bmp", GREY),
    "top_down.bmp": top_down(BMP),
    "colour.tif": encoded(".tif", COLOUR),
    "colour.webp": encoded(".webp", COLOUR),
    "really_a_jpeg.png": JPEG,
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_size_in_the_header_is_that_of_the_decoded_picture(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(PICTURES[name])
    assert picture_size(path) == read_image(path).shape[:2]
    assert picture_size(path) == ((37, 23) if "its_side" in name else (23, 37))


@pytest.mark.parametrize("name", ["colour.png", "colour.jpg", "grey.JPG", "colour.bmp", "on_its_side.jpg", "deep.png"])
def test_plain_pictures_are_not_decoded(name, tmp_path, monkeypatch):
    monkeypatch.setattr("totalrecall.datasets.check.read_image", lambda path: pytest.fail(f"decoded {path}"))
    path = tmp_path / name
    path.write_bytes(PICTURES[name])
    assert sorted(picture_size(path)) == [23, 37]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"RIFF", "is not a picture"),
        (PNG[:-5], "is truncated"),
        (PNG[:30], "is truncated"),
        (PNG[:8], "is truncated"),
        (JPEG[:-300], "is truncated"),
        (JPEG[:4], "is truncated"),
        (BMP[:-1], "is truncated"),
        (BMP[:20], "is (truncated|damaged)"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 50, "is truncated"),
        (b"\xff\xd8\xff\xe0\0\0" + b"\0" * 50, "is (truncated|damaged)"),
    ],
)
def test_a_broken_picture_is_told_in_the_words_of_the_decoder(content, message, tmp_path):
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PictureError, match=message):
        picture_size(path)


@settings(max_examples=150)
@given(
    name=st.sampled_from(["colour.png", "colour.jpg", "colour.bmp", "on_its_side.jpg"]),
    at=st.integers(0, 120),
    byte=st.integers(0, 255),
    end=st.integers(0, 400),
)
def test_a_file_with_any_byte_changed_or_cut_gives_a_size_or_a_picture_error(name, at, byte, end, tmp_path_factory):
    content = bytearray(PICTURES[name])
    content[at] = byte
    path = tmp_path_factory.getbasetemp() / f"changed_{name}"
    path.write_bytes(content[: len(content) - end] if byte % 2 else content)
    try:
        height, width = picture_size(path)
    except PictureError:
        return
    assert height > 0
    assert width > 0


def test_the_real_pictures_have_the_sizes_of_their_headers(shared):
    paths = sorted((shared / "data" / "mtd" / "MT_Crack" / "Imgs").iterdir())
    paths += sorted((shared / "data" / "mvtec_ad" / "bottle" / "ground_truth" / "contamination").iterdir())
    assert [picture_size(path) for path in paths] == [read_image(path).shape[:2] for path in paths]


# --- the files of a set ---


def test_files_that_are_not_as_they_should_be_are_named_each(tmp_path):
    root = trees.mvtec(tmp_path) / "washer"
    trees.several(root / "test/crack", "001.png 002.png")
    trees.mask(root / "ground_truth/crack/001_mask.png", height=9)
    (root / "ground_truth/crack/002_mask.png").write_bytes(b"")
    (root / "train/good/001.png").write_bytes(PNG[:-5])
    steps = []
    problems = check_files(open_dataset("mvtec", root), progress=lambda done, total: steps.append((done, total)))
    assert [(p.path.relative_to(root).as_posix(), p.message.replace(str(root), "ROOT")) for p in problems] == [
        ("train/good/001.png", "ROOT/train/good/001.png is truncated: its end is missing. Copy it again."),
        (
            "ground_truth/crack/001_mask.png",
            "The mask ROOT/ground_truth/crack/001_mask.png is 8 x 9 pixels, its picture ROOT/test/crack/001.png 8 x 6. "
            "They must be of one size.",
        ),
        (
            "ground_truth/crack/002_mask.png",
            "The mask of ROOT/test/crack/002.png cannot be used: "
            "ROOT/ground_truth/crack/002_mask.png is empty (0 bytes).",
        ),
    ]
    assert steps == [(i, 7) for i in range(1, 8)]


def test_damage_in_the_middle_is_found_by_decoding_alone(tmp_path):
    root = trees.mvtec(tmp_path) / "washer"
    damaged = bytearray(PNG)
    damaged[len(PNG) // 2] ^= 0xFF
    (root / "train/good/000.png").write_bytes(damaged)
    data = open_dataset("mvtec", root)
    assert check_files(data) == []
    assert [(p.path.name, "checksum" in p.message) for p in check_files(data, decode=True)] == [("000.png", True)]


def test_arrays_of_masks_are_compared_with_their_frames(tmp_path):
    root = trees.mstc(tmp_path)
    masks = root / "testing/test_pixel_mask"
    trees.array(masks / "01_0014.npy", np.zeros((12, 6, 9), np.uint8))
    trees.array(masks / "12_0142.npy", np.zeros((3, 6, 8), np.uint8))
    wrong_size = check_files(open_dataset("mstc", root, category="01"))
    assert [p.path.name for p in wrong_size] == ["01_0014.npy"]
    assert "is 9 x 6 pixels, its picture" in wrong_size[0].message
    too_short = check_files(open_dataset("mstc", root, category="12"))
    assert "has the shape (3, 6, 8) and no frame 5. Restore the file." in too_short[0].message
    (masks / "12_0142.npy").write_bytes(b"")
    assert "is not an array of masks" in check_files(open_dataset("mstc", root, category="12"))[0].message


# --- the command ---


def test_the_list_has_every_layout_with_page_and_licence(capsys):
    assert main(["datasets"]) == 0
    out = capsys.readouterr().out
    for layout in LAYOUTS:
        assert layout in out
    assert "https://www.mvtec.com/company/research/datasets/mvtec-loco" in out
    assert "CC BY-NC-SA 4.0" in out
    assert "3629" in out


def test_the_list_as_json(capsys, tmp_path):
    assert main(["datasets", "--json", "-"]) == 0
    listed = json.loads(capsys.readouterr().out)["datasets"]
    assert [info["layout"] for info in listed] == list(LAYOUTS)
    assert main(["datasets", "visa", "--json", str(tmp_path / "visa.json"), "--quiet"]) == 0
    visa = json.loads((tmp_path / "visa.json").read_text())
    assert visa["categories"]["pcb3"] == {"train": 905, "validation": 0, "good": 101, "anomalous": 100}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_alone_is_described(layout, capsys):
    assert main(["datasets", layout]) == 0
    assert "ROOT" in capsys.readouterr().out


def test_a_whole_set_is_told_so(shared, capsys):
    assert main(["datasets", "mtd", str(shared / "data" / "mtd")]) == 0
    assert main(["datasets", "mvtec", str(shared / "data" / "mvtec_ad")]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("No problem was found.") == 2
    assert captured.out.count(" yes ") == 2


def test_a_set_of_ones_own_without_masks_is_fine(tmp_path, capsys):
    root = trees.folder(tmp_path / "own")
    (root / "masks/scratch/a.png").unlink()
    assert main(["datasets", "folder", str(root)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "own: None of the 1 anomalous pictures has a mask: pixel metrics will be nan." in captured.out


def test_what_is_wrong_is_on_stderr_and_in_the_json_and_gives_1(tmp_path, capsys):
    root = trees.mvtec(tmp_path / "set")
    for i in range(12):
        (root / f"washer/train/good/1{i:02}.png").write_bytes(b"")
    (root / "hazelnut/train/good/000.png").unlink()
    for name in ("001", "002"):
        (root / f"hazelnut/train/good/{name}.png").unlink()
    report = tmp_path / "report.json"
    assert main(["datasets", "mvtec", str(root), "--json", str(report)]) == 1
    captured = capsys.readouterr()
    errors = captured.err.splitlines()
    assert errors[0].startswith(
        "totalrecall: bottle: The pictures of bottle are not as many as in the official MVTec AD"
    )
    assert errors[1].startswith("totalrecall: hazelnut: There are no pictures in ")
    assert sum("is empty (0 bytes)" in line for line in errors) == 10
    assert errors[-1] == "totalrecall: washer: 2 more like these; --json lists them all."
    assert "Official categories that are not here: cable, capsule" in captured.out
    assert "No problem was found." not in captured.out
    facts = json.loads(report.read_text())
    assert facts["ok"] is False
    assert [(c["category"], c["wrong"], len(c["problems"])) for c in facts["categories"]] == [
        ("bottle", True, 0),
        ("hazelnut", True, 0),
        ("washer", True, 12),
    ]
    assert facts["categories"][0]["official"] == {"train": 209, "validation": 0, "good": 20, "anomalous": 63}
    assert facts["categories"][2]["official"] is None


def test_categories_can_be_named(tmp_path, capsys):
    root = trees.mvtec(tmp_path)
    assert main(["datasets", "mvtec", str(root), "--categories", "washer", "--decode", "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [c["category"] for c in facts["categories"]] == ["washer"]
    assert facts["absent"] == []
    assert main(["datasets", "mvtec", str(root), "--categories", "washer", "screw"]) == 1
    assert f"totalrecall: screw: There is no category screw in {root}." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--decode"], 2, "--categories, --decode and --extract-frames need a data set on disk. Give LAYOUT and ROOT."),
        (["mstc", "--extract-frames"], 2, "need a data set on disk"),
        (["btad", "ROOT", "--extract-frames"], 2, "--extract-frames is for mstc, got btad. Leave it out."),
        (["btad", "ROOT/nowhere"], 1, "There is no folder "),
        (["visa", "ROOT"], 1, "is not of the visa layout: it has no "),
        (["mstc", "ROOT", "--extract-frames"], 1, "There are no videos in "),
        (["btad", "ROOT", "--json", "ROOT"], 1, "it is a folder. Name a file in it."),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments, code, message, tmp_path, capsys):
    root = trees.btad(tmp_path)
    assert main(["datasets", *(text.replace("ROOT", str(root)) for text in arguments)]) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_quiet_prints_results_and_errors_alone(tmp_path, capsys):
    root = trees.mvtec(tmp_path)
    assert main(["datasets", "mvtec", str(root), "--categories", "washer", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert "washer" in captured.out
    assert "No problem was found." not in captured.out
    assert captured.err == ""


def test_paths_are_shown_as_given(tmp_path, monkeypatch, capsys):
    root = trees.btad(tmp_path / "set")
    (root / "02/test/ok/0000.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert main(["datasets", "btad", "set", "--categories", "02"]) == 1
    assert f"{Path('set/02/test/ok/0000.png')} is empty" in capsys.readouterr().err
