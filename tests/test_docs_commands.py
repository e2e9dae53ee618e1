"""Every command and every Python block in the docs runs, page by page, in a folder as the docs suppose it.

What the docs say that it prints is printed.
"""

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_folder import make_docs_folder
from totalrecall.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"^( *)```(sh|python|text)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
WITH_COMMANDS = sorted(page for page in DOCS.rglob("*.md") if re.search("```(sh|python)", page.read_text("utf-8")))
ELSEWHERE = ("pip ", "make ", "totalrecall demo", "#")  # other programs; the demo has tests of its own


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    return make_docs_folder(tmp_path_factory.mktemp("docs"))


@contextlib.contextmanager
def served(command):
    """A station that a page starts: it runs until the page ends, and then stops as it should."""
    words = [sys.executable, "-m", "totalrecall", *shlex.split(command, comments=True)[1:]]
    station = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        line = station.stdout.readline()
        yield line
    finally:
        station.terminate()
        rest = station.communicate(timeout=60)[0]
    assert line.startswith("Serving "), line
    assert station.returncode == 0
    assert "Stopped." in rest


def expected_codes(line):
    codes = re.search(r"# exit code ([\d, or]+)", line)
    return {int(code) for code in re.findall(r"\d+", codes[1])} if codes else {0}


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_blocks_of_a_page_run(page, master, tmp_path, monkeypatch, capfd):
    with contextlib.ExitStack() as stations:
        run_blocks(page, master, tmp_path, monkeypatch, capfd, stations)


def run_blocks(page, master, tmp_path, monkeypatch, capfd, stations):
    shutil.copytree(master, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    printed, shown = "", []
    for _, language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "text":
            shown += block.splitlines()
            continue
        if language == "python":
            exec(compile(block, page.name, "exec"), {})
            printed += capfd.readouterr().out
            continue
        for line in block.strip().splitlines():
            command = line.strip()
            if command.startswith("totalrecall serve "):
                printed += stations.enter_context(served(command))
            elif not command.startswith(ELSEWHERE):
                assert command.startswith("totalrecall "), command
                code = main(shlex.split(command, comments=True)[1:])
                out, err = capfd.readouterr()
                printed += out + err
                assert code in expected_codes(command), f"{command}: {code}, {err}"
    # other pictures have other numbers: what stands before the first of them is as the program prints it
    assert [line for line in shown if re.split(r"\d", line)[0] not in printed] == []
