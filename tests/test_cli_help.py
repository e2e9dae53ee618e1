"""cli: help without anything heavy, and how numbers are told."""

import ast
import json
import math
import os
import subprocess
import sys

import pytest

from tests.commands import in_fresh_python
from totalrecall.cli import COMMANDS, build_parser, main
from totalrecall.cli.common import write_json
from totalrecall.system.text import human_bytes

MODULES = 81  # of ours that one `predict` may load, with the options of --ray; 60 is the aim


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["backbones", "list"], ["backbones", "add"]])
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {' '.join(['totalrecall', *command])}")


def test_every_option_has_help():
    def actions(parser):
        for action in parser._actions:
            yield action
            for sub in getattr(action, "choices", None) or () if hasattr(action, "_name_parser_map") else ():
                yield from actions(action.choices[sub])

    without = [action.dest for action in actions(build_parser()) if not action.help and action.option_strings]
    assert without == []


@pytest.mark.parametrize("flag", ["-o", "--out", "--output"])
@pytest.mark.parametrize("command", [["demo"], ["benchmark", "mtd", "root"]])
def test_a_folder_to_write_has_the_same_names_everywhere(command, flag):
    assert build_parser().parse_args([*command, flag, "somewhere"]).out == "somewhere"


HEAVY = ("numpy", "cv2", "openvino", "onnx", "safetensors", "rich")


def loaded_by(arguments, before=""):
    code = (
        f"{before}import sys; from totalrecall.cli import main\n"
        f"try: main({arguments!r})\n"
        f"except SystemExit: print('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    )
    return in_fresh_python(code).stdout.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    assert loaded_by(arguments) == "loaded: []"


def test_the_test_above_can_fail():
    assert loaded_by(["--version"], before="import numpy; ") == "loaded: ['numpy']"


def test_python_m_totalrecall_is_the_command_line():
    done = in_fresh_python("import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('totalrecall')")
    assert done.returncode == 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "totalrecall", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout == (
        "totalrecall 0.1.0\n"
    )


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (5.12e8, "512 MB"), (1.34e9, "1.3 GB")]
)
def test_bytes_are_told_as_a_person_reads_them(count, text):
    assert human_bytes(count) == text


def test_json_written_is_json_whatever_the_numbers(tmp_path):
    write_json(str(tmp_path / "x.json"), {"a": math.nan, "b": [math.inf, {"c": (1.5, -math.inf)}], "d": "ü\udcff"})
    read = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert read == {"a": None, "b": [None, {"c": [1.5, None]}], "d": "ü\udcff"}


def modules_after(*arguments):
    """Return the modules of ours that a command has loaded when it is done."""
    command = [str(argument) for argument in arguments]
    code = (
        f"import sys; from totalrecall.cli import main; assert main({command!r}) == 0; "
        "print([name for name in sys.modules if name.split('.')[0] == 'totalrecall'])"
    )
    done = in_fresh_python(code)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


def folders(modules):
    return {name.split(".")[1] for name in modules if "." in name}


def test_predict_without_a_report_loads_neither_reports_nor_data_sets_nor_other_commands(model, parts, tmp_path):
    picture = next((parts / "test" / "good").iterdir())
    loaded = modules_after("predict", model, picture, "--quiet")
    assert folders(loaded).isdisjoint(
        {"reports", "benchmark", "datasets", "evaluation", "audit", "capability", "demo", "planting"}
    )
    assert [name for name in loaded if name.startswith("totalrecall.cli.") and name.split(".")[2] in COMMANDS] == [
        "totalrecall.cli.predict"
    ]
    assert len(loaded) <= MODULES
    with_report = modules_after("predict", model, picture, "--quiet", "--report", tmp_path / "report.html")
    assert "reports" in folders(with_report)  # so the first assertion can fail


def test_evaluate_without_a_report_loads_no_reports(model, parts):
    loaded = modules_after("evaluate", model, parts, "--layout", "mvtec", "--quiet")
    assert folders(loaded).isdisjoint({"reports", "benchmark", "audit", "demo"})
