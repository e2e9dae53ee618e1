"""For tests of who may call what: a small application behind the guard, its clients, and a server on a socket."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from tests.station_access import PASSWORD
from totalrecall.station.access.guard import Guard
from totalrecall.station.access.permissions import PERMISSIONS
from totalrecall.station.access.policy import Policy, limited, server_options
from totalrecall.station.access.users import Users
from totalrecall.station.web.api_users import user_routes
from totalrecall.station.web.problems import add_problems

HERE = "http://127.0.0.1:8000"
ELSEWHERE = "https://evil.example"
PREDICT = "/v1/models/bottle/predict"


def small_app(users: Users | None = None) -> FastAPI:
    """Return an application with every route of the table, each of which says who called."""
    app = FastAPI(openapi_url=None)  # the row of the table gets a route as all others
    add_problems(app)
    if users is not None:
        app.include_router(user_routes(users))

    async def who(request: Request) -> dict[str, object]:
        body = await request.body()
        actor = request.state.actor
        return {"who": actor and actor.name, "role": actor and actor.role, "bytes": len(body)}

    for method, path in PERMISSIONS:
        app.add_api_route(path, who, methods=[method])
    return app


def client_of(app, *, address: str = "127.0.0.1", base: str = HERE, **headers: str) -> TestClient:
    """Return a client; its headers are those of a program, which sends neither Origin nor Sec-Fetch-Site."""

    async def from_there(scope, receive, send):
        await app({**scope, "client": (address, 50000)} if scope["type"] == "http" else scope, receive, send)

    return TestClient(from_there, base_url=base, headers=headers, follow_redirects=False)


def guarded(users: Users | None, policy: Policy | None = None, app: FastAPI | None = None) -> Guard:
    """Return an application behind the guard."""
    return Guard(app or small_app(users), policy=policy or Policy(), users=users)


def logged_in(guard: Guard, name: str, password: str = PASSWORD) -> TestClient:
    """Return a client that has logged in and sends the hidden text of its session with each request."""
    client = client_of(guard)
    answer = client.post("/v1/login", json={"name": name, "password": password})
    assert answer.status_code == 200, answer.text
    client.headers["X-CSRF-Token"] = answer.json()["csrf"]
    return client


@contextlib.contextmanager
def served(app: object, policy: Policy, host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """Serve an application by uvicorn as a station does; gives the address."""
    listener = limited(socket.create_server((host, 0)), policy)
    options = server_options(policy)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
