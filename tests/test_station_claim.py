"""One station at a time uses a folder and a database; commands that only look work beside it."""

import signal
import subprocess
import sys
import threading

import pytest
from sqlalchemy import create_engine, text

from tests.databases import inspection
from totalrecall.errors import HistoryError, SettingError
from totalrecall.station.settings import StationSettings
from totalrecall.station.station import Station
from totalrecall.station.store import claim
from totalrecall.station.store.addresses import parse_address
from totalrecall.station.store.claim import ServerClaim
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.trail import Trail

HOLD = """
import sys, time
from totalrecall.station.store.database import Database
database = Database(sys.argv[1], alone=True)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def server(postgresql):
    """A database on PostgreSQL."""
    return postgresql.address()


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(claim, "_PATIENCE", 0.5)


def end_sessions(server):
    """Break all connections of stations to a database, as a server does that is started again."""
    engine = create_engine(parse_address(server))
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'totalrecall station%' AND datname = current_database()"
            )
        )
    engine.dispose()


def test_a_second_station_is_refused_and_commands_that_look_are_not(address):
    with Database(address, alone=True) as first:
        with pytest.raises(SettingError, match=r"Another station uses the database .*Stop it, or name another"):
            Database(address, alone=True)
        with Database(address, create=False) as beside:
            History(beside).set_value("written by", "a command").result()
            assert Trail(beside).verify().is_whole
        History(first).add(inspection()).result()
    with Database(address, alone=True) as second:
        assert History(second).value("written by") == "a command"


def test_two_stations_with_folders_of_their_own_do_not_share_a_database(address, model, tmp_path):
    settings = [StationSettings(models=(model,), folder=tmp_path / name, database=address) for name in "ab"]
    first = Station(settings[0])
    try:
        with pytest.raises(SettingError, match="Another station uses the database") as refused:
            Station(settings[1])
        assert refused.value.exit_code == 2
        assert "\n" not in str(refused.value)
    finally:
        first.close()
    Station(settings[1]).close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_kill_lets_go_of_a_database(address, monkeypatch):
    monkeypatch.setattr(claim, "_PATIENCE", 30.0)
    with subprocess.Popen([sys.executable, "-c", HOLD, address], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
    Database(address, alone=True).close()


def test_a_lost_connection_takes_the_claim_again_before_it_writes(server):
    with Database(server, alone=True) as first:
        for number in range(3):
            end_sessions(server)
            History(first).add(inspection(number)).result()
            with pytest.raises(SettingError, match="Another station uses"):
                Database(server, alone=True)


def test_a_claim_that_another_station_took_meanwhile_is_said_and_nothing_is_written(server):
    with Database(server, alone=True) as first:
        taken, writing = threading.Event(), threading.Event()

        def wait(connection):
            writing.set()
            assert taken.wait(60)
            connection.execute(text("SELECT 1"))

        held = first.write(wait)  # the thread that writes is busy, so it cannot take the claim again
        assert writing.wait(60)
        end_sessions(server)
        with Database(server, alone=True) as second:
            taken.set()
            assert isinstance(held.exception(60), HistoryError)
            for _ in range(3):
                refused = History(first).add(inspection(1)).exception(60)
                assert "was lost, and another station uses it now. Stop one of the two" in str(refused)
            History(second).add(inspection(2)).result()
        History(first).add(inspection(3)).result()  # the other has ended
        assert [found.key for found in History(first).find()] == [inspection(3).key, inspection(2).key]


def test_a_connection_of_our_own_that_lives_on_at_the_server_is_ended(server):
    """As after a cut cable: the server still has the old session, and the lock with it."""
    import psycopg

    address = parse_address(server).set(drivername="postgresql").render_as_string(hide_password=False)
    mine = ServerClaim("here")
    with psycopg.connect(address) as old, psycopg.connect(address) as new, psycopg.connect(address) as strange:
        mine.take(old, None)
        with pytest.raises(SettingError, match="Another station uses the database there"):
            ServerClaim("there").take(strange, None)
        assert strange.closed
        mine.take(new, None)
        with pytest.raises(psycopg.OperationalError):
            old.execute("SELECT 1")
        assert new.execute("SELECT 1").fetchone() == (1,)
