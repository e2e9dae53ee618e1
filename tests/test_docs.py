"""The docs are true: their blocks run, the command reference is what --help says."""

import re
import runpy
from pathlib import Path

import cv2
import pytest

from totalrecall.cli import main
from totalrecall.synthetic import make_dataset

ROOT = Path(__file__).resolve().parents[1]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder as the README supposes it: parts/good, parts/new, part.png."""
    made = make_dataset(tmp_path / "made", kind="wood", good=6, test_good=2, defective=1, size=(96, 96))
    (tmp_path / "parts").mkdir()
    (made / "train" / "good").rename(tmp_path / "parts" / "good")
    (made / "test" / "good").rename(tmp_path / "parts" / "new")
    cv2.imwrite(str(tmp_path / "part.png"), cv2.imread(str(next((made / "test").rglob("*.png")))))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readmes_commands_run(workplace, capsys):
    commands = [line for line in "\n".join(blocks("sh")).splitlines() if line.startswith("totalrecall ")]
    assert len(commands) >= 2
    for command in commands:
        assert main(command.split()[1:]) == 0, capsys.readouterr().err
    assert len((workplace / "results.jsonl").read_text().splitlines()) == 2
    assert len(list((workplace / "overlays").glob("*.png"))) == 2


def test_the_readmes_python_runs(workplace):
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert (workplace / "part.trecall").is_file()


def test_the_command_reference_is_what_help_says():
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))["cli_reference"]()
    assert (ROOT / "docs" / "cli.md").read_text() == made, "run: python docs/generate.py"


def test_links_inside_the_docs_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
