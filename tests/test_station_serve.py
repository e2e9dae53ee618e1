"""The station as a process: it starts, answers, takes a replaced model, and stops without losing anything."""

import contextlib
import shutil
import signal
import socket
import threading
import time

import pytest
from fastapi import FastAPI

from tests.served import Served
from totalrecall import load_detector
from totalrecall.cli import main
from totalrecall.station.serving import listen, serve
from totalrecall.station.settings import StationSettings

pytestmark = pytest.mark.slow


@pytest.fixture
def place(model, tmp_path):
    return shutil.copy(model, tmp_path / "part.trecall")


@pytest.fixture
def served(place, tmp_path):
    with Served(tmp_path / "station", place) as station:
        yield station


@pytest.fixture
def picture(parts):
    return next((parts / "test").rglob("*.png")).read_bytes()


def load(station, picture, answers, end):
    """Judge a picture until the end, or until the station is gone."""
    with contextlib.suppress(OSError):
        while not end.is_set():
            answers.append(station.judge(picture))


def test_it_says_where_it_serves_and_stops_at_a_signal(served, picture):
    assert "Serving part at http://127.0.0.1:" in served.line
    status, body = served.judge(picture)
    assert (status, body["verdict"] in ("good", "defect")) == (200, True)
    code, out, err = served.stop()
    assert (code, "Stopped." in out, err) == (0, True, "")
    assert body["id"] in served.inspections()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heeded_as_soon_as_it_says_that_it_serves(tmp_path, number):
    settings = StationSettings((tmp_path / "part.trecall",), tmp_path / "station", port=0)
    before = signal.getsignal(number)
    with listen(settings) as sock:
        serve(FastAPI(), settings, sock, serving=lambda: signal.raise_signal(number))  # it returns: that is no fault
    assert signal.getsignal(number) is before


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no service manager speaks so here")
def test_a_service_manager_is_told_when_it_serves_and_when_it_ends(place, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Served(tmp_path / "station", place) as station:
            assert manager.recv(100) == b"READY=1"
            assert station.ask("/readyz")[0] == 200
            assert station.stop()[0] == 0
            assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_before_it_stops(served, picture, number):
    answers, end = [], threading.Event()
    clients = [threading.Thread(target=load, args=(served, picture, answers, end)) for _ in range(6)]
    for client in clients:
        client.start()
    while len(answers) < 6:
        time.sleep(0.05)
    code, _, _ = served.stop(number)
    end.set()
    for client in clients:
        client.join()
    assert code == 0
    assert {status for status, _ in answers} <= {200, 503}
    assert {body["id"] for status, body in answers if status == 200} <= served.inspections()


def test_a_replaced_model_drops_no_request(served, place, picture, tmp_path):
    detector = load_detector(place)
    detector.update(threshold=0.5)
    changed = detector.save(tmp_path / "changed")
    answers, end = [], threading.Event()
    clients = [threading.Thread(target=load, args=(served, picture, answers, end)) for _ in range(4)]
    for client in clients:
        client.start()
    while not answers:
        time.sleep(0.05)
    shutil.copy(changed, tmp_path / "incoming").rename(place)
    for _ in range(1200):
        if answers[-1][1].get("threshold") == 0.5:
            break
        time.sleep(0.05)
    end.set()
    for client in clients:
        client.join()
    assert {status for status, _ in answers} == {200}
    assert answers[0][1]["threshold"] != 0.5
    assert answers[-1][1]["threshold"] == 0.5
    assert len({body["model_sha256"] for _, body in answers}) == 2


def test_a_second_station_in_the_same_folder_is_refused(served, place, capsys):
    assert main(["serve", str(place), "--port", "0", "--folder", str(served.folder)]) == 2
    assert "Another station uses" in capsys.readouterr().err


def test_an_address_that_is_taken_is_named(served, place, tmp_path, capsys):
    port = served.address.rpartition(":")[2]
    assert main(["serve", str(place), "--port", port, "--folder", str(tmp_path / "other")]) == 2
    err = capsys.readouterr().err
    assert f" 127.0.0.1:{port}: Address already in use. Stop what uses it, or name another --port." in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "users add NAME --role engineer --folder /"),
        (["--host", "no.such.host.invalid"], 2, "no.such.host.invalid:0: "),
        (["--queue", "0"], 2, "--queue must be from 1"),
        (["--database", "mysql+nothing://x"], 2, "database"),
        (["--tls-cert", "none.pem"], 2, "--tls-key"),
    ],
)
def test_what_cannot_be_served_is_one_line(place, tmp_path, capsys, words, code, said):
    assert main(["serve", str(place), "--port", "0", "--folder", str(tmp_path / "station"), *words]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_file_in_the_place_of_the_folder_is_told(place, tmp_path, capsys):
    (tmp_path / "notes").write_text("no folder")
    assert main(["serve", str(place), "--port", "0", "--folder", str(tmp_path / "notes")]) == 1
    said = f"{tmp_path / 'notes'} cannot be a folder, since a file has its place. Name a folder that can be written"
    assert said in capsys.readouterr().err
    assert (tmp_path / "notes").read_text() == "no folder"


def test_a_model_that_is_missing_is_told_as_by_every_command(tmp_path, capsys):
    missing = str(tmp_path / "nowhere.trecall")
    assert main(["info", missing]) == 3
    said = capsys.readouterr().err
    assert "does not exist. Make a model with: totalrecall fit" in said
    assert main(["serve", missing, "--port", "0", "--folder", str(tmp_path / "station")]) == 3
    assert capsys.readouterr().err == said
    assert not (tmp_path / "station").exists()


def test_a_model_that_is_none_is_exit_code_3(tmp_path, capsys):
    (tmp_path / "part.trecall").write_bytes(b"nothing")
    assert main(["serve", str(tmp_path / "part.trecall"), "--port", "0", "--folder", str(tmp_path / "s")]) == 3
    assert "part.trecall" in capsys.readouterr().err
