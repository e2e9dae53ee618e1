"""MQTT through a real broker: pictures in, results out, nothing lost and nothing twice."""

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from tests.databases import inspection
from tests.line_ready import (
    Mosquitto,
    Serving,
    inspections_in,
    make_certificate,
    needs_mosquitto,
    wait_until,
)
from tests.stations import started
from totalrecall import load_detector
from totalrecall.errors import SettingError
from totalrecall.station.links.credentials import read_login
from totalrecall.station.links.ledger import MessageLedger
from totalrecall.station.links.mqtt import Broker, Mqtt
from totalrecall.station.links.outbox import Patience
from totalrecall.station.store.database import Database
from totalrecall.station.store.records import Filter
from totalrecall.station.store.tables import messages

paho = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt (pip install 'totalrecall[mqtt]')")
SOON = Patience(first=0.05, longest=0.5, target=0.2)
TRIGGER = "totalrecall/part/trigger"


def test_a_message_of_a_clock_that_was_set_back_does_not_count_as_inspected(tmp_path):
    """A line that counts its messages from 1 again must not wait a day until its pictures are taken."""
    with Database(f"sqlite:///{tmp_path / 'history.db'}") as database:
        ledger, known = MessageLedger(database, timedelta(minutes=10)), inspection()

        def add(name):
            database.write(lambda connection: ledger.add(connection, known, TRIGGER, name)).result()

        add("1")
        assert ledger.inspected(TRIGGER, "1")
        tomorrow = messages.update().values(at=datetime.now(timezone.utc) + timedelta(days=1))
        database.write(lambda connection: connection.execute(tomorrow).rowcount).result()
        assert not ledger.inspected(TRIGGER, "1")
        add("1")
        assert ledger.inspected(TRIGGER, "1")


class Line:
    """A client as a line's: sends triggers, collects what comes."""

    def __init__(self, port: int, login=None, tls=None) -> None:
        self.results: list[dict] = []
        self.statuses: list[str] = []
        self.ready = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="line", clean_session=False)
        if login:
            self.client.username_pw_set(*login)
        if tls:
            self.client.tls_set(str(tls))
        self.client.on_connect = self._connected
        self.client.on_message = self._came
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.ready.wait(60)

    def _connected(self, client, *_) -> None:
        client.subscribe([("totalrecall/+/result", 1), ("totalrecall/status", 1)])
        self.ready.set()

    def _came(self, *arguments) -> None:
        message = arguments[-1]
        if message.topic.endswith("/status"):
            self.statuses.append(message.payload.decode())
        else:
            self.results.append({**json.loads(message.payload), "topic": message.topic})

    def send(self, payload, topic=TRIGGER, **options) -> None:
        self.client.publish(topic, payload, **{"qos": 1, **options}).wait_for_publish(60)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextlib.contextmanager
def line(port, **options) -> Iterator[Line]:
    client = Line(port, **options)
    try:
        yield client
    finally:
        client.close()


def link(port, **options):
    return Mqtt(Broker.at(f"mqtt://127.0.0.1:{port}"), patience=SOON, **options)


def as_json(path, **said):
    return json.dumps({"picture": base64.b64encode(path.read_bytes()).decode(), **said})


def by_request(client):
    return {result["request"]: result for result in client.results}


@needs_mosquitto
def test_bytes_and_json_get_the_score_of_predict(place, pictures, broker, tmp_path):
    detector = load_detector(place)
    with (
        line(broker.port) as client,
        started(tmp_path / "station", place, links=[link(broker.port)]) as (station, http),
    ):
        wait_until(lambda: client.statuses == ["online"])
        client.send(pictures[0].read_bytes())
        for path in pictures:
            client.send(as_json(path, id=str(path), serial="A-7", line="3", name=path.name))
        http.post("/v1/models/part/predict", content=pictures[1].read_bytes(), headers={"Content-Type": "image/png"})
        wait_until(lambda: len(client.results) == len(pictures) + 2)
        results = by_request(client)
        for path in pictures:
            result = results[str(path)]
            expected = detector.predict(path)
            assert result["score"] == expected.score
            assert (result["serial"], result["line"], result["path"]) == ("A-7", "3", path.name)
            assert (result["verdict"], result["source"]) == (expected.verdict, "mqtt")
            assert result["topic"] == "totalrecall/part/result"
            assert station.history.get(result["id"]).score == result["score"]
        others = {result["source"]: result["score"] for result in client.results if result["request"] is None}
        assert others["mqtt"] == detector.predict(pictures[0]).score
        assert others["api"] == detector.predict(pictures[1]).score


@needs_mosquitto
def test_what_cannot_be_judged_is_answered_with_the_reason(place, pictures, broker, tmp_path):
    with (
        line(broker.port) as client,
        started(tmp_path / "station", place, links=[link(broker.port, limit=100_000)]) as (station, _),
    ):
        wait_until(lambda: client.statuses == ["online"])
        client.send(b"no picture")
        client.send(json.dumps({"picture": base64.b64encode(b"nothing").decode(), "id": "unreadable"}))
        client.send(as_json(pictures[0], id="unknown"), topic="totalrecall/other/trigger")
        for wrong in (
            "{", "{}", '{"picture": 5}', '{"picture": "@@"}', as_json(pictures[0], colour="red"), "[" * 5000,
            as_json(pictures[0], serial=5), b"\x89PNG" + bytes(200_000), '{"picture": ""}', "{" + '"a":' * 9000,
        ):  # fmt: skip
            client.send(wrong)
        wait_until(lambda: len(client.results) >= 13)
        results = by_request(client)
        assert results["unreadable"]["verdict"] == "unreadable"
        assert "must be one of part" in results["unknown"]["error"]
        assert results["unknown"]["topic"] == "totalrecall/other/result"
        words = " ".join(result["error"] for result in client.results)
        for part in ("is none", "picture in base64", "not base64", "must be texts", "from 1 to 100,000 bytes"):
            assert part in words
        assert {one.verdict for one in station.history.find()} == {"unreadable"}
        assert "Traceback" not in words
        # and it works on
        client.send(as_json(pictures[0], id="fine"))
        wait_until(lambda: "fine" in by_request(client))


@needs_mosquitto
def test_a_message_that_comes_twice_is_inspected_once(place, pictures, broker, tmp_path):
    with line(broker.port) as client:
        with started(tmp_path / "station", place, links=[link(broker.port)]) as (station, _):
            wait_until(lambda: client.statuses == ["online"])
            for _ in range(3):
                client.send(as_json(pictures[0], id="one"))
            client.send(as_json(pictures[1], id="two"))
            client.send(pictures[0].read_bytes())
            client.send(pictures[0].read_bytes())  # two parts may look the same
            wait_until(lambda: len(client.results) == 4)
            assert station.history.count(Filter()) == 4
        with started(tmp_path / "station", place, links=[link(broker.port)]) as (station, _):  # the id outlives it
            client.send(as_json(pictures[0], id="one"))
            client.send(as_json(pictures[0], id="last"))
            wait_until(lambda: "last" in by_request(client))
            assert station.history.count(Filter()) == 5


@needs_mosquitto
def test_a_retained_trigger_is_passed_over(place, pictures, broker, tmp_path, caplog):
    with line(broker.port) as client:
        client.send(as_json(pictures[0], id="old"), retain=True)
        with started(tmp_path / "station", place, links=[link(broker.port)]) as (station, _):
            wait_until(lambda: "retained message" in caplog.text)
            client.send(as_json(pictures[0], id="new"))
            wait_until(lambda: "new" in by_request(client))
            assert station.history.count(Filter()) == 1


@needs_mosquitto
def test_the_station_comes_back_when_the_broker_does_and_nothing_is_lost(place, pictures, broker, tmp_path, caplog):
    with started(tmp_path / "station", place, links=[link(broker.port)]) as (station, _):
        with line(broker.port) as client:
            wait_until(lambda: client.statuses == ["online"])
            broker.stop()
            wait_until(lambda: "disconnected" in caplog.text)
            inspection = station.inspect(pictures[0].read_bytes())
            broker.start()
            wait_until(lambda: [result["id"] for result in client.results] == [inspection.key])
            wait_until(lambda: "connected again" in caplog.text)
            client.send(as_json(pictures[1], id="after"))
            wait_until(lambda: "after" in by_request(client))
            assert client.statuses[-1] == "online"
        broker.stop()


@needs_mosquitto
def test_a_station_starts_without_its_broker(place, pictures, broker, tmp_path, caplog):
    broker.stop()
    with started(tmp_path / "station", place, links=[link(broker.port)]) as (station, _):
        station.inspect(pictures[0].read_bytes())
        wait_until(lambda: "cannot be reached" in caplog.text)
        broker.start()
        with line(broker.port) as client:
            wait_until(lambda: client.statuses == ["online"])
            client.send(as_json(pictures[1], id="one"))
            wait_until(lambda: "one" in by_request(client))
    assert caplog.text.count("cannot be reached") == 1


@needs_mosquitto
def test_the_last_will_and_triggers_survive_kill_9(place, pictures, broker, tmp_path):
    folder = tmp_path / "station"
    arguments = (place, "--folder", folder, "--mqtt", f"mqtt://127.0.0.1:{broker.port}")
    with line(broker.port) as client:
        with Serving(*arguments) as serving:
            wait_until(lambda: client.statuses == ["online"])
            for number in range(60):
                client.send(as_json(pictures[number % len(pictures)], id=str(number)))
            serving.kill()
        wait_until(lambda: client.statuses[-1] == "offline")
        with Serving(*arguments) as serving:
            wait_until(lambda: len(inspections_in(folder)) >= 60)
            wait_until(lambda: len(by_request(client)) == 60)
            assert serving.stop() == 0
            wait_until(lambda: client.statuses[-1] == "offline")  # said before it went
    found = inspections_in(folder)
    assert len(found) == 60
    assert {result["id"] for result in client.results} == {one.key for one in found}


@needs_mosquitto
def test_a_broker_that_asks_for_name_and_password(place, pictures, tmp_path, caplog, monkeypatch):
    (tmp_path / "broker").mkdir()
    broker = Mosquitto(tmp_path / "broker", login=("station", "a private word"))
    try:
        monkeypatch.setenv("TOTALRECALL_MQTT_USER", "station")
        monkeypatch.setenv("TOTALRECALL_MQTT_PASSWORD", "a private word")
        (tmp_path / "login").write_text("station\na wrong word\n")
        address = f"mqtt://127.0.0.1:{broker.port}"
        right = Mqtt(Broker.at(address, read_login(None, "TOTALRECALL_MQTT")), patience=SOON, client_id="right")
        wrong = Mqtt(Broker.at(address, read_login(tmp_path / "login", "X")), patience=SOON, client_id="wrong")
        with (
            line(broker.port, login=("station", "a private word")) as client,
            started(tmp_path / "station", place, links=[right, wrong]),
        ):
            wait_until(lambda: client.statuses == ["online"] and "refuses the connection" in caplog.text)
            client.send(as_json(pictures[0], id="one"))
            wait_until(lambda: "one" in by_request(client))
        assert "word" not in caplog.text
    finally:
        broker.stop()


@needs_mosquitto
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # paho's socket
def test_tls_checks_the_brokers_certificate(place, pictures, tmp_path, caplog):
    (tmp_path / "broker").mkdir()
    tls = make_certificate(tmp_path / "tls")
    broker = Mosquitto(tmp_path / "broker", tls=tls)
    try:
        address = f"mqtts://127.0.0.1:{broker.port}"
        wary = Mqtt(Broker.at(address), patience=SOON, client_id="wary")
        trusting = Mqtt(Broker.at(address, authorities=tls / "cert.pem"), patience=SOON, client_id="trusting")
        with (
            line(broker.port, tls=tls / "cert.pem") as client,
            started(tmp_path / "station", place, links=[wary, trusting]),
        ):
            wait_until(lambda: client.statuses == ["online"] and "cannot be reached" in caplog.text)
            client.send(as_json(pictures[0], id="one"))
            wait_until(lambda: "one" in by_request(client))
        assert not wary._client.is_connected()
    finally:
        broker.stop()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1883", "must be mqtt://"),
        ("mqtt://", "must be mqtt://"),
        ("mqtt://host/path", "must be mqtt://"),
        ("mqtt://host:port", "wrong port"),
        ("mqtt://user:private@host", "no name or password"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(address, words):
    with pytest.raises(SettingError, match=words) as caught:
        Broker.at(address)
    assert "private" not in str(caught.value)


def test_certificates_need_tls_and_their_key(tmp_path):
    with pytest.raises(SettingError, match="need TLS"):
        Broker.at("mqtt://host", authorities=tmp_path / "ca.pem")
    with pytest.raises(SettingError, match="go together"):
        Broker.at("mqtts://host", certificate=tmp_path / "cert.pem")
    with pytest.raises(SettingError, match="cannot be used"):
        Broker.at("mqtts://host", authorities=tmp_path / "missing.pem")


@pytest.mark.parametrize("prefix", ["", "/", "a/+", "#", "a\n"])
def test_a_prefix_that_is_no_topic_is_refused(prefix):
    with pytest.raises(SettingError, match="must be a topic"):
        Mqtt(Broker("host", 1883), prefix=prefix)


def test_a_login_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "login").write_text("name\npass word\n")
    assert read_login(tmp_path / "login", "X") == ("name", "pass word")
    assert read_login(None, "X") is None
    monkeypatch.setenv("X_USER", "name")
    with pytest.raises(SettingError, match="go together"):
        read_login(None, "X")
    (tmp_path / "half").write_text("name\n")
    with pytest.raises(SettingError, match="a password in its second"):
        read_login(tmp_path / "half", "X")
    with pytest.raises(SettingError, match="cannot be read"):
        read_login(tmp_path / "missing", "X")
