"""fit on a Ray cluster: the model of one process, to the bit, also where workers are killed at their work."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import warnings

import cv2
import numpy as np
import psutil
import pytest

from tests.cluster_ready import KILLING, ran
from tests.parts import digest, stripes, written
from totalrecall import PatchCore
from totalrecall.cli import main
from totalrecall.errors import ClusterError
from totalrecall.patchcore import coreset
from totalrecall.patchcore.coreset import greedy_k_center

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs ray (pip install 'totalrecall[cluster]')"
)
SETTINGS = {"size": 64, "coreset": 0.1, "at_least": 1, "precision": "f32", "folds": 3, "threads": 1}


@pytest.fixture
def spread(cluster):
    """Two workers."""
    from totalrecall.cluster.fitting import Spread

    assert cluster.cores == 2
    spread = Spread(2)
    yield spread
    spread.close()


@pytest.fixture
def small_blocks(monkeypatch):
    """A pool and blocks so small that the workers are asked many times."""
    monkeypatch.setattr(coreset, "_POOL_AT_MOST", 64 * 384 * 4)
    monkeypatch.setattr(coreset, "BLOCK", 32)


def folder_of(folder, count):
    folder.mkdir()
    for at in range(count):
        cv2.imwrite(str(folder / f"{at:02}.png"), stripes(at))
    return folder


@needs_ray
@pytest.mark.parametrize(
    ("count", "options"),
    [
        (14, {}),
        (14, {"projection": 48}),
        (14, {"ignore_outliers": True, "scoring": "map1pct"}),
        (14, {"subsampling": "random"}),
        (3, {}),  # few enough for tilted copies
    ],
    ids=str,
)
def test_the_model_is_that_of_one_process_to_the_bit(spread, small_blocks, tiny_backbone, tmp_path, count, options):
    pictures = folder_of(tmp_path / "good", count)
    here = PatchCore(backbone=tiny_backbone, **{**SETTINGS, **options}).fit(pictures)
    there = PatchCore(backbone=tiny_backbone, **{**SETTINGS, **options}).fit(pictures, way=spread.way)
    assert np.array_equal(there.bank_.vectors, here.bank_.vectors)
    assert written(there, tmp_path) == digest(here.save(tmp_path / "here.trecall"))
    assert there.report_.radius == here.report_.radius or np.isnan(here.report_.radius)
    roles = [process["role"] for process in there.report_.processes]
    assert roles == ["driver", "worker", "worker"]
    assert all(process["peak_memory"] > 50 << 20 for process in there.report_.processes)
    assert len({process["pid"] for process in there.report_.processes}) == 3


@needs_ray
def test_what_cannot_be_read_or_repeats_another_is_told_as_by_one_process(spread, tiny_backbone, tmp_path):
    pictures = folder_of(tmp_path / "good", 9)
    (pictures / "04b.png").write_bytes(b"no picture")
    cv2.imwrite(str(pictures / "05b.bmp"), cv2.imread(str(pictures / "05.png")))  # the same pixels
    here, there = (PatchCore(backbone=tiny_backbone, **SETTINGS) for _ in range(2))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        here.fit(pictures)
    with warnings.catch_warnings(record=True) as warned_there:
        warnings.simplefilter("always")
        there.fit(pictures, way=spread.way)
    said, said_there = (
        [str(one.message) for one in some if "pictures" in str(one.message)] for some in (warned, warned_there)
    )
    assert said_there == said
    assert any("repeats another" in words for words in said)
    assert any("were left out" in words for words in said)
    assert [str(error) for error in there.skipped_] == [str(error) for error in here.skipped_]
    assert len(there.skipped_) == 1
    assert there.report_.repeats == here.report_.repeats
    assert len(there.report_.repeats) == 1
    assert written(there, tmp_path) == digest(here.save(tmp_path / "here.trecall"))


def worker_processes():
    """Return the processes of the workers of this process's cluster."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.cmdline() and child.cmdline()[0].startswith("ray::Worker")]


class Killer:
    """Kills a worker at the first sign of a step, as the system would."""

    def __init__(self, step):
        self.step, self.killed, self.left = step, 0, 0
        self.seen = []

    def __call__(self, step, done, total):
        self.seen.append((step, done, total))
        if step == self.step and not self.killed and done < total:
            victim = worker_processes()[0]
            victim.send_signal(signal.SIGKILL)
            self.killed, self.left = victim.pid, total - done


@needs_ray
@pytest.mark.parametrize("step", ["features", "coreset", "calibration"])
def test_a_worker_that_is_killed_is_replaced_and_the_model_is_the_same(
    spread, small_blocks, tiny_backbone, tmp_path, step
):
    pictures = folder_of(tmp_path / "good", 20)
    here = PatchCore(backbone=tiny_backbone, **SETTINGS).fit(pictures)
    killer = Killer(step)
    there = PatchCore(backbone=tiny_backbone, **SETTINGS).fit(pictures, way=spread.way, progress=killer)
    assert killer.killed
    assert killer.left
    assert not psutil.pid_exists(killer.killed)
    assert killer.killed not in {process["pid"] for process in there.report_.processes}
    assert len(there.report_.processes) == 3  # it was replaced
    assert written(there, tmp_path) == digest(here.save(tmp_path / "here.trecall"))
    for name in ("features", "calibration"):
        steps = [done for what, done, _ in killer.seen if what == name]
        assert steps == sorted(steps)
        assert steps[-1] == 20


@needs_ray
def test_a_coreset_of_shared_points_is_the_plain_one(cluster, small_blocks):
    import ray

    from totalrecall.cluster.coreset import SharedGreedy, merged
    from totalrecall.cluster.crew import Crew
    from totalrecall.cluster.rows import SharedRows
    from totalrecall.patchcore.coreset import first_choice

    rng = np.random.default_rng(3)
    points = rng.normal(5, 1, (3000, 24)).astype(np.float32) * rng.uniform(0.5, 3, (3000, 1)).astype(np.float32)
    rows = SharedRows(24)
    for part in np.split(points, [700, 700, 1900]):  # one is empty
        rows.add(ray.put(part), len(part))
    crew = Crew(2)
    try:
        plain = greedy_k_center(points, 200, seed=7)
        shared = SharedGreedy(rows, 200, crew).choose_all(first_choice(3000, 7))
        rounds = merged(rows, 200, crew, seed=7, radius=0.0)
    finally:
        crew.close()
    assert np.array_equal(shared.indices, plain.indices)
    assert np.array_equal(shared.coverer, plain.coverer)
    assert shared.radius == plain.radius
    chosen = points[rounds.coreset.indices]
    apart = np.sqrt(((points[:, None] - chosen) ** 2).sum(axis=2)).min(axis=1)
    assert rounds.coreset.radius == pytest.approx(apart.max(), rel=1e-4)  # as measured, not as promised
    assert len(np.unique(rounds.coreset.indices)) == 200
    assert rounds.candidates == 400
    assert rounds.coreset.radius <= rounds.bound * 1.0001
    assert plain.radius / 2 <= rounds.coreset.radius * 1.0001  # no choice is better than half of the greedy's


@needs_ray
def test_work_that_kills_every_worker_ends_the_fit_with_one_line(cluster):
    from totalrecall.cluster.crew import Crew

    def die(worker):
        with worker._begun("this") as begun:
            if begun:
                os._exit(1)

    assert cluster.cores == 2
    crew = Crew(1)
    try:
        with pytest.raises(ClusterError, match=r"lost a worker again .*: 4 in turn died over it\. .*--workers"):
            crew.get(crew.workers[0].__ray_call__.remote(die))
        assert crew.facts()[1]["role"] == "worker"  # the next one is there, and does other work
    finally:
        crew.close()


@needs_ray
def test_a_cluster_that_has_no_room_for_its_workers_any_more_ends_the_fit_with_one_line(cluster, monkeypatch):
    from totalrecall.cluster import crew as crews

    assert cluster.cores == 2
    monkeypatch.setattr(crews, "_LOOK", 0.1)
    monkeypatch.setattr(crews, "_PATIENCE", 0.3)
    crew = crews.Crew(3)  # as if a machine of three had gone
    try:
        with pytest.raises(ClusterError, match=r"has 2 cores left for 3 workers: .* again, with --workers 2: it goes"):
            crew.facts()
    finally:
        crew.close()


@needs_ray
@pytest.mark.slow
def test_shared_rows_read_like_an_array(cluster):
    import ray

    from totalrecall.cluster.rows import SharedRows

    assert cluster.nodes == 1
    points = np.arange(60, dtype=np.float32).reshape(20, 3)
    rows = SharedRows(3)
    for part in np.split(points, [5, 5, 12]):
        rows.add(ray.put(part), len(part))
    at = np.array([19, 0, 5, 4, 5, 12])
    assert rows.shape == (20, 3)
    assert np.array_equal(rows[at], points[at])
    assert np.array_equal(rows[3:14], points[3:14])
    assert np.array_equal(rows.all(), points)
    assert np.array_equal(rows.part(2, 4).all(), points[5:])
    assert np.array_equal(np.concatenate(list(rows.blocks(7))), points)
    assert rows[np.empty(0, np.int64)].shape == (0, 3)
    shuffled = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 3))  # ascending nowhere for long
    assert np.array_equal(rows[shuffled], points[shuffled])
    for wrong in (np.array([3, 20]), np.array([-1, 3])):
        with pytest.raises(IndexError, match="Rows from 0 to 19, got "):
            rows[wrong]
    with pytest.raises(TypeError, match="cannot grow, got 20 more"):
        rows.append(points)


@needs_ray
def test_the_command_writes_the_same_file_and_names_what_each_process_held(added, tmp_path):
    pictures = folder_of(tmp_path / "good", 12)
    command = [sys.executable, "-m", "totalrecall", "fit", str(pictures), "--backbone", added, "--size", "64"]
    command += ["--at-least", "40", "--folds", "3", "--precision", "f32"]
    environment = {**os.environ, "RAY_worker_niceness": "0"}
    outputs = []
    for name, more in (
        ("here", []),
        ("there", ["--ray", "local", "--workers", "2", "--json", "facts.json"]),
        ("rounds", ["--ray", "local", "--workers", "2", "--coreset-merge"]),
    ):
        done = subprocess.run(
            [*command, "-o", f"{name}.trecall", *more],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "core_worker" not in done.stderr  # Ray's own lines
        outputs.append(done.stderr + done.stdout)
    assert digest(tmp_path / "here.trecall") == digest(tmp_path / "there.trecall")
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert [process["role"] for process in facts["processes"]] == ["driver", "worker", "worker"]
    assert "Cluster: 2 workers, 1 machine" in outputs[1]
    assert "Peak memory: " in outputs[1]
    assert "Coreset in two rounds, of 80 candidates: every patch is within" in outputs[2]


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_picture_that_ends_every_worker_is_left_out_and_told_and_the_others_are_learnt(added, tmp_path):
    pictures = folder_of(tmp_path / "good", 33)
    words = ["--backbone", added, "--size", "64", "--at-least", "40", "--folds", "3", "--precision", "f32"]
    assert ran("fit", "good", "-o", "here.trecall", *words, cwd=tmp_path)[0] == 0
    cv2.imwrite(str(pictures / "17_killer.png"), stripes(99))
    code, _, err = ran(
        "fit", "good", "-o", "there.trecall", "--ray", "local", "--workers", 1, *words,
        cwd=tmp_path, environment=KILLING,
    )  # fmt: skip
    assert code == 1, err
    told = [line for line in err.splitlines() if line.startswith("totalrecall:")]
    assert told[0].startswith("totalrecall: good/17_killer.png was not read: it ended every worker that tried.")
    assert len(told) == 1
    assert digest(tmp_path / "here.trecall") == digest(tmp_path / "there.trecall")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "--workers is only for --ray, got 2. Add --ray local."),
        (["--coreset-merge"], "--coreset-merge is only for --ray. Add --ray local, or leave it out."),
        (["--ray", "local", "--memory", "1GB"], "--memory does not work with --ray: each worker has one core."),
        (["--ray", "local", "--tune"], "--tune does not work with --ray: each worker has one core. Leave it out."),
        (["--ray", "local", "--method", "padim"], "--ray fits patchcore with one backbone and one size, not in 8 bits"),
        (["--ray", "local", "--sizes", "64", "96"], "--ray fits patchcore with one backbone and one size"),
        (["--ray", "local", "--precision", "int8"], "--ray fits patchcore with one backbone and one size"),
        (["--ray", "local", "--workers", "0"], "workers must be at least 1, got 0."),
    ],
)
def test_options_that_do_not_fit_together_are_refused_before_anything_starts(tmp_path, capsys, options, message):
    pictures = folder_of(tmp_path / "good", 1)
    assert main(["fit", str(pictures), "-o", str(tmp_path / "m.trecall"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m.trecall").exists()
