"""The docs are true: their blocks run, the command reference is what --help says."""

import pkgutil
import re
import runpy
from pathlib import Path

import cv2
import pytest

from totalrecall.cli import main
from totalrecall.demo.pictures import make_dataset

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


def test_the_generated_pages_are_what_the_program_says():
    for name, page in runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"].items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == page(), "run: python docs/generate.py"


def test_the_command_reference_is_what_help_says():
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))["cli_reference"]()
    assert (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8") == made, "run: python docs/generate.py"


PAGES = sorted((ROOT / "docs").rglob("*.md"))
LINKING = [
    *PAGES,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "training/README.md")),
]


def prose(page):
    """Return a page without its code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page):
    """Return the anchors of a page's headings, as the site makes them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def links(page):
    """Return the targets of a page's links to files here, each a file and an anchor, which may be empty."""
    targets = re.findall(r"\]\(((?!https?://)[^)\s]+)\)", prose(page))
    return [target.partition("#")[::2] for target in targets]


def dead_links(page):
    dead = []
    for file, anchor in links(page):
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(f"{page.relative_to(ROOT)}: {file}#{anchor}")
    return dead


def test_links_inside_the_docs_lead_somewhere():
    assert sum(len(links(page)) for page in LINKING) > 50
    assert [dead for page in LINKING for dead in dead_links(page)] == []


def test_every_page_is_in_the_sites_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"[\w/-]+\.md", navigation)
    assert sorted(named) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES)


def test_the_site_loads_nothing_from_elsewhere():
    """Fonts and scripts of the theme come from elsewhere unless mkdocs.yml says otherwise."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in settings
    assert "- iframe-worker.js" in settings
    assert (ROOT / "docs" / "iframe-worker.js").is_file()
    for page in PAGES:
        assert not re.search(
            r"!\[[^]]*\]\(https?://|<(img|script|link)[^>]*https?://", page.read_text(encoding="utf-8")
        )


def test_lines_of_prose_are_short():
    long = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > 140 and not line.startswith("|") and page.name not in ("cli.md", "settings.md")
    ]
    assert long == []


def test_each_name_in_the_paper_map_exists():
    """`patchcore.coreset.project` is the function `project` of the module `totalrecall.patchcore.coreset`."""
    text = (ROOT / "docs" / "why" / "paper-map.md").read_text(encoding="utf-8")
    folders = {path.name.removesuffix(".py") for path in (ROOT / "src" / "totalrecall").iterdir()}
    names = [name for name in re.findall(r"`([a-z_]+(?:\.\w+)*)`", text) if name.partition(".")[0] in folders]
    assert len(names) > 25
    for name in names:
        pkgutil.resolve_name(f"totalrecall.{name}")
    tests = set(re.findall(r"`(?:tests/)?(test_\w+\.py|reference\.py)`", text))
    assert {test for test in tests if not (ROOT / "tests" / test).is_file()} == set()
