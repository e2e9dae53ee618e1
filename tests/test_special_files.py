"""Only regular files are read: a pipe would hang, /dev/zero would fill the memory, and a folder is a folder."""

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.commands import complaint, run, small
from totalrecall import PatchCore
from totalrecall.backbones import add, available, load
from totalrecall.datasets.base import open_array
from totalrecall.engines.openvino import CompiledCache
from totalrecall.errors import BackboneError, DataError, TotalRecallError
from totalrecall.system.files import LARGEST, exclusive, file_sha256, open_regular, read_regular

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes with names are POSIX's")

KINDS = ("pipe", "socket", "device", "folder", "link to a pipe")


@pytest.fixture(params=KINDS)
def special(request):
    """A path to what is no file; in a folder with a short name, which a socket's must have."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.png"
        if request.param == "folder":
            path.mkdir()
        elif request.param == "socket":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(path))
        elif request.param == "device":
            path.symlink_to("/dev/zero")
        else:
            os.mkfifo(path)
        if request.param == "link to a pipe":
            path.rename(path.with_name("pipe"))
            path.symlink_to("pipe")
        yield path


@pytest.mark.parametrize("read", [read_regular, open_regular, file_sha256])
def test_what_is_no_file_is_refused_and_does_not_hang(special, read):
    with pytest.raises(OSError, match="it is a") as caught:
        read(special)
    assert caught.value.strerror


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path):
    large = tmp_path / "x"
    with large.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room on the disk
    for read in (read_regular, open_regular, file_sha256):
        with pytest.raises(OSError, match="allowed are 1,000"):
            read(large, limit=1000)
    for refused in (lambda: load(large.rename(tmp_path / "x.onnx")), lambda: add("resnet18", tmp_path / "x.onnx")):
        with pytest.raises(BackboneError, match=r"it holds 1,099,511,627,776 bytes, allowed are"):
            refused()
    assert min(LARGEST.values()) >= 64 << 20


def test_a_model_file_that_is_no_file(capsys, special, parts):
    for line in (["predict", special, parts], ["info", special], ["update", special, "--undo"]):
        assert complaint(capsys, *line)[0] == 3
    with pytest.raises(TotalRecallError):
        PatchCore.load(special)
    with pytest.raises(DataError, match="Cannot read"), exclusive(special):
        pass


def test_a_monitor_that_is_no_file(capsys, special, model, parts, tmp_path):
    own = special.rename(special.with_suffix(".monitor"))
    code, message = complaint(capsys, "predict", model, parts / "test", "--monitor", own)
    assert code in (1, 2)
    assert str(own) in message


def test_weights_and_backbones_that_are_no_files(capsys, special, added, parts, session_home, tmp_path):
    assert complaint(capsys, "backbones", "add", "resnet18", "--weights", special)[0] == 3
    graph = special.rename(special.with_suffix(".onnx"))
    fit = ["fit", parts / "train", "-o", tmp_path / "m", *small(added)]
    fit[fit.index(added)] = graph
    assert complaint(capsys, *fit)[0] == 3
    kept = next(session_home.rglob(f"{added}.onnx")).with_name("odd.onnx")
    kept.symlink_to(graph)
    try:
        assert [info.problem != "" for info in available() if info.name == "odd"] == [True]
        assert run(capsys, "backbones", "list")[0] == 0
    finally:
        kept.unlink()


def test_a_picture_to_remove_that_is_no_file(capsys, special, model, tmp_path):
    own = shutil.copy(model, tmp_path / "m.trecall")
    code, message = complaint(capsys, "update", own, "--remove", special)
    assert code == 1
    assert message.startswith(f"{special}: the model learnt no such picture.")


def test_a_compiled_graph_that_is_no_file_is_none(special, tmp_path):
    cache = CompiledCache(tmp_path)
    cache.write(("key",), b"graph")
    (entry,) = tmp_path.glob("*.compiled")
    entry.unlink()
    entry.symlink_to(special)
    assert cache.read(("key",)) is None


def test_arrays_tables_and_journals_that_are_no_files(capsys, special, tmp_path):
    with pytest.raises((OSError, ValueError)):
        open_array(special)
    (tmp_path / "visa" / "split_csv").mkdir(parents=True)
    (tmp_path / "visa" / "candle").mkdir()
    (tmp_path / "visa" / "split_csv" / "1cls.csv").symlink_to(special)
    code, _, err = run(capsys, "datasets", "visa", tmp_path / "visa")
    assert code == 1
    assert err
    out = tmp_path / "out"
    out.mkdir()
    (out / "cells.jsonl").symlink_to(special)
    assert complaint(capsys, "benchmark", "visa", tmp_path / "visa", "--out", out)[0] in (1, 2)


def test_an_array_is_read_as_before(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3))
    assert open_array(tmp_path / "x.npy").tolist() == np.eye(3).tolist()
    np.savez(tmp_path / "z.npz", x=np.eye(3))
    with pytest.raises(ValueError, match="magic"):
        open_array(tmp_path / "z.npz")


def test_a_list_of_heat_maps_that_is_no_file_is_refused(capsys, special, model, parts, tmp_path):
    own = tmp_path / "maps" / ".totalrecall-heatmaps"
    own.parent.mkdir()
    own.symlink_to(special)
    code, message = complaint(capsys, "predict", model, parts / "test", "--heatmaps", own.parent)
    assert code == 1
    assert message == f"{own} is no file of ours. Remove it, or name another folder for --heatmaps."
