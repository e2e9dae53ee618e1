"""Webhooks: each verdict exactly once by its id, whatever the receiver, the network and the process do."""

import contextlib
import hashlib
import hmac
import logging
import socket
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import select

from tests.line_ready import (
    SECRET,
    Receiver,
    Serving,
    copied,
    free_port,
    inspections_in,
    make_certificate,
    receiving,
    wait_until,
)
from tests.stations import started
from totalrecall import load_detector
from totalrecall.errors import PictureError, SettingError
from totalrecall.station.judging.caption import Caption
from totalrecall.station.links.outbox import Deliverer, Patience
from totalrecall.station.links.webhook import Webhook, signature
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.records import Inspection
from totalrecall.station.store.tables import outbox

SOON = Patience(first=0.02, longest=0.1, target=0.05)


def webhook(receiver, path="/verdicts", **options):
    options = {"patience": SOON, **options}
    return Webhook(f"http://127.0.0.1:{receiver.port}{path}", SECRET, **options)


def rows(database):
    with database.read() as connection:
        return list(connection.execute(select(outbox).order_by(outbox.c.id)))


def undelivered(station):
    return [row for row in rows(station.database) if row.delivered_at is None]


def test_a_receiver_that_fails_twice_gets_each_verdict_once_by_its_id(place, pictures, tmp_path):
    with (
        receiving(500, None) as receiver,
        started(tmp_path, place, links=[webhook(receiver)]) as (station, _),
    ):
        inspections = [station.inspect(path.read_bytes(), Caption(name=path.name, serial="A-7")) for path in pictures]
        wait_until(lambda: not undelivered(station))
        assert receiver.taken == {one.key: one.to_json() for one in inspections}
        detector = load_detector(place)
        for one, path in zip(inspections, pictures, strict=True):
            assert receiver.taken[one.key]["score"] == detector.predict(path).score
        assert receiver.doubles == 0
        assert len(receiver.tries) == len(pictures) + 2
        first = receiver.tries[0][0]
        assert [row.attempts for row in rows(station.database) if row.inspection == first] in ([2], [3])


def test_what_waits_in_the_outbox_goes_out_after_a_restart(place, pictures, tmp_path):
    port = free_port()
    dead = Webhook(f"http://127.0.0.1:{port}/", SECRET, patience=SOON)
    with started(tmp_path, place, links=[dead]) as (station, _):
        inspection = station.inspect(pictures[0].read_bytes())
        wait_until(lambda: rows(station.database)[0].attempts)
        assert "refused" in rows(station.database)[0].error.lower()
    again = Webhook(f"http://127.0.0.1:{port}/", SECRET, patience=SOON)
    with receiving(port=port) as receiver, started(tmp_path, place, links=[again]) as (station, _):
        wait_until(lambda: not undelivered(station))
        assert list(receiver.taken) == [inspection.key]


def test_deliveries_survive_kill_9(place, pictures, tmp_path):
    port, folder, watched = free_port(), tmp_path / "station", tmp_path / "watched"
    watched.mkdir()
    arguments = (place, "--folder", folder, "--watch", watched, "--webhook", f"http://127.0.0.1:{port}/")
    secret = {"TOTALRECALL_WEBHOOK_SECRET": SECRET.decode()}
    with Serving(*arguments, **secret) as serving:
        copied(pictures, watched)
        wait_until(lambda: len(inspections_in(folder)) == len(pictures))
        serving.kill()
    with receiving(port=port) as receiver, Serving(*arguments, **secret) as serving:
        wait_until(lambda: len(receiver.taken) == len(pictures))
        assert serving.stop() == 0
        assert receiver.doubles == 0
        assert {one.key for one in inspections_in(folder)} == set(receiver.taken)
    assert SECRET.decode() not in "".join(serving.errors)


def test_a_dead_target_delays_no_other(place, pictures, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent, receiving() as receiver:
        dead = Webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/", SECRET, "webhook 2", seconds=3600)
        with started(tmp_path, place, links=[dead, webhook(receiver)]) as (station, _):
            inspections = [station.inspect(path.read_bytes()) for path in pictures]
            connection, _ = silent.accept()  # and never answers
            wait_until(lambda: len(receiver.taken) == len(inspections))
            wait_until(lambda: {row.target for row in undelivered(station)} == {dead.name})
            assert len(undelivered(station)) == len(inspections)
            silent.close()
            connection.close()  # so that the try in hand ends


def test_redirects_are_not_followed(place, pictures, tmp_path, caplog):
    with receiving() as elsewhere:
        location = f"http://127.0.0.1:{elsewhere.port}/"
        with (
            receiving(302, 307, 308, location=location) as receiver,
            started(tmp_path, place, links=[webhook(receiver)]) as (station, _),
        ):
            station.inspect(pictures[0].read_bytes())
            wait_until(lambda: receiver.taken)
            assert len(receiver.tries) == 4
        assert elsewhere.tries == []
    assert "redirects are not followed" in caplog.text


def test_a_certificate_must_be_trusted(place, pictures, tmp_path, caplog):
    tls = make_certificate(tmp_path / "tls")
    with receiving(tls=tls) as receiver:
        address = f"https://127.0.0.1:{receiver.port}/verdicts?token=private-token"
        wary = Webhook(address, SECRET, patience=SOON)
        with started(tmp_path / "one", place, links=[wary]) as (station, _):
            station.inspect(pictures[0].read_bytes())
            wait_until(lambda: rows(station.database)[0].attempts)
            assert "certificate is not trusted" in rows(station.database)[0].error
        assert receiver.tries == []
        trusting = Webhook(address, SECRET, authorities=tls / "cert.pem", patience=SOON)
        with started(tmp_path / "two", place, links=[trusting]) as (station, _):
            station.inspect(pictures[0].read_bytes())
            wait_until(lambda: receiver.taken)
    assert "did not take a delivery" in caplog.text
    assert "private-token" not in caplog.text
    assert "/verdicts" not in caplog.text


def test_an_answer_that_drips_is_cut_off(tmp_path):
    """Each byte begins the socket's own limit anew; the limit of a try does not."""
    ended = threading.Event()

    def drip(server):
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            while not ended.wait(0.05):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        link = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", SECRET, seconds=0.5)
        reason = link._deliver({}, "0" * 32)
        ended.set()
        thread.join(30)
    assert reason


def test_only_rejects_where_asked_and_never_the_stations_own_pictures(place, parts, tmp_path):
    fine = sorted((parts / "train" / "good").glob("*.png"))[:2]
    with receiving() as receiver, started(tmp_path, place, links=[webhook(receiver, when="rejects")]) as (station, _):
        found = [station.inspect(path.read_bytes()) for path in fine]
        assert [one.verdict for one in found] == ["good", "good"]
        for source in ("api", "golden"):
            with pytest.raises(PictureError):
                station.inspect(b"no picture", Caption(source=source))
        wait_until(lambda: receiver.taken)
        (body,) = receiver.taken.values()
        assert (body["verdict"], body["source"]) == ("unreadable", "api")
        assert len(rows(station.database)) == 1


def inspection(key, at=None):
    nothing = dict.fromkeys(("serial", "line", "product", "score", "threshold", "p_value", "is_anomalous", "nearest"))
    texts = {"model": "part", "model_sha256": "0" * 64, "source": "api", "name": "a", "picture_sha256": "0" * 64}
    at = at or datetime.now(timezone.utc)
    return Inspection(key=key, at=at, **texts, **nothing, verdict="no verdict", regions=[], milliseconds=1.0)


def test_a_delivery_is_given_up_after_its_time_and_the_others_go_on(tmp_path, caplog):
    old, new = "1" * 32, "2" * 32
    took, tried = [], []

    def deliver(body, key):
        tried.append(key)
        if key == old:
            return "it answered 500"
        took.append(key)
        return None

    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'history.db'}")) as database:
        history = History(database)
        history.add(inspection(old), [("t", {})]).result()
        history.add(inspection(new), [("t", {}), ("other", {})]).result()
        with contextlib.closing(Deliverer(database, "t", deliver, replace(SOON, give_up=0.2))):
            wait_until(lambda: len([row for row in rows(database) if row.delivered_at]) == 1 and tried.count(old))
            wait_until(lambda: "given up" in (rows(database)[0].error or ""))
        assert took == [new]
        assert tried.count(old) == replace(SOON, give_up=0.2).tries == 5  # pauses of 0.02, 0.04, 0.08 and 0.1 s
        assert [row.target for row in rows(database) if row.delivered_at is None] == ["t", "other"]
    assert "given up: it answered 500" in caplog.text


def test_48_hours_of_pauses_are_some_three_hundred_tries():
    # 1 + 2 + 4 + ... + 512 = 1023 s, then (48 * 3600 - 1023) / 600 = 286.3 pauses of ten minutes; and the first try
    assert Patience().tries == 1 + 10 + 287


def test_a_clock_that_jumps_forward_gives_nothing_up(tmp_path, monkeypatch):
    tried, took = [], []

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=30 * len(tried))  # it jumps on before each try

    def deliver(_, key):
        tried.append(key)
        if len(tried) < 5:
            return "it answered 500"
        took.append(key)
        return None

    monkeypatch.setattr("totalrecall.station.links.outbox.datetime", Later)
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'history.db'}")) as database:
        History(database).add(inspection("1" * 32), [("t", {})]).result()
        with contextlib.closing(Deliverer(database, "t", deliver, SOON)):
            wait_until(lambda: took)
    assert len(tried) == 5


def test_a_clock_that_was_set_back_delays_no_delivery(tmp_path):
    took = []
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'history.db'}")) as database:
        tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
        History(database).add(inspection("1" * 32, tomorrow), [("t", {})]).result()
        with contextlib.closing(Deliverer(database, "t", lambda _, key: took.append(key), SOON)):
            wait_until(lambda: rows(database)[0].delivered_at)
    assert took == ["1" * 32]


def test_a_fault_of_the_target_code_ends_no_thread(tmp_path):
    seen = []

    def deliver(body, key):
        seen.append(key)
        if len(seen) < 3:
            raise ZeroDivisionError
        return

    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'history.db'}")) as database:
        History(database).add(inspection("1" * 32), [("t", {"a": 1})]).result()
        with contextlib.closing(Deliverer(database, "t", deliver, SOON)):
            wait_until(lambda: rows(database)[0].delivered_at)
    assert len(seen) == 3


def test_what_was_delivered_long_ago_is_swept_out(tmp_path):
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'history.db'}")) as database:
        history = History(database)
        for key in ("1" * 32, "2" * 32):
            history.add(inspection(key), [("t", {})]).result()
        long_ago = datetime.now(timezone.utc) - timedelta(days=8)
        first = outbox.update().where(outbox.c.inspection == "1" * 32).values(delivered_at=long_ago)
        database.write(lambda connection: connection.execute(first).rowcount).result()
        with contextlib.closing(Deliverer(database, "t", lambda *_: None, SOON)):
            wait_until(lambda: [row.inspection for row in rows(database)] == ["2" * 32])
            wait_until(lambda: rows(database)[0].delivered_at)


def test_what_was_given_up_stays_for_a_month(tmp_path):
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'history.db'}")) as database:
        now = datetime.now(timezone.utc)
        for key, days in (("1" * 32, 31), ("2" * 32, 29), ("3" * 32, 31)):
            History(database).add(inspection(key, now - timedelta(days=days)), [("t", {})]).result()
        given_up = outbox.update().where(outbox.c.inspection != "3" * 32)
        given_up = given_up.values(next_at=datetime(9999, 1, 1, tzinfo=timezone.utc), error="given up: it answered 500")
        database.write(lambda connection: connection.execute(given_up).rowcount).result()
        took = []
        with contextlib.closing(Deliverer(database, "t", lambda _, key: took.append(key), SOON)):
            wait_until(lambda: [row.inspection for row in rows(database)] == ["2" * 32, "3" * 32])
            wait_until(lambda: rows(database)[1].delivered_at)  # old as well, but it was never given up
    assert took == ["3" * 32]


def test_the_signature_is_hmac_sha256_of_time_full_stop_and_body():
    # by the command of the docs: printf '1700000000.{}' | openssl dgst -sha256 -hmac 'a secret that both sides know'
    assert signature(SECRET, 1700000000, b"{}") == hmac.new(SECRET, b"1700000000.{}", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ftp://host/", "must begin with https://"),
        ("https:///path", "name a host"),
        ("https://user:private@host/", "no name or password"),
        ("https://host:99999999/", "wrong port"),
        ("https://host/a b", "printable ASCII"),
        ("http://host/\r\nX: y", "printable ASCII|must begin|port"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(address, words):
    with pytest.raises(SettingError, match=words) as caught:
        Webhook(address, SECRET)
    assert "private" not in str(caught.value)


def test_a_short_secret_is_refused():
    with pytest.raises(SettingError, match="at least 16 bytes, got 5"):
        Webhook("https://host/", b"short")


def test_unencrypted_addresses_elsewhere_are_told(place, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    with started(tmp_path, place, links=[Webhook("http://192.0.2.1/", SECRET)]):
        assert "Use https" in caplog.text


def test_the_receiver_of_these_tests_refuses_a_wrong_signature():
    with receiving() as receiver:
        other = Webhook(f"http://127.0.0.1:{receiver.port}/", b"another secret, that is wrong")
        assert other._deliver({}, "0" * 32) == "it answered 401"
        assert receiver.tries == []
    assert isinstance(receiver, Receiver)
