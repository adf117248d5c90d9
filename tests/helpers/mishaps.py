"""What networks do to answers: they come late, break off, are reset, or say that the server is busy."""

import socket
import struct
import threading
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

from tests.helpers.web import Exchange

_OF_THE_CONNECTION = {"connection", "transfer_encoding", "server", "date"}


class Mishaps:
    """Answers requests, each by what is due next in a row of mishaps; "" is none. Only GET suffers."""

    def __init__(self, *mishaps: str) -> None:
        self.mishaps, self.calls = mishaps, 0
        self.met: set[str] = set()  # mishaps that happened
        self.lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        with self.lock:
            mishap = self.mishaps[self.calls % len(self.mishaps)] if self.mishaps else ""
            if exchange.command == "GET":
                self.calls += 1
                self.met.add(mishap)
        if exchange.command != "GET" or not mishap:
            self.serve(exchange)
        elif mishap == "503":
            exchange.answer(503, b"busy")
        elif mishap == "reset":
            exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            exchange.connection.close()
            exchange.wfile = exchange.rfile = _Gone()
        elif mishap == "late":
            time.sleep(0.02)
            self.serve(exchange)
        elif mishap == "cut":
            self.serve(exchange, share=0.5)
        else:
            raise ValueError(mishap)

    def serve(self, exchange: Exchange, share: float = 1.0) -> None:
        """Answer as asked; of the body only the first ``share``."""
        raise NotImplementedError


class _Gone:
    """What is left of a connection that was reset."""

    closed = True

    def flush(self) -> None: ...

    def close(self) -> None: ...


class FaultyFile(Mishaps):
    """A file that can be read in parts."""

    def __init__(self, body: bytes, *mishaps: str) -> None:
        super().__init__(*mishaps)
        self.body = body

    def serve(self, exchange: Exchange, share: float = 1.0) -> None:
        asked = (exchange.headers.get("Range") or "").removeprefix("bytes=")
        start, stop = 0, len(self.body)
        if asked:
            first, _, last = asked.partition("-")
            start, stop = int(first), min(int(last) + 1, stop)
        length = stop - start
        headers = {"Content_Length": length, "Accept_Ranges": "bytes", "Content_Type": "application/x-tar"}
        if asked:
            headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(self.body)}"
        exchange.begin(206 if asked else 200, **headers)
        if exchange.command != "HEAD":
            exchange.send(self.body[start : start + int(length * share)])


class FaultyProxy(Mishaps):
    """Another server's answers, whatever the path."""

    def __init__(self, url: str, *mishaps: str) -> None:
        super().__init__(*mishaps)
        self._place = urlsplit(url).netloc

    def get(self, _path: str) -> "FaultyProxy":
        """What ``tests.helpers.web.Server.answers`` is asked."""
        return self

    def serve(self, exchange: Exchange, share: float = 1.0) -> None:
        upstream = HTTPConnection(self._place, timeout=30)
        try:
            upstream.request(exchange.command, exchange.path, headers=dict(exchange.headers))
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        of_the_connection = {"connection", "transfer-encoding", "server", "date"}
        headers = {name.replace("-", "_"): text for name, text in answer.headers.items()}
        headers = {
            name: text for name, text in headers.items() if name.replace("_", "-").lower() not in of_the_connection
        }
        if exchange.command != "HEAD":
            headers["Content_Length"] = str(len(body))
        exchange.begin(answer.status, **headers)
        if exchange.command != "HEAD":
            exchange.send(body[: int(len(body) * share)])
