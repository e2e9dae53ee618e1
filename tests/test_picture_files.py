"""Every file that looks like a picture is read or told: links, other formats, masks among the pictures."""

import json
import os
import warnings

import cv2
import numpy as np
import pytest

from tests.dataset_trees import mask, picture
from tests.parts import link
from totalrecall import PatchCore
from totalrecall.cli import main
from totalrecall.errors import DataError, PassedOverWarning
from totalrecall.pictures.files import (
    UNREAD_SUFFIXES,
    find_pictures,
    is_mask_folder,
    passed_over_note,
    search_pictures,
    walk_pictures,
)


def notes_of(inputs):
    return passed_over_note(search_pictures(inputs).passed_over)


def pgm(path):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"P5 1 1 255 x")


# ---------------------------------------------------------------------- links


def test_pictures_behind_a_link_to_a_folder_are_read(tmp_path):
    near = picture(tmp_path / "set" / "a.png")
    picture(tmp_path / "store" / "b.png")
    picture(tmp_path / "store" / "deep" / "c.png")
    link(tmp_path / "set" / "more", tmp_path / "store")
    more = tmp_path / "set" / "more"
    assert find_pictures(tmp_path / "set") == [near, more / "b.png", more / "deep" / "c.png"]


def test_links_in_a_circle_end_and_no_folder_is_read_twice(tmp_path):
    folder = tmp_path / "set"
    pictures = [picture(folder / "b" / "1.png"), picture(folder / "b" / "2.png")]
    link(folder / "a", folder / "b")  # before b by name
    link(folder / "b" / "up", folder)
    link(tmp_path / "all", folder)
    assert find_pictures(folder) == pictures
    assert len(find_pictures(tmp_path / "all")) == 2
    assert walk_pictures(folder).paths == pictures


def test_a_link_to_a_file_is_read_and_one_to_nowhere_is_told(tmp_path):
    target = picture(tmp_path / "store" / "a.png")
    read = link(tmp_path / "set" / "a.png", target) if (tmp_path / "set").mkdir() is None else None
    link(tmp_path / "set" / "gone.png", tmp_path / "store" / "gone.png")
    found = search_pictures(tmp_path / "set")
    assert found.paths == [read]
    assert passed_over_note(found.passed_over) == (
        "1 file was passed over: 1 link that leads nowhere (gone.png). Restore what the links lead to, or delete them."
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_under_a_pictures_name_is_told_and_not_waited_for(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    os.mkfifo(tmp_path / "c")
    assert notes_of(tmp_path).startswith("1 file was passed over: 1 pipe or device (b.png).")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="every folder opens to this user")
def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "closed" / "b.png")
    (tmp_path / "closed").chmod(0)
    try:
        assert "1 folder that cannot be read (closed)" in notes_of(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)


# ---------------------------------------------------------------------- formats


def test_forty_files_of_a_format_that_is_not_read_are_told_with_a_count_and_three_names(tmp_path):
    read = picture(tmp_path / "a.png")
    for at in range(40):
        pgm(tmp_path / f"{at:02}.pgm")
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.warns(PassedOverWarning) as told:
        assert find_pictures(tmp_path) == [read]
    assert [str(one.message) for one in told] == [
        "40 files were passed over: 40 .pgm (00.pgm, 01.pgm, 02.pgm and 37 more). Convert them to PNG."
    ]


@pytest.mark.parametrize("suffix", sorted(UNREAD_SUFFIXES))
def test_every_known_format_that_is_not_read_is_told_in_any_case(tmp_path, suffix):
    picture(tmp_path / "a.png")
    (tmp_path / f"b{suffix.upper()}").write_bytes(b"x")
    assert f"1 {suffix} (b{suffix.upper()})" in notes_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["a.txt", "a.csv", "a.json", "a.xml", "Thumbs.db", ".hidden.pgm", "notes", "BMs", "a.md"]
)
def test_what_is_no_picture_is_not_told(tmp_path, name):
    picture(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"BM as two letters in a text")
    assert notes_of(tmp_path) == ""


def test_pictures_without_a_suffix_are_told_by_their_first_bytes(tmp_path):
    data = picture(tmp_path / "a.png").read_bytes()
    (tmp_path / "0001").write_bytes(data)
    (tmp_path / "scan").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 8)
    (tmp_path / "phone").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    assert notes_of(tmp_path) == (
        "3 files were passed over: 3 pictures without a suffix (0001, phone, scan). Give them a suffix such as .png."
    )


def test_a_folder_with_nothing_but_other_formats_says_which(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"holds no picture\. .* 1 file was passed over: 1 \.heic \(a\.heic\)\. Convert"
    ):
        find_pictures(tmp_path)


def test_what_a_pattern_matches_and_is_not_read_is_told(tmp_path):
    read = picture(tmp_path / "a.png")
    pgm(tmp_path / "b.ppm")
    assert notes_of(f"{tmp_path}/*") == "1 file was passed over: 1 .ppm (b.ppm). Convert them to PNG."
    assert search_pictures(f"{tmp_path}/*.png").passed_over == []
    assert search_pictures([read, tmp_path]).paths == [read]


# ---------------------------------------------------------------------- masks


@pytest.mark.parametrize("ending", ["_mask", "_gt", "_label", "_MASK", "_ground_truth"])
def test_a_mask_beside_its_picture_is_no_picture(tmp_path, ending):
    read = picture(tmp_path / "a.jpg")
    mask(tmp_path / f"a{ending}.png")
    lonely = picture(tmp_path / f"b{ending}.png")
    found = search_pictures(tmp_path)
    assert found.paths == [read, lonely]
    assert f"1 mask beside its picture (a{ending}.png)" in passed_over_note(found.passed_over)


def test_a_black_and_white_picture_beside_a_photograph_of_its_stem_is_a_mask(tmp_path):
    """Magnetic Tile Defects lies so: `a.jpg` and its mask `a.png`. The same photograph in two formats is no mask."""
    photograph = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    marked = np.zeros((32, 32), np.uint8)
    marked[8:20, 8:20] = 255
    marked[8, 8:20] = 120  # an edge
    for stem, lossy, lossless in (("a", photograph, marked), ("b", photograph, photograph), ("d", marked, marked)):
        cv2.imwrite(str(tmp_path / f"{stem}.jpg"), lossy)
        cv2.imwrite(str(tmp_path / f"{stem}.png"), lossless)
    cv2.imwrite(str(tmp_path / "c.png"), np.full((32, 32), 255, np.uint8))
    (tmp_path / "b.bmp").write_bytes(b"torn")
    found = search_pictures(tmp_path)
    assert [path.name for path in found.paths] == ["a.jpg", "b.bmp", "b.jpg", "b.png", "c.png", "d.jpg", "d.png"]
    assert "1 mask beside its picture (a.png)" in passed_over_note(found.passed_over)


def test_masks_that_a_shells_pattern_names_beside_their_pictures_are_no_pictures(tmp_path):
    named = [picture(tmp_path / "a.png"), mask(tmp_path / "a_mask.png"), picture(tmp_path / "b.png")]
    assert find_of_warned(named) == [named[0], named[2]]
    assert find_pictures([named[1]]) == [named[1]]  # alone it is meant


def find_of_warned(inputs):
    with pytest.warns(PassedOverWarning, match="1 mask beside its picture"):
        return find_pictures(inputs)


@pytest.mark.parametrize("folder", ["masks", "Mask", "gt", "ground_truth", "Ground Truth", "label", "annotations"])
def test_the_masks_of_a_folder_of_masks_are_no_pictures_where_they_pair_up(tmp_path, folder):
    read = [picture(tmp_path / "bad" / "0.png"), picture(tmp_path / "good" / "1.png")]
    mask(tmp_path / folder / "bad" / "0_mask.png")
    mask(tmp_path / folder / "1.png")
    other = picture(tmp_path / folder / "7.png")
    found = search_pictures(tmp_path)
    assert sorted(found.paths) == sorted([*read, other])
    assert "2 masks in folders of masks" in passed_over_note(found.passed_over)
    assert len(search_pictures(tmp_path / folder).paths) == 3  # named itself, it is meant
    assert is_mask_folder(folder)


# ---------------------------------------------------------------------- who tells


@pytest.fixture
def mixed(good, tmp_path):
    """Good pictures and two .pgm, one of them in a folder."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in sorted(good.iterdir())[:8]:
        (folder / path.name).write_bytes(path.read_bytes())
    pgm(folder / "x.pgm")
    pgm(folder / "deep" / "y.pgm")
    return folder


TOLD = "2 files were passed over: 2 .pgm (y.pgm, x.pgm). Convert them to PNG."
COMMANDS = {
    "fit": "fit MIXED -o OUT --size 64 --precision f32 --backbone ADDED",
    "fit padim": "fit MIXED -o OUT --size 64 --precision f32 --backbone ADDED --method padim",
    "audit": "audit MIXED --size 64 --precision f32 --backbone ADDED",
    "predict": "predict MODEL MIXED",
    "update": "update MODEL --add MIXED --dry-run",
    "teach": "teach MODEL --defect MIXED",
    "capability": "capability MODEL MIXED --kinds blob --sizes 4 20 --per-size 2 --threshold 1e6",
}


@pytest.fixture
def typed(mixed, model, added, tmp_path):
    """Return the arguments of a command."""
    words = {"MIXED": mixed, "MODEL": model, "OUT": tmp_path / "out.trecall", "ADDED": added}
    return lambda command: [str(words.get(word, word)) for word in COMMANDS[command].split()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_once_on_stderr_what_it_passes_over(command, typed, capsys):
    assert main([*typed(command), "--quiet"]) == 0
    seen = capsys.readouterr()
    assert seen.err.count("passed over") == 1
    assert f"totalrecall: note: {TOLD}\n" in seen.err
    assert "passed over" not in seen.out


@pytest.mark.parametrize("command", ["fit", "audit", "update", "teach", "capability"])
def test_the_json_of_a_command_holds_what_was_passed_over(command, typed, tmp_path):
    assert main([*typed(command), "--quiet", "--json", str(tmp_path / "facts.json")]) == 0
    assert TOLD in json.loads((tmp_path / "facts.json").read_text())["notices"]


@pytest.mark.filterwarnings("ignore::totalrecall.errors.UnlikePictureWarning")
def test_the_library_warns_once_and_can_be_silenced(mixed, tiny_backbone):
    detector = PatchCore(backbone=tiny_backbone, size=64, precision="f32")
    with pytest.warns(PassedOverWarning, match="2 files were passed over"):
        detector.fit(mixed)
    with pytest.warns(PassedOverWarning, match="2 files were passed over"):
        assert len(list(detector.predict_stream([mixed, np.zeros((64, 64, 3), np.uint8)]))) == 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PassedOverWarning)
        detector.fit(mixed)
