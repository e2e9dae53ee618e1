"""cli: a file's name is data: no terminal obeys it, no spreadsheet runs it, and JSON keeps it to the letter."""

import csv
import json
import shutil
import sys

import pytest

from tests.commands import run, small
from totalrecall.cli import main
from totalrecall.system.text import csv_line, escaped_json, plain, printable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be on Windows")

EVIL = "\x1b]0;owned\x07\x1b[2J\r\u202egnp.\u2066\x9b31m\n\u2028.png"
OBEYED = set("\x1b\x07\r\u202e\u2066\x9b\u2028\x0b")


@pytest.fixture
def hostile(parts, tmp_path):
    """A folder of pictures, good and broken, whose names are control characters and formulas."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (EVIL, "=cmd|' -C calc'!A1.png", "+1.png", "-1.png", "@SUM(1).png", "a;=1+1.png", "'=x.png"):
        shutil.copy(parts / "test" / "good" / "000.png", folder / name.replace("/", "_"))
    (folder / f"broken{EVIL}").write_bytes(b"\x89PNG no picture")
    return folder


def commands(added, model, parts, folder, out):
    """Return a command line for each command that can meet a file's name."""
    own = shutil.copy(model, out / "m.trecall")
    fit = ["fit", folder, "-o", out / "new.trecall", *small(added)]
    return [
        ["predict", model, folder, "--heatmaps", out / "maps", "--report", out / "r.html"],
        ["predict", model, folder, "--json", "-"],
        fit,
        ["audit", folder, "--backbone", added, "--size", "64", "-o", out / "audit.html"],
        ["update", own, "--add", folder],
        ["info", own],
        ["update", own, "--undo"],
        ["teach", model, "--defect", folder],
        ["evaluate", model, folder, "--layout", "folder"],
        ["capability", model, folder, "--per-size", "1", "--threshold", "1e6", "-o", out / "found.html"],
        ["datasets", "folder", folder],
        ["info", folder / EVIL],
    ]


def test_no_command_prints_what_a_terminal_obeys(capsys, added, model, parts, hostile, tmp_path):
    told = []
    for line in commands(added, model, parts, hostile, tmp_path):
        capsys.readouterr()
        main([str(word) for word in line])
        out, err = capsys.readouterr()
        assert not OBEYED & set(out + err), line
        told.append("owned" in out + err)
    assert sum(told) >= 6  # the names were told


def test_wrong_usage_repeats_a_name_but_obeys_it_neither(capsys):
    with pytest.raises(SystemExit):
        main(["info", "m.trecall", EVIL])
    err = capsys.readouterr().err
    assert "\\x1b]0;owned" in err
    assert not OBEYED & set(err)


def test_json_keeps_the_name_to_the_letter(capsys, model, hostile, tmp_path):
    run(capsys, "predict", model, hostile, "--json", tmp_path / "r.jsonl")
    text = (tmp_path / "r.jsonl").read_bytes().decode()
    assert not (OBEYED & set(text))
    assert str(hostile / EVIL) in [json.loads(line)["path"] for line in text.splitlines()]


def test_csv_keeps_the_name_and_no_cell_is_a_formula(capsys, monkeypatch, model, hostile, tmp_path):
    monkeypatch.chdir(hostile)
    names = sorted(path.name for path in hostile.iterdir())
    run(capsys, "predict", model, *(name for name in names if not name.startswith("-")), "--csv", tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows if row[0][0] in "=+-@\t\r\n"] == []
    assert {plain(row[0]) for row in rows} == {name for name in names if name[0] != "-" and "broken" not in name}
    assert all(float(row[1]) >= 0 for row in rows)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-x", "@x", "\tx", "\rx", "\n=x", "'=x", "''=x", "＝1", "'x", "x", ""]
)
def test_a_text_is_read_back_as_it_was(text):
    (row,) = csv.reader([csv_line([text, "next"])[:-1]], strict=True) if "\n" not in text else [[*_read(text)]]
    assert plain(row[0]) == text
    assert row[0][:1] not in tuple("=+-@\t\r\n＝")


def _read(text):
    import io

    return next(csv.reader(io.StringIO(csv_line([text, "next"]), newline="")))


def test_numbers_are_no_formulas():
    assert csv_line([-1.5, "-1.5", "+2e-3", None, True]) == "-1.5,-1.5,+2e-3,,True\n"


def test_a_semicolon_divides_no_cell_where_spreadsheets_divide_at_it():
    assert csv_line(["a;=1+1", 'say "x"']) == '"a;=1+1","say ""x"""\n'


def test_what_is_written_out_is_what_was_meant():
    assert printable("a\x1b[1mb\u202ec\udcff\n") == r"a\x1b[1mb\u202ec\udcff\n"
    assert printable("Prüfteil 部品 👍") == "Prüfteil 部品 👍"
    value = ["\x1b\x7f\x9b\u202e\ud83d\U000e0041 Prüfteil"]
    text = escaped_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert "Prüfteil" in text
    assert printable(text) == text


def test_marks_of_html_stay_text_in_every_page(capsys, added, model, parts, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for at, name in enumerate(["<script>alert(1)<,script>.png", '"onerror="alert(1).png', "'><img src=x>&amp;.png"]):
        shutil.copy(parts / "train" / "good" / f"00{at}.png", folder / name)
    (folder / "<b>broken.png").write_bytes(b"no")
    run(capsys, "predict", model, folder, "--report", tmp_path / "predict.html")
    root = shutil.copytree(parts, tmp_path / "root")
    defects = root / "test" / "<img src=x>"
    next(path for path in (root / "test").iterdir() if path.name != "good").rename(defects)
    (root / "test" / "good" / "000.png").rename(root / "test" / "good" / '"onerror="alert(1).png')
    evaluate = ["evaluate", model, root, "--layout", "mvtec", "--report", tmp_path / "evaluate.html"]
    assert run(capsys, *evaluate)[0] == 0
    run(capsys, "audit", folder, "--backbone", added, "--size", "64", "-o", tmp_path / "audit.html")
    pages = [path.read_text() for path in tmp_path.glob("*.html")]
    assert len(pages) == 3
    for page in pages:
        assert "<script>alert" not in page
        assert "<img src=x>" not in page
        assert '"onerror="' not in page
        assert "<b>broken" not in page
