"""connections: what a client writes on the wire, answered by uvicorn and the guard together as in a station."""

import asyncio
import contextlib
import gc
import json
import logging
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter

import pytest
from fastapi import FastAPI, Response

from tests.station_access import PASSWORD, make_certificate, open_users, with_roles
from tests.station_clients import guarded, served
from totalrecall.station.access import connections
from totalrecall.station.access.log_lines import SparingFilter, sparing_logs
from totalrecall.station.access.policy import Policy
from totalrecall.station.store.records import ANYBODY

PREDICT = b"/v1/models/bottle/predict"


@pytest.fixture(scope="module")
def station():
    """The address of a station without users, whose limits are small."""
    policy = Policy(max_body=1000, timeout=0.5, slowest=1000)
    with served(guarded(None, policy), policy) as address:
        yield address


@contextlib.contextmanager
def connected(address):
    with socket.create_connection(address, timeout=20) as connection:
        yield connection


def read(connection):
    """Return all that comes until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def ask(address, *lines, body=b""):
    """Send a head and a body, and return the status and the text of the answer."""
    with connected(address) as connection:
        connection.sendall(b"\r\n".join([*lines, b"Connection: close", b"", body]))
        answer = read(connection)
    return int(re.match(rb"HTTP/1\.1 (\d+)", answer)[1]), answer.decode("latin-1")


class Wire:
    """A transport that remembers what it is told."""

    def __init__(self):
        self.told = []

    def write(self, data):
        self.told.append(bytes(data))

    def close(self):
        self.told.append("closed")


def test_head_and_body_of_an_answer_go_in_one_piece_and_large_bodies_do_not_gather():
    async def told():
        wire = Wire()
        joined = connections._Gathering(wire, asyncio.get_running_loop())
        for piece in (b"head", b"", b"body"):
            joined.write(piece)
        assert wire.told == []
        await asyncio.sleep(0)
        assert wire.told == [b"headbody"]
        joined.write(b"head")
        joined.write(b"x" * connections._TOGETHER)
        assert wire.told[1:] == [b"head", b"x" * connections._TOGETHER]
        joined.write(b"the end")
        joined.close()
        await asyncio.sleep(0)
        return wire.told[3:]

    assert asyncio.run(told()) == [b"the end", "closed"]


def test_a_plain_request_is_answered(station):
    status, text = ask(station, b"GET /v1/me HTTP/1.1", b"Host: localhost")
    assert status == 200
    assert '"who":"local"' in text
    assert "server:" not in text.lower()


@pytest.mark.parametrize(
    "lines",
    [
        [b"GET /v1/me HTTP/1.1", b"Host: localhost", b"Host: evil.example"],
        [b"GET /v1/me HTTP/1.1", b"Host: localhost", b"Host: localhost"],
        [b"GET /v1/me HTTP/1.1"],
        [b"GET /v1/me HTTP/1.0"],
        [b"GET http://evil.example/v1/me HTTP/1.1", b"Host: localhost"],
        [b"GET http://localhost/v1/me HTTP/1.1", b"Host: localhost"],
        [b"GET //evil.example/v1/me HTTP/1.1", b"Host: localhost"],
        [b"GET evil.example:80 HTTP/1.1", b"Host: localhost"],
        [b"OPTIONS * HTTP/1.1", b"Host: localhost"],
        [b"CONNECT evil.example:443 HTTP/1.1", b"Host: localhost"],
        [b"POST " + PREDICT + b" HTTP/1.1", b"Host: localhost", b"Content-Length: 5", b"Content-Length: 0"],
        [b"POST " + PREDICT + b" HTTP/1.1", b"Host: localhost", b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"POST " + PREDICT + b" HTTP/1.1", b"Host: localhost", b"Content-Length: -1"],
        [b"POST " + PREDICT + b" HTTP/1.1", b"Host: localhost", b"Transfer-Encoding: chunked, identity"],
        [b"GET /v1/me HTTP/1.1", b"Host: localhost", b"X : y"],
        [b"GET /v1/me HTTP/1.1", b" Host: localhost"],
        [b"GET /v1/me HTTP/1.1\x00", b"Host: localhost"],
        [b"\x16\x03\x01\x02\x00\x01\x00\x01"],
    ],
)
def test_a_head_that_two_programs_may_read_in_two_ways_is_refused(station, lines):
    status, text = ask(station, *lines, body=b"5\r\nhello\r\n0\r\n\r\n")
    assert status in (400, 501)
    assert "who" not in text


def test_a_head_of_a_megabyte_is_refused_before_it_is_read_whole(station):
    with connected(station) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        sent = 0
        while sent < 64 << 20:
            connection.sendall(b"x" * 65536)
            sent += 65536
    assert sent < 16 << 20  # what the kernel's buffers take


def test_a_body_in_chunks_without_a_length_ends_at_the_limit(station):
    head = [b"POST " + PREDICT + b" HTTP/1.1", b"Host: localhost", b"Transfer-Encoding: chunked"]
    status, text = ask(station, *head, body=b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n")
    assert (status, '"bytes":1000' in text) == (200, True)
    status, text = ask(station, *head, body=(b"c8\r\n" + b"x" * 200 + b"\r\n") * 50 + b"0\r\n\r\n")
    assert status == 413
    assert "at most 1,000 bytes" in text


def test_an_endless_body_that_nobody_reads_ends_with_the_connection(station, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    with connected(station) as connection, contextlib.suppress(ConnectionError, TimeoutError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2000):
            connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            time.sleep(0.005)
        raise AssertionError("the connection is still open")


def test_a_body_that_comes_drop_by_drop_is_given_up(station):
    with connected(station) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"POST " + PREDICT + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.05)
        raise AssertionError("the connection is still open")
    with connected(station) as connection:
        connection.sendall(b"POST " + PREDICT + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nxxx")
        answer = read(connection)  # and of one that stops, too
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"3 bytes so far" in answer


def test_a_head_that_comes_drop_by_drop_or_not_at_all_is_given_up(station, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    with connected(station) as connection:
        assert read(connection) == b""
    with connected(station) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\n")
        for number in range(200):
            connection.sendall(b"X-%d: y\r\n" % number)
            time.sleep(0.02)
        raise AssertionError("the connection is still open")


def test_a_request_that_takes_long_to_answer_is_not_given_up(monkeypatch):
    """The deadline is for the head, not for the work; and a connection serves several requests."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    app = FastAPI()

    @app.get("/v1/models")
    async def slow() -> str:
        await asyncio.sleep(0.8)
        return "done"

    policy = Policy()
    with served(guarded(None, policy, app), policy) as address, connected(address) as connection:
        for _ in range(2):
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"done"'):
                part = connection.recv(65536)
                assert part, "the connection was closed"
                answer += part


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch):
    monkeypatch.setattr(connections, "READ_SECONDS", 0.3)
    given_up, lost = threading.Event(), connections.PatientProtocol.connection_lost
    monkeypatch.setattr(
        connections.PatientProtocol, "connection_lost", lambda *arguments: (lost(*arguments), given_up.set())
    )
    app = FastAPI()

    @app.get("/v1/models")
    async def large() -> Response:
        return Response(b"x" * (64 << 20))

    policy = Policy()
    with served(guarded(None, policy, app), policy) as address, connected(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert given_up.wait(60)
        assert len(read(connection)) < 64 << 20
    monkeypatch.setattr(connections, "READ_SECONDS", 60.0)  # on a busy machine who reads may pause, too
    with served(guarded(None, policy, app), policy) as address, connected(address) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert len(read(connection)) > 64 << 20  # who reads gets it whole


def test_what_programs_of_this_computer_claim_of_their_address_is_not_believed(tmp_path):
    """uvicorn by itself believes X-Forwarded-For from the loopback: each guess could claim another address."""
    policy = Policy()
    with open_users(tmp_path) as users:
        guard = guarded(with_roles(users), policy)
        with served(guard, policy) as address:
            statuses = []
            for number in range(7):
                body = json.dumps({"name": "operators-name", "password": "wrong"}).encode()
                head = [
                    b"POST /v1/login HTTP/1.1",
                    b"Host: localhost",
                    b"Content-Type: application/json",
                    b"X-Forwarded-For: 9.9.9.%d" % number,
                    b"Content-Length: %d" % len(body),
                ]
                statuses.append(ask(address, *head, body=body)[0])
    assert statuses[0] == 401
    assert statuses[-1] == 429


def test_the_event_loop_goes_on_while_passwords_are_checked(tmp_path):
    """Ten logins with the hash of a real station; meanwhile another request is answered before them."""
    from totalrecall.station.access.passwords import PasswordHasher

    policy, body = Policy(), json.dumps({"name": "operators-name", "password": "wrong"}).encode()
    with open_users(tmp_path) as users:
        with_roles(users)
        users._hasher = PasswordHasher()
        users.set_password("operators-name", PASSWORD, ANYBODY)
        with served(guarded(users, policy), policy) as address, contextlib.ExitStack() as stack:
            head = b"POST /v1/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            logins = [stack.enter_context(connected(address)) for _ in range(5)]
            for connection in logins:
                connection.sendall(head + body)
            assert ask(address, b"GET /healthz HTTP/1.1", b"Host: localhost")[0] == 200
            logins[-1].setblocking(False)
            with pytest.raises(BlockingIOError):
                logins[-1].recv(1)  # the last login still waits
            for connection in logins:
                connection.setblocking(True)
                assert read(connection).startswith(b"HTTP/1.1 401 ")


def test_tls_is_spoken_with_the_files_and_nothing_is_served_without(tmp_path):
    certificate, key = tmp_path / "station.crt", tmp_path / "station.key"
    make_certificate(certificate, key)
    policy = Policy(tls=(certificate, key))
    context = ssl.create_default_context(cafile=str(certificate))
    with served(guarded(None, policy), policy) as address:
        with connected(address) as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
            connection.sendall(b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = read(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"strict-transport-security: max-age=31536000" in answer
        with connected(address) as plain:
            plain.sendall(b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" not in read(plain)


def test_a_server_that_stops_waits_for_no_goodbye_of_tls(tmp_path):
    certificate, key = tmp_path / "station.crt", tmp_path / "station.key"
    make_certificate(certificate, key)
    policy = Policy(tls=(certificate, key))
    context = ssl.create_default_context(cafile=str(certificate))
    before = set(threading.enumerate())
    with contextlib.ExitStack() as clients:
        with served(guarded(None, policy), policy) as address:
            server = next(thread for thread in threading.enumerate() if thread not in before and "run" in thread.name)
            plain = clients.enter_context(connected(address))
            idle = clients.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            idle.sendall(b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(65536).startswith(b"HTTP/1.1 200 ")
            clients.enter_context(connected(address))  # it never shakes hands
        assert not server.is_alive()  # `served` waits 20 s; without an end of our own it would take a minute


def test_a_connection_that_the_client_resets_leaves_nothing_in_memory(station):
    for _ in range(5):
        with connected(station) as connection:
            connection.sendall(b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(4) == b"HTTP"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset

    def left():
        gc.collect()
        return sum(isinstance(one, connections.PatientProtocol) for one in gc.get_objects())

    end = time.monotonic() + 10  # a connection that is kept alive is let go after 15 s
    while left() and time.monotonic() < end:
        time.sleep(0.1)
    assert left() == 0


# ---------------------------------------------------------------------- how many an address may have


HERE, THERE = "127.0.0.1", "127.0.0.2"  # two addresses of this computer
ASK = b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def opened_from(source, address):
    return socket.create_connection(address, timeout=20, source_address=(source, 0))


def asked_from(source, address, request=ASK):
    """Send a request from an address, and return the answer."""
    with opened_from(source, address) as connection:
        connection.sendall(request)
        return read(connection)


@contextlib.contextmanager
def silent(source, address, count):
    """Connections that send nothing."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(opened_from(source, address)) for _ in range(count)]


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")
def test_an_address_with_too_many_connections_is_refused_and_others_are_not():
    policy = Policy(connections=3)
    with served(guarded(None, policy), policy) as address, silent(THERE, address, 3) as held:
        for request in (ASK, b"", b"x" * 30_000):
            head, _, body = asked_from(THERE, address, request).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 Service Unavailable")
            assert b"retry-after: 5" in head
            assert json.loads(body)["detail"].startswith("This address has too many connections open")
        assert asked_from(HERE, address).startswith(b"HTTP/1.1 200")
        held[0].close()
        until(lambda: asked_from(THERE, address).startswith(b"HTTP/1.1 200"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")
def test_a_thousand_silent_connections_of_an_address_keep_nobody_else_out():
    policy = Policy()
    with served(guarded(None, policy), policy) as address, silent(THERE, address, policy.connections) as held:
        for _ in range(1000):
            opened_from(THERE, address).close()
        assert b" 503 " in asked_from(THERE, address)
        assert asked_from(HERE, address).startswith(b"HTTP/1.1 200")
        for connection in held:
            connection.close()
        until(lambda: asked_from(THERE, address).startswith(b"HTTP/1.1 200"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")
def test_connections_that_never_shake_hands_are_closed_far_beyond_the_limit(tmp_path):
    pair = (tmp_path / "a.crt", tmp_path / "a.key")
    make_certificate(*pair)
    policy = Policy(connections=2, tls=pair)
    most = policy.connections + connections.MOST_REFUSED
    context = ssl.create_default_context(cafile=str(pair[0]))
    with served(guarded(None, policy), policy) as address, silent(THERE, address, most):
        assert asked_from(THERE, address, b"") == b""  # closed before the handshake
        with opened_from(HERE, address) as raw, context.wrap_socket(raw, server_hostname="localhost") as connection:
            connection.sendall(ASK)
            assert read(connection).startswith(b"HTTP/1.1 200")


def test_a_trusted_proxy_has_no_limit_and_nor_has_anybody_with_0():
    for policy in (Policy(connections=1, proxies=(HERE,)), Policy(connections=0)):
        with served(guarded(None, policy), policy) as address, silent(HERE, address, 20):
            assert b" 503 " not in asked_from(HERE, address)


def test_addresses_of_one_ipv6_network_count_together_and_are_forgotten():
    refusals = []
    addresses = connections.Addresses(2, count=refusals.append)
    counted = [addresses.begin(f"2001:db8::{number}") for number in range(3)]
    assert counted == ["2001:db8::/64", "2001:db8::/64", None]
    assert refusals == ["address"]
    assert addresses.begin("2001:db8:0:1::1") == "2001:db8:0:1::/64"
    addresses.end("2001:db8::/64")
    assert addresses.begin("2001:db8::9") == "2001:db8::/64"
    assert addresses.begin("") == ""  # a socket file


# ---------------------------------------------------------------------- lines of the log


def test_an_answer_to_head_has_no_body_and_the_head_of_the_page(station):
    heads = []
    for method in (b"GET", b"HEAD"):
        status, text = ask(station, method + b" /v1/me HTTP/1.1", b"Host: localhost")
        assert status == 200
        head, _, body = text.partition("\r\n\r\n")
        assert (body == "") is (method == b"HEAD")
        heads.append([line for line in head.splitlines() if not line.startswith("date:")])
    assert heads[0] == heads[1]
    assert ask(station, b"HEAD " + PREDICT + b" HTTP/1.1", b"Host: localhost")[0] == 405


def test_what_is_no_http_gets_a_problem(station):
    for line in (b"GARBAGE", b"GET /v1/me", b"\x16\x03\x01 tls"):
        status, text = ask(station, line, b"Host: localhost")
        assert (status, "application/problem+json" in text) == (400, True)
        assert json.loads(text.partition("\r\n\r\n")[2])["title"] == "Bad Request"


def test_what_is_no_http_is_counted_and_told_once_a_minute(station, caplog):
    counted = Counter()
    with sparing_logs(lambda reason: counted.update([reason])), caplog.at_level(logging.INFO):
        for _ in range(30):
            status, _ = ask(station, b"GARBAGE")
            assert status == 400
        for _ in range(20):
            upgrade = b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: close, upgrade\r\n\r\n"
            assert asked_from(HERE, station, upgrade).startswith(b"HTTP/1.1 200")
    assert counted == {"no HTTP": 30, "upgrade": 20}
    told = [record.getMessage() for record in caplog.records if record.name == "uvicorn.error"]
    assert told == ["Invalid HTTP request received.", "Unsupported upgrade request."]


def test_a_line_a_minute_says_how_many_were_left_out():
    now, counted = [0.0], Counter()
    sparing = SparingFilter(lambda reason: counted.update([reason]), clock=lambda: now[0])

    def line(text):
        record = logging.LogRecord("asyncio", logging.ERROR, __file__, 1, text, (), None)
        return record.getMessage() if sparing.filter(record) else None

    first = [line("Fatal\nprotocol: 1"), line("Fatal\nprotocol: 2"), line("Another")]
    assert first == ["Fatal\nprotocol: 1", None, "Another"]
    now[0] = 61.0
    assert line("Fatal") == "Fatal (1 more since the last line)"
    now[0] = 130.0
    assert line("Fatal") == "Fatal"
    assert counted == {"other": 5}
    assert sum(line(f"kind {number}") is not None for number in range(1000)) == 100 - 2 + 1
