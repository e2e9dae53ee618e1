"""copies: the same picture twice counts once, and the fit is that of the different ones, to the bit."""

import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.commands import run
from tests.parts import damaged, enough_for, make, stripes
from totalrecall import SPADE, PaDiM, PatchCore, load_detector
from totalrecall.audit.audit import audit
from totalrecall.demo.pictures import good
from totalrecall.detectors.model_file import read_artifact
from totalrecall.detectors.settings import ComparedSettings
from totalrecall.errors import OutlierWarning, RepeatedPictureWarning
from totalrecall.pictures.copies import Repeat, Repeats, inspected, nearly_the_same, repeats_note
from totalrecall.pictures.geometry import Recipe

COUNT = 14
RECIPE = Recipe(size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fourteen different pictures in files."""
    root = tmp_path_factory.mktemp("copies") / "in"
    root.mkdir()
    for at in range(COUNT):
        cv2.imwrite(str(root / f"{at:02}.png"), stripes(at))
    return root


@pytest.fixture(scope="module")
def detectors(tiny_backbone):
    options = {"backbone": tiny_backbone, "size": 64, "precision": "f32"}
    return {
        "patchcore": lambda **more: make(tiny_backbone, **more),
        "padim": lambda **more: PaDiM(**options, dimensions=8, **more),
        "spade": lambda **more: SPADE(**options, neighbours=3, **more),
    }


@contextmanager
def repeats_expected(count):
    """Catch the warning of so many repeats, and no other but of outliers, which so few pictures may seem to hold."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", OutlierWarning)
        yield
    assert [one.category for one in caught] == [RepeatedPictureWarning], [str(one.message) for one in caught]
    assert str(caught[0].message).startswith(f"{count} of ")


def fitted(made, pictures, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutlierWarning)
        return made.fit(pictures, **options)


def tensors_of(detector):
    with tempfile.TemporaryDirectory() as folder:
        return read_artifact(detector.save(Path(folder) / "m.trecall"))[1]


def assert_equal_to_the_bit(one, other):
    assert one.threshold_ == other.threshold_
    assert one.pixel_threshold_ == other.pixel_threshold_
    assert np.array_equal(one.calibration_.scores, other.calibration_.scores)
    assert np.array_equal(one.calibration_.pictures, other.calibration_.pictures)
    before, after = tensors_of(one), tensors_of(other)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert one.score([damaged(100), stripes(101)]).tolist() == other.score([damaged(100), stripes(101)]).tolist()


def in_other_names(folder, where):
    """Return other folders of the same pictures, by how they came about, each with what it holds."""
    (where / "copies").mkdir()
    (where / "links").mkdir()
    (where / "hard").mkdir()
    (where / "bmp").mkdir()
    for path in sorted(folder.iterdir()):
        shutil.copy(path, where / "copies" / f"x{path.name}")
        (where / "links" / path.name).symlink_to(path)
        os.link(path, where / "hard" / path.name)
        cv2.imwrite(str(where / "bmp" / f"{path.stem}.bmp"), cv2.imread(str(path)))
    return {name: sorted((where / name).iterdir()) for name in ("copies", "links", "hard", "bmp")}


@pytest.mark.parametrize(
    ("method", "way"),
    [("patchcore", way) for way in ("copies", "links", "hard", "bmp", "relative", "arrays", "other arrays")]
    + [(method, way) for method in ("padim", "spade") for way in ("copies", "bmp")],
)
def test_the_same_picture_under_any_name_counts_once(detectors, folder, tmp_path, monkeypatch, method, way):
    files = sorted(folder.iterdir())
    arrays = [np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]) for path in files]
    monkeypatch.chdir(folder.parent)
    again = {
        **in_other_names(folder, tmp_path),
        "relative": [path.relative_to(folder.parent) for path in files],
        "arrays": [one.copy() for one in arrays],
        "other arrays": [np.asfortranarray(one) for one in arrays],
    }[way]
    first = arrays if way == "other arrays" else files
    alone = fitted(detectors[method](), first)
    with repeats_expected(COUNT):
        twice = detectors[method]().fit([*first, *again])
    assert_equal_to_the_bit(alone, twice)
    assert [picture.path for picture in twice.pictures_] == [picture.path for picture in alone.pictures_]
    told = twice.report_.repeats
    names = [f"array[{COUNT + at}]" if "arrays" in way else str(one) for at, one in enumerate(again)]
    assert [one.path for one in told] == names
    assert [one.first for one in told] == [picture.path for picture in alone.pictures_]
    assert {one.same for one in told} == {"pixels" if way in ("bmp", "arrays") else "bytes"}


@pytest.mark.parametrize("method", ["patchcore", "padim", "spade"])
def test_a_frame_saved_again_or_with_some_more_light_counts_once(detectors, folder, tmp_path, method):
    files = sorted(folder.iterdir())
    for path in files:
        picture = cv2.imread(str(path))
        if int(path.stem) % 2:
            cv2.imwrite(str(tmp_path / f"{path.stem}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
        else:
            lighter = np.clip(picture * 1.05 + 0.5, 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / path.name), lighter)
    alone = fitted(detectors[method](), files)
    with repeats_expected(COUNT):
        twice = detectors[method]().fit([folder, tmp_path])
    assert_equal_to_the_bit(alone, twice)
    assert {one.same for one in twice.report_.repeats} == {"nearly"}


def test_the_order_of_the_first_ones_is_kept_and_each_repeat_names_its_first(detectors):
    pictures = [stripes(at) for at in range(6)]
    mixed = [pictures[at] for at in (0, 1, 0, 2, 3, 1, 4, 0, 5)]
    alone = fitted(detectors["patchcore"](), pictures)
    with repeats_expected(3):
        twice = detectors["patchcore"]().fit(mixed)
    assert_equal_to_the_bit(alone, twice)
    assert [(one.path, one.first) for one in twice.report_.repeats] == [
        ("array[2]", "array[0]"),
        ("array[5]", "array[1]"),
        ("array[7]", "array[0]"),
    ]
    assert [picture.path for picture in twice.pictures_] == [f"array[{at}]" for at in (0, 1, 3, 4, 6, 8)]


@pytest.mark.parametrize("options", [{"folds": 1}, {"folds": 3}, {"projection": 8}], ids=str)
def test_however_the_threshold_is_set(detectors, options):
    pictures = [stripes(at) for at in range(COUNT)]
    alone = fitted(detectors["patchcore"](**options), pictures)
    with repeats_expected(COUNT):
        twice = detectors["patchcore"](**options).fit(pictures + [one.copy() for one in pictures])
    assert_equal_to_the_bit(alone, twice)


def test_in_chunks_too(tiny_backbone, monkeypatch, tmp_path):
    monkeypatch.setattr("totalrecall.patchcore.plan._LEAST", 16)
    for module in ("patchcore.plan", "features.memory"):  # whatever other fits have left behind
        monkeypatch.setattr(f"totalrecall.{module}.resident_memory", lambda: 1 << 20)
    many = [stripes(at) for at in range(60)]
    again = []
    for at, picture in enumerate(many[:30]):
        again.append(tmp_path / f"{at}.png")
        cv2.imwrite(str(again[-1]), picture[..., ::-1])
    detector = make(tiny_backbone)
    memory = enough_for(detector, many, 16)
    alone = fitted(detector, many, memory=memory)
    assert alone.report_.chunks > 1
    with repeats_expected(30):
        twice = make(tiny_backbone).fit([*many, *again], memory=memory)
    assert twice.report_.chunks == alone.report_.chunks
    assert_equal_to_the_bit(alone, twice)


def test_a_stuck_camera_blames_no_real_picture_and_hides_no_defect(tiny_backbone):
    real = [stripes(at) for at in range(20)]
    stuck = [*real[:10], *[real[3].copy() for _ in range(80)], *real[10:]]
    alone = make(tiny_backbone, ignore_outliers=True).fit(real)
    with pytest.warns(RepeatedPictureWarning, match="80 of 100"):
        guarded = make(tiny_backbone, ignore_outliers=True).fit(stuck)
    assert len(guarded.outliers_) == len(alone.outliers_)
    assert_equal_to_the_bit(alone, guarded)
    assert guarded.predict(damaged(200)).score > guarded.threshold_


@pytest.mark.parametrize("method", ["patchcore", "padim", "spade"])
@pytest.mark.parametrize(("different", "share"), [(1, 0.2), (2, 0.9)])
def test_copies_of_one_or_two_pictures_give_no_threshold(detectors, method, different, share):
    pictures = [stripes(at % different) for at in range(20)]
    with repeats_expected(20 - different):
        detector = detectors[method](holdout=share).fit(pictures)
    assert np.isnan(detector.threshold_)
    assert np.isnan(detector.pixel_threshold_)
    assert len(detector.calibration_.scores) == 0
    note = repeats_note(detector.report_.repeats, 20)
    assert note.endswith("That is too few for a threshold: give at least 3 different ones.")


def test_a_picture_and_what_differs_only_outside_the_region_of_interest_are_one(tiny_backbone):
    roi = np.zeros((70, 90), bool)
    roi[10:60, 10:60] = True
    pictures = [stripes(at) for at in range(8)]
    outside = [one.copy() for one in pictures]
    for one in outside:
        one[:, 80:] = 0
    with repeats_expected(8):
        detector = make(tiny_backbone, roi=roi).fit(pictures + outside)
    assert {one.same for one in detector.report_.repeats} == {"pixels"}


def test_the_command_says_how_many_and_which(folder, tmp_path, capsys):
    import json

    shutil.copy(folder / "03.png", tmp_path / "again.png")
    command = ["fit", folder, tmp_path / "again.png", "-o", tmp_path / "m.trecall", "--size", "64"]
    code, out, _ = run(capsys, *command, "--json", tmp_path / "f.json")
    assert code == 0
    first, again = folder / "03.png", tmp_path / "again.png"
    assert (
        f"Note: 1 of 15 good pictures repeats another and counts once: {again} is {first} again (same bytes). "
        "14 different pictures are left."
    ) in out
    told = json.loads((tmp_path / "f.json").read_text())
    assert told["repeats"] == [{"path": str(again), "first": str(first), "same": "bytes"}]
    assert len(load_detector(tmp_path / "m.trecall").pictures_) == COUNT


def test_an_audit_compares_the_different_ones_and_names_the_copies(folder, tmp_path):
    alone = audit(folder, ComparedSettings(size=64, precision="f32"))
    shutil.copy(folder / "03.png", tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "b.bmp"), cv2.imread(str(folder / "04.png")))
    cv2.imwrite(str(tmp_path / "c.jpg"), cv2.imread(str(folder / "03.png")), [cv2.IMWRITE_JPEG_QUALITY, 97])
    more = audit([folder, tmp_path], ComparedSettings(size=64, precision="f32"))
    assert [(one.path, one.level) for one in more.entries] == [(one.path, one.level) for one in alone.entries]
    named = {(group.exact, tuple(path.rsplit("/")[-1] for path in group.paths)) for group in more.duplicates}
    assert {(True, ("03.png", "a.png")), (False, ("04.png", "b.bmp")), (False, ("03.png", "c.jpg"))} <= named
    assert {one["same"] for one in more.to_json()["repeats"]} == {"bytes", "pixels", "nearly"}


# ---------------------------------------------------------------------- what is a copy, and what is not


def alike(one, other):
    return nearly_the_same(one, other, np.ones(one.shape[:2], bool))


def prepared(picture):
    return Recipe(size=picture.shape[0]).prepare(np.ascontiguousarray(picture))[0]


def jpeg(picture, quality):
    written = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(written, cv2.IMREAD_COLOR)[..., ::-1])


KINDS = ("washer", "textile", "board", "wood", "blister")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [96, 256])
def test_a_copy_is_told_from_another_part(kind, side):
    parts = [good(kind, np.random.default_rng([3, at]), (side, side)) for at in range(6)]
    for part in parts:
        lighter = np.clip(part * 1.05 + 0.5, 0, 255).astype(np.uint8)
        for copy in (part, jpeg(part, 95), lighter, (part * 0.95).astype(np.uint8), jpeg(lighter, 97)):
            assert alike(prepared(part), prepared(copy))
            assert alike(prepared(copy), prepared(part))
    for at, part in enumerate(parts):
        assert not any(alike(prepared(part), prepared(other)) for other in parts[at + 1 :])


def plate(grain, mark=None):
    """Return a plate with sharp edges that lie in the same place in all of them, and its own grain."""
    picture = np.full((128, 128, 3), 120.0)
    picture[30:100, 40:90] = 200
    picture += np.random.default_rng(grain).normal(0, 1.0, (128, 128, 1))
    if mark:
        picture[mark] = 60
    return np.clip(picture, 0, 255).astype(np.uint8)


def test_plates_that_differ_in_nothing_but_their_grain_are_different_pictures():
    assert not any(alike(plate(0), plate(other)) for other in range(1, 10))
    assert alike(plate(0), (plate(0) * 1.04).astype(np.uint8))


@pytest.mark.parametrize("at", [(3, 3), (60, 60), (64, 20), (110, 118)])
def test_one_frame_with_a_small_mark_is_another_picture(at):
    mark = (slice(at[0], at[0] + 4), slice(at[1], at[1] + 4))
    assert not alike(plate(0), plate(0, mark))
    spot = plate(0)
    spot[at[0] : at[0] + 8, at[1] : at[1] + 8] = (90, 145, 90)  # as bright, and of another colour
    assert not alike(plate(0), spot)


def test_blank_pictures_are_the_same_only_pixel_by_pixel():
    blank = [np.full((64, 64, 3), level, np.uint8) for level in (100, 101, 100)]
    assert not alike(blank[0], blank[1])
    repeats = Repeats(blank)
    assert repeats.told == [Repeat("array[2]", "array[0]", "bytes")]


def search(pictures, recipe=RECIPE, rows=1024):
    repeats = Repeats(pictures)
    for place in repeats.places:
        ready, geometry = recipe.prepare(pictures[place])
        repeats.look(place, ready, inspected(recipe, geometry))
    repeats.search(recipe, rows=rows)
    return repeats


def test_a_chain_of_copies_counts_once_and_names_the_first():
    first = stripes(1, 64, 64)
    again = jpeg(first, 97)
    repeats = search([first, stripes(2, 64, 64), again, again.copy(), first[:, ::-1][:, ::-1]])
    assert [(one.path, one.first, one.same) for one in repeats.told] == [
        ("array[2]", "array[0]", "nearly"),
        ("array[3]", "array[0]", "nearly"),
        ("array[4]", "array[0]", "bytes"),
    ]
    assert repeats.places == [0, 1]


def test_pictures_of_many_sizes_and_few_of_them_are_searched_alike():
    for side in (32, 40, 100):
        pictures = [np.random.default_rng(at).integers(0, 255, (side, side, 3), np.uint8) for at in range(3)]
        recipe = Recipe(size=side)
        lighter = np.clip(pictures[1].astype(np.float32) * 0.97, 0, 255).astype(np.uint8)
        assert [one.path for one in search([*pictures, lighter], recipe).told] == ["array[3]"]


def test_the_answer_does_not_depend_on_how_many_are_compared_at_a_time():
    pictures = [stripes(at % 7, 64, 64) for at in range(7)] + [jpeg(stripes(at, 64, 64), 96) for at in range(7)]
    whole = search(pictures).told
    assert search(pictures, rows=3).told == whole
    assert len(whole) == 7


def test_what_cannot_be_read_is_no_repeat_of_what_can(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "none.png").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    names = [*sorted(tmp_path.iterdir()), tmp_path / "gone.png", "a\0b.png", "x" * 5000]
    assert Repeats(names).told == []


# ---------------------------------------------------------------------- real pictures


def test_of_real_pictures_none_is_taken_for_a_copy_and_every_copy_is(shared):
    from totalrecall.datasets import open_dataset
    from totalrecall.pictures.files import find_pictures
    from totalrecall.pictures.loading import read_image

    recipe = Recipe(size=256)
    bottles = [read_image(path) for path in find_pictures(shared / "data" / "mvtec_ad" / "bottle" / "train" / "good")]
    assert search(bottles, recipe).told == []
    tiles = [read_image(path) for path in open_dataset("mtd", shared / "data" / "mtd").train]
    assert search(tiles, recipe).told == []
    some = bottles[:20] + tiles[:20]
    again = [jpeg(one, 95) for one in some] + [np.clip(one * 1.05, 0, 255).astype(np.uint8) for one in some]
    assert len(search([*some, *again], recipe).told) == 80


@pytest.mark.parametrize("again", ["bytes", "jpeg", "stuck"])
def test_real_bottles_with_copies_have_the_threshold_of_the_bottles_alone(shared, tmp_path, again):
    from totalrecall.pictures.files import find_pictures

    bottles = find_pictures(shared / "data" / "mvtec_ad" / "bottle" / "train" / "good")[:10]
    for at, path in enumerate(bottles if again != "stuck" else [bottles[4]] * 40):
        if again == "jpeg":
            cv2.imwrite(str(tmp_path / f"{at}.jpg"), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 95])
        else:
            shutil.copy(path, tmp_path / f"{at}.png")
    alone = fitted(PatchCore(size=128), bottles)
    with repeats_expected(len(list(tmp_path.iterdir()))):
        twice = PatchCore(size=128).fit([*bottles, tmp_path])
    assert twice.threshold_ == alone.threshold_
    assert np.array_equal(twice.bank_.vectors, alone.bank_.vectors)


def test_copies_of_what_was_learnt_that_join_later_leave_the_threshold_as_it_was(detectors, folder, tmp_path):
    for path in sorted(folder.iterdir()):
        cv2.imwrite(str(tmp_path / f"{path.stem}.bmp"), cv2.imread(str(path)))
        cv2.imwrite(str(tmp_path / f"{path.stem}.jpg"), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 95])
    detector = fitted(detectors["patchcore"](), folder)
    before = detector.threshold_
    detector.update(add=tmp_path)
    # a few vectors of the JPEG files are new, and a tenth of a picture's patches count
    assert before * (1 - 1e-3) < detector.threshold_ <= before
