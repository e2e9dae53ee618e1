"""House: how long things may be, what is never done, what an import brings in; `make lint` checks who imports whom."""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import totalrecall
from tests import conftest

SOURCE = Path(totalrecall.__file__).parent
OPTIONAL = (
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "cv2",
    "fastapi",
    "ray",
    "jaxtyping",
    "beartype",
    "timm",
    "huggingface_hub",
)
# files whose first lines import what an extra brings; only functions import them
OF_EXTRAS = {"engines/torch_operators.py": "torch"}
LINES, LINES_OF_FUNCTION = 700, 60


@cache
def texts():
    """Return the text of each file of the package."""
    return {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}


@cache
def trees():
    return {path: ast.parse(text) for path, text in texts().items()}


@cache
def nodes():
    """Return all nodes of each file's tree."""
    return {path: list(ast.walk(tree)) for path, tree in trees().items()}


@pytest.fixture(scope="module", autouse=True)
def _forgotten():
    """Half a million nodes slow down each later search for garbage."""
    yield
    for made in (texts, trees, nodes):
        made.cache_clear()


def functions(path):
    return [node for node in nodes()[path] if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def offenders(test):
    """Return "file:function" of each function that a test is true of."""
    return [f"{path}:{node.name}" for path in nodes() for node in functions(path) if test(node)]


def files_with(pattern, *words):
    """Return the files whose code, written out anew, a pattern is found in; only one with a word of it can be such."""
    there = [path for path, text in texts().items() if any(word in text for word in words)]
    return [path for path in there if re.search(pattern, ast.unparse(trees()[path]), re.M)]


def test_at_most_eight_modules_lie_at_the_root():
    assert sorted(path for path in texts() if "/" not in path) == sorted(
        f"{name}.py"
        for name in ("__init__", "__main__", "_version", "calibration", "errors", "registry", "scoring", "types")
    )


def test_a_file_has_at_most_700_lines():
    lengths = {path: len(text.splitlines()) for path, text in texts().items()}
    assert {path: lines for path, lines in lengths.items() if lines > LINES} == {}


def length(node):
    """Return the lines of a function without its docstring."""
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    return node.end_lineno - node.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


def test_a_function_is_short_without_its_docstring():
    assert offenders(lambda node: length(node) > LINES_OF_FUNCTION) == []


def test_no_function_takes_keywords_that_it_does_not_name():
    """Those of a ParamSpec are named: a type checker knows them."""

    def nameless(node):
        keywords = node.args.kwarg
        return keywords and not (keywords.annotation and ast.unparse(keywords.annotation).endswith(".kwargs"))

    assert offenders(nameless) == []


def test_no_handler_swallows_everything():
    """Ruff finds a bare `except`; a broad one must raise again, or make something of the error that it caught."""
    broad = [
        f"{path}:{node.lineno}"
        for path, inside in nodes().items()
        for node in inside
        if isinstance(node, ast.ExceptHandler)
        and node.type
        and ast.unparse(node.type) in ("Exception", "BaseException")
        and not any(
            isinstance(inner, ast.Raise) or (isinstance(inner, ast.Name) and inner.id == node.name)
            for inner in ast.walk(node)
        )
    ]
    assert broad == []


def test_nothing_draws_from_a_global_generator():
    """Ruff's NPY002 finds NumPy's; OpenCV and `random` have others."""
    assert files_with(r"^\s*(?:import random|from random import)|setRNGSeed", "random", "setRNGSeed") == []


def test_nothing_is_pickled():
    pickled = r"^\s*(?:import|from) (?:pickle|shelve|marshal|dill|joblib)\b|allow_pickle=True"
    assert files_with(pickled, "pickle", "shelve", "marshal", "dill", "joblib") == []


def module_of(path):
    return importlib.import_module(
        ".".join(("totalrecall", *Path(path).with_suffix("").parts)).removesuffix(".__init__")
    )


def test_what_a_module_lists_is_there_and_what_it_shows_is_listed():
    """A class or function without an underscore is for other files, so `__all__` lists it (a command's `run` aside)."""
    for path, tree in trees().items():
        extra = OF_EXTRAS.get(path)
        if path.endswith("__main__.py") or (extra is not None and importlib.util.find_spec(extra) is None):
            continue
        module = module_of(path)
        assert module.__doc__, path
        listed = list(getattr(module, "__all__", []))
        assert [name for name in listed if not hasattr(module, name)] == [], path
        assert len(set(listed)) == len(listed), path
        shown = [
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
        ]
        if not path.startswith("cli/"):
            assert set(shown) <= set(listed), path


def test_every_folder_names_all_of_its_files_in_its_docstring():
    for path in trees():
        folder, _, name = path.rpartition("/")
        if folder and folder not in ("cli", "datasets") and name != "__init__.py":
            described = ast.get_docstring(trees()[f"{folder}/__init__.py"])
            assert f"`{name.removesuffix('.py')}`" in described, path


def test_no_test_file_takes_helpers_from_another():
    """Helpers lie in `tests/parts.py`, `tests/commands.py` and others whose names do not begin with `test_`."""
    files = list(Path(__file__).parent.glob("*.py"))
    taken = r"^\s*(?:from|import) (?:tests)?\.?(?:test_|conftest)"
    assert len(files) > 50
    assert [path.name for path in files if re.search(taken, path.read_text(encoding="utf-8"), re.M)] == []
    assert re.search(taken, "    from tests.test_detector import stripes", re.M)  # so the rule can find one


def test_the_lists_of_test_files_name_files_that_exist():
    """Of `make test-lowest` in the Makefile, and of those that are slow in conftest.py."""
    tests = Path(__file__).parent
    makefile = (tests.parent / "Makefile").read_text(encoding="utf-8")
    lowest = re.search(r"^VERSIONS := ((?:.*\\\n)*.*)$", makefile, re.M)[1].replace("\\\n", " ").split()
    assert len(lowest) > 10
    named = {f"test_{name}.py" for name in lowest} | set(conftest._SLOW_FILES)
    assert {name for name in named if not (tests / name).is_file()} == set()


def loaded_after(code):
    script = f"import sys\n{code}\nprint([name for name in {OPTIONAL} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    return ast.literal_eval(done.stdout.splitlines()[-1])


def test_importing_the_package_brings_in_no_heavy_module():
    assert loaded_after("import totalrecall") == []


def test_the_test_above_can_fail():
    assert "cv2" in loaded_after("import totalrecall; totalrecall.PatchCore")


def test_using_the_detector_brings_in_neither_the_optional_parts_nor_the_type_checks():
    assert loaded_after("from totalrecall import PatchCore") == ["cv2"]  # the engine comes with the first picture


def test_a_name_that_the_package_has_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'totalrecall' has no attribute 'PadimCore'"):
        totalrecall.PadimCore  # noqa: B018
    assert set(totalrecall.__all__) <= set(dir(totalrecall))
