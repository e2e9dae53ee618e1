"""fitting: three ways to the bank. Two agree to the bit, the third keeps its stated radius; nothing is left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import reference
from tests.parts import enough_for
from totalrecall import PatchCore
from totalrecall.calibration import held_out, make_folds
from totalrecall.errors import ChunkedFitWarning, DataError
from totalrecall.patchcore import plan as planning
from totalrecall.patchcore.fitting import learn
from totalrecall.patchcore.plan import make_plan
from totalrecall.pictures.files import find_pictures
from totalrecall.system.text import parse_size

SIZE = 64
COUNT = 24


def stripes(seed):
    rng = np.random.default_rng(seed)
    columns = 128 + 60 * np.sin(np.arange(90) / 4 + rng.uniform(0, 0.3))
    return np.clip(columns[None, :, None] + rng.normal(0, 6, (70, 90, 3)), 0, 255).astype(np.uint8)


def damaged(seed):
    picture = stripes(seed)
    picture[30:45, 40:60] = (20, 20, 230)
    return picture


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for i in range(COUNT):
        cv2.imwrite(str(folder / f"{i:02}.png"), stripes(i))
    return folder


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A scratch folder of the test's own, which must be empty in the end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def make(backbone, **options):
    return PatchCore(
        **{"backbone": backbone, "size": SIZE, "coreset": 0.1, "at_least": 1, "precision": "f32", **options}
    )


@pytest.fixture(autouse=True)
def _steady(monkeypatch):
    """What the test run itself holds must not change a plan."""
    monkeypatch.setattr(planning, "resident_memory", lambda: 0)
    monkeypatch.setattr("totalrecall.features.memory.resident_memory", lambda: 0)


LONG = {
    "descriptor": "paper-code",
    "layers": (1, 2, 3),
}  # 1024 numbers, so the coreset is chosen in a projection to 128


def fitted(backbone, sources, pictures, **options):
    detector = make(backbone, **options)
    return detector.fit(sources, memory=enough_for(detector, find_pictures(sources), pictures))


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of four pictures under a limit that all but holds everything, so that the merge has all the room."""
    cut = planning._cut
    monkeypatch.setattr(planning, "_cut", lambda pictures, _: cut(pictures, 4))
    return COUNT - 1


@pytest.fixture(scope="module")
def everything(tiny_backbone, good):
    """A bank of all patches, picture by picture, row by row."""
    return make(tiny_backbone, coreset=1.0, holdout=0).fit(good).bank_


def assert_origin_is_right(bank, everything):
    """Each vector is the patch that its origin names."""
    assert [Path(picture.path).name for picture in bank.pictures] == sorted(
        Path(picture.path).name for picture in bank.pictures
    )
    where = {Path(picture.path).name: at for at, picture in enumerate(everything.pictures)}
    picture, row, column = bank.origin.T
    picture = np.array([where[Path(one.path).name] for one in bank.pictures])[picture]
    assert np.array_equal(bank.vectors, everything.vectors[picture * 64 + row * 8 + column])


# ---------------------------------------------------------------------- the second way


def test_with_scratch_the_bank_is_the_same_to_the_bit(tiny_backbone, good, scratch):
    whole = make(tiny_backbone, **LONG).fit(good)
    detector = make(tiny_backbone, **LONG)
    limit = make_plan(detector.extractor, detector.settings, find_pictures(good), 10**12).memory - 1
    detector.fit(good, memory=limit)
    assert (whole.report_.plan["way"], detector.report_.plan["way"]) == ("memory", "scratch")
    assert np.array_equal(detector.bank_.vectors, whole.bank_.vectors)
    assert np.array_equal(detector.bank_.origin, whole.bank_.origin)
    assert detector.bank_.pictures == whole.bank_.pictures
    assert np.array_equal(detector.calibration_.scores, whole.calibration_.scores)
    assert detector.report_.radius == whole.report_.radius > 0
    assert detector.report_.scratch == detector.report_.plan["scratch"] == 4 * COUNT * 16 * 16 * 1024
    assert whole.report_.scratch == 0


# ---------------------------------------------------------------------- the third way


@pytest.mark.parametrize("pictures", [3, 7, 12])
def test_every_patch_lies_within_the_stated_radius(tiny_backbone, good, everything, pictures, scratch):
    detector = fitted(tiny_backbone, good, pictures)
    report, bank = detector.report_, detector.bank_
    assert report.chunks >= -(-COUNT // pictures)
    assert len(bank) == int(0.1 * COUNT * 64) == len(np.unique(bank.origin, axis=0))
    assert radius_of(bank, everything) <= report.radius * (1 + 1e-5)
    assert_origin_is_right(bank, everything)


def radius_of(bank, everything):
    distances = reference.distances(everything.vectors.astype(np.float64), bank.vectors.astype(np.float64))
    return distances.min(axis=1).max()


def test_where_each_chunk_keeps_as_many_as_the_bank_the_radius_is_known_beforehand(
    tiny_backbone, good, everything, small_chunks, scratch
):
    detector = fitted(tiny_backbone, good, small_chunks)
    assert detector.report_.chunks == 6
    points = everything.vectors.astype(np.float64)
    _, greedy = reference.greedy(points, len(detector.bank_), int(np.random.default_rng(42).integers(len(points))))
    assert detector.report_.radius <= 4 * greedy  # 4 times the optimum, which the greedy's is no less than
    assert radius_of(detector.bank_, everything) < 1.2 * greedy


def test_what_was_planned_is_what_was_used(tiny_backbone, good, scratch):
    plans = []
    detector = make(tiny_backbone)
    limit = enough_for(detector, find_pictures(good), 7)
    detector.fit(good, memory=limit, announce=plans.append)
    (plan,), report = plans, detector.report_
    assert plan.way == "chunks"
    assert plan.memory <= plan.limit == limit
    assert (report.patches, report.vectors, report.chunks) == (plan.patches, plan.vectors, len(plan.chunks))
    assert report.scratch == plan.scratch == 4 * 384 * sum(plan.kept())
    assert json.loads(json.dumps(report.plan)) == report.plan


def test_long_vectors_are_merged_in_their_projection(tiny_backbone, good, scratch):
    detector = fitted(tiny_backbone, good, 7, **LONG)
    report = detector.report_
    assert report.chunks > 1
    assert report.scratch == report.plan["scratch"]
    assert detector.bank_.vectors.shape == (int(0.1 * COUNT * 256), 1024)
    assert detector.predict(damaged(99)).score > detector.predict(stripes(99)).score


def test_it_finds_defects_as_the_whole_does(tiny_backbone, good, small_chunks, scratch):
    whole, chunked = make(tiny_backbone).fit(good), fitted(tiny_backbone, good, small_chunks)
    assert chunked.report_.chunks > whole.report_.chunks
    fine = [stripes(seed) for seed in range(100, 112)]
    broken = [damaged(seed) for seed in range(112, 124)]
    assert chunked.score(broken).min() > chunked.score(fine).max()
    assert chunked.score(fine) == pytest.approx(whole.score(fine), rel=0.15)
    assert chunked.threshold_ == pytest.approx(whole.threshold_, rel=0.15)
    nearest = chunked.predict(broken[0]).nearest
    assert nearest.path in {str(path) for path in good.iterdir()}


def test_the_same_limit_gives_the_same_bank(tiny_backbone, good, scratch):
    one, two = fitted(tiny_backbone, good, 7), fitted(tiny_backbone, good, 7)
    assert np.array_equal(one.bank_.vectors, two.bank_.vectors)
    assert np.array_equal(one.calibration_.scores, two.calibration_.scores)


def test_unreadable_pictures_leave_the_order_of_the_others_alone(tiny_backbone, good, everything, tmp_path, scratch):
    folder = tmp_path / "some"
    folder.mkdir()
    for path in good.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name in ("03a.png", "11a.png", "zz.png"):
        (folder / name).touch()
    with pytest.warns(UserWarning, match="3 of 27 pictures were left out"):
        detector = fitted(tiny_backbone, folder, 6)
    assert detector.report_.chunks > 3
    assert [Path(str(error).split(" is empty")[0]).name for error in detector.skipped_] == [
        "03a.png",
        "11a.png",
        "zz.png",
    ]
    assert len(detector.bank_.pictures) == COUNT
    assert_origin_is_right(detector.bank_, everything)


def test_arrays_keep_the_numbers_they_were_given_under(tiny_backbone, scratch):
    detector = make(tiny_backbone)
    pictures = [stripes(seed) for seed in range(12)]
    pictures[5] = np.zeros((4, 4), np.int32)
    limit = enough_for(detector, pictures, 4)
    with pytest.warns(UserWarning, match=r"1 of 12 .* The first: array\[5\] must hold uint8"):
        detector.fit(pictures, memory=limit)
    assert detector.report_.chunks > 1
    assert [picture.path for picture in detector.bank_.pictures] == [f"array[{i}]" for i in range(12) if i != 5]


@pytest.mark.parametrize(("pictures", "subsampling"), [(5, "greedy"), (COUNT, "random")])
def test_pictures_held_out_have_no_part_in_the_bank_that_scores_them(tiny_backbone, pictures, subsampling, scratch):
    """Changed to noise, they change nothing in it."""
    banks = []
    for noise in (False, True):
        sources = [stripes(seed) for seed in range(COUNT)]
        folds = make_folds(COUNT, 0.2, None, 42) if pictures == COUNT else [held_out(COUNT, 0.2, 42)]
        held = folds[0].tolist()
        for at in held if noise else []:
            sources[at] = np.random.default_rng(at).integers(0, 256, sources[at].shape).astype(np.uint8)
        detector = make(tiny_backbone, subsampling=subsampling)
        learnt, _ = learn(
            detector.extractor, detector.settings, sources, memory=enough_for(detector, sources, pictures)
        )
        assert learnt.folds == [fold.tolist() for fold in folds]
        banks.append(learnt.bank(learnt.choose(without=held)))
        whole = learnt.bank(learnt.choose())
        assert set(held) & set(whole.origin[:, 0].tolist())
    assert not set(held) & set(banks[0].origin[:, 0].tolist())
    assert len(banks[0]) == int(0.1 * 64 * (COUNT - len(held)))
    assert np.array_equal(banks[0].vectors, banks[1].vectors)


def test_a_bank_without_a_fold_holds_none_of_it_and_covers_the_others_as_that_of_all_does(tiny_backbone, scratch):
    sources = [stripes(seed) for seed in range(COUNT)]
    detector = make(tiny_backbone)
    learnt, _ = learn(detector.extractor, detector.settings, sources, memory=enough_for(detector, sources, COUNT))
    own = learnt.choose()
    for fold in learnt.folds[:5]:
        choice = learnt.choose(without=fold)
        bank = learnt.bank(choice)
        assert not set(fold) & set(bank.origin[:, 0].tolist())
        assert choice.radius == own.radius
        others = [at for at in range(COUNT) if at not in fold]
        patches = np.concatenate([seen.patches for seen in learnt.reread(others)])
        assert bank.nearest(patches)[0].max() <= own.radius * (1 + 1e-3)


@pytest.mark.parametrize("pictures", [5, COUNT])
def test_pictures_come_again_with_the_patches_that_they_had(tiny_backbone, good, everything, pictures, scratch):
    detector = make(tiny_backbone)
    sources = find_pictures(good)
    learnt, _ = learn(detector.extractor, detector.settings, sources, memory=enough_for(detector, sources, pictures))
    held = learnt.folds[0]
    seen = list(learnt.reread(held))
    assert [Path(one.picture.path) for one in seen] == [sources[at] for at in held]
    assert [one.index for one in seen] == held
    for one, at in zip(seen, held, strict=True):
        assert np.array_equal(one.patches, everything.vectors[64 * at : 64 * at + 64])
        assert np.array_equal(one.cells, everything.origin[64 * at : 64 * at + 64, 1:])


def test_nothing_but_unreadable_pictures_is_named(tiny_backbone, tmp_path, scratch):
    (tmp_path / "bad").mkdir()
    for i in range(20):
        (tmp_path / "bad" / f"{i}.png").touch()
    detector = make(tiny_backbone)
    with pytest.raises(DataError, match="None of the 20 pictures could be read"):
        detector.fit(tmp_path / "bad", memory=enough_for(detector, find_pictures(tmp_path / "bad"), 5))


@pytest.mark.parametrize("pictures", [5, COUNT])
def test_progress_counts_the_whole_job(tiny_backbone, good, pictures, scratch):
    seen = []
    detector = make(tiny_backbone)
    limit = enough_for(detector, find_pictures(good), pictures)
    detector.fit(good, memory=limit, progress=lambda step, done, total: seen.append((step, done, total)))
    judged = COUNT if pictures == COUNT else 4  # in folds where memory holds them all, else those held out
    for step, whole in (("features", COUNT), ("calibration", judged), ("coreset", None)):
        done = [(done, total) for name, done, total in seen if name == step]
        assert done == sorted(done)
        assert len({total for _, total in done}) == 1
        assert done[-1][0] == done[-1][1]
        assert whole in (None, done[-1][1])


def test_a_limit_that_nobody_gave_is_announced_where_it_changes_the_answer(tiny_backbone, good, monkeypatch, scratch):
    detector = make(tiny_backbone)
    limit = enough_for(detector, find_pictures(good), 5)
    monkeypatch.setattr(planning, "available_memory", lambda: 2 * limit)
    with pytest.warns(
        ChunkedFitWarning, match=r"\d+MB of memory are too little .* in \d chunks .* the exact one needs"
    ):
        detector.fit(good)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.fit(good, memory=limit)


# ---------------------------------------------------------------------- as a process


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two hundred pictures: 200 x 1024 patches of 384 numbers are 315 MB."""
    folder = tmp_path_factory.mktemp("many")
    for i in range(200):
        cv2.imwrite(str(folder / f"{i:03}.png"), stripes(i))
    return folder


def command(added, many, model, scratch, *options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(scratch)}
    arguments = ["fit", str(many), "-o", str(model), "--backbone", added, "--precision", "f32", *options]
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "totalrecall", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_the_process_stays_under_its_limit(added, many, tmp_path):
    facts, small = {}, ("--coreset", "0.0025", "--at-least", "512")
    for limit in ("2GB", "330MB"):
        process = command(added, many, tmp_path / "m.trecall", tmp_path, "--memory", limit, "--json", "-", *small)
        out, err = process.communicate()
        assert process.returncode == 0, err
        facts[limit] = json.loads(out)
        assert f"(allowed {limit.replace('GB', '.0 GB').replace('MB', ' MB')})" in err
        assert facts[limit]["peak_memory"] < parse_size(limit)
        assert facts[limit]["peak_memory"] < 1.1 * facts[limit]["plan"]["memory"]
    assert facts["2GB"]["chunks"] == 1
    assert facts["330MB"]["chunks"] > 1
    assert facts["2GB"]["peak_memory"] > 400_000_000  # so the limit did something
    assert facts["330MB"]["vectors"] == facts["2GB"]["vectors"] == 512


def test_an_interrupted_fit_leaves_neither_scratch_nor_model(added, many, tmp_path):
    scratch, models = tmp_path / "scratch", tmp_path / "models"
    scratch.mkdir()
    models.mkdir()
    options = ["--memory", "330MB", "--coreset", "0.03", "--at-least", "1"]
    process = command(added, many, models / "m.trecall", scratch, *options)
    opened = Path(f"/proc/{process.pid}/fd")
    if not opened.is_dir():
        process.kill()
        pytest.skip("needs /proc to see the scratch file that has no name")
    until = time.monotonic() + 60
    while not any(str(scratch) in target for target in _targets(opened)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, (out, err)
    assert err.splitlines() == ["totalrecall: interrupted."]
    assert "Wrote" not in out
    assert list(scratch.iterdir()) == []
    assert list(models.iterdir()) == []


def _targets(folder):
    found = []
    for link in list(folder.iterdir()):
        with contextlib.suppress(OSError):  # closed meanwhile
            found.append(str(link.readlink()))
    return found
