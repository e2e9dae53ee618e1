"""Each JSON field, exit code, option and setting of the program is in the docs, and no other."""

import csv
import inspect
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.docs_folder import make_docs_folder
from totalrecall import SPADE, PaDiM, PatchCore, errors
from totalrecall.cli import build_parser, main

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
# what is written there hangs on the model, the data set or the network: names of settings, defects, layers
OPEN = ("settings", "changes", "defect_auroc", "reasons", "layers", "datasets[].categories")
COMMANDS = """
fit: fit parts/good -o new.trecall --ignore-outliers --size 96
fit: fit parts/good -o padim.trecall --method padim --size 96
fit: fit parts/good -o joined.trecall --sizes 64 96
fit: fit parts */*/train/good products labelled/good -o tuned.trecall --tune --size 64 --scoring map1pct
predict: predict part.trecall parts/new
evaluate: evaluate part.trecall mvtec_ad/bottle --layout mvtec
capability: capability part.trecall parts/new --kinds blob --sizes 4 20 --per-size 2
update: update part.trecall --add false_alarms
info: info part.trecall
update: update part.trecall --undo
teach: teach part.trecall --defect missed.png --apply
info: info part.trecall
capability: capability padim.trecall parts/new --kinds blob missing --sizes 4 20 --per-size 2 --save
info: info padim.trecall
info: info tuned.trecall
info: info joined.trecall
audit: audit parts/good parts/copies
datasets: datasets
datasets: datasets mvtec mvtec_ad
backbones: backbones list
"""


def section(command):
    """Return what the page says of a command."""
    return re.split(r"^## ", PAGE.partition(f"\n## {command}\n")[2], flags=re.MULTILINE)[0]


def words(text):
    """Return the names in backticks; of `nearest.path` and `regions[].x` the last one."""
    return {re.split(r"[.\]]", name)[-1] for name in re.findall(r"`([\w.\[\]]+)`", text)}


def fields(value, path=""):
    """Return the names of all fields of a JSON value, as paths."""
    if isinstance(value, list):
        return set().union(*(fields(item, f"{path}[]") for item in value)) if value else set()
    if not isinstance(value, dict) or path.endswith(OPEN):
        return set()
    inner = [fields(item, f"{path}.{name}".lstrip(".")) for name, item in value.items()]
    return {f"{path}.{name}".lstrip(".") for name in value}.union(*inner)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The fields that each command writes."""
    folder = make_docs_folder(tmp_path_factory.mktemp("docs"))
    (folder / "parts/copies").mkdir()
    (folder / "parts/copies/copy.png").write_bytes((folder / "parts/good/000.png").read_bytes())
    found: dict[str, set[str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in COMMANDS.strip().splitlines():
            command, _, text = line.partition(": ")
            assert main([*shlex.split(text), "--json", "out.json"]) in (0, 1)
            rows = Path("out.json").read_text(encoding="utf-8")
            values = [json.loads(row) for row in rows.splitlines()] if command == "predict" else [json.loads(rows)]
            found.setdefault(command, set()).update(*(fields(value) for value in values))
        assert main(["export", "part.trecall", "-o", "part.onnx", "--check", "part.png"]) == 0
        found["export"] = fields(json.loads(Path("part.onnx.json").read_text(encoding="utf-8")))
        assert main(["info", "part.onnx", "--json", "out.json"]) == 0
        found["info"] |= fields(json.loads(Path("out.json").read_text(encoding="utf-8")))
        main(["benchmark", "mvtec", "mvtec_ad", "--method", "padim", "--seeds", "1", "--out", "measured"])
        with Path("measured/results.csv").open(encoding="utf-8", newline="") as file:
            found["benchmark"] = set(next(csv.reader(file)))
    return found


def test_each_field_is_in_the_docs(written):
    general = words(section("In every file"))
    for command, names in written.items():
        missing = {name for name in names if re.split(r"[.\]]", name)[-1] not in words(section(command)) | general}
        assert missing == set(), f"docs/reference/json.md, section {command}"


def in_first_cells(text):
    """Return the fields that a section's tables explain: `plan.way`, `held` in one cell are `plan.way`, `plan.held`."""
    found = set()
    for cell in re.findall(r"^\| (`[^|]*) \|", text, flags=re.MULTILINE):
        first, *others = re.findall(r"`([\w.\[\]]+)`", cell)
        parent = first.rpartition(".")[0]
        found |= {first} | {name if "." in name or not parent else f"{parent}.{name}" for name in others}
    return found


def test_each_field_in_the_tables_is_written_by_the_command(written):
    for command, names in written.items():
        explained = in_first_cells(section(command))
        assert explained
        assert explained - names == set(), command


def test_each_exit_code_is_in_the_docs_and_in_the_readme():
    from totalrecall.cli.predict import DEFECT_FOUND, NO_VERDICT

    raised = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TotalRecallError)
    ]
    codes = {kind.exit_code for kind in raised}
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)}
    assert table == {0, *codes, DEFECT_FOUND, NO_VERDICT, 128 + 1, 128 + 2, 128 + 15}


def test_each_setting_has_a_row_with_a_meaning():
    page = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    for detector in (PatchCore, PaDiM, SPADE):
        table = re.split(r"^## ", page.partition(f"## {detector.__name__}\n")[2], flags=re.MULTILINE)[0]
        rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\S.*) \|$", table, flags=re.MULTILINE))
        assert set(rows) == set(inspect.signature(detector).parameters)


def test_each_option_of_each_command_is_in_the_reference():
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    commands = next(action.choices for action in build_parser()._actions if action.dest == "command")
    for name, parser in commands.items():
        table = page.partition(f"## totalrecall {name}\n")[2]
        for action in parser._actions:
            assert all(option in table for option in action.option_strings), (name, action.option_strings)
