"""Stations for tests: one that is started in this process, with a client that calls its application."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from starlette.testclient import TestClient

from totalrecall.station.app import build_app
from totalrecall.station.records import ANYBODY
from totalrecall.station.settings import StationSettings
from totalrecall.station.station import Station


@contextlib.contextmanager
def started(folder: Path, *models: Path, **settings) -> Iterator[tuple[Station, TestClient]]:
    """A station that runs, and a client on its loopback address."""
    links = settings.pop("links", ())
    station = Station(StationSettings(models=models, folder=folder, watch_seconds=0, **settings), links)
    try:
        app = _local(build_app(station))
        station.start()
        with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
            yield station, client
    finally:
        station.close()


def _local(app):
    """The application as on this machine, without users."""

    async def call(scope, receive, send):
        scope.setdefault("state", {})["actor"] = ANYBODY
        await app(scope, receive, send)

    return call
