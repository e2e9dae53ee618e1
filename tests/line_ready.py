"""What stands at the other end of a line in tests: a receiver of webhooks, a broker; a station that can be killed."""

import contextlib
import datetime
import hashlib
import hmac
import ipaddress
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.records import Inspection

SECRET = b"a secret that both sides know"
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None, reason="needs mosquitto, an MQTT broker (apt install mosquitto)"
)


def wait_until(true: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for a condition; a test that waits in vain fails."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def copied(pictures: list[Path], folder: Path) -> list[str]:
    """Copy pictures into a folder, by names that tell where they were; returns the names."""
    for path in pictures:
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    return sorted(f"{path.parent.name}-{path.name}" for path in pictures)


def inspections_in(folder: Path) -> list[Inspection]:
    """All inspections in the history of a station's folder, the oldest first."""
    with contextlib.closing(Database(f"sqlite:///{folder / 'history.db'}", create=False)) as database:
        return History(database).find(limit=100_000)[::-1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# ---------------------------------------------------------------------- webhooks


class Receiver:
    """Takes webhooks as the docs tell receivers to, and remembers every try.

    Args:
        answers: status of the first tries; 200 for all that follow. None closes the connection without an answer.
        tls: folder of certificate and key.
        port: of TCP; any if 0.
    """

    def __init__(self, *answers: int | None, tls: Path | None = None, port: int = 0, location: str = "") -> None:
        self.tries: list[tuple[str, dict]] = []
        self.taken: dict[str, dict] = {}
        self.doubles = 0
        self._answers = list(answers)
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                payload = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver._take(dict(self.headers), payload)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                if status in range(300, 400):
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _take(self, headers: dict, payload: bytes) -> int | None:
        at, sent = (part.split("=", 1)[1] for part in headers["X-TotalRecall-Signature"].split(","))
        own = hmac.new(SECRET, at.encode() + b"." + payload, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(own, sent) or abs(time.time() - int(at)) > 300:
            return 401
        key = headers["Idempotency-Key"]
        assert headers["X-TotalRecall-Delivery"] == key
        with self._lock:
            self.tries.append((key, json.loads(payload)))
            status = self._answers.pop(0) if self._answers else 200
            if status == 200:
                self.doubles += key in self.taken
                self.taken[key] = json.loads(payload)
            return status

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def receiving(*answers: int | None, **options) -> Iterator[Receiver]:
    receiver = Receiver(*answers, **options)
    try:
        yield receiver
    finally:
        receiver.close()


def make_certificate(folder: Path, uri: str = "") -> Path:
    """Write cert.pem and key.pem, of 127.0.0.1, signed by itself; returns the folder."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names: list = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    if uri:
        names.append(x509.UniformResourceIdentifier(uri))
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


# ---------------------------------------------------------------------- a broker


class Mosquitto:
    """A broker on a port of its own.

    Args:
        folder: for its files.
        login: name and password that it asks for.
        tls: folder of its certificate and key.
    """

    def __init__(self, folder: Path, login: tuple[str, str] | None = None, tls: Path | None = None) -> None:
        self.port = free_port()
        lines = [f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {folder}/"]
        if os.geteuid() == 0:
            lines.append("user root")  # else it could not read the folder of the test
        if login is None:
            lines.append("allow_anonymous true")
        else:
            passwords = folder / "passwords"
            subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), *login], check=True, capture_output=True)
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        if tls is not None:
            lines += [f"certfile {tls / 'cert.pem'}", f"keyfile {tls / 'key.pem'}"]
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._listens, 30)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


# ---------------------------------------------------------------------- a station that can be killed


class Serving:
    """`totalrecall serve` as a process, that a test can kill.

    Args:
        arguments: of the command.
        environment: that is added.
    """

    def __init__(self, *arguments: object, **environment: str) -> None:
        source = Path(__file__).resolve().parents[1] / "src"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "totalrecall", "serve", *map(str, arguments), "--port", "0"],
            env={**os.environ, "PYTHONPATH": str(source), "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors: list[str] = []
        self.lines: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "Serving":
        try:
            self.wait_until_it_serves()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def wait_until_it_serves(self) -> None:
        def serves() -> bool:
            assert self.process.poll() is None, "".join(self.errors)
            return any("Serving" in line for line in [*self.lines, *self.errors])

        wait_until(serves)

    def kill(self) -> None:
        self.process.kill()
        self._end()

    def stop(self) -> int:
        self.process.terminate()
        return self._end()

    def _end(self) -> int:
        if self.process.stdout is None or self.process.stdout.closed:
            return self.process.wait(1)
        code = self.process.wait(120)
        for reader in self._readers:
            reader.join(30)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    @staticmethod
    def _read(stream, lines: list[str]) -> None:
        for line in stream:
            lines.append(line)  # noqa: PERF402  it is read by others meanwhile
