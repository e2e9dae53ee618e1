"""The product is chosen by MQTT, through a real broker, and by OPC UA beside it; every change is told to all."""

import asyncio
import contextlib
import json
import logging
import shutil
import threading
from pathlib import Path

import pytest

from tests.line_ready import free_port, needs_mosquitto, wait_until
from tests.stations import started
from tests.striped import good_picture
from totalrecall import load_detector
from totalrecall.errors import HistoryError
from totalrecall.station.links.mqtt import Broker, Mqtt
from totalrecall.station.links.outbox import Patience
from totalrecall.station.links.recipe_camera import RecipeCamera
from totalrecall.station.store.records import ANYBODY

paho = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt (pip install 'totalrecall[mqtt]')")
pytestmark = needs_mosquitto

SET, STATE = "totalrecall/recipe/set", "totalrecall/recipe"
RECIPES = """
[product."Ring 5 mm"]
model = "part"
false_alarm_rate = 0.3

[product.plain]
model = "other"

[product.filmed]
model = "part"
camera = "no-such-video.avi"
"""


@pytest.fixture(scope="module")
def places(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [Path(shutil.copy(fitted, folder / f"{name}.trecall")) for name in ("part", "other")]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "station").mkdir()
    (tmp_path / "station" / "recipes.toml").write_text(RECIPES)
    return tmp_path / "station"


class Control:
    """A client as a line's: chooses products, and hears of states and results."""

    def __init__(self, port: int) -> None:
        self.states: list[dict] = []
        self.results: list[dict] = []
        self.is_online, ready = threading.Event(), threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_connect = lambda client, *_: client.subscribe("totalrecall/#", 1)
        self.client.on_message = self._came
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert ready.wait(60)

    def _came(self, _client, _data, message) -> None:
        if message.topic == STATE:
            self.states.append({**json.loads(message.payload), "retained": bool(message.retain)})
        elif message.topic.endswith("/result"):
            self.results.append(json.loads(message.payload))
        elif message.topic.endswith("/status") and message.payload == b"online":
            self.is_online.set()

    def send(self, payload, topic=SET, **options) -> None:
        payload = json.dumps(payload) if isinstance(payload, dict) else payload
        self.client.publish(topic, payload, **{"qos": 1, **options}).wait_for_publish(60)

    def answer(self, request) -> dict:
        """The state that answers a message."""
        wait_until(lambda: any(state["request"] == request for state in self.states))
        return next(state for state in self.states if state["request"] == request)


@contextlib.contextmanager
def control(broker):
    client = Control(broker.port)
    try:
        yield client
    finally:
        client.client.disconnect()
        client.client.loop_stop()


@contextlib.contextmanager
def serving(broker, folder, places, *links):
    link = Mqtt(Broker.at(f"mqtt://127.0.0.1:{broker.port}"), patience=Patience(0.05, 0.5, 0.2))
    with control(broker) as client, started(folder, *places, links=[link, *links]) as (station, http):
        wait_until(client.is_online.is_set)
        yield client, station, http


def last_change(station):
    row = next(row for row in station.trail.rows(limit=100) if row.action == "recipe")
    return row.actor, row.role, row.subject, json.loads(row.details)


def test_a_product_is_chosen_and_the_state_is_retained(broker, folder, places):
    with serving(broker, folder, places) as (client, station, _):
        wait_until(lambda: client.states)
        assert client.states[-1] == {
            "product": None,
            "model": None,
            "false_alarm_rate": None,
            "products": ["Ring 5 mm", "plain", "filmed"],
            "fault": None,
            "request": None,
            "error": None,
            "retained": False,
        }
        client.send(" Ring 5 mm\n")  # as a shell sends it
        wait_until(lambda: client.states[-1]["product"] == "Ring 5 mm")
        assert (client.states[-1]["model"], client.states[-1]["false_alarm_rate"]) == ("part", 0.3)
        actor, role, subject, details = last_change(station)
        assert (actor, role, subject, "by" in details) == ("mqtt", "machine", "Ring 5 mm", False)
        client.send({"product": "plain", "id": "one", "by": "Anna, shift 2"})
        assert client.answer("one")["product"] == "plain"
        assert last_change(station)[3]["by"] == "Anna, shift 2"
        assert last_change(station)[3]["before"] == "Ring 5 mm"
        with control(broker) as late:  # who comes later hears of it
            wait_until(lambda: late.states)
            assert (late.states[0]["product"], late.states[0]["retained"]) == ("plain", True)
        client.send({"product": None, "id": "none"})
        assert client.answer("none")["product"] is None
        assert station.recipes.current is None


def test_a_refusal_tells_the_reason_and_the_product_stays(broker, folder, places, monkeypatch):
    with serving(broker, folder, places, RecipeCamera()) as (client, station, _):
        client.send({"product": "plain", "id": "begin"})
        client.answer("begin")
        rows = len(station.trail.rows(limit=100))
        for number, (message, words) in enumerate(
            [
                ({"product": "nothing"}, "product must be one of Ring 5 mm, plain, filmed, got 'nothing'."),
                ({"product": "filmed"}, "The camera of product 'filmed' cannot be used. A camera must be a number"),
                ({"product": "plain", "speed": 3}, "must have product, and may have id and by"),
                ({"product": 5}, "must be texts of at most 200 letters"),
                ({"product": "plain", "by": "x" * 201}, "must be texts of at most 200 letters"),
                ({"product": "plain", "by": "a\nb"}, "by must be printable"),
            ]
        ):
            client.send({**message, "id": str(number)})
            wait_until(lambda words=words: any(words in (state["error"] or "") for state in client.states))
        for message, words in (
            ("nothing", "got 'nothing'"),
            ("", "from 1 to 10,000 bytes, got 0"),  # so is a retained message taken away
            (b"\xff\xfe", "neither text in UTF-8 nor JSON"),
            ("{", "neither text in UTF-8 nor JSON"),
            ("{" + '"a":' * 2000, "neither text in UTF-8 nor JSON"),
            ("x" * 10_001, "got 10,001"),
            ("{}", "must have product"),
        ):
            client.states.clear()
            client.send(message)
            wait_until(lambda: client.states)
            assert words in client.states[-1]["error"]
            assert client.states[-1]["product"] == "plain"

        def refuse(*_):
            raise HistoryError("The disk is full.")

        with monkeypatch.context() as patched:
            patched.setattr(station.trail, "append_in", refuse)
            client.send({"product": "Ring 5 mm", "id": "full"})
            assert client.answer("full")["error"] == "The disk is full."
        assert len(station.trail.rows(limit=100)) == rows
        client.send({"product": "Ring 5 mm", "id": "end"})  # and it works on
        answer = client.answer("end")
        assert (answer["product"], answer["error"]) == ("Ring 5 mm", None)


def test_a_retained_message_changes_nothing(broker, folder, places, caplog):
    with control(broker) as client:
        client.send("plain", retain=True)
    with serving(broker, folder, places) as (client, station, _):
        wait_until(lambda: "A retained message on totalrecall/recipe/set is passed over" in caplog.text)
        client.send({"product": "Ring 5 mm", "id": "one"})
        client.answer("one")
        assert [row.subject for row in station.trail.rows(limit=100) if row.action == "recipe"] == ["Ring 5 mm"]


def test_pictures_around_a_change_are_judged_by_the_recipe_of_their_time(broker, folder, places):
    detector = load_detector(places[0])
    with serving(broker, folder, places) as (client, station, _):
        for number in range(12):  # pictures and changes by turns, as fast as the line can send them
            client.client.publish(SET, ("Ring 5 mm", "plain")[number % 2], qos=1)
            client.client.publish("totalrecall/part/trigger", good_picture(number), qos=1)
            client.client.publish("totalrecall/other/trigger", good_picture(number), qos=1)
        wait_until(lambda: len(client.results) == 24)
        told = sorted((one["model"], one["product"] or "", one["threshold"]) for one in client.results)
        strict = detector.judging(false_alarm_rate=0.3).threshold_
        expected = [("part", "Ring 5 mm", strict), ("part", "", detector.threshold_)]
        expected += [("other", "plain", detector.threshold_), ("other", "", detector.threshold_)]
        assert told == sorted(expected * 6)
        scores = {one["picture_sha256"]: one["score"] for one in client.results}
        assert sorted(scores.values()) == sorted(detector.predict(good_picture(n)).score for n in range(12))
        assert len(station.trail.rows(limit=100)) >= 12


def test_a_change_elsewhere_is_told_and_so_is_one_while_the_broker_was_away(broker, folder, places, caplog):
    caplog.set_level(logging.WARNING)
    with serving(broker, folder, places) as (client, station, http):
        http.post("/v1/recipes/select", json={"product": "plain"})
        wait_until(lambda: client.states and client.states[-1]["product"] == "plain")
        (folder / "recipes.toml").write_text(RECIPES + "[product.new]\nmodel = 'other'\n")
        station.recipes.look()
        wait_until(lambda: client.states[-1]["products"][-1] == "new")
        (folder / "recipes.toml").write_text(RECIPES + "[product.new]\n")
        station.recipes.look()
        wait_until(lambda: "model must be one of" in (client.states[-1]["fault"] or ""))
        assert client.states[-1]["product"] == "plain"
        broker.stop()
        wait_until(lambda: "disconnected" in caplog.text)
        assert any("disconnected" in fault for fault in station.faults())
        assert 'totalrecall_link_up{link="mqtt"} 0.0' in http.get("/metrics").text
        station.recipes.select("Ring 5 mm", ANYBODY)
        broker.start()
        with control(broker) as late:
            wait_until(lambda: late.states and late.states[-1]["product"] == "Ring 5 mm")
        wait_until(lambda: 'totalrecall_link_up{link="mqtt"} 1.0' in http.get("/metrics").text)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_mqtt_and_opc_ua_follow_each_other(broker, folder, places):
    asyncua = pytest.importorskip("asyncua", reason="needs asyncua (pip install 'totalrecall[opcua]')")
    from totalrecall.station.links.opcua import Endpoint, OpcUa
    from totalrecall.station.links.opcua_nodes import NAMESPACE

    link = OpcUa(Endpoint("127.0.0.1", free_port()))
    url = f"opc.tcp://127.0.0.1:{link._endpoint.port}/totalrecall"

    async def scenario(client, station):
        async with asyncua.Client(url, timeout=30) as plc:
            space = await plc.get_namespace_index(NAMESPACE)
            recipes = await plc.nodes.objects.get_child([f"{space}:VisionSystem", f"{space}:RecipeManagement"])
            active = await recipes.get_child(f"{space}:ActiveRecipe")

            async def shows(product):
                while await active.read_value() != product:
                    await asyncio.sleep(0.02)

            await asyncio.to_thread(client.send, "plain")
            await asyncio.wait_for(shows("plain"), 60)
            assert last_change(station)[:3] == ("mqtt", "machine", "plain")
            assert await recipes.call_method(f"{space}:PrepareRecipe", "Ring 5 mm") == [0, ""]
            await asyncio.to_thread(wait_until, lambda: client.states[-1]["product"] == "Ring 5 mm")
            assert last_change(station)[:3] == ("opcua", "machine", "Ring 5 mm")
            error, message = await recipes.call_method(f"{space}:PrepareRecipe", "filmed")
            assert error < 0
            assert "The camera of product 'filmed' cannot be used" in message
            assert await active.read_value() == "Ring 5 mm"
            await asyncio.to_thread(client.send, {"product": None})
            await asyncio.wait_for(shows(""), 60)  # of several none is chosen by itself

    with serving(broker, folder, places, link, RecipeCamera()) as (client, station, _):
        asyncio.run(scenario(client, station))
