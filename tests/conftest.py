"""Fixtures shared by the tests; real pictures and weights come from ../shared where it is there."""

import contextlib
import gc
import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# a busy machine must not turn a property test red: no example has a time limit
settings.register_profile("house", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("house")

# beartype checks nested functions where they are defined, in worker threads too, and swaps the process's hooks for
# warnings meanwhile: two threads that do so leave them swapped, and a warning that a test waits for is lost by chance
with contextlib.suppress(ImportError):
    for _part in ("_wrapargs", "_wrapreturn"):
        _module = importlib.import_module(f"beartype._decor._nontype._wrap.{_part}")
        _module.catch_warnings = lambda record: contextlib.nullcontext([])  # noqa: ARG005

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and weights beside the project, or a skip."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the real pictures and weights of ../shared, which are not here")
    return SHARED


# fixtures that fit, run a network or read real pictures: whatever asks for them is slow
_SLOW = {"shared", "resnet18", "real_patches", "tiny_backbone", "added", "parts", "model", "server"}
_SLOW_FILES = {  # fit, draw, compile or start processes in most of their tests
    f"test_{name}.py"
    for name in (
        "audit", "cli_interrupted", "cli_report", "compact", "demo", "docs_commands", "docs_examples", "engines",
        "fuzz", "fuzz_models", "hostile_pictures", "no_home", "processes", "resnet", "special_files", "demo_pictures",
        "cluster_cost", "cluster_fitting", "cluster_serving", "detection_curve", "dinov2", "docs_fields",
        "efficientnet_lite", "extents", "refill", "station_connections", "station_database", "station_fitting",
        "station_golden", "station_guard", "station_guard_browser", "station_guard_fuzz", "station_guard_requests",
        "station_history", "station_kept", "station_model_files", "station_mqtt_recipe", "station_quality_api",
        "station_recipe_changes", "station_recipes", "station_study", "station_teaching", "station_trail",
        "station_users", "station_users_cli",
    )
}  # fmt: skip


def pytest_configure(config) -> None:
    """Try fewer examples where no slow test is to run; bind each process that runs tests to a core if told."""
    if config.option.markexpr == "not slow":
        settings.load_profile("quick")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if os.environ.get("ONE_CORE_EACH") and worker and hasattr(os, "sched_setaffinity"):
        _bind_to_a_core(int(worker.removeprefix("gw")))


def _bind_to_a_core(number: int) -> None:
    """Let this process and its children compute on one core: as many threads as cores in each only wait for each other.

    The package in this process still sees all cores, and does what it does with them.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
    os.sched_getaffinity = lambda _: set(cores)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Look for no garbage while the tests are read; what is there then stays, and is never looked through again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_ignore_collect(collection_path, config):
    """Leave the slow files unread where no slow test is to run: reading them takes a third of the collection."""
    return True if config.option.markexpr == "not slow" and collection_path.name in _SLOW_FILES else None


def pytest_collection_modifyitems(items) -> None:
    """Mark as slow what fits or runs a network; other slow tests say so themselves."""
    for item in items:
        if item.path.name in _SLOW_FILES or _SLOW.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter) -> None:
    """Say loudly how many tests did not run because the real pictures, or Ray, are absent."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "../shared" in str(report.longrepr)]
    if skipped:
        text = f"{len(skipped)} tests DID NOT RUN: they need the real pictures and weights of ../shared"
        terminalreporter.write_sep("!", text, red=True, bold=True)
    spread = [one for one in terminalreporter.stats.get("skipped", []) if "totalrecall[cluster]" in str(one.longrepr)]
    if spread:
        text = f"{len(spread)} tests DID NOT RUN: they need Ray (pip install 'totalrecall[cluster]')"
        terminalreporter.write_sep("!", text, red=True, bold=True)


@pytest.fixture(scope="session")
def session_home(tmp_path_factory) -> Path:
    """A per-user folder of the test run's own."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session", autouse=True)
def _own_home(session_home):
    """No test reads or writes the person's own folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TOTALRECALL_HOME", str(session_home))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def resnet18(shared, session_home):
    """The real ResNet-18 of ../shared, as a backbone."""
    from totalrecall.backbones import add

    return add("resnet18", shared / "backbones" / "resnet18_imagenet1k_v1.safetensors")


@pytest.fixture(scope="session")
def real_patches(shared, resnet18):
    """20,000 patch vectors of real good tiles, ResNet-18 layers 2 and 3 in float32: (20000, 384)."""
    from totalrecall import PatchCore
    from totalrecall.datasets import open_dataset

    detector = PatchCore(backbone=resnet18, precision="f32")
    grids = [grid for _, grid in detector.extractor.stream(open_dataset("mtd", shared / "data" / "mtd").train[:20])]
    return np.concatenate(grids).reshape(-1, 384)[:20000].copy()


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two cores on this machine."""
    from totalrecall.cluster.connection import connected

    # Ray gives its workers the lowest priority, and beside other tests they would hardly run
    os.environ.setdefault("RAY_worker_niceness", "0")
    with connected("local", cores=2) as joined:
        yield joined


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """ResNet-18 with random weights: a whole backbone that needs no file of anybody's."""
    from safetensors.numpy import save_file

    from tests.resnet_forward import random_weights
    from totalrecall.backbones.resnet import build_resnet

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(random_weights("resnet18"), str(path))
    return build_resnet("resnet18", path, name="tiny")


@pytest.fixture(scope="session")
def added(session_home, tmp_path_factory) -> str:
    """The name of a tiny backbone that is kept in the test run's own folder, as `backbones add` keeps one."""
    from safetensors.numpy import save_file

    from tests.resnet_forward import random_weights
    from totalrecall.backbones import add

    path = tmp_path_factory.mktemp("weights") / "added.safetensors"
    save_file(random_weights("resnet18"), str(path))
    return add("resnet18", path, save_as="added").name


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    """A small synthetic set in the MVTec layout: 10 good pictures to fit on, 3 good and 3 damaged ones to test on."""
    from totalrecall.demo.pictures import make_dataset

    folder = tmp_path_factory.mktemp("parts")
    return make_dataset(folder, kind="washer", good=10, test_good=3, defective=3, seed=0, size=(80, 96))


@pytest.fixture(scope="session")
def model(added, parts, tmp_path_factory) -> Path:
    """A model of `parts` that the command line fitted."""
    from totalrecall.cli import main

    path = tmp_path_factory.mktemp("model") / "part.trecall"
    options = [
        "--backbone",
        added,
        "--size",
        "64",
        "--coreset",
        "0.1",
        "--at-least",
        "1",
        "--precision",
        "f32",
        "--quiet",
    ]
    assert main(["fit", str(parts), "--layout", "mvtec", "-o", str(path), *options]) == 0
    return path


def _written(folder: Path, pictures) -> Path:
    """Return the folder with pictures in it, numbered."""
    import cv2

    for at, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{at:02}.png"), picture[..., ::-1])
    return folder


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> Path:
    """A folder of two dozen good pictures."""
    from tests.parts import stripes

    return _written(tmp_path_factory.mktemp("good"), map(stripes, range(24)))


@pytest.fixture(scope="session")
def alarms(tmp_path_factory) -> Path:
    """A folder of six false alarms: good, but unlike those."""
    from tests.parts import odd

    return _written(tmp_path_factory.mktemp("alarms"), map(odd, range(6)))


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server of the test run's own; `postgresql.address()` makes a database."""
    from tests.databases import missing_postgresql, running_postgresql

    missing = missing_postgresql()
    if missing:
        pytest.skip(missing)
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def address(request, tmp_path) -> str:
    """The address of an empty database: once a SQLite file, once one on a PostgreSQL server."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").address()
    return f"sqlite:///{tmp_path / 'history.db'}"


@pytest.fixture(scope="session")
def place(model, tmp_path_factory) -> Path:
    """A copy of `model` for stations that leave it as it is."""
    return Path(shutil.copy(model, tmp_path_factory.mktemp("models") / "part.trecall"))


@pytest.fixture(scope="session")
def pictures(parts) -> list[Path]:
    """The test pictures of `parts`, good and damaged."""
    return sorted((parts / "test").rglob("*.png"))


@pytest.fixture(scope="session")
def fitted(tmp_path_factory) -> Path:
    """A model of striped parts, for stations that leave it as it is."""
    from tests.striped import fit_striped

    return fit_striped(tmp_path_factory.mktemp("striped"))


@pytest.fixture
def broker(tmp_path):
    """A mosquitto that anybody may use."""
    from tests.line_ready import Mosquitto

    (tmp_path / "broker").mkdir()
    broker = Mosquitto(tmp_path / "broker")
    yield broker
    broker.stop()


@pytest.fixture
def users(tmp_path):
    """The users of a new station: none yet."""
    from tests.station_access import open_users

    with open_users(tmp_path) as opened:
        yield opened


@pytest.fixture
def guard(users):
    """A guarded application with a user of each role."""
    from tests.station_access import with_roles
    from tests.station_clients import guarded

    return guarded(with_roles(users))


@pytest.fixture
def local():
    """A client of a station without users, on its own computer."""
    from tests.station_clients import client_of, guarded

    return client_of(guarded(None))


@pytest.fixture(scope="module")
def rejecting(model, pictures, tmp_path_factory) -> Path:
    """A model that rejects half of the test pictures; the tests of one file share it."""
    from tests.station_browser import rejecting_half

    return rejecting_half(model, pictures, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def browser():
    """A browser, for the tests of one file."""
    from tests.station_browser import opened_browser

    with opened_browser() as opened:
        yield opened
