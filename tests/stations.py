"""Stations for tests: one that is started in this process, with a client that calls its application."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from starlette.testclient import TestClient

from totalrecall.station.app import guarded
from totalrecall.station.settings import StationSettings
from totalrecall.station.station import Station

_OTHERS = (("links", ()), ("read_serial", None), ("judges", None))  # what a station is given beside its settings


@contextlib.contextmanager
def started(folder: Path, *models: Path, **settings) -> Iterator[tuple[Station, TestClient]]:
    """A station that runs, and a client on its loopback address."""
    links, read_serial, judges = (settings.pop(name, other) for name, other in _OTHERS)
    settings = StationSettings(models=models, folder=folder, watch_seconds=0, **settings)
    station = Station(settings, links, read_serial, judges)
    try:
        app = guarded(station)
        station.start()
        with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
            yield station, client
    finally:
        station.close()


@contextlib.contextmanager
def judging_held(station: Station) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Two events: the threads that judge wait for the first, and set the second when they begin to."""
    gate, entered = threading.Event(), threading.Event()
    original = station.shelf.get

    def held(name=None):
        entered.set()
        gate.wait(60)
        return original(name)

    station.inspector._model = held
    try:
        yield gate, entered
    finally:
        gate.set()
        station.inspector._model = original
