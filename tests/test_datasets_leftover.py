"""Sets of one's own: folders in folders, masks wherever they lie, and what is not used is told with a count."""

import json
import shutil
import warnings

import pytest

from tests.dataset_trees import mask, picture
from totalrecall.cli import main
from totalrecall.datasets import open_dataset
from totalrecall.datasets.overlap import split_note
from totalrecall.errors import LearntPictureWarning, PassedOverWarning
from totalrecall.evaluation.evaluate import evaluate


def opened(layout, root):
    """Return a set, and what its opening warned of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data = open_dataset(layout, root)
    assert [str(one.message) for one in told] == list(data.passed_over)
    assert all(one.category is PassedOverWarning for one in told)
    return data


def by_defect(data):
    return {
        (one.defect, one.path.name): one.mask and one.mask.relative_to(data.root).as_posix()
        for one in data.test
        if one.label
    }


LAYOUTS = {"folder": ("good", "{}"), "mvtec": ("train/good", "test/{}")}


@pytest.fixture(params=LAYOUTS)
def small(request, tmp_path):
    """A set with five good pictures and a scratch; its layout, root, and where a class lies."""
    good, place = LAYOUTS[request.param]
    for at in range(5):
        picture(tmp_path / good / f"{at}.png")
    picture(tmp_path / place.format("scratch") / "0.png")
    return request.param, tmp_path, lambda name: tmp_path / place.format(name)


def test_a_plain_set_has_nothing_to_tell(small):
    layout, root, _place = small
    mask(root / "ground_truth" / "scratch" / "0_mask.png")
    (root / "readme.txt").write_text("x")
    data = opened(layout, root)
    assert data.passed_over == ()
    assert by_defect(data) == {("scratch", "0.png"): "ground_truth/scratch/0_mask.png"}


def test_folders_in_folders_are_read_and_the_first_is_the_defect(small):
    layout, root, place = small
    picture(place("defects") / "dent" / "1.png")
    picture(place("defects") / "hole" / "deep" / "2.png")
    mask(root / "masks" / "defects" / "hole" / "deep" / "2.png")
    mask(root / "masks" / "defects" / "1_mask.png")
    picture(root / LAYOUTS[layout][0] / "monday" / "9.png")
    data = opened(layout, root)
    assert by_defect(data) == {
        ("defects", "1.png"): "masks/defects/1_mask.png",
        ("defects", "2.png"): "masks/defects/hole/deep/2.png",
        ("scratch", "0.png"): None,
    }
    assert "9.png" in {path.name for path in [*data.train, *(one.path for one in data.test)]}
    assert data.passed_over == ()


@pytest.mark.parametrize("name", ["masks", "mask", "gt", "Ground Truth", "label", "labels", "annotations"])
def test_a_folder_of_masks_under_any_usual_name_is_no_defect(small, name):
    layout, root, _place = small
    mask(root / name / "scratch" / "0_gt.png")
    data = opened(layout, root)
    assert by_defect(data) == {("scratch", "0.png"): f"{name}/scratch/0_gt.png"}
    assert data.passed_over == ()


def test_a_mask_that_could_be_of_several_pictures_is_of_none(small):
    layout, root, place = small
    picture(place("dents") / "a" / "1.png")
    picture(place("dents") / "b" / "1.png")
    mask(root / "masks" / "dents" / "1.png")
    mask(root / "masks" / "scratch" / "x" / "0.png")  # a folder for each picture, as another layout has
    if layout == "mvtec":
        assert set(by_defect(opened(layout, root)).values()) == {None}
    else:
        data = opened(layout, root)
        assert [one.mask for one in data.test if one.defect == "dents"] == [None, None]


def test_masks_in_the_folder_of_the_test_are_no_defect(tmp_path):
    for at in range(3):
        picture(tmp_path / "train" / "good" / f"{at}.png")
    picture(tmp_path / "test" / "scratch" / "0.png")
    mask(tmp_path / "test" / "ground_truth" / "scratch" / "0.png")
    mask(tmp_path / "test" / "scratch" / "masks" / "0.png")
    assert set(by_defect(opened("mvtec", tmp_path))) == {("scratch", "0.png")}


def test_a_folder_of_masks_that_go_with_no_picture_is_told_and_no_defect(small):
    layout, root, place = small
    picture(place("label") / "7.png")
    picture(place("label") / "8.png")
    data = opened(layout, root)
    assert set(by_defect(data)) == {("scratch", "0.png")}
    assert data.passed_over == (
        "2 pictures in folders of masks belong to no picture and are not used: 7.png, 8.png. "
        "Name the folder otherwise if it shows parts, not masks.",
    )


def test_masks_beside_the_pictures_are_used_and_neither_learnt_nor_scored(small):
    layout, root, place = small
    mask(place("scratch") / "0_mask.png")
    mask(root / LAYOUTS[layout][0] / "1_mask.png", value=0)
    data = opened(layout, root)
    assert set(by_defect(data)) == {("scratch", "0.png")}
    assert by_defect(data)["scratch", "0.png"].endswith("scratch/0_mask.png")
    assert not [path for path in data.train if "_mask" in path.name]
    assert len(data.passed_over) == 1
    assert data.passed_over[0].startswith("2 masks lie beside their pictures and are not learnt or scored: ")


def test_pictures_that_lie_where_the_layout_does_not_look_are_told(small):
    layout, root, _place = small
    picture(root / "loose.png")
    picture(root / "extra" / "1.png" if layout == "mvtec" else root / "loose2.png")
    told = opened(layout, root).passed_over
    assert len(told) == 1
    assert told[0].startswith(
        "2 pictures are not used: 1 in extra, 1 in the folder itself" if layout == "mvtec" else "2 pictures are"
    )


@pytest.mark.parametrize("layout", ["folder", "mvtec", "btad"])
def test_formats_that_are_not_read_are_told_in_every_layout(tmp_path, layout):
    good = {"folder": "good", "mvtec": "train/good", "btad": "01/train/ok"}[layout]
    for at in range(3):
        picture(tmp_path / good / f"{at}.png")
        (tmp_path / good / f"{at}.heic").write_bytes(b"x")
    told = "3 files were passed over: 3 .heic (0.heic, 1.heic, 2.heic). Convert them to PNG."
    assert opened(layout, tmp_path).passed_over == (told,)


# ---------------------------------------------------------------------- all commands


@pytest.fixture
def cluttered(parts, tmp_path):
    """The synthetic set with two .pgm among its good pictures."""
    root = shutil.copytree(parts, tmp_path / "set")
    for name in ("x.pgm", "y.pgm"):
        (root / "train" / "good" / name).write_bytes(b"P5")
    return root


COMMANDS = {
    "fit": "fit SET --layout mvtec -o OUT --backbone ADDED --size 64 --precision f32",
    "audit": "audit SET --layout mvtec --backbone ADDED --size 64 --precision f32",
    "evaluate": "evaluate MODEL SET --layout mvtec",
    "datasets": "datasets mvtec SET",
    "benchmark": "benchmark mvtec SET --methods padim --backbone ADDED --size 64 --precision f32 --out DIR",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_on_a_set_tells_once_what_is_not_used(command, cluttered, model, added, tmp_path, capsys):
    words = {"SET": cluttered, "MODEL": model, "OUT": tmp_path / "m", "ADDED": added, "DIR": tmp_path / "out"}
    code = main([*(str(words.get(word, word)) for word in COMMANDS[command].split()), "--quiet"])
    err = capsys.readouterr().err
    assert code == (1 if command == "datasets" else 0), err
    assert err.count("2 files were passed over: 2 .pgm (x.pgm, y.pgm). Convert them to PNG.") == 1


# ---------------------------------------------------------------------- learnt and measured on


def test_a_learnt_picture_under_another_name_in_the_test_is_told(parts, model, tmp_path, capsys):
    root = shutil.copytree(parts, tmp_path / "set")
    shutil.copy(sorted((root / "train" / "good").iterdir())[0], root / "test" / "good" / "copy.png")
    facts = tmp_path / "facts.json"
    assert main(["evaluate", str(model), str(root), "--layout", "mvtec", "--json", str(facts), "--quiet"]) == 0
    told = "1 of 7 test pictures are among those that the model learnt (the first: "
    assert capsys.readouterr().err.count(told) == 1
    assert any(told in line for line in json.loads(facts.read_text())["notices"])
    data = open_dataset("mvtec", root)
    assert split_note(data).startswith(
        "1 of 7 pictures to test on are among those to fit on, by their bytes (the first"
    )
    assert main(["datasets", "mvtec", str(root)]) == 1
    assert "1 of 7 pictures to test on" in capsys.readouterr().err
    assert split_note(open_dataset("mvtec", parts)) == ""


def test_the_library_warns_of_learnt_pictures(parts, model):
    from totalrecall import load_detector
    from totalrecall.datasets import Sample

    sample = Sample(sorted((parts / "train" / "good").iterdir())[0], 0, "good", None, "test", "parts")
    with pytest.warns(LearntPictureWarning, match="1 of 1 test pictures are among those that the model learnt"):
        evaluate(load_detector(model), [sample])
