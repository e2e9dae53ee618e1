"""pictures.loading: files are found and read; a bad one is named and the others go on, in order."""

import itertools
import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from totalrecall.errors import DataError, PictureError
from totalrecall.pictures.files import find_pictures
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import load_pictures, read_image
from totalrecall.system.files import sha256

SMALL = Recipe(size=32)
PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def save(path, rgb=PICTURE):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", rgb[:, :, ::-1] if rgb.ndim == 3 else rgb)[1].tobytes())
    return path


def refusal(error, call, *arguments):
    with pytest.raises(error) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------- one file


@pytest.mark.parametrize("name", ["plain.png", "größe 漢字 ☂.png", "no suffix", "wrong.JPG", "[1]*?.png"])
def test_a_picture_of_any_name_is_read_by_its_content(tmp_path, name):
    assert np.array_equal(read_image(save(tmp_path / name)), PICTURE)
    assert np.array_equal(read_image(str(tmp_path / name)), PICTURE)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_a_name_that_is_no_unicode_is_read(tmp_path):
    path = save(tmp_path / os.fsdecode(b"\xff\xfe.png"))
    assert np.array_equal(read_image(path), PICTURE)
    assert find_pictures(tmp_path) == [path]


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "x.png").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    assert refusal(PictureError, read_image, tmp_path / "none.png") == f"{tmp_path / 'none.png'} does not exist."
    assert refusal(PictureError, read_image, tmp_path / "x.png") == (
        f"{tmp_path / 'x.png'} cannot be read: it is a folder."
    )
    assert refusal(PictureError, read_image, tmp_path / "empty.png") == f"{tmp_path / 'empty.png'} is empty (0 bytes)."
    assert refusal(PictureError, read_image, tmp_path / "text.png") == (
        f"{tmp_path / 'text.png'} is not a picture that can be decoded. Allowed: JPEG, PNG, BMP, TIFF, WebP."
    )
    assert refusal(PictureError, read_image, "a\0b.png") == "a\0b.png cannot be read: its name holds a NUL byte."
    assert refusal(PictureError, read_image, "a" * 300).endswith("cannot be read: File name too long.")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_a_file_without_permission_is_named(tmp_path):
    save(tmp_path / "a.png").chmod(0)
    assert refusal(PictureError, read_image, tmp_path / "a.png") == (
        f"{tmp_path / 'a.png'} cannot be read: Permission denied."
    )


# ---------------------------------------------------------------------- finding


def test_a_folder_is_searched_to_any_depth_in_order(tmp_path):
    expected = [save(tmp_path / name) for name in ("a.png", "b/c.JPG", "b/d/e.Tiff", "b/d/f.webp", "z.jpeg")]
    (tmp_path / "notes.txt").touch()
    (tmp_path / "d.png").mkdir()  # a folder that is named like a picture
    save(tmp_path / ".hidden.png")
    save(tmp_path / ".thumbnails" / "a.png")
    assert find_pictures(tmp_path) == expected
    assert find_pictures(str(tmp_path)) == expected


def test_a_folder_that_lies_below_a_hidden_one_is_searched_all_the_same(tmp_path):
    assert find_pictures(save(tmp_path / ".cache" / "parts" / "a.png").parent) == [
        tmp_path / ".cache" / "parts" / "a.png"
    ]


def test_inputs_keep_their_order_and_nothing_comes_twice(tmp_path):
    a, b, c = (save(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    assert find_pictures([b, tmp_path, str(c), tmp_path / "*.png", f"{tmp_path}/./a.png"]) == [b, a, c]
    assert find_pictures(iter([c, a])) == [c, a]
    assert find_pictures([]) == []


def test_globs_find_pictures_and_search_folders(tmp_path):
    a, b = save(tmp_path / "p" / "a1.png"), save(tmp_path / "p" / "q" / "a2.PNG")
    (tmp_path / "p" / "a3.txt").touch()
    (tmp_path / "p" / "a4.png").mkdir()
    save(tmp_path / "p" / ".a5.png")
    assert find_pictures(f"{tmp_path}/p/*") == [a, b]  # the folders that it matches are searched
    assert find_pictures(tmp_path / "p" / "**" / "*") == [a, b]
    assert find_pictures(f"{tmp_path}/p/a[0-9].*") == [a]


def test_a_file_whose_name_reads_like_a_glob_is_that_file(tmp_path):
    strange = save(tmp_path / "part[1].png")
    save(tmp_path / "part1.png")
    assert find_pictures(tmp_path / "part[1].png") == [strange]


def test_a_named_picture_is_taken_even_if_it_is_missing_hidden_or_has_no_suffix(tmp_path):
    hidden, plain = save(tmp_path / ".hidden.png"), save(tmp_path / "picture")
    link = tmp_path / "link.png"
    link.symlink_to("nowhere")
    named = [tmp_path / "missing.png", hidden, plain, link]
    assert find_pictures(named) == named  # reading tells what is wrong; the others go on


def test_inputs_without_a_picture_are_named(tmp_path):
    kinds = "Pictures end in: jpg jpeg png bmp tif tiff webp (any case)."
    advice = "Give picture files, folders or globs such as 'parts/*.png'."
    (tmp_path / "x.png").mkdir()
    assert refusal(DataError, find_pictures, tmp_path / "x.png") == f"{tmp_path / 'x.png'} holds no picture. {kinds}"
    assert refusal(DataError, find_pictures, f"{tmp_path}/*.png") == f"{tmp_path}/*.png holds no picture. {kinds}"
    assert refusal(DataError, find_pictures, tmp_path / "none") == f"{tmp_path / 'none'} does not exist. {advice}"
    assert refusal(DataError, find_pictures, "") == f"An empty name was given. {advice}"
    for name in ("a\0b", "a" * 5000):
        assert refusal(DataError, find_pictures, name) == f"{name} does not exist. {advice}"
    assert "holds no picture" in refusal(DataError, find_pictures, "a" * 5000 + "*.png")


# ---------------------------------------------------------------------- many


def test_pictures_come_in_order_whatever_thread_is_first():
    sources = [np.full((1 + 97 * (i % 3), 5 + 300 * (i % 2), 3), i, np.uint8) for i in range(40)]
    loaded = list(load_pictures(sources, SMALL, threads=4))
    assert [one.path for one in loaded] == [f"array[{i}]" for i in range(40)]
    assert [one.prepared[0, 0, 0] for one in loaded] == list(range(40))
    assert [one.geometry.original for one in loaded] == [source.shape[:2] for source in sources]
    assert all(one.image is source for one, source in zip(loaded, sources, strict=True))


def test_bad_files_among_good_ones_carry_their_error(tmp_path):
    good = save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    sources = [good, tmp_path / "empty.png", tmp_path / "none.png", str(good), np.zeros((9, 9, 5), np.uint8)]
    loaded = list(load_pictures(sources, SMALL, hashes=True))
    assert [one.error is None for one in loaded] == [True, False, False, True, False]
    assert str(loaded[1].error) == f"{tmp_path / 'empty.png'} is empty (0 bytes)."
    assert loaded[1].prepared is None
    assert loaded[3].path == str(good)
    assert loaded[3].sha256 == sha256(good.read_bytes())


@pytest.mark.parametrize("array", [np.zeros((4, 5, 2), np.uint8), np.zeros((0, 5), np.uint8), np.zeros(7, np.uint8)])
@pytest.mark.parametrize("recipe", [SMALL, Recipe(size=32, resize="letterbox")])
def test_an_array_that_is_no_picture_says_what_is_wanted(array, recipe):
    (loaded,) = load_pictures([array], recipe)
    assert str(loaded.error) == (
        "array[0] must be a uint8 RGB array (h, w, 3), grey (h, w) or RGBA (h, w, 4), "
        f"got {array.dtype} {array.shape}. Convert it first."
    )


def test_a_grey_array_and_a_view_are_pictures_too():
    grey = PICTURE[:, :, 0]
    for array, expected in ((grey, np.dstack([grey] * 3)), (PICTURE[::-1, :, ::-1], PICTURE[::-1, :, ::-1])):
        (loaded,) = load_pictures([array], Recipe(size=32), hashes=True)
        assert np.array_equal(loaded.image, expected)
        assert loaded.sha256 == sha256(np.ascontiguousarray(expected).tobytes())


def test_a_picture_that_cannot_be_prepared_is_named_and_the_next_one_goes_on():
    long, good = np.zeros((1, 100, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)
    bad, fine = load_pictures([long, good], Recipe(size=32, resize="crop"))
    assert str(bad.error).startswith("array[0]: A picture of 100 x 1 pixels is too long to crop")
    assert fine.error is None


def test_pictures_are_drawn_only_a_few_ahead():
    drawn = itertools.count()
    endless = (PICTURE for _ in drawn)
    stream = load_pictures(endless, SMALL, threads=2)
    for _ in range(5):
        next(stream)
    stream.close()
    assert next(drawn) <= 5 + 2 * 2 + 3


def test_closing_early_ends_the_threads():
    stream = load_pictures([PICTURE] * 100, SMALL, threads=3)
    next(stream)
    stream.close()
    for thread in threading.enumerate():
        if thread.name.startswith("totalrecall-read"):
            thread.join(10)
            assert not thread.is_alive()


def test_an_error_of_the_source_comes_out():
    def broken():
        yield PICTURE
        raise RuntimeError("the camera went away")

    stream = load_pictures(broken(), SMALL)
    with pytest.raises(RuntimeError, match="the camera went away"):
        list(stream)


def test_a_region_that_is_no_bool_array_is_refused_where_nobody_checks_types():
    code = (
        "import numpy as np; from totalrecall.pictures.geometry import Recipe\n"
        "try: Recipe(roi=np.full((4, 5, 3), 255, np.uint8))\n"
        "except ValueError as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == ("roi must be a bool array (h, w), got uint8 (4, 5, 3). For a grey mask write mask > 127.")
