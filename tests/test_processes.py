"""A fitted detector in other processes and in copies: fork, spawn, forkserver, pools, pickle, deepcopy."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from tests.parts import stripes
from totalrecall import SPADE, Monitor, PaDiM, PatchCore
from totalrecall.engines import open_engine
from totalrecall.errors import PictureError, SettingError
from totalrecall.search.exact import ExactSearch, SearchSizes

PICTURES = [stripes(seed) for seed in range(8)]
KINDS = {"patchcore": (PatchCore, {"coreset": 0.2, "at_least": 1}), "padim": (PaDiM, {}), "spade": (SPADE, {})}
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def fitted(kind, backbone):
    make, settings = KINDS[kind]
    return make(backbone=backbone, size=64, layers=(2, 3), **settings).fit(PICTURES)


def scores(detector):
    """Return what both ways give: one picture at a time, and several at once."""
    alone = [detector.predict(picture).score for picture in PICTURES[:2]]
    return [*alone, *(result.score for result in detector.predict_stream(PICTURES))]


@pytest.fixture(scope="module", params=KINDS)
def detector(request, tiny_backbone):
    return fitted(request.param, tiny_backbone)


# ---------------------------------------------------------------------- copies


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_of_a_detector_that_has_judged_scores_the_same(detector, copied):
    before = scores(detector)
    other = copied(detector)
    assert scores(other) == before
    assert other.threshold_ == detector.threshold_
    assert scores(detector) == before


def test_a_deep_copy_goes_its_own_way(tiny_backbone, tmp_path):
    detector = fitted("patchcore", tiny_backbone)
    before = scores(detector)
    other = copy.deepcopy(detector)
    other.fit(PICTURES[:4])
    assert scores(detector) == before
    assert detector.save(tmp_path / "a").read_bytes() == copy.deepcopy(detector).save(tmp_path / "b").read_bytes()


def test_a_detector_that_was_not_fitted_can_be_copied(tiny_backbone):
    detector = PatchCore(backbone=tiny_backbone, size=64)
    assert pickle.loads(pickle.dumps(detector)).settings == detector.settings


def test_results_monitors_backbones_and_engines_can_be_copied(tiny_backbone):
    detector = fitted("patchcore", tiny_backbone)
    result = detector.predict(PICTURES[0], conditions=True)
    monitor = Monitor(detector.drift_, detector.threshold_)
    monitor.observe(result.conditions, is_anomalous=False)
    engine = open_engine(tiny_backbone, ("layer2",))
    picture = PICTURES[0][None, :64, :64]
    maps = engine.run(picture)
    for copied in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        assert copied(result).to_json() == result.to_json()
        assert np.array_equal(copied(result).anomaly_map, result.anomaly_map)
        assert copied(monitor).words() == monitor.words()
        assert copied(tiny_backbone) == tiny_backbone
        assert np.array_equal(copied(engine).run(picture)["layer2"], maps["layer2"])


def test_a_search_with_a_graph_can_be_copied():
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((n, 32), dtype=np.float32) for n in (500, 20))
    search = ExactSearch(vectors, sizes=SearchSizes(worth_a_graph=1))
    distances, indices = search.nearest(queries)
    found = pickle.loads(pickle.dumps(search)).nearest(queries)
    assert np.array_equal(found[0], distances)
    assert np.array_equal(found[1], indices)


# ---------------------------------------------------------------------- other processes

# Each runs in a fresh interpreter: a hang would end there, and no thread of the test run is forked along.
SCRIPT = """
import sys, os, multiprocessing, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import numpy as np
from totalrecall import load_detector
from totalrecall.search.exact import SearchSizes

PICTURES = np.load(sys.argv[2])

def scores(detector):
    alone = [detector.predict(picture).score for picture in PICTURES[:2]]
    return [*alone, *(result.score for result in detector.predict_stream(list(PICTURES)))]

def take(given):
    global detector
    detector = given

def judge(_):
    return scores(detector)

if __name__ == "__main__":
    detector = load_detector(sys.argv[1])
    detector.bank_.search.sizes = SearchSizes(worth_a_graph=1)  # it has its graph from the first picture on
    before = scores(detector)
"""


def outcome(body, model, tmp_path):
    """Return what a script prints that has judged pictures by a model before."""
    script, pictures = tmp_path / "script.py", tmp_path / "pictures.npy"
    script.write_text(SCRIPT + "".join(f"    {line}\n" for line in body.strip().splitlines()))
    np.save(pictures, np.stack(PICTURES))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, script, model, pictures], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def model_file(tiny_backbone, tmp_path_factory):
    return fitted("patchcore", tiny_backbone).save(tmp_path_factory.mktemp("model") / "part.trecall")


@needs_fork
def test_a_forked_child_scores_what_its_parent_scored_and_both_go_on(model_file, tmp_path):
    body = """
child = os.fork()
if not child:
    same = scores(detector) == before and scores(detector) == before
    grandchild = os.fork()
    if not grandchild:
        sys.exit(0 if same and scores(detector) == before else 1)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), scores(detector) == before)
"""
    assert outcome(body, model_file, tmp_path) == "0 True"


@needs_fork
def test_a_child_that_is_forked_after_a_copy_of_the_detector_is_gone_scores_the_same(model_file, tmp_path):
    body = """
import copy, gc, signal
assert scores(copy.deepcopy(detector)) == before
gc.collect()
child = os.fork()
if not child:
    signal.alarm(60)  # it would wait for the threads of the copy, which are not there
    same = scores(detector) == before
    assert scores(copy.deepcopy(detector)) == before
    gc.collect()
    grandchild = os.fork()
    if not grandchild:
        signal.alarm(60)
        sys.exit(0 if same and scores(detector) == before else 1)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), scores(detector) == before)
"""
    assert outcome(body, model_file, tmp_path) == "0 True"


@needs_fork
def test_a_child_that_is_forked_amid_a_stream_ends_and_may_begin_another(model_file, tmp_path):
    body = """
stream = detector.predict_stream(list(PICTURES) * 3)
next(stream)
child = os.fork()
if not child:
    same = scores(detector) == before
    try:
        next(stream)
    except ValueError as error:
        same = same and "Start a new stream there." in str(error)
    sys.exit(0 if same else 1)
left = sum(1 for _ in stream)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), left == 3 * len(PICTURES) - 1)
"""
    assert outcome(body, model_file, tmp_path) == "0 True"


@needs_fork
def test_a_fork_waits_until_no_other_thread_is_amid_a_call_of_the_library(model_file, tmp_path):
    body = """
from totalrecall.system import threads
inside, let_go, forked = threading.Event(), threading.Event(), threading.Event()
def hold():
    with threads.undivided():
        inside.set()
        let_go.wait()
        held.append(forked.is_set())
held = []
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
threading.Timer(0.2, let_go.set).start()
child = os.fork()
if not child:
    with threads.undivided():  # the child's own is free
        os._exit(0 if scores(detector) == before else 1)
forked.set()
thread.join()
print(held, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), scores(detector) == before)
"""
    assert outcome(body, model_file, tmp_path) == "[False] 0 True"


@pytest.mark.parametrize("way", [pytest.param("fork", marks=needs_fork), "spawn", "forkserver"])
def test_a_pool_of_processes_that_is_given_a_detector_scores_the_same(way, model_file, tmp_path):
    body = f"""
context = multiprocessing.get_context("{way}")
with ProcessPoolExecutor(2, mp_context=context, initializer=take, initargs=(detector,)) as pool:
    print([found == before for found in pool.map(judge, range(2))])
"""
    assert outcome(body, model_file, tmp_path) == "[True, True]"


def test_a_pool_of_threads_scores_the_same(detector):
    from concurrent.futures import ThreadPoolExecutor

    before = scores(detector)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == before for found in pool.map(lambda _: scores(detector), range(4)))


def test_a_pool_of_processes_gives_results_and_errors_back(model_file):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(_judged, str(model_file), PICTURES[0]).result()
        assert result.anomaly_map.shape == PICTURES[0].shape[:2]
        with pytest.raises(PictureError, match="must be a uint8 RGB array"):
            pool.submit(_judged, str(model_file), np.zeros((2, 2, 2), np.uint8)).result()


def _judged(path, picture):
    from totalrecall import load_detector

    return load_detector(path).predict(picture)


def test_every_error_of_ours_can_be_sent_to_another_process():
    from totalrecall import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert SettingError in kinds
    for kind in kinds:
        made = kind("what is wrong")
        copied = pickle.loads(pickle.dumps(made))
        assert (type(copied), str(copied)) == (type(made), "what is wrong")
    assert issubclass(SettingError, ValueError)
