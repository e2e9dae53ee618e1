"""Every public class and function has an example that runs, in a folder as the docs suppose it."""

import doctest
import inspect
import shutil
from pathlib import Path

import pytest

import totalrecall
import totalrecall.capability
import totalrecall.datasets
import totalrecall.errors
import totalrecall.planting
import totalrecall.reports
from tests.docs_folder import make_docs_folder
from totalrecall.pictures.formats.header import MAX_PIXELS

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = {f"totalrecall.{name}": getattr(totalrecall, name) for name in totalrecall.__all__ if name != "__version__"}
PUBLIC["totalrecall.errors"] = totalrecall.errors
PUBLIC |= {
    f"totalrecall.datasets.{name}": getattr(totalrecall.datasets, name) for name in ("open_dataset", "categories")
}
PUBLIC |= {f"totalrecall.datasets.{name}": getattr(totalrecall.datasets, name) for name in ("DataSet", "Sample")}
PUBLIC["totalrecall.reports.report_pictures"] = totalrecall.reports.report_pictures
PUBLIC |= {
    f"totalrecall.capability.{name}": getattr(totalrecall.capability, name)
    for name in ("capability", "Capability", "DetectionCurve", "SizeLimit")
}
PUBLIC["totalrecall.planting.plant"] = totalrecall.planting.plant
# methods of detectors that are shown on the page of the Python API, wherever they are defined
METHODS = ("fit", "predict", "predict_stream", "score", "judging", "save", "load", "update", "undo", "teach")
SHOWN = PUBLIC | {f"PatchCore.{name}": getattr(totalrecall.PatchCore, name) for name in METHODS}
SHOWN |= {f"Result.{name}": getattr(totalrecall.Result, name) for name in ("overlay", "to_json")}
SHOWN |= {"Monitor.open": totalrecall.Monitor.open}
NAMES = {name.rpartition(".")[2]: value for name, value in PUBLIC.items()}


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    return make_docs_folder(tmp_path_factory.mktemp("docs"))


@pytest.fixture
def folder(master, tmp_path, monkeypatch):
    shutil.copytree(master, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    totalrecall.set_max_pixels(MAX_PIXELS)


@pytest.mark.parametrize("name", SHOWN)
def test_the_example_of_a_public_name_runs(name, folder):
    text = inspect.getdoc(SHOWN[name])
    example = doctest.DocTestParser().get_doctest(text, dict(NAMES), name, None, None)
    assert example.examples, f"{name} has no example"
    told = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=flags).run(example, out=told.append)
    assert told == []


def test_the_page_of_the_python_api_shows_every_public_name():
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    assert [name for name in PUBLIC if f"::: {name}\n" not in page] == []
