"""fit --ray: a fit whose own process was killed goes on where it was, and writes the model of plain fit to the byte."""

import os
import re
import shutil
import signal
import sys
from dataclasses import fields, is_dataclass

import cv2
import numpy as np
import pytest

from tests.cluster_ready import NEEDS_RAY, command, ran, wait_for
from tests.parts import digest, stripes
from totalrecall.cli import main
from totalrecall.cluster.kept import KeptValue, opened_fit
from totalrecall.cluster.packing import packed, unpacked
from totalrecall.drift.conditions import Glance
from totalrecall.errors import DataError, PictureError
from totalrecall.patchcore.coreset import Coreset
from totalrecall.patchcore.reading import PicturePatches, ReadPicture
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import LearntPicture, LoadedPicture

FIT = ["--size", "64", "--at-least", "40", "--folds", "12", "--precision", "f32"]
RAY = ["--ray", "local", "--workers", 1, "-o", "there.trecall"]


def alike(first, second):
    """Fail unless two values are the same to the bit."""
    assert type(first) is type(second)
    if is_dataclass(first):
        for one in fields(first):
            alike(getattr(first, one.name), getattr(second, one.name))
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            alike(one, other)
    elif isinstance(first, np.ndarray):
        assert (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes())
    elif isinstance(first, PictureError):
        assert str(first) == str(second)
    else:
        assert first == second or (first != first and second != second)  # nan


def known_picture():
    rng = np.random.default_rng(1)
    glance = Glance(rng.normal(size=4), rng.normal(size=(32, 32)).astype(np.float32), (70, 90))
    learnt = LearntPicture("a\udcff.png", "0" * 64, 70, 90, grey=True)
    seen = PicturePatches(3, learnt, np.empty((0, 5), np.float32), np.arange(8, dtype=np.int32).reshape(4, 2), glance)
    loaded = LoadedPicture("a\udcff.png", sha256="0" * 64, seconds=0.1)
    mark = (b"\x00\xff", rng.normal(size=7).astype(np.float16), np.full((2, 2), np.nan, np.float32))
    return ReadPicture(3, loaded, seen, (8, 8), mark)


def test_what_is_kept_comes_back_to_the_bit():
    broken = ReadPicture(4, LoadedPicture("b.png", error=PictureError("b.png is broken.")))
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    coreset = Coreset(np.array([4, 0]), float("nan"), 2, 0.1 + 0.2, np.array([0, 1, 1, 0, 0], np.int32))
    value = [known_picture(), broken, (rows[:, ::2], None, True, np.float32(0.3)), coreset]
    alike(unpacked(packed(value)), value)


@pytest.mark.parametrize("at", [0, 35, 60, -1])
def test_what_was_changed_since_is_not_believed(at):
    data = bytearray(packed(known_picture()))
    data[at] ^= 1
    with pytest.raises(ValueError, match="it is damaged"):
        unpacked(bytes(data))
    with pytest.raises(ValueError, match="it is damaged"):
        unpacked(b"")


def test_only_what_a_fit_is_made_of_is_kept():
    with pytest.raises(TypeError, match="A Recipe cannot be kept"):
        packed([Recipe()])
    with pytest.raises(TypeError, match="A dict cannot be kept"):
        packed({"a": 1})


def pictures_in(folder, count):
    folder.mkdir()
    for at in range(count):
        cv2.imwrite(str(folder / f"{at:02}.png"), stripes(at))
    return sorted(folder.iterdir())


def test_a_folder_goes_on_with_the_same_fit_and_begins_anew_with_another(tmp_path):
    pictures = pictures_in(tmp_path / "good", 3)
    target = tmp_path / "m.trecall"
    with opened_fit(target) as kept:
        assert kept.begin({"a": 1}, pictures, 2, 1000) == ""
        kept.value("coreset").write([1.5])
        with pytest.raises(DataError, match="by another program"), opened_fit(target):
            raise AssertionError("two may not work there")
    with opened_fit(target) as kept:
        assert kept.begin({"a": 1}, pictures, 7, 1000) == (
            "Went on where an earlier fit ended: 0 of 2 shards of features, the coreset, 0 folds"
        )
        assert kept.size == 2
        value = kept.value("coreset")
        assert value.read() == [1.5]
        assert KeptValue(value.folder, "another word", "coreset").read() is None
        assert kept.value("fold-00000").read() is None
        (tmp_path / "m.trecall.parts" / "coreset").write_bytes(b"half")
        assert value.read() is None
    with opened_fit(target) as kept:
        said = kept.begin({"a": 2}, pictures, 7, 1000)
        assert said == "Begins anew, what an earlier fit kept is of no use: a was 1, now 2"
        value.write([2.5])  # a worker of the fit before, which is still at work
        assert kept.value("coreset").read() is None
        assert kept.size == 7
    os.utime(pictures[1], (1, 1))
    with opened_fit(target) as kept:
        assert kept.begin({"a": 2}, pictures, 7, 1000).endswith(f"picture {pictures[1]} is another, or was changed")
    with opened_fit(target) as kept:
        assert kept.begin({"a": 2}, pictures[:2], 7, 1000).endswith("there were 3 pictures, now there are 2")
        kept.remove()
    assert not (tmp_path / "m.trecall.parts").exists()


def test_where_the_disk_has_no_room_nothing_is_kept_and_it_is_said(tmp_path):
    pictures = pictures_in(tmp_path / "good", 1)
    with opened_fit(tmp_path / "m.trecall") as kept:
        said = kept.begin({}, pictures, 1, shutil.disk_usage(tmp_path).total)
        assert re.fullmatch("Nothing is kept of this fit until it is done: that takes .*, and .* are free", said)
        assert kept.value("coreset") is None
    assert not (tmp_path / "m.trecall.parts").exists()


LOCK = "totalrecall fit --ray\n"


@pytest.mark.parametrize(
    ("files", "got"),
    [
        ({"thesis.txt": "years of work"}, r"files of another origin \('thesis\.txt'\)"),
        ({"lock": "", "coreset": "mine"}, r"files of another command \('' in the file lock\)"),
        ({"lock": LOCK, "thesis.txt": "years"}, r"files of another origin \('thesis\.txt'\)"),
        ({"lock": "totalrecall predict --ray\n"}, r"files of another command \('totalrecall predict --ray' in"),
        ({"lock": LOCK, "plan.json": '{"size": 1}'}, r"a damaged plan\.json \('command' is missing\)"),
        ({"lock": LOCK, "plan.json": '{"command": "predict", "asked": {}, "size": 1, "word": "w"}'}, "a plan.json of"),
        ({"lock": LOCK, "plan.json": '{"command": "fit", "asked": {}, "size": 0, "word": "w"}'}, "not possible"),
    ],
)
def test_a_folder_that_is_no_fits_is_refused_before_ray_starts_and_left_as_it_is(
    files, got, tmp_path, capsys, monkeypatch
):
    pictures = pictures_in(tmp_path / "good", 1)
    folder = tmp_path / "m.trecall.parts"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.setattr("totalrecall.cluster.connection.connected", None)  # not called
    assert main(["fit", str(pictures[0].parent), "-o", str(tmp_path / "m.trecall"), "--ray", "local"]) == 1
    err = capsys.readouterr().err
    assert re.search(f"parts must be empty or hold what fit --ray has done so far, got .*{got}", err)
    assert err.endswith("Name another output, or move it away.\n")
    assert err.count("\n") == 1
    assert {path.name: path.read_text() for path in folder.iterdir()} == files


def test_a_fit_removes_only_what_it_knows_and_neither_a_strangers_file_nor_the_folder_old(tmp_path):
    pictures = pictures_in(tmp_path / "good", 1)
    folder, old = tmp_path / "m.trecall.parts", tmp_path / "m.trecall.parts.old"
    old.mkdir()
    (old / "thesis.txt").write_text("years")
    with opened_fit(tmp_path / "m.trecall") as kept:
        kept.begin({}, pictures, 1, 1000)
        kept.value("coreset").write([1.5])
        (folder / "thesis.txt").write_text("months")
        kept.clear()
        assert sorted(path.name for path in folder.iterdir()) == ["lock", "thesis.txt"]
        kept.begin({}, pictures, 1, 1000)
        kept.remove()
    assert (folder / "thesis.txt").read_text() == "months"
    assert (old / "thesis.txt").read_text() == "years"


def killed_at(step, cwd, words):
    """Start a fit, and kill it as soon as it has kept something of a step."""
    process = command("fit", "good", *RAY, *words, cwd=cwd)
    folder = cwd / "there.trecall.parts"
    wait_for(lambda: list(folder.glob(f"{step}-*")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()  # not until the pipes end: two helpers of Ray notice only minutes later, and hold them
    process.stdout.close()
    process.stderr.close()
    assert not (cwd / "there.trecall").exists()
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_fit_goes_on_and_writes_the_model_of_plain_fit_to_the_byte(added, tmp_path):
    pictures = pictures_in(tmp_path / "good", 36)
    shutil.copy(pictures[5], tmp_path / "good" / "05b.png")  # the same bytes
    cv2.imwrite(str(tmp_path / "good" / "07b.bmp"), cv2.imread(str(pictures[7])))  # the same pixels: all is read again
    words = ["--backbone", added, *FIT]
    assert ran("fit", "good", "-o", "here.trecall", *words, cwd=tmp_path)[0] == 0

    names = killed_at("features", tmp_path, words)
    assert sum(name.startswith("features-1") for name in names) < 8
    assert "coreset" not in names
    names = killed_at("fold", tmp_path, words)
    assert sum(name.startswith("features-2") for name in names) == 8
    assert "coreset" in names
    folds = sum(name.startswith("fold-") for name in names)
    assert 0 < folds < 12
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "there.trecall.parts").glob("*-*")}

    os.link(tmp_path / "there.trecall.parts" / "features-1-00000", tmp_path / "first")
    code, out, err = ran("fit", "good", *RAY, *words, cwd=tmp_path)
    assert code == 0, err
    said = re.search(r"Went on where an earlier fit ended: 8 of 8 shards of features, the coreset, (\d+) folds", out)
    assert said, out
    assert int(said[1]) >= folds
    assert (tmp_path / "first").stat().st_mtime_ns == made["features-1-00000"]
    assert digest(tmp_path / "there.trecall") == digest(tmp_path / "here.trecall")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "good", "here.trecall", "there.trecall"]


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_picture_that_was_changed_since_has_all_made_anew(added, tmp_path):
    pictures = pictures_in(tmp_path / "good", 36)
    words = ["--backbone", added, *FIT]
    killed_at("fold", tmp_path, words)
    cv2.imwrite(str(pictures[3]), stripes(99))
    code, out, err = ran("fit", "good", *RAY, *words, cwd=tmp_path)
    assert code == 0, err
    assert "Begins anew, what an earlier fit kept is of no use: picture good/03.png is another, or was changed" in out
    assert ran("fit", "good", "-o", "here.trecall", *words, cwd=tmp_path)[0] == 0
    assert digest(tmp_path / "there.trecall") == digest(tmp_path / "here.trecall")
