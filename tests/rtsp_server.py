"""A camera in the network, for tests: RTSP (RFC 2326) that streams JPEGs (RFC 2435) within its connection."""

import contextlib
import itertools
import socket
import struct
import threading
import time

import cv2

_RATE = 25  # frames per second
_MOST = 1400  # bytes of a packet's picture data


class RtspServer:
    """Streams pictures by turns to whoever connects.

    Args:
        pictures: uint8 (h, w, 3), of one size, whose sides are multiples of 16.
        port: of TCP; any if 0.
    """

    def __init__(self, pictures, port: int = 0) -> None:
        self._jpegs = [_parts_of(cv2.imencode(".jpg", picture)[1].tobytes()) for picture in pictures]
        self._size = pictures[0].shape[1] // 8, pictures[0].shape[0] // 8
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self.is_frozen = threading.Event()  # connections stay, and no picture comes
        self._closing = threading.Event()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/belt"

    def close(self) -> None:
        self._closing.set()
        for connection in [self._server, *self._connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(30)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closing.is_set():
                connection, _ = self._server.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, IndexError), connection, connection.makefile("rb") as lines:
            while (first := lines.readline().split()) and first[0] != b"PLAY":
                self._answer(connection, first[0], _headers(lines))
            self._answer(connection, b"PLAY", _headers(lines))
            self._stream(connection)

    def _answer(self, connection: socket.socket, method: bytes, headers: dict[str, str]) -> None:
        text, body = "RTSP/1.0 200 OK\r\n" + f"CSeq: {headers['cseq']}\r\nSession: 1\r\n", ""
        if method == b"OPTIONS":
            text += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == b"DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=belt\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\n"
            body += f"c=IN IP4 0.0.0.0\r\na=framerate:{_RATE}\r\na=control:track\r\n"
            text += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == b"SETUP":
            text += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        connection.sendall((text + "\r\n" + body).encode())

    def _stream(self, connection: socket.socket) -> None:
        packet = itertools.count()
        for number in itertools.count():
            if self._closing.wait(1 / _RATE):
                return
            while self.is_frozen.is_set():
                time.sleep(0.02)
            tables, scan = self._jpegs[number % len(self._jpegs)]
            for at in range(0, len(scan), _MOST):
                head = struct.pack(">I", at) + bytes([1, 255, *self._size])  # 4:2:0, tables in the first packet
                if at == 0:
                    head += struct.pack(">BBH", 0, 0, len(tables)) + tables
                last = at + _MOST >= len(scan)
                stamp = number * (90_000 // _RATE)
                rtp = struct.pack(">BBHII", 0x80, 26 | last << 7, next(packet) & 0xFFFF, stamp & 0xFFFFFFFF, 1)
                data = rtp + head + scan[at : at + _MOST]
                connection.sendall(b"$\0" + struct.pack(">H", len(data)) + data)


def _headers(lines) -> dict[str, str]:
    headers = {}
    while line := lines.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers


def _parts_of(jpeg: bytes) -> tuple[bytes, bytes]:
    """The quantisation tables and the scan of a JPEG; its other tables are those of the standard."""
    tables, at = b"", 2
    while True:
        marker, length = struct.unpack(">xBH", jpeg[at : at + 4])
        segment = jpeg[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDB:
            tables += b"".join(segment[start + 1 : start + 65] for start in range(0, len(segment), 65))
        if marker == 0xDA:
            return tables, jpeg[at:-2]
