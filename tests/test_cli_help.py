"""cli: help without anything heavy, and how numbers are told."""

import json
import math
import os
import subprocess
import sys

import pytest

from tests.test_cli import in_fresh_python
from totalrecall.cli import COMMANDS, build_parser, main
from totalrecall.cli.common import write_json
from totalrecall.system.text import human_bytes


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


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from totalrecall.cli import main\n"
        f"try: main({arguments!r})\n"
        f"except SystemExit: print('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    )
    assert in_fresh_python(code).stdout.splitlines()[-1] == "loaded: []"
    # it can fail
    assert in_fresh_python(f"import numpy; {code}").stdout.splitlines()[-1] == "loaded: ['numpy']"


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
