"""Pictures of strangers on the command line: what is no file, what states too much; the good ones are judged."""

import json
import os
import struct

import cv2
import numpy as np
import pytest

from totalrecall.cli import main
from totalrecall.datasets import DataSet, Sample
from totalrecall.datasets.check import check_files
from totalrecall.pictures.formats.header import MAX_PIXELS, max_pixels


@pytest.fixture
def hostile(tmp_path):
    """Return a folder of pictures that must not be believed."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    info = struct.pack("<IiiHHIIiiII", 40, 30000, 30000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "large.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 1080, 0, 0, 54) + info + bytes(1026))
    screen = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
    (tmp_path / "screen.png").write_bytes(screen)
    return tmp_path


def test_the_good_pictures_beside_them_are_judged(model, parts, hostile, tmp_path, capsys):
    good = sorted((parts / "train" / "good").glob("*.png"))[:2]
    bad = [hostile / name for name in ("pipe.png", "zero.png", "large.bmp", "screen.png")]
    arguments = [str(one) for one in (bad[0], good[0], *bad[1:], good[1])]
    assert main(["predict", str(model), *arguments, "--json", str(tmp_path / "out.jsonl")]) == 1
    assert len([json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines() if "score" in line]) >= 2
    said = capsys.readouterr().err
    assert "pipe.png cannot be read: it is a pipe, not a file." in said
    assert "zero.png cannot be read: it is a device, not a file." in said
    assert "large.bmp is too large: 30000 x 30000 pixels, allowed are 100,000,000 (--max-pixels)." in said
    assert "screen.png is not a picture that can be decoded." in said


def test_the_limit_is_an_option_and_holds_for_that_command_alone(model, parts, capsys):
    good = str(min((parts / "train" / "good").glob("*.png")))
    assert main(["predict", str(model), good, "--max-pixels", "99"]) == 1
    assert "allowed are 99 (--max-pixels)" in capsys.readouterr().err
    assert main(["predict", str(model), good]) == 0
    assert max_pixels() == MAX_PIXELS
    assert main(["predict", str(model), good, "--max-pixels", "0"]) == 2
    assert "--max-pixels must be at least 1, got 0." in capsys.readouterr().err


@pytest.mark.parametrize("decode", [False, True])
def test_a_check_of_a_data_set_names_what_is_no_file_and_goes_on(hostile, decode):
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    cv2.imwrite(str(hostile / "good.png"), picture)
    jpeg = cv2.imencode(".jpg", cv2.resize(picture, (160, 120)))[1].tobytes()
    (hostile / "cut.jpg").write_bytes(jpeg[: len(jpeg) * 2 // 3].rstrip(b"\xff") + b"\xff\xd9")
    tiff = bytearray(cv2.imencode(".tiff", picture, [cv2.IMWRITE_TIFF_COMPRESSION, 8])[1].tobytes())
    tiff[60:80] = bytes(20)
    (hostile / "strip.tiff").write_bytes(tiff)
    names = ["pipe.png", "good.png", "zero.png", "cut.jpg", "strip.tiff"]
    samples = tuple(Sample(hostile / name, 0, "good", None, "test", "part") for name in names)
    problems = {one.path.name for one in check_files(DataSet("part", hostile, "part", samples), decode=decode)}
    wanted = {"pipe.png", "zero.png", "strip.tiff"} | ({"cut.jpg"} if decode else set())
    assert wanted <= problems
    assert "good.png" not in problems
