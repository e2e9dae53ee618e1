"""A stand-in for the Hugging Face hub on this machine: what huggingface_hub asks of it, and what can go wrong.

As the hub does, HEAD and GET of `/OWNER/REPO/resolve/REVISION/FILE` answer with a redirect to another host (`localhost`
beside `127.0.0.1`) and say commit, size and SHA-256 of the file in headers of their own; the bytes come from there,
whole or from where `Range` says.
"""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """The files that it has, every request that came, and the faults it is told to have."""

    def __init__(self):
        self.files = {}  # "OWNER/REPO/FILE" -> bytes
        self.requests = []  # (method, path, headers)
        self.status = None  # what HEAD answers instead, with the headers of `status_headers`
        self.status_headers = {}
        self.cuts = []  # of each GET of bytes in turn: after how many bytes the connection is closed
        self.ignores_range = False
        self.flips_a_bit = False
        self.stalls = None  # the beginning of the paths that are never answered
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def port(self):
        return self._server.server_address[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def close(self):
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def gets(self):
        """Return the `Range` of each request for bytes that came, None for the whole file."""
        return [headers.get("Range") for method, path, headers in self.requests if path.startswith("/bytes/")]

    def _handler(hub):  # noqa: N805  `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_HEAD(self):
                self._answer()

            def do_GET(self):
                self._answer()

            def _answer(self):
                path = re.sub(r"^http://[^/]+", "", self.path)  # as a proxy is asked
                hub.requests.append((self.command, path, dict(self.headers)))
                if hub.stalls and path.startswith(hub.stalls):
                    hub._released.wait(20)
                    self.close_connection = True
                elif hub.status is not None:
                    self._head(hub.status, {"Content-Length": "0", **hub.status_headers})
                elif path.startswith("/bytes/"):
                    self._bytes(hub.files[path.removeprefix("/bytes/")])
                else:
                    self._resolve(path)

            def _resolve(self, path):
                match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(main|v2|[0-9a-f]{40})/(.+)", path)
                key = match and f"{match[1]}/{match[3]}"
                if key not in hub.files:
                    self._head(404, {"X-Error-Code": "RepoNotFound", "Content-Length": "0"})
                    return
                headers = {
                    "X-Repo-Commit": COMMIT,
                    "X-Linked-Size": str(len(hub.files[key])),
                    "X-Linked-Etag": f'"{hashlib.sha256(hub.files[key]).hexdigest()}"',
                    "ETag": '"of-the-redirect"',
                    "Location": f"http://localhost:{hub.port}/bytes/{key}",
                    "Content-Length": "0",
                }
                self._head(302, headers)

            def _bytes(self, data):
                first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(first[1]) if first and not hub.ignores_range else 0
                part = bytearray(data[start:])
                if hub.flips_a_bit:
                    part[-1] ^= 1
                headers = {"Content-Length": str(len(part)), "Accept-Ranges": "bytes"}
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self._head(206 if start else 200, headers)
                cut = hub.cuts.pop(0) if hub.cuts else None
                self.wfile.write(part if cut is None else part[:cut])
                if cut is not None:
                    self.close_connection = True

            def _head(self, status, headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

        return Handler
