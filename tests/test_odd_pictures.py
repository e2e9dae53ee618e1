"""Pages that are not read, grey among colour, another shape or size: told once with a count, by whoever reads."""

import json
import warnings

import cv2
import numpy as np
import pytest

from tests.parts import stripes
from totalrecall import PatchCore, load_detector
from totalrecall.cli import main
from totalrecall.detectors.model_file import read_artifact, read_header, write_artifact
from totalrecall.errors import PassedOverWarning, UnlikePictureWarning
from totalrecall.pictures.loading import LearntPicture, is_grey
from totalrecall.pictures.unlike import are_far, mixed_notes

COLOUR = [stripes(at) for at in range(8)]
GREY = [np.repeat(one[:, :, :1], 3, axis=2) for one in COLOUR]
HEIGHT, WIDTH = COLOUR[0].shape[:2]


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])
    return path


def two_pages(path, at):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwritemulti(str(path), [stripes(at), stripes(at + 1)])
    return path


ODD = {  # what makes a picture odd among eight of colour: how it is written, and what is said at a fit and later
    "pages": (lambda folder: two_pages(folder / "odd.tif", 9), "1 file holds more than one page", "1 file holds more"),
    "grey": (
        lambda folder: write(folder / "odd.png", GREY[1]),
        "1 of 9 pictures is grey and the others colour (odd.png).",
        "1 of 9 pictures is grey where all that were learnt are colour (odd.png).",
    ),
    "shape": (
        lambda folder: write(folder / "odd.png", stripes(9, height=HEIGHT, width=2 * WIDTH)),
        f"1 of 9 pictures is of another shape or size than most (odd.png is {2 * WIDTH} x {HEIGHT}; usual is",
        f"1 of 9 pictures is far from all learnt ones in shape or size (odd.png is {2 * WIDTH} x {HEIGHT}; learnt:",
    ),
    "size": (
        lambda folder: write(folder / "odd.png", stripes(9, height=3 * HEIGHT, width=3 * WIDTH)),
        f"1 of 9 pictures is of another shape or size than most (odd.png is {3 * WIDTH} x {3 * HEIGHT}; usual is",
        "1 of 9 pictures is far from all learnt ones in shape or size",
    ),
}
COMMANDS = {
    "fit": "fit MIXED -o OUT --backbone ADDED --size 64 --precision f32",
    "fit padim": "fit MIXED -o OUT --backbone ADDED --size 64 --precision f32 --method padim",
    "fit spade": "fit MIXED -o OUT --backbone ADDED --size 64 --precision f32 --method spade",
    "audit": "audit MIXED --backbone ADDED --size 64 --precision f32",
    "predict": "predict PLAIN MIXED",
    "update": "update PLAIN --add MIXED --dry-run",
    "teach": "teach PLAIN --defect MIXED",
    "capability": "capability PLAIN MIXED --kinds blob --sizes 4 20 --per-size 2 --threshold 1e6",
    "evaluate": "evaluate PLAIN SET --layout mvtec",
}


@pytest.fixture(scope="module")
def plain(added, tmp_path_factory):
    """A model of eight pictures of one kind."""
    folder = tmp_path_factory.mktemp("plain")
    for at, picture in enumerate(COLOUR):
        write(folder / "good" / f"{at}.png", picture)
    path = folder / "plain.trecall"
    options = ["--backbone", added, "--size", "64", "--precision", "f32", "--quiet"]
    assert main(["fit", str(folder / "good"), "-o", str(path), *options]) == 0
    return path


@pytest.fixture
def typed(plain, added, tmp_path):
    """Return the arguments of a command on eight colour pictures that are new and an odd one."""

    def made(command, odd):
        for folder in ("mixed", "set/test/good"):
            for at in range(20, 28):
                write(tmp_path / folder / f"{at}.png", stripes(at))
            ODD[odd][0](tmp_path / folder)
        write(tmp_path / "set" / "train" / "good" / "0.png", stripes(40))
        words = {"MIXED": "mixed", "OUT": "out.trecall", "SET": "set"}
        places = {word: tmp_path / name for word, name in words.items()} | {"PLAIN": plain, "ADDED": added}
        return [str(places.get(word, word)) for word in COMMANDS[command].split()]

    return made


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_once_what_sets_pictures_apart(command, odd, typed, capsys):
    assert main([*typed(command, odd), "--quiet"]) == 0
    seen = capsys.readouterr()
    notes = [line for line in seen.err.splitlines() if "note: " in line]
    fits = command.startswith(("fit", "audit"))
    if command == "audit" and odd in ("shape", "size"):
        assert notes == []  # it names each, see `Unusual size`
    else:
        assert [line.startswith(f"totalrecall: note: {ODD[odd][1 if fits else 2]}") for line in notes] == [True], notes


def test_the_json_of_fit_and_evaluate_holds_the_notices(typed, tmp_path):
    for command in ("fit", "evaluate"):
        assert main([*typed(command, "grey"), "--quiet", "--json", str(tmp_path / "facts.json")]) == 0
        assert any("pictures is grey" in line for line in json.loads((tmp_path / "facts.json").read_text())["notices"])


# ---------------------------------------------------------------------- in Python


@pytest.fixture
def detector(tiny_backbone):
    return PatchCore(backbone=tiny_backbone, size=64, precision="f32").fit(COLOUR)


def test_one_picture_after_the_other_is_warned_of_once_and_keeps_its_verdict(detector):
    with pytest.warns(UnlikePictureWarning, match=r"1 picture is grey where all that were learnt are colour \(array"):
        first = detector.predict(GREY[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert detector.predict(GREY[0]).is_anomalous == first.is_anomalous
        detector.predict(stripes(11))
    with pytest.warns(UnlikePictureWarning, match="1 picture is far from all learnt ones in shape or size"):
        detector.predict(stripes(11, height=HEIGHT, width=2 * WIDTH))


def test_a_stream_is_warned_of_at_its_end_with_a_count(detector):
    with pytest.warns(UnlikePictureWarning, match=r"5 of 9 pictures are grey .* array\[2\] and 2 more\)") as told:
        assert len(list(detector.predict_stream([*GREY[:5], *COLOUR[:4]]))) == 9
    assert len(told) == 1


def test_colour_among_grey_is_told_as_grey_among_colour_is(tiny_backbone):
    detector = PatchCore(backbone=tiny_backbone, size=64, precision="f32")
    with pytest.warns(UnlikePictureWarning, match="2 of 8 pictures are colour and the others grey"):
        detector.fit([*GREY[:6], *COLOUR[6:]])
    list(detector.predict_stream([GREY[0], COLOUR[0]]))  # it has learnt both
    detector.fit(GREY)
    with pytest.warns(UnlikePictureWarning, match="1 picture is colour where all that were learnt are grey"):
        detector.predict(COLOUR[0])


def test_what_a_model_knows_of_its_pictures_is_in_its_file_and_one_of_before_is_silent(detector, tmp_path):
    loaded = load_detector(detector.save(tmp_path / "m.trecall"))
    assert {picture.grey for picture in loaded.pictures_} == {False}
    with pytest.warns(UnlikePictureWarning, match="1 picture is grey"):
        loaded.predict(GREY[0])
    header, tensors = read_artifact(tmp_path / "m.trecall")
    for picture in header["pictures"]:
        del picture["grey"]  # as an older version wrote it
    loaded = load_detector(write_artifact(tmp_path / "old.trecall", header, tensors))
    loaded.predict(GREY[0])
    assert read_header(loaded.save(tmp_path / "saved.trecall"))["pictures"] == header["pictures"]


def test_pages_warn_as_what_is_passed_over_does(detector, tmp_path):
    with pytest.warns(PassedOverWarning, match=r"1 file holds more than one page or frame; only the first is read"):
        detector.predict(two_pages(tmp_path / "a.tif", 1))


# ---------------------------------------------------------------------- what is odd


@pytest.mark.parametrize(
    ("size", "far"),
    [
        ((100, 80), False),
        ((124, 80), False),
        ((126, 80), True),
        ((81, 80), False),
        ((79, 80), True),
        ((80, 100), True),
        ((199, 160), False),
        ((201, 161), True),
        ((51, 40), False),
        ((49, 39), True),
    ],
)
def test_sizes_are_far_apart_by_a_quarter_in_shape_or_twice_in_scale(size, far):
    assert are_far(size, (100, 80)) is far


def test_no_note_is_made_of_pictures_of_one_kind_or_of_one_picture():
    same = [LearntPicture(f"{at}.png", "", 80, 100, False) for at in range(9)]
    assert mixed_notes(same) == mixed_notes(same[:1]) == mixed_notes([]) == []
    assert mixed_notes([*same, LearntPicture("old.png", "", 80, 104, None)]) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_grey_picture_is_known_however_it_was_stored(tmp_path, suffix):
    for picture, grey in ((GREY[0], True), (COLOUR[0], False)):
        path = write(tmp_path / f"a{suffix}", picture)
        assert is_grey(cv2.imread(str(path))[..., ::-1]) is grey
    nearly = GREY[0].copy()
    nearly[7, 5, 0] ^= 64  # one coloured pixel, off the coarse grid
    assert not is_grey(nearly)
