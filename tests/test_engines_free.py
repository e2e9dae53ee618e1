"""A computation is bound to no processor: those of other processes would wait for the same one."""

import contextlib
import os
import sys
import threading
from pathlib import Path

import pytest

from tests.affinity import affinity
from tests.engine_ready import pictures
from totalrecall.engines.openvino import OpenVinoEngine

LAYERS = ("layer1",)


def bindings() -> set[str]:
    """Return on which processors the threads of this process may run."""
    found = set()
    for status in Path("/proc/self/task").glob("*/status"):
        try:
            lines = status.read_text().splitlines()
        except OSError:  # the thread has ended
            continue
        found |= {line.split()[1] for line in lines if line.startswith("Cpus_allowed_list")}
    return found


@pytest.fixture
def every_core():
    """Let the threads of this process run on every core: CI binds a process that runs tests to one, see conftest."""
    before = {}
    for path in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # the thread has ended
            before[int(path.name)] = affinity(int(path.name))
            os.sched_setaffinity(int(path.name), os.sched_getaffinity(0))
    yield
    for thread, cores in before.items():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, cores)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says on which processors a thread may run")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: "1")(0)) < 2, reason="one processor")
@pytest.mark.parametrize("threads", [1, None])
@pytest.mark.usefixtures("every_core")
def test_a_thread_that_computes_may_run_on_every_processor(tiny_backbone, threads):
    engine = OpenVinoEngine(tiny_backbone, LAYERS, precision="f32", threads=threads, cache=None)
    image = pictures(1, 512, 512)
    allowed = bindings()
    engine.run(image)  # compiles
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            engine.run(image)

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        seen = set().union(*(bindings() for _ in range(200)))
    finally:
        over.set()
        thread.join()
    assert seen == allowed
