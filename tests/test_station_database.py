"""The station's database: whose it is, how it becomes today's, what it says when it cannot be used."""

import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

import totalrecall
from tests.databases import inspection
from totalrecall.errors import ConflictError, HistoryError, MissingExtraError, SettingError
from totalrecall.station.store.addresses import address_of_file, parse_address, shown
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.schema import current
from totalrecall.station.store.tables import METADATA, VERSION_TABLE, values


def put(key):
    """Return a function that writes a row and returns 1."""

    def write(connection):
        connection.execute(insert(values), {"key": key, "value": 1})
        return 1

    return write


def keys(database):
    with database.read() as connection:
        return sorted(connection.execute(select(values.c.key)).scalars())


def test_the_migrations_make_the_tables_that_the_program_knows(address):
    Database(address).close()
    engine = create_engine(parse_address(address))
    options = {"version_table": VERSION_TABLE, "compare_type": True}
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
        assert differences == []
        assert set(METADATA.tables) | {VERSION_TABLE} == set(inspect(connection).get_table_names())
        connection.execute(text("DROP TABLE outbox"))
        missing = compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
        assert [difference[0] for difference in missing] == ["add_table"] + ["add_index"] * (len(missing) - 1)
    engine.dispose()


def test_many_that_open_a_new_database_at_once_make_its_tables_once(address):
    failures = []

    def work():
        try:
            Database(address).close()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Database(address) as database, database.read() as connection:
        assert connection.execute(select(func.count()).select_from(METADATA.tables["trail"])).scalar() == 1


def test_a_function_that_fails_is_undone_alone(address):
    with Database(address) as database:
        gate = threading.Event()
        first = database.write(lambda connection: gate.wait(60) and put("a")(connection))

        def half(connection):
            put("half")(connection)
            raise KeyError("no")

        promises = [database.write(function) for function in (put("b"), half, put("b"), put("c"))]
        gate.set()
        assert first.result() == 1
        assert promises[0].result() == 1
        with pytest.raises(KeyError):
            promises[1].result()
        with pytest.raises(IntegrityError):
            promises[2].result()
        assert promises[3].result() == 1
        assert keys(database) == ["a", "b", "c"]


def test_closing_finishes_what_was_asked_for(address):
    database = Database(address)
    promises = [database.write(put(f"{number:04}")) for number in range(1000)]
    database.close()
    database.close()
    assert all(promise.done() and promise.exception() is None for promise in promises)
    with pytest.raises(HistoryError, match="is closed"):
        database.write(put("late"))
    with Database(address) as again:
        assert len(keys(again)) == 1000


def test_a_reader_changes_nothing(address):
    with (
        Database(address) as database,
        pytest.raises(HistoryError, match=r"read-?only"),
        database.read() as connection,
    ):
        put("a")(connection)


def test_a_sqlite_database_is_durable_and_only_this_user_reads_it(tmp_path):
    file = tmp_path / "new" / "a #%20b.db"
    with Database(address_of_file(file)) as database:
        settings = database.write(
            lambda connection: [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        ).result()
        assert settings == ["wal", 2, 1]
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert file.name in modes
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_postgresql_database_is_durable_whatever_its_server_says(postgresql):
    address = postgresql.address()
    engine = create_engine(parse_address(address))
    with engine.connect() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar()
        connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit TO off"))
        connection.execute(text(f"ALTER DATABASE {name} SET timezone TO 'Asia/Kolkata'"))
        connection.commit()
    engine.dispose()
    with Database(address) as database:
        shows = database.write(lambda c: c.execute(text("SHOW synchronous_commit")).scalar()).result()
        assert shows == "on"
        history = History(database)
        history.add(inspection(5)).result()
        assert history.find() == [inspection(5)]
        assert history.per_hour()[0][0].hour == 16


def refused(address, **options):
    """Return the one line with which a database is refused."""
    with pytest.raises(HistoryError) as caught:
        Database(address, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == 1
    return line


def test_a_file_that_is_no_database_is_refused_and_not_changed(tmp_path):
    file = tmp_path / "notes.db"
    file.write_bytes(b"my notes, no database at all" * 100)
    line = refused(address_of_file(file))
    assert line.startswith(f"{file} is not a database of the station: file is not a database.")
    assert file.read_bytes() == b"my notes, no database at all" * 100
    assert [path.name for path in tmp_path.iterdir()] == ["notes.db"]


def test_a_database_of_another_program_is_refused_and_not_changed(tmp_path):
    file = tmp_path / "shop.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE customers (name TEXT)")
    connection.commit()
    connection.close()
    before = file.read_bytes()
    assert refused(address_of_file(file)) == (
        f"{file} is another program's database: it holds the table 'customers'. Name another one."
    )
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["shop.db"]


def test_tables_of_another_program_may_lie_beside_ours_on_a_server_but_not_under_our_names(postgresql):
    address = postgresql.address()
    engine = create_engine(parse_address(address))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE customers (name TEXT)"))
        connection.execute(text("CREATE TABLE users (name TEXT)"))
    assert "holds the table 'users'" in refused(address)
    with engine.begin() as connection:
        assert set(inspect(connection).get_table_names()) == {"customers", "users"}
        connection.execute(text("DROP TABLE users"))
    Database(address).close()
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_and_not_changed(address):
    Database(address).close()
    engine = create_engine(parse_address(address))
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    line = refused(address)
    assert f"a newer version of Total Recall: it is of version 9999, this one knows {current()}." in line
    with engine.connect() as connection:
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == "9999"
    engine.dispose()


def test_a_server_database_that_cannot_hold_every_letter_is_refused(postgresql):
    line = refused(postgresql.address("-E", "LATIN1", "-T", "template0", "-l", "C"))
    assert line.endswith("must store text as UTF8, got LATIN1. Make a database: createdb -E UTF8.")


def test_a_user_who_may_make_no_tables_is_told_so(postgresql):
    engine = create_engine(parse_address(postgresql.address()))
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE guest LOGIN"))
    engine.dispose()
    line = refused(postgresql.address(user="guest"))
    assert line.endswith("cannot be used: permission denied for schema public.")


def test_the_migrations_are_in_a_wheel():
    """What has an `__init__.py` is a package, and setuptools packs every one."""
    folder = Path(totalrecall.__file__).parent / "station"
    assert [path for path in folder.rglob("*.py") if not (path.parent / "__init__.py").is_file()] == []
    assert (folder / "store" / "migrations" / "versions" / "v0001.py").is_file()


def test_without_create_nothing_is_made(address, tmp_path):
    assert "Start the station" in refused(address, create=False)
    assert list(tmp_path.iterdir()) == []
    Database(address).close()
    with Database(address, create=False) as database:
        assert History(database).count() == 0


def test_a_folder_or_a_place_that_cannot_be_written_is_refused(tmp_path):
    assert refused(address_of_file(tmp_path)) == f"{tmp_path} is a folder, not a database. Name a file in it."
    (tmp_path / "file").write_text("")
    line = refused(address_of_file(tmp_path / "file" / "history.db"))
    assert "cannot be made" in line


def test_a_locked_file_is_waited_for_and_then_said(tmp_path):
    file = tmp_path / "history.db"
    with Database(address_of_file(file), wait=0.2) as database:
        other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryError, match=r"is locked by another program; waited 0\.2 s\. Close that program"):
            database.write(put("a")).result()
        other.execute("COMMIT")
        assert database.write(put("a")).result() == 1
        other.close()


def test_a_lock_that_is_let_go_in_time_costs_nothing(tmp_path):
    file = tmp_path / "history.db"
    with Database(address_of_file(file)) as database:
        other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        promise = database.write(put("a"))
        assert not promise.done()
        other.execute("COMMIT")
        assert promise.result() == 1
        other.close()


def test_a_new_file_that_another_program_holds_is_waited_for(tmp_path):
    file = tmp_path / "history.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HistoryError, match=r"is locked by another program; waited 0\.1 s"):
        Database(address_of_file(file), wait=0.1)
    opened = Future()
    thread = threading.Thread(target=lambda: opened.set_result(Database(address_of_file(file))))
    thread.start()
    thread.join(0.5)
    assert not opened.done()
    other.execute("COMMIT")
    other.close()
    with opened.result(60) as database:
        assert database.write(put("a")).result() == 1
    thread.join()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("history.db", "database must be an address"),
        ("", "database must be an address"),
        ("nodb://user:SeCrEt@host/x", "of a kind that SQLAlchemy knows"),
        ("postgresql://user:SeCrEt@host:port/x", "database must be an address"),
        ("postgresql://user:Se@CrEt@host/x", "Write @ in a password as %40"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:///file:x?mode=memory&uri=true", "must name a file"),
        ("sqlite+aiosqlite:///x.db", "no other driver"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_being_repeated(address, words):
    with pytest.raises(SettingError, match=words) as caught:
        Database(address)
    assert "CrEt" not in str(caught.value)


def test_an_address_is_shown_without_its_passwords():
    address = "postgresql://anna:SeCrEt@db.example:5433/line?password=SeCrEt&sslmode=require"
    assert shown(parse_address(address)) == "postgresql://anna@db.example:5433/line"
    assert shown(parse_address("sqlite:////data/a.db")) == "/data/a.db"


def test_a_server_that_does_not_answer_is_said_without_the_password():
    line = refused("postgresql://anna:SeCrEt@127.0.0.1:9/line?password=SeCrEt")
    assert line.startswith("The database postgresql://anna@127.0.0.1:9/line does not answer: ")
    assert "SeCrEt" not in line


def test_postgresql_without_psycopg_names_the_extra():
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from totalrecall.station.store.database import Database\n"
        "from totalrecall.errors import MissingExtraError\n"
        "try: Database('postgresql://anna:SeCrEt@host/line')\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 'pip install "totalrecall[postgresql]"' in done.stdout
    assert "SeCrEt" not in done.stdout + done.stderr
    with pytest.raises(MissingExtraError, match="driver of a oracle database is not installed"):
        Database("oracle+oracledb://anna:SeCrEt@host/line")


def test_a_lost_server_is_one_line_and_the_writer_goes_on_when_it_is_back(postgresql):
    with Database(postgresql.address()) as database:
        assert database.write(put("before")).result() == 1
        postgresql.stop()
        try:
            failure = database.write(put("during")).exception()
        finally:
            postgresql.start()
        assert isinstance(failure, HistoryError)
        assert str(failure).startswith(f"The database {database.place} does not answer: ")
        assert "\n" not in str(failure)
        assert database.write(put("after")).result() == 1
        assert keys(database) == ["after", "before"]


def test_a_server_that_is_lost_within_a_transaction_is_one_line_to_all_who_share_it(postgresql):
    with Database(postgresql.address()) as database:
        gate = threading.Event()
        first = database.write(lambda _: gate.wait(60))

        def lose(connection):
            connection.execute(text("select pg_terminate_backend(pg_backend_pid())"))

        for together in ([put("a"), lose], [put("a"), lose, put("b")]):
            promises = [database.write(function) for function in together]
            gate.set()
            for promise in promises:
                with pytest.raises(HistoryError, match="does not answer"):
                    promise.result()
            gate.clear()
            first = database.write(lambda _: gate.wait(60))
        gate.set()
        assert first.result()
        assert database.write(put("after")).result() == 1
        assert keys(database) == ["after"]


def test_nothing_is_acknowledged_into_a_file_that_was_removed_or_replaced(tmp_path):
    file, away = tmp_path / "history.db", tmp_path / "away.db"
    with Database(address_of_file(file)) as database:
        assert database.write(put("a")).result() == 1
        file.rename(away)
        with pytest.raises(HistoryError, match="was removed or replaced"):
            database.write(put("b")).result()
        file.write_bytes(away.read_bytes())  # another one in its place
        with pytest.raises(HistoryError, match="was removed or replaced"):
            database.write(put("b")).result()
        away.replace(file)
        assert database.write(put("c")).result() == 1
        assert keys(database) == ["a", "c"]


def test_a_file_keeps_one_connection_and_leaves_no_log_behind(tmp_path):
    file = tmp_path / "history.db"
    with Database(address_of_file(file)) as database:
        first, second = (database.write(lambda connection: id(connection.connection.dbapi_connection)) for _ in "ab")
        assert first.result() == second.result()
        assert database.write(put("a")).result() == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("history")] == [file.name]


def test_after_a_failed_write_the_fault_stays_until_a_write_succeeds(tmp_path):
    file, aside = tmp_path / "history.db", tmp_path / "aside.db"
    with Database(f"sqlite:///{file}") as database:
        history = History(database)
        assert database.fault is None
        file.rename(aside)
        with pytest.raises(HistoryError, match="was removed or replaced") as failure:
            history.set_value("shift", 1).result()
        assert database.fault == history.find_fault(60) == str(failure.value)
        aside.rename(file)
        assert database.fault == str(failure.value)
        assert history.find_fault(60) is None
        assert database.fault is None
    assert "is closed" in database.fault


def test_a_refusal_is_no_fault_of_the_database(address):
    def refuse(_):
        raise ConflictError("It was decided already.")

    with Database(address) as database:
        with pytest.raises(ConflictError):
            database.write(refuse).result()
        assert database.fault is None
