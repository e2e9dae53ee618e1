"""Several nodes, faked on one machine: the model and the scores of one process, also where a node goes meanwhile."""

import json
import sys
import warnings

import psutil
import pytest

from tests.cluster_ready import NEEDS_RAY, copies, rows
from tests.parts import digest, stripes, written
from totalrecall import PatchCore
from totalrecall.cli import main

pytestmark = [NEEDS_RAY, pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="Ray fakes no nodes")]

SETTINGS = {"size": 64, "coreset": 0.1, "at_least": 1, "precision": "f32", "folds": 6, "threads": 1}


@pytest.fixture
def nodes(monkeypatch):
    """A cluster of three nodes of a core each; yields it with the two that may go."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    # a node that is gone is known after seconds, and not after half a minute
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    monkeypatch.setenv("RAY_health_check_initial_delay_ms", "5000")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own helper
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        others = [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
        cluster.wait_for_nodes()
        yield cluster, others
        cluster.shutdown()


def pictures_in(folder, count):
    import cv2

    folder.mkdir()
    for at in range(count):
        cv2.imwrite(str(folder / f"{at:02}.png"), stripes(at))
    return folder


def works(node):
    """Tell whether a worker of ours lives on a node."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any("Worker" in " ".join(child.cmdline()) for child in raylet.children(recursive=True))


class Remover:
    """Takes a node away, where a worker is, at the first sign of a step."""

    def __init__(self, cluster, nodes, step):
        self.cluster, self.nodes, self.step = cluster, nodes, step
        self.removed = ""

    def __call__(self, step, done, total):
        if step != self.step or self.removed or done >= total:
            return
        import ray

        here = ray.get_runtime_context().get_node_id()
        victim = next(node for node in self.nodes if node.node_id != here and works(node))
        self.removed = victim.node_id
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.cluster.remove_node(victim, allow_graceful=False)


def fit_on(cluster, pictures, workers, backbone, progress=None):
    from totalrecall.cluster.connection import connected
    from totalrecall.cluster.fitting import Spread

    with connected(cluster.address) as joined:
        assert (joined.nodes, joined.cores) == (3, 3)
        spread = Spread(workers)
        try:
            return PatchCore(backbone=backbone, **SETTINGS).fit(pictures, way=spread.way, progress=progress)
        finally:
            spread.close()


def test_three_nodes_of_a_core_learn_the_model_of_one_process(nodes, tiny_backbone, tmp_path):
    pictures = pictures_in(tmp_path / "good", 20)
    here = PatchCore(backbone=tiny_backbone, **SETTINGS).fit(pictures)
    there = fit_on(nodes[0], pictures, 3, tiny_backbone)
    assert len({process["node"] for process in there.report_.processes if process["role"] == "worker"}) == 3
    assert written(there, tmp_path) == digest(here.save(tmp_path / "here.trecall"))


@pytest.mark.parametrize("step", ["features", "coreset", "calibration"])
def test_a_node_that_goes_in_the_middle_of_a_fit_leaves_the_same_model(nodes, tiny_backbone, tmp_path, step):
    cluster, others = nodes
    pictures = pictures_in(tmp_path / "good", 20)
    here = PatchCore(backbone=tiny_backbone, **SETTINGS).fit(pictures)
    remover = Remover(cluster, others, step)
    there = fit_on(cluster, pictures, 2, tiny_backbone, remover)  # the third core is where another worker starts
    assert remover.removed
    assert remover.removed not in {process["node"] for process in there.report_.processes}
    assert written(there, tmp_path) == digest(here.save(tmp_path / "here.trecall"))


def test_a_node_that_goes_in_the_middle_of_predict_leaves_the_same_results(
    nodes, model, pictures, tmp_path, capsys, monkeypatch
):
    from totalrecall.cluster import predicting

    cluster, others = nodes
    names = copies(pictures, tmp_path / "pictures", 96)
    monkeypatch.chdir(tmp_path)
    remover = Remover(cluster, others, "scoring")
    judge_parts = predicting.judge_parts

    def removing(parts, judging, workers, *, failed, progress):
        assert workers == 3  # no core is left for another: the two that stay judge the rest
        assert progress is None
        return judge_parts(parts, judging, workers, failed=failed, progress=lambda *at: at[1] and remover(*at))

    monkeypatch.setattr(predicting, "judge_parts", removing)
    words = ["--ray", cluster.address, "-o", "r.parquet", "--quiet"]
    assert main(["predict", str(model), "pictures", *words]) == 0
    capsys.readouterr()
    assert remover.removed
    assert main(["predict", str(model), "pictures", "--json", "plain.json", "--quiet"]) == 0
    plain = [json.loads(line) for line in (tmp_path / "plain.json").read_text().splitlines()]
    table = rows(tmp_path / "r.parquet")
    assert [row["path"] for row in table] == [result["path"] for result in plain] == names
    assert [row["score"] for row in table] == [result["score"] for result in plain]
