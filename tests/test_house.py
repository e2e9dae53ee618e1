"""The house: what may import what, how long things may be, what is never done. The rules of DESIGN.md, by ast."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import totalrecall

SOURCE = Path(totalrecall.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

# The road, in the order of the docstring of the package. `decode` belongs to images, `settings` are read by many.
ROAD = re.findall(r"^    (\w+) {2,}\S", totalrecall.__doc__.partition("reading order:")[2], re.M)
EVERYWHERE = {"types", "errors", "files", "forks", "threads"}
# Steps and parts of steps: what each may import besides EVERYWHERE and the steps before it.
ALSO = {
    "images": {"bit_depth", "decode", "formats", "in_memory", "pages", "path_patterns", "picture_files", "read_ahead"},
    "settings": {"coreset", "patches", "scoring"},
    "calibration": {"tail"},
    "guard": {"ranking", "same_part"},
}
HELPERS = {"artifact", "detector_base", "extractor", "fitting", "learning", "memory", "plan", "results", "search_plan"}
HELPERS |= {"settings", "changing", "evidence", "joining", "leaving", "update", "drift", "drift_conditions"}
HELPERS |= {"odd_pictures", "path_patterns", "picture_files", "notices", "outliers", "sources", "wording"}
HELPERS |= {"bit_depth", "in_memory", "masks", "model_schema", "promise", "read_ahead", "copies"}
OPTIONAL = ("torch", "onnx", "openvino", "cv2", "fastapi", "ray", "jaxtyping", "beartype", "timm", "huggingface_hub")


def name_of(path):
    """Return `images` or `backbones` for a file of the package, the step or part that it belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def ours(tree):
    """Return the parts of the package that a module imports at run time, `backbones.store` as `backbones`."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for body in node.body
        for inner in ast.walk(body)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "totalrecall" and len(parts) > 1:
                found.add(parts[1])
    parts = {name_of(path) for path in FILES}
    return {name for name in found if name in parts}


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def label(node):
    return f"{getattr(node, 'name', '?')}:{node.lineno}"


every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))


def test_the_road_in_the_docstring_is_the_road_in_the_folder():
    assert ROAD[:2] + ROAD[-2:] == ["images", "backbones", "calibration", "detector"]
    for step in ROAD:
        assert (SOURCE / f"{step}.py").is_file() or (SOURCE / step / "__init__.py").is_file()


def forbidden(step, imported):
    """Return what a step of the road imports and must not."""
    allowed = EVERYWHERE | set(ROAD[: ROAD.index(step)]) | ALSO.get(step, set()) | {step}
    if step == "detector":
        allowed |= HELPERS
    return imported - allowed


@every_file
def test_a_step_imports_only_what_is_everywhere_and_the_steps_before_it(path):
    if name_of(path) in ROAD:
        assert forbidden(name_of(path), ours(TREES[path])) == set()


def test_a_step_that_looks_ahead_would_be_seen():
    tree = ast.parse("from totalrecall.detector import PatchCore\nfrom totalrecall import scoring, errors")
    assert forbidden("bank", ours(tree)) == {"detector", "scoring"}
    assert forbidden("scoring", ours(ast.parse("import totalrecall.bank"))) == set()


@every_file
def test_nothing_imports_the_command_line_or_the_station(path):
    if name_of(path) not in ("cli", "station", "__main__"):
        assert ours(TREES[path]) & {"cli", "station"} == set()


@every_file
def test_a_file_holds_at_most_700_lines_and_a_function_70(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 700
    assert [label(node) for node in functions(TREES[path]) if node.end_lineno - node.lineno + 1 > 70] == []


@every_file
def test_no_function_takes_keywords_that_it_does_not_name(path):
    assert [label(node) for node in functions(TREES[path]) if node.args.kwarg] == []


@every_file
def test_no_except_is_bare_and_none_swallows_everything(path):
    bare = [node.lineno for node in ast.walk(TREES[path]) if isinstance(node, ast.ExceptHandler) and not node.type]
    assert bare == []
    broad = [
        node.lineno
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ExceptHandler)
        and node.type
        and ast.unparse(node.type) in ("Exception", "BaseException")
        if not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]
    assert broad == []


@every_file
def test_nothing_seeds_globally_or_draws_from_the_global_generator(path):
    text = ast.unparse(TREES[path])
    assert re.findall(r"\b(?:np|numpy)\.random\.(?!default_rng|Generator|SeedSequence|PCG64)\w+", text) == []
    assert not re.search(r"^\s*(?:import random|from random import)", text, re.M)
    assert "setRNGSeed" not in text


@every_file
def test_nothing_is_pickled(path):
    imported = re.findall(r"^\s*(?:import|from) (pickle|shelve|marshal|dill|joblib)\b", ast.unparse(TREES[path]), re.M)
    assert imported == []
    assert "allow_pickle=True" not in path.read_text(encoding="utf-8")


@every_file
def test_every_module_lists_its_public_names_and_has_them(path):
    if path.name == "__main__.py":
        return
    relative = path.relative_to(SOURCE.parent).with_suffix("")
    module = importlib.import_module(".".join(relative.parts).removesuffix(".__init__"))
    assert module.__doc__
    for name in module.__all__:
        assert hasattr(module, name), name
    assert len(set(module.__all__)) == len(module.__all__) > 0


@every_file
def test_what_a_module_shows_is_listed(path):
    """A class or function without an underscore is public, so it must stand in `__all__` (a command's `run` aside)."""
    tree = TREES[path]
    listed = next(
        (
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and names(node) == ["__all__"]
        ),
        [],
    )
    shown = [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    if name_of(path) != "cli":
        assert set(shown) <= set(listed)


def names(node):
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


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
