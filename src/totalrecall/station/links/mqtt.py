"""MQTT: pictures in by a trigger topic, inspections out by a result topic, and a last will.

    PREFIX/NAME/trigger   in   the bytes of a picture, or JSON: {"picture": "<base64>", "id", "serial", "line", "name"}
    PREFIX/NAME/result    out  every inspection of the model NAME as JSON, with the trigger's id as "request"
    PREFIX/status         out  "online", retained; "offline" by the last will
    PREFIX/recipe/set     in   the product that is made from now on (`mqtt_recipe.py`)
    PREFIX/recipe         out  the product that is made, retained

Results go through the outbox and are published with QoS 1, so none is lost while the broker is away. A trigger is
acknowledged once its inspection is committed: the broker sends it again if the process is killed before. One that comes
twice, by its id, is inspected once.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import queue
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from totalrecall.errors import BusyError, HistoryError, PictureError, SettingError, TotalRecallError
from totalrecall.station.access.policy import is_loopback
from totalrecall.station.judging.caption import Caption
from totalrecall.station.links.base import LOG, Changes, pause_before, submit_patiently
from totalrecall.station.links.credentials import Login
from totalrecall.station.links.ledger import MessageLedger
from totalrecall.station.links.mqtt_recipe import RecipeTopics
from totalrecall.station.links.outbox import Deliverer, Patience, put
from totalrecall.station.station import Link
from totalrecall.station.store.records import NOT_PRODUCTION

if TYPE_CHECKING:
    from totalrecall.station.station import Station
    from totalrecall.station.store.records import Inspection

__all__ = ["Broker", "Mqtt"]

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_WORKERS = 4  # triggers that are inspected at a time
_QUEUE = 16  # that wait for them; then the broker is no longer listened to
_PATIENCE = 20.0  # seconds of that: after more the broker would take us for dead
_KEEP_ALIVE = 60
_ANSWER = 10.0  # seconds that the broker may take to acknowledge a result
_LONGEST_ID = 200
_TEXTS = ("id", "serial", "line", "name")


@dataclass(frozen=True)
class Broker:
    """Where the broker is, and how it is talked to.

    Attributes:
        host: name or address.
        port: of TCP.
        login: name and password, or None.
        tls: how its certificate is checked; None for plain TCP.
    """

    host: str
    port: int
    login: Login | None = None
    tls: ssl.SSLContext | None = None

    @classmethod
    def at(
        cls,
        address: str,
        login: Login | None = None,
        *,
        authorities: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> "Broker":
        """Return the broker at an address.

        Args:
            address: mqtt://host[:port], or mqtts://host[:port] for TLS.
            login: name and password.
            authorities: file of the certificates that are trusted instead of the system's.
            certificate: file of our own certificate, for brokers that ask for one.
            key: file of its key.

        Raises:
            SettingError: the address or a file cannot be used.
        """
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise SettingError("--mqtt has a wrong port. Write mqtt://host:1883.") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise SettingError("--mqtt must be mqtt://host:port, or mqtts://host:port for TLS.")
        if parts.username is not None or parts.password is not None:
            raise SettingError("--mqtt may hold no name or password: everybody sees it. Use --mqtt-login FILE.")
        tls = None
        if parts.scheme == "mqtts":
            tls = _tls(authorities, certificate, key)
        elif authorities or certificate or key:
            raise SettingError("The certificates of --mqtt-ca and --mqtt-cert need TLS. Write mqtts:// in --mqtt.")
        return cls(parts.hostname, port or _PORTS[parts.scheme], login, tls)


@dataclass(frozen=True)
class _Trigger:
    """A message that asks for an inspection."""

    message: Any
    model: str
    topic: str
    came: float  # by time.monotonic: the recipe of that moment judges its picture


class Mqtt(Link):
    """A client of a broker.

    Args:
        broker: where it is.
        prefix: of all topics.
        client_id: by which the broker knows this station again; made of the station's folder if None.
        window: for which the id of a trigger is remembered.
        limit: of the bytes of a picture.
        patience: how often a result is tried.

    Raises:
        SettingError: the prefix cannot be a topic.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        prefix: str = "totalrecall",
        client_id: str | None = None,
        window: timedelta = timedelta(hours=1),
        limit: int = 64 << 20,
        patience: Patience | None = None,
    ) -> None:
        if not prefix.strip("/") or any(letter in "+#\0" or not letter.isprintable() for letter in prefix):
            raise SettingError(f"--mqtt-prefix must be a topic without + and #, got {prefix!r}. Usual: totalrecall.")
        self._broker, self._prefix, self._client_id = broker, prefix.strip("/"), client_id
        self._window, self._limit, self._patience = window, limit, patience
        self.name = "mqtt"
        self._changes = Changes()
        self._closing = threading.Event()
        self._triggers: queue.Queue[_Trigger] = queue.Queue(_QUEUE)
        self._workers: list[threading.Thread] = []
        self._deliverer: Deliverer | None = None
        self._recipe: RecipeTopics | None = None

    # ------------------------------------------------------------------ a link

    def body(self, inspection: "Inspection") -> dict[str, Any] | None:
        """Return the inspection; those that came by MQTT are laid into the outbox with their request."""
        if inspection.source in NOT_PRODUCTION or inspection.source == "mqtt":
            return None
        return {**inspection.to_json(), "request": None}

    def told(self, inspection: "Inspection") -> None:  # noqa: ARG002
        """Have the deliverer look into the outbox."""
        if self._deliverer is not None:
            self._deliverer.wake()

    @property
    def fault(self) -> str | None:
        """Why it is not connected, or results and triggers wait."""
        waits = None if self._deliverer is None else self._deliverer.fault
        return self._changes.said("broker") or self._changes.said("history") or waits

    def start(self, station: "Station") -> None:
        """Connect, and go on trying until it works."""
        import paho.mqtt.client as paho

        if self._broker.tls is None and not is_loopback(self._broker.host):
            LOG.warning("%s has no TLS: who listens on the way reads pictures and verdicts. Use mqtts://.", self.name)
        self._station = station
        self._ledger = MessageLedger(station.database, self._window)
        folder = hashlib.sha256(str(station.settings.folder.absolute()).encode("utf-8", "surrogatepass")).hexdigest()
        client = self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self._client_id or f"totalrecall-{folder[:10]}",
            clean_session=False,  # the broker keeps triggers while we are away
            manual_ack=True,
        )
        if self._broker.login is not None:
            client.username_pw_set(*self._broker.login)
        if self._broker.tls is not None:
            client.tls_set_context(self._broker.tls)
        client.will_set(self._status_topic, "offline", qos=1, retain=True)
        client.reconnect_delay_set(1, 30)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_message, client.on_connect_fail = self._came, self._unreachable
        self._workers = [
            threading.Thread(target=self._work, name=f"station-mqtt-{number}", daemon=True)
            for number in range(_WORKERS)
        ]
        for worker in self._workers:
            worker.start()
        self._deliverer = Deliverer(station.database, self.name, self._deliver, self._patience)
        self._recipe = RecipeTopics(self._prefix, station.recipes, self._retain)
        client.connect_async(self._broker.host, self._broker.port, _KEEP_ALIVE)
        client.loop_start()

    def close(self) -> None:
        """Finish the triggers in hand, say goodbye and stop."""
        self._closing.set()
        for worker in self._workers:
            worker.join()
        if self._deliverer is not None:
            self._deliverer.close()
        with contextlib.suppress(ValueError, RuntimeError):
            if self._client.is_connected():
                self._client.publish(self._status_topic, "offline", qos=1, retain=True).wait_for_publish(2.0)
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def _status_topic(self) -> str:
        return f"{self._prefix}/status"

    # ------------------------------------------------------------------ the connection; called by the client's thread

    def _connected(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._changes.say("broker", f"{self.name} refuses the connection: {reason}. It is tried again.")
            return
        self._changes.settled("broker", f"{self.name} is connected again.")
        client.subscribe([(f"{self._prefix}/+/trigger", 1), (f"{self._prefix}/recipe/set", 1)])
        client.publish(self._status_topic, "online", qos=1, retain=True)
        if self._recipe is not None:
            self._recipe.tell()
        if self._deliverer is not None:
            self._deliverer.wake()

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._closing.is_set():
            self._changes.say("broker", f"{self.name} is disconnected: {reason}. It is tried again.")

    def _unreachable(self, _client: Any, _data: Any) -> None:
        self._changes.say("broker", f"{self.name} cannot be reached. It is tried again.")

    def _retain(self, topic: str, payload: bytes) -> None:
        if self._client.is_connected():
            self._client.publish(topic, payload, qos=1, retain=True)

    def _came(self, client: Any, _data: Any, message: Any) -> None:
        """Change the product, or let a trigger wait for a worker; while all are busy the broker waits, too."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            client.ack(message.mid, message.qos)
            return
        trigger = _Trigger(message, topic[len(self._prefix) + 1 : -len("/trigger")], topic, time.monotonic())
        if self._recipe is not None and topic == self._recipe.set_topic:
            if not self._is_old(trigger):
                self._recipe.take(message.payload)
            self._acknowledge(trigger)
            return
        end = time.monotonic() + _PATIENCE
        while not self._closing.is_set():
            with contextlib.suppress(queue.Full):
                self._triggers.put(trigger, timeout=0.2)
                return
            if time.monotonic() > end:
                self._refuse(trigger, None, "Too many triggers wait. Send it again later.")
                return

    # ------------------------------------------------------------------ triggers

    def _work(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(queue.Empty):
                trigger = self._triggers.get(timeout=0.2)
                try:
                    self._take(trigger)
                except Exception as error:  # a fault of ours: the worker lives on, and the sender is told
                    self._refuse(trigger, None, f"unexpected {type(error).__name__}")

    def _take(self, trigger: _Trigger) -> None:
        message = trigger.message
        if self._is_old(trigger):
            self._acknowledge(trigger)
            return
        request: str | None = None
        try:
            picture, said = _asked(message.payload, self._limit)
            request = said.pop("id", None)
            self._station.shelf.get(trigger.model)
            if self._is_double(trigger, request):
                self._acknowledge(trigger)
                return
            caption = Caption(
                model=trigger.model,
                name=said.get("name") or request or "trigger",
                serial=said.get("serial"),
                line=said.get("line"),
                source="mqtt",
                taken=trigger.came,
            )
            self._inspect(trigger, request, picture, caption)
        except TotalRecallError as error:
            self._refuse(trigger, request, str(error))

    def _is_old(self, trigger: _Trigger) -> bool:
        """Tell whether a message is a retained one: it comes at every connection, whatever lies before the camera."""
        if trigger.message.retain:
            self._changes.say(
                trigger.topic, f"A retained message on {trigger.topic} is passed over. Send it without 'retain'."
            )
        return bool(trigger.message.retain)

    def _is_double(self, trigger: _Trigger, request: str | None) -> bool:
        """Tell whether a message was inspected already: by its id, or a repeated one without an id by its picture."""
        if request is not None:
            return self._ledger.inspected(trigger.topic, request)
        # subtle: two parts may give the same bytes; only what the broker sends again is the same part
        return bool(trigger.message.dup) and self._ledger.same_picture(trigger.model, trigger.message.payload)

    def _inspect(self, trigger: _Trigger, request: str | None, picture: bytes, caption: Caption) -> None:
        """Inspect a picture and acknowledge its trigger once that is committed.

        Raises:
            TotalRecallError: it is refused for good.
        """

        def also(connection: Connection, inspection: "Inspection") -> None:
            if request is not None:
                self._ledger.add(connection, inspection, trigger.topic, request)
            put(connection, inspection, self.name, {**inspection.to_json(), "request": request})

        submit = partial(self._station.submit, picture, caption, also)
        attempt = 0
        while not self._closing.is_set():
            waited = submit_patiently(submit, self._closing, passing=(BusyError,))
            if waited is None:
                return
            try:
                # inspected as unreadable; or the same message was inspected meanwhile
                with contextlib.suppress(PictureError, IntegrityError):
                    waited.result()
            except HistoryError as error:
                attempt += 1
                self._changes.say("history", f"A trigger of {self.name} waits: {error}")
                self._closing.wait(pause_before(attempt, 0.5, 30.0))
                continue
            self._changes.settled("history")
            self._acknowledge(trigger)
            if self._deliverer is not None:
                self._deliverer.wake()
            return

    def _refuse(self, trigger: _Trigger, request: str | None, reason: str) -> None:
        """Tell the sender why there is no inspection."""
        body = {"id": None, "request": request, "verdict": None, "error": reason}
        with contextlib.suppress(ValueError, RuntimeError):
            self._client.publish(f"{self._prefix}/{trigger.model}/result", json.dumps(body), qos=1)
        self._acknowledge(trigger)

    def _acknowledge(self, trigger: _Trigger) -> None:
        if trigger.message.qos:
            with contextlib.suppress(OSError):  # the connection is gone: it comes again, as one that is known
                self._client.ack(trigger.message.mid, trigger.message.qos)

    # ------------------------------------------------------------------ results

    def _deliver(self, body: dict[str, Any], _key: str) -> str | None:
        if not self._client.is_connected():
            return "it is not connected"
        payload = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        try:
            sent = self._client.publish(f"{self._prefix}/{body['model']}/result", payload, qos=1)
            sent.wait_for_publish(_ANSWER)
        except (ValueError, RuntimeError) as error:
            return str(error)
        return None if sent.is_published() else "it did not acknowledge in time"


def _asked(payload: bytes, limit: int) -> tuple[bytes, dict[str, str]]:
    """Return the picture of a trigger, and what else it says.

    Raises:
        SettingError: it is no trigger.
    """
    if payload.lstrip()[:1] != b"{":  # no format of a picture begins so
        _check_size(payload, limit)
        return bytes(payload), {}
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError):
        raise SettingError("The trigger begins as JSON and is none.") from None
    known = (*_TEXTS, "picture")
    if not isinstance(values.get("picture"), str) or set(values) - set(known):
        raise SettingError(f"The trigger must have a picture in base64, and may have {', '.join(_TEXTS)}.")
    said = {name: values[name] for name in _TEXTS if values.get(name) not in (None, "")}
    if not all(isinstance(text, str) for text in said.values()) or len(said.get("id", "")) > _LONGEST_ID:
        raise SettingError(f"{', '.join(_TEXTS)} of a trigger must be texts, and id of at most {_LONGEST_ID} letters.")
    try:
        picture = base64.b64decode(values["picture"], validate=True)
    except (binascii.Error, ValueError):
        raise SettingError("The trigger's picture is not base64.") from None
    _check_size(picture, limit)
    return picture, said


def _check_size(picture: bytes, limit: int) -> None:
    if not 0 < len(picture) <= limit:
        raise SettingError(f"A picture must have from 1 to {limit:,} bytes (--max-body), got {len(picture):,}.")


def _tls(authorities: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """Return how the broker's certificate is checked, and our own.

    Raises:
        SettingError: a file cannot be used.
    """
    if (certificate is None) != (key is None):
        raise SettingError("--mqtt-cert and --mqtt-key go together: name both files, or none.")
    try:
        context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(f"A certificate of --mqtt cannot be used: {reason}. PEM files are read.") from None
    return context
