"""benchmark --ray: the cells of one process to the bit, whatever dies meanwhile, and what a cell asks for."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.cluster_ready import NEEDS_RAY, command, ran, wait_for
from tests.commands import complaint
from totalrecall.benchmark.run import Benchmark, _cells, run_benchmark, run_families
from totalrecall.errors import ClusterError, SettingError, UnlikePictureWarning

TIMES = ("seconds", "latency_ms", "peak_memory", "peak_of")
OPTIONS = ["--size", "64", "--precision", "f32", "--quiet"]


@pytest.fixture
def tasks(cluster):
    """Two cells at a time, of a core each."""
    from totalrecall.cluster.cells import Tasks
    from totalrecall.cluster.share import Share

    assert cluster.cores == 2
    return Tasks(Share(cores=1, cards=0, room=2))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two categories of a few tiny pictures in the MVTec layout; one picture is none."""
    from totalrecall.demo.pictures import make_dataset

    folder = tmp_path_factory.mktemp("two")
    for seed, kind in enumerate(("washer", "wood")):
        make_dataset(folder / kind, kind=kind, good=6, test_good=3, defective=3, seed=seed, size=(64, 64))
    sorted((folder / "wood" / "test" / "good").iterdir())[0].write_bytes(b"no picture")
    return folder


@pytest.fixture
def wanted(root, added):
    """Two categories and two seeds, by SPADE, which is the quickest."""
    settings = {"backbone": added, "size": 64, "precision": "f32", "threads": 1}
    return Benchmark("mvtec", root, ["washer", "wood"], methods=["spade"], seeds=[1, 2], settings=settings)


def figures(line):
    """Return a cell's line without what it took."""
    return {name: value for name, value in line.items() if name not in TIMES}


def thumbnails(folder):
    return {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}


# ---------------------------------------------------------------------- the same figures


@NEEDS_RAY
@pytest.mark.slow
def test_the_command_gives_the_same_tables_and_goes_on_from_either_way(root, added, tmp_path):
    words = ["benchmark", "mvtec", root, "--backbone", added, "--methods", "patchcore", "spade", *OPTIONS]
    code, here, err = ran(*words, "--threads", 1, "-o", "here", cwd=tmp_path)
    code_there, there, err_there = ran(*words, "--ray", "local", "-o", "there", cwd=tmp_path)
    assert code == code_there == 1
    assert there == here
    assert err_there == err
    assert f"{root}/wood/test/good/" in err
    lines, lines_there = (
        {line["key"]: line for line in map(json.loads, (tmp_path / name / "cells.jsonl").read_text().splitlines())}
        for name in ("here", "there")
    )
    assert len(lines) == 4
    assert {key: figures(line) for key, line in lines_there.items()} == {
        key: figures(line) for key, line in lines.items()
    }
    assert thumbnails(tmp_path / "there") == thumbnails(tmp_path / "here")
    before, after = ((tmp_path / name / "report.md").read_text().split("## What it took") for name in ("here", "there"))
    assert after[0] == before[0]
    cells = (tmp_path / "here" / "cells.jsonl").read_bytes()
    code, again, _ = ran(*words[:-1], "--ray", "local", "-o", "here", cwd=tmp_path)
    assert code == 1
    assert "4 of 4 cells are done already" in again
    assert (tmp_path / "here" / "cells.jsonl").read_bytes() == cells


@NEEDS_RAY
def test_cells_that_share_a_fit_are_measured_by_one_task(tasks, root, added, tmp_path):
    from totalrecall.benchmark.ablation import run_ablation

    settings = {"backbone": added, "size": 64, "precision": "f32", "threads": 1, "coreset": 0.1, "at_least": 1}
    wanted = Benchmark("mvtec", root, ["washer"], methods=["patchcore"], settings=settings)
    here, there = (
        run_ablation(wanted, tmp_path / name, factors=["scoring", "patch-size"], way=way)
        for name, way in (("here", None), ("there", tasks.way))
    )
    assert [list(map(figures, row)) for row in there.lines] == [list(map(figures, row)) for row in here.lines]
    assert len(here.lines) == len(here.variants) > 5


@NEEDS_RAY
def test_notices_of_the_workers_reach_the_person_and_the_time_left_is_told(tasks, wanted, tmp_path):
    from totalrecall.demo.pictures import make_dataset

    root = make_dataset(tmp_path / "set", kind="washer", good=6, test_good=2, defective=2, size=(64, 64))
    odd = make_dataset(tmp_path / "odd", kind="washer", good=1, test_good=1, defective=1, size=(64, 96), seed=5)
    (odd / "train" / "good" / "000.png").rename(root / "train" / "good" / "odd.png")
    wanted = replace(wanted, root=root, categories=["set"])
    said, steps = [], []
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        run_benchmark(
            wanted, tmp_path / "out", way=tasks.way, tell=said.append, progress=lambda *step: steps.append(step)
        )
    assert "of another shape or size than most" in " ".join(
        str(one.message) for one in heard if issubclass(one.category, UnlikePictureWarning)
    )
    assert steps == [("cells", 1, 2), ("cells", 2, 2)]
    assert said[0].startswith("[1/2] spade set seed ")
    assert said[0].endswith(" left")
    assert not said[1].endswith(" left")


# ---------------------------------------------------------------------- deaths


class Killer(threading.Thread):
    """Kills the first process that it sees at work on a cell, as the system would."""

    def __init__(self):
        super().__init__(daemon=True)
        self.killed = 0

    def run(self):
        while not self.killed:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if at_work(child):
                        child.suspend()
                        if at_work(child):  # still: it cannot end the cell now
                            child.kill()
                            self.killed = child.pid
                            return
                        child.resume()
            time.sleep(0.005)


def at_work(process):
    return process.cmdline()[:1] == ["ray::_measured"]


@NEEDS_RAY
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_a_cell_whose_worker_is_killed_is_measured_by_another(tasks, wanted, tmp_path):
    expected, _ = run_benchmark(wanted, tmp_path / "here")
    killer = Killer()
    killer.start()
    lines, bad = run_benchmark(wanted, tmp_path / "there", way=tasks.way)
    killer.join(60)
    assert killer.killed
    assert not psutil.pid_exists(killer.killed)
    assert bad == []
    assert list(map(figures, lines)) == list(map(figures, expected))
    assert thumbnails(tmp_path / "there") == thumbnails(tmp_path / "here")


@NEEDS_RAY
def test_a_cell_that_kills_every_worker_is_named_and_the_others_are_measured(tasks, wanted, tmp_path):
    from totalrecall.backbones import load

    class Deadly(Mapping):
        """Settings that end whoever reads them in another process."""

        def __init__(self, settings, pid):
            self.settings, self.pid = settings, pid

        def __getitem__(self, name):
            return self.settings[name]

        def __iter__(self):
            if os.getpid() != self.pid:
                os._exit(1)
            return iter(self.settings)

        def __len__(self):
            return len(self.settings)

    cells, _ = _cells(wanted, load(wanted.backbone))
    cells[1] = replace(cells[1], settings=Deadly(cells[1].settings, os.getpid()))
    lines, bad = run_families([[cell] for cell in cells], tmp_path, pictures=False, way=tasks.way)
    assert [line["key"] for line in lines] == [cell.key for at, cell in enumerate(cells) if at != 1]
    assert [cell.title for cell in bad] == [cells[1].title]
    assert bad[0].message.startswith("3 workers in turn died over it (")
    lines, bad = run_families([[cells[1]]], tmp_path, pictures=False)  # given again it is not among those done
    assert (len(lines), bad) == (1, [])


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_command_keeps_its_finished_cells_and_goes_on(root, added, tmp_path):
    seeds = list(map(str, range(12)))
    words = ["benchmark", "mvtec", root, "--backbone", added, "--methods", "spade", "--categories", "washer"]
    words += ["--seeds", *seeds, *OPTIONS[:-1], "--ray", "local", "--workers", 1, "-o", "out"]
    journal = tmp_path / "out" / "cells.jsonl"
    process = command(*words, cwd=tmp_path)
    wait_for(lambda: journal.exists() and journal.stat().st_size, process)
    process.send_signal(signal.SIGKILL)
    process.wait()  # not until the pipes end: two helpers of Ray notice only minutes later, and hold them
    process.stdout.close()
    process.stderr.close()
    kept = journal.read_text().splitlines()
    assert 0 < len(kept) < 12
    assert not (tmp_path / "out" / "report.md").exists()
    code, out, err = ran(*words, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert f"{len(kept)} of 12 cells are done already" in out
    lines = journal.read_text().splitlines()
    assert lines[: len(kept)] == kept
    assert [json.loads(line)["setup"]["seed"] for line in lines] == list(range(12))
    assert (tmp_path / "out" / "report.md").exists()


# ---------------------------------------------------------------------- what a cell asks for


@pytest.fixture
def machines(monkeypatch):
    """Have Ray know of these machines: cores and cards of each."""
    from totalrecall.cluster import share

    class Ray:
        def __init__(self, *shapes):
            self.shapes = shapes

        def nodes(self):
            gone = {"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 1000.0}}
            return [
                gone,
                *({"Alive": True, "Resources": {"CPU": float(cores), "GPU": float(cards)}}
                  for cores, cards in self.shapes),
            ]  # fmt: skip

    return lambda *shapes: monkeypatch.setattr(share, "need_ray", lambda: Ray(*shapes))


@pytest.mark.parametrize(
    ("asked", "share"),
    [
        ((None, None), (1, 0, 48)),
        (("CPU", 4), (4, 0, 11)),  # 8 + 2 + 1: a cell is not cut over machines
        ((None, 3, 5), (3, 0, 5)),
        (("cuda", None), (5, 1, 3)),  # the fewest cores that go with a card
        (("GPU", None, 2), (5, 1, 2)),
    ],
)
def test_a_cell_asks_for_its_threads_or_for_a_card_and_the_cores_that_go_with_it(machines, asked, share):
    from totalrecall.cluster.share import Share, share_of

    machines((32, 0), (10, 2), (6, 1))
    assert share_of(*asked) == Share(*share)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((None, 33), "threads must be at most the 32 cores of a machine of the cluster, got 33"),
        (("cuda", None), "device cuda needs a card for each cell, and Ray knows of none in this cluster"),
        (("cuda:1", None), "device must be without a number on a cluster, got cuda:1"),
        (("GPU.0", None), "device must be without a number on a cluster, got GPU.0"),
    ],
)
def test_what_no_machine_has_is_refused(machines, asked, message):
    from totalrecall.cluster.share import share_of

    machines((32, 0))
    with pytest.raises(SettingError, match=message):
        share_of(*asked)


@NEEDS_RAY
def test_a_folder_that_a_machine_does_not_see_ends_the_command_with_one_line(tasks, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: tmp_path / "elsewhere")
    with pytest.raises(ClusterError, match=r"cannot use the folder .*elsewhere \(No such file or directory\)"):
        run_benchmark(wanted, tmp_path / "out", way=tasks.way)


@NEEDS_RAY
def test_a_device_that_a_worker_has_not_ends_the_command(tasks, wanted, tmp_path):
    wanted = replace(wanted, settings={**wanted.settings, "device": "TPU", "threads": None})
    with pytest.raises(SettingError, match=r"device must be one of .*, got TPU"):
        run_benchmark(wanted, tmp_path, way=tasks.way)


def test_workers_without_a_cluster_or_none_and_what_is_no_address_are_refused(root, added, tmp_path, capsys):
    code, said = complaint(capsys, "benchmark", "mvtec", root, "-o", tmp_path / "out", "--workers", "2")
    assert (code, said) == (2, "--workers is only for --ray, got 2. Add --ray local.")
    words = ["benchmark", "mvtec", root, "--backbone", added, "-o", tmp_path / "out", "--ray"]
    code, said = complaint(capsys, *words, "local", "--workers", "0")
    assert (code, said.startswith("--workers must be at least 1, got 0. ")) == (2, True)
    code, said = complaint(capsys, *words, "nowhere")
    assert code == 2
    assert "--ray must be HOST:PORT of a cluster, auto" in said
