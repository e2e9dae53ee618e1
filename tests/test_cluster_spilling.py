"""More patches than the shared memory of a node holds: Ray puts the others on its disk, and the model is the same."""

import sys
import warnings

import pytest

from tests.cluster_ready import NEEDS_RAY
from tests.parts import digest, stripes, written
from totalrecall import PatchCore

pytestmark = [NEEDS_RAY, pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="Ray fakes no nodes")]

STORE = 80 << 20  # bytes: hardly more than the least that Ray takes
SETTINGS = {"size": 256, "coreset": 0.001, "at_least": 1, "precision": "f32", "folds": 3, "threads": 1}


@pytest.fixture
def small_node(monkeypatch):
    """A cluster of two cores with little shared memory."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own helper
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield cluster
        cluster.shutdown()


def test_patches_that_shared_memory_does_not_hold_give_the_same_model(small_node, tiny_backbone, tmp_path):
    import cv2

    from totalrecall.cluster.connection import connected
    from totalrecall.cluster.fitting import Spread

    pictures = tmp_path / "good"
    pictures.mkdir()
    for at in range(96):
        cv2.imwrite(str(pictures / f"{at:02}.png"), stripes(at, 256, 256))
    here = PatchCore(backbone=tiny_backbone, **SETTINGS).fit(pictures)
    assert 4 * here.report_.patches * here.report_.dimensions > 1.5 * STORE
    with connected(small_node.address):
        spread = Spread(2)
        try:
            there = PatchCore(backbone=tiny_backbone, **SETTINGS).fit(pictures, way=spread.way)
        finally:
            spread.close()
    assert written(there, tmp_path) == digest(here.save(tmp_path / "here.trecall"))
