"""Malformed requests to a station: does each get an answer below 500 (or 503), and does the station live on?

    pip install schemathesis
    python -m benchmarks.station_fuzz MODEL PICTURE [--count 10000] [--seed 1]

Half of the requests are made by schemathesis from the station's own OpenAPI document; the other half here, seeded, on
raw sockets: mutated pictures, forms, JSON and heads of requests, huge and repeated headers, names that are paths, wrong
lengths, bombs, connections that end early. Asserted: no answer of 500 or above but 503; the process lives; a picture
that is sent every thousand requests gets the score it had at the start; memory does not grow after the first thousand
by more than a tenth. In the history there is nothing but what was answered as an inspection, and the trail is whole.
"""

import argparse
import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from benchmarks.common import record
from benchmarks.fuzz import mutate

_SECONDS = 20.0  # for an answer
_PATIENCE = 0.5  # seconds before a request is taken for one without an end
_GROWTH = 1.1
Rng = np.random.Generator
_PATHS = (
    "/", "/v1", "/v1/models", "/v1/models/{}", "/v1/models/{}/predict", "/v1/models/{}/batch", "/v1/models/{}/jobs",
    "/v1/models/{}/reload", "/v1/inspections/{}", "/v1/jobs/{}", "/v2", "/v2/models/{}/infer", "/metrics", "/readyz",
    "/openapi.json", "/static/{}", "/login", "/v1/users", "/v1/tokens", "/history", "/v1/models/{}/golden",
)  # fmt: skip
_NAMES = (
    "..%2f..%2fetc%2fpasswd", "../../etc/passwd", "%00", "a" * 5000, "%ff%fe", "..\\..\\windows", "{}", "null", "-1",
    "0" * 32, "é", "%E2%80%AE", "con", "/dev/zero", "file:///etc/passwd", "bottle%0d%0aX: y", "' OR 1=1 --", "*",
)  # fmt: skip
_METHODS = ("GET", "POST", "POST", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "")


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="totalrecall-bench-") as temporary:
        folder = Path(temporary) / "station"
        server, port = _start(args.model, folder)
        try:
            row = _attack(args, server, port)
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(90)
        assert code == 0, code
        verified = subprocess.run([sys.executable, "-m", "totalrecall", "station", "verify", "--folder", str(folder)])
        assert verified.returncode == 0
        record("station_fuzz", [row])


def _start(model: Path, folder: Path) -> tuple["subprocess.Popen[str]", int]:
    words = ["serve", str(model), "--port", "0", "--folder", str(folder), "--max-body", "4MB", "--timeout", "3"]
    server = subprocess.Popen(
        [sys.executable, "-m", "totalrecall", *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert server.stdout is not None
    return server, int(re.search(r":(\d+) ", server.stdout.readline())[1])  # type: ignore[index]


def _attack(args: argparse.Namespace, server: "subprocess.Popen[str]", port: int) -> dict[str, object]:
    picture, name = args.picture.read_bytes(), args.model.stem
    score = _score(port, name, picture)
    process, memory = psutil.Process(server.pid), []
    statuses: Counter[int] = Counter()
    for number in range(args.count // 2):
        rng = np.random.default_rng([args.seed, number])
        request = _request(rng, name, picture)
        status = _send(port, request, rng)
        statuses[status] += 1
        assert status < 500 or status == 503, (number, status, request[:300])
        if number % 500 == 0:
            assert server.poll() is None, number
            assert _score(port, name, picture) == score
            memory.append(process.memory_info().rss >> 20)
            print(number, dict(statuses), f"{memory[-1]} MB", flush=True)
    before = _answers(port)
    _schemathesis(args, port)
    counted = _answers(port)
    counted.subtract(before)
    bad = {status: count for status, count in counted.items() if status >= 500 and status != 503 and count}
    assert not bad, bad
    assert _score(port, name, picture) == score
    memory.append(process.memory_info().rss >> 20)
    assert memory[-1] <= _GROWTH * memory[min(2, len(memory) - 1)], memory
    return {
        "requests": args.count // 2,
        "by_schemathesis": sum(counted.values()),
        "unanswered": statuses[0],  # the client had cut the connection, or the request had no end
        "refused": sum(count for status, count in statuses.items() if 400 <= status < 500),
        "fine": sum(count for status, count in statuses.items() if 200 <= status < 400),
        "busy": statuses[503],
        "memory_first_mb": memory[0],
        "memory_last_mb": memory[-1],
    }


def _score(port: int, name: str, picture: bytes) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    connection.request("POST", f"/v1/models/{name}/predict", picture, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert answer.status == 200, body
    return float(body["score"])


def _answers(port: int) -> Counter[int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = re.findall(r'totalrecall_http_requests_total\{method="\w+",status="(\d+)"\} ([\d.e+]+)', text)
    counts: Counter[int] = Counter()
    for status, count in found:
        counts[int(status)] += int(float(count))
    return counts


def _schemathesis(args: argparse.Namespace, port: int) -> None:
    """Let schemathesis send its half; it ends with 1 where the document and an answer do not fit, which it prints."""
    command = [
        "schemathesis", "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "not_a_server_error",
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(max(args.count // 60, 1)),
        "--seed", str(args.seed), "--continue-on-failure", "--suppress-health-check", "all", "--workers", "2",
        "--exclude-path-regex", "/v1/me|/v1/log|/v1/users|/v1/tokens|/log",  # a user of its own would lock it out
    ]  # fmt: skip
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run([str(program), *command[1:]], capture_output=True, text=True)
    print(done.stdout[-1500:], done.stderr[-500:])
    assert "Server error" not in done.stdout


# ---------------------------------------------------------------------- requests


def _request(rng: Rng, name: str, picture: bytes) -> bytes:
    makers: list[Callable[[Rng, str, bytes], bytes]] = [_picture, _form, _infer, _path, _head, _lengths, _noise]
    return makers[rng.integers(len(makers))](rng, name, picture)


def _written(method: str, path: str, headers: list[str], body: bytes = b"", *, length: bool = True) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def _picture(rng: Rng, name: str, picture: bytes) -> bytes:
    kind = str(rng.choice(["image/png", "image/jpeg", "application/octet-stream", "", "image/../x"]))
    query = str(rng.choice(["", "?serial=1", "?heatmap=true", "?serial=%00", "?serial=" + "x" * 300, "?heatmap=2"]))
    body = _bomb(rng) if rng.random() < 0.1 else mutate(picture, rng)
    return _written("POST", f"/v1/models/{name}/predict{query}", [f"Content-Type: {kind}"], body)


def _bomb(rng: Rng) -> bytes:
    """Return a small PNG that says it is 60,000 pixels wide and high."""
    head = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(bytes(int(rng.integers(1, 1 << 22))))
    chunks = (head, data, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(one[4:]).to_bytes(4, "big") + one + zlib.crc32(one).to_bytes(4, "big") for one in chunks
    )


def _form(rng: Rng, name: str, picture: bytes) -> bytes:
    parts = []
    for _ in range(int(rng.integers(0, 40))):
        field = str(rng.choice(["file", "serial", "line", "file[]", "", "__proto__", "file\u202e"]))
        filename = str(rng.choice(["", '; filename="a.png"', '; filename="../../x"', "; filename*=utf-8''%00"]))
        body = mutate(picture[:2000], rng) if rng.random() < 0.5 else b"7" * int(rng.integers(0, 9000))
        parts.append(
            f'--B\r\nContent-Disposition: form-data; name="{field}"{filename}\r\n\r\n'.encode() + body + b"\r\n"
        )
    whole = b"".join(parts) + b"--B--\r\n"
    if rng.random() < 0.5:
        whole = mutate(whole, rng)
    where = str(rng.choice(["predict", "batch", "jobs"]))
    kind = str(rng.choice(["multipart/form-data; boundary=B", "multipart/form-data", "multipart/form-data; boundary="]))
    return _written("POST", f"/v1/models/{name}/{where}", [f"Content-Type: {kind}"], whole)


def _infer(rng: Rng, name: str, picture: bytes) -> bytes:
    shape = [int(one) for one in rng.integers(-2, 9, rng.integers(0, 5))]
    data = rng.integers(-300, 300, 27).tolist() if rng.random() < 0.5 else [base64.b64encode(picture[:900]).decode()]
    head = {
        "id": str(rng.choice(["a", "\u0000", "x" * 2000])),
        "inputs": [
            {
                "name": str(rng.choice(["pixels", "picture", "x"])),
                "datatype": str(rng.choice(["UINT8", "BYTES", "FP32"])),
                "shape": shape,
                "data": data,
                "parameters": {"binary_data_size": int(rng.integers(-5, 99))} if rng.random() < 0.3 else {},
            }
        ],
        "outputs": [{"name": str(rng.choice(["score", "map", ""]))}] if rng.random() < 0.5 else [],
    }
    body = json.dumps(head).encode()
    if rng.random() < 0.5:
        body = mutate(body, rng)
    if rng.random() < 0.05:
        body = b"[" * 200_000
    headers = [f"Inference-Header-Content-Length: {int(rng.integers(-9, 900))}"] if rng.random() < 0.4 else []
    return _written("POST", f"/v2/models/{name}/infer", headers, body)


def _path(rng: Rng, name: str, picture: bytes) -> bytes:
    path = str(rng.choice(_PATHS)).replace("{}", str(rng.choice([*_NAMES, name])))
    query = str(rng.choice(["", "?", "?a=b&a=c", "?%", "?" + "q=1&" * 2000, "?before=x&limit=-1", "?since=0"]))
    return _written(str(rng.choice(_METHODS)), path + query, [], picture if rng.random() < 0.2 else b"")


def _head(rng: Rng, name: str, picture: bytes) -> bytes:
    odd = [
        "X: " + "y" * int(rng.integers(1, 90_000)),
        "Host: evil.example",
        "Origin: https://evil.example",
        "Sec-Fetch-Site: cross-site",
        "Authorization: Bearer " + "z" * int(rng.integers(0, 5000)),
        "Authorization: Basic Og==",
        "Cookie: " + "; ".join(f"a{number}={'v' * 50}" for number in range(int(rng.integers(1, 300)))),
        "Transfer-Encoding: chunked",
        "Content-Encoding: gzip",
        "Expect: 100-continue",
        "X-Forwarded-For: 10.0.0.1",
        "Accept: image/png",
        "Accept-Language: " + "de," * 900,
        "Range: bytes=0-",
        "Upgrade: websocket",
        "Connection: upgrade, close",
        "Bad Header",
        ": nothing",
        "A\tB: c",
    ]
    chosen = [odd[at] for at in rng.integers(0, len(odd), rng.integers(1, 8))]
    request = _written("POST", f"/v1/models/{name}/predict", chosen, picture, length=bool(rng.random() < 0.8))
    return mutate(request, rng) if rng.random() < 0.3 else request


def _lengths(rng: Rng, name: str, picture: bytes) -> bytes:
    said = str(rng.choice(["0", "-1", "99999999999999", "1e3", "+5", "5, 5", "", str(len(picture) + 1), "0x10"]))
    return _written("POST", f"/v1/models/{name}/predict", [f"Content-Length: {said}"], picture, length=False)


def _noise(rng: Rng, name: str, picture: bytes) -> bytes:
    if rng.random() < 0.5:
        return rng.bytes(int(rng.integers(1, 5000)))
    whole = _written("POST", f"/v1/models/{name}/predict", ["Content-Type: image/png"], picture)
    return whole[: int(rng.integers(1, len(whole)))]


def _send(port: int, request: bytes, rng: Rng) -> int:
    """Send bytes and return the answer's status; 0 where there is none, since the request has no end."""
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
        try:
            connection.sendall(request)
            if rng.random() < 0.05:
                return 0  # a client that goes away
            connection.settimeout(_PATIENCE)
            try:
                answer = connection.recv(64)
            except TimeoutError:  # the station waits for more: there is none
                connection.settimeout(_SECONDS)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(64)
        except (ConnectionError, BrokenPipeError):
            return 0
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main()
