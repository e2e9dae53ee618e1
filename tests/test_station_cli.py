"""`totalrecall station`: verify and csv, as a person runs them."""

import csv
import io
import os
import re
import sqlite3

import pytest
from sqlalchemy import delete, update

from tests.commands import in_fresh_python
from tests.databases import inspection
from totalrecall.cli import main
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.records import Actor
from totalrecall.station.store.tables import inspections, trail

ANNA = Actor("Anna", "operator")


def filled(address):
    """Put three inspections, of which one is judged, into a database."""
    with Database(address) as database:
        history = History(database)
        for number in range(3):
            history.add(inspection(number, name="=1+1", verdict="defect" if number == 1 else "good"))
        history.judge(inspection(1).key, "fine", ANNA)
    return address


def change(address, statement):
    with Database(address) as database:
        database.write(lambda connection: connection.execute(statement) and None).result()


@pytest.fixture
def folder(tmp_path):
    filled(f"sqlite:///{tmp_path / 'station' / 'history.db'}")
    return tmp_path / "station"


def test_a_whole_trail_is_told_with_its_last_hash(address, capsys):
    filled(address)
    assert main(["station", "verify", "--database", address]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "The audit trail is whole: 2 rows."
    head = re.fullmatch(r"Its last hash, to be written down elsewhere for --expect-head: ([0-9a-f]{64})", second)[1]
    assert main(["station", "verify", "--database", address, "--expect-head", head]) == 0
    assert main(["station", "verify", "--database", address, "--expect-head", "f" * 64]) == 1
    said = capsys.readouterr()
    assert said.err == (
        f"totalrecall: no row of the audit trail has the hash {'f' * 64}: rows were cut off or written anew.\n"
    )
    assert said.out.splitlines()[-1] == "The audit trail is NOT whole: 0 broken rows of 2."


def test_an_altered_row_is_named_and_the_exit_code_is_1(address, capsys):
    filled(address)
    change(address, update(trail).where(trail.c.id == 2).values(actor="Eve"))
    assert main(["station", "verify", "--database", address]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "totalrecall: row 2 of the audit trail is broken: its content is not what its hash was made of.",
        "totalrecall: the judgement in the history is not the last one in the audit trail, or the inspection is gone: "
        f"{inspection(1).key}.",
    ]
    assert said.out == "The audit trail is NOT whole: 1 broken row of 2.\n"


def test_many_broken_rows_are_counted(folder, capsys, monkeypatch):
    address = f"sqlite:///{folder / 'history.db'}"
    with Database(address) as database:
        for _ in range(30):
            History(database).judge(inspection(1).key, "defect", ANNA)
    change(address, update(trail).values(actor="Eve"))
    monkeypatch.chdir(folder.parent)
    folder.rename("totalrecall-station")
    assert main(["station", "verify"]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[20] == "totalrecall: 12 more rows are broken."
    assert said.out == "The audit trail is NOT whole: 32 broken rows of 32.\n"


def test_verify_changes_nothing_and_makes_nothing(tmp_path, folder, capsys):
    before = (folder / "history.db").read_bytes()
    assert main(["station", "verify", "--folder", str(folder)]) == 0
    assert (folder / "history.db").read_bytes() == before
    assert main(["station", "verify", "--folder", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err == (
        f"totalrecall: There is no history in {tmp_path / 'nowhere' / 'history.db'}. Start the station first, or name "
        "another file.\n"
    )
    assert not (tmp_path / "nowhere").exists()


def test_verify_works_while_the_station_writes(folder, capsys):
    with Database(f"sqlite:///{folder / 'history.db'}") as database:
        History(database).judge(inspection(2).key, "defect", ANNA)
        assert main(["station", "verify", "--folder", str(folder)]) == 0
    assert "whole: 3 rows" in capsys.readouterr().out


def test_csv_goes_to_stdout_and_holds_no_formula(address, capsys):
    filled(address)
    assert main(["station", "csv", "--database", address]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == [inspection(number).key for number in (2, 1, 0)]
    assert {row["name"] for row in rows} == {"'=1+1"}
    assert [row["judgement"] for row in rows] == ["", "fine", ""]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--verdict", "defect"], [1]),
        (["--model", "cap"], []),
        (["--judgement", "none"], [2, 0]),
        (["--serial", "S2"], [2]),
        (["--since", "2026-11-29T16:00:01Z"], [2, 1]),
        (["--since", "2026-11-29", "--until", "2026-11-29T17:00:01+01:00"], [0]),
        (["--until", "2026-11-29T16:00:01"], [0]),
    ],
)
def test_csv_holds_what_the_options_ask_for(folder, capsys, options, numbers):
    assert main(["station", "csv", "--folder", str(folder), *options]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == [inspection(number).key for number in numbers]


def test_csv_goes_to_a_file_and_never_over_the_history(folder, tmp_path, capsys):
    out = tmp_path / "history.csv"
    assert main(["station", "csv", "--folder", str(folder), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"Wrote 3 inspections to {out}.\n"
    assert len(out.read_text(encoding="utf-8").splitlines()) == 4
    before = (folder / "history.db").read_bytes()
    assert main(["station", "csv", "--folder", str(folder), "-o", str(folder / "history.db")]) == 2
    assert "must name a file of its own" in capsys.readouterr().err
    assert (folder / "history.db").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["csv", "--since", "yesterday"], "--since must be a time such as 2026-11-29 or .*, got 'yesterday'"),
        (["csv", "--verdict", "bad"], "verdict must be one of defect, good, no verdict"),
        (["verify", "--folder", "a", "--database", "sqlite:///b"], "name two places for one history"),
        (["verify", "--database", "history.db"], "--database must be an address, got something else"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(folder, capsys, options, words):
    place = [] if "--database" in options else ["--folder", str(folder)]
    assert main(["station", options[0], *place, *options[1:]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line)


def test_a_file_of_another_program_is_one_line_and_exit_code_1(tmp_path, capsys):
    file = tmp_path / "shop.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    assert main(["station", "verify", "--database", f"sqlite:///{file}"]) == 1
    assert capsys.readouterr().err == (
        f"totalrecall: {file} is another program's database: it holds the table 'customers'. Name another one.\n"
    )


def test_a_password_is_printed_nowhere(capsys):
    assert main(["station", "verify", "--database", "postgresql://anna:SeCrEt@127.0.0.1:9/line"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("totalrecall: The database postgresql://anna@127.0.0.1:9/line does not answer: ")
    assert "SeCrEt" not in said.out + said.err


def test_without_the_extra_the_command_names_it():
    done = in_fresh_python(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name in ('sqlalchemy', 'alembic') else find(name, *rest)\n"
        "from totalrecall.cli import main\n"
        "print(main(['station', 'verify']))"
    )
    assert done.stdout == "2\n"
    assert done.stderr == (
        "totalrecall: The history of a station needs sqlalchemy and alembic, not installed here. "
        'Run: pip install "totalrecall[station]"\n'
    )


def test_a_removed_inspection_is_named(folder, capsys):
    change(f"sqlite:///{folder / 'history.db'}", delete(inspections).where(inspections.c.key == inspection(1).key))
    assert main(["station", "verify", "--folder", str(folder)]) == 1
    assert inspection(1).key in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="modes of files are POSIX's")
def test_a_history_that_may_not_be_read_is_one_line(folder, capsys):
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    (folder / "history.db").chmod(0)
    assert main(["station", "verify", "--folder", str(folder)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
