"""fit --ray with pictures in a store: the model of the same files here, whatever a fit asks before it reads them."""

import json

import cv2
import numpy as np
import pytest

from tests.cluster_ready import NEEDS_RAY, bucket, ran
from tests.parts import stripes
from totalrecall import PatchCore
from totalrecall.cli import main
from totalrecall.pictures.bit_depth import find_bit_depth
from totalrecall.pictures.copies import Repeats

FIT = ["--size", "64", "--at-least", "40", "--folds", "3", "--precision", "f32"]


def deep_pictures():
    """Return the bytes of pictures of a 12-bit camera, one of them twice, and of a file that is none."""
    files = {}
    for at in range(11):
        picture = stripes(at).astype(np.uint16) * 16 + np.uint16(at)
        files[f"{at:02}.png"] = cv2.imencode(".png", picture)[1].tobytes()
    return {**files, "04b.png": files["04.png"], "05b.png": b"no picture"}


@NEEDS_RAY
@pytest.mark.slow
def test_a_fit_on_a_bucket_learns_what_it_learns_of_the_same_files_here(added, tmp_path, capsys, monkeypatch):
    files = deep_pictures()
    good = tmp_path / "good"
    good.mkdir()
    for name, data in files.items():
        (good / name).write_bytes(data)
    words = ["--backbone", added, *FIT]
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "good", "-o", "here.trecall", "--json", "here.json", *words]) == 1
    capsys.readouterr()
    with bucket(monkeypatch, {f"good/{name}": data for name, data in files.items()}):
        code, _, err = ran(
            "fit", "s3://line/good", "-o", "there.trecall", "--json", "there.json", "--ray", "local", "--workers", 2,
            *words, cwd=tmp_path,
        )  # fmt: skip
    assert code == 1, err
    assert "totalrecall: s3://line/good/05b.png is not a picture" in err
    here, there = (PatchCore.load(tmp_path / f"{name}.trecall") for name in ("here", "there"))
    assert np.array_equal(there.bank_.vectors, here.bank_.vectors)
    assert np.array_equal(there.bank_.origin, here.bank_.origin)
    assert np.array_equal(there.calibration_.scores, here.calibration_.scores)
    assert there.threshold_ == here.threshold_
    assert there.recipe.depth == here.recipe.depth
    assert there.recipe.depth.bits == 12
    assert [one.sha256 for one in there.pictures_] == [one.sha256 for one in here.pictures_]
    assert [one.path for one in there.pictures_] == [f"s3://line/{one.path}" for one in here.pictures_]
    facts = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("here", "there")]
    assert facts[1]["repeats"] == json.loads(json.dumps(facts[0]["repeats"]).replace("good/", "s3://line/good/"))
    assert len(facts[1]["repeats"]) == 1


@NEEDS_RAY
def test_what_is_known_of_a_remote_picture_is_what_is_known_of_its_file(tmp_path):
    import fsspec

    from totalrecall.cluster.survey import as_sources, look_at

    store, files = fsspec.filesystem("memory"), deep_pictures()
    paths = []
    for name, data in files.items():
        store.pipe(f"/known/{name}", data)
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    remote = as_sources([f"memory://known/{name}" for name in files])
    known = look_at(remote)
    assert find_bit_depth(known) == find_bit_depth(paths)
    assert Repeats(known).places == Repeats(paths).places
    assert len(Repeats(known).places) == len(files) - 1
    gone = as_sources(["memory://known/gone.png"])
    assert look_at(gone) == gone
    assert gone[0].size is None
